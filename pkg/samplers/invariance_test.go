package samplers_test

import (
	"math"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/diagnostics"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
)

// invariant is a kernel with a step size, and whether a step keeps the law that its rows come from.
type invariant struct {
	name   string
	config samplers.Config
	size   func(law float64) float64
	keeps  bool
}

// laws are rows that are drawn one by one from a family of laws, with the randomness of a step.
type laws struct {
	of             []float64 // the parameter of each law
	each, dim      int       // rows of a law, coordinates
	x, z, u, param []float64
}

// newLaws draws every coordinate of every row by sample.
func newLaws(of []float64, each, dim int, sample func(law float64, s *rng.Stream) float64) *laws {
	l := &laws{of: of, each: each, dim: dim}
	stream := rng.New(11, rng.Sample, 0, 0)
	for _, law := range of {
		for range each {
			for range dim {
				l.x, l.z = append(l.x, sample(law, stream)), append(l.z, stream.Normal())
			}
			l.u, l.param = append(l.u, stream.Float64()), append(l.param, law)
		}
	}
	return l
}

// step takes a step of each kernel from all rows, as one program, and gives the states and whether they are new ones. target
// makes the laws from their parameters, [rows].
func (l *laws) step(t *testing.T, b *backend.Backend, kernels []invariant, target func(c samplers.Config, law *Node) samplers.Target) (x, taken [][]float64) {
	t.Helper()
	n := len(l.param)
	in := []testutil.Tensor{testutil.Array(l.x, n, l.dim), testutil.Array(l.z, n, l.dim), testutil.Array(l.u, n), testutil.Array(l.param, n)}
	for _, k := range kernels {
		eps := make([]float64, n)
		for i, law := range l.param {
			eps[i] = k.size(law)
		}
		in = append(in, testutil.Array(eps, n))
	}
	out := testutil.Eval(t, b, dtypes.Float32, in, func(in []*Node) []*Node {
		var out []*Node
		for i, k := range kernels {
			target := target(k.config, in[3])
			p, info := k.config.NewKernel(nil).Step(target, target.At(in[0]), in[4+i], samplers.Noise{Z: in[1], U: in[2]})
			if info.Accept == nil {
				info.Accept = OnesLike(info.NonFinite)
			}
			out = append(out, p.X, info.Accept)
		}
		return out
	})
	for i := range kernels {
		x, taken = append(x, out[2*i]), append(taken, out[2*i+1])
	}
	return x, taken
}

// judge holds the p-values of a kernel, one a law, against a level of 0.001 for all the tests together.
func (k invariant) judge(t *testing.T, p []float64, tests int) {
	t.Helper()
	least := 1.0
	for _, v := range p {
		least = min(least, v) // NaN stays
	}
	if level := 0.001 / float64(tests); k.keeps && !(least >= level) {
		t.Errorf("%s: a step changes the law: p %.2g, want at least %.2g", k.name, p, level)
	}
	if !k.keeps && !(least < 1e-9) {
		t.Errorf("%s: nothing shows, and should: p %.2g", k.name, p)
	}
}

// From N(0, I) to N(0, I/10) in four dimensions the law at β has the precision p = 1 + 9β, and p‖x‖² that of χ²₄: if before
// a step, then after it. Steps are so long that the Metropolis test has to mend a lot: unadjusted steps of εp = ½ turn the
// variance into ¼ + 1 at once.
func TestKernelsKeepTheirLaw(t *testing.T) {
	const dim = 4
	precision := func(beta float64) float64 { return 1 + 9*beta }
	langevin := func(beta float64) float64 { return 0.5 / precision(beta) }
	leapfrog := func(c float64) func(float64) float64 {
		return func(beta float64) float64 { return c / math.Sqrt(precision(beta)) }
	}
	kernels := []invariant{
		{"mala", samplers.Config{Kind: "mala"}, langevin, true},
		{"hmc", samplers.Config{Kind: "hmc", LeapfrogSteps: 3}, leapfrog(1.3), true},
		{"hmc with mass 2", samplers.Config{Kind: "hmc", LeapfrogSteps: 2, Mass: samplers.Mass{2}}, leapfrog(1.8), true},
		{"hmc with four masses", samplers.Config{Kind: "hmc", LeapfrogSteps: 2, Mass: samplers.Mass{1, 2, 0.8, 4}}, leapfrog(1.2), true},
		{"rmhmc", samplers.Config{Kind: "rmhmc", LeapfrogSteps: 2, MetricStrength: ptr(0.5)}, leapfrog(0.7), true},
		{"langevin", samplers.Config{Kind: "langevin"}, langevin, false},
	}
	betas := []float64{0, 1. / 9, 1. / 3, 0.6, 1}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		each := 20000
		if b.Kind() == backend.Go {
			each = 4000
		}
		l := newLaws(betas, each, dim, func(beta float64, s *rng.Stream) float64 { return s.Normal() / math.Sqrt(precision(beta)) })
		square := func(x *Node) *Node { return ReduceSum(Square(x), -1) }
		x, taken := l.step(t, b, kernels, func(c samplers.Config, beta *Node) samplers.Target {
			return samplers.Target{Beta: beta, Path: samplers.Linear(
				func(x *Node) *Node { return MulScalar(square(x), 5) },
				func(x *Node) *Node { return AddScalar(MulScalar(square(x), -0.5), -dim/2*math.Log(2*math.Pi)) })}
		})
		for i, k := range kernels {
			var p []float64
			for r, beta := range betas {
				squares := make([]float64, each)
				for j, v := range x[i][r*each*dim : (r+1)*each*dim] {
					squares[j/dim] += precision(beta) * v * v
				}
				_, value := diagnostics.KolmogorovSmirnov(squares, func(x float64) float64 { return 1 - math.Exp(-x/2)*(1+x/2) })
				p = append(p, value)
				rate, _ := moments(taken[i][r*each:(r+1)*each], 1)
				if k.config.Adjusted() && !(rate[0] > 0.3 && rate[0] < 0.95) {
					t.Errorf("%s: %.2f of the proposals taken at β = %.2g, which tests little", k.name, rate[0], beta)
				}
			}
			k.judge(t, p, len(kernels)*len(betas))
		}
	})
}

