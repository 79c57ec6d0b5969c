package models

import (
	"fmt"
	"slices"
	"strings"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// FieldEnergies are the ways to make an energy of a field f at time 0 and without a label: dot (or mean, another word for
// it) is E = x·f(x), l2 is E = −½|f(x)|².
func FieldEnergies() []string { return []string{"dot", "mean", "l2"} }

// EqMEnergy is the energy of a field, as equilibrium matching trains it (Wang and Du 2025): its gradient is that of the
// formula, by differentiating through the field. See [FieldEnergies].
type EqMEnergy struct {
	field Field
	kind  string
}

// NewEqMEnergy makes the energy of a field.
func NewEqMEnergy(field Field, kind string) (*EqMEnergy, error) {
	if !slices.Contains(FieldEnergies(), kind) {
		return nil, fmt.Errorf("energy: %q, want one of %s", kind, strings.Join(FieldEnergies(), ", "))
	}
	return &EqMEnergy{field, kind}, nil
}

// Dim is the number of coordinates of a state.
func (e *EqMEnergy) Dim() int { return e.field.Dim() }

// Params lists the parameters of the field. At f = 0 the energy −½|f|² has no slope in any weight and would never learn, so
// under l2 a last layer that starts at 0 starts as Xavier's instead.
func (e *EqMEnergy) Params() []Param {
	params := slices.Clone(e.field.Params())
	if e.kind != "l2" {
		return params
	}
	for i, p := range slices.Backward(params) {
		if len(p.Shape) == 2 { // [out, in], the last matrix
			params[i].Init = notZero(p.Init)
			break
		}
	}
	return params
}

// notZero is a rule for the first weights [out, in] of a layer that gives Xavier's where the given one gives zeros.
func notZero(rule Init) Init {
	return func(shape []int, stream *Stream) []float64 {
		values := rule(shape, stream)
		if slices.ContainsFunc(values, func(v float64) bool { return v != 0 }) {
			return values
		}
		return xavierInit(shape[1], shape[0])(shape, stream)
	}
}

// Field is the field that the energy is made of.
func (e *EqMEnergy) Field() Field { return e.field }

// Energy builds E(x), [batch].
func (e *EqMEnergy) Energy(x *Node, weights []*Node) *Node {
	return FieldEnergy(e.kind, x, e.field.Field(x, nil, nil, weights))
}

// FieldEnergy builds the energy [batch] of a kind of [FieldEnergies], of states x and a field's values f at them, both
// [batch, dim], for a loss that has the field at hand.
func FieldEnergy(kind string, x, f *Node) *Node {
	switch kind {
	case "dot", "mean":
		return ReduceSum(Mul(x, f), -1)
	case "l2":
		return MulScalar(ReduceSum(Square(f), -1), -0.5)
	}
	panic(fmt.Errorf("models: energy of a field: %q, want one of %s", kind, strings.Join(FieldEnergies(), ", ")))
}

// GradientOnly marks an energy whose value is not the potential of its gradient. Kernels that follow the gradient alone
// may use it; one that accepts or rejects by the energy must refuse it, for it would compare the wrong numbers.
type GradientOnly interface {
	Energy
	// GradientOnly says what the value is instead.
	GradientOnly() string
}

// ImplicitEqM reads a field f as the gradient of an energy that nobody knows: ∂E/∂x is f(x) at time 0 and without a label,
// to any order of further derivatives, while the value x·f(x) is only for looking at.
type ImplicitEqM struct{ field Field }

// NewImplicitEqM makes the gradient-only energy of a field.
func NewImplicitEqM(field Field) *ImplicitEqM { return &ImplicitEqM{field} }

// Dim is the number of coordinates of a state.
func (e *ImplicitEqM) Dim() int { return e.field.Dim() }

// Params lists the parameters of the field.
func (e *ImplicitEqM) Params() []Param { return e.field.Params() }

// GradientOnly implements [GradientOnly].
func (e *ImplicitEqM) GradientOnly() string { return "x·f(x) of a field f" }

// Energy builds the value x·f(x), [batch], with f(x) as its gradient and none in the weights.
func (e *ImplicitEqM) Energy(x *Node, weights []*Node) *Node {
	f := e.field.Field(x, nil, nil, weights)
	carrier := IdentityWithCustomGradient(x, func(_, v *Node) *Node { return Mul(v, f) })
	sum := ReduceSum(carrier, -1) // its gradient is f
	return Add(sum, StopGradient(Sub(FieldEnergy("dot", x, f), sum)))
}
