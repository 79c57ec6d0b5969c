// Package samplers builds MCMC kernels as graphs: states in, states and information out. All rows of a batch move
// together, each at its own inverse temperature and step size:
//
//	target := samplers.Target{Beta: beta, Path: samplers.Power(energy)}
//	kernel := samplers.MALA{}
//	source := samplers.NewSource(key, x.DType(), steps*samplers.StepCount(kernel, rows, dim))
//	p := target.At(x) // x: [rows, dim]
//	for range steps {
//		p, info = kernel.Step(target, p, eps, source.Step(kernel, rows, dim))
//	}
//
// Chains are never differentiated through: every state starts a new graph of its own.
package samplers

import (
	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// EnergyFn builds an energy or a log density: x [rows, dim] → [rows].
type EnergyFn func(x *Node) *Node

// Path is a family of densities that is exponential in β: log π_β(x) = LogRef(x) + β·V(x), up to a constant.
// See Syed et al. (JRSSB 2022) for annealing paths.
type Path struct {
	LogRef EnergyFn // log of the reference density; nil where it is 1 (power path)
	V      EnergyFn
}

// Power is the path exp(−βE): no reference.
func Power(energy EnergyFn) Path {
	return Path{V: func(x *Node) *Node { return Neg(energy(x)) }}
}

// Linear is the path q^(1−β)·exp(−βE) from a normalised reference with log density logRef.
func Linear(energy, logRef EnergyFn) Path {
	return Path{LogRef: logRef, V: func(x *Node) *Node { return Neg(Add(energy(x), logRef(x))) }}
}

// Target is the law of every row: the path at the row's own β, [rows].
type Target struct {
	Path
	Beta *Node
}

// Point is a state with what the kernels keep of it, so that an accepted step costs one gradient.
type Point struct {
	X    *Node // [rows, dim]
	V    *Node // [rows]: the path's V, which swaps and log Z use
	LogP *Node // [rows]: log π_β
	Grad *Node // [rows, dim]: ∇ₓ log π_β
}

// At evaluates the target. The states become the start of a new graph: gradients do not flow into where x came from.
func (t Target) At(x *Node) Point {
	// The gradient with respect to a StopGradient node itself is zero in GoMLX v0.26; the Identity behind it is not.
	x = Identity(StopGradient(x))
	v := t.V(x)
	logp := Mul(t.Beta, v)
	if t.LogRef != nil {
		logp = Add(logp, t.LogRef(x))
	}
	grad := Gradient(ReduceAllSum(logp), x)[0]
	return Point{X: x, V: StopGradient(v), LogP: StopGradient(logp), Grad: StopGradient(grad)}
}

// Info is what a step reports.
type Info struct {
	Accept    *Node // [rows]: 1 where the proposal was taken; nil for a kernel that takes every step
	NonFinite *Node // [rows]: 1 where the proposal, or its log density where the kernel needs it, is not finite
}

// Kernel makes one chain step. eps is the step size of each row, [rows].
type Kernel interface {
	// Step moves every row once.
	Step(t Target, p Point, eps *Node, n Noise) (Point, Info)
	// NeedsUniform says whether the kernel uses Noise.U.
	NeedsUniform() bool
}

// Langevin is the unadjusted Langevin algorithm, x ← x + ε∇log π_β(x) + s√(2ε)z (Parisi 1981; Roberts and Tweedie
// 1996). Its stationary law is biased: on N(0, 1) with s = 1 the variance is 1/(1 − ε/2).
type Langevin struct {
	Scale *Node       // s, a scalar; nil = 1. s² is the temperature
	Clamp *[2]float64 // bounds of every coordinate after each step; nil = none
	// Heun takes the mean of the gradients at x and at x + ε∇log π_β(x) as the drift, with the same noise, for one gradient
	// more. It follows the gradient flow to second order; the stationary law is biased all the same.
	Heun bool
}

// NeedsUniform is false: every step is taken.
func (Langevin) NeedsUniform() bool { return false }

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
	x := Add(Add(p.X, Mul(column, drift)), noise)
	// Before the clamp, which would make a bound of an infinite coordinate. The energy of a step on the way is not asked
	// for, so that it costs nothing where nobody reads it.
	nonFinite := oneWhere(LogicalNot(IsFinite(ReduceSum(x, -1))))
	if k.Clamp != nil {
		x = MinScalar(MaxScalar(x, k.Clamp[0]), k.Clamp[1])
	}
	return t.At(x), Info{NonFinite: nonFinite}
}

// MALA is the Metropolis-adjusted Langevin algorithm (Roberts and Tweedie 1996): the Langevin proposal, accepted with
// probability min(1, π_β(y)q(x|y) / π_β(x)q(y|x)). A proposal whose log density is not finite is rejected.
type MALA struct{}

// NeedsUniform is true.
func (MALA) NeedsUniform() bool { return true }

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
	finite := IsFinite(q.LogP)
	// A NaN compares false. The other test keeps a chain out of a log density of +∞, which it could never leave.
	accept := LogicalAnd(LessThan(Log(n.U), logRatio), finite)
	take := ExpandAxes(accept, -1)
	wide := BroadcastToDims(take, p.X.Shape().Dimensions...)
	next := Point{
		X:    Where(wide, q.X, p.X),
		V:    Where(accept, q.V, p.V),
		LogP: Where(accept, q.LogP, p.LogP),
		Grad: Where(wide, q.Grad, p.Grad),
	}
	return next, Info{Accept: oneWhere(accept), NonFinite: oneWhere(LogicalNot(finite))}
}

func oneWhere(condition *Node) *Node { return ConvertDType(condition, dtypeOfInfo) }
