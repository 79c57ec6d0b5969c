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
	Standstill time.Duration // longest time without a new step, from the fault until it was mended
	Answered   time.Duration // from its end to the first answer that surely holds
	Redone     uint64        // steps
	Interval   uint64        // most steps between two cuts until then
}

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

// String is a table of the kinds of faults.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d faults, %d experiments of %d steps finished, %d cuts acknowledged\n", len(r.Outcomes), len(r.Finished), r.Steps, r.Cuts)
	fmt.Fprintf(&b, "%-28s %3s  %27s  %8s  %14s\n", "", "", "longest time without a step", "answers", "steps redone")
	fmt.Fprintf(&b, "%-28s %3s  %8s %8s %8s  %8s  %6s %7s\n", "fault", "n", "p50", "p99", "max", "max", "max", "of cut")
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
	var answered time.Duration
	var redone uint64
	var part float64
	for _, o := range outcomes {
		still, answered, redone = append(still, o.Standstill), max(answered, o.Answered), max(redone, o.Redone)
		if o.Interval > 0 {
			part = max(part, float64(o.Redone)/float64(o.Interval))
		}
	}
	slices.Sort(still)
	at := func(q float64) time.Duration {
		return still[min(len(still)-1, int(q*float64(len(still))))].Round(10 * time.Millisecond)
	}
	fmt.Fprintf(b, "%-28s %3d  %8v %8v %8v  %8v  %6d %6.0f%%\n", name, len(outcomes), at(0.5), at(0.99), at(1), answered.Round(10*time.Millisecond), redone, 100*part)
}
