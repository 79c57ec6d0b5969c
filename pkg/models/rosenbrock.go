package models

import (
	"math"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// Rosenbrock is E(x) = Σ_{i<dim} b(xᵢ₊₁ − xᵢ²)² + (a − xᵢ)², a narrow curved valley (Rosenbrock 1960; TorchEBM's
// RosenbrockModel).
type Rosenbrock struct {
	analytic
	a, b float64
}

// NewRosenbrock makes a Rosenbrock valley in at least two dimensions; b must be positive.
func NewRosenbrock(dim int, a, b float64) (*Rosenbrock, error) {
	var f faults
	f.dim(dim, 2)
	f.finite("a", a)
	f.positive("b", b)
	if err := f.err(); err != nil {
		return nil, err
	}
	return &Rosenbrock{analytic{"rosenbrock", dim}, a, b}, nil
}

// Energy builds E(x), [batch].
func (e *Rosenbrock) Energy(x *Node, _ []*Node) *Node {
	e.check(x)
	here, next := make([]int, e.dim-1), make([]int, e.dim-1)
	for i := range here {
		here[i], next[i] = i, i+1
	}
	xi, xj := coordinates(x, here...), coordinates(x, next...) // [dim − 1, batch]
	bend := MulScalar(Square(Sub(xj, Square(xi))), e.b)
	return ReduceSum(Add(bend, Square(AddScalar(xi, -e.a))), 0)
}

// Known gives the minimum where it is known (two dimensions, or a = 0 or 1), and the law in two dimensions, where x₁ is
// N(a, ½) and x₂ given x₁ is N(x₁², 1/2b).
func (e *Rosenbrock) Known() Facts {
	var f Facts
	switch {
	case e.dim == 2:
		f.Minima = [][]float64{{e.a, e.a * e.a}}
		f.LogZ = new(math.Log(math.Pi) - 0.5*math.Log(e.b))
		f.Mean = []float64{e.a, e.a*e.a + 0.5}
		f.Variance = []float64{0.5, 2*e.a*e.a + 0.5 + 0.5/e.b}
		f.Modes, f.Weights = [][]float64{{e.a, e.a * e.a}}, []float64{1}
	case e.a == 0 || e.a == 1:
		f.Minima = [][]float64{repeat(e.a, e.dim)}
	}
	if f.Minima != nil {
		f.MinEnergy = new(0.0)
	}
	return f
}
