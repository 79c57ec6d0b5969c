package models

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// layer is a part of a network that has parameters of its own.
type layer interface{ Params() []Param }

// under puts the parameters of a part below a name, as a state dict does.
func under(name string, part layer) []Param {
	params := part.Params()
	for i := range params {
		params[i].Name = name + "." + params[i].Name
	}
	return params
}

// deal hands weights out to parts in order, to each as many as it has parameters.
func deal(weights []*Node, parts ...layer) [][]*Node {
	out := make([][]*Node, len(parts))
	for i, part := range parts {
		n := len(part.Params())
		if n > len(weights) {
			panic(errors.New("models: fewer weights than parameters"))
		}
		out[i], weights = weights[:n:n], weights[n:]
	}
	if len(weights) > 0 {
		panic(fmt.Errorf("models: %d weights more than parameters", len(weights)))
	}
	return out
}

// checkWeights panics unless the weights have the shapes of the parameters.
func checkWeights(kind string, params []Param, weights []*Node) {
	if len(weights) != len(params) {
		panic(fmt.Errorf("models: %s: %d parameters, want %d", kind, len(weights), len(params)))
	}
	for i, p := range params {
		if got := weights[i].Shape().Dimensions; !slices.Equal(got, p.Shape) {
			panic(fmt.Errorf("models: %s: %s has shape %v, want %v", kind, p.Name, got, p.Shape))
		}
	}
}

// linear is y = x Wᵀ + b on the last axis, weight [out, in], bias [out].
type linear struct {
	in, out      int
	weight, bias Init
}

// xavierLinear starts with Xavier's uniform weights and no bias, as every layer of a DiT.
func xavierLinear(in, out int) linear { return linear{in, out, xavierInit(in, out), zeroInit} }

// zeroLinear starts at 0: the modulations and heads of adaLN-Zero.
func zeroLinear(in, out int) linear { return linear{in, out, zeroInit, zeroInit} }

func (l linear) Params() []Param {
	return []Param{{Name: "weight", Shape: []int{l.out, l.in}, Init: l.weight}, {Name: "bias", Shape: []int{l.out}, Init: l.bias}}
}

// apply builds x Wᵀ + b for x [batch, …, in].
func apply(x *Node, weights []*Node) *Node { return addBias(times(x, weights[0]), weights[1]) }

// times builds x Wᵀ as a product of matrices that needs no transpose.
func times(x, w *Node) *Node {
	dims := slices.Clone(x.Shape().Dimensions)
	last := len(dims) - 1
	y := DotGeneral(Reshape(x, -1, dims[last]), []int{1}, nil, w, []int{1}, nil)
	dims[last] = w.Shape().Dimensions[0]
	return Reshape(y, dims...)
}

func addBias(x, bias *Node) *Node {
	dims := slices.Repeat([]int{1}, x.Rank())
	dims[x.Rank()-1] = bias.Shape().Dimensions[0]
	return Add(x, Reshape(bias, dims...))
}

// chunk is part k of the n equal parts of what a linear layer puts out. It cuts the layer's weights instead of its output:
// GoMLX v0.26 has no second derivative through the Slice of an activation, but weights need only one.
func chunk(weights []*Node, k, n int) []*Node {
	size := weights[1].Shape().Dimensions[0] / n
	rows := AxisRange(k*size, (k+1)*size)
	return []*Node{Slice(weights[0], rows), Slice(weights[1], rows)}
}

// columns are the weights [out, to−from] that a linear layer has for a part of its input.
func columns(w *Node, from, to int) *Node { return Slice(w, AxisRange(), AxisRange(from, to)) }

// layerNorm shifts and scales the last axis to mean 0 and variance 1, without weights of its own. eps 0 stands for 1e-6.
func layerNorm(x *Node, eps float64) *Node {
	if eps == 0 {
		eps = 1e-6
	}
	x = Sub(x, ReduceAndKeep(x, ReduceMean, -1))
	variance := ReduceAndKeep(Square(x), ReduceMean, -1)
	return Div(x, Sqrt(AddScalar(variance, eps)))
}

// softmax is over the last axis. The largest value is taken off as a constant, which changes neither the result nor any
// of its derivatives.
func softmax(x *Node) *Node {
	e := Exp(Sub(x, StopGradient(ReduceAndKeep(x, ReduceMax, -1))))
	return Div(e, ReduceAndKeep(e, ReduceSum, -1))
}

// FeedForward is the two-layer network of a transformer block, Linear(D, ⌊ratio·D⌋) – activation – Linear(⌊ratio·D⌋, D).
// Its parameters are net.0 and net.3.
type FeedForward struct {
	EmbedDim   int     // D
	Ratio      float64 // at least 1/D
	Activation string  // one of Activations; "" is gelu, in its tanh form
}

func (f FeedForward) hidden() int { return int(f.Ratio * float64(f.EmbedDim)) }

// Params lists net.0 and net.3.
func (f FeedForward) Params() []Param {
	return append(under("net.0", xavierLinear(f.EmbedDim, f.hidden())), under("net.3", xavierLinear(f.hidden(), f.EmbedDim))...)
}

// Apply builds the network for x [batch, …, D].
func (f FeedForward) Apply(x *Node, weights []*Node) *Node {
	act := activations[f.Activation]
	if f.Activation == "" {
		act = gelu
	}
	if act == nil {
		panic(fmt.Errorf("models: activation: %q, want one of %s", f.Activation, strings.Join(Activations(), ", ")))
	}
	return apply(act(apply(x, weights[:2])), weights[2:])
}
