//go:build linux

package chaos

import (
	"strings"
	"testing"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
)

func newSight() *watch {
	return &watch{name: "x", news: make(chan struct{}), cuts: map[uint64]api.Cut{}, known: known{cut: -1}}
}

// told is an experiment with 100 steps.
func told(generation, step uint64, cut int64) api.Experiment {
	e := api.Experiment{Name: "x", Phase: api.Running, Steps: 100, Generation: generation, Step: step}
	if cut >= 0 {
		e.LastCut = &api.CutMark{Step: uint64(cut)}
	}
	return e
}

func whole(step uint64, manifest string) api.Cut {
	return api.Cut{Step: step, Manifest: manifest, Conservation: api.Conservation{Ladders: 2, Rungs: 3, Labels: 6, Created: 7, Retired: 1, Live: 6}}
}

func TestWhatMustNotBeIsNoticed(t *testing.T) {
	for _, tc := range []struct {
		name string
		see  func(w *watch)
		want string // "": nothing is wrong
	}{
		{"a run with a setback", func(w *watch) {
			w.saw(w.present(), told(1, 50, 40), time.Now())
			w.saw(w.present(), told(2, 40, 40), time.Now())
			w.saw(w.present(), told(2, 60, 40), time.Now())
		}, ""},
		{"a cut that is gone", func(w *watch) {
			w.saw(w.present(), told(1, 50, 40), time.Now())
			w.saw(w.present(), told(2, 30, 30), time.Now())
		}, "the last cut is of step 30, and that of step 40 was acknowledged"},
		{"a cut that one coordinator alone knew", func(w *watch) {
			w.acknowledged([]api.Cut{whole(40, "aa")})
			w.saw(w.present(), told(2, 30, 30), time.Now())
		}, "the last cut is of step 30, and that of step 40 was acknowledged"},
		{"an answer that was asked for before the cut", func(w *watch) {
			before := w.present()
			w.saw(before, told(1, 50, 40), time.Now())
			w.saw(before, told(1, 30, 30), time.Now().Add(-time.Second))
		}, ""},
		{"a generation that goes back", func(w *watch) {
			w.saw(w.present(), told(3, 50, 40), time.Now())
			w.saw(w.present(), told(2, 50, 40), time.Now())
		}, "generation 2, and there was 3"},
		{"life after the end", func(w *watch) {
			over := told(3, 100, 100)
			over.Phase = api.Completed
			w.saw(w.present(), over, time.Now())
			w.saw(w.present(), told(3, 100, 100), time.Now())
		}, "phase running after completed"},
		{"a cut of two minds", func(w *watch) {
			w.acknowledged([]api.Cut{whole(40, "aa"), whole(50, "bb")})
			w.acknowledged([]api.Cut{whole(40, "cc")})
		}, "the cut of step 40 has the digest cc, and had aa"},
		{"a label too few", func(w *watch) {
			cut := whole(40, "aa")
			cut.Conservation.Labels--
			w.acknowledged([]api.Cut{cut})
		}, "breaks the conservation laws"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newSight()
			tc.see(w)
			err := w.faults()
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("error %v, want none", err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("error %v, want: %s", err, tc.want)
			}
		})
	}
}

func TestStandstillIsTheLongestGapOfTheTime(t *testing.T) {
	w := newSight()
	start := time.Now()
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	for _, second := range []int{0, 1, 2, 7, 8, 20} {
		w.steps = append(w.steps, progress{at(second), uint64(second)})
	}
	w.back = []setback{{at(2), 5}, {at(7), 4}, {at(8), 1}}
	for _, tc := range []struct {
		from, to int
		want     time.Duration
		redone   uint64
	}{
		{1, 9, 5 * time.Second, 10},
		{3, 8, 4 * time.Second, 5}, // from the beginning of the time to the first step in it
		{8, 15, 7 * time.Second, 0},
	} {
		if got, redone := w.standstill(at(tc.from), at(tc.to)); got != tc.want || redone != tc.redone {
			t.Errorf("from %d s to %d s: %v and %d redone, want %v and %d", tc.from, tc.to, got, redone, tc.want, tc.redone)
		}
	}
}
