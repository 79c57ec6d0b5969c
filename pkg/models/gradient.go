package models

import (
	"fmt"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// Fn builds an energy: x [batch, dim] → [batch].
type Fn = func(x *Node) *Node

// Preparer is an energy that can do work on its weights once for many states, such as spectral normalisation. Prepare
// builds that part of the graph and returns the energy at these weights.
type Preparer interface {
	Prepare(weights []*Node) Fn
}

// At is the energy at given weights. Call it once for the weights and the result for each batch of states: chain steps
// then share what a [Preparer] does to the weights.
func At(e Energy, weights []*Node) Fn {
	if p, ok := e.(Preparer); ok {
		return p.Prepare(weights)
	}
	return func(x *Node) *Node { return e.Energy(x, weights) }
}

// EnergyAndGrad builds the energies [batch] and their gradients ∂E/∂x [batch, dim]. One reverse pass differentiates the
// sum over the batch, so an energy that couples rows gives the coupled gradient. Both results can be differentiated
// again, with respect to x and to weights. It is right for any x, also for one behind a StopGradient, at which GoMLX
// v0.26 gives zeros.
func EnergyAndGrad(energy Fn, x *Node) (e, grad *Node) {
	x = Pass(x)
	e = energy(x)
	if e.Rank() != 1 || x.Rank() < 1 || e.Shape().Dimensions[0] != x.Shape().Dimensions[0] {
		panic(fmt.Errorf("models: an energy of %s for states %s, want one number a row, [batch]", e.Shape(), x.Shape()))
	}
	return e, Gradient(ReduceAllSum(e), x)[0]
}

// Score builds the score s(x) = −∂E/∂x, [batch, dim].
func Score(energy Fn, x *Node) *Node {
	_, grad := EnergyAndGrad(energy, x)
	return Neg(grad)
}

// Pass is x under a new name, with respect to which the model can be differentiated alone, whatever is behind x: a
// StopGradient, at which GoMLX v0.26 gives zeros, or a graph that is not to be followed. A plain Identity has no gradient
// there; this one lets it through, to any order.
func Pass(x *Node) *Node {
	return IdentityWithCustomGradient(x, func(_, v *Node) *Node { return v })
}

// coordinates picks columns of x [batch, dim] and gives them as rows, [len(columns), batch]. It is a Gather, which has
// gradients of every order and copies bits; a product with a 0/1 matrix would round on devices that multiply in TF32.
func coordinates(x *Node, columns ...int) *Node {
	index := make([][]int32, len(columns))
	for i, c := range columns {
		index[i] = []int32{int32(c)}
	}
	return Gather(Transpose(x, 0, 1), Const(x.Graph(), index))
}

// coordinate is one column of x [batch, dim], as [batch].
func coordinate(x *Node, column int) *Node {
	return Reshape(coordinates(x, column), x.Shape().Dimensions[0])
}

// constRow is a vector as a row [1, n] of x's type.
func constRow(x *Node, v []float64) *Node { return Reshape(ConstAs(x, v), 1, len(v)) }

// analytic is the common part of the energies without parameters.
type analytic struct {
	kind string
	dim  int
}

func (a analytic) Dim() int        { return a.dim }
func (a analytic) Params() []Param { return nil }

// check panics unless x is [batch, dim]; backend.Compile makes an error of it.
func (a analytic) check(x *Node) {
	if x.Rank() != 2 || x.Shape().Dimensions[1] != a.dim {
		panic(fmt.Errorf("models: %s: states %s, want [batch, %d]", a.kind, x.Shape(), a.dim))
	}
}
