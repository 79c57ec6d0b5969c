package samplers

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/kelvin-ebm/kelvin/pkg/integrators"
	"github.com/kelvin-ebm/kelvin/pkg/interpolants"
)

// Kind describes a kind of sampler, for documentation and `config explain`.
type Kind struct {
	Name    string // the value of `kind`
	Doc     string // one sentence
	Formula string // a step
	Source  string // where it comes from
	Params  []KindParam
}

// KindParam describes an option of a kind.
type KindParam struct {
	Key     string // its YAML key
	Doc     string
	Default string // as written in YAML, in words where something else decides
	value   any    // the default; nil where there is none to fill in
}

// Kinds describes every kind of sampler, in the order of documentation. The caller owns the result.
func Kinds() []Kind {
	option := func(key, doc string, value any) KindParam {
		text, _ := json.Marshal(value)
		if s, ok := value.(string); ok {
			text = []byte(s)
		}
		return KindParam{key, doc, string(text), value}
	}
	follows := func(key, doc, words string) KindParam { return KindParam{Key: key, Doc: doc, Default: words} }
	steps := func(n int) KindParam { return option("steps", "chain steps a scan, or of a run", n) }
	size := func(doc string, eps float64) KindParam {
		return option("step_size", doc+"; a number or a schedule", eps)
	}
	langevinSize := size("ε", 0.005)
	box := follows("box", "[lo, hi] of every coordinate: restricts the law to it, by rejecting proposals outside", "none")
	accept := func(kind string) KindParam {
		return follows("target_accept", "share of proposals taken that step sizes adapt to, in [0, 1); 0: they stay. Chains without swaps adapt in their burn-in, and only where this is set",
			fmt.Sprint(usualAccept(kind)))
	}
	leapfrogs := []KindParam{steps(5), size("ε, length of a leapfrog step", 0.1), option("leapfrog_steps", "leapfrog steps L a proposal", 10)}
	const torchEBM = "TorchEBM 0.8.9, "
	return []Kind{
		{"mala", "Langevin proposals with a Metropolis test: exact.", "y = x − ε∇E + √(2ε)z, taken with min(1, π(y)q(x|y)/π(x)q(y|x))",
			"Roberts and Tweedie 1996", []KindParam{steps(5), langevinSize, box, accept("mala")}},
		{"langevin", "Unadjusted Langevin dynamics: every step is taken; cheaper, and biased by its step size.", "x ← x − ε∇E + s√(2ε)z",
			torchEBM + "LangevinDynamics", []KindParam{
				steps(5), langevinSize, option("noise_scale", "s, a number or a schedule; s² is the temperature", 1.0),
				option("integrator", "how a step follows the drift: "+strings.Join(integrators.SDENames(), ", "), "euler_maruyama"),
				follows("clamp", "[lo, hi]: cut every coordinate off there after a step, which changes the law", "none"),
				follows("box", "[lo, hi] of every coordinate: restricts the law to it, by walls that reflect; not with clamp", "none"),
			}},
		{"hmc", "Hamiltonian Monte Carlo: proposals from afar with a Metropolis test.", "(x, p) → L leapfrog steps of H = E + ½Σp²/m, taken with min(1, exp(H − H*))",
			torchEBM + "HamiltonianMonteCarlo; Duane et al. 1987; Neal 2011", append(slices.Clone(leapfrogs),
				option("mass", "m: a positive number, or one for each coordinate", Mass{1}), box, accept("hmc"))},
		{"rmhmc", "Hamiltonian Monte Carlo with a mass that depends on the place.", "H = E + ½ pᵀG(x)⁻¹p + ½ log|G(x)|, by the generalised leapfrog",
			torchEBM + "RiemannianManifoldHMC; Girolami and Calderhead 2011", append(slices.Clone(leapfrogs),
				option("metric", "G(x); quadratic: diag(1 + g·x²)", "quadratic"),
				option("metric_strength", "g, 0 or more", 1.0),
				option("solver_steps", "rounds of the fixed-point iteration for an implicit equation", 8), accept("rmhmc"))},
		{"annealed_langevin", "Langevin dynamics that cools from a high temperature, level by level.",
			"x ← x − ε∇E + s√(2ε)z with s = σᵢ/σ_min: the score −∇E/s² with the step εs² ∝ σᵢ²",
			"Song and Ermon 2019", []KindParam{
				steps(100), langevinSize, option("noise_scale", "factor of every level's s, a number or a schedule", 1.0),
				option("sigma_max", "noise level of the first steps", 3.0), option("sigma_min", "noise level of the last steps", 1.0),
				option("levels", "number of levels, in geometric progression; each has steps/levels steps", 10),
			}},
		{"gradient_descent", "Plain descent to a minimum of E: an optimiser, not a sampler of exp(−E).", "x ← x − ε∇E",
			torchEBM + "GradientDescentSampler", []KindParam{steps(100), langevinSize}},
		{"nesterov", "Accelerated descent to a minimum of E: an optimiser, not a sampler of exp(−E).", "v ← μv − ε∇E(x + μv), x ← x + v",
			torchEBM + "NesterovSampler; Nesterov 1983", []KindParam{steps(100), langevinSize, option("momentum", "μ, in [0, 1)", 0.9)}},
		{"flow", "Carries noise at t = 0 to data at t = 1 along a field: the sampler of velocity, score and noise models.",
			"dx = v dt (ode) or dx = (v + D s) dt + √(2D) dW (sde)", torchEBM + "FlowSampler; Ma et al. 2024", []KindParam{
				follows("steps", "equal steps from noise to data; an adaptive integrator only begins with their size", "50, with mode: sde 250"),
				option("mode", "ode or sde", "ode"),
				follows("interpolant", "the path that the field was trained on: "+strings.Join(interpolants.KindNames(), ", "), "linear"),
				option("prediction", "what the field gives: velocity, score or noise", "velocity"),
				follows("integrator", "any scheme; with mode: sde one of "+strings.Join(integrators.SDENames(), ", "), "dopri5, with mode: sde euler_maruyama"),
				follows("sample_eps", "distance to keep from the ends of [0, 1] where the field's prediction has no limit there", "0.001, for velocities 0"),
				option("negate_velocity", "the velocity is −f: a field trained by equilibrium matching", false),
				follows("time_invariant", "with negate_velocity: show the field time 0 always", "true"),
				follows("duration", "with negate_velocity, ode: how long to follow the field, which does not know the time; data are near after about 1/ct_multiplier, and much later only the field's zeros are left", "1"),
				option("reverse", "from data to noise (ode)", false),
				follows("atol", "adaptive integrators: error a step allowed whatever the state", "1e-6"),
				follows("rtol", "adaptive integrators: error a step allowed as a part of the state", "1e-3"),
				follows("norm", "adaptive integrators: batch for one step size for all rows, row for one a row, which then does not depend on the others", "batch"),
				follows("safety", "adaptive integrators: factor on every new step size, in (0, 1)", "0.9"),
				follows("min_factor", "adaptive integrators: a step size shrinks by this much at once, at most; in (0, 1)", "0.2"),
				follows("max_factor", "adaptive integrators: and grows by this much; more than 1", "10"),
				follows("max_step_size", "adaptive integrators: largest step size", "none"),
				follows("max_steps", "adaptive integrators: attempts before giving up", "10000"),
				follows("diffusion_form", "D(t) of mode: sde, one of "+strings.Join(interpolants.DiffusionForms(), ", "), "sigma"),
				follows("diffusion_norm", "factor of D(t), positive", "1"),
				follows("last_step", "how mode: sde ends: "+strings.Join(LastSteps(), ", "), "tweedie"),
				follows("last_step_size", "time before t = 1 at which the last step begins, in (0, 1)", "0.04"),
				follows("label", "label of every sample, for a conditional field", "the null label"),
				follows("guidance_scale", "w of classifier-free guidance f(∅) + w(f(y) − f(∅)), for samples with labels", "1"),
				option("compat", "torchebm: the time intervals, guards and reversal of TorchEBM 0.8.9, for comparison; none is ours", "none"),
			}},
	}
}

// KindNames are the names that Config.Kind knows.
func KindNames() []string {
	var out []string
	for _, k := range Kinds() {
		out = append(out, k.Name)
	}
	return out
}

func findKind(name string) (Kind, error) {
	kinds := Kinds()
	i := slices.IndexFunc(kinds, func(k Kind) bool { return k.Name == name })
	if i < 0 {
		return Kind{}, fmt.Errorf("kind: %q, want one of %s", name, strings.Join(KindNames(), ", "))
	}
	return kinds[i], nil
}

func (k Kind) has(key string) bool {
	return slices.ContainsFunc(k.Params, func(p KindParam) bool { return p.Key == key })
}

func (k Kind) keys() []string {
	out := []string{"kind"}
	for _, p := range k.Params {
		out = append(out, p.Key)
	}
	return out
}
