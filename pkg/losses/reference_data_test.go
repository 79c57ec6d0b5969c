package losses_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/couplings"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/interpolants"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

// recorded is a case of a loss that learns from the data: the loss, the model and the arrays of the batch.
type recorded struct {
	testutil.Case
	config  losses.Config
	model   models.Network
	weights []testutil.Tensor

	x, source testutil.Tensor
	coupled   []float64 // weights of the coupling
	draws     []testutil.Tensor
	negatives testutil.Tensor
}

func ptr[T any](v T) *T { return &v }

// score replays score matching.
func (r *replay) score(t *testing.T, c testutil.Case) {
	rec := r.energyCase(t, c, []string{"hessian_method", "epsilon"}, []string{"probe_noise"}, nil)
	rec.config.Kind = "score_matching"
	switch method := c.Str("hessian_method", "exact"); method {
	case "exact":
		rec.config.HessianMethod = method
	case "approx":
		if epsilon := c.Num("epsilon", 1e-5); epsilon != 1e-5 {
			t.Fatalf("epsilon: %g, want 1e-5, which is fixed", epsilon)
		}
		z := c.Inputs["probe_noise"]
		rec.config.HessianMethod, rec.config.ProbeType, rec.config.Compat = "hutchinson", "gaussian", "torchebm"
		rec.draws = append(rec.draws, testutil.Array(z.Data, append([]int{1}, z.Shape...)...))
	default:
		t.Fatalf("hessian_method: %q, want exact or approx", method)
	}
	r.run(t, rec, nil)
}

// sliced replays sliced score matching, whose directions are recorded projection by projection.
func (r *replay) sliced(t *testing.T, c testutil.Case) {
	rec := r.energyCase(t, c, []string{"n_projections", "projection_type"}, []string{"projection_noise"}, nil)
	n := int(c.Num("n_projections", 5))
	rec.config.Kind, rec.config.NProjections, rec.config.ProjectionType = "sliced_score_matching", &n, c.Str("projection_type", "rademacher")
	rec.draws = append(rec.draws, testutil.Array(c.Inputs["projection_noise"].Data, append([]int{n}, rec.x.Shape...)...))
	r.run(t, rec, nil)
}

// denoising replays denoising score matching.
func (r *replay) denoising(t *testing.T, c testutil.Case) {
	rec := r.energyCase(t, c, []string{"noise_scale"}, []string{"noise"}, nil)
	rec.config.Kind, rec.config.Sigma = "denoising_score_matching", schedules.Constant(c.Schedule(t, "noise_scale", 0.01).At(0))
	rec.draws = append(rec.draws, c.Inputs["noise"])
	r.run(t, rec, nil)
}

// energyCase reads what the cases with an energy have in common.
func (r *replay) energyCase(t *testing.T, c testutil.Case, params, inputs, expect []string) recorded {
	n := networkOf(t, c, c.Inputs["x"].Shape[1])
	c.Only(t, append(params, "energy", "regularization_strength"), append(inputs, "energy", "x"), n.expected(expect...))
	return recorded{Case: c, model: n.energy, weights: n.weights, x: c.Inputs["x"],
		config: losses.Config{GradientPenalty: c.Schedule(t, "regularization_strength", 0).At(0)}}
}

// pathParams are the parameters of every loss that follows a path, pathInputs their inputs.
var (
	pathParams = []string{"interpolant", "coupling", "train_eps", "t_sampler", "t_p_mean", "t_p_std"}
	pathInputs = []string{"x", "x0", "t_uniform", "t_normal", "coupling_uniform"}
)

