package averaging_test

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
)

func TestDefaults(t *testing.T) {
	for name, tc := range map[string]struct{ given, want averaging.Config }{
		"nothing given":       {averaging.Config{}, averaging.Config{Groups: 1, Every: 10, Outer: "mean", Format: "fp32"}},
		"nesterov":            {averaging.Config{Outer: "nesterov"}, averaging.Config{Groups: 1, Every: 10, Outer: "nesterov", LR: 0.7, Momentum: 0.9, Format: "fp32"}},
		"sync":                {averaging.Config{Groups: 4, Outer: "sync"}, averaging.Config{Groups: 4, Every: 1, Outer: "sync", Format: "fp32"}},
		"what is given stays": {averaging.Config{Groups: 2, Every: 50, Outer: "nesterov", LR: 1, Momentum: 0.5, Format: "int8"}, averaging.Config{Groups: 2, Every: 50, Outer: "nesterov", LR: 1, Momentum: 0.5, Format: "int8"}},
	} {
		got := tc.given.WithDefaults()
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if err := got.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestValidateReportsEveryFault(t *testing.T) {
	for _, tc := range []struct {
		name   string
		config averaging.Config
		want   []string
	}{
		{"zero", averaging.Config{}, []string{"groups: 0, ", "every: 0, ", `outer: "", want one of mean, nesterov, sync`, `format: "", want one of fp32, bf16, int8`}},
		{"numbers of nesterov", averaging.Config{Groups: 2, Every: 1, Outer: "nesterov", LR: math.NaN(), Momentum: 1, Format: "bf16"}, []string{"lr: NaN, ", "momentum: 1, "}},
		{"infinite rate", averaging.Config{Groups: 2, Every: 1, Outer: "nesterov", LR: math.Inf(1), Momentum: -0.1, Format: "bf16"}, []string{"lr: +Inf, ", "momentum: -0.1, "}},
		{"numbers that mean does not read", averaging.Config{Groups: 2, Every: 1, Outer: "mean", LR: 0.7, Momentum: 0.9, Format: "fp32"}, []string{"lr: 0.7, not read", "momentum: 0.9, not read"}},
		{"rare rounds of sync", averaging.Config{Groups: 2, Every: 10, Outer: "sync", Format: "fp32"}, []string{"every: 10, want 1 under outer: sync"}},
		{"format of what never travels", averaging.Config{Groups: 1, Every: 10, Outer: "mean", Format: "int8"}, []string{"format: int8, not read"}},
		{"one group under nesterov", averaging.Config{Groups: 1, Every: 10, Outer: "nesterov", LR: 0.7, Format: "int8"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			if err := tc.config.Validate(); err != nil {
				got = strings.Split(err.Error(), "\n")
			}
			if len(got) != len(tc.want) {
				t.Fatalf("faults %q, want %d", got, len(tc.want))
			}
			for i, want := range tc.want {
				if !strings.HasPrefix(got[i], want) {
					t.Errorf("fault %q, want %q", got[i], want)
				}
			}
			if len(tc.want) > 0 {
				if _, err := averaging.NewOuter(tc.config, nil); err == nil {
					t.Error("a leader of this section, want an error")
				}
				if _, err := averaging.NewGroup(tc.config, nil); err == nil {
					t.Error("a group of this section, want an error")
				}
			}
		})
	}
}

func TestOneGroupSendsNothingUnlessTheOuterStepMoves(t *testing.T) {
	for _, tc := range []struct {
		groups int
		outer  string
		want   bool
	}{{1, "mean", false}, {1, "sync", false}, {1, "nesterov", true}, {2, "mean", true}} {
		if got := (averaging.Config{Groups: tc.groups, Outer: tc.outer}).Travels(); got != tc.want {
			t.Errorf("%d groups, %s: travels %t, want %t", tc.groups, tc.outer, got, tc.want)
		}
	}
}
