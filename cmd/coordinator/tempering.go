package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/local"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

func newTemperingCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tempering",
		Short: "Measure or tune the ladder of a run or of an analytic energy",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newDiagnoseCommand(), newTuneCommand())
	return cmd
}

// temperingFlags are those of both commands.
type temperingFlags struct {
	run, out   string
	adaptScans int
	seed       uint64
	energy     energyFlags
	ladder     ladderFlags
	stop       stopFlags
	backend    backendFlags
}

const aboutRounds = `
The ladder adapts for --adapt-scans in rounds that double, and then stands still for the scans that count: at most --scans,
ended before by --restarts, --time or --rhat, whichever is met first. A row of the table is a round: restarts over all
ladders; eff., round trips over those that the swap acceptance allows; the barrier Λ; rungs, and those that Λ asks for; swap
acceptance, least/mean; log Z by the forward, bridge and reverse estimate; acceptance of the explorer, least/mean; the
largest correlation of V through a scan; seconds a scan; the median of a swap sweep in milliseconds.`

func (t *temperingFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.run, "run", "", "the folder of a run: its model, ladder and sampler; mala in place of one without a Metropolis test")
	t.energy.add(cmd)
	t.ladder.add(cmd, 6, "rungs of the ladder, with --energy")
	t.stop.add(cmd, 1000, "scans that count, at most")
	f.IntVar(&t.adaptScans, "adapt-scans", 500, "scans that adapt the ladder before")
	f.Uint64Var(&t.seed, "seed", 1, "seed; with --run the experiment's unless it is given")
	f.StringVar(&t.out, "out", "", "`folder` for "+local.TemperingFile+", which the plot command draws (default the run's; none with --energy)")
	t.backend.add(cmd)
	t.backend.addParams(cmd, "in place of the run's, with --run")
}

// law is what is tempered.
type law struct {
	temper func(context.Context, local.TemperOptions) (*local.Tempering, error)
	facts  models.Facts
	close  func() error
	// scale is tempering.reference_scale of a run, 0 for an energy; std the reference's deviation of an energy.
	scale, std float64
	sampler    samplers.Config
	rungs      int // of a run's training
}

func (t *temperingFlags) open(cmd *cobra.Command) (*law, error) {
	if (t.run == "") == (t.energy.name == "") {
		return nil, usageErrorf("want one of --run DIR and --energy NAME")
	}
	if t.adaptScans < 0 {
		return nil, usageErrorf("--adapt-scans: %d, want 0 or more", t.adaptScans)
	}
	if err := t.stop.check(cmd); err != nil {
		return nil, err
	}
	if t.run != "" {
		return t.openRun(cmd)
	}
	if cmd.Flags().Changed("params") {
		return nil, usageErrorf("--params: goes with --run; an analytic energy has no weights")
	}
	energy, sampler, err := t.energy.read(cmd)
	if err != nil {
		return nil, err
	}
	ladder, err := t.ladder.config(cmd, 0)
	if err != nil {
		return nil, err
	}
	if ladder.Rungs < 2 {
		return nil, usageErrorf("--rungs: %d, want at least 2", ladder.Rungs)
	}
	o := local.SampleOptions{Samples: 1, Gap: 1, Sampler: sampler, Tempering: ladder, Seed: t.seed, ReferenceStd: t.ladder.referenceStd}
	if err := o.Validate(); err != nil {
		return nil, usageError{err}
	}
	b, err := t.backend.open(cmd)
	if err != nil {
		return nil, err
	}
	temper := func(ctx context.Context, to local.TemperOptions) (*local.Tempering, error) {
		got, err := local.TemperEnergy(ctx, b, energy, o, to)
		if err != nil {
			return nil, err
		}
		got.Name = t.energy.name
		return got, nil
	}
	return &law{temper: temper, facts: facts(energy), close: b.Close, std: t.ladder.referenceStd, sampler: sampler.WithDefaults()}, nil
}

func (t *temperingFlags) openRun(cmd *cobra.Command) (*law, error) {
	for _, name := range append(append([]string{}, ladderFlagNames...), energyFlagNames...) {
		if cmd.Flags().Changed(name) {
			return nil, usageErrorf("--%s: goes with --energy; a run has its own ladder and sampler, see its experiment.yaml", name)
		}
	}
	run, err := openRun(cmd, t.run, t.backend)
	if err != nil {
		return nil, err
	}
	seed := uint64(0)
	if cmd.Flags().Changed("seed") {
		seed = t.seed
	}
	if t.out == "" {
		t.out = t.run
	}
	temper := func(ctx context.Context, o local.TemperOptions) (*local.Tempering, error) {
		return run.Temper(ctx, seed, o)
	}
	return &law{temper: temper, close: run.Close, scale: run.Parts.Config.Tempering.ReferenceScale, sampler: run.Parts.Config.Sampler, rungs: run.Parts.Config.Tempering.Rungs}, nil
}

