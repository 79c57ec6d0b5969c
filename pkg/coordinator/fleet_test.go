package coordinator_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/buffer"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// asReplica is the environment variable that makes this test program a replica of the coordinator at its value.
const asReplica = "KELVIN_TEST_REPLICA"

const (
	token = "a-token-for-tests"
	steps = 12
)

func TestMain(m *testing.M) {
	if url := os.Getenv(asReplica); url != "" {
		err := replica.Main(context.Background(), replica.Options{URL: url, Token: token, ID: os.Args[len(os.Args)-1], Build: build})
		fmt.Fprintln(os.Stderr, err)
		os.Exit(replica.ExitCode(err))
	}
	goleak.VerifyTestMain(m)
}

// scenario is a small experiment; its JSON stands for the YAML.
type scenario struct {
	Kind      string // of the backend
	Exchange  string
	Layout    engine.Layout
	Averaging averaging.Config
	LR        float64
	Target    string // a law that stands still, see targets; "": a network learns

	GradientOn string
}

func (s scenario) offer() replica.Offer {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return replica.Offer{Experiment: text}
}

// build makes the experiment of a scenario: a ladder of Gaussian chains and a small network.
func build(text []byte, _ string) (replica.Experiment, error) {
	var s scenario
	if err := json.Unmarshal(text, &s); err != nil {
		return replica.Experiment{}, err
	}
	if s.Target != "" {
		return buildTarget(s)
	}
	network, err := models.Config{Kind: "mlp", Hidden: []int{8}}.Build(2)
	if err != nil {
		return replica.Experiment{}, err
	}
	draws := rng.New(5, rng.Dataset, 0, 0)
	rows := make([]float64, 2*128)
	for i := range rows {
		rows[i] = draws.Normal() + float64(i%4/2)*3
	}
	q, err := models.FitGaussian(rows, 2, 2)
	if err != nil {
		return replica.Experiment{}, err
	}
	cfg := engine.TrainerConfig{
		Spec: engine.Spec{Network: network, Base: &q, Reference: &q, Rungs: s.Layout.Rungs, Chains: s.Layout.Chains, Pool: s.Layout.Chains, Batch: 16,
			Exchange: s.Exchange, Seed: 11, Loss: losses.Config{Kind: "parallel_tempering_cd"},
			Sampler:   samplers.Config{Kind: "mala", Steps: 1, StepSize: schedules.Constant(0.05)}.WithDefaults(),
			Optimizer: engine.OptimizerConfig{Kind: "adam", LR: schedules.Constant(s.LR), Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8, ClipNorm: 1}},
		Tempering: tempering.Config{Rungs: s.Layout.Rungs, Chains: s.Layout.Chains, Exchange: s.Exchange, AdaptEvery: 4}.WithDefaults(),
		Buffer:    buffer.Config{Size: s.Layout.Chains, Init: "reference"},
		Layout:    s.Layout, Data: rows, GradientOn: s.GradientOn,
		Positives: func(step int, into []float32) {
			for i := range into {
				into[i] = float32(rows[(step*len(into)+i)%len(rows)])
			}
		},
	}
	return replica.Experiment{
		Backend: backend.Config{Kind: s.Kind, Threads: 2}, Layout: s.Layout, Averaging: s.Averaging,
		Member: func(b *backend.Backend, group int, local []uint32, mesh engine.Mesh) (replica.Member, error) {
			cfg := cfg
			cfg.Group, cfg.Local, cfg.Mesh, cfg.Sync = group, local, mesh, s.Averaging.Outer == "sync" && s.Layout.Groups > 1
			return engine.NewTrainer(b, cfg)
		},
	}, nil
}

