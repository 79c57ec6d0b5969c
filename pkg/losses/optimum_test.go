package losses_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/interpolants"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

// signs are all rows of ±1 of n numbers, [2ⁿ, n]. Their first and second moments are those of N(0, I), so that means over
// them are expectations, without an error of sampling, of everything that is quadratic.
func signs(n int) []float64 {
	var out []float64
	for row := range 1 << n {
		for i := range n {
			out = append(out, float64(2*(row>>i&1)-1))
		}
	}
	return out
}

// known is a loss of a model with one weight, at the weight where it has its optimum.
type known struct {
	name      string
	loss      losses.Loss
	weight    float64
	model     func(w *Node) losses.Model
	x, source testutil.Tensor
	draws     []testutil.Tensor
	scalars   []float64
	value     float64
	anyValue  bool
}

// quadratic is E = ½ w‖x‖², and linear the field f = w x that is its gradient.
func quadratic(w *Node) losses.Model {
	return losses.Model{Energy: func(x *Node) *Node { return Mul(w, MulScalar(ReduceSum(Square(x), -1), 0.5)) }}
}

func linear(w *Node) losses.Model {
	return losses.Model{Field: func(x, _, _ *Node) *Node { return Mul(w, x) }}
}

// With data of N(0, I) score matching and its sliced forms have their optimum at w = 1, with the value −dim/2, and
// denoising has it at w = 1/(1 + σ²), with ½ dim/(σ²(1 + σ²)).
func scoreOptima() (out []known) {
	const sigma = 0.5
	for _, dim := range []int{1, 2, 9} { // 9: an image of 3 × 3, and more directions than share a pass
		rows, patterns := testutil.Array(signs(dim), 1<<dim, dim), signs(dim)
		if dim == 9 {
			patterns = patterns[:16*dim] // whatever they are, the trace of a multiple of the identity is exact
		}
		n := len(patterns) / dim
		var each []float64 // every pattern for every row
		for k := range n {
			each = append(each, slices.Repeat(patterns[k*dim:(k+1)*dim], rows.Shape[0])...)
		}
		directions := []testutil.Tensor{testutil.Array(each, n, rows.Shape[0], dim)}
		half := -float64(dim) / 2
		for name, model := range map[string]func(*Node) losses.Model{"energy": quadratic, "field": linear} {
			add := func(k known) {
				k.name, k.model = fmt.Sprintf("%s, dim %d, %s", k.name, dim, name), model
				out = append(out, k)
			}
			add(known{name: "exact", loss: losses.ScoreMatching{}, weight: 1, x: rows, value: half})
			add(known{name: "hutchinson", loss: losses.ScoreMatching{Probes: n, ProbeType: "rademacher"}, weight: 1, x: rows, draws: directions, value: half})
			add(known{name: "variance reduced", loss: losses.SlicedScoreMatching{Projections: n, ProjectionType: "rademacher", VarianceReduced: true},
				weight: 1, x: rows, draws: directions, value: half})
			add(known{name: "sliced", loss: losses.SlicedScoreMatching{Projections: n, ProjectionType: "sphere"}, weight: 1, x: rows, draws: directions, value: half})

			// x and z are ±1 in all coordinates at once, and all four pairs come up.
			x, z := testutil.Filled(0, 4, dim), testutil.Filled(0, 4, dim)
			for row, pair := range [][2]float64{{1, 1}, {1, -1}, {-1, 1}, {-1, -1}} {
				for i := range dim {
					x.Data[row*dim+i], z.Data[row*dim+i] = pair[0], pair[1]
				}
			}
			at, value := 1/(1+sigma*sigma), float64(dim)/(2*sigma*sigma*(1+sigma*sigma))
			add(known{name: "denoising", loss: losses.DenoisingScoreMatching{Sigma: constant(sigma)}, weight: at, x: x,
				draws: []testutil.Tensor{z}, scalars: []float64{sigma}, value: value})
			add(known{name: "denoising, weighted", loss: losses.DenoisingScoreMatching{Sigma: constant(sigma), Weighted: true}, weight: at, x: x,
				draws: []testutil.Tensor{z}, scalars: []float64{sigma}, value: value * sigma * sigma})
			add(known{name: "denoising, levels that are all one", loss: losses.DenoisingScoreMatching{Levels: 3, SigmaMin: sigma, SigmaMax: sigma}, weight: at, x: x,
				draws: []testutil.Tensor{z, testutil.Array([]float64{0.1, 0.5, 0.7, 1}, 4)}, value: value})
		}
	}
	return append(out, mixture())
}

