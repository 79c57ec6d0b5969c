package models_test

import (
	"math"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

func near(a, b, tol float64) bool { return math.Abs(a-b) <= tol*(1+math.Abs(b)) }

// At every minimum that an energy lists the gradient must vanish and the energy be the stated one, and no point of a
// wide cloud may lie lower.
func TestKnownMinima(t *testing.T) {
	for name, e := range zoo(t) {
		known, ok := e.(models.Known)
		if !ok {
			continue
		}
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			f := known.Known()
			if (f.Minima == nil) != (f.MinEnergy == nil) {
				t.Fatalf("minima %v with energy %v", f.Minima, f.MinEnergy)
			}
			if f.Minima == nil {
				return
			}
			var flat []float64
			for _, p := range f.Minima {
				flat = append(flat, p...)
			}
			cloud := somewhere(500, e.Dim())
			for i := range cloud.Data {
				cloud.Data[i] *= 3
			}
			out := eval(t, testutil.Backend(t, "go"), f64, []testutil.Tensor{tensor(flat, len(f.Minima), e.Dim()), cloud}, func(in []*Node) []*Node {
				energy, grad := models.EnergyAndGrad(models.At(e, nil), in[0])
				return []*Node{energy, grad, e.Energy(in[1], nil)}
			})
			for i, v := range out[0] {
				if math.Abs(v-*f.MinEnergy) > 1e-12*(1+math.Abs(*f.MinEnergy)) {
					t.Errorf("energy at minimum %v is %.15g, want %.15g", f.Minima[i], v, *f.MinEnergy)
				}
			}
			for i, v := range out[1] {
				if math.Abs(v) > 1e-11 {
					t.Errorf("gradient at minimum %v is %g, want 0", f.Minima[i/e.Dim()], v)
				}
			}
			for _, v := range out[2] {
				if v < *f.MinEnergy-1e-12 {
					t.Fatalf("a point has energy %g, below the minimum %g", v, *f.MinEnergy)
				}
			}
		})
	}
}

// moments integrates exp(−E) over a square grid on [−r, r]^dim, dim 1 or 2, by way of the graph: log Z, mean, variance
// and the mass of the half x₁ > 0. Independent of the code under test but for E.
func moments(t *testing.T, e models.Energy, r float64, n int) (logZ float64, mean, variance []float64, right float64) {
	t.Helper()
	dim := e.Dim()
	h := 2 * r / float64(n)
	total := 1
	for range dim {
		total *= n
	}
	points := make([][]float64, total)
	for i := range points {
		p, rest := make([]float64, dim), i
		for k := range p {
			p[k] = -r + h*(float64(rest%n)+0.5) // midpoints
			rest /= n
		}
		points[i] = p
	}
	values := energies(t, e, points)
	low := math.Inf(1)
	for _, v := range values {
		low = min(low, v)
	}
	z, sum, squares := 0.0, make([]float64, dim), make([]float64, dim)
	for i, v := range values {
		w := math.Exp(low - v)
		z += w
		for k, x := range points[i] {
			sum[k] += w * x
			squares[k] += w * x * x
		}
		if points[i][0] > 0 {
			right += w
		}
	}
	for k := range dim {
		m := sum[k] / z
		mean = append(mean, m)
		variance = append(variance, squares[k]/z-m*m)
	}
	return math.Log(z) + float64(dim)*math.Log(h) - low, mean, variance, right / z
}

