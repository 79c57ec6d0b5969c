package losses

import (
	"fmt"
	"math"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// SlicedScoreMatching is the loss mean ½(v·∇E)² − vᵀ∇²E v over rows and random directions v of unit covariance, whose
// expectation is that of [ScoreMatching] (Song, Garg, Shi and Ermon 2019). A field f stands for ∇E.
type SlicedScoreMatching struct {
	Projections    int    // directions a row
	ProjectionType string // law of v: rademacher, gaussian, or sphere, of length √dim
	// VarianceReduced replaces the first term by its expectation ½‖∇E‖² (SSM-VR).
	VarianceReduced bool
	Penalties
}

// Needs implements [Loss].
func (l SlicedScoreMatching) Needs(batch, dim int) Needs {
	return Needs{Draws: []Draw{{Name: "projections", Dims: []int{l.Projections, batch, dim}}}}
}

// Build implements [Loss].
func (l SlicedScoreMatching) Build(m Model, in Batch) Result {
	s := m.at(in.X, nil, in.Labels)
	v := directions(in.Draws[0], l.ProjectionType)
	var half *Node // ½ Σₖ (vₖ·∇E)², or its expectation
	if l.VarianceReduced {
		half = MulScalar(rowSum(Square(s.slope)), 0.5*float64(l.Projections))
	} else {
		along := ReduceSum(Mul(v, InsertAxes(s.slope, 0)), -1)
		half = MulScalar(ReduceSum(Square(along), 0), 0.5)
	}
	loss := ReduceAllMean(Sub(half, m.curvatures(in, s, v)))
	return l.Penalties.addAt(s, m, in, Result{Loss: DivScalar(loss, float64(l.Projections))})
}

// directions turns standard normals z [k, batch, dim] into directions with unit covariance.
func directions(z *Node, law string) *Node {
	switch law {
	case "gaussian":
		return z
	case "rademacher":
		one := OnesLike(z)
		return Where(GreaterOrEqual(z, ZerosLike(z)), one, Neg(one)) // Sign would give 0 at 0
	case "sphere":
		dim := float64(z.Shape().Dimensions[2])
		length := Sqrt(ReduceAndKeep(Square(z), ReduceSum, -1))
		return MulScalar(Div(z, length), math.Sqrt(dim))
	}
	panic(fmt.Errorf("losses: directions %q, want rademacher, gaussian or sphere", law))
}
