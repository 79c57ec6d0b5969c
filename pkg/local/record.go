package local

import (
	"math"
	"slices"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/experiment"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
	"github.com/kelvin-ebm/kelvin/pkg/runlog"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// stretch sums what a record says of all steps since the one before.
type stretch struct {
	steps     int
	accept    []float64 // sum over the steps, a rung
	nonFinite int
}

func (s *stretch) add(r engine.Report) {
	if s.accept == nil {
		s.accept = make([]float64, len(r.Accept))
	}
	for k, a := range r.Accept {
		s.accept[k] += a
	}
	s.steps++
	s.nonFinite += r.NonFinite
}

// acceptance is the mean swap acceptance of each pair that was tried; nil without pairs.
func acceptance(stats tempering.Stats) []float64 {
	var out []float64
	for _, p := range stats.Pairs {
		if p.Attempts > 0 {
			out = append(out, p.AlphaSum/float64(p.Attempts))
		}
	}
	return out
}

// Recorder makes the records of a training: each sums up the steps since the one before.
type Recorder struct {
	schedule string
	window   stretch
	step     int // of the last record
	at       time.Time
}

// NewRecorder begins behind a step.
func NewRecorder(cfg *experiment.Config, step int) *Recorder {
	return &Recorder{schedule: cfg.Tempering.Schedule, step: step, at: time.Now()}
}

// Add takes the report of a step.
func (r *Recorder) Add(report engine.Report) { r.window.add(report) }

// Record is the record of the step that was added last; chains are nil without chains, seconds those since the training began.
// The caller resets the statistics of the pairs.
func (r *Recorder) Record(report engine.Report, chains replica.Chained, seconds float64) runlog.Record {
	now, window := time.Now(), r.window
	rate := float64(report.Step-r.step) / max(now.Sub(r.at).Seconds(), 1e-9)
	r.step, r.at, r.window = report.Step, now, stretch{}
	stats := swaps(chains)
	rec := runlog.Record{Step: report.Step, Seconds: seconds}
	rec.Set("loss", report.Loss)
	for _, part := range report.Parts {
		rec.Set(part.Name, part.Value)
	}
	rec.Set("grad_norm", report.GradNorm)
	rec.Set("learning_rate", report.Rate)
	accepted := make([]float64, len(window.accept))
	for k, sum := range window.accept {
		accepted[k] = sum / float64(window.steps)
	}
	if len(accepted) > 0 {
		rec.SetList("explorer_accept", accepted)
	}
	if accept := acceptance(stats); len(accept) > 0 && len(accept) == len(stats.Pairs) {
		rec.SetList("swap_accept", accept)
		barrier, _ := tempering.Barrier(stats.Rejections(), float64(stats.Attempts()))
		rec.Set("barrier", barrier)
		rec.Set("rejection_sum", tempering.RejectionSum(stats.Rejections()))
		rec.Set("restarts", float64(stats.Restarts))
		rec.Set("round_trips", float64(stats.Trips))
		rec.Set("round_trip_rate", chains.TripRate())
		switch r.schedule { // of windowed it hangs on the window
		case "deo":
			rec.Set("round_trip_rate_predicted", tempering.PredictedTripRate(stats.Rejections()))
		case "seo":
			rec.Set("round_trip_rate_predicted", tempering.PredictedTripRateSEO(stats.Rejections()))
		}
		rec.Set("suggested_rungs", float64(tempering.SuggestRungs(barrier)))
		rec.SetList("beta", chains.Adapted().Betas)
		rec.SetList("step_size", chains.StepSizes())
		if stats.Warming > 0 {
			rec.Set("warming", float64(stats.Warming))
		}
		for _, list := range []struct {
			key    string
			values []float64
		}{{"energy_correlation", chains.Exploration()}, {"drift_ess", report.Drift}} {
			if len(list.values) > 0 && !slices.ContainsFunc(list.values, math.IsNaN) {
				rec.SetList(list.key, list.values)
			}
		}
	}
	if len(accepted) > 0 {
		rec.Set("non_finite_proposals", float64(window.nonFinite))
	}
	rec.Set("steps_per_second", rate)
	return rec
}
