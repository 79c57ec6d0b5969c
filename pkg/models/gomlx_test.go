package models_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/ml/context"
	"github.com/gomlx/gomlx/pkg/ml/context/initializers"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// dense is a linear layer with the variables, scopes and initialisation of GoMLX's layers.DenseWithBias.
func dense(ctx *context.Context, x *Node, out int) *Node {
	ctx, g := ctx.In("dense"), x.Graph()
	w := ctx.VariableWithShape("weights", shapes.Make(x.DType(), x.Shape().Dimensions[1], out))
	b := ctx.VariableWithShape("biases", shapes.Make(x.DType(), out))
	return Add(Dot(x, w.ValueGraph(g)), Reshape(b.ValueGraph(g), 1, out))
}

// perceptron is models.NewMLP with hidden layers of 7 and 5 and silu, as GoMLX's layers have it.
func perceptron(ctx *context.Context, x *Node) *Node {
	h := dense(ctx.In("first"), x, 7)
	h = dense(ctx.In("second"), Mul(h, Sigmoid(h)), 5)
	return dense(ctx.In("third"), Mul(h, Sigmoid(h)), 1)
}

func ExampleFromGoMLX() {
	energy, err := models.FromGoMLX(2, func(ctx *context.Context, x *Node) *Node {
		scale := ctx.In("layer").VariableWithShape("scale", shapes.Make(x.DType(), 1, 2)).ValueGraph(x.Graph())
		return ReduceSum(Square(Mul(x, scale)), -1)
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(energy.Dim(), energy.Params()[0].Name, energy.Params()[0].Shape)
	// Output: 2 layer/scale [1 2]
}

// transposed are the same weights as GoMLX's layers have them, [in, out].
func transposed(weights []testutil.Tensor) []testutil.Tensor {
	var out []testutil.Tensor
	for _, w := range weights {
		if len(w.Shape) == 2 {
			rows, cols := w.Shape[0], w.Shape[1]
			t := tensor(make([]float64, rows*cols), cols, rows)
			for i := range rows {
				for j := range cols {
					t.Data[j*rows+i] = w.Data[i*cols+j]
				}
			}
			w = t
		}
		out = append(out, w)
	}
	return out
}

// An MLP written for GoMLX has the energy, the gradients in x and in the weights, and the gradients of a loss on ∂E/∂x of
// models.MLP at the same weights, also when one graph calls it several times.
func TestGoMLXIsTheMLP(t *testing.T) {
	mlp := must(t)(models.New("mlp", 2, map[string]any{"hidden": []int{7, 5}}))
	e, err := models.FromGoMLX(2, perceptron)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range e.Params() {
		names = append(names, p.Name)
	}
	if want := []string{"first/dense/weights", "first/dense/biases", "second/dense/weights", "second/dense/biases", "third/dense/weights", "third/dense/biases"}; !slices.Equal(names, want) {
		t.Errorf("parameters %v, want %v", names, want)
	}
	x, weights := somewhere(4, 2), weightsOf(mlp, 5)
	build := func(e models.Energy) func(in []*Node) []*Node {
		return func(in []*Node) []*Node {
			energy, grad := models.EnergyAndGrad(models.At(e, in[1:]), in[0])
			moved := Sub(in[0], MulScalar(grad, 0.1)) // a chain step, which calls the model again
			again := e.Energy(moved, in[1:])
			out := []*Node{energy, grad, again}
			out = append(out, Gradient(ReduceAllMean(energy), in[1:]...)...)
			return append(out, Gradient(ReduceAllMean(Square(grad)), in[1:]...)...)
		}
	}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		want := eval(t, b, f64, append([]testutil.Tensor{x}, weights...), build(mlp))
		double, single := evalBoth(t, b, append([]testutil.Tensor{x}, transposed(weights)...), build(e))
		for i, w := range want {
			expect := tensor(w, len(w))
			if i >= 3 && len(weights[(i-3)%6].Shape) == 2 {
				expect = transposed([]testutil.Tensor{tensor(w, weights[(i-3)%6].Shape...)})[0]
			}
			testutil.Compare(t, "output", double[i], expect, testutil.Tolerance{RTol: 1e-11, ATol: 1e-12})
			testutil.Compare(t, "output in float32", single[i], expect, testutil.Tolerance{RTol: 1e-4, ATol: 1e-5})
		}
	})
}

