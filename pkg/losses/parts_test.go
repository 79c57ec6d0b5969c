package losses_test

import (
	"math"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/interpolants"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
)

// Small functions at values worked out by hand.
func TestParts(t *testing.T) {
	vector := func(v ...float64) testutil.Tensor { return testutil.Array(v, len(v)) }
	nan := math.NaN()
	for _, tc := range []struct {
		name     string
		build    func(in *Node) *Node
		in, want testutil.Tensor
	}{
		{"c(t)", losses.EquilibriumMatching{CT: "truncated", CTThreshold: 0.8, CTMultiplier: 4}.Speed, vector(0, 0.5, 0.8, 0.9, 1), vector(4, 4, 4, 2, 0)},
		{"c(t), linear", losses.EquilibriumMatching{CT: "linear", CTMultiplier: 2}.Speed, vector(0, 0.25, 1), vector(2, 1.5, 0)},
		{"c(t), constant", losses.EquilibriumMatching{CT: "constant", CTMultiplier: 3}.Speed, vector(0, 1), vector(3, 3)},
		{"weight of the flow", losses.EnergyMatching{Cutoff: 0.5}.FlowWeight, vector(0, 0.5, 0.75, 1), vector(1, 1, 0.5, 0)},
		{"weight of the flow, open", losses.EnergyMatching{Cutoff: 1}.FlowWeight, vector(0, 1), vector(1, 1)},
		{"uniform times", losses.Path{Eps: 0.1}.Times, vector(0, 0.5, 1), vector(0.1, 0.5, 0.9)},
		{"lognormal times", losses.Path{Lognormal: true, PMean: math.Log(3), PStd: math.Log(2)}.Times, vector(0, 1, -1, 40), vector(0.25, 1./7, 0.4, 1e-4)},
		{"lognormal times inside", losses.Path{Eps: 0.3, Lognormal: true, PStd: 1}.Times, vector(9, 0, -9), vector(0.3, 0.5, 0.7)},
		{"noise levels", losses.DenoisingScoreMatching{Levels: 3, SigmaMin: 0.01, SigmaMax: 1}.Level, vector(0, 0.3, 0.4, 0.99, 1), vector(1, 1, 0.1, 0.01, 0.01)},
		{"trimmed weights", func(v *Node) *Node { return losses.Trim(v, 0.5) }, vector(3, 1, 2, 4), vector(0, 0.5, 0.5, 0)},
		{"trimmed weights, rounded down", func(v *Node) *Node { return losses.Trim(v, 0.49) }, vector(3, 1, 2, 4), vector(1./3, 1./3, 1./3, 0)},
		{"trimmed weights among equals", func(v *Node) *Node { return losses.Trim(v, 0.25) }, vector(5, 5, 5, 5), vector(0, 1./3, 1./3, 1./3)},
		{"nothing trimmed", func(v *Node) *Node { return losses.Trim(v, 0.2) }, vector(5, 1), vector(0.5, 0.5)},
		{"dispersion", func(v *Node) *Node { return losses.Dispersion(Reshape(v, 2, 1)) }, vector(0, 2), testutil.Array([]float64{math.Log(0.5 + 0.5*math.Exp(-4))})},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := testutil.Backend(t, backend.Go) // reference vectors and the contract run the same graphs on XLA
			out := testutil.Eval(t, b, dtypes.Float64, []testutil.Tensor{tc.in}, func(in []*Node) []*Node { return []*Node{tc.build(in[0])} })
			testutil.Compare(t, tc.name, out[0], tc.want, testutil.Tolerance{RTol: 1e-12, ATol: 1e-15})
		})
	}
	out := testutil.Eval(t, testutil.Backend(t, backend.Go), dtypes.Float64, []testutil.Tensor{vector(1, nan, 2)},
		func(in []*Node) []*Node { return []*Node{ReduceAllSum(Mul(in[0], losses.Trim(in[0], 0.4)))} })
	if !math.IsNaN(out[0][0]) {
		t.Errorf("trimmed mean of a NaN: %g, want NaN", out[0][0])
	}
}

