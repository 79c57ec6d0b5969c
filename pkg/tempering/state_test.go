package tempering

import (
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestRestoreRefusesABrokenState(t *testing.T) {
	fresh := func() *Ensemble { return newEnsemble(t, Settings{Ladder: uniformLadder(t, 3), Columns: 2}) }
	for _, tc := range []struct {
		name  string
		spoil func(*State)
		want  string
	}{
		{"duplicate label", func(s *State) { s.Labels[0] = 1 }, "column 0: label 1 on rungs 0 and 1"},
		{"foreign label", func(s *State) { s.Labels[3] = 7 }, "column 1: label 7 on rung 1"},
		{"negative label", func(s *State) { s.Labels[3] = -1 }, "label -1"},
		{"other number of columns", func(s *State) { s.Labels, s.Trips = s.Labels[:3], nil }, "labels: 3 values, want 6"},
		{"impossible direction", func(s *State) { s.Direction[5] = 3 }, "direction 3 of walker 2"},
		{"trips without restarts", func(s *State) { s.Trips[1] = 4 }, "column 1: 4 round trips and 0 walkers on their way back, but 0 restarts"},
		{"more accepted than tried", func(s *State) { s.Accepted[1] = 1 }, "pair 1"},
		{"counted since the future", func(s *State) { s.Since[1] = 1 }, "column 1: counted since scan 1"},
		{"gates of another ladder", func(s *State) { s.Swapped = s.Swapped[:3] }, "swapped: 3 values, want 4"},
		{"no directions on a rung", func(s *State) { s.Up, s.Down = nil, s.Down[:2] }, "down: 2 values, want 3"},
		{"gate closed outside a window", func(s *State) { s.Swapped[2] = true }, "closed until its window ends"},
		{"acceptance sum not a number", func(s *State) { s.AlphaSum[0] = math.NaN() }, "pair 0"},
	} {
		e := fresh()
		state := e.Snapshot()
		tc.spoil(&state)
		if err := e.Restore(state); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
		if !equalStates(e.Snapshot(), fresh().Snapshot()) {
			t.Errorf("%s: a refused state was taken over in part", tc.name)
		}
	}
}

func equalStates(a, b State) bool {
	return slices.Equal(a.Labels, b.Labels) && slices.Equal(a.Lineage, b.Lineage) && slices.Equal(a.Direction, b.Direction) &&
		slices.Equal(a.Scans, b.Scans) && slices.Equal(a.Restarts, b.Restarts) && slices.Equal(a.Trips, b.Trips) && slices.Equal(a.Warming, b.Warming) &&
		slices.Equal(a.Attempts, b.Attempts) && slices.Equal(a.Accepted, b.Accepted) && slices.Equal(a.AlphaSum, b.AlphaSum) && a.NonFinite == b.NonFinite &&
		slices.Equal(a.Since, b.Since) && slices.Equal(a.Swapped, b.Swapped) && slices.Equal(a.Up, b.Up) && slices.Equal(a.Down, b.Down)
}

// Any sequence of sweeps of any columns with any energies, refills, resets and restarts from a snapshot keeps the
// conservation laws, and a run that was cut and restored ends in the same state as one that was not.
func TestEnsembleStateMachine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rungs := rapid.IntRange(1, 6).Draw(t, "rungs")
		columns := rapid.IntRange(1, 8).Draw(t, "columns")
		betas := make([]float64, rungs)
		for j := range betas {
			betas[j] = float64(j+1) / float64(rungs)
		}
		ladder, err := LadderOf(betas)
		if err != nil {
			t.Fatal(err)
		}
		settings := Settings{Ladder: ladder, Columns: columns, Seed: rapid.Uint64().Draw(t, "seed"), Fresh: rapid.Bool().Draw(t, "fresh"),
			Schedule: rapid.SampledFrom(Schedules).Draw(t, "schedule"), Window: rapid.IntRange(1, 4).Draw(t, "window")}
		e, err := NewEnsemble(settings)
		if err != nil {
			t.Fatal(err)
		}
		twin, _ := NewEnsemble(settings)
		scan := uint64(0)
		some := rapid.Custom(func(t *rapid.T) []int32 {
			all := make([]int32, columns)
			for c := range all {
				all[c] = int32(c)
			}
			order := rapid.Permutation(all).Draw(t, "order")
			return order[:rapid.IntRange(0, columns).Draw(t, "number")]
		})
		energy := rapid.OneOf(rapid.Float64Range(-3, 3), rapid.SampledFrom([]float64{math.NaN(), math.Inf(1), math.Inf(-1), 1e308, -1e308, 0}))
		t.Repeat(map[string]func(*rapid.T){
			"sweep": func(t *rapid.T) {
				live := some.Draw(t, "live")
				v := rapid.SliceOfN(energy, rungs*len(live), rungs*len(live)).Draw(t, "v")
				swept, err := e.Sweep(scan, live, v)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := twin.Sweep(scan, live, v); err != nil {
					t.Fatal(err)
				}
				scan++
				checkSwept(t, e, live, swept)
				seen := make([]bool, len(swept.Perm))
				for _, from := range swept.Perm {
					if seen[from] {
						t.Fatalf("row %d taken twice", from)
					}
					seen[from] = true
				}
			},
			"refill": func(t *rapid.T) {
				columns := some.Draw(t, "columns")
				if err := errorsOf(e.Refill(columns), twin.Refill(columns)); err != nil {
					t.Fatal(err)
				}
			},
			"reset pairs": func(t *rapid.T) { e.ResetPairs(); twin.ResetPairs() },
			"reset": func(t *rapid.T) {
				e.Reset()
				twin.Reset()
				if s := e.Stats(); s.Restarts != 0 || s.Trips != 0 || s.NonFinite != 0 || e.TripRate() != 0 || !math.IsNaN(e.UpFraction()[0]) {
					t.Fatalf("something was remembered: %+v", s)
				}
			},
			"ladder": func(t *rapid.T) {
				betas := settings.Ladder.Betas()
				for j := range rungs - 1 {
					betas[j] *= 0.9
				}
				l, err := LadderOf(betas)
				if err != nil {
					t.Fatal(err)
				}
				settings.Ladder = l
				if err := errorsOf(e.SetLadder(l), twin.SetLadder(l)); err != nil {
					t.Fatal(err)
				}
			},
			"window": func(t *rapid.T) {
				settings.Window = rapid.IntRange(1, 4).Draw(t, "window")
				if err := errorsOf(e.SetWindow(settings.Window), twin.SetWindow(settings.Window)); err != nil {
					t.Fatal(err)
				}
			},
			"cut and restore": func(t *rapid.T) {
				state := e.Snapshot()
				next, err := NewEnsemble(settings)
				if err != nil {
					t.Fatal(err)
				}
				if err := next.Restore(state); err != nil {
					t.Fatal(err)
				}
				clear(state.Labels) // a snapshot shares nothing with the ensemble
				e = next
			},
			"": func(t *rapid.T) {
				if err := e.Check(); err != nil {
					t.Fatal(err)
				}
				if !equalStates(e.Snapshot(), twin.Snapshot()) {
					t.Fatal("the restored ensemble went another way")
				}
				at := make([]int32, rungs)
				for c := range columns {
					e.Positions(c, at)
					for k := range rungs {
						if got := at[e.Label(k, c)]; int(got) != k {
							t.Fatalf("column %d: walker %d on rung %d, want %d", c, e.Label(k, c), got, k)
						}
					}
				}
				for k, f := range e.UpFraction() {
					if !(f >= 0 && f <= 1) && !math.IsNaN(f) {
						t.Fatalf("rung %d: share %g", k, f)
					}
				}
			},
		})
	})
}

