package interpolants

import (
	"math"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// Linear is the straight line xₜ = t x₁ + (1 − t) x₀ (Lipman et al. 2023; Liu et al. 2023).
type Linear struct{}

func (Linear) Alpha(t *Node) *Node  { return t }
func (Linear) DAlpha(t *Node) *Node { return OnesLike(t) }
func (Linear) Sigma(t *Node) *Node  { return OneMinus(t) }
func (Linear) DSigma(t *Node) *Node { return Neg(OnesLike(t)) }

// Ratio is 1/t.
func (Linear) Ratio(t *Node) *Node { return Reciprocal(inner(t)) }

// DriftVariance is (1 − t)/t.
func (Linear) DriftVariance(t *Node) *Node {
	t = inner(t)
	return Div(OneMinus(t), t)
}

// Cosine is the quarter circle α = sin(πt/2), σ = cos(πt/2), so that α² + σ² = 1 (Albergo and Vanden-Eijnden 2023).
type Cosine struct{}

func (Cosine) Alpha(t *Node) *Node  { return quarterSin(t) }
func (Cosine) DAlpha(t *Node) *Node { return MulScalar(quarterCos(t), math.Pi/2) }
func (Cosine) Sigma(t *Node) *Node  { return quarterCos(t) }
func (Cosine) DSigma(t *Node) *Node { return MulScalar(quarterSin(t), -math.Pi/2) }

// Ratio is (π/2) cot(πt/2).
func (Cosine) Ratio(t *Node) *Node {
	t = inner(t)
	return MulScalar(Div(quarterCos(t), quarterSin(t)), math.Pi/2)
}

// DriftVariance is (π/2) cot(πt/2) too: σ² r − σσ̇ = (π/2) cot(πt/2) (cos² + sin²).
func (c Cosine) DriftVariance(t *Node) *Node { return c.Ratio(t) }

func quarterSin(t *Node) *Node { return Sin(MulScalar(t, math.Pi/2)) }

// quarterCos is cos(πt/2) as a sine of 1 − t, which is exactly 0 at t = 1 and keeps its digits close to it.
func quarterCos(t *Node) *Node { return quarterSin(OneMinus(t)) }

// VP is the variance-preserving path of the diffusion with a noise rate β that falls linearly from BetaMax at t = 0 to
// BetaMin at t = 1 (Song et al. 2021, with time reversed): α = exp ℓ, σ² = 1 − α², ℓ = −¼(1 − t)²(BetaMax − BetaMin) −
// ½(1 − t)BetaMin. At t = 0 a little data is left: α = 0.0066 for the usual 0.1 and 20.
type VP struct{ BetaMin, BetaMax float64 }

// sigmaFloor keeps VP's σ away from 0 at t = 1, where σ̇ = −α²β/(2σ) has no limit.
const sigmaFloor = 1e-6

func (v VP) Alpha(t *Node) *Node  { return Exp(v.logAlpha(t)) }
func (v VP) DAlpha(t *Node) *Node { return Mul(v.Alpha(t), v.Ratio(t)) }

// Sigma is √(1 − α²), at least 1e-6.
func (v VP) Sigma(t *Node) *Node {
	// 1 − e²ˡ = −tanh(l)(1 + e²ˡ) keeps its digits close to t = 1, where α is near 1.
	l := v.logAlpha(t)
	variance := Neg(Mul(Tanh(l), OnePlus(Exp(MulScalar(l, 2)))))
	return Sqrt(MaxScalar(variance, sigmaFloor*sigmaFloor))
}

func (v VP) DSigma(t *Node) *Node {
	return Neg(Div(Mul(Exp(MulScalar(v.logAlpha(t), 2)), v.Ratio(t)), v.Sigma(t)))
}

// Ratio is ℓ̇ = β/2.
func (v VP) Ratio(t *Node) *Node {
	return AddScalar(MulScalar(OneMinus(t), (v.BetaMax-v.BetaMin)/2), v.BetaMin/2)
}

// DriftVariance is β/2 too: (β/2)(σ² + α²).
func (v VP) DriftVariance(t *Node) *Node { return v.Ratio(t) }

func (v VP) logAlpha(t *Node) *Node {
	s := OneMinus(t)
	return Sub(MulScalar(Square(s), -(v.BetaMax-v.BetaMin)/4), MulScalar(s, v.BetaMin/2))
}
