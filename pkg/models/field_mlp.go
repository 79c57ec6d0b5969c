package models

import (
	"fmt"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// FieldMLP is the plain [Field]: a perceptron on the coordinates and the time side by side, [x, t], with as many outputs
// as there are coordinates. It knows no labels. Parameters are named as those of an [MLP].
type FieldMLP struct{ net *MLP }

// NewFieldMLP makes the field of a state of dim numbers.
func NewFieldMLP(dim int, config MLPConfig) (*FieldMLP, error) {
	net, err := newPerceptron("field_mlp", dim, dim+1, dim, config)
	if err != nil {
		return nil, err
	}
	return &FieldMLP{net}, nil
}

// Dim is the number of coordinates of a state.
func (m *FieldMLP) Dim() int { return m.net.Dim() }

// Classes is 0.
func (m *FieldMLP) Classes() int { return 0 }

// Params lists the weights and biases, layer by layer.
func (m *FieldMLP) Params() []Param { return m.net.Params() }

// Field builds f(x, t).
func (m *FieldMLP) Field(x, t, y *Node, weights []*Node) *Node {
	out, _ := m.forward(x, t, y, weights)
	return out
}

// Hidden builds the activations of the last hidden layer, [batch, width].
func (m *FieldMLP) Hidden(x, t, y *Node, weights []*Node) *Node {
	_, hidden := m.forward(x, t, y, weights)
	return hidden
}

func (m *FieldMLP) forward(x, t, y *Node, weights []*Node) (out, hidden *Node) {
	if y != nil {
		panic(fmt.Errorf("models: field_mlp: labels for a field that knows none, want none"))
	}
	analytic{"field_mlp", m.Dim()}.check(x)
	weights = m.net.ready(weights)
	if t == nil {
		t = ConstAs(x, []float64{0}) // one row for the whole batch
	}
	return perceptron(x, Reshape(t, -1, 1), weights, m.net.activation)
}
