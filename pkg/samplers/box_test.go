package samplers_test

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/diagnostics"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

var nan, inf = math.NaN(), math.Inf(1)

// equal compares numbers up to a tolerance, NaN and infinities too.
func equal(t *testing.T, name string, got, want []float64, tolerance float64) {
	t.Helper()
	if !slices.EqualFunc(got, want, func(a, b float64) bool {
		return a == b || math.IsNaN(a) && math.IsNaN(b) || math.Abs(a-b) <= tolerance
	}) {
		t.Errorf("%s: %v, want %v", name, got, want)
	}
}

// Mirrors at −1 and 2, however often it takes: the picture repeats every 6.
func TestBoxReflects(t *testing.T) {
	box := samplers.Box{Lo: -1, Hi: 2}
	x := []float64{0.3, -1, 2, 2.5, -1.5, 5, 5.5, 8.25, -4.25, -10.5, 6002.5, nan, inf, -inf}
	want := []float64{0.3, -1, 2, 1.5, -0.5, -1, -0.5, 1.75, 1.75, 1.5, 1.5, nan, nan, nan}
	outside := []float64{0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1}
	for i, v := range x {
		equal(t, "on the host", []float64{box.Fold(v)}, want[i:i+1], 0)
	}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		double, single := testutil.EvalBoth(t, b, []testutil.Tensor{testutil.Array(x, len(x), 1)}, func(in []*Node) []*Node {
			return []*Node{box.Reflect(in[0]), ConvertDType(box.Outside(in[0]), in[0].DType())}
		})
		equal(t, "in double precision", double[0], want, 0)
		equal(t, "in single precision", single[0], append([]float64{float64(float32(0.3))}, want[1:]...), 0)
		equal(t, "outside", single[1], outside, 0)
	})
}

// Normal numbers of several means and deviations between the walls −1 and 2, the last one far out on one side, by their
// distribution function and by the mass that it is divided by.
func TestBoxOfANormalLaw(t *testing.T) {
	box := samplers.Box{Lo: -1, Hi: 2}
	q := models.Gaussian{Mean: []float64{0.5, 0.5, -0.8, 5, 0}, Std: []float64{0.2, 3, 0.5, 1.2, 0.01}}
	dim := len(q.Mean)
	phi := func(x float64) float64 { return math.Erfc(-x/math.Sqrt2) / 2 }
	share := func(d int, x float64) float64 {
		lo, mean, std := (box.Lo-q.Mean[d])/q.Std[d], q.Mean[d], q.Std[d]
		return phi((x-mean)/std) - phi(lo)
	}
	logMass := 0.0
	for d := range dim {
		logMass += math.Log(share(d, box.Hi))
	}
	equal(t, "log mass", []float64{box.LogMass(q)}, []float64{logMass}, 1e-9)
	far := models.Gaussian{Mean: []float64{-20}, Std: []float64{1}}
	// log Φ(−19) = log of φ(19)/19·(1 − 1/19² + 3/19⁴ − …); what lies beyond 2 is e^−60 times less.
	equal(t, "log mass of a far tail", []float64{box.LogMass(far)}, []float64{-19*19/2. - math.Log(19*math.Sqrt(2*math.Pi)) + math.Log1p(-1/361.+3/(361.*361)-15/(361.*361*361))}, 1e-6)

	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		const rows = 20000
		z := testutil.Array(rng.New(3, rng.Sample, 0, 0).Normals(rows*dim), rows, dim)
		out := testutil.Eval(t, b, dtypes.Float32, []testutil.Tensor{z, testutil.Array(q.Mean, dim), testutil.Array(q.Std, dim)}, func(in []*Node) []*Node {
			return []*Node{box.Normal(in[0], in[1], in[2])}
		})
		for d := range dim {
			var x []float64
			for row := range slices.Chunk(out[0], dim) {
				x = append(x, row[d])
			}
			_, p := diagnostics.KolmogorovSmirnov(x, func(x float64) float64 { return share(d, x) / share(d, box.Hi) })
			if !(p > 0.001/10) || slices.Min(x) < box.Lo || slices.Max(x) > box.Hi {
				t.Errorf("coordinate %d: p = %.2g, from %g to %g", d, p, slices.Min(x), slices.Max(x))
			}
		}
	})
}

