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
	limit := 1 - 1/(2*max(n, 1))
	for _, r := range rejections {
		if r > limit {
			r, lowerBound = limit, true
		}
		lambda += 2 / math.Sqrt(math.Pi) * math.Erfinv(r)
	}
	return lambda, lowerBound
}

// PredictedTripRate is the rate of round trips, a scan and ladder, summed over its walkers, that the rejection rates
// allow when every exploration forgets the energy before it: τ = 1/(2 + 2 Σ r_i/(1 − r_i)). A pair that rejects always
// gives 0.
func PredictedTripRate(rejections []float64) float64 {
	odds := 0.0
	for _, r := range rejections {
		odds += r / (1 - r)
	}
	return 1 / (2 + 2*odds)
}
