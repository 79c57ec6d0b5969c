package samplers_test

import (
	"math"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
)

// gaussianPath is a linear path between two Gaussians, in a graph and worked out by hand: E = ½Σ k(x − 1)²,
// log q = −½Σ x²/4, log π_β = log q + β(−E − log q).
const stiffness, referenceVar = 3.0, 4.0

func gaussianPath() samplers.Path {
	energy := func(x *Node) *Node { return MulScalar(ReduceSum(Square(AddScalar(x, -1)), -1), stiffness/2) }
	logRef := func(x *Node) *Node { return MulScalar(ReduceSum(Square(x), -1), -0.5/referenceVar) }
	return samplers.Linear(energy, logRef)
}

func gaussianByHand(beta float64, x []float64) (logp float64, grad []float64) {
	for _, v := range x {
		logp -= (1-beta)*v*v/(2*referenceVar) + beta*stiffness*(v-1)*(v-1)/2
		grad = append(grad, -(1-beta)*v/referenceVar-beta*stiffness*(v-1))
	}
	return logp, grad
}

// The acceptance against the Metropolis–Hastings ratio from its definition, in Go: a uniform just below the ratio
// accepts, one just above rejects. Each row has its own β and step size, large enough that the ratios differ from 1.
func TestMALAAcceptsByTheMetropolisRatio(t *testing.T) {
	const dim, pairs = 3, 24
	stream := rng.New(5, rng.Sample, 0, 0)
	var x, z, beta, eps, logRatios, proposals []float64
	for i := range pairs {
		b, e := float64(i%5)/4, 0.1+0.05*float64(i%7)
		state, noise := make([]float64, dim), make([]float64, dim)
		for d := range dim {
			state[d], noise[d] = 0.5+0.5*stream.Normal(), 1.3*stream.Normal() // near the modes, where ratios below 1 are
		}
		logp, grad := gaussianByHand(b, state)
		y := make([]float64, dim)
		for d := range dim {
			y[d] = state[d] + e*grad[d] + math.Sqrt(2*e)*noise[d]
		}
		logq, gradY := gaussianByHand(b, y)
		transition := func(to, from, grad []float64) (sum float64) {
			for d := range dim {
				r := to[d] - from[d] - e*grad[d]
				sum -= r * r / (4 * e)
			}
			return sum
		}
		ratio := logq - logp + transition(state, y, gradY) - transition(y, state, grad)
		for range 2 { // one row for a uniform below, one for a uniform above
			x, z, proposals = append(x, state...), append(z, noise...), append(proposals, y...)
			beta, eps, logRatios = append(beta, b), append(eps, e), append(logRatios, ratio)
		}
	}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for _, precision := range []struct {
			dtype          dtypes.DType
			margin, values float64
		}{{dtypes.Float64, 1e-10, 1e-12}, {dtypes.Float32, 1e-4, 1e-5}} { // about a hundred roundings
			u, accept := make([]float64, len(x)/dim), make([]float64, len(x)/dim)
			var nextX, nextLogP, nextGrad []float64
			rejected := 0
			for r := range u {
				below := r%2 == 0 || logRatios[r] > -precision.margin // a ratio above 1 has no uniform above it
				u[r] = math.Exp(min(logRatios[r]*(1+precision.margin)-precision.margin, -1e-7))
				goal := proposals
				if !below {
					u[r], goal = math.Exp(logRatios[r]*(1-precision.margin)+precision.margin), x
					rejected++
				} else {
					accept[r] = 1
				}
				state := goal[r*dim : (r+1)*dim]
				logp, grad := gaussianByHand(beta[r], state)
				nextX, nextLogP, nextGrad = append(nextX, state...), append(nextLogP, logp), append(nextGrad, grad...)
			}
			if rejected < pairs/3 {
				t.Fatalf("%d rows of %d with a ratio below 1", rejected, pairs)
			}
			n := len(u)
			out := testutil.Eval(t, b, precision.dtype, []testutil.Tensor{
				testutil.Array(x, n, dim), testutil.Array(z, n, dim), testutil.Array(beta, n), testutil.Array(eps, n), testutil.Array(u, n),
			}, func(in []*Node) []*Node {
				target := samplers.Target{Beta: in[2], Path: gaussianPath()}
				p, info := samplers.MALA{}.Step(target, target.At(in[0]), in[3], samplers.Noise{Z: in[1], U: in[4]})
				fresh := target.At(p.X)
				return []*Node{info.Accept, info.NonFinite, p.X, p.LogP, p.Grad, Sub(p.V, fresh.V)}
			})
			same := testutil.Tolerance{}
			close := testutil.Tolerance{RTol: precision.values, ATol: 30 * precision.values}
			name := " in " + precision.dtype.String()
			testutil.Compare(t, "accepted"+name, out[0], testutil.Array(accept, n), same)
			testutil.Compare(t, "not finite"+name, out[1], testutil.Filled(0, n), same)
			testutil.Compare(t, "x"+name, out[2], testutil.Array(nextX, n, dim), close)
			testutil.Compare(t, "log density"+name, out[3], testutil.Array(nextLogP, n), close)
			testutil.Compare(t, "gradient"+name, out[4], testutil.Array(nextGrad, n, dim), close)
			testutil.Compare(t, "V of the state it kept"+name, out[5], testutil.Filled(0, n), close)
		}
	})
}

