package models

import (
	"fmt"
	"math"
	"slices"

	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
)

// TimestepEmbedder is a vector for a time t: Linear – SiLU – Linear of the cosines and then the sines of t·f_k,
// f_k = 10000^(−k/n), k < n = ⌊Frequencies/2⌋. TorchEBM calls it MLPTimestepEmbedder; its parameters are mlp.0 and mlp.2.
type TimestepEmbedder struct {
	OutDim      int
	Frequencies int // width of the cosines and sines; where it is odd, a column of zeros fills up
	// Scale multiplies t. The frequencies were made for t up to 1000: for t in [0, 1] a scale of 1 leaves most of them
	// nearly constant.
	Scale float64
}

func (e TimestepEmbedder) parts() (linear, linear) {
	small := normalInit(0.02)
	return linear{e.Frequencies, e.OutDim, small, zeroInit}, linear{e.OutDim, e.OutDim, small, zeroInit}
}

// Params lists mlp.0 and mlp.2.
func (e TimestepEmbedder) Params() []Param {
	first, last := e.parts()
	return append(under("mlp.0", first), under("mlp.2", last)...)
}

// Sinusoid builds the cosines and sines [batch, Frequencies] of t [batch].
func (e TimestepEmbedder) Sinusoid(t *Node) *Node {
	f := timeFrequencies(e.Frequencies / 2)
	batch := t.Shape().Dimensions[0]
	angle := Mul(Reshape(MulScalar(t, e.Scale), batch, 1), constRow(t, f))
	columns := []*Node{Cos(angle), Sin(angle)}
	if e.Frequencies%2 == 1 {
		columns = append(columns, Zeros(t.Graph(), shapes.Make(t.DType(), batch, 1)))
	}
	return Concatenate(columns, -1)
}

// timeFrequencies are 10000^(−k/n), k < n.
func timeFrequencies(n int) []float64 {
	f := make([]float64, n)
	for k := range f {
		f[k] = math.Pow(10000, -float64(k)/float64(n))
	}
	return f
}

// Apply builds the vectors [batch, OutDim] of t [batch].
func (e TimestepEmbedder) Apply(t *Node, weights []*Node) *Node {
	return apply(silu(apply(e.Sinusoid(t), weights[:2])), weights[2:])
}

// LabelEmbedder is a table of vectors, embedding.weight [NumClasses + 1, OutDim], one a label; the last one is that of the
// null label NumClasses, "no label".
type LabelEmbedder struct {
	NumClasses int
	OutDim     int
}

// Params lists embedding.weight.
func (e LabelEmbedder) Params() []Param {
	return []Param{{Name: "embedding.weight", Shape: []int{e.NumClasses + 1, e.OutDim}, Init: normalInit(0.02)}}
}

// Apply builds the vectors [batch, OutDim] of labels [batch], whole numbers from 0 to NumClasses.
func (e LabelEmbedder) Apply(labels *Node, weights []*Node) *Node {
	return Gather(weights[0], Reshape(labels, labels.Shape().Dimensions[0], 1))
}

// DropLabels replaces labels [batch] by the null label where drop [batch] is not 0: a field that is trained with some
// labels dropped also learns the law without them, which guidance needs (Ho and Salimans 2021). It is for a training loop
// of one's own; that of an experiment drops labels on the host, by loss.label_dropout.
func DropLabels(labels, drop *Node, null int) *Node {
	return Where(NotEqual(drop, ZerosLike(drop)), Const(labels.Graph(), int32(null)), labels)
}

// conditioner makes the vector c that steers a field: the sum of what a time and a label give.
type conditioner struct {
	time  TimestepEmbedder
	label LabelEmbedder // NumClasses 0: none
}

// Params lists t_embedder and, with labels, y_embedder.
func (c conditioner) Params() []Param {
	params := under("t_embedder", c.time)
	if c.label.NumClasses > 0 {
		params = append(params, under("y_embedder", c.label)...)
	}
	return params
}

// embed builds c [batch, cond] of t [batch] and labels y [batch] int32; either may be nil, which leaves its term out.
func (c conditioner) embed(t, y *Node, weights []*Node) *Node {
	if y != nil && c.label.NumClasses == 0 {
		panic(fmt.Errorf("models: labels for a field that knows none, want num_classes above 0"))
	}
	n := len(c.time.Params())
	switch {
	case t == nil && y == nil:
		panic(fmt.Errorf("models: neither a time nor a label, want one of them"))
	case t == nil:
		return c.label.Apply(y, weights[n:])
	case y == nil:
		return c.time.Apply(t, weights[:n])
	}
	return Add(c.time.Apply(t, weights[:n]), c.label.Apply(y, weights[n:]))
}

// complete gives what a [Field] is called without: time 0 and the null label. Where both are left out the result is one
// row for the whole batch.
func (c conditioner) complete(x, t, y *Node) (*Node, *Node) {
	batch := 1
	for _, n := range []*Node{t, y} {
		if n != nil {
			batch = x.Shape().Dimensions[0]
			if !slices.Equal(n.Shape().Dimensions, []int{batch}) {
				panic(fmt.Errorf("models: times or labels %s, want [%d] as the batch", n.Shape(), batch))
			}
		}
	}
	if t == nil {
		t = Zeros(x.Graph(), shapes.Make(x.DType(), batch))
	}
	if y == nil && c.label.NumClasses > 0 {
		y = Const(x.Graph(), slices.Repeat([]int32{int32(c.label.NumClasses)}, batch))
	}
	return t, y
}
