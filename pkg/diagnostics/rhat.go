package diagnostics

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/stat"
)

// SplitRHat is the rank-normalised split R̂ of chains [M][n] (Vehtari, Gelman, Simpson, Carpenter, Bürkner,
// "Rank-normalization, folding, and localization: an improved R̂ for assessing convergence of MCMC", Bayesian Analysis
// 2021; the value of arviz.rhat with method "rank").
//
// Every chain is cut into halves, the draws are replaced by normal scores of their ranks, and
//
//	R̂² = (n−1)/n + B/(n·W)
//
// with W the mean variance within a half, B/n the variance of the means of the halves, and n the draws of a half. The
// result is the larger of R̂ of the draws, which sees chains in different places, and of R̂ of |x − median|, which sees
// chains of different width. Near 1 the chains cannot be told apart; above 1.01 they have not mixed. It is +Inf where no
// half moves and not all are at one place.
//
// The chains have to be independent, such as those of different ladders at one rung; walkers of one ladder are not. Four
// or more are wanted; of a single one it compares the halves.
//
// Chains of unequal length, of fewer than four draws, with a draw that is not finite, or all of whose draws are equal
// are errors.
func SplitRHat(chains [][]float64) (float64, error) {
	split, err := halves(chains)
	if err != nil {
		return 0, fmt.Errorf("diagnostics: split r-hat: %w", err)
	}
	bulk := rHat(normalScores(split))
	fold := folded(split)
	if constant(fold...) { // two values, as many draws at the one as at the other: there is no width to compare
		return bulk, nil
	}
	return max(bulk, rHat(normalScores(fold))), nil
}

// rHat is √((n−1)/n + B/(nW)) of chains that are not all constant and equal.
func rHat(chains [][]float64) float64 {
	n := float64(len(chains[0]))
	means, variances := chainMoments(chains)
	return math.Sqrt((n-1)/n + stat.Variance(means, nil)/stat.Mean(variances, nil))
}
