package engine

import (
	"fmt"
	"math"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
)

// fromData turns a training into contrastive divergence, whose chains start at the rows of the batch.
func fromData(c *TrainerConfig) {
	c.Spec.FromData, c.Spec.Reference, c.Spec.Batch, c.Spec.Exchange = true, nil, c.Spec.Chains, "state"
	c.Spec.Loss.Kind = "contrastive_divergence"
}

// Slices of a step, uneven ones and ones of several chains a ladder too, come to the step that the lead makes alone: every part of
// the loss, the gradient and the parameters, to rounding.
func TestGradientOnAllIsThatOnCold(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	penalties := losses.Config{Kind: "parallel_tempering_cd", EnergyPenalty: 0.1, GradientPenalty: 0.05}
	for _, tc := range []struct {
		name   string
		layout Layout
		change func(*TrainerConfig)
	}{
		{"whole ladders", Layout{Placement: "ladder", Split: 4, Rungs: 3, Chains: 8, Groups: 1}, func(c *TrainerConfig) { c.Spec.Loss = penalties }},
		{"single rungs, 6 shards for 8 ladders and 33 rows", Layout{Placement: "rung", Split: 2, Rungs: 3, Chains: 8, Groups: 1}, func(c *TrainerConfig) {
			c.Spec.Loss, c.Spec.Batch = penalties, 33
		}},
		{"virtual swaps, more shards than ladders", Layout{Placement: "rung", Split: 1, Rungs: 3, Chains: 2, Groups: 1}, func(c *TrainerConfig) {
			c.Spec.Loss, c.Spec.Weighted, c.Spec.Virtual, c.Tempering.VirtualSwaps = penalties, true, true, true
		}},
		{"chains from the data", Layout{Placement: "ladder", Split: 4, Rungs: 1, Chains: 8, Groups: 1}, fromData},
	} {
		t.Run(tc.name, func(t *testing.T) {
			reports, thetas := map[string]Report{}, map[string][]float32{}
			for _, on := range []string{"cold", "all"} {
				cfg := groupTraining(t, tc.layout, "state", tc.change)
				cfg.GradientOn = on
				cfg.Spec.Optimizer = OptimizerConfig{Kind: "sgd", LR: cfg.Spec.Optimizer.LR}
				tr, err := NewTrainer(b, cfg)
				if err != nil {
					t.Fatal(err)
				}
				defer tr.Close()
				if err := tr.Start(); err != nil {
					t.Fatal(err)
				}
				if reports[on], err = tr.TrainStep(); err != nil {
					t.Fatal(err)
				}
				if thetas[on], err = tr.Theta(); err != nil {
					t.Fatal(err)
				}
			}
			near := func(name string, got, want float64) {
				if !(math.Abs(got-want) <= 2e-5*(1+math.Abs(want))) {
					t.Errorf("%s: %g on all, want %g as on cold", name, got, want)
				}
			}
			all, cold := reports["all"], reports["cold"]
			near("loss", all.Loss, cold.Loss)
			near("norm of the gradient", all.GradNorm, cold.GradNorm)
			for i, part := range cold.Parts {
				near(part.Name, all.Parts[i].Value, part.Value)
			}
			for i, want := range thetas["cold"] {
				near(fmt.Sprintf("parameter %d", i), float64(thetas["all"][i]), float64(want))
			}
		})
	}
}

// Contrastive divergence on shards has the same bits wherever they are.
func TestPlacesOfChainsFromTheDataChangeNoBit(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		cfg := groupTraining(t, Layout{Placement: "ladder", Split: 4, Rungs: 1, Chains: 8, Groups: 1}, "state", fromData)
		cfg.GradientOn = "all"
		want := trainGroup(t, b, cfg, [][]uint32{{0, 1, 2, 3}}, false)
		if got := trainGroup(t, b, cfg, [][]uint32{{1, 3}, {2}, {0}}, b.Kind() == backend.Go); got != want {
			t.Errorf("digest %.12s, want %.12s as in one process", got, want)
		}
	})
}
