package engine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/couplings"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

// dataShards is a training over rows that a layout cuts into shards.
func dataShards(t *testing.T, section losses.Config, split, groups int) DataConfig {
	t.Helper()
	loss, err := section.Over(9).Build()
	if err != nil {
		t.Fatal(err)
	}
	var network models.Network
	if loss.Needs(1, 1).Field {
		network, err = models.NewFieldMLP(2, models.MLPConfig{Hidden: []int{8}, Activation: "silu", Init: "torch"})
	} else {
		network, err = models.NewMLP(2, models.MLPConfig{Hidden: []int{8}, Activation: "silu", Init: "torch"})
	}
	if err != nil {
		t.Fatal(err)
	}
	optimizer := adam(0.01)
	optimizer.EMA = 0.9
	return DataConfig{Network: network, Loss: loss, Optimizer: optimizer, Batch: 24, DataNoise: 0.1, Seed: 4,
		Layout: Layout{Placement: "ladder", Split: split, Rungs: 1, Chains: split, Groups: groups},
		Rows: func(step int, x []float32, _ []int32) {
			for i := range x {
				x[i] = float32((i*7+step*3)%11) / 5
			}
		}}
}

// trainData trains in as many processes as held has entries, over one mesh, with a cut and a restore on the way, and returns the
// digest of the lead.
func trainData(t *testing.T, b *backend.Backend, cfg DataConfig, held [][]uint32) string {
	t.Helper()
	cfg.Mesh = &LocalMesh{}
	digests, errs := make([]string, len(held)), make([]error, len(held))
	var wait sync.WaitGroup
	for i, local := range held {
		wait.Go(func() {
			errs[i] = func() error {
				cfg := cfg
				cfg.Local = local
				d, err := NewDataTrainer(b, cfg)
				if err != nil {
					return err
				}
				defer d.Close()
				if err := d.Start(); err != nil {
					return err
				}
				for d.Step() < 5 {
					if _, err := d.TrainStep(); err != nil {
						return err
					}
				}
				theta, err := d.Weights()
				if err != nil {
					return err
				}
				if err := d.SetTheta(theta); err != nil { // as an averaging round does
					return err
				}
				for d.Step() < 9 {
					if _, err := d.TrainStep(); err != nil {
						return err
					}
				}
				cut, err := d.Cut()
				if !d.Lead() {
					_, theta := d.Theta()
					if !errors.Is(err, ErrNotLead) || !errors.Is(theta, ErrNotLead) {
						return fmt.Errorf("without the lead: cut %w, parameters %w", err, theta)
					}
					return nil
				}
				if err != nil {
					return err
				}
				if err := d.Restore(&cut); err != nil {
					return err
				}
				if cut, err = d.Cut(); err != nil {
					return err
				}
				digests[i], err = cut.Sum()
				return err
			}()
		})
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	digests = slices.DeleteFunc(digests, func(d string) bool { return d == "" })
	if len(digests) != 1 {
		t.Fatalf("%d leads, want one", len(digests))
	}
	return digests[0]
}

// Wherever the shards of a loss without chains are, it comes to the same bits: one that draws at random, one over coupled pairs, and
// one with short chains of its own.
func TestPlacesOfDataShardsChangeNoBit(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for name, section := range map[string]losses.Config{
			"denoising": {Kind: "denoising_score_matching"},
			"flow":      {Kind: "flow_matching"},
			"energy": {Kind: "energy_matching", CDTrimFraction: new(0.0), CDClamp: new(-1.0), NLangevinSteps: new(3),
				LambdaCD: schedules.Constant(1)},
		} {
			if b.Kind() != backend.Go && name != "energy" { // compiles long
				continue
			}
			t.Run(name, func(t *testing.T) {
				cfg := dataShards(t, section, 4, 1)
				if name == "flow" {
					var err error
					if cfg.Coupling, err = (couplings.Config{Kind: "exact_ot"}).Build(); err != nil {
						t.Fatal(err)
					}
				}
				want := trainData(t, b, cfg, [][]uint32{nil})
				for _, held := range [][][]uint32{{{3}, {0, 2}, {1}}, {{1, 2, 3}, {0}}} {
					if got := trainData(t, b, cfg, held); got != want {
						t.Errorf("shards held as %v: digest %.12s, want %.12s as in one process", held, got, want)
					}
				}
			})
		}
	})
}

// Without anything drawn at random the shards' step is that of the whole batch.
func TestDataShardsMakeTheWholeStep(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	var thetas [2][]float32
	var reports [2]Report
	for i, split := range []int{1, 4} {
		cfg := dataShards(t, losses.Config{Kind: "score_matching", EnergyPenalty: 0.1, GradientPenalty: 0.1}, split, 1)
		cfg.Optimizer = OptimizerConfig{Kind: "sgd", LR: schedules.Constant(0.1)}
		d := newData(t, b, cfg)
		reports[i] = step(t, d)
		var err error
		if thetas[i], err = d.Theta(); err != nil {
			t.Fatal(err)
		}
	}
	near := func(name string, got, want float64) {
		if d := got - want; d > 1e-5 || d < -1e-5 {
			t.Errorf("%s: %g on four shards, want %g as on one", name, got, want)
		}
	}
	near("loss", reports[1].Loss, reports[0].Loss)
	near("norm of the gradient", reports[1].GradNorm, reports[0].GradNorm)
	for i, part := range reports[0].Parts {
		near(part.Name, reports[1].Parts[i].Value, part.Value)
	}
	for i := range thetas[0] {
		near(fmt.Sprintf("parameter %d", i), float64(thetas[1][i]), float64(thetas[0][i]))
	}
}

// Under sync the groups of a loss without chains keep the same parameters, and see other rows.
func TestSyncKeepsDataGroupsTogether(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	mesh := &LocalMesh{}
	var thetas [2][]float32
	var reports [2]Report
	var errs [2]error
	var wait sync.WaitGroup
	for group := range 2 {
		cfg := dataShards(t, losses.Config{Kind: "score_matching"}, 2, 2)
		cfg.Group, cfg.Mesh, cfg.Sync = group, mesh, true
		d := newData(t, b, cfg)
		wait.Go(func() {
			for range 3 {
				if reports[group], errs[group] = d.TrainStep(); errs[group] != nil {
					return
				}
			}
			thetas[group], errs[group] = d.Theta()
		})
	}
	wait.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(thetas[0], thetas[1]) || reports[0].GradNorm != reports[1].GradNorm || reports[0].Loss == reports[1].Loss {
		t.Errorf("norms of the gradient %g and %g, losses %g and %g: want the same parameters, of different rows",
			reports[0].GradNorm, reports[1].GradNorm, reports[0].Loss, reports[1].Loss)
	}
}

func TestDataShardsRefuseWhatCouplesTheBatch(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	for _, tc := range []struct {
		section losses.Config
		split   int
		want    string
	}{
		{losses.Config{Kind: "score_matching"}, 5, "a divisor of the batch, 24"},
		{losses.Config{Kind: "equilibrium_matching", Dispersion: new(true)}, 2, "dispersion: true compares all pairs of rows"},
		{losses.Config{Kind: "energy_matching", CDTrimFraction: new(0.0)}, 2, "cd_clamp"},
	} {
		d, err := NewDataTrainer(b, dataShards(t, tc.section, tc.split, 1))
		if err == nil {
			d.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s on %d shards: %v, want %q", tc.section.Kind, tc.split, err, tc.want)
		}
	}
}
