package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/local"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

const driven = `
name: driven
seed: 5
data: {dataset: two_moons, samples: 200, noise: 0.1, test_samples: 0}
model: {kind: mlp, hidden: [4]}
loss: {kind: parallel_tempering_cd}
sampler: {kind: mala, steps: 1, step_size: 0.01}
tempering: {rungs: 2, chains: 4, placement: rung}
optimizer: {kind: adam, lr: 0.01}
train: {steps: 4000, batch: 8, cut_every: 1, log_every: 50}
evaluate: {samples: 16, scans: 2, measure: 0, projections: 2}
backend: {kind: go, threads: 1}
`

// drivenSite is a coordinator with one experiment, whose driver the test starts itself.
type drivenSite struct {
	*drivers
	lead context.Context
	id   ledger.ID
	b    *backend.Backend
	wait sync.WaitGroup
}

func newDriven(t *testing.T, yaml string) *drivenSite {
	t.Helper()
	b := testutil.Backend(t, backend.Go)
	node, err := consensus.Open(t.Context(), consensus.Config{Name: "a", DataDir: t.TempDir(), SegmentSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	bus, err := transport.StartServer(t.Context(), transport.ServerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	lead, err := node.Leadership(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	s := &drivenSite{lead: lead, id: ledger.ID{9}, b: b, drivers: newDrivers(site{node: node, server: bus, name: "a", metrics: filepath.Join(t.TempDir(), "metrics"), log: slog.New(slog.NewTextHandler(t.Output(), nil))})}
	t.Cleanup(func() {
		s.wait.Wait()
		bus.Close()
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	})
	led, err := local.Lead([]byte(yaml), "")
	if err != nil {
		t.Fatal(err)
	}
	s.apply(t, ledger.ExpCreate{Name: "driven", Owner: "me", Spec: led.YAML, Steps: uint64(led.Steps), Shards: uint32(led.Layout.NumShards()), Min: 1, CutEvery: led.CutEvery})
	return s
}

func (s *drivenSite) apply(t *testing.T, cmd ledger.Command) {
	t.Helper()
	exp := s.id
	if _, ok := cmd.(ledger.QuotaPut); ok {
		exp = ledger.ID{}
	}
	out, err := s.node.Apply(s.lead, exp, cmd)
	if err := errors.Join(err, out.Err); err != nil {
		t.Fatalf("%T: %v", cmd, err)
	}
}

func (s *drivenSite) exp() (exp ledger.Experiment) {
	_, _, _ = s.node.View(s.lead, consensus.Stale, func(st *ledger.State) { exp, _ = st.ByID(s.id) })
	return exp
}

// until waits for a state of the experiment.
func (s *drivenSite) until(t *testing.T, what string, is func(ledger.Experiment) bool) ledger.Experiment {
	t.Helper()
	late := time.After(time.Minute)
	for {
		changed := s.node.Changed()
		exp := s.exp()
		if is(exp) {
			return exp
		}
		select {
		case <-changed:
		case <-time.After(50 * time.Millisecond): // facts are not in the ledger
		case <-late:
			t.Fatalf("%s: still %v (%s) after a minute", what, exp.Phase, exp.Message)
		}
	}
}

// replica works until its context ends or the driver sends it away.
func (s *drivenSite) replica(ctx context.Context, id string) {
	_, key, _ := func() (a ledger.ID, key [32]byte, ok bool) {
		_, _, _ = s.node.View(s.lead, consensus.Stale, func(st *ledger.State) { a, key, ok = st.Cluster() })
		return a, key, ok
	}()
	s.wait.Go(func() {
		_ = replica.Main(ctx, replica.Options{Server: s.server, Token: ledger.ExperimentSecret(key, s.id), ID: id, Build: local.Replicated, Opened: s.b, Grace: time.Millisecond})
	})
}

// An experiment that people want to pause does so although its last replica is gone, and goes on from there.
func TestPauseWithoutReplicas(t *testing.T) {
	s := newDriven(t, strings.Replace(driven, "steps: 4000", "steps: 4000000", 1))
	one := s.start(s.lead, s.exp())
	ctx, kill := context.WithCancel(t.Context())
	s.replica(ctx, "0")
	s.until(t, "a cut", func(e ledger.Experiment) bool { return len(e.Cuts) > 1 })
	kill()
	s.until(t, "no replica", func(e ledger.Experiment) bool { return e.Phase == ledger.Waiting })
	s.apply(t, ledger.ExpSet{Desired: ledger.Pause})
	<-one.Done()
	exp := s.exp()
	if exp.Phase != ledger.Paused || len(exp.Holders) != 0 {
		t.Fatalf("%v (%s) with holders %v, want paused, and nobody at work", exp.Phase, exp.Message, exp.Holders)
	}
	s.apply(t, ledger.ExpSet{Desired: ledger.Run})
	two := s.start(s.lead, s.exp())
	s.replica(t.Context(), "1")
	s.until(t, "a cut behind the pause", func(e ledger.Experiment) bool { return e.Cuts[len(e.Cuts)-1].Step > exp.Cuts[len(exp.Cuts)-1].Step })
	s.apply(t, ledger.ExpSet{Desired: ledger.Cancel})
	<-two.Done()
	if exp := s.exp(); exp.Phase != ledger.Cancelled {
		t.Errorf("%v (%s), want cancelled", exp.Phase, exp.Message)
	}
}

// What may pass does not end an experiment: it waits, says why, and is tried again, with the replicas that it has.
func TestWhatMayPassIsTriedAgain(t *testing.T) {
	s := newDriven(t, driven)
	s.apply(t, ledger.QuotaPut{Quota: ledger.Quota{Owner: "me", Bytes: 1}})
	one := s.start(s.lead, s.exp())
	s.replica(t.Context(), "0")
	<-one.Done()
	if exp := s.exp(); exp.Phase != ledger.Waiting || !strings.Contains(exp.Message, "quota") {
		t.Fatalf("%v (%s), want it to wait, and to say that the quota is too small", exp.Phase, exp.Message)
	}
	s.apply(t, ledger.QuotaPut{Quota: ledger.Quota{Owner: "me"}})
	two := s.start(s.lead, s.exp())
	<-two.Done()
	if exp := s.exp(); exp.Phase != ledger.Completed {
		t.Errorf("%v (%s), want completed", exp.Phase, exp.Message)
	}
}

// A training that comes to a number that is not finite has failed for good.
func TestDivergedIsFinal(t *testing.T) {
	s := newDriven(t, strings.Replace(driven, "lr: 0.01", "lr: 1e30", 1))
	one := s.start(s.lead, s.exp())
	s.replica(t.Context(), "0")
	<-one.Done()
	if exp := s.exp(); exp.Phase != ledger.Failed || !strings.Contains(exp.Message, "step") {
		t.Errorf("%v (%s), want failed, with the step", exp.Phase, exp.Message)
	}
}

// A driver whose leadership ends leaves the replicas to the next, which goes on from the last cut to the same digest.
func TestDriverHandsOver(t *testing.T) {
	digests := map[string]bool{}
	for range 2 {
		s := newDriven(t, driven)
		lead, depose := context.WithCancel(s.lead)
		if len(digests) == 0 { // undisturbed
			lead, depose = s.lead, func() {}
		}
		one := s.start(lead, s.exp())
		s.replica(t.Context(), "0")
		s.until(t, "a cut", func(e ledger.Experiment) bool { return len(e.Cuts) > 1 })
		depose()
		if lead != s.lead {
			<-one.Done()
			if exp := s.exp(); exp.Phase != ledger.Running || len(exp.Replicas) != 1 {
				t.Fatalf("%v with %d replicas, want it running with its replica", exp.Phase, len(exp.Replicas))
			}
			one = s.start(s.lead, s.exp())
		}
		<-one.Done()
		exp := s.exp()
		digests[fmt.Sprint(exp.Phase, exp.Cuts[len(exp.Cuts)-1].Manifest)] = true
	}
	if len(digests) != 1 {
		t.Errorf("%v, want both the same", digests)
	}
}
