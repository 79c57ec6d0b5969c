package averaging

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Config is the `averaging` section of an experiment.
type Config struct {
	Groups   int     `yaml:"groups"`             // W, groups of chains, each with its own copy of the parameters between two rounds
	Every    int     `yaml:"every"`              // H, optimizer steps between two rounds; sync averages at every step
	Outer    string  `yaml:"outer"`              // one of Outers
	LR       float64 `yaml:"lr,omitempty"`       // nesterov: learning rate of the outer step
	Momentum float64 `yaml:"momentum,omitempty"` // nesterov: momentum of the outer step, in [0, 1)
	Format   string  `yaml:"format"`             // how vectors travel: one of Formats
}

// The names that Config knows.
var (
	// Outers are the outer steps: the mean of the groups' parameters; Nesterov momentum over the mean of what the groups
	// moved (DiLoCo); the mean of the gradients at every optimizer step.
	Outers = []string{mean, nesterov, synchronous}
	// Formats are the wire formats: 4 bytes an element, exact; 2 bytes; 1 byte and a scale for 256 elements.
	Formats = []string{fp32, bf16, int8b256}
)

const (
	mean        = "mean"
	nesterov    = "nesterov"
	synchronous = "sync"

	fp32     = "fp32"
	bf16     = "bf16"
	int8b256 = "int8"
)

// WithDefaults fills what c leaves open.
func (c Config) WithDefaults() Config {
	if c.Groups == 0 {
		c.Groups = 1
	}
	if c.Outer == "" {
		c.Outer = mean
	}
	if c.Format == "" {
		c.Format = fp32
	}
	if c.Every == 0 {
		c.Every = 10
		if c.Outer == synchronous {
			c.Every = 1
		}
	}
	if c.Outer == nesterov && c.LR == 0 {
		c.LR = 0.7
	}
	if c.Outer == nesterov && c.Momentum == 0 {
		c.Momentum = 0.9
	}
	return c
}

// Validate reports every fault of the section, each by its key.
func (c Config) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Groups < 1 || c.Groups > math.MaxInt32 {
		fault("groups: %d, want at least 1", c.Groups)
	}
	if c.Every < 1 || c.Every > math.MaxInt32 {
		fault("every: %d, want at least 1 optimizer step", c.Every)
	}
	if c.Outer == synchronous && c.Every > 1 {
		fault("every: %d, want 1 under outer: sync, which averages gradients at every step", c.Every)
	}
	if !slices.Contains(Outers, c.Outer) {
		fault("outer: %q, want one of %s", c.Outer, strings.Join(Outers, ", "))
	}
	if c.Outer == nesterov {
		if !(c.LR > 0) || math.IsInf(c.LR, 1) {
			fault("lr: %g, want a positive number", c.LR)
		}
		if !(c.Momentum >= 0 && c.Momentum < 1) {
			fault("momentum: %g, want a value in [0, 1)", c.Momentum)
		}
	} else {
		if c.LR != 0 {
			fault("lr: %g, not read by outer: %s, want nesterov, or no lr", c.LR, c.Outer)
		}
		if c.Momentum != 0 {
			fault("momentum: %g, not read by outer: %s, want nesterov, or no momentum", c.Momentum, c.Outer)
		}
	}
	switch {
	case !slices.Contains(Formats, c.Format):
		fault("format: %q, want one of %s", c.Format, strings.Join(Formats, ", "))
	case c.Format != fp32 && c.Groups == 1 && !c.Travels():
		fault("format: %s, not read with one group under outer: %s, where nothing travels; want fp32, or more groups", c.Format, c.Outer)
	}
	return errors.Join(errs...)
}

// Travels says whether a round moves the parameters (or gradients) at all: one group is its own mean.
func (c Config) Travels() bool { return c.Groups > 1 || c.Outer == nesterov }

// differences says whether the leader publishes how the parameters change rather than the parameters (or a gradient):
// small numbers lose less to a coarse format.
func (c Config) differences() bool { return c.Outer != synchronous && c.Format != fp32 }

// whole says whether a group sends its parameters as they are, not how far it moved: their mean is then exact.
func (c Config) whole() bool { return c.Outer == mean && c.Format == fp32 }
