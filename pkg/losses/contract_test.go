package losses_test

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/couplings"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/interpolants"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

// everyLoss are the sections that the contract is checked for: each kind by its defaults, and each option that builds
// another graph. Add a row for a kind of your own.
func everyLoss() map[string]losses.Config {
	out := map[string]losses.Config{
		"score_matching, hutchinson":                   {Kind: "score_matching", HessianMethod: "hutchinson", NProbes: ptr(2)},
		"sliced_score_matching, sphere":                {Kind: "sliced_score_matching", NProjections: ptr(1), ProjectionType: "sphere", VarianceReduced: ptr(true)},
		"denoising_score_matching, many levels":        {Kind: "denoising_score_matching", SigmaMin: ptr(0.1), SigmaMax: ptr(1.0)},
		"equilibrium_matching, dot":                    {Kind: "equilibrium_matching", EnergyType: "dot", CT: "linear"},
		"equilibrium_matching, l2":                     {Kind: "equilibrium_matching", EnergyType: "l2", TSampler: "lognormal"},
		"equilibrium_matching, score, velocity":        {Kind: "equilibrium_matching", Prediction: "score", LossWeight: "velocity", TrainEps: ptr(0.1)},
		"equilibrium_matching, noise, likelihood":      {Kind: "equilibrium_matching", Prediction: "noise", LossWeight: "likelihood", TrainEps: ptr(0.1)},
		"equilibrium_matching, dispersion":             {Kind: "equilibrium_matching", Dispersion: ptr(true), Interpolant: interpolants.Config{Kind: "cosine"}},
		"flow_matching, vp":                            {Kind: "flow_matching", Interpolant: interpolants.Config{Kind: "vp"}},
		"energy_matching without its contrastive part": {Kind: "energy_matching", LambdaCD: schedules.Constant(0), Sigma: schedules.Constant(0.2)},
	}
	for _, k := range losses.Kinds() {
		c := losses.Config{Kind: k.Name}
		if k.Name == "sliced_score_matching" {
			c.NProjections = ptr(2) // fewer than the default make a smaller program
		}
		if !c.Chains() {
			out[k.Name] = c
		}
	}
	for _, kind := range []string{"score_matching", "flow_matching", "energy_matching"} { // one that has ∇E at the data, one that has not, one with negatives
		c := out[kind]
		c.EnergyPenalty, c.GradientPenalty = 0.1, 0.1
		out[kind+", penalties"] = c
	}
	return out
}

// Every loss is a finite scalar with a finite gradient that is not zero, under every model that it says it can use, with
// what it says it needs and nothing else, in both precisions; and it hands labels to a field.
func TestContract(t *testing.T) {
	const batch, dim = 6, 2
	config := models.MLPConfig{Hidden: []int{4}, Activation: "silu", Init: "torch"}
	energy, err := models.NewMLP(dim, config)
	if err != nil {
		t.Fatal(err)
	}
	field, err := models.NewFieldMLP(dim, config)
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		name    string
		loss    losses.Loss
		needs   losses.Needs
		network models.Network
	}
	var rows []row
	every := everyLoss()
	for _, name := range slices.Sorted(maps.Keys(every)) {
		loss, err := every[name].Build()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		needs := loss.Needs(batch, dim)
		if !needs.Field && !needs.Hidden {
			rows = append(rows, row{name + ", energy", loss, needs, energy})
		}
		if !needs.Energy {
			rows = append(rows, row{name + ", field", loss, needs, field})
		}
	}
	wave := func(from, to float64, dims ...int) testutil.Tensor {
		out := testutil.Filled(0, dims...)
		for i := range out.Data {
			out.Data[i] = from + (to-from)*(0.5+0.5*math.Sin(float64(3*i+1)))
		}
		return out
	}
	var in []testutil.Tensor
	for _, r := range rows {
		in = append(in, wave(-2, 2, batch, dim))
		flat := models.InitParams(r.network, 1)
		for _, p := range r.network.Params() {
			in = append(in, testutil.Array(flat[:p.Size()], p.Shape...))
			flat = flat[p.Size():]
		}
		for _, d := range r.needs.Draws {
			if d.Uniform {
				in = append(in, wave(0.01, 0.99, d.Dims...))
			} else {
				in = append(in, wave(-2, 2, d.Dims...))
			}
		}
		for _, s := range r.needs.Scalars {
			in = append(in, testutil.Filled(s.At.At(0)))
		}
		if r.needs.Source {
			in = append(in, wave(-2, 2, batch, dim), wave(0.5, 1.5, batch))
		}
		if r.needs.Chains != nil {
			in = append(in, wave(-2, 2, r.needs.Chains.Rows, dim))
		}
	}
	build := func(in []*Node) (out []*Node) {
		take := func(n int) (head []*Node) {
			head, in = in[:n], in[n:]
			return head
		}
		for _, r := range rows {
			batch := losses.Batch{X: take(1)[0]}
			weights := take(len(r.network.Params()))
			batch.Draws, batch.Scalars = take(len(r.needs.Draws)), take(len(r.needs.Scalars))
			if r.needs.Source {
				batch.Source, batch.Weights = take(1)[0], take(1)[0]
			}
			if r.needs.Chains != nil {
				batch.Negatives = take(1)[0]
			}
			batch.Labels = Const(batch.X.Graph(), []int32{0, 1, 2, 0, 1, 2})
			result := r.loss.Build(withLabels(t, r.name, modelOf(r.network, weights)), batch)
			if !result.Loss.IsScalar() || result.Loss.DType() != batch.X.DType() {
				t.Errorf("%s: a loss of %s, want a scalar of %s", r.name, result.Loss.Shape(), batch.X.DType())
			}
			squares := ScalarZero(batch.X.Graph(), batch.X.DType())
			for _, g := range Gradient(result.Loss, weights...) {
				squares = Add(squares, ReduceAllSum(Square(g)))
			}
			parts := ScalarZero(batch.X.Graph(), batch.X.DType())
			for _, p := range result.Parts {
				parts = Add(parts, p.Value)
			}
			out = append(out, result.Loss, squares, parts)
		}
		return out
	}
	// Float64 by one backend is the measure of float32 by all.
	want := testutil.Eval(t, testutil.Backend(t, backend.Go), dtypes.Float64, in, build)
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		got := testutil.Eval(t, b, dtypes.Float32, in, build)
		for i, r := range rows {
			for _, out := range [][][]float64{want, got} {
				loss, squares, parts := out[3*i][0], out[3*i+1][0], out[3*i+2][0]
				if math.IsNaN(loss+squares+parts) || math.IsInf(loss+squares+parts, 0) || squares == 0 {
					t.Errorf("%s: loss %g, squared norm of its gradient %g, sum of its parts %g: want finite numbers, and a gradient", r.name, loss, squares, parts)
				}
			}
			testutil.Compare(t, r.name, got[3*i], testutil.Array(want[3*i]), testutil.Tolerance{RTol: 2e-4, ATol: 2e-5})
		}
	})
}

