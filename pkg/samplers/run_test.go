package samplers_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

func energyOf(t *testing.T, kind string, dim int, params map[string]any) models.Energy {
	t.Helper()
	e, err := models.New(kind, dim, params)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func run(t *testing.T, b *backend.Backend, o samplers.RunOptions) *samplers.Trace {
	t.Helper()
	trace, err := samplers.Run(context.Background(), b, o)
	if err != nil {
		t.Fatal(err)
	}
	return trace
}

// column is coordinate d of the last states.
func column(t *samplers.Trace, d int) []float64 {
	var out []float64
	for row := range slices.Chunk(t.X, t.Dim) {
		out = append(out, row[d])
	}
	return out
}

// normality holds numbers against N(mean, variance): mean and variance within five standard errors, and the
// Kolmogorov–Smirnov distance below 2.2/√n, which independent draws exceed once in ten thousand times.
func normality(t *testing.T, name string, x []float64, mean, variance float64) {
	t.Helper()
	n := float64(len(x))
	m, v := moments(x, 1)
	if d := math.Abs(m[0] - mean); !(d < 5*math.Sqrt(variance/n)) {
		t.Errorf("%s: mean %.4f, want %.4f ± %.4f", name, m[0], mean, 5*math.Sqrt(variance/n))
	}
	if d := math.Abs(v[0] - variance); !(d < 5*variance*math.Sqrt(2/n)) {
		t.Errorf("%s: variance %.4f, want %.4f ± %.4f", name, v[0], variance, 5*variance*math.Sqrt(2/n))
	}
	sorted := slices.Sorted(slices.Values(x))
	distance := 0.0
	for i, value := range sorted {
		cdf := 0.5 * math.Erfc((mean-value)/math.Sqrt(2*variance))
		distance = max(distance, math.Abs(cdf-float64(i)/n), math.Abs(cdf-float64(i+1)/n))
	}
	if !(distance < 2.2/math.Sqrt(n)) {
		t.Errorf("%s: Kolmogorov–Smirnov distance %.4f, want less than %.4f", name, distance, 2.2/math.Sqrt(n))
	}
}

// The last states of many chains, which are independent, on Gaussians whose law under the sampler is known exactly.
func TestGaussianTargets(t *testing.T) {
	correlated := map[string]any{"mean": []float64{1, -1}, "cov": [][]float64{{1, 0.6}, {0.6, 2}}}
	const eta, scale = 0.5, 0.8
	for _, tc := range []struct {
		name   string
		energy models.Energy
		config samplers.Config
		mean   []float64
		cov    [][]float64
	}{
		// x ← (1 − η)x + s√(2η)z has the variance s²/(1 − η/2).
		{"langevin", energyOf(t, "harmonic", 1, nil), samplers.Config{Kind: "langevin", Steps: 30, StepSize: schedules.Constant(eta), NoiseScale: schedules.Constant(scale)},
			[]float64{0}, [][]float64{{scale * scale / (1 - eta/2)}}},
		// Heun's drift: x ← (1 − η + η²/2)x + √(2η)z.
		{"langevin with heun", energyOf(t, "harmonic", 1, nil), samplers.Config{Kind: "langevin", Integrator: "heun", Steps: 30, StepSize: schedules.Constant(eta)},
			[]float64{0}, [][]float64{{2 * eta / (1 - math.Pow(1-eta+eta*eta/2, 2))}}},
		{"mala", energyOf(t, "gaussian", 2, correlated), samplers.Config{Kind: "mala", Steps: 60, StepSize: schedules.Constant(0.4)}, []float64{1, -1}, [][]float64{{1, 0.6}, {0.6, 2}}},
		{"hmc", energyOf(t, "gaussian", 2, correlated), samplers.Config{Kind: "hmc", Steps: 20, LeapfrogSteps: 4, StepSize: schedules.Constant(0.5)}, []float64{1, -1}, [][]float64{{1, 0.6}, {0.6, 2}}},
		{"hmc with mass 2", energyOf(t, "gaussian", 2, correlated), samplers.Config{Kind: "hmc", Steps: 20, LeapfrogSteps: 4, Mass: samplers.Mass{2}, StepSize: schedules.Constant(0.7)}, []float64{1, -1}, [][]float64{{1, 0.6}, {0.6, 2}}},
		{"hmc with masses 1 and 4", energyOf(t, "gaussian", 2, correlated), samplers.Config{Kind: "hmc", Steps: 30, LeapfrogSteps: 4, Mass: samplers.Mass{1, 4}, StepSize: schedules.Constant(0.6)}, []float64{1, -1}, [][]float64{{1, 0.6}, {0.6, 2}}},
		{"rmhmc", energyOf(t, "harmonic", 2, nil), samplers.Config{Kind: "rmhmc", Steps: 20, LeapfrogSteps: 3, MetricStrength: ptr(0.5), StepSize: schedules.Constant(0.5)}, []float64{0, 0}, [][]float64{{1, 0}, {0, 1}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
				trace := run(t, b, samplers.RunOptions{Sampler: tc.config, Network: tc.energy, Chains: 4000, Seed: 7, BlockGradients: 4})
				for d := range tc.mean {
					normality(t, fmt.Sprintf("coordinate %d", d), column(trace, d), tc.mean[d], tc.cov[d][d])
				}
				if len(tc.mean) == 2 {
					// The sum has the variance of both and twice the covariance.
					sum := column(trace, 0)
					for i, v := range column(trace, 1) {
						sum[i] += v
					}
					normality(t, "sum", sum, tc.mean[0]+tc.mean[1], tc.cov[0][0]+tc.cov[1][1]+2*tc.cov[0][1])
				}
				if tc.config.Adjusted() != (trace.AcceptRate > 0.5 && trace.AcceptRate < 1) {
					t.Errorf("acceptance %g", trace.AcceptRate)
				}
			})
		})
	}
}

