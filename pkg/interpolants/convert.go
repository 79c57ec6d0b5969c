package interpolants

import (
	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// VelocityToScore is the score s = (v − r x)/w of a velocity v [batch, ...] at x and t [batch] (or a scalar).
func VelocityToScore(i Interpolant, x, v, t *Node) *Node {
	if g, ok := i.(guarded); ok {
		return g.velocityToScore(x, v, t)
	}
	t = inner(t)
	return Div(Sub(v, Mul(over(i.Ratio(t), x), x)), over(i.DriftVariance(t), x))
}

// ScoreToVelocity is the velocity v = r x + w s of the probability flow for a score s.
func ScoreToVelocity(i Interpolant, x, s, t *Node) *Node {
	if _, ok := i.(guarded); !ok {
		t = inner(t)
	}
	return Add(Mul(over(i.Ratio(t), x), x), Mul(over(i.DriftVariance(t), x), s))
}

// VelocityToNoise is the noise e = (r x − v)/(rσ − σ̇) of a velocity v.
func VelocityToNoise(i Interpolant, x, v, t *Node) *Node {
	if g, ok := i.(guarded); ok {
		return g.velocityToNoise(x, v, t)
	}
	t = inner(t)
	return Div(Sub(Mul(over(i.Ratio(t), x), x), v), over(noiseRate(i, t), x))
}

// NoiseToVelocity is the velocity v = r x − (rσ − σ̇) e for a noise e.
func NoiseToVelocity(i Interpolant, x, e, t *Node) *Node {
	if g, ok := i.(guarded); ok {
		return ScoreToVelocity(i, x, g.noiseToScore(e, t), t)
	}
	t = inner(t)
	return Sub(Mul(over(i.Ratio(t), x), x), Mul(over(noiseRate(i, t), x), e))
}

// NoiseToScore is the score s = −e/σ for a noise e.
func NoiseToScore(i Interpolant, e, t *Node) *Node {
	if g, ok := i.(guarded); ok {
		return g.noiseToScore(e, t)
	}
	return Neg(Div(e, over(i.Sigma(inner(t)), e)))
}

// noiseRate is w/σ as rσ − σ̇: the sum of two numbers of one sign where α rises and σ falls, so no digit is lost where w
// and σ vanish together.
func noiseRate(i Interpolant, t *Node) *Node { return Sub(Mul(i.Ratio(t), i.Sigma(t)), i.DSigma(t)) }
