package tempering

import (
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mathext"
)

func TestBarrier(t *testing.T) {
	// Gaussian precision path 1 → 10 in d = 100 dimensions, exact Λ 9.163: ten rungs, equally spaced in Λ, have the
	// rejection rate 1 − 2·I_{1/(1+R)}(d/2, d/2), R = 10^(1/9). Plain sum 7.18, corrected 9.15.
	r := 1 - 2*mathext.RegIncBeta(50, 50, 1/(1+math.Pow(10, 1./9)))
	rates := slices.Repeat([]float64{r}, 9)
	if got := RejectionSum(rates); math.Abs(got-7.18) > 0.005 {
		t.Errorf("rejection sum %.4f, want 7.18", got)
	}
	got, bound := Barrier(rates, 1e6)
	if math.Abs(got-9.15) > 0.006 || bound {
		t.Errorf("Λ = %.4f (lower bound %t), want 9.15 and no bound", got, bound)
	}
	if got, bound := Barrier([]float64{1, 0}, 100); math.IsInf(got, 0) || !bound {
		t.Errorf("a pair that never swaps: Λ = %g (lower bound %t), want a finite lower bound", got, bound)
	}
	if got, bound := Barrier([]float64{0, 0}, 100); got != 0 || bound {
		t.Errorf("no rejections: Λ = %g (lower bound %t), want 0", got, bound)
	}
	if got, _ := Barrier([]float64{math.NaN()}, 100); !math.IsNaN(got) {
		t.Errorf("a pair without attempts: Λ = %g, want NaN", got)
	}
}

func TestPredictedTripRate(t *testing.T) {
	for _, tc := range []struct {
		rates []float64
		want  float64
	}{
		{slices.Repeat([]float64{0.5}, 9), 0.05},
		{slices.Repeat([]float64{0.2}, 9), 1 / (2 + 2*9*0.25)},
		{slices.Repeat([]float64{0}, 9), 0.5},
		{[]float64{0.5, 1}, 0},
		{nil, 0.5},
	} {
		if got := PredictedTripRate(tc.rates); math.Abs(got-tc.want) > 1e-15 {
			t.Errorf("%v: τ = %g, want %g", tc.rates, got, tc.want)
		}
	}
}

func TestSuggestRungs(t *testing.T) {
	for _, tc := range []struct {
		lambda float64
		want   int
	}{{0, 1}, {0.4, 2}, {1.5425, 5}, {5, 11}, {29.04, 60}, {math.NaN(), 0}} {
		if got := SuggestRungs(tc.lambda); got != tc.want {
			t.Errorf("Λ = %g: %d rungs, want %d", tc.lambda, got, tc.want)
		}
	}
	// At that number of rungs about half of the swaps are rejected, and the rate of round trips is not far from its bound.
	lambda := 5.0
	r := rejectionOf(lambda / float64(SuggestRungs(lambda)-1))
	if math.Abs(r-0.5) > 0.05 {
		t.Errorf("Λ = 5: rejection rate %.3f, want about one half", r)
	}
	if bound := TripRateBound(lambda); math.Abs(bound-1./12) > 1e-15 {
		t.Errorf("Λ = 5: bound %g, want 1/12", bound)
	}
}
