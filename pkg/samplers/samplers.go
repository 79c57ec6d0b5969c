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
// [Path.Within] restricts a path to a [Box].
//
// The kernels are [Langevin], [MALA], [HMC] and [RMHMC]; [GradientDescent] and [Nesterov] have the form of a kernel, but
// are optimisers. [Flow] is another matter: it carries noise to data along a field that was trained to. [Run] drives any of
// them on the host, as [Config] says, and gives a [Trace].
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

	box  *Box     // see Within; nil: all of space
	free EnergyFn // V without the box
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
	Aux  *Node // [rows, dim]: what else a kernel carries along, such as a velocity; nil where nothing was carried yet
}

// At evaluates the target. The states become the start of a new graph: gradients do not flow into where x came from.
func (t Target) At(x *Node) Point {
	// The gradient with respect to a StopGradient node itself is zero in GoMLX v0.26; the Identity behind it is not.
	x = Identity(StopGradient(x))
	free := t.V
	if t.box != nil {
		free = t.free
	}
	v := free(x)
	logp := Mul(t.Beta, v)
	if t.LogRef != nil {
		logp = Add(logp, t.LogRef(x))
	}
	grad := Gradient(ReduceAllSum(logp), x)[0]
	if t.box != nil {
		v, logp = t.box.bar(x, v), t.box.bar(x, logp)
	}
	return Point{X: x, V: StopGradient(v), LogP: StopGradient(logp), Grad: StopGradient(grad)}
}

// Info is what a step reports. A field that a kernel has nothing to say about is nil; one that nobody reads costs nothing.
type Info struct {
	Accept *Node // [rows]: 1 where the proposal was taken; nil for a kernel that takes every step
	// NonFinite [rows] is 1 where the proposal, or its log density where the kernel needs it, is not finite. A finite proposal
	// outside the box of a path is none of these.
	NonFinite *Node

	AcceptProb *Node // [rows]: probability of taking the proposal
	Current    *Node // [rows]: the Hamiltonian at the start of a trajectory (hmc, rmhmc)
	Proposed   *Node // [rows]: and at its end
	ProposalX  *Node // [rows, dim]: position at the end of a trajectory
	ProposalP  *Node // [rows, dim]: momentum there
	// Residual [rows] is by how much the iterations of an implicit scheme still moved at the end (rmhmc), at most: where it is
	// not small beside the state, the Metropolis test is not valid and the step size too long.
	Residual *Node
}

// Kernel makes one chain step. eps is the step size of each row, [rows].
type Kernel interface {
	// Step moves every row once.
	Step(t Target, p Point, eps *Node, n Noise) (Point, Info)
	// NeedsUniform says whether the kernel uses Noise.U.
	NeedsUniform() bool
	// Gradients is the number of gradients that a step takes, a measure of its cost and of the size of its graph.
	Gradients() int
}

// metropolis takes q in place of p where u < exp(logRatio), and where the proposal is finite, its log density too.
func (t Target) metropolis(p, q Point, logRatio, finite, u *Node) (Point, Info) {
	// A NaN compares false. The other test keeps a chain out of a log density of +∞, which it could never leave.
	accept := LogicalAnd(LessThan(Log(u), logRatio), finite)
	wide := BroadcastToDims(ExpandAxes(accept, -1), p.X.Shape().Dimensions...)
	next := Point{
		X:    Where(wide, q.X, p.X),
		V:    Where(accept, q.V, p.V),
		LogP: Where(accept, q.LogP, p.LogP),
		Grad: Where(wide, q.Grad, p.Grad),
	}
	probability := Where(finite, Exp(MinScalar(logRatio, 0)), ZerosLike(logRatio))
	nonFinite := LogicalNot(finite)
	if t.box != nil { // outside is no fault
		regular := LogicalAnd(t.box.Outside(q.X), IsFinite(ReduceSum(q.X, -1)))
		nonFinite = LogicalAnd(nonFinite, LogicalNot(regular))
	}
	return next, Info{Accept: oneWhere(accept), NonFinite: oneWhere(nonFinite), AcceptProb: probability}
}

func oneWhere(condition *Node) *Node { return ConvertDType(condition, dtypeOfInfo) }

// lost is 1 for each row of x with a number that is not finite.
func lost(x *Node) *Node { return oneWhere(LogicalNot(IsFinite(ReduceSum(x, -1)))) }
