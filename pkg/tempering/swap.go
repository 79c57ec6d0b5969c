package tempering

import "math"

// LogRatio is the logarithm Δ of the Metropolis ratio for exchanging the states of two neighbouring rungs:
// Δ = (β_{i+1} − β_i)·(V(x_i) − V(x_{i+1})). The operands are those of the lower rung i and of the upper rung i+1, in
// this order on both sides of a distributed pair, so that both get the same bits.
func LogRatio(betaLower, betaUpper, vLower, vUpper float64) float64 {
	return float64((betaUpper - betaLower) * (vLower - vUpper))
}

// AcceptSwap reports whether a pair with log ratio delta exchanges its states, given the uniform draw u in (0, 1]. The
// rule is log u < Δ. NaN and −Inf never win; nothing is exponentiated, so a large Δ does not overflow.
func AcceptSwap(delta, u float64) bool { return logUniform(u) < delta }

// acceptance is the probability min(1, exp Δ) that AcceptSwap says yes; 0 for NaN.
func acceptance(delta float64) float64 {
	alpha := math.Exp(min(delta, 0))
	if math.IsNaN(alpha) {
		return 0
	}
	return alpha
}

// near says that u, of at least 2⁻⁵³, is so close to alpha = exp Δ that the roundings of exponential and logarithm, below 1e-13,
// could decide between u < alpha and log u < Δ. Everywhere else the two are the same, and AcceptSwap need not take a logarithm.
func near(u, alpha float64) bool { return math.Abs(u-alpha) <= 1e-12*alpha }

// logUniform is the natural logarithm on [0, 1]. math.Log has assembly on some architectures and may be fused on
// others; swap decisions must be the same bits on all of them, so here is a series whose every rounding is written out:
// u = m·2^e with m in [√½, √2), ln m = 2·artanh s, s = (m−1)/(m+1), |s| < 0.1716. It stays within 2 ulp of ln u.
func logUniform(u float64) float64 {
	if u == 0 {
		return math.Inf(-1)
	}
	const ln2High = 0x1.62e42feep-1 // few enough bits that e·ln2High is exact
	const ln2Low = math.Ln2 - ln2High
	m, exponent := math.Frexp(u)
	if m < math.Sqrt2/2 {
		m *= 2
		exponent--
	}
	e := float64(exponent)
	s := (m - 1) / (m + 1)
	z := float64(s * s)
	sum := 1.0 / 23
	for k := 21; k >= 3; k -= 2 {
		sum = 1/float64(k) + float64(z*sum)
	}
	twice := 2 * s
	tail := float64(float64(twice*z)*sum) + float64(e*ln2Low)
	return float64(e*ln2High) + (twice + tail)
}
