package models

import (
	"fmt"
	"slices"
	"strings"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// MLPConfig says how an MLP is built.
type MLPConfig struct {
	Hidden       []int   // widths of the hidden layers, at least one
	Activation   string  // one of Activations
	Init         string  // one of Inits
	InitStd      float64 // standard deviation of Init normal
	ZeroLast     bool    // the last layer starts at 0, so that the energy does
	SpectralNorm bool    // divide every weight matrix by its largest singular value
}

// MLP is the energy of a multilayer perceptron, Linear(dim, h₁) – activation – … – Linear(hₙ, 1), one number a row.
// With two hidden layers of 64 and SiLU it is the network of TorchEBM's introduction, with the same parameter names
// (net.0.weight, net.0.bias, net.2.weight, …), weights [out, in].
//
// It does not confine: E may fall without bound far from the data. Give it a base (see [WithBase]).
type MLP struct {
	kind       string
	dim        int
	config     MLPConfig
	activation func(*Node) *Node
	params     []Param
}

// NewMLP makes the network of a state of dim numbers.
func NewMLP(dim int, config MLPConfig) (*MLP, error) {
	return newPerceptron("mlp", dim, dim, 1, config)
}

// newPerceptron makes a network with in inputs and out outputs for a state of dim numbers.
func newPerceptron(kind string, dim, in, out int, config MLPConfig) (*MLP, error) {
	var f faults
	f.dim(dim, 1)
	if len(config.Hidden) == 0 {
		f.add("hidden", "empty, want the width of at least one layer")
	}
	for i, h := range config.Hidden {
		if h < 1 {
			f.add("hidden", "layer %d has width %d, want at least 1", i, h)
		}
	}
	act := activations[config.Activation]
	if act == nil {
		f.add("activation", "%q, want one of %s", config.Activation, strings.Join(Activations(), ", "))
	}
	switch {
	case !slices.Contains(Inits(), config.Init):
		f.add("init", "%q, want one of %s", config.Init, strings.Join(Inits(), ", "))
	case config.Init == "normal":
		f.positive("init_std", config.InitStd)
	case config.InitStd != 0:
		f.add("init_std", "%g, want init: normal or no init_std", config.InitStd)
	}
	if config.ZeroLast && config.SpectralNorm {
		f.add("zero_last", "a layer of zeros has no direction to normalise: want spectral_norm: false or zero_last: false")
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	config.Hidden = slices.Clone(config.Hidden)
	m := &MLP{kind: kind, dim: dim, config: config, activation: act}
	layers := perceptronLayers(in, config.Hidden, out, func(in, out int) linear {
		weight, bias := initOf(config.Init, config.InitStd, in, out)
		return linear{in, out, weight, bias}
	})
	for i, l := range layers {
		if params := l.Params(); config.ZeroLast && i == len(layers)-1 {
			for _, p := range params {
				m.params = append(m.params, Param{p.Name, p.Shape, zeroInit})
			}
		} else {
			m.params = append(m.params, params...)
		}
	}
	return m, nil
}

// perceptronLayers are the layers net.0, net.2, … of a perceptron; the odd numbers are its activations.
func perceptronLayers(in int, hidden []int, out int, layerOf func(in, out int) linear) []layer {
	var layers []layer
	for i, width := range append(slices.Clone(hidden), out) {
		layers = append(layers, named{fmt.Sprintf("net.%d", 2*i), layerOf(in, width)})
		in = width
	}
	return layers
}

// Dim is the number of coordinates of a state.
func (m *MLP) Dim() int { return m.dim }

// Params lists the weights and biases, layer by layer.
func (m *MLP) Params() []Param { return slices.Clone(m.params) }

// Energy builds E(x), [batch].
func (m *MLP) Energy(x *Node, weights []*Node) *Node { return m.Prepare(weights)(x) }

// Prepare divides the weights by their largest singular values, where the network asks for it.
func (m *MLP) Prepare(weights []*Node) Fn {
	ready := m.ready(weights)
	return func(x *Node) *Node {
		analytic{m.kind, m.dim}.check(x)
		out, _ := perceptron(x, nil, ready, m.activation)
		return Reshape(out, x.Shape().Dimensions[0])
	}
}

// ready checks the weights and normalises them where the network asks for it.
func (m *MLP) ready(weights []*Node) []*Node {
	checkWeights(m.kind, m.params, weights)
	ready := slices.Clone(weights)
	for i, p := range m.params {
		if m.config.SpectralNorm && len(p.Shape) == 2 {
			ready[i] = spectralNormalised(weights[i])
		}
	}
	return ready
}

// perceptron builds the outputs [batch, out] of states x [batch, dim] and the activations of the last hidden layer. c
// [batch or 1, width], if not nil, stands beside x in the input. Its columns of the first weight are applied apart:
// GoMLX v0.26 has no second derivative through Concatenate.
func perceptron(x, c *Node, weights []*Node, activation func(*Node) *Node) (out, hidden *Node) {
	h := x
	for i := 0; i < len(weights); i += 2 {
		w, bias := weights[i], weights[i+1]
		if i > 0 {
			h = activation(h)
			hidden = h
		}
		if i > 0 || c == nil {
			h = apply(h, []*Node{w, bias})
			continue
		}
		dim, all := x.Shape().Dimensions[1], w.Shape().Dimensions[1]
		h = Add(times(x, columns(w, 0, dim)), addBias(times(c, columns(w, dim, all)), bias))
	}
	return h, hidden
}
