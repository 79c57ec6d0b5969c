package backend_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
)

// model is a scalar function of its inputs; the first input is x, with respect to which higher orders differentiate.
type model struct {
	name string
	dims [][]int
	f    func(in []*Node) *Node
}

func (m model) inputs(dtype dtypes.DType) []backend.Input {
	var inputs []backend.Input
	for i, d := range m.dims {
		inputs = append(inputs, backend.Input{Name: fmt.Sprint("in", i), Shape: shapes.Make(dtype, d...)})
	}
	return inputs
}

func activation(r *rand.Rand) (string, func(*Node) *Node) {
	switch r.IntN(5) {
	case 0:
		return "tanh", Tanh
	case 1:
		return "silu", func(x *Node) *Node { return Mul(x, Sigmoid(x)) }
	case 2:
		return "softplus", func(x *Node) *Node { return Log1P(Exp(x)) }
	case 3:
		return "gelu", func(x *Node) *Node { return Mul(MulScalar(x, 0.5), AddScalar(Erf(MulScalar(x, math.Sqrt2/2)), 1)) }
	default:
		return "square", func(x *Node) *Node { return AddScalar(MulScalar(Square(x), 0.3), 0.1) }
	}
}

func randomMLP(r *rand.Rand) model {
	widths := []int{1 + r.IntN(4)}
	for range 1 + r.IntN(3) {
		widths = append(widths, 1+r.IntN(9))
	}
	widths = append(widths, 1)
	batch, bias, form := 1+r.IntN(7), r.IntN(2) == 0, r.IntN(3)
	name, act := activation(r)
	m := model{name: fmt.Sprintf("mlp %v batch %d %s bias %v form %d", widths, batch, name, bias, form), dims: [][]int{{batch, widths[0]}}}
	for i, in := range widths[:len(widths)-1] {
		m.dims = append(m.dims, []int{in, widths[i+1]}, []int{widths[i+1]})
	}
	m.f = func(in []*Node) *Node {
		x := in[0]
		for i := 1; i < len(in); i += 2 {
			if i > 1 {
				x = act(x)
			}
			switch form {
			case 0:
				x = Dot(x, in[i])
			case 1:
				x = Einsum("bi,ij->bj", x, in[i])
			default:
				x = Transpose(Einsum("ij,bi->jb", in[i], x), 0, 1)
			}
			if bias {
				x = Add(x, InsertAxes(in[i+1], 0))
			}
		}
		return ReduceAllMean(x)
	}
	return m
}

// randomEinsum multiplies two tensors of random axes, squashes, and contracts again with a third.
func randomEinsum(r *rand.Rand) model {
	letters := strings.Split("abcde", "")
	size := map[string]int{}
	for _, l := range letters {
		size[l] = 1 + r.IntN(4)
	}
	var left, right, out []string
	for len(left) == 0 || len(right) == 0 || len(out) == 0 {
		left, right, out = nil, nil, nil
		for _, l := range letters {
			switch r.IntN(4) {
			case 0:
				left, right, out = append(left, l), append(right, l), append(out, l)
			case 1:
				left, right = append(left, l), append(right, l)
			case 2:
				left, out = append(left, l), append(out, l)
			case 3:
				right, out = append(right, l), append(out, l)
			}
		}
	}
	r.Shuffle(len(left), func(i, j int) { left[i], left[j] = left[j], left[i] })
	r.Shuffle(len(right), func(i, j int) { right[i], right[j] = right[j], right[i] })
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	dims := func(axes []string) []int {
		var d []int
		for _, a := range axes {
			d = append(d, size[a])
		}
		return d
	}
	equation := strings.Join(left, "") + "," + strings.Join(right, "") + "->" + strings.Join(out, "")
	second := strings.Join(out, "") + "," + strings.Join(left, "") + "->" + out[0]
	return model{fmt.Sprint("einsum ", equation, " ", second, " ", size), [][]int{dims(left), dims(right)}, func(in []*Node) *Node {
		y := Tanh(Einsum(equation, in[0], in[1]))
		return ReduceAllSum(Tanh(Einsum(second, y, in[0])))
	}}
}

