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
	dim        int
	config     MLPConfig
	activation func(*Node) *Node
	params     []Param
}

// NewMLP makes the network of a state of dim numbers.
func NewMLP(dim int, config MLPConfig) (*MLP, error) {
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
	m := &MLP{dim: dim, config: config, activation: act}
	widths := append(append([]int{dim}, config.Hidden...), 1)
	for i := range len(widths) - 1 {
		in, out := widths[i], widths[i+1]
		weight, bias := initOf(config, in, out)
		if config.ZeroLast && i == len(widths)-2 {
			weight, bias = zeroInit, zeroInit
		}
		m.params = append(m.params,
			Param{Name: fmt.Sprintf("net.%d.weight", 2*i), Shape: []int{out, in}, Init: weight},
			Param{Name: fmt.Sprintf("net.%d.bias", 2*i), Shape: []int{out}, Init: bias})
	}
	return m, nil
}

// Dim is the number of coordinates of a state.
func (m *MLP) Dim() int { return m.dim }

// Params lists the weights and biases, layer by layer.
func (m *MLP) Params() []Param { return slices.Clone(m.params) }

// Energy builds E(x), [batch].
func (m *MLP) Energy(x *Node, weights []*Node) *Node { return m.Prepare(weights)(x) }

// Prepare divides the weights by their largest singular values, where the network asks for it.
func (m *MLP) Prepare(weights []*Node) Fn {
	if len(weights) != len(m.params) {
		panic(fmt.Errorf("models: mlp: %d parameters, want %d", len(weights), len(m.params)))
	}
	ready := slices.Clone(weights)
	for i, p := range m.params {
		if got := weights[i].Shape().Dimensions; !slices.Equal(got, p.Shape) {
			panic(fmt.Errorf("models: mlp: %s has shape %v, want %v", p.Name, got, p.Shape))
		}
		if m.config.SpectralNorm && len(p.Shape) == 2 {
			ready[i] = spectralNormalised(weights[i])
		}
	}
	return func(x *Node) *Node { return m.forward(x, ready) }
}

func (m *MLP) forward(x *Node, weights []*Node) *Node {
	analytic{"mlp", m.dim}.check(x)
	h := x
	for i := 0; i < len(weights); i += 2 {
		if i > 0 {
			h = m.activation(h)
		}
		h = DotGeneral(h, []int{1}, nil, weights[i], []int{1}, nil) // h·Wᵀ without a transpose
		h = Add(h, Reshape(weights[i+1], 1, m.params[i+1].Size()))
	}
	return Reshape(h, x.Shape().Dimensions[0])
}
