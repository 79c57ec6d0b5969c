package integrators

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Controller chooses the step sizes of an adaptive scheme so that every step keeps its estimated error below atol + rtol·|x|.
// Fields that are zero have the defaults of TorchEBM 0.8.9, see WithDefaults.
type Controller struct {
	Atol float64 `yaml:"atol"` // error allowed whatever the state
	Rtol float64 `yaml:"rtol"` // error allowed as a part of the state
	// Norm is batch for one step size for all rows, from the root mean square of the error over the whole batch, or row for a
	// step size a row, so that a row's result does not depend on the others.
	Norm        string  `yaml:"norm"`
	Safety      float64 `yaml:"safety"`        // factor on every new step size, below 1
	MinFactor   float64 `yaml:"min_factor"`    // a step size shrinks by this much at once, at most
	MaxFactor   float64 `yaml:"max_factor"`    // and grows by this much
	MaxStepSize float64 `yaml:"max_step_size"` // largest step size; 0: no limit
	MaxSteps    int     `yaml:"max_steps"`     // attempts before giving up
}

// Norms are the names that Controller.Norm knows.
func Norms() []string { return []string{"batch", "row"} }

// WithDefaults fills the fields that are zero: atol 1e-6, rtol 1e-3, norm batch, safety 0.9, min_factor 0.2, max_factor 10,
// max_steps 10000.
func (c Controller) WithDefaults() Controller {
	fill := func(v *float64, def float64) {
		if *v == 0 {
			*v = def
		}
	}
	fill(&c.Atol, 1e-6)
	fill(&c.Rtol, 1e-3)
	fill(&c.Safety, 0.9)
	fill(&c.MinFactor, 0.2)
	fill(&c.MaxFactor, 10)
	if c.Norm == "" {
		c.Norm = "batch"
	}
	if c.MaxSteps == 0 {
		c.MaxSteps = 10000
	}
	return c
}

// Validate reports every fault of the settings, each by its key.
func (c Controller) Validate() error {
	c = c.WithDefaults()
	var errs []error
	want := func(ok bool, key string, v float64, want string) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s: %g, want %s", key, v, want))
		}
	}
	const finite = math.MaxFloat64
	want(c.Atol > 0 && c.Atol <= finite, "atol", c.Atol, "a positive number")
	want(c.Rtol > 0 && c.Rtol <= finite, "rtol", c.Rtol, "a positive number")
	if !slices.Contains(Norms(), c.Norm) {
		errs = append(errs, fmt.Errorf("norm: %q, want one of %s", c.Norm, strings.Join(Norms(), ", ")))
	}
	want(c.Safety > 0 && c.Safety < 1, "safety", c.Safety, "a value in (0, 1)")
	want(c.MinFactor > 0 && c.MinFactor < 1, "min_factor", c.MinFactor, "a value in (0, 1)")
	want(c.MaxFactor > 1 && c.MaxFactor <= finite, "max_factor", c.MaxFactor, "more than 1")
	want(c.MaxStepSize >= 0, "max_step_size", c.MaxStepSize, "0 for no limit, or a positive number")
	if c.MaxSteps < 1 {
		errs = append(errs, fmt.Errorf("max_steps: %d, want at least 1", c.MaxSteps))
	}
	return errors.Join(errs...)
}

// Next decides about a step of size h by a scheme of the given order, whose error is norm times what is allowed: whether it
// is accepted, norm ≤ 1, and the size of the next attempt, h · safety · norm^(−1/order) within the factors' bounds. A norm
// that is not finite is a rejection with min_factor.
func (c Controller) Next(h, norm float64, order int) (accepted bool, next float64) {
	factor := c.MinFactor
	if norm <= math.MaxFloat64 { // refuses NaN
		// A norm of 0 gives +Inf, which the upper bound holds.
		factor = min(max(c.Safety*math.Pow(norm, -1/float64(order)), c.MinFactor), c.MaxFactor)
	}
	return norm <= 1, c.limit(h * factor)
}

func (c Controller) limit(h float64) float64 {
	if c.MaxStepSize > 0 {
		return min(h, c.MaxStepSize)
	}
	return h
}

func controllerParams() []KindParam {
	d := Controller{}.WithDefaults()
	number := func(key, doc string, v float64) KindParam { return KindParam{key, doc, fmt.Sprint(v)} }
	return []KindParam{
		number("atol", "error a step allowed whatever the state, positive", d.Atol),
		number("rtol", "error a step allowed as a part of the state, positive", d.Rtol),
		{"norm", "batch: one step size for all rows, from the error's root mean square over the batch; row: one a row", d.Norm},
		number("safety", "factor on every new step size, in (0, 1)", d.Safety),
		number("min_factor", "a step size shrinks by this much at once, at most; in (0, 1)", d.MinFactor),
		number("max_factor", "a step size grows by this much at once, at most; more than 1", d.MaxFactor),
		number("max_step_size", "largest step size, positive; 0: no limit", d.MaxStepSize),
		{"max_steps", "attempts before giving up, at least 1", fmt.Sprint(d.MaxSteps)},
	}
}
