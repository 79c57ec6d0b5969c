package engine

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
)

func TestSourcesOfRungs(t *testing.T) {
	for _, tc := range []struct {
		name       string
		old, betas []float64
		want       string // a rung, with a + where its states are a copy
	}{
		{"the same", []float64{0, 0.1, 0.5, 1}, []float64{0, 0.1, 0.5, 1}, "0 1 2 3"},
		{"moved", []float64{0, 0.1, 0.5, 1}, []float64{0, 0.4, 0.9, 1}, "0 1 2 3"},
		{"one between", []float64{0, 0.1, 0.5, 1}, []float64{0, 0.1, 0.3, 0.5, 1}, "0 1 1+ 2 3"},
		{"two in a row", []float64{0.1, 1}, []float64{0.1, 0.2, 0.5, 1}, "0 0+ 0+ 1"},
		{"above the reference", []float64{0, 1}, []float64{0, 0.01, 1}, "0 0+ 1"},
		{"one fewer", []float64{0, 0.1, 0.5, 0.8, 1}, []float64{0, 0.1, 0.75, 1}, "0 1 3 4"},
		{"the ends alone", []float64{0, 0.1, 0.5, 0.8, 1}, []float64{0, 1}, "0 4"},
		{"another hottest rung", []float64{0.2, 0.5, 1}, []float64{0.01, 0.2, 0.5, 1}, "0 0+ 1 2"},
		{"all crowded at the target", []float64{0.1, 0.3, 0.6, 1}, []float64{0.1, 0.97, 0.98, 0.99, 1}, "0 1 2 2+ 3"},
	} {
		got := ""
		for _, s := range sources(tc.old, tc.betas) {
			got += fmt.Sprintf(" %d%s", s.rung, map[bool]string{true: "+"}[s.copied])
		}
		if got[1:] != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got[1:], tc.want)
		}
	}
}

// TestPairedIsTheBest compares with all ways to pair.
func TestPairedIsTheBest(t *testing.T) {
	z := rng.New(1, rng.Evaluate, 0, 0)
	for range 300 {
		increasing := func(n int) []float64 {
			out := make([]float64, n)
			for i := range out {
				out[i] = 8 * z.Float64()
			}
			slices.Sort(out)
			return out
		}
		m := 2 + z.IntN(4)
		few, many := increasing(m), increasing(m+z.IntN(4))
		distance := func(out []int) (sum float64) {
			for i, j := range out {
				sum += math.Abs(few[i] - many[j])
			}
			return sum
		}
		best := math.Inf(1)
		var choose func(chosen []int)
		choose = func(chosen []int) {
			i := len(chosen)
			if i == m-1 {
				best = min(best, distance(append(chosen, len(many)-1)))
				return
			}
			for j := chosen[i-1] + 1; j < len(many)-1; j++ {
				choose(append(slices.Clone(chosen), j))
			}
		}
		choose([]int{0})
		got := paired(few, many)
		strictly := func(a, b int) int { return cmp.Or(cmp.Compare(a, b), 1) }
		if !slices.IsSortedFunc(got, strictly) || got[0] != 0 || got[m-1] != len(many)-1 {
			t.Fatalf("%v of %v: %v, want each once, in order, with the ends", few, many, got)
		}
		if d := distance(got); !(math.Abs(d-best) < 1e-12) {
			t.Fatalf("%v of %v: %v at a distance of %g, want %g", few, many, got, d, best)
		}
	}
}

func TestLadderSpreadAlongAnother(t *testing.T) {
	for _, tc := range []struct {
		old   []float64
		rungs int
		want  []float64
	}{
		{[]float64{0.01, 0.1, 1}, 5, []float64{0.01, math.Sqrt(0.001), 0.1, math.Sqrt(0.1), 1}}, // halves, in ln β
		{[]float64{0, 0.04, 0.16, 1}, 7, []float64{0, 0.02, 0.04, 0.08, 0.16, 0.4, 1}},          // in β above the reference
		{[]float64{0, 0.04, 0.16, 0.4, 1}, 3, []float64{0, 0.16, 1}},
		{[]float64{0.2, 0.5, 1}, 2, []float64{0.2, 1}},
	} {
		got := spread(tc.old, tc.rungs)
		for i, want := range tc.want {
			if len(got) != tc.rungs || !(math.Abs(got[i]-want) <= 1e-15) {
				t.Errorf("%v on %d rungs: %v, want %v", tc.old, tc.rungs, got, tc.want)
				break
			}
		}
	}
	odd := []float64{0, 0.0123, 0.3456, 0.789, 1}
	if got := spread(odd, len(odd)); !slices.Equal(got, odd) {
		t.Errorf("%v on as many rungs: %v, want the same bits", odd, got)
	}
}

func TestInterpolatedStepSizes(t *testing.T) {
	old, logs := []float64{0, 0.1, 0.4, 1}, []float64{9, 1, 3, -5}
	betas := []float64{0, 0.05, 0.1, 0.2, 0.4, math.Sqrt(0.4), 1}
	want := []float64{9, 1, 1, 2, 3, -1, -5}
	for j, got := range interpolated(old, logs, betas) {
		if !(math.Abs(got-want[j]) <= 1e-14) || slices.Contains(old, betas[j]) && got != want[j] {
			t.Errorf("β = %g: %g, want %g", betas[j], got, want[j])
		}
	}
}
