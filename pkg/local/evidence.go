package local

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
)

// evidence measures log Z on a ladder, and takes the likelihood from it where no quadrature gave one.
func (p *Parts) evidence(ctx context.Context, b *backend.Backend, w taught, ev *Evaluation, l engine.Learner) error {
	if (ev.tempering == nil || ev.tempering.Final().LogZ == nil) && ev.NLL == nil && p.Config.Evaluate.Measure > 0 {
		t, err := p.measure(ctx, b, w)
		if err != nil {
			return fmt.Errorf("log Z: %w", err)
		}
		ev.tempering = t
		if last := t.Final(); ev.Verdict == "" {
			ev.Restarts, ev.Verdict = last.Restarts, last.Verdict()
		}
	}
	if ev.tempering == nil || ev.tempering.Final().LogZ == nil {
		if ev.NLL == nil && ev.NLLNote == "" {
			ev.NLLNote = fmt.Sprintf("no quadrature in %d dimensions, and no log Z was measured", p.Data.Dim)
			if ev.tempering != nil && ev.tempering.Final().LogZFault != "" {
				ev.NLLNote = "no log Z: " + ev.tempering.Final().LogZFault
			}
		}
		return nil
	}
	last := ev.tempering.Final()
	ev.Evidence = last.LogZ
	if ev.NLL != nil {
		return nil
	}
	energy, err := energies(l)(p.Test.Rows)
	if err != nil {
		return err
	}
	mean, stdErr := meanAndError(energy)
	nll := mean + last.LogZ.Bridge
	if math.IsNaN(nll) || math.IsInf(nll, 0) {
		return fmt.Errorf("log Z is %v, and the mean energy of the test rows %v: no likelihood", last.LogZ.Bridge, mean)
	}
	if z := last.LogZ.BridgeErr; !math.IsNaN(z) {
		stdErr = math.Hypot(stdErr, z)
	}
	ev.NLL, ev.LogZ, ev.NLLKind = &nll, &last.LogZ.Bridge, "bridge"
	if !math.IsNaN(stdErr) {
		ev.NLLError = &stdErr
	}
	for _, f := range last.Findings() {
		if f.Level == "bad" || f.Level == "warn" && strings.Contains(f.Text, "log Z") {
			ev.Notes = append(ev.Notes, "log Z: "+f.Text)
		}
	}
	p.bits(ev)
	return nil
}

// forLogZ is how the model is tempered where log Z is asked for: with an exact kernel, from a reference whose Z is known. A
// ladder of the power path has none, and gives way to one of as many rungs that has.
func (p *Parts) forLogZ(w taught, seed uint64) (engine.SamplerConfig, error) {
	cfg, err := p.tempered(w, seed, true)
	if err != nil || cfg.Tempering.Path == "linear" {
		return cfg, err
	}
	cfg.Tempering.Path, cfg.Tempering.Ladder, cfg.Tempering.Betas = "linear", "adaptive", nil
	q := p.Gaussian
	cfg.Spec.Reference, cfg.Start = &q, engine.Adapted{}
	return cfg, nil
}

// measure tempers the model with an exact kernel, for log Z alone.
func (p *Parts) measure(ctx context.Context, b *backend.Backend, w taught) (*Tempering, error) {
	cfg, err := p.forLogZ(w, rng.Uint64(p.Config.Seed, rng.Evaluate, 0, 2, 0))
	if err != nil {
		return nil, err
	}
	t, err := Temper(ctx, b, cfg, w.theta, TemperOptions{AdaptScans: p.Config.Evaluate.Scans, Scans: p.Config.Evaluate.Measure})
	if err != nil {
		return nil, err
	}
	t.Name = p.Config.Name
	return t, nil
}

// bits gives the likelihood in bits a number, as the numbers stand in the data's file: a density there is that of the
// scaled rows times the scale.
func (p *Parts) bits(ev *Evaluation) {
	dim := p.Data.Dim
	zeros, ones := make([]float64, dim), slices.Repeat([]float64{1}, dim)
	low, high := p.Data.Raw(zeros), p.Data.Raw(ones)
	sum := *ev.NLL
	for i := range high {
		sum += math.Log(math.Abs(high[i] - low[i]))
	}
	bits := sum / float64(dim) / math.Ln2
	ev.BitsPer = &bits
}

// meanAndError are the mean of independent numbers and its standard error, NaN for one.
func meanAndError(v []float64) (mean, stdErr float64) {
	for _, x := range v {
		mean += x / float64(len(v))
	}
	spread := 0.0
	for _, x := range v {
		spread += (x - mean) * (x - mean)
	}
	n := float64(len(v))
	return mean, math.Sqrt(spread / (n - 1) / n)
}