// Penalties of E = ½ w x² at w = 2, x = ±1, ±3 and of f = w x. Mean E² = (1 + 81)/2, mean ‖∇E‖² = 4·5; x·f = 2x² gives
// (4 + 324)/2. A network f = w beside E gives w².
func TestPenaltiesByHand(t *testing.T) {
	in := []testutil.Tensor{testutil.Filled(2), testutil.Array([]float64{1, -1, 3, -3}, 4, 1), testutil.Array([]float64{1, 2}, 2, 1)}
	zero := losses.DenoisingScoreMatching{Sigma: constant(1)}
	build := func(in []*Node) (out []*Node) {
		part := func(p losses.Penalties, m losses.Model) *Node {
			l := zero
			l.Penalties = p
			batch := losses.Batch{X: in[1], Draws: []*Node{ZerosLike(in[1])}, Scalars: []*Node{OnesLike(in[0])}}
			r := l.Build(m, batch)
			if len(r.Parts) != 1 {
				t.Fatalf("parts %v, want one", r.Parts)
			}
			l.Penalties = losses.Penalties{}
			return Sub(r.Loss, Add(r.Parts[0].Value, l.Build(m, batch).Loss)) // 0: the loss has the part added
		}
		value := func(p losses.Penalties, m losses.Model) *Node {
			l := zero
			l.Penalties = p
			return l.Build(m, losses.Batch{X: in[1], Draws: []*Node{ZerosLike(in[1])}, Scalars: []*Node{OnesLike(in[0])}}).Parts[0].Value
		}
		energy, field := quadratic(in[0]), linear(in[0])
		beside := energy
		beside.Network = func(x *Node) *Node { return BroadcastToDims(in[0], x.Shape().Dimensions[0]) }
		byEnergy, byGradient := losses.Penalties{Energy: 0.5}, losses.Penalties{Gradient: 0.1}
		plain := losses.Contrastive{Energy: energy.Energy, GradientPenalty: 0.1}.Build(in[1], in[2])
		based := losses.Contrastive{Energy: energy.Energy, GradientPenalty: 0.1, // E = f + ½x², ∇E = 3x
			Base: func(x *Node) *Node { return MulScalar(ReduceSum(Square(x), -1), -0.5) }}.Build(in[1], in[2])
		return []*Node{
			part(byEnergy, energy), part(byGradient, field),
			value(byEnergy, energy), value(byEnergy, field), value(byEnergy, beside), value(byGradient, energy), value(byGradient, field),
			plain.Penalty, based.Penalty, Sub(plain.Loss, Add(Sub(plain.Positives, plain.Negatives), plain.Penalty)),
			Gradient(plain.Loss, in[0])[0], // mean ½x⁺² − mean ½x⁻² + 0.1·2w·5
		}
	}
	want := []float64{0, 0, 0.5 * 41, 0.5 * 164, 0.5 * 4, 2, 2, 2, 4.5, 0, 2.5 - 1.25 + 2}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for i, out := range testutil.Eval(t, b, dtypes.Float64, in, build) {
			testutil.Compare(t, "penalty", out, testutil.Array(want[i:i+1]), testutil.Tolerance{RTol: 1e-13, ATol: 1e-13})
		}
	})
}

// The contrastive part of energy matching with E = ½ w x²: chains from noise cool, those from data do not; the floor
// stops the gradient, and is reported.
func TestEnergyMatchingContrast(t *testing.T) {
	l := losses.EnergyMatching{Path: losses.Path{Interpolant: interpolants.Linear{}}, Sigma: constant(0), Cutoff: 1, LambdaCD: constant(2),
		EpsilonMax: 0.5, TauStar: 0.5, Steps: 8, StepSize: 0.1, NoiseFraction: 0.25, TrimFraction: 0.25, Clamp: 0.02}
	chains := l.Needs(6, 1).Chains
	if chains.Rows != 6 || chains.FromSource != 2 { // half of a chain rounds to the even number, as Python's round does
		t.Errorf("%d chains, %d of them from noise, want 6 and 2", chains.Rows, chains.FromSource)
	}
	for _, tc := range []struct {
		i, m int
		want float64
	}{{0, 0, 0}, {1, 4, 0}, {0, 5, 0.125}, {0, 6, 0.25}, {0, 8, 0.5}, {2, 0, 0.5}, {5, 7, 0.5}} {
		if got := chains.Temperature(tc.i, tc.m); math.Abs(got-tc.want) > 1e-15 {
			t.Errorf("temperature of chain %d at step %d: %g, want %g", tc.i, tc.m, got, tc.want)
		}
	}
	l.LambdaCD = nil
	if n := l.Needs(6, 1); n.Chains != nil || len(n.Scalars) != 1 {
		t.Errorf("without a contrastive part the loss needs %+v", n)
	}
	l.LambdaCD = constant(2)

	// w = 1: E(x) = ½, E(x⁻) = ½·(1, 4, 9, 16) without the last one, so the value is ½ − 7/3 and the part −11/3.
	in := []testutil.Tensor{testutil.Filled(1), testutil.Array([]float64{1, -1, 1, -1}, 4, 1), testutil.Array([]float64{4, 1, 2, 3}, 4, 1)}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		out := testutil.Eval(t, b, dtypes.Float64, in, func(in []*Node) (out []*Node) {
			for _, clamp := range []float64{0.02, 100, -1} {
				l.Clamp = clamp
				// x₀ = x at t = 1: xₜ = x and uₜ = 0, so the flow part is w² and its slope 2w.
				half := OnesLike(Reshape(in[1], 4))
				r := l.Build(quadratic(in[0]), losses.Batch{X: in[1], Source: in[1], Negatives: in[2], Draws: []*Node{half, ZerosLike(in[1])},
					Scalars: []*Node{ZerosLike(in[0]), MulScalar(OnesLike(in[0]), 2)}})
				for i, name := range []string{"flow_loss", "cd_loss", "cd_value", "cd_clamped"} {
					if r.Parts[i].Name != name {
						t.Fatalf("part %d is %s, want %s", i, r.Parts[i].Name, name)
					}
					out = append(out, r.Parts[i].Value)
				}
				out = append(out, r.Loss, Gradient(r.Loss, in[0])[0])
			}
			return out
		})
		const value = 0.5 - 7./3
		want := []float64{1, -0.02, value, 1, 0.98, 2, 1, 2 * value, value, 0, 1 + 2*value, 2 + 2*value, 1, 2 * value, value, 0, 1 + 2*value, 2 + 2*value}
		for i := range want {
			testutil.Compare(t, "part", out[i], testutil.Array(want[i:i+1]), testutil.Tolerance{RTol: 1e-13})
		}
	})
}
