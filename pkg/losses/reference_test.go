package losses_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/buffer"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// TestReference replays the recorded training losses. Of those that compare data with chains, the chains by
// samplers.Langevin, the replay buffer by buffer.RingPlan, the swaps by tempering.Ensemble, the loss by Contrastive; the
// others by their section of an experiment, fed as a step of the training is. (Couplings by themselves are replayed by
// their own package.)
//
// Float32 has the tolerance Case.For32: at most some thirty roundings of 6e-8 lie one behind the other, in chains that
// do not enlarge them.
func TestReference(t *testing.T) {
	replays := map[string]func(*replay, *testing.T, testutil.Case){
		"ContrastiveDivergence": (*replay).contrastive, "PersistentContrastiveDivergence": (*replay).contrastive, "ParallelTemperingCD": (*replay).tempered,
		"ScoreMatching": (*replay).score, "SlicedScoreMatching": (*replay).sliced, "DenoisingScoreMatching": (*replay).denoising,
		"EquilibriumMatchingLoss": (*replay).equilibrium, "FlowMatchingLoss": (*replay).flowMatching,
		"EnergyMatchingLoss": (*replay).energyMatching, "loss_utils": (*replay).helpers,
	}
	cases := testutil.Reference(t, "losses")
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		seen := 0
		for _, dtype := range []dtypes.DType{dtypes.Float64, dtypes.Float32} {
			r := &replay{t: t, backend: b, dtype: dtype, graphs: map[string]*testutil.Graph{}}
			for _, c := range cases {
				run, ok := replays[c.Component]
				if !ok && !strings.HasSuffix(c.Component, "Coupling") { // pkg/couplings replays those
					t.Errorf("%s: component %s: this test does not know it", c.Name, c.Component)
				}
				if ok && inPrecision(c, dtype, b) {
					seen++
					t.Run(c.Name+"/"+dtype.String(), func(t *testing.T) { run(r, t, c) })
				}
			}
		}
		if seen == 0 {
			t.Error("no case of a loss")
		}
	})
}

// inPrecision says whether a case is replayed in a precision. Losses over data are not in float32 on XLA, which would take as
// long to compile as all the others: TestContract compares them with float64 there.
func inPrecision(c testutil.Case, dtype dtypes.DType, b *backend.Backend) bool {
	chains := c.Component == "ContrastiveDivergence" || c.Component == "PersistentContrastiveDivergence" || c.Component == "ParallelTemperingCD"
	return dtype == dtypes.Float64 || !strings.Contains(c.Notes, "only float64") && (chains || b.Kind() != backend.CPU)
}

// replay runs cases in one precision on one backend. Cases with the same network and shapes share their programs.
type replay struct {
	t       *testing.T // outlives the subtests, and with it the programs
	backend *backend.Backend
	dtype   dtypes.DType
	graphs  map[string]*testutil.Graph
	jobs    jobs
}

func (r *replay) compile(key string, shapes [][]int, build func(in []*Node) []*Node) *testutil.Graph {
	key = fmt.Sprint(key, shapes)
	if r.graphs[key] == nil {
		r.graphs[key] = testutil.Compile(r.t, r.backend, r.dtype, shapes, build)
	}
	return r.graphs[key]
}

func (r *replay) compare(t *testing.T, c testutil.Case, name string, got []float64) {
	t.Helper()
	tolerance := c.For64(name)
	if r.dtype == dtypes.Float32 {
		tolerance = c.For32(name)
	}
	if want, ok := c.Expect[name]; ok {
		testutil.Compare(t, name, got, want, tolerance)
	}
}

// network is the energy of a case at weights that a case may train.
type network struct {
	testutil.Case
	energy  models.Energy
	weights []testutil.Tensor
}

func networkOf(t *testing.T, c testutil.Case, dim int) network {
	e := c.Energy(t, dim)
	return network{c, e, c.Weights(t, e)}
}

// chain goes on from states x [rows, dim] by Langevin steps, one for each noise z [rows, dim]: row j with β = beta[j] and
// the step size sizes(step)[j]. It gives the last states and their energies.
func (r *replay) chain(t *testing.T, n network, x testutil.Tensor, beta []float64, noise []testutil.Tensor, sizes func(step int) []float64) (states testutil.Tensor, energies []float64) {
	rows := x.Shape[0]
	shapes := append([][]int{x.Shape, x.Shape, {rows}, {rows}}, testutil.ShapesOf(n.weights)...)
	step := r.compile("chain "+n.EnergyKey(), shapes, func(in []*Node) []*Node {
		target := samplers.Target{Path: samplers.Power(models.At(n.energy, in[4:])), Beta: in[2]}
		p, _ := samplers.Langevin{}.Step(target, target.At(in[0]), in[3], samplers.Noise{Z: in[1]})
		return []*Node{p.X, Neg(p.V)}
	})
	for m, z := range noise {
		out := step.Run(t, append([]testutil.Tensor{x, z, testutil.Array(beta, rows), testutil.Array(sizes(m), rows)}, n.weights...)...)
		x, energies = testutil.Array(out[0], x.Shape...), out[1]
	}
	return x, energies
}

