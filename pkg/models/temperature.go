package models

import (
	"fmt"
	"math"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// AtTemperature is the energy E/τ, whose law exp(−E/τ) is that of E at temperature tau, a positive number. The parameters
// are those of e, and what e says of itself as a [Coupled], [GradientOnly] or [Preparer] holds for the result.
func AtTemperature(e Energy, tau float64) Energy {
	if !(tau > 0) || math.IsInf(tau, 1) {
		panic(fmt.Errorf("models: temperature %g, want a positive number", tau))
	}
	return like(e, tempered{e, tau})
}

type tempered struct {
	e   Energy
	tau float64
}

func (t tempered) Dim() int        { return t.e.Dim() }
func (t tempered) Params() []Param { return t.e.Params() }
func (t tempered) Coupled() bool   { return IsCoupled(t.e) }

func (t tempered) Energy(x *Node, weights []*Node) *Node { return t.Prepare(weights)(x) }

func (t tempered) Prepare(weights []*Node) Fn {
	energy := At(t.e, weights)
	return func(x *Node) *Node { return DivScalar(energy(x), t.tau) }
}

// like is outer, an energy made of inner, and [GradientOnly] where inner is. That interface is a mark, so that a type which
// passes it on cannot have the method where there is nothing to pass on.
func like(inner Energy, outer wrapper) Energy {
	if g, ok := inner.(GradientOnly); ok {
		return gradientWrapper{outer, g.GradientOnly()}
	}
	return outer
}

// wrapper is what an energy that is made of another one passes on.
type wrapper interface {
	Energy
	Preparer
	Coupled
}

type gradientWrapper struct {
	wrapper
	value string
}

func (g gradientWrapper) GradientOnly() string { return g.value }