func TestKnownLaws(t *testing.T) {
	for _, tc := range []struct {
		name, kind string
		dim        int
		params     map[string]any
		r          float64
		n          int
	}{
		{"gaussian", "gaussian", 2, map[string]any{"mean": []float64{1, -0.5}, "cov": [][]float64{{1, 0.4}, {0.4, 0.5}}}, 9, 300},
		{"gaussian on the line", "gaussian", 1, map[string]any{"mean": []float64{1}, "cov": [][]float64{{0.3}}}, 9, 1000},
		{"double_well", "double_well", 1, nil, 4, 4000},
		{"double_well in the plane", "double_well", 2, map[string]any{"h": 0.5, "b": 1.5}, 5, 400},
		{"double_well without a barrier", "double_well", 1, map[string]any{"h": 0.5, "b": 0}, 6, 4000},
		{"double_well_tilted", "double_well_tilted", 1, nil, 4, 4000},
		{"double_well_tilted in the plane", "double_well_tilted", 2, map[string]any{"a": 1, "c": -0.4}, 4, 400},
		{"double_well_tilted to one side", "double_well_tilted", 1, map[string]any{"a": 1, "c": 20}, 5, 4000},
		{"harmonic", "harmonic", 2, map[string]any{"k": 2.5}, 6, 200},
		{"rosenbrock", "rosenbrock", 2, map[string]any{"a": 0.2, "b": 2}, 26, 900},
		{"rastrigin", "rastrigin", 1, nil, 9, 8000},
		{"rastrigin in the plane", "rastrigin", 2, map[string]any{"a": 1}, 7, 400},
		{"himmelblau", "himmelblau", 2, nil, 7, 600},
		{"booth", "booth", 2, nil, 8, 400},
		{"styblinski_tang", "styblinski_tang", 2, nil, 6, 500},
		{"gaussian_mixture", "gaussian_mixture", 2, map[string]any{"means": [][]float64{{-2, 0}, {1.5, 1}}, "stds": []float64{0.6}, "weights": []float64{1, 3}}, 8, 400},
	} {
		t.Run(strings.ReplaceAll(tc.name, " ", "_"), func(t *testing.T) {
			e := must(t)(models.New(tc.kind, tc.dim, tc.params))
			f := e.(models.Known).Known()
			logZ, mean, variance, right := moments(t, e, tc.r, tc.n)
			if f.LogZ == nil || !near(*f.LogZ, logZ, 1e-9) {
				t.Errorf("log Z %v, the grid says %.12g", deref(f.LogZ), logZ)
			}
			if len(f.Mean) != e.Dim() || len(f.Variance) != e.Dim() {
				t.Fatalf("mean %v, variance %v, want %d numbers each", f.Mean, f.Variance, e.Dim())
			}
			for k := range mean {
				if !near(f.Mean[k], mean[k], 1e-9) || !near(f.Variance[k], variance[k], 1e-9) {
					t.Errorf("coordinate %d: mean %.12g, variance %.12g, the grid says %.12g, %.12g", k, f.Mean[k], f.Variance[k], mean[k], variance[k])
				}
			}
			if strings.HasPrefix(tc.kind, "double_well") && len(f.Modes) > 1 {
				mass, all := 0.0, 0.0
				for i, mode := range f.Modes {
					all += f.Weights[i]
					if mode[0] > 0 {
						mass += f.Weights[i]
					}
				}
				if !near(mass, right, 1e-6) || !near(all, 1, 1e-12) {
					t.Errorf("mass on the right %.9g of %.9g, the grid says %.9g", mass, all, right)
				}
			}
		})
	}
}

func deref(v *float64) any {
	if v == nil {
		return "unknown"
	}
	return *v
}

