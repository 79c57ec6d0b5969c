package coordinator_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// node is a coordinator without others, and an experiment in its ledger.
func node(t *testing.T, s scenario) (*consensus.Node, ledger.ID) {
	t.Helper()
	n, err := consensus.Open(t.Context(), consensus.Config{Name: "a", DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := n.Leadership(t.Context()); err != nil {
		t.Fatal(err)
	}
	id := ledger.ID{1, 2, 3}
	out, err := n.Apply(t.Context(), id, ledger.ExpCreate{Name: "small", Owner: "tests", Spec: s.offer().Experiment, Steps: steps, Shards: uint32(s.Layout.NumShards()), Min: 1})
	if err := errors.Join(err, out.Err); err != nil {
		t.Fatal(err)
	}
	return n, id
}

// successor is a coordinator that goes on where the book ends; end is the end of its leadership.
func successor(t *testing.T, s scenario, c *crew, n *consensus.Node, id ledger.ID, name string) (f *coordinator.Fleet, end func()) {
	t.Helper()
	lead, stop := context.WithCancelCause(t.Context())
	f, err := coordinator.New(t.Context(), coordinator.Config{
		Server: c.server, Token: token, Experiment: s.offer(), Layout: s.Layout, Averaging: s.Averaging, Replicas: 2, Steps: steps, Every: []int{3, 5},
		Book: coordinator.NewJournal(lead, n, id, nil), Lead: lead, Name: name, Notice: func(text string) { t.Log(name, text) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return f, func() { stop(errors.New("deposed by the test")) }
}

// TestAnotherCoordinatorGoesOn ends leaderships in the middle of a training, with a cut on its way and without: the next
// coordinator finds replicas, generation and the last cut in the ledger, and the numbers are those of a training in one
// process. One that leads no more changes nothing.
func TestAnotherCoordinatorGoesOn(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	nesterov := averaging.Config{Groups: 2, Every: 2, Outer: "nesterov", Format: "int8"}.WithDefaults()
	two := scenario{Kind: backend.Go, Exchange: "label", Averaging: nesterov, LR: 0.02, Layout: engine.Layout{Placement: "ladder", Split: 2, Rungs: 3, Chains: 8, Groups: 2}}
	for name, s := range map[string]scenario{"one group": byRung(backend.Go), "two groups, averaged": two} {
		t.Run(name, func(t *testing.T) {
			quiet := newCrew(t, b)
			for i := range 2 {
				quiet.add(context.Background(), fmt.Sprint(i))
			}
			calm := fleet(t, s, quiet.server, 2, 5)
			if err := calm.Start(); err != nil {
				t.Fatal(err)
			}
			train(t, calm, steps)
			want := digest(t, calm)

			n, id := node(t, s)
			c := newCrew(t, b)
			living, over := context.WithCancel(context.Background())
			t.Cleanup(over) // also where nobody dismisses the replicas
			for i := range 2 {
				c.add(living, fmt.Sprint(i))
			}
			first, end := successor(t, s, c, n, id, "first")
			if err := first.Resume(); err != nil {
				t.Fatal(err)
			}
			train(t, first, 3)
			if err := first.BeginCut(); err != nil {
				t.Fatal(err)
			}
			train(t, first, 5)
			end()
			if _, err := first.TrainStep(); err == nil {
				t.Error("a coordinator that leads no more made a step")
			}
			first.Leave()

			second, end := successor(t, s, c, n, id, "second")
			if err := second.Resume(); err != nil {
				t.Fatal(err)
			}
			if at := second.Step(); at != 3 && at != 0 { // the cut was on its way when the leadership ended
				t.Errorf("the second coordinator begins at step %d, want the cut of step 3, or the first", at)
			}
			train(t, second, 6)
			if _, err := second.Cut(); err != nil {
				t.Fatal(err)
			}
			end()
			second.Leave()

			third, _ := successor(t, s, c, n, id, "third")
			defer third.Close()
			if err := third.Resume(); err != nil {
				t.Fatal(err)
			}
			if at := third.Step(); at != 6 {
				t.Errorf("the third coordinator begins at step %d, want the cut of step 6", at)
			}
			train(t, third, steps)
			if got := digest(t, third); got != want {
				t.Errorf("digest %.12s, want %.12s as without other coordinators", got, want)
			}
			var exp ledger.Experiment
			if _, _, err := n.View(t.Context(), consensus.Linearizable, func(s *ledger.State) { exp, _ = s.ByID(id) }); err != nil {
				t.Fatal(err)
			}
			last := exp.Cuts[len(exp.Cuts)-1]
			if c := last.Conservation; last.Step != steps || c.Labels != c.Ladders*c.Rungs || c.Ladders != uint64(s.Layout.Groups*8) {
				t.Errorf("last cut: step %d, %+v", last.Step, c)
			}
			if len(exp.Replicas) != 2 || exp.Generation < 3 {
				t.Errorf("%d replicas in generation %d, want the same two in the third or later", len(exp.Replicas), exp.Generation)
			}
		})
	}
}

// A cut whose labels were lost is refused by the ledger, with the evidence, and the experiment stops.
func TestJournalRefusesLostLabels(t *testing.T) {
	s := byRung(backend.Go)
	n, id := node(t, s)
	j := coordinator.NewJournal(t.Context(), n, id, nil)
	if _, err := j.Register(transport.Register{Replica: "0", Incarnation: 1}); err != nil {
		t.Fatal(err)
	}
	generation, err := j.Open([]string{"0", "0", "0"}, -1)
	if err != nil {
		t.Fatal(err)
	}
	cut := checkpoint.Cut{Step: 4, Meta: []byte(`{"rungs": 3}`), Files: map[string][]checkpoint.Tensor{"chains": {
		{Name: "labels", Shape: []int{3}, Data: []int32{0, 1, 1}}, {Name: "lineage", Shape: []int{3}, Data: []uint32{0, 0, 0}},
	}}}
	if err := j.Commit(generation, cut).Wait(); !errors.Is(err, coordinator.ErrInconsistent) {
		t.Errorf("error %v, want one about the conservation laws", err)
	}
	var exp ledger.Experiment
	if _, _, err := n.View(t.Context(), consensus.Linearizable, func(s *ledger.State) { exp, _ = s.ByID(id) }); err != nil {
		t.Fatal(err)
	}
	if exp.Phase != ledger.Inconsistent || exp.Refused == nil || len(exp.Cuts) != 0 {
		t.Errorf("phase %v, refused %v, %d cuts, want the refused cut as evidence and no other", exp.Phase, exp.Refused, len(exp.Cuts))
	}
}

// Replicas that lived through more generations than an older state knows, which is put back, work for it all the same.
func TestReplicasGoOnAfterARestore(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	s := byRung(backend.Go)
	want := alone(t, b, s)
	n, id := node(t, s)
	c := newCrew(t, b)
	living, over := context.WithCancel(context.Background())
	t.Cleanup(over)
	for i := range 2 {
		c.add(living, fmt.Sprint(i))
	}
	var backup bytes.Buffer
	for i, to := range []int{3, 5, 6} { // each leads a generation
		f, end := successor(t, s, c, n, id, fmt.Sprint("leader", i))
		if err := f.Resume(); err != nil {
			t.Fatal(err)
		}
		train(t, f, to)
		if _, err := f.Cut(); err != nil {
			t.Fatal(err)
		}
		end()
		f.Leave()
		if i > 0 {
			continue
		}
		if err := n.Backup(t.Context(), &backup); err != nil {
			t.Fatal(err)
		}
	}
	var cluster ledger.ID
	if _, _, err := n.View(t.Context(), consensus.Stale, func(s *ledger.State) { cluster, _, _ = s.Cluster() }); err != nil {
		t.Fatal(err)
	}
	if err := n.RestoreFrom(t.Context(), &backup, cluster.String()); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Leadership(t.Context()); err != nil {
		t.Fatal(err)
	}
	f, _ := successor(t, s, c, n, id, "behind")
	defer f.Close()
	if err := f.Resume(); err != nil {
		t.Fatal(err)
	}
	if f.Step() != 3 || f.Lost() > 0 {
		t.Errorf("goes on from step %d, %d replicas were lost, want the backup's 3 and none", f.Step(), f.Lost())
	}
	train(t, f, steps)
	if got := digest(t, f); got != want {
		t.Errorf("digest %.12s, want %.12s", got, want)
	}
}
