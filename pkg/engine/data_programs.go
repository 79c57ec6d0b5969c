package engine

import (
	"fmt"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
)

// batchInputs are the inputs that a step's batch brings, in the order of batchTensors.
func (t *DataTrainer) batchInputs() []backend.Input {
	n, dim := t.rows(), t.cfg.Network.Dim()
	in := []backend.Input{{Name: "rows", Shape: shapes.Make(f32, n, dim)}}
	if t.cfg.Classes > 0 {
		in = append(in, backend.Input{Name: "labels", Shape: shapes.Make(dtypes.Int32, n)})
	}
	if t.needs.Source {
		in = append(in, backend.Input{Name: "source", Shape: shapes.Make(f32, n, dim)})
		if t.cfg.Coupling != nil {
			in = append(in, backend.Input{Name: "uncoupled", Shape: shapes.Make(f32, n, dim)}, backend.Input{Name: "weights", Shape: shapes.Make(f32, n)})
		}
	}
	if len(t.needs.Scalars) > 0 {
		in = append(in, backend.Input{Name: "scalars", Shape: shapes.Make(f32, len(t.needs.Scalars))})
	}
	if c := t.needs.Chains; c != nil {
		in = append(in, backend.Input{Name: "negatives", Shape: shapes.Make(f32, c.Rows, dim)})
	}
	return append(in, backend.Input{Name: "key", Shape: samplers.KeyShape})
}

// batchTensors are the arrays of batchInputs but for the negatives, which are on the device.
func (t *DataTrainer) batchTensors(p prepared, negatives *tensors.Tensor) []*tensors.Tensor {
	n, dim := t.rows(), t.cfg.Network.Dim()
	in := []*tensors.Tensor{tensors.FromFlatDataAndDimensions(p.x, n, dim)}
	if t.cfg.Classes > 0 {
		in = append(in, tensors.FromFlatDataAndDimensions(p.labels, n))
	}
	if t.needs.Source {
		in = append(in, tensors.FromFlatDataAndDimensions(p.source, n, dim))
		if t.cfg.Coupling != nil {
			weights := p.weights
			if weights == nil {
				weights = make([]float32, n)
				for i := range weights {
					weights[i] = 1
				}
			}
			in = append(in, tensors.FromFlatDataAndDimensions(p.rows, n, dim), tensors.FromFlatDataAndDimensions(weights, n))
		}
	}
	if scalars := t.needs.Scalars; len(scalars) > 0 {
		values := make([]float32, len(scalars))
		for i, s := range scalars {
			values[i] = float32(s.At.At(p.step))
		}
		in = append(in, tensors.FromFlatDataAndDimensions(values, len(values)))
	}
	if negatives != nil {
		in = append(in, negatives)
	}
	return append(in, deviceKey(t.cfg.Seed, rng.LossDraws, uint64(p.step), p.shard, 0))
}

func deviceKey(seed uint64, purpose rng.Purpose, at uint64, shard, block uint32) *tensors.Tensor {
	return tensors.FromFlatDataAndDimensions([]uint64{rng.Uint64(seed, purpose, at, shard, block), 0, 0}, 3)
}

// batch reads the inputs of batchInputs.
func (t *DataTrainer) batch(r *reader) losses.Batch {
	b := losses.Batch{X: r.next()}
	if t.cfg.Classes > 0 {
		b.Labels = r.next()
	}
	if t.needs.Source {
		b.Source = r.next()
		if t.cfg.Coupling != nil {
			b.Data, b.Weights = r.next(), r.next()
		}
	}
	if n := len(t.needs.Scalars); n > 0 {
		all := r.next()
		for i := range n {
			b.Scalars = append(b.Scalars, Reshape(Slice(all, AxisElem(i))))
		}
	}
	if t.needs.Chains != nil {
		b.Negatives = r.next()
	}
	b.Draws = lossDraws(t.needs.Draws, r.next())
	return b
}

// lossDraws draws the random arrays of a loss, all from one call of the device's generator.
func lossDraws(draws []losses.Draw, key *Node) []*Node {
	block := func(d losses.Draw) (rows, last int) {
		if len(d.Dims) == 0 {
			return 1, 1
		}
		rows = 1
		for _, n := range d.Dims[:len(d.Dims)-1] {
			rows *= n
		}
		return rows, d.Dims[len(d.Dims)-1]
	}
	total := 0
	for _, d := range draws {
		rows, last := block(d)
		if d.Uniform {
			total += rows * last
		} else {
			total += samplers.NormalCount(rows, last)
		}
	}
	if total == 0 {
		return nil
	}
	source := samplers.NewSource(key, f32, total)
	var out []*Node
	for _, d := range draws {
		rows, last := block(d)
		if d.Uniform {
			out = append(out, source.Uniform(d.Dims...))
		} else {
			out = append(out, Reshape(source.Normal(rows, last), d.Dims...))
		}
	}
	return out
}

// model is what the loss differentiates, at given weights.
func (t *DataTrainer) model(pieces []*Node) losses.Model {
	var m losses.Model
	if t.energy != nil {
		f := models.At(t.energy, pieces)
		m.Energy = withBase(f, t.cfg.Base)
		if t.cfg.Base != nil {
			m.Network = f
		}
	}
	if t.field != nil {
		m.Field = models.FieldAt(t.field, pieces)
		if h, ok := t.field.(models.Hidden); ok {
			m.Hidden = func(x, at, y *Node) *Node { return h.Hidden(x, at, y, pieces) }
		}
	}
	return m
}

