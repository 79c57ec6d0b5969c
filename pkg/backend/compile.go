package backend

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gomlx/gomlx/backends"
	"github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"
)

// Input names one argument of a [Program] and fixes its shape.
type Input struct {
	Name  string
	Shape shapes.Shape
}

// Program is a graph compiled once for fixed input shapes. It is safe for use by one goroutine at a time.
type Program struct {
	name    string
	backend *Backend
	inputs  []Input
	graph   *graph.Graph
	unread  []*tensors.Tensor // zeros for the parameters behind the inputs
}

// Compile builds and compiles a graph. build gets one node an input, in order, and returns the outputs.
// It is the one place where a panic of a graph builder (GoMLX reports shape errors that way) becomes an error, which
// names the program and its input shapes.
//
// GoMLX gives a graph a parameter for each variable that is set in it (context.Variable.SetValueGraph), though nothing
// reads it. Such parameters may stay: a run feeds them zeros. One that is read is an error, for its value is nowhere.
func Compile(b *Backend, name string, inputs []Input, build func(in []*graph.Node) []*graph.Node) (p *Program, err error) {
	defer func() {
		if r := recover(); r != nil {
			p, err = nil, fmt.Errorf("backend: compile %s for %s on %s: %w", name, describe(inputs), b.Kind(), panicError(r))
		}
	}()
	g := graph.NewGraph(b, name)
	nodes := make([]*graph.Node, len(inputs))
	for i, in := range inputs {
		nodes[i] = graph.Parameter(g, in.Name, in.Shape)
	}
	outputs := build(nodes)
	unread := unreadParameters(g, len(inputs), outputs)
	g.Compile(outputs...)
	return &Program{name: name, backend: b, inputs: inputs, graph: g, unread: unread}, nil
}

// unreadParameters makes zeros for the parameters of a graph that come after its inputs.
func unreadParameters(g *graph.Graph, inputs int, outputs []*graph.Node) (zeros []*tensors.Tensor) {
	extra := map[*graph.Node]bool{}
	for i := inputs; i < g.NumParameters(); i++ {
		p := g.GetParameterByHandle(graph.ParameterHandle(i))
		extra[p] = true
		zeros = append(zeros, tensors.FromShape(p.Shape()))
	}
	if len(extra) == 0 {
		return nil
	}
	read := slices.Clone(outputs)
	for _, n := range g.Nodes() {
		read = append(read, n.Inputs()...)
	}
	for _, n := range read {
		if extra[n] {
			panic(fmt.Errorf("parameter %s is read but is no input of the program: want a value set for it", n.GetParameterName()))
		}
	}
	return zeros
}

// Run executes the program. Inputs stay valid; outputs live on the device and belong to the caller, who ends them with
// [Release].
func (p *Program) Run(in ...*tensors.Tensor) ([]*tensors.Tensor, error) {
	return p.RunDonating(nil, in...)
}

// RunDonating executes the program and gives the device memory of the inputs whose donate flag is set to the outputs.
// Donated tensors are finished. A nil donate keeps all inputs.
func (p *Program) RunDonating(donate []bool, in ...*tensors.Tensor) (out []*tensors.Tensor, err error) {
	defer func() {
		if r := recover(); r != nil {
			out, err = nil, fmt.Errorf("backend: run %s on %s: %w", p.name, p.backend.Kind(), panicError(r))
		}
	}()
	if len(in) != len(p.inputs) {
		return nil, fmt.Errorf("backend: run %s: %d inputs, want %d", p.name, len(in), len(p.inputs))
	}
	donate = append(slices.Clone(donate), make([]bool, len(in)+len(p.unread)-len(donate))...)
	buffers := make([]backends.Buffer, len(donate))
	for i, t := range p.unread {
		if buffers[len(in)+i], err = t.Buffer(p.backend, 0); err != nil {
			return nil, fmt.Errorf("backend: run %s: upload zeros: %w", p.name, err)
		}
	}
	for i, t := range in {
		if !t.Shape().Equal(p.inputs[i].Shape) {
			return nil, fmt.Errorf("backend: run %s: input %s has shape %s, want %s", p.name, p.inputs[i].Name, t.Shape(), p.inputs[i].Shape)
		}
		if donate[i] {
			buffers[i], err = t.DonateBuffer(p.backend, 0)
		} else {
			buffers[i], err = t.Buffer(p.backend, 0)
		}
		if err != nil {
			return nil, fmt.Errorf("backend: run %s: upload %s: %w", p.name, p.inputs[i].Name, err)
		}
	}
	return p.graph.RunWithBuffers(buffers, donate, 0), nil
}

// Close frees the compiled program.
func (p *Program) Close() {
	p.graph.Finalize()
	Release(p.unread...)
}

// Release frees tensors at once, on the device and on the host, instead of at the next garbage collection.
func Release(ts ...*tensors.Tensor) {
	for _, t := range ts {
		if t != nil {
			t.MustFinalizeAll()
		}
	}
}

// Read copies a tensor to the host. T must be the Go type of the tensor's dtype.
func Read[T float32 | float64 | int32 | uint64](t *tensors.Tensor) ([]T, error) {
	return tensors.CopyFlatData[T](t)
}

func describe(inputs []Input) string {
	parts := make([]string, len(inputs))
	for i, in := range inputs {
		parts[i] = in.Name + in.Shape.String()
	}
	return strings.Join(parts, " ")
}

// panicError keeps the first line: GoMLX's panics carry a stack trace, which is noise to a user.
func panicError(r any) error {
	if err, ok := r.(error); ok {
		text, _, _ := strings.Cut(err.Error(), "\n")
		return &graphError{text: text, err: err}
	}
	return fmt.Errorf("%v", r)
}

type graphError struct {
	text string
	err  error
}

func (e *graphError) Error() string { return e.text }
func (e *graphError) Unwrap() error { return e.err }
