package losses_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// With the energy w·x² of one parameter the loss is w·(mean x⁺² − mean x⁻²).
func ExampleContrastive() {
	b, err := backend.Open(context.Background(), backend.Config{Kind: backend.Go, Threads: 1}, backend.Options{})
	if err != nil {
		panic(err)
	}
	inputs := []backend.Input{
		{Name: "weight", Shape: shapes.Make(dtypes.Float32)},
		{Name: "positives", Shape: shapes.Make(dtypes.Float32, 2, 1)},
		{Name: "negatives", Shape: shapes.Make(dtypes.Float32, 3, 1)},
	}
	program, err := backend.Compile(b, "loss", inputs, func(in []*Node) []*Node {
		weight := in[0]
		energy := func(x *Node) *Node { return Mul(weight, ReduceSum(Square(x), -1)) }
		terms := losses.Contrastive{Energy: energy}.Build(in[1], in[2])
		return []*Node{terms.Loss, Gradient(terms.Loss, weight)[0]}
	})
	if err != nil {
		panic(err)
	}
	defer program.Close()
	out, err := program.Run(tensors.FromValue(float32(0.5)), tensors.FromValue([][]float32{{1}, {-1}}), tensors.FromValue([][]float32{{2}, {-1}, {2}}))
	if err != nil {
		panic(err)
	}
	fmt.Println("loss", out[0].Value(), "gradient", out[1].Value())
	// Output: loss -1 gradient -2
}

// f = w·x with w = 2, x⁺ = 1, 3 and x⁻ = 0, 1, 2, so mean f⁺ = 4 and mean f⁻ = 2, the means of squares 20 and 20/3.
// Base log density −x²/2: the energies gain mean x²/2, which is 5/2 and 5/6. With the weights ½, ¼, ¼ on the negatives
// their means are f⁻ = 3/2, f⁻² = 5, x²/2 = 5/8.
func TestContrastiveByHand(t *testing.T) {
	const w, penalty = 2.0, 0.1
	in := []testutil.Tensor{testutil.Filled(w), testutil.Array([]float64{1, 3}, 2, 1), testutil.Array([]float64{0, 1, 2}, 3, 1)}
	base := func(x *Node) *Node { return MulScalar(ReduceSum(Square(x), -1), -0.5) }
	for _, tc := range []struct {
		name    string
		penalty float64
		weights []float64
		base    func(w *Node) losses.EnergyFn
		want    []float64 // loss, positives, negatives, penalty, ∂loss/∂w
	}{
		{"plain", 0, nil, nil, []float64{2, 4, 2, 0, 1}},
		{"penalty", penalty, nil, nil, []float64{2 + penalty*80/3, 4, 2, penalty * 80 / 3, 1 + penalty*2*w*(5+5./3)}},
		{"base", 0, nil, func(*Node) losses.EnergyFn { return base }, []float64{2 + 5./2 - 5./6, 4 + 5./2, 2 + 5./6, 0, 1}},
		{"both", penalty, nil, func(*Node) losses.EnergyFn { return base },
			[]float64{2 + 5./2 - 5./6 + penalty*80/3, 4 + 5./2, 2 + 5./6, penalty * 80 / 3, 1 + penalty*2*w*(5+5./3)}},
		// Not a fixed base, but it shows that nothing of it reaches the gradient.
		{"a base that holds the weight", 0, nil, func(w *Node) losses.EnergyFn {
			return func(x *Node) *Node { return Mul(w, base(x)) }
		}, []float64{2 + 2*(5./2-5./6), 4 + 5, 2 + 2*5./6, 0, 1}},
		{"weights", 0, []float64{0.5, 0.25, 0.25}, nil, []float64{2.5, 4, 1.5, 0, 1.25}},
		{"weights, one of them 0", 0, []float64{0.5, 0.5, 0}, nil, []float64{3, 4, 1, 0, 1.5}},
		{"weights and both", penalty, []float64{0.5, 0.25, 0.25}, func(*Node) losses.EnergyFn { return base },
			[]float64{2.5 + 5./2 - 5./8 + penalty*25, 4 + 5./2, 1.5 + 5./8, penalty * 25, 1.25 + penalty*2*w*(5+5./4)}},
		{"equal weights are none", penalty, []float64{1. / 3, 1. / 3, 1. / 3}, func(*Node) losses.EnergyFn { return base },
			[]float64{2 + 5./2 - 5./6 + penalty*80/3, 4 + 5./2, 2 + 5./6, penalty * 80 / 3, 1 + penalty*2*w*(5+5./3)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
				double, single := testutil.EvalBoth(t, b, in, func(in []*Node) []*Node {
					c := losses.Contrastive{Energy: func(x *Node) *Node { return Mul(in[0], ReduceSum(x, -1)) }, Penalty: tc.penalty}
					if tc.base != nil {
						c.Base = tc.base(in[0])
					}
					if tc.weights != nil {
						c.Weights = ConstAs(in[0], tc.weights)
					}
					terms := c.Build(in[1], in[2])
					all := []*Node{terms.Loss, terms.Positives, terms.Negatives, terms.Penalty, Gradient(terms.Loss, in[0])[0]}
					for i := range all {
						all[i] = Reshape(all[i], 1)
					}
					return []*Node{Concatenate(all, 0)}
				})
				testutil.Compare(t, "terms", double[0], testutil.Array(tc.want, 5), testutil.Tolerance{RTol: 1e-14})
				testutil.Compare(t, "terms in float32", single[0], testutil.Array(tc.want, 5), testutil.Tolerance{RTol: 1e-6})
			})
		})
	}
}

