package diagnostics

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/stat"
)

// Histogram counts x in bins of equal width from lo to hi: bin i holds lo + i·w ≤ x < lo + (i+1)·w, the last one hi too.
// Numbers outside, and NaN, are in no bin. It panics unless bins ≥ 1 and lo ≤ hi, both finite.
func Histogram(x []float64, lo, hi float64, bins int) []int {
	if bins < 1 || !(lo <= hi) || math.IsInf(lo, 0) || math.IsInf(hi, 0) {
		panic(fmt.Sprintf("diagnostics: histogram: %d bins from %g to %g, want at least one, of a finite range", bins, lo, hi))
	}
	counts := make([]int, bins)
	for _, v := range x {
		switch {
		case v == hi:
			counts[bins-1]++
		case v >= lo && v < hi:
			counts[min(int((v-lo)/(hi-lo)*float64(bins)), bins-1)]++
		}
	}
	return counts
}

// Overlap is Σ min(p_i, q_i) over the shares p and q that a and b have in each of bins equal bins from their common least
// number to their common largest: 1 for equal histograms, 0 for separate ones. Energies of neighbouring rungs overlap
// where swaps are accepted. It is NaN where a or b is empty or holds a number that is not finite, and panics unless
// bins ≥ 1.
func Overlap(a, b []float64, bins int) float64 {
	if len(a) == 0 || len(b) == 0 {
		return math.NaN()
	}
	for _, v := range [][]float64{a, b} {
		for _, x := range v {
			if math.IsNaN(x) || math.IsInf(x, 0) {
				return math.NaN()
			}
		}
	}
	lo, hi := min(floats.Min(a), floats.Min(b)), max(floats.Max(a), floats.Max(b))
	p, q := Histogram(a, lo, hi, bins), Histogram(b, lo, hi, bins)
	sum := 0.0
	for i := range p {
		sum += min(float64(p[i])/float64(len(a)), float64(q[i])/float64(len(b)))
	}
	return sum
}

// Correlation is Pearson's correlation coefficient of a and b, in [−1, 1]. It is NaN where either is constant, has fewer
// than two numbers, or holds one that is not finite. It panics if the lengths differ.
func Correlation(a, b []float64) float64 {
	if len(a) != len(b) {
		panic(fmt.Sprintf("diagnostics: correlation: %d and %d numbers, want as many of each", len(a), len(b)))
	}
	if len(a) < 2 || constant(a) || constant(b) {
		return math.NaN()
	}
	return min(max(stat.Correlation(a, b, nil), -1), 1) // rounding may lead past the ends
}
