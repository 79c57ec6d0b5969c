package tempering

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Config is the `tempering` section of an experiment.
type Config struct {
	Rungs  int    `yaml:"rungs"`  // K, rungs of the ladder, rung K−1 is the target; 1 is an untempered chain
	Chains int    `yaml:"chains"` // B, ladders side by side
	Scans  int    `yaml:"scans"`  // scans (explore + swap sweep) a training step
	Ladder string `yaml:"ladder"` // one of Ladders, see [NewLadder]; adaptive moves it towards equal rejection
	// Betas are β of every rung, hottest first, the last 1: the ladder where it is fixed, its start where it is adaptive.
	Betas   []float64 `yaml:"betas,flow,omitempty"`
	Path    string    `yaml:"path"`     // linear or power
	BetaMin float64   `yaml:"beta_min"` // β of rung 0 on the power path, in (0, 1); the linear path starts at 0
	// Reference of the linear path: gaussian, fitted to the data once, or variational, refitted to the target rung.
	Reference string `yaml:"reference"`
	// ReferenceScale is the width of the Gaussian reference in standard deviations of the training data.
	ReferenceScale float64 `yaml:"reference_scale"`
	Schedule       string  `yaml:"schedule"` // which pairs a scan tries: one of Schedules
	// Window is the number of scans for which the windowed schedule holds a parity; 0 takes it from the rejection rates.
	Window   int    `yaml:"window,omitempty"`
	Exchange string `yaml:"exchange"` // what an accepted swap moves: state or label
	// Placement says what a shard of a group holds, the unit that a replica takes: all rungs of some ladders, or one rung.
	Placement string `yaml:"placement"`
	// Split is the number of ranges that the ladders are cut into, a divisor of Chains: as many shards a group, or rungs times
	// as many.
	Split int `yaml:"split"`
	// GradientOn says which shards of a group compute the gradient of a step: cold, the one that makes the optimizer's steps, or
	// all, each that of a slice of the positives and the negatives. Left open it is all for shards of whole ladders, which have
	// their negatives themselves, and cold for those of one rung.
	GradientOn string `yaml:"gradient_on"`
	// VirtualSwaps takes both states of a pair as negatives, weighted by the probability of the swap, in place of the one
	// that the swap left on the target rung: the same mean with less variance.
	VirtualSwaps bool `yaml:"virtual_swaps"`
	// AdaptEvery is the number of training steps between two moves of the ladder and of the step sizes.
	AdaptEvery int `yaml:"adapt_every"`
}

// The names that Config knows.
var (
	Ladders    = []string{"adaptive", "cubic", "geometric", "uniform", "fixed"}
	Paths      = []string{"linear", "power"}
	References = []string{"gaussian", "variational"}
	Exchanges  = []string{"state", "label"}
	Placements = []string{"ladder", "rung"}
	Learners   = []string{"cold", "all"} // of GradientOn
)

// Fresh says whether rung 0 is an independent draw of the reference at every scan.
func (c Config) Fresh() bool { return c.Path == "linear" && c.Rungs > 1 }

// WithDefaults fills what c leaves open, but for the numbers that nobody can guess: chains.
func (c Config) WithDefaults() Config {
	set := func(into *string, value string) {
		if *into == "" {
			*into = value
		}
	}
	set(&c.Ladder, "adaptive")
	set(&c.Path, "linear")
	set(&c.Reference, "gaussian")
	set(&c.Schedule, "deo")
	set(&c.Exchange, "state")
	set(&c.Placement, "ladder")
	if c.Rungs == 0 {
		if c.Rungs = len(c.Betas); c.Rungs == 0 {
			c.Rungs = 6
		}
	}
	if c.Scans == 0 {
		c.Scans = 1
	}
	if c.BetaMin == 0 {
		c.BetaMin = 0.1
	}
	if c.ReferenceScale == 0 {
		c.ReferenceScale = 2
	}
	if c.Split == 0 {
		c.Split = 1
	}
	if c.Placement == "ladder" && c.Split > 1 {
		set(&c.GradientOn, "all")
	}
	set(&c.GradientOn, "cold")
	if c.AdaptEvery == 0 {
		c.AdaptEvery = 10
	}
	return c
}

