package interpolants_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/interpolants"
)

// bent is a path of the test's own: α = t², σ = 1 − t³.
type bent struct{}

func (bent) Alpha(t *Node) *Node  { return Square(t) }
func (bent) DAlpha(t *Node) *Node { return MulScalar(t, 2) }
func (bent) Sigma(t *Node) *Node  { return OneMinus(Mul(t, Square(t))) }
func (bent) DSigma(t *Node) *Node { return MulScalar(Square(t), -3) }
func (bent) Ratio(t *Node) *Node {
	return DivScalar(Reciprocal(MaxScalar(t, interpolants.Edge)), 0.5)
}
func (b bent) DriftVariance(t *Node) *Node {
	return Mul(b.Sigma(t), Sub(Mul(b.Ratio(t), b.Sigma(t)), b.DSigma(t)))
}

var paths = []struct {
	name   string
	path   interpolants.Interpolant
	circle bool // α² + σ² = 1
	ends   [4]float64
}{
	{"linear", interpolants.Linear{}, false, [4]float64{0, 1, 1, 0}},
	{"cosine", interpolants.Cosine{}, true, [4]float64{0, 1, 1, 0}},
	{"vp", interpolants.VP{BetaMin: 0.1, BetaMax: 20}, true, [4]float64{math.Exp(-5.025), math.Sqrt(1 - math.Exp(-10.05)), 1, 1e-6}},
	{"vp of a constant rate", interpolants.VP{BetaMin: 2, BetaMax: 2}, true, [4]float64{math.Exp(-1), math.Sqrt(1 - math.Exp(-2)), 1, 1e-6}},
	{"one of the test's own", bent{}, false, [4]float64{0, 1, 1, 0}},
}

// times are in (0, 1), then the ends.
var times = []float64{0.01, 0.1, 0.3, 0.5, 0.77, 0.9, 0.99, 0, 1}

const inside = 7 // of times

// The derivatives are derivatives, to the eye of automatic differentiation as well; r and w are what they are made of; the
// circle is one; and the ends are where they should be.
func TestPaths(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		const d = 1e-6
		grid := testutil.Array(times, len(times))
		out := testutil.Eval(t, b, dtypes.Float64, []testutil.Tensor{grid}, func(in []*Node) (out []*Node) {
			at := in[0]
			for _, p := range paths {
				difference := func(f func(t *Node) *Node) *Node {
					return DivScalar(Sub(f(AddScalar(at, d)), f(AddScalar(at, -d))), 2*d)
				}
				auto := func(f func(t *Node) *Node) *Node { return Gradient(ReduceAllSum(f(at)), at)[0] }
				alpha, sigma, dSigma := p.path.Alpha(at), p.path.Sigma(at), p.path.DSigma(at)
				ratio := Div(p.path.DAlpha(at), alpha)
				out = append(out, alpha, sigma,
					p.path.DAlpha(at), difference(p.path.Alpha), auto(p.path.Alpha),
					dSigma, difference(p.path.Sigma), auto(p.path.Sigma),
					p.path.Ratio(at), ratio,
					p.path.DriftVariance(at), Sub(Mul(ratio, Square(sigma)), Mul(sigma, dSigma)))
			}
			return out
		})
		for i, p := range paths {
			t.Run(p.name, func(t *testing.T) {
				v := out[12*i : 12*(i+1)]
				same := func(what string, got, want []float64, tolerance float64) {
					t.Helper()
					testutil.Compare(t, what, got[:inside], testutil.Array(want[:inside], inside), testutil.Tolerance{RTol: tolerance, ATol: tolerance})
				}
				// A central difference is off by d²/6 times the third derivative, and by rounding of 1e-16/d.
				same("dα/dt against differences", v[2], v[3], 1e-8)
				same("dα/dt against automatic differentiation", v[2], v[4], 1e-13)
				same("dσ/dt against differences", v[5], v[6], 1e-8)
				same("dσ/dt against automatic differentiation", v[5], v[7], 1e-13)
				same("r", v[8], v[9], 1e-12)
				same("w", v[10], v[11], 1e-12)
				if p.circle {
					var sum []float64
					for k := range times {
						sum = append(sum, v[0][k]*v[0][k]+v[1][k]*v[1][k])
					}
					same("α² + σ²", sum, slices.Repeat([]float64{1}, inside), 1e-14)
				}
				ends := []float64{v[0][inside], v[1][inside], v[0][inside+1], v[1][inside+1]}
				testutil.Compare(t, "α and σ at 0 and 1", ends, testutil.Array(p.ends[:], 4), testutil.Tolerance{ATol: 1e-15, RTol: 1e-12})
			})
		}
	})
}