// From x = 0 with ε = ½ on E = ½x² the proposal is the noise itself.
func TestMALARejectsWhatIsNotFinite(t *testing.T) {
	energy := func(x *Node) *Node {
		x = Reshape(x, x.Shape().Dimensions[0])
		beyond := func(e *Node, edge, value float64) *Node {
			return Where(GreaterThan(x, ConstAs(x, edge)), BroadcastToDims(ConstAs(x, value), x.Shape().Dimensions...), e)
		}
		e := MulScalar(Square(x), 0.5)
		return beyond(beyond(beyond(e, 10, math.Inf(1)), 20, math.Inf(-1)), 30, math.NaN())
	}
	z := testutil.Array([]float64{1, 15, 25, 35, math.NaN(), math.Inf(1)}, 6, 1)
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		double, single := testutil.EvalBoth(t, b, []testutil.Tensor{z}, func(in []*Node) []*Node {
			rows := in[0].Shape().Dimensions[0]
			all := func(v float64) *Node { return BroadcastToDims(ConstAs(in[0], v), rows) }
			target := samplers.Target{Beta: all(1), Path: samplers.Power(energy)}
			p, info := samplers.MALA{}.Step(target, target.At(ZerosLike(in[0])), all(0.5), samplers.Noise{Z: in[0], U: all(0.01)})
			return []*Node{info.Accept, info.NonFinite, p.X, p.V, p.LogP, p.Grad}
		})
		for _, out := range [][][]float64{double, single} {
			for i, want := range []struct {
				name   string
				values []float64
			}{
				{"accepted", []float64{1, 0, 0, 0, 0, 0}}, {"not finite", []float64{0, 1, 1, 1, 1, 1}}, {"x", []float64{1, 0, 0, 0, 0, 0}},
				{"V", []float64{-0.5, 0, 0, 0, 0, 0}}, {"log density", []float64{-0.5, 0, 0, 0, 0, 0}}, {"gradient", []float64{-1, 0, 0, 0, 0, 0}},
			} {
				testutil.Compare(t, want.name, out[i], testutil.Array(want.values, 6), testutil.Tolerance{RTol: 1e-6})
			}
		}
	})
}