// With levels that differ the optimum is that of the mixture of them: w = 1/(1 + mean σ²), with the value ½(mean 1/σ² − w).
func mixture() known {
	const least, most = 0.5, 2.0
	loss, err := losses.Config{Kind: "denoising_score_matching", SigmaMin: ptr(least), SigmaMax: ptr(most), Levels: ptr(2)}.Build()
	if err != nil {
		panic(err)
	}
	x, z, u := testutil.Filled(0, 8, 1), testutil.Filled(0, 8, 1), testutil.Filled(0, 8)
	for i := range 8 {
		x.Data[i], z.Data[i], u.Data[i] = float64(2*(i&1)-1), float64(i&2-1), 0.2+0.15*float64(i&4)
	}
	at := 1 / (1 + (least*least+most*most)/2)
	return known{name: "denoising, two levels", loss: loss, model: quadratic, weight: at, x: x, draws: []testutil.Tensor{z, u},
		value: 0.5 * ((1/(least*least)+1/(most*most))/2 - at)}
}

// Between N(0, I) and N(0, I) the velocity at xₜ = t x₁ + (1 − t) x₀ is E[x₁ − x₀ | xₜ] = k(t) xₜ with
// k = (2t − 1)/(t² + (1 − t)²), since both are normal. w k(t) x has its optimum at w = 1.
func transportOptima() (out []known) {
	var x, source, times []float64
	for _, t := range []float64{0.1, 0.5, 0.6, 0.95} {
		for _, pair := range [][2]float64{{1, 1}, {1, -1}, {-1, 1}, {-1, -1}} {
			x, source, times = append(x, pair[0]), append(source, pair[1]), append(times, t)
		}
	}
	k := func(t float64) float64 { return (2*t - 1) / (t*t + (1-t)*(1-t)) }
	speed := func(t float64) float64 { return 4 * math.Min(1, (1-t)/0.2) }
	field := func(scale func(t *Node) *Node) func(w *Node) losses.Model {
		return func(w *Node) losses.Model {
			return losses.Model{Field: func(x, t, _ *Node) *Node {
				second := Add(Square(t), Square(OneMinus(t)))
				return Mul(Reshape(Mul(scale(t), Div(AddScalar(MulScalar(t, 2), -1), second)), -1, 1), Mul(w, x))
			}}
		}
	}
	n := len(times)
	base := known{weight: 1, x: testutil.Array(x, n, 1), source: testutil.Array(source, n, 1), draws: []testutil.Tensor{testutil.Array(times, n)}, anyValue: true}
	path := losses.Path{Interpolant: interpolants.Linear{}}
	eqm := losses.EquilibriumMatching{Path: path, Prediction: "velocity", EnergyType: "none", CT: "truncated", CTThreshold: 0.8, CTMultiplier: 4}

	flow := base
	flow.name, flow.loss, flow.model = "flow matching", losses.FlowMatching{Path: path}, field(OnesLike)
	negated := base
	negated.name, negated.loss, negated.model = "flow matching, negated", losses.FlowMatching{Path: path, Negate: true}, field(func(t *Node) *Node { return Neg(OnesLike(t)) })
	timed, withTime := base, eqm
	timed.name, timed.loss, timed.model = "equilibrium matching with time", withTime, field(func(t *Node) *Node { return Neg(withTime.Speed(t)) })
	out = append(out, flow, negated, timed)

	// Without time w x is fitted to −c k xₜ over all times: w = −Σ c k s²/Σ s² with s² = t² + (1 − t)².
	top, bottom := 0.0, 0.0
	for _, t := range times {
		s2 := t*t + (1-t)*(1-t)
		top, bottom = top-speed(t)*k(t)*s2, bottom+s2
	}
	eqm.TimeInvariant = true
	for name, model := range map[string]func(*Node) losses.Model{"energy": quadratic, "field": linear} {
		still := base
		still.name, still.loss, still.model, still.weight = "equilibrium matching, "+name, eqm, model, top/bottom
		out = append(out, still)
	}
	// x·f = w x² has twice the gradient, −½‖f‖² = −½ w²x² the gradient −w² x.
	dot, l2 := base, base
	eqm.EnergyType = "dot"
	dot.name, dot.loss, dot.model, dot.weight = "equilibrium matching, dot", eqm, linear, top/bottom/2
	eqm.EnergyType, eqm.CTMultiplier = "l2", -4 // so that there is a w with −w² = top/bottom
	l2.name, l2.loss, l2.model, l2.weight = "equilibrium matching, l2", eqm, linear, math.Sqrt(top/bottom)
	return append(out, dot, l2)
}

func constant(v float64) schedules.Schedule {
	s, err := schedules.Constant(v).Build()
	if err != nil {
		panic(err)
	}
	return s
}