// On E = ½x² a trajectory is a linear map of the plane with singular values s and 1/s, so that ΔH < 0 where |a| < |b|/s for
// two standard normals, with probability (2/π) atan(1/s). A reversible, volume-preserving proposal from equilibrium is taken
// with probability 2P(ΔH < 0) (Creutz 1988, from ⟨exp(−ΔH)⟩ = 1; Neal 2011, §4.1): (4/π) atan(1/s).
func TestHMCAcceptanceAgainstTheory(t *testing.T) {
	const eps, leapfrogs, chains, steps = 1.6, 2, 20000, 5
	// Kick, drift, kick as matrices that act on (x, p).
	type matrix [4]float64
	mul := func(a, b matrix) matrix {
		return matrix{a[0]*b[0] + a[1]*b[2], a[0]*b[1] + a[1]*b[3], a[2]*b[0] + a[3]*b[2], a[2]*b[1] + a[3]*b[3]}
	}
	kick, drift := matrix{1, 0, -eps / 2, 1}, matrix{1, eps, 0, 1}
	m := matrix{1, 0, 0, 1}
	for range leapfrogs {
		m = mul(mul(kick, mul(drift, kick)), m)
	}
	trace := m[0]*m[0] + m[1]*m[1] + m[2]*m[2] + m[3]*m[3] // s² + 1/s²
	s := math.Sqrt((trace + math.Sqrt(trace*trace-4)) / 2)
	want := 4 / math.Pi * math.Atan(1/s)
	if !(want > 0.3 && want < 0.9) {
		t.Fatalf("the theory says %g, which tells little", want)
	}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		got := run(t, b, samplers.RunOptions{
			Sampler: samplers.Config{Kind: "hmc", Steps: steps, LeapfrogSteps: leapfrogs, StepSize: schedules.Constant(eps)},
			Network: energyOf(t, "harmonic", 1, nil), Chains: chains, Seed: 3, BlockGradients: 4, Diagnostics: true,
		})
		// The chains are independent, their steps need not be: five standard errors of one step a chain.
		if d := math.Abs(got.AcceptRate - want); !(d < 5*math.Sqrt(want*(1-want)/chains)) {
			t.Errorf("acceptance %.4f, want %.4f", got.AcceptRate, want)
		}
		if last := got.Acceptance[got.Kept-1]; math.Abs(last-got.AcceptRate) > 1e-12 {
			t.Errorf("the running mean ends at %g, the rate is %g", last, got.AcceptRate)
		}
	})
}

