package models

import . "github.com/gomlx/gomlx/pkg/core/graph"

// Himmelblau is E(x) = (x₁² + x₂ − 11)² + (x₁ + x₂² − 7)², four equal minima in the plane (Himmelblau 1972; TorchEBM's
// HimmelblauModel).
type Himmelblau struct{ analytic }

// NewHimmelblau makes the energy; dim must be 2.
func NewHimmelblau(dim int) (*Himmelblau, error) {
	if dim != 2 {
		var f faults
		f.add("dim", "%d, want 2", dim)
		return nil, f.err()
	}
	return &Himmelblau{analytic{"himmelblau", 2}}, nil
}

// Energy builds E(x), [batch].
func (e *Himmelblau) Energy(x *Node, _ []*Node) *Node {
	e.check(x)
	x1, x2 := coordinate(x, 0), coordinate(x, 1)
	return Add(
		Square(AddScalar(Add(Square(x1), x2), -11)),
		Square(AddScalar(Add(x1, Square(x2)), -7)))
}

// Known gives the minima (roots, to the last digit) and the law (quadrature in the plane; a test repeats it).
func (e *Himmelblau) Known() Facts {
	minima := func() [][]float64 {
		return [][]float64{
			{3, 2},
			{-2.805118086952745, 3.131312518250573},
			{-3.779310253377747, -3.2831859912861696},
			{3.5844283403304917, -1.8481265269644034},
		}
	}
	return Facts{
		Minima: minima(), MinEnergy: new(0.0),
		Mean: []float64{0.8421557324387, 0.3028361809737}, Variance: []float64{9.968488987775, 6.013471818253},
		LogZ: new(-0.8986792122712), Modes: minima(),
	}
}
