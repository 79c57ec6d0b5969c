package samplers_test

import (
	"math"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
)

// A trajectory of HMC worked out in Go, each row at its own β and step size: where it ends, both Hamiltonians, and what
// becomes of it for a uniform just below and just above exp(H − H*).
func TestHMCStepsByHand(t *testing.T) {
	const leapfrogs, mass = 3, 2.0
	x, z := []float64{1.5, -0.4, 2, 0.3}, []float64{0.7, -1.2, 0.4, 2}
	beta, eps := []float64{1, 0.5, 0.25, 0}, []float64{0.9, 0.7, 1.1, 1.9}
	var endX, endP, current, proposed []float64
	for r := range x {
		at, p := x[r], math.Sqrt(mass)*z[r]
		hamiltonian := func() float64 { logp, _ := gaussianByHand(beta[r], []float64{at}); return p*p/(2*mass) - logp }
		current = append(current, hamiltonian())
		for range leapfrogs {
			_, force := gaussianByHand(beta[r], []float64{at})
			p += eps[r] / 2 * force[0]
			at += eps[r] * p / mass
			_, force = gaussianByHand(beta[r], []float64{at})
			p += eps[r] / 2 * force[0]
		}
		endX, endP, proposed = append(endX, at), append(endP, p), append(proposed, hamiltonian())
	}
	rows := len(x)
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		program := testutil.Compile(t, b, dtypes.Float64, [][]int{{rows, 1}, {rows, 1}, {rows}, {rows}, {rows}}, func(in []*Node) []*Node {
			target := samplers.Target{Beta: in[2], Path: gaussianPath()}
			p, info := samplers.HMC{Leapfrogs: leapfrogs, Mass: []float64{mass}}.Step(target, target.At(in[0]), in[3], samplers.Noise{Z: in[1], U: in[4]})
			fresh := target.At(p.X)
			return []*Node{info.ProposalX, info.ProposalP, info.Current, info.Proposed, info.AcceptProb, info.Accept, p.X, Sub(p.LogP, fresh.LogP), Sub(p.Grad, fresh.Grad), Sub(p.V, fresh.V)}
		})
		for _, factor := range []float64{1 - 1e-9, 1 + 1e-9} {
			var u, probability, accept, next []float64
			for r := range x {
				a := math.Min(1, math.Exp(current[r]-proposed[r]))
				probability = append(probability, a)
				u = append(u, math.Min(a*factor, 1-1e-9))
				taken := 0.0
				if u[r] < a {
					taken = 1
				}
				accept = append(accept, taken)
				next = append(next, taken*endX[r]+(1-taken)*x[r])
			}
			out := program.Run(t, testutil.Array(x, rows, 1), testutil.Array(z, rows, 1), testutil.Array(beta, rows), testutil.Array(eps, rows), testutil.Array(u, rows))
			for i, want := range [][]float64{endX, endP, current, proposed, probability, accept, next} {
				testutil.Compare(t, []string{"proposal", "momentum", "H", "H*", "probability", "accepted", "x"}[i], out[i], testutil.Array(want, rows), testutil.Tolerance{RTol: 1e-11, ATol: 1e-12})
			}
			for _, off := range out[7:] { // the cached density and gradient are those of the state that was kept
				testutil.Compare(t, "cache", off, testutil.Filled(0, rows), testutil.Tolerance{ATol: 1e-12})
			}
		}
	})
}