// loss compares the loss and its gradients, whose expectations begin with prefix, and returns the gradients. The data get
// noise where there is any.
func (r *replay) loss(t *testing.T, n network, prefix string, x, negatives testutil.Tensor, realNoise ...testutil.Tensor) [][]float64 {
	in := append(append([]testutil.Tensor{x, negatives}, n.weights...), realNoise...)
	penalty, noiseScale := n.Num("energy_reg_weight", 0.001), n.Num("noise_scale", 1e-4)
	program := r.compile(fmt.Sprint("loss ", n.EnergyKey(), penalty, noiseScale, len(realNoise)), testutil.ShapesOf(in), func(in []*Node) []*Node {
		positives, weights := in[0], in[2:2+len(n.weights)]
		for _, z := range in[2+len(weights):] {
			positives = Add(positives, MulScalar(z, noiseScale))
		}
		terms := losses.Contrastive{Energy: models.At(n.energy, weights), Penalty: penalty}.Build(positives, in[1])
		out := []*Node{terms.Loss, Sub(Add(Sub(terms.Positives, terms.Negatives), terms.Penalty), terms.Loss)}
		if len(weights) > 0 {
			out = append(out, Gradient(terms.Loss, weights...)...)
		}
		return out
	})
	out := program.Run(t, in...)
	r.compare(t, n.Case, prefix+"loss", out[0])
	if math.Abs(out[1][0]) > 1e-5*(1+math.Abs(out[0][0])) {
		t.Errorf("%sloss: the terms differ by %g from their sum", prefix, out[1][0])
	}
	for i, p := range n.energy.Params() {
		r.compare(t, n.Case, prefix+"grad."+p.Name, out[2+i])
	}
	return out[2:]
}

// expected lists the expectations of a case with a loss: that, its gradients, and more.
func (n network) expected(more ...string) []string {
	more = append(more, "loss")
	for _, p := range n.energy.Params() {
		more = append(more, "grad."+p.Name)
	}
	return more
}

// contrastive replays contrastive divergence: with given negatives, with chains from the data, with a replay buffer.
func (r *replay) contrastive(t *testing.T, c testutil.Case) {
	if _, ok := c.Params["calls"]; ok {
		r.persistent(t, c)
		return
	}
	params := []string{"energy", "op", "energy_reg_weight", "add_noise_to_real", "noise_scale"}
	x := c.Inputs["x"]
	rows, dim := x.Shape[0], x.Shape[1]
	n := networkOf(t, c, dim)
	var negatives testutil.Tensor
	switch op := c.Str("op", ""); op {
	case "compute_loss":
		c.Only(t, params, []string{"energy", "x", "negatives", "real_noise"}, n.expected())
		negatives = c.Inputs["negatives"]
	case "forward":
		c.Only(t, append(params, "k_steps", "step_size", "persistent"), []string{"energy", "x", "chain_noise", "real_noise"}, n.expected("negatives"))
		if c.Bool("persistent", false) {
			t.Fatal("persistent: true, want calls and a buffer")
		}
		negatives, _ = r.chain(t, n, x, filled(1, rows), firstOf(t, c, "chain_noise", int(c.Num("k_steps", 10))), r.steps(t, c, rows))
		r.compare(t, c, "negatives", negatives.Data)
	default:
		t.Fatalf("op: %q, want compute_loss or forward", op)
	}
	var realNoise []testutil.Tensor
	if c.Bool("add_noise_to_real", false) {
		realNoise = append(realNoise, c.Inputs["real_noise"])
	}
	r.loss(t, n, "", x, negatives, realNoise...)
}