// Data, chains and their weights are constants of the loss, also where the chains were made with the weights.
func TestNothingFlowsIntoTheStates(t *testing.T) {
	in := []testutil.Tensor{testutil.Filled(2), testutil.Array([]float64{1, 3}, 2, 1), testutil.Array([]float64{0, 1, 2}, 3, 1), testutil.Filled(1./3, 3)}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		out := testutil.Eval(t, b, dtypes.Float64, in, func(in []*Node) []*Node {
			w, positives, negatives, weights := in[0], in[1], in[2], in[3]
			c := losses.Contrastive{Energy: func(x *Node) *Node { return Mul(w, ReduceSum(x, -1)) }, Penalty: 0.1, Weights: weights,
				Base: func(x *Node) *Node { return Neg(ReduceSum(Square(x), -1)) }}
			moved := c.Build(Mul(positives, w), Sub(negatives, Mul(w, negatives)))
			fixed := c.Build(StopGradient(Mul(positives, w)), StopGradient(Sub(negatives, Mul(w, negatives))))
			grads := Gradient(c.Build(positives, negatives).Loss, positives, negatives, weights)
			return append(grads, Sub(Gradient(moved.Loss, w)[0], Gradient(fixed.Loss, w)[0]))
		})
		testutil.Compare(t, "gradient in the positives", out[0], testutil.Filled(0, 2), testutil.Tolerance{})
		testutil.Compare(t, "gradient in the negatives", out[1], testutil.Filled(0, 3), testutil.Tolerance{})
		testutil.Compare(t, "gradient in the weights of the negatives", out[2], testutil.Filled(0, 3), testutil.Tolerance{})
		testutil.Compare(t, "gradient in the weight through the states", out[3], testutil.Filled(0, 1), testutil.Tolerance{})
	})
}

// The gradient of half the squared gradient in the weights, H·g, against central differences of the gradient along
// itself. It needs a loss that can be differentiated twice, which a Slice on the way would forbid. The truncation error
// is of order step², the rounding 1e-16/step.
func TestSecondDerivative(t *testing.T) {
	const step = 1e-5
	e, err := models.New("mlp", 2, map[string]any{"hidden": []int{5, 5}})
	if err != nil {
		t.Fatal(err)
	}
	in := []testutil.Tensor{
		testutil.Array([]float64{0.3, -1, 2, 0.5, -0.7, 0.1}, 3, 2), testutil.Array([]float64{1, 1, -2, 0.2}, 2, 2),
	}
	flat := models.InitParams(e, 1)
	for _, p := range e.Params() {
		in = append(in, testutil.Array(flat[:p.Size()], p.Shape...))
		flat = flat[p.Size():]
	}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		program := testutil.Compile(t, b, dtypes.Float64, testutil.ShapesOf(in), func(in []*Node) []*Node {
			c := losses.Contrastive{Energy: models.At(e, in[2:]), Penalty: 0.5, Base: func(x *Node) *Node { return ReduceSum(x, -1) }}
			grads := Gradient(c.Build(in[0], in[1]).Loss, in[2:]...)
			half := ScalarZero(in[0].Graph(), dtypes.Float64)
			for _, g := range grads {
				half = Add(half, MulScalar(ReduceAllSum(Square(g)), 0.5))
			}
			return append(grads, Gradient(half, in[2:]...)...)
		})
		out := program.Run(t, in...)
		n := len(in) - 2
		along := func(by float64) [][]float64 {
			moved := slices.Clone(in)
			for i, g := range out[:n] {
				moved[2+i].Data = slices.Clone(moved[2+i].Data)
				for k := range g {
					moved[2+i].Data[k] += by * g[k]
				}
			}
			return program.Run(t, moved...)[:n]
		}
		up, down := along(step), along(-step)
		for i, p := range e.Params() {
			want := make([]float64, p.Size())
			for k := range want {
				want[k] = (up[i][k] - down[i][k]) / (2 * step)
			}
			testutil.Compare(t, p.Name, out[n+i], testutil.Array(want, p.Shape...), testutil.Tolerance{RTol: 1e-7, ATol: 1e-8})
		}
	})
}

func TestConfigValidate(t *testing.T) {
	good := losses.Config{Kind: "persistent_cd", Compat: "none", EnergyPenalty: 1e-3}
	for _, tc := range []struct {
		name   string
		change func(c *losses.Config)
		want   []string
	}{
		{"our own", func(c *losses.Config) {}, nil},
		{"TorchEBM's buffer", func(c *losses.Config) { c.Compat = "torchebm" }, nil},
		{"TorchEBM's buffer without a buffer", func(c *losses.Config) { c.Kind, c.Compat = "contrastive_divergence", "torchebm" },
			[]string{"compat: torchebm without effect here, want kind: persistent_cd, score_matching with hessian_method: hutchinson, " +
				"or equilibrium_matching with prediction: score or noise and time_invariant: true"}},
		{"everything wrong", func(c *losses.Config) {
			*c = losses.Config{Kind: "cd", Compat: "torch", EnergyPenalty: -1, DataNoise: math.NaN()}
		},
			[]string{`kind: "cd", want one of ` + strings.Join(losses.KindNames(), ", "), `compat: "torch", want one of none, torchebm`,
				"energy_penalty: -1, want 0 or more", "data_noise: NaN, want 0 or more"}},
	} {
		c := good
		tc.change(&c)
		var lines []string
		if err := c.Validate(); err != nil {
			lines = strings.Split(err.Error(), "\n")
		}
		if !slices.Equal(lines, tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, lines, tc.want)
		}
	}
}
