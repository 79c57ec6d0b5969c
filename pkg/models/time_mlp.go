package models

import (
	"fmt"
	"slices"
	"strings"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// TimeMLPConfig says how a [TimeConditionedMLP] is built.
type TimeMLPConfig struct {
	HiddenDim    int
	Depth        int     // hidden layers or blocks
	Conditioning string  // one of Conditionings
	MLPRatio     float64 // adaln_zero: width of a block's hidden layer, in units of HiddenDim; concat: 0
	Activation   string  // one of Activations; "": gelu for adaln_zero, silu for concat
	CondDim      int     // width of the vector of time and label; concat: 0 for a field that knows neither
	NumClasses   int     // labels; 0 for none
	Frequencies  int     // width of the cosines and sines of the time
	TimeScale    float64 // multiplies the time, see [TimestepEmbedder]
}

// Conditionings are the ways in which time and label enter a [TimeConditionedMLP]: by blocks of adaLN-Zero, or side by
// side with the state.
func Conditionings() []string { return []string{"adaln_zero", "concat"} }

// TimeConditionedMLP is a [Field] on plain vectors, steered by a time and a label. With adaln_zero it is a stem, blocks
// [AdaLNZeroMLPBlock] and a head that starts at 0; with concat a perceptron on [x, c]. Parameters have TorchEBM's names.
type TimeConditionedMLP struct {
	dim         int
	config      TimeMLPConfig
	conditioner conditioner
}

// NewTimeConditionedMLP makes the field of a state of dim numbers.
func NewTimeConditionedMLP(dim int, config TimeMLPConfig) (*TimeConditionedMLP, error) {
	var f faults
	f.dim(dim, 1)
	f.atLeast("hidden_dim", config.HiddenDim, 1)
	f.atLeast("depth", config.Depth, 1)
	f.atLeast("num_classes", config.NumClasses, 0)
	f.atLeast("time_frequencies", config.Frequencies, 2)
	f.positive("time_scale", config.TimeScale)
	switch config.Conditioning {
	case "adaln_zero":
		f.atLeast("cond_dim", config.CondDim, 1)
		f.ratio("mlp_ratio", config.MLPRatio, config.HiddenDim)
	case "concat":
		f.atLeast("cond_dim", config.CondDim, 0)
		if config.MLPRatio != 0 {
			f.add("mlp_ratio", "%g, want conditioning: adaln_zero or no mlp_ratio", config.MLPRatio)
		}
		if config.CondDim == 0 && config.NumClasses > 0 {
			f.add("cond_dim", "0 with %d labels, want at least 1", config.NumClasses)
		}
	default:
		f.add("conditioning", "%q, want one of %s", config.Conditioning, strings.Join(Conditionings(), ", "))
	}
	if config.Activation == "" {
		config.Activation = "gelu"
		if config.Conditioning == "concat" {
			config.Activation = "silu"
		}
	}
	if activations[config.Activation] == nil {
		f.add("activation", "%q, want one of %s", config.Activation, strings.Join(Activations(), ", "))
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	return &TimeConditionedMLP{dim, config, conditioner{
		time:  TimestepEmbedder{OutDim: config.CondDim, Frequencies: config.Frequencies, Scale: config.TimeScale},
		label: LabelEmbedder{NumClasses: config.NumClasses, OutDim: config.CondDim},
	}}, nil
}

// Dim is the number of coordinates of a state.
func (m *TimeConditionedMLP) Dim() int { return m.dim }

// Classes is the number of labels.
func (m *TimeConditionedMLP) Classes() int { return m.config.NumClasses }

// Params lists the embedders' parameters, then those of the layers.
func (m *TimeConditionedMLP) Params() []Param {
	out := m.embedders()
	for _, part := range m.parts() {
		out = append(out, part.Params()...)
	}
	return out
}

func (m *TimeConditionedMLP) embedders() []Param {
	if m.config.CondDim == 0 {
		return nil
	}
	return m.conditioner.Params()
}

func (m *TimeConditionedMLP) parts() []layer {
	c := m.config
	if c.Conditioning == "concat" {
		return perceptronLayers(m.dim+c.CondDim, slices.Repeat([]int{c.HiddenDim}, c.Depth), m.dim, torchLinear)
	}
	out := []layer{named{"stem", xavierLinear(m.dim, c.HiddenDim)}}
	for i := range c.Depth {
		out = append(out, named{fmt.Sprintf("blocks.%d", i), AdaLNZeroMLPBlock{EmbedDim: c.HiddenDim, CondDim: c.CondDim, MLPRatio: c.MLPRatio, Activation: c.Activation}})
	}
	return append(out, named{"head", AdaLNZeroLinearHead{EmbedDim: c.HiddenDim, CondDim: c.CondDim, OutDim: m.dim}})
}

// Embed builds the vector [batch, CondDim] of times t [batch] and labels y [batch] int32. Either may be nil, and then adds
// nothing; [TimeConditionedMLP.Field] instead fills in time 0 and the null label.
func (m *TimeConditionedMLP) Embed(t, y *Node, weights []*Node) *Node {
	return m.conditioner.embed(t, y, weights[:len(m.embedders())])
}

// Apply builds the field [batch, dim] of states x [batch, dim] and vectors c [batch, CondDim], or [1, CondDim] for one that
// all states share; c is nil where CondDim is 0.
func (m *TimeConditionedMLP) Apply(x, c *Node, weights []*Node) *Node {
	out, _ := m.forward(x, c, weights)
	return out
}

// Field builds f(x, t, y). A field with cond_dim 0 takes a time and ignores it; it knows no labels.
func (m *TimeConditionedMLP) Field(x, t, y *Node, weights []*Node) *Node {
	return m.Apply(x, m.condition(x, t, y, weights), weights)
}

// Hidden builds the activations of the last hidden layer, [batch, HiddenDim].
func (m *TimeConditionedMLP) Hidden(x, t, y *Node, weights []*Node) *Node {
	_, hidden := m.forward(x, m.condition(x, t, y, weights), weights)
	return hidden
}

func (m *TimeConditionedMLP) condition(x, t, y *Node, weights []*Node) *Node {
	if m.config.CondDim == 0 {
		if y != nil {
			panic(fmt.Errorf("models: time_mlp: labels for a field that knows none, want num_classes above 0"))
		}
		return nil
	}
	t, y = m.conditioner.complete(x, t, y)
	return m.Embed(t, y, weights)
}

func (m *TimeConditionedMLP) forward(x, c *Node, weights []*Node) (out, hidden *Node) {
	analytic{"time_mlp", m.dim}.check(x)
	checkWeights("time_mlp", m.Params(), weights)
	weights = weights[len(m.embedders()):]
	if m.config.Conditioning == "concat" {
		return perceptron(x, c, weights, activations[m.config.Activation])
	}
	parts := m.parts()
	for i, w := range deal(weights, parts...) {
		switch part := parts[i].(named).layer.(type) {
		case linear:
			hidden = apply(x, w)
		case AdaLNZeroMLPBlock:
			hidden = part.Apply(hidden, c, w)
		case AdaLNZeroLinearHead:
			out = part.Apply(hidden, c, w)
		}
	}
	return out, hidden
}
