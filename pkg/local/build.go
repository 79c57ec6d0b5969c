package local

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/datasets"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/experiment"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// Parts are what an experiment is made of, before any device is opened.
type Parts struct {
	Config     *experiment.Config // complete: no default is open
	Data, Test *datasets.Dataset
	Network    models.Network   // a models.Energy, f of E = f − log Base, or a models.Field
	Own        bool             // Network is the caller's own, not that of the model section
	Classes    int              // labels that the field is trained with; 0 for none
	Base       *models.Gaussian // E = f − log Base; nil for E = f
	Reference  *models.Gaussian // of the linear path; nil without one
	Gaussian   models.Gaussian  // fitted to the data, as wide as the reference; of an energy
	Steps      int              // training steps in all

	// NoLaw says that the loss teaches an energy whose exp(−E) is no density of the data.
	NoLaw bool

	batches datasets.Batcher
	chains  engine.TrainerConfig // of an energy: how it is trained, where its loss compares with chains, and how it is sampled
	data    engine.DataConfig    // of a loss over data alone
}

// Build loads the data and makes the model, the reference and the ladder. network and loss replace those of the sections;
// nil for what the sections say. Nothing is written.
func Build(cfg *experiment.Config, network models.Network, loss losses.Loss) (*Parts, error) {
	if loss != nil && cfg.Loss.Chains() {
		return nil, fmt.Errorf("loss.kind: %s keeps chains, and the given loss is one over data: want the section of such a one, as kind: score_matching", cfg.Loss.Kind)
	}
	data, test, err := datasets.Load(cfg.Data, cfg.Seed, cfg.Dir)
	if err != nil {
		return nil, err
	}
	cfg = cfg.Clone()
	cfg.Complete(data.N())
	p := &Parts{Config: cfg, Data: data, Test: test, Steps: cfg.TotalSteps(data.N()), batches: datasets.NewBatcher(data.N(), cfg.Train.Batch, cfg.Seed)}
	if err := p.buildNetwork(network); err != nil {
		return nil, err
	}
	if !cfg.Loss.Chains() {
		if err := p.buildData(loss); err != nil {
			return nil, err
		}
	}
	if energy, ok := p.Network.(models.Energy); ok {
		if err := p.buildChains(energy); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *Parts) buildNetwork(given models.Network) error {
	cfg := p.Config
	if n := cfg.Model.NumClasses; n != nil {
		p.Classes = *n
	}
	if p.Classes > 0 {
		if err := p.Data.CheckLabels(); err != nil {
			return fmt.Errorf("model.num_classes: %w", err)
		}
		if n := max(p.Data.Classes(), p.Test.Classes()); n > p.Classes {
			return fmt.Errorf("model.num_classes: %d, want at least the %d of the data %s", p.Classes, n, p.Data.Name)
		}
	}
	p.Network, p.Own = given, given != nil
	if given == nil {
		var err error
		if p.Network, err = cfg.Model.BuildNetwork(p.Data.Dim, p.Classes); err != nil {
			return fmt.Errorf("model: %w", err)
		}
	}
	if p.Network.Dim() != p.Data.Dim {
		return fmt.Errorf("model: %s has dimension %d, the data %s have %d", p.ModelName(), p.Network.Dim(), p.Data.Name, p.Data.Dim)
	}
	if models.NumParams(p.Network) == 0 {
		return fmt.Errorf("model.kind: %s has no parameters to train, want a network such as mlp; `coordinator sample --energy %s` draws from it", cfg.Model.Kind, cfg.Model.Kind)
	}
	return nil
}

// ModelName is what messages call the model.
func (p *Parts) ModelName() string {
	if p.Own {
		return fmt.Sprintf("%T", p.Network)
	}
	return p.Config.Model.Kind
}

// buildChains says how an energy is explored: while it is trained, or afterwards to draw from it.
func (p *Parts) buildChains(energy models.Energy) error {
	cfg := p.Config
	if models.IsCoupled(energy) {
		return fmt.Errorf("model: the rows of %s are coupled: an energy is trained and tempered row by row, want one that is not", p.ModelName())
	}
	q, err := models.FitGaussian(p.Data.Rows, p.Data.Dim, cfg.Tempering.ReferenceScale)
	if err != nil {
		return fmt.Errorf("tempering.reference_scale: %w", err)
	}
	for i, sd := range q.Std { // the model learns the rows with their noise
		q.Std[i] = math.Hypot(sd, cfg.Tempering.ReferenceScale*cfg.Loss.DataNoise)
	}
	p.Gaussian = q
	if cfg.Model.Base == "gaussian" {
		p.Base = &q
	}
	if cfg.Tempering.Rungs > 1 && cfg.Tempering.Path == "linear" {
		p.Reference = &q
	}
	p.data.Base = p.Base
	base := p.Base
	if tau := p.data.Temperature; tau > 0 && tau != 1 {
		// What is sampled is the law that the loss teaches.
		if base != nil {
			energy, base = models.WithBase(energy, *base), nil
		}
		energy = models.AtTemperature(energy, tau)
	}
	if _, err := tempering.NewLadder(cfg.Tempering); err != nil {
		return err
	}
	if m := len(cfg.Sampler.Mass); m > 1 && m != p.Data.Dim {
		return fmt.Errorf("sampler.mass: %d numbers, want 1 or %d, the dimension", m, p.Data.Dim)
	}
	if n := len(cfg.Buffer.Point); n > 0 && n != p.Data.Dim {
		return fmt.Errorf("buffer.point: %d numbers, want %d, the dimension", n, p.Data.Dim)
	}
	fromData := cfg.Loss.Kind == "contrastive_divergence"
	pool := max(cfg.Tempering.Chains, cfg.Buffer.Size)
	p.chains = engine.TrainerConfig{
		Spec: engine.Spec{
			Network: energy, Base: base, Reference: p.Reference,
			Rungs: cfg.Tempering.Rungs, Chains: cfg.Tempering.Chains, Pool: pool, Batch: cfg.Train.Batch,
			FromData: fromData, Mix: !fromData && cfg.Buffer.Reinit > 0, Exchange: cfg.Tempering.Exchange,
			Variational: cfg.Tempering.Rungs > 1 && cfg.Tempering.Reference == "variational",
			// Warming columns are no samples of the model.
			Virtual:  cfg.Tempering.VirtualSwaps,
			Weighted: cfg.Tempering.VirtualSwaps || cfg.Tempering.Rungs > 1 && cfg.Buffer.Reinit > 0,
			Loss:     cfg.Loss, Sampler: cfg.Sampler, Optimizer: cfg.Optimizer, Seed: cfg.Seed,
		},
		Tempering: cfg.Tempering, Buffer: cfg.Buffer, Data: p.Data.Rows,
		Layout:     layoutOf(cfg),
		GradientOn: cfg.Tempering.GradientOn,
		Positives:  func(step int, into []float32) { p.rows(step, into, nil) },
	}
	return nil
}

// buildData says how a loss over data alone is minimised.
func (p *Parts) buildData(loss losses.Loss) (err error) {
	cfg := p.Config
	if loss == nil {
		if loss, err = cfg.Loss.Build(); err != nil {
			return err
		}
	}
	p.data = engine.DataConfig{
		Network: p.Network, Loss: loss, Optimizer: cfg.Optimizer, Batch: cfg.Train.Batch,
		Rows: p.rows, Classes: p.Classes, LabelDropout: cfg.Loss.LabelDropout, DataNoise: cfg.Loss.DataNoise, Seed: cfg.Seed,
		Layout: layoutOf(cfg),
	}
	if t, ok := loss.(losses.Tempered); ok && p.field() == nil {
		tau, law := t.Temperature()
		p.data.Temperature, p.NoLaw = tau, !law
	}
	if cfg.Loss.Paired() && cfg.Loss.Coupling.Kind != "independent" {
		if p.data.Coupling, err = cfg.Loss.Coupling.Build(); err != nil {
			return fmt.Errorf("loss.coupling: %w", err)
		}
		p.data.WithinClasses = cfg.Loss.Coupling.Classwise()
	}
	return nil
}

// rows writes the batch of a step, and the labels of its rows unless that is nil.
func (p *Parts) rows(step int, x []float32, labels []int32) {
	for i, row := range p.batches.Indices(step) {
		for j, v := range p.Data.Row(row) {
			x[i*p.Data.Dim+j] = float32(v)
		}
		if labels != nil {
			labels[i] = int32(p.Data.Labels[row])
		}
	}
}

// Open opens the backend and makes the learner, not yet started.
func (p *Parts) Open(ctx context.Context, opts backend.Options) (*backend.Backend, engine.Learner, error) {
	b, err := backend.Open(ctx, p.Config.Backend, opts)
	if err != nil {
		return nil, nil, err
	}
	l, err := p.learner(b)
	if err != nil {
		return nil, nil, errors.Join(err, b.Close())
	}
	return b, l, nil
}

func (p *Parts) learner(b *backend.Backend) (engine.Learner, error) {
	if p.Config.Loss.Chains() {
		return engine.NewTrainer(b, p.chains)
	}
	return engine.NewDataTrainer(b, p.data)
}
