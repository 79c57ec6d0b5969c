package engine

import (
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// lead makes the optimizer steps of a group whose chains are on several shards: it alone holds the optimizer's state.
type lead struct {
	descent
	spec Spec // of the whole group

	learn    *backend.Program // a whole step
	gradient *backend.Program // its first half, where the gradient is averaged over groups before the second
}

func newLead(b *backend.Backend, spec Spec, params int) *lead {
	return &lead{descent: descent{backend: b, optimizer: spec.Optimizer, params: params}, spec: spec}
}

func (l *lead) close() {
	l.descent.close()
	for _, p := range []*backend.Program{l.learn, l.gradient} {
		if p != nil {
			p.Close()
		}
	}
}

// stepInput is what a step learns from: positives [batch·dim], negatives [negatives·dim] and, with Spec.Weighted, their
// weights. A slice of them has weights always, for positives too.
type stepInput struct{ positives, positiveWeights, negatives, weights []float32 }

// step makes one optimizer step and returns the parameters after it, [P], and the numbers of [Scores].
func (l *lead) step(lr float64, step int, in stepInput) (theta []float32, scores Scores, err error) {
	if l.learn == nil {
		if l.learn, err = l.compileLearn(); err != nil {
			return nil, Scores{}, err
		}
	}
	c := &call{}
	l.addWeights(c)
	c.host(tensors.FromFlatDataAndDimensions(l.optimizer.hyper(lr, step), hyperSize))
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
	return l.spec.loss(models.At(l.spec.Network, pieces), nil, weights).Build(positives, negatives)
}

func (l *lead) compileLearn() (*backend.Program, error) {
	in := append(l.optimizer.weightInputs(l.params), backend.Input{Name: "hyper", Shape: shapes.Make(f32, hyperSize)})
	return backend.Compile(l.backend, "learn", append(in, l.inputs()...), func(nodes []*Node) []*Node {
		r := &reader{nodes}
		w := l.optimizer.readWeights(r)
		hyper := r.next()
		pieces := models.Unpack(l.spec.Network, w.theta)
		terms := l.loss(r, pieces)
		w, norm := l.optimizer.descend(w, terms.Loss, pieces, hyper)
		return append(w.nodes(), packScores(terms, norm))
	})
}

func (l *lead) compileGradient() (*backend.Program, error) {
	in := append([]backend.Input{{Name: "theta", Shape: shapes.Make(f32, l.params)}}, l.inputs()...)
	return backend.Compile(l.backend, "gradient", in, func(nodes []*Node) []*Node {
		r := &reader{nodes}
		pieces := models.Unpack(l.spec.Network, r.next())
		return []*Node{gradientAndScores(l.loss(r, pieces), pieces)}
	})
}

// gradientAndScores is the gradient of a loss in the pieces of θ, not clipped, and what packScores gives, with norm 0 for now.
func gradientAndScores(terms losses.Terms, pieces []*Node) *Node {
	gradient := flatten(Gradient(terms.Loss, pieces...))
	return Concatenate([]*Node{gradient, packScores(terms, ScalarZero(gradient.Graph(), f32))}, 0)
}