// A single pair of noise and data is the law of xₜ that is easiest to know: its noise is x₀, its score −x₀/σ, its velocity uₜ.
// All conversions must take each into the others, and back.
func TestConversionsOfAPair(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		n := len(times[:inside])
		var x0, x1 []float64
		for i := range 2 * n {
			x0, x1 = append(x0, math.Sin(float64(3*i+1))), append(x1, 2*math.Cos(float64(5*i)))
		}
		in := []testutil.Tensor{testutil.Array(x0, n, 2), testutil.Array(x1, n, 2), testutil.Array(times[:inside], n)}
		double, single := testutil.EvalBoth(t, b, in, func(in []*Node) (out []*Node) {
			noise, t := in[0], in[2]
			for _, p := range paths {
				x, u := interpolants.At(p.path, in[0], in[1], t)
				score := Neg(Div(noise, ExpandAxes(p.path.Sigma(t), -1)))
				out = append(out, u, score,
					interpolants.VelocityToNoise(p.path, x, u, t),
					interpolants.VelocityToScore(p.path, x, u, t),
					interpolants.NoiseToScore(p.path, noise, t),
					interpolants.ScoreToVelocity(p.path, x, score, t),
					interpolants.NoiseToVelocity(p.path, x, noise, t))
			}
			return out
		})
		check := func(t *testing.T, v [][]float64, precision float64) {
			same := func(what string, got, want []float64) {
				t.Helper()
				// Near an end, at 0.01 or 0.99, numbers of the size of 100 to 10⁴ cancel.
				testutil.Compare(t, what, got, testutil.Array(want, len(want)), testutil.Tolerance{RTol: 1e4 * precision, ATol: 1e4 * precision})
			}
			same("noise of the velocity", v[2], x0)
			same("score of the velocity", v[3], v[1])
			same("score of the noise", v[4], v[1])
			same("velocity of the score", v[5], v[0])
			same("velocity of the noise", v[6], v[0])
		}
		for i, p := range paths {
			t.Run(p.name, func(t *testing.T) { check(t, double[7*i:7*(i+1)], 0x1p-53) })
			t.Run(p.name+" in float32", func(t *testing.T) { check(t, single[7*i:7*(i+1)], 0x1p-24) })
		}
	})
}

// Data of law N(m, s²) have xₜ of law N(αm, α²s² + σ²), whose score is known, and the flow that carries these laws has the
// velocity α̇m + (αα̇s² + σσ̇)/(α²s² + σ²)·(x − αm).
func TestVelocityOfAGaussian(t *testing.T) {
	const m, s2 = 2, 0.25
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		n := inside
		in := []testutil.Tensor{testutil.Array([]float64{-1, 0, 0.5, 1, 1.5, 2, 3}, n, 1), testutil.Array(times[:n], n)}
		out := testutil.Eval(t, b, dtypes.Float64, in, func(in []*Node) (out []*Node) {
			x, t := in[0], ExpandAxes(in[1], -1)
			for _, p := range paths {
				a, da, s, ds := p.path.Alpha(t), p.path.DAlpha(t), p.path.Sigma(t), p.path.DSigma(t)
				variance := Add(MulScalar(Square(a), s2), Square(s))
				from := Sub(x, MulScalar(a, m))
				score := Neg(Div(from, variance))
				slope := Div(Add(MulScalar(Mul(a, da), s2), Mul(s, ds)), variance)
				out = append(out, interpolants.ScoreToVelocity(p.path, x, score, in[1]), Add(MulScalar(da, m), Mul(slope, from)))
			}
			return out
		})
		for i, p := range paths {
			testutil.Compare(t, p.name, out[2*i], testutil.Array(out[2*i+1], n), testutil.Tolerance{RTol: 1e-11, ATol: 1e-11})
		}
	})
}

