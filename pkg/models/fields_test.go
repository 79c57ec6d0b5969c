package models_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

func ExampleConfig_BuildNetwork() {
	config := models.Config{Kind: "transformer", Image: []int{1, 8, 8}, EmbedDim: new(32), Depth: new(2)}
	network, err := config.BuildNetwork(64, 10)
	if err != nil {
		panic(err)
	}
	field := network.(models.Field)
	fmt.Println(config.IsField(), field.Dim(), field.Classes(), len(models.InitParams(field, 7)))
	// Output: true 64 10 49860
}

// warm is a network whose first weights are all drawn, also those that start at 0 and would hide what is behind them.
type warm struct{ models.Network }

func (w warm) Params() []models.Param {
	params := w.Network.Params()
	for i := range params {
		params[i].Init = func(shape []int, stream *rng.Stream) []float64 {
			values := stream.Normals(models.Param{Shape: shape}.Size())
			for i := range values {
				values[i] *= 0.4
			}
			return values
		}
	}
	return params
}

// fieldZoo is every kind of field with settings that are not the defaults, as small as they go.
func fieldZoo(t testing.TB) map[string]models.Field {
	t.Helper()
	out := map[string]models.Field{}
	add := func(name string, dim, classes int, c models.Config) {
		t.Helper()
		n, err := c.BuildNetwork(dim, classes)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out[name] = n.(models.Field)
	}
	transformer := models.Config{Kind: "transformer", Image: []int{1, 2, 2}, PatchSize: new(1), EmbedDim: new(4), Depth: new(1), NumHeads: new(2),
		MLPRatio: new(1.5), TimeFrequencies: new(6), TimeScale: new(3.0)}
	add("transformer", 4, 3, transformer)
	transformer.Image, transformer.CondDim, transformer.PosEmbed = []int{2, 2, 1}, new(3), "learnable"
	transformer.HeadDim, transformer.HeadDepth, transformer.HeadNumHeads = new(3), 1, new(1)
	add("transformer head", 4, 0, transformer)
	mlp := models.Config{Kind: "time_mlp", HiddenDim: new(5), Depth: new(1), MLPRatio: new(1.0), TimeFrequencies: new(3), TimeScale: new(2.0)}
	add("time_mlp", 2, 2, mlp)
	mlp.Conditioning, mlp.MLPRatio, mlp.CondDim, mlp.Depth = "concat", nil, new(3), new(2)
	add("time_mlp concat", 2, 0, mlp)
	mlp.CondDim = new(0)
	add("time_mlp timeless", 2, 0, mlp)
	add("field_mlp", 2, 0, models.Config{Kind: "field_mlp", Hidden: []int{5, 4}, Activation: "tanh"})
	add("field_mlp spectral", 2, 0, models.Config{Kind: "field_mlp", Hidden: []int{4}, SpectralNorm: new(true)})
	return out
}

func sortedFields(t testing.TB) []string {
	var names []string
	for name := range fieldZoo(t) {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Every field must be a function of its arguments, row by row: the contract that losses and samplers build on.
func TestFieldContract(t *testing.T) {
	const n = 3
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for name, f := range fieldZoo(t) {
			t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
				x := somewhere(n, f.Dim())
				times := tensor([]float64{0.2, 0.9, 0.5}, n)
				in := append([]testutil.Tensor{x, times}, weightsOf(warm{f}, 3)...)
				var shapes []string
				out := eval(t, b, f64, in, func(in []*Node) []*Node {
					x, times, weights := in[0], in[1], in[2:]
					var labels, null, turned *Node
					if k := f.Classes(); k > 0 {
						labels, null = Const(x.Graph(), []int32{0, int32(k - 1), int32(k)}), Const(x.Graph(), slices.Repeat([]int32{int32(k)}, n))
						turned = Reverse(labels, 0)
					}
					out := []*Node{
						f.Field(x, times, labels, weights), f.Field(x, times, labels, weights),
						Reverse(f.Field(Reverse(x, 0), Reverse(times, 0), turned, weights), 0),
						f.Field(x, nil, nil, weights), f.Field(x, ZerosLike(times), null, weights),
						f.Field(x, times, nil, weights),
					}
					small := make([]*Node, len(in))
					for i, n := range in {
						small[i] = ConvertDType(n, f32)
					}
					out = append(out, f.Field(small[0], small[1], labels, small[2:]), f.(models.Hidden).Hidden(x, times, labels, weights))
					shapes = nil
					for _, o := range out {
						shapes = append(shapes, fmt.Sprint(o.Shape().Dimensions))
					}
					return out
				})
				for i, want := range []string{"the field", "again", "with rows in another order", "at nothing", "at time 0 without a label", "without a label", "in float32"} {
					if shapes[i] != fmt.Sprint([]int{n, f.Dim()}) || !finite(out[i]) {
						t.Errorf("%s: shape %s, values %v", want, shapes[i], out[i])
					}
				}
				same := func(what string, a, b int, want bool) {
					if equal := slices.EqualFunc(out[a], out[b], func(v, w float64) bool { return math.Abs(v-w) < 1e-12 }); equal != want {
						t.Errorf("%s: %v and %v", what, out[a], out[b])
					}
				}
				same("the same arguments", 0, 1, true)
				same("rows in another order", 0, 2, true)
				same("time 0 and no label", 3, 4, true)
				same("another time", 3, 5, name == "time_mlp timeless")
				if f.Classes() > 0 {
					same("labels", 0, 5, false)
				}
				testutil.Compare(t, "float32", out[6], tensor(out[0], n, f.Dim()), testutil.Tolerance{RTol: 1e-4, ATol: 1e-5})
				if want := fmt.Sprintf("[%d ", n); !strings.HasPrefix(shapes[7], want) || !finite(out[7]) {
					t.Errorf("the last hidden layer: shape %s, values %v", shapes[7], out[7])
				}
			})
		}
	})
}