// persistent replays calls that share a replay buffer.
func (r *replay) persistent(t *testing.T, c testutil.Case) {
	calls := int(c.Num("calls", 0))
	perCall := func(names ...string) (out []string) {
		for i := range calls {
			for _, name := range names {
				out = append(out, fmt.Sprintf("call%d.%s", i, name))
			}
		}
		return out
	}
	batch, dim := c.Inputs["x"].Shape[1], c.Inputs["x"].Shape[2]
	n := networkOf(t, c, dim)
	c.Only(t, []string{"energy", "calls", "k_steps", "buffer_size", "init_steps", "new_sample_ratio", "energy_reg_weight", "step_size", "sgd_lr", "init_noise_scale", "explore_noise_scale"},
		append(perCall("offset", "perm", "explore_noise", "chain_noise"), "energy", "x", "buffer_init", "warmup_noise"),
		perCall(n.expected("negatives", "buffer", "buffer_ptr")...))
	size, share := int(c.Num("buffer_size", 10000)), c.Num("new_sample_ratio", 0.05)

	init := c.Inputs["buffer_init"]
	store := testutil.Array(scaled(init.Data, c.Num("init_noise_scale", 0.01)), size, dim)
	store, _ = r.chain(t, n, store, filled(1, size), firstOf(t, c, "warmup_noise", int(c.Num("init_steps", 100))), r.steps(t, c, size))
	books, err := buffer.New(buffer.Settings{Slots: size, Live: batch, Ring: true, Reinit: share})
	if err != nil {
		t.Fatal(err)
	}
	row := func(a testutil.Tensor, i int32) []float64 { return a.Data[int(i)*dim : int(i+1)*dim] }
	for call := range calls {
		prefix := fmt.Sprintf("call%d.", call)
		perm := c.Inputs[prefix+"perm"].Ints()
		plan := buffer.RingPlan(size, int(books.Snapshot().Pointer), c.Inputs[prefix+"offset"].Ints(), perm, share)
		start := testutil.Filled(0, batch, dim)
		for j, slot := range plan.Draw {
			copy(row(start, int32(j)), row(store, slot))
		}
		// The recorded noise is in the order of the permutation, not of the rows.
		explore := c.Inputs[prefix+"explore_noise"]
		jittered := 0
		for _, jitter := range plan.Jitter {
			if jitter {
				jittered++
			}
		}
		if rows := len(explore.Data) / dim; rows != jittered {
			t.Fatalf("%snoise for %d rows, the plan has %d", prefix, rows, jittered)
		}
		for i, j := range perm[:jittered] {
			if !plan.Jitter[j] {
				t.Fatalf("%srow %d is not one of those with jitter", prefix, j)
			}
			for d, z := range row(explore, int32(i)) {
				row(start, int32(j))[d] += c.Num("explore_noise_scale", 0.01) * z
			}
		}
		negatives, _ := r.chain(t, n, start, filled(1, batch), firstOf(t, c, prefix+"chain_noise", int(c.Num("k_steps", 10))), r.steps(t, c, batch))
		for j, slot := range plan.Write {
			if slot >= 0 {
				copy(row(store, slot), row(negatives, int32(j)))
			}
		}
		if err := books.Commit(uint64(call), plan, nil); err != nil {
			t.Fatal(err)
		}
		r.compare(t, c, prefix+"negatives", negatives.Data)
		r.compare(t, c, prefix+"buffer", store.Data)
		r.compare(t, c, prefix+"buffer_ptr", []float64{float64(books.Snapshot().Pointer)})
		grads := r.loss(t, n, prefix, c.Inputs["x"].Slice(call), negatives)
		n.weights = slices.Clone(n.weights)
		for i, g := range grads {
			moved := slices.Clone(n.weights[i].Data)
			for k := range moved {
				moved[k] -= c.Num("sgd_lr", 0) * g[k]
			}
			n.weights[i].Data = moved
		}
	}
}

