package models

import (
	"math"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// Harmonic is E(x) = ½ k Σᵢ xᵢ², a Gaussian with variance 1/k (TorchEBM's HarmonicModel).
type Harmonic struct {
	analytic
	k float64
}

// NewHarmonic makes a harmonic well; k must be positive.
func NewHarmonic(dim int, k float64) (*Harmonic, error) {
	var f faults
	f.dim(dim, 1)
	f.positive("k", k)
	if err := f.err(); err != nil {
		return nil, err
	}
	return &Harmonic{analytic{"harmonic", dim}, k}, nil
}

// Energy builds E(x), [batch].
func (e *Harmonic) Energy(x *Node, _ []*Node) *Node {
	e.check(x)
	return MulScalar(ReduceSum(Square(x), -1), e.k/2)
}

// Known gives everything, in closed form.
func (e *Harmonic) Known() Facts {
	zero := repeat(0, e.dim)
	return Facts{
		Minima: [][]float64{zero}, MinEnergy: new(0.0), Mean: repeat(0, e.dim), Variance: repeat(1/e.k, e.dim),
		LogZ: new(0.5 * float64(e.dim) * math.Log(2*math.Pi/e.k)), Modes: [][]float64{repeat(0, e.dim)}, Weights: []float64{1},
	}
}
