package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
)

// mortalMesh is a mesh whose waits end with ctx, as those of a generation do.
type mortalMesh struct {
	LocalMesh
	ctx context.Context
}

func (m *mortalMesh) Pull(_ context.Context, key Key) ([]byte, error) {
	return m.LocalMesh.Pull(m.ctx, key)
}

// Two processes hold the shards of a group, and one of them gets something that the other has not. The lead finds it in
// the energies of the next scan, whatever it is, and says who has come apart.
func TestProcessesThatComeApartStop(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	layout := Layout{Placement: "rung", Split: 1, Rungs: 2, Chains: 4, Groups: 1}
	cfg := groupTraining(t, layout, "label", nil)
	mesh := &mortalMesh{}
	cfg.Mesh = mesh
	var trainers [2]*Trainer // of shard 0, and of the lead
	for i := range trainers {
		cfg.Local = []uint32{uint32(i)}
		tr, err := NewTrainer(b, cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer tr.Close()
		trainers[i] = tr
	}
	// both does the same in both processes, until one fails.
	both := func(f func(*Trainer) error) (errs [2]error) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		mesh.ctx = ctx
		var wait sync.WaitGroup
		for i, tr := range trainers {
			wait.Go(func() {
				if errs[i] = f(tr); errs[i] != nil {
					cancel()
				}
			})
		}
		wait.Wait()
		return errs
	}
	step := func(tr *Trainer) error {
		_, err := tr.TrainStep()
		return err
	}
	for _, tc := range []struct {
		name   string
		change func(*Trainer)
	}{
		{"nothing", func(*Trainer) {}},
		{"parameters", func(tr *Trainer) { // the lead's at a step are everybody's: only at a scan can they differ
			theta := slices.Clone(tr.shard.(*group).theta)
			theta[3] += 1e-6
			tr.shard.SetTheta(theta)
		}},
		{"a swap", func(tr *Trainer) { tr.perm[0], tr.perm[4] = tr.perm[4], tr.perm[0] }},
		{"a β", func(tr *Trainer) { tr.shard.SetLadder([]float64{0.1, 1}, []float64{0.05, 0.05}) }},
		{"a step size", func(tr *Trainer) { tr.shard.SetTables([]float64{1, 2}, []float64{1, 1}) }},
		{"a scan", func(tr *Trainer) { tr.scan++ }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			begin := func(tr *Trainer) error {
				tr.tablesAt = tables{} // what the last case put there
				return tr.Start()
			}
			if errs := both(begin); errs != [2]error{} {
				t.Fatal(errs)
			}
			if errs := both(step); errs != [2]error{} {
				t.Fatal(errs)
			}
			tc.change(trainers[0])
			scan := trainers[1].scan
			errs := both(func(tr *Trainer) error {
				_, err := tr.Explore()
				return err
			})
			if tc.name == "nothing" {
				if errs != [2]error{} {
					t.Fatal(errs)
				}
				return
			}
			if want := fmt.Sprintf("engine: scan %d: shard 0 goes on from", scan); errs[1] == nil || !strings.HasPrefix(errs[1].Error(), want) {
				t.Errorf("error %v of the lead, want %q", errs[1], want+" …")
			}
		})
	}
}

func TestHashesTravelBitForBit(t *testing.T) {
	for _, hash := range []uint64{0, 1, 0x7f800001_ff800001, 0xffffffff_fffffffe} { // NaNs too
		v, got := cutHash(appendHash([]float32{1, 2}, hash))
		if got != hash || !slices.Equal(v, []float32{1, 2}) {
			t.Errorf("%016x came as %016x behind %v", hash, got, v)
		}
	}
}
