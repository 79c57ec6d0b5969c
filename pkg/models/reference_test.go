package models_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// fromReference builds the energy that a recorded case is about.
func fromReference(t *testing.T, c testutil.Case) models.Energy {
	t.Helper()
	kinds := map[string]string{
		"GaussianModel": "gaussian", "DoubleWellModel": "double_well", "HarmonicModel": "harmonic", "RosenbrockModel": "rosenbrock",
		"AckleyModel": "ackley", "RastriginModel": "rastrigin", "HimmelblauModel": "himmelblau", "BoothModel": "booth",
		"StyblinskiTangModel": "styblinski_tang", "MLPEnergy": "mlp",
	}
	kind, ok := kinds[c.Component]
	if !ok {
		t.Fatalf("no energy for component %s", c.Component)
	}
	x := c.Inputs["x"]
	return testutil.NewEnergy(t, kind, x.Shape[len(x.Shape)-1], c.Params, c.Inputs)
}

func TestReference(t *testing.T) {
	cases := testutil.Reference(t, "energies")
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for _, c := range cases {
			t.Run(c.Name, func(t *testing.T) {
				e := fromReference(t, c)
				in := append([]testutil.Tensor{c.Inputs["x"]}, testutil.WeightsOf(t, e, c.Inputs)...)
				names := []string{"energy", "gradient"}
				for _, p := range e.Params() {
					names = append(names, "mean.grad."+p.Name)
				}
				cotangent, weighted := c.Inputs["cotangent"]
				if weighted {
					in = append(in, cotangent)
					for _, p := range e.Params() {
						names = append(names, "cotangent.grad."+p.Name)
					}
				}
				for name := range c.Expect {
					if !slices.Contains(names, name) {
						t.Errorf("nothing computes %s", name)
					}
				}
				double, single := evalBoth(t, b, in, func(in []*Node) []*Node {
					weights := in[1 : 1+len(e.Params())]
					energy, grad := models.EnergyAndGrad(models.At(e, weights), in[0])
					out := []*Node{energy, grad}
					if len(weights) > 0 {
						out = append(out, Gradient(ReduceAllMean(energy), weights...)...)
						if weighted {
							out = append(out, Gradient(ReduceAllSum(Mul(energy, in[len(in)-1])), weights...)...)
						}
					}
					return out
				})
				for i, name := range names {
					if want, ok := c.Expect[name]; ok {
						testutil.Compare(t, name, double[i], want, c.For64(name))
						testutil.Compare(t, name+" in float32", single[i], want, c.For32(name))
					}
				}
			})
		}
	})
}

// Every energy, against central differences in float64: the gradient of E, the gradient of a directional derivative and
// the gradient of a second directional derivative. The truncation error is of order step², the rounding 1e-16/step.
func TestDerivativesToThirdOrder(t *testing.T) {
	const step, n = 1e-5, 3
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for name, e := range zoo(t) {
			t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
				dim := e.Dim()
				// Row 0 of each group of 2·dim+1 is a point, the others are its neighbours along each axis.
				var rows []float64
				points := somewhere(n, dim)
				for i := range n {
					p := points.Slice(i).Data
					rows = append(rows, p...)
					for k := range dim {
						for _, sign := range []float64{1, -1} {
							q := slices.Clone(p)
							q[k] += sign * step
							rows = append(rows, q...)
						}
					}
				}
				group := 2*dim + 1
				direction := make([]float64, dim)
				for k := range direction {
					direction[k] = 0.7 - 0.4*float64(k)
				}
				in := append([]testutil.Tensor{tensor(rows, n*group, dim), tensor(direction, 1, dim)}, weightsOf(e, 3)...)
				got := eval(t, b, f64, in, func(in []*Node) []*Node {
					x, v := in[0], in[1]
					f0, g1 := models.EnergyAndGrad(models.At(e, in[2:]), x)
					f1 := ReduceSum(Mul(g1, v), -1)
					g2 := Gradient(ReduceAllSum(f1), x)[0]
					f2 := ReduceSum(Mul(g2, v), -1)
					g3 := Gradient(ReduceAllSum(f2), x)[0]
					return []*Node{f0, g1, f1, g2, f2, g3}
				})
				for order := range 3 {
					f, g := got[2*order], got[2*order+1]
					if !finite(f) || !finite(g) {
						t.Fatalf("order %d: not finite", order+1)
					}
					for i := range n {
						for k := range dim {
							at := i * group
							want := (f[at+1+2*k] - f[at+2+2*k]) / (2 * step)
							analytic := g[at*dim+k]
							if d := analytic - want; d*d > 1e-12*(1+want*want)*(1+f[at]*f[at]) {
								t.Errorf("order %d, point %d, coordinate %d: gradient %.10g, differences say %.10g", order+1, i, k, analytic, want)
							}
						}
					}
				}
			})
		}
	})
}

