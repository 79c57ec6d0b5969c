package engine

import (
	"fmt"
	"slices"

	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
)

// descent holds the parameters with what the optimizer keeps beside them, and makes optimizer steps down given gradients.
type descent struct {
	backend   *backend.Backend
	optimizer OptimizerConfig
	params    int // length of θ

	theta, ema *tensors.Tensor // ema is nil where no average is kept
	moments    []*tensors.Tensor

	apply *backend.Program // compiled at the first step
}

func (d *descent) close() {
	backend.Release(d.theta, d.ema)
	backend.Release(d.moments...)
	if d.apply != nil {
		d.apply.Close()
	}
}

// load takes the weights of a state, whose lengths are right.
func (d *descent) load(st State) {
	vector := func(v []float32) *tensors.Tensor {
		return tensors.FromFlatDataAndDimensions(slices.Clone(v), d.params)
	}
	backend.Release(d.theta, d.ema)
	backend.Release(d.moments...)
	d.theta, d.ema, d.moments = vector(st.Theta), nil, nil
	if st.EMA != nil {
		d.ema = vector(st.EMA)
	}
	for _, m := range st.Moments {
		d.moments = append(d.moments, vector(m))
	}
}

func (d *descent) setTheta(theta []float32) {
	backend.Release(d.theta)
	d.theta = tensors.FromFlatDataAndDimensions(slices.Clone(theta), d.params)
}

// state copies what load took to the host.
func (d *descent) state() (st State, err error) {
	var host readout
	host.weights(&st, d.theta, d.ema, d.moments)
	if host.err != nil {
		return State{}, fmt.Errorf("engine: read state: %w", host.err)
	}
	return st, nil
}

// read copies the parameters to the host.
func (d *descent) read() ([]float32, error) {
	theta, err := backend.Read[float32](d.theta)
	if err != nil {
		return nil, fmt.Errorf("engine: read parameters: %w", err)
	}
	return theta, nil
}

// evaluated copies to the host what evaluation uses: the averaged parameters where the optimizer keeps them.
func (d *descent) evaluated() ([]float32, error) {
	if d.ema != nil {
		return backend.Read[float32](d.ema)
	}
	return backend.Read[float32](d.theta)
}

// addWeights adds the inputs of OptimizerConfig.weightInputs to a call, which replaces them.
func (d *descent) addWeights(c *call) {
	c.state(&d.theta)
	if d.ema != nil {
		c.state(&d.ema)
	}
	for i := range d.moments {
		c.state(&d.moments[i])
	}
}

// descend makes optimizer step number step down a gradient, and returns the parameters after it and the gradient's norm.
func (d *descent) descend(lr float64, step int, gradient []float32) (theta []float32, norm float64, err error) {
	if d.apply == nil {
		if d.apply, err = d.compileApply(); err != nil {
			return nil, 0, err
		}
	}
	c := &call{}
	d.addWeights(c)
	c.host(tensors.FromFlatDataAndDimensions(d.optimizer.hyper(lr, step), hyperSize))
	c.host(tensors.FromFlatDataAndDimensions(gradient, d.params))
	packed, err := c.run(d.apply)
	if err != nil {
		return nil, 0, err
	}
	theta, err = d.read()
	return theta, float64(packed[0]), err
}

func (d *descent) compileApply() (*backend.Program, error) {
	in := append(d.optimizer.weightInputs(d.params),
		backend.Input{Name: "hyper", Shape: shapes.Make(f32, hyperSize)},
		backend.Input{Name: "gradient", Shape: shapes.Make(f32, d.params)})
	return backend.Compile(d.backend, "descend", in, func(nodes []*Node) []*Node {
		r := &reader{nodes}
		w := d.optimizer.readWeights(r)
		hyper, gradient := r.next(), r.next()
		w, norm := d.optimizer.descendBy(w, gradient, hyper)
		return append(w.nodes(), vec(norm))
	})
}
