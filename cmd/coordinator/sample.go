package main

import (
	"fmt"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/local"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

func newSampleCommand() *cobra.Command {
	var dir, energy, out string
	var dim int
	var params []string
	var b backendFlags
	s := local.SampleOptions{Samples: 1000, Burn: 200, Gap: 10, Chains: 64, Steps: 10, StepSize: 0.01, NoiseScale: 1, Rungs: 1, Path: "linear", BetaMin: 0.1, ReferenceStd: 3, Kernel: "mala"}
	cmd := &cobra.Command{
		Use:   "sample --run DIR | --energy NAME",
		Short: "Draw from a trained or an analytic energy",
		Long: `Draw from a trained energy (--run) with the experiment's own sampler and ladder, or from an analytic one (--energy) with
the kernel and the ladder of the flags. The npz file holds x [samples, dim] and energy [samples].`,
		Example: `  coordinator sample --run runs/two-moons --samples 5000 --out moons.npz
  coordinator sample --energy double_well --dim 2 --set h=3 --samples 4000 --step-size 0.02
  coordinator sample --energy double_well_tilted --set a=10 --set c=0.5 --rungs 6 --reference-std 2`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&dir, "run", "", "the folder of a run")
	f.StringVar(&energy, "energy", "", "name of an analytic energy: "+strings.Join(models.AnalyticKinds(), ", "))
	f.StringArrayVar(&params, "set", nil, "a parameter of the energy: `key=value`; may be given several times")
	f.IntVar(&dim, "dim", 0, "coordinates of a state, where the energy leaves it open (default 2)")
	f.IntVar(&s.Samples, "samples", s.Samples, "states to draw")
	f.StringVar(&out, "out", "", "npz file (default samples.npz; in the run's folder with --run)")
	f.IntVar(&s.Burn, "burn", s.Burn, "scans before the first state counts")
	f.IntVar(&s.Gap, "gap", s.Gap, "scans between two states of a chain")
	f.Uint64Var(&s.Seed, "seed", 1, "seed, with --energy")
	f.StringVar(&s.Kernel, "sampler", s.Kernel, "mala or langevin, with --energy")
	f.IntVar(&s.Steps, "steps", s.Steps, "chain steps a scan, with --energy")
	f.Float64Var(&s.StepSize, "step-size", s.StepSize, "step size of the target rung, with --energy")
	f.Float64Var(&s.NoiseScale, "noise-scale", s.NoiseScale, "noise scale of langevin, with --energy")
	f.IntVar(&s.Chains, "chains", s.Chains, "chains, or ladders, side by side, with --energy")
	f.IntVar(&s.Rungs, "rungs", s.Rungs, "rungs of the ladder, with --energy; 1 is no tempering")
	f.StringVar(&s.Path, "path", s.Path, "linear or power, with --energy")
	f.Float64Var(&s.BetaMin, "beta-min", s.BetaMin, "β of the hottest rung on the power path, with --energy")
	f.Float64Var(&s.ReferenceStd, "reference-std", s.ReferenceStd, "standard deviation of the Gaussian reference, and of the first states, with --energy")
	b.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if (dir == "") == (energy == "") {
			return usageErrorf("want one of --run DIR and --energy NAME")
		}
		if err := positive(map[string]int{"samples": s.Samples, "gap": s.Gap, "chains": s.Chains, "rungs": s.Rungs, "steps": s.Steps}); err != nil {
			return err
		}
		if s.Burn < 0 {
			return usageErrorf("--burn: %d, want 0 or more", s.Burn)
		}
		if dir != "" {
			for _, name := range []string{"seed", "sampler", "steps", "step-size", "noise-scale", "chains", "rungs", "path", "beta-min", "reference-std", "dim", "set"} {
				if f.Changed(name) {
					return usageErrorf("--%s: goes with --energy; a run has its own sampler, see its experiment.yaml", name)
				}
			}
			if out == "" {
				out = dir + "/samples.npz"
			}
			return sampleRun(cmd, dir, out, s, b)
		}
		if out == "" {
			out = "samples.npz"
		}
		return sampleEnergy(cmd, energy, dim, params, out, s, b)
	}
	return cmd
}

func sampleRun(cmd *cobra.Command, dir, out string, s local.SampleOptions, b backendFlags) (err error) {
	run, err := openRun(cmd, dir, b)
	if err != nil {
		return err
	}
	defer func() {
		if closing := run.Close(); err == nil {
			err = closing
		}
	}()
	x, err := run.Samples(cmd.Context(), s.Samples, s.Burn, s.Gap)
	if err != nil {
		return err
	}
	if err := run.WriteSamples(out, x); err != nil {
		return err
	}
	return printf(cmd.OutOrStdout(), "%d samples of %s → %s\n", s.Samples, run.Parts.Config.Name, out)
}

func sampleEnergy(cmd *cobra.Command, name string, dim int, params []string, out string, s local.SampleOptions, flags backendFlags) (err error) {
	set := map[string]any{}
	for _, p := range params {
		key, value, ok := strings.Cut(p, "=")
		if !ok || key == "" {
			return usageErrorf("--set: %q, want key=value", p)
		}
		set[key] = value
	}
	e, err := local.AnalyticEnergy(name, dim, set)
	if err != nil {
		return usageError{err}
	}
	if err := s.Validate(); err != nil {
		return usageError{err}
	}
	kind := flags.kind
	if kind == "" {
		kind = backend.Auto
	}
	cfg := backend.Config{Kind: kind, Threads: 2}
	if err := cfg.Validate(); err != nil {
		return usageErrorf("--backend: %w", err)
	}
	b, err := backend.Open(cmd.Context(), cfg, flags.options(cmd.ErrOrStderr()))
	if err != nil {
		return err
	}
	defer func() {
		if closing := b.Close(); err == nil {
			err = closing
		}
	}()
	got, err := local.SampleEnergy(cmd.Context(), b, e, s)
	if err != nil {
		return err
	}
	if err := local.WriteNPZ(out, e.Dim(), got.X, got.Energy); err != nil {
		return err
	}
	t := newTable(cmd.OutOrStdout(), "coordinate", "mean", "± se", "known", "variance", "known")
	t.SetTitle("%s, %d samples, %s on %s", name, s.Samples, got.Explorer, b.Kind())
	facts := models.Facts{}
	if k, ok := e.(models.Known); ok {
		facts = k.Known()
	}
	known := func(v []float64, i int) string {
		if i >= len(v) {
			return "–"
		}
		return fmt.Sprintf("%.4f", v[i])
	}
	for i := range min(e.Dim(), 10) {
		t.AppendRow(table.Row{i, fmt.Sprintf("%.4f", got.Mean[i]), fmt.Sprintf("%.4f", got.StdErr[i]), known(facts.Mean, i), fmt.Sprintf("%.4f", got.Variance[i]), known(facts.Variance, i)})
	}
	t.Render()
	text := fmt.Sprintf("explorer acceptance %s", local.Percentages(got.Accept))
	if len(got.SwapAccept) > 0 {
		text = fmt.Sprintf("swap acceptance %s, %d restarts\n", local.Percentages(got.SwapAccept), got.Restarts) + text
	}
	return printf(cmd.OutOrStdout(), "%s\n%s\n", text, out)
}
