package diagnostics

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/mathext"
	"gonum.org/v1/gonum/stat"
)

// halves checks chains and cuts each into its first and its last ⌊n/2⌋ draws; of an odd number the middle one is left
// out. A chain that drifts then disagrees with itself. The halves are slices of the chains.
func halves(chains [][]float64) ([][]float64, error) {
	if len(chains) == 0 {
		return nil, fmt.Errorf("no chains, want at least one")
	}
	n := len(chains[0])
	if n < 4 {
		return nil, fmt.Errorf("%d draws a chain, want at least 4", n)
	}
	var out [][]float64
	for m, chain := range chains {
		if len(chain) != n {
			return nil, fmt.Errorf("chain %d: %d draws, want %d as chain 0", m, len(chain), n)
		}
		for t, v := range chain {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return nil, fmt.Errorf("chain %d: draw %d is %g, want finite numbers", m, t, v)
			}
		}
		out = append(out, chain[:n/2], chain[n-n/2:])
	}
	if constant(out...) {
		return nil, fmt.Errorf("every draw is %g, want chains that move", out[0][0])
	}
	return out, nil
}

// constant says whether all numbers of all chains are equal.
func constant(chains ...[]float64) bool {
	for _, chain := range chains {
		for _, v := range chain {
			if v != chains[0][0] {
				return false
			}
		}
	}
	return true
}

// normalScores replaces every draw by Φ⁻¹((r − 3/8)/(S + 1/4)), where r is its rank among all S draws of all chains, and
// equal draws share the mean of their ranks (Blom, "Statistical Estimates and Transformed Beta-Variables", 1958). What
// is computed from the scores exists for draws without mean or variance too.
func normalScores(chains [][]float64) [][]float64 {
	sorted := slices.Concat(chains...)
	slices.Sort(sorted)
	size := float64(len(sorted))
	out := make([][]float64, len(chains))
	for m, chain := range chains {
		out[m] = make([]float64, len(chain))
		for t, v := range chain {
			below, _ := slices.BinarySearch(sorted, v)
			upTo, _ := slices.BinarySearch(sorted, math.Nextafter(v, math.Inf(1)))
			rank := float64(below+1+upTo) / 2
			out[m][t] = mathext.NormalQuantile((rank - 0.375) / (size + 0.25))
		}
	}
	return out
}

// folded is |x − median of all draws|: what differs in it between chains is their spread.
func folded(chains [][]float64) [][]float64 {
	all := slices.Concat(chains...)
	slices.Sort(all)
	median := all[(len(all)-1)/2]/2 + all[len(all)/2]/2
	out := make([][]float64, len(chains))
	for m, chain := range chains {
		out[m] = make([]float64, len(chain))
		for t, v := range chain {
			out[m][t] = math.Abs(v - median)
		}
	}
	return out
}

// chainMoments is the mean and the variance, over n − 1, of each chain.
func chainMoments(chains [][]float64) (means, variances []float64) {
	means, variances = make([]float64, len(chains)), make([]float64, len(chains))
	for m, chain := range chains {
		means[m], variances[m] = stat.MeanVariance(chain, nil)
	}
	return means, variances
}