// The gradients in the weights, and those of a loss that holds ∂E/∂x (score matching), against central differences.
func TestWeightGradients(t *testing.T) {
	const step = 1e-5
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for name, e := range zoo(t) {
			// Compiling the gradient of a gradient takes XLA long: the activations, whose derivatives in x the test above
			// covers on both backends, have their weights' turn on the other one.
			if len(e.Params()) == 0 || b.Kind() != "go" && !slices.Contains([]string{"mlp silu", "mlp spectral", "mlp with base", "conv"}, name) {
				continue
			}
			t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
				x := somewhere(4, e.Dim())
				weights := weightsOf(e, 5)
				losses := func(in []*Node) (energy, score *Node) {
					f, g := models.EnergyAndGrad(models.At(e, in[1:]), in[0])
					return ReduceAllMean(f), ReduceAllMean(Square(g))
				}
				args := append([]testutil.Tensor{x}, weights...)
				grads := eval(t, b, f64, args, func(in []*Node) []*Node {
					energy, score := losses(in)
					return append(Gradient(energy, in[1:]...), Gradient(score, in[1:]...)...)
				})
				program, err := compile(b, f64, args, func(in []*Node) []*Node {
					energy, score := losses(in)
					return []*Node{energy, score}
				})
				if err != nil {
					t.Fatal(err)
				}
				defer program.Close()
				shifted := func(p, i int, by float64) []float64 {
					moved := slices.Clone(args)
					moved[1+p].Data = slices.Clone(moved[1+p].Data)
					moved[1+p].Data[i] += by
					out, err := run(program, f64, moved)
					if err != nil {
						t.Fatal(err)
					}
					return []float64{out[0][0], out[1][0]}
				}
				for p, param := range e.Params() {
					i := param.Size() / 2
					up, down := shifted(p, i, step), shifted(p, i, -step)
					for l, loss := range []string{"energy", "score"} {
						want := (up[l] - down[l]) / (2 * step)
						got := grads[l*len(weights)+p][i]
						// The singular vectors of spectral normalisation are held constant: exact once the power iteration has
						// converged, which leaves a little more.
						if d := got - want; d*d > 1e-12*(1+want*want) {
							t.Errorf("%s loss, %s[%d]: gradient %.10g, differences say %.10g", loss, param.Name, i, got, want)
						}
					}
				}
			})
		}
	})
}

func TestAckleyIsFlatAtTheOrigin(t *testing.T) {
	e := must(t)(models.New("ackley", 3, nil))
	x := tensor([]float64{0, 0, 0, 1e-12, 0, 0, 0, 0, 0}, 3, 3)
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		double, single := evalBoth(t, b, []testutil.Tensor{x}, threeOrders(e))
		for _, dtype := range []struct {
			name string
			out  [][]float64
		}{{"float64", double}, {"float32", single}} {
			for order, g := range dtype.out {
				for _, row := range []int{0, 2} {
					got := g[3*row : 3*row+3]
					if order == 0 && !slices.Equal(got, []float64{0, 0, 0}) {
						t.Errorf("%s: gradient at the origin %v, want 0", dtype.name, got)
					}
					if !finite(got) {
						t.Errorf("%s: order %d at the origin %v, want finite numbers", dtype.name, order+1, got)
					}
				}
			}
		}
	})
}

func threeOrders(e models.Energy) func(in []*Node) []*Node {
	return func(in []*Node) []*Node {
		var out []*Node
		_, g := models.EnergyAndGrad(models.At(e, nil), in[0])
		for range 3 {
			out = append(out, g)
			g = Gradient(ReduceAllSum(Mul(g, ConstAs(g, 0.5))), in[0])[0]
		}
		return out
	}
}

// GoMLX gives zeros for the gradient at a StopGradient node; EnergyAndGrad must not.
func TestEnergyAndGradBehindStopGradient(t *testing.T) {
	e := must(t)(models.New("harmonic", 2, nil))
	x := somewhere(3, 2)
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		out := eval(t, b, f64, []testutil.Tensor{x}, func(in []*Node) []*Node {
			_, g := models.EnergyAndGrad(models.At(e, nil), StopGradient(in[0]))
			return []*Node{g, models.Score(models.At(e, nil), in[0])}
		})
		testutil.Compare(t, "gradient", out[0], x, testutil.Tolerance{RTol: 1e-12})
		for i := range out[1] {
			out[1][i] *= -1
		}
		testutil.Compare(t, "minus the score", out[1], x, testutil.Tolerance{RTol: 1e-12})
	})
}

func TestWrongStatesAreNamed(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for name, e := range zoo(t) {
			for _, shape := range [][]int{{4, e.Dim() + 1}, {e.Dim()}, {2, 2, e.Dim()}} {
				size := 1
				for _, d := range shape {
					size *= d
				}
				in := append([]testutil.Tensor{tensor(make([]float64, size), shape...)}, weightsOf(e, 1)...)
				_, err := tryEval(b, f32, in, func(in []*Node) []*Node { return []*Node{e.Energy(in[0], in[1:])} })
				if want := fmt.Sprintf("want [batch, %d]", e.Dim()); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s, states %v: error %v, want it to say %q", name, shape, err, want)
				}
			}
		}
		mlp := must(t)(models.New("mlp", 2, nil))
		x := somewhere(3, 2)
		_, err := tryEval(b, f32, []testutil.Tensor{x}, func(in []*Node) []*Node { return []*Node{mlp.Energy(in[0], nil)} })
		if err == nil || !strings.Contains(err.Error(), "0 parameters, want 6") {
			t.Errorf("no weights: error %v", err)
		}
		_, err = tryEval(b, f32, []testutil.Tensor{x}, func(in []*Node) []*Node {
			return []*Node{mlp.Energy(in[0], []*Node{in[0], in[0], in[0], in[0], in[0], in[0]})}
		})
		if err == nil || !strings.Contains(err.Error(), "net.0.weight has shape [3 2], want [64 2]") {
			t.Errorf("wrong weights: error %v", err)
		}
		_, err = tryEval(b, f32, []testutil.Tensor{x}, func(in []*Node) []*Node {
			e, _ := models.EnergyAndGrad(func(x *Node) *Node { return ReduceSum(x, -1, 0) }, in[0])
			return []*Node{e}
		})
		if err == nil || !strings.Contains(err.Error(), "want one number a row, [batch]") {
			t.Errorf("a scalar energy: error %v", err)
		}
	})
}