// Shards is the number of shards of a group.
func (c Config) Shards() int {
	if c.Placement == "rung" {
		return c.Split * c.Rungs
	}
	return c.Split
}

// Validate reports every fault of the section, each by its key.
func (c Config) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	one := func(key, value string, of []string) {
		if !slices.Contains(of, value) {
			fault("%s: %q, want one of %s", key, value, strings.Join(of, ", "))
		}
	}
	if c.Rungs < 1 {
		fault("rungs: %d, want at least 1", c.Rungs)
	}
	if c.Chains < 1 {
		fault("chains: %d, want at least 1", c.Chains)
	}
	if c.Rungs >= 1 && c.Chains > math.MaxInt32/c.Rungs {
		fault("chains: %d on %d rungs, want at most %d rows in all", c.Chains, c.Rungs, math.MaxInt32)
	}
	if c.Scans < 1 {
		fault("scans: %d, want at least 1", c.Scans)
	}
	one("ladder", c.Ladder, Ladders)
	one("path", c.Path, Paths)
	one("reference", c.Reference, References)
	one("schedule", c.Schedule, Schedules)
	one("exchange", c.Exchange, Exchanges)
	one("placement", c.Placement, Placements)
	one("gradient_on", c.GradientOn, Learners)
	if c.Split < 1 || c.Chains > 0 && c.Chains%c.Split != 0 {
		fault("split: %d, want a divisor of chains, %d", c.Split, c.Chains)
	}
	if c.Placement == "rung" && c.Rungs == 1 {
		fault("placement: rung with one rung, want ladder, or rungs of at least 2")
	}
	errs = append(errs, c.validateBetas()...)
	if c.Path == "power" && c.Rungs > 1 && len(c.Betas) == 0 && !(c.BetaMin > 0 && c.BetaMin < 1) {
		fault("beta_min: %g, want a value in (0, 1)", c.BetaMin)
	}
	if c.Path == "linear" && c.Ladder == "geometric" {
		fault("ladder: geometric needs path: power, since the linear path starts at β = 0; want cubic")
	}
	if c.Path == "power" && c.Reference == "variational" {
		fault("reference: variational needs path: linear; the power path has no reference")
	}
	if !(c.ReferenceScale > 0) || math.IsInf(c.ReferenceScale, 1) {
		fault("reference_scale: %g, want a positive number", c.ReferenceScale)
	}
	if c.Window < 0 || c.Window > math.MaxInt32 {
		fault("window: %d, want 0 or more scans", c.Window)
	}
	if c.Window > 0 && c.Schedule != "windowed" {
		fault("window: %d, not read by schedule: %s, want windowed, or no window", c.Window, c.Schedule)
	}
	if c.VirtualSwaps && c.Rungs < 2 {
		fault("virtual_swaps: true on one rung, want rungs of at least 2, or false")
	}
	if c.AdaptEvery < 1 || c.AdaptEvery > math.MaxInt32 {
		fault("adapt_every: %d, want at least 1 training step", c.AdaptEvery)
	}
	return errors.Join(errs...)
}

// validateBetas checks the given ladder.
func (c Config) validateBetas() (errs []error) {
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch {
	case len(c.Betas) == 0 && c.Ladder == "fixed":
		fault("betas: missing, want β of every rung under ladder: fixed, or another ladder")
	case len(c.Betas) == 0:
	case c.Ladder != "fixed" && c.Ladder != "adaptive":
		fault("betas: not read by ladder: %s, want fixed or adaptive, or no betas", c.Ladder)
	case len(c.Betas) != c.Rungs:
		fault("betas: %d numbers, want %d, one for each of rungs", len(c.Betas), c.Rungs)
	case c.Path == "power" && !(c.Betas[0] > 0):
		fault("betas: %g on rung 0, want a positive number on the power path", c.Betas[0])
	case c.Path == "linear" && c.Rungs > 1 && c.Betas[0] != 0:
		fault("betas: %g on rung 0, want 0 on the linear path, whose hottest rung is the reference", c.Betas[0])
	default:
		if _, err := LadderOf(c.Betas); err != nil {
			fault("betas: %s", strings.TrimPrefix(err.Error(), "tempering: ladder: "))
		}
	}
	return errs
}
