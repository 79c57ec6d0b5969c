package models

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// TransformerConfig says how a [ConditionalTransformer2D] and a [DiT] are built.
type TransformerConfig struct {
	InChannels   int
	OutChannels  int    // 0: as InChannels
	Size         [2]int // height and width of the image
	PatchSize    int    // p, divides both
	EmbedDim     int    // D
	Depth        int    // blocks
	NumHeads     int    // divides D
	MLPRatio     float64
	CondDim      int     // width of the vector c; 0: as EmbedDim
	HeadDim      int     // width of the blocks before the head; 0: as EmbedDim
	HeadDepth    int     // number of those blocks
	HeadNumHeads int     // 0: as NumHeads
	PosEmbed     string  // one of PosEmbeds
	NumClasses   int     // DiT: labels; 0 for none
	Frequencies  int     // DiT: width of the cosines and sines of the time
	TimeScale    float64 // DiT: multiplies the time, see [TimestepEmbedder]
}

// PosEmbeds are the ways to tell tokens where they are: fixed sines and cosines, a table that is trained, or nothing.
func PosEmbeds() []string { return []string{"sincos", "learnable", "none"} }

// presets are the sizes of Peebles and Xie (2023): width, depth and heads by letter.
var presets = map[string][3]int{"s": {384, 12, 6}, "b": {768, 12, 12}, "l": {1024, 24, 16}, "xl": {1152, 28, 16}}

// Presets are the names of the sizes of Peebles and Xie (2023), dit_s_2 to dit_xl_8; the number is the patch size.
func Presets() []string {
	var out []string
	for _, size := range slices.SortedFunc(maps.Keys(presets), func(a, b string) int { return presets[a][0] - presets[b][0] }) {
		for _, patch := range []int{2, 4, 8} {
			out = append(out, fmt.Sprintf("dit_%s_%d", size, patch))
		}
	}
	return out
}

// preset is what a preset sets, by key.
func preset(name string) map[string]int {
	if !slices.Contains(Presets(), name) {
		return nil
	}
	part := strings.Split(name, "_")
	size := presets[part[1]]
	patch, _ := strconv.Atoi(part[2])
	return map[string]int{"embed_dim": size[0], "depth": size[1], "num_heads": size[2], "patch_size": patch}
}

// filled replaces the zeros that stand for another setting.
func (c TransformerConfig) filled() TransformerConfig {
	or := func(v *int, value int) {
		if *v == 0 {
			*v = value
		}
	}
	or(&c.OutChannels, c.InChannels)
	or(&c.CondDim, c.EmbedDim)
	or(&c.HeadDim, c.EmbedDim)
	or(&c.HeadNumHeads, c.NumHeads)
	return c
}

// Validate reports every fault, each by its key.
func (c TransformerConfig) Validate() error {
	c = c.filled()
	var f faults
	f.atLeast("image", c.InChannels, 1)
	f.atLeast("image", c.OutChannels, 1)
	f.atLeast("patch_size", c.PatchSize, 1)
	for _, side := range c.Size {
		if side < 1 || c.PatchSize > 0 && side%c.PatchSize != 0 {
			f.add("patch_size", "%d, want a divisor of the image's sides %d and %d", c.PatchSize, c.Size[0], c.Size[1])
			break
		}
	}
	f.atLeast("embed_dim", c.EmbedDim, 1)
	f.atLeast("depth", c.Depth, 1)
	f.atLeast("head_depth", c.HeadDepth, 0)
	f.atLeast("cond_dim", c.CondDim, 1)
	f.heads("num_heads", c.NumHeads, "embed_dim", c.EmbedDim)
	f.atLeast("head_dim", c.HeadDim, 1)
	if c.HeadDepth > 0 {
		f.heads("head_num_heads", c.HeadNumHeads, "head_dim", c.HeadDim)
	}
	f.ratio("mlp_ratio", c.MLPRatio, min(c.EmbedDim, c.HeadDim))
	if !slices.Contains(PosEmbeds(), c.PosEmbed) {
		f.add("pos_embed", "%q, want one of %s", c.PosEmbed, strings.Join(PosEmbeds(), ", "))
	} else if c.PosEmbed == "sincos" && c.EmbedDim%4 != 0 {
		f.add("pos_embed", "sincos with embed_dim %d, want a multiple of 4", c.EmbedDim)
	}
	return f.err()
}

func (f *faults) atLeast(key string, v, least int) {
	if v < least {
		f.add(key, "%d, want at least %d", v, least)
	}
}

func (f *faults) heads(key string, heads int, widthKey string, width int) {
	if heads < 1 || width%heads != 0 {
		f.add(key, "%d, want a divisor of %s, %d", heads, widthKey, width)
	}
}

func (f *faults) ratio(key string, ratio float64, width int) {
	if !(ratio*float64(width) >= 1 && ratio <= 1e3) { // also refuses NaN; above, int would overflow before memory does
		f.add(key, "%g, want a positive number that gives a hidden layer of at least one unit", ratio)
	}
}

