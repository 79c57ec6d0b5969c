package losses

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	"github.com/kelvin-ebm/kelvin/pkg/couplings"
	"github.com/kelvin-ebm/kelvin/pkg/interpolants"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

// Config is the `loss` section of an experiment. Which keys a kind reads is in [Kinds]; any other key that is set is a
// fault. A key left out has the kind's default.
type Config struct {
	Kind string `yaml:"kind"` // one of KindNames
	// EnergyPenalty weighs mean f(x⁺)² + mean f(x⁻)², which keeps energies near zero; the second term where a loss has
	// negatives. What that is for a field is said at Penalties.
	EnergyPenalty float64 `yaml:"energy_penalty"`
	// GradientPenalty weighs mean ‖∇E(x⁺)‖².
	GradientPenalty float64 `yaml:"gradient_penalty,omitempty"`
	// DataNoise is the standard deviation of Gaussian noise added to the positives.
	DataNoise float64 `yaml:"data_noise"`
	// LabelDropout is the probability that a row's label counts as missing, so that a conditional field learns the
	// unconditional one too.
	LabelDropout float64 `yaml:"label_dropout,omitempty"`
	// Compat "torchebm" does as TorchEBM 0.8.9 does where ours differs on purpose, see the kinds' Doc. "none" is ours.
	Compat string `yaml:"compat"`

	HessianMethod   string `yaml:"hessian_method,omitempty"`   // score_matching: exact or hutchinson
	NProbes         *int   `yaml:"n_probes,omitempty"`         // score_matching with hutchinson
	ProbeType       string `yaml:"probe_type,omitempty"`       // score_matching with hutchinson: rademacher or gaussian
	NProjections    *int   `yaml:"n_projections,omitempty"`    // sliced_score_matching
	ProjectionType  string `yaml:"projection_type,omitempty"`  // sliced_score_matching: one of Words("projection_type")
	VarianceReduced *bool  `yaml:"variance_reduced,omitempty"` // sliced_score_matching

	Sigma     schedules.Config `yaml:"sigma,omitempty"`     // denoising_score_matching, energy_matching
	SigmaMin  *float64         `yaml:"sigma_min,omitempty"` // denoising_score_matching at many noise levels
	SigmaMax  *float64         `yaml:"sigma_max,omitempty"`
	Levels    *int             `yaml:"levels,omitempty"`
	Weighting string           `yaml:"weighting,omitempty"` // denoising_score_matching: one of Words("weighting")

	Interpolant interpolants.Config `yaml:"interpolant,omitempty"` // the losses that follow a path from noise to data
	Coupling    couplings.Config    `yaml:"coupling,omitempty"`
	TrainEps    *float64            `yaml:"train_eps,omitempty"`
	TSampler    string              `yaml:"t_sampler,omitempty"` // uniform or lognormal
	TPMean      *float64            `yaml:"t_p_mean,omitempty"`
	TPStd       *float64            `yaml:"t_p_std,omitempty"`

	Prediction       string   `yaml:"prediction,omitempty"` // equilibrium_matching: velocity, score or noise
	EnergyType       string   `yaml:"energy_type,omitempty"`
	LossWeight       string   `yaml:"loss_weight,omitempty"`
	CT               string   `yaml:"ct,omitempty"`
	CTThreshold      *float64 `yaml:"ct_threshold,omitempty"`
	CTMultiplier     *float64 `yaml:"ct_multiplier,omitempty"`
	TimeInvariant    *bool    `yaml:"time_invariant,omitempty"`
	Dispersion       *bool    `yaml:"dispersion,omitempty"`
	DispersionWeight *float64 `yaml:"dispersion_weight,omitempty"`

	NegateVelocity *bool `yaml:"negate_velocity,omitempty"` // flow_matching

	FlowWeightCutoff *float64         `yaml:"flow_weight_cutoff,omitempty"` // energy_matching
	LambdaCD         schedules.Config `yaml:"lambda_cd,omitempty"`
	EpsilonMax       *float64         `yaml:"epsilon_max,omitempty"`
	TauStar          *float64         `yaml:"tau_star,omitempty"`
	NLangevinSteps   *int             `yaml:"n_langevin_steps,omitempty"`
	LangevinDT       *float64         `yaml:"langevin_dt,omitempty"`
	NoiseFraction    *float64         `yaml:"noise_fraction,omitempty"`
	CDTrimFraction   *float64         `yaml:"cd_trim_fraction,omitempty"`
	CDClamp          *float64         `yaml:"cd_clamp,omitempty"`
}

// Compats are the names that Config.Compat knows.
var Compats = []string{"none", "torchebm"}