// options are those of both commands, with a table of rounds.
func (t *temperingFlags) options(rounds *roundTable) local.TemperOptions {
	return local.TemperOptions{AdaptScans: t.adaptScans, Scans: t.stop.scans, Stop: t.stop.until, CheckSerial: t.stop.checkSerial, Each: rounds.add}
}

// write keeps the tempering where the flags say.
func (t *temperingFlags) write(w io.Writer, got *local.Tempering) error {
	if t.out == "" {
		return nil
	}
	if err := got.Write(t.out); err != nil {
		return err
	}
	return printf(w, "%s; `coordinator plot ladder --run %s` draws it\n", filepath.Join(t.out, local.TemperingFile), t.out)
}

func newDiagnoseCommand() *cobra.Command {
	var t temperingFlags
	var output string
	cmd := &cobra.Command{
		Use:   "diagnose --run DIR | --energy NAME",
		Short: "Adapt the ladder, measure it, and say whether it mixes",
		Long: "Adapt the ladder of a trained model (--run) or of an analytic energy (--energy), measure it, and say whether it mixes.\n" + aboutRounds + `

The table behind it has a row a rung: swap acceptance and overlap of energies with the next rung, acceptance of the
explorer, correlation ρ_V of V through a scan, and the share of walkers that came from the reference, ideally a straight
line from 1 to 0. Below it stand the effective samples of the statistic of the target chains that has fewest.

--check-serial R first makes R rounds that adapt twice, the second time with another sampler that takes over in the middle,
and compares states, walkers, ladder, step sizes and statistics bit by bit. Ctrl-C ends the scans that count as a rule would:
what there is is shown and written, and the exit code is 130.`,
		Example: `  coordinator tempering diagnose --run runs/two-moons
  coordinator tempering diagnose --energy double_well_tilted --dim 1 --set a=10 --set c=0.5 --reference-std 2
  coordinator tempering diagnose --energy double_well --set h=8 --tempering schedule=seo --restarts 200 -o json`,
		Args: cobra.NoArgs,
	}
	t.add(cmd)
	check := addOutputFlag(cmd, &output, "table", "table", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if err := check(); err != nil {
			return err
		}
		l, err := t.open(cmd)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, l.close()) }()
		stdout, stderr := cmd.OutOrStdout(), cmd.ErrOrStderr()
		rounds := &roundTable{w: stdout}
		if output == "json" {
			rounds.w = stderr
		}
		got, err := l.temper(cmd.Context(), t.options(rounds))
		if err = errors.Join(err, rounds.err); err != nil {
			return err
		}
		if output == "json" {
			if err := writeDiagnosis(stdout, got); err != nil {
				return err
			}
			stdout = stderr
		} else if err := t.report(stdout, l, got); err != nil {
			return err
		}
		return errors.Join(t.write(stdout, got), interrupted(got))
	}
	return cmd
}

// writeDiagnosis writes a tempering with its yield, its findings and its verdict as JSON.
func writeDiagnosis(w io.Writer, got *local.Tempering) error {
	type yield struct {
		Statistic        string  `json:"statistic"`
		EffectiveSamples float64 `json:"effective_samples"`
		PerSecond        float64 `json:"per_second"`
		PerGradient      float64 `json:"per_gradient"`
	}
	var least *yield // null where no statistic has any
	if name, samples, perSecond, perGradient := got.Final().Yield(); !math.IsNaN(samples) {
		least = &yield{name, samples, perSecond, perGradient}
	}
	text, err := json.MarshalIndent(struct {
		*local.Tempering
		Yield    *yield              `json:"yield"`
		Findings []tempering.Finding `json:"findings"`
		Verdict  string              `json:"verdict"`
	}{got, least, got.Final().Findings(), got.Final().Verdict()}, "", " ")
	if err != nil {
		return fmt.Errorf("diagnosis: %w", err)
	}
	return printf(w, "%s\n", text)
}

// report shows the last round: by rung, log Z, and the verdict.
func (t *temperingFlags) report(w io.Writer, l *law, got *local.Tempering) error {
	if err := printf(w, "%s\n", t.stop.ended(got, false)); err != nil {
		return err
	}
	rungTable(w, got.Final())
	lines := append(yieldLine(got.Final()), logZLines(got, l.facts.LogZ)...)
	lines = append(lines, verdictLines(got)...)
	return printf(w, "%s\n", strings.Join(append(lines, ladderLines(t.run, l.rungs, got.Final())...), "\n"))
}
