package samplers

import (
	"context"
	"fmt"
	"slices"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/integrators"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// flowRun drives a flow on the host.
type flowRun struct {
	RunOptions
	flow   Flow
	extras []*tensors.Tensor // what the field takes besides x and t: the parameters and the labels
}

func (o RunOptions) flow(ctx context.Context, b *backend.Backend, t *Trace) (err error) {
	flow, err := o.Sampler.NewFlow()
	if err != nil {
		return err
	}
	r := &flowRun{RunOptions: o, flow: flow, extras: []*tensors.Tensor{o.theta()}}
	if labels := o.labels(); labels != nil {
		r.extras = append(r.extras, tensors.FromFlatDataAndDimensions(labels, o.Chains))
	}
	x := o.start()
	defer func() { backend.Release(append(r.extras, x)...) }()

	advance, closeAll, err := r.compile(b)
	if err != nil {
		return err
	}
	defer closeAll()
	times := flow.Times()
	stride := len(times) - 1 // steps to the next state to look at
	recorded := o.Trajectory || o.Diagnostics
	if recorded {
		stride = o.Thin
	}
	var states [][]float64
	for from := 0; from < len(times)-1; from += stride {
		to := min(from+stride, len(times)-1)
		next, err := advance(ctx, x, times[from:to+1], from)
		if err != nil {
			return err
		}
		backend.Release(x)
		x = next
		values, err := read(x)
		if err != nil {
			return err
		}
		at := times[to]
		if to == len(times)-1 {
			at = flow.End()
			t.X = values
		}
		if flow.Reverse {
			at = times[0] + times[len(times)-1] - at
		}
		for row := range t.Chains {
			if !finite(values[row*t.Dim : (row+1)*t.Dim]) {
				if t.NonFinite == 0 {
					t.FirstStep, t.FirstChain = to, row
				}
				t.NonFinite++
			}
		}
		if !recorded || to%o.Thin != 0 {
			continue
		}
		t.Kept++
		if o.Trajectory {
			states = append(states, values)
		}
		if o.Diagnostics {
			mean, variance := moments(values, t.Dim)
			t.Mean, t.Variance = append(t.Mean, mean...), append(t.Variance, variance...)
			t.T = append(t.T, at)
		}
	}
	if o.Trajectory {
		t.Trajectory = lay(states, t.Chains, t.Dim)
	}
	return nil
}

// labels are those of the samples, nil for none.
func (o RunOptions) labels() []int32 {
	switch {
	case o.Labels != nil:
		return o.Labels
	case o.Sampler.Label != nil:
		return slices.Repeat([]int32{int32(*o.Sampler.Label)}, o.Chains)
	}
	return nil
}

// field is the field at the inputs of a program: parameters, and labels where there are any.
func (r *flowRun) field(inputs []*Node) integrators.Drift {
	network := r.Network.(models.Field)
	field := models.FieldAt(network, r.weights(inputs[0]))
	var labels *Node
	if len(inputs) > 1 {
		labels = inputs[1]
		if w := r.Sampler.GuidanceScale; w != nil {
			field = models.ClassifierFreeGuidance(field, models.Guidance{Scale: *w, Null: network.Classes()})
		}
	}
	return func(x, t *Node) *Node { return field(x, t, labels) }
}

func (r *flowRun) extraInputs() []backend.Input {
	in := []backend.Input{r.thetaInput()}
	if len(r.extras) > 1 {
		in = append(in, backend.Input{Name: "labels", Shape: shapes.Make(dtypes.Int32, r.Chains)})
	}
	return in
}

// compile gives a function that carries x, which stays the caller's, along some of the times; from is the number of the first.
func (r *flowRun) compile(b *backend.Backend) (advance func(ctx context.Context, x *tensors.Tensor, times []float64, from int) (*tensors.Tensor, error), closeAll func(), err error) {
	if r.flow.SDE {
		return r.compileSDE(b)
	}
	solver, err := integrators.NewSolver(b, integrators.Problem{
		Scheme: r.flow.Scheme, State: r.statesInput().Shape, Inputs: r.extraInputs(), Control: r.flow.Control,
		Drift: func(x, t *Node, inputs ...*Node) *Node { return r.flow.Drift(r.field(inputs))(x, t) },
	})
	if err != nil {
		return nil, nil, err
	}
	return func(ctx context.Context, x *tensors.Tensor, times []float64, _ int) (*tensors.Tensor, error) {
		next, _, err := solver.Solve(ctx, x, times, r.extras...)
		return next, err
	}, solver.Close, nil
}

func (r *flowRun) compileSDE(b *backend.Backend) (advance func(ctx context.Context, x *tensors.Tensor, times []float64, from int) (*tensors.Tensor, error), closeAll func(), err error) {
	dtype, dim := r.dtype(), r.Network.Dim()
	scalar := shapes.Make(dtype)
	in := append([]backend.Input{r.statesInput(), {Name: "t", Shape: scalar}, {Name: "h", Shape: scalar}, {Name: "key", Shape: KeyShape}}, r.extraInputs()...)
	step, err := backend.Compile(b, "flow step", in, func(in []*Node) []*Node {
		x, t, h, key := in[0], in[1], in[2], in[3]
		z := NewSource(key, dtype, NormalCount(r.Chains, dim)).Normal(r.Chains, dim)
		return []*Node{r.flow.Step(r.field(in[4:]), x, BroadcastToDims(t, r.Chains), h, z)}
	})
	if err != nil {
		return nil, nil, err
	}
	last, err := backend.Compile(b, "flow last step", append([]backend.Input{r.statesInput()}, r.extraInputs()...), func(in []*Node) []*Node {
		return []*Node{r.flow.Last(r.field(in[1:]), in[0])}
	})
	if err != nil {
		step.Close()
		return nil, nil, err
	}
	call := func(p *backend.Program, x *tensors.Tensor, more ...*tensors.Tensor) (*tensors.Tensor, error) {
		out, err := p.Run(append(append([]*tensors.Tensor{x}, more...), r.extras...)...)
		backend.Release(more...)
		if err != nil {
			return nil, err
		}
		return out[0], nil
	}
	advance = func(ctx context.Context, x *tensors.Tensor, times []float64, from int) (_ *tensors.Tensor, err error) {
		start := x
		defer func() {
			if err != nil && x != start {
				backend.Release(x)
			}
		}()
		move := func(next *tensors.Tensor, err error) error {
			if err != nil {
				return err
			}
			if x != start {
				backend.Release(x)
			}
			x = next
			return nil
		}
		for i := range len(times) - 1 {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if err := move(call(step, x, r.upload([]float64{times[i]}), r.upload([]float64{times[i+1] - times[i]}), r.key(from+i))); err != nil {
				return nil, fmt.Errorf("step %d: %w", from+i+1, err)
			}
		}
		if from+len(times)-1 == r.flow.Steps {
			if err := move(call(last, x)); err != nil {
				return nil, fmt.Errorf("last step: %w", err)
			}
		}
		return x, nil
	}
	return advance, func() { step.Close(); last.Close() }, nil
}

// moments are the mean and the variance, which divides by their number, of rows.
func moments(rows []float64, dim int) (mean, variance []float64) {
	mean, variance = make([]float64, dim), make([]float64, dim)
	n := float64(len(rows) / dim)
	for row := range slices.Chunk(rows, dim) {
		for d, v := range row {
			mean[d] += v / n
		}
	}
	for row := range slices.Chunk(rows, dim) {
		for d, v := range row {
			variance[d] += (v - mean[d]) * (v - mean[d]) / n
		}
	}
	return mean, variance
}
