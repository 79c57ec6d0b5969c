package local

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/kelvin-ebm/kelvin/pkg/diagnostics"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
	"github.com/kelvin-ebm/kelvin/pkg/runlog"
)

// monitor holds a model in training against the test rows, now and then. It draws from streams of its own, so that a
// training comes to the same bits whether or not it is looked at.
type monitor struct{ sampler *engine.Sampler }

func (m *monitor) close() {
	if m.sampler != nil {
		m.sampler.Close()
	}
}

// look gives test_nll: by quadrature in one or two dimensions; elsewhere by log Z from a ladder of fresh chains, which begins
// as the training's stands, and then log_z and log_z_std_err as well. A model without a density has none of them.
func (m *monitor) look(ctx context.Context, r *run) ([]runlog.Value, error) {
	p := r.parts
	if p.Test.N() == 0 || p.NoLaw || p.field() != nil {
		return nil, nil
	}
	if p.Data.Dim <= 2 {
		ev := &Evaluation{}
		if err := p.quadrature(ev, r.trainer); err != nil {
			if errors.Is(err, diagnostics.ErrNotIntegrable) { // a network without a base may be so for a while
				return nil, nil
			}
			return nil, err
		}
		return []runlog.Value{{Key: "test_nll", Number: *ev.NLL}}, nil
	}
	w, err := learnt(r.trainer)
	if err != nil {
		return nil, err
	}
	cfg, err := p.forLogZ(w, rng.Uint64(p.Config.Seed, rng.Evaluate, 0, 3, 0))
	if err != nil {
		return nil, err
	}
	if m.sampler == nil {
		if m.sampler, err = engine.NewSampler(r.backend, cfg); err != nil {
			return nil, err
		}
	}
	m.sampler.AtStep(w.steps)
	if err := m.sampler.StartFrom(w.theta, cfg.Start); err != nil {
		return nil, err
	}
	e := p.Config.Evaluate
	if _, err := m.sampler.Round(ctx, engine.RoundOptions{Scans: e.Scans, Adapt: true}); err != nil {
		return nil, err
	}
	round, err := m.sampler.Round(ctx, engine.RoundOptions{Scans: max(1, e.Measure)})
	if err != nil {
		return nil, err
	}
	if round.LogZ == nil {
		return nil, fmt.Errorf("the ladder gave no log Z: %s", round.LogZFault)
	}
	energy, err := energies(r.trainer)(p.Test.Rows)
	if err != nil {
		return nil, err
	}
	mean, _ := meanAndError(energy)
	out := []runlog.Value{{Key: "test_nll", Number: mean + round.LogZ.Bridge}, {Key: "log_z", Number: round.LogZ.Bridge},
		{Key: "log_z_restarts", Number: float64(round.Restarts)}} // few of them miss modes, and the likelihood looks too good
	if z := round.LogZ.BridgeErr; !math.IsNaN(z) {
		out = append(out, runlog.Value{Key: "log_z_std_err", Number: z})
	}
	return out, nil
}
