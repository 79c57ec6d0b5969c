// Package interpolants holds the paths xₜ = α(t) x₁ + σ(t) x₀ from noise x₀ ~ N(0, I) at t = 0 to data x₁ at t = 1, and
// what follows from them: the path's velocity, the conversions between velocity, score and noise, and diffusion
// coefficients for sampling by an SDE.
//
//	path := interpolants.Cosine{}
//	xt, ut := interpolants.At(path, x0, x1, t)        // flow matching: f(xt, t) should be ut
//	v := field(xt, t)
//	score := interpolants.VelocityToScore(path, xt, v, t)
//	d := interpolants.Diffusion{Form: "sbdm", Norm: 1}.At(path, t)
//	drift := Add(v, Mul(ExpandAxes(d, -1), score))    // dx = (v + D s) dt + √(2D) dW
//
// Three relations hold on every path, with expectations given xₜ: the velocity is v = E[α̇ x₁ + σ̇ x₀], the noise is
// e = E[x₀], and the score of the law of xₜ is s = −e/σ. Hence v = r x + w s with the ratio r = α̇/α and w = rσ² − σσ̇.
package interpolants

import (
	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// Edge is the distance from t = 0 and t = 1 that conversions, ratios and diffusions keep: a time closer to an end counts as
// this far from it, for r, w or 1/σ grow without bound at one end or the other.
const Edge = 1e-5

// Interpolant is a path between noise and data. All functions work elementwise on times t in [0, 1] of any shape. Implement
// it to use one of your own.
type Interpolant interface {
	Alpha(t *Node) *Node  // α, the weight of the data
	DAlpha(t *Node) *Node // α̇ = dα/dt
	Sigma(t *Node) *Node  // σ, the weight of the noise; 0 or more
	DSigma(t *Node) *Node // σ̇ = dσ/dt
	// Ratio is r = α̇/α; finite at both ends.
	Ratio(t *Node) *Node
	// DriftVariance is w = rσ² − σσ̇ in v = r x + w s; finite at both ends.
	DriftVariance(t *Node) *Node
}

// At is the point xₜ = α x₁ + σ x₀ of the path and its velocity uₜ = α̇ x₁ + σ̇ x₀. x0 and x1 are [batch, ...], t is
// [batch], or a scalar for the whole batch.
func At(i Interpolant, x0, x1, t *Node) (xt, ut *Node) {
	mix := func(a, b *Node) *Node { return Add(Mul(over(a, x1), x1), Mul(over(b, x0), x0)) }
	return mix(i.Alpha(t), i.Sigma(t)), mix(i.DAlpha(t), i.DSigma(t))
}

// over makes a coefficient [batch] multiply the rows of x [batch, ...]. A scalar stays one.
func over(c, x *Node) *Node {
	if c.Rank() != 1 {
		return c
	}
	dims := make([]int, x.Rank())
	for axis := range dims {
		dims[axis] = 1
	}
	dims[0] = c.Shape().Dimensions[0]
	return Reshape(c, dims...)
}

// inner is t, at least Edge from both ends.
func inner(t *Node) *Node { return ClipScalar(t, Edge, 1-Edge) }
