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

// The penalties of a field f(x, t) = 3x + t on one coordinate, where each loss asks for it: a velocity at xₜ and t, a field
// without time at the rows as they came, or at those that its labels belong to.
func TestPenaltiesOfFields(t *testing.T) {
	const x, data, source, at = 2.0, -1.0, 4.0, 0.25
	const xt = at*x + (1-at)*source
	path := losses.Path{Interpolant: interpolants.Linear{}}
	eqm := func(energy string, still bool) losses.EquilibriumMatching {
		return losses.EquilibriumMatching{Path: path, Prediction: "velocity", EnergyType: energy, CT: "linear", CTMultiplier: 1, TimeInvariant: still}
	}
	noise := eqm("", false)
	noise.Prediction = "noise"
	f := func(x, t float64) float64 { return 3*x + t }
	rows := []struct {
		name             string
		loss             func(p losses.Penalties) losses.Loss
		labels           bool
		energy, gradient float64
	}{
		{"flow matching", func(p losses.Penalties) losses.Loss { return losses.FlowMatching{Path: path, Penalties: p} }, false, xt * f(xt, at), f(xt, at)},
		{"equilibrium matching", penalised(eqm("none", true)), false, data * f(data, 0), f(data, 0)},
		{"equilibrium matching with labels", penalised(eqm("none", true)), true, x * f(x, 0), f(x, 0)},
		{"equilibrium matching, dot", penalised(eqm("dot", true)), false, data * f(data, 0), 6 * data},
		{"equilibrium matching, l2", penalised(eqm("l2", true)), false, -4.5 * data * data, -9 * data},
		{"equilibrium matching with time", penalised(eqm("none", false)), false, xt * f(xt, at), f(xt, at)},
		{"equilibrium matching with time, dot", penalised(eqm("dot", false)), false, xt * f(xt, at), 6*xt + at},
		{"equilibrium matching, noise", penalised(noise), false, xt * f(xt, at), f(xt, at)},
	}
	in := []testutil.Tensor{testutil.Filled(x, 1, 1), testutil.Filled(data, 1, 1), testutil.Filled(source, 1, 1), testutil.Filled(at, 1)}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		out := testutil.Eval(t, b, dtypes.Float64, in, func(in []*Node) (out []*Node) {
			m := losses.Model{Field: func(x, t, _ *Node) *Node {
				if t == nil {
					return MulScalar(x, 3)
				}
				return Add(MulScalar(x, 3), Reshape(t, -1, 1))
			}}
			for _, r := range rows {
				batch := losses.Batch{X: in[0], Data: in[1], Source: in[2], Draws: []*Node{in[3]}}
				if r.labels {
					batch.Labels = Const(in[0].Graph(), []int32{0})
				}
				with := r.loss(losses.Penalties{Energy: 0.5, Gradient: 0.1}).Build(m, batch)
				without := r.loss(losses.Penalties{}).Build(m, batch)
				parts := with.Parts[len(with.Parts)-2:]
				out = append(out, parts[0].Value, parts[1].Value, Sub(Sub(with.Loss, without.Loss), Add(parts[0].Value, parts[1].Value)))
			}
			return out
		})
		for i, r := range rows {
			for k, want := range []float64{0.5 * r.energy * r.energy, 0.1 * r.gradient * r.gradient, 0} {
				testutil.Compare(t, r.name, out[3*i+k], testutil.Filled(want), testutil.Tolerance{RTol: 1e-12, ATol: 1e-11})
			}
		}
	})
}

func penalised(l losses.EquilibriumMatching) func(p losses.Penalties) losses.Loss {
	return func(p losses.Penalties) losses.Loss {
		l.Penalties = p
		return l
	}
}

