package models

import (
	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// Network is what every model with parameters has in common, whether it gives a number a state (an [Energy]) or a vector
// (a [Field]).
type Network interface {
	// Dim is the number of coordinates of a state. Images are states too, [batch, channels·height·width] row by row.
	Dim() int
	// Params lists the parameters in the order of the flat parameter vector.
	Params() []Param
}

// Field is a network that maps a state to a vector of the state's size, given a time and a label: a velocity, a score, a
// noise, or the gradient of an energy. Implement it to train one of your own.
type Field interface {
	Network
	// Classes is the number of labels that the field knows, 0 for none. Labels are 0 to Classes−1; the label Classes is the
	// null label, "no label".
	Classes() int
	// Field builds f(x, t, y): x [batch, dim], t [batch] in [0, 1] of x's type, y [batch] int32; the result is [batch, dim].
	// nil for t is time 0, nil for y the null label. It must be a function of its arguments alone.
	Field(x, t, y *Node, weights []*Node) *Node
}

// FieldFn builds a field: x [batch, dim], t [batch] or nil, y [batch] int32 or nil → [batch, dim].
type FieldFn = func(x, t, y *Node) *Node

// FieldAt is the field at given weights.
func FieldAt(f Field, weights []*Node) FieldFn {
	return func(x, t, y *Node) *Node { return f.Field(x, t, y, weights) }
}

// Hidden is a field that shows the activations of its last hidden layer, [batch, width], for a loss that spreads them.
type Hidden interface {
	Hidden(x, t, y *Node, weights []*Node) *Node
}