// Steps from given states with given noise in the box [−1, 1]. The energy and the reference are those of N(0, 1), so that V is
// 0 and a step of MALA of ε = ½, or a leapfrog step of ε = 1, proposes x/2 + z at any β. Beyond 3, and at 0.9, the energy is
// not a number.
func TestStepsInABox(t *testing.T) {
	rows := []struct {
		name       string
		beta, x, z float64
		next       float64 // of the kernels with a Metropolis test
		nonFinite  float64
		walls      float64 // state after a Langevin step
	}{
		{"inside", 1, 0, 0.5, 0.5, 0, 0.5},
		{"outside", 1, 0, 1.5, 0, 0, 0.5},
		{"outside, without an energy", 1, 0, 3.5, 0, 0, -0.5},
		{"inside, without an energy", 1, 0, 0.9, 0, 1, 0.9},
		{"at infinity", 1, 0, inf, 0, 1, nan},
		{"nowhere", 1, 0, nan, 0, 1, nan},
		{"back from outside", 1, 2, -0.5, 0.5, 0, 0.5},
		{"from outside to outside", 1, 2, 0.75, 2, 0, 0.25},
		{"outside at another β", 0.25, 0, 1.5, 0, 0, 0.5},
		{"outside for the reference", 0, 0, 1.5, 0, 0, 0.5},
	}
	var beta, x, z, next, nonFinite, vs, walls []float64
	for _, r := range rows {
		beta, x, z = append(beta, r.beta), append(x, r.x), append(z, r.z)
		next, nonFinite, walls = append(next, r.next), append(nonFinite, r.nonFinite), append(walls, r.walls)
		v := 0.0
		if math.Abs(r.next) > 1 {
			v = -inf
		}
		vs = append(vs, v)
	}
	n := len(rows)
	square := func(x *Node) *Node { return MulScalar(ReduceSum(Square(x), -1), 0.5) }
	energy := func(x *Node) *Node {
		first := Reshape(x, x.Shape().Dimensions[0])
		broken := LogicalOr(GreaterThan(first, ConstAs(x, 3)), LessThan(Abs(AddScalar(first, -0.9)), ConstAs(x, 0.01)))
		return Where(broken, MulScalar(OnesLike(first), nan), square(x))
	}
	box := []float64{-1, 1}
	kernels := []struct {
		samplers.Config
		eps float64
	}{{samplers.Config{Kind: "mala", Box: box}, 0.5}, {samplers.Config{Kind: "hmc", LeapfrogSteps: 1, Box: box}, 1}, {samplers.Config{Kind: "langevin", Box: box}, 0.5}}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		in := []testutil.Tensor{testutil.Array(beta, n), testutil.Array(x, n, 1), testutil.Array(z, n, 1)}
		double, single := testutil.EvalBoth(t, b, in, func(in []*Node) []*Node {
			var out []*Node
			for _, k := range kernels {
				path := k.Confine(samplers.Linear(energy, func(x *Node) *Node { return Neg(square(x)) }))
				target := samplers.Target{Beta: in[0], Path: path}
				all := func(v float64) *Node { return MulScalar(OnesLike(in[0]), v) }
				p, info := k.NewKernel(nil).Step(target, target.At(in[1]), all(k.eps), samplers.Noise{Z: in[2], U: all(0.01)})
				out = append(out, p.X, p.V, info.NonFinite, path.V(p.X))
			}
			return out
		})
		for _, out := range [][][]float64{double, single} {
			for i, k := range kernels {
				states, energies, lost := next, vs, nonFinite
				if !k.Adjusted() {
					states, energies, lost = walls, []float64{0, 0, 0, nan, nan, nan, 0, 0, 0, 0}, []float64{0, 0, 0, 0, 1, 1, 0, 0, 0, 0}
				}
				equal(t, k.Kind+": states", out[4*i], states, 1e-6)
				equal(t, k.Kind+": V", out[4*i+1], energies, 1e-6)
				equal(t, k.Kind+": not finite", out[4*i+2], lost, 0)
				equal(t, k.Kind+": V of the path", out[4*i+3], out[4*i+1], 0)
			}
		}
	})
}

// Chains in a box that the energy has no number beyond: nothing is reported, and each coordinate has the law of a normal
// number between the walls. Starts are reflected, or refused.
func TestRunInABox(t *testing.T) {
	const hi = 1.5
	o := samplers.RunOptions{
		Sampler: samplers.Config{Kind: "mala", Steps: 30, StepSize: schedules.Constant(0.5), Box: []float64{-hi, hi}},
		Network: walled{}, Chains: 4000, StartStd: 3, Seed: 2, BlockGradients: 5,
	}
	cdf := func(x float64) float64 { return (1 + math.Erf(x/math.Sqrt2)/math.Erf(hi/math.Sqrt2)) / 2 }
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		trace := run(t, b, o)
		if trace.NonFinite != 0 || trace.Lost != 0 || slices.Max(trace.X) > hi || slices.Min(trace.X) < -hi {
			t.Errorf("%d not finite, %d lost, states from %g to %g", trace.NonFinite, trace.Lost, slices.Min(trace.X), slices.Max(trace.X))
		}
		for d := range 2 {
			if _, p := diagnostics.KolmogorovSmirnov(column(trace, d), cdf); !(p > 1e-4) {
				t.Errorf("coordinate %d: p = %.2g", d, p)
			}
		}
	})
	o.Chains, o.Start = 2, []float32{0, 0, 0, 1.6}
	if _, err := samplers.Run(context.Background(), testutil.Backend(t, backend.Go), o); err == nil || !strings.Contains(err.Error(), "start: 1.6 in row 1, want it in the box, [-1.5 1.5]") {
		t.Errorf("a start outside: %v", err)
	}
}
