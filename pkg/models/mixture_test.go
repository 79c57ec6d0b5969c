package models_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// The energy and its derivatives in x, in the means and in the logit, against the formula worked out by hand for two
// components on the line: with r = σ(a − ½(x − m₁)² + ½(x − m₂)²) the share of the first one,
// ∂E/∂x = r(x − m₁) + (1 − r)(x − m₂), ∂E/∂mₖ = −rₖ(x − mₖ) and ∂E/∂a = −r.
func TestMixtureIsItsFormula(t *testing.T) {
	const a, m1, m2 = -0.9, -1.5, 2.0
	e := must(t)(models.New("mixture", 1, map[string]any{"means": [][]float64{{m1}, {m2}}, "logits": []float64{a}}))
	xs := []float64{-40, -1.5, -0.2, 0.3, 2, 40}
	var energy, slope []float64
	byMean, byLogit := make([]float64, 2), 0.0
	for _, x := range xs {
		u, v := a-(x-m1)*(x-m1)/2, -(x-m2)*(x-m2)/2
		r := 1 / (1 + math.Exp(v-u))
		energy = append(energy, -max(u, v)-math.Log1p(math.Exp(-math.Abs(u-v))))
		slope = append(slope, r*(x-m1)+(1-r)*(x-m2))
		byMean[0] -= r * (x - m1)
		byMean[1] -= (1 - r) * (x - m2)
		byLogit -= r
	}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		in := append([]testutil.Tensor{tensor(xs, len(xs), 1)}, weightsOf(e, 1)...)
		out := eval(t, b, f64, in, func(in []*Node) []*Node {
			energy, slope := models.EnergyAndGrad(models.At(e, in[1:]), in[0])
			return append([]*Node{energy, slope}, Gradient(ReduceAllSum(energy), in[1], in[2])...)
		})
		for i, want := range [][]float64{energy, slope, byMean, {byLogit}} {
			for j := range want {
				if !near(out[i][j], want[j], 1e-12) {
					t.Errorf("output %d, element %d: %.15g, want %.15g", i, j, out[i][j], want[j])
				}
			}
		}
	})
}

// Where the masses are softmax(a) the energy is that of the normalised mixture, but for a constant.
func TestMixtureHasTheMassesOfItsLogits(t *testing.T) {
	means, logits, std := [][]float64{{-1, 0}, {1.5, 1}, {0, -2}}, []float64{0.5, -1}, 0.8
	weights := []float64{math.Exp(logits[0]), math.Exp(logits[1]), 1}
	e := must(t)(models.New("mixture", 0, map[string]any{"means": means, "logits": logits, "std": std}))
	law := must(t)(models.New("gaussian_mixture", 0, map[string]any{"means": means, "weights": weights, "stds": []float64{std}}))
	points := [][]float64{{0, 0}, {-3, 1}, {1, 1}, {0.5, -2}, {9, -9}}
	got, want := energies(t, e, points), energies(t, law, points)
	shift := math.Log(weights[0]+weights[1]+1) + math.Log(2*math.Pi*std*std)
	for i := range points {
		if !near(got[i]+shift, want[i], 1e-12) {
			t.Errorf("E(%v) is %.12g, want %.12g", points[i], got[i], want[i]-shift)
		}
	}
}

func TestMixtureStartsWhereItIsTold(t *testing.T) {
	for _, tc := range []struct {
		name   string
		params map[string]any
		names  string
		flat   []float64
	}{
		{"two", map[string]any{"means": "[[-5], [5]]", "logits": "[0.5]"}, "means[2 1] logits[1]", []float64{-5, 5, 0.5}},
		{"equal masses", map[string]any{"means": "[[-5, 1], [5, 2], [0, 3]]"}, "means[3 2] logits[2]", []float64{-5, 1, 5, 2, 0, 3, 0, 0}},
		{"one", map[string]any{"means": "[[3, 4]]"}, "means[1 2]", []float64{3, 4}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := must(t)(models.New("mixture", 0, tc.params))
			names := ""
			for i, p := range e.Params() {
				names += fmt.Sprint(map[bool]string{true: " "}[i > 0], p.Name, p.Shape)
			}
			if flat := models.InitParams(e, 3); names != tc.names || !slices.Equal(flat, tc.flat) {
				t.Errorf("parameters %s at %v, want %s at %v", names, flat, tc.names, tc.flat)
			}
			models.InitParams(e, 3)[0] = 9
			e.Params()[0].Init(e.Params()[0].Shape, nil)[0] = 9
			if got := models.InitParams(e, 3)[0]; got != tc.flat[0] {
				t.Errorf("a caller changed the start to %g", got)
			}
		})
	}
}