var conversions = []struct {
	name  string
	build func(i interpolants.Interpolant, x, y, t *Node) *Node
}{
	{"VelocityToScore", interpolants.VelocityToScore},
	{"VelocityToNoise", interpolants.VelocityToNoise},
	{"ScoreToVelocity", interpolants.ScoreToVelocity},
	{"NoiseToVelocity", interpolants.NoiseToVelocity},
	{"NoiseToScore", func(i interpolants.Interpolant, _, e, t *Node) *Node { return interpolants.NoiseToScore(i, e, t) }},
}

// Nothing is infinite at the ends, in either precision, nor are derivatives with respect to the state.
func TestEndsAreFinite(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		in := []testutil.Tensor{testutil.Array([]float64{1, -2}, 2, 1), testutil.Array([]float64{0, 1}, 2)}
		var names []string
		double, single := testutil.EvalBoth(t, b, in, func(in []*Node) (out []*Node) {
			x, t := in[0], in[1]
			names = names[:0]
			add := func(name string, n *Node) { names, out = append(names, name), append(out, n) }
			for _, p := range paths {
				for _, c := range conversions {
					y := c.build(p.path, x, Sin(x), t)
					add(p.name+" "+c.name, y)
					add(p.name+" gradient of "+c.name, Gradient(ReduceAllSum(y), x)[0])
				}
				for _, form := range interpolants.DiffusionForms() {
					add(p.name+" diffusion "+form, interpolants.Diffusion{Form: form, Norm: 1}.At(p.path, t))
				}
				xt, ut := interpolants.At(p.path, x, Cos(x), t)
				add(p.name+" xt", xt)
				add(p.name+" ut", ut)
			}
			return out
		})
		for i, name := range names {
			for _, v := range slices.Concat(double[i], single[i]) {
				if math.IsNaN(v) || math.Abs(v) > 1e7 {
					t.Errorf("%s: %g", name, v)
				}
			}
		}
	})
}

// One time for the whole batch gives what a time for each row gives.
func TestScalarTime(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		in := []testutil.Tensor{testutil.Array([]float64{1, 2, 3, 4}, 2, 1, 2), testutil.Array([]float64{-1, 0, 1, 5}, 2, 1, 2), testutil.Filled(0.3)}
		out := testutil.Eval(t, b, dtypes.Float64, in, func(in []*Node) []*Node {
			all := func(t *Node) []*Node {
				x, u := interpolants.At(interpolants.Cosine{}, in[0], in[1], t)
				return []*Node{x, u, interpolants.VelocityToScore(interpolants.Cosine{}, x, u, t), interpolants.VelocityToNoise(interpolants.TorchEBM(interpolants.Cosine{}), x, u, t)}
			}
			return append(all(in[2]), all(BroadcastToDims(in[2], 2))...)
		})
		for i := range 4 {
			testutil.Compare(t, "one time", out[i], testutil.Array(out[i+4], 4), testutil.Tolerance{})
		}
	})
}

func TestDiffusion(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		forms := interpolants.DiffusionForms()
		out := testutil.Eval(t, b, dtypes.Float64, []testutil.Tensor{testutil.Array([]float64{0.25, 1}, 2)}, func(in []*Node) (out []*Node) {
			for _, form := range forms {
				out = append(out, interpolants.Diffusion{Form: form, Norm: 2}.At(interpolants.Linear{}, in[0]))
			}
			return out
		})
		edge := 2 * interpolants.Edge / (1 - interpolants.Edge) // where the form sbdm stops short of t = 1
		for i, want := range [][]float64{{2, 2}, {6, edge}, {1.5, 0}, {1.5, 0}, {1.125, 0}, {1.5, 0}} {
			testutil.Compare(t, forms[i], out[i], testutil.Array(want, 2), testutil.Tolerance{RTol: 1e-10})
		}
	})
	_, err := backend.Compile(testutil.Backend(t, backend.Go), "test", []backend.Input{{Name: "t", Shape: shapes.Make(dtypes.Float64, 1)}}, func(in []*Node) []*Node {
		return []*Node{interpolants.Diffusion{Form: "round", Norm: 1}.At(interpolants.Linear{}, in[0])}
	})
	if err == nil || !strings.Contains(err.Error(), `form: "round", want one of`) {
		t.Errorf("got %v, want it to name the form", err)
	}
	err = interpolants.Diffusion{Form: "SBDM", Norm: math.NaN()}.Validate()
	for _, want := range []string{`form: "SBDM", want one of constant, sbdm, sigma`, "norm: NaN, want a positive number"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to say %s", err, want)
		}
	}
}