// ConditionalTransformer2D maps an image and a vector c to an image: patches become tokens, blocks of adaLN-Zero that c
// steers work on them, and a head makes patches of the tokens again. It is the transformer of Peebles and Xie (2023)
// behind its embedders; [DiT] makes c of a time and a label. Parameters have TorchEBM's names. The head starts at 0, and
// so does the image that comes out.
//
//	model, err := models.NewConditionalTransformer2D(models.TransformerConfig{InChannels: 1, Size: [2]int{8, 8},
//		PatchSize: 2, EmbedDim: 64, Depth: 3, NumHeads: 4, MLPRatio: 4, PosEmbed: "sincos"})
type ConditionalTransformer2D struct{ config TransformerConfig }

// NewConditionalTransformer2D makes the transformer.
func NewConditionalTransformer2D(config TransformerConfig) (*ConditionalTransformer2D, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	return &ConditionalTransformer2D{config.filled()}, nil
}

// Config is the configuration with its open settings filled.
func (m *ConditionalTransformer2D) Config() TransformerConfig { return m.config }

// Dim is the number of values of the image that goes in.
func (m *ConditionalTransformer2D) Dim() int {
	return m.config.InChannels * m.config.Size[0] * m.config.Size[1]
}

func (m *ConditionalTransformer2D) grid() [2]int {
	return [2]int{m.config.Size[0] / m.config.PatchSize, m.config.Size[1] / m.config.PatchSize}
}

// named is a part of the transformer and its name in a state dict.
type named struct {
	name string
	layer
}

// Params of a part are already below its name, and a table's own parameter has none.
func (n named) Params() []Param {
	if n.name == "" {
		return n.layer.Params()
	}
	return under(n.name, n.layer)
}

// positions is the trained table of positions, [1, tokens, D].
type positions struct{ tokens, dim int }

func (p positions) Params() []Param {
	// TorchEBM cuts the normal law at ±2, a hundred deviations away.
	return []Param{{Name: "pos_embed", Shape: []int{1, p.tokens, p.dim}, Init: normalInit(0.02)}}
}

// parts lists the parts in the order in which they work: positions (if trained), patch_embed, blocks, head_proj (if the
// width changes), head_blocks, head.
func (m *ConditionalTransformer2D) parts() []layer {
	c, grid := m.config, m.grid()
	var out []layer
	if c.PosEmbed == "learnable" {
		out = append(out, named{"", positions{grid[0] * grid[1], c.EmbedDim}})
	}
	out = append(out, named{"patch_embed", ConvPatchEmbed2D{c.InChannels, c.EmbedDim, c.PatchSize}})
	for i := range c.Depth {
		out = append(out, named{fmt.Sprintf("blocks.%d", i), AdaLNZeroBlock{EmbedDim: c.EmbedDim, NumHeads: c.NumHeads, CondDim: c.CondDim, MLPRatio: c.MLPRatio}})
	}
	if c.HeadDim != c.EmbedDim {
		out = append(out, named{"head_proj", xavierLinear(c.EmbedDim, c.HeadDim)})
	}
	for i := range c.HeadDepth {
		out = append(out, named{fmt.Sprintf("head_blocks.%d", i), AdaLNZeroBlock{EmbedDim: c.HeadDim, NumHeads: c.HeadNumHeads, CondDim: c.CondDim, MLPRatio: c.MLPRatio}})
	}
	return append(out, named{"head", AdaLNZeroPatchHead{EmbedDim: c.HeadDim, CondDim: c.CondDim, PatchSize: c.PatchSize, OutChannels: c.OutChannels, Grid: grid}})
}

// Params lists the parameters part by part.
func (m *ConditionalTransformer2D) Params() []Param {
	var out []Param
	for _, part := range m.parts() {
		out = append(out, part.Params()...)
	}
	return out
}

// Apply builds the images [batch, out channels, height, width] of images x [batch, channels, height, width] and vectors c
// [batch, CondDim], or [1, CondDim] for one that all images share.
func (m *ConditionalTransformer2D) Apply(x, c *Node, weights []*Node) *Node {
	out, _ := m.forward(x, c, weights)
	return out
}

// forward also gives the tokens that the head reads, [batch, tokens, HeadDim].
func (m *ConditionalTransformer2D) forward(x, c *Node, weights []*Node) (out, tokens *Node) {
	checkWeights("transformer", m.Params(), weights)
	if c.Rank() != 2 || c.Shape().Dimensions[1] != m.config.CondDim {
		panic(fmt.Errorf("models: transformer: vectors %s, want [batch, %d]", c.Shape(), m.config.CondDim))
	}
	grid := m.grid()
	parts := m.parts()
	var table *Node
	if m.config.PosEmbed == "sincos" {
		values := SinCosPositions2D(m.config.EmbedDim, grid[0], grid[1])
		table = Reshape(ConstAs(x, values), 1, grid[0]*grid[1], m.config.EmbedDim)
	}
	for i, w := range deal(weights, parts...) {
		switch part := parts[i].(named).layer.(type) {
		case positions:
			table = w[0]
		case ConvPatchEmbed2D:
			if tokens = part.Apply(x, w); table != nil {
				tokens = Add(tokens, table)
			}
		case AdaLNZeroBlock:
			tokens = part.Apply(tokens, c, w)
		case linear:
			tokens = apply(tokens, w)
		case AdaLNZeroPatchHead:
			out = part.Apply(tokens, c, w)
		}
	}
	return out, tokens
}
