package samplers_test

import (
	"context"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/integrators"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/interpolants"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
)

// flowCase is a recorded flow on its way.
type flowCase struct {
	testutil.Case
	flow  samplers.Flow
	times []float64
	thin  int

	x    []float64
	got  map[string][]float64
	kept [][]float64
}

// affine is the recorded field f(x, t) = x A' + b + t c.
func affine(a, b, c *Node) integrators.Drift {
	return func(x, t *Node) *Node {
		row := func(v *Node) *Node { return Reshape(v, 1, v.Shape().Dimensions[0]) }
		return Add(Add(Einsum("ij,kj->ik", x, a), row(b)), Mul(ExpandAxes(t, -1), row(c)))
	}
}

// flowInputs are x, z, t, h, A, b, c of a case.
const flowInputs = 7

// TestReferenceFlow replays the recorded flows with the intervals, guards and reversal of TorchEBM. All cases with fixed
// steps make their next one by one call of one program; the adaptive ones go through the solver.
func TestReferenceFlow(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		var fixed []*flowCase
		adaptive := 0
		for _, c := range testutil.Reference(t, "samplers") {
			if c.Component != "FlowSampler" {
				continue
			}
			if c.Str("method", "") == "prior_logp" {
				t.Run(c.Name, func(t *testing.T) { priorLogDensity(t, b, c) })
				continue
			}
			f := newFlowCase(t, c)
			if f.flow.Scheme.Adaptive() {
				adaptive++
				t.Run(c.Name, func(t *testing.T) { f.solve(t, b) })
				continue
			}
			fixed = append(fixed, f)
		}
		if len(fixed) == 0 || adaptive == 0 {
			t.Fatalf("%d cases with fixed steps, %d with adaptive ones, want some of both", len(fixed), adaptive)
		}
		replayFlows(t, b, fixed)
		for _, f := range fixed {
			t.Run(f.Name, f.check)
		}
	})
}

func newFlowCase(t *testing.T, c testutil.Case) *flowCase {
	c.Only(t,
		[]string{"mode", "interpolant", "prediction", "integrator", "n_steps", "thin", "sample_eps", "negate_velocity", "reverse",
			"diffusion_form", "diffusion_norm", "last_step", "last_step_size"},
		[]string{"A", "b", "c", "x", "noise"},
		[]string{"trajectory", "x", "diag.mean", "diag.var", "diag.t"})
	word := func(key, def string) string { return strings.ReplaceAll(strings.ToLower(c.Str(key, def)), "-", "_") }
	number := func(key string, def float64) *float64 { v := c.Num(key, def); return &v }
	flag := func(key string) *bool { v := c.Bool(key, false); return &v }
	config := samplers.Config{
		Kind: "flow", Compat: "torchebm", Mode: word("mode", "ode"), Prediction: word("prediction", "velocity"), Integrator: word("integrator", ""),
		Steps: int(c.Num("n_steps", 0)), SampleEps: number("sample_eps", 0), NegateVelocity: flag("negate_velocity"), Reverse: flag("reverse"),
		Interpolant: interpolants.Config{Kind: word("interpolant", "linear")},
	}
	if config.Interpolant.Kind == "vp" {
		config.Interpolant.SigmaMin, config.Interpolant.SigmaMax = number("interpolant.sigma_min", 0.1), number("interpolant.sigma_max", 20)
	}
	if config.Mode == "sde" {
		config.DiffusionForm, config.DiffusionNorm = word("diffusion_form", "SBDM"), number("diffusion_norm", 1)
		config.LastStep = "none"
		if last, ok := c.Params["last_step"]; !ok || last != "none" {
			config.LastStep, config.LastStepSize = word("last_step", "mean"), number("last_step_size", 0.04)
		}
	}
	flow, err := config.NewFlow()
	if err != nil {
		t.Fatalf("%s: %v", c.Name, err)
	}
	return &flowCase{Case: c, flow: flow, times: flow.Times(), thin: int(c.Num("thin", 1)), x: c.Inputs["x"].Data, got: map[string][]float64{}}
}

