package coordinator_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/buffer"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// target is an energy without parameters, whose chains a training leaves to themselves: its steps are scans. The mass of
// Σx > 0 is known; a plain chain keeps the sign that it starts with.
type target struct {
	energy   func() (models.Energy, error)
	std      float64 // of the reference, in every coordinate
	stepSize float64
	exchange string
	layout   engine.Layout
	positive float64 // P(Σx > 0)
	burn     int     // steps until ladder and chains have settled
	looks    int     // at the target chains after that, every fourth step
}

var targets = map[string]target{
	// 16(x² − 1)² + ½x, the truth by quadrature.
	"double well": {
		energy: func() (models.Energy, error) { return models.NewTiltedDoubleWell(1, 16, 0.5) },
		std:    2, stepSize: 0.01, exchange: "state",
		layout:   engine.Layout{Placement: "rung", Split: 1, Rungs: 6, Chains: 128, Groups: 1},
		positive: 0.271407, burn: 400, looks: 200,
	},
	// 0.2·N(−m, I) + 0.8·N(m, I) in sixteen dimensions, |m| = 5.
	"two modes": {
		energy: func() (models.Energy, error) {
			m := slices.Repeat([]float64{1.25}, 16)
			return models.NewGaussianMixture([]float64{0.2, 0.8}, [][]float64{slices.Repeat([]float64{-1.25}, 16), m}, nil)
		},
		std: 6, stepSize: 0.5, exchange: "label",
		layout:   engine.Layout{Placement: "rung", Split: 1, Rungs: 12, Chains: 128, Groups: 1},
		positive: 0.8, burn: 400, looks: 200,
	},
}

// buildTarget makes the experiment of a target: losses and optimizer are there, but nothing to learn.
func buildTarget(s scenario) (replica.Experiment, error) {
	law := targets[s.Target]
	energy, err := law.energy()
	if err != nil {
		return replica.Experiment{}, err
	}
	q := models.Gaussian{Mean: make([]float64, energy.Dim()), Std: slices.Repeat([]float64{law.std}, energy.Dim())}
	cfg := engine.TrainerConfig{
		Spec: engine.Spec{Network: energy, Reference: &q, Rungs: s.Layout.Rungs, Chains: s.Layout.Chains, Pool: s.Layout.Chains, Batch: 1,
			Exchange: s.Exchange, Seed: 3, Loss: losses.Config{Kind: "parallel_tempering_cd"},
			Sampler:   samplers.Config{Kind: "mala", Steps: 5, StepSize: schedules.Constant(law.stepSize)}.WithDefaults(),
			Optimizer: engine.OptimizerConfig{Kind: "sgd", LR: schedules.Constant(0)}},
		Tempering: tempering.Config{Rungs: s.Layout.Rungs, Chains: s.Layout.Chains, Exchange: s.Exchange}.WithDefaults(),
		Buffer:    buffer.Config{Size: s.Layout.Chains, Init: "reference"},
		Layout:    s.Layout,
		Positives: func(int, []float32) {},
	}
	return replica.Experiment{
		Backend: backend.Config{Kind: s.Kind, Threads: 2}, Layout: s.Layout, Averaging: s.Averaging,
		Member: func(b *backend.Backend, group int, local []uint32, mesh engine.Mesh) (replica.Member, error) {
			cfg := cfg
			cfg.Group, cfg.Local, cfg.Mesh = group, local, mesh
			return engine.NewTrainer(b, cfg)
		},
	}, nil
}

// Chains that no plain sampler would move between their modes come to the masses of both, with the rungs on four processes
// that reach each other through a listening server, and the numbers are those of one process.
func TestProcessesMeetTheTargets(t *testing.T) {
	for name, law := range targets {
		t.Run(name, func(t *testing.T) {
			t.Logf("")
			s := scenario{Kind: backend.Go, Exchange: law.exchange, Averaging: one, Layout: law.layout, Target: name}
			exp, err := build(s.offer().Experiment, "")
			if err != nil {
				t.Fatal(err)
			}
			m, err := exp.Member(testutil.Backend(t, backend.Go), 0, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Start(); err != nil {
				t.Fatal(err)
			}
			energy, _ := law.energy()
			dim := energy.Dim()
			positive, n := 0., 0.
			for i := range law.burn + 4*law.looks {
				if _, err := m.TrainStep(); err != nil {
					t.Fatal(err)
				}
				if i >= law.burn && i%4 == 3 {
					x, err := m.(replica.Chained).TargetChains()
					if err != nil {
						t.Fatal(err)
					}
					for row := range slices.Chunk(x, dim) {
						sum := float32(0)
						for _, v := range row {
							sum += v
						}
						if sum > 0 {
							positive++
						}
						n++
					}
				}
				if i%50 == 49 {
					c := m.(replica.Chained)
					rej := ""
					for _, p := range c.Stats().Pairs {
						rej += fmt.Sprintf(" %.2f", p.Rejection())
					}
					t.Logf("%d P %.4f betas %.4f rej %s trips %.4f", i+1, positive/n, c.Adapted().Betas, rej, c.TripRate())
					c.ResetPairs()
				}
			}
			if p := positive / n; !(math.Abs(p-law.positive) <= 0.02) {
				t.Errorf("P(Σx > 0) %.4f, want %.4f ± 0.02", p, law.positive)
			}
		})
	}
}
