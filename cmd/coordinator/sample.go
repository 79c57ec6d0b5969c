package main

import (
	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/local"
)

func newSampleCommand() *cobra.Command {
	var dir, out string
	var label int
	var guidance float64
	var energy energyFlags
	var b backendFlags
	s := local.SampleOptions{Samples: 1000, Burn: 200, Gap: 10, Chains: 64, Rungs: 1, Path: "linear", BetaMin: 0.1, ReferenceStd: 3}
	cmd := &cobra.Command{
		Use:   "sample --run DIR | --energy NAME",
		Short: "Draw from a trained or an analytic energy",
		Long: `Draw from a trained energy (--run) with the experiment's own sampler and ladder, or from an analytic one (--energy) with
the sampler and the ladder of the flags. The npz file holds x [samples, dim] and energy [samples].

Descents and annealed chains go somewhere and end there: every sample is then the end of a chain of its own, whose length is
--steps, and --chains, --burn and --gap have nothing to say.`,
		Example: `  coordinator sample --run runs/two-moons --samples 5000 --out moons.npz
  coordinator sample --energy double_well --dim 2 --set h=3 --samples 4000 --step-size 0.02
  coordinator sample --energy double_well_tilted --set a=10 --set c=0.5 --rungs 6 --reference-std 2
  coordinator sample --energy rosenbrock --sampler hmc --set sampler.leapfrog_steps=20 --step-size 0.02 --diagnostics d.npz
  coordinator sample --energy booth --sampler langevin --step-size '{kind: cosine, start: 0.02, end: 0.001}'`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&dir, "run", "", "the folder of a run")
	energy.add(cmd)
	f.IntVar(&s.Samples, "samples", s.Samples, "states to draw")
	f.StringVar(&out, "out", "", "npz file (default samples.npz; in the run's folder with --run)")
	f.IntVar(&s.Burn, "burn", s.Burn, "scans before the first state counts")
	f.IntVar(&s.Gap, "gap", s.Gap, "scans between two states of a chain")
	f.Uint64Var(&s.Seed, "seed", 1, "seed; with --run the experiment's unless it is given")
	f.IntVar(&s.Thin, "thin", 0, "chain steps between two states of a chain, in place of --gap, with --energy and one rung")
	f.BoolVar(&s.Trajectory, "trajectory", false, "write trajectory [chains, kept, dim] and trajectory_energy too, with --energy and one rung")
	f.IntVar(&s.Chains, "chains", s.Chains, "chains, or ladders, side by side, with --energy")
	f.IntVar(&s.Rungs, "rungs", s.Rungs, "rungs of the ladder, with --energy; 1 is no tempering")
	f.StringVar(&s.Path, "path", s.Path, "linear or power, with --energy")
	f.Float64Var(&s.BetaMin, "beta-min", s.BetaMin, "β of the hottest rung on the power path, with --energy")
	f.Float64Var(&s.ReferenceStd, "reference-std", s.ReferenceStd, "standard deviation of the Gaussian reference, and of the first states, with --energy")
	f.IntVar(&label, "label", 0, "label of every sample of a conditional field, with --run (default: every label in turn)")
	f.Float64Var(&guidance, "guidance", 1, "scale of classifier-free guidance, with --run (default: the experiment's)")
	b.add(cmd)
	b.addParams(cmd, "in place of the run's, with --run")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if (dir == "") == (energy.name == "") {
			return usageErrorf("want one of --run DIR and --energy NAME")
		}
		if err := positive(map[string]int{"samples": s.Samples, "gap": s.Gap, "chains": s.Chains, "rungs": s.Rungs}); err != nil {
			return err
		}
		if s.Burn < 0 {
			return usageErrorf("--burn: %d, want 0 or more", s.Burn)
		}
		if dir != "" {
			for _, name := range append([]string{"thin", "trajectory", "chains", "rungs", "path", "beta-min", "reference-std"}, energyFlagNames...) {
				if f.Changed(name) {
					return usageErrorf("--%s: goes with --energy; a run has its own sampler, see its experiment.yaml", name)
				}
			}
			if out == "" {
				out = dir + "/samples.npz"
			}
			o := local.DrawOptions{Samples: s.Samples, Burn: s.Burn, Gap: s.Gap}
			if f.Changed("seed") {
				o.Seed = s.Seed
			}
			if f.Changed("label") {
				o.Label = &label
			}
			if f.Changed("guidance") {
				o.Guidance = &guidance
			}
			return sampleRun(cmd, dir, out, o, b)
		}
		for _, name := range []string{"label", "guidance", "params"} {
			if f.Changed(name) {
				return usageErrorf("--%s: goes with --run; an analytic energy has no weights and no labels", name)
			}
		}
		if out == "" {
			out = "samples.npz"
		}
		return energy.sample(cmd, out, s, b)
	}
	return cmd
}

func sampleRun(cmd *cobra.Command, dir, out string, o local.DrawOptions, b backendFlags) (err error) {
	run, err := openRun(cmd, dir, b)
	if err != nil {
		return err
	}
	defer func() {
		if closing := run.Close(); err == nil {
			err = closing
		}
	}()
	for _, name := range []string{"burn", "gap"} {
		if cmd.Flags().Changed(name) && run.Parts.Config.Sampler.IsFlow() {
			return usageErrorf("--%s: goes with chains, and %s is sampled by a flow", name, dir)
		}
	}
	x, err := run.Samples(cmd.Context(), o)
	if err != nil {
		return err
	}
	if err := run.WriteSamples(out, x); err != nil {
		return err
	}
	return printf(cmd.OutOrStdout(), "%d samples of %s → %s\n", o.Samples, run.Parts.Config.Name, out)
}