// withLabels is a model whose field takes labels [rows], and gives them to nobody.
func withLabels(t *testing.T, name string, m losses.Model) losses.Model {
	inner := func(f models.FieldFn) models.FieldFn {
		if f == nil {
			return nil
		}
		return func(x, at, y *Node) *Node {
			if y == nil || y.Shape().Dimensions[0] != x.Shape().Dimensions[0] {
				t.Errorf("%s: the field gets labels %v for states %s", name, y, x.Shape())
			}
			return f(x, at, nil)
		}
	}
	m.Field, m.Hidden = inner(m.Field), inner(m.Hidden)
	return m
}

// The table of kinds and the section agree, and what Doc promises as default is what an experiment gets.
func TestKinds(t *testing.T) {
	known := map[string]bool{"kind": true}
	fields := map[string]int{}
	for i := range reflect.TypeFor[losses.Config]().NumField() {
		key, _, _ := strings.Cut(reflect.TypeFor[losses.Config]().Field(i).Tag.Get("yaml"), ",")
		fields[key] = i
	}
	for _, k := range losses.Kinds() {
		if k.Doc == "" || k.Formula == "" || k.Source == "" {
			t.Errorf("%s: no doc, formula or source", k.Name)
		}
		c := losses.Config{Kind: k.Name}
		full := reflect.ValueOf(c.WithDefaults())
		for _, p := range k.Params {
			known[p.Key] = true
			if p.Doc == "" || p.Default == "" {
				t.Errorf("%s.%s: no doc or default", k.Name, p.Key)
			}
			i, ok := fields[p.Key]
			if !ok {
				t.Errorf("%s.%s: no such key", k.Name, p.Key)
				continue
			}
			switch f := full.Field(i); f.Kind() {
			case reflect.String:
				if got := f.String(); got != p.Default && got != "" && !strings.HasPrefix(p.Default, got+";") {
					t.Errorf("%s.%s: default %s in the section, %s in the table", k.Name, p.Key, got, p.Default)
				}
			case reflect.Pointer:
				if got := f; !got.IsNil() && fmt.Sprint(got.Elem().Interface()) != p.Default && p.Key != "time_invariant" {
					t.Errorf("%s.%s: default %v in the section, %s in the table", k.Name, p.Key, got.Elem().Interface(), p.Default)
				}
			}
		}
		if loss, err := c.Build(); c.Chains() != (err != nil) || c.Chains() != (loss == nil) {
			t.Errorf("%s: Build gives %v, %v", k.Name, loss, err)
		}
	}
	for key := range fields {
		if !known[key] {
			t.Errorf("%s: a key that no kind reads", key)
		}
	}
}

