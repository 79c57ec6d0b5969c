package samplers

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/integrators"
	"github.com/kelvin-ebm/kelvin/pkg/interpolants"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

// Config is the `sampler` section of an experiment: the kernel that explores a rung, or the flow that a field is sampled
// by. Which keys a kind reads is in [Kinds]; any other key that is set is a fault. A key left out has the kind's default.
type Config struct {
	Kind string `yaml:"kind"` // one of KindNames
	// Steps is the number of chain steps a scan, or of a run; of a flow the number of steps from noise to data.
	Steps int `yaml:"steps"`
	// StepSize is ε of rung N in x ← x − ε∇E + √(2ε)z, or the length of a leapfrog step; a number or a schedule over training
	// steps. A hotter rung takes longer steps, see StepSizes.
	StepSize schedules.Config `yaml:"step_size,omitempty"`
	// NoiseScale is s in x ← x − ε∇E + s√(2ε)z (langevin, annealed_langevin); s² is the temperature.
	NoiseScale schedules.Config `yaml:"noise_scale,omitempty"`
	// Integrator says how a step follows the drift (langevin, flow): one of Integrators.
	Integrator string `yaml:"integrator,omitempty"`
	// Clamp keeps every coordinate in [lo, hi] (langevin; it changes the stationary law). Empty: no clamp.
	Clamp []float64 `yaml:"clamp,flow,omitempty"`
	// Box restricts the law to [lo, hi] in every coordinate (mala, hmc: a proposal outside is rejected; langevin: walls that
	// reflect). Empty: no box. It belongs to the target and not to the kernel, see Confine.
	Box []float64 `yaml:"box,flow,omitempty"`
	// AcceptTarget is the share of proposals taken to which step sizes adapt, see TargetAccept (kinds with a Metropolis test).
	AcceptTarget *float64 `yaml:"target_accept,omitempty"`

	LeapfrogSteps  int      `yaml:"leapfrog_steps,omitempty"`  // hmc, rmhmc: steps a proposal
	Mass           Mass     `yaml:"mass,flow,omitempty"`       // hmc
	Metric         string   `yaml:"metric,omitempty"`          // rmhmc: one of Metrics
	MetricStrength *float64 `yaml:"metric_strength,omitempty"` // rmhmc: g in diag(1 + g·x²)
	SolverSteps    int      `yaml:"solver_steps,omitempty"`    // rmhmc: rounds for an implicit equation
	Momentum       *float64 `yaml:"momentum,omitempty"`        // nesterov

	SigmaMax *float64 `yaml:"sigma_max,omitempty"` // annealed_langevin: noise levels, geometric from SigmaMax to SigmaMin
	SigmaMin *float64 `yaml:"sigma_min,omitempty"`
	Levels   int      `yaml:"levels,omitempty"`

	Mode           string              `yaml:"mode,omitempty"`            // flow: ode or sde
	Interpolant    interpolants.Config `yaml:"interpolant,omitempty"`     // flow: the path of the training
	Prediction     string              `yaml:"prediction,omitempty"`      // flow: one of Predictions
	SampleEps      *float64            `yaml:"sample_eps,omitempty"`      // flow: distance from the ends of time
	NegateVelocity *bool               `yaml:"negate_velocity,omitempty"` // flow: v = −f(x, 0)
	TimeInvariant  *bool               `yaml:"time_invariant,omitempty"`  // flow with negate_velocity: the field is shown time 0
	Duration       *float64            `yaml:"duration,omitempty"`        // flow, ode with negate_velocity
	Reverse        *bool               `yaml:"reverse,omitempty"`         // flow, ode: from data to noise
	Atol           *float64            `yaml:"atol,omitempty"`            // flow, adaptive integrator
	Rtol           *float64            `yaml:"rtol,omitempty"`            // flow, adaptive integrator
	Norm           string              `yaml:"norm,omitempty"`            // flow, adaptive integrator: see integrators.Controller
	Safety         *float64            `yaml:"safety,omitempty"`          // the same
	MinFactor      *float64            `yaml:"min_factor,omitempty"`      // the same
	MaxFactor      *float64            `yaml:"max_factor,omitempty"`      // the same
	MaxStepSize    *float64            `yaml:"max_step_size,omitempty"`   // the same
	MaxSteps       *int                `yaml:"max_steps,omitempty"`       // the same
	DiffusionForm  string              `yaml:"diffusion_form,omitempty"`  // flow, sde: see interpolants.DiffusionForms
	DiffusionNorm  *float64            `yaml:"diffusion_norm,omitempty"`  // flow, sde
	LastStep       string              `yaml:"last_step,omitempty"`       // flow, sde: one of LastSteps
	LastStepSize   *float64            `yaml:"last_step_size,omitempty"`  // flow, sde with a last step
	Label          *int                `yaml:"label,omitempty"`           // flow: label of every sample; nil: the null label
	GuidanceScale  *float64            `yaml:"guidance_scale,omitempty"`  // flow of samples with labels
	Compat         string              `yaml:"compat,omitempty"`          // flow: torchebm or none
}