// path reads the path, draws the times and pairs noise with data.
func (rec *recorded) path(t *testing.T) {
	c := rec.Case
	rec.config.Interpolant = interpolants.Config{Kind: c.Str("interpolant", "linear")}
	for key, v := range c.Sub("interpolant") {
		switch key {
		case "sigma_min":
			rec.config.Interpolant.SigmaMin = ptr(v.(float64))
		case "sigma_max":
			rec.config.Interpolant.SigmaMax = ptr(v.(float64))
		default:
			t.Fatalf("interpolant.%s: this test does not know it", key)
		}
	}
	rec.config.TrainEps = ptr(c.Num("train_eps", 0))
	rec.config.TSampler = c.Str("t_sampler", "uniform")
	if rec.config.TSampler == "lognormal" {
		rec.config.TPMean, rec.config.TPStd = ptr(c.Num("t_p_mean", -1.2)), ptr(c.Num("t_p_std", 1.2))
		rec.draws = append(rec.draws, c.Inputs["t_normal"])
	} else {
		rec.draws = append(rec.draws, c.Inputs["t_uniform"])
	}
	rec.x, rec.source = c.Inputs["x"], c.Inputs["x0"]
	rec.pair(t)
}

func (rec *recorded) pair(t *testing.T) {
	rec.config.Coupling = couplings.Config{Kind: rec.Str("coupling", "independent")}
	for key, v := range rec.Sub("coupling") {
		switch key {
		case "reg":
			rec.config.Coupling.Reg = ptr(v.(float64))
		case "reg_marginal", "tau":
			rec.config.Coupling.RegMarginal = ptr(v.(float64))
		case "n_iters":
			rec.config.Coupling.Iterations = ptr(int(v.(float64)))
		default:
			t.Fatalf("coupling.%s: this test does not know it", key)
		}
	}
	coupling, err := rec.config.Coupling.Build()
	if err != nil {
		t.Fatal(err)
	}
	uniforms := rec.Inputs["coupling_uniform"].Data
	width := rec.x.Shape[1]
	p, err := coupling.Pair(rec.source.Data, rec.x.Data, width, func() float64 {
		u := uniforms[0]
		uniforms = uniforms[1:]
		return u
	})
	if err != nil {
		t.Fatal(err)
	}
	rec.x = testutil.Array(couplings.Take(rec.x.Data, width, p.Index), rec.x.Shape...)
	rec.coupled = p.Weights
}

// fieldCase reads what the cases with a field have in common.
func (r *replay) fieldCase(t *testing.T, c testutil.Case, params []string) recorded {
	x := c.Inputs["x"]
	dim := x.Shape[1]
	config := models.MLPConfig{Activation: c.Str("field.activation", "silu"), Init: "torch"}
	sizes := c.Params["field.sizes"].([]any)
	for _, width := range sizes[1 : len(sizes)-1] {
		config.Hidden = append(config.Hidden, int(width.(float64)))
	}
	if kind := c.Str("field", ""); kind != "mlp" || sizes[0] != float64(dim+1) || sizes[len(sizes)-1] != float64(dim) {
		t.Fatalf("field: %s of %v, want an mlp from %d to %d numbers", kind, sizes, dim+1, dim)
	}
	field, err := models.NewFieldMLP(dim, config)
	if err != nil {
		t.Fatal(err)
	}
	rec := recorded{Case: c, model: field}
	expect := []string{"loss", "per_sample", "prediction", "energy"}
	for _, p := range field.Params() {
		expect = append(expect, "grad."+p.Name)
		rec.weights = append(rec.weights, c.Inputs["field."+p.Name])
	}
	c.Only(t, append(slices.Concat(pathParams, params), "field"), append(slices.Clone(pathInputs), "field"), expect)
	rec.path(t)
	return rec
}

// flowMatching replays flow matching.
func (r *replay) flowMatching(t *testing.T, c testutil.Case) {
	rec := r.fieldCase(t, c, []string{"negate_velocity"})
	rec.config.Kind, rec.config.NegateVelocity = "flow_matching", ptr(c.Bool("negate_velocity", false))
	r.run(t, rec, nil)
}

