package samplers_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/interpolants"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
)

// Data of the law N(2, ½²), in every coordinate.
const dataMean, dataVariance = 2.0, 0.25

// exactField is the field of that law on a path: of xₜ ~ N(2α, ¼α² + σ²) the velocity E[α̇x₁ + σ̇x₀ | xₜ], the score, or the
// noise E[x₀ | xₜ]. With labels, label y has its data at 2 + y.
type exactField struct {
	path       interpolants.Interpolant
	prediction string
	classes    int
}

func (exactField) Dim() int               { return 1 }
func (exactField) Params() []models.Param { return nil }
func (f exactField) Classes() int         { return f.classes }
func (f exactField) Field(x, t, y *Node, _ []*Node) *Node {
	wide := func(n *Node) *Node { return ExpandAxes(n, -1) }
	alpha, sigma, dAlpha, dSigma := wide(f.path.Alpha(t)), wide(f.path.Sigma(t)), wide(f.path.DAlpha(t)), wide(f.path.DSigma(t))
	mean := MulScalar(OnesLike(x), dataMean)
	if y != nil {
		mean = Add(mean, wide(ConvertDType(y, x.DType())))
	}
	variance := Add(MulScalar(Square(alpha), dataVariance), Square(sigma))
	off := Div(Sub(x, Mul(alpha, mean)), variance)
	switch f.prediction {
	case "score":
		return Neg(off)
	case "noise":
		return Mul(sigma, off)
	}
	slope := Add(MulScalar(Mul(alpha, dAlpha), dataVariance), Mul(sigma, dSigma))
	return Add(Mul(dAlpha, mean), Mul(slope, off))
}

func pathOf(t *testing.T, kind string) interpolants.Interpolant {
	t.Helper()
	path, err := interpolants.Config{Kind: kind}.Build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// With the exact field, the flow's defaults end in the law of the data, whatever the path, the prediction and the equation:
// the mean within five standard errors, and the standard deviation within five of its own and 0.01 for what steps of finite
// length leave. XLA, which takes longer to compile than to run, goes through a third of the combinations, with every path,
// prediction and equation among them.
func TestFlowEndsInTheDataLaw(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		const n = 4000
		for i, path := range interpolants.KindNames() {
			for j, prediction := range samplers.Predictions() {
				for k, mode := range []string{"ode", "sde"} {
					if b.Kind() != backend.Go && (i+j+k)%3 != 0 {
						continue
					}
					config := samplers.Config{Kind: "flow", Mode: mode, Prediction: prediction, Interpolant: interpolants.Config{Kind: path}}
					if mode == "ode" && prediction != "velocity" {
						config.Integrator = "heun" // a smaller program than the default's, which the velocities try
					}
					trace := run(t, b, samplers.RunOptions{Sampler: config, Network: exactField{path: pathOf(t, path), prediction: prediction}, Chains: n, Seed: 1})
					mean, variance := moments(trace.X, 1)
					const std = 0.5
					if d := math.Abs(mean[0] - dataMean); !(d < 5*std/math.Sqrt(n)+0.005) {
						t.Errorf("%s, %s, %s: mean %.4f, want %g", path, prediction, mode, mean[0], dataMean)
					}
					if d := math.Abs(math.Sqrt(variance[0]) - std); !(d < 5*std/math.Sqrt(2*n)+0.01) {
						t.Errorf("%s, %s, %s: standard deviation %.4f, want %g", path, prediction, mode, math.Sqrt(variance[0]), std)
					}
				}
			}
		}
	})
}

// Every diffusion form has the same marginals. A form that goes to infinity at t = 0 needs a start away from there.
func TestDiffusionFormsHaveTheSameMarginals(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	const n = 4000
	for _, form := range interpolants.DiffusionForms() {
		for _, last := range []string{"euler", "tweedie", "none"} {
			config := samplers.Config{Kind: "flow", Mode: "sde", DiffusionForm: form, LastStep: last}
			if last == "none" || form == "sbdm" {
				config.SampleEps = ptr(0.02)
			}
			trace := run(t, b, samplers.RunOptions{Sampler: config, Network: exactField{path: interpolants.Linear{}}, Chains: n, Seed: 2})
			mean, variance := moments(trace.X, 1)
			end := 1.0
			if last == "none" {
				end -= *config.SampleEps // the state is left where the path has 2α there
			}
			if std := math.Sqrt(variance[0]); !(math.Abs(mean[0]-dataMean*end) < 0.05 && math.Abs(std-0.5*end) < 0.04) {
				t.Errorf("%s, %s: mean %.4f, standard deviation %.4f, want %.2f and %.2f", form, last, mean[0], std, dataMean*end, 0.5*end)
			}
		}
	}
}