// A dense metric that happens to be diagonal against the diagonal path; and one that turns with the place, whose kinetic
// energy is known by hand at the start, and whose Hamiltonian a step keeps to third order.
func TestMetrics(t *testing.T) {
	x := testutil.Array([]float64{0.5, -1, 0.2, 1.5, 0.7, -0.3}, 3, 2)
	z := testutil.Array([]float64{1, 0.3, -0.6, 0.2, 0.1, -1.1}, 3, 2)
	quadratic := samplers.QuadraticMetric(0.5)
	widened := samplers.Metric{Dense: func(x *Node) *Node {
		diagonal := quadratic.Diagonal(x)
		dims := x.Shape().Dimensions
		identity := Const(x.Graph(), [][][]float64{{{1, 0}, {0, 1}}})
		return Mul(BroadcastToDims(ExpandAxes(diagonal, -1), dims[0], dims[1], dims[1]), identity)
	}}
	// G = [[2, c], [c, 2]] with c = tanh(x₁)/2 turns with the place.
	turning := samplers.Metric{Dense: func(x *Node) *Node {
		c := MulScalar(Tanh(Slice(x, AxisRange(), AxisElem(0))), 0.5)
		two := MulScalar(OnesLike(c), 2)
		return Reshape(Concatenate([]*Node{two, c, c, two}, -1), x.Shape().Dimensions[0], 2, 2)
	}}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		out := testutil.Eval(t, b, dtypes.Float64, []testutil.Tensor{x, z}, func(in []*Node) []*Node {
			ones := OnesLike(Reshape(Slice(in[0], AxisRange(), AxisElem(0)), 3))
			target := samplers.Target{Beta: ones, Path: gaussianPath()}
			step := func(m samplers.Metric, eps float64, x, z *Node) (samplers.Point, samplers.Info) {
				return samplers.RMHMC{Leapfrogs: 1, Iterations: 8, Metric: m}.Step(target, target.At(x), MulScalar(ones, eps), samplers.Noise{Z: z, U: MulScalar(ones, 1e-9)})
			}
			_, fast := step(quadratic, 0.1, in[0], in[1])
			_, dense := step(widened, 0.1, in[0], in[1])
			_, turned := step(turning, 0.1, in[0], in[1])
			_, finer := step(turning, 0.05, in[0], in[1])
			return []*Node{fast.ProposalX, dense.ProposalX, fast.ProposalP, dense.ProposalP, fast.Proposed, dense.Proposed,
				turned.Current, Sub(turned.Proposed, turned.Current), Sub(finer.Proposed, finer.Current), turned.Residual}
		})
		for i := 0; i < 6; i += 2 {
			testutil.Compare(t, "dense", out[i+1], testutil.Array(out[i], len(out[i])), testutil.Tolerance{RTol: 1e-11, ATol: 1e-12})
		}
		for r := range 3 {
			// H at the start: pᵀG⁻¹p = zᵀz, for p = Lz, and log|G| = log(4 − c²).
			c := math.Tanh(x.Data[2*r]) / 2
			logp, _ := gaussianByHand(1, x.Data[2*r:2*r+2])
			want := -logp + (z.Data[2*r]*z.Data[2*r]+z.Data[2*r+1]*z.Data[2*r+1])/2 + math.Log(4-c*c)/2
			if math.Abs(out[6][r]-want) > 1e-12 {
				t.Errorf("row %d: H is %.15g, want %.15g", r, out[6][r], want)
			}
			// With half the step about an eighth of the error is left.
			if long, short := math.Abs(out[7][r]), math.Abs(out[8][r]); !(long < 0.02 && short < long/4) {
				t.Errorf("row %d: H moves by %g, and with half the step by %g", r, out[7][r], out[8][r])
			}
			if !(out[9][r] < 1e-7) {
				t.Errorf("row %d: the iterations still move by %g", r, out[9][r])
			}
		}
	})
}

// Backward Euler on k/2·x²: y solves y = x − εky by eight evaluations, whose error falls by the factor εk each.
func TestImplicitLangevin(t *testing.T) {
	const k, eps, x = 1.5, 0.2, 2.0
	y, drift := x, -k*x
	for range 7 {
		y = x + eps*drift
		drift = -k * y
	}
	want := x + eps*drift
	if exact := x / (1 + eps*k); math.Abs(want-exact) > math.Pow(eps*k, 8)*x {
		t.Fatalf("the iteration ends at %g, the equation has %g", want, exact)
	}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		out := testutil.Eval(t, b, dtypes.Float64, []testutil.Tensor{testutil.Filled(x, 1, 1)}, func(in []*Node) []*Node {
			one := OnesLike(Reshape(in[0], 1))
			target := samplers.Target{Beta: one, Path: samplers.Power(func(x *Node) *Node { return MulScalar(ReduceSum(Square(x), -1), k/2) })}
			kernel := samplers.Config{Kind: "langevin", Integrator: "backward_euler_maruyama"}.NewKernel(nil)
			p, _ := kernel.Step(target, target.At(in[0]), MulScalar(one, eps), samplers.Noise{Z: ZerosLike(in[0])})
			return []*Node{p.X}
		})
		testutil.Compare(t, "x", out[0], testutil.Filled(want, 1), testutil.Tolerance{RTol: 1e-13})
	})
}
