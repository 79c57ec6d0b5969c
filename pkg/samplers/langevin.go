package samplers

import (
	"math"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// Langevin is the unadjusted Langevin algorithm, x ← x + ε∇log π_β(x) + s√(2ε)z (Parisi 1981; Roberts and Tweedie
// 1996). Its stationary law is biased: on N(0, 1) with s = 1 the variance is 1/(1 − ε/2).
type Langevin struct {
	Scale *Node       // s, a scalar; nil = 1. s² is the temperature
	Clamp *[2]float64 // bounds of every coordinate after each step, which change the law, see Box; nil = none
	// Heun takes the mean of the gradients at x and at x + ε∇log π_β(x) as the drift, with the same noise, for one gradient
	// more. It follows the gradient flow to second order; the stationary law is biased all the same.
	Heun bool
	// Implicit, if not 0, takes the gradient at the end of the drift, y = x + ε∇log π_β(y), by that many evaluations of a
	// fixed-point iteration (backward Euler). It converges where ε times the curvature is below 1. Not with Heun.
	Implicit int
}

// implicitRounds is the number of evaluations of Langevin.Implicit in a Config, that of TorchEBM.
const implicitRounds = 8

// NeedsUniform is false: every step is taken.
func (Langevin) NeedsUniform() bool { return false }

// Gradients is 1, that of the next state, and those on the way to the drift.
func (k Langevin) Gradients() int {
	if k.Heun {
		return 2
	}
	return max(1, k.Implicit)
}

// Step moves every row once.
func (k Langevin) Step(t Target, p Point, eps *Node, n Noise) (Point, Info) {
	column := ExpandAxes(eps, -1)
	noise := Mul(Sqrt(MulScalar(column, 2)), n.Z)
	if k.Scale != nil {
		noise = Mul(noise, k.Scale)
	}
	drift := p.Grad
	if k.Heun {
		drift = MulScalar(Add(drift, t.At(Add(p.X, Mul(column, drift))).Grad), 0.5)
	}
	for range k.Implicit - 1 { // the gradient at x is the first evaluation
		drift = t.At(Add(p.X, Mul(column, drift))).Grad
	}
	x := Add(Add(p.X, Mul(column, drift)), noise)
	// Before the clamp, which would make a bound of an infinite coordinate, and before the walls. The energy of a step on the way is not asked
	// for, so that it costs nothing where nobody reads it.
	nonFinite := lost(x)
	if k.Clamp != nil {
		x = MinScalar(MaxScalar(x, k.Clamp[0]), k.Clamp[1])
	}
	if t.box != nil {
		x = t.box.Reflect(x)
	}
	return t.At(x), Info{NonFinite: nonFinite}
}

// MALA is the Metropolis-adjusted Langevin algorithm (Roberts and Tweedie 1996): the Langevin proposal, accepted with
// probability min(1, π_β(y)q(x|y) / π_β(x)q(y|x)). A proposal whose log density is not finite is rejected.
type MALA struct{}

// NeedsUniform is true.
func (MALA) NeedsUniform() bool { return true }

// Gradients is 1: that of the current state is known.
func (MALA) Gradients() int { return 1 }

// Step moves every row once.
func (MALA) Step(t Target, p Point, eps *Node, n Noise) (Point, Info) {
	column := ExpandAxes(eps, -1)
	y := Add(Add(p.X, Mul(column, p.Grad)), Mul(Sqrt(MulScalar(column, 2)), n.Z))
	q := t.At(y)
	// ‖y − x − ε∇log π(x)‖²/4ε is half the squared length of the noise just drawn.
	forward := MulScalar(ReduceSum(Square(n.Z), -1), 0.5)
	back := Sub(Sub(p.X, q.X), Mul(column, q.Grad))
	backward := Div(ReduceSum(Square(back), -1), MulScalar(eps, 4))
	logRatio := Add(Sub(q.LogP, p.LogP), Sub(forward, backward))
	return t.metropolis(p, q, logRatio, IsFinite(q.LogP), n.U)
}

// annealing gives the factors σᵢ/σ_min of the noise at each of a number of steps: levels in geometric progression from
// sigmaMax to sigmaMin, each for an equal share of the steps. It is annealed Langevin dynamics (Song and Ermon 2019) for one
// energy at all levels: with the score −∇E/s² of the level s = σᵢ/σ_min and their step εs², x ← x − ε∇E + s√(2ε)z, which
// cools from the temperature s² of the first level to 1.
func annealing(sigmaMax, sigmaMin float64, levels, steps int) []float64 {
	out := make([]float64, steps)
	for m := range out {
		level := m * levels / steps
		out[m] = 1
		if left := levels - 1 - level; left > 0 {
			out[m] = math.Pow(sigmaMax/sigmaMin, float64(left)/float64(levels-1))
		}
	}
	return out
}