func TestConfigOfOtherLosses(t *testing.T) {
	const idle = "compat: torchebm without effect here, want kind: persistent_cd, score_matching with hessian_method: hutchinson, " +
		"or equilibrium_matching with prediction: score or noise and time_invariant: true"
	for _, tc := range []struct {
		name   string
		config losses.Config
		want   []string
	}{
		{"a key of another kind", losses.Config{Kind: "flow_matching", CDClamp: ptr(1.0)}, []string{"cd_clamp: not an option of kind flow_matching, want one of kind, energy_penalty, " +
			"gradient_penalty, label_dropout, interpolant, coupling, train_eps, t_sampler, t_p_mean, t_p_std, negate_velocity"}},
		{"chains without labels", losses.Config{Kind: "persistent_cd", LabelDropout: 0.1}, []string{"label_dropout: not an option of kind persistent_cd, want one of kind, energy_penalty, gradient_penalty, data_noise, compat"}},
		{"noise without time", losses.Config{Kind: "equilibrium_matching", Prediction: "noise", TimeInvariant: ptr(true)},
			[]string{"time_invariant: true with prediction: noise, whose target depends on a time that the field would not see: want false"}},
		{"as TorchEBM does", losses.Config{Kind: "equilibrium_matching", Prediction: "noise", TimeInvariant: ptr(true), Compat: "torchebm"}, nil},
		{"a velocity as TorchEBM has it, which is ours", losses.Config{Kind: "equilibrium_matching", Compat: "torchebm"}, []string{idle}},
		{"noise with time, which TorchEBM can do too", losses.Config{Kind: "equilibrium_matching", Prediction: "noise", TimeInvariant: ptr(false), Compat: "torchebm"}, []string{idle}},
		{"an option without effect", losses.Config{Kind: "equilibrium_matching", Prediction: "score", CT: "linear", DispersionWeight: ptr(1.0)},
			[]string{"ct: without effect here, want prediction: velocity", "dispersion_weight: without effect here, want dispersion: true"}},
		{"probes of the exact trace", losses.Config{Kind: "score_matching", NProbes: ptr(3)}, []string{"n_probes: without effect here, want hessian_method: hutchinson"}},
		{"one noise level and many", losses.Config{Kind: "denoising_score_matching", Sigma: schedules.Constant(0.3), SigmaMin: ptr(0.1)},
			[]string{"sigma: without effect here, want no sigma_min, sigma_max and levels", "sigma_min: many noise levels need both ends, want sigma_min and sigma_max"}},
		{"levels upside down", losses.Config{Kind: "denoising_score_matching", SigmaMin: ptr(1.0), SigmaMax: ptr(0.1), Levels: ptr(1)},
			[]string{"levels: 1, want at least 2", "sigma_max: 0.1, want at least sigma_min, 1"}},
		{"no noise", losses.Config{Kind: "denoising_score_matching", Sigma: schedules.Constant(0)}, []string{"sigma: 0, want a positive number"}},
		{"nested sections", losses.Config{Kind: "flow_matching", Interpolant: interpolants.Config{Kind: "curve"}, Coupling: couplings.Config{Kind: "ot", Reg: ptr(1.0)}},
			[]string{`interpolant.kind: "curve", want one of linear, cosine, vp`, "coupling.reg: not an option of kind exact_ot, want one of kind, within_classes"}},
		{"many at once", losses.Config{Kind: "energy_matching", TauStar: ptr(1.0), LangevinDT: ptr(0.0), NLangevinSteps: ptr(0), NoiseFraction: ptr(1.5),
			CDTrimFraction: ptr(math.NaN()), TrainEps: ptr(0.5), TSampler: "normal"},
			[]string{`t_sampler: "normal", want one of uniform, lognormal`, "train_eps: 0.5, want a value in [0, 0.5)", "tau_star: 1, want a value in [0, 1)",
				"n_langevin_steps: 0, want at least 1", "langevin_dt: 0, want a positive number", "noise_fraction: 1.5, want a value in [0, 1]",
				"cd_trim_fraction: NaN, want a value in [0, 1)"}},
		{"penalties", losses.Config{Kind: "score_matching", EnergyPenalty: -1, GradientPenalty: math.NaN(), LabelDropout: 2},
			[]string{"energy_penalty: -1, want 0 or more", "gradient_penalty: NaN, want 0 or more", "label_dropout: 2, want a value in [0, 1]"}},
	} {
		var lines []string
		if err := tc.config.Validate(); err != nil {
			lines = strings.Split(err.Error(), "\n")
		}
		if !slices.Equal(lines, tc.want) {
			t.Errorf("%s:\n got %q\nwant %q", tc.name, lines, tc.want)
		}
	}
	approximate := losses.Config{Kind: "score_matching", HessianMethod: "hutchinson", Compat: "torchebm"}
	if got := approximate.WithDefaults().ProbeType; got != "gaussian" {
		t.Errorf("probes under compat: torchebm are %s, want gaussian", got)
	}
	stretched := losses.Config{Kind: "energy_matching", LambdaCD: schedules.Config{Kind: "linear", End: 2, Steps: schedules.WholeRun}}
	if _, err := stretched.Build(); err == nil || !strings.Contains(err.Error(), "lambda_cd: schedule.steps") {
		t.Errorf("a schedule of open length: %v, want an error", err)
	}
	loss, err := stretched.Over(10).Build()
	if err != nil {
		t.Fatal(err)
	}
	if chains := loss.Needs(4, 2).Chains; chains.On(0) || !chains.On(1) {
		t.Error("chains run while lambda_cd is 0, or do not after that")
	}
}
