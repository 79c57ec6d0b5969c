package models_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

const (
	f32 = dtypes.Float32
	f64 = dtypes.Float64
)

// tensor is a recorded array of the given shape.
func tensor(data []float64, shape ...int) testutil.Tensor {
	return testutil.Tensor{Shape: shape, Data: data}
}

// eval runs a graph once in a precision and reads every output as float64.
func eval(t testing.TB, b *backend.Backend, dtype dtypes.DType, in []testutil.Tensor, build func(in []*Node) []*Node) [][]float64 {
	t.Helper()
	out, err := tryEval(b, dtype, in, build)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// evalBoth runs a graph in float64 and in float32, in one program, since compiling is what tests spend their time on.
func evalBoth(t testing.TB, b *backend.Backend, in []testutil.Tensor, build func(in []*Node) []*Node) (double, single [][]float64) {
	t.Helper()
	out := eval(t, b, f64, in, func(in []*Node) []*Node {
		small := make([]*Node, len(in))
		for i, n := range in {
			small[i] = ConvertDType(n, f32)
		}
		return append(build(in), build(small)...)
	})
	return out[:len(out)/2], out[len(out)/2:]
}

func tryEval(b *backend.Backend, dtype dtypes.DType, in []testutil.Tensor, build func(in []*Node) []*Node) ([][]float64, error) {
	p, err := compile(b, dtype, in, build)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	return run(p, dtype, in)
}

func compile(b *backend.Backend, dtype dtypes.DType, in []testutil.Tensor, build func(in []*Node) []*Node) (*backend.Program, error) {
	inputs := make([]backend.Input, len(in))
	for i, t := range in {
		inputs[i] = backend.Input{Name: fmt.Sprintf("in%d", i), Shape: shapes.Make(dtype, t.Shape...)}
	}
	return backend.Compile(b, "test", inputs, build)
}

func run(p *backend.Program, dtype dtypes.DType, in []testutil.Tensor) ([][]float64, error) {
	args := make([]*tensors.Tensor, len(in))
	for i, t := range in {
		if dtype == f64 {
			args[i] = tensors.FromFlatDataAndDimensions(slices.Clone(t.Data), t.Shape...)
			continue
		}
		data := make([]float32, len(t.Data))
		for j, v := range t.Data {
			data[j] = float32(v)
		}
		args[i] = tensors.FromFlatDataAndDimensions(data, t.Shape...)
	}
	res, err := p.Run(args...)
	if err != nil {
		return nil, err
	}
	out := make([][]float64, len(res))
	for i, r := range res {
		if r.DType() == f64 {
			out[i], err = backend.Read[float64](r)
		} else {
			var small []float32
			small, err = backend.Read[float32](r)
			for _, v := range small {
				out[i] = append(out[i], float64(v))
			}
		}
		if err != nil {
			return nil, err
		}
	}
	backend.Release(res...)
	backend.Release(args...)
	return out, nil
}

// weightsOf draws the first parameters of a network as tensors.
func weightsOf(e models.Network, seed uint64) []testutil.Tensor {
	flat := models.InitParams(e, seed)
	var out []testutil.Tensor
	for _, p := range e.Params() {
		out = append(out, tensor(flat[:p.Size()], p.Shape...))
		flat = flat[p.Size():]
	}
	return out
}

// energies evaluates E at points [n][dim] in float64 on the pure-Go backend.
func energies(t testing.TB, e models.Energy, points [][]float64) []float64 {
	t.Helper()
	var flat []float64
	for _, p := range points {
		flat = append(flat, p...)
	}
	in := append([]testutil.Tensor{tensor(flat, len(points), e.Dim())}, weightsOf(e, 1)...)
	return eval(t, testutil.Backend(t, "go"), f64, in, func(in []*Node) []*Node {
		return []*Node{e.Energy(in[0], in[1:])}
	})[0]
}

func must(t testing.TB) func(e models.Energy, err error) models.Energy {
	return func(e models.Energy, err error) models.Energy {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
}

// zoo is every kind of energy with settings that are not the defaults, in several dimensions.
func zoo(t testing.TB) map[string]models.Energy {
	t.Helper()
	out := map[string]models.Energy{}
	add := func(name, kind string, dim int, params map[string]any) {
		t.Helper()
		e, err := models.New(kind, dim, params)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out[name] = e
	}
	add("gaussian", "gaussian", 3, map[string]any{"mean": []float64{1, -2, 0.5}, "cov": [][]float64{{2, 0.3, 0}, {0.3, 1, -0.4}, {0, -0.4, 0.7}}})
	add("double_well", "double_well", 3, map[string]any{"h": 1.5, "b": 1.2})
	add("double_well_tilted", "double_well_tilted", 2, map[string]any{"a": 3, "c": 0.7})
	add("harmonic", "harmonic", 2, map[string]any{"k": 2.5})
	add("rosenbrock", "rosenbrock", 4, map[string]any{"a": 1.5, "b": 3})
	add("rosenbrock in the plane", "rosenbrock", 2, map[string]any{"a": 0.5, "b": 2})
	add("ackley", "ackley", 3, map[string]any{"a": 5, "b": 0.4, "c": 2})
	add("rastrigin", "rastrigin", 3, map[string]any{"a": 2})
	add("himmelblau", "himmelblau", 0, nil)
	add("booth", "booth", 0, nil)
	add("styblinski_tang", "styblinski_tang", 2, nil)
	add("gaussian_mixture", "gaussian_mixture", 0, map[string]any{
		"weights": []float64{1, 3, 2}, "means": [][]float64{{-1, 0}, {1.5, 1}, {0, -2}}, "stds": []float64{0.6, 1.1, 0.8}})
	for _, act := range models.Activations() {
		hidden := []int{5}
		if act == "silu" {
			hidden = []int{7, 5}
		}
		add("mlp "+act, "mlp", 2, map[string]any{"hidden": hidden, "activation": act})
	}
	add("mlp spectral", "mlp", 3, map[string]any{"hidden": []int{6, 4}, "spectral_norm": true})
	add("conv", "conv", 16, map[string]any{"channels": []int{2, 3}})
	add("conv spectral", "conv", 0, map[string]any{"image": []int{2, 2, 3}, "channels": []int{2}, "spectral_norm": true})
	add("mixture", "mixture", 0, map[string]any{"means": [][]float64{{-1, 0}, {1.5, 1}, {0, -2}}, "logits": []float64{0.5, -1}, "std": 0.8})
	add("mixture of one", "mixture", 0, map[string]any{"means": [][]float64{{-1, 0.5}}})
	out["mlp with base"] = models.WithBase(out["mlp silu"], models.Gaussian{Mean: []float64{0.5, -1}, Std: []float64{2, 0.7}})
	return out
}

// somewhere is a batch of points spread around the origin, none of which sits on a kink.
func somewhere(n, dim int) testutil.Tensor {
	values := rng.New(11, rng.Sample, uint64(dim), 0).Normals(n * dim)
	return tensor(values, n, dim)
}

func finite(v []float64) bool {
	for _, x := range v {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return false
		}
	}
	return true
}
