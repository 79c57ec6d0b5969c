package server

import (
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// view is what a driver knows of the chains: as they were when the replicas last answered.
type view struct {
	step     uint64
	stats    tempering.Stats
	tripRate float64
	betas    []float64
	sizes    []float64
	accept   []float64 // explorer acceptance of the last step
}

// note takes over what the replicas said last. report is that of the step that began at start; nil where none was made.
func (d *driver) note(fleet *coordinator.Fleet, report *engine.Report, start time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.facts.Step, d.facts.Redone = uint64(fleet.Step()), uint64(fleet.Redone())
	if report != nil {
		d.facts.Steps.Count++
		d.facts.Steps.Time += time.Since(start)
		d.view.accept = report.Accept
	}
	rounds, took := fleet.Rounds()
	d.facts.Rounds = Timing{uint64(rounds), took}
	d.facts.RoundsLate = uint64(fleet.Late())
	d.facts.LeasesLost = uint64(fleet.Lost())
	if !d.led.Chains {
		return
	}
	v := &d.view
	before := v.stats
	v.step, v.stats, v.tripRate, v.betas, v.sizes = uint64(fleet.Step()), fleet.Stats(), fleet.TripRate(), fleet.Adapted().Betas, fleet.StepSizes()
	if len(d.facts.Pairs) != len(v.stats.Pairs) {
		d.facts.Pairs = make([]Pair, len(v.stats.Pairs))
	}
	// The statistics begin anew at every record, the counters only grow.
	for i, p := range v.stats.Pairs {
		var was tempering.PairStats
		if i < len(before.Pairs) && before.Pairs[i].Attempts <= p.Attempts {
			was = before.Pairs[i]
		}
		d.facts.Pairs[i].Attempted += p.Attempts - was.Attempts
		d.facts.Pairs[i].Accepted += p.Accepted - min(was.Accepted, p.Accepted)
	}
	d.facts.RoundTrips = v.stats.Trips
}

// failed says whether the driver ended for a reason that may pass, and without a step.
func (d *driver) failed() bool {
	return d.ended() && d.again && d.Facts().Steps.Count == 0
}

// Facts are what the driver knows since it began.
func (d *driver) Facts() Facts {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := d.facts
	out.Pairs = append([]Pair{}, out.Pairs...)
	return out
}

// chains are what it knows of them; false before the first answer, and without a ladder.
func (d *driver) chains() (view, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.view, len(d.view.betas) > 0
}

// reach is the Fleet of the driver; nil before it stands.
func (d *driver) reach() *coordinator.Fleet {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fleet
}
