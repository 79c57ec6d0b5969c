package diagnostics

import (
	"fmt"
	"math"
	"math/bits"

	"gonum.org/v1/gonum/dsp/fourier"
	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/stat"
)

// ESS is the effective sample size of chains [M][n] for the mean of the draws: the variance of that mean is the variance
// of the law over ESS. Divided by the seconds or the gradients that the chains took, it compares samplers.
//
// It is Geyer's initial monotone sequence estimate ("Practical Markov chain Monte Carlo", Statistical Science 1992) for
// several chains, each cut into halves, as Vehtari, Gelman, Simpson, Carpenter and Bürkner (Bayesian Analysis 2021) give
// it and as arviz.ess with method "mean" computes it: for N draws in all, in halves of n,
//
//	ESS = N/τ,  τ = −1 + 2 Σ_k P_k,  P_k = ρ_2k + ρ_2k+1,  ρ_t = 1 − (W − s_t)/V
//
// with s_t the autocovariance at lag t, mean over the halves, W the mean variance within a half, and V = W(n−1)/n + the
// variance of the means of the halves, so that chains that disagree have a small ESS. The sum ends at the first P_k that
// is not positive, and no P_k counts for more than the one before it.
//
// Antithetic chains may have more than N effective draws, at most N log₁₀N. Chains of fewer than ten draws get that bound
// whatever they are, since their halves are too short for any lag.
//
// Chains of unequal length, of fewer than four draws, with a draw that is not finite, or all of whose draws are equal
// are errors.
func ESS(chains [][]float64) (float64, error) {
	split, err := halves(chains)
	if err != nil {
		return 0, fmt.Errorf("diagnostics: ess: %w", err)
	}
	return ess(split)
}

// BulkESS is ESS of the normal scores of the ranks of all draws (Vehtari et al. 2021; arviz.ess with method "bulk"). It
// exists for laws without mean or variance too, and a monotone map of the draws does not change it. Its errors are those
// of ESS.
func BulkESS(chains [][]float64) (float64, error) {
	split, err := halves(chains)
	if err != nil {
		return 0, fmt.Errorf("diagnostics: bulk ess: %w", err)
	}
	return ess(normalScores(split))
}

func ess(chains [][]float64) (float64, error) {
	n := len(chains[0])
	size := float64(n * len(chains))
	means, variances := chainMoments(chains)
	within := stat.Mean(variances, nil)
	v := within*float64(n-1)/float64(n) + stat.Variance(means, nil)
	if !(v > 0) || math.IsInf(v, 1) {
		return 0, fmt.Errorf("diagnostics: ess: the draws have variance %g, want one that a float64 holds", v)
	}
	s := autocovariance(chains)
	tau, last := -1.0, math.Inf(1)
	for lag := 0; ; lag += 2 {
		even, odd := 1-(within-s[lag])/v, 1-(within-s[lag+1])/v
		if lag == 0 {
			even = 1
		}
		pair := even + odd
		if pair <= 0 || lag+5 > n {
			// The last pair counts by its even lag alone.
			if even > 0 || pair > 0 {
				tau += even
			}
			break
		}
		last = min(last, pair)
		tau += 2 * last
	}
	return size / max(tau, 1/math.Log10(size)), nil
}

// Autocorrelation is ρ_t = s_t/s_0 of x [n] at lags 0 to n−1, with s_t = Σ_i (x_i − x̄)(x_{i+t} − x̄)/n: the divisor n at
// every lag biases the estimate towards 0 and keeps its noise at long lags small. All of it is NaN where x is constant or
// holds a number that is not finite.
func Autocorrelation(x []float64) []float64 {
	if len(x) == 0 {
		return nil
	}
	s := autocovariance([][]float64{x})
	variance := s[0]
	if constant(x) { // a mean that is rounded would leave a rest
		variance = math.NaN()
	}
	for t := range s {
		s[t] /= variance
	}
	return s
}

// autocovariance is s_t at lags 0 to n−1, the mean over chains of length n: the Fourier transform of the mean power
// spectrum (Wiener and Khinchin), of chains filled up with zeros so that no lag wraps round.
func autocovariance(chains [][]float64) []float64 {
	n := len(chains[0])
	length := 1 << bits.Len(uint(2*n-1))
	fft := fourier.NewFFT(length)
	padded := make([]float64, length)
	coefficients := make([]complex128, length/2+1)
	power := make([]complex128, length/2+1)
	for _, chain := range chains {
		copy(padded, chain)
		floats.AddConst(-stat.Mean(chain, nil), padded[:n])
		fft.Coefficients(coefficients, padded)
		for i, c := range coefficients {
			power[i] += complex(real(c)*real(c)+imag(c)*imag(c), 0)
		}
	}
	s := fft.Sequence(padded, power)[:n]
	floats.Scale(1/float64(length*n*len(chains)), s) // Sequence after Coefficients multiplies by the length
	return s
}
