package samplers

import (
	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// GradientDescent is x ← x + ε∇log π_β(x): an optimiser with the form of a kernel. It ends in a minimum of the energy and
// does not sample exp(−E).
type GradientDescent struct{}

// NeedsUniform is false.
func (GradientDescent) NeedsUniform() bool { return false }

// Gradients is 1.
func (GradientDescent) Gradients() int { return 1 }

// Step moves every row once. It uses no noise.
func (GradientDescent) Step(t Target, p Point, eps *Node, _ Noise) (Point, Info) {
	x := Add(p.X, Mul(ExpandAxes(eps, -1), p.Grad))
	return t.At(x), Info{NonFinite: lost(x)}
}

// Nesterov is accelerated descent (Nesterov 1983), v ← μv + ε∇log π_β(x + μv), x ← x + v from v = 0: an optimiser with the
// form of a kernel, like [GradientDescent]. Point.Aux is v; a Point without one starts with v = 0, so that a caller who
// rebuilds points with Target.At, as the training engine does between two calls, starts the acceleration anew.
type Nesterov struct {
	Momentum float64 // μ, in [0, 1)
}

// NeedsUniform is false.
func (Nesterov) NeedsUniform() bool { return false }

// Gradients is 1, that at x + μv; the energy at x is a matter of its own.
func (Nesterov) Gradients() int { return 1 }

// Step moves every row once. It uses no noise.
func (k Nesterov) Step(t Target, p Point, eps *Node, _ Noise) (Point, Info) {
	v := p.Aux
	if v == nil {
		v = ZerosLike(p.X)
	}
	v = MulScalar(v, k.Momentum)
	v = Add(v, Mul(ExpandAxes(eps, -1), t.At(Add(p.X, v)).Grad))
	x := Add(p.X, v)
	next := t.At(x)
	next.Aux = v
	return next, Info{NonFinite: lost(x)}
}

// noiseless says whether a kernel uses no normal numbers either.
func noiseless(k Kernel) bool {
	switch k.(type) {
	case GradientDescent, Nesterov:
		return true
	}
	return false
}
