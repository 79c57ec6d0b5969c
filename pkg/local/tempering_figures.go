package local

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strings"

	"github.com/kelvin-ebm/kelvin/pkg/plots"
	"github.com/kelvin-ebm/kelvin/pkg/runlog"
)

// TemperingFigures are the kinds of [TemperingFigure].
var TemperingFigures = []string{"ladder", "trips", "energies", "barrier", "index"}

// TemperingFigure draws what the tempering in a folder showed. The folder is that of a run, or one that holds nothing but
// a tempering.
func TemperingFigure(dir, kind string) (*plots.Figure, error) {
	t, err := ReadTempering(dir)
	if err != nil {
		return nil, err
	}
	p := t.plot()
	switch kind {
	case "ladder":
		if p.Training, err = ladderHistory(dir); err != nil {
			return nil, err
		}
		return p.LadderFigure()
	case "trips":
		return p.TripsFigure()
	case "energies":
		return p.EnergiesFigure()
	case "barrier":
		return p.BarrierFigure()
	case "index":
		return p.IndexFigure()
	}
	return nil, fmt.Errorf("figure %q, want one of %s", kind, strings.Join(TemperingFigures, ", "))
}

// plot is the tempering as the figures want it: all but the rounds is of the last of them.
func (t *Tempering) plot() plots.Tempering {
	last := t.Final()
	p := plots.Tempering{
		Name: t.Name, Betas: last.Betas, Rejections: last.Rejections, Up: last.Up, Overlap: last.Overlap,
		GridBeta: last.LambdaAt, GridLambda: last.LambdaDensity, GridBarrier: last.LambdaBarrier,
		Barrier: last.Barrier, LowerBound: last.BarrierLowerBound, Suggested: last.SuggestedRungs,
		Index: last.Index, IndexStride: last.IndexStride, EnergyName: "V = −E − log q (nats)",
	}
	if last.Path == "power" {
		p.EnergyName = "V = −E (nats)"
	}
	if !slices.ContainsFunc(p.Rejections, known) {
		p.Rejections = nil
	}
	for _, h := range last.Histograms {
		p.Histograms = append(p.Histograms, plots.EnergyHistogram{Lo: h.Lo, Hi: h.Hi, Counts: h.Counts})
	}
	scans := 0
	for _, r := range t.Rounds {
		scans += r.Scans
		p.Rounds = append(p.Rounds, plots.TemperingRound{Scan: scans, Betas: r.Betas, TripRate: r.TripRate, Predicted: r.PredictedTripRate,
			Bound: r.TripRateBound, Restarts: int(r.Restarts)})
	}
	return p
}

func known(x float64) bool { return !math.IsNaN(x) }

// section is the part of a report that the tempering fills. It has the findings that say what to be careful about, but for
// the gravest: that is in the verdict.
func (t *Tempering) section(training []plots.TemperingRound) (plots.Section, error) {
	p := t.plot()
	p.Training = training
	s, err := p.Section()
	if err != nil {
		return plots.Section{}, fmt.Errorf("tempering: %w", err)
	}
	verdict := t.Final().Verdict()
	s.Verdict = strings.ToUpper(verdict[:1]) + verdict[1:] + "."
	for _, f := range t.Warnings() {
		s.Notes = append(s.Notes, strings.ToUpper(f[:1])+f[1:]+".")
	}
	return s, nil
}

// Warnings are the findings of the last round that a reader must know beside its verdict, which names the gravest.
func (t *Tempering) Warnings() (out []string) {
	for i, f := range t.Final().Findings() {
		if i > 0 && (f.Level == "warn" || f.Level == "bad") {
			out = append(out, f.Text)
		}
	}
	return out
}

// shownLadders is the most ladders of a training that are drawn.
const shownLadders = 400

// ladderHistory is the ladder over the training of the run in a folder; nil where there is no run, or no ladder.
func ladderHistory(dir string) ([]plots.TemperingRound, error) {
	records, err := runlog.ReadMetrics(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []plots.TemperingRound
	for _, r := range records {
		if betas, ok := r.List("beta"); ok {
			all = append(all, plots.TemperingRound{Scan: r.Step, Betas: betas})
		}
	}
	if len(all) <= shownLadders {
		return all, nil
	}
	out := make([]plots.TemperingRound, shownLadders)
	for i := range out {
		out[i] = all[i*(len(all)-1)/(shownLadders-1)]
	}
	return out, nil
}
