package engine

import (
	"fmt"
	"slices"

	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// lead makes the optimizer steps of a group whose chains are on several shards: it alone holds the optimizer's state.
type lead struct {
	spec    Spec // of the whole group
	backend *backend.Backend
	params  int

	theta, ema *tensors.Tensor
	moments    []*tensors.Tensor
	program    *backend.Program
}

func (l *lead) close() {
	backend.Release(l.theta, l.ema)
	backend.Release(l.moments...)
	if l.program != nil {
		l.program.Close()
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
	read := func(t *tensors.Tensor) []float32 {
		if t == nil || err != nil {
			return nil
		}
		var v []float32
		v, err = backend.Read[float32](t)
		return v
	}
	st.Theta, st.EMA = read(l.theta), read(l.ema)
	for _, m := range l.moments {
		st.Moments = append(st.Moments, read(m))
	}
	if err != nil {
		return State{}, fmt.Errorf("engine: read state: %w", err)
	}
	return st, nil
}

// step makes one optimizer step on given positives [batch·dim] and negatives [negatives·dim], and returns the parameters
// after it, [P], and the five numbers of [Scores].
func (l *lead) step(lr float64, step int, positives, negatives, weights []float32) (theta, scores []float32, err error) {
	if l.program == nil {
		if l.program, err = l.compile(); err != nil {
			return nil, nil, err
		}
	}
	c := &call{}
	c.state(&l.theta)
	if l.ema != nil {
		c.state(&l.ema)
	}
	for i := range l.moments {
		c.state(&l.moments[i])
	}
	c.host(tensors.FromFlatDataAndDimensions(positives, l.spec.Batch, l.spec.dim()))
	c.host(tensors.FromFlatDataAndDimensions(l.spec.Optimizer.hyper(lr, step), hyperSize))
	c.host(tensors.FromFlatDataAndDimensions(negatives, l.spec.negatives(), l.spec.dim()))
	if l.spec.Weighted {
		c.host(tensors.FromFlatDataAndDimensions(weights, l.spec.negatives()))
	}
	if scores, err = c.run(l.program); err != nil {
		return nil, nil, err
	}
	if theta, err = backend.Read[float32](l.theta); err != nil {
		return nil, nil, fmt.Errorf("engine: read parameters: %w", err)
	}
	return theta, scores, nil
}

func (l *lead) compile() (*backend.Program, error) {
	if l.spec.Batch < 1 {
		return nil, fmt.Errorf("engine: train: batch %d, want at least 1", l.spec.Batch)
	}
	n, dim := l.spec.negatives(), l.spec.dim()
	in := append(l.spec.Optimizer.weightInputs(l.params),
		backend.Input{Name: "positives", Shape: shapes.Make(f32, l.spec.Batch, dim)},
		backend.Input{Name: "hyper", Shape: shapes.Make(f32, hyperSize)},
		backend.Input{Name: "negatives", Shape: shapes.Make(f32, n, dim)})
	if l.spec.Weighted {
		in = append(in, backend.Input{Name: "weights", Shape: shapes.Make(f32, n)})
	}
	return backend.Compile(l.backend, "learn", in, func(nodes []*Node) []*Node {
		r := &reader{nodes}
		w := l.spec.Optimizer.readWeights(r)
		positives, hyper, negatives := r.next(), r.next(), r.next()
		var weights *Node
		if l.spec.Weighted {
			weights = r.next()
		}
		pieces := models.Unpack(l.spec.Network, w.theta)
		terms := l.spec.loss(models.At(l.spec.Network, pieces), weights).Build(positives, negatives)
		w, norm := l.spec.Optimizer.descend(w, terms.Loss, pieces, hyper)
		return append(w.nodes(), packScores(terms, norm))
	})
}
