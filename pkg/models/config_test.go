package models_test

import (
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/kelvin-ebm/kelvin/pkg/models"
)

func check(t *testing.T, err error, want []string) {
	t.Helper()
	if len(want) == 0 {
		if err != nil {
			t.Errorf("error %q, want none", err)
		}
		return
	}
	if err == nil {
		t.Fatalf("no error, want %q", want)
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(want) {
		t.Errorf("%d faults, want %d:\n%v", len(lines), len(want), err)
	}
	for i, line := range lines {
		if i < len(want) && !strings.HasPrefix(line, want[i]) {
			t.Errorf("fault %q, want it to start with %q", line, want[i])
		}
	}
}

func TestConfigFaults(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []string
	}{
		{"an mlp", "{kind: mlp}", nil},
		{"all of an mlp", "{kind: mlp, hidden: [8], activation: tanh, init: normal, init_std: 0.1, spectral_norm: true, base: none, dim: 3}", nil},
		{"nothing", "{}", []string{`kind: "", want one of mlp, `}},
		{"unknown kind", "{kind: mpl}", []string{`kind: "mpl", want one of mlp, `}},
		{"keys of other kinds", "{kind: harmonic, hidden: [3], base: gaussian, k: 2, h: 1, spectral_norm: false}", []string{
			"base: not an option of kind harmonic, want one of kind, dim, k", "hidden: not an option", "spectral_norm: not an option", "h: not an option"}},
		{"every fault at once", "{kind: mlp, hidden: [3, 0], activation: sin, init: cold, base: cauchy, k: 1}", []string{
			"k: not an option of kind mlp", `base: "cauchy", want one of none, gaussian`, "hidden: layer 1 has width 0, want at least 1",
			`activation: "sin", want one of elu, gelu, leaky_relu, relu, silu, softplus, tanh`, `init: "cold", want one of torch, `}},
		{"no layers", "{kind: mlp, hidden: []}", []string{"hidden: empty"}},
		{"deviation without its rule", "{kind: mlp, init_std: 0.1}", []string{"init_std: 0.1, want init: normal"}},
		{"deviation of zero", "{kind: mlp, init: normal, init_std: 0}", []string{"init_std: 0, want a positive number"}},
		{"zeros that cannot be normalised", "{kind: mlp, zero_last: true, spectral_norm: true}", []string{"zero_last: a layer of zeros"}},
		{"negative dimension", "{kind: mlp, dim: -1}", []string{"dim: -1, want at least 1"}},
		{"a transformer", "{kind: transformer, image: [3, 8, 4], preset: dit_s_2, embed_dim: 32, depth: 1, num_heads: 2, mlp_ratio: 2, cond_dim: 5, head_dim: 4, head_depth: 1, head_num_heads: 1, pos_embed: learnable, time_scale: 1, time_frequencies: 16, num_classes: 3}", nil},
		{"a transformer as an energy", "{kind: transformer, energy: mean, base: gaussian}", nil},
		{"every fault of a transformer", "{kind: transformer, image: [1, 8, 6], patch_size: 4, embed_dim: 6, depth: 0, num_heads: 4, mlp_ratio: 0, cond_dim: 0, head_dim: 0, pos_embed: rope, time_scale: 0, time_frequencies: 1, num_classes: -1, energy: sum, preset: dit_m_2}", []string{
			`energy: "sum", want one of none, dot, mean, l2`, `preset: "dit_m_2", want one of dit_s_2, `, "cond_dim: 0, want at least 1", "head_dim: 0, want at least 1", "time_frequencies: 1, want at least 2", "time_scale: 0, want a positive number",
			"num_classes: -1, want at least 0", "patch_size: 4, want a divisor of the image's sides 8 and 6", "depth: 0, want at least 1", "num_heads: 4, want a divisor of embed_dim, 6",
			"mlp_ratio: 0, want a positive number", `pos_embed: "rope", want one of sincos, learnable, none`}},
		{"positions that do not fit", "{kind: transformer, embed_dim: 6, num_heads: 2}", []string{"pos_embed: sincos with embed_dim 6, want a multiple of 4"}},
		{"heads before the head", "{kind: transformer, head_dim: 6, head_depth: 1}", []string{"head_num_heads: 4, want a divisor of head_dim, 6"}},
		{"two numbers for an image", "{kind: transformer, image: [8, 8]}", []string{"image: 2 numbers, want three"}},
		{"a base for a field", "{kind: time_mlp, base: gaussian}", []string{"base: gaussian with energy: none"}},
		{"every fault of a time_mlp", "{kind: time_mlp, hidden_dim: 0, depth: -1, mlp_ratio: .nan, cond_dim: 0, activation: sin, patch_size: 2}", []string{
			"patch_size: not an option of kind time_mlp", "hidden_dim: 0, want at least 1", "depth: -1, want at least 1", "cond_dim: 0, want at least 1", "mlp_ratio: NaN", `activation: "sin"`}},
		{"side by side", "{kind: time_mlp, conditioning: concat, cond_dim: 0}", nil},
		{"a ratio of no block", "{kind: time_mlp, conditioning: concat, mlp_ratio: 2}", []string{"mlp_ratio: 2, want conditioning: adaln_zero"}},
		{"labels without a vector", "{kind: time_mlp, conditioning: concat, cond_dim: 0, num_classes: 3}", []string{"cond_dim: 0 with 3 labels"}},
		{"another conditioning", "{kind: time_mlp, conditioning: film}", []string{`conditioning: "film", want one of adaln_zero, concat`}},
		{"a perceptron on state and time", "{kind: field_mlp, hidden: [3], init: normal, zero_last: true, energy: l2, base: gaussian}", nil},
		{"a mixture to train", "{kind: mixture, means: [[0, 0], [1, 2]], logits: [-1], std: 0.5, dim: 2}", nil},
		{"every fault of a mixture", "{kind: mixture, means: [[0, 0], [1]], logits: [.nan, 0], std: 0, base: gaussian, stds: [1]}", []string{
			"base: not an option of kind mixture", "stds: not an option of kind mixture", "means: point 1 has 1 coordinates, want 2", "logits: 2 numbers, want 1, one for each of means but the last",
			"logits: element 0 is NaN, want a finite number", "std: 0, want a positive number"}},
		{"a mixture of nothing to train", "{kind: mixture}", []string{"means: empty, want at least one point"}},
		{"a logit of one", "{kind: mixture, means: [[0]], logits: [1]}", []string{"logits: 1 numbers, want 0"}},
		{"steepness", "{kind: double_well, h: 0, b: .nan}", []string{"h: 0, want a positive number", "b: NaN, want a finite number"}},
		{"tilt", "{kind: double_well_tilted, a: -1, c: .inf}", []string{"a: -1, want a positive number", "c: +Inf, want a finite number"}},
		{"stiffness", "{kind: harmonic, k: -1}", []string{"k: -1, want a positive number"}},
		{"a valley on the line", "{kind: rosenbrock, dim: 1, b: 0}", []string{"dim: 1, want at least 2", "b: 0, want a positive number"}},
		{"funnel", "{kind: ackley, a: 0, b: 0, c: .nan}", []string{"a: 0", "b: 0", "c: NaN"}},
		{"ripples", "{kind: rastrigin, a: -1}", []string{"a: -1, want 0 or more"}},
		{"himmelblau in space", "{kind: himmelblau, dim: 3}", []string{"dim: 3 by dim, but 2 by kind himmelblau: want the same"}},
		{"gaussian of nothing", "{kind: gaussian}", []string{"mean: empty"}},
		{"gaussian without covariance", "{kind: gaussian, mean: [0, 0]}", []string{"cov: 0 rows, want 2"}},
		{"covariance of another size", "{kind: gaussian, mean: [0, 0], cov: [[1, 0], [0]]}", []string{"cov: row 1 has 1 elements, want 2"}},
		{"asymmetric covariance", "{kind: gaussian, mean: [0, 0], cov: [[1, 0.5], [0.4, 1]]}", []string{"cov: element (0, 1) is 0.5, but (1, 0) is 0.4: want a symmetric matrix"}},
		{"indefinite covariance", "{kind: gaussian, mean: [0, 0], cov: [[1, 2], [2, 1]]}", []string{"cov: not positive definite"}},
		{"singular covariance", "{kind: gaussian, mean: [0, 0], cov: [[1, 1], [1, 1]]}", []string{"cov: not positive definite"}},
		{"NaN in a covariance", "{kind: gaussian, mean: [.nan], cov: [[.inf]]}", []string{"mean: element 0 is NaN", "cov: element (0, 0) is +Inf"}},
		{"gaussian of another dimension", "{kind: gaussian, dim: 3, mean: [0, 0], cov: [[1, 0], [0, 1]]}", []string{"dim: 3 by dim, but 2 by kind gaussian"}},
		{"mixture of nothing", "{kind: gaussian_mixture}", []string{"means: empty"}},
		{"ragged mixture", "{kind: gaussian_mixture, means: [[0, 0], [1]], weights: [1, 0], stds: [1, 1, -2]}", []string{
			"means: point 1 has 1 coordinates, want 2", "weights: element 1 is 0", "stds: 3 numbers, want 2", "stds: element 2 is -2"}},
		{"mixture of points without coordinates", "{kind: gaussian_mixture, means: [[]]}", []string{"means: point 0 has no coordinates"}},
		{"mixture at infinity", "{kind: gaussian_mixture, means: [[.inf, 0]]}", []string{"means: point 0 is [+Inf 0], want finite numbers"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var c models.Config
			if err := yaml.UnmarshalWithOptions([]byte(tc.text), &c, yaml.Strict()); err != nil {
				t.Fatal(err)
			}
			err := c.Validate()
			check(t, err, tc.want)
			if e, buildErr := c.Build(0); err != nil && (buildErr == nil || e != nil) {
				t.Errorf("a faulty section builds %v", e)
			}
		})
	}
}