// equilibrium replays equilibrium matching.
func (r *replay) equilibrium(t *testing.T, c testutil.Case) {
	rec := r.fieldCase(t, c, []string{"prediction", "energy_type", "loss_weight", "ct", "ct_threshold", "ct_multiplier",
		"time_invariant", "apply_dispersion", "dispersion_weight"})
	k := &rec.config
	k.Kind = "equilibrium_matching"
	k.Prediction, k.TimeInvariant = c.Str("prediction", "velocity"), ptr(c.Bool("time_invariant", true))
	if k.Prediction != "velocity" && *k.TimeInvariant {
		k.Compat = "torchebm"
	}
	if k.Prediction == "velocity" {
		k.EnergyType, k.CT, k.CTMultiplier = c.Str("energy_type", "none"), c.Str("ct", "truncated"), ptr(c.Num("ct_multiplier", 4))
		if k.CT == "truncated" {
			k.CTThreshold = ptr(c.Num("ct_threshold", 0.8))
		}
	} else {
		k.LossWeight = c.Str("loss_weight", "none")
	}
	if c.Bool("apply_dispersion", false) {
		k.Dispersion, k.DispersionWeight = ptr(true), ptr(c.Num("dispersion_weight", 0.5))
	}
	r.run(t, rec, nil)
}

// energyMatching replays energy matching, with its chains.
func (r *replay) energyMatching(t *testing.T, c testutil.Case) {
	rec := r.energyCase(t, c, append(slices.Clone(pathParams), "sigma", "flow_weight_cutoff", "lambda_cd", "epsilon_max", "tau_star",
		"n_langevin_steps", "langevin_dt", "noise_fraction", "cd_trim_fraction", "cd_clamp", "n_noise"),
		append(slices.Clone(pathInputs), "smoothing_noise", "source_perm", "source_chain_noise", "data_perm", "data_chain_noise"),
		[]string{"flow_loss", "cd_loss", "cd_value", "negatives"})
	rec.path(t)
	k := &rec.config
	k.Kind = "energy_matching"
	k.Sigma, k.LambdaCD = schedules.Constant(c.Schedule(t, "sigma", 0.1).At(0)), schedules.Constant(c.Schedule(t, "lambda_cd", 2).At(0))
	k.FlowWeightCutoff, k.EpsilonMax, k.TauStar = ptr(c.Num("flow_weight_cutoff", 0.8)), ptr(c.Num("epsilon_max", 0.15)), ptr(c.Num("tau_star", 0.8))
	k.NLangevinSteps, k.LangevinDT = ptr(int(c.Num("n_langevin_steps", 200))), ptr(c.Num("langevin_dt", 0.01))
	k.NoiseFraction, k.CDTrimFraction, k.CDClamp = ptr(c.Num("noise_fraction", 0.5)), ptr(c.Num("cd_trim_fraction", 0.1)), ptr(c.Num("cd_clamp", 0.02))
	if c.Params["cd_clamp"] == "none" {
		k.CDClamp = ptr(-1.0)
	}
	smoothing, ok := c.Inputs["smoothing_noise"]
	if !ok { // not drawn at sigma 0
		smoothing = testutil.Filled(0, rec.x.Shape...)
	}
	rec.draws = append(rec.draws, smoothing)
	loss, err := k.Build()
	if err != nil {
		t.Fatal(err)
	}
	if chains := loss.Needs(rec.x.Shape[0], rec.x.Shape[1]).Chains; chains != nil {
		rec.negatives = r.shortChains(t, rec, *chains)
		r.compare(t, c, "negatives", rec.negatives.Data)
	}
	r.run(t, rec, map[string]float64{"cd_loss": 0}) // where there are no chains
}

