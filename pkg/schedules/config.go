package schedules

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// WholeRun is the Steps of a schedule that leaves its length open: it stretches over the run, see [Config.Over].
const WholeRun = math.MinInt

// Config is a number or a schedule in an experiment: `0.01` or `{kind: cosine, start: 0.1, end: 0.01, steps: 100}`.
//
// Which fields a kind reads is in [Kinds]; the others must be zero. A Config that comes from YAML or from [New] has the
// kind's defaults; a literal says everything itself.
type Config struct {
	Kind string `yaml:"kind"`
	// Start is the value at step 0, and End the value from step Steps on.
	Start float64 `yaml:"start"`
	End   float64 `yaml:"end"`
	// Steps is the length; WholeRun where the YAML leaves it out.
	Steps int `yaml:"steps"`

	DecayRate float64 `yaml:"decay_rate"` // exponential_decay: factor a step
	MinValue  float64 `yaml:"min_value"`  // exponential_decay: floor

	Milestones []int   `yaml:"milestones"` // multistep: steps at which the value drops
	Gamma      float64 `yaml:"gamma"`      // multistep: factor of a drop

	WarmupSteps      int     `yaml:"warmup_steps"`       // warmup: steps until the main schedule begins
	WarmupInitFactor float64 `yaml:"warmup_init_factor"` // warmup: first value as a part of the main schedule's
	Main             *Config `yaml:"main"`               // warmup: what follows; a number or a schedule

	EpsilonMax float64 `yaml:"epsilon_max"` // temperature: highest temperature
	TauStar    float64 `yaml:"tau_star"`    // temperature: virtual time before which it is 0
	TStart     float64 `yaml:"t_start"`     // temperature: virtual time at step 0
	TEnd       float64 `yaml:"t_end"`       // temperature: virtual time at step Steps
	Sqrt       bool    `yaml:"sqrt"`        // temperature: give √ε, the factor of the noise, instead of ε

	Hold float64 `yaml:"hold"` // hold_linear, hold_cosine: part of Steps at the start value, in [0, 1)
}

// Constant is the schedule that never changes.
func Constant(v float64) Config { return Config{Kind: "constant", Start: v} }

// New returns a schedule of a kind with the kind's defaults, its required options still zero.
func New(kind string) (Config, error) {
	k, ok := find(kind)
	if !ok {
		return Config{}, fmt.Errorf("kind: %q, want one of %s", kind, strings.Join(names(), ", "))
	}
	c := Config{Kind: kind}
	for _, p := range k.Params {
		if o := options[p.Key]; o.preset != nil {
			o.preset(&c)
		}
		if p.Key == "steps" && kind != "temperature" {
			c.Steps = WholeRun
		}
	}
	return c, nil
}

// IsConstant says whether the schedule is the number v at all times.
func (c Config) IsConstant(v float64) bool { return c.Kind == "constant" && c.Start == v }

// Over gives an open length, also that of a schedule inside a warm-up, so that the schedule ends with a run of n steps.
// A schedule with a length of its own comes back as it is.
func (c Config) Over(n int) Config {
	if c.Steps == WholeRun {
		c.Steps = n
	}
	if c.Main != nil {
		main := c.Main.Over(max(1, n-c.WarmupSteps))
		c.Main = &main
	}
	return c
}

// ValidatePositive reports every fault of the schedule, or a value that it takes and that is not positive, each by its
// place under key: `lr.steps: 0, want …`.
func (c Config) ValidatePositive(key string) error {
	return c.validateLowest(key, "a positive number", func(v float64) bool { return v > 0 })
}

// ValidateNonNegative is ValidatePositive that allows zero.
func (c Config) ValidateNonNegative(key string) error {
	return c.validateLowest(key, "0 or more", func(v float64) bool { return v >= 0 })
}

func (c Config) validateLowest(key, want string, good func(float64) bool) error {
	if err := c.validate(key); err != nil {
		return err
	}
	var errs []error
	for _, e := range c.extremes() {
		if !good(e.value) {
			at := key
			if e.key != "" {
				at = key + "." + e.key
			}
			errs = append(errs, fmt.Errorf("%s: %g, want %s", at, e.value, want))
		}
	}
	return errors.Join(errs...)
}

// Validate reports every fault of the schedule, each by its place under key.
func (c Config) Validate(key string) error { return c.validate(key) }

