package engine

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/buffer"
	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
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
// returns the digest that the lead has after some steps. With several processes the training is cut in the middle, goes
// on a little and is put back to the cut: in the processes that made it or, with fresh, in new ones.
func trainGroup(t *testing.T, b *backend.Backend, cfg TrainerConfig, held [][]uint32, fresh bool) string {
	t.Helper()
	const steps, cutAt = 9, 5
	digests, errs := make([]string, len(held)), make([]error, len(held))
	cuts := make(chan checkpoint.Cut, len(held)) // one for each process, from the lead
	meshes := [2]*LocalMesh{{}, {}}              // before and after a fresh start
	var wait sync.WaitGroup
	for i, local := range held {
		process := func() (digest string, err error) {
			cfg := cfg
			cfg.Local, cfg.Mesh = local, meshes[0]
			tr, err := NewTrainer(b, cfg)
			if err != nil {
				return "", err
			}
			defer func() { tr.Close() }()
			if err := tr.Start(); err != nil {
				return "", err
			}
			for len(held) > 1 && tr.Step() < cutAt+1 {
				if _, err := tr.TrainStep(); err != nil {
					return "", err
				}
				if tr.Step() != cutAt {
					continue
				}
				cut, err := tr.Cut()
				if tr.Lead() != (err == nil) {
					return "", fmt.Errorf("lead %t, cut %w", tr.Lead(), err)
				}
				for range cap(cuts) * b2i(tr.Lead()) {
					cuts <- cut
				}
			}
			if len(held) > 1 {
				if fresh {
					tr.Close()
					cfg.Mesh = meshes[1]
					if tr, err = NewTrainer(b, cfg); err != nil {
						return "", err
					}
				}
				cut := <-cuts
				if err := tr.Restore(&cut); err != nil {
					return "", err
				}
			}
			for tr.Step() < steps {
				if _, err := tr.TrainStep(); err != nil {
					return "", err
				}
			}
			digest, err = tr.Digest()
			if tr.Lead() != (err == nil) {
				return "", fmt.Errorf("lead %t, digest %w", tr.Lead(), err)
			}
			return digest, nil
		}
		wait.Go(func() { digests[i], errs[i] = process() })
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

// However many processes hold the shards of an experiment, and whether or not it was cut and put back on the way, it comes
// to the same bits: with the plain ladder, and with both rungs of virtual swaps and a reference that is refitted.
func TestPlacesOfShardsChangeNoBit(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for _, tc := range []struct {
			placement, exchange, gradientOn string
			split                           int
			rich, everywhere                bool
		}{
			{"ladder", "state", "all", 4, false, false}, {"ladder", "label", "cold", 2, false, false}, {"rung", "state", "cold", 1, false, false},
			{"rung", "label", "all", 2, false, false}, {"ladder", "state", "cold", 4, true, false}, {"ladder", "label", "all", 2, true, true},
			{"rung", "state", "all", 1, true, false}, {"rung", "state", "cold", 2, true, true}, {"rung", "label", "all", 1, true, false},
			{"rung", "label", "cold", 2, true, false},
		} {
			if b.Kind() != backend.Go && !tc.everywhere { // compiles long
				continue
			}
			t.Run(fmt.Sprintf("%s, %s, split %d, gradient on %s, rich %t", tc.placement, tc.exchange, tc.split, tc.gradientOn, tc.rich), func(t *testing.T) {
				layout := Layout{Placement: tc.placement, Split: tc.split, Rungs: 3, Chains: 8, Groups: 1}
				cfg := groupTraining(t, layout, tc.exchange, func(c *TrainerConfig) {
					c.GradientOn = tc.gradientOn
					if tc.rich { // the first refit is at the fourth fence
						c.Spec.Weighted, c.Spec.Virtual, c.Spec.Variational = true, true, true
						c.Tempering.VirtualSwaps, c.Tempering.Reference, c.Tempering.AdaptEvery = true, "variational", 1
					}
				})
				var all []uint32
				for _, p := range layout.Shards(0) {
					all = append(all, p.ID)
				}
				want := trainGroup(t, b, cfg, [][]uint32{all}, false)
				n := len(all)
				places := [][][]uint32{{all[n-1:], all[:n/2], all[n/2 : n-1]}, {all[:1], all[1:]}, {all[1:], all[:1]}}
				if b.Kind() != backend.Go {
					places = places[:1]
				}
				for _, held := range places {
					held = slices.DeleteFunc(held, func(ids []uint32) bool { return len(ids) == 0 })
					if got := trainGroup(t, b, cfg, held, b.Kind() == backend.Go); got != want {
						t.Errorf("shards held as %v: digest %.12s, want %.12s as in one process", held, got, want)
					}
				}
			})
		}
	})
}

// A replay buffer larger than the chains is cut with them: wherever its parts are kept, and whatever starts afresh, the bits are
// those of one process, over a cut too.
func TestPlacesOfAReplayBufferChangeNoBit(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for _, tc := range []struct {
			placement, gradientOn string
			split                 int
			reinit                float64
		}{{"ladder", "all", 2, 0.25}, {"ladder", "cold", 4, 0}, {"rung", "cold", 1, 0.25}, {"rung", "all", 2, 0}} {
			if b.Kind() != backend.Go && tc.reinit == 0 {
				continue // compiling takes a while
			}
			t.Run(fmt.Sprintf("%s, split %d, gradient on %s, reinit %g", tc.placement, tc.split, tc.gradientOn, tc.reinit), func(t *testing.T) {
				layout := Layout{Placement: tc.placement, Split: tc.split, Rungs: 3, Chains: 8, Groups: 1}
				cfg := groupTraining(t, layout, "state", func(c *TrainerConfig) {
					c.GradientOn, c.Spec.Pool, c.Spec.Mix = tc.gradientOn, 24, tc.reinit > 0
					c.Buffer.Size, c.Buffer.Reinit, c.Buffer.Warmup = 24, tc.reinit, 3
				})
				var all []uint32
				for _, p := range layout.Shards(0) {
					all = append(all, p.ID)
				}
				want := trainGroup(t, b, cfg, [][]uint32{all}, false)
				if got := trainGroup(t, b, cfg, [][]uint32{all[len(all)-1:], all[:len(all)-1]}, true); got != want {
					t.Errorf("digest %.12s in two processes, want %.12s as in one", got, want)
				}
				if tc.split > 1 {
					return
				}
				cfg.Layout = Layout{} // one shard draws as one range does
				cfg.GradientOn = "cold"
				if got := trainGroup(t, b, cfg, [][]uint32{nil}, false); got == want {
					t.Error("rungs apart draw the same random numbers as one shard") // their device keys differ
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
