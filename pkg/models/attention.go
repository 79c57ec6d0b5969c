package models

import (
	"fmt"
	"math"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// MultiheadSelfAttention is softmax(q kᵀ/√h) v over the tokens of a state, h the width of a head, without a mask (Vaswani
// et al. 2017). qkv makes [queries | keys | values], each head by head; out_proj mixes the heads.
type MultiheadSelfAttention struct {
	EmbedDim int // D
	NumHeads int // divides D
}

func (a MultiheadSelfAttention) parts() []layer {
	return []layer{xavierLinear(a.EmbedDim, 3*a.EmbedDim), xavierLinear(a.EmbedDim, a.EmbedDim)}
}

// Params lists qkv and out_proj.
func (a MultiheadSelfAttention) Params() []Param {
	p := a.parts()
	return append(under("qkv", p[0]), under("out_proj", p[1])...)
}

// Apply builds the attention of tokens x [batch, tokens, D].
func (a MultiheadSelfAttention) Apply(x *Node, weights []*Node) *Node {
	if a.NumHeads < 1 || a.EmbedDim%a.NumHeads != 0 {
		panic(fmt.Errorf("models: num_heads: %d, want a divisor of %d, the width", a.NumHeads, a.EmbedDim))
	}
	w := deal(weights, a.parts()...)
	batch, tokens, width := x.Shape().Dimensions[0], x.Shape().Dimensions[1], a.EmbedDim/a.NumHeads
	heads := func(k int) *Node { return Reshape(apply(x, chunk(w[0], k, 3)), batch, tokens, a.NumHeads, width) }
	q, k, v := heads(0), heads(1), heads(2)
	scores := DotGeneral(q, []int{3}, []int{0, 2}, k, []int{3}, []int{0, 2}) // [batch, heads, tokens, tokens]
	attention := softmax(MulScalar(scores, 1/math.Sqrt(float64(width))))
	mixed := DotGeneral(attention, []int{3}, []int{0, 1}, v, []int{1}, []int{0, 2}) // [batch, heads, tokens, width]
	return apply(Reshape(Transpose(mixed, 1, 2), batch, tokens, a.EmbedDim), w[1])
}
