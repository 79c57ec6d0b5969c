package engine

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/buffer"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// groupTraining is a small training of a ladder whose chains the layout cuts into shards.
func groupTraining(t *testing.T, layout Layout, exchange string, change func(*TrainerConfig)) TrainerConfig {
	t.Helper()
	f, err := models.Config{Kind: "mlp", Hidden: []int{16}}.Build(2)
	if err != nil {
		t.Fatal(err)
	}
	draws := rng.New(5, rng.Dataset, 0, 0)
	rows := make([]float64, 2*256)
	for i := range rows {
		rows[i] = draws.Normal() + float64(i%4/2)*3
	}
	q, err := models.FitGaussian(rows, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	cfg := TrainerConfig{
		Spec: Spec{Network: f, Base: &q, Reference: &q, Rungs: layout.Rungs, Chains: layout.Chains, Pool: layout.Chains, Batch: 32,
			Exchange: exchange, Seed: 11, Loss: losses.Config{Kind: "parallel_tempering_cd"},
			Sampler:   samplers.Config{Kind: "mala", Steps: 2, StepSize: schedules.Constant(0.05)}.WithDefaults(),
			Optimizer: OptimizerConfig{Kind: "adam", LR: schedules.Constant(0.02), Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8, ClipNorm: 1, EMA: 0.9}},
		Tempering: tempering.Config{Rungs: layout.Rungs, Chains: layout.Chains, Exchange: exchange, AdaptEvery: 3}.WithDefaults(),
		Buffer:    buffer.Config{Size: layout.Chains, Init: "reference"},
		Layout:    layout, Data: rows,
		Positives: func(step int, into []float32) {
			for i := range into {
				into[i] = float32(rows[(step*len(into)+i)%len(rows)])
			}
		},
	}
	if change != nil {
		change(&cfg)
	}
	return cfg
}

// trainGroup trains in as many processes as held has entries, each with its shards, here goroutines over one mesh, and
// returns the digest that the lead has after some steps, with a cut and a fresh start from it on the way.
func trainGroup(t *testing.T, b *backend.Backend, cfg TrainerConfig, held [][]uint32) string {
	t.Helper()
	const steps = 7
	digests, errs := make([]string, len(held)), make([]error, len(held))
	var wait sync.WaitGroup
	mesh := &LocalMesh{}
	for i, local := range held {
		wait.Go(func() {
			errs[i] = func() error {
				cfg := cfg
				cfg.Local, cfg.Mesh = local, mesh
				tr, err := NewTrainer(b, cfg)
				if err != nil {
					return err
				}
				defer tr.Close()
				if err := tr.Start(); err != nil {
					return err
				}
				for range steps {
					if _, err := tr.TrainStep(); err != nil {
						return err
					}
				}
				digest, err := tr.Digest()
				if tr.Lead() != (err == nil) {
					return fmt.Errorf("lead %t, digest %w", tr.Lead(), err)
				}
				digests[i] = digest
				return nil
			}()
		})
	}
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	digests = slices.DeleteFunc(digests, func(d string) bool { return d == "" })
	if len(digests) != 1 {
		t.Fatalf("%d leads, want one", len(digests))
	}
	return digests[0]
}

// However many processes hold the shards of an experiment, it comes to the same bits.
func TestPlacesOfShardsChangeNoBit(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for _, tc := range []struct {
			placement, exchange string
			split               int
		}{{"ladder", "state", 4}, {"ladder", "label", 2}, {"rung", "state", 1}, {"rung", "state", 2}, {"rung", "label", 2}} {
			t.Run(fmt.Sprintf("%s, %s, split %d", tc.placement, tc.exchange, tc.split), func(t *testing.T) {
				layout := Layout{Placement: tc.placement, Split: tc.split, Rungs: 3, Chains: 8, Groups: 1}
				cfg := groupTraining(t, layout, tc.exchange, nil)
				var all []uint32
				for _, p := range layout.Shards(0) {
					all = append(all, p.ID)
				}
				want := trainGroup(t, b, cfg, [][]uint32{all})
				n := len(all)
				for _, held := range [][][]uint32{{all[:1], all[1:]}, {all[1:], all[:1]}, {all[n-1:], all[:n/2], all[n/2 : n-1]}} {
					held = slices.DeleteFunc(held, func(ids []uint32) bool { return len(ids) == 0 })
					if got := trainGroup(t, b, cfg, held); got != want {
						t.Errorf("shards held as %v: digest %.12s, want %.12s as in one process", held, got, want)
					}
				}
			})
		}
	})
}

// Under sync all groups keep the same parameters, which learn from the rows and the chains of all of them.
func TestSyncKeepsGroupsTogether(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		layout := Layout{Placement: "ladder", Split: 1, Rungs: 3, Chains: 8, Groups: 2}
		mesh := &LocalMesh{}
		thetas, reports, errs := make([][]float32, layout.Groups), make([]Report, layout.Groups), make([]error, layout.Groups)
		var wait sync.WaitGroup
		for group := range layout.Groups {
			wait.Go(func() {
				errs[group] = func() error {
					cfg := groupTraining(t, layout, "state", nil)
					cfg.Tempering.Scans = 2
					cfg.Group, cfg.Mesh, cfg.Sync = group, mesh, true
					tr, err := NewTrainer(b, cfg)
					if err != nil {
						return err
					}
					defer tr.Close()
					if err := tr.Start(); err != nil {
						return err
					}
					for range 5 {
						if reports[group], err = tr.TrainStep(); err != nil {
							return err
						}
					}
					thetas[group], err = tr.Theta()
					return err
				}()
			})
		}
		wait.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(thetas[0], thetas[1]) {
			t.Error("the groups' parameters differ")
		}
		if reports[0].GradNorm != reports[1].GradNorm || reports[0].Loss == reports[1].Loss {
			t.Errorf("norms of the gradient %g and %g, losses %g and %g: want one gradient, of different rows", reports[0].GradNorm, reports[1].GradNorm, reports[0].Loss, reports[1].Loss)
		}
	})
}
