package local

import (
	"context"
	"errors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
)

// Samples are states of a model.
type Samples struct {
	X      []float32 // [n, dim]
	Labels []int32   // [n], the label that each was asked for; nil for a model without labels
}

// FlowOptions say how a field is followed, where that is not what the experiment says.
type FlowOptions struct {
	Label    *int     // of every sample; nil: the experiment's, or every label in turn
	Guidance *float64 // scale of classifier-free guidance; nil: the experiment's
	Seed     uint64   // 0: the experiment's, apart from its training
}

// field is the model as a field; nil for an energy.
func (p *Parts) field() models.Field {
	f, _ := p.Network.(models.Field)
	return f
}

// follow draws n states of the field by the experiment's sampler.
func (p *Parts) follow(ctx context.Context, b *backend.Backend, theta []float32, n int, opts FlowOptions) (*Samples, error) {
	cfg := p.Config.Sampler
	field := p.field()
	if p.Classes == 0 && (opts.Label != nil || opts.Guidance != nil) {
		return nil, errors.New("label, guidance: the model knows no labels, want none of the two")
	}
	if opts.Guidance != nil {
		cfg.GuidanceScale = opts.Guidance
	}
	if opts.Seed == 0 {
		opts.Seed = rng.Uint64(p.Config.Seed, rng.Sample, 0, 0, 0)
	}
	run := samplers.RunOptions{Sampler: cfg, Network: field, Params: theta, Chains: n, Seed: opts.Seed}
	switch {
	case !cfg.IsFlow():
		// A field that stands for a gradient can be descended, or explored by steps that need no energy.
		run.Network = models.NewImplicitEqM(field)
	case p.Classes > 0:
		run.Labels = make([]int32, n)
		for i := range run.Labels {
			run.Labels[i] = int32(i % p.Classes)
			if label := opts.Label; label != nil {
				run.Labels[i] = int32(*label)
			} else if cfg.Label != nil {
				run.Labels[i] = int32(*cfg.Label)
			}
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