// shortChains runs the chains of a step as the engine does.
func (r *replay) shortChains(t *testing.T, rec recorded, chains losses.Chains) testutil.Tensor {
	c, dim := rec.Case, rec.x.Shape[1]
	if n := int(c.Num("n_noise", float64(chains.FromSource))); n != chains.FromSource {
		t.Fatalf("n_noise: %d, but %d chains start from noise", n, chains.FromSource)
	}
	var x []float64
	take := func(rows testutil.Tensor, order string, n int) {
		for i := range n {
			x = append(x, rows.Slice(c.Inputs[order].Ints()[i]).Data...)
		}
	}
	take(c.Inputs["x0"], "source_perm", chains.FromSource)
	take(c.Inputs["x"], "data_perm", chains.Rows-chains.FromSource)
	state := testutil.Array(x, chains.Rows, dim)
	energy := rec.model.(models.Energy)
	shapes := append([][]int{state.Shape, state.Shape, {chains.Rows, 1}}, testutil.ShapesOf(rec.weights)...)
	step := r.compile(fmt.Sprint("short chain ", c.EnergyKey(), chains.StepSize), shapes, func(in []*Node) []*Node {
		_, slope := models.EnergyAndGrad(models.At(energy, in[3:]), in[0])
		noise := Mul(Sqrt(MulScalar(in[2], 2*chains.StepSize)), in[1])
		return []*Node{Add(Sub(in[0], MulScalar(slope, chains.StepSize)), noise)}
	})
	for m := range chains.Steps {
		z, temperatures := []float64{}, make([]float64, chains.Rows)
		for _, part := range []string{"source_chain_noise", "data_chain_noise"} {
			if noise, ok := c.Inputs[part]; ok {
				z = append(z, noise.Slice(m).Data...)
			}
		}
		for i := range temperatures {
			temperatures[i] = chains.Temperature(i, m)
		}
		in := append([]testutil.Tensor{state, testutil.Array(z, state.Shape...), testutil.Array(temperatures, chains.Rows, 1)}, rec.weights...)
		state = testutil.Array(step.Run(t, in...)[0], state.Shape...)
	}
	return state
}

// modelOf is what a loss differentiates.
func modelOf(network models.Network, weights []*Node) losses.Model {
	switch network := network.(type) {
	case models.Energy:
		return losses.Model{Energy: models.At(network, weights)}
	case models.Field:
		m := losses.Model{Field: models.FieldAt(network, weights)}
		if h, ok := network.(models.Hidden); ok {
			m.Hidden = func(x, t, y *Node) *Node { return h.Hidden(x, t, y, weights) }
		}
		return m
	}
	panic("a model that is no energy and no field")
}

// job is a loss ready to be built: the inputs of its graph, and the outputs by name once the graph is built.
type job struct {
	recorded
	loss  losses.Loss
	needs losses.Needs
	in    []testutil.Tensor
	names []string
	out   [][]float64
}

// jobs share one program, for XLA takes longer to compile many small ones.
type jobs struct {
	once sync.Once
	list []*job
}

// prepare builds the loss by its section and feeds it as the engine would.
func (rec recorded) prepare(t *testing.T) *job {
	loss, err := rec.config.Build()
	if err != nil {
		t.Fatal(err)
	}
	j := &job{recorded: rec, loss: loss, needs: loss.Needs(rec.x.Shape[0], rec.x.Shape[1])}
	if len(j.needs.Draws) != len(rec.draws) {
		t.Fatalf("%d draws on record, the loss needs %v", len(rec.draws), j.needs.Draws)
	}
	j.in = append([]testutil.Tensor{rec.x}, rec.weights...)
	for i, d := range j.needs.Draws {
		if !slices.Equal(d.Dims, rec.draws[i].Shape) {
			t.Fatalf("draw %s: shape %v on record, the loss needs %v", d.Name, rec.draws[i].Shape, d.Dims)
		}
		j.in = append(j.in, rec.draws[i])
	}
	for _, s := range j.needs.Scalars {
		j.in = append(j.in, testutil.Filled(s.At.At(0)))
	}
	if j.needs.Source {
		j.in = append(j.in, rec.source)
	}
	if j.needs.Chains != nil {
		j.in = append(j.in, rec.negatives)
	}
	if rec.coupled != nil {
		j.in = append(j.in, testutil.Array(rec.coupled, len(rec.coupled)))
	}
	return j
}

