package losses

import (
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
)

// ScoreMatching is the loss mean ½‖∇E‖² − tr ∇²E, which differs from the Fisher divergence between the data and exp(−E)
// by a constant of the data (Hyvärinen 2005). A field f stands for ∇E.
type ScoreMatching struct {
	// Probes is the number of random directions v that estimate the trace of a row, tr ∇²E = E[vᵀ∇²E v] (Hutchinson 1989);
	// 0 for the exact trace, which costs a pass a coordinate.
	Probes int
	// ProbeType is the law of the directions, rademacher or gaussian.
	ProbeType string
	// Quotient estimates vᵀ∇²E v as TorchEBM 0.8.9 does, by (∇E(x + εv) − ∇E(x))·v/(ε·dim) with ε = 1e-5. The division by
	// the dimension makes the optimum wrong by that factor, and float32 loses the digits of the difference.
	Quotient bool
	Penalties
}

// quotientStep is TorchEBM's step of a difference quotient.
const quotientStep = 1e-5

// Needs implements [Loss].
func (l ScoreMatching) Needs(batch, dim int) Needs {
	if l.Probes == 0 {
		return Needs{}
	}
	return Needs{Draws: []Draw{{Name: "probes", Dims: []int{l.Probes, batch, dim}}}}
}

// Build implements [Loss].
func (l ScoreMatching) Build(m Model, in Batch) Result {
	s := m.at(in.X, nil, in.Labels)
	v, scale := unitVectors(s.x), 1.0
	if l.Probes > 0 {
		v, scale = directions(in.Draws[0], l.ProbeType), 1/float64(l.Probes)
	}
	var trace *Node
	if l.Quotient {
		trace = m.quotients(in, s, v)
	} else {
		trace = m.curvatures(in, s, v)
	}
	loss := ReduceAllMean(Sub(MulScalar(rowSum(Square(s.slope)), 0.5), MulScalar(trace, scale)))
	return l.Penalties.addAt(s, m, in, Result{Loss: loss})
}

// fewPasses is the number of backward passes that share one forward pass; more are done at once on copies of the batch,
// which keeps the graph, and with it the time to compile it, small.
const fewPasses = 8

// curvatures builds Σₖ vₖᵀ∇²E vₖ of each row, [batch], for directions v [k, batch, dim] or [k, 1, dim], held constant.
func (m Model) curvatures(in Batch, s state, v *Node) *Node {
	k := v.Shape().Dimensions[0]
	batch, dim := s.x.Shape().Dimensions[0], s.x.Shape().Dimensions[1]
	if k > fewPasses {
		tiled := m.at(repeat(s.x, k), nil, repeat(in.Labels, k))
		each := tiled.alongHessian(Reshape(BroadcastToDims(v, k, batch, dim), k*batch, dim))
		return ReduceSum(Reshape(each, k, batch), 0)
	}
	var total *Node
	for i := range k {
		total = sum(total, s.alongHessian(nth(v, i)))
	}
	return total
}

// quotients is curvatures by TorchEBM's difference quotient.
func (m Model) quotients(in Batch, s state, v *Node) *Node {
	var total *Node
	for i := range v.Shape().Dimensions[0] {
		v := nth(v, i)
		step := Sub(m.at(Add(s.x, MulScalar(v, quotientStep)), nil, in.Labels).slope, s.slope)
		total = sum(total, rowSum(Mul(step, v)))
	}
	return DivScalar(total, quotientStep*float64(s.x.Shape().Dimensions[1]))
}

// unitVectors are the coordinate directions of states x [batch, dim], [dim, 1, dim].
func unitVectors(x *Node) *Node {
	dim := x.Shape().Dimensions[1]
	square := shapes.Make(x.DType(), dim, 1, dim)
	return ConvertDType(Equal(Iota(x.Graph(), square, 0), Iota(x.Graph(), square, 2)), x.DType())
}

// nth is element i along the first axis. A slice has no second derivative in GoMLX v0.26, so it is for constants only.
func nth(v *Node, i int) *Node {
	v = Slice(v, AxisElem(i))
	return StopGradient(Reshape(v, v.Shape().Dimensions[1:]...))
}

// repeat is k copies of the rows of x one after the other; nil for nil.
func repeat(x *Node, k int) *Node {
	if x == nil {
		return nil
	}
	dims := x.Shape().Dimensions
	all := BroadcastToDims(Reshape(x, append([]int{1}, dims...)...), append([]int{k}, dims...)...)
	return Reshape(all, append([]int{k * dims[0]}, dims[1:]...)...)
}

// sum is a + b, with nil for nothing.
func sum(a, b *Node) *Node {
	if a == nil {
		return b
	}
	return Add(a, b)
}
