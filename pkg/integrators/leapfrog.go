package integrators

import (
	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// LeapfrogStep builds a step of the leapfrog (Störmer–Verlet) scheme for H = E(x) + ½ Σ p²/m, given the force F = −∂E/∂x at
// x as f:
//
//	p½ = p + ½ε F(x),  x⁺ = x + ε p½/m,  p⁺ = p½ + ½ε F(x⁺)
//
// It gives F(x⁺) as well, so that a trajectory of L steps takes L + 1 forces. x, p and f are [batch, dim]; eps is a scalar,
// [batch], or broadcasts to x; mass is nil for 1, a scalar, or [dim], positive. The step is symplectic, of order 2, and
// running it on from (x⁺, −p⁺) gives (x, −p). A force that is not finite makes the state so: it is for the caller to see.
func LeapfrogStep(force func(x *Node) *Node, x, p, f, eps, mass *Node) (nextX, nextP, nextF *Node) {
	eps = over(eps, x)
	half := MulScalar(eps, 0.5)
	p = Add(p, Mul(half, f))
	velocity := p
	if mass != nil {
		velocity = Div(p, acrossRows(mass, p))
	}
	nextX = Add(x, Mul(eps, velocity))
	nextF = force(nextX)
	return nextX, Add(p, Mul(half, nextF)), nextF
}

// acrossRows makes a vector [dim] broadcast to the last axis of x. A scalar stays one.
func acrossRows(m, x *Node) *Node {
	if m.Rank() != 1 {
		return m
	}
	dims := make([]int, x.Rank())
	for axis := range dims {
		dims[axis] = 1
	}
	dims[x.Rank()-1] = m.Shape().Dimensions[0]
	return Reshape(m, dims...)
}

// ClipForce keeps every component of a force in [−bound, bound]. TorchEBM's samplers do so with 1e6 ("safe" steps). The
// leapfrog is then that of another energy where the bound is reached, still reversible and volume-preserving.
func ClipForce(force func(x *Node) *Node, bound float64) func(x *Node) *Node {
	return func(x *Node) *Node { return ClipScalar(force(x), -bound, bound) }
}

// GeneralisedLeapfrog is the leapfrog for a Hamiltonian H(x, p) that does not separate (Girolami and Calderhead 2011):
//
//	p½ = p + ½ε F(x, p½),  x⁺ = x + ½ε [V(x, p½) + V(x⁺, p½)],  p⁺ = p½ + ½ε F(x⁺, p½)
//
// with F = −∂H/∂x and V = ∂H/∂p. It is symplectic and reversible as far as its first two equations are solved.
type GeneralisedLeapfrog struct {
	// Iterations is the number of rounds for either implicit equation, a fixed-point (Picard) iteration from the old p or x; at
	// least 1.
	Iterations int
}

// Step builds a step from x and p [batch, dim]. eps is a scalar, [batch], or broadcasts to x. residual [batch] is by how much
// the last round of either iteration still moved a coordinate of p½ or x⁺, at most: where it is not small beside the state,
// eps is too long for the iteration, the step is not reversible, and a Metropolis test on it is not valid.
func (g GeneralisedLeapfrog) Step(force, velocity func(x, p *Node) *Node, x, p, eps *Node) (nextX, nextP, residual *Node) {
	half := MulScalar(over(eps, x), 0.5)
	kick := func(base, k *Node) *Node { return Add(base, Mul(half, k)) }
	// solve iterates y ← base + ½ε f(y) from the old point y, at which f is k, and says how far the last round moved y.
	solve := func(y, base, k *Node, f func(y *Node) *Node) (solution, moved *Node) {
		for round := range g.Iterations {
			if round > 0 {
				k = f(y)
			}
			before := y
			y = kick(base, k)
			moved = Abs(Sub(y, before))
		}
		return y, ReduceMax(moved, rowAxes(moved)...)
	}
	p, movedP := solve(p, p, force(x, p), func(p *Node) *Node { return force(x, p) })
	v := velocity(x, p)
	nextX, movedX := solve(x, kick(x, v), v, func(x *Node) *Node { return velocity(x, p) })
	return nextX, kick(p, force(nextX, p)), Max(movedP, movedX)
}
