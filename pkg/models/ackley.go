package models

import (
	"math"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// Ackley is E(x) = −a exp(−b r) − exp(mean cos(c xᵢ)) + a + e with r = √(mean xᵢ²): a funnel with ripples (Ackley 1987;
// TorchEBM's AckleyModel). It is bounded, so exp(−E) has no normaliser: sample it in a box or on a tempered path only.
type Ackley struct {
	analytic
	a, b, c float64
}

// NewAckley makes an Ackley funnel; a and b must be positive.
func NewAckley(dim int, a, b, c float64) (*Ackley, error) {
	var f faults
	f.dim(dim, 1)
	f.positive("a", a)
	f.positive("b", b)
	f.finite("c", c)
	if err := f.err(); err != nil {
		return nil, err
	}
	return &Ackley{analytic{"ackley", dim}, a, b, c}, nil
}

// Energy builds E(x), [batch]. E has a kink at the origin, where the gradient is defined as 0.
func (e *Ackley) Energy(x *Node, _ []*Node) *Node {
	e.check(x)
	funnel := MulScalar(Exp(MulScalar(safeSqrt(ReduceMean(Square(x), -1)), -e.b)), -e.a)
	ripple := Neg(Exp(ReduceMean(Cos(MulScalar(x, e.c)), -1)))
	return AddScalar(Add(funnel, ripple), e.a+math.E)
}

// safeSqrt is √m for m ≥ 0 with derivative 0, of every order, at 0. Both branches of the Where must be finite: the
// gradient of the branch that is not taken is multiplied by 0.
func safeSqrt(m *Node) *Node {
	positive := GreaterThan(m, ZerosLike(m))
	return Where(positive, Sqrt(Where(positive, m, OnesLike(m))), ZerosLike(m))
}

// Known gives the minimum.
func (e *Ackley) Known() Facts {
	return Facts{Minima: [][]float64{repeat(0, e.dim)}, MinEnergy: new(0.0)}
}
