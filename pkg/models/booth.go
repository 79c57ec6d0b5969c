package models

import (
	"math"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// Booth is E(x) = (x₁ + 2x₂ − 7)² + (2x₁ + x₂ − 5)² in the plane (TorchEBM's BoothModel): a Gaussian about (1, 3) with
// precision [[10, 8], [8, 10]].
type Booth struct{ analytic }

// NewBooth makes the energy; dim must be 2.
func NewBooth(dim int) (*Booth, error) {
	if dim != 2 {
		var f faults
		f.add("dim", "%d, want 2", dim)
		return nil, f.err()
	}
	return &Booth{analytic{"booth", 2}}, nil
}

// Energy builds E(x), [batch].
func (e *Booth) Energy(x *Node, _ []*Node) *Node {
	e.check(x)
	x1, x2 := coordinate(x, 0), coordinate(x, 1)
	return Add(
		Square(AddScalar(Add(x1, MulScalar(x2, 2)), -7)),
		Square(AddScalar(Add(MulScalar(x1, 2), x2), -5)))
}

// Known gives everything, in closed form.
func (e *Booth) Known() Facts {
	return Facts{
		Minima: [][]float64{{1, 3}}, MinEnergy: new(0.0), Mean: []float64{1, 3}, Variance: []float64{10. / 36, 10. / 36},
		LogZ: new(math.Log(math.Pi / 3)), Modes: [][]float64{{1, 3}}, Weights: []float64{1},
	}
}