// Chains says whether the loss compares the data with chains that the engine keeps: contrastive divergence in all its
// forms, which [Contrastive] builds. [Config.Build] makes every other loss.
func (c Config) Chains() bool { return slices.Contains(contrastiveKinds, c.Kind) }

// Paired says whether the loss pairs rows of data with rows of noise, so that Coupling counts.
func (c Config) Paired() bool {
	kind, _ := findKind(c.Kind)
	return kind.has("coupling")
}

// Over gives the schedules of the section that leave their length open a run of n steps.
func (c Config) Over(n int) Config {
	c.Sigma, c.LambdaCD = c.Sigma.Over(n), c.LambdaCD.Over(n)
	return c
}

// field is the field of c with a YAML key.
func (c *Config) field(key string) reflect.Value {
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		if keyOf(v.Type().Field(i)) == key {
			return v.Field(i)
		}
	}
	panic("losses: no key " + key)
}

func keyOf(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return name
}

func (c *Config) isSet(key string) bool { return !c.field(key).IsZero() }

// WithDefaults fills the keys that the kind reads and c leaves out. The keys that every kind has, from EnergyPenalty to
// Compat, stay as they are: zero is their default, and "" is "none".
func (c Config) WithDefaults() Config {
	kind, ok := findKind(c.Kind)
	if !ok {
		return c
	}
	for _, p := range kind.Params {
		if p.value == nil || c.isSet(p.Key) || !c.reads(p.Key) {
			continue
		}
		c.put(p.Key, p.value)
	}
	if kind.has("interpolant") {
		c.Interpolant = c.Interpolant.WithDefaults()
		c.Coupling = c.Coupling.WithDefaults()
	}
	return c
}

// put gives a key a value. Values that hang on other keys are given as a function of the section.
func (c *Config) put(key string, value any) {
	if f, ok := value.(func(Config) any); ok {
		value = f(*c)
	}
	field, v := c.field(key), reflect.ValueOf(value)
	if field.Kind() == reflect.Pointer {
		pointer := reflect.New(v.Type())
		pointer.Elem().Set(v)
		v = pointer
	}
	field.Set(v)
}

// manyLevels says whether denoising score matching has a range of noise levels.
func (c Config) manyLevels() bool { return c.SigmaMin != nil || c.SigmaMax != nil || c.Levels != nil }

// reads says whether a key of the kind means something beside the other keys.
func (c Config) reads(key string) bool {
	switch key {
	case "n_probes", "probe_type":
		return c.HessianMethod == "hutchinson"
	case "sigma":
		return !c.manyLevels()
	case "levels":
		return c.manyLevels()
	case "t_p_mean", "t_p_std":
		return c.TSampler == "lognormal"
	case "ct_threshold":
		return c.Prediction == "velocity" && c.CT == "truncated"
	case "energy_type", "ct", "ct_multiplier":
		return c.Prediction == "velocity"
	case "loss_weight":
		return c.Prediction != "velocity"
	case "dispersion_weight":
		return c.Dispersion != nil && *c.Dispersion
	}
	return true
}

// idle explains why a key of the kind means nothing, and what would give it a meaning.
var idle = map[string]string{
	"n_probes":          "hessian_method: hutchinson",
	"probe_type":        "hessian_method: hutchinson",
	"sigma":             "no sigma_min, sigma_max and levels",
	"t_p_mean":          "t_sampler: lognormal",
	"t_p_std":           "t_sampler: lognormal",
	"ct_threshold":      "prediction: velocity and ct: truncated",
	"ct":                "prediction: velocity",
	"ct_multiplier":     "prediction: velocity",
	"energy_type":       "prediction: velocity",
	"loss_weight":       "prediction: score or noise",
	"dispersion_weight": "dispersion: true",
}

// Validate reports every fault of the section, each by its key.
func (c Config) Validate() error {
	f := &faults{}
	kind, ok := findKind(c.Kind)
	if !ok {
		f.add("kind", "%q, want one of %s", c.Kind, strings.Join(KindNames(), ", "))
	}
	if c.Compat != "" && !slices.Contains(Compats, c.Compat) {
		f.add("compat", "%q, want one of %s", c.Compat, strings.Join(Compats, ", "))
	}
	f.nonNegative("energy_penalty", c.EnergyPenalty)
	f.nonNegative("gradient_penalty", c.GradientPenalty)
	f.nonNegative("data_noise", c.DataNoise)
	f.inside("label_dropout", c.LabelDropout, "a value in [0, 1]", c.LabelDropout >= 0 && c.LabelDropout <= 1)
	if !ok {
		return f.err()
	}
	for field := range reflect.TypeOf(c).Fields() {
		if key := keyOf(field); key != "kind" && key != "compat" && c.isSet(key) && !kind.has(key) {
			f.add(key, "not an option of kind %s, want one of %s", c.Kind, strings.Join(kind.keys(), ", "))
		}
	}
	full := c.WithDefaults()
	for _, p := range kind.Params {
		if c.isSet(p.Key) && !full.reads(p.Key) {
			f.add(p.Key, "without effect here, want %s", idle[p.Key])
		}
	}
	full.check(f, kind)
	return f.err()
}

