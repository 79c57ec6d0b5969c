package plan_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/buffer"
	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/plan"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// countingMesh is the mesh of one process among several, and counts what it gets from the others.
type countingMesh struct {
	engine.Mesh
	self    int
	holders []int

	mu  sync.Mutex
	got map[engine.Kind]int // bytes
}

func (m *countingMesh) Pull(ctx context.Context, key engine.Key) ([]byte, error) {
	data, err := m.Mesh.Pull(ctx, key)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.holders[key.Shard] != m.self {
		m.got[key.Kind] += len(data)
	}
	return data, err
}

// run is what one process of a training saw.
type run struct {
	got      map[engine.Kind]int
	accepted []uint64 // swaps of the sweeps that were applied meanwhile, by pair
	cut      checkpoint.Cut
	err      error
}

// measured is the number of steps that are counted: even, so that every pair was tried in half of them.
const measured = 6

func trained(b *backend.Backend, cfg engine.TrainerConfig, mesh *countingMesh) (r run) {
	cfg.Mesh = mesh
	for shard, holder := range mesh.holders {
		if holder == mesh.self {
			cfg.Local = append(cfg.Local, uint32(shard))
		}
	}
	t, err := engine.NewTrainer(b, cfg)
	if err != nil {
		return run{err: err}
	}
	defer t.Close()
	r.err = func() error {
		if err := t.Start(); err != nil {
			return err
		}
		before := t.Stats().Pairs
		for i := range measured + 1 { // a sweep is applied by the step after it
			if i == 1 {
				clear(mesh.got)
			}
			if i == measured {
				for pair, now := range t.Stats().Pairs {
					r.accepted = append(r.accepted, now.Accepted-before[pair].Accepted)
				}
			}
			if _, err := t.TrainStep(); err != nil {
				return err
			}
		}
		r.got = mesh.got
		mesh.got = map[engine.Kind]int{}
		r.cut, err = t.Cut()
		if !t.Lead() && errors.Is(err, engine.ErrNotLead) {
			err = nil
		}
		r.got[engine.StatesBlob] = mesh.got[engine.StatesBlob]
		return err
	}()
	return r
}

// A training moves the bytes that its plan says, to the last one.
func TestTrainingsMoveWhatIsPlanned(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	f, err := models.Config{Kind: "mlp", Hidden: []int{4}}.Build(2)
	if err != nil {
		t.Fatal(err)
	}
	draws := rng.New(5, rng.Dataset, 0, 0)
	data := make([]float64, 2*64)
	for i := range data {
		data[i] = draws.Normal()
	}
	q, err := models.FitGaussian(data, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	adam := engine.OptimizerConfig{Kind: "adam", LR: schedules.Constant(0.01), Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8, EMA: 0.9}
	momentum := engine.OptimizerConfig{Kind: "sgd", LR: schedules.Constant(0.01), Momentum: 0.9, Epsilon: 1e-8}
	for _, tc := range []struct {
		placement, exchange string
		split               int
		virtual, onAll      bool
		optimizer           engine.OptimizerConfig
		holders             []int
	}{
		{"rung", "state", 1, false, false, adam, []int{0, 1, 2}},
		{"rung", "state", 2, true, false, momentum, []int{0, 0, 1, 1, 2, 0}},
		{"rung", "state", 2, true, true, momentum, []int{0, 0, 1, 1, 2, 0}},
		{"rung", "label", 1, false, false, adam, []int{0, 1, 1}},
		{"ladder", "state", 4, true, false, adam, []int{0, 1, 1, 2}},
		{"ladder", "state", 4, true, true, adam, []int{0, 1, 1, 2}},
		{"ladder", "label", 2, false, true, adam, []int{1, 0}},
	} {
		t.Run(fmt.Sprintf("%s, %s, split %d, on all %t", tc.placement, tc.exchange, tc.split, tc.onAll), func(t *testing.T) {
			const rungs, chains, batch = 3, 8, 16
			layout := engine.Layout{Placement: tc.placement, Split: tc.split, Rungs: rungs, Chains: chains, Groups: 1}
			cfg := engine.TrainerConfig{
				Spec: engine.Spec{Network: f, Base: &q, Reference: &q, Rungs: rungs, Chains: chains, Pool: chains, Batch: batch, Exchange: tc.exchange, Weighted: tc.virtual, Virtual: tc.virtual, Seed: 3,
					Loss: losses.Config{Kind: "parallel_tempering_cd"}, Sampler: samplers.Config{Kind: "mala", Steps: 1, StepSize: schedules.Constant(0.05)}.WithDefaults(), Optimizer: tc.optimizer},
				Tempering: tempering.Config{Rungs: rungs, Chains: chains, Exchange: tc.exchange, AdaptEvery: 1000}.WithDefaults(),
				Buffer:    buffer.Config{Size: chains, Init: "reference"}, Layout: layout, Data: data,
				GradientOn: map[bool]string{true: "all"}[tc.onAll],
				Positives: func(_ int, into []float32) {
					for i := range into {
						into[i] = float32(data[i%len(data)])
					}
				},
			}
			mesh, runs := &engine.LocalMesh{}, make([]run, slices.Max(tc.holders)+1)
			var wait sync.WaitGroup
			for self := range runs {
				wait.Go(func() {
					runs[self] = trained(b, cfg, &countingMesh{Mesh: mesh, self: self, holders: tc.holders, got: map[engine.Kind]int{}})
				})
			}
			wait.Wait()
			got, kept := map[engine.Kind]int{}, 0
			for _, r := range runs {
				if r.err != nil {
					t.Fatal(r.err)
				}
				for kind, n := range r.got {
					if kind == engine.GatheredBlob {
						kind = engine.EnergiesBlob
					}
					got[kind] += n
				}
				for _, tensors := range r.cut.Files {
					for _, tensor := range tensors {
						if v, ok := tensor.Data.([]float32); ok && tensor.Name != "weights" { // of the negatives of the next step
							kept += 4 * len(v)
						}
					}
				}
			}
			e := plan.Experiment{Layout: layout, Exchange: tc.exchange, Scans: 1, Params: models.NumParams(f), Dim: 2, Batch: batch, Fresh: true, Virtual: tc.virtual, OnAll: tc.onAll, Optimizer: tc.optimizer}
			for _, n := range runs[0].accepted {
				e.Accept = append(e.Accept, float64(n)/(chains*measured/2))
			}
			p := must(t, e, tc.holders...)
			want := p.Traffic[0]
			for kind, bytes := range map[engine.Kind]float64{engine.EnergiesBlob: want.Energies, engine.RowsBlob: want.Rows, engine.ThetaBlob: want.Theta, engine.NegativesBlob: want.Negatives, engine.PartBlob: want.Gradient} {
				if kind == engine.NegativesBlob && tc.placement == "rung" && (tc.exchange == "label" || tc.onAll) {
					continue // chains wander, and slices of the ladders swap as chance will have it: a mean over long runs
				}
				if !near(float64(got[kind]), measured*bytes) {
					t.Errorf("%d bytes of kind %d in %d steps, want %g", got[kind], kind, measured, measured*bytes)
				}
			}
			if tc.placement == "rung" && tc.exchange == "state" && want.Rows == 0 {
				t.Error("no swap was accepted: nothing is tested")
			}
			if got[engine.StatesBlob] != p.Cut.ToLeads {
				t.Errorf("%d bytes of states for a cut, want %d", got[engine.StatesBlob], p.Cut.ToLeads)
			}
			if kept != p.Cut.ToCoordinator {
				t.Errorf("a cut has %d bytes of float32, want %d", kept, p.Cut.ToCoordinator)
			}
		})
	}
}
