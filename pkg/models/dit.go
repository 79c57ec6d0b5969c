package models

import (
	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// DiT is a [Field] on images: a [ConditionalTransformer2D] steered by the sum of a time's and a label's vector (Peebles and
// Xie 2023). States are flat, [batch, channels·height·width] row by row. Parameters have TorchEBM's names, so that a
// checkpoint of one runs in the other.
type DiT struct {
	transformer *ConditionalTransformer2D
	conditioner conditioner
}

// NewDiT makes the field. It must put out as many channels as it takes in.
func NewDiT(config TransformerConfig) (*DiT, error) {
	var f faults
	f.atLeast("time_frequencies", config.Frequencies, 2)
	f.positive("time_scale", config.TimeScale)
	f.atLeast("num_classes", config.NumClasses, 0)
	if config.OutChannels != 0 && config.OutChannels != config.InChannels {
		f.add("image", "%d channels in and %d out, want as many", config.InChannels, config.OutChannels)
	}
	trunk, err := NewConditionalTransformer2D(config)
	if err != nil {
		f = append(f, err)
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	cond := trunk.Config().CondDim
	return &DiT{trunk, conditioner{
		time:  TimestepEmbedder{OutDim: cond, Frequencies: config.Frequencies, Scale: config.TimeScale},
		label: LabelEmbedder{NumClasses: config.NumClasses, OutDim: cond},
	}}, nil
}

// Transformer is the part behind the embedders. Its parameters are the last ones of the DiT.
func (m *DiT) Transformer() *ConditionalTransformer2D { return m.transformer }

// Dim is the number of values of an image.
func (m *DiT) Dim() int { return m.transformer.Dim() }

// Classes is the number of labels.
func (m *DiT) Classes() int { return m.conditioner.label.NumClasses }

// Params lists the embedders' parameters, then those of the transformer.
func (m *DiT) Params() []Param { return append(m.conditioner.Params(), m.transformer.Params()...) }

// Embed builds the vector [batch, CondDim] of times t [batch] and labels y [batch] int32. Either may be nil, and then adds
// nothing; [DiT.Field] instead fills in time 0 and the null label.
func (m *DiT) Embed(t, y *Node, weights []*Node) *Node {
	return m.conditioner.embed(t, y, weights[:len(m.conditioner.Params())])
}

// Field builds f(x, t, y).
func (m *DiT) Field(x, t, y *Node, weights []*Node) *Node {
	out, _ := m.forward(x, t, y, weights)
	return Reshape(out, x.Shape().Dimensions...)
}

// Hidden builds the tokens that the head reads, [batch, tokens·HeadDim].
func (m *DiT) Hidden(x, t, y *Node, weights []*Node) *Node {
	_, tokens := m.forward(x, t, y, weights)
	return Reshape(tokens, x.Shape().Dimensions[0], -1)
}

func (m *DiT) forward(x, t, y *Node, weights []*Node) (out, tokens *Node) {
	analytic{"transformer", m.Dim()}.check(x)
	checkWeights("transformer", m.Params(), weights)
	t, y = m.conditioner.complete(x, t, y)
	c := m.transformer.config
	image := Reshape(x, x.Shape().Dimensions[0], c.InChannels, c.Size[0], c.Size[1])
	return m.transformer.forward(image, m.Embed(t, y, weights), weights[len(m.conditioner.Params()):])
}
