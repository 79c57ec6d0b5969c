package tempering

import (
	"math"
	"slices"
	"strings"
	"testing"

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

// A reset counts anew, and walkers go on as they are. With every swap accepted on four rungs a trip takes a walker eight
// scans: 13 trips end in the first 32, none of them in the first eight, and 16 in the 32 after a reset, at once from its
// first scan. A reset in the first eight scans forgives no more than those.
func TestResetCountsFromTheReset(t *testing.T) {
	const rungs, scans = 4, 32
	e := newEnsemble(t, Settings{Ladder: uniformLadder(t, rungs), Columns: 2, Fresh: true})
	v := make([]float64, 2*rungs)
	at := uint64(0)
	run := func(n int) {
		for range n {
			sweep(t, e, at, nil, v)
			at++
		}
	}
	expect := func(when string, trips, restarts, counted uint64) {
		t.Helper()
		s := e.Stats()
		rate := 0.
		if counted > 0 {
			rate = float64(trips) / float64(counted)
		}
		if s.Trips != 2*trips || s.Restarts != 2*restarts || e.TripScans() != 2*counted || math.Abs(e.TripRate()-rate) > 1e-15 {
			t.Errorf("%s: %d trips, %d restarts in %d scans that count, rate %g, want twice %d, %d and %d, and %g", when, s.Trips, s.Restarts, e.TripScans(), e.TripRate(), trips, restarts, counted, rate)
		}
		if err := e.Check(); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	run(scans)
	expect("at first", 13, 15, scans-2*rungs)
	before := e.Snapshot()
	e.Reset()
	after := e.Snapshot()
	if !slices.Equal(before.Labels, after.Labels) || !slices.Equal(before.Lineage, after.Lineage) || !slices.Equal(before.Scans, after.Scans) || !slices.Equal(before.Direction, after.Direction) {
		t.Error("Reset moved walkers, directions, lineage numbers or clocks")
	}
	expect("reset", 0, 0, 0)
	run(scans)
	expect("after the reset", 16, 16, scans)
	if pair := e.Stats().Pairs[0].Attempts; pair != scans {
		t.Errorf("%d attempts of the lowest pair after the reset, want %d", pair, scans)
	}

	e, at = newEnsemble(t, Settings{Ladder: uniformLadder(t, rungs), Columns: 2, Fresh: true}), 0
	run(5)
	e.Reset()
	run(scans - 5)
	if got := e.TripScans(); got != 2*(scans-2*rungs) || e.Stats().Trips != 2*13 {
		t.Errorf("reset after 5 scans: %d trips in %d scans that count, want 26 in %d", e.Stats().Trips, got, 2*(scans-2*rungs))
	}
}

func TestSetLadder(t *testing.T) {
	e := newEnsemble(t, Settings{Ladder: uniformLadder(t, 2), Columns: 1, Uniform: func(uint64, uint32, uint32) float64 { return 0.5 }})
	near, err := LadderOf([]float64{0.9, 1})
	if err != nil {
		t.Fatal(err)
	}
	v := []float64{-1, 1} // Δ = −2·(1 − β₀): exp(−2) < ½ < exp(−0.2)
	if swept := sweep(t, e, 0, nil, v); swept.Accepted != 0 || math.Abs(swept.Target[0]-math.Exp(-2)) > 1e-15 {
		t.Errorf("far rungs: accepted %d at α = %g", swept.Accepted, swept.Target[0])
	}
	if swept := sweep(t, e, 1, nil, v); !math.IsNaN(swept.Target[0]) {
		t.Errorf("an odd scan of two rungs: α = %g, want NaN", swept.Target[0])
	}
	if err := e.SetLadder(near); err != nil || e.Ladder() != near {
		t.Fatalf("set ladder: %v", err)
	}
	if swept := sweep(t, e, 2, nil, v); !swept.TargetSwapped[0] || math.Abs(swept.Alpha[0]-math.Exp(-0.2)) > 1e-15 {
		t.Errorf("near rungs: swapped %t at α = %g", swept.TargetSwapped[0], swept.Alpha[0])
	}
	for _, l := range []*Ladder{nil, uniformLadder(t, 3)} {
		if err := e.SetLadder(l); err == nil || e.Ladder() != near {
			t.Errorf("set ladder to %v: error %v", l, err)
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
	want := []asked{{10, 103, 0}, {10, 103, 2}, {12, 101, 0}, {12, 101, 2}, {12, 103, 1}} // even pairs first
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
	for _, s := range []Settings{{}, {Ladder: uniformLadder(t, 2)}, {Ladder: uniformLadder(t, 4), Columns: math.MaxInt32}, {Ladder: uniformLadder(t, 1), Columns: 8, Offset: math.MaxUint32 - 3},
		{Ladder: uniformLadder(t, 2), Columns: 1, Schedule: "even-odd"}, {Ladder: uniformLadder(t, 2), Columns: 1, Schedule: "windowed", Window: -1}} {
		if _, err := NewEnsemble(s); err == nil {
			t.Errorf("%+v: no error", s)
		}
	}
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