// In the box [−1, 2]², for densities that are flat or fall as exp(−slope·x). Steps are about as long as the box. Langevin
// steps have a bias of their own on a slope, and are tested on the flat alone.
func TestKernelsKeepTheirLawInABox(t *testing.T) {
	const dim, lo, hi = 2, -1., 2.
	cdf := func(slope, x float64) float64 {
		if slope == 0 {
			return (x - lo) / (hi - lo)
		}
		return math.Expm1(-slope*(x-lo)) / math.Expm1(-slope*(hi-lo))
	}
	quantile := func(slope, u float64) float64 {
		if slope == 0 {
			return lo + u*(hi-lo)
		}
		return lo - math.Log1p(u*math.Expm1(-slope*(hi-lo)))/slope
	}
	size := func(eps float64) func(float64) float64 { return func(float64) float64 { return eps } }
	box := []float64{lo, hi}
	kernels := []invariant{
		{"mala in a box", samplers.Config{Kind: "mala", Box: box}, size(0.3), true},
		{"hmc in a box", samplers.Config{Kind: "hmc", LeapfrogSteps: 2, Box: box}, size(0.4), true},
		{"langevin between walls", samplers.Config{Kind: "langevin", Box: box}, size(3), true},
		{"langevin with a clamp", samplers.Config{Kind: "langevin", Clamp: box}, size(0.3), false},
	}
	slopes := []float64{0, 0.7, -2}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		each := 20000
		if b.Kind() == backend.Go {
			each = 4000
		}
		l := newLaws(slopes, each, dim, func(slope float64, s *rng.Stream) float64 { return quantile(slope, s.Float64()) })
		x, taken := l.step(t, b, kernels, func(c samplers.Config, slope *Node) samplers.Target {
			energy := func(x *Node) *Node { return Mul(slope, ReduceSum(x, -1)) }
			return samplers.Target{Beta: OnesLike(slope), Path: c.Confine(samplers.Power(energy))}
		})
		for i, k := range kernels {
			var p []float64
			for r, slope := range slopes {
				if slope != 0 && !k.config.Adjusted() {
					continue
				}
				// The coordinates of a row are as independent as rows are, as long as the law is kept.
				_, value := diagnostics.KolmogorovSmirnov(x[i][r*each*dim:(r+1)*each*dim], func(x float64) float64 { return cdf(slope, x) })
				p = append(p, value)
				rate, _ := moments(taken[i][r*each:(r+1)*each], 1)
				if k.config.Adjusted() && !(rate[0] > 0.1 && rate[0] < 0.8) {
					t.Errorf("%s: %.2f of the proposals taken on the slope %g, which tests little", k.name, rate[0], slope)
				}
			}
			k.judge(t, p, 2*len(slopes)+2)
		}
	})
}

// A Langevin step on E = ½x² is x ← ax + bz, with the stationary variance b²/(1 − a²), which is 1/(1 − ε/2) and not 1.
func TestLangevinBias(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		out := testutil.Eval(t, b, dtypes.Float64, []testutil.Tensor{testutil.Array([]float64{1, 0}, 2, 1), testutil.Array([]float64{0, 1}, 2, 1)}, func(in []*Node) []*Node {
			ones := OnesLike(Reshape(in[0], 2))
			target := samplers.Target{Beta: ones, Path: samplers.Power(func(x *Node) *Node { return MulScalar(ReduceSum(Square(x), -1), 0.5) })}
			p, _ := samplers.Langevin{}.Step(target, target.At(in[0]), MulScalar(ones, 0.1), samplers.Noise{Z: in[1]})
			return []*Node{p.X}
		})
		a, noise := out[0][0], out[0][1]
		testutil.Compare(t, "variance", []float64{noise * noise / (1 - a*a)}, testutil.Filled(1/0.95, 1), testutil.Tolerance{RTol: 1e-12})
	})
}
