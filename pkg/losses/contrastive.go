// Package losses builds the training losses as graphs. Each takes the model as a function and gives a scalar to
// differentiate:
//
//	terms := losses.Contrastive{Energy: net, Penalty: 1e-4}.Build(positives, negatives)
//	gradient := graph.Gradient(terms.Loss, weights...)
//
// Where negatives come from (the data, a replay buffer, the target rung of a tempered ensemble) is the caller's
// business: contrastive divergence, persistent CD and parallel-tempering CD are one loss over different chains.
//
// The losses that learn from the data alone implement [Loss], which says what a step needs beside the data:
//
//	loss := losses.SlicedScoreMatching{Projections: 5, ProjectionType: "rademacher"}
//	needs := loss.Needs(batch, dim) // here: one array of normal numbers [5, batch, dim]
//	result := loss.Build(losses.Model{Energy: net}, losses.Batch{X: rows, Draws: draws})
//	gradient := graph.Gradient(result.Loss, weights...)
//
// [Config] is the `loss` section of an experiment and [Kinds] describes what it can name. Score losses and contrastive
// divergence sum over coordinates, flow and equilibrium matching take means, as in the papers: a learning rate does not
// carry over from one to the other as the dimension grows.
package losses

import (
	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// EnergyFn builds an energy or a log density: x [batch, dim] → [batch].
type EnergyFn = models.Fn

// Contrastive is the contrastive-divergence loss mean E(x⁺) − mean E(x⁻), whose gradient in θ is that of the negative
// log-likelihood when the negatives come from the model (Hinton 2002; Tieleman 2008 with persistent chains; Desjardins
// et al. 2010 with tempered ones).
type Contrastive struct {
	// Energy is the trained network f_θ.
	Energy EnergyFn
	// Base is the log density of the fixed base, E = f − Base; nil for E = f. It adds nothing to the gradient, but to the
	// value, which then is a difference of energies of the whole model.
	Base EnergyFn
	// Penalty weighs mean f(x⁺)² + mean f(x⁻)² (Du and Mordatch 2019).
	Penalty float64
	// GradientPenalty weighs mean ‖∇E(x⁺)‖².
	GradientPenalty float64
	// Weights replaces the mean over the negatives by Σ w f(x⁻), in the penalty of energies too: [m], not negative, of sum 1,
	// held constant. Nil is the mean, 1/m each. PositiveWeights, [n], does so for the positives, everywhere.
	//
	// Everything is linear in the weights: what slices of the rows give with their part of the weights each, whose sum then is
	// less than 1, adds up to the loss, its terms and its gradient.
	Weights, PositiveWeights *Node
}

// Terms are the parts of a contrastive loss, scalars.
type Terms struct {
	Loss      *Node // what is differentiated
	Positives *Node // mean E(x⁺)
	Negatives *Node // mean E(x⁻), weighted by Weights
	Penalty   *Node // weighted penalties, of energies and of gradients
}

// Build makes the loss of positives [n, dim] and negatives [m, dim], which are held constant.
func (c Contrastive) Build(positives, negatives *Node) Terms {
	n := positives.Shape().Dimensions[0]
	m := negatives.Shape().Dimensions[0]
	both := StopGradient(Concatenate([]*Node{positives, negatives}, 0)) // one pass of the network instead of two
	f := c.Energy(both)
	up, down := Slice(f, AxisRange(0, n)), Slice(f, AxisRange(n, n+m))
	// A weighted sum instead of two means of slices: a slice has no second derivative in GoMLX v0.26, and this has.
	plus, mean := averageOf(f, n, c.PositiveWeights)
	minus, meanDown := averageOf(f, m, c.Weights)
	side := Concatenate([]*Node{plus, Neg(minus)}, 0)
	loss := ReduceAllSum(Mul(f, side))
	terms := Terms{Positives: mean(StopGradient(up)), Negatives: meanDown(StopGradient(down)), Penalty: ScalarZero(f.Graph(), f.DType())}
	if c.Penalty > 0 {
		terms.Penalty = MulScalar(ReduceAllSum(Mul(Square(f), Abs(side))), c.Penalty)
		loss = Add(loss, terms.Penalty)
	}
	if c.GradientPenalty > 0 {
		slope := Model{Energy: c.whole}.at(positives, nil, nil).slope
		penalty := MulScalar(mean(rowSum(Square(slope))), c.GradientPenalty)
		terms.Penalty, loss = Add(terms.Penalty, penalty), Add(loss, penalty)
	}
	if c.Base != nil {
		basePositives, baseNegatives := mean(c.Base(positives)), meanDown(c.Base(negatives))
		terms.Positives = Sub(terms.Positives, basePositives)
		terms.Negatives = Sub(terms.Negatives, baseNegatives)
		loss = Add(loss, StopGradient(Sub(baseNegatives, basePositives)))
	}
	terms.Loss = loss
	return terms
}

// averageOf is an average over n rows and the weights that it has, [n], held constant; nil weights are those of the mean.
func averageOf(like *Node, n int, weights *Node) (each *Node, average func(v *Node) *Node) {
	if weights == nil {
		return BroadcastToDims(Scalar(like.Graph(), like.DType(), 1/float64(n)), n), ReduceAllMean
	}
	weights = StopGradient(weights)
	return weights, func(v *Node) *Node { return ReduceAllSum(Mul(v, weights)) }
}

// whole is the energy E = f − Base.
func (c Contrastive) whole(x *Node) *Node {
	if c.Base == nil {
		return c.Energy(x)
	}
	return Sub(c.Energy(x), c.Base(x))
}
