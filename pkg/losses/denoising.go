package losses

import (
	"math"

	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

// DenoisingScoreMatching is the loss mean ½‖∇E(x + σz) − z/σ‖² with z ~ N(0, I), whose optimum is the energy of the data
// with that noise (Vincent 2011). A field f stands for ∇E.
//
// With many noise levels each row draws its own. The energy is not told which: its optimum is −log of the mixture of the
// noisy laws, all levels alike. One energy for all levels is after Li, Chen and Sommer 2019, whose target is another one,
// with one fixed σ in it.
type DenoisingScoreMatching struct {
	Sigma schedules.Schedule // σ over the training steps, for one noise level

	// Levels is the number of noise levels from SigmaMax down to SigmaMin in geometric progression; 0 for Sigma.
	Levels             int
	SigmaMin, SigmaMax float64

	// Weighted multiplies the loss of a row by its σ², which makes it of order 1 at any noise. Among many levels the mixture
	// then has their σ² for weights, so that the large ones swamp the small ones: the weights are those of Song and Ermon
	// 2019, whose network knows the level.
	Weighted bool
	Penalties
}

// Needs implements [Loss].
func (l DenoisingScoreMatching) Needs(batch, dim int) Needs {
	n := Needs{Draws: []Draw{{Name: "noise", Dims: []int{batch, dim}}}}
	if l.Levels > 0 {
		n.Draws = append(n.Draws, Draw{Name: "level", Uniform: true, Dims: []int{batch}})
	} else {
		n.Scalars = []Setting{{"sigma", l.Sigma}}
	}
	return n
}

// Build implements [Loss].
func (l DenoisingScoreMatching) Build(m Model, in Batch) Result {
	z := in.Draws[0]
	var sigma *Node // a scalar, or [batch, 1]
	if l.Levels > 0 {
		sigma = column(l.level(in.Draws[1]))
	} else {
		sigma = in.Scalars[0]
	}
	slope := m.at(Add(in.X, Mul(z, sigma)), nil, in.Labels).slope
	var residual *Node
	if l.Weighted {
		residual = Sub(Mul(slope, sigma), z)
	} else {
		residual = Sub(slope, Div(z, sigma))
	}
	loss := MulScalar(ReduceAllMean(rowSum(Square(residual))), 0.5)
	return l.Add(m, in, Result{Loss: loss})
}

// level is the noise level of a uniform number.
func (l DenoisingScoreMatching) level(u *Node) *Node {
	k := MinScalar(Floor(MulScalar(u, float64(l.Levels))), float64(l.Levels-1)) // u may round to 1
	step := math.Log(l.SigmaMin/l.SigmaMax) / float64(l.Levels-1)
	return MulScalar(Exp(MulScalar(k, step)), l.SigmaMax)
}
