package diagnostics

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
)

// KolmogorovSmirnov compares independent draws x with a continuous distribution function: d is the largest distance of
// the empirical one from cdf, and p the probability that draws of that law are as far off or further (the two-sided
// test of scipy.stats.kstest). Draws of a Markov chain have to be thinned until they are independent, else p is too small.
//
// p is exact for up to 1000 draws, and to 2e-6 of itself for more where d ≥ 1.5/√n, as p < 0.022 then is. Elsewhere it is
// the limit law with the correction of Vrbik ("Small-sample corrections to Kolmogorov–Smirnov test statistic", 2018), off
// by less than 3e-5. Both numbers are NaN for no draws and where cdf gives NaN.
func KolmogorovSmirnov(x []float64, cdf func(float64) float64) (d, p float64) {
	if len(x) == 0 {
		return math.NaN(), math.NaN()
	}
	s := slices.Clone(x)
	slices.Sort(s)
	n := float64(len(s))
	for i, v := range s {
		f := cdf(v)
		d = max(d, float64(i+1)/n-f, f-float64(i)/n)
	}
	return d, kolmogorovP(len(s), d)
}

// kolmogorovP is P(D_n ≥ d).
func kolmogorovP(n int, d float64) float64 {
	size := float64(n)
	z := math.Sqrt(size) * d
	var p float64
	switch {
	case math.IsNaN(d):
		return math.NaN()
	case d >= 0.5 || z >= 2 || z >= 1.5 && n > 1000:
		// Both one-sided distances are as large with probability 0 for d ≥ ½; below that with about exp(−6z²) of p.
		p = 2 * smirnov(n, d)
	case n <= 1000:
		p = 1 - kolmogorovExact(n, d)
	default:
		p = kolmogorovLimit(z + 1/(6*math.Sqrt(size)) + (z-1)/(4*size))
	}
	return min(max(p, 0), 1)
}

// smirnov is the probability that the empirical distribution function of n draws is d or more above the true one
// somewhere (Birnbaum and Tingey, Annals of Mathematical Statistics 1951):
//
//	d Σ_j C(n,j) (d + j/n)^(j−1) (1 − d − j/n)^(n−j),  j ≤ n(1−d)
func smirnov(n int, d float64) float64 {
	logFactorial := func(k int) float64 { v, _ := math.Lgamma(float64(k) + 1); return v }
	sum, size := 0.0, float64(n)
	for j := range n {
		above, below := d+float64(j)/size, 1-d-float64(j)/size
		if below <= 0 {
			break
		}
		binomial := logFactorial(n) - logFactorial(j) - logFactorial(n-j)
		sum += math.Exp(binomial + float64(j-1)*math.Log(above) + float64(n-j)*math.Log(below))
	}
	return d * sum
}

// kolmogorovExact is P(D_n < d) by Durbin's matrix, in the form of Marsaglia, Tsang and Wang ("Evaluating Kolmogorov's
// distribution", Journal of Statistical Software 2003): with nd = k − h, 0 ≤ h < 1, it is n!/nⁿ times the middle element
// of the n-th power of H of side m = 2k−1,
//
//	H_ij = 1/(i−j+1)! where i−j+1 ≥ 0, less h^(i+1)/(i+1)! in the first column and h^(m−j)/(m−j)! in the last row.
func kolmogorovExact(n int, d float64) float64 {
	k := int(math.Ceil(float64(n) * d))
	h := float64(k) - float64(n)*d
	m := 2*k - 1
	// H/e has row sums of at most 1, and n!eⁿ/nⁿ is about √(2πn): no power overflows.
	a := mat.NewDense(m, m, nil)
	for i := range m {
		for j := range min(i+2, m) {
			a.Set(i, j, 1/(math.E*math.Gamma(float64(i-j+2))))
		}
	}
	for i := range m {
		corner := math.Pow(h, float64(i+1)) / (math.E * math.Gamma(float64(i+2)))
		a.Set(i, 0, a.At(i, 0)-corner)
		a.Set(m-1, m-1-i, a.At(m-1, m-1-i)-corner)
	}
	if h > 0.5 {
		a.Set(m-1, 0, a.At(m-1, 0)+math.Pow(2*h-1, float64(m))/(math.E*math.Gamma(float64(m+1))))
	}
	var power mat.Dense
	power.Pow(a, n)
	p := power.At(k-1, k-1)
	for i := range n {
		p *= float64(i+1) * math.E / float64(n)
	}
	return p
}

// kolmogorovLimit is P(√n D_n ≥ z) for n → ∞, 2 Σ_k (−1)^(k−1) exp(−2k²z²); for small z by the transformed sum,
// 1 − √(2π)/z Σ_k exp(−(2k−1)²π²/8z²).
func kolmogorovLimit(z float64) float64 {
	sum := 0.0
	if z < 1 {
		for k := 1.0; k <= 4; k++ {
			sum += math.Exp(-(2*k - 1) * (2*k - 1) * math.Pi * math.Pi / (8 * z * z))
		}
		return 1 - math.Sqrt(2*math.Pi)/z*sum
	}
	for k := 1.0; k <= 4; k++ {
		sum -= math.Pow(-1, k) * math.Exp(-2*k*k*z*z)
	}
	return 2 * sum
}
