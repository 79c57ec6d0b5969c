package coordinator_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/buffer"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// target is a law that a training leaves alone: its energy has a parameter, but does not depend on it, and steps are scans.
// A plain chain keeps the sign of Σx that it starts with.
type target struct {
	dim      int
	energy   func(x *graph.Node) *graph.Node
	std      float64 // of the reference, in every coordinate
	steps    int     // of MALA a scan
	stepSize float64
	exchange string
	rungs    int
	positive float64 // P(Σx > 0)
	looks    int     // at the target chains, see lookEvery
}

var targets = map[string]target{
	// 16(x² − 1)² + ½x, the truth by quadrature.
	"double well": {
		dim: 1,
		energy: func(x *graph.Node) *graph.Node {
			well := graph.MulScalar(graph.Square(graph.AddScalar(graph.Square(x), -1)), 16)
			return graph.ReduceSum(graph.Add(well, graph.MulScalar(x, 0.5)), -1)
		},
		std: 2, steps: 5, stepSize: 0.01, exchange: "state", rungs: 6, positive: 0.271407, looks: 250,
	},
	// 0.2·N(−m, I) + 0.8·N(m, I) in sixteen dimensions, m = (1.25, …): ½‖x‖² − ln(0.2·exp(−m·x) + 0.8·exp(m·x)).
	"two modes": {
		dim: 16,
		energy: func(x *graph.Node) *graph.Node {
			along := graph.MulScalar(graph.ReduceSum(x, -1), 1.25)
			left, right := graph.AddScalar(graph.Neg(along), math.Log(0.2)), graph.AddScalar(along, math.Log(0.8))
			both := graph.Add(graph.Max(left, right), graph.Log1P(graph.Exp(graph.Neg(graph.Abs(graph.Sub(left, right))))))
			return graph.Sub(graph.MulScalar(graph.ReduceSum(graph.Square(x), -1), 0.5), both)
		},
		std: 6, steps: 2, stepSize: 0.5, exchange: "label", rungs: 12, positive: 0.8, looks: 350,
	},
}

func (l target) layout() engine.Layout {
	return engine.Layout{Placement: "rung", Split: 1, Rungs: l.rungs, Chains: 128, Groups: 1}
}

// Dim, Params and Energy implement [models.Energy].
func (l target) Dim() int { return l.dim }

func (target) Params() []models.Param {
	return []models.Param{{Name: "nothing", Shape: []int{1}, Init: func([]int, *models.Stream) []float64 { return []float64{0} }}}
}

func (l target) Energy(x *graph.Node, weights []*graph.Node) *graph.Node {
	return graph.Add(l.energy(x), graph.MulScalar(weights[0], 0))
}

// buildTarget makes the experiment of a target.
func buildTarget(s scenario) (replica.Experiment, error) {
	law := targets[s.Target]
	q := models.Gaussian{Mean: make([]float64, law.dim), Std: slices.Repeat([]float64{law.std}, law.dim)}
	cfg := engine.TrainerConfig{
		Spec: engine.Spec{Network: law, Reference: &q, Rungs: s.Layout.Rungs, Chains: s.Layout.Chains, Pool: s.Layout.Chains, Batch: 1,
			Exchange: s.Exchange, Seed: 3, Loss: losses.Config{Kind: "parallel_tempering_cd"},
			Sampler:   samplers.Config{Kind: "mala", Steps: law.steps, StepSize: schedules.Constant(law.stepSize)}.WithDefaults(),
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
// that reach each other through a listening server.
func TestProcessesMeetTheTargets(t *testing.T) {
	if testing.Short() {
		t.Skip("samples for long")
	}
	const replicas, burn, lookEvery = 4, 400, 4 // the ladder adapts on the way
	for name, law := range targets {
		t.Run(name, func(t *testing.T) {
			server := listening(t)
			for i := range replicas {
				newProcess(t, server.URL(), fmt.Sprint(i))
			}
			s := scenario{Kind: backend.Go, Exchange: law.exchange, Averaging: one, Layout: law.layout(), Target: name}
			f, err := coordinator.New(t.Context(), coordinator.Config{Server: server, Token: token, Experiment: s.offer(), Layout: s.Layout, Averaging: one,
				Replicas: replicas, Steps: burn + lookEvery*law.looks, Every: []int{lookEvery}})
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := f.Start(); err != nil {
				t.Fatal(err)
			}
			right, n := 0., 0.
			for f.Step() < burn+lookEvery*law.looks {
				if _, err := f.TrainStep(); err != nil {
					t.Fatal(err)
				}
				if f.Step() <= burn || f.Step()%lookEvery != 0 {
					continue
				}
				x, err := f.TargetChains()
				if err != nil {
					t.Fatal(err)
				}
				for row := range slices.Chunk(x, law.dim) {
					sum := float32(0)
					for _, v := range row {
						sum += v
					}
					if sum > 0 {
						right++
					}
					n++
				}
			}
			if p := right / n; !(math.Abs(p-law.positive) <= 0.02) {
				t.Errorf("P(Σx > 0) = %.4f, want %.4f ± 0.02", p, law.positive)
			}
			if f.Generations() != 1 || len(f.Replicas()) != replicas {
				t.Errorf("%d generations, %d replicas at the end, want one and %d", f.Generations(), len(f.Replicas()), replicas)
			}
			var rows uint64
			for _, m := range f.Moved() {
				rows += m.Kinds[engine.RowsBlob].Received
			}
			if (rows > 0) != (law.exchange == "state") {
				t.Errorf("%d blobs of states moved under exchange of %ss", rows, law.exchange)
			}
		})
	}
}
