package tempering

import "math"

// RejectionSum is Σ r_i over the pairs: what is often printed as the barrier, and too low where few rungs span it.
func RejectionSum(rejections []float64) float64 {
	sum := 0.0
	for _, r := range rejections {
		sum += r
	}
	return sum
}

// Barrier estimates the global communication barrier Λ from the rejection rates of the pairs as the corrected sum
// Σ ℓ_i, ℓ_i = (2/√π)·erfinv(r_i): exact where V is Gaussian on a pair, while Σ r_i saturates at 1 a pair. A rate above
// 1 − 1/(2n), n the number of attempts behind each rate, cannot be told from 1; it is taken as that and Λ is then a
// lower bound.
func Barrier(rejections []float64, n float64) (lambda float64, lowerBound bool) {
	shares, lowerBound := barrierShares(rejections, n)
	return RejectionSum(shares), lowerBound
}

// barrierShares are the corrected shares ℓ_i of the pairs in the barrier.
func barrierShares(rejections []float64, n float64) (shares []float64, lowerBound bool) {
	limit := 1 - 1/(2*max(n, 1))
	shares = make([]float64, len(rejections))
	for i, r := range rejections {
		if r > limit {
			r, lowerBound = limit, true
		}
		shares[i] = 2 / math.Sqrt(math.Pi) * math.Erfinv(r)
	}
	return shares, lowerBound
}

// rejectionOf is the rejection rate of a pair with share ℓ in the barrier, r = erf(√π·ℓ/2).
func rejectionOf(share float64) float64 { return math.Erf(math.Sqrt(math.Pi) / 2 * share) }

// PredictedTripRate is the rate of round trips, a scan and ladder, summed over its walkers, that the rejection rates
// allow under deo when every exploration forgets the energy before it: τ = 1/(2 + 2 Σ r_i/(1 − r_i)). A pair that
// rejects always gives 0.
func PredictedTripRate(rejections []float64) float64 { return 1 / (2 + 2*odds(rejections, 1)) }

// PredictedTripRateSEO is the same for seo: τ = 1/(2N + 2 Σ r_i/(1 − r_i)) with N pairs.
func PredictedTripRateSEO(rejections []float64) float64 {
	return 1 / (2*float64(len(rejections)) + 2*odds(rejections, 1))
}

// PredictedTripRateWindowed is the same for windows of W scans, where a pair fails to swap in a window with probability
// r_i^W: τ = 1/(2 + 2 Σ r_i^W/(1 − r_i^W))/W.
func PredictedTripRateWindowed(rejections []float64, window int) float64 {
	w := float64(window)
	return 1 / (2 + 2*odds(rejections, w)) / w
}

// TripRateBound is 1/(2 + 2Λ), the rate of round trips that no number of rungs can pass.
func TripRateBound(lambda float64) float64 { return 1 / (2 + 2*lambda) }

// odds is Σ r_i^w/(1 − r_i^w).
func odds(rejections []float64, w float64) float64 {
	sum := 0.0
	for _, r := range rejections {
		fail := math.Pow(r, w)
		sum += fail / (1 - fail)
	}
	return sum
}

// SuggestRungs is ⌈2Λ⌉ + 1, the number of rungs with most round trips for the compute: about half of the swaps are
// rejected then. More processors than that run more ladders, not more rungs. It is 0 where Λ is NaN.
func SuggestRungs(lambda float64) int {
	if math.IsNaN(lambda) {
		return 0
	}
	return int(math.Ceil(2*min(lambda, math.MaxInt32/4))) + 1
}
