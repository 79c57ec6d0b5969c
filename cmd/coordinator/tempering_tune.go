package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

func newTuneCommand() *cobra.Command {
	var t temperingFlags
	cmd := &cobra.Command{
		Use:   "tune --run DIR | --energy NAME",
		Short: "Find the number of rungs, their β and the step size",
		Long: "Find the number of rungs, their β and the step size for a trained model (--run) or an analytic energy (--energy). It\n" +
			"measures the ladder as it is, then adapts it, its number of rungs too, measures again, and ends with the keys to put\n" +
			"into the experiment and with what it costs to leave them out.\n" + aboutRounds,
		Example: `  coordinator tempering tune --run runs/two-moons
  coordinator tempering tune --energy double_well_tilted --dim 1 --set a=10 --set c=0.5 --reference-std 2`,
		Args: cobra.NoArgs,
	}
	t.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		l, err := t.open(cmd)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, l.close()) }()
		w := cmd.OutOrStdout()
		if err := printf(w, "as it is:\n"); err != nil {
			return err
		}
		rounds := &roundTable{w: w}
		o := t.options(rounds)
		o.AdaptScans = 0
		before, err := l.temper(cmd.Context(), o)
		if err = errors.Join(err, rounds.err, interrupted(before)); err != nil {
			return err
		}
		if err := printf(w, "tuned:\n"); err != nil {
			return err
		}
		rounds.started = false
		o = t.options(rounds)
		o.Tune, o.CheckSerial = true, 0
		after, err := l.temper(cmd.Context(), o)
		if err = errors.Join(err, rounds.err); err != nil {
			return err
		}
		if err := t.report(w, l, after); err != nil {
			return err
		}
		if err := printf(w, "%s\n\n%s", costOfStaying(before.Final(), after.Final()), tunedSections(after.Final(), l)); err != nil {
			return err
		}
		return errors.Join(t.write(w, after), interrupted(after))
	}
	return cmd
}

// perThousand are the restarts that a thousand gradients of the energy bought.
func perThousand(r *tempering.Round) float64 { return 1e3 * float64(r.Restarts) / float64(r.Gradients) }

// costOfStaying compares the ladder as it was with the tuned one by what both cost, gradients of the energy.
func costOfStaying(before, after *tempering.Round) string {
	was, is := perThousand(before), perThousand(after)
	line := fmt.Sprintf("restarts a thousand gradients: %.3g on the %d rungs as they are, %.3g on the tuned %d", was, len(before.Betas), is, len(after.Betas))
	switch {
	case after.Restarts == 0:
		return line + "; the tuned ladder does not mix, so that nothing can be said"
	case before.Restarts == 0:
		return line + "; unchanged, the target never hears of the reference"
	case 1.1*is < was:
		return line + "; the ladder as it is serves better"
	case is < 1.1*was:
		return line + "; nothing is lost by leaving them"
	}
	return line + fmt.Sprintf("; unchanged, a restart costs %.1f times as much", is/was)
}

// tunedSections are the keys of an experiment that make its training begin with the ladder of a round: all that the round
// depended on and a section can say. The β of a reference that was refitted are no good for the one that training begins with,
// and are left out.
func tunedSections(r *tempering.Round, l *law) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("tempering:")
	line("  rungs: %d", len(r.Betas))
	line("  path: %s", r.Path)
	line("  schedule: %s", r.Schedule)
	line("  ladder: adaptive")
	switch {
	case r.Path == "power":
	case r.Reference == "variational":
		line("  reference: variational  # refitted here as in training, where the ladder finds its own β")
	default:
		line("  reference: %s", r.Reference)
	}
	switch {
	case r.Path == "power":
	case l.scale > 0:
		line("  reference_scale: %g", l.scale)
	default:
		line("  # reference_scale: as makes the reference's standard deviation %g, in those of the data", l.std)
	}
	if r.Path == "power" || r.Reference != "variational" {
		betas := make([]string, len(r.Betas))
		for i, beta := range r.Betas {
			betas[i] = fmt.Sprintf("%.5g", beta)
		}
		line("  betas: [%s]", strings.Join(betas, ", "))
	}
	line("sampler:")
	line("  kind: %s", r.Explorer)
	line("  steps: %d", r.ChainSteps)
	if l.sampler.Kind == r.Explorer && l.sampler.LeapfrogSteps > 0 {
		line("  leapfrog_steps: %d", l.sampler.LeapfrogSteps)
	}
	line("  step_size: %.3g", r.StepSizes[len(r.StepSizes)-1])
	return b.String()
}