// checkSwept checks that the parts of a sweep's report fit together.
func checkSwept(t *rapid.T, e *Ensemble, live []int32, s Swept) {
	b, rungs := len(live), e.NumRungs()
	tried, warming := 0, 0
	for i, n := range s.Tried {
		if !(s.Alpha[i] >= 0 && s.Alpha[i] <= float64(n)) {
			t.Fatalf("pair %d: acceptance sum %g of %d attempts", i, s.Alpha[i], n)
		}
		tried += n
	}
	for j, c := range live {
		if e.Warming(int(c)) {
			warming++
		}
		swapped := rungs > 1 && int(s.Perm[(rungs-1)*b+j]) == (rungs-2)*b+j
		if s.TargetSwapped[j] != swapped {
			t.Fatalf("column %d: target swapped %t, its row says %t", c, s.TargetSwapped[j], swapped)
		}
		if a := s.Target[j]; math.IsNaN(a) && swapped || !(a >= 0 && a <= 1) && !math.IsNaN(a) || a == 0 && swapped {
			t.Fatalf("column %d: acceptance %g on the target, swapped %t", c, a, swapped)
		}
	}
	if tried > s.Attempted || s.Accepted > s.Attempted || warming == 0 && tried != s.Attempted {
		t.Fatalf("%d attempts by pair of %d, %d accepted, %d columns warming", tried, s.Attempted, s.Accepted, warming)
	}
}

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
