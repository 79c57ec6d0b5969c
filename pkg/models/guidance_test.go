package models_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// A conditional energy ½(x − y)² with the null label 2, at which it is ½x²: guided by w = 3 towards label 1 it is
// 3·½(x − 1)² − 2·½x² = ½x² − 3x + 3/2, with the score 3 − x. The law is a Gaussian about 3, beyond the label's own.
func ExampleGuidedEnergy() {
	guided := models.GuidedEnergy(func(x, y *Node) *Node {
		centre := Where(Equal(y, Const(y.Graph(), int32(2))), ScalarZero(x.Graph(), x.DType()), ConvertDType(y, x.DType()))
		return MulScalar(ReduceSum(Square(Sub(x, Reshape(centre, -1, 1))), -1), 0.5)
	}, models.Guidance{Scale: 3, Null: 2})
	b, err := backend.Open(context.Background(), backend.Config{Kind: backend.Go, Threads: 1}, backend.Options{})
	if err != nil {
		panic(err)
	}
	inputs := []backend.Input{{Name: "x", Shape: shapes.Make(dtypes.Float32, 2, 1)}, {Name: "labels", Shape: shapes.Make(dtypes.Int32, 2)}}
	program, err := backend.Compile(b, "guided", inputs, func(in []*Node) []*Node {
		return []*Node{models.Score(func(x *Node) *Node { return guided(x, in[1]) }, in[0])}
	})
	if err != nil {
		panic(err)
	}
	defer program.Close()
	out, err := program.Run(tensors.FromValue([][]float32{{0}, {4}}), tensors.FromValue([]int32{1, 1}))
	if err != nil {
		panic(err)
	}
	fmt.Println("score", out[0].Value())
	// Output: score [[3] [-1]]
}

// f(x, t, y) = (y + 1)·x + t, so that with the null label 3 the guided field is known by hand.
func TestGuidance(t *testing.T) {
	const null = 3
	x, times := [][]float64{{1, -2, 4}, {0.5, 3, -1}}, []float64{0.25, 1}
	labels := []int32{0, 2}
	want := func(scale func(coordinate int) float64) testutil.Tensor {
		var out []float64
		for i, row := range x {
			for k, v := range row {
				cond, uncond := float64(labels[i]+1)*v+times[i], (null+1)*v+times[i]
				out = append(out, uncond+scale(k)*(cond-uncond))
			}
		}
		return tensor(out, 2, 3)
	}
	every := func(w float64) testutil.Tensor { return want(func(int) float64 { return w }) }
	first := func(w float64) testutil.Tensor {
		return want(func(k int) float64 {
			if k == 0 {
				return w
			}
			return 0
		})
	}
	rules := map[string]func(models.FieldFn, models.Guidance) models.FieldFn{
		"guidance": models.ClassifierFreeGuidance, "label guidance": models.LabelClassifierFreeGuidance}
	type row struct {
		name, rule string
		g          models.Guidance
		unlabelled bool
		want       testutil.Tensor
		batches    int // that the field is called with
	}
	rows := []row{
		{"none", "guidance", models.Guidance{Scale: 0, Null: null}, false, every(0), 1},
		{"the label", "guidance", models.Guidance{Scale: 1, Null: null}, false, every(1), 2},
		{"more than the label", "guidance", models.Guidance{Scale: 1.5, Null: null}, false, every(1.5), 2},
		{"away from the label", "guidance", models.Guidance{Scale: -0.5, Null: null}, false, every(-0.5), 2},
		{"some coordinates", "guidance", models.Guidance{Scale: 1.5, Null: null, Coordinates: 1}, false, first(1.5), 2},
		{"no label to follow", "guidance", models.Guidance{Scale: 1.5, Null: null}, true, every(0), 1},
		{"the old rule below 1", "label guidance", models.Guidance{Scale: 0.5, Null: null}, false, every(1), 1},
		{"the old rule at 1", "label guidance", models.Guidance{Scale: 1, Null: null, Coordinates: 1}, false, every(1), 1},
		{"the old rule above 1", "label guidance", models.Guidance{Scale: 1.5, Null: null, Coordinates: 1}, false, first(1.5), 2},
	}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		in := []testutil.Tensor{tensor([]float64{1, -2, 4, 0.5, 3, -1}, 2, 3), tensor(times, 2)}
		var batches []int
		out := eval(t, b, f64, in, func(in []*Node) []*Node {
			y := Const(in[0].Graph(), labels)
			var out []*Node
			for _, r := range rows {
				calls := 0
				f := func(x, t, y *Node) *Node {
					n := x.Shape().Dimensions[0]
					if calls += n / 2; y == nil {
						y = AddScalar(ZerosLike(Const(x.Graph(), make([]int32, n))), null)
					}
					return Add(Mul(x, Reshape(AddScalar(ConvertDType(y, x.DType()), 1), n, 1)), Reshape(t, n, 1))
				}
				label := y
				if r.unlabelled {
					label = nil
				}
				out = append(out, rules[r.rule](f, r.g)(in[0], in[1], label))
				batches = append(batches, calls)
			}
			return out
		})
		for i, r := range rows {
			testutil.Compare(t, r.name, out[i], r.want, testutil.Tolerance{RTol: 1e-14, ATol: 1e-14})
			if batches[i] != r.batches {
				t.Errorf("%s: the field works on %d batches, want %d", r.name, batches[i], r.batches)
			}
		}
	})
}