func (c Config) validate(key string) error {
	var errs []error
	fault := func(sub, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s.%s: "+format, append([]any{key, sub}, args...)...))
	}
	kind, ok := find(c.Kind)
	if !ok {
		if c.Kind == "" {
			return fmt.Errorf("%s: missing, want a number or a schedule", key)
		}
		return fmt.Errorf("%s.kind: %q, want one of %s", key, c.Kind, strings.Join(names(), ", "))
	}
	for _, name := range optionOrder {
		o := options[name]
		if !kind.has(name) {
			if o.isSet(c) {
				fault(name, "not an option of kind %s, want one of %s", c.Kind, strings.Join(kind.keys(), ", "))
			}
			continue
		}
		if o.number == nil {
			continue
		}
		if v := *o.number(&c); math.IsNaN(v) || math.IsInf(v, 0) {
			if c.Kind == "constant" {
				errs = append(errs, fmt.Errorf("%s: %g, want a finite number", key, v))
			} else {
				fault(name, "%g, want a finite number", v)
			}
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if kind.has("steps") && c.Steps < 1 && c.Steps != WholeRun {
		fault("steps", "%d, want at least 1", c.Steps)
	}
	switch c.Kind {
	case "exponential_decay":
		if !(c.DecayRate > 0 && c.DecayRate <= 1) {
			fault("decay_rate", "%g, want a value in (0, 1]", c.DecayRate)
		}
		if c.MinValue < 0 {
			fault("min_value", "%g, want 0 or more", c.MinValue)
		}
	case "multistep":
		if len(c.Milestones) == 0 {
			fault("milestones", "empty, want steps in rising order")
		}
		for i, m := range c.Milestones {
			if m < 1 || i > 0 && m <= c.Milestones[i-1] {
				fault("milestones", "%v, want positive steps in rising order", c.Milestones)
				break
			}
		}
		if !(c.Gamma > 0) {
			fault("gamma", "%g, want a positive number", c.Gamma)
		}
	case "warmup":
		if c.WarmupSteps < 0 {
			fault("warmup_steps", "%d, want 0 or more", c.WarmupSteps)
		}
		if c.WarmupInitFactor < 0 {
			fault("warmup_init_factor", "%g, want 0 or more", c.WarmupInitFactor)
		}
		if c.Main == nil {
			fault("main", "missing, want a number or a schedule")
		} else if err := c.Main.validate(key + ".main"); err != nil {
			errs = append(errs, err)
		}
	case "temperature":
		if c.EpsilonMax < 0 {
			fault("epsilon_max", "%g, want 0 or more", c.EpsilonMax)
		}
		if !(c.TauStar >= 0 && c.TauStar < 1) {
			fault("tau_star", "%g, want a value in [0, 1)", c.TauStar)
		}
		if c.TEnd < c.TStart {
			fault("t_end", "%g, want at least t_start, %g", c.TEnd, c.TStart)
		}
	case "hold_linear", "hold_cosine":
		if !(c.Hold >= 0 && c.Hold < 1) {
			fault("hold", "%g, want a value in [0, 1)", c.Hold)
		}
	}
	return errors.Join(errs...)
}

// extreme is a value that a schedule takes (or tends to), and the option that decides it.
type extreme struct {
	key   string
	value float64
}

// extremes lists values among which is the lowest of the schedule.
func (c Config) extremes() []extreme {
	switch c.Kind {
	case "constant":
		return []extreme{{"", c.Start}}
	case "linear", "cosine", "hold_linear", "hold_cosine":
		return []extreme{{"start", c.Start}, {"end", c.End}}
	case "warmup":
		var out []extreme
		for _, e := range c.Main.extremes() {
			e.key = strings.TrimSuffix("main."+e.key, ".")
			out = append(out, e)
		}
		first := c.WarmupInitFactor * c.Main.first()
		if c.WarmupSteps > 0 && c.WarmupInitFactor == 0 { // otherwise it has the sign of the main schedule's first value
			out = append(out, extreme{"warmup_init_factor", first})
		}
		return out
	case "temperature":
		if v := c.first(); v != 0 || c.EpsilonMax == 0 {
			return []extreme{{"epsilon_max", v}}
		}
		return []extreme{{"t_start", 0}} // at or before tau_star: no noise yet
	}
	// exponential_decay and multistep shrink a start towards 0, keeping its sign.
	return []extreme{{"start", c.Start}}
}

// first is the value at step 0, which does not depend on an open length.
func (c Config) first() float64 { return c.Over(1).build().At(0) }

// Build makes the schedule. An open length is an error: see [Config.Over].
func (c Config) Build() (Schedule, error) {
	if err := c.validate("schedule"); err != nil {
		return nil, err
	}
	for at, d := "schedule", &c; d != nil; at, d = at+".main", d.Main {
		if d.Steps == WholeRun {
			return nil, fmt.Errorf("%s.steps: missing, want the number of steps of kind %s", at, d.Kind)
		}
	}
	return c.build(), nil
}

func (c Config) build() Schedule {
	switch c.Kind {
	case "exponential_decay":
		return exponential{c.Start, c.DecayRate, c.MinValue}
	case "linear":
		return ramp{c.Start, c.End, 0, float64(c.Steps), straight}
	case "cosine":
		return ramp{c.Start, c.End, 0, float64(c.Steps), halfCosine}
	case "hold_linear":
		return ramp{c.Start, c.End, c.Hold * float64(c.Steps), float64(c.Steps), straight}
	case "hold_cosine":
		return ramp{c.Start, c.End, c.Hold * float64(c.Steps), float64(c.Steps), halfCosine}
	case "multistep":
		return multiStep{c.Start, c.Gamma, slices.Clone(c.Milestones)}
	case "warmup":
		return newWarmup(c.Main.build(), c.WarmupSteps, c.WarmupInitFactor)
	case "temperature":
		return temperature{c}
	}
	return fixed(c.Start)
}
