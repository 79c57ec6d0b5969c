package testutil

import (
	"fmt"
	"slices"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	"github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
)

// Graph is a graph compiled for recorded arrays: its inputs are of one precision, and arrays are rounded to it.
type Graph struct {
	program *backend.Program
	dtype   dtypes.DType
}

// Compile compiles a graph for inputs of a precision, float64 or float32, and of given shapes. It is freed at the end
// of the test t.
func Compile(t testing.TB, b *backend.Backend, dtype dtypes.DType, dims [][]int, build func(in []*graph.Node) []*graph.Node) *Graph {
	t.Helper()
	inputs := make([]backend.Input, len(dims))
	for i, d := range dims {
		inputs[i] = backend.Input{Name: fmt.Sprintf("in%d", i), Shape: shapes.Make(dtype, d...)}
	}
	p, err := backend.Compile(b, "test", inputs, build)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return &Graph{p, dtype}
}

// Run executes the graph and reads every output, of either precision, as float64.
func (g *Graph) Run(t testing.TB, in ...Tensor) [][]float64 {
	t.Helper()
	args := make([]*tensors.Tensor, len(in))
	for i, a := range in {
		if g.dtype == dtypes.Float64 {
			args[i] = tensors.FromFlatDataAndDimensions(slices.Clone(a.Data), a.Shape...)
			continue
		}
		data := make([]float32, len(a.Data))
		for j, v := range a.Data {
			data[j] = float32(v)
		}
		args[i] = tensors.FromFlatDataAndDimensions(data, a.Shape...)
	}
	defer backend.Release(args...)
	res, err := g.program.Run(args...)
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Release(res...)
	out := make([][]float64, len(res))
	for i, r := range res {
		if r.DType() == dtypes.Float64 {
			out[i], err = backend.Read[float64](r)
		} else {
			var small []float32
			small, err = backend.Read[float32](r)
			for _, v := range small {
				out[i] = append(out[i], float64(v))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// Eval compiles a graph for the shapes of the inputs and runs it once.
func Eval(t testing.TB, b *backend.Backend, dtype dtypes.DType, in []Tensor, build func(in []*graph.Node) []*graph.Node) [][]float64 {
	t.Helper()
	return Compile(t, b, dtype, ShapesOf(in), build).Run(t, in...)
}

// EvalBoth runs a graph in float64 and in float32, as one program, since compiling is what tests spend their time on.
func EvalBoth(t testing.TB, b *backend.Backend, in []Tensor, build func(in []*graph.Node) []*graph.Node) (double, single [][]float64) {
	t.Helper()
	out := Eval(t, b, dtypes.Float64, in, func(in []*graph.Node) []*graph.Node {
		small := make([]*graph.Node, len(in))
		for i, n := range in {
			small[i] = graph.ConvertDType(n, dtypes.Float32)
		}
		return append(build(in), build(small)...)
	})
	return out[:len(out)/2], out[len(out)/2:]
}

// ShapesOf lists the shapes of arrays.
func ShapesOf(arrays []Tensor) [][]int {
	out := make([][]int, len(arrays))
	for i, a := range arrays {
		out[i] = a.Shape
	}
	return out
}

// Array is an array of the given shape.
func Array(data []float64, dims ...int) Tensor { return Tensor{Shape: dims, Data: data} }

// Filled is an array of one value.
func Filled(v float64, dims ...int) Tensor {
	n := 1
	for _, d := range dims {
		n *= d
	}
	return Array(slices.Repeat([]float64{v}, n), dims...)
}