// First values are what the variables' initializers say, by the seed alone.
func TestGoMLXInitializers(t *testing.T) {
	e, err := models.FromGoMLX(40, func(ctx *context.Context, x *Node) *Node {
		g := x.Graph()
		he := ctx.VariableWithShape("he", shapes.Make(x.DType(), 40, 300)).ValueGraph(g)
		gain := ctx.WithInitializer(initializers.One).VariableWithShape("gain", shapes.Make(x.DType(), 300)).ValueGraph(g)
		fixed := ctx.In("inner").VariableWithValue("fixed", []float32{1.5, -2}).ValueGraph(g)
		return Add(ReduceSum(Mul(Dot(x, he), Reshape(gain, 1, 300)), -1), ReduceAllSum(fixed))
	})
	if err != nil {
		t.Fatal(err)
	}
	w := weightsOf(e, 3)
	squares := 0.0
	for _, v := range w[0].Data {
		squares += v * v
	}
	// He et al. 2015: N(0, 2/in); 4 standard errors of 12,000 numbers.
	if std, want := math.Sqrt(squares/12000), math.Sqrt(2./40); math.Abs(std/want-1) > 4/math.Sqrt(24000) {
		t.Errorf("standard deviation %g, want %g", std, want)
	}
	if slices.ContainsFunc(w[1].Data, func(v float64) bool { return v != 1 }) || !slices.Equal(w[2].Data, []float64{1.5, -2}) || e.Params()[2].Name != "inner/fixed" {
		t.Errorf("gain %v, %s %v", w[1].Data[:3], e.Params()[2].Name, w[2].Data)
	}
	if !slices.Equal(weightsOf(e, 3)[0].Data, w[0].Data) || slices.Equal(weightsOf(e, 4)[0].Data, w[0].Data) {
		t.Error("the first values follow something else than the seed")
	}
}

func TestGoMLXRefusesState(t *testing.T) {
	for _, tc := range []struct {
		name  string
		model func(ctx *context.Context, x *Node) *Node
		want  string // "" where it is taken
	}{
		{"a dropout in training only", func(ctx *context.Context, x *Node) *Node {
			if ctx.IsTraining(x.Graph()) {
				x = Mul(x, ctx.RandomBernoulli(Scalar(x.Graph(), x.DType(), 0.5), x.Shape()))
			}
			return dense(ctx, x, 1)
		}, ""},
		{"noise", func(ctx *context.Context, x *Node) *Node {
			return dense(ctx, Add(x, ctx.RandomNormal(x.Graph(), x.Shape())), 1)
		}, "model: it draws random numbers"},
		{"statistics of the batch", func(ctx *context.Context, x *Node) *Node {
			mean := ctx.In("norm").VariableWithShape("mean", shapes.Make(x.DType(), 1, 3)).SetTrainable(false)
			return dense(ctx, Sub(x, mean.ValueGraph(x.Graph())), 1)
		}, "model: /norm/mean is not trained"},
		{"a variable of another type", func(ctx *context.Context, x *Node) *Node {
			scale := ctx.VariableWithValue("scale", []float64{2}).ValueGraph(x.Graph())
			return dense(ctx, Mul(x, Reshape(ConvertDType(scale, x.DType()), 1, 1)), 1)
		}, "model: /scale is Float64 for states in float32"},
		{"a term of the trainer's loss", func(ctx *context.Context, x *Node) *Node {
			e := dense(ctx, x, 1)
			ctx.InAbsPath("/trainer").SetGraphParam(x.Graph(), "trainer_loss", ReduceAllSum(e))
			return e
		}, "model: it sets /trainer/trainer_loss for its trainer"},
		{"two outputs", func(ctx *context.Context, x *Node) *Node { return dense(ctx, x, 2) }, "want [batch] or [batch, 1]"},
		{"a sum over the batch", func(ctx *context.Context, x *Node) *Node { return ReduceAllSum(dense(ctx, x, 1)) }, "want [batch] or [batch, 1]"},
		{"wrong shapes", func(ctx *context.Context, x *Node) *Node { return Dot(x, Zeros(x.Graph(), shapes.Make(x.DType(), 5))) }, "model: "},
		{"nothing", nil, "model: nil, want a function"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e, err := models.FromGoMLX(3, tc.model)
			switch {
			case tc.want == "" && (err != nil || len(e.Params()) != 2):
				t.Errorf("error %v, want two parameters", err)
			case tc.want != "" && (err == nil || e != nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "goroutine")):
				t.Errorf("error %v, want it to say %q", err, tc.want)
			}
		})
	}
}
