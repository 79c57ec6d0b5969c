package models_test

import (
	"fmt"
	"math"
	"testing"

	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

func TestReferenceInteraction(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for _, c := range testutil.Reference(t, "models") {
			if c.Component != "InteractionModel" {
				continue
			}
			t.Run(c.Name, func(t *testing.T) {
				c.Only(t, []string{"energy", "sigma_w", "strength"}, []string{"x", "energy"}, []string{"energy", "gradient"})
				x := c.Inputs["x"]
				v := c.Energy(t, x.Shape[1])
				e, err := models.NewInteraction(v, c.Num("sigma_w", 1), c.Num("strength", 1))
				if err != nil {
					t.Fatal(err)
				}
				in := append([]testutil.Tensor{x}, c.Weights(t, e)...)
				double, single := evalBoth(t, b, in, func(in []*Node) []*Node {
					energy, grad := models.EnergyAndGrad(models.At(e, in[1:]), in[0])
					return []*Node{energy, grad}
				})
				for i, name := range []string{"energy", "gradient"} {
					if want, ok := c.Expect[name]; ok {
						testutil.Compare(t, name, double[i], want, c.For64(name))
						testutil.Compare(t, name+" in float32", single[i], want, c.For32(name))
					}
				}
			})
		}
	})
}

// The definition, pair by pair, and the gradient ∇V(xᵢ) − 2 s n/σ² (xᵢ − mean x) of the batch's sum, at states far from the origin, where ‖xᵢ‖² + ‖xⱼ‖² − 2xᵢ·xⱼ would lose its digits in float32.
func TestInteractionPairByPair(t *testing.T) {
	const n, dim, sigmaW, strength = 6, 3, 1.5, -0.8
	const far = 1000
	e := must(t)(models.New("interaction", dim, map[string]any{"of": "harmonic", "k": "0.001", "sigma_w": sigmaW, "strength": strength}))
	if !models.IsCoupled(e) || models.IsCoupled(must(t)(models.New("harmonic", dim, nil))) {
		t.Error("the rows of an interaction are coupled, those of a harmonic well are not")
	}
	x := somewhere(n, dim)
	for i := range x.Data {
		x.Data[i] = float64(float32(x.Data[i])) + far
	}
	var want, wantGrad []float64
	for i := range n {
		squares, pairs := 0.0, 0.0
		for k := range dim {
			xi, mean := x.Data[i*dim+k], 0.0
			squares += xi * xi
			for j := range n {
				d := xi - x.Data[j*dim+k]
				pairs += d * d
				mean += x.Data[j*dim+k] / n
			}
			wantGrad = append(wantGrad, 0.001*xi-2*strength*n/(sigmaW*sigmaW)*(xi-mean))
		}
		want = append(want, 0.0005*squares-0.5*strength/(sigmaW*sigmaW)*pairs)
	}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		double, single := evalBoth(t, b, []testutil.Tensor{x}, func(in []*Node) []*Node {
			energy, grad := models.EnergyAndGrad(models.At(e, nil), in[0])
			second := Gradient(ReduceAllSum(Mul(grad, Sub(in[0], ConstAs(in[0], float64(far))))), in[0])[0]
			return []*Node{energy, grad, second}
		})
		testutil.Compare(t, "energy", double[0], tensor(want, n), testutil.Tolerance{RTol: 1e-11})
		testutil.Compare(t, "energy in float32", single[0], tensor(want, n), testutil.Tolerance{RTol: 1e-5})
		testutil.Compare(t, "gradient", double[1], tensor(wantGrad, n, dim), testutil.Tolerance{RTol: 1e-9, ATol: 1e-9})
		testutil.Compare(t, "gradient in float32", single[1], tensor(wantGrad, n, dim), testutil.Tolerance{RTol: 1e-4, ATol: 1e-3})
		// The gradient is linear here: its product with (x − far), differentiated, is the gradient plus H (x − far), which
		// is the gradient again but for the pull of V at far.
		for i, g := range double[1] {
			if want := 2*g - 0.001*far; !near(double[2][i], want, 1e-9) {
				t.Errorf("second derivative %d is %.12g, want %.12g", i, double[2][i], want)
			}
		}
	})
}

func TestInteractionFaults(t *testing.T) {
	for _, tc := range []struct {
		name string
		c    models.Config
		want []string
	}{
		{"of the plane", models.Config{Kind: "interaction", Of: "booth", SigmaW: new(1.0)}, nil},
		{"of nothing", models.Config{Kind: "interaction", SigmaW: new(1.0)}, []string{`of: "", want one of gaussian, `}},
		{"of a network", models.Config{Kind: "interaction", Of: "mlp", SigmaW: new(1.0)}, []string{`of: "mlp", want one of gaussian, `}},
		{"of itself", models.Config{Kind: "interaction", Of: "interaction", SigmaW: new(1.0)}, []string{`of: "interaction", want one of `}},
		{"no width", models.Config{Kind: "interaction", Of: "harmonic", K: new(-1.0)}, []string{"sigma_w: missing", "k: -1, want a positive number"}},
		{"width and strength", models.Config{Kind: "interaction", Of: "harmonic", SigmaW: new(0.0), Strength: new(math.Inf(1))},
			[]string{"sigma_w: 0, want a positive number", "strength: +Inf, want a finite number"}},
		{"an option of another energy", models.Config{Kind: "interaction", Of: "harmonic", SigmaW: new(1.0), H: new(2.0)},
			[]string{"h: not an option of kind interaction, want one of kind, dim, of, sigma_w, strength, k"}},
		{"without an interaction", models.Config{Kind: "harmonic", SigmaW: new(1.0)}, []string{"sigma_w: not an option of kind harmonic"}},
		{"the dimension of its energy", models.Config{Kind: "interaction", Of: "booth", SigmaW: new(1.0), Dim: 3}, []string{"dim: 3 by dim, but 2 by kind interaction"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			check(t, tc.c.Validate(), tc.want)
			if e, err := tc.c.Build(0); err != nil && (e != nil || len(tc.want) == 0 && tc.c.Of != "harmonic") {
				t.Errorf("built %v, error %v", e, err)
			}
		})
	}
	if _, err := models.NewInteraction(nil, 1, 1); fmt.Sprint(err) != "of: missing, want an energy" {
		t.Errorf("an interaction of nothing: %v", err)
	}
}