// There and back again: data to noise, noise to data, within the tolerance of the integrator; the noise is N(0, 1).
func TestReverseRoundTrip(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for _, path := range []string{"linear", "vp"} {
			const n = 1000
			field := exactField{path: pathOf(t, path)}
			var data []float32
			for i := range n { // quantiles of the data's law
				data = append(data, float32(dataMean+0.5*math.Sqrt2*math.Erfinv(2*(float64(i)+0.5)/n-1)))
			}
			o := samplers.RunOptions{Network: field, Chains: n, Start: data, Double: true, Sampler: samplers.Config{
				Kind: "flow", Reverse: ptr(true), Interpolant: interpolants.Config{Kind: path}, Atol: ptr(1e-9), Rtol: ptr(1e-9)}}
			noise := run(t, b, o)
			mean, variance := moments(noise.X, 1)
			if math.Abs(mean[0]) > 0.02 || math.Abs(variance[0]-1) > 0.02 {
				t.Errorf("%s: noise of mean %.4f and variance %.4f, want 0 and 1", path, mean[0], variance[0])
			}
			o.Sampler.Reverse = nil
			o.Start = nil
			for _, v := range noise.X {
				o.Start = append(o.Start, float32(v))
			}
			back := run(t, b, o)
			worst := 0.0
			for i, v := range back.X {
				worst = max(worst, math.Abs(v-float64(data[i])))
			}
			// Starts are single precision: 1e-7 of a value of 3, and the way itself 1e-9 a step.
			if !(worst < 1e-5) {
				t.Errorf("%s: back within %g, want 1e-5", path, worst)
			}
		}
	})
}

// Labels and guidance: label y has its mean at 2 + y, and the null label, 3 here, at 5. The guided field of Gaussians of one
// variance is that of a Gaussian with its mean at u + w(c − u).
func TestFlowLabels(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		const n = 2000
		for _, tc := range []struct {
			label    *int
			guidance *float64
			mean     float64
		}{{ptr(1), nil, 3}, {ptr(2), ptr(1.), 4}, {ptr(1), ptr(2.), 1}, {ptr(1), ptr(0.), 5}} {
			trace := run(t, b, samplers.RunOptions{
				Sampler: samplers.Config{Kind: "flow", Label: tc.label, GuidanceScale: tc.guidance, Integrator: "heun", Steps: 20},
				Network: exactField{path: interpolants.Linear{}, classes: 3}, Chains: n, Seed: 3,
			})
			if mean, _ := moments(trace.X, 1); !(math.Abs(mean[0]-tc.mean) < 0.07) {
				t.Errorf("label %d, guidance %v: mean %.3f, want %g", *tc.label, tc.guidance, mean[0], tc.mean)
			}
		}
		labels := slices.Repeat([]int32{0, 2}, n/2)
		trace := run(t, b, samplers.RunOptions{Sampler: samplers.Config{Kind: "flow", Integrator: "heun", Steps: 20}, Labels: labels,
			Network: exactField{path: interpolants.Linear{}, classes: 3}, Chains: n, Seed: 3})
		sums := map[int32]float64{}
		for i, l := range labels {
			sums[l] += trace.X[i] / (n / 2)
		}
		if math.Abs(sums[0]-2) > 0.1 || math.Abs(sums[2]-4) > 0.1 {
			t.Errorf("means by label %v, want 2 and 4", sums)
		}
	})
}

// timeless is a field that must see time 0: f = x(1 + 100t).
type timeless struct{ exactField }

func (timeless) Field(x, t, _ *Node, _ []*Node) *Node {
	return Mul(x, AddScalar(MulScalar(ExpandAxes(t, -1), 100), 1))
}

// A negated velocity is −f(x, 0): from x the flow of f = x ends at x/e.
func TestNegatedVelocitySeesTimeZero(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	trace := run(t, b, samplers.RunOptions{Sampler: samplers.Config{Kind: "flow", NegateVelocity: ptr(true), Integrator: "rk4", Steps: 20},
		Network: timeless{}, Chains: 2, Start: []float32{1, -2}, Double: true})
	testutil.Compare(t, "x", trace.X, testutil.Array([]float64{1 / math.E, -2 / math.E}, 2), testutil.Tolerance{RTol: 1e-6})
}

