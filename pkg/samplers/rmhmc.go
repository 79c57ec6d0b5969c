package samplers

import (
	"fmt"

	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/integrators"
)

// Metric builds the mass matrix G(x) of [RMHMC], symmetric and positive definite, by graph operations that can be
// differentiated in x. Exactly one of its fields is set.
type Metric struct {
	Diagonal func(x *Node) *Node // x [rows, dim] → the diagonal of a diagonal G, [rows, dim]
	Dense    func(x *Node) *Node // x [rows, dim] → [rows, dim, dim]; meant for a few dimensions
}

// QuadraticMetric is G(x) = diag(1 + g·x²), which slows a trajectory down far from the origin.
func QuadraticMetric(g float64) Metric {
	return Metric{Diagonal: func(x *Node) *Node { return AddScalar(MulScalar(Square(x), g), 1) }}
}

// RMHMC is Riemannian manifold Hamiltonian Monte Carlo (Girolami and Calderhead 2011): [HMC] with a mass matrix that
// depends on the place, H(x, p) = −log π_β(x) + ½ pᵀG(x)⁻¹p + ½ log|G(x)|, along the generalised leapfrog. Its implicit
// equations are solved by fixed-point iteration; Info.Residual says how well.
type RMHMC struct {
	Leapfrogs  int // steps a proposal, at least 1
	Iterations int // rounds for an implicit equation, at least 1
	Metric     Metric
}

// NeedsUniform is true.
func (RMHMC) NeedsUniform() bool { return true }

// Gradients is that of the energy for every step, and those of the metric in its implicit equation.
func (k RMHMC) Gradients() int { return k.Leapfrogs * (1 + k.Iterations) }

// Step moves every row once.
func (k RMHMC) Step(t Target, p Point, eps *Node, n Noise) (Point, Info) {
	q, at := p, p.X
	logDensity := func(x *Node) Point { // once for each place: the implicit equations ask again and again
		if x != at {
			q, at = t.At(x), x
		}
		return q
	}
	force := func(x, momentum *Node) *Node { return Sub(logDensity(x).Grad, k.kineticGradient(x, momentum)) }
	velocity := func(x, momentum *Node) *Node { return k.Metric.at(x).solve(momentum) }

	x, momentum := p.X, k.Metric.at(p.X).root(n.Z)
	current := Sub(k.kinetic(x, momentum), p.LogP)
	step := integrators.GeneralisedLeapfrog{Iterations: k.Iterations}
	var residual *Node
	for range k.Leapfrogs {
		var moved *Node
		x, momentum, moved = step.Step(force, velocity, x, momentum, eps)
		if residual == nil {
			residual = moved
		} else {
			residual = Max(residual, moved)
		}
	}
	q = logDensity(x)
	next, info := t.hamiltonian(p, q, momentum, current, Sub(k.kinetic(x, momentum), q.LogP), n.U)
	info.Residual = residual
	return next, info
}

// kinetic is ½ pᵀG(x)⁻¹p + ½ log|G(x)|, [rows].
func (k RMHMC) kinetic(x, p *Node) *Node {
	g := k.Metric.at(x)
	return MulScalar(Add(ReduceSum(Mul(p, g.solve(p)), -1), g.logDet()), 0.5)
}

// kineticGradient is its gradient in x, [rows, dim].
func (k RMHMC) kineticGradient(x, p *Node) *Node {
	x = Identity(StopGradient(x)) // as in Target.At
	return StopGradient(Gradient(ReduceAllSum(k.kinetic(x, StopGradient(p))), x)[0])
}

// factor is G = LLᵀ at some states.
type factor interface {
	root(z *Node) *Node  // Lz, with covariance G for a standard normal z
	solve(p *Node) *Node // G⁻¹p
	logDet() *Node       // log|G|, [rows]
}

func (m Metric) at(x *Node) factor {
	switch {
	case m.Diagonal != nil && m.Dense == nil:
		return diagonal{m.Diagonal(x)}
	case m.Dense != nil && m.Diagonal == nil:
		return cholesky(m.Dense(x))
	}
	panic(fmt.Errorf("samplers: metric: want one of Diagonal and Dense"))
}

type diagonal struct{ g *Node }

func (d diagonal) root(z *Node) *Node  { return Mul(Sqrt(d.g), z) }
func (d diagonal) solve(p *Node) *Node { return Div(p, d.g) }
func (d diagonal) logDet() *Node       { return ReduceSum(Log(d.g), -1) }

// lower is a lower triangular L, element by element: L[i][j] is [rows], j ≤ i.
type lower [][]*Node

// cholesky factors G [rows, dim, dim], unrolled. A G that is not positive definite gives NaN.
func cholesky(g *Node) lower {
	dims := g.Shape().Dimensions
	if len(dims) != 3 || dims[1] != dims[2] {
		panic(fmt.Errorf("samplers: a metric of %s, want [rows, dim, dim]", g.Shape()))
	}
	l := make(lower, dims[1])
	for i := range l {
		l[i] = make([]*Node, i+1)
		for j := range i + 1 {
			sum := Reshape(Slice(g, AxisRange(), AxisElem(i), AxisElem(j)), dims[0])
			for k := range j {
				sum = Sub(sum, Mul(l[i][k], l[j][k]))
			}
			if i == j {
				l[i][i] = Sqrt(sum)
			} else {
				l[i][j] = Div(sum, l[j][j])
			}
		}
	}
	return l
}

func (l lower) root(z *Node) *Node {
	from, to := columns(z), make([]*Node, len(l))
	for i := range l {
		to[i] = Mul(l[i][0], from[0])
		for j := 1; j <= i; j++ {
			to[i] = Add(to[i], Mul(l[i][j], from[j]))
		}
	}
	return rowsOf(to)
}

// solve goes forward through L and back through Lᵀ.
func (l lower) solve(p *Node) *Node {
	y := columns(p)
	for i := range l {
		for j := range i {
			y[i] = Sub(y[i], Mul(l[i][j], y[j]))
		}
		y[i] = Div(y[i], l[i][i])
	}
	for i := len(l) - 1; i >= 0; i-- {
		for j := i + 1; j < len(l); j++ {
			y[i] = Sub(y[i], Mul(l[j][i], y[j]))
		}
		y[i] = Div(y[i], l[i][i])
	}
	return rowsOf(y)
}

func (l lower) logDet() *Node {
	sum := Log(l[0][0])
	for i := 1; i < len(l); i++ {
		sum = Add(sum, Log(l[i][i]))
	}
	return MulScalar(sum, 2)
}

// columns are those of x [rows, dim], each [rows].
func columns(x *Node) []*Node {
	out := make([]*Node, x.Shape().Dimensions[1])
	for i := range out {
		out[i] = Reshape(Slice(x, AxisRange(), AxisElem(i)), x.Shape().Dimensions[0])
	}
	return out
}

func rowsOf(columns []*Node) *Node {
	wide := make([]*Node, len(columns))
	for i, c := range columns {
		wide[i] = ExpandAxes(c, -1)
	}
	return Concatenate(wide, -1)
}