// tempered replays parallel tempering on the power path. The files count from the cold end: their replica r is our rung
// K−1−r, and the parity of a round is that of r.
//
// Both forms of tempering are our kernel: drift −(h/T)∇E with noise √(2h) is the step size h at β = 1/T, and drift −h∇E
// with noise √(2hT) is the step size hT.
//
// In float32 a log ratio within its rounding of log u may decide otherwise than it did in float64, and no other number
// would agree from there on: such a pair takes the decision on record. Everywhere else the decision must be the same.
func (r *replay) tempered(t *testing.T, c testutil.Case) {
	x := c.Inputs["x"]
	chains, dim := x.Shape[0], x.Shape[1]
	n := networkOf(t, c, dim)
	c.Only(t, []string{"energy", "tempering", "temperatures", "k_steps", "rounds", "step_size", "energy_reg_weight"},
		[]string{"energy", "x", "noise", "uniform"}, n.expected("states", "log_ratio", "attempted", "accepted", "negatives"))
	temperatures := c.Params["temperatures"].([]any)
	k, rounds, steps := len(temperatures), int(c.Num("rounds", 0)), int(c.Num("k_steps", 0))
	betas, beta, factor := make([]float64, k), make([]float64, k*chains), make([]float64, k*chains)
	for replica, v := range temperatures {
		rung, temperature := k-1-replica, v.(float64)
		betas[rung] = 1 / temperature
		for b := range chains {
			beta[rung*chains+b], factor[rung*chains+b] = betas[rung], 1
			switch form := c.Str("tempering", ""); form {
			case "energy":
			case "noise":
				factor[rung*chains+b] = temperature
			default:
				t.Fatalf("tempering: %q, want energy or noise", form)
			}
		}
	}
	ladder, err := tempering.LadderOf(betas)
	if err != nil {
		t.Fatal(err)
	}
	uniform := func(scan uint64, chain, pair uint32) float64 {
		replica := k - 2 - int(pair)
		at := func(a testutil.Tensor) float64 { return a.Slice(int(scan)).Slice(replica).Data[chain] }
		u, ratio := at(c.Inputs["uniform"]), at(c.Expect["log_ratio"])
		if tolerance := c.For32("log_ratio"); r.dtype == dtypes.Float32 && math.Abs(math.Log(u)-ratio) <= tolerance.ATol+tolerance.RTol*math.Abs(ratio) {
			t.Logf("round %d, pair (%d, %d), chain %d: log u = %g and the log ratio %g are the same in float32", scan, replica, replica+1, chain, math.Log(u), ratio)
			return 1 - at(c.Expect["accepted"]) // 0 accepts, and 1 rejects since such a ratio is below 1
		}
		return u
	}
	ensemble, err := tempering.NewEnsemble(tempering.Settings{Ladder: ladder, Columns: chains, Uniform: uniform})
	if err != nil {
		t.Fatal(err)
	}
	state := ensemble.Snapshot()
	for b := range state.Scans {
		state.Scans[b] = uint64(k) // a round of even number tries our pairs i ≡ K−2 ≡ K (mod 2)
	}
	if err := ensemble.Restore(state); err != nil {
		t.Fatal(err)
	}

	stepSize := c.Schedule(t, "step_size", 1e-3)
	sizes := func(m int) []float64 { return scaled(factor, stepSize.At(m)) }
	reversed := func(a []float64, size int) (out []float64) { // rungs of size numbers each, in the other order
		for end := len(a); end > 0; end -= size {
			out = append(out, a[end-size:end]...)
		}
		return out
	}
	states := testutil.Array(slices.Repeat(x.Data, k), k*chains, dim)
	got := map[string][]float64{}
	for round := range rounds {
		noise := make([]testutil.Tensor, steps)
		for m := range noise {
			var z []float64
			for replica := range k {
				z = append(z, c.Inputs["noise"].Slice(round).Slice(replica).Slice(m).Data...)
			}
			noise[m] = testutil.Array(reversed(z, chains*dim), k*chains, dim)
		}
		var energies []float64
		states, energies = r.chain(t, n, states, beta, noise, sizes)
		v := scaled(energies, -1)
		attempted, accepted, ratios := make([]float64, k-1), make([]float64, (k-1)*chains), make([]float64, (k-1)*chains)
		for i := range tempering.Pairs(k, ensemble.Snapshot().Scans[0]) {
			attempted[i] = 1
			for b := range chains {
				ratios[i*chains+b] = tempering.LogRatio(betas[i], betas[i+1], v[i*chains+b], v[(i+1)*chains+b])
			}
		}
		swept, err := ensemble.Sweep(uint64(round), nil, v)
		if err != nil {
			t.Fatal(err)
		}
		moved := testutil.Filled(0, k*chains, dim)
		for row, from := range swept.Perm {
			copy(moved.Data[row*dim:(row+1)*dim], states.Data[int(from)*dim:])
			if int(from) == row+chains { // the lower of two that changed places
				accepted[row] = 1
			}
		}
		states = moved
		got["states"] = append(got["states"], reversed(states.Data, chains*dim)...)
		got["attempted"] = append(got["attempted"], reversed(attempted, 1)...)
		got["accepted"] = append(got["accepted"], reversed(accepted, chains)...)
		got["log_ratio"] = append(got["log_ratio"], reversed(ratios, chains)...)
	}
	negatives := testutil.Array(states.Data[(k-1)*chains*dim:], chains, dim)
	got["negatives"] = negatives.Data
	for name, values := range got {
		r.compare(t, c, name, values)
	}
	r.loss(t, n, "", x, negatives)
}

// steps are the step sizes of a chain of rows, from a schedule that starts anew at every call of the sampler.
func (r *replay) steps(t *testing.T, c testutil.Case, rows int) func(step int) []float64 {
	s := c.Schedule(t, "step_size", 1e-3)
	return func(step int) []float64 { return filled(s.At(step), rows) }
}

// firstOf are the first n slices of an input along its first axis.
func firstOf(t *testing.T, c testutil.Case, name string, n int) []testutil.Tensor {
	a := c.Inputs[name]
	if n > 0 && (len(a.Shape) == 0 || a.Shape[0] != n) {
		t.Fatalf("%s: shape %v, want %d first", name, a.Shape, n)
	}
	out := make([]testutil.Tensor, n)
	for i := range out {
		out[i] = a.Slice(i)
	}
	return out
}

func filled(v float64, n int) []float64 { return slices.Repeat([]float64{v}, n) }

func scaled(a []float64, by float64) []float64 {
	out := slices.Clone(a)
	for i := range out {
		out[i] *= by
	}
	return out
}