// Mass is the diagonal of HMC's mass matrix: one number for all coordinates, or one each. Empty: 1. In YAML it is a number
// or a list.
type Mass []float64

// UnmarshalYAML reads a number or a list of numbers.
func (m *Mass) UnmarshalYAML(unmarshal func(any) error) error {
	var v any
	if err := unmarshal(&v); err != nil {
		return err
	}
	items, isList := v.([]any)
	if !isList {
		items = []any{v}
	}
	mass := make(Mass, len(items))
	for i, item := range items {
		number := reflect.ValueOf(item)
		switch {
		case number.IsValid() && number.CanFloat():
			mass[i] = number.Float()
		case number.IsValid() && number.CanInt():
			mass[i] = float64(number.Int())
		case number.IsValid() && number.CanUint():
			mass[i] = float64(number.Uint())
		default:
			return fmt.Errorf("%v, want a positive number, or a list of them", item)
		}
	}
	*m = mass
	return nil
}

// MarshalYAML writes a number or a list of numbers.
func (m Mass) MarshalYAML() (any, error) {
	if len(m) == 1 {
		return m[0], nil
	}
	return []float64(m), nil
}

// Integrators are the names that Config.Integrator knows. Langevin dynamics and flows of mode sde take those of
// integrators.SDENames alone.
var Integrators = integrators.Names()

// Metrics are the names that Config.Metric knows.
func Metrics() []string { return []string{"quadratic"} }

// Compats are the names that Config.Compat knows.
func Compats() []string { return []string{"none", "torchebm"} }

// IsFlow says whether the kind samples a field; the others sample an energy.
func (c Config) IsFlow() bool { return c.Kind == "flow" }

// Adjusted says whether steps pass a Metropolis test, so that the sampler has exp(−E) as its exact law.
func (c Config) Adjusted() bool { return c.Kind == "mala" || c.Kind == "hmc" || c.Kind == "rmhmc" }

// Deterministic says whether steps use no randomness: descents, and flows along an ordinary differential equation.
func (c Config) Deterministic() bool {
	return c.Kind == "gradient_descent" || c.Kind == "nesterov" || c.IsFlow() && c.Mode != "sde"
}

// Settles says whether a chain goes somewhere and ends there, a descent or an annealing, so that every sample needs a chain
// of its own, and there is no law to temper.
func (c Config) Settles() bool {
	return c.Kind == "gradient_descent" || c.Kind == "nesterov" || c.Kind == "annealed_langevin"
}

// usualAccept is the share of proposals taken at which chains of many dimensions move best for what they cost: Roberts and
// Rosenthal 1998 for MALA, Beskos et al. 2013 for HMC; 0 for a kind without a Metropolis test.
func usualAccept(kind string) float64 {
	switch kind {
	case "mala":
		return 0.574
	case "hmc", "rmhmc":
		return 0.65
	}
	return 0
}

// TargetAccept is the share of proposals taken to which an engine that adapts step sizes steers them: target_accept, or the
// kind's own value where it is left out. It is 0 where step sizes stay: adaptation is switched off, or steps pass no Metropolis
// test. [Run] adapts only where target_accept is set.
func (c Config) TargetAccept() float64 {
	if c.AcceptTarget != nil && c.Adjusted() {
		return *c.AcceptTarget
	}
	return usualAccept(c.Kind)
}

// EffectiveBeta is the β for which steps at β = 1 aim at exp(−βE), if only their size were 0: 1 for kernels with a Metropolis
// test, which reach it at any size, and 1/s² for Langevin steps of noise scale s, x ← x − ε∇E + s√(2ε)z. It is +Inf without
// noise, and false where steps aim at no one law: a noise scale on a schedule, an annealing, a descent, a flow.
func (c Config) EffectiveBeta() (float64, bool) {
	switch c = c.WithDefaults(); {
	case c.Adjusted():
		return 1, true
	case c.Kind == "langevin" && c.NoiseScale.Kind == "constant":
		return 1 / (c.NoiseScale.Start * c.NoiseScale.Start), true
	}
	return 0, false
}

