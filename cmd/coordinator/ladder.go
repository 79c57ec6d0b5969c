package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/local"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// ladderFlags are keys of a tempering section, for an energy that has no experiment.
type ladderFlags struct {
	sets          []string
	rungs, chains int
	path          string
	betaMin       float64
	referenceStd  float64
}

var ladderFlagNames = []string{"tempering", "rungs", "chains", "path", "beta-min", "reference-std"}

func (l *ladderFlags) add(cmd *cobra.Command, rungs int, usage string) {
	f := cmd.Flags()
	f.StringArrayVar(&l.sets, "tempering", nil, "a key of the tempering section, `key=value`, as schedule=seo or reference=variational, with --energy; may be given several times")
	f.IntVar(&l.rungs, "rungs", rungs, usage)
	f.IntVar(&l.chains, "chains", 64, "chains, or ladders, side by side, with --energy")
	f.StringVar(&l.path, "path", "linear", "linear or power, with --energy")
	f.Float64Var(&l.betaMin, "beta-min", 0.1, "β of the hottest rung on the power path, with --energy")
	f.Float64Var(&l.referenceStd, "reference-std", 3, "standard deviation of the Gaussian reference, and of the first states, with --energy")
}

// config is the section that the flags describe. Those of a single key stand before --tempering, which has the last word.
// usual is the number of rungs where --tempering is given and nothing is said of rungs; 0 leaves it to the section.
func (l *ladderFlags) config(cmd *cobra.Command, usual int) (tempering.Config, error) {
	if err := positive(map[string]int{"rungs": l.rungs, "chains": l.chains}); err != nil {
		return tempering.Config{}, err
	}
	sets := []string{fmt.Sprintf("chains=%d", l.chains)}
	switch {
	case len(l.sets) == 0 || cmd.Flags().Changed("rungs"):
		sets = append(sets, fmt.Sprintf("rungs=%d", l.rungs))
	case usual > 0 && !slices.ContainsFunc(l.sets, func(set string) bool { return strings.HasPrefix(set, "betas=") }): // these say how many
		sets = append(sets, fmt.Sprintf("rungs=%d", usual))
	}
	if cmd.Flags().Changed("path") {
		sets = append(sets, "path="+l.path)
	}
	if cmd.Flags().Changed("beta-min") {
		sets = append(sets, fmt.Sprintf("beta_min=%g", l.betaMin))
	}
	c, err := local.TemperingConfig(append(sets, l.sets...))
	if err != nil {
		return c, usageError{err}
	}
	return c, nil
}

// stopFlags say when a ladder has been measured enough, and how it is checked.
type stopFlags struct {
	scans       int
	until       local.Until
	checkSerial int
}

var stopFlagNames = []string{"scans", "restarts", "time", "rhat"}

func (s *stopFlags) add(cmd *cobra.Command, scans int, usage string) {
	f := cmd.Flags()
	f.IntVar(&s.scans, "scans", scans, usage)
	f.Uint64Var(&s.until.Restarts, "restarts", 0, "end after so many restarts: walkers that came from the reference to the target, over all ladders")
	f.DurationVar(&s.until.Time, "time", 0, "end after so much time, as 30s")
	f.Float64Var(&s.until.RHat, "rhat", 0, "end when the largest split R̂ of the target chains is below this, as 1.01")
	f.IntVar(&s.checkSerial, "check-serial", 0, "first make so many adaptation rounds twice, and compare all states bit by bit")
}

// check refuses rules that no scan can meet.
func (s *stopFlags) check(cmd *cobra.Command) error {
	f := cmd.Flags()
	switch {
	case f.Changed("scans") && s.scans < 1:
		return usageErrorf("--scans: %d, want at least 1", s.scans)
	case f.Changed("restarts") && s.until.Restarts == 0:
		return usageErrorf("--restarts: 0, want at least 1")
	case f.Changed("time") && s.until.Time <= 0:
		return usageErrorf("--time: %v, want a positive time, as 30s", s.until.Time)
	case f.Changed("rhat") && !(s.until.RHat > 1 && !math.IsInf(s.until.RHat, 1)):
		return usageErrorf("--rhat: %g, want a number above 1, as 1.01", s.until.RHat)
	case s.checkSerial < 0:
		return usageErrorf("--check-serial: %d, want 0 or more rounds", s.checkSerial)
	}
	return nil
}

// any names a stop flag that was given.
func (s *stopFlags) any(cmd *cobra.Command) string {
	for _, name := range stopFlagNames {
		if cmd.Flags().Changed(name) {
			return name
		}
	}
	return ""
}

// forSamples is the most scans of a drawing of samples, whose last rule is that they are together: always, unless only
// other rules were given.
func (s *stopFlags) forSamples(cmd *cobra.Command, samples, gap, chains int) int {
	needed := (samples + chains - 1) / chains * gap
	switch {
	case !cmd.Flags().Changed("samples") && cmd.Flags().Changed("scans"):
		return s.scans
	case !cmd.Flags().Changed("samples") && s.any(cmd) != "":
		return math.MaxInt32
	case cmd.Flags().Changed("scans"):
		return min(s.scans, needed)
	}
	return needed
}

// ended says which rule ended the scans that counted.
func (s *stopFlags) ended(t *local.Tempering, samples bool) string {
	scans := fmt.Sprintf("%d scans", t.Final().Scans)
	switch {
	case t.Ended == "interrupted":
		return fmt.Sprintf("interrupted after %s", scans)
	case t.Ended == "restarts":
		return fmt.Sprintf("ended after %s by --restarts %d", scans, s.until.Restarts)
	case t.Ended == "time":
		return fmt.Sprintf("ended after %s by --time %v", scans, s.until.Time.Round(time.Millisecond))
	case t.Ended == "rhat":
		return fmt.Sprintf("ended after %s by --rhat %g", scans, s.until.RHat)
	case samples && t.Final().Scans != s.scans:
		return fmt.Sprintf("ended after %s, the samples together", scans)
	}
	return fmt.Sprintf("ended after the %s of --scans", scans)
}

// interrupted is an error for a tempering that Ctrl-C ended, once what there is of it was shown.
func interrupted(t *local.Tempering) error {
	if t == nil || t.Ended != "interrupted" {
		return nil
	}
	return fmt.Errorf("%w after %d scans that count: all that is shown is of these", local.ErrInterrupted, t.Final().Scans)
}
