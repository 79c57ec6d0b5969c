package buffer

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Config is the `buffer` section of an experiment.
type Config struct {
	Size   int     `yaml:"size"`   // M, columns kept; at least tempering.chains
	Reinit float64 `yaml:"reinit"` // share of the drawn columns that start afresh, in [0, 1]
	Init   string  `yaml:"init"`   // first states: one of Inits
	// Point [dim] is where every chain starts under init: point: chains that begin in one mode show what a sampler can reach.
	Point  []float64 `yaml:"point,flow,omitempty"`
	Warmup int       `yaml:"warmup"` // chain steps on the fresh chains before training
}

// Inits are the names that Config.Init knows.
var Inits = []string{"reference", "normal", "data", "point"}

// Validate reports every fault of the section, each by its key. chains is tempering.chains.
func (c Config) Validate(chains int) error {
	var errs []error
	if c.Size < chains {
		errs = append(errs, fmt.Errorf("size: %d, want at least tempering.chains = %d", c.Size, chains))
	}
	if c.Size > math.MaxInt32 {
		errs = append(errs, fmt.Errorf("size: %d, want at most %d", c.Size, math.MaxInt32))
	}
	if !(c.Reinit >= 0 && c.Reinit <= 1) {
		errs = append(errs, fmt.Errorf("reinit: %g, want a share in [0, 1]", c.Reinit))
	}
	if !slices.Contains(Inits, c.Init) {
		errs = append(errs, fmt.Errorf("init: %q, want one of %s", c.Init, strings.Join(Inits, ", ")))
	}
	switch {
	case c.Init == "point" && len(c.Point) == 0:
		errs = append(errs, errors.New("point: missing, want the coordinates at which every chain starts under init: point"))
	case c.Init != "point" && len(c.Point) > 0:
		errs = append(errs, fmt.Errorf("point: not read under init: %s, want init: point, or no point", c.Init))
	}
	for i, v := range c.Point {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			errs = append(errs, fmt.Errorf("point: element %d is %g, want a finite number", i, v))
		}
	}
	if c.Warmup < 0 {
		errs = append(errs, fmt.Errorf("warmup: %d, want 0 or more chain steps", c.Warmup))
	}
	return errors.Join(errs...)
}
