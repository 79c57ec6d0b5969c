package models

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
)

// Kind describes a kind of energy or field, for documentation and `config explain`.
type Kind struct {
	Name    string // the value of `kind`
	Doc     string // one sentence
	Formula string // E(x), or f(x, t, y)
	Source  string // where it comes from
	Params  []KindParam
}

// KindParam describes an option of a kind.
type KindParam struct {
	Key     string // its YAML key
	Doc     string
	Default string // as written in YAML; empty where the option is required, in words where something else decides
	value   any    // the default; nil where there is none to fill in
}

// Kinds describes every kind of energy and field, in the order of documentation. The caller owns the result.
func Kinds() []Kind {
	option := func(key, doc string, value any) KindParam {
		text, _ := json.Marshal(value)
		if s, ok := value.(string); ok {
			text = []byte(s)
		}
		return KindParam{key, doc, string(text), value}
	}
	required := func(key, doc string) KindParam { return KindParam{Key: key, Doc: doc} }
	dim := KindParam{Key: "dim", Doc: "number of coordinates", Default: "that of the data"}
	base := KindParam{Key: "base", Doc: "gaussian: E = f − log q with q fitted to the data; none: E = f", Default: "gaussian on a linear path, else none"}
	image := KindParam{Key: "image", Doc: "channels, height and width of a state, which holds them row by row", Default: "[1, s, s] where dim = s²"}
	activation := "one of " + strings.Join(Activations(), ", ")
	perceptron := func() []KindParam {
		return []KindParam{
			dim, base,
			option("hidden", "widths of the hidden layers", []int{64, 64}),
			option("activation", activation, "silu"),
			option("init", "first weights: torch U(±1/√in), biases too; xavier_uniform U(±√(6/(in + out))); kaiming_uniform U(±√(6/in)); normal N(0, init_std²); biases else 0", "torch"),
			option("init_std", "standard deviation of init: normal; no option of the others", 0.02),
			option("zero_last", "start the last layer at 0, so that f = 0 at first", false),
			option("spectral_norm", "divide every weight matrix by its largest singular value (Miyato et al. 2018), by 1024 steps of power iteration", false),
		}
	}
	const (
		depth   = "blocks or hidden layers"
		ratio   = "width of the hidden layer in a block, in units of the block's width"
		condDim = "width of the vector of time and label"
	)
	timeScale := option("time_scale", "multiplies the time, whose frequencies were made for values up to 1000; 1 is TorchEBM's", 1000.0)
	frequencies := option("time_frequencies", "width of the cosines and sines of the time", 256)
	classes := KindParam{Key: "num_classes", Doc: "labels, beside the null label that stands for none", Default: "those of the data where the loss is conditional, else 0"}
	energy := option("energy", "none: a field; dot (or mean): the energy x·f(x, 0); l2: the energy −½|f(x, 0)|²", "none")
	const torchEBM = "TorchEBM 0.8.9, "
	return []Kind{
		{"mlp", "A multilayer perceptron with one output.", "Wₙ φ(… φ(W₁x + b₁) …) + bₙ",
			torchEBM + "the MLPEnergy of its introduction", perceptron()},
		{"conv", "A residual convolutional network for images, one number an image.", "head · Σ φ(h), h from a stem and residual blocks of 3×3 kernels",
			"Du and Mordatch 2019", []KindParam{
				dim, base,
				image,
				option("channels", "channels of each stage; between two stages the image is halved by 2×2 means", []int{32, 64}),
				option("blocks", "residual blocks a stage", 1),
				option("activation", activation, "silu"),
				option("spectral_norm", "divide every kernel, as a matrix [out, in·3·3], by its largest singular value", false),
			}},
		{"mixture", "Round Gaussians of a fixed width whose means and masses are trained: what a sampler makes of separate modes shows in two parameters.",
			"−log Σₖ exp(aₖ − ½‖x − mₖ‖²/std²), the last a at 0", "Kelvin", []KindParam{
				dim, required("means", "first values of the centres m, one list of coordinates each"),
				{Key: "logits", Doc: "first values of the logits a, one for each of means but the last", Default: "all 0: equal masses"},
				option("std", "standard deviation of every Gaussian, not trained", 1.0),
			}},
		{"transformer", "A transformer for images (DiT): a field of state, time and label.", "head(blocks(patches(x), T(t) + Y(y)))",
			torchEBM + "ConditionalTransformer2D and DiT; Peebles and Xie 2023", []KindParam{
				dim, base, image,
				{Key: "preset", Doc: "sizes of the paper, for the keys that are left out: one of " + strings.Join(Presets(), ", "), Default: "none"},
				option("patch_size", "side of the square patches that become tokens", 2),
				option("embed_dim", "width of a token; with pos_embed: sincos a multiple of 4", 64),
				option("depth", depth, 3),
				option("num_heads", "heads of the attention, a divisor of embed_dim", 4),
				option("mlp_ratio", ratio, 4.0),
				{Key: "cond_dim", Doc: condDim, Default: "embed_dim"},
				{Key: "head_dim", Doc: "width of a token before the head", Default: "embed_dim"},
				option("head_depth", "further blocks of that width", 0),
				{Key: "head_num_heads", Doc: "heads of those blocks", Default: "num_heads"},
				option("pos_embed", "how tokens know their place, one of "+strings.Join(PosEmbeds(), ", "), "sincos"),
				timeScale, frequencies, classes, energy,
			}},
		{"time_mlp", "A perceptron that time and label steer: a field.", "head(blocks(x, T(t) + Y(y))), or a perceptron on [x, T(t) + Y(y)]",
			torchEBM + "TimeConditionedMLP", []KindParam{
				dim, base,
				option("conditioning", "how time and label enter: adaln_zero, by blocks that they modulate and that start as the identity; concat, beside the state", "adaln_zero"),
				option("hidden_dim", "width of the hidden layers", 128),
				option("depth", depth, 3),
				option("mlp_ratio", ratio+"; no option of conditioning: concat", 4.0),
				{Key: "activation", Doc: activation, Default: "gelu for adaln_zero, silu for concat"},
				{Key: "cond_dim", Doc: condDim + "; 0 with conditioning: concat ignores the time", Default: "hidden_dim"},
				timeScale, frequencies, classes, energy,
			}},
		{"field_mlp", "A multilayer perceptron on state and time: a field.", "Wₙ φ(… φ(W₁[x, t] + b₁) …) + bₙ",
			"Kelvin", append(perceptron(), energy)},
		{"gaussian", "A Gaussian with any covariance.", "½ (x − mean)ᵀ cov⁻¹ (x − mean)", torchEBM + "GaussianModel", []KindParam{
			dim, required("mean", "mean, one number a coordinate"), required("cov", "covariance, symmetric and positive definite"),
		}},
		{"double_well", "Two equal wells a coordinate, with a barrier h·b⁴.", "h Σ (xᵢ² − b²)²", torchEBM + "DoubleWellModel", []KindParam{
			dim, option("h", "steepness, positive (TorchEBM's barrier_height)", 2.0), option("b", "place of the wells, ±b", 1.0),
		}},
		{"double_well_tilted", "Two wells of unequal depth a coordinate: a test of tempering.", "Σ a(xᵢ² − 1)² + c·xᵢ", "Kelvin", []KindParam{
			dim, option("a", "height of the barrier, positive", 10.0), option("c", "tilt", 0.5),
		}},
		{"harmonic", "A round Gaussian with variance 1/k.", "½ k Σ xᵢ²", torchEBM + "HarmonicModel", []KindParam{
			dim, option("k", "stiffness, positive", 1.0),
		}},
		{"rosenbrock", "A narrow curved valley, in at least two dimensions.", "Σ b(xᵢ₊₁ − xᵢ²)² + (a − xᵢ)²", torchEBM + "RosenbrockModel", []KindParam{
			dim, option("a", "place of the minimum", 1.0), option("b", "steepness of the valley, positive", 100.0),
		}},
		{"ackley", "A funnel with ripples; bounded, so it has no normaliser.", "−a exp(−b √mean(xᵢ²)) − exp(mean cos(c·xᵢ)) + a + e",
			torchEBM + "AckleyModel, with gradient 0 at the origin", []KindParam{
				dim, option("a", "depth of the funnel, positive", 20.0), option("b", "its steepness, positive", 0.2),
				{"c", "frequency of the ripples", "2π", 2 * math.Pi},
			}},
		{"rastrigin", "A bowl with a local minimum near every point of the integer grid.", "a·dim + Σ xᵢ² − a cos(2π xᵢ)", torchEBM + "RastriginModel", []KindParam{
			dim, option("a", "height of the ripples, 0 or more", 10.0),
		}},
		{"himmelblau", "Four equal minima in the plane.", "(x₁² + x₂ − 11)² + (x₁ + x₂² − 7)²", torchEBM + "HimmelblauModel", []KindParam{dim}},
		{"booth", "A tilted Gaussian in the plane.", "(x₁ + 2x₂ − 7)² + (2x₁ + x₂ − 5)²", torchEBM + "BoothModel", []KindParam{dim}},
		{"styblinski_tang", "Two wells a coordinate, one 28 units deeper.", "½ Σ xᵢ⁴ − 16xᵢ² + 5xᵢ", torchEBM + "StyblinskiTangModel", []KindParam{dim}},
		{"gaussian_mixture", "A normalised mixture of round Gaussians: log Z = 0 and every mode's mass is known.", "−log Σₖ wₖ N(x; meansₖ, stdsₖ² I)", "Kelvin", []KindParam{
			dim, required("means", "centres, one list of coordinates each"),
			{Key: "weights", Doc: "masses, positive; need not sum to 1", Default: "all equal"},
			option("stds", "standard deviations, one each or one for all", []float64{1}),
		}},
		{kindInteraction, "An analytic energy whose states push each other apart: no accept/reject, no swaps.", "V(xᵢ) − ½ s/σ² Σⱼ ‖xᵢ − xⱼ‖²",
			torchEBM + "InteractionModel", []KindParam{
				dim, required("of", "V, the name of an analytic energy; its options stand beside these"),
				required("sigma_w", "width σ of the interaction, positive"), option("strength", "strength s; below 0 the states attract each other", 1.0),
			}},
	}
}

func findKind(name string) (Kind, bool) {
	kinds := Kinds()
	i := slices.IndexFunc(kinds, func(k Kind) bool { return k.Name == name })
	if i < 0 {
		return Kind{}, false
	}
	return kinds[i], true
}

func kindNames() []string {
	var out []string
	for _, k := range Kinds() {
		out = append(out, k.Name)
	}
	return out
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

// fieldKinds are the names of the kinds that are fields, unless `energy` makes an energy of them.
func fieldKinds() []string { return append(conditionalKinds(), "field_mlp") }

// conditionalKinds are those that know labels.
func conditionalKinds() []string { return []string{"transformer", "time_mlp"} }

// AnalyticKinds are the names of the kinds without parameters to train.
func AnalyticKinds() []string {
	var out []string
	for _, k := range Kinds() {
		if !slices.Contains(append(fieldKinds(), "mlp", "conv", "mixture"), k.Name) {
			out = append(out, k.Name)
		}
	}
	return out
}
