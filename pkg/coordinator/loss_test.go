package coordinator_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// process is a replica as a process of its own.
type process struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
}

func newProcess(t *testing.T, url, id string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0], id)}
	p.cmd.Env = append(os.Environ(), asReplica+"="+url)
	p.cmd.Stderr = &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		if t.Failed() {
			t.Logf("replica %s: %s", id, p.stderr.String())
		}
	})
	return p
}

// listening is a server that processes can reach.
func listening(t *testing.T) *transport.Server {
	t.Helper()
	server, err := transport.StartServer(t.Context(), transport.ServerOptions{Listen: "127.0.0.1:0", Token: token})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return server
}

func byRung(kind string) scenario {
	return scenario{Kind: kind, Exchange: "state", Averaging: one, LR: 0.02,
		Layout: engine.Layout{Placement: "rung", Split: 1, Rungs: 3, Chains: 8, Groups: 1}}
}

// TestKilledProcessChangesNoBit kills a replica between two steps that nobody has saved: its shards go to the other, both
// go back to the last cut, and the training ends with the same digest. A process that comes later takes its share.
func TestKilledProcessChangesNoBit(t *testing.T) {
	s := byRung(backend.Go)
	s.GradientOn = "all"
	want := alone(t, testutil.Backend(t, backend.Go), s)
	server := listening(t)
	newProcess(t, server.URL(), "0")
	victim := newProcess(t, server.URL(), "1")
	f := fleet(t, s, server, 2, 1)
	if err := f.Start(); err != nil {
		t.Fatal(err)
	}
	train(t, f, 3)
	if _, err := f.Cut(); err != nil {
		t.Fatal(err)
	}
	train(t, f, 7)
	if err := victim.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	train(t, f, 9)
	if f.Generations() != 2 || f.Redone() == 0 {
		t.Errorf("%d generations, %d steps made again, want 2 and some", f.Generations(), f.Redone())
	}
	train(t, f, steps)
	if got := digest(t, f); got != want {
		t.Errorf("digest %.12s, want %.12s as without the loss", got, want)
	}
	// The parameters can be asked for by whoever is left.
	e, err := f.Energies([]float32{0, 0, 1, 1})
	if err != nil || len(e) != 2 {
		t.Errorf("energies %v, %v", e, err)
	}
}

// TestLeavingAndJoiningChangesNoBit asks a replica to leave in the middle and lets another join: nothing is made again.
func TestLeavingAndJoiningChangesNoBit(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	s := byRung(backend.Go)
	want := alone(t, b, s)
	c := newCrew(t, b)
	c.add(context.Background(), "a")
	ctx, leave := context.WithCancel(context.Background())
	c.add(ctx, "b")
	f := fleet(t, s, c.server, 2, 1)
	if err := f.Start(); err != nil {
		t.Fatal(err)
	}
	train(t, f, 4)
	leave()
	for f.Step() < 7 || f.Generations() < 2 { // it asks when it hears of it
		if f.Step() >= 10 {
			t.Fatal("nobody has left by step 10")
		}
		train(t, f, f.Step()+1)
	}
	c.add(context.Background(), "c")
	for began := time.Now(); !slices.Contains(f.Replicas(), "c"); time.Sleep(time.Millisecond) {
		if time.Since(began) > 30*time.Second {
			t.Fatal("replica c has not registered")
		}
	}
	for f.Generations() < 3 { // it gets its share at a cut
		if f.Step() >= steps-1 {
			t.Fatal("nobody has joined by the last step but one")
		}
		train(t, f, f.Step()+1)
		if _, err := f.Cut(); err != nil {
			t.Fatal(err)
		}
	}
	train(t, f, steps)
	if got := digest(t, f); got != want {
		t.Errorf("digest %.12s, want %.12s", got, want)
	}
	if f.Redone() != 0 {
		t.Errorf("%d steps made again, want none", f.Redone())
	}
	f.Close()
	c.wait.Wait()
	var preempted int
	for _, err := range c.ends {
		if errors.Is(err, replica.ErrPreempted) {
			preempted++
		} else if err != nil {
			t.Error(err)
		}
	}
	if preempted != 1 {
		t.Errorf("ends %v, want one of a replica that was asked to end", c.ends)
	}
}

// TestNobodyLeft says so, with the step to go on from.
func TestNobodyLeft(t *testing.T) {
	server := listening(t)
	only := newProcess(t, server.URL(), "0")
	f := fleet(t, byRung(backend.Go), server, 1, 1)
	if err := f.Start(); err != nil {
		t.Fatal(err)
	}
	if err := only.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, err := f.TrainStep()
	if err == nil || !strings.Contains(err.Error(), "no replica is left at step 0: want at least one to go on from the cut of step 0") {
		t.Errorf("error %v", err)
	}
}