// E|x| of exp(−2(x² − 1)²) is 0.8681 by quadrature. The variance of |x| is 0.076, by E x² = 0.8301. The chains start inside the
// wells: far out a MALA proposal overshoots, and its chain waits there.
func TestDoubleWell(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		const chains = 4000
		for _, config := range []samplers.Config{
			{Kind: "mala", Steps: 100, StepSize: schedules.Constant(0.05)}, {Kind: "hmc", Steps: 40, LeapfrogSteps: 3, StepSize: schedules.Constant(0.2)}} {
			trace := run(t, b, samplers.RunOptions{Sampler: config, Network: energyOf(t, "double_well", 1, nil), Chains: chains, StartStd: 0.5, Seed: 5, BlockGradients: 3})
			sum := 0.0
			for _, v := range trace.X {
				sum += math.Abs(v)
			}
			if mean := sum / chains; !(math.Abs(mean-0.8681) < 5*math.Sqrt(0.076/chains)) {
				t.Errorf("%s: E|x| is %.4f, want 0.8681 ± %.4f", config.Kind, mean, 5*math.Sqrt(0.076/chains))
			}
		}
	})
}

// walled is ½x² + ½y² where x ≤ 1.5, and not a number beyond.
type walled struct{}

func (walled) Dim() int               { return 2 }
func (walled) Params() []models.Param { return nil }
func (walled) Energy(x *Node, _ []*Node) *Node {
	first := Reshape(Slice(x, AxisRange(), AxisElem(0)), x.Shape().Dimensions[0])
	e := MulScalar(ReduceSum(Square(x), -1), 0.5)
	return Where(GreaterThan(first, ConstAs(x, 1.5)), MulScalar(OnesLike(e), math.NaN()), e)
}

// A proposal from beyond the wall is rejected and counted, and nothing is put in its place: the other coordinate keeps its
// law. TorchEBM 0.8.9 puts zeros there and ends with a variance of 0.64 to 0.71.
func TestWall(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		const chains = 4000
		start := make([]float32, 2*chains)
		for _, config := range []samplers.Config{
			{Kind: "hmc", Steps: 30, LeapfrogSteps: 5, StepSize: schedules.Constant(0.35)}, {Kind: "mala", Steps: 60, StepSize: schedules.Constant(0.4)}} {
			trace := run(t, b, samplers.RunOptions{Sampler: config, Network: walled{}, Chains: chains, Start: start, Seed: 2, BlockGradients: 5})
			normality(t, config.Kind, column(trace, 1), 0, 1)
			if x := slices.Max(column(trace, 0)); x > 1.5 || trace.Lost != 0 {
				t.Errorf("%s: a chain at %g, %d lost", config.Kind, x, trace.Lost)
			}
			if trace.NonFinite == 0 || trace.FirstStep < 1 {
				t.Errorf("%s: nobody met the wall", config.Kind)
			}
		}
	})
}

