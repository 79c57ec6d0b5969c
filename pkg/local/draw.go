package local

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
)

// Samples are states of a model.
type Samples struct {
	X      []float32 // [n, dim]
	Labels []int32   // [n], the label that each was asked for; nil for a model without labels

	Accept     []float64 // explorer acceptance a rung; nil for a sampler without a Metropolis test
	SwapAccept []float64 // a pair of rungs; nil without a ladder
	Restarts   uint64
}

// DrawOptions say how many states a model is asked for, and what differs from its experiment.
type DrawOptions struct {
	Samples   int
	Burn, Gap int      // of an energy that is explored: scans before the first state counts, and between two of a chain
	Seed      uint64   // 0: the experiment's, apart from its training
	Label     *int     // of every sample of a conditional field; nil: the experiment's, or every label in turn
	Guidance  *float64 // scale of classifier-free guidance; nil: the experiment's
}

// field is the model as a field; nil for an energy.
func (p *Parts) field() models.Field {
	f, _ := p.Network.(models.Field)
	return f
}

// draw draws states of the model by the experiment's sampler, with weights that so many training steps made.
func (p *Parts) draw(ctx context.Context, b *backend.Backend, theta []float32, steps int, o DrawOptions) (*Samples, error) {
	cfg := p.Config.Sampler
	switch {
	case (o.Label != nil || o.Guidance != nil) && (p.Classes == 0 || !cfg.IsFlow()):
		return nil, errors.New("label, guidance: the experiment has no conditional flow, want none of the two")
	case o.Label != nil && (*o.Label < 0 || *o.Label >= p.Classes):
		return nil, fmt.Errorf("label: %d, want 0 to %d", *o.Label, p.Classes-1)
	case o.Seed == 0:
		o.Seed = rng.Uint64(p.Config.Seed, rng.Sample, 0, 0, 0) // apart from every draw of the training
	}
	if p.field() == nil && !cfg.Settles() {
		return p.explore(ctx, b, theta, steps, o)
	}
	run := samplers.RunOptions{Sampler: cfg, Network: p.Network, Params: theta, Chains: o.Samples, Seed: o.Seed}
	switch {
	case p.field() == nil:
		run.Network = p.chains.Spec.Network
	case !cfg.IsFlow():
		// A field that stands for a gradient can be descended, or explored by steps that need no energy.
		run.Network = models.NewImplicitEqM(p.field())
		if !cfg.Settles() {
			run.Burn = max(0, o.Burn-1) * cfg.Steps
		}
	default:
		run.Labels = p.labels(o)
		if o.Guidance != nil {
			run.Sampler.GuidanceScale = o.Guidance
		}
	}
	trace, err := samplers.Run(ctx, b, run)
	if err != nil {
		return nil, err
	}
	out := &Samples{X: make([]float32, len(trace.X)), Labels: run.Labels}
	for i, v := range trace.X {
		out.X[i] = float32(v)
	}
	return out, firstNonFinite(out.X, p.Data.Dim)
}

// labels are those of the samples of a field; nil for one without.
func (p *Parts) labels(o DrawOptions) []int32 {
	if p.Classes == 0 {
		return nil
	}
	out := make([]int32, o.Samples)
	for i := range out {
		switch fixed := p.Config.Sampler.Label; {
		case o.Label != nil:
			out[i] = int32(*o.Label)
		case fixed != nil:
			out[i] = int32(*fixed)
		default:
			out[i] = int32(i % p.Classes)
		}
	}
	return out
}

// explore draws states of an energy from chains, along the experiment's ladder where it has one.
func (p *Parts) explore(ctx context.Context, b *backend.Backend, theta []float32, steps int, o DrawOptions) (*Samples, error) {
	t, err := p.Sampler(b, theta, steps, o.Seed)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	x, accept, err := Draw(ctx, t, o.Samples, o.Burn, o.Gap)
	out := &Samples{X: x, SwapAccept: acceptance(t.Stats()), Restarts: t.Stats().Restarts}
	if p.Config.Sampler.Adjusted() {
		out.Accept = accept
	}
	return out, err
}

// sampleError is a sample that is not finite.
type sampleError struct {
	row   int
	value float32
}

func (e *sampleError) Error() string {
	return fmt.Sprintf("sample %d is at %v: no samples; want a smaller sampler.step_size, or another sampler.kind", e.row, e.value)
}

// firstNonFinite is a *sampleError for the first row that is not finite.
func firstNonFinite(samples []float32, dim int) error {
	for i, v := range samples {
		if f := float64(v); math.IsNaN(f) || math.IsInf(f, 0) {
			return &sampleError{i / dim, v}
		}
	}
	return nil
}

// explorer names a sampler, with what a reader of its numbers has to know.
func explorer(s samplers.Config) string {
	switch {
	case s.Kind == "langevin" || s.Kind == "annealed_langevin":
		return s.Kind + " (biased)"
	case s.Kind == "gradient_descent" || s.Kind == "nesterov":
		return s.Kind + " (an optimiser)"
	case s.IsFlow():
		return fmt.Sprintf("flow (%s, %s)", s.Mode, s.Integrator)
	}
	return s.Kind
}
