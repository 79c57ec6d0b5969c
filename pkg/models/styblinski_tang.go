package models

import . "github.com/gomlx/gomlx/pkg/core/graph"

// StyblinskiTang is E(x) = ½ Σᵢ xᵢ⁴ − 16xᵢ² + 5xᵢ (Styblinski and Tang 1990; TorchEBM's StyblinskiTangModel): two wells a
// coordinate, one 28 units deeper than the other.
type StyblinskiTang struct {
	analytic
	facts Facts
}

// NewStyblinskiTang makes the energy.
func NewStyblinskiTang(dim int) (*StyblinskiTang, error) {
	var f faults
	f.dim(dim, 1)
	if err := f.err(); err != nil {
		return nil, err
	}
	e := &StyblinskiTang{analytic: analytic{"styblinski_tang", dim}}
	var law *marginal
	if m, ok := integrate(func(x float64) float64 { return (x*x*(x*x-16) + 5*x) / 2 }); ok {
		law = &m
	}
	e.facts = product(dim, []float64{-2.903534027771177}, -39.16616570377141, law, nil)
	return e, nil
}

// Energy builds E(x), [batch].
func (e *StyblinskiTang) Energy(x *Node, _ []*Node) *Node {
	e.check(x)
	square := Square(x)
	terms := Add(Mul(square, AddScalar(square, -16)), MulScalar(x, 5))
	return MulScalar(ReduceSum(terms, -1), 0.5)
}

// Known gives the minimum, mean, variance and log Z (quadrature).
func (e *StyblinskiTang) Known() Facts { return e.facts.clone() }