// What a flow keeps, for every family of schemes.
func TestFlowContract(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for _, config := range []samplers.Config{
			{Kind: "flow", Integrator: "heun", Steps: 7}, {Kind: "flow", Steps: 7}, {Kind: "flow", Mode: "sde", Steps: 7}, {Kind: "flow", Integrator: "rk4", Reverse: ptr(true), Steps: 7}} {
			name := fmt.Sprint(config.Mode, config.Integrator)
			const n, kept = 3, 3
			o := samplers.RunOptions{Sampler: config, Network: exactField{path: interpolants.Linear{}}, Chains: n, Thin: 2, Trajectory: true, Diagnostics: true, Seed: 1}
			first, again := run(t, b, o), run(t, b, o)
			if !slices.Equal(first.Trajectory, again.Trajectory) || !slices.Equal(first.X, again.X) {
				t.Errorf("%s: the same seed gives other numbers", name)
			}
			o.Seed++
			if slices.Equal(first.X, run(t, b, o).X) {
				t.Errorf("%s: another seed gives the same numbers", name)
			}
			if first.Kept != kept || len(first.Trajectory) != n*kept || len(first.Mean) != kept || len(first.T) != kept || first.Energy != nil || first.NonFinite+first.Lost != 0 {
				t.Errorf("%s: kept %d of a trace with other shapes", name, first.Kept)
			}
			rising := slices.IsSorted(first.T)
			if reversed := config.Reverse != nil; rising == reversed {
				t.Errorf("%s: times %v", name, first.T)
			}
			// With thin 7 the one state that is kept is the last.
			o.Seed, o.Thin = 1, 7
			if whole := run(t, b, o); config.Integrator != "" && (!slices.Equal(whole.X, first.X) || !slices.Equal(whole.Trajectory, whole.X)) {
				t.Errorf("%s: a trajectory ends at %v, without one at %v", name, whole.Trajectory, first.X)
			}
		}
	})
}

// Under f(x) = x the flow is dx/dτ = −x, for as long as the section says.
func TestDurationOfANegatedVelocity(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	for _, duration := range []float64{0.5, 3} {
		trace := run(t, b, samplers.RunOptions{Sampler: samplers.Config{Kind: "flow", NegateVelocity: ptr(true), Duration: &duration, Integrator: "rk4", Steps: 60},
			Network: timeless{}, Chains: 2, Start: []float32{1, -2}, Diagnostics: true})
		for i, start := range []float64{1, -2} {
			if want := start * math.Exp(-duration); math.Abs(trace.X[i]-want) > 1e-5 {
				t.Errorf("duration %g: %g from %g, want %g", duration, trace.X[i], start, want)
			}
		}
		if last := trace.T[len(trace.T)-1]; math.Abs(last-duration) > 1e-9 {
			t.Errorf("duration %g: the last time is %g", duration, last)
		}
	}
	for _, c := range []samplers.Config{
		{Kind: "flow", Duration: ptr(2.0)},
		{Kind: "flow", NegateVelocity: ptr(true), Duration: ptr(-1.0)},
		{Kind: "flow", NegateVelocity: ptr(true), Duration: ptr(1.0), SampleEps: ptr(0.1)},
	} {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "duration: ") {
			t.Errorf("%+v: %v, want a fault of duration", c, err)
		}
	}
}

// With a step size a row, a row's result does not depend on the others: the row alone ends at the same state.
func TestStepSizeOfARow(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	end := func(norm string, start ...float32) float64 {
		return run(t, b, samplers.RunOptions{Sampler: samplers.Config{Kind: "flow", NegateVelocity: ptr(true), Duration: ptr(4.0), Rtol: ptr(0.05), Norm: norm},
			Network: timeless{}, Chains: len(start), Start: start, Double: true}).X[0]
	}
	if alone, beside := end("row", 1), end("row", 1, 1e4); alone != beside {
		t.Errorf("row: %v alone, %v beside another", alone, beside)
	}
	if alone, beside := end("batch", 1), end("batch", 1, 1e4); alone == beside {
		t.Errorf("batch: %v in both, want the other row to show", alone)
	}
	for key, c := range map[string]samplers.Config{
		"safety": {Kind: "flow", Safety: ptr(0.0)}, "norm": {Kind: "flow", Norm: "max"}, "max_steps": {Kind: "flow", MaxSteps: ptr(0)},
		"max_factor": {Kind: "flow", Integrator: "rk4", MaxFactor: ptr(2.0)},
	} {
		if err := c.WithDefaults().Validate(); err == nil || !strings.HasPrefix(err.Error(), key+": ") {
			t.Errorf("%s: %v", key, err)
		}
	}
}