// build is the graph of a job: the loss, its parts, and its gradient.
func (j *job) build(in []*Node) (out []*Node) {
	next := func(ok bool) (n *Node) {
		if ok {
			n, in = in[0], in[1:]
		}
		return n
	}
	batch := losses.Batch{X: next(true)}
	var weights []*Node
	for range j.weights {
		weights = append(weights, next(true))
	}
	for range j.needs.Draws {
		batch.Draws = append(batch.Draws, next(true))
	}
	for range j.needs.Scalars {
		batch.Scalars = append(batch.Scalars, next(true))
	}
	batch.Source, batch.Negatives, batch.Weights = next(j.needs.Source), next(j.needs.Chains != nil), next(j.coupled != nil)
	m := modelOf(j.model, weights)
	result := j.loss.Build(m, batch)
	j.names = nil
	add := func(name string, n *Node) {
		if n != nil {
			j.names, out = append(j.names, name), append(out, n)
		}
	}
	add("loss", result.Loss)
	perRow, prediction, energy := losses.Rows(j.loss, m, batch)
	for _, p := range result.Parts {
		add(p.Name, p.Value)
		if p.Name == "dispersion" { // TorchEBM adds it to every row
			perRow = Add(perRow, p.Value)
		}
	}
	add("per_sample", perRow)
	add("prediction", prediction)
	add("energy", energy)
	if len(weights) > 0 {
		for i, g := range Gradient(result.Loss, weights...) {
			add("grad."+j.model.Params()[i].Name, g)
		}
	}
	return out
}

// run compares everything that is expected of a case. absent are the values of parts that the loss has none of.
func (r *replay) run(t *testing.T, rec recorded, absent map[string]float64) {
	j := rec.prepare(t)
	r.jobs.list = append(r.jobs.list, j)
	t.Parallel() // waits until all cases are prepared
	r.jobs.once.Do(func() { r.runJobs(t) })
	if j.out == nil {
		t.Fatal("the program of all cases failed")
	}
	for i, name := range j.names {
		r.compare(t, rec.Case, name, j.out[i])
	}
	for name := range rec.Expect {
		if v, ok := absent[name]; ok && !slices.Contains(j.names, name) {
			r.compare(t, rec.Case, name, []float64{v})
		} else if !slices.Contains(j.names, name) && name != "negatives" {
			t.Errorf("expectation %s: the loss gives none", name)
		}
	}
}

// runJobs compiles and runs the program of all cases.
func (r *replay) runJobs(t *testing.T) {
	var in []testutil.Tensor
	for _, j := range r.jobs.list {
		in = append(in, j.in...)
	}
	all := testutil.Eval(t, r.backend, r.dtype, in, func(in []*Node) (out []*Node) {
		for _, j := range r.jobs.list {
			out = append(out, j.build(in[:len(j.in)])...)
			in = in[len(j.in):]
		}
		return out
	})
	for _, j := range r.jobs.list {
		j.out, all = all[:len(j.names)], all[len(j.names):]
	}
}

// helpers replays small functions that losses are made of.
func (r *replay) helpers(t *testing.T, c testutil.Case) {
	c.Only(t, []string{"threshold", "multiplier", "trim_fraction", "cutoff"}, []string{"t", "z", "values"},
		[]string{"compute_eqm_ct", "compute_flow_weight", "dispersive_loss", "trimmed_mean", "mean_flat"})
	in := []testutil.Tensor{c.Inputs["t"], c.Inputs["z"], c.Inputs["values"]}
	out := testutil.Eval(t, r.backend, r.dtype, in, func(in []*Node) []*Node {
		eqm := losses.EquilibriumMatching{CT: "truncated", CTThreshold: c.Num("threshold", 0.8), CTMultiplier: c.Num("multiplier", 4)}
		em := losses.EnergyMatching{Cutoff: c.Num("cutoff", 0.8)}
		return []*Node{eqm.Speed(in[0]), em.FlowWeight(in[0]), losses.Dispersion(in[1]),
			ReduceAllSum(Mul(in[2], losses.Trim(in[2], c.Num("trim_fraction", 0.1)))), losses.RowMean(in[1])}
	})
	for i, name := range []string{"compute_eqm_ct", "compute_flow_weight", "dispersive_loss", "trimmed_mean", "mean_flat"} {
		r.compare(t, c, name, out[i])
	}
}
