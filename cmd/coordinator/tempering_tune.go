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
		if err = errors.Join(err, rounds.err); err != nil {
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
		if err := printf(w, "%s\n\n%s", costOfStaying(before.Final(), after.Final()), tunedSections(after.Final())); err != nil {
			return err
		}
		return t.write(w, after)
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

// tunedSections are the keys of an experiment that make its training begin with the ladder of a round.
func tunedSections(r *tempering.Round) string {
	betas := make([]string, len(r.Betas))
	for i, beta := range r.Betas {
		betas[i] = fmt.Sprintf("%.5g", beta)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "tempering:\n  rungs: %d\n  path: %s\n  ladder: adaptive\n  betas: [%s]\n", len(r.Betas), r.Path, strings.Join(betas, ", "))
	fmt.Fprintf(&b, "sampler:\n  kind: %s\n  step_size: %.3g\n", r.Explorer, r.StepSizes[len(r.StepSizes)-1])
	return b.String()
}
