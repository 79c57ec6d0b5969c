package samplers_test

import (
	"math"
	"slices"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/integrators"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

// TestReferenceLangevin replays the recorded Langevin chains, draw by draw.
//
// The tolerance in float32 is Case.For32: every step rounds the state to 6e-8 of its size, a dozen times or so, and a
// stable chain carries that along for some ten steps without enlarging it: well below 1e-4 of a value or 1e-5 of the
// largest one.
func TestReferenceLangevin(t *testing.T) {
	var cases []testutil.Case
	for _, c := range testutil.Reference(t, "samplers") {
		if c.Component == "LangevinDynamics" {
			cases = append(cases, c)
		}
	}
	if len(cases) == 0 {
		t.Fatal("no case of LangevinDynamics")
	}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for _, c := range cases {
			t.Run(c.Name, func(t *testing.T) { replayLangevin(t, b, c) })
		}
	})
}

func replayLangevin(t *testing.T, b *backend.Backend, c testutil.Case) {
	c.Only(t,
		[]string{"energy", "step_size", "noise_scale", "n_steps", "thin", "integrator", "clamp_min", "clamp_max"},
		[]string{"energy", "x", "noise"},
		[]string{"trajectory", "x", "diag.mean", "diag.var", "diag.energy"})
	x := c.Inputs["x"]
	rows, dim := x.Shape[0], x.Shape[1]
	steps, thin := int(c.Num("n_steps", 100)), int(c.Num("thin", 1))
	energy := c.Energy(t, dim)
	scheme, err := integrators.ByName(c.Str("integrator", "euler_maruyama"))
	if err != nil {
		t.Fatal(err)
	}
	config := samplers.Config{Kind: "langevin", Integrator: scheme.Name, Steps: steps, StepSize: schedules.Constant(1)}
	if err := config.Validate(); err != nil {
		t.Fatal(err)
	}
	kernel := config.NewKernel(nil).(samplers.Langevin)
	if lo, hi := c.Num("clamp_min", math.Inf(-1)), c.Num("clamp_max", math.Inf(1)); lo > math.Inf(-1) || hi < math.Inf(1) {
		kernel.Clamp = &[2]float64{lo, hi}
	}
	chain := compileChain(t, b, kernel, energy, c)
	stepSize, noiseScale := c.Schedule(t, "step_size", 1e-3), c.Schedule(t, "noise_scale", 1)
	weights := c.Weights(t, energy)
	const double, single = 0, 1
	states := [2][]float64{x.Data, x.Data}
	var got [2]map[string][]float64
	var kept [2][][]float64
	for p := range got {
		got[p] = map[string][]float64{}
	}
	for first := 0; first < steps; first += block {
		noise, sizes, scales := testutil.Filled(0, block, rows, dim), testutil.Filled(0, block), testutil.Filled(0, block)
		for i := range min(block, steps-first) {
			copy(noise.Data[i*rows*dim:], c.Inputs["noise"].Slice(first+i).Data)
			// The value at step m is used for update m, before the schedule goes on.
			sizes.Data[i], scales.Data[i] = stepSize.At(first+i), noiseScale.At(first+i)
		}
		out := chain.Run(t, append([]testutil.Tensor{
			testutil.Array(states[double], rows, dim), testutil.Array(states[single], rows, dim), noise, sizes, scales}, weights...)...)
		for p := range got {
			out := out[p*(2*block+1):][:2*block+1]
			if bad := out[2*block][0]; bad != 0 {
				t.Errorf("%g steps reported as not finite", bad)
			}
			states[p] = out[2*(block-1)]
			for i := range block {
				if m := first + i; m >= steps || (m+1)%thin != 0 {
					continue
				}
				x, energies := out[2*i], out[2*i+1]
				kept[p] = append(kept[p], x)
				mean, variance := moments(x, dim)
				meanEnergy, _ := moments(energies, 1)
				got[p]["diag.mean"] = append(got[p]["diag.mean"], mean...)
				got[p]["diag.var"] = append(got[p]["diag.var"], variance...)
				got[p]["diag.energy"] = append(got[p]["diag.energy"], meanEnergy...)
				got[p]["x"] = x
			}
		}
	}
	for p, precision := range []struct {
		name      string
		tolerance func(string) testutil.Tolerance
	}{{"", c.For64}, {" in float32", c.For32}} {
		for r := range rows {
			for _, x := range kept[p] {
				got[p]["trajectory"] = append(got[p]["trajectory"], x[r*dim:(r+1)*dim]...)
			}
		}
		for name, want := range c.Expect {
			testutil.Compare(t, name+precision.name, got[p][name], want, precision.tolerance(name))
		}
	}
}

// block is the number of chain steps of a call: two, so that one goes on with the gradient of the other, and no more,
// since compiling is what this test spends its time on. Steps past the end have size 0.
const block = 2

// compileChain compiles a block of steps in both precisions. Inputs: the states in float64, those of the float32 chain,
// noise [block, rows, dim], step sizes [block], noise scales [block], weights. Outputs, for each precision: states and
// energies after every step, then the number of steps reported as not finite.
func compileChain(t *testing.T, b *backend.Backend, kernel samplers.Langevin, energy models.Energy, c testutil.Case) *testutil.Graph {
	x := c.Inputs["x"].Shape
	shapes := append([][]int{x, x, append([]int{block}, x...), {block}, {block}}, testutil.ShapesOf(c.Weights(t, energy))...)
	run := func(x, noise, sizes, scales *Node, weights []*Node) []*Node {
		rows := x.Shape().Dimensions[0]
		at := func(n *Node, m int) *Node { return Reshape(Slice(n, AxisElem(m)), n.Shape().Dimensions[1:]...) }
		target := samplers.Target{
			Beta: BroadcastToDims(ScalarOne(x.Graph(), x.DType()), rows),
			Path: samplers.Power(models.At(energy, weights)),
		}
		point := target.At(x)
		var out []*Node
		bad := ScalarZero(x.Graph(), dtypes.Float32)
		for m := range block {
			k := kernel
			k.Scale = at(scales, m)
			var info samplers.Info
			point, info = k.Step(target, point, BroadcastToDims(at(sizes, m), rows), samplers.Noise{Z: at(noise, m)})
			bad = Add(bad, ReduceAllSum(info.NonFinite))
			out = append(out, point.X, Neg(point.V))
		}
		return append(out, bad)
	}
	return testutil.Compile(t, b, dtypes.Float64, shapes, func(in []*Node) []*Node {
		small := make([]*Node, len(in))
		for i, n := range in {
			small[i] = ConvertDType(n, dtypes.Float32)
		}
		return append(run(in[0], in[2], in[3], in[4], in[5:]), run(small[1], small[2], small[3], small[4], small[5:])...)
	})
}

// moments are the mean and the variance (which divides by n and is at least 1e-10, or 0 for one row) of each column.
func moments(rows []float64, dim int) (mean, variance []float64) {
	mean, variance = make([]float64, dim), make([]float64, dim)
	n := float64(len(rows) / dim)
	for row := range slices.Chunk(rows, dim) {
		for d, v := range row {
			mean[d] += v / n
		}
	}
	for row := range slices.Chunk(rows, dim) {
		for d, v := range row {
			variance[d] += (v - mean[d]) * (v - mean[d]) / n
		}
	}
	if n > 1 {
		for d := range variance {
			variance[d] = max(variance[d], 1e-10)
		}
	}
	return mean, variance
}