func attention(r *rand.Rand) model {
	b, t, d, h := 1+r.IntN(3), 1+r.IntN(4), 1+r.IntN(4), 1+r.IntN(3)
	return model{fmt.Sprintf("attention b%d t%d d%d h%d", b, t, d, h), [][]int{{b, t, d}, {d, h, d}, {d, h, d}, {d, h, d}}, func(in []*Node) *Node {
		x := in[0]
		q, k, v := Einsum("btd,dhe->bhte", x, in[1]), Einsum("bsd,dhe->bhse", x, in[2]), Einsum("bsd,dhe->bhse", x, in[3])
		weights := Softmax(MulScalar(Einsum("bhte,bhse->bhts", q, k), 1/math.Sqrt(float64(d))), -1)
		y := Einsum("bhts,bhse->bthe", weights, v)
		return ReduceAllMean(Square(ReduceSum(y, 2)))
	}}
}

// written spells out broadcast products, sums and differences of them, scaled and negated, as gradients produce them.
func written(r *rand.Rand) model {
	i, j, k := 1+r.IntN(5), 1+r.IntN(5), 1+r.IntN(5)
	order := r.Perm(3)
	axis := r.IntN(3)
	return model{fmt.Sprintf("written %d %d %d order %v axis %d", i, j, k, order, axis), [][]int{{i, j}, {j, k}, {i, k}, {}}, func(in []*Node) *Node {
		x, w, u, c := in[0], in[1], in[2], in[3]
		full := shapes.Make(x.DType(), i, j, k)
		bx := BroadcastToShape(InsertAxes(x, 2), full)
		bw := BroadcastToShape(InsertAxes(w, 0), full)
		bu := BroadcastToShape(InsertAxes(u, 1), full)
		p := Add(Mul(Neg(bx), bw), Mul(c, Sub(Mul(bu, bw), Div(Mul(bx, bu), AddScalar(Square(c), 2)))))
		p = Sub(MulScalar(p, 0.7), Mul(Mul(bx, bw), bu))
		p = Add(p, Mul(Mul(bx, c), Mul(bx, bw)))
		p = TransposeAllAxes(p, order...)
		return ReduceAllSum(Sin(ReduceSum(p, axis)))
	}}
}

// gradients is, for each order, the derivatives of a function of the model's derivatives.
func gradients(m model, order int) func(in []*Node) []*Node {
	return func(in []*Node) []*Node {
		f := m.f(in)
		for range order - 1 {
			f = ReduceAllMean(Square(Gradient(f, in[0])[0]))
		}
		return append(Gradient(f, in...), f)
	}
}