// A chain without a Metropolis test that leaves the finite numbers is reported with its step, and stays where it is.
func TestALostChainIsReported(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	start := []float32{0.1, 0.1, 30, 0.1} // at 30 the quartic energy throws a chain of step 0.1 out
	trace := run(t, b, samplers.RunOptions{
		Sampler: samplers.Config{Kind: "langevin", Steps: 20, StepSize: schedules.Constant(0.01)},
		Network: energyOf(t, "double_well", 1, nil), Chains: 4, Start: start, Burn: 3, Diagnostics: true, Thin: 4, Seed: 1,
	})
	if trace.Lost != 1 || trace.FirstChain != 2 || trace.FirstStep < 2 || trace.FirstStep > 10 || trace.NonFinite != 23-trace.FirstStep+1 {
		t.Errorf("lost %d, first chain %d at step %d, %d in all", trace.Lost, trace.FirstChain, trace.FirstStep, trace.NonFinite)
	}
}

// Two modes 8 apart with a standard deviation of 0.5: plain Langevin chains from one of them never see the other.
func TestAnnealedLangevinFindsBothModes(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		const chains = 1000
		mixture := energyOf(t, "gaussian_mixture", 1, map[string]any{"means": [][]float64{{-4}, {4}}, "stds": []float64{0.5}})
		start := slices.Repeat([]float32{-4}, chains)
		for _, tc := range []struct {
			config    samplers.Config
			low, high float64 // share of the chains in the other mode
		}{
			{samplers.Config{Kind: "langevin", Steps: 400, StepSize: schedules.Constant(0.05)}, 0, 0},
			{samplers.Config{Kind: "annealed_langevin", Steps: 400, StepSize: schedules.Constant(0.05), SigmaMax: ptr(8.), Levels: 10}, 0.4, 0.6},
		} {
			trace := run(t, b, samplers.RunOptions{Sampler: tc.config, Network: mixture, Chains: chains, Start: start, Seed: 4, BlockGradients: 3})
			other := 0
			for _, x := range trace.X {
				if x > 0 {
					other++
				}
			}
			if share := float64(other) / chains; share < tc.low || share > tc.high {
				t.Errorf("%s: a share of %g in the other mode, want %g to %g", tc.config.Kind, share, tc.low, tc.high)
			}
		}
	})
}

// The descents end in the minimum of an anisotropic bowl.
func TestDescents(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		bowl := energyOf(t, "booth", 2, nil) // its minimum is at (1, 3)
		for _, config := range []samplers.Config{
			{Kind: "gradient_descent", Steps: 200, StepSize: schedules.Constant(0.1)}, {Kind: "nesterov", Steps: 200, StepSize: schedules.Constant(0.03)}} {
			trace := run(t, b, samplers.RunOptions{Sampler: config, Network: bowl, Chains: 3, StartStd: 5, Seed: 1, BlockGradients: 5})
			for row := range slices.Chunk(trace.X, 2) {
				if math.Abs(row[0]-1) > 1e-4 || math.Abs(row[1]-3) > 1e-4 {
					t.Errorf("%s ends at %v, want (1, 3)", config.Kind, row)
				}
			}
		}
	})
}

