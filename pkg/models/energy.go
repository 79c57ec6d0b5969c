// Package models holds the energies, analytic ones with known answers and networks, and the fields. An energy E maps states
// [batch, dim] to [batch]; low energy means likely, p(x) ∝ exp(−E(x)). A [Field] maps a state, a time and a label to
// [batch, dim]: [DiT], [TimeConditionedMLP] and [FieldMLP], whose parts are types of their own.
//
// [Config] is the `model` section of an experiment and [Kinds] describes what it can name. The energy of a network,
// E = f_θ − log q with a Gaussian base q, at the first weights:
//
//	f, err := models.Config{Kind: "mlp", Hidden: []int{64, 64}}.Build(2)
//	if err != nil {
//		return err
//	}
//	q, err := models.FitGaussian(rows, 2, 2)
//	if err != nil {
//		return err
//	}
//	energy := models.WithBase(f, q)
//	theta := models.InitParams(energy, seed) // the flat parameter vector
//
// and in a graph, with x [batch, 2]:
//
//	weights := models.Unpack(energy, flat)
//	e, grad := models.EnergyAndGrad(models.At(energy, weights), x)
//
// All energies can be differentiated to third order, in x and in the weights, on every backend: no Slice, Pad or
// Expm1 stands on a path from the states. Constructors' errors start with the parameter at fault.
package models

import (
	"fmt"

	"github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
)

// Energy is an energy function with or without parameters. Implement it to train one of your own, or see [FromGoMLX].
type Energy interface {
	Network
	// Energy builds E(x): x is [batch, dim], the result [batch]. weights are the parameters in the order and shapes of
	// Params. It must be a function of its arguments alone (no dropout, no batch statistics), or no sampler has a
	// stationary law. It may panic with a message, as GoMLX's graph functions do.
	Energy(x *graph.Node, weights []*graph.Node) *graph.Node
}

// Param is one parameter tensor: its name in files (TorchEBM's name where it has the model), its shape and how its
// first value is drawn.
type Param struct {
	Name  string
	Shape []int
	Init  Init
}

// Size is the number of elements.
func (p Param) Size() int {
	n := 1
	for _, d := range p.Shape {
		n *= d
	}
	return n
}

// Init draws the first value of a parameter, row-major, from a counter-based stream: the same bits on every machine.
type Init func(shape []int, stream *Stream) []float64

// Stream is the generator that an [Init] draws from.
type Stream = rng.Stream

// NumParams is the length of the flat parameter vector.
func NumParams(e Network) int {
	n := 0
	for _, p := range e.Params() {
		n += p.Size()
	}
	return n
}

// InitParams draws the flat parameter vector.
func InitParams(e Network, seed uint64) []float64 {
	var flat []float64
	for i, p := range e.Params() {
		values := p.Init(p.Shape, rng.New(seed, rng.InitParams, uint64(i), 0))
		if len(values) != p.Size() {
			panic(fmt.Sprintf("models: init of %s gave %d values, want %d", p.Name, len(values), p.Size()))
		}
		flat = append(flat, values...)
	}
	return flat
}

// Unpack cuts a flat parameter vector [NumParams] into the parameters. Take gradients with respect to these pieces, not
// to flat: GoMLX v0.26 has no second derivative through Slice.
func Unpack(e Network, flat *graph.Node) []*graph.Node {
	var pieces []*graph.Node
	at := 0
	for _, p := range e.Params() {
		pieces = append(pieces, graph.Reshape(graph.Slice(flat, graph.AxisRange(at, at+p.Size())), p.Shape...))
		at += p.Size()
	}
	return pieces
}
