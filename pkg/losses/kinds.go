package losses

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/kelvin-ebm/kelvin/pkg/couplings"
	"github.com/kelvin-ebm/kelvin/pkg/interpolants"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

// Kind describes a kind of loss, for documentation and `config explain`.
type Kind struct {
	Name    string // the value of `kind`
	Doc     string // one sentence or two
	Formula string // what is minimised; means are over the batch
	Source  string // where it comes from
	Params  []KindParam
}

// KindParam describes an option of a kind.
type KindParam struct {
	Key     string // its YAML key
	Doc     string
	Default string // as written in YAML, in words where something else decides
	value   any    // the default, or a func(Config) any; nil where there is none to fill in
}

var contrastiveKinds = []string{"parallel_tempering_cd", "persistent_cd", "contrastive_divergence"}

// Kinds describes every kind of loss, in the order of documentation. The caller owns the result.
func Kinds() []Kind {
	const torchEBM = "TorchEBM 0.8.9, "
	option := func(key, doc string, value any) KindParam {
		text, _ := json.Marshal(value)
		switch v := value.(type) {
		case string:
			text = []byte(v)
		case schedules.Config:
			text = fmt.Append(nil, v.Start)
		}
		return KindParam{key, doc, string(text), value}
	}
	// What the penalties weigh differs: see Penalties.
	penalties := func(energy, gradient, byDefault string) []KindParam {
		return []KindParam{{Key: "energy_penalty", Doc: "weight of mean " + energy, Default: byDefault},
			{Key: "gradient_penalty", Doc: "weight of mean " + gradient, Default: "0"}}
	}
	ofChains := func(byDefault string) []KindParam {
		return penalties("f² over the data plus mean f² over the negatives, with f of E = f − log q", "‖∇E‖² over the data", byDefault)
	}
	ofEither := penalties("f² over the data, with f of E = f − log q; for a field f at time 0, of mean (x·f)²", "‖∇E‖² over the data; for a field f at time 0, of mean ‖f‖²", "0")
	ofVelocity := penalties("(xₜ·f(xₜ, t))² over the xₜ and t of the loss", "‖f(xₜ, t)‖² over the xₜ and t of the loss", "0")
	const where = ", at the data and time 0; with time_invariant: false, at the xₜ and t of the loss"
	ofEquilibria := penalties("E², with E of the energy_type, or x·f with none"+where+"; for an energy, of mean f² over the data, with f of E = f − log q",
		"‖∇E‖², with E of the energy_type, or ‖f‖² with none"+where, "0")
	ofEnergy := penalties("f² over the data, plus mean f² over the negatives at steps that run chains, with f of E = f − log q", "‖∇E‖² over the data", "0")
	labels := KindParam{Key: "label_dropout", Doc: "probability that a row's label counts as missing, in [0, 1]", Default: "0"}
	noise := KindParam{Key: "data_noise", Doc: "standard deviation of Gaussian noise added to the data", Default: "0"}
	compat := func(doc string) KindParam {
		return KindParam{Key: "compat", Doc: "torchebm: " + doc, Default: "none"}
	}
	path := func(coupling string) []KindParam {
		return []KindParam{
			{"interpolant", "path from noise to data, one of " + strings.Join(interpolants.KindNames(), ", ") + "; a word, or {kind: …} with options", "linear", interpolants.Config{Kind: "linear"}},
			{"coupling", "which noise goes with which row of data, one of " + strings.Join(couplings.KindNames(), ", ") + "; a word, or {kind: …} with options", coupling, couplings.Config{Kind: coupling}},
			option("train_eps", "times are drawn from [train_eps, 1 − train_eps], in [0, 0.5)", 0.0),
			option("t_sampler", "law of the times: uniform, or lognormal: 1/(1 + exp(t_p_std·z + t_p_mean)), z normal", "uniform"),
			option("t_p_mean", "lognormal: mean of the logarithm of (1 − t)/t", -1.2),
			option("t_p_std", "lognormal: its standard deviation, positive", 1.2),
		}
	}
	return []Kind{
		{"parallel_tempering_cd", "Contrastive divergence with negatives from the target rung of tempered chains, which cross barriers.",
			"mean E(x⁺) − mean E(x⁻)", "Desjardins et al. 2010; named in TorchEBM's introduction", append(ofChains("0.0001"), noise)},
		{"persistent_cd", "Contrastive divergence with negatives from chains that go on from step to step.",
			"mean E(x⁺) − mean E(x⁻)", torchEBM + "PersistentContrastiveDivergence; Tieleman 2008", append(ofChains("0.0001; 0.001 with compat: torchebm"), noise,
				compat("a ring buffer whose starts are copies, with jitter in place of fresh starts"))},
		{"contrastive_divergence", "Contrastive divergence with negatives from short chains that start at the data.",
			"mean E(x⁺) − mean E(x⁻)", torchEBM + "ContrastiveDivergence; Hinton 2002", append(ofChains("0.0001"), noise)},
		{"score_matching", "Score matching by the trace of the Hessian: no negatives, no normaliser; costs a pass a coordinate, or a probe.",
			"mean ½‖∇E‖² − tr ∇²E", torchEBM + "ScoreMatching; Hyvärinen 2005; Hutchinson 1989", slices.Concat(ofEither, []KindParam{labels,
				option("hessian_method", "exact: every coordinate; hutchinson: tr ∇²E ≈ vᵀ∇²E v with random probes v", "exact"),
				option("n_probes", "hutchinson: probes a row, at least 1", 1),
				{"probe_type", "hutchinson: rademacher (±1, the smaller variance) or gaussian", "rademacher; gaussian with compat: torchebm", func(c Config) any {
					if c.Compat == "torchebm" {
						return "gaussian"
					}
					return "rademacher"
				}},
				compat("hutchinson by a difference quotient with step 1e-5, divided by the dimension: its optimum is wrong by that factor, and float32 loses its digits"),
			})},
		{"sliced_score_matching", "Score matching along random directions.",
			"mean ½(v·∇E)² − vᵀ∇²E v; variance_reduced: mean ½‖∇E‖² − vᵀ∇²E v", torchEBM + "SlicedScoreMatching; Song et al. 2019", slices.Concat(ofEither, []KindParam{labels,
				option("n_projections", "directions a row, at least 1", 5),
				option("projection_type", "law of v: rademacher (±1), gaussian, or sphere, of length √dim", "rademacher"),
				option("variance_reduced", "take the first term as its mean over v", false),
			})},
		{"denoising_score_matching", "The score of the data with noise, learnt from the noise: one network pass and its gradient. With sigma_min, sigma_max and levels one energy learns the mixture of all noise levels.",
			"mean ½‖∇E(x + σz) − z/σ‖², times σ² with weighting: sigma2", torchEBM + "DenoisingScoreMatching; Vincent 2011; many levels after Li, Chen and Sommer 2019, sigma2 as in Song and Ermon 2019", slices.Concat(ofEither, []KindParam{labels,
				option("sigma", "standard deviation of the noise, positive; a number or a schedule over training steps", schedules.Constant(0.1)),
				{Key: "sigma_min", Doc: "smallest of many noise levels; replaces sigma", Default: "one level"},
				{Key: "sigma_max", Doc: "largest of many noise levels", Default: "one level"},
				{"levels", "number of noise levels from sigma_max down to sigma_min, in geometric progression; each row draws one", "10", 10},
				option("weighting", "none: many levels make the law of the data with noise of any level, all alike; sigma2: the levels weigh as their σ², and the large ones swamp the small ones, for the energy is not told the level", "none"),
			})},
		{"equilibrium_matching", "A field without time, or the gradient of an energy, that points from data to noise and vanishes at the data: its equilibria.",
			"mean over coordinates of (f(xₜ) + uₜ c(t))²; prediction noise: w(f − x₀)²; score: w(σf + x₀)²", torchEBM + "EquilibriumMatchingLoss; Wang and Du 2025", slices.Concat(ofEquilibria, []KindParam{labels}, path("independent"), []KindParam{
				option("prediction", "what the field gives: velocity (the descent direction), score or noise", "velocity"),
				option("energy_type", "velocity: none compares f itself; dot (also called mean) the gradient of x·f, l2 that of −½‖f‖²", "none"),
				option("loss_weight", "score, noise: none, velocity ((w/σ)²) or likelihood (w/σ²), with w = (α̇/α)σ² − σσ̇", "none"),
				option("ct", "c(t)/ct_multiplier: truncated min(1, (1 − t)/(1 − ct_threshold)), linear 1 − t, or constant 1", "truncated"),
				option("ct_threshold", "truncated: time from which c falls, in (0, 1)", 0.8),
				option("ct_multiplier", "factor of c(t), positive", 4.0),
				{"time_invariant", "show the field time 0 always", "true with prediction: velocity, else false", func(c Config) any {
					return c.Prediction == "velocity" || c.Compat == "torchebm"
				}},
				option("dispersion", "add a term that spreads the field's last hidden layer", false),
				option("dispersion_weight", "its weight", 0.5),
				compat("prediction score or noise with time_invariant: true, which is its default then and is refused otherwise"),
			})},
		{"flow_matching", "A velocity that carries noise to data.",
			"mean over coordinates of (f(xₜ, t) − uₜ)²", torchEBM + "FlowMatchingLoss; Lipman et al. 2023", slices.Concat(ofVelocity, []KindParam{labels}, path("independent"), []KindParam{
				option("negate_velocity", "learn −uₜ, which points from data to noise as an energy's gradient does", false),
			})},
		{"energy_matching", "An energy whose gradient carries noise to data, and whose Boltzmann law is the data's near them. Train with lambda_cd: 0 first.",
			"mean w(t)(∇E(xₜ) + uₜ)² + max(lambda_cd·(mean E(x) − trimmed mean E(x⁻)), −cd_clamp)", torchEBM + "EnergyMatchingLoss; Balcerak et al. 2025", slices.Concat(ofEnergy, path("exact_ot"), []KindParam{
				option("sigma", "standard deviation of noise added to xₜ, 0 or more; a number or a schedule over training steps", schedules.Constant(0.1)),
				option("flow_weight_cutoff", "time from which w falls from 1 to 0 at t = 1; 1 or more keeps it at 1", 0.8),
				option("lambda_cd", "weight of the contrastive part, 0 or more; a number or a schedule over training steps", schedules.Constant(2)),
				option("epsilon_max", "temperature of the Boltzmann law, 0 or more", 0.15),
				option("tau_star", "chains from noise: part of their way before the temperature rises from 0, in [0, 1)", 0.8),
				option("n_langevin_steps", "steps of a chain, at least 1", 200),
				option("langevin_dt", "step size of a chain, positive", 0.01),
				option("noise_fraction", "share of the chains that start from noise, the others from data, in [0, 1]", 0.5),
				option("cd_trim_fraction", "share of the negatives with the highest energies that is left out, in [0, 1)", 0.1),
				option("cd_clamp", "the contrastive part is at least −cd_clamp, and has no gradient there; a negative number for no bound", 0.02),
			})},
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

func findKind(name string) (Kind, bool) {
	kinds := Kinds()
	i := slices.IndexFunc(kinds, func(k Kind) bool { return k.Name == name })
	if i < 0 {
		return Kind{}, false
	}
	return kinds[i], true
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

// words are the keys that take one of a few words.
var words = []struct {
	key string
	of  []string
}{
	{"hessian_method", []string{"exact", "hutchinson"}},
	{"probe_type", []string{"rademacher", "gaussian"}},
	{"projection_type", []string{"rademacher", "gaussian", "sphere"}},
	{"weighting", []string{"none", "sigma2"}},
	{"t_sampler", []string{"uniform", "lognormal"}},
	{"prediction", []string{"velocity", "score", "noise"}},
	{"energy_type", []string{"none", "dot", "mean", "l2"}},
	{"loss_weight", []string{"none", "velocity", "likelihood"}},
	{"ct", []string{"truncated", "linear", "constant"}},
}

// Words are the words that a key takes, nil for a key that takes others.
func Words(key string) []string {
	for _, w := range words {
		if w.key == key {
			return slices.Clone(w.of)
		}
	}
	return nil
}

// numbers are the keys with a bounded number.
var numbers = []struct {
	key, want string
	good      func(v float64) bool
}{
	{"n_probes", "at least 1", atLeast1},
	{"n_projections", "at least 1", atLeast1},
	{"levels", "at least 2", func(v float64) bool { return v >= 2 }},
	{"sigma_min", "a positive number", positive},
	{"sigma_max", "a positive number", positive},
	{"train_eps", "a value in [0, 0.5)", func(v float64) bool { return v >= 0 && v < 0.5 }},
	{"t_p_mean", "a finite number", finite},
	{"t_p_std", "a positive number", positive},
	{"ct_threshold", "a value in (0, 1)", func(v float64) bool { return v > 0 && v < 1 }},
	{"ct_multiplier", "a positive number", positive},
	{"dispersion_weight", "0 or more", notNegative},
	{"flow_weight_cutoff", "0 or more", notNegative},
	{"epsilon_max", "0 or more", notNegative},
	{"tau_star", "a value in [0, 1)", func(v float64) bool { return v >= 0 && v < 1 }},
	{"n_langevin_steps", "at least 1", atLeast1},
	{"langevin_dt", "a positive number", positive},
	{"noise_fraction", "a value in [0, 1]", func(v float64) bool { return v >= 0 && v <= 1 }},
	{"cd_trim_fraction", "a value in [0, 1)", func(v float64) bool { return v >= 0 && v < 1 }},
	{"cd_clamp", "a finite number", finite},
}

func finite(v float64) bool      { return math.Abs(v) <= math.MaxFloat64 }
func atLeast1(v float64) bool    { return v >= 1 }
func positive(v float64) bool    { return v > 0 && v <= math.MaxFloat64 }
func notNegative(v float64) bool { return v >= 0 && v <= math.MaxFloat64 }
