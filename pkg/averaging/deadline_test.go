package averaging_test

import (
	"math"
	"testing"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
)

func TestDeadline(t *testing.T) {
	const s = time.Second
	repeat := func(n int, d time.Duration) []time.Duration {
		v := make([]time.Duration, n)
		for i := range v {
			v[i] = d
		}
		return v
	}
	for _, tc := range []struct {
		name    string
		offsets []time.Duration
		want    time.Duration
	}{
		{"nothing known", nil, 10 * time.Minute},
		{"one", []time.Duration{3 * s}, 3 * s},
		{"median 3, deviations 2 1 0 1 7", []time.Duration{1 * s, 2 * s, 3 * s, 4 * s, 10 * s}, 7 * s},
		{"any order", []time.Duration{10 * s, 3 * s, 1 * s, 4 * s, 2 * s}, 7 * s},
		{"even: median 2.5, deviations 1.5 0.5 0.5 1.5", []time.Duration{1 * s, 2 * s, 3 * s, 4 * s}, 6500 * time.Millisecond},
		{"one straggler changes nothing", append(repeat(9, 2*s), 500*s), 2 * s},
		{"at least half a second", repeat(5, time.Millisecond), 500 * time.Millisecond},
		{"at most ten minutes", []time.Duration{time.Hour, 2 * time.Hour, 3 * time.Hour}, 10 * time.Minute},
		{"a clock that went back, one that leapt", []time.Duration{-s, math.MinInt64, 2 * s, math.MaxInt64, 2 * s}, 10 * s},
		{"the last 32 alone", append(repeat(100, 60*s), repeat(32, 2*s)...), 2 * s},
		{"16 of the last 32: median 4, deviations 2", append(append(repeat(100, 60*s), repeat(16, 2*s)...), repeat(16, 6*s)...), 12 * s},
	} {
		var a averaging.Arrivals
		for _, d := range tc.offsets {
			a.Record(d)
		}
		if got := a.Deadline(); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}
