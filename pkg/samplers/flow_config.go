package samplers

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kelvin-ebm/kelvin/pkg/integrators"
	"github.com/kelvin-ebm/kelvin/pkg/interpolants"
)

// flowDefaults fills what hangs on other keys of a flow.
func (c *Config) flowDefaults() {
	text := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	number := func(field **float64, value float64) {
		if *field == nil {
			*field = &value
		}
	}
	sde := c.Mode == "sde"
	if sde {
		text(&c.Integrator, "euler_maruyama")
		text(&c.DiffusionForm, "sigma")
		number(&c.DiffusionNorm, 1)
		text(&c.LastStep, "tweedie")
		if c.LastStep != "none" {
			number(&c.LastStepSize, 0.04)
		}
	}
	text(&c.Integrator, "dopri5")
	if c.Steps == 0 {
		c.Steps = 50
		if sde {
			c.Steps = 250
		}
	}
	c.Interpolant = c.Interpolant.WithDefaults()
	if slices.Contains(integrators.AdaptiveNames(), c.Integrator) {
		number(&c.Atol, 1e-6)
		number(&c.Rtol, 1e-3)
	}
	// A velocity has limits at both ends of time. What is made of a score or a noise has not, nor has the diffusion sbdm.
	if c.Compat != "torchebm" && (c.Prediction != "velocity" || c.DiffusionForm == "sbdm") {
		number(&c.SampleEps, 1e-3)
	}
	number(&c.SampleEps, 0)
	if c.NegateVelocity != nil && *c.NegateVelocity {
		if c.TimeInvariant == nil {
			c.TimeInvariant = new(true)
		}
		if !sde && *c.TimeInvariant && *c.SampleEps == 0 && c.Compat != "torchebm" {
			number(&c.Duration, 1)
		}
	}
}

// validateFlow checks the keys of a flow.
func (c Config) validateFlow() (errs []error) {
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	word := func(key, value string, words []string) {
		if !slices.Contains(words, value) {
			fault("%s: %q, want one of %s", key, value, strings.Join(words, ", "))
		}
	}
	d := c.WithDefaults()
	word("mode", d.Mode, []string{"ode", "sde"})
	word("prediction", d.Prediction, Predictions())
	word("compat", d.Compat, Compats())
	for _, err := range unjoin(c.Interpolant.Validate()) {
		fault("interpolant.%w", err)
	}
	scheme, err := integrators.ByName(d.Integrator)
	switch {
	case err != nil:
		word("integrator", d.Integrator, integrators.Names())
	case d.Mode == "sde" && !slices.Contains(integrators.SDENames(), scheme.Name):
		fault("integrator: %q is for mode: ode, want one of %s", d.Integrator, strings.Join(integrators.SDENames(), ", "))
	}
	control, set := c.control()
	switch {
	case err == nil && !scheme.Adaptive() && len(set) > 0:
		fault("%s: %s has fixed steps, want one of %s, or no control of steps", set[0], d.Integrator, strings.Join(integrators.AdaptiveNames(), ", "))
	default:
		errs = append(errs, unjoin(control.Validate())...)
		// Zeros would stand for defaults there.
		for _, n := range []struct {
			key  string
			zero bool
		}{{"atol", isZero(c.Atol)}, {"rtol", isZero(c.Rtol)}, {"safety", isZero(c.Safety)}, {"min_factor", isZero(c.MinFactor)}, {"max_factor", isZero(c.MaxFactor)}, {"max_steps", isZero(c.MaxSteps)}} {
			if n.zero {
				fault("%s: 0, want a positive number, or leave the key out for its default", n.key)
			}
		}
	}
	if eps := *d.SampleEps; !(eps >= 0 && eps < 0.5) {
		fault("sample_eps: %g, want a value in [0, 0.5)", eps)
	}
	if *d.NegateVelocity && d.Prediction != "velocity" {
		fault("negate_velocity: the field predicts a %s, want prediction: velocity", d.Prediction)
	}
	if c.TimeInvariant != nil && !*d.NegateVelocity {
		fault("time_invariant: %t, want it with negate_velocity: true", *c.TimeInvariant)
	}
	switch {
	case c.Duration == nil:
	case !*d.NegateVelocity || !*d.TimeInvariant || d.Mode != "ode" || d.Compat == "torchebm":
		fault("duration: %g, want it with mode: ode, negate_velocity: true, time_invariant: true and compat: none", *c.Duration)
	case !positive(*c.Duration):
		fault("duration: %g, want a positive number", *c.Duration)
	case *d.SampleEps > 0:
		fault("duration: %g beside sample_eps: %g, want one of the two", *c.Duration, *d.SampleEps)
	}
	if d.Mode == "sde" {
		if *d.Reverse {
			fault("reverse: the equation with noise has no way back, want mode: ode")
		}
		errs = append(errs, c.validateDiffusion(d)...)
	} else {
		for _, key := range []string{"diffusion_form", "diffusion_norm", "last_step", "last_step_size"} {
			if c.isSet(key) {
				fault("%s: belongs to mode: sde", key)
			}
		}
	}
	if c.Label != nil && *c.Label < 0 {
		fault("label: %d, want 0 or more", *c.Label)
	}
	if c.GuidanceScale != nil {
		if w := *c.GuidanceScale; !(w >= 0 && positive(w+1)) {
			fault("guidance_scale: %g, want 0 or more", w)
		}
	}
	return errs
}

