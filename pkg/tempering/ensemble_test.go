package tempering

import (
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
)

func uniformLadder(t testing.TB, rungs int) *Ladder {
	t.Helper()
	betas := make([]float64, rungs)
	for j := range rungs - 1 {
		betas[j] = float64(j) / float64(rungs-1)
	}
	betas[rungs-1] = 1
	ladder, err := LadderOf(betas)
	if err != nil {
		t.Fatal(err)
	}
	return ladder
}

func newEnsemble(t testing.TB, s Settings) *Ensemble {
	t.Helper()
	e, err := NewEnsemble(s)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func sweep(t testing.TB, e *Ensemble, scan uint64, live []int32, v []float64) Swept {
	t.Helper()
	swept, err := e.Sweep(scan, live, v)
	if err != nil {
		t.Fatal(err)
	}
	return swept
}

// With every swap accepted each walker runs up and down without turning; the counts are those of the specification.
func TestIndexProcessWhenEverySwapIsAccepted(t *testing.T) {
	for _, tc := range []struct {
		rungs           int
		scans           uint64
		trips, restarts uint64
	}{{4, 32, 13, 15}, {5, 100, 46, 48}, {8, 1000, 493, 497}} {
		e := newEnsemble(t, Settings{Ladder: uniformLadder(t, tc.rungs), Columns: 3, Fresh: true})
		v := make([]float64, 3*tc.rungs) // equal energies: Δ = 0
		for scan := range tc.scans {
			swept := sweep(t, e, scan, nil, v)
			if swept.Accepted != swept.Attempted {
				t.Fatalf("K=%d scan %d: %d of %d accepted", tc.rungs, scan, swept.Accepted, swept.Attempted)
			}
		}
		s := e.Stats()
		if s.Trips != 3*tc.trips || s.Restarts != 3*tc.restarts {
			t.Errorf("K=%d T=%d: %d trips, %d restarts in three columns, want %d and %d in each", tc.rungs, tc.scans, s.Trips, s.Restarts, tc.trips, tc.restarts)
		}
		// A walker gets a fresh state at every scan that finds it on rung 0: over all walkers, one a scan.
		lineage := 0
		for _, n := range e.Snapshot().Lineage {
			lineage += int(n)
		}
		if lineage != 3*int(tc.scans) {
			t.Errorf("K=%d: lineage numbers sum to %d, want %d", tc.rungs, lineage, 3*tc.scans)
		}
		if err := e.Check(); err != nil {
			t.Error(err)
		}
	}
}

// Energies that do not depend on the walker give one rejection rate on every pair and a known rate of round trips.
func TestRoundTripRateAtConstantRejection(t *testing.T) {
	const scans = 60_000
	for _, tc := range []struct {
		rungs      int
		rejection  float64
		want, rtol float64
	}{{10, 0.5, 0.0500, 0.05}, {10, 0.2, 0.1538, 0.05}, {10, 0.8, 0.01351, 0.10}, {20, 0.5, 0.0250, 0.10}} {
		ladder := uniformLadder(t, tc.rungs)
		e := newEnsemble(t, Settings{Ladder: ladder, Columns: 1, Seed: 1, Fresh: true})
		betas := ladder.Betas()
		v := make([]float64, tc.rungs)
		for i := range tc.rungs - 1 {
			v[i+1] = v[i] - math.Log1p(-tc.rejection)/(betas[i+1]-betas[i])
		}
		for scan := range uint64(scans) {
			sweep(t, e, scan, nil, v)
		}
		rates := e.Stats().Rejections()
		if predicted := PredictedTripRate(rates); math.Abs(predicted/tc.want-1) > 2e-3 {
			t.Errorf("K=%d r=%g: predicted %g, want %g", tc.rungs, tc.rejection, predicted, tc.want)
		}
		if got := e.TripRate(); math.Abs(got/tc.want-1) > tc.rtol {
			t.Errorf("K=%d r=%g: %.5f round trips a scan, want %.5f ± %g%%", tc.rungs, tc.rejection, got, tc.want, 100*tc.rtol)
		}
		for i, r := range rates {
			if math.Abs(r-tc.rejection) > 1e-9 {
				t.Errorf("K=%d pair %d: rejection rate %g, want %g", tc.rungs, i, r, tc.rejection)
			}
		}
	}
}

func TestSweepMovesRowsAsItMovesLabels(t *testing.T) {
	const rungs, columns = 5, 7
	e := newEnsemble(t, Settings{Ladder: uniformLadder(t, rungs), Columns: columns, Seed: 9})
	live := []int32{6, 2, 3}
	b := len(live)
	draws := rng.New(4, rng.Dataset, 0, 0)
	for scan := range uint64(200) {
		before := e.Snapshot()
		v := make([]float64, rungs*b)
		for i := range v {
			v[i] = 3 * draws.Normal()
		}
		swept := sweep(t, e, scan, live, v)
		after := e.Snapshot()
		moved := 0
		for k := range rungs {
			for j, c := range live {
				from := int(swept.Perm[k*b+j])
				if from%b != j || from/b < k-1 || from/b > k+1 {
					t.Fatalf("scan %d: row %d takes row %d, want a neighbour in its own column", scan, k*b+j, from)
				}
				if after.Labels[k*columns+int(c)] != before.Labels[from/b*columns+int(c)] {
					t.Fatalf("scan %d: column %d rung %d: the label did not go with the state", scan, c, k)
				}
				if from != k*b+j {
					moved++
				}
			}
			for _, c := range []int{0, 1, 4, 5} {
				if after.Labels[k*columns+c] != int32(k) || after.Scans[c] != 0 {
					t.Fatalf("scan %d: column %d moved without being drawn", scan, c)
				}
			}
		}
		if moved != 2*swept.Accepted {
			t.Fatalf("scan %d: %d rows moved, want two for each of %d swaps", scan, moved, swept.Accepted)
		}
	}
}

// A column of a replay buffer alternates by its own count, however the scans fall, and decides alike whoever shares
// the scan with it.
func TestColumnsKeepTheirOwnParityAndUniforms(t *testing.T) {
	const rungs = 4
	type asked struct {
		scan         uint64
		ladder, pair uint32
	}
	var log []asked
	s := Settings{Ladder: uniformLadder(t, rungs), Columns: 5, Offset: 100, Uniform: func(scan uint64, ladder, pair uint32) float64 {
		log = append(log, asked{scan, ladder, pair})
		return 0.5
	}}
	e := newEnsemble(t, s)
	sweep(t, e, 10, []int32{3}, make([]float64, rungs))
	sweep(t, e, 12, []int32{3, 1}, make([]float64, 2*rungs))
	want := []asked{{10, 103, 0}, {10, 103, 2}, {12, 103, 1}, {12, 101, 0}, {12, 101, 2}}
	if !slices.Equal(log, want) {
		t.Errorf("uniforms asked for at %v, want %v", log, want)
	}
}

func TestUniformsAreCounterBased(t *testing.T) {
	const rungs, columns, seed = 3, 64, 21
	ladder := uniformLadder(t, rungs)
	whole := newEnsemble(t, Settings{Ladder: ladder, Columns: columns, Seed: seed, Fresh: true})
	left := newEnsemble(t, Settings{Ladder: ladder, Columns: columns / 2, Seed: seed, Fresh: true})
	right := newEnsemble(t, Settings{Ladder: ladder, Columns: columns / 2, Offset: columns / 2, Seed: seed, Fresh: true})
	draws := rng.New(1, rng.Dataset, 0, 0)
	for scan := range uint64(50) {
		all, l, r := make([]float64, rungs*columns), make([]float64, rungs*columns/2), make([]float64, rungs*columns/2)
		for k := range rungs {
			for c := range columns {
				x := draws.Normal()
				all[k*columns+c] = x
				if c < columns/2 {
					l[k*columns/2+c] = x
				} else {
					r[k*columns/2+c-columns/2] = x
				}
			}
		}
		sweep(t, whole, scan, nil, all)
		sweep(t, left, scan, nil, l)
		sweep(t, right, scan, nil, r)
	}
	for k := range rungs {
		for c := range columns {
			half := left
			if c >= columns/2 {
				half = right
			}
			if whole.Label(k, c) != half.Label(k, c%(columns/2)) {
				t.Fatalf("rung %d column %d: one ensemble and two halves differ", k, c)
			}
		}
	}
}

func TestNonFiniteEnergiesAreRejectedAndCounted(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	e := newEnsemble(t, Settings{Ladder: uniformLadder(t, 2), Columns: 5, Uniform: func(uint64, uint32, uint32) float64 { return 1e-300 }})
	//                                      hot                    target
	swept := sweep(t, e, 0, nil, []float64{nan, -inf, -inf, 0, 0 /**/, 0, 0, -inf, nan, 0})
	if swept.NonFinite != 4 || swept.Accepted != 1 || swept.Attempted != 5 {
		t.Errorf("%d non-finite, %d of %d accepted, want 4, 1 of 5", swept.NonFinite, swept.Accepted, swept.Attempted)
	}
	if got := e.Stats(); got.NonFinite != 4 || got.Pairs[0].AlphaSum != 1 {
		t.Errorf("statistics: %d non-finite, acceptance sum %g, want 4 and 1", got.NonFinite, got.Pairs[0].AlphaSum)
	}
}

func TestOneRungIsAPlainChain(t *testing.T) {
	e := newEnsemble(t, Settings{Ladder: uniformLadder(t, 1), Columns: 4, Fresh: true})
	for scan := range uint64(10) {
		swept := sweep(t, e, scan, nil, make([]float64, 4))
		if swept.Attempted != 0 || swept.Restarts != 0 || !slices.Equal(swept.Perm, []int32{0, 1, 2, 3}) {
			t.Fatalf("scan %d: %+v, want nothing to happen", scan, swept)
		}
	}
	if err := e.Refill([]int32{2}); err != nil {
		t.Fatal(err)
	}
	if s := e.Stats(); len(s.Pairs) != 0 || s.Warming != 0 || s.Restarts != 0 || s.Trips != 0 {
		t.Errorf("statistics %+v, want none", s)
	}
	if got := e.Snapshot().Lineage; !slices.Equal(got, []uint32{0, 0, 1, 0}) {
		t.Errorf("lineage numbers %v, want only the refilled column's raised", got)
	}
}

func TestRefilledColumnsWarmUp(t *testing.T) {
	const rungs = 4
	e := newEnsemble(t, Settings{Ladder: uniformLadder(t, rungs), Columns: 2, Fresh: true})
	v := make([]float64, 2*rungs)
	scan := uint64(0)
	for ; scan < 5; scan++ {
		sweep(t, e, scan, nil, v)
	}
	if err := e.Refill([]int32{1}); err != nil {
		t.Fatal(err)
	}
	e.ResetPairs()
	if !e.Warming(1) || e.Warming(0) || e.Stats().Warming != 1 {
		t.Fatal("the refilled column alone must be warming")
	}
	restarts := e.Snapshot().Restarts[1]
	warm := 0
	for ; e.Warming(1); scan++ {
		if warm++; warm > 100 {
			t.Fatal("still warming after 100 scans")
		}
		before := e.Stats().Pairs
		swept := sweep(t, e, scan, nil, v)
		if swept.Restarted[1] == e.Warming(1) {
			t.Fatal("warming must end with the first restart")
		}
		if e.Warming(1) {
			for i, p := range e.Stats().Pairs {
				if p.Attempts-before[i].Attempts > 1 {
					t.Fatal("a warming column counted in the pair statistics")
				}
			}
		}
	}
	if got := e.Snapshot().Restarts[1]; got != restarts+1 {
		t.Errorf("%d restarts while warming, want 1", got-restarts)
	}
}

func TestSweepRefusesWhatDoesNotFit(t *testing.T) {
	e := newEnsemble(t, Settings{Ladder: uniformLadder(t, 3), Columns: 4})
	before := e.Snapshot()
	for _, tc := range []struct {
		name string
		live []int32
		n    int
		want string
	}{
		{"too few energies", nil, 11, "11 energies, want 12"},
		{"column twice", []int32{1, 2, 1}, 9, "column 1 twice"},
		{"column beyond", []int32{4}, 3, "column 4, want 0 to 3"},
		{"column below", []int32{0, -1}, 6, "column -1"},
	} {
		if _, err := e.Sweep(0, tc.live, make([]float64, tc.n)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
	if err := e.Refill([]int32{0, 0}); err == nil {
		t.Error("refill of a column twice: no error")
	}
	if after := e.Snapshot(); !equalStates(before, after) {
		t.Error("a refused call changed the ensemble")
	}
	sweep(t, e, 0, []int32{1, 2}, make([]float64, 6)) // and left no mark behind
	for _, s := range []Settings{{}, {Ladder: uniformLadder(t, 2)}, {Ladder: uniformLadder(t, 4), Columns: math.MaxInt32}, {Ladder: uniformLadder(t, 1), Columns: 8, Offset: math.MaxUint32 - 3}} {
		if _, err := NewEnsemble(s); err == nil {
			t.Errorf("%+v: no error", s)
		}
	}
}

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
		{"trips without restarts", func(s *State) { s.Trips[1] = 4 }, "column 1: 4 round trips but 0 restarts"},
		{"more accepted than tried", func(s *State) { s.Accepted[1] = 1 }, "pair 1"},
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
		slices.Equal(a.Attempts, b.Attempts) && slices.Equal(a.Accepted, b.Accepted) && slices.Equal(a.AlphaSum, b.AlphaSum) && a.NonFinite == b.NonFinite
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
		settings := Settings{Ladder: ladder, Columns: columns, Seed: rapid.Uint64().Draw(t, "seed"), Fresh: rapid.Bool().Draw(t, "fresh")}
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
			"reset": func(t *rapid.T) { e.ResetPairs(); twin.ResetPairs() },
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
			},
		})
	})
}

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func BenchmarkSweep(b *testing.B) {
	const rungs, columns = 8, 1024
	e := newEnsemble(b, Settings{Ladder: uniformLadder(b, rungs), Columns: columns, Seed: 1, Fresh: true})
	v := rng.New(1, rng.Dataset, 0, 0).Normals(rungs * columns)
	scan := uint64(0)
	for b.Loop() {
		if _, err := e.Sweep(scan, nil, v); err != nil {
			b.Fatal(err)
		}
		scan++
	}
}
