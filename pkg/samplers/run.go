package samplers

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/datasets"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// RunOptions say what [Run] does.
type RunOptions struct {
	Sampler Config // WithDefaults is applied
	// Network is what to sample: a models.Energy, or for kind flow a models.Field.
	Network models.Network
	Params  []float32 // its flat parameter vector, as models.Unpack cuts it

	Chains int // chains side by side, or samples of a flow
	// Start holds the first states, [Chains, dim] row by row. nil: N(0, StartStd²) in every coordinate, reflected into the
	// sampler's box.
	Start    []float32
	StartStd float64 // 0 is 1

	// Sampler.Steps are made after Burn chain steps that do not count; every Thin-th of them is kept. Schedules and annealing
	// run over all of them from the first. Thin 0 is 1. A flow takes no Burn. Where the sampler sets target_accept, the step
	// size adapts in the burn-in, by the same factor for all chains, and stays from then on.
	Burn, Thin int

	Trajectory  bool // keep the states of every kept step
	Diagnostics bool // keep mean, variance, energy, acceptance and time of every kept step

	Labels []int32 // label of each sample (flow); nil: Sampler.Label for all
	Seed   uint64  // the same seed gives the same bits on one backend
	Double bool    // compute in float64

	// BlockGradients is the most gradients unrolled into one program, 0 for 10: fewer compile faster, more spare calls. Another
	// number draws other random numbers, as do other values of Burn, Thin, Trajectory and Diagnostics.
	BlockGradients int
}

// Trace is what a run of a sampler gives. Row-major arrays; Kept is the number of kept steps.
type Trace struct {
	Chains, Dim, Kept int

	X          []float64 // [chains, dim]: the last states
	Trajectory []float64 // [chains, kept, dim]; nil unless asked for
	// TrajectoryEnergy [chains, kept] are the energies of the trajectory; nil for a flow.
	TrajectoryEnergy []float64

	// Of every kept step, over the chains; nil unless asked for, or where the sampler has no such number.
	Mean       []float64 // [kept, dim]
	Variance   []float64 // [kept, dim], divided by the number of chains
	Energy     []float64 // [kept]: mean energy
	Acceptance []float64 // [kept]: share of proposals taken since the burn-in, a running mean
	T          []float64 // [kept]: time of a flow

	AcceptRate float64 // share of proposals taken after the burn-in; NaN for a sampler that takes every step
	StepFactor float64 // factor of the step size after the burn-in, see RunOptions.Burn; 1 where it did not adapt

	// NonFinite counts steps of chains that were not finite, burn-in included: proposals that were rejected for it, or states of
	// a chain without a Metropolis test, which is lost from then on; not proposals outside a box. Lost counts the rows of X that are not finite.
	NonFinite, Lost int
	FirstStep       int // step of the first of them, counted from 1 at the start of the run; 0 where there is none
	FirstChain      int // and its chain, from 0

	double bool
}

// Arrays lists the trace as arrays of an npz file: x, and trajectory, trajectory_energy, mean, variance, energy,
// acceptance_rate and t where the trace has them.
func (t *Trace) Arrays() []datasets.Array {
	out := []datasets.Array{{Name: "x", Shape: []int{t.Chains, t.Dim}, Data: t.states(t.X)}}
	add := func(name string, data []float64, states bool, dims ...int) {
		if data == nil {
			return
		}
		a := datasets.Array{Name: name, Shape: dims, Data: data}
		if states {
			a.Data = t.states(data)
		}
		out = append(out, a)
	}
	add("trajectory", t.Trajectory, true, t.Chains, t.Kept, t.Dim)
	add("trajectory_energy", t.TrajectoryEnergy, false, t.Chains, t.Kept)
	add("mean", t.Mean, false, t.Kept, t.Dim)
	add("variance", t.Variance, false, t.Kept, t.Dim)
	add("energy", t.Energy, false, t.Kept)
	add("acceptance_rate", t.Acceptance, false, t.Kept)
	add("t", t.T, false, t.Kept)
	return out
}

// states are numbers in the precision in which they were computed.
func (t *Trace) states(x []float64) any {
	if t.double {
		return x
	}
	return toSingle(x)
}

