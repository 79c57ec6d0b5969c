package datasets

import (
	"math"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/stat/distuv"
)

// gaussians is the law Σₖ wₖ N(mₖ, s² I) in any dimension.
type gaussians struct {
	means     [][]float64
	shares    []float64
	logShares []float64
	std       float64
}

// gaussiansLaw is the law of the set `mixture`. A mode's radius leaves out e⁻⁸ = 0.03 % of it in every dimension: four
// standard deviations in the plane.
func gaussiansLaw(means [][]float64, shares []float64, std float64) *Law {
	g := gaussians{means: means, shares: shares, std: std}
	for _, w := range shares {
		g.logShares = append(g.logShares, math.Log(w))
	}
	chi := distuv.ChiSquared{K: float64(len(means[0]))}
	l := &Law{LogDensity: g.logDensity, entropy: g.entropy, Modes: means, ModeWeights: shares, ModeRadius: std * math.Sqrt(chi.Quantile(1-math.Exp(-8)))}
	for i, a := range means {
		for _, b := range means[:i] {
			l.ModeRadius = min(l.ModeRadius, floats.Distance(a, b, 2)/2)
		}
	}
	return l
}

func (g gaussians) logDensity(x []float64) float64 {
	terms := make([]float64, len(g.means))
	for k, m := range g.means {
		d := floats.Distance(x, m, 2) / g.std
		terms[k] = g.logShares[k] - d*d/2
	}
	return floats.LogSumExp(terms) - float64(len(x))*(math.Log(g.std)+0.5*math.Log(2*math.Pi))
}

// entropy is −Σₖ wₖ E log p under component k, by the trapezoidal rule, which converges faster than any power of the step
// for a smooth integrand that dies out. It is NaN in more than two dimensions and for mixtures of so many components that
// it would take long.
func (g gaussians) entropy() float64 {
	const perStd, reach, side = 6, 9, 2*6*9 + 1
	dim, points := len(g.means[0]), 1
	for range min(dim, 3) {
		points *= side
	}
	if dim > 2 || points*len(g.means)*len(g.means) > 10_000_000 {
		return math.NaN()
	}
	sum, x, z := 0.0, make([]float64, dim), make([]float64, dim)
	for i := range points {
		for j, rest := 0, i; j < dim; j, rest = j+1, rest/side {
			z[j] = float64(rest%side)/perStd - reach
		}
		weight := math.Exp(-floats.Dot(z, z) / 2)
		for k, m := range g.means {
			floats.AddScaledTo(x, m, g.std, z)
			sum -= weight * g.shares[k] * g.logDensity(x)
		}
	}
	return sum / math.Pow(math.Sqrt(2*math.Pi)*perStd, float64(dim))
}
