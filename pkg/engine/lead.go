package engine

import (
	"fmt"
	"slices"

	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// lead makes the optimizer steps of a group whose chains are on several shards: it alone holds the optimizer's state.
type lead struct {
	spec    Spec // of the whole group
	backend *backend.Backend
	params  int

	theta, ema *tensors.Tensor
	moments    []*tensors.Tensor

	learn           *backend.Program // a whole step
	gradient, apply *backend.Program // its two halves, where the gradient is averaged over groups in between
}

func (l *lead) close() {
	backend.Release(l.theta, l.ema)
	backend.Release(l.moments...)
	for _, p := range []*backend.Program{l.learn, l.gradient, l.apply} {
		if p != nil {
			p.Close()
		}
	}
}

func (l *lead) load(st State) {
	vector := func(v []float32) *tensors.Tensor {
		return tensors.FromFlatDataAndDimensions(slices.Clone(v), l.params)
	}
	backend.Release(l.theta, l.ema)
	backend.Release(l.moments...)
	l.theta, l.ema, l.moments = vector(st.Theta), nil, nil
	if st.EMA != nil {
		l.ema = vector(st.EMA)
	}
	for _, m := range st.Moments {
		l.moments = append(l.moments, vector(m))
	}
}

func (l *lead) setTheta(theta []float32) {
	backend.Release(l.theta)
	l.theta = tensors.FromFlatDataAndDimensions(slices.Clone(theta), l.params)
}

// state copies what load took to the host.
func (l *lead) state() (st State, err error) {
	var host readout
	host.weights(&st, l.theta, l.ema, l.moments)
	if host.err != nil {
		return State{}, fmt.Errorf("engine: read state: %w", host.err)
	}
	return st, nil
}

// stepInput is what a step learns from: positives [batch·dim], negatives [negatives·dim] and, with Spec.Weighted, their
// weights.
type stepInput struct{ positives, negatives, weights []float32 }

// step makes one optimizer step and returns the parameters after it, [P], and the numbers of [Scores].
func (l *lead) step(lr float64, step int, in stepInput) (theta []float32, scores Scores, err error) {
	if l.learn == nil {
		if l.learn, err = l.compileLearn(); err != nil {
			return nil, Scores{}, err
		}
	}
	c := &call{}
	l.addWeights(c)
	c.host(tensors.FromFlatDataAndDimensions(l.spec.Optimizer.hyper(lr, step), hyperSize))
	l.addInput(c, in)
	packed, err := c.run(l.learn)
	if err != nil {
		return nil, Scores{}, err
	}
	theta, err = l.read()
	return theta, unpackScores(to64(packed)), err
}

// slope is the gradient of a step, [P], not yet clipped, and its scores but for the norm.
func (l *lead) slope(in stepInput) (gradient []float32, scores Scores, err error) {
	if l.gradient == nil {
		if l.gradient, err = l.compileGradient(); err != nil {
			return nil, Scores{}, err
		}
	}
	c := &call{}
	c.keep(l.theta)
	l.addInput(c, in)
	packed, err := c.run(l.gradient)
	if err != nil {
		return nil, Scores{}, err
	}
	return packed[:l.params], unpackScores(to64(packed[l.params:])), nil
}

// descend makes an optimizer step down a gradient, and returns the parameters after it and the gradient's norm.
func (l *lead) descend(lr float64, step int, gradient []float32) (theta []float32, norm float64, err error) {
	if l.apply == nil {
		if l.apply, err = l.compileApply(); err != nil {
			return nil, 0, err
		}
	}
	c := &call{}
	l.addWeights(c)
	c.host(tensors.FromFlatDataAndDimensions(l.spec.Optimizer.hyper(lr, step), hyperSize))
	c.host(tensors.FromFlatDataAndDimensions(gradient, l.params))
	packed, err := c.run(l.apply)
	if err != nil {
		return nil, 0, err
	}
	theta, err = l.read()
	return theta, float64(packed[0]), err
}

func (l *lead) read() ([]float32, error) {
	theta, err := backend.Read[float32](l.theta)
	if err != nil {
		return nil, fmt.Errorf("engine: read parameters: %w", err)
	}
	return theta, nil
}

func (l *lead) addWeights(c *call) {
	c.state(&l.theta)
	if l.ema != nil {
		c.state(&l.ema)
	}
	for i := range l.moments {
		c.state(&l.moments[i])
	}
}

func (l *lead) addInput(c *call, in stepInput) {
	dim := l.spec.dim()
	c.host(tensors.FromFlatDataAndDimensions(in.positives, l.spec.Batch, dim))
	c.host(tensors.FromFlatDataAndDimensions(in.negatives, l.spec.negatives(), dim))
	if l.spec.Weighted {
		c.host(tensors.FromFlatDataAndDimensions(in.weights, l.spec.negatives()))
	}
}

// inputs are those that addInput uploads, in its order.
func (l *lead) inputs() []backend.Input {
	n, dim := l.spec.negatives(), l.spec.dim()
	in := []backend.Input{
		{Name: "positives", Shape: shapes.Make(f32, l.spec.Batch, dim)},
		{Name: "negatives", Shape: shapes.Make(f32, n, dim)}}
	if l.spec.Weighted {
		in = append(in, backend.Input{Name: "weights", Shape: shapes.Make(f32, n)})
	}
	return in
}

// loss reads what inputs describes.
func (l *lead) loss(r *reader, pieces []*Node) losses.Terms {
	positives, negatives := r.next(), r.next()
	var weights *Node
	if l.spec.Weighted {
		weights = r.next()
	}
	return l.spec.loss(models.At(l.spec.Network, pieces), weights).Build(positives, negatives)
}

func (l *lead) compileLearn() (*backend.Program, error) {
	in := append(l.spec.Optimizer.weightInputs(l.params), backend.Input{Name: "hyper", Shape: shapes.Make(f32, hyperSize)})
	return backend.Compile(l.backend, "learn", append(in, l.inputs()...), func(nodes []*Node) []*Node {
		r := &reader{nodes}
		w := l.spec.Optimizer.readWeights(r)
		hyper := r.next()
		pieces := models.Unpack(l.spec.Network, w.theta)
		terms := l.loss(r, pieces)
		w, norm := l.spec.Optimizer.descend(w, terms.Loss, pieces, hyper)
		return append(w.nodes(), packScores(terms, norm))
	})
}

func (l *lead) compileGradient() (*backend.Program, error) {
	in := append([]backend.Input{{Name: "theta", Shape: shapes.Make(f32, l.params)}}, l.inputs()...)
	return backend.Compile(l.backend, "gradient", in, func(nodes []*Node) []*Node {
		r := &reader{nodes}
		pieces := models.Unpack(l.spec.Network, r.next())
		terms := l.loss(r, pieces)
		gradient := flatten(Gradient(terms.Loss, pieces...))
		return []*Node{Concatenate([]*Node{gradient, packScores(terms, ScalarZero(gradient.Graph(), f32))}, 0)}
	})
}

func (l *lead) compileApply() (*backend.Program, error) {
	in := append(l.spec.Optimizer.weightInputs(l.params),
		backend.Input{Name: "hyper", Shape: shapes.Make(f32, hyperSize)},
		backend.Input{Name: "gradient", Shape: shapes.Make(f32, l.params)})
	return backend.Compile(l.backend, "descend", in, func(nodes []*Node) []*Node {
		r := &reader{nodes}
		w := l.spec.Optimizer.readWeights(r)
		hyper, gradient := r.next(), r.next()
		w, norm := l.spec.Optimizer.descendBy(w, gradient, hyper)
		return append(w.nodes(), vec(norm))
	})
}
