package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

func newBenchCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "bench", Short: "Time the parts that decide how fast a run is"}
	cmd.AddCommand(newBenchStepCommand(), newBenchLossCommand(), newBenchSwapCommand(), newBenchAverageCommand())
	return cmd
}

// stepBench is the training step that benchmarks/ compares: persistent CD of a 2-H-H-1 SiLU MLP.
type stepBench struct {
	Program  string  `json:"program"`
	Backend  string  `json:"backend"`
	Threads  int     `json:"threads"`
	Batch    int     `json:"batch"`
	Hidden   int     `json:"hidden"`
	Steps    int     `json:"steps"`
	Repeat   int     `json:"repeat"`
	FirstMS  float64 `json:"first_ms"`
	MedianMS float64 `json:"median_ms"`
	P10MS    float64 `json:"p10_ms"`
	P90MS    float64 `json:"p90_ms"`
}

func newBenchStepCommand() *cobra.Command {
	bench := stepBench{Program: "kelvin"}
	var output string
	var cfg backend.Config
	var opts backend.Options
	var check func() error
	cmd := &cobra.Command{
		Use:   "step",
		Short: "Time one persistent-CD training step (Langevin, Adam) of a 2-H-H-1 MLP",
		Example: `  coordinator bench step --batch 128 --hidden 64 --steps 10 -o json
  python3 benchmarks/run.py        # the same step in JAX and TorchEBM beside it`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if err := positive(map[string]int{"batch": bench.Batch, "hidden": bench.Hidden, "steps": bench.Steps, "repeat": bench.Repeat}); err != nil {
				return err
			}
			if err := check(); err != nil {
				return err
			}
			if err := cfg.Validate(); err != nil {
				return usageError{err}
			}
			opts.Progress = cmd.ErrOrStderr()
			b, err := backend.Open(cmd.Context(), cfg, opts)
			if err != nil {
				return err
			}
			defer func() {
				if closing := b.Close(); err == nil {
					err = closing
				}
			}()
			bench.Backend, bench.Threads = b.Kind(), cfg.Threads
			if err := bench.run(b); err != nil {
				return err
			}
			if output == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(bench)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s, batch %d, hidden %d, %d chain steps: median %.3f ms (p10 %.3f, p90 %.3f of %d), first call %.0f ms\n",
				bench.Backend, bench.Batch, bench.Hidden, bench.Steps, bench.MedianMS, bench.P10MS, bench.P90MS, bench.Repeat, bench.FirstMS)
			return err
		},
	}
	f := cmd.Flags()
	f.IntVar(&bench.Batch, "batch", 128, "chains, and data rows a step")
	f.IntVar(&bench.Hidden, "hidden", 64, "width of the two hidden layers")
	f.IntVar(&bench.Steps, "steps", 10, "Langevin steps a training step")
	f.IntVar(&bench.Repeat, "repeat", 200, "training steps to time")
	f.StringVar(&cfg.Kind, "backend", "auto", "auto, xla:cuda, xla:cpu or go")
	f.IntVar(&cfg.Threads, "threads", 2, "size of XLA's CPU thread pool")
	f.BoolVar(&opts.NoInstall, "no-install", false, "never download the XLA plugin")
	check = addOutputFlag(cmd, &output, "table", "table", "json")
	return cmd
}

func (r *stepBench) run(b *backend.Backend) error {
	network, err := models.Config{Kind: "mlp", Hidden: []int{r.Hidden, r.Hidden}, Activation: "silu", Init: "torch"}.Build(2)
	if err != nil {
		return err
	}
	data := make([]float32, 2*r.Batch)
	perm := make([]int32, r.Batch)
	for i := range perm {
		perm[i] = int32(i)
	}
	shard, err := engine.NewShard(b, engine.Spec{
		Network: network, Rungs: 1, Chains: r.Batch, Pool: r.Batch, Batch: r.Batch,
		Loss:      losses.Config{Kind: "persistent_cd", EnergyPenalty: 1e-3},
		Sampler:   samplers.Config{Kind: "langevin", Steps: r.Steps, StepSize: schedules.Constant(0.01), NoiseScale: schedules.Constant(1)},
		Optimizer: engine.OptimizerConfig{Kind: "adam", LR: schedules.Constant(1e-3), Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8},
		Seed:      1,
	})
	if err != nil {
		return err
	}
	defer shard.Close()
	var theta []float32
	for _, v := range models.InitParams(network, 1) {
		theta = append(theta, float32(v))
	}
	for i := range data { // any data will do: two clusters
		data[i] = float32(i%4) - 1.5
	}
	if err := shard.Load(shard.NewState(theta, data, nil)); err != nil {
		return err
	}
	ones := slices.Repeat([]float64{1}, r.Steps)
	shard.SetLadder([]float64{1}, []float64{0.01})
	shard.SetTables(ones, ones)
	const warm = 100 // the engine has found out by then how many cores to use
	times := make([]float64, 0, r.Repeat)
	for i := range warm + r.Repeat {
		start := time.Now()
		if _, err := shard.Train(uint64(i), i, 1e-3, data, engine.Draw{Perm: perm}); err != nil {
			return err
		}
		ms := float64(time.Since(start).Nanoseconds()) / 1e6
		switch {
		case i == 0:
			r.FirstMS = ms
		case i >= warm:
			times = append(times, ms)
		}
	}
	r.P10MS, r.MedianMS, r.P90MS = quantiles(times)
	return nil
}

// quantiles sorts times.
func quantiles(times []float64) (p10, median, p90 float64) {
	slices.Sort(times)
	at := func(q float64) float64 { return times[int(q*float64(len(times)-1)+0.5)] }
	return at(0.1), at(0.5), at(0.9)
}
