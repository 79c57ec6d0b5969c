package integrators_test

import (
	"math"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/integrators"
)

func TestControllerNext(t *testing.T) {
	defaults := integrators.Controller{}.WithDefaults()
	limited := integrators.Controller{MaxStepSize: 0.15}.WithDefaults()
	for _, tc := range []struct {
		name     string
		c        integrators.Controller
		norm     float64
		order    int
		accepted bool
		next     float64
	}{
		{"just allowed", defaults, 1, 5, true, 0.09},
		{"32 times too large", defaults, 32, 5, false, 0.045},
		{"a hundredth", defaults, 0.01, 2, true, 0.9},
		{"grows tenfold at most", defaults, 1e-10, 2, true, 1},
		{"no error at all", defaults, 0, 3, true, 1},
		{"shrinks to a fifth at most", defaults, 1e12, 2, false, 0.02},
		{"infinite", defaults, math.Inf(1), 5, false, 0.02},
		{"not a number", defaults, math.NaN(), 5, false, 0.02},
		{"held by the limit", limited, 0, 5, true, 0.15},
	} {
		t.Run(tc.name, func(t *testing.T) {
			accepted, next := tc.c.Next(0.1, tc.norm, tc.order)
			if accepted != tc.accepted || math.Abs(next-tc.next) > 1e-15 {
				t.Errorf("accepted %v, next %g, want %v, %g", accepted, next, tc.accepted, tc.next)
			}
		})
	}
}

func TestControllerValidate(t *testing.T) {
	if err := (integrators.Controller{}).Validate(); err != nil {
		t.Error(err)
	}
	err := integrators.Controller{Atol: math.NaN(), Rtol: -1, Norm: "max", Safety: 1, MinFactor: 2, MaxFactor: 0.5, MaxStepSize: -1, MaxSteps: -2}.Validate()
	for _, want := range []string{
		"atol: NaN, want a positive number", "rtol: -1, want a positive number", `norm: "max", want one of batch, row`,
		"safety: 1, want a value in (0, 1)", "min_factor: 2, want a value in (0, 1)", "max_factor: 0.5, want more than 1",
		"max_step_size: -1, want 0 for no limit, or a positive number", "max_steps: -2, want at least 1",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to say %s", err, want)
		}
	}
}