func TestBuildPicksTheDimension(t *testing.T) {
	gaussian := models.Config{Kind: "gaussian", Mean: []float64{0}, Cov: [][]float64{{1}}}
	for _, tc := range []struct {
		name string
		c    models.Config
		data int
		want int
		err  string
	}{
		{"the data say", models.Config{Kind: "mlp"}, 3, 3, ""},
		{"the section says", models.Config{Kind: "harmonic", Dim: 4}, 0, 4, ""},
		{"both say the same", models.Config{Kind: "harmonic", Dim: 4}, 4, 4, ""},
		{"they differ", models.Config{Kind: "harmonic", Dim: 4}, 3, 0, "dim: 4 by dim, but 3 by the data: want the same"},
		{"nobody says", models.Config{Kind: "harmonic"}, 0, 0, "dim: missing"},
		{"negative data", models.Config{Kind: "harmonic"}, -1, 0, "dim: -1"},
		{"the parameters say", gaussian, 0, 1, ""},
		{"the parameters differ from the data", gaussian, 2, 0, "dim: 1 by kind gaussian, but 2 by the data"},
		{"a kind of the plane", models.Config{Kind: "booth"}, 0, 2, ""},
		{"a kind of the plane for other data", models.Config{Kind: "booth"}, 64, 0, "dim: 2 by kind booth, but 64 by the data"},
		{"a valley for data on the line", models.Config{Kind: "rosenbrock"}, 1, 0, "rosenbrock: dim: 1, want at least 2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e, err := tc.c.Build(tc.data)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) || e != nil {
					t.Errorf("%v, error %v, want none and %q", e, err, tc.err)
				}
			} else if err != nil || e.Dim() != tc.want {
				t.Errorf("error %v, dimension wrong or unknown, want %d", err, tc.want)
			}
		})
	}
}

