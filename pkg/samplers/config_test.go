package samplers_test

import (
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/interpolants"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

func ptr[T any](v T) *T { return &v }

func TestConfigValidate(t *testing.T) {
	of := func(kind string) samplers.Config { return samplers.Config{Kind: kind}.WithDefaults() }
	langevin := samplers.Config{Kind: "langevin", Steps: 5, StepSize: schedules.Constant(0.01), NoiseScale: schedules.Constant(1)}
	for _, tc := range []struct {
		name   string
		base   samplers.Config
		change func(c *samplers.Config)
		want   []string // how the lines begin, one a fault
	}{
		{"langevin", langevin, func(c *samplers.Config) {}, nil},
		{"mala, with what is the case anyway", langevin, func(c *samplers.Config) { c.Kind = "mala"; c.Integrator = "euler_maruyama" }, nil},
		{"heun and a clamp", langevin, func(c *samplers.Config) { c.Integrator = "heun"; c.Clamp = []float64{-1, 1} }, nil},
		{"no noise", langevin, func(c *samplers.Config) { c.NoiseScale = schedules.Constant(0) }, nil},
		{"another kind", langevin, func(c *samplers.Config) { c.Kind = "gibbs" }, []string{`kind: "gibbs", want one of mala, langevin, hmc`}},
		{"a scheme for equations without noise", langevin, func(c *samplers.Config) { c.Integrator = "rk4" }, []string{`integrator: "rk4", want one of euler_maruyama`}},
		{"langevin's options with mala", langevin, func(c *samplers.Config) {
			c.Kind, c.Integrator, c.Clamp, c.NoiseScale = "mala", "heun", []float64{-1, 1}, schedules.Constant(2)
		}, []string{"noise_scale: not an option of kind mala, want one of kind, steps, step_size", "integrator: not", "clamp: not"}},
		{"no steps, no step", langevin, func(c *samplers.Config) { c.Steps, c.StepSize = 0, schedules.Constant(0) }, []string{"steps: 0, want at least 1", "step_size: 0, want a positive number"}},
		{"a clamp upside down", langevin, func(c *samplers.Config) { c.Clamp = []float64{1, -1} }, []string{"clamp: [1 -1], want [lo, hi] with lo < hi"}},
		{"a clamp of NaN", langevin, func(c *samplers.Config) { c.Clamp = []float64{math.NaN(), 1} }, []string{"clamp: [NaN 1]"}},
		{"walls", langevin, func(c *samplers.Config) { c.Box = []float64{-1, 1} }, nil},
		{"walls and a clamp", langevin, func(c *samplers.Config) { c.Box, c.Clamp = []float64{-1, 1}, []float64{-1, 1} }, []string{"box: set beside clamp, want one of them"}},
		{"a box upside down", of("mala"), func(c *samplers.Config) { c.Box = []float64{1, -1} }, []string{"box: [1 -1], want [lo, hi] with lo < hi, both finite"}},
		{"a box without an end", of("hmc"), func(c *samplers.Config) { c.Box = []float64{0, math.Inf(1)} }, []string{"box: [0 +Inf]"}},
		{"a box where nothing reads it", of("annealed_langevin"), func(c *samplers.Config) { c.Box = []float64{0, 1} }, []string{"box: not an option of kind annealed_langevin"}},
		{"every proposal taken", of("mala"), func(c *samplers.Config) { c.AcceptTarget = ptr(1.) }, []string{"target_accept: 1, want a value in [0, 1)"}},
		{"step sizes that stay", of("rmhmc"), func(c *samplers.Config) { c.AcceptTarget = ptr(0.) }, nil},
		{"a target without a test", langevin, func(c *samplers.Config) { c.AcceptTarget = ptr(0.5) }, []string{"target_accept: not an option of kind langevin"}},
		{"what is the case anyway", langevin, func(c *samplers.Config) { c.AcceptTarget, c.Box = ptr(0.), []float64{} }, nil},
		{"half a clamp", langevin, func(c *samplers.Config) { c.Clamp = []float64{1} }, []string{"clamp: [1]"}},
		{"masses without a sense", of("hmc"), func(c *samplers.Config) { c.Mass, c.LeapfrogSteps = samplers.Mass{1, -2}, -1 }, []string{"leapfrog_steps: -1, want at least 1", "mass: [1 -2], want positive numbers"}},
		{"a metric of its own", of("rmhmc"), func(c *samplers.Config) { c.Metric, c.MetricStrength, c.SolverSteps = "flat", ptr(-1.), -1 }, []string{`metric: "flat", want one of quadratic`, "solver_steps: -1", "metric_strength: -1, want 0 or more"}},
		{"too much momentum", of("nesterov"), func(c *samplers.Config) { c.Momentum = ptr(1.) }, []string{"momentum: 1, want a value in [0, 1)"}},
		{"levels upside down", of("annealed_langevin"), func(c *samplers.Config) { c.SigmaMax, c.Levels = ptr(0.5), 101 }, []string{"sigma_max: 0.5, want at least sigma_min, 1", "levels: 101, want 1 to 100, the steps"}},
		{"a step size for a flow", of("flow"), func(c *samplers.Config) { c.StepSize = schedules.Constant(0.1) }, []string{"step_size: not an option of kind flow"}},
		{"noise in an equation without", of("flow"), func(c *samplers.Config) { c.DiffusionForm, c.LastStep = "sigma", "mean" }, []string{"diffusion_form: belongs to mode: sde", "last_step: belongs to mode: sde"}},
		{"a flow of nonsense", of("flow"), func(c *samplers.Config) {
			c.Mode, c.Prediction, c.Integrator, c.Interpolant.Kind, c.SampleEps = "pde", "energy", "leapfrog", "spiral", ptr(0.5)
			c.Atol, c.Rtol, c.GuidanceScale, c.Compat = nil, nil, ptr(-2.), "jax"
		}, []string{"mode:", "prediction:", "compat:", `interpolant.kind: "spiral"`, `integrator: "leapfrog"`, "sample_eps: 0.5", "guidance_scale: -2, want 0 or more"}},
		{"noise with the wrong scheme", of("flow"), func(c *samplers.Config) {
			*c = samplers.Config{Kind: "flow", Mode: "sde", Steps: 9, Integrator: "dopri5", Reverse: ptr(true), DiffusionForm: "round", DiffusionNorm: ptr(-1.), LastStep: "leap", LastStepSize: ptr(1.5)}
		}, []string{`integrator: "dopri5" is for mode: ode`, "reverse:", `diffusion_form: "round"`, "diffusion_norm: -1", `last_step: "leap"`, "last_step_size: 1.5"}},
		{"a negated score", of("flow"), func(c *samplers.Config) { c.Prediction, c.NegateVelocity = "score", ptr(true) }, []string{"negate_velocity: the field predicts a score"}},
	} {
		c := tc.base
		tc.change(&c)
		err := c.Validate()
		var lines []string
		if err != nil {
			lines = strings.Split(err.Error(), "\n")
		}
		if len(lines) != len(tc.want) {
			t.Errorf("%s: %v, want %d faults", tc.name, err, len(tc.want))
			continue
		}
		for i, want := range tc.want {
			if !strings.HasPrefix(lines[i], want) {
				t.Errorf("%s: %q, want it to start with %q", tc.name, lines[i], want)
			}
		}
	}
}

// The table of kinds and the section speak of the same keys, every kind stands on its defaults, and a key of another kind is
// a fault.
func TestKinds(t *testing.T) {
	var used []string
	for _, k := range samplers.Kinds() {
		c := samplers.Config{Kind: k.Name}.WithDefaults()
		if err := c.Validate(); err != nil {
			t.Errorf("%s: the defaults: %v", k.Name, err)
		}
		if !reflect.DeepEqual(c, c.WithDefaults()) {
			t.Errorf("%s: defaults twice are not the defaults", k.Name)
		}
		if k.Doc == "" || k.Formula == "" || k.Source == "" {
			t.Errorf("%s: something about it is missing: %+v", k.Name, k)
		}
		var own []string
		for _, p := range k.Params {
			if p.Doc == "" || p.Default == "" || !slices.Contains(samplers.Options(), p.Key) {
				t.Errorf("%s: %+v", k.Name, p)
			}
			own = append(own, p.Key)
		}
		used = append(used, own...)
		if !c.IsFlow() {
			if kernel := c.NewKernel(nil); kernel.Gradients() < 1 || kernel.NeedsUniform() != c.Adjusted() {
				t.Errorf("%s: kernel %#v", k.Name, kernel)
			}
		}
		for _, other := range []struct {
			key string
			set func(c *samplers.Config)
		}{
			{"clamp", func(c *samplers.Config) { c.Clamp = []float64{0, 1} }}, {"mass", func(c *samplers.Config) { c.Mass = samplers.Mass{2} }},
			{"leapfrog_steps", func(c *samplers.Config) { c.LeapfrogSteps = 3 }}, {"momentum", func(c *samplers.Config) { c.Momentum = ptr(0.) }},
			{"levels", func(c *samplers.Config) { c.Levels = 2 }}, {"reverse", func(c *samplers.Config) { c.Reverse = ptr(false) }},
			{"interpolant", func(c *samplers.Config) { c.Interpolant = interpolants.Config{Kind: "cosine"} }},
			{"noise_scale", func(c *samplers.Config) { c.NoiseScale = schedules.Constant(2) }},
			{"box", func(c *samplers.Config) { c.Box = []float64{0, 1} }}, {"target_accept", func(c *samplers.Config) { c.AcceptTarget = ptr(0.5) }},
		} {
			with := c
			other.set(&with)
			if err := with.Validate(); (err == nil) != slices.Contains(own, other.key) {
				t.Errorf("%s with %s: %v", k.Name, other.key, err)
			}
		}
	}
	for _, key := range samplers.Options()[1:] {
		if !slices.Contains(used, key) {
			t.Errorf("%s: no kind reads it", key)
		}
	}
}

func TestTargetAccept(t *testing.T) {
	for _, tc := range []struct {
		config samplers.Config
		want   float64
	}{
		{samplers.Config{Kind: "mala"}, 0.574}, {samplers.Config{Kind: "hmc"}, 0.65}, {samplers.Config{Kind: "rmhmc"}, 0.65},
		{samplers.Config{Kind: "mala", AcceptTarget: ptr(0.4)}, 0.4}, {samplers.Config{Kind: "hmc", AcceptTarget: ptr(0.)}, 0},
		{samplers.Config{Kind: "langevin"}, 0}, {samplers.Config{Kind: "nesterov"}, 0}, {samplers.Config{Kind: "flow"}, 0},
	} {
		if got := tc.config.WithDefaults().TargetAccept(); got != tc.want {
			t.Errorf("%+v: %g, want %g", tc.config, got, tc.want)
		}
	}
}

func TestEffectiveBeta(t *testing.T) {
	falling := schedules.Config{Kind: "linear", Start: 2, End: 1, Steps: schedules.WholeRun}
	for _, tc := range []struct {
		config samplers.Config
		beta   float64
		known  bool
	}{
		{samplers.Config{Kind: "mala"}, 1, true}, {samplers.Config{Kind: "hmc"}, 1, true}, {samplers.Config{Kind: "langevin"}, 1, true},
		{samplers.Config{Kind: "langevin", NoiseScale: schedules.Constant(0.5)}, 4, true},
		{samplers.Config{Kind: "langevin", NoiseScale: schedules.Constant(0)}, math.Inf(1), true},
		{samplers.Config{Kind: "langevin", NoiseScale: falling}, 0, false},
		{samplers.Config{Kind: "annealed_langevin"}, 0, false}, {samplers.Config{Kind: "gradient_descent"}, 0, false}, {samplers.Config{Kind: "flow"}, 0, false},
	} {
		if beta, known := tc.config.EffectiveBeta(); beta != tc.beta || known != tc.known {
			t.Errorf("%+v: %g, %t, want %g, %t", tc.config, beta, known, tc.beta, tc.known)
		}
	}
}

func TestMassIsANumberOrAList(t *testing.T) {
	for _, tc := range []struct {
		in   any
		want samplers.Mass // nil: an error
	}{{2.5, samplers.Mass{2.5}}, {int64(2), samplers.Mass{2}}, {uint64(3), samplers.Mass{3}}, {[]any{1.0, 4.0}, samplers.Mass{1, 4}}, {"heavy", nil}, {[]any{1.0, "x"}, nil}, {nil, nil}} {
		var got samplers.Mass
		err := got.UnmarshalYAML(func(dst any) error { *dst.(*any) = tc.in; return nil })
		if (err == nil) != (tc.want != nil) || !slices.Equal(got, tc.want) {
			t.Errorf("%v: %v, %v, want %v", tc.in, got, err, tc.want)
		}
	}
	if one, err := (samplers.Mass{2}).MarshalYAML(); one != 2.0 || err != nil {
		t.Errorf("one mass is written as %v, %v", one, err)
	}
}

// Ten steps on three levels: 4, 3 and 3 of them, σ/σ_min falling from 9 to 1 by the same factor a level.
func TestNoiseFactors(t *testing.T) {
	c := samplers.Config{Kind: "annealed_langevin", Steps: 10, SigmaMax: ptr(0.9), SigmaMin: ptr(0.1), Levels: 3}
	got := c.NoiseFactors()
	for m, want := range []float64{9, 9, 9, 9, 3, 3, 3, 1, 1, 1} {
		if math.Abs(got[m]-want) > 1e-12 {
			t.Errorf("factors %v, want %g at step %d", got, want, m)
		}
	}
	if f := (samplers.Config{Kind: "mala"}).NoiseFactors(); f != nil {
		t.Errorf("mala has factors %v", f)
	}
}

// A leapfrog step of length ε goes as far as a Langevin step of size ε²/2.
func TestRungStepSizes(t *testing.T) {
	betas := []float64{0, 0.25, 1}
	reference := []float64{2}
	got := samplers.Config{Kind: "hmc"}.RungStepSizes(0.2, betas, reference)
	want := samplers.StepSizes(0.02, betas, reference)
	for k := range got {
		if math.Abs(got[k]*got[k]/2-want[k]) > 1e-12 {
			t.Errorf("rung %d: %g, want %g", k, got[k], math.Sqrt(2*want[k]))
		}
	}
	if got[2] != 0.2 {
		t.Errorf("the target rung has %.17g, want 0.2 to the last bit", got[2])
	}
}