// compileTrain compiles a whole step, or with shared the gradient of a shard: its outputs are then [P], loss, norm 0 and parts.
func (t *DataTrainer) compileTrain(shared bool) (*backend.Program, error) {
	var in []backend.Input
	if shared {
		in = []backend.Input{{Name: "theta", Shape: shapes.Make(f32, t.params)}}
	} else {
		in = append(t.optimizer.weightInputs(t.params), backend.Input{Name: "hyper", Shape: shapes.Make(f32, hyperSize)})
	}
	in = append(in, t.batchInputs()...)
	return backend.Compile(t.backend, "train", in, func(nodes []*Node) []*Node {
		r := &reader{nodes}
		var w weights
		var hyper *Node
		if shared {
			w.theta = r.next()
		} else {
			w, hyper = t.optimizer.readWeights(r), r.next()
		}
		batch := t.batch(r)
		pieces := models.Unpack(t.cfg.Network, w.theta)
		result := t.cfg.Loss.Build(t.model(pieces), batch)
		if !result.Loss.IsScalar() {
			panic(fmt.Errorf("a loss of %s, want a scalar", result.Loss.Shape()))
		}
		gradient := flatten(Gradient(result.Loss, pieces...))
		var out []*Node
		norm, scores := ScalarZero(gradient.Graph(), f32), []*Node{}
		if shared {
			scores = append(scores, gradient)
		} else {
			w, norm = t.optimizer.descendBy(w, gradient, hyper)
			out = w.nodes()
		}
		scores = append(scores, vec(result.Loss), vec(norm))
		t.partNames = t.partNames[:0]
		for _, p := range result.Parts {
			t.partNames = append(t.partNames, p.Name)
			scores = append(scores, vec(p.Value))
		}
		return append(out, Concatenate(scores, 0))
	})
}

// runChains runs the loss's chains from their starts, in blocks, and leaves their ends on the device; nil for a loss
// without chains.
func (t *DataTrainer) runChains(batch prepared) (*tensors.Tensor, error) {
	c := t.needs.Chains
	if c == nil {
		return nil, nil
	}
	x := tensors.FromFlatDataAndDimensions(batch.starts, c.Rows, t.cfg.Network.Dim())
	if !c.On(batch.step) {
		return x, nil
	}
	for at, block := 0, uint32(1); at < c.Steps; block++ {
		n := min(c.Steps-at, maxBlock)
		p, err := t.chainSteps(n)
		if err != nil {
			backend.Release(x)
			return nil, err
		}
		temperatures := make([]float32, 0, n*c.Rows)
		for m := range n {
			for i := range c.Rows {
				temperatures = append(temperatures, float32(c.Temperature(i, at+m)))
			}
		}
		table := tensors.FromFlatDataAndDimensions(temperatures, n, c.Rows)
		key := deviceKey(t.cfg.Seed, rng.LossDraws, uint64(batch.step), batch.shard, block)
		out, err := p.RunDonating([]bool{false, true, true, true}, t.theta, x, table, key)
		backend.Release(x, table, key)
		if err != nil {
			return nil, fmt.Errorf("engine: %w", err)
		}
		x = out[0]
		at += n
	}
	return x, nil
}

// chainSteps gives the program of n chain steps, which the shards share.
func (t *DataTrainer) chainSteps(n int) (*backend.Program, error) {
	t.compiling.Lock()
	defer t.compiling.Unlock()
	if t.chains[n] == nil {
		p, err := t.compileChains(n)
		if err != nil {
			return nil, err
		}
		t.chains[n] = p
	}
	return t.chains[n], nil
}

func (t *DataTrainer) compileChains(n int) (*backend.Program, error) {
	c, dim := t.needs.Chains, t.cfg.Network.Dim()
	in := []backend.Input{
		{Name: "theta", Shape: shapes.Make(f32, t.params)},
		{Name: "chains", Shape: shapes.Make(f32, c.Rows, dim)},
		{Name: "temperature", Shape: shapes.Make(f32, n, c.Rows)},
		{Name: "key", Shape: samplers.KeyShape},
	}
	return backend.Compile(t.backend, fmt.Sprintf("%d chain steps", n), in, func(nodes []*Node) []*Node {
		theta, x, temperature, key := nodes[0], nodes[1], nodes[2], nodes[3]
		energy := t.model(models.Unpack(t.cfg.Network, theta)).Energy
		source := samplers.NewSource(key, f32, n*samplers.NormalCount(c.Rows, dim))
		for m := range n {
			_, grad := models.EnergyAndGrad(energy, x)
			tau := Reshape(Slice(temperature, AxisElem(m)), c.Rows, 1)
			noise := Mul(Sqrt(MulScalar(tau, 2*c.StepSize)), source.Normal(c.Rows, dim))
			x = StopGradient(Add(Sub(x, MulScalar(grad, c.StepSize)), noise))
		}
		return []*Node{x}
	})
}

// Energies evaluates E over the temperature of the loss at points x [n·dim], in float32, with the averaged parameters where
// the optimizer keeps them: minus the log of the density that the loss teaches, up to a constant.
func (t *DataTrainer) Energies(x []float32) ([]float64, error) {
	switch {
	case t.energy == nil:
		return nil, ErrNoEnergy
	case !t.Lead():
		return nil, ErrNotLead
	}
	if t.energies == nil {
		t.energies = newEnergyProgram(t.backend, t.cfg.Network.Dim(), t.params, func(theta, x *Node) *Node {
			energy := withBase(models.At(t.energy, models.Unpack(t.cfg.Network, theta)), t.cfg.Base)(x)
			if t.cfg.Temperature > 0 {
				energy = DivScalar(energy, t.cfg.Temperature)
			}
			return energy
		})
	}
	if t.ema != nil {
		return t.energies.run(t.ema, x)
	}
	return t.energies.run(t.theta, x)
}