// Every kernel by the same driver: shapes, finite numbers, the same bits for the same seed, others for another, what is kept
// and when, and the diagnostics of what is kept.
func TestRunContract(t *testing.T) {
	energy := energyOf(t, "double_well", 3, nil)
	const chains, steps, burn, thin = 5, 7, 3, 2
	for _, kind := range samplers.KindNames() {
		config := samplers.Config{Kind: kind, Steps: steps, Levels: 0}.WithDefaults()
		if config.IsFlow() {
			continue // TestFlowContract
		}
		if kind == "annealed_langevin" {
			config.Levels = 3
		}
		config.StepSize = schedules.Config{Kind: "linear", Start: 0.01, End: 0.005, Steps: schedules.WholeRun}
		if config.LeapfrogSteps > 0 {
			config.LeapfrogSteps = 2
		}
		t.Run(kind, func(t *testing.T) {
			testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
				o := samplers.RunOptions{Sampler: config, Network: energy, Chains: chains, StartStd: 0.5, Burn: burn, Thin: thin, Trajectory: true, Diagnostics: true, Seed: 1, BlockGradients: 2}
				first, again := run(t, b, o), run(t, b, o)
				if !slices.Equal(first.Trajectory, again.Trajectory) || !slices.Equal(first.X, again.X) {
					t.Error("the same seed gives other numbers")
				}
				o.Seed++
				if b.Kind() == backend.Go && slices.Equal(first.X, run(t, b, o).X) { // seeds are drawn on the host, for either backend
					t.Error("another seed gives the same numbers")
				}
				const kept, dim = steps / thin, 3
				if first.Kept != kept || len(first.X) != chains*dim || len(first.Trajectory) != chains*kept*dim || len(first.Mean) != kept*dim ||
					len(first.Variance) != kept*dim || len(first.Energy) != kept || first.T != nil || (first.Acceptance != nil) != config.Adjusted() {
					t.Fatalf("kept %d of a trace with other shapes", first.Kept)
				}
				if first.NonFinite != 0 || first.Lost != 0 || first.FirstStep != 0 {
					t.Errorf("%d not finite", first.NonFinite)
				}
				if math.IsNaN(first.AcceptRate) == config.Adjusted() {
					t.Errorf("acceptance %g", first.AcceptRate)
				}
				for k := range kept {
					var states []float64
					for c := range chains {
						states = append(states, first.Trajectory[(c*kept+k)*dim:][:dim]...)
					}
					mean, variance := moments(states, dim)
					tolerance := testutil.Tolerance{RTol: 1e-4, ATol: 1e-6}
					testutil.Compare(t, "mean", first.Mean[k*dim:(k+1)*dim], testutil.Array(mean, dim), tolerance)
					testutil.Compare(t, "variance", first.Variance[k*dim:(k+1)*dim], testutil.Array(variance, dim), tolerance)
					sum := 0.0
					for _, x := range states {
						sum += 2 * math.Pow(x*x-1, 2)
					}
					testutil.Compare(t, "energy", first.Energy[k:k+1], testutil.Filled(sum/chains, 1), tolerance)
				}
			})
		})
	}
}

// With every step kept, the trajectory ends in the last states and a burn-in only shortens what is told.
func TestRunKeepsTheLastSteps(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	o := samplers.RunOptions{Sampler: samplers.Config{Kind: "mala", Steps: 12}, Network: energyOf(t, "harmonic", 1, nil), Chains: 2, Trajectory: true, Seed: 3, BlockGradients: 4}
	all := run(t, b, o)
	o.Sampler.Steps, o.Burn = 8, 4 // whole blocks, so that the draws are the same
	late := run(t, b, o)
	for c := range 2 {
		if !slices.Equal(all.Trajectory[c*12+4:(c+1)*12], late.Trajectory[c*8:(c+1)*8]) {
			t.Errorf("chain %d with a burn-in: %v, without: %v", c, late.Trajectory[c*8:(c+1)*8], all.Trajectory[c*12:(c+1)*12])
		}
		if all.X[c] != all.Trajectory[c*12+11] {
			t.Errorf("chain %d ends at %g, its trajectory at %g", c, all.X[c], all.Trajectory[c*12+11])
		}
	}
	o.Thin = 8 // longer than a block
	if sparse := run(t, b, o); sparse.Kept != 1 || !slices.Equal(sparse.Trajectory, sparse.X) {
		t.Errorf("kept %d: %v, want the last states %v", sparse.Kept, sparse.Trajectory, sparse.X)
	}
	names := []string{}
	for _, a := range late.Arrays() {
		names = append(names, fmt.Sprint(a.Name, a.Shape))
	}
	if got := strings.Join(names, " "); got != "x[2 1] trajectory[2 8 1] trajectory_energy[2 8]" {
		t.Errorf("arrays %s", got)
	}
}