// Validate reports every fault of the options, each by its name.
func (o RunOptions) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	config := o.Sampler.WithDefaults()
	if err := config.Validate(); err != nil {
		errs = append(errs, err)
	}
	if o.Chains < 1 {
		fault("chains: %d, want at least 1", o.Chains)
	}
	if o.Burn < 0 || config.IsFlow() && o.Burn > 0 {
		fault("burn: %d, want 0 or more, and 0 for a flow", o.Burn)
	}
	if o.Thin < 0 || o.Thin > config.Steps {
		fault("thin: %d, want 1 to %d, the steps", o.Thin, config.Steps)
	}
	if o.adapts() && o.Burn == 0 {
		fault("target_accept: %g, and no burn-in to adapt the step size in; want burn more than 0, or no target_accept", config.TargetAccept())
	}
	if o.BlockGradients < 0 {
		fault("block_gradients: %d, want 0 or more", o.BlockGradients)
	}
	if o.StartStd < 0 || o.StartStd != 0 && !positive(o.StartStd) {
		fault("start_std: %g, want a positive number", o.StartStd)
	}
	if o.Network == nil {
		return errors.Join(append(errs, errors.New("network: missing"))...)
	}
	_, isField := o.Network.(models.Field)
	_, isEnergy := o.Network.(models.Energy)
	switch {
	case config.IsFlow() && !isField:
		fault("kind: flow samples a field, and the model gives an energy; want one of %s", energyKinds())
	case !config.IsFlow() && !isEnergy:
		fault("kind: %s samples an energy, and the model gives a field; want kind: flow", config.Kind)
	}
	if g, ok := o.Network.(models.GradientOnly); ok && config.Adjusted() {
		fault("kind: %s compares energies, and the model has only their gradient (its value is %s); want kind: langevin", config.Kind, g.GradientOnly())
	}
	dim := o.Network.Dim()
	if n := models.NumParams(o.Network); len(o.Params) != n {
		fault("params: %d numbers, want %d", len(o.Params), n)
	}
	if o.Start != nil && len(o.Start) != o.Chains*dim {
		fault("start: %d numbers, want %d chains of %d", len(o.Start), o.Chains, dim)
	}
	if box, ok := config.Bounds(); ok {
		for i, v := range o.Start {
			if x := float64(v); !(x >= o.round(box.Lo) && x <= o.round(box.Hi)) {
				fault("start: %g in row %d, want it in the box, %v", v, i/max(1, dim), config.Box)
				break
			}
		}
	}
	if len(config.Mass) > 1 && len(config.Mass) != dim {
		fault("mass: %d numbers, want 1 or %d, the dimension", len(config.Mass), dim)
	}
	if isField && config.IsFlow() {
		errs = append(errs, o.validateLabels(o.Network.(models.Field).Classes())...)
	}
	return errors.Join(errs...)
}

// adapts says whether the step size adapts in the burn-in.
func (o RunOptions) adapts() bool {
	return o.Sampler.AcceptTarget != nil && o.Sampler.WithDefaults().TargetAccept() > 0
}

// round is v in the precision of the run.
func (o RunOptions) round(v float64) float64 {
	if o.Double {
		return v
	}
	return float64(float32(v))
}

func (o RunOptions) validateLabels(classes int) (errs []error) {
	if l := o.Sampler.Label; l != nil && *l >= classes {
		errs = append(errs, fmt.Errorf("label: %d, want one of the model's %d classes", *l, classes))
	}
	if o.Sampler.GuidanceScale != nil && o.labels() == nil {
		errs = append(errs, errors.New("guidance_scale: the samples have no labels, want label or labels"))
	}
	if o.Labels != nil && len(o.Labels) != o.Chains {
		errs = append(errs, fmt.Errorf("labels: %d of them, want %d, one a sample", len(o.Labels), o.Chains))
	}
	for _, l := range o.Labels {
		if l < 0 || int(l) > classes || classes == 0 {
			errs = append(errs, fmt.Errorf("labels: %d, want 0 to %d", l, classes))
			break
		}
	}
	return errs
}

func energyKinds() string {
	return fmt.Sprint(slices.DeleteFunc(KindNames(), func(k string) bool { return k == "flow" }))
}

