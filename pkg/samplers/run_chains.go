package samplers

import (
	"context"
	"fmt"

	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// maxBlockStates bounds the states [steps, chains, dim] that a block hands out, in numbers.
const maxBlockStates = 1 << 24

// chainRun drives the chains of a kernel, a block of steps a call. Blocks are all of one length, with the kept steps at the
// same places: the first and the last one may hold idle steps, before the burn-in and after the end.
type chainRun struct {
	RunOptions
	kernel Kernel
	block  int   // steps a call
	places []int // steps of a block that may be kept
	first  int   // idle steps before the first
	steps  int   // all steps: burn-in and the rest

	stepSize, noiseScale schedules.Schedule
	factors              []float64 // of the noise scale

	sizes *tempering.StepSizes // adapts the step size until the burn-in is over; nil: it stays

	accepted         float64     // proposals taken since the burn-in
	states, energies [][]float64 // of the kept steps, with Trajectory
}

func (o RunOptions) newChainRun() (*chainRun, error) {
	r := &chainRun{RunOptions: o, kernel: o.Sampler.NewKernel(nil), steps: o.Burn + o.Sampler.Steps}
	most := max(1, o.BlockGradients/r.kernel.Gradients())
	if o.Trajectory {
		most = max(1, min(most, maxBlockStates/(o.Chains*o.Network.Dim())))
	}
	most = min(most, r.steps)
	r.block = most
	switch {
	case !o.Trajectory && !o.Diagnostics:
	case o.Thin <= most:
		r.block = most / o.Thin * o.Thin
		for at := o.Thin - 1; at < r.block; at += o.Thin {
			r.places = append(r.places, at)
		}
	default: // a divisor of thin, so that kept steps end a block
		for o.Thin%r.block != 0 {
			r.block--
		}
		r.places = []int{r.block - 1}
	}
	r.first = (r.block - o.Burn%r.block) % r.block
	var err error
	if r.stepSize, err = o.Sampler.StepSize.Over(r.steps).Build(); err != nil {
		return nil, fmt.Errorf("step_size: %w", err)
	}
	noise := o.Sampler.NoiseScale
	if noise.Kind == "" {
		noise = schedules.Constant(1)
	}
	if r.noiseScale, err = noise.Over(r.steps).Build(); err != nil {
		return nil, fmt.Errorf("noise_scale: %w", err)
	}
	whole := o.Sampler
	whole.Steps = r.steps
	r.factors = whole.NoiseFactors()
	if o.adapts() {
		if r.sizes, err = tempering.NewStepSizes(1, o.Sampler.TargetAccept()); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (o RunOptions) chains(ctx context.Context, b *backend.Backend, t *Trace) (err error) {
	r, err := o.newChainRun()
	if err != nil {
		return err
	}
	program, err := r.compile(b)
	if err != nil {
		return err
	}
	defer program.Close()
	theta, x, aux := o.theta(), o.start(), o.upload(make([]float64, o.Chains*t.Dim), o.Chains, t.Dim)
	defer func() { backend.Release(theta, x, aux) }()

	for call := 0; call*r.block < r.first+r.steps; call++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		from := call*r.block - r.first // number of the block's first step
		tables, key := r.tables(from, t.StepFactor), o.key(call)
		out, err := program.Run(theta, x, aux, key, tables)
		backend.Release(tables, key)
		if err != nil {
			return err
		}
		backend.Release(x, aux)
		x, aux = out[0], out[1]
		err = r.collect(t, out[2:], from)
		backend.Release(out[2:]...)
		if err != nil {
			return err
		}
	}
	if o.Sampler.Adjusted() {
		t.AcceptRate = r.accepted / float64(o.Chains) / float64(o.Sampler.Steps)
	}
	if o.Trajectory {
		t.Trajectory, t.TrajectoryEnergy = lay(r.states, t.Chains, t.Dim), lay(r.energies, t.Chains, 1)
	}
	t.X, err = read(x)
	return err
}

// tables are the inputs of a block by step, [3, block]: step sizes times a factor, noise scales, and 1 for a step that is made.
func (r *chainRun) tables(from int, factor float64) *tensors.Tensor {
	v := make([]float64, 3*r.block)
	for i := range r.block {
		m := min(max(0, from+i), r.steps-1)
		v[i], v[r.block+i] = r.stepSize.At(m)*factor, r.noiseScale.At(m)
		if r.factors != nil {
			v[r.block+i] *= r.factors[m]
		}
		if m == from+i {
			v[2*r.block+i] = 1
		}
	}
	return r.upload(v, 3, r.block)
}

// compile compiles a block. Inputs: theta, x, aux, key, tables. Outputs: x, aux, accepted [block] (the number of chains),
// not finite [block, chains], and for the places that may be kept mean and variance [places, dim], energies [places, chains]
// and, if asked for, the states [places, chains, dim].
func (r *chainRun) compile(b *backend.Backend) (*backend.Program, error) {
	dtype, dim := r.dtype(), r.Network.Dim()
	in := []backend.Input{r.thetaInput(), r.statesInput(), {Name: "aux", Shape: shapes.Make(dtype, r.Chains, dim)},
		{Name: "key", Shape: KeyShape}, {Name: "tables", Shape: shapes.Make(dtype, 3, r.block)}}
	return backend.Compile(b, r.Sampler.Kind, in, func(in []*Node) []*Node {
		theta, x, aux, key, tables := in[0], in[1], in[2], in[3], in[4]
		energy := models.At(r.Network.(models.Energy), r.weights(theta))
		target := Target{Path: r.Sampler.Confine(Power(energy)), Beta: Ones(x.Graph(), shapes.Make(dtype, r.Chains))}
		source := NewSource(key, dtype, r.block*StepCount(r.kernel, r.Chains, dim))
		at := func(table, m int) *Node { return Reshape(Slice(tables, AxisElem(table), AxisElem(m))) }

		p := target.At(x)
		p.Aux = aux
		var accepted, lost []*Node
		var kept []Point
		for m := range r.block {
			kernel := r.Sampler.NewKernel(at(1, m))
			next, info := kernel.Step(target, p, BroadcastToDims(at(0, m), r.Chains), source.Step(kernel, r.Chains, dim))
			made := GreaterThan(at(2, m), ScalarZero(x.Graph(), dtype))
			p = where(made, next, p)
			count := ConvertDType(made, dtypeOfInfo)
			lost = append(lost, Reshape(Mul(info.NonFinite, count), 1, r.Chains))
			taken := ScalarZero(x.Graph(), dtypeOfInfo)
			if info.Accept != nil {
				taken = Mul(ReduceAllSum(info.Accept), count)
			}
			accepted = append(accepted, Reshape(taken, 1))
			if len(kept) < len(r.places) && r.places[len(kept)] == m {
				kept = append(kept, p)
			}
		}
		out := []*Node{p.X, p.Aux, Concatenate(accepted, 0), Concatenate(lost, 0)}
		return append(out, r.record(kept)...)
	})
}

// record builds what is kept of some points.
func (r *chainRun) record(points []Point) []*Node {
	if len(points) == 0 {
		return nil
	}
	var means, variances, energies, states []*Node
	for _, p := range points {
		mean := ReduceAndKeep(p.X, ReduceMean, 0)
		means = append(means, mean)
		variances = append(variances, ReduceAndKeep(Square(Sub(p.X, mean)), ReduceMean, 0))
		energies = append(energies, Reshape(Neg(p.V), 1, r.Chains))
		states = append(states, ExpandAxes(p.X, 0))
	}
	out := []*Node{Concatenate(means, 0), Concatenate(variances, 0), Concatenate(energies, 0)}
	if r.Trajectory {
		out = append(out, Concatenate(states, 0))
	}
	return out
}

// where is q under a condition, else p.
func where(condition *Node, q, p Point) Point {
	pick := func(a, b *Node) *Node {
		return Where(BroadcastToDims(condition, a.Shape().Dimensions...), a, b)
	}
	if q.Aux == nil { // the kernel carries nothing
		q.Aux = p.Aux
	}
	return Point{X: pick(q.X, p.X), V: pick(q.V, p.V), LogP: pick(q.LogP, p.LogP), Grad: pick(q.Grad, p.Grad), Aux: pick(q.Aux, p.Aux)}
}

// collect reads what a block reports; from is the number of its first step.
func (r *chainRun) collect(t *Trace, out []*tensors.Tensor, from int) error {
	taken, err := backend.Read[float32](out[0])
	if err != nil {
		return err
	}
	lost, err := backend.Read[float32](out[1])
	if err != nil {
		return err
	}
	for i, bad := range lost {
		if bad == 0 {
			continue
		}
		if t.NonFinite == 0 {
			t.FirstStep, t.FirstChain = from+i/r.Chains+1, i%r.Chains
		}
		t.NonFinite++
	}
	if from < r.Burn && r.sizes != nil { // the burn-in ends with a block
		made := taken[max(0, -from):] // without idle steps
		for _, n := range made {
			r.sizes.Observe([]float64{float64(n) / float64(r.Chains)})
		}
		r.sizes.Move()
		t.StepFactor = r.sizes.Factors()[0]
	}
	var recorded [4][]float64 // mean, variance, energies, states
	for i, o := range out[2:] {
		if recorded[i], err = read(o); err != nil {
			return err
		}
	}
	place := 0
	for i := range r.block {
		step := from + i - r.Burn // number among the steps that count
		counts := step >= 0 && step < r.Sampler.Steps
		if counts {
			r.accepted += float64(taken[i])
		}
		if place == len(r.places) || r.places[place] != i {
			continue
		}
		if counts && (step+1)%r.Thin == 0 {
			r.keep(t, recorded, place, r.accepted/float64(r.Chains)/float64(step+1))
		}
		place++
	}
	return nil
}

func (r *chainRun) keep(t *Trace, recorded [4][]float64, place int, acceptance float64) {
	t.Kept++
	energies := recorded[2][place*r.Chains : (place+1)*r.Chains]
	if r.Trajectory {
		size := r.Chains * t.Dim
		r.states = append(r.states, recorded[3][place*size:(place+1)*size])
		r.energies = append(r.energies, energies)
	}
	if !r.Diagnostics {
		return
	}
	t.Mean = append(t.Mean, recorded[0][place*t.Dim:(place+1)*t.Dim]...)
	t.Variance = append(t.Variance, recorded[1][place*t.Dim:(place+1)*t.Dim]...)
	energy, _ := moments(energies, 1)
	t.Energy = append(t.Energy, energy...)
	if r.Sampler.Adjusted() {
		t.Acceptance = append(t.Acceptance, acceptance)
	}
}
