package models

import (
	stdcontext "context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"
	"github.com/gomlx/gomlx/pkg/ml/context"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
)

// GoMLXModel is the energy of a model function written for GoMLX, with its layers and variables: see [FromGoMLX].
type GoMLXModel struct {
	dim    int
	model  func(ctx *context.Context, x *Node) *Node
	params []Param

	mu       sync.Mutex
	contexts map[dtypes.DType]*context.Context // with the variables of params in that precision; one goroutine builds at a time
}

// FromGoMLX makes an energy of a GoMLX model function: x [batch, dim] → [batch] or [batch, 1].
//
//	energy, err := models.FromGoMLX(2, func(ctx *context.Context, x *Node) *Node {
//		h := activations.Swish(layers.DenseWithBias(ctx.In("hidden"), x, 64))
//		return layers.DenseWithBias(ctx.In("out"), h, 1)
//	})
//
// The function is called once here, in float32, to learn its variables, and then whenever a graph needs the energy; it must
// build the same variables each time, and each trained for itself: scopes in a context of its own keep them apart.
// Parameters have the names of the variables with their scopes, hidden/dense/weights, in the order in which the function
// makes them. First values are those of the variables' initializers, which run in pure Go with a seed from the experiment's:
// the same bits whatever backend trains.
//
// A model that is not a function of x and its parameters alone is refused: one with variables that are not trained (the
// statistics of a batch normalisation), random numbers (a dropout that is always on) or terms added to a loss. It is built
// for inference, so that GoMLX's own dropout does nothing. Its derivatives are GoMLX's; layers of convolution and max
// pooling have no second one.
func FromGoMLX(dim int, model func(ctx *context.Context, x *Node) *Node) (*GoMLXModel, error) {
	var f faults
	f.dim(dim, 1)
	if model == nil {
		f.add("model", "nil, want a function")
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	m := &GoMLXModel{dim: dim, model: model, contexts: map[dtypes.DType]*context.Context{}}
	if err := m.discover(); err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	return m, nil
}

// discover builds the model once, to learn its variables.
func (m *GoMLXModel) discover() (err error) {
	ctx, g, closeAll, err := m.probe()
	if err != nil {
		return err
	}
	defer closeAll()
	var errs []error
	ctx.EnumerateGraphParams(g, func(scope, key string, _ any) {
		errs = append(errs, fmt.Errorf("it sets %s for its trainer, as layers with a regulariser do, and nothing here reads that", context.JoinScope(scope, key)))
	})
	for v := range ctx.IterVariables() {
		switch name := v.ScopeAndName(); {
		case v.Name() == context.RNGStateVariableName:
			errs = append(errs, errors.New("it draws random numbers: want an energy that is a function of the state alone"))
		case !v.Trainable:
			errs = append(errs, fmt.Errorf("%s is not trained (a statistic over batches?): want trainable variables alone", name))
		case v.DType() != dtypes.Float32:
			errs = append(errs, fmt.Errorf("%s is %s for states in float32, want their type", name, v.DType()))
		case v.InUseByGraph(g):
			i := len(m.params) // its place among the variables in use
			m.params = append(m.params, Param{
				Name: strings.TrimPrefix(name, context.ScopeSeparator), Shape: v.Shape().Clone().Dimensions,
				Init: func(_ []int, stream *Stream) []float64 { return m.first(i, stream) },
			})
		}
	}
	return errors.Join(errs...)
}

// probe builds the model in a graph that is never run.
func (m *GoMLXModel) probe() (ctx *context.Context, g *Graph, closeAll func(), err error) {
	b, err := backend.Open(stdcontext.Background(), backend.Config{Kind: backend.Go, Threads: 1}, backend.Options{})
	if err != nil {
		return nil, nil, nil, err
	}
	ctx, g = context.New().Checked(false), NewGraph(b, "probe")
	closeAll = func() {
		g.Finalize()
		ctx.Finalize()
		_ = b.Close()
	}
	defer func() {
		if r := recover(); r != nil {
			closeAll()
			text, _, _ := strings.Cut(fmt.Sprint(r), "\n") // GoMLX's panics carry a stack trace
			err = errors.New(text)
		}
	}()
	m.energies(ctx, Zeros(g, shapes.Make(dtypes.Float32, 2, m.dim)))
	return ctx, g, closeAll, nil
}

// first draws the first value of parameter i.
func (m *GoMLXModel) first(i int, stream *Stream) []float64 {
	ctx, g, closeAll, err := m.probe()
	if err != nil {
		panic(fmt.Errorf("models: gomlx: %w", err)) // it went well before
	}
	defer closeAll()
	var wanted *context.Variable
	n := 0
	for v := range ctx.IterVariables() {
		if !v.InUseByGraph(g) {
			continue
		}
		if n == i {
			wanted = v
		} else if !v.HasValue() {
			err = errors.Join(err, v.SetValue(tensors.FromShape(v.Shape()))) // so that its initializer need not run
		}
		n++
	}
	err = errors.Join(err, ctx.SetRNGStateFromSeed(int64(stream.Uint64())), ctx.InitializeVariables(g.Backend(), nil))
	if err != nil {
		panic(fmt.Errorf("models: gomlx: first value of %s: %w", m.params[i].Name, err))
	}
	values := tensors.MustCopyFlatData[float32](wanted.MustValue())
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = float64(v)
	}
	return out
}

// Dim is the number of coordinates of a state.
func (m *GoMLXModel) Dim() int { return m.dim }

// Params lists the trainable variables.
func (m *GoMLXModel) Params() []Param { return append([]Param(nil), m.params...) }

// Energy builds E(x), [batch].
func (m *GoMLXModel) Energy(x *Node, weights []*Node) *Node {
	analytic{"gomlx", m.dim}.check(x)
	checkWeights("gomlx", m.params, weights)
	m.mu.Lock()
	defer m.mu.Unlock()
	ctx := m.contexts[x.DType()]
	if ctx == nil {
		ctx = context.New().Checked(false).In(x.DType().String()) // one graph may hold both precisions
		m.contexts[x.DType()] = ctx
	}
	for i, p := range m.params {
		scope, name := context.SplitScope(context.JoinScope(ctx.Scope(), p.Name))
		v := ctx.InAbsPath(scope).VariableWithShape(name, shapes.Make(x.DType(), p.Shape...))
		v.SetValueGraph(weights[i]) // its parameter of the graph is read by nobody: see backend.Compile
	}
	return m.energies(ctx, x)
}

// energies calls the model, whose result may have an axis for its one output.
func (m *GoMLXModel) energies(ctx *context.Context, x *Node) *Node {
	e := m.model(ctx, x)
	batch := x.Shape().Dimensions[0]
	if e.DType() != x.DType() || e.Shape().Size() != batch || e.Rank() < 1 || e.Shape().Dimensions[0] != batch {
		panic(fmt.Errorf("models: gomlx: the model gives %s for states %s, want [batch] or [batch, 1] of the same type", e.Shape(), x.Shape()))
	}
	return Reshape(e, batch)
}