func TestNewReadsParameters(t *testing.T) {
	e := must(t)(models.New("double_well", 1, map[string]any{"h": "3.5", "b": json.Number("1.4")}))
	if got, want := energies(t, e, [][]float64{{0.3}})[0], 3.5*math.Pow(0.09-1.96, 2); !near(got, want, 1e-12) {
		t.Errorf("E(0.3) = %g, want %g", got, want)
	}
	e = must(t)(models.New("gaussian", 0, map[string]any{"mean": "[1, 2]", "cov": "[[2, 0], [0, 1]]"}))
	if got := energies(t, e, [][]float64{{3, 3}})[0]; !near(got, 1.5, 1e-12) {
		t.Errorf("E = %g, want 1.5", got)
	}
	e = must(t)(models.New("mlp", 2, map[string]any{"hidden": []any{4.0}, "activation": "relu", "spectral_norm": "true"}))
	if models.NumParams(e) != 17 {
		t.Errorf("%d parameters, want 17", models.NumParams(e))
	}
	for _, tc := range []struct {
		name, kind string
		params     map[string]any
		want       string
	}{
		{"unknown energy", "dubble_well", nil, `models: "dubble_well", want one of mlp, `},
		{"unknown parameter", "double_well", map[string]any{"height": 2}, "models: double_well: height: not an option of double_well, want one of dim, h, b"},
		{"text for a number", "double_well", map[string]any{"h": "tall"}, "h: tall, want a number"},
		{"list for a number", "double_well", map[string]any{"h": []int{1}}, "h: [1], want a number"},
		{"number for a list", "mlp", map[string]any{"hidden": 3}, "hidden: 3, want a list of numbers"},
		{"number for a matrix", "gaussian", map[string]any{"mean": "[1]", "cov": 3}, "cov: 3, want a list of lists"},
		{"number for a flag", "mlp", map[string]any{"spectral_norm": 3}, "spectral_norm: 3, want true or false"},
		{"number for text", "mlp", map[string]any{"activation": 3}, "activation: 3, want text"},
		{"half a dimension", "harmonic", map[string]any{"dim": 2.5}, "dim: 2.5, want a whole number"},
		{"nothing", "harmonic", map[string]any{"k": nil}, "k: null, want a number"},
		{"not finite", "harmonic", map[string]any{"k": math.Inf(1)}, "k: +Inf, want a number"},
		{"out of range", "harmonic", map[string]any{"k": -1}, "models: k: -1, want a positive number"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := models.New(tc.kind, 2, tc.params); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want it to say %q", err, tc.want)
			}
		})
	}
}