func TestOptima(t *testing.T) {
	all := append(scoreOptima(), transportOptima()...)
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		var in []testutil.Tensor
		for _, k := range all {
			in = append(in, testutil.Filled(k.weight), k.x)
			in = append(in, k.draws...)
			for _, v := range k.scalars {
				in = append(in, testutil.Filled(v))
			}
			if k.source.Shape != nil {
				in = append(in, k.source)
			}
		}
		out := testutil.Eval(t, b, dtypes.Float64, in, func(in []*Node) (out []*Node) {
			take := func(n int) (head []*Node) {
				head, in = in[:n], in[n:]
				return head
			}
			for _, k := range all {
				first := take(2)
				batch := losses.Batch{X: first[1], Draws: take(len(k.draws)), Scalars: take(len(k.scalars))}
				if k.source.Shape != nil {
					batch.Source = take(1)[0]
				}
				loss := k.loss.Build(k.model(first[0]), batch).Loss
				out = append(out, loss, Gradient(loss, first[0])[0])
			}
			return out
		})
		for i, k := range all {
			if !k.anyValue {
				testutil.Compare(t, k.name+": loss", out[2*i], testutil.Filled(k.value), testutil.Tolerance{RTol: 1e-12})
			}
			testutil.Compare(t, k.name+": slope", out[2*i+1], testutil.Filled(0), testutil.Tolerance{ATol: 1e-12})
		}
	})
}

// Over all directions of ±1 the products of different coordinates cancel: the estimates of the trace average to it, and
// the sliced loss to the exact one, also for a network. Direction by direction, the variance-reduced form of a round
// energy does not scatter at all, and the plain one does.
func TestDirections(t *testing.T) {
	const dim, rows = 3, 4
	e, err := models.New("mlp", dim, map[string]any{"hidden": []int{6, 5}})
	if err != nil {
		t.Fatal(err)
	}
	in := []testutil.Tensor{testutil.Array([]float64{0.3, -1, 2, 0.5, -0.7, 0.1, 1.2, 0, -0.4, 0.9, 0.8, -2}, rows, dim)}
	var each []float64
	for k := range 1 << dim {
		each = append(each, slices.Repeat(signs(dim)[k*dim:(k+1)*dim], rows)...)
	}
	in = append(in, testutil.Array(each, 1<<dim, rows, dim))
	flat := models.InitParams(e, 3)
	for _, p := range e.Params() {
		in = append(in, testutil.Array(flat[:p.Size()], p.Shape...))
		flat = flat[p.Size():]
	}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		out := testutil.Eval(t, b, dtypes.Float64, in, func(in []*Node) (out []*Node) {
			m := losses.Model{Energy: models.At(e, in[2:])}
			batch := losses.Batch{X: in[0], Draws: in[1:2]}
			n := 1 << dim
			for _, l := range []losses.Loss{
				losses.ScoreMatching{},
				losses.ScoreMatching{Probes: n, ProbeType: "rademacher"},
				losses.SlicedScoreMatching{Projections: n, ProjectionType: "rademacher"},
				losses.SlicedScoreMatching{Projections: n, ProjectionType: "rademacher", VarianceReduced: true},
			} {
				loss := l.Build(m, batch).Loss
				out = append(out, loss, Gradient(loss, in[2])[0])
			}
			round := quadratic(Const(in[0].Graph(), 1.5))
			for k := range n {
				batch.Draws = []*Node{Slice(in[1], AxisRange(k, k+1))}
				for _, reduced := range []bool{false, true} {
					out = append(out, losses.SlicedScoreMatching{Projections: 1, ProjectionType: "rademacher", VarianceReduced: reduced}.Build(round, batch).Loss)
				}
			}
			return out
		})
		for i, name := range []string{"hutchinson", "sliced", "variance reduced"} {
			testutil.Compare(t, name+": loss", out[2*i+2], testutil.Array(out[0]), testutil.Tolerance{RTol: 1e-12})
			testutil.Compare(t, name+": gradient", out[2*i+3], testutil.Array(out[1]), testutil.Tolerance{RTol: 1e-11, ATol: 1e-14})
		}
		spread := func(first int) (v float64) {
			for k := first; k < len(out); k += 2 {
				v = math.Max(v, math.Abs(out[k][0]-out[first][0]))
			}
			return v
		}
		if plain, reduced := spread(8), spread(9); reduced > 1e-12 || plain < 0.1 {
			t.Errorf("losses by direction scatter by %g, with reduced variance by %g: want 0 of that, and more of the other", plain, reduced)
		}
	})
}