// What the recorded vectors do not show of TorchEBM's divisions: the score of a noise is e/(−σ + 1e-8), which is also what its
// velocity is made of, and a path of the user's own has r = α̇/max(α, 1e-8).
func TestTorchEBM(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		in := []testutil.Tensor{testutil.Array([]float64{3, 3}, 2, 1), testutil.Array([]float64{2, 2}, 2, 1), testutil.Array([]float64{0.5, 1}, 2)}
		out := testutil.Eval(t, b, dtypes.Float64, in, func(in []*Node) []*Node {
			guarded := interpolants.TorchEBM(interpolants.TorchEBM(bent{}))
			linear := interpolants.TorchEBM(interpolants.Linear{})
			x, noise, t := in[0], in[1], in[2]
			return []*Node{
				guarded.Ratio(MulScalar(t, 2e-6)), // t = 1e-6 and 2e-6
				interpolants.NoiseToScore(linear, noise, t),
				interpolants.NoiseToVelocity(linear, x, noise, t),
			}
		})
		score := []float64{2 / (-0.5 + 1e-8), 2 / 1e-8}
		for i, want := range [][]float64{
			{2e-6 / 1e-8, 4e-6 / 1e-8}, score,
			{3/0.5 + 1*score[0], 3}, // r x + w s with r = 1/t, w = (1 − t)/t
		} {
			testutil.Compare(t, []string{"r", "score", "velocity"}[i], out[i], testutil.Array(want, 2), testutil.Tolerance{RTol: 1e-13})
		}
	})
}

func TestConfig(t *testing.T) {
	number := func(v float64) *float64 { return &v }
	for _, tc := range []struct {
		name   string
		config interpolants.Config
		want   interpolants.Interpolant
		faults []string
	}{
		{"nothing", interpolants.Config{}, interpolants.Linear{}, nil},
		{"linear", interpolants.Config{Kind: "linear"}, interpolants.Linear{}, nil},
		{"cosine", interpolants.Config{Kind: "cosine"}, interpolants.Cosine{}, nil},
		{"vp", interpolants.Config{Kind: "vp"}, interpolants.VP{BetaMin: 0.1, BetaMax: 20}, nil},
		{"vp, one rate", interpolants.Config{Kind: "vp", SigmaMax: number(8)}, interpolants.VP{BetaMin: 0.1, BetaMax: 8}, nil},
		{"another name", interpolants.Config{Kind: "sine"}, nil, []string{`kind: "sine", want one of linear, cosine, vp`}},
		{"a rate of another kind", interpolants.Config{Kind: "cosine", SigmaMin: number(1)}, nil,
			[]string{"sigma_min: not an option of kind cosine, want kind: vp or no sigma_min"}},
		{"two faults", interpolants.Config{Kind: "vp", SigmaMin: number(-1), SigmaMax: number(math.Inf(1))}, nil,
			[]string{"sigma_min: -1, want 0 or more", "sigma_max: +Inf, want a positive number"}},
		{"the wrong way round", interpolants.Config{Kind: "vp", SigmaMin: number(2), SigmaMax: number(1)}, nil,
			[]string{"sigma_max: 1, want at least sigma_min, 2"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tc.config.Build()
			if got != tc.want || (err == nil) != (tc.faults == nil) {
				t.Errorf("got %v, %v, want %v", got, err, tc.want)
			}
			for _, fault := range tc.faults {
				if err == nil || !strings.Contains(err.Error(), fault) {
					t.Errorf("got %v, want it to say %s", err, fault)
				}
			}
		})
	}
	for _, k := range interpolants.Kinds() {
		if k.Doc == "" || k.Formula == "" || k.Source == "" {
			t.Errorf("%s: something is not documented", k.Name)
		}
	}
}
