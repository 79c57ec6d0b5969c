package tempering

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
)

func newRecord(t testing.TB, rungs, ladders, limit int) *Record {
	t.Helper()
	r, err := NewRecord(rungs, ladders, limit)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A record that is full goes on with every second scan, so that what it keeps is spread evenly over the whole round.
func TestRecordThinsWhenFull(t *testing.T) {
	for _, tc := range []struct {
		limit, scans, stride int
		kept                 []float64
	}{
		{4, 4, 1, []float64{0, 1, 2, 3}},
		{4, 5, 2, []float64{0, 2, 4}},
		{4, 8, 2, []float64{0, 2, 4, 6}},
		{4, 9, 4, []float64{0, 4, 8}},
		{5, 6, 2, []float64{0, 2, 4}},
		{5, 13, 4, []float64{0, 4, 8, 12}},
		{2, 100, 64, []float64{0, 64}},
	} {
		r := newRecord(t, 2, 3, tc.limit)
		for scan := range tc.scans {
			v := make([]float64, 6)
			for row := range v {
				v[row] = float64(100*row + scan)
			}
			r.Add(v)
			v[0] = math.NaN() // the record keeps a copy
		}
		if r.Scans() != len(tc.kept) || r.Stride() != tc.stride || !slices.Equal(r.Chain(0, 0), tc.kept) {
			t.Errorf("limit %d, %d scans: %d kept, stride %d, %v, want stride %d, %v", tc.limit, tc.scans, r.Scans(), r.Stride(), r.Chain(0, 0), tc.stride, tc.kept)
		}
		if got, want := r.Chain(1, 2)[1], 500+tc.kept[1]; got != want {
			t.Errorf("limit %d, %d scans: rung 1 of ladder 2 is %g, want %g", tc.limit, tc.scans, got, want)
		}
	}
}

func TestRecordRefusesWhatItCannotHold(t *testing.T) {
	for _, tc := range []struct {
		rungs, ladders, limit int
		want                  string
	}{
		{0, 4, 10, "tempering: record: 4 ladders of 0 rungs, want at least 1 and at most 2147483647 rows"},
		{3, 0, 10, "tempering: record: 0 ladders of 3 rungs, want at least 1 and at most 2147483647 rows"},
		{1 << 16, 1 << 16, 10, "tempering: record: 65536 ladders of 65536 rungs, want at least 1 and at most 2147483647 rows"},
		{3, 4, 1, "tempering: record: limit: 1 scans, want at least 2"},
	} {
		if _, err := NewRecord(tc.rungs, tc.ladders, tc.limit); err == nil || err.Error() != tc.want {
			t.Errorf("NewRecord(%d, %d, %d): %v, want %q", tc.rungs, tc.ladders, tc.limit, err, tc.want)
		}
	}
	defer func() {
		if got, ok := recover().(string); !ok || !strings.Contains(got, "5 values, want 6 for 2 rungs of 3 ladders") {
			t.Errorf("Add of 5 values: panic %v", got)
		}
	}()
	newRecord(t, 2, 3, 10).Add(make([]float64, 5))
}

// Two uniform laws that are half a width apart share a half. The bins follow the samples, so that it makes no difference
// when V is stretched until nearly all of its range is tail.
func TestOverlapOfUniformLaws(t *testing.T) {
	const ladders, scans = 10, 2000
	draws := rng.New(1, rng.Dataset, 0, 0)
	plain, stretched := newRecord(t, 3, ladders, scans), newRecord(t, 3, ladders, scans)
	for range scans {
		v := make([]float64, 3*ladders)
		for row := range v {
			v[row] = draws.Float64() + []float64{0, 0.5, 3}[row/ladders]
		}
		plain.Add(v)
		for row, x := range v {
			v[row] = math.Exp(20 * x)
		}
		stretched.Add(v)
	}
	// The share of 20,000 samples of one law in one half has a standard error of 0.0035.
	got := plain.Overlap(40)
	if math.Abs(got[0]-0.5) > 0.02 || got[1] != 0 {
		t.Errorf("overlap %v, want 0.5 and 0", got)
	}
	if other := stretched.Overlap(40); !slices.Equal(got, other) {
		t.Errorf("overlap %v of stretched energies, want %v as of the plain ones", other, got)
	}
}

func TestHistogramsLeaveTheTailOut(t *testing.T) {
	const scans = 1000
	r := newRecord(t, 2, 1, scans)
	for scan := range scans {
		v := []float64{float64(scan), 7}
		if scan == 500 {
			v[0] = math.NaN()
		}
		if scan == 999 {
			v[0] = -1e30
		}
		r.Add(v)
	}
	h := r.Histograms(10)
	if len(h) != 2 || h[0].Lo < 0 || h[0].Hi > 998 {
		t.Fatalf("histograms %+v, want the first within 0 to 998", h)
	}
	total := 0
	for _, c := range h[0].Counts {
		total += c
		if c < 95 || c > 105 {
			t.Errorf("counts %v of evenly spread numbers, want about 99 in each bin", h[0].Counts)
		}
	}
	if total < 985 || total > 995 {
		t.Errorf("%d numbers in the bins, want 99 %% of 999", total)
	}
	if h[1].Lo != 7 || h[1].Hi != 7 || len(h[1].Counts) != 10 {
		t.Errorf("histogram %+v of a constant, want all of it at 7", h[1])
	}
}
