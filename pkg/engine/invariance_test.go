package engine

import (
	"context"
	"errors"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// Every kernel with a Metropolis test, path, exchange and schedule keeps the laws of all rungs, with step sizes and ladders
// that are given and with such that adapted before; a Langevin step of half the inverse curvature does not.
func TestScansKeepTheLawOfEveryRung(t *testing.T) {
	still := new(0.)
	betas := []float64{0, 0.06, 0.2, 0.5, 1}
	for _, tc := range []struct {
		name      string
		sampler   samplers.Config
		tempering tempering.Config
		keeps     bool
	}{
		{"mala, adapting", samplers.Config{Kind: "mala", Steps: 3}, tempering.Config{}, true},
		{"mala by labels with a coin", samplers.Config{Kind: "mala", Steps: 2, StepSize: schedules.Constant(0.1), AcceptTarget: still},
			tempering.Config{Rungs: 5, Ladder: "fixed", Betas: betas, Exchange: "label", Schedule: "seo"}, true},
		{"hmc by labels along powers", samplers.Config{Kind: "hmc", Steps: 1, LeapfrogSteps: 3, StepSize: schedules.Constant(0.4), AcceptTarget: still},
			tempering.Config{Path: "power", Ladder: "geometric", Exchange: "label"}, true},
		{"rmhmc", samplers.Config{Kind: "rmhmc", Steps: 1, LeapfrogSteps: 2, StepSize: schedules.Constant(0.2), AcceptTarget: still},
			tempering.Config{Ladder: "cubic"}, true},
		// Steps of a quarter of a turn, which forget the energy: windows need that.
		{"hmc in windows by labels", samplers.Config{Kind: "hmc", Steps: 2, LeapfrogSteps: 3, StepSize: schedules.Constant(0.166), AcceptTarget: still},
			tempering.Config{Ladder: "cubic", Schedule: "windowed", Window: 2, Exchange: "label"}, true},
		{"langevin", samplers.Config{Kind: "langevin", Steps: 2, StepSize: schedules.Constant(0.05)}, tempering.Config{Ladder: "cubic"}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
				cfg := InvarianceConfig{Sampler: tc.sampler, Tempering: tc.tempering, Seed: 1}
				if b.Kind() == backend.Go {
					cfg.Ladders = 2000
				}
				r, err := Invariance(t.Context(), b, cfg)
				if err != nil {
					t.Fatal(err)
				}
				if r.Passed != tc.keeps {
					t.Errorf("passed %t, want %t: level %.2g of %+v", r.Passed, tc.keeps, r.Level, r.Rungs)
				}
			})
		})
	}
}

// Chains that left for infinity have no law; the report says so in numbers.
func TestInvarianceOfChainsThatLeave(t *testing.T) {
	r, err := Invariance(t.Context(), testutil.Backend(t, backend.Go), InvarianceConfig{Ladders: 50, Seed: 1,
		Sampler:   samplers.Config{Kind: "langevin", Steps: 100, StepSize: schedules.Constant(10)},
		Tempering: tempering.Config{Rungs: 2, Ladder: "cubic"}})
	if err != nil {
		t.Fatal(err)
	}
	if target := r.Rungs[1]; r.Passed || !(target.P < 1e-9) || !(target.D > 0.9) {
		t.Errorf("passed %t: %+v", r.Passed, r.Rungs)
	}
}

func TestInvarianceRefusesWhatItCannotTest(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	for _, tc := range []struct {
		cfg  InvarianceConfig
		want string
	}{
		{InvarianceConfig{Sampler: samplers.Config{Kind: "flow"}}, "engine: invariance: sampler.kind: flow has no law to keep, want mala, hmc, rmhmc or langevin"},
		{InvarianceConfig{Sampler: samplers.Config{Kind: "nesterov"}}, "engine: invariance: sampler.kind: nesterov has no law to keep, want mala, hmc, rmhmc or langevin"},
		{InvarianceConfig{Sampler: samplers.Config{Steps: 1, Box: []float64{-1, 1}}}, "engine: invariance: sampler.box: [-1 1], want none: the laws of the test are Gaussians"},
		{InvarianceConfig{Sampler: samplers.Config{Steps: 1}, Ladders: -1}, "engine: invariance: ladders: -1, want at least 1, or 0 for 20000"},
		{InvarianceConfig{Sampler: samplers.Config{Steps: 1}, Tempering: tempering.Config{Rungs: 1}}, "engine: invariance: engine: sampler: 1 rungs, want at least 2"},
	} {
		if _, err := Invariance(t.Context(), b, tc.cfg); err == nil || err.Error() != tc.want {
			t.Errorf("%+v: %v, want %s", tc.cfg, err, tc.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Invariance(ctx, b, InvarianceConfig{Sampler: samplers.Config{Steps: 1}, Ladders: 10}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
