package local

import (
	"context"
	"errors"
	"fmt"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/plan"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// Plan says what training the experiment on so many replicas takes, 0 for one a shard. measured, if not nil, is a round of a
// ladder with as many rungs: its acceptance of swaps is taken for that of the training. No device is opened.
func (p *Parts) Plan(ctx context.Context, replicas int, measured *tempering.Round) (_ *plan.Plan, err error) {
	cfg, chains := p.Config, p.chains.Spec
	// Shapes are the same on every backend; this one needs no plugin.
	b, err := backend.Open(ctx, backend.Config{Kind: backend.Go, Threads: backend.DefaultConfig().Threads}, backend.Options{NoInstall: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	e := plan.Experiment{
		Layout: p.layout(), Exchange: cfg.Tempering.Exchange, Scans: max(1, cfg.Tempering.Scans), Schedule: cfg.Tempering.Schedule, Window: cfg.Tempering.Window,
		Params: models.NumParams(p.Network), Dim: p.Data.Dim, Batch: cfg.Train.Batch, Optimizer: cfg.Optimizer, Averaging: cfg.Averaging,
	}
	if e.Products, err = models.Products(b, p.Network); err != nil {
		return nil, err
	}
	if cfg.Loss.Chains() {
		e.Mix, e.FromData, e.Virtual, e.Fresh = chains.Mix, chains.FromData, chains.Virtual, chains.Reference != nil
		e.Twice, e.OnAll = cfg.Loss.GradientPenalty > 0, cfg.Tempering.GradientOn == "all"
		if chains.Mix || chains.Pool > chains.Chains {
			e.Pool = chains.Pool
		}
	} else {
		_, energy := p.Network.(models.Energy)
		e.Layout.Chains, e.Exchange, e.Twice, e.OnAll = 0, "state", energy, true
	}
	if measured != nil {
		if n := len(measured.Rejections) + 1; n != e.Layout.Rungs {
			return nil, fmt.Errorf("plan: acceptance of a ladder with %d rungs, want %d", n, e.Layout.Rungs)
		}
		for _, r := range measured.Rejections {
			e.Accept = append(e.Accept, 1-r)
		}
	}
	shards := e.Layout.NumShards()
	if replicas == 0 {
		replicas = shards
	}
	out, err := plan.New(e, coordinator.Spread(shards, replicas))
	if err != nil {
		return nil, err
	}
	out.Standbys = max(0, replicas-shards)
	return out, nil
}
