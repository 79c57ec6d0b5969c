package models

import . "github.com/gomlx/gomlx/pkg/core/graph"

// DoubleWell is E(x) = h Σᵢ (xᵢ² − b²)²: 2^dim minima at xᵢ = ±b, and a barrier of h·b⁴ a coordinate between them
// (TorchEBM's DoubleWellModel, where h is called barrier_height).
type DoubleWell struct {
	analytic
	h, b  float64
	facts Facts
}

// NewDoubleWell makes a double well; h must be positive.
func NewDoubleWell(dim int, h, b float64) (*DoubleWell, error) {
	var f faults
	f.dim(dim, 1)
	f.positive("h", h)
	f.finite("b", b)
	if err := f.err(); err != nil {
		return nil, err
	}
	e := &DoubleWell{analytic: analytic{"double_well", dim}, h: h, b: b}
	minima := []float64{-b, b}
	if b < 0 {
		minima = []float64{b, -b}
	} else if b == 0 {
		minima = []float64{0}
	}
	var law *marginal
	if m, ok := integrate(func(x float64) float64 { d := x*x - b*b; return h * d * d }); ok {
		m.mean, m.above = 0, 0.5 // by symmetry
		law = &m
	}
	e.facts = product(dim, minima, 0, law, minima)
	return e, nil
}

// Energy builds E(x), [batch].
func (e *DoubleWell) Energy(x *Node, _ []*Node) *Node {
	e.check(x)
	return MulScalar(ReduceSum(Square(AddScalar(Square(x), -e.b*e.b)), -1), e.h)
}

// Known gives minima, mean, variance and log Z (quadrature).
func (e *DoubleWell) Known() Facts { return e.facts.clone() }
