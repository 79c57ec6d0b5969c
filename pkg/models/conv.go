package models

import (
	"fmt"
	"math"
	"slices"
	"strings"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// ConvConfig says how a Conv is built.
type ConvConfig struct {
	Image        [3]int // channels, height and width of a state
	Channels     []int  // channels of each stage, at least one stage
	Blocks       int    // residual blocks a stage
	Activation   string // one of Activations
	SpectralNorm bool   // divide every kernel by its largest singular value
}

// Conv is the energy of a residual convolutional network for images, after Du and Mordatch (2019), without
// normalisation over the batch, which would couple the rows. A state is an image [channels, height, width], row by row.
//
//	h ← stem ∗ x
//	h ← shortcut(h) + conv2 ∗ φ(conv1 ∗ φ(h))    each block; the first of a stage changes the number of channels
//	h ← mean over 2×2 pixels                     between two stages
//	E = head · Σ φ(h)                            sum over pixels
//
// Kernels are 3×3 with a margin of zeros, [out, in, 3, 3]. The shortcut is the identity where the number of channels stays
// and a 1×1 kernel without a bias where it changes. Parameters: stem, blocks.i.conv1, blocks.i.conv2, blocks.i.shortcut and
// head. First values are PyTorch's, U(±1/√fan_in).
type Conv struct {
	dim        int
	config     ConvConfig
	activation func(*Node) *Node
	params     []Param
}

// NewConv makes the network.
func NewConv(config ConvConfig) (*Conv, error) {
	var f faults
	halvings := max(len(config.Channels)-1, 0)
	for i, size := range config.Image {
		side := []string{"channels", "height", "width"}[i]
		switch {
		case size < 1:
			f.add("image", "%s %d, want at least 1", side, size)
		case i > 0 && (halvings > 16 || size%(1<<halvings) != 0):
			f.add("image", "%s %d, want a multiple of %d, which %d stages can halve", side, size, 1<<min(halvings, 16), halvings+1)
		}
	}
	if len(config.Channels) == 0 {
		f.add("channels", "empty, want the channels of at least one stage")
	}
	for i, c := range config.Channels {
		if c < 1 {
			f.add("channels", "stage %d has %d, want at least 1", i, c)
		}
	}
	if config.Blocks < 1 {
		f.add("blocks", "%d, want at least 1", config.Blocks)
	}
	act := activations[config.Activation]
	if act == nil {
		f.add("activation", "%q, want one of %s", config.Activation, strings.Join(Activations(), ", "))
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	config.Channels = slices.Clone(config.Channels)
	m := &Conv{dim: config.Image[0] * config.Image[1] * config.Image[2], config: config, activation: act}
	m.conv("stem", config.Image[0], config.Channels[0])
	m.eachBlock(func(i, in, out int, _ bool) {
		name := fmt.Sprintf("blocks.%d.", i)
		m.conv(name+"conv1", in, out)
		m.conv(name+"conv2", out, out)
		if in != out {
			m.add(name+"shortcut.weight", in, out, in, 1, 1)
		}
	})
	last := config.Channels[len(config.Channels)-1]
	m.add("head.weight", last, 1, last)
	m.add("head.bias", last, 1)
	return m, nil
}

func (m *Conv) add(name string, fanIn int, shape ...int) {
	m.params = append(m.params, Param{Name: name, Shape: shape, Init: uniformInit(1 / math.Sqrt(float64(fanIn)))})
}

func (m *Conv) conv(name string, in, out int) {
	m.add(name+".weight", taps*in, out, in, kernelSize, kernelSize)
	m.add(name+".bias", taps*in, out)
}

// eachBlock visits the residual blocks: their channels, and whether the image is halved before.
func (m *Conv) eachBlock(visit func(i, in, out int, halve bool)) {
	in := m.config.Channels[0]
	for stage, out := range m.config.Channels {
		for b := range m.config.Blocks {
			visit(stage*m.config.Blocks+b, in, out, stage > 0 && b == 0)
			in = out
		}
	}
}

// imageOf reads the option image; left out, a state of dim numbers is a square image of one channel.
func imageOf(image []int, dim int) (size [3]int, err error) {
	if len(image) == 0 {
		side := int(math.Round(math.Sqrt(float64(dim))))
		if side*side != dim {
			return size, fmt.Errorf("image: missing, and %d numbers are no square: want [channels, height, width]", dim)
		}
		return [3]int{1, side, side}, nil
	}
	if len(image) != 3 {
		return size, fmt.Errorf("image: %d numbers, want three, [channels, height, width]", len(image))
	}
	return [3]int(image), nil
}

// Dim is the number of coordinates of a state.
func (m *Conv) Dim() int { return m.dim }

// Params lists the kernels and biases, from the stem to the head.
func (m *Conv) Params() []Param { return slices.Clone(m.params) }

// Energy builds E(x), [batch].
func (m *Conv) Energy(x *Node, weights []*Node) *Node { return m.Prepare(weights)(x) }

// Prepare makes of every kernel [out, in, 3, 3] the matrix [9·in, out] that a convolution multiplies by, divided by its
// largest singular value where the network asks for it.
func (m *Conv) Prepare(weights []*Node) Fn {
	checkWeights("conv", m.params, weights)
	ready := map[string]*Node{}
	for i, p := range m.params {
		w := weights[i]
		if len(p.Shape) == 1 {
			ready[p.Name] = w
			continue
		}
		out, in := p.Shape[0], p.Shape[1]
		if m.config.SpectralNorm {
			w = spectralNormalised(Reshape(w, out, p.Size()/out))
		}
		ready[p.Name] = Reshape(TransposeAllAxes(Reshape(w, out, in, -1), 2, 1, 0), p.Size()/out, out)
	}
	return func(x *Node) *Node { return m.forward(x, ready) }
}

func (m *Conv) forward(x *Node, weights map[string]*Node) *Node {
	analytic{"conv", m.dim}.check(x)
	batch := x.Shape().Dimensions[0]
	conv := func(name string, h *Node) *Node {
		return addBias(convolve(h, weights[name+".weight"]), weights[name+".bias"])
	}
	h := Reshape(x, batch, m.config.Image[0], m.config.Image[1], m.config.Image[2])
	h = conv("stem", TransposeAllAxes(h, 0, 2, 3, 1)) // channels last
	m.eachBlock(func(i, in, out int, halve bool) {
		if halve {
			h = halved(h)
		}
		name := fmt.Sprintf("blocks.%d.", i)
		change := conv(name+"conv2", m.activation(conv(name+"conv1", m.activation(h))))
		if in != out {
			h = mixChannels(h, weights[name+"shortcut.weight"])
		}
		h = Add(h, change)
	})
	pooled := ReduceSum(m.activation(h), 1, 2) // [batch, channels]
	return Reshape(addBias(Dot(pooled, weights["head.weight"]), weights["head.bias"]), batch)
}

// halved is the mean over 2×2 pixels, [batch, height, width, channels] → [batch, height/2, width/2, channels].
func halved(h *Node) *Node {
	d := h.Shape().Dimensions
	return ReduceMean(Reshape(h, d[0], d[1]/2, 2, d[2]/2, 2, d[3]), 2, 4)
}
