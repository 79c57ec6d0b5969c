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
	Rungs   int     `yaml:"rungs"`    // K, rungs of the ladder, rung K−1 is the target; 1 is an untempered chain
	Chains  int     `yaml:"chains"`   // B, ladders side by side
	Scans   int     `yaml:"scans"`    // scans (explore + swap sweep) a training step
	Ladder  string  `yaml:"ladder"`   // cubic or geometric, see [NewLadder]
	Path    string  `yaml:"path"`     // linear or power
	BetaMin float64 `yaml:"beta_min"` // β of rung 0 on the power path, in (0, 1); the linear path starts at 0
	// ReferenceScale is the width of the Gaussian reference in standard deviations of the training data.
	ReferenceScale float64 `yaml:"reference_scale"`
}

// Ladders and Paths are the names that Config knows.
var (
	Ladders = []string{"cubic", "geometric"}
	Paths   = []string{"linear", "power"}
)

// Validate reports every fault of the section, each by its key.
func (c Config) Validate() error {
	var errs []error
	if c.Rungs < 1 {
		errs = append(errs, fmt.Errorf("rungs: %d, want at least 1", c.Rungs))
	}
	if c.Chains < 1 {
		errs = append(errs, fmt.Errorf("chains: %d, want at least 1", c.Chains))
	}
	if c.Rungs >= 1 && c.Chains > math.MaxInt32/c.Rungs {
		errs = append(errs, fmt.Errorf("chains: %d on %d rungs, want at most %d rows in all", c.Chains, c.Rungs, math.MaxInt32))
	}
	if c.Scans < 1 {
		errs = append(errs, fmt.Errorf("scans: %d, want at least 1", c.Scans))
	}
	if !slices.Contains(Ladders, c.Ladder) {
		errs = append(errs, fmt.Errorf("ladder: %q, want one of %s", c.Ladder, strings.Join(Ladders, ", ")))
	}
	if !slices.Contains(Paths, c.Path) {
		errs = append(errs, fmt.Errorf("path: %q, want one of %s", c.Path, strings.Join(Paths, ", ")))
	}
	if c.Path == "power" && c.Rungs > 1 && !(c.BetaMin > 0 && c.BetaMin < 1) {
		errs = append(errs, fmt.Errorf("beta_min: %g, want a value in (0, 1)", c.BetaMin))
	}
	if c.Path == "linear" && c.Ladder == "geometric" {
		errs = append(errs, fmt.Errorf("ladder: geometric needs path: power, since the linear path starts at β = 0; want cubic"))
	}
	if !(c.ReferenceScale > 0) || math.IsInf(c.ReferenceScale, 1) {
		errs = append(errs, fmt.Errorf("reference_scale: %g, want a positive number", c.ReferenceScale))
	}
	return errors.Join(errs...)
}