// Run samples an energy or a field. Every program is compiled before the first step; states stay on the device. It ends early
// with the context's error.
func Run(ctx context.Context, b *backend.Backend, o RunOptions) (*Trace, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("samplers: %w", err)
	}
	o.Sampler = o.Sampler.WithDefaults()
	o.Thin = max(1, o.Thin)
	if o.StartStd == 0 {
		o.StartStd = 1
	}
	if o.BlockGradients == 0 {
		o.BlockGradients = 10 // XLA fuses unrolled steps of an analytic energy into one kernel, whose compile time grows with their square
	}
	t := &Trace{Chains: o.Chains, Dim: o.Network.Dim(), AcceptRate: math.NaN(), StepFactor: 1, double: o.Double}
	run := o.chains
	if o.Sampler.IsFlow() {
		run = o.flow
	}
	if err := run(ctx, b, t); err != nil {
		return nil, fmt.Errorf("samplers: %s: %w", o.Sampler.Kind, err)
	}
	for row := range slices.Chunk(t.X, t.Dim) {
		if !finite(row) {
			t.Lost++
		}
	}
	return t, nil
}

func (o RunOptions) dtype() dtypes.DType {
	if o.Double {
		return dtypes.Float64
	}
	return dtypes.Float32
}

// start uploads the first states.
func (o RunOptions) start() *tensors.Tensor {
	dim := o.Network.Dim()
	x := make([]float64, o.Chains*dim)
	if o.Start == nil {
		stream := rng.New(o.Seed, rng.InitChains, 0, 0)
		for i := range x {
			x[i] = o.StartStd * stream.Normal()
		}
		if box, ok := o.Sampler.Bounds(); ok {
			for i := range x {
				x[i] = box.Fold(x[i])
			}
		}
	}
	for i, v := range o.Start {
		x[i] = float64(v)
	}
	return o.upload(x, o.Chains, dim)
}

func (o RunOptions) upload(v []float64, dims ...int) *tensors.Tensor {
	if o.Double {
		return tensors.FromFlatDataAndDimensions(v, dims...)
	}
	return tensors.FromFlatDataAndDimensions(toSingle(v), dims...)
}

// theta uploads the parameters; a model without any has one number that nobody reads, for there are no empty inputs.
func (o RunOptions) theta() *tensors.Tensor {
	v := make([]float64, max(1, len(o.Params)))
	for i, p := range o.Params {
		v[i] = float64(p)
	}
	return o.upload(v, len(v))
}

func (o RunOptions) thetaInput() backend.Input {
	return backend.Input{Name: "theta", Shape: shapes.Make(o.dtype(), max(1, len(o.Params)))}
}

func (o RunOptions) statesInput() backend.Input {
	return backend.Input{Name: "x", Shape: shapes.Make(o.dtype(), o.Chains, o.Network.Dim())}
}

// key is the randomness of one device call.
func (o RunOptions) key(call int) *tensors.Tensor {
	return tensors.FromFlatDataAndDimensions([]uint64{rng.Uint64(o.Seed, rng.Sample, uint64(call), 0, 0), 0, 0}, KeyShape.Dimensions...)
}

func (o RunOptions) weights(theta *Node) []*Node { return models.Unpack(o.Network, theta) }

// read copies a tensor of either precision to the host.
func read(t *tensors.Tensor) ([]float64, error) {
	if t.DType() == dtypes.Float64 {
		return backend.Read[float64](t)
	}
	single, err := backend.Read[float32](t)
	out := make([]float64, len(single))
	for i, v := range single {
		out[i] = float64(v)
	}
	return out, err
}

func finite(x []float64) bool {
	return !slices.ContainsFunc(x, func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) })
}

func toSingle(x []float64) []float32 {
	out := make([]float32, len(x))
	for i, v := range x {
		out[i] = float32(v)
	}
	return out
}

// lay puts what is kept of every chain, [kept][chains·width], chain by chain: [chains, kept, width].
func lay(kept [][]float64, chains, width int) []float64 {
	out := make([]float64, 0, chains*len(kept)*width)
	for c := range chains {
		for _, x := range kept {
			out = append(out, x[c*width:(c+1)*width]...)
		}
	}
	return out
}