func evaluate(t *testing.T, b *backend.Backend, dtype dtypes.DType, m model, values [][]float64, build func(in []*Node) []*Node) [][]float64 {
	t.Helper()
	var args []*tensors.Tensor
	for i, d := range m.dims {
		if dtype == dtypes.Float64 {
			args = append(args, tensors.FromFlatDataAndDimensions(values[i], d...))
		} else {
			single := make([]float32, len(values[i]))
			for j, v := range values[i] {
				single[j] = float32(v)
			}
			args = append(args, tensors.FromFlatDataAndDimensions(single, d...))
		}
	}
	p, err := backend.Compile(b, m.name, m.inputs(dtype), build)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	results, err := p.Run(args...)
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Release(append(results, args...)...)
	var out [][]float64
	for _, r := range results {
		var flat []float64
		if dtype == dtypes.Float64 {
			flat, err = backend.Read[float64](r)
		} else {
			var single []float32
			single, err = backend.Read[float32](r)
			for _, v := range single {
				flat = append(flat, float64(v))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, flat)
	}
	return out
}

// Contracted and plain compilations of the same function differ by rounding alone: in float64 by 1e-12 of the largest
// value, which shows that it is rounding, and in float32 by 1e-5, except where the plain one is itself further than that
// from the true value (a third derivative can lose all its digits). XLA takes half a second a graph, so it gets fewer, with
// the three orders and the types taken in turns.
func TestContractedGradientsEqualThePlainOnes(t *testing.T) {
	tolerance := map[dtypes.DType]float64{dtypes.Float32: 1e-5, dtypes.Float64: 1e-12}
	goBackend := testutil.Backend(t, backend.Go)
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		r := rand.New(rand.NewPCG(7, 11))
		kinds := []func(*rand.Rand) model{randomMLP, randomEinsum, attention, written}
		cases := 12
		if b.Kind() == backend.Go {
			cases = 600
		}
		contracted, _ := b.Contractions()
		for i := range cases {
			m := kinds[i%len(kinds)](r)
			order := 1 + i/len(kinds)%3
			dtype := []dtypes.DType{dtypes.Float32, dtypes.Float32, dtypes.Float64}[(i+i/12)%3]
			values := make([][]float64, len(m.dims))
			for j, d := range m.dims {
				values[j] = make([]float64, shapes.Make(dtypes.Float64, d...).Size())
				for k := range values[j] {
					values[j][k] = 0.7 * r.NormFloat64()
				}
			}
			got := evaluate(t, b, dtype, m, values, gradients(m, order))
			want := evaluate(t, backend.Plain(b), dtype, m, values, gradients(m, order))
			largest, rounding := 1e-3, 0.0
			truth := want
			if dtype == dtypes.Float32 {
				truth = evaluate(t, backend.Plain(goBackend), dtypes.Float64, m, values, gradients(m, order))
			}
			for j := range want {
				for k, v := range want[j] {
					largest, rounding = max(largest, math.Abs(v)), max(rounding, math.Abs(v-truth[j][k]))
				}
			}
			allowed := max(tolerance[dtype]*largest, 4*rounding)
			for j := range want {
				for k := range want[j] {
					if d := math.Abs(got[j][k] - want[j][k]); !(d <= allowed) {
						t.Errorf("%s, order %d, %s: output %d element %d: got %.9g, want %.9g (allowed %g, largest %g)", m.name, order, dtype, j, k, got[j][k], want[j][k], allowed, largest)
						break
					}
				}
			}
		}
		now, _ := b.Contractions()
		if now-contracted < 2*cases {
			t.Errorf("%d contractions recognised in %d graphs, want at least two a graph on average", now-contracted, cases)
		}
	})
}

// The weight gradient of a layer is one DotGeneral, in the operand order that needs no transposition afterwards.
func TestWeightGradientIsOneMatrixProduct(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	for _, tc := range []struct {
		name string
		f    func(x, w *Node) *Node
		want int // contractions: the gradients of x and of w
		sums int // other sums: the loss, and the gradient of each scalar factor, which nobody asks for
	}{
		{"Dot", func(x, w *Node) *Node { return Dot(x, w) }, 2, 1},
		{"Einsum", func(x, w *Node) *Node { return Einsum("bi,io->bo", x, w) }, 2, 1},
		{"Einsum with the weights transposed", func(x, w *Node) *Node { return Einsum("bi,io->ob", x, w) }, 2, 1},
		{"scaled", func(x, w *Node) *Node { return MulScalar(Dot(x, MulScalar(w, 0.5)), 3) }, 2, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before, plainBefore := b.Contractions()
			m := model{tc.name, [][]int{{5, 3}, {3, 4}}, func(in []*Node) *Node { return ReduceAllSum(Sin(tc.f(in[0], in[1]))) }}
			p, err := backend.Compile(b, tc.name, m.inputs(dtypes.Float32), gradients(m, 1))
			if err != nil {
				t.Fatal(err)
			}
			p.Close()
			contracted, plain := b.Contractions()
			if got := contracted - before; got != tc.want {
				t.Errorf("%d contractions, want %d", got, tc.want)
			}
			if got := plain - plainBefore; got != tc.sums {
				t.Errorf("%d other sums, want %d", got, tc.sums)
			}
		})
	}
}
