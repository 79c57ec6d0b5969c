package local

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// Samples are states of a model.
type Samples struct {
	X      []float32 // [n, dim]
	Labels []int32   // [n], the label that each was asked for; nil for a model without labels

	Accept    []float64  // explorer acceptance a rung; nil for a sampler without a Metropolis test
	Tempering *Tempering // nil without a ladder
}

// DrawOptions say how many states a model is asked for, and what differs from its experiment.
type DrawOptions struct {
	Samples int
	// Of an energy that is explored: scans before the first state counts, in which its ladder adapts, and scans between two
	// states of a chain.
	Burn, Gap int
	Scans     int                    // of a ladder: scans that count; 0: as many as the samples need
	Stop      Until                  // and what ends them before
	Each      func(*tempering.Round) // is shown every round of a ladder
	Seed      uint64                 // 0: the experiment's, apart from its training
	Label     *int                   // of every sample of a conditional field; nil: the experiment's, or every label in turn
	Guidance  *float64               // scale of classifier-free guidance; nil: the experiment's
}

// field is the model as a field; nil for an energy.
func (p *Parts) field() models.Field {
	f, _ := p.Network.(models.Field)
	return f
}

// taught is what a training left: weights, and how far ladder and step sizes have adapted to them.
type taught struct {
	theta   []float32
	steps   int
	adapted engine.Adapted
}

func learnt(l engine.Learner) (taught, error) {
	theta, err := l.Theta()
	if err != nil {
		return taught{}, err
	}
	out := taught{theta: theta, steps: l.Step()}
	if c, ok := l.(chained); ok { // of a fleet without chains it is empty
		out.adapted = c.Adapted()
	}
	return out, nil
}

// draw draws states of the model by the experiment's sampler.
func (p *Parts) draw(ctx context.Context, b *backend.Backend, w taught, o DrawOptions) (*Samples, error) {
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
		return p.explore(ctx, b, w, o)
	}
	run := samplers.RunOptions{Sampler: cfg, Network: p.Network, Params: w.theta, Chains: o.Samples, Seed: o.Seed}
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
func (p *Parts) explore(ctx context.Context, b *backend.Backend, w taught, o DrawOptions) (*Samples, error) {
	if p.Config.Tempering.Rungs > 1 {
		return p.exploreLadder(ctx, b, w, o)
	}
	t, err := p.sampler(b, w, o.Seed)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	x, accept, err := drawChains(ctx, t, o.Samples, o.Burn, o.Gap)
	out := &Samples{X: x}
	if p.Config.Sampler.Adjusted() {
		out.Accept = accept
	}
	return out, err
}

func (p *Parts) exploreLadder(ctx context.Context, b *backend.Backend, w taught, o DrawOptions) (*Samples, error) {
	cfg, err := p.tempered(w, o.Seed, false)
	if err != nil {
		return nil, err
	}
	gap := max(1, o.Gap)
	scans := o.Scans
	if scans == 0 {
		scans = (o.Samples + cfg.Spec.Chains - 1) / cfg.Spec.Chains * gap
	}
	got, err := Temper(ctx, b, cfg, w.theta, TemperOptions{AdaptScans: o.Burn, Scans: scans, Stop: o.Stop, Samples: o.Samples, Gap: gap, Each: o.Each})
	if err != nil {
		return nil, err
	}
	got.Name = p.Config.Name
	out := &Samples{X: got.X, Tempering: got}
	if p.Config.Sampler.Adjusted() {
		out.Accept = got.Final().Accept
	}
	return out, nil
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
