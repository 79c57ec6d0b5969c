package integrators

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
)

// run is an integration under way.
type run struct {
	*Solver
	inputs []*tensors.Tensor
	x      *tensors.Tensor // the state
	keep   bool            // x is not ours to release: the caller's, or among the results
	bad    *tensors.Tensor // number of rows of x that are not finite
	stats  Stats

	// of an adaptive scheme
	first    *tensors.Tensor // the drift at x, with FSAL
	t, h     []float64       // of each row: its time, and the size of its next step
	attempts int
}

// integrate gives the states at all of times but the first, or only the last.
func (s *Solver) integrate(ctx context.Context, x *tensors.Tensor, times []float64, all bool, inputs []*tensors.Tensor) (states []*tensors.Tensor, stats Stats, err error) {
	if err := checkTimes(times); err != nil {
		return nil, Stats{}, fmt.Errorf("integrators: %w", err)
	}
	r := &run{Solver: s, inputs: inputs, x: x, keep: true}
	defer func() {
		backend.Release(r.bad, r.first)
		stats = r.stats
		if err != nil {
			r.replace(nil)
			backend.Release(states...)
			states, err = nil, fmt.Errorf("integrators: %s: %w", s.problem.Scheme.Name, err)
		}
	}()
	stops := times[1:]
	advance := r.step
	if s.problem.adaptive() {
		advance = r.adapt
		if !all {
			stops = times[len(times)-1:]
		}
		if err := r.begin(ctx, times[0], times[1]); err != nil {
			return nil, stats, err
		}
	}
	from := times[0]
	for i, to := range stops {
		if err := advance(ctx, from, to); err != nil {
			return states, stats, err
		}
		if all || i == len(stops)-1 {
			states = append(states, r.x)
			r.keep = true
		}
		from = to
	}
	bad, err := backend.Read[float32](r.bad)
	if err != nil {
		return states, stats, err
	}
	r.stats.NonFinite = int(bad[0])
	return states, stats, nil
}

func checkTimes(times []float64) error {
	if len(times) < 2 {
		return fmt.Errorf("times: %d of them, want at least 2", len(times))
	}
	for i, t := range times {
		if math.IsNaN(t) || math.IsInf(t, 0) {
			return fmt.Errorf("times: %g, want finite numbers", t)
		}
		if i > 0 && !(t > times[i-1]) {
			return fmt.Errorf("times: %g after %g, want times that rise; the drift Reversed goes back", t, times[i-1])
		}
	}
	return nil
}

// step makes one step of a scheme with fixed steps.
func (r *run) step(ctx context.Context, from, to float64) error {
	out, err := r.call(ctx, []float64{from}, []float64{to - from})
	if err != nil {
		return err
	}
	r.replace(out[0])
	r.bad = out[1]
	r.stats.Accepted++
	return nil
}

// begin makes an adaptive scheme ready at time from. With FSAL it needs the drift there: an attempt of size 0 gives it, and
// leaves x as it is.
func (r *run) begin(ctx context.Context, from, to float64) error {
	rows := r.problem.State.Dimensions[0]
	r.t = slices.Repeat([]float64{from}, rows)
	r.h = slices.Repeat([]float64{r.problem.Control.limit(to - from)}, rows)
	if !r.problem.Scheme.FSAL {
		return nil
	}
	r.first = tensors.FromShape(r.problem.State)
	norms, err := r.attempt(ctx, make([]float64, rows))
	if row := slices.IndexFunc(norms, math.IsNaN); err == nil && row >= 0 {
		return fmt.Errorf("the drift is not finite at t = %g (row %d)", from, row)
	}
	return err
}

// adapt brings every row to a time.
func (r *run) adapt(ctx context.Context, _, to float64) error {
	control := r.problem.Control
	for {
		sizes, moving := r.sizes(to)
		if moving < 0 {
			return nil
		}
		if r.attempts == control.MaxSteps {
			return fmt.Errorf("max_steps: %d attempts brought t to %g of %g, want more steps or a larger rtol", r.attempts, r.t[moving], to)
		}
		r.attempts++
		norms, err := r.attempt(ctx, sizes)
		if err != nil {
			return err
		}
		accepted, rejected := 0, 0
		for row, h := range sizes {
			if h == 0 {
				continue
			}
			ok, next := control.Next(h, norms[row], r.problem.Scheme.Order)
			switch {
			case !ok:
				rejected++
				if next < 1e-13*max(1, math.Abs(to)) {
					return fmt.Errorf("step size: %.3g at t = %g does not meet the tolerance (row %d, norm %g): the drift may not be finite there", h, r.t[row], row, norms[row])
				}
				r.h[row] = next
			case h == to-r.t[row]:
				accepted++
				// A step cut short to end here says nothing against the size it was cut from.
				r.t[row], r.h[row] = to, max(r.h[row], next)
			default:
				accepted++
				r.t[row], r.h[row] = r.t[row]+h, next
			}
		}
		if control.Norm == "batch" { // the rows go together
			accepted, rejected = min(accepted, 1), min(rejected, 1)
		}
		r.stats.Accepted += accepted
		r.stats.Rejected += rejected
	}
}

// sizes are the sizes of the next attempts on the way to a time, 0 for a row that is there. moving is a row that is not, or −1.
func (r *run) sizes(to float64) (sizes []float64, moving int) {
	sizes, moving = make([]float64, len(r.t)), -1
	for row, t := range r.t {
		left := to - t
		if left == 0 {
			continue
		}
		moving = row
		sizes[row] = r.h[row]
		if left-sizes[row] < 1e-12*max(1, math.Abs(to)) { // leave no crumb for another step
			sizes[row] = left
		}
	}
	return sizes, moving
}

// attempt makes an adaptive step and reads the norms of its errors.
func (r *run) attempt(ctx context.Context, sizes []float64) ([]float64, error) {
	out, err := r.call(ctx, r.t, sizes)
	if err != nil {
		return nil, err
	}
	r.replace(out[0])
	r.bad = out[1]
	if r.problem.Scheme.FSAL {
		backend.Release(r.first)
		r.first = out[3]
	}
	defer backend.Release(out[2])
	return read(out[2])
}

// call runs the program on the state.
func (r *run) call(ctx context.Context, t, h []float64) ([]*tensors.Tensor, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	shape := r.problem.perStep()
	times, sizes := upload(shape.DType, t, shape.Dimensions), upload(shape.DType, h, shape.Dimensions)
	defer backend.Release(times, sizes)
	in := []*tensors.Tensor{r.x, times, sizes}
	if r.first != nil {
		in = append(in, r.first)
	}
	out, err := r.program.Run(append(in, r.inputs...)...)
	if err != nil {
		return nil, err
	}
	r.stats.Evaluations += r.problem.Scheme.Evaluations()
	backend.Release(r.bad)
	r.bad = nil
	return out, nil
}

// replace makes x the state.
func (r *run) replace(x *tensors.Tensor) {
	if !r.keep {
		backend.Release(r.x)
	}
	r.x, r.keep = x, false
}

func upload(dtype dtypes.DType, v []float64, dims []int) *tensors.Tensor {
	if dtype == dtypes.Float64 {
		return tensors.FromFlatDataAndDimensions(slices.Clone(v), dims...)
	}
	single := make([]float32, len(v))
	for i, value := range v {
		single[i] = float32(value)
	}
	return tensors.FromFlatDataAndDimensions(single, dims...)
}

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
