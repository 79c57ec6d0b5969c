package models

import (
	"maps"
	"math"
	"slices"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// Activations are the names that an MLP knows, in alphabetical order.
func Activations() []string { return slices.Sorted(maps.Keys(activations)) }

// activations are built of operations that GoMLX v0.26 differentiates to any order. A piecewise one takes its branch by
// the sign of x and keeps the other branch finite, since the gradient multiplies it by 0.
var activations = map[string]func(x *Node) *Node{
	"silu":       silu,
	"gelu":       gelu,
	"tanh":       Tanh,
	"relu":       func(x *Node) *Node { return Where(above(x), x, ZerosLike(x)) },
	"leaky_relu": func(x *Node) *Node { return Where(above(x), x, MulScalar(x, 0.01)) },
	"elu":        elu,
	"softplus":   softplus,
}

func above(x *Node) *Node { return GreaterThan(x, ZerosLike(x)) }

// silu is x·sigmoid(x) by way of sigmoid(x) = ½(1 + tanh(x/2)), which is faster on XLA than its logistic function.
func silu(x *Node) *Node {
	h := MulScalar(x, 0.5)
	return Add(h, Mul(h, Tanh(h)))
}

// gelu is the tanh form, ½x(1 + tanh(√(2/π)(x + 0.044715x³))) (Hendrycks and Gimpel 2016).
func gelu(x *Node) *Node {
	inner := Mul(x, AddScalar(MulScalar(Square(x), 0.044715), 1))
	h := MulScalar(x, 0.5)
	return Add(h, Mul(h, Tanh(MulScalar(inner, math.Sqrt(2/math.Pi)))))
}

// elu is x for x > 0, else exp(x) − 1.
func elu(x *Node) *Node {
	up := above(x)
	return Where(up, x, AddScalar(Exp(Where(up, ZerosLike(x), x)), -1))
}

// softplus is log(1 + exp(x)), as max(x, 0) + log(1 + exp(−|x|)): both branches of the maximum and of the absolute value
// are taken by one test, so that the derivatives agree at 0.
func softplus(x *Node) *Node {
	up := above(x)
	tail := Log1P(Exp(Where(up, Neg(x), x)))
	return Add(Where(up, x, ZerosLike(x)), tail)
}