// Bounds is the section's box, false where there is none.
func (c Config) Bounds() (box Box, ok bool) {
	if len(c.Box) != 2 {
		return Box{}, false
	}
	return Box{c.Box[0], c.Box[1]}, true
}

// Confine is the path within the section's box; the path itself where there is none.
func (c Config) Confine(p Path) Path {
	if box, ok := c.Bounds(); ok {
		return p.Within(box)
	}
	return p
}

// Options are the YAML keys of the section, in order.
func Options() []string {
	var out []string
	for f := range reflect.TypeFor[Config]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		out = append(out, name)
	}
	return out
}

// field is the field of c with a YAML key, which must be one of Options.
func (c *Config) field(key string) reflect.Value {
	return reflect.ValueOf(c).Elem().Field(slices.Index(Options(), key))
}

func (c *Config) isSet(key string) bool { return !c.field(key).IsZero() }

// idle says whether a key that the kind does not read holds what is the case anyway: noise at temperature 1, steps of Euler's
// scheme, no walls, or step sizes that stay, whoever wrote it down.
func (c Config) idle(key string) bool {
	return key == "noise_scale" && c.NoiseScale.IsConstant(1) || key == "integrator" && !c.IsFlow() && c.Integrator == "euler_maruyama" ||
		key == "clamp" && len(c.Clamp) == 0 || key == "box" && len(c.Box) == 0 || key == "target_accept" && *c.AcceptTarget == 0
}

// WithDefaults fills the keys that the kind reads and c leaves out; the kind is mala where it is left out.
func (c Config) WithDefaults() Config {
	if c.Kind == "" {
		c.Kind = "mala"
	}
	kind, err := findKind(c.Kind)
	if err != nil {
		return c
	}
	for _, p := range kind.Params {
		if p.value == nil || c.isSet(p.Key) {
			continue
		}
		field, value := c.field(p.Key), reflect.ValueOf(p.value)
		switch {
		case field.Type() == reflect.TypeFor[schedules.Config]():
			value = reflect.ValueOf(schedules.Constant(p.value.(float64)))
		case field.Kind() == reflect.Pointer:
			pointer := reflect.New(value.Type())
			pointer.Elem().Set(value)
			value = pointer
		}
		field.Set(value)
	}
	if c.IsFlow() {
		c.flowDefaults()
	}
	return c
}

// Validate reports every fault of the section, each by its key.
func (c Config) Validate() error {
	kind, err := findKind(c.Kind)
	if err != nil {
		return err
	}
	var errs []error
	for _, key := range Options()[1:] {
		if c.isSet(key) && !kind.has(key) && !c.idle(key) {
			errs = append(errs, fmt.Errorf("%s: not an option of kind %s, want one of %s", key, c.Kind, strings.Join(kind.keys(), ", ")))
		}
	}
	if c.Steps < 1 {
		errs = append(errs, fmt.Errorf("steps: %d, want at least 1", c.Steps))
	}
	if c.IsFlow() {
		return errors.Join(append(errs, c.validateFlow()...)...)
	}
	if err := c.StepSize.ValidatePositive("step_size"); err != nil {
		errs = append(errs, err)
	}
	if kind.has("noise_scale") && c.isSet("noise_scale") {
		if err := c.NoiseScale.ValidateNonNegative("noise_scale"); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, c.validateKernel(kind)...)...)
}

