package interpolants_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/interpolants"
)

// TestReference compares every recorded value of every path: with TorchEBM's divisions at all times, in float64; our own, and
// TorchEBM's in float32, where the times of a case keep away from the ends. All functions work row by row, so the cases of a
// path are one batch.
func TestReference(t *testing.T) {
	groups := map[string][]testutil.Case{}
	for _, c := range testutil.Reference(t, "interpolants") {
		c.Only(t, []string{"sigma_min", "sigma_max", "diffusion_norm"}, inputNames,
			[]string{"alpha", "d_alpha", "sigma", "d_sigma", "d_alpha_over_alpha", "xt", "ut", "drift_mean", "drift_var",
				"velocity_to_score", "velocity_to_noise", "score_to_velocity", "diffusion"})
		key := fmt.Sprint(c.Component, c.Params, slices.Sorted(maps.Keys(c.Inputs)), slices.Sorted(maps.Keys(c.Expect)), c.Inputs["x0"].Shape[1:])
		groups[key] = append(groups[key], c)
	}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for _, key := range slices.Sorted(maps.Keys(groups)) {
			compare(t, b, groups[key])
		}
	})
}

// compare runs cases that differ only in their rows as one program.
func compare(t *testing.T, b *backend.Backend, cases []testutil.Case) {
	first := cases[0]
	var in []testutil.Tensor
	for _, name := range inputNames {
		if _, ok := first.Inputs[name]; !ok {
			continue
		}
		var all testutil.Tensor
		rows := 0
		for _, c := range cases {
			all.Data = append(all.Data, c.Inputs[name].Data...)
			rows += c.Inputs[name].Shape[0]
		}
		all.Shape = append([]int{rows}, first.Inputs[name].Shape[1:]...)
		in = append(in, all)
	}
	path := pathOf(t, first)
	variants := []struct {
		name  string
		path  interpolants.Interpolant
		dtype dtypes.DType
		edge  float64 // of the times that it is for
	}{
		{"", interpolants.TorchEBM(path), dtypes.Float64, 0},
		{" by our own divisions", path, dtypes.Float64, 1e-4},
		{" in float32", interpolants.TorchEBM(path), dtypes.Float32, 1e-2},
	}
	names := slices.Sorted(maps.Keys(first.Expect))
	out := testutil.Eval(t, b, dtypes.Float64, in, func(in []*Node) (out []*Node) {
		for _, v := range variants {
			arg := map[string]*Node{}
			rest := in
			for _, name := range inputNames {
				if _, ok := first.Inputs[name]; ok {
					arg[name], rest = ConvertDType(rest[0], v.dtype), rest[1:]
				}
			}
			for _, name := range names {
				out = append(out, value(first, name, v.path, arg))
			}
		}
		return out
	})
	row := 0
	for _, c := range cases {
		times := c.Inputs["t"].Data
		t.Run(c.Name, func(t *testing.T) {
			for i, v := range variants {
				if slices.ContainsFunc(times, func(t float64) bool { return t < v.edge || t > 1-v.edge }) {
					continue
				}
				for j, name := range names {
					if name == "diffusion.SBDM" && v.path == path {
						continue // D = w, which is TorchEBM's without its division by σ
					}
					want, tolerance := c.Expect[name], c.For64(name)
					if v.dtype == dtypes.Float32 {
						tolerance = c.For32(name)
					}
					width := len(want.Data) / len(times)
					testutil.Compare(t, name+v.name, out[i*len(names)+j][row*width:(row+len(times))*width], want, tolerance)
				}
			}
		})
		row += len(times)
	}
}

var inputNames = []string{"t", "x0", "x1", "x", "velocity", "score"}

func pathOf(t *testing.T, c testutil.Case) interpolants.Interpolant {
	kind, ok := map[string]string{"LinearInterpolant": "linear", "CosineInterpolant": "cosine", "VariancePreservingInterpolant": "vp"}[c.Component]
	if !ok {
		t.Fatalf("%s: component %s: this test does not know it", c.Name, c.Component)
	}
	config := interpolants.Config{Kind: kind}
	for key, field := range map[string]**float64{"sigma_min": &config.SigmaMin, "sigma_max": &config.SigmaMax} {
		if v, ok := c.Params[key].(float64); ok {
			*field = &v
		}
	}
	path, err := config.Build()
	if err != nil {
		t.Fatalf("%s: %v", c.Name, err)
	}
	return path
}

// value builds an expectation of a case from its inputs.
func value(c testutil.Case, name string, path interpolants.Interpolant, arg map[string]*Node) *Node {
	t := arg["t"]
	if form, ok := strings.CutPrefix(name, "diffusion."); ok {
		form = strings.ReplaceAll(strings.ToLower(form), "-", "_")
		return interpolants.Diffusion{Form: form, Norm: c.Num("diffusion_norm", 1)}.At(path, t)
	}
	switch name {
	case "alpha":
		return path.Alpha(t)
	case "d_alpha":
		return path.DAlpha(t)
	case "sigma":
		return path.Sigma(t)
	case "d_sigma":
		return path.DSigma(t)
	case "d_alpha_over_alpha":
		return path.Ratio(t)
	case "drift_var":
		return path.DriftVariance(t)
	case "drift_mean": // v = −m + w s, so m is less the velocity without a score
		return Neg(interpolants.ScoreToVelocity(path, arg["x"], ZerosLike(arg["x"]), t))
	case "xt", "ut":
		xt, ut := interpolants.At(path, arg["x0"], arg["x1"], t)
		return map[string]*Node{"xt": xt, "ut": ut}[name]
	case "velocity_to_score":
		return interpolants.VelocityToScore(path, arg["x"], arg["velocity"], t)
	case "velocity_to_noise":
		return interpolants.VelocityToNoise(path, arg["x"], arg["velocity"], t)
	case "score_to_velocity":
		return interpolants.ScoreToVelocity(path, arg["x"], arg["score"], t)
	}
	panic(fmt.Errorf("%s: expectation %s: this test does not know it", c.Name, name))
}
