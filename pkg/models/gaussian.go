package models

import (
	"math"

	. "github.com/gomlx/gomlx/pkg/core/graph"
	"gonum.org/v1/gonum/mat"
)

// GaussianEnergy is E(x) = ½ (x − μ)ᵀ Σ⁻¹ (x − μ) (TorchEBM's GaussianModel). For the base of a network see [Gaussian].
type GaussianEnergy struct {
	analytic
	mean     []float64
	variance []float64
	whiten   [][]float64 // W = L⁻ᵀ with Σ = LLᵀ, so that E = ½|(x − μ)ᵀW|²
	logZ     float64
}

// NewGaussianEnergy makes the energy of N(mean, cov); cov is [dim][dim], symmetric and positive definite.
func NewGaussianEnergy(mean []float64, cov [][]float64) (*GaussianEnergy, error) {
	var f faults
	dim := len(mean)
	if dim == 0 {
		f.add("mean", "empty, want a number for each coordinate")
	}
	for i, v := range mean {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			f.add("mean", "element %d is %g, want a finite number", i, v)
		}
	}
	if len(cov) != dim {
		f.add("cov", "%d rows, want %d as mean has", len(cov), dim)
	}
	largest := 0.0
	for i, row := range cov {
		if len(row) != dim {
			f.add("cov", "row %d has %d elements, want %d as mean has", i, len(row), dim)
		}
		for j, v := range row {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				f.add("cov", "element (%d, %d) is %g, want a finite number", i, j, v)
			}
			largest = max(largest, math.Abs(v))
		}
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	sym := mat.NewSymDense(dim, nil)
	for i := range dim {
		for j := i; j < dim; j++ {
			if math.Abs(cov[i][j]-cov[j][i]) > 1e-9*largest {
				f.add("cov", "element (%d, %d) is %g, but (%d, %d) is %g: want a symmetric matrix", i, j, cov[i][j], j, i, cov[j][i])
			}
			sym.SetSym(i, j, (cov[i][j]+cov[j][i])/2)
		}
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	var chol mat.Cholesky
	if !chol.Factorize(sym) {
		f.add("cov", "not positive definite (its Cholesky factor does not exist)")
		return nil, f.err()
	}
	var lower, inverse mat.TriDense
	chol.LTo(&lower)
	if err := inverse.InverseTri(&lower); err != nil {
		f.add("cov", "too close to singular (condition number %.1e)", chol.Cond())
		return nil, f.err()
	}
	e := &GaussianEnergy{analytic: analytic{"gaussian", dim}, mean: append([]float64(nil), mean...)}
	for i := range dim {
		e.variance = append(e.variance, sym.At(i, i))
		row := make([]float64, dim)
		for j := range dim {
			row[j] = inverse.At(j, i)
		}
		e.whiten = append(e.whiten, row)
	}
	e.logZ = 0.5 * (float64(dim)*math.Log(2*math.Pi) + chol.LogDet())
	return e, nil
}

// Energy builds E(x), [batch].
func (e *GaussianEnergy) Energy(x *Node, _ []*Node) *Node {
	e.check(x)
	white := Dot(Sub(x, constRow(x, e.mean)), ConstAs(x, e.whiten))
	return MulScalar(ReduceSum(Square(white), -1), 0.5)
}

// Known gives everything, in closed form.
func (e *GaussianEnergy) Known() Facts {
	return Facts{
		Minima: [][]float64{e.mean}, MinEnergy: new(0.0), Mean: e.mean, Variance: e.variance, LogZ: new(e.logZ),
		Modes: [][]float64{e.mean}, Weights: []float64{1},
	}.clone()
}