func TestGuidedDerivatives(t *testing.T) {
	// E(x, y) = (y + 1)|x|⁴/4 has the Hessian-vector product (y + 1)(|x|²v + 2x(x·v)); guidance mixes these too.
	x, v := tensor([]float64{1, -2, 0.5, 3}, 2, 2), []float64{0.3, -1}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		out := eval(t, b, f64, []testutil.Tensor{x}, func(in []*Node) []*Node {
			energy := models.GuidedEnergy(func(x, y *Node) *Node {
				return Mul(MulScalar(Square(ReduceSum(Square(x), -1)), 0.25), AddScalar(ConvertDType(y, x.DType()), 1))
			}, models.Guidance{Scale: 2, Null: 2, Coordinates: 1})
			y := Const(in[0].Graph(), []int32{0, 1})
			_, grad := models.EnergyAndGrad(func(x *Node) *Node { return energy(x, y) }, in[0])
			return Gradient(ReduceAllSum(Mul(grad, ConstAs(grad, [][]float64{v}))), in[0])
		})
		var want []float64
		for i, factor := range []float64{3 + 2*(1-3), 3 + 2*(2-3)} {
			row := x.Slice(i).Data
			square, along := row[0]*row[0]+row[1]*row[1], row[0]*v[0]+row[1]*v[1]
			for k := range row {
				want = append(want, factor*(square*v[k]+2*row[k]*along))
			}
		}
		testutil.Compare(t, "Hessian·v", out[0], tensor(want, 2, 2), testutil.Tolerance{RTol: 1e-12})
	})
}

// A dropped label is the null label, for any field.
func TestDropLabels(t *testing.T) {
	f := field(t, 4, 3, models.Config{Kind: "transformer", EmbedDim: new(4), Depth: new(1), NumHeads: new(1), TimeFrequencies: new(4)})
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		in := append([]testutil.Tensor{somewhere(4, 4), tensor([]float64{0, 1, 1, 0}, 4)}, weightsOf(warm{f}, 1)...)
		out := eval(t, b, f64, in, func(in []*Node) []*Node {
			x, drop, labels := in[0], in[1], Const(in[0].Graph(), []int32{0, 1, 2, 2})
			dropped := models.DropLabels(labels, drop, f.Classes())
			return []*Node{ConvertDType(dropped, f64), f.Field(x, nil, dropped, in[2:]), f.Field(x, nil, nil, in[2:]), f.Field(x, nil, labels, in[2:])}
		})
		testutil.Compare(t, "labels", out[0], tensor([]float64{0, 3, 3, 2}, 4), testutil.Tolerance{})
		for row := range 4 {
			same := out[3]
			if row == 1 || row == 2 {
				same = out[2]
			}
			testutil.Compare(t, "field", out[1][4*row:4*row+4], tensor(same[4*row:4*row+4], 4), testutil.Tolerance{ATol: 1e-13})
		}
	})
}