// check looks at the values of a section with its defaults.
func (c Config) check(f *faults, kind Kind) {
	for _, w := range words {
		if v := c.field(w.key).String(); kind.has(w.key) && v != "" {
			f.oneOf(w.key, v, w.of)
		}
	}
	for _, n := range numbers {
		field := c.field(n.key)
		if !kind.has(n.key) || field.IsNil() {
			continue
		}
		var v float64
		if field.Elem().CanInt() {
			v = float64(field.Elem().Int())
		} else {
			v = field.Elem().Float()
		}
		f.inside(n.key, v, n.want, n.good(v))
	}
	torch := c.Compat == "torchebm"
	switch c.Kind {
	case "denoising_score_matching":
		c.checkSigma(f)
	case "energy_matching":
		f.join(c.Sigma.ValidateNonNegative("sigma"), c.LambdaCD.ValidateNonNegative("lambda_cd"))
	case "equilibrium_matching":
		if c.Prediction != "velocity" && c.TimeInvariant != nil && *c.TimeInvariant && !torch {
			f.add("time_invariant", "true with prediction: %s, whose target depends on a time that the field would not see: want false", c.Prediction)
		}
	}
	if kind.has("interpolant") {
		f.under("interpolant", c.Interpolant.Validate())
		f.under("coupling", c.Coupling.Validate())
	}
	if torch && !c.differs() {
		f.add("compat", "torchebm without effect here, want kind: persistent_cd, score_matching with hessian_method: hutchinson, or equilibrium_matching with prediction: score or noise and time_invariant: true")
	}
}

// differs says whether TorchEBM 0.8.9 does something of its own under this section, which has its defaults.
func (c Config) differs() bool {
	switch c.Kind {
	case "persistent_cd":
		return true
	case "score_matching":
		return c.HessianMethod == "hutchinson"
	case "equilibrium_matching":
		return c.Prediction != "velocity" && *c.TimeInvariant
	}
	return false
}

func (c Config) checkSigma(f *faults) {
	if !c.manyLevels() {
		f.join(c.Sigma.ValidatePositive("sigma"))
		return
	}
	if c.SigmaMin == nil || c.SigmaMax == nil {
		f.add("sigma_min", "many noise levels need both ends, want sigma_min and sigma_max")
	} else if *c.SigmaMax < *c.SigmaMin {
		f.add("sigma_max", "%g, want at least sigma_min, %g", *c.SigmaMax, *c.SigmaMin)
	}
}

// Build makes the loss of any kind but those of contrastive divergence, see [Config.Chains]. Schedules must have a length,
// see [Config.Over].
func (c Config) Build() (Loss, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("losses: %w", err)
	}
	loss, err := c.WithDefaults().make()
	if err != nil {
		return nil, fmt.Errorf("losses: %s: %w", c.Kind, err)
	}
	return loss, nil
}

// faults collects what is wrong with a section.
type faults struct{ list []error }

func (f *faults) add(key, format string, args ...any) {
	f.list = append(f.list, fmt.Errorf(key+": "+format, args...))
}

func (f *faults) join(errs ...error) {
	for _, err := range errs {
		if err != nil {
			f.list = append(f.list, err)
		}
	}
}

// under reports the faults of a nested section, each by its place.
func (f *faults) under(key string, err error) {
	if err == nil {
		return
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		f.list = append(f.list, fmt.Errorf("%s.%s", key, line))
	}
}

func (f *faults) inside(key string, v float64, want string, good bool) {
	if !good {
		f.add(key, "%g, want %s", v, want)
	}
}

func (f *faults) nonNegative(key string, v float64) {
	f.inside(key, v, "0 or more", v >= 0 && !math.IsInf(v, 1))
}

func (f *faults) oneOf(key, v string, of []string) {
	if !slices.Contains(of, v) {
		f.add(key, "%q, want one of %s", v, strings.Join(of, ", "))
	}
}

func (f *faults) err() error { return errors.Join(f.list...) }
