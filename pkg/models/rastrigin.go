package models

import (
	"math"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// Rastrigin is E(x) = a·dim + Σᵢ xᵢ² − a cos(2π xᵢ), a bowl with a local minimum near every point of the integer grid
// (Rastrigin 1974; TorchEBM's RastriginModel).
type Rastrigin struct {
	analytic
	a     float64
	facts Facts
}

// NewRastrigin makes a Rastrigin bowl; a must be 0 or more.
func NewRastrigin(dim int, a float64) (*Rastrigin, error) {
	var f faults
	f.dim(dim, 1)
	if !(a >= 0) || math.IsInf(a, 1) {
		f.add("a", "%g, want 0 or more", a)
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	e := &Rastrigin{analytic: analytic{"rastrigin", dim}, a: a}
	var law *marginal
	if m, ok := integrate(func(x float64) float64 { return x*x + a*(1-math.Cos(2*math.Pi*x)) }); ok {
		m.mean = 0 // by symmetry
		law = &m
	}
	e.facts = product(dim, []float64{0}, 0, law, nil)
	return e, nil
}

// Energy builds E(x), [batch].
func (e *Rastrigin) Energy(x *Node, _ []*Node) *Node {
	e.check(x)
	// One period suffices; without the reduction float32 loses 2π·x·2⁻²⁴ of the angle, and minima their zero gradient.
	turn := Sub(x, StopGradient(Round(x)))
	terms := Sub(Square(x), MulScalar(Cos(MulScalar(turn, 2*math.Pi)), e.a))
	return AddScalar(ReduceSum(terms, -1), e.a*float64(e.dim))
}

// Known gives the minimum, mean, variance and log Z (quadrature).
func (e *Rastrigin) Known() Facts { return e.facts.clone() }