// warmEnergies are the energies that can be made of a field, at drawn weights.
func warmEnergies(t testing.TB, f models.Field) map[string]models.Energy {
	t.Helper()
	out := map[string]models.Energy{"implicit": models.NewImplicitEqM(f)}
	for _, kind := range []string{"dot", "l2"} {
		e, err := models.NewEqMEnergy(f, kind)
		if err != nil {
			t.Fatal(err)
		}
		out[kind] = e
	}
	return out
}

// Derivatives of every field-made energy, against central differences along a random direction u of the states and w of
// the weights, in float64: those of E, of ∂E/∂x·v and of vᵀ(∂²E/∂x²)v, in x and in the weights. The truncation error is
// of order step², the rounding 1e-16/step.
func TestFieldEnergyDerivatives(t *testing.T) {
	const step, n = 1e-5, 2
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for _, name := range sortedFields(t) {
			f := fieldZoo(t)[name]
			// Compiling takes XLA long, so it has every operation once and the go backend every combination.
			kinds := []string{"dot", "l2", "implicit"}
			if b.Kind() != "go" && name != "field_mlp" {
				if kinds = kinds[:1]; name == "transformer head" {
					continue
				}
			}
			t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
				in := append([]testutil.Tensor{somewhere(n, f.Dim())}, weightsOf(warm{f}, 5)...)
				directions := make([][]float64, len(in)) // of x, then of the weights
				for i := range in {
					directions[i] = rng.New(3, rng.Sample, uint64(i), 0).Normals(len(in[i].Data))
				}
				energies := warmEnergies(t, f)
				const outputs = 9
				program, err := compile(b, f64, in, func(in []*Node) []*Node {
					x, weights := in[0], in[1:]
					v := ConstAs(x, [][]float64{rng.New(4, rng.Sample, 0, 0).Normals(f.Dim())})
					along := func(loss *Node, wrt []*Node, directions [][]float64) *Node {
						sum := ScalarZero(x.Graph(), x.DType())
						for i, g := range Gradient(loss, wrt...) {
							sum = Add(sum, ReduceAllSum(Mul(g, Reshape(ConstAs(x, directions[i]), g.Shape().Dimensions...))))
						}
						return sum
					}
					var out []*Node
					for _, kind := range kinds {
						e, grad := models.EnergyAndGrad(models.At(energies[kind], weights), x)
						slope := ReduceSum(Mul(grad, v), -1)
						curve := ReduceSum(Mul(Gradient(ReduceAllSum(slope), x)[0], v), -1)
						for _, value := range []*Node{e, slope, curve} {
							sum := ReduceAllSum(value)
							out = append(out, sum, along(sum, []*Node{x}, directions[:1]), along(sum, weights, directions[1:]))
						}
					}
					return out
				})
				if err != nil {
					t.Fatal(err)
				}
				defer program.Close()
				at := func(by float64, moved ...int) []float64 {
					args := slices.Clone(in)
					for _, i := range moved {
						args[i].Data = slices.Clone(args[i].Data)
						for j := range args[i].Data {
							args[i].Data[j] += by * directions[i][j]
						}
					}
					res, err := run(program, f64, args)
					if err != nil {
						t.Fatal(err)
					}
					return slices.Concat(res...)
				}
				var weights []int
				for i := range len(in) - 1 {
					weights = append(weights, i+1)
				}
				here := at(0)
				upX, downX, upW, downW := at(step, 0), at(-step, 0), at(step, weights...), at(-step, weights...)
				for k, kind := range kinds {
					for order, what := range []string{"E", "the slope", "the curvature"} {
						if kind == "implicit" && order == 0 {
							continue // its gradient is not that of its value, by design
						}
						i := outputs*k + 3*order
						for _, c := range []struct {
							of        string
							got, want float64
						}{
							{"x", here[i+1], (upX[i] - downX[i]) / (2 * step)},
							{"the weights", here[i+2], (upW[i] - downW[i]) / (2 * step)},
						} {
							if !near(c.got, c.want, 1e-6*(1+math.Abs(c.want)+math.Abs(here[i]))) {
								t.Errorf("%s, %s: derivative in %s %.12g, differences say %.12g", kind, what, c.of, c.got, c.want)
							}
							if c.want == 0 {
								t.Errorf("%s, %s: nothing depends on %s", kind, what, c.of)
							}
						}
					}
				}
			})
		}
	})
}
