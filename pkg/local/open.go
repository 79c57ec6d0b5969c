package local

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/datasets"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/internal/atomicfile"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/plots"
)

// Run is a run read back from its folder, with its model on a device.
type Run struct {
	Dir     string
	Parts   *Parts
	Backend *backend.Backend
	Trainer *engine.Trainer
	Skipped []error // damaged cuts newer than the one in use
}

// OpenOptions say how OpenRun opens.
type OpenOptions struct {
	Kind    string // in place of the experiment's backend; "" keeps it
	Backend backend.Options
	Network models.Energy // that the run was trained with, where Options.Network was set
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
	parts, err := Build(cfg, opts.Network)
	if err != nil {
		return nil, err
	}
	cut, skipped, err := folder{dir: dir}.cuts().LatestGood()
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", dir, err)
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

// Samples draws n states of the run's model, after burn scans and every gap-th scan.
func (r *Run) Samples(ctx context.Context, n, burn, gap int) ([]float32, error) {
	theta, err := r.Trainer.Theta()
	if err != nil {
		return nil, err
	}
	s, err := r.Parts.Sampler(r.Backend, theta, r.Trainer.Step())
	if err != nil {
		return nil, err
	}
	defer s.Close()
	samples, _, err := Draw(ctx, s, n, burn, gap)
	return samples, err
}

// WriteSamples writes samples [n·dim] and their energies under the run's model to an npz file: x [n, dim], energy [n].
func (r *Run) WriteSamples(path string, samples []float32) error {
	return r.Parts.writeSamples(path, samples, r.Trainer)
}

func (p *Parts) writeSamples(path string, samples []float32, t *engine.Trainer) error {
	energy, err := t.Energies(samples)
	if err != nil {
		return err
	}
	return WriteNPZ(path, p.Data.Dim, samples, energy)
}

// WriteNPZ writes states [n·dim] as x [n, dim] and their energies as energy [n].
func WriteNPZ(path string, dim int, samples []float32, energy []float64) error {
	n := len(energy)
	return atomicfile.Write(path, 0o644, func(w io.Writer) error {
		return datasets.WriteNPZ(w, []datasets.Array{
			{Name: "x", Shape: []int{n, dim}, Data: samples},
			{Name: "energy", Shape: []int{n}, Data: energy},
		})
	})
}

// Figure draws the landscape or samples of the run.
func (r *Run) Figure(ctx context.Context, kind string) (*plots.Figure, error) {
	switch kind {
	case "landscape":
		return r.Parts.LandscapeFigure(r.Trainer)
	case "samples":
		e := r.Parts.Config.Evaluate
		x, err := r.Samples(ctx, min(e.Samples, shownPoints), e.Scans, max(1, e.Scans/10))
		if err != nil {
			return nil, err
		}
		return r.Parts.SamplesFigure(to64(x), r.Trainer.Step())
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
