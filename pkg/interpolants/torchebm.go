package interpolants

import (
	"math"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// tiny and floor are the least divisors of TorchEBM 0.8.9.
const (
	tiny  = 1e-8
	floor = 1e-12
)

// TorchEBM is the path i with the divisions of TorchEBM 0.8.9: conversions at t itself instead of a distance [Edge] from
// the ends, with α, tan(πt/2), α̇ and t kept at 1e-8 or more where they divide, variances at 1e-12, −σ + 1e-8 in place of
// −σ, and w/(σ + 1e-8) as the diffusion sbdm. Values differ from those of i by rounding in the middle and without bound at
// the ends. It is there to replay what TorchEBM computed; hand the result to every function of this package in i's place.
func TorchEBM(i Interpolant) Interpolant {
	if _, ok := i.(guarded); ok {
		return i
	}
	return guarded{i}
}

type guarded struct{ Interpolant }

func (p guarded) Ratio(t *Node) *Node {
	switch path := p.Interpolant.(type) {
	case Linear:
		return Reciprocal(MaxScalar(t, tiny))
	case Cosine:
		angle := MulScalar(t, math.Pi/2)
		return MulScalar(Reciprocal(MaxScalar(Div(Sin(angle), Cos(angle)), tiny)), math.Pi/2)
	case VP:
		return path.Ratio(t)
	}
	return Div(p.DAlpha(t), MaxScalar(p.Alpha(t), tiny))
}

func (p guarded) DriftVariance(t *Node) *Node {
	if path, ok := p.Interpolant.(VP); ok {
		return path.DriftVariance(t)
	}
	return Sub(Mul(p.Ratio(t), Square(p.Sigma(t))), Mul(p.Sigma(t), p.DSigma(t)))
}

func (p guarded) velocityToScore(x, v, t *Node) *Node {
	sigma := p.Sigma(t)
	rho := Div(MaxScalar(p.Alpha(t), tiny), p.DAlpha(t))
	variance := MaxScalar(Sub(Square(sigma), Mul(Mul(rho, p.DSigma(t)), sigma)), floor)
	return Div(Sub(Mul(over(rho, x), v), x), over(variance, x))
}

func (p guarded) velocityToNoise(x, v, t *Node) *Node {
	slope := p.DAlpha(t)
	slope = Where(LessThan(Abs(slope), Scalar(t.Graph(), t.DType(), tiny)), MulScalar(OnesLike(t), tiny), slope)
	rho := Div(p.Alpha(t), slope)
	divisor := Sub(p.Sigma(t), Mul(rho, p.DSigma(t)))
	least := MulScalar(Where(LessThan(divisor, ZerosLike(divisor)), Neg(OnesLike(t)), OnesLike(t)), floor)
	divisor = Where(LessThan(Abs(divisor), Abs(least)), least, divisor)
	return Div(Sub(x, Mul(over(rho, x), v)), over(divisor, x))
}

func (p guarded) noiseToScore(e, t *Node) *Node {
	return Div(e, over(AddScalar(Neg(p.Sigma(t)), tiny), e))
}

func (p guarded) sbdm(t *Node) *Node {
	return Div(p.DriftVariance(t), AddScalar(p.Sigma(t), tiny))
}