// alone trains in one process, without any coordinator, and returns the digest at the end.
func alone(t *testing.T, b *backend.Backend, s scenario) string {
	t.Helper()
	exp, err := build(s.offer().Experiment, "")
	if err != nil {
		t.Fatal(err)
	}
	m, err := exp.Member(b, 0, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	for range steps {
		if _, err := m.TrainStep(); err != nil {
			t.Fatal(err)
		}
		reset(m)
	}
	return digest(t, m)
}

// reset forgets the statistics of the pairs after every fifth step, as a training loop does when it has written them down.
func reset(l engine.Learner) {
	if l.Step()%5 == 0 {
		l.(interface{ ResetPairs() }).ResetPairs()
	}
}

func digest(t *testing.T, l engine.Learner) string {
	t.Helper()
	cut, err := l.Cut()
	if err != nil {
		t.Fatal(err)
	}
	sum, err := cut.Sum()
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// crew are replicas as goroutines.
type crew struct {
	server *transport.Server
	b      *backend.Backend
	wait   sync.WaitGroup
	mu     sync.Mutex
	ends   []error
}

func newCrew(t *testing.T, b *backend.Backend) *crew {
	t.Helper()
	server, err := transport.StartServer(t.Context(), transport.ServerOptions{Token: token})
	if err != nil {
		t.Fatal(err)
	}
	c := &crew{server: server, b: b}
	t.Cleanup(func() {
		c.wait.Wait()
		server.Close()
	})
	return c
}

func (c *crew) add(ctx context.Context, id string) {
	c.wait.Go(func() {
		err := replica.Main(ctx, replica.Options{Server: c.server, Token: token, ID: id, Build: build, Opened: c.b})
		c.mu.Lock()
		defer c.mu.Unlock()
		c.ends = append(c.ends, err)
	})
}

// fleet opens a fleet; its end is that of the test.
func fleet(t *testing.T, s scenario, server *transport.Server, replicas int, every ...int) *coordinator.Fleet {
	t.Helper()
	f, err := coordinator.New(t.Context(), coordinator.Config{
		Server: server, Token: token, Experiment: s.offer(), Layout: s.Layout, Averaging: s.Averaging,
		Replicas: replicas, Steps: steps, Every: every, Notice: func(text string) { t.Log(text) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// train makes the steps up to one, and checks that every step is reported once.
func train(t *testing.T, l engine.Learner, to int) {
	t.Helper()
	for l.Step() < to {
		want := l.Step() + 1
		r, err := l.TrainStep()
		if err != nil {
			t.Fatal(err)
		}
		if r.Step != want || l.Step() != want {
			t.Fatalf("report of step %d at step %d, want %d", r.Step, l.Step(), want)
		}
		reset(l)
	}
}

var one = averaging.Config{}.WithDefaults()

// TestAnyNumberOfReplicasGivesTheSameNumbers compares the digest of parameters, chains and statistics with that of one
// process.
func TestAnyNumberOfReplicasGivesTheSameNumbers(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for _, tc := range []struct {
			placement, exchange, gradientOn string
			split                           int
			replicas                        []int
		}{
			{"ladder", "state", "cold", 1, []int{1, 2}}, // one shard: a second replica stands by
			{"ladder", "state", "all", 4, []int{1, 2, 3}},
			{"rung", "state", "cold", 1, []int{2, 3}},
			{"rung", "label", "all", 2, []int{4, 7}},
		} {
			if b.Kind() != backend.Go && (tc.placement != "rung" || tc.split > 1) {
				continue // XLA compiles for long, and one layout shows that its bits arrive
			}
			t.Run(fmt.Sprintf("%s, %s, split %d", tc.placement, tc.exchange, tc.split), func(t *testing.T) {
				s := scenario{Kind: b.Kind(), Exchange: tc.exchange, Averaging: one, LR: 0.02, GradientOn: tc.gradientOn,
					Layout: engine.Layout{Placement: tc.placement, Split: tc.split, Rungs: 3, Chains: 8, Groups: 1}}
				want := alone(t, b, s)
				for _, n := range tc.replicas {
					t.Run(fmt.Sprintf("%d replicas", n), func(t *testing.T) {
						c := newCrew(t, b)
						for i := range n {
							c.add(context.Background(), fmt.Sprint(i))
						}
						f := fleet(t, s, c.server, n, 5)
						if err := f.Start(); err != nil {
							t.Fatal(err)
						}
						train(t, f, steps)
						if got := digest(t, f); got != want {
							t.Errorf("digest %.12s, want %.12s as in one process", got, want)
						}
					})
				}
			})
		}
	})
}