// validateKernel checks the keys that the kind of kernel reads and that are set.
func (c Config) validateKernel(kind Kind) (errs []error) {
	check := func(key string, ok bool, value any, want string) {
		if kind.has(key) && c.isSet(key) && !ok {
			errs = append(errs, fmt.Errorf("%s: %v, want %s", key, value, want))
		}
	}
	check("integrator", slices.Contains(integrators.SDENames(), c.Integrator), fmt.Sprintf("%q", c.Integrator), "one of "+strings.Join(integrators.SDENames(), ", "))
	check("clamp", len(c.Clamp) == 0 || len(c.Clamp) == 2 && c.Clamp[0] < c.Clamp[1], c.Clamp, "[lo, hi] with lo < hi")
	check("box", len(c.Box) == 0 || len(c.Box) == 2 && c.Box[0] < c.Box[1] && finite(c.Box), c.Box, "[lo, hi] with lo < hi, both finite")
	if kind.has("clamp") && len(c.Clamp) > 0 && len(c.Box) > 0 {
		errs = append(errs, errors.New("box: set beside clamp, want one of them"))
	}
	check("target_accept", c.TargetAccept() >= 0 && c.TargetAccept() < 1, c.TargetAccept(), "a value in [0, 1)")
	check("leapfrog_steps", c.LeapfrogSteps >= 1, c.LeapfrogSteps, "at least 1")
	check("mass", !slices.ContainsFunc(c.Mass, func(m float64) bool { return !positive(m) }), c.Mass, "positive numbers")
	check("metric", slices.Contains(Metrics(), c.Metric), fmt.Sprintf("%q", c.Metric), "one of "+strings.Join(Metrics(), ", "))
	check("solver_steps", c.SolverSteps >= 1, c.SolverSteps, "at least 1")
	d := c.WithDefaults()
	number := func(v *float64) float64 {
		if v == nil {
			return math.NaN()
		}
		return *v
	}
	check("metric_strength", number(d.MetricStrength) >= 0, number(d.MetricStrength), "0 or more")
	check("momentum", number(d.Momentum) >= 0 && number(d.Momentum) < 1, number(d.Momentum), "a value in [0, 1)")
	if c.Kind == "annealed_langevin" {
		low, high := number(d.SigmaMin), number(d.SigmaMax)
		if !positive(low) {
			errs = append(errs, fmt.Errorf("sigma_min: %g, want a positive number", low))
		}
		if !positive(high) || high < low {
			errs = append(errs, fmt.Errorf("sigma_max: %g, want at least sigma_min, %g", high, low))
		}
		if d.Levels < 1 || d.Levels > max(1, c.Steps) {
			errs = append(errs, fmt.Errorf("levels: %d, want 1 to %d, the steps", d.Levels, c.Steps))
		}
	}
	return errs
}

func positive(v float64) bool { return v > 0 && v <= math.MaxFloat64 }

// NewKernel makes the kernel of one chain step. scale is the noise scale of the step, which the Langevin kinds alone use; nil
// is 1. The box is not the kernel's, but the path's, see Confine. It panics for kind flow, which has no kernel, and for a kind
// that Validate refuses.
func (c Config) NewKernel(scale *Node) Kernel {
	c = c.WithDefaults()
	switch c.Kind {
	case "mala":
		return MALA{}
	case "langevin":
		k := Langevin{Scale: scale, Heun: c.Integrator == "heun"}
		if c.Integrator == "backward_euler_maruyama" {
			k.Implicit = implicitRounds
		}
		if len(c.Clamp) == 2 {
			k.Clamp = &[2]float64{c.Clamp[0], c.Clamp[1]}
		}
		return k
	case "annealed_langevin":
		return Langevin{Scale: scale}
	case "hmc":
		return HMC{Leapfrogs: c.LeapfrogSteps, Mass: c.Mass}
	case "rmhmc":
		return RMHMC{Leapfrogs: c.LeapfrogSteps, Iterations: c.SolverSteps, Metric: QuadraticMetric(*c.MetricStrength)}
	case "gradient_descent":
		return GradientDescent{}
	case "nesterov":
		return Nesterov{Momentum: *c.Momentum}
	}
	panic(fmt.Errorf("samplers: kind: %q has no kernel", c.Kind))
}

// NoiseFactors are the factors of the noise scale at each of the Steps of a scan or a run: σᵢ/σ_min for annealed_langevin,
// nil (all 1) for the others.
func (c Config) NoiseFactors() []float64 {
	if c.Kind != "annealed_langevin" {
		return nil
	}
	c = c.WithDefaults()
	return annealing(*c.SigmaMax, *c.SigmaMin, c.Levels, c.Steps)
}

// RungStepSizes gives every rung the step size of the kind from eps, that of the target rung, see [StepSizes]. A leapfrog step
// of length ε moves as far as a Langevin step of size ½ε².
func (c Config) RungStepSizes(eps float64, betas, referenceStd []float64) []float64 {
	if c.Kind != "hmc" && c.Kind != "rmhmc" {
		return StepSizes(eps, betas, referenceStd)
	}
	out := StepSizes(eps*eps/2, betas, referenceStd)
	for k, size := range out {
		if betas[k] == 1 {
			out[k] = eps
			continue
		}
		out[k] = math.Sqrt(2 * size)
	}
	return out
}
