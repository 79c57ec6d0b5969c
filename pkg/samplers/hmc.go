package samplers

import (
	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/integrators"
)

// HMC is Hamiltonian Monte Carlo (Duane et al. 1987; Neal 2011): with a fresh momentum p ~ N(0, M), leapfrog steps of
// length ε lead along H(x, p) = −log π_β(x) + ½ Σ p²/m to a proposal that is taken with probability min(1, exp(H − H*)).
//
// The gradient and the log density of the current state are known, so that a proposal of L leapfrog steps costs L gradients.
// A trajectory that leaves the finite numbers stays there, and its end is rejected and reported: nothing is put in the place
// of a NaN, for a made-up point of low energy would be accepted.
type HMC struct {
	Leapfrogs int       // leapfrog steps a proposal, at least 1
	Mass      []float64 // m: one number for all coordinates, or one each; nil = 1
}

// NeedsUniform is true.
func (HMC) NeedsUniform() bool { return true }

// Gradients is the number of leapfrog steps.
func (k HMC) Gradients() int { return k.Leapfrogs }

// Step moves every row once. Noise.Z is √M times too small for a momentum.
func (k HMC) Step(t Target, p Point, eps *Node, n Noise) (Point, Info) {
	mass := k.mass(p.X)
	momentum := n.Z
	if mass != nil {
		momentum = Mul(n.Z, Sqrt(mass))
	}
	kinetic := func(p *Node) *Node {
		square := Square(p)
		if mass != nil {
			square = Div(square, mass)
		}
		return MulScalar(ReduceSum(square, -1), 0.5)
	}
	current := Sub(kinetic(momentum), p.LogP)
	q := p
	force := func(x *Node) *Node {
		q = t.At(x)
		return q.Grad
	}
	x, f := p.X, p.Grad
	for range k.Leapfrogs {
		x, momentum, f = integrators.LeapfrogStep(force, x, momentum, f, eps, mass)
	}
	proposed := Sub(kinetic(momentum), q.LogP)
	return t.hamiltonian(p, q, momentum, current, proposed, n.U)
}

// mass is m as a row [1, dim or 1] of x's type, nil for 1.
func (k HMC) mass(x *Node) *Node {
	if len(k.Mass) == 0 || len(k.Mass) == 1 && k.Mass[0] == 1 {
		return nil
	}
	return Reshape(ConstAs(x, k.Mass), 1, len(k.Mass))
}

// hamiltonian is the Metropolis test between the ends of a trajectory.
func (t Target) hamiltonian(p, q Point, momentum, current, proposed, u *Node) (Point, Info) {
	finite := LogicalAnd(IsFinite(proposed), IsFinite(ReduceSum(q.X, -1)))
	next, info := t.metropolis(p, q, Sub(current, proposed), finite, u)
	info.Current, info.Proposed, info.ProposalX, info.ProposalP = current, proposed, q.X, momentum
	return next, info
}
