//go:build linux

package chaos

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
)

// Outcome is how a fault was borne.
type Outcome struct {
	Fault
	Whom       string
	Standstill time.Duration // longest time without a new step, from the fault until new steps were made
	Answered   time.Duration // from the fault's end to the first answer that surely holds
	Whole      time.Duration // from the fault's end until all replicas were at work
	Redone     uint64        // steps that were made again
	Again      time.Duration // what those had taken
}

func (o Outcome) String() string {
	return fmt.Sprintf("%s: no step for %v; answers after %v, whole after %v; %d steps of %v redone", o.Whom, round(o.Standstill), round(o.Answered), round(o.Whole), o.Redone, round(o.Again))
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }

// Report is what a run came to.
type Report struct {
	Outcomes []Outcome
	Finished []string // experiments
	Steps    uint64   // that those have
	Cuts     int      // that were acknowledged
}

func (r *Report) add(o Outcome) { r.Outcomes = append(r.Outcomes, o) }

func (r *Report) finished(exp api.Experiment, w *watch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r.Finished, r.Steps, r.Cuts = append(r.Finished, exp.Name), r.Steps+exp.Steps, r.Cuts+len(w.cuts)
}

// String is a table of the kinds of faults, in seconds.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d faults, %d experiments of %d steps finished, %d cuts acknowledged\n", len(r.Outcomes), len(r.Finished), r.Steps, r.Cuts)
	fmt.Fprintf(&b, "%-27s  %2s  %22s  %8s  %6s  %14s\n", "seconds", "", "without a new step", "answers", "whole", "redone")
	fmt.Fprintf(&b, "%-27s  %2s  %6s  %6s  %6s  %8s  %6s  %6s  %6s\n", "fault", "n", "p50", "p99", "max", "max", "max", "steps", "max")
	byKind := map[Kind][]Outcome{}
	for _, o := range r.Outcomes {
		byKind[o.Kind] = append(byKind[o.Kind], o)
	}
	for _, kind := range kinds {
		row(&b, string(kind), byKind[kind])
	}
	row(&b, "all", r.Outcomes)
	return b.String()
}

func row(b *strings.Builder, name string, outcomes []Outcome) {
	if len(outcomes) == 0 {
		return
	}
	var still []time.Duration
	var most Outcome
	for _, o := range outcomes {
		still = append(still, o.Standstill)
		most.Answered, most.Whole, most.Again, most.Redone = max(most.Answered, o.Answered), max(most.Whole, o.Whole), max(most.Again, o.Again), max(most.Redone, o.Redone)
	}
	slices.Sort(still)
	at := func(q float64) float64 { return still[min(len(still)-1, int(q*float64(len(still))))].Seconds() }
	fmt.Fprintf(b, "%-27s  %2d  %6.2f  %6.2f  %6.2f  %8.2f  %6.2f  %6d  %6.2f\n",
		name, len(outcomes), at(0.5), at(0.99), at(1), most.Answered.Seconds(), most.Whole.Seconds(), most.Redone, most.Again.Seconds())
}
