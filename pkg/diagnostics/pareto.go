package diagnostics

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/stat"
)

// ParetoK is the shape k̂ of the generalised Pareto law of the largest importance weights, given as their logarithms up
// to a constant: weights have about 1/k finite moments. Below 0.5 the variance is finite; below 0.7 an estimate made with
// the weights can be trusted; above, it cannot, whatever its standard error says (Vehtari, Simpson, Gelman, Yao, Gabry,
// "Pareto smoothed importance sampling", JMLR 2024). It is the k of arviz.psislw with relative efficiency 1.
//
// The tail are the weights above the (t+1)-th largest, t = ⌈min(S/5, 3√S)⌉ of S. The fit is that of Zhang and Stephens
// ("A new and efficient estimation method for the generalized Pareto distribution", Technometrics 2009), and k̂ is drawn
// towards ½ as if ten more weights had said so, as the paper of 2024 does for short tails.
//
// It is NaN where the tail has fewer than five weights above its cutoff (S ≤ 20, or equal largest weights), and where a
// log weight is NaN or +Inf. −Inf is a weight of zero.
func ParetoK(logWeights []float64) float64 {
	s := slices.Clone(logWeights)
	slices.Sort(s) // NaN first
	size := float64(len(s))
	tail := int(math.Ceil(min(size/5, 3*math.Sqrt(size))))
	if tail < 5 || math.IsNaN(s[0]) || math.IsInf(s[len(s)-1], 0) {
		return math.NaN()
	}
	// The shape does not depend on the unit of weight: the cutoff is 1, unless it is so small that the largest would
	// overflow.
	largest := s[len(s)-1]
	cutoff := max(s[len(s)-1-tail], largest-708)
	var excess []float64
	for _, l := range s[len(s)-tail:] {
		if x := math.Expm1(l - cutoff); x > 0 {
			excess = append(excess, x)
		}
	}
	if len(excess) < 5 {
		return math.NaN()
	}
	const priorDraws, priorShape = 10, 0.5
	n := float64(len(excess))
	return (n*paretoShape(excess) + priorDraws*priorShape) / (n + priorDraws)
}

// paretoShape is the estimate of Zhang and Stephens from ascending positive x. With b = −k/σ the likelihood is largest in
// k at k(b) = mean log(1 − b x), so b alone is left; its posterior mean is a sum over m points spread as its prior.
func paretoShape(x []float64) float64 {
	n := len(x)
	shape := func(b float64) float64 {
		sum := 0.0
		for _, v := range x {
			sum += math.Log1p(-b * v)
		}
		return sum / float64(n)
	}
	m := 30 + int(math.Sqrt(float64(n)))
	quartile, largest := x[int(float64(n)/4+0.5)-1], x[n-1]
	b, logLikelihood := make([]float64, m), make([]float64, m)
	for j := range b {
		b[j] = 1/largest + (1-math.Sqrt(float64(m)/(float64(j)+0.5)))/(3*quartile)
		k := shape(b[j])
		inverseScale := -b[j] / k
		if b[j] == 0 { // the exponential law
			inverseScale = 1 / stat.Mean(x, nil)
		}
		logLikelihood[j] = float64(n) * (math.Log(inverseScale) - k - 1)
	}
	total := floats.LogSumExp(logLikelihood)
	mean := 0.0
	for j := range b {
		mean += b[j] * math.Exp(logLikelihood[j]-total)
	}
	return shape(mean)
}
