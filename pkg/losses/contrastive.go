// Package losses builds the training losses as graphs. Each takes the energy as a function and gives a scalar to
// differentiate:
//
//	terms := losses.Contrastive{Energy: net, Penalty: 1e-4}.Build(positives, negatives)
//	gradient := graph.Gradient(terms.Loss, weights...)
//
// Where negatives come from (the data, a replay buffer, the target rung of a tempered ensemble) is the caller's
// business: contrastive divergence, persistent CD and parallel-tempering CD are one loss over different chains.
package losses

import (
	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// EnergyFn builds an energy or a log density: x [batch, dim] → [batch].
type EnergyFn func(x *Node) *Node

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
}

// Terms are the parts of a contrastive loss, scalars.
type Terms struct {
	Loss      *Node // what is differentiated
	Positives *Node // mean E(x⁺)
	Negatives *Node // mean E(x⁻)
	Penalty   *Node // weighted penalty
}

// Build makes the loss of positives [n, dim] and negatives [m, dim], which are held constant.
func (c Contrastive) Build(positives, negatives *Node) Terms {
	n := positives.Shape().Dimensions[0]
	m := negatives.Shape().Dimensions[0]
	both := StopGradient(Concatenate([]*Node{positives, negatives}, 0)) // one pass of the network instead of two
	f := c.Energy(both)
	up, down := Slice(f, AxisRange(0, n)), Slice(f, AxisRange(n, n+m))
	// A weighted sum instead of two means of slices: a slice has no second derivative in GoMLX v0.26, and this has.
	g := f.Graph()
	side := Concatenate([]*Node{
		BroadcastToDims(Scalar(g, f.DType(), 1/float64(n)), n),
		BroadcastToDims(Scalar(g, f.DType(), -1/float64(m)), m)}, 0)
	loss := ReduceAllSum(Mul(f, side))
	terms := Terms{Positives: ReduceAllMean(StopGradient(up)), Negatives: ReduceAllMean(StopGradient(down)), Penalty: ScalarZero(g, f.DType())}
	if c.Penalty > 0 {
		terms.Penalty = MulScalar(ReduceAllSum(Mul(Square(f), Abs(side))), c.Penalty)
		loss = Add(loss, terms.Penalty)
	}
	if c.Base != nil {
		basePositives, baseNegatives := ReduceAllMean(c.Base(positives)), ReduceAllMean(c.Base(negatives))
		terms.Positives = Sub(terms.Positives, basePositives)
		terms.Negatives = Sub(terms.Negatives, baseNegatives)
		loss = Add(loss, StopGradient(Sub(baseNegatives, basePositives)))
	}
	terms.Loss = loss
	return terms
}
