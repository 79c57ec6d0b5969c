package local

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator"
	"github.com/kelvin-ebm/kelvin/pkg/datasets"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/internal/atomicfile"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/plots"
)

// Run is a run read back from its folder, with its model on a device.
type Run struct {
	Dir     string
	Parts   *Parts
	Backend *backend.Backend
	Trainer engine.Learner
	Skipped []error // damaged cuts newer than the one in use
}

// OpenOptions say how OpenRun opens.
type OpenOptions struct {
	Kind    string // in place of the experiment's backend; "" keeps it
	Backend backend.Options
	Params  string         // safetensors file with weights in place of the run's; "" keeps them
	Loss    losses.Loss    // the same of Options.Loss
	Network models.Network // that the run was trained with, where Options.Network was set
}

// OpenRun reads a run's experiment and data and puts its last whole cut on a device.
func OpenRun(ctx context.Context, dir string, opts OpenOptions) (*Run, error) {
	cfg, err := LoadExperiment(dir)
	if err != nil {
		return nil, err
	}
	if opts.Kind != "" {
		cfg.Backend.Kind = opts.Kind
	}
	parts, err := Build(cfg, opts.Network, opts.Loss)
	if err != nil {
		return nil, err
	}
	cut, skipped, err := folder{dir: dir}.cuts().LatestGood()
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", dir, err)
	}
	if cut, err = coordinator.GroupCut(cut, 0); err != nil {
		return nil, fmt.Errorf("run %s: %w", dir, err)
	}
	if opts.Params != "" {
		tensors, _, err := checkpoint.ReadSafetensors(opts.Params)
		if err != nil {
			return nil, fmt.Errorf("params: %w", err)
		}
		cut.Files["params"] = tensors
		if cut.Files["ema"] != nil {
			cut.Files["ema"] = tensors
		}
	}
	b, t, err := parts.Open(ctx, opts.Backend)
	if err != nil {
		return nil, err
	}
	r := &Run{Dir: dir, Parts: parts, Backend: b, Trainer: t, Skipped: skipped}
	if err := t.Restore(cut); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Close frees the device.
func (r *Run) Close() error {
	r.Trainer.Close()
	return r.Backend.Close()
}

// Evaluate evaluates the run's model anew.
func (r *Run) Evaluate(ctx context.Context) (*Evaluation, error) {
	return r.Parts.Evaluate(ctx, r.Backend, r.Trainer)
}

// Samples draws states of the run's model.
func (r *Run) Samples(ctx context.Context, o DrawOptions) (*Samples, error) {
	w, err := learnt(r.Trainer)
	if err != nil {
		return nil, err
	}
	return r.Parts.draw(ctx, r.Backend, w, o)
}

// Temper adapts a ladder to the run's model, beginning with that of its training, and measures the model: with the
// experiment's sampler if that has a Metropolis test, else with MALA. Seed 0 is the experiment's, apart from its training.
func (r *Run) Temper(ctx context.Context, seed uint64, o TemperOptions) (*Tempering, error) {
	w, err := learnt(r.Trainer)
	if err != nil {
		return nil, err
	}
	if seed == 0 {
		seed = rng.Uint64(r.Parts.Config.Seed, rng.Sample, 0, 0, 0)
	}
	cfg, err := r.Parts.tempered(w, seed, true)
	if err != nil {
		return nil, err
	}
	t, err := Temper(ctx, r.Backend, cfg, w.theta, o)
	if err != nil {
		return nil, err
	}
	t.Name = r.Parts.Config.Name
	return t, nil
}

// WriteSamples writes samples to an npz file: x [n, dim], energy [n] under the run's model where it has one, and labels [n]
// where they were asked for.
func (r *Run) WriteSamples(path string, s *Samples) error {
	return r.Parts.writeSamples(path, s, r.Trainer)
}

func (p *Parts) writeSamples(path string, s *Samples, l engine.Learner) error {
	energy, err := l.Energies(s.X)
	if err != nil && !errors.Is(err, engine.ErrNoEnergy) {
		return err
	}
	arrays := []datasets.Array{{Name: "x", Shape: []int{len(s.X) / p.Data.Dim, p.Data.Dim}, Data: s.X}}
	if energy != nil {
		arrays = append(arrays, datasets.Array{Name: "energy", Shape: []int{len(energy)}, Data: energy})
	}
	if s.Labels != nil {
		arrays = append(arrays, datasets.Array{Name: "labels", Shape: []int{len(s.Labels)}, Data: s.Labels})
	}
	return WriteArrays(path, arrays)
}

// WriteArrays writes an npz file whole or not at all.
func WriteArrays(path string, arrays []datasets.Array) error {
	return atomicfile.Write(path, 0o644, func(w io.Writer) error { return datasets.WriteNPZ(w, arrays) })
}

// Figure draws the landscape or samples of the run.
func (r *Run) Figure(ctx context.Context, kind string) (*plots.Figure, error) {
	switch kind {
	case "landscape":
		return r.Parts.LandscapeFigure(r.Trainer)
	case "samples":
		e := r.Parts.Config.Evaluate
		s, err := r.Samples(ctx, DrawOptions{Samples: min(e.Samples, shownPoints), Burn: e.Scans, Gap: max(1, e.Scans/10)})
		if err != nil {
			return nil, err
		}
		return r.Parts.SamplesFigure(s, r.Trainer.Step())
	}
	return nil, fmt.Errorf("figure %q, want landscape or samples", kind)
}

// SaveFigure writes a figure as png or svg, whatever the file's ending.
func SaveFigure(fig *plots.Figure, path, format string) error {
	render := fig.PNG
	if format == "svg" {
		render = fig.SVG
	}
	data, err := render(plots.Light)
	if err != nil {
		return err
	}
	return WriteFile(path, data)
}

// WriteFile writes a file whole or not at all.
func WriteFile(path string, data []byte) error { return atomicfile.WriteFile(path, data, 0o644) }