// Energy matching compares the chains with the rows as they came, not as the coupling repeats them; and the negatives of a
// step without chains, which are their starts, count for nothing.
func TestEnergyMatchingOfRowsAsTheyCame(t *testing.T) {
	l := losses.EnergyMatching{Path: losses.Path{Interpolant: interpolants.Linear{}}, Sigma: constant(0), Cutoff: 1, LambdaCD: constant(2),
		EpsilonMax: 0.5, Steps: 8, StepSize: 0.1, Clamp: -1, Penalties: losses.Penalties{Energy: 1}}
	// E = ½x²: ½ and 2 at the rows, ½ and ½ as the coupling has them, 8 at the negatives.
	in := []testutil.Tensor{testutil.Array([]float64{1, 1}, 2, 1), testutil.Array([]float64{1, 2}, 2, 1), testutil.Array([]float64{4, -4}, 2, 1)}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		out := testutil.Eval(t, b, dtypes.Float64, in, func(in []*Node) (out []*Node) {
			one := Const(in[0].Graph(), 1.0)
			for _, lambda := range []float64{2, 0} {
				r := l.Build(quadratic(one), losses.Batch{X: in[0], Data: in[1], Source: in[0], Negatives: in[2],
					Draws: []*Node{OnesLike(Reshape(in[0], 2)), ZerosLike(in[0])}, Scalars: []*Node{ZerosLike(one), MulScalar(one, lambda)}})
				for _, p := range r.Parts {
					if p.Name == "cd_value" || p.Name == "energy_penalty" {
						out = append(out, p.Value)
					}
				}
			}
			return out
		})
		for i, want := range []float64{1.25 - 8, 2.125 + 64, 1.25 - 8, 2.125} {
			testutil.Compare(t, "part", out[i], testutil.Filled(want), testutil.Tolerance{RTol: 1e-13})
		}
	})
}

// Weights of score and noise at times closer to the end than interpolants.Edge are those at that distance: on the linear
// path w = σ/t, on the cosine path w = ½π σ/α.
func TestLossWeightsAtTheEnd(t *testing.T) {
	const last = 1 - interpolants.Edge
	sin, cos := math.Cos(math.Pi/2*interpolants.Edge), math.Sin(math.Pi/2*interpolants.Edge)
	in := []testutil.Tensor{testutil.Array([]float64{1 - 1e-6, 1}, 2)}
	for _, tc := range []struct {
		name, weight string
		path         interpolants.Interpolant
		want         float64
	}{
		{"linear, velocity", "velocity", interpolants.Linear{}, 1 / (last * last)},
		{"linear, likelihood", "likelihood", interpolants.Linear{}, 1 / (last * interpolants.Edge)},
		{"cosine, velocity", "velocity", interpolants.Cosine{}, math.Pow(math.Pi/2/sin, 2)},
		{"cosine, likelihood", "likelihood", interpolants.Cosine{}, math.Pi / 2 / (sin * cos)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := losses.EquilibriumMatching{Path: losses.Path{Interpolant: tc.path}, LossWeight: tc.weight}
			out := testutil.Eval(t, testutil.Backend(t, backend.Go), dtypes.Float64, in, func(in []*Node) []*Node { return []*Node{l.Weight(in[0])} })
			testutil.Compare(t, tc.name, out[0], testutil.Filled(tc.want, 2), testutil.Tolerance{RTol: 1e-10}) // 1 − t has 11 digits here
		})
	}
}

func TestTemperatures(t *testing.T) {
	for _, tc := range []struct {
		loss losses.Tempered
		tau  float64
		law  bool
	}{
		{losses.EnergyMatching{EpsilonMax: 0.15}, 0.15, true}, {losses.EnergyMatching{}, 1, false}, {losses.EquilibriumMatching{}, 1, false},
	} {
		if tau, law := tc.loss.Temperature(); tau != tc.tau || law != tc.law {
			t.Errorf("%T: temperature %g, law %v: want %g, %v", tc.loss, tau, law, tc.tau, tc.law)
		}
	}
	if _, ok := losses.Loss(losses.DenoisingScoreMatching{}).(losses.Tempered); ok {
		t.Error("denoising score matching has a temperature, want the law exp(−E)")
	}
}