// TestGroupsAverage trains two groups: the parameters meet at every boundary, and the placement changes no bit.
func TestGroupsAverage(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	for _, cfg := range []averaging.Config{
		{Groups: 2, Every: 4},
		{Groups: 2, Every: 5, Outer: "nesterov", Format: "int8"},
		{Groups: 2, Outer: "sync"},
	} {
		cfg = cfg.WithDefaults()
		t.Run(cfg.Outer+" "+cfg.Format, func(t *testing.T) {
			s := scenario{Kind: backend.Go, Exchange: "state", Averaging: cfg, LR: 0.02,
				Layout: engine.Layout{Placement: "ladder", Split: 2, Rungs: 3, Chains: 8, Groups: 2}}
			var digests []string
			for _, n := range []int{1, 3} {
				c := newCrew(t, b)
				for i := range n {
					c.add(context.Background(), fmt.Sprint(i))
				}
				f := fleet(t, s, c.server, n, 7, 5)
				if err := f.Start(); err != nil {
					t.Fatal(err)
				}
				train(t, f, 7)
				middle, err := f.Cut()
				if err != nil {
					t.Fatal(err)
				}
				train(t, f, steps)
				digests = append(digests, digest(t, f))
				end, err := f.Cut()
				if err != nil {
					t.Fatal(err)
				}
				apart, together := params(t, middle), params(t, end)
				if same := bytes.Equal(apart[0], apart[1]); same != (cfg.Outer == "sync") {
					t.Errorf("between two rounds the groups have the same parameters: %t", same)
				}
				if !bytes.Equal(together[0], together[1]) {
					t.Error("after the last round the groups have different parameters")
				}
				if n > 1 { // once more from the middle
					if err := f.Restore(&middle); err != nil {
						t.Fatal(err)
					}
					train(t, f, steps)
					digests = append(digests, digest(t, f))
				}
			}
			if digests[0] != digests[1] || digests[0] != digests[2] {
				t.Errorf("digests %.12s of one replica, %.12s of three, %.12s after going back to a cut, want the same", digests[0], digests[1], digests[2])
			}
		})
	}
}

// params are the parameters of both groups in a cut.
func params(t *testing.T, cut checkpoint.Cut) (out [2][]byte) {
	t.Helper()
	for g := range out {
		group, err := coordinator.GroupCut(&cut, g)
		if err != nil {
			t.Fatal(err)
		}
		if out[g], err = replica.EncodeTensors(group.Files["params"]); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// TestFailureOfTheTraining ends it with the step and the number, whoever holds the shards.
func TestFailureOfTheTraining(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	groups := byRung(backend.Go)
	groups.Layout.Groups, groups.Averaging = 2, averaging.Config{Groups: 2, Outer: "sync"}.WithDefaults()
	for name, s := range map[string]scenario{"one group": byRung(backend.Go), "two groups": groups} {
		t.Run(name, func(t *testing.T) {
			s.LR = 1e38
			c := newCrew(t, b)
			c.add(context.Background(), "0")
			c.add(context.Background(), "1")
			f := fleet(t, s, c.server, 2, 1)
			if err := f.Start(); err != nil {
				t.Fatal(err)
			}
			var err error
			for err == nil && f.Step() < steps {
				_, err = f.TrainStep()
			}
			var bad *engine.NonFiniteError
			if !errors.As(err, &bad) || bad.Step != f.Step()+1 {
				t.Errorf("error %v behind step %d, want that of a number that is not finite, a step later", err, f.Step())
			}
		})
	}
}

// TestRefusals are what a replica ends with that cannot join, by their exit codes.
func TestRefusals(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	c := newCrew(t, b)
	c.add(context.Background(), "0")
	fleet(t, byRung(backend.Go), c.server, 1, 1)
	for _, tc := range []struct {
		name   string
		change func(*replica.Options)
		code   int
	}{
		{"another version", func(o *replica.Options) { o.Version = "v0" }, 43},
		{"an experiment that cannot be built", func(o *replica.Options) {
			o.Build = func([]byte, string) (replica.Experiment, error) { return replica.Experiment{}, errors.New("no data") }
		}, 42},
		{"a name with a dot", func(o *replica.Options) { o.ID = "a.b" }, 42},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := replica.Options{Server: c.server, Token: token, ID: "1", Build: build, Opened: b}
			tc.change(&o)
			if err := replica.Main(t.Context(), o); replica.ExitCode(err) != tc.code {
				t.Errorf("error %v with code %d, want %d", err, replica.ExitCode(err), tc.code)
			}
		})
	}
}
