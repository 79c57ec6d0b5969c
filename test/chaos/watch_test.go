//go:build linux

package chaos

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
)

func newSight() *watch {
	return &watch{name: "x", punctual: true, news: make(chan struct{}), cuts: map[uint64]api.Cut{}, known: known{cut: -1}}
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

func TestSetbacksAreSeenWithAndWithoutANewLeader(t *testing.T) {
	w := newSight()
	start := time.Now()
	for i, e := range []api.Experiment{told(1, 10, 0), told(1, 20, 0), told(2, 22, 0), told(3, 5, 5), told(3, 30, 5)} {
		if e.Generation == 2 {
			e.StepsRedone = 15 // and those are made again already
		}
		w.saw(w.present(), e, start.Add(time.Duration(i)*time.Second))
	}
	var redone []uint64
	for _, b := range w.back {
		redone = append(redone, b.steps)
	}
	if want := []uint64{15, 17}; !slices.Equal(redone, want) {
		t.Errorf("%d steps redone, want %d", redone, want)
	}
	if highest := w.highest(); highest != 30 {
		t.Errorf("highest step %d, want 30", highest)
	}
}

func TestStandstillIsTheLongestGapOfTheTime(t *testing.T) {
	w := newSight()
	start := time.Now()
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	for _, second := range []int{0, 1, 2, 7, 8, 20} {
		w.steps = append(w.steps, progress{at: at(second), step: uint64(second)})
	}
	w.back = []setback{{at(2), 5, time.Second}, {at(7), 4, 2 * time.Second}, {at(8), 1, 3 * time.Second}}
	for _, tc := range []struct {
		from, to   int
		want, took time.Duration
		redone     uint64
	}{
		{1, 9, 5 * time.Second, 6 * time.Second, 10},
		{3, 8, 4 * time.Second, 5 * time.Second, 5}, // from the beginning of the time to the first step in it
		{8, 15, 7 * time.Second, 0, 0},
	} {
		if got, redone, took := w.standstill(at(tc.from), at(tc.to)); got != tc.want || redone != tc.redone || took != tc.took {
			t.Errorf("from %d s to %d s: %v, and %d redone that took %v, want %v, %d and %v", tc.from, tc.to, got, redone, took, tc.want, tc.redone, tc.took)
		}
	}
}

// What a setback costs is the time from the first step that is made again to the last.
func TestASetbackCostsWhatItsStepsTook(t *testing.T) {
	w := newSight()
	start := time.Now()
	for i, step := range []uint64{10, 20, 30, 40, 50} {
		w.steps = append(w.steps, progress{start.Add(time.Duration(i) * time.Second), step, 3})
	}
	w.setBack(start.Add(9*time.Second), 50, 25, api.Experiment{Generation: 4, CutEverySeconds: 1})
	if want := (setback{start.Add(9 * time.Second), 25, 2 * time.Second}); w.back[0] != want {
		t.Errorf("%+v, want %+v", w.back[0], want)
	}
	if err := w.faults(); err != nil {
		t.Errorf("%v, want two seconds to be as near to one as they can be told", err)
	}
	w.setBack(start.Add(9*time.Second), 50, 5, api.Experiment{Generation: 6, CutEverySeconds: 1})
	if err := w.faults(); err != nil {
		t.Errorf("%v, want three generations to cost three seconds and more", err)
	}
	w.setBack(start.Add(9*time.Second), 50, 5, api.Experiment{Generation: 4, CutEverySeconds: 1})
	if err := w.faults(); err == nil {
		t.Error("four seconds are made again, and nothing is wrong with an interval of one")
	}
	w.steps = append(w.steps, progress{start.Add(11 * time.Second), 20, 4}, progress{start.Add(12 * time.Second), 30, 4})
	w.setBack(start.Add(14*time.Second), 30, 5, api.Experiment{Generation: 5, CutEverySeconds: 1})
	if want := (setback{start.Add(14 * time.Second), 25, time.Second}); w.back[3] != want {
		t.Errorf("%+v, want %+v: what was lost before is no part of it", w.back[3], want)
	}
	w.steps = append(w.steps, progress{start.Add(20 * time.Second), 70, 5}, progress{start.Add(21 * time.Second), 80, 5})
	w.setBack(start.Add(22*time.Second), 80, 5, api.Experiment{Generation: 6, CutEverySeconds: 1})
	if want := (setback{start.Add(22 * time.Second), 75, time.Second}); w.back[4] != want {
		t.Errorf("%+v, want %+v: nor is it where the next generation was seen beyond it", w.back[4], want)
	}
}