// One step on βk/2·x², worked out by hand, with a β and a step size for each row.
func TestLangevinSteps(t *testing.T) {
	beta, eps := []float64{1, 0.5, 0.25}, []float64{0.1, 0.2, 0.4}
	x, z := []float64{1, -2, 3}, []float64{0.5, 1, -2}
	const k, scale = 3.0, 0.7
	var euler, heun, clamped []float64
	for r := range x {
		g := func(x float64) float64 { return beta[r] * k * x }
		noise := scale * math.Sqrt(2*eps[r]) * z[r]
		euler = append(euler, x[r]-eps[r]*g(x[r])+noise)
		heun = append(heun, x[r]-eps[r]/2*(g(x[r])+g(x[r]-eps[r]*g(x[r])))+noise)
		clamped = append(clamped, max(-0.5, min(0.5, euler[r])))
	}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		out := testutil.Eval(t, b, dtypes.Float64, []testutil.Tensor{
			testutil.Array(x, 3, 1), testutil.Array(z, 3, 1), testutil.Array(beta, 3), testutil.Array(eps, 3),
		}, func(in []*Node) []*Node {
			target := samplers.Target{Beta: in[2], Path: samplers.Power(func(x *Node) *Node { return MulScalar(ReduceSum(Square(x), -1), k/2) })}
			var out []*Node
			for _, kernel := range []samplers.Langevin{{}, {Heun: true}, {Clamp: &[2]float64{-0.5, 0.5}}} {
				kernel.Scale = ConstAs(in[0], scale)
				p, info := kernel.Step(target, target.At(in[0]), in[3], samplers.Noise{Z: in[1]})
				if info.Accept != nil {
					t.Error("a kernel that takes every step reports acceptance")
				}
				out = append(out, p.X, Add(p.Grad, Mul(ExpandAxes(MulScalar(in[2], k), -1), p.X)))
			}
			return out
		})
		for i, want := range [][]float64{euler, heun, clamped} {
			testutil.Compare(t, "x", out[2*i], testutil.Array(want, 3), testutil.Tolerance{RTol: 1e-12})
			testutil.Compare(t, "gradient at the state", out[2*i+1], testutil.Filled(0, 3), testutil.Tolerance{ATol: 1e-12})
		}
	})
}

// A clamp hides neither infinities nor NaN from the report.
func TestLangevinReportsWhatIsNotFinite(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for _, heun := range []bool{false, true} {
			out := testutil.Eval(t, b, dtypes.Float32, []testutil.Tensor{testutil.Array([]float64{1, math.Inf(1), math.NaN(), math.Inf(-1)}, 4, 1)}, func(in []*Node) []*Node {
				target := samplers.Target{Beta: OnesLike(Reshape(in[0], 4)), Path: gaussianPath()}
				kernel := samplers.Langevin{Clamp: &[2]float64{-2, 2}, Heun: heun}
				p, info := kernel.Step(target, target.At(ZerosLike(in[0])), MulScalar(target.Beta, 0.1), samplers.Noise{Z: in[0]})
				return []*Node{info.NonFinite, p.X}
			})
			testutil.Compare(t, "not finite", out[0], testutil.Array([]float64{0, 1, 1, 1}, 4), testutil.Tolerance{})
			if out[1][1] != 2 || !math.IsNaN(out[1][2]) || out[1][3] != -2 {
				t.Errorf("states %v, want 2, NaN and −2 at the end", out[1])
			}
		}
	})
}

func TestStepSizes(t *testing.T) {
	for _, tc := range []struct {
		name      string
		eps       float64
		betas     []float64
		reference []float64
		want      []float64
	}{
		{"linear path: ε/√β up to half the variance of the reference", 0.01, []float64{0, 0.01, 0.25, 1}, []float64{1, 2}, []float64{0.5, 0.1, 0.02, 0.01}},
		{"the smallest variance counts", 0.01, []float64{0, 0.0001, 1}, []float64{2, 0.5, 3}, []float64{0.125, 0.125, 0.01}},
		{"never below that of the target", 0.3, []float64{0, 0.5, 1}, []float64{0.5}, []float64{0.3, 0.3, 0.3}},
		{"power path: ε/β", 0.01, []float64{0.1, 0.5, 1}, nil, []float64{0.1, 0.02, 0.01}},
		{"one rung, with a reference and without", 0.01, []float64{1}, []float64{1}, []float64{0.01}},
		{"one rung on the power path", 0.01, []float64{1}, nil, []float64{0.01}},
	} {
		got := samplers.StepSizes(tc.eps, tc.betas, tc.reference)
		testutil.Compare(t, tc.name, got, testutil.Array(tc.want, len(tc.want)), testutil.Tolerance{RTol: 1e-14})
		if got[len(got)-1] != tc.eps {
			t.Errorf("%s: the target rung has %.17g, want %g to the last bit", tc.name, got[len(got)-1], tc.eps)
		}
	}
}