// Truths stated in the literature of this project, to the digits printed there.
func TestRecordedTruths(t *testing.T) {
	facts := func(kind string, params map[string]any) models.Facts {
		t.Helper()
		return must(t)(models.New(kind, 1, params)).(models.Known).Known()
	}
	dw10 := facts("double_well_tilted", nil)
	if !near(*dw10.LogZ, -0.440623, 1e-6) || !near(dw10.Mean[0], -0.45128, 1e-5) || !near(dw10.Weights[1], 0.273101, 1e-6) {
		t.Errorf("10(x²−1)²+0.5x: log Z %g, mean %g, P(x>0) %g, want −0.440623, −0.45128, 0.273101", *dw10.LogZ, dw10.Mean[0], dw10.Weights[1])
	}
	dw16 := facts("double_well_tilted", map[string]any{"a": 16})
	if !near(*dw16.LogZ, -0.683073, 1e-6) || !near(dw16.Weights[1], 0.271407, 1e-6) {
		t.Errorf("16(x²−1)²+0.5x: log Z %g, P(x>0) %g, want −0.683073, 0.271407", *dw16.LogZ, dw16.Weights[1])
	}
	dw4 := facts("double_well", map[string]any{"h": 4})
	if !near(*dw4.LogZ, -0.053572, 1e-6) || !near(dw4.Variance[0], 0.91767, 1e-5) {
		t.Errorf("4(x²−1)²: log Z %g, E[x²] %g, want −0.053572, 0.91767", *dw4.LogZ, dw4.Variance[0])
	}
	// E|x| of the default double well is 0.8681.
	e := must(t)(models.New("double_well", 1, nil))
	var points [][]float64
	for i := range 8000 {
		points = append(points, []float64{-4 + 0.001*(float64(i)+0.5)})
	}
	z, abs := 0.0, 0.0
	for i, v := range energies(t, e, points) {
		z += math.Exp(-v)
		abs += math.Exp(-v) * math.Abs(points[i][0])
	}
	if math.Abs(abs/z-0.8681) > 5e-5 {
		t.Errorf("E|x| of the double well is %.5f, want 0.8681", abs/z)
	}
}

func TestFactsOfManyDimensions(t *testing.T) {
	e := must(t)(models.New("double_well", 10, nil)).(models.Known).Known()
	if len(e.Minima) != 1024 || len(e.Modes) != 1024 || !near(e.Weights[77], math.Pow(2, -10), 1e-12) {
		t.Errorf("10 dimensions: %d minima, %d modes, want 1024", len(e.Minima), len(e.Modes))
	}
	big := must(t)(models.New("double_well", 40, nil)).(models.Known).Known()
	if big.Minima != nil || big.Modes != nil || big.Weights != nil || big.LogZ == nil || len(big.Variance) != 40 {
		t.Errorf("40 dimensions: %d minima listed, log Z %v", len(big.Minima), deref(big.LogZ))
	}
	one := must(t)(models.New("double_well", 1, nil)).(models.Known).Known()
	if !near(*big.LogZ, 40**one.LogZ, 1e-12) {
		t.Errorf("log Z in 40 dimensions %g, want 40 times %g", *big.LogZ, *one.LogZ)
	}
	one.Mean[0] = 99 // the caller owns the slices
	r := must(t)(models.New("rosenbrock", 5, nil)).(models.Known).Known()
	if len(r.Minima) != 1 || r.LogZ != nil {
		t.Errorf("rosenbrock in 5 dimensions: minima %v, log Z %v", r.Minima, deref(r.LogZ))
	}
	if f := must(t)(models.New("rosenbrock", 5, map[string]any{"a": 2})).(models.Known).Known(); f.Minima != nil || f.MinEnergy != nil {
		t.Errorf("rosenbrock with a = 2 in 5 dimensions claims the minima %v", f.Minima)
	}
	// Wells far too narrow for the quadrature are not known rather than wrong.
	if f := must(t)(models.New("double_well", 1, map[string]any{"h": 1e16, "b": 10})).(models.Known).Known(); f.LogZ != nil {
		t.Errorf("needle wells: log Z %g, want none", *f.LogZ)
	}
}

func TestFactsAreTheCallersOwn(t *testing.T) {
	for name, e := range zoo(t) {
		known, ok := e.(models.Known)
		if !ok {
			continue
		}
		spoil := known.Known()
		for _, list := range [][][]float64{spoil.Minima, spoil.Modes, {spoil.Mean, spoil.Variance, spoil.Weights}} {
			for _, v := range list {
				for i := range v {
					v[i] = 1e9
				}
			}
		}
		again := known.Known()
		for _, list := range [][][]float64{again.Minima, again.Modes, {again.Mean, again.Variance, again.Weights}} {
			for _, v := range list {
				for _, x := range v {
					if x == 1e9 {
						t.Errorf("%s: a caller can change the facts", name)
					}
				}
			}
		}
	}
}
