package main

import (
	"errors"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/local"
)

func newSampleCommand() *cobra.Command {
	var dir, out, temperingOut string
	var label int
	var guidance float64
	var invariance bool
	var energy energyFlags
	var ladder ladderFlags
	var stop stopFlags
	var b backendFlags
	s := local.SampleOptions{Samples: 1000, Burn: 200, Gap: 10}
	cmd := &cobra.Command{
		Use:   "sample --run DIR | --energy NAME",
		Short: "Draw from a trained or an analytic energy",
		Long: `Draw from a trained energy (--run) with the experiment's own sampler and ladder, or from an analytic one (--energy) with
the sampler and the ladder of the flags. The npz file holds x [samples, dim] and energy [samples].

A ladder (--rungs, or any --tempering) adapts during the scans of --burn, in rounds that double, and stands still for the
scans that count. Those end when the samples are together, or at the first of --scans, --restarts, --time and --rhat that
is met; with one of these, the samples end them only where --samples is given too. A rule may never be met: --rhat is best
given with --time. With the samples come log Z by the bridge, between its forward and its reverse estimate, and a verdict
whether the ladder mixes.

Descents and annealed chains go somewhere and end there: every sample is then the end of a chain of its own, whose length is
--steps, and --chains, --burn and --gap have nothing to say.

Ctrl-C ends the scans that count as a rule would: what there is is written and shown, and the exit code is 130.

--invariance-test draws nothing: it starts every rung of a ladder (of 5, where nothing else is said) on Gaussians in 4
dimensions in its exact law, makes two scans with the sampler and the ladder of the flags, or those of two windows under
schedule=windowed, and tests after each that every rung still has its law. It fails, with exit code 1, for a sampler without
a Metropolis test whose steps are large: try --sampler langevin --step-size 0.05.`,
		Example: `  coordinator sample --run runs/two-moons --samples 5000 --out moons.npz
  coordinator sample --energy double_well --dim 2 --set h=3 --samples 4000 --step-size 0.02
  coordinator sample --energy double_well_tilted --set a=10 --set c=0.5 --rungs 6 --reference-std 2
  coordinator sample --energy double_well_tilted --set a=10 --rungs 6 --tempering schedule=seo --restarts 500 --time 60s
  coordinator sample --energy rosenbrock --sampler hmc --set sampler.leapfrog_steps=20 --step-size 0.02 --diagnostics d.npz
  coordinator sample --energy booth --sampler langevin --step-size '{kind: cosine, start: 0.02, end: 0.001}'
  coordinator sample --invariance-test --sampler hmc --step-size 0.1`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&dir, "run", "", "the folder of a run")
	energy.add(cmd)
	f.StringVar(&energy.diagnostics, "diagnostics", "", "npz file for mean, variance, energy and acceptance_rate of every kept step, with --energy and one rung")
	ladder.add(cmd, 1, "rungs of the ladder, with --energy; 1 is no tempering (6 where --tempering says no other)")
	stop.add(cmd, 0, "end after so many scans that count (default: as many as the samples need)")
	f.IntVar(&s.Samples, "samples", s.Samples, "states to draw")
	f.StringVar(&out, "out", "", "npz file (default samples.npz; in the run's folder with --run)")
	f.StringVar(&temperingOut, "tempering-out", "", "`folder` for "+local.TemperingFile+", which the plot command draws; with a ladder")
	f.IntVar(&s.Burn, "burn", s.Burn, "scans before the first state counts, in which a ladder adapts")
	f.IntVar(&s.Gap, "gap", s.Gap, "scans between two states of a chain")
	f.BoolVar(&s.Tune, "tune", false, "change the number of rungs too while the ladder adapts, with --energy")
	f.Uint64Var(&s.Seed, "seed", 1, "seed; with --run the experiment's unless it is given")
	f.IntVar(&s.Thin, "thin", 0, "chain steps between two states of a chain, in place of --gap, with --energy and one rung")
	f.BoolVar(&s.Trajectory, "trajectory", false, "write trajectory [chains, kept, dim] and trajectory_energy too, with --energy and one rung")
	f.IntVar(&label, "label", 0, "label of every sample of a conditional field, with --run (default: every label in turn)")
	f.Float64Var(&guidance, "guidance", 1, "scale of classifier-free guidance, with --run (default: the experiment's)")
	f.BoolVar(&invariance, "invariance-test", false, "test that sampler and ladder leave every rung's law alone, and draw nothing")
	b.add(cmd)
	b.addParams(cmd, "in place of the run's, with --run")
	refuse := func(why string, names ...string) error {
		for _, name := range names {
			if f.Changed(name) {
				return usageErrorf("--%s: %s", name, why)
			}
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if invariance {
			own := "the invariance test has a law, states and scans of its own: want no such flag"
			if err := refuse(own, "run", "energy", "dim", "diagnostics", "scans", "restarts", "time", "rhat", "check-serial", "samples", "out", "tempering-out",
				"burn", "gap", "tune", "thin", "trajectory", "label", "guidance", "params", "reference-std"); err != nil {
				return err
			}
			return testInvariance(cmd, &energy, &ladder, s.Seed, b)
		}
		if (dir == "") == (energy.name == "") {
			return usageErrorf("want one of --run DIR and --energy NAME")
		}
		if err := positive(map[string]int{"samples": s.Samples, "gap": s.Gap}); err != nil {
			return err
		}
		if s.Burn < 0 {
			return usageErrorf("--burn: %d, want 0 or more", s.Burn)
		}
		if err := stop.check(cmd); err != nil {
			return err
		}
		if dir != "" {
			if err := refuse("goes with --energy; a run has its own sampler, see its experiment.yaml",
				append(append([]string{"thin", "trajectory", "diagnostics"}, ladderFlagNames...), energyFlagNames...)...); err != nil {
				return err
			}
			if err := refuse("goes with --energy; `coordinator tempering` tunes and checks the ladder of a run", "tune", "check-serial"); err != nil {
				return err
			}
			if out == "" {
				out = filepath.Join(dir, "samples.npz")
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
			return sampleRun(cmd, dir, out, temperingOut, o, &stop, b)
		}
		if err := refuse("goes with --run; an analytic energy has no weights and no labels", "label", "guidance", "params"); err != nil {
			return err
		}
		if out == "" {
			out = "samples.npz"
		}
		var err error
		if s.Tempering, err = ladder.config(cmd, 0); err != nil {
			return err
		}
		s.ReferenceStd = ladder.referenceStd
		if s.Tempering.Rungs > 1 {
			s.Scans = stop.forSamples(cmd, s.Samples, s.Gap, s.Tempering.Chains)
		} else if err := refuse("goes with a ladder, want --rungs of at least 2", append(stopFlagNames, "tempering-out", "tune", "check-serial")...); err != nil {
			return err
		}
		s.Stop, s.CheckSerial = stop.until, stop.checkSerial
		return energy.sample(cmd, out, temperingOut, s, &stop, b)
	}
	return cmd
}

func sampleRun(cmd *cobra.Command, dir, out, temperingOut string, o local.DrawOptions, stop *stopFlags, b backendFlags) (err error) {
	run, err := openRun(cmd, dir, b)
	if err != nil {
		return err
	}
	defer func() {
		if closing := run.Close(); err == nil {
			err = closing
		}
	}()
	cfg := run.Parts.Config
	for _, name := range []string{"burn", "gap"} {
		if cmd.Flags().Changed(name) && cfg.Sampler.IsFlow() {
			return usageErrorf("--%s: goes with chains, and %s is sampled by a flow", name, dir)
		}
	}
	rounds := &roundTable{w: cmd.ErrOrStderr()}
	if cfg.Tempering.Rungs > 1 {
		o.Scans, o.Stop, o.Each = stop.forSamples(cmd, o.Samples, o.Gap, cfg.Tempering.Chains), stop.until, rounds.add
	} else {
		for _, name := range append(stopFlagNames, "tempering-out") {
			if cmd.Flags().Changed(name) {
				return usageErrorf("--%s: goes with a ladder, and %s has none", name, dir)
			}
		}
	}
	x, err := run.Samples(cmd.Context(), o)
	if err = errors.Join(err, rounds.err); err != nil {
		return err
	}
	n := len(x.X) / run.Parts.Data.Dim
	if n > 0 {
		if err := run.WriteSamples(out, x); err != nil {
			return err
		}
	} else {
		out = "nowhere"
	}
	var lines []string
	if t := x.Tempering; t != nil {
		lines = append(append(swapLines(t, stop), logZLines(t, nil)...), verdictLines(t)...)
		if temperingOut != "" {
			if err := t.Write(temperingOut); err != nil {
				return err
			}
			lines = append(lines, filepath.Join(temperingOut, local.TemperingFile))
		}
	}
	for i := range lines {
		lines[i] += "\n"
	}
	if err := printf(cmd.OutOrStdout(), "%s%d samples of %s → %s\n", strings.Join(lines, ""), n, cfg.Name, out); err != nil {
		return err
	}
	return interrupted(x.Tempering)
}
