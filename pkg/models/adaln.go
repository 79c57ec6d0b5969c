package models

import (
	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// modulation is the Linear(cond, n·D) that makes shifts, scales and gates of SiLU(c). It starts at 0.
type modulation struct{ cond, n, dim int }

func (m modulation) Params() []Param { return under("1", zeroLinear(m.cond, m.n*m.dim)) } // 0 is the SiLU

// apply builds the n vectors, [batch, D] or, for what tokens share, [batch, 1, D]. GoMLX v0.26 has no second derivative
// through Slice, and none is asked for here: c is of a time and a label, not of the state.
func (m modulation) apply(c *Node, tokens bool, weights []*Node) []*Node {
	all := apply(silu(c), weights)
	out := make([]*Node, m.n)
	for k := range out {
		if out[k] = Slice(all, AxisRange(), AxisRange(k*m.dim, (k+1)*m.dim)); tokens {
			out[k] = ExpandAxes(out[k], 1)
		}
	}
	return out
}

// modulate is h(1 + scale) + shift.
func modulate(h, shift, scale *Node) *Node { return Add(Mul(h, AddScalar(scale, 1)), shift) }

// AdaLNZeroBlock is a transformer block that a vector c steers (Peebles and Xie 2023, adaLN-Zero): c gives a shift b, a
// scale s and a gate g to each of its two halves,
//
//	x ← x + g₁·Attention(LN(x)(1 + s₁) + b₁)
//	x ← x + g₂·FeedForward(LN(x)(1 + s₂) + b₂)
//
// with (b₁, s₁, g₁, b₂, s₂, g₂) = Linear(SiLU(c)). That layer starts at 0, so the block starts as the identity.
type AdaLNZeroBlock struct {
	EmbedDim int     // D
	NumHeads int     // divides D
	CondDim  int     // width of c
	MLPRatio float64 // width of the feed-forward's hidden layer, in units of D
	Eps      float64 // added to the variance of the layer norms; 0 stands for 1e-6
}

func (b AdaLNZeroBlock) parts() (MultiheadSelfAttention, FeedForward, modulation) {
	return MultiheadSelfAttention{b.EmbedDim, b.NumHeads}, FeedForward{EmbedDim: b.EmbedDim, Ratio: b.MLPRatio}, modulation{b.CondDim, 6, b.EmbedDim}
}

// Params lists attn, mlp and modulation.
func (b AdaLNZeroBlock) Params() []Param {
	attn, mlp, m := b.parts()
	return append(append(under("attn", attn), under("mlp", mlp)...), under("modulation", m)...)
}

// Apply builds the block for tokens x [batch, tokens, D] and c [batch, CondDim], or [1, CondDim] for one that all share.
func (b AdaLNZeroBlock) Apply(x, c *Node, weights []*Node) *Node {
	attn, mlp, m := b.parts()
	w := deal(weights, attn, mlp, m)
	v := m.apply(c, true, w[2])
	x = Add(x, Mul(v[2], attn.Apply(modulate(layerNorm(x, b.Eps), v[0], v[1]), w[0])))
	return Add(x, Mul(v[5], mlp.Apply(modulate(layerNorm(x, b.Eps), v[3], v[4]), w[1])))
}

// AdaLNZeroMLPBlock is the second half of an AdaLNZeroBlock on plain vectors, x + g·FeedForward(LN(x)(1 + s) + b).
type AdaLNZeroMLPBlock struct {
	EmbedDim   int
	CondDim    int
	MLPRatio   float64
	Activation string  // of the feed-forward
	Eps        float64 // 0 stands for 1e-6
}

func (b AdaLNZeroMLPBlock) parts() (FeedForward, modulation) {
	return FeedForward{b.EmbedDim, b.MLPRatio, b.Activation}, modulation{b.CondDim, 3, b.EmbedDim}
}

// Params lists mlp and modulation.
func (b AdaLNZeroMLPBlock) Params() []Param {
	mlp, m := b.parts()
	return append(under("mlp", mlp), under("modulation", m)...)
}

// Apply builds the block for x [batch, D] and c [batch or 1, CondDim].
func (b AdaLNZeroMLPBlock) Apply(x, c *Node, weights []*Node) *Node {
	mlp, m := b.parts()
	w := deal(weights, mlp, m)
	v := m.apply(c, false, w[1])
	return Add(x, Mul(v[2], mlp.Apply(modulate(layerNorm(x, b.Eps), v[0], v[1]), w[0])))
}

// AdaLNZeroLinearHead is the last layer on vectors or tokens, Linear(LN(x)(1 + s) + b). It starts at 0, and so does what
// it puts out.
type AdaLNZeroLinearHead struct {
	EmbedDim int // D
	CondDim  int
	OutDim   int
	Eps      float64 // 0 stands for 1e-6
}

func (h AdaLNZeroLinearHead) parts() (modulation, linear) {
	return modulation{h.CondDim, 2, h.EmbedDim}, zeroLinear(h.EmbedDim, h.OutDim)
}

// Params lists modulation and proj.
func (h AdaLNZeroLinearHead) Params() []Param {
	m, proj := h.parts()
	return append(under("modulation", m), under("proj", proj)...)
}

// Apply builds the layer for x [batch, D] or [batch, tokens, D] and c [batch or 1, CondDim].
func (h AdaLNZeroLinearHead) Apply(x, c *Node, weights []*Node) *Node {
	m, proj := h.parts()
	w := deal(weights, m, proj)
	v := m.apply(c, x.Rank() == 3, w[0])
	return apply(modulate(layerNorm(x, h.Eps), v[0], v[1]), w[1])
}

// AdaLNZeroPatchHead turns the tokens of a grid into an image: an AdaLNZeroLinearHead for the p²·channels values of a
// patch, put in its place.
type AdaLNZeroPatchHead struct {
	EmbedDim    int
	CondDim     int
	PatchSize   int // p
	OutChannels int
	Grid        [2]int  // rows and columns of patches
	Eps         float64 // 0 stands for 1e-6
}

func (h AdaLNZeroPatchHead) linear() AdaLNZeroLinearHead {
	return AdaLNZeroLinearHead{h.EmbedDim, h.CondDim, h.PatchSize * h.PatchSize * h.OutChannels, h.Eps}
}

// Params lists modulation and proj.
func (h AdaLNZeroPatchHead) Params() []Param { return h.linear().Params() }

// Apply builds the image [batch, channels, height, width] of tokens [batch, rows·columns, D].
func (h AdaLNZeroPatchHead) Apply(tokens, c *Node, weights []*Node) *Node {
	return Unpatchify2D(h.linear().Apply(tokens, c, weights), h.PatchSize, h.Grid)
}