// validateDiffusion checks the keys of mode: sde; d is c with its defaults.
func (c Config) validateDiffusion(d Config) (errs []error) {
	for _, err := range unjoin((interpolants.Diffusion{Form: d.DiffusionForm, Norm: *d.DiffusionNorm}).Validate()) {
		errs = append(errs, fmt.Errorf("diffusion_%w", err))
	}
	if !slices.Contains(LastSteps(), d.LastStep) {
		errs = append(errs, fmt.Errorf("last_step: %q, want one of %s", d.LastStep, strings.Join(LastSteps(), ", ")))
	}
	if c.LastStepSize != nil {
		switch h := *c.LastStepSize; {
		case d.LastStep == "none":
			errs = append(errs, errors.New("last_step_size: belongs to a last_step"))
		case !(h > 0 && h+*d.SampleEps < 1):
			errs = append(errs, fmt.Errorf("last_step_size: %g, want a value above 0 and below 1 − sample_eps", h))
		}
	}
	return errs
}

// unjoin lists the faults that errors.Join put together.
func unjoin(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// NewFlow makes the flow of a section of kind flow.
func (c Config) NewFlow() (Flow, error) {
	c = c.WithDefaults()
	if !c.IsFlow() {
		return Flow{}, fmt.Errorf("samplers: kind: %q, want flow", c.Kind)
	}
	if err := c.Validate(); err != nil {
		return Flow{}, fmt.Errorf("samplers: %w", err)
	}
	path, err := c.Interpolant.Build()
	if err != nil {
		return Flow{}, fmt.Errorf("samplers: %w", err)
	}
	scheme, err := integrators.ByName(c.Integrator)
	if err != nil {
		return Flow{}, fmt.Errorf("samplers: %w", err)
	}
	f := Flow{
		Path: path, Scheme: scheme, Prediction: c.Prediction, NegateVelocity: *c.NegateVelocity, Timed: c.TimeInvariant != nil && !*c.TimeInvariant, Reverse: *c.Reverse, Steps: c.Steps,
		SampleEps: *c.SampleEps, Duration: orZero(c.Duration), SDE: c.Mode == "sde", TorchEBM: c.Compat == "torchebm", vp: c.Interpolant.Kind == "vp",
	}
	if f.TorchEBM {
		f.Path = interpolants.TorchEBM(path)
	}
	if scheme.Adaptive() {
		f.Control, _ = c.control()
	}
	if f.SDE {
		f.Diffusion = interpolants.Diffusion{Form: c.DiffusionForm, Norm: *c.DiffusionNorm}
		f.LastStep = c.LastStep
		if c.LastStep != "none" {
			f.LastStepSize = *c.LastStepSize
		}
	}
	return f, nil
}

func isZero[T int | float64](v *T) bool { return v != nil && *v == 0 }

func orZero(v *float64) float64 {
	if v == nil {
		return 0
	}
	return *v
}

// control is the choice of step sizes of an adaptive integrator, and the keys that say something of it.
func (c Config) control() (control integrators.Controller, set []string) {
	number := func(key string, from *float64, into *float64) {
		if from == nil {
			return
		}
		set = append(set, key)
		*into = *from
	}
	number("atol", c.Atol, &control.Atol)
	number("rtol", c.Rtol, &control.Rtol)
	number("safety", c.Safety, &control.Safety)
	number("min_factor", c.MinFactor, &control.MinFactor)
	number("max_factor", c.MaxFactor, &control.MaxFactor)
	number("max_step_size", c.MaxStepSize, &control.MaxStepSize)
	if control.Norm = c.Norm; c.Norm != "" {
		set = append(set, "norm")
	}
	if c.MaxSteps != nil {
		set, control.MaxSteps = append(set, "max_steps"), *c.MaxSteps
	}
	return control, set
}
