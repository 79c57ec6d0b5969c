package local

import (
	"context"
	"errors"
	"fmt"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/datasets"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/experiment"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// Parts are what an experiment is made of, before any device is opened.
type Parts struct {
	Config      *experiment.Config // complete: no default is open
	Data, Test  *datasets.Dataset
	Network     models.Energy    // f_θ
	Base        *models.Gaussian // E = f_θ − log Base; nil for E = f_θ
	Reference   *models.Gaussian // of the linear path; nil without one
	Ladder      *tempering.Ladder
	Steps       int // training steps in all
	batches     datasets.Batcher
	trainerSpec engine.TrainerConfig
}

// Build loads the data and makes the model, the reference and the ladder. network replaces the model section's energy;
// nil for that of the section. Nothing is written.
func Build(cfg *experiment.Config, network models.Energy) (*Parts, error) {
	data, test, err := datasets.Load(cfg.Data, cfg.Seed, cfg.Dir)
	if err != nil {
		return nil, err
	}
	cfg = cfg.Clone()
	cfg.Complete(data.N())
	p := &Parts{Config: cfg, Data: data, Test: test, Steps: cfg.TotalSteps(data.N())}
	if network == nil {
		if network, err = cfg.Model.Build(data.Dim); err != nil {
			return nil, fmt.Errorf("model: %w", err)
		}
	}
	if network.Dim() != data.Dim {
		return nil, fmt.Errorf("model: %s has dimension %d, the data %s have %d", cfg.Model.Kind, network.Dim(), data.Name, data.Dim)
	}
	if models.NumParams(network) == 0 {
		return nil, fmt.Errorf("model.kind: %s has no parameters to train, want a network such as mlp; `coordinator sample --energy %s` draws from it", cfg.Model.Kind, cfg.Model.Kind)
	}
	p.Network = network
	q, err := models.FitGaussian(data.Rows, data.Dim, cfg.Tempering.ReferenceScale)
	if err != nil {
		return nil, fmt.Errorf("tempering.reference_scale: %w", err)
	}
	if cfg.Model.Base == "gaussian" {
		p.Base = &q
	}
	tempered := cfg.Tempering.Rungs > 1
	if tempered && cfg.Tempering.Path == "linear" {
		p.Reference = &q
	}
	if p.Ladder, err = tempering.NewLadder(cfg.Tempering); err != nil {
		return nil, err
	}
	p.batches = datasets.NewBatcher(data.N(), cfg.Train.Batch, cfg.Seed)

	fromData := cfg.Loss.Kind == "contrastive_divergence"
	pool := cfg.Tempering.Chains
	if !fromData {
		pool = cfg.Buffer.Size
	}
	p.trainerSpec = engine.TrainerConfig{
		Spec: engine.Spec{
			Network: network, Base: p.Base, Reference: p.Reference,
			Rungs: cfg.Tempering.Rungs, Chains: cfg.Tempering.Chains, Pool: pool, Batch: cfg.Train.Batch,
			FromData: fromData, Mix: !fromData && cfg.Buffer.Reinit > 0,
			Loss: cfg.Loss, Sampler: cfg.Sampler, Optimizer: cfg.Optimizer, Seed: cfg.Seed,
		},
		Ladder: p.Ladder, Buffer: cfg.Buffer, Scans: cfg.Tempering.Scans, Data: data.Rows,
		Positives: func(step int, into []float32) {
			for i, row := range p.batches.Indices(step) {
				for j, v := range data.Row(row) {
					into[i*data.Dim+j] = float32(v)
				}
			}
		},
	}
	return p, nil
}

// Open opens the backend and makes the trainer, not yet started.
func (p *Parts) Open(ctx context.Context, opts backend.Options) (*backend.Backend, *engine.Trainer, error) {
	b, err := backend.Open(ctx, p.Config.Backend, opts)
	if err != nil {
		return nil, nil, err
	}
	t, err := engine.NewTrainer(b, p.trainerSpec)
	if err != nil {
		return nil, nil, errors.Join(err, b.Close())
	}
	return b, t, nil
}