// On N(0, I) in four dimensions, from a step size far too short and one far too long.
func TestRunAdaptsInTheBurnIn(t *testing.T) {
	b := testutil.Backend(t, backend.Go) // the step sizes are the host's matter
	for _, eps := range []float64{0.1, 4} {
		config := samplers.Config{Kind: "mala", Steps: 40, StepSize: schedules.Constant(eps)}
		o := samplers.RunOptions{Sampler: config, Network: energyOf(t, "harmonic", 4, nil), Chains: 300, Burn: 602, Seed: 3, BlockGradients: 4}
		plain := run(t, b, o)
		if plain.StepFactor != 1 || math.Abs(plain.AcceptRate-0.4) < 0.3 {
			t.Errorf("ε = %g: factor %g, acceptance %.3f", eps, plain.StepFactor, plain.AcceptRate)
		}
		o.Sampler.AcceptTarget = ptr(0.4)
		// The last moves are by less than 0.05 times the error of an acceptance, and 40 steps of 300 chains are sure to 0.03.
		if got := run(t, b, o); math.Abs(got.AcceptRate-0.4) > 0.05 || (got.StepFactor > 1) != (eps < 1) {
			t.Errorf("ε = %g: acceptance %.3f with a factor of %.3g, want 0.4", eps, got.AcceptRate, got.StepFactor)
		}
	}
}

func TestRunRefusesWhatDoesNotFit(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	good := samplers.RunOptions{Sampler: samplers.Config{Kind: "hmc", Steps: 2}, Network: energyOf(t, "harmonic", 2, nil), Chains: 2}
	for _, tc := range []struct {
		name   string
		change func(o *samplers.RunOptions)
		want   string
	}{
		{"no chains", func(o *samplers.RunOptions) { o.Chains = 0 }, "chains: 0, want at least 1"},
		{"masses for another dimension", func(o *samplers.RunOptions) { o.Sampler.Mass = samplers.Mass{1, 2, 3} }, "mass: 3 numbers, want 1 or 2"},
		{"a flow of an energy", func(o *samplers.RunOptions) { o.Sampler = samplers.Config{Kind: "flow"} }, "kind: flow samples a field"},
		{"chains on a field", func(o *samplers.RunOptions) { o.Network = exactField{} }, "kind: hmc samples an energy"},
		{"a test by an energy that is none", func(o *samplers.RunOptions) {
			o.Network = models.NewImplicitEqM(exactField{})
			o.Start = make([]float32, 2)
		}, "kind: hmc compares energies"},
		{"guidance without labels", func(o *samplers.RunOptions) {
			o.Sampler, o.Network = samplers.Config{Kind: "flow", GuidanceScale: ptr(2.)}, exactField{classes: 2}
		}, "guidance_scale: the samples have no labels"},
		{"a label too many", func(o *samplers.RunOptions) {
			o.Sampler, o.Network, o.Labels = samplers.Config{Kind: "flow"}, exactField{classes: 2}, []int32{0, 3}
		}, "labels: 3, want 0 to 2"},
		{"starts for other chains", func(o *samplers.RunOptions) { o.Start = make([]float32, 3) }, "start: 3 numbers, want 2 chains of 2"},
		{"parameters of nothing", func(o *samplers.RunOptions) { o.Params = make([]float32, 1) }, "params: 1 numbers, want 0"},
		{"adaptation without a burn-in", func(o *samplers.RunOptions) { o.Sampler.AcceptTarget = ptr(0.6) }, "target_accept: 0.6, and no burn-in"},
		{"a thinning that keeps nothing", func(o *samplers.RunOptions) { o.Thin = 3 }, "thin: 3, want 1 to 2, the steps"},
	} {
		o := good
		tc.change(&o)
		if _, err := samplers.Run(context.Background(), b, o); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	stop()
	if _, err := samplers.Run(ctx, b, good); !errors.Is(err, context.Canceled) {
		t.Errorf("a run that is called off: %v", err)
	}
}