// The defaults of the table must be those of the code, survive YAML, and be complete text.
func TestKindsDescribeTheCode(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range models.Kinds() {
		if k.Doc == "" || k.Formula == "" || k.Source == "" {
			t.Errorf("%s: text is missing: %+v", k.Name, k)
		}
		c := models.Config{Kind: k.Name}
		for _, p := range k.Params {
			seen[p.Key] = true
			if p.Doc == "" {
				t.Errorf("%s.%s has no text", k.Name, p.Key)
			}
		}
		switch k.Name {
		case "gaussian":
			c.Mean, c.Cov = []float64{0, 0}, [][]float64{{1, 0}, {0, 1}}
		case "mixture", "gaussian_mixture":
			c.Means = [][]float64{{0, 1}}
		case "interaction":
			c.Of, c.SigmaW = "harmonic", new(2.0)
		}
		if err := c.Validate(); err != nil {
			t.Errorf("%s: the required options alone: %v", k.Name, err)
		}
		full := c.WithDefaults()
		if again := full.WithDefaults(); !reflect.DeepEqual(again, full) {
			t.Errorf("%s: defaults of defaults differ", k.Name)
		}
		text, err := yaml.Marshal(full)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range k.Params {
			// The data, the experiment or another key decides on these; a 0 is not written.
			open := []string{"dim", "base", "init_std", "weights", "logits", "image", "preset", "cond_dim", "head_dim", "head_depth", "head_num_heads", "num_classes"}
			if k.Name == "time_mlp" {
				open = append(open, "activation")
			}
			if !slices.Contains(open, p.Key) && !strings.Contains(string(text), "\n"+p.Key+": ") {
				t.Errorf("%s: %s is not written out:\n%s", k.Name, p.Key, text)
			}
		}
		var read models.Config
		if err := yaml.UnmarshalWithOptions(text, &read, yaml.Strict()); err != nil {
			t.Errorf("%s: %v", k.Name, err)
		}
		if !reflect.DeepEqual(read, full) {
			t.Errorf("%s: written and read again it is %+v, want %+v", k.Name, read, full)
		}
		if err := read.Validate(); err != nil {
			t.Errorf("%s: with all defaults written out: %v", k.Name, err)
		}
	}
	for field := range reflect.TypeFor[models.Config]().Fields() {
		key, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if key != "kind" && !seen[key] {
			t.Errorf("no kind has the option %s", key)
		}
	}
	if got := (models.Config{Kind: "mlp", Init: "normal"}).WithDefaults().InitStd; got == nil || *got != 0.02 {
		t.Errorf("init: normal has the deviation %v, want 0.02", got)
	}
	if got := (models.Config{Kind: "nothing"}).WithDefaults(); !reflect.DeepEqual(got, models.Config{Kind: "nothing"}) {
		t.Errorf("an unknown kind got the defaults %+v", got)
	}
}

// Defaults handed out must not be shared.
func TestDefaultsAreNotShared(t *testing.T) {
	models.Config{Kind: "mlp"}.WithDefaults().Hidden[0] = 1
	if got := (models.Config{Kind: "mlp"}).WithDefaults().Hidden[0]; got != 64 {
		t.Errorf("a caller changed the default width to %d", got)
	}
}
