package models

import (
	"slices"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// Guidance says how strongly labels pull: with c what a model gives for the label and u what it gives for none, the
// guided value is u + w(c − u).
type Guidance struct {
	Scale float64 // w: 0 gives u, 1 gives c, more exaggerates the label
	Null  int     // the null label
	// Coordinates, if not 0, guides only the first so many coordinates and leaves u in the others. The first n channels of
	// an image [channels, height, width] are its first n·height·width coordinates.
	Coordinates int
}

// ClassifierFreeGuidance builds the guided field (Ho and Salimans 2021). Without labels it is f itself. It calls f once,
// on a batch of twice the size.
func ClassifierFreeGuidance(f FieldFn, g Guidance) FieldFn {
	return func(x, t, y *Node) *Node {
		if y == nil {
			return f(x, t, nil)
		}
		if g.Scale == 0 {
			return f(x, t, g.nullLike(y))
		}
		if t != nil {
			t = twice(t)
		}
		return g.mix(f(twice(x), t, Concatenate([]*Node{y, g.nullLike(y)}, 0)))
	}
}

// GuidedEnergy builds the guided energy E(x, y) → [batch], whose gradient is the guided score. It guides every coordinate,
// for an energy has one value.
func GuidedEnergy(energy func(x, y *Node) *Node, g Guidance) func(x, y *Node) *Node {
	g.Coordinates = 0
	f := ClassifierFreeGuidance(func(x, _, y *Node) *Node { return energy(x, y) }, g)
	return func(x, y *Node) *Node { return f(x, nil, y) }
}

// LabelClassifierFreeGuidance builds the guided field by the rule of TorchEBM's first releases, which its introduction
// describes: above a scale of 1 it is [ClassifierFreeGuidance]; at 1 and below, 0 and negative scales too, it is what f
// gives for the label, as if there were no guidance. A scale of 0 or ½ thus does not weaken the label, as it does there.
func LabelClassifierFreeGuidance(f FieldFn, g Guidance) FieldFn {
	if g.Scale <= 1 {
		return f
	}
	return ClassifierFreeGuidance(f, g)
}

func (g Guidance) nullLike(y *Node) *Node {
	return Const(y.Graph(), slices.Repeat([]int32{int32(g.Null)}, y.Shape().Dimensions[0]))
}

// twice is a batch, and the same again after it.
func twice(x *Node) *Node {
	dims := x.Shape().Dimensions
	return Reshape(BroadcastPrefix(x, 2), append([]int{2 * dims[0]}, dims[1:]...)...)
}

// mix weighs the two halves of a batch, with label and without: w·c + (1 − w)·u, and u where no coordinate is guided.
func (g Guidance) mix(both *Node) *Node {
	dims := both.Shape().Dimensions
	both = Reshape(both, append([]int{2, dims[0] / 2}, dims[1:]...)...)
	if g.Coordinates == 0 || both.Rank() < 3 {
		shape := append([]int{2}, slices.Repeat([]int{1}, both.Rank()-1)...)
		return ReduceSum(Mul(both, Reshape(ConstAs(both, []float64{g.Scale, 1 - g.Scale}), shape...)), 0)
	}
	weights := make([]float64, 2*dims[1])
	for i := range dims[1] {
		w := 0.0
		if i < g.Coordinates {
			w = g.Scale
		}
		weights[i], weights[dims[1]+i] = w, 1-w
	}
	return ReduceSum(Mul(both, Reshape(ConstAs(both, weights), 2, 1, dims[1])), 0)
}