func replayFlows(t *testing.T, b *backend.Backend, cases []*flowCase) {
	var dims [][]int
	steps := 0
	for _, f := range cases {
		x := f.Inputs["x"].Shape
		dims = append(dims, x, x, []int{}, []int{}, f.Inputs["A"].Shape, f.Inputs["b"].Shape, f.Inputs["c"].Shape)
		steps = max(steps, f.flow.Steps)
	}
	// Outputs: of each case the state after a step, and the one after a last step from there.
	program := testutil.Compile(t, b, dtypes.Float64, dims, func(in []*Node) []*Node {
		var out []*Node
		for i, f := range cases {
			own := in[i*flowInputs:][:flowInputs]
			x, z, time, h, field := own[0], own[1], own[2], own[3], affine(own[4], own[5], own[6])
			x = f.flow.Step(field, x, BroadcastToDims(time, x.Shape().Dimensions[0]), h, z)
			out = append(out, x, f.flow.Last(field, x))
		}
		return out
	})
	for m := range steps {
		var in []testutil.Tensor
		for _, f := range cases {
			i := min(m, f.flow.Steps-1)
			x := f.Inputs["x"].Shape
			z := testutil.Filled(0, x...)
			if f.flow.SDE {
				z = f.Inputs["noise"].Slice(i)
			}
			in = append(in, testutil.Array(f.x, x...), z, testutil.Filled(f.times[i]), testutil.Filled(f.times[i+1]-f.times[i]),
				f.Inputs["A"], f.Inputs["b"], f.Inputs["c"])
		}
		out := program.Run(t, in...)
		for i, f := range cases {
			switch {
			case m < f.flow.Steps-1:
				f.collect(m+1, out[2*i], f.times[m+1])
			case m == f.flow.Steps-1:
				f.collect(m+1, out[2*i+1], f.flow.End())
			}
		}
	}
}

func (f *flowCase) collect(step int, x []float64, time float64) {
	f.x = x
	if step%f.thin != 0 {
		return
	}
	mean, variance := moments(x, f.Inputs["x"].Shape[1])
	f.kept = append(f.kept, x)
	f.got["x"] = x
	f.got["diag.mean"] = append(f.got["diag.mean"], mean...)
	f.got["diag.var"] = append(f.got["diag.var"], variance...)
	f.got["diag.t"] = append(f.got["diag.t"], time)
}

func (f *flowCase) check(t *testing.T) {
	x := f.Inputs["x"].Shape
	for row := range x[0] {
		for _, state := range f.kept {
			f.got["trajectory"] = append(f.got["trajectory"], state[row*x[1]:(row+1)*x[1]]...)
		}
	}
	for name, want := range f.Expect {
		testutil.Compare(t, name, f.got[name], want, f.For64(name))
	}
}

// solve goes through an adaptive scheme, whose result depends on the sizes that it chose.
func (f *flowCase) solve(t *testing.T, b *backend.Backend) {
	upload := func(a testutil.Tensor) *tensors.Tensor { return tensors.FromFlatDataAndDimensions(a.Data, a.Shape...) }
	shape := func(name string) shapes.Shape { return shapes.Make(dtypes.Float64, f.Inputs[name].Shape...) }
	var inputs []backend.Input
	var values []*tensors.Tensor
	for _, name := range []string{"A", "b", "c"} {
		inputs = append(inputs, backend.Input{Name: name, Shape: shape(name)})
		values = append(values, upload(f.Inputs[name]))
	}
	solver, err := integrators.NewSolver(b, integrators.Problem{
		Scheme: f.flow.Scheme, Control: f.flow.Control, State: shape("x"), Inputs: inputs,
		Drift: func(x, t *Node, in ...*Node) *Node { return f.flow.Drift(affine(in[0], in[1], in[2]))(x, t) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer solver.Close()
	x, _, err := solver.Solve(context.Background(), upload(f.Inputs["x"]), f.times, values...)
	if err != nil {
		t.Fatal(err)
	}
	end, err := backend.Read[float64](x)
	if err != nil {
		t.Fatal(err)
	}
	f.collect(f.thin, end, f.flow.End())
	f.check(t)
}

func priorLogDensity(t *testing.T, b *backend.Backend, c testutil.Case) {
	c.Only(t, []string{"method"}, []string{"z"}, []string{"logp"})
	double, single := testutil.EvalBoth(t, b, []testutil.Tensor{c.Inputs["z"]}, func(in []*Node) []*Node {
		return []*Node{samplers.PriorLogDensity(in[0])}
	})
	testutil.Compare(t, "logp", double[0], c.Expect["logp"], c.For64("logp"))
	testutil.Compare(t, "logp in float32", single[0], c.Expect["logp"], c.For32("logp"))
}
