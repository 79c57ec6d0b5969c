package backend_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/backends"
	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
)

// padded is XLA's definition: element i of an axis goes to Start + i·(Interior+1), if that is inside the result.
func padded(x []float64, dims []int, fill float64, axes []backends.PadAxis) ([]float64, []int) {
	out := slices.Clone(dims)
	for a, p := range axes {
		out[a] = dims[a] + max(0, dims[a]-1)*p.Interior + p.Start + p.End
	}
	size := 1
	for _, d := range out {
		size *= d
	}
	result := slices.Repeat([]float64{fill}, size)
	for i, v := range x {
		at, rest, stride, inside := 0, i, 1, true
		for a := len(dims) - 1; a >= 0; a-- {
			j := rest % dims[a]
			rest /= dims[a]
			if a < len(axes) {
				j = axes[a].Start + j*(axes[a].Interior+1)
			}
			inside = inside && j >= 0 && j < out[a]
			at += j * stride
			stride *= out[a]
		}
		if inside {
			result[at] = v
		}
	}
	return result, out
}

func TestPadFollowsItsDefinition(t *testing.T) {
	cases := []struct {
		dims []int
		axes []backends.PadAxis
	}{
		{[]int{4}, []backends.PadAxis{{Start: 2, End: 1}}},
		{[]int{4}, []backends.PadAxis{{Start: -1, End: -2}}},
		{[]int{4}, []backends.PadAxis{{Interior: 2}}},
		{[]int{1}, []backends.PadAxis{{Interior: 2, End: 1}}},
		{[]int{4}, []backends.PadAxis{{Start: -2, End: 3, Interior: 1}}},
		{[]int{3}, []backends.PadAxis{{Start: -4, End: 3}}},
		{[]int{2, 3}, []backends.PadAxis{{Start: 1, Interior: 1}, {End: 2, Interior: 2}}},
		{[]int{2, 3, 2}, []backends.PadAxis{{}, {Start: 1, End: -1}}},
		{[]int{2, 3}, nil},
	}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for _, tc := range cases {
			t.Run(fmt.Sprint(tc.dims, tc.axes), func(t *testing.T) {
				m := model{"pad", [][]int{tc.dims, {}}, nil}
				var x []float64
				for i := range m.inputs(dtypes.Float32)[0].Shape.Size() {
					x = append(x, float64(i+1))
				}
				var shape []int
				got := evaluate(t, b, dtypes.Float32, m, [][]float64{x, {-7}}, func(in []*Node) []*Node {
					y := Pad(in[0], in[1], tc.axes...)
					shape = y.Shape().Dimensions
					return []*Node{y}
				})
				want, dims := padded(x, tc.dims, -7, tc.axes)
				if !slices.Equal(got[0], want) || !slices.Equal(shape, dims) {
					t.Errorf("got %v %v, want %v %v", shape, got[0], dims, want)
				}
			})
		}
	})
}

func TestReverseFollowsItsDefinition(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		m := model{"reverse", [][]int{{2, 3, 1}}, nil}
		x := []float64{1, 2, 3, 4, 5, 6}
		got := evaluate(t, b, dtypes.Float32, m, [][]float64{x}, func(in []*Node) []*Node {
			return []*Node{Reverse(in[0], 0), Reverse(in[0], 1), Reverse(in[0], 1, 0, 2), Reverse(in[0])}
		})
		want := [][]float64{{4, 5, 6, 1, 2, 3}, {3, 2, 1, 6, 5, 4}, {6, 5, 4, 3, 2, 1}, x}
		for i := range want {
			if !slices.Equal(got[i], want[i]) {
				t.Errorf("output %d: got %v, want %v", i, got[i], want[i])
			}
		}
	})
}

// Gradients of slices need Pad, those of convolutions Reverse. They are checked against central differences.
func TestGradientsOfSlicesAndConvolutions(t *testing.T) {
	cases := []model{
		{"slice", [][]int{{4, 5}}, func(in []*Node) *Node {
			return ReduceAllSum(Tanh(Slice(in[0], AxisRange(1, 3), AxisRange(0, 5).Stride(2))))
		}},
		{"convolution", [][]int{{2, 5, 2}, {3, 2, 3}}, func(in []*Node) *Node {
			return ReduceAllSum(Tanh(Convolve(in[0], in[1]).Strides(1).PadSame().Done()))
		}},
		{"strided convolution", [][]int{{1, 7, 1}, {3, 1, 2}}, func(in []*Node) *Node {
			return ReduceAllSum(Tanh(Convolve(in[0], in[1]).Strides(2).Done()))
		}},
	}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for _, m := range cases {
			t.Run(m.name, func(t *testing.T) {
				r := rand.New(rand.NewPCG(3, 4))
				values := make([][]float64, len(m.dims))
				for i, in := range m.inputs(dtypes.Float64) {
					for range in.Shape.Size() {
						values[i] = append(values[i], r.NormFloat64())
					}
				}
				got := evaluate(t, b, dtypes.Float64, m, values, gradients(m, 1))
				// The differences are taken in pure Go, where compiling costs nothing.
				goBackend := testutil.Backend(t, backend.Go)
				const eps = 1e-5
				for i := range values {
					for _, k := range []int{0, len(values[i]) / 2, len(values[i]) - 1} {
						at := func(shift float64) float64 {
							moved := slices.Clone(values)
							moved[i] = slices.Clone(values[i])
							moved[i][k] += shift
							return evaluate(t, goBackend, dtypes.Float64, m, moved, func(in []*Node) []*Node { return []*Node{m.f(in)} })[0][0]
						}
						want := (at(eps) - at(-eps)) / (2 * eps)
						if d := got[i][k] - want; d > 1e-7 || d < -1e-7 {
							t.Errorf("d/d in%d[%d]: got %.10g, want %.10g", i, k, got[i][k], want)
						}
					}
				}
			})
		}
	})
}

func TestPadAndReverseRefuseWhatCannotBe(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	for _, tc := range []struct {
		name  string
		build func(x *Node) *Node
		want  string
	}{
		{"negative interior", func(x *Node) *Node { return Pad(x, Const(x.Graph(), float32(0)), backends.PadAxis{Interior: -1}) }, "interior padding -1 of axis 0, want 0 or more"},
		{"too much cropped", func(x *Node) *Node { return Pad(x, Const(x.Graph(), float32(0)), backends.PadAxis{Start: -3, End: -3}) }, "leave -2 of 4 elements on axis 0"},
		{"fill of another type", func(x *Node) *Node { return Pad(x, Const(x.Graph(), int32(0)), backends.PadAxis{}) }, "want a scalar of type Float32"},
		{"too many axes", func(x *Node) *Node {
			return Pad(x, Const(x.Graph(), float32(0)), backends.PadAxis{}, backends.PadAxis{})
		}, "2 axes to pad"},
		{"axis twice", func(x *Node) *Node { return Reverse(x, 0, 0) }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := model{tc.name, [][]int{{4}}, nil}
			p, err := backend.Compile(b, tc.name, m.inputs(dtypes.Float32), func(in []*Node) []*Node { return []*Node{tc.build(in[0])} })
			if err == nil {
				p.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %q, want one line with %q", err, tc.want)
			}
		})
	}
}
