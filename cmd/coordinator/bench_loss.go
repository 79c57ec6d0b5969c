package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/experiment"
	"github.com/kelvin-ebm/kelvin/pkg/local"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// lossBench is the training step of any loss, as `train` makes it: batch → chains, if any → loss → gradient → Adam.
type lossBench struct {
	Program  string  `json:"program"`
	Loss     string  `json:"loss"`
	Model    string  `json:"model"`
	Backend  string  `json:"backend"`
	Threads  int     `json:"threads"`
	Batch    int     `json:"batch"`
	Dim      int     `json:"dim"`
	Params   int     `json:"params"`
	Repeat   int     `json:"repeat"`
	FirstMS  float64 `json:"first_ms"` // with compiling
	MedianMS float64 `json:"median_ms"`
	P10MS    float64 `json:"p10_ms"`
	P90MS    float64 `json:"p90_ms"`
}

func newBenchLossCommand() *cobra.Command {
	bench := lossBench{Program: "kelvin"}
	var output string
	var b backendFlags
	var check func() error
	var sets *[]string
	cmd := &cobra.Command{
		Use:   "loss --loss KIND",
		Short: "Time one training step of a loss",
		Long: `Time one training step of a loss: the batch, the chains of a loss that has some, the loss, its gradient and Adam. The
experiment is two moons and a perceptron 128-128, with ten steps of Langevin dynamics where a loss has chains of the engine;
--set changes any of its keys.`,
		Example: `  coordinator bench loss --loss score_matching -o json
  coordinator bench loss --loss flow_matching --model transformer --batch 64 --set data.dataset=npz \
      --set data.path=examples/data/digits.npz --set data.array=images --set model.depth=2
  python3 benchmarks/losses.py     # every loss in TorchEBM beside it`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if err := positive(map[string]int{"batch": bench.Batch, "repeat": bench.Repeat}); err != nil {
				return err
			}
			if err := check(); err != nil {
				return err
			}
			if !slices.Contains(losses.KindNames(), bench.Loss) {
				return usageErrorf("--loss: %q, want one of %s", bench.Loss, strings.Join(losses.KindNames(), ", "))
			}
			cfg, err := experiment.Parse("bench.yaml", []byte(bench.experiment(b.kind)), *sets)
			if err != nil {
				return usageError{err}
			}
			parts, err := local.Build(cfg, nil, nil)
			if err != nil {
				return err
			}
			device, learner, err := parts.Open(cmd.Context(), b.options(cmd.ErrOrStderr()))
			if err != nil {
				return err
			}
			defer func() {
				learner.Close()
				if closing := device.Close(); err == nil {
					err = closing
				}
			}()
			bench.describe(parts, device)
			if err := bench.run(learner); err != nil {
				return err
			}
			if output == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(bench)
			}
			return printf(cmd.OutOrStdout(), "%s, %s of %d parameters on %s, batch %d × %d: median %.3f ms (p10 %.3f, p90 %.3f of %d), first call %.0f ms\n",
				bench.Loss, bench.Model, bench.Params, bench.Backend, bench.Batch, bench.Dim, bench.MedianMS, bench.P10MS, bench.P90MS, bench.Repeat, bench.FirstMS)
		},
	}
	f := cmd.Flags()
	f.StringVar(&bench.Loss, "loss", "", "kind of the loss: "+strings.Join(losses.KindNames(), ", "))
	f.StringVar(&bench.Model, "model", "", "kind of the model (default mlp, or field_mlp for a loss of fields)")
	f.IntVar(&bench.Batch, "batch", 256, "data rows a step")
	f.IntVar(&bench.Repeat, "repeat", 200, "training steps to time")
	sets = addSetFlag(cmd)
	b.add(cmd)
	check = addOutputFlag(cmd, &output, "table", "table", "json")
	return cmd
}

// experiment is what is timed, but for the overrides.
func (r *lossBench) experiment(backendKind string) string {
	if r.Model == "" {
		r.Model = "mlp"
		if r.Loss == "flow_matching" || r.Loss == "equilibrium_matching" {
			r.Model = "field_mlp"
		}
	}
	text := fmt.Sprintf(`
data: {dataset: two_moons}
model: {kind: %s%s}
loss: {kind: %s}
train: {steps: 1000000, batch: %d}
`, r.Model, hidden(r.Model), r.Loss, r.Batch)
	if (losses.Config{Kind: r.Loss}).Chains() {
		text += "sampler: {kind: langevin, steps: 10, step_size: 0.01}\n"
	}
	if backendKind != "" {
		text += fmt.Sprintf("backend: {kind: %q}\n", backendKind)
	}
	return text
}

// hidden are the layers of a perceptron.
func hidden(model string) string {
	if model == "mlp" || model == "field_mlp" {
		return ", hidden: [128, 128]"
	}
	return ""
}

func (r *lossBench) describe(parts *local.Parts, device *backend.Backend) {
	cfg := parts.Config
	r.Loss, r.Model, r.Batch, r.Dim = cfg.Loss.Kind, cfg.Model.Kind, cfg.Train.Batch, parts.Data.Dim
	r.Params = models.NumParams(parts.Network)
	r.Backend, r.Threads = device.Kind(), cfg.Backend.Threads
}

// The steps that do not count: the engine finds out by then how many cores to use. Slow steps have no need of it.
const (
	warmSteps = 100
	warmTime  = 5 * time.Second
)

func (r *lossBench) run(learner engine.Learner) error {
	step := func() (float64, error) {
		start := time.Now()
		_, err := learner.TrainStep()
		return float64(time.Since(start).Nanoseconds()) / 1e6, err
	}
	if err := learner.Start(); err != nil {
		return err
	}
	var err error
	if r.FirstMS, err = step(); err != nil {
		return err
	}
	start := time.Now()
	for i := 1; i < warmSteps && time.Since(start) < warmTime; i++ {
		if _, err := step(); err != nil {
			return err
		}
	}
	times := make([]float64, r.Repeat)
	for i := range times {
		if times[i], err = step(); err != nil {
			return err
		}
	}
	r.P10MS, r.MedianMS, r.P90MS = quantiles(times)
	return nil
}
