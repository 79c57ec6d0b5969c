package tempering

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
)

func newAdapter(t testing.TB, s AdapterSettings) *Adapter {
	t.Helper()
	a, err := NewAdapter(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// The means and counts are those of the formulas, summed here from the start.
func TestAdapterMeans(t *testing.T) {
	const ladders, halfLife, scans = 10, 7.0, 400
	a := newAdapter(t, AdapterSettings{Rungs: 4, Ladders: ladders, HalfLife: halfLife, Gain: 0.2})
	s := rng.New(1, rng.Dataset, 0, 0)
	var log []Swept
	for scan := range scans {
		// Pair 0 is tried at every scan, pair 1 at every second one, pair 2 never.
		swept := Swept{Alpha: make([]float64, 3), Tried: make([]int, 3)}
		for i := range 2 {
			if i == 0 || scan%2 == 0 {
				swept.Tried[i], swept.Alpha[i] = ladders, ladders*s.Float64()
			}
		}
		a.Observe(swept)
		log = append(log, swept)
		if scan == 0 {
			if got := a.Counts(); math.Abs(got[0]-ladders) > 1e-12 || got[2] != 0 {
				t.Errorf("counts %v after one scan of %d ladders", got, ladders)
			}
			if got, want := a.Rejections()[0], 1-swept.Alpha[0]/ladders; math.Abs(got-want) > 1e-15 {
				t.Errorf("rejection rate %g after one scan, want its own, %g", got, want)
			}
		}
	}
	rates, counts := a.Rejections(), a.Counts()
	for i := range 2 {
		alpha, weight, square := 0.0, 0.0, 0.0
		for back, swept := range log {
			rho := math.Exp2(-float64(scans-1-back) / halfLife)
			if swept.Tried[i] > 0 {
				alpha += rho * swept.Alpha[i] / ladders
				weight += rho
				square += rho * rho
			}
		}
		if want := 1 - alpha/weight; math.Abs(rates[i]-want) > 1e-12 {
			t.Errorf("pair %d: rejection rate %.15g, want %.15g", i, rates[i], want)
		}
		if want := ladders * weight * weight / square; math.Abs(counts[i]-want) > 1e-9 {
			t.Errorf("pair %d: count %g, want %g", i, counts[i], want)
		}
	}
	rho := math.Exp2(-1 / halfLife)
	if want := ladders * (1 + rho) / (1 - rho); math.Abs(counts[0]-want) > 1e-9*want {
		t.Errorf("tried at every scan: count %g in the long run, want %g", counts[0], want)
	}
	if want := ladders * (1 + rho*rho) / (1 - rho*rho); math.Abs(counts[1]-want) > 1e-9*want {
		t.Errorf("tried at every second scan: count %g in the long run, want %g", counts[1], want)
	}
	if !math.IsNaN(rates[2]) || counts[2] != 0 {
		t.Errorf("never tried: rate %g of %g attempts, want NaN of 0", rates[2], counts[2])
	}
	// One pair is not known: the ladder stays.
	ladder := uniformLadder(t, 4)
	if next, moved, err := a.Move(ladder); err != nil || moved || next != ladder {
		t.Errorf("a pair was never tried: moved %t (%v), want the ladder to stay", moved, err)
	}
	a.Forget()
	if !math.IsNaN(a.Rejections()[0]) {
		t.Error("Forget left a rate behind")
	}
}

// While the target gets ten times as narrow the adapter holds the rejections equal and knows the barrier; a ladder
// that was the best at the start gets uneven. Snapshots restore to the same numbers.
func TestAdapterFollowsALawThatMoves(t *testing.T) {
	const rungs, ladders, scans = 6, 64, 4000
	path := precisionPath{10, 9}
	slope := func(scan int) float64 { return math.Pow(10, 1+float64(scan)/scans) - 1 } // precision 10 to 100
	best := func(slope float64) *Ladder {
		betas := make([]float64, rungs)
		for j := range betas {
			betas[j] = math.Expm1(math.Log1p(slope)*float64(j)/(rungs-1)) / slope
		}
		betas[rungs-1] = 1
		l, err := LadderOf(betas)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	settings := AdapterSettings{Rungs: rungs, Ladders: ladders, HalfLife: 50, Gain: 0.2, MinCount: 200}
	a := newAdapter(t, settings)
	start := best(slope(0))
	ladder := start
	e := newEnsemble(t, Settings{Ladder: ladder, Columns: ladders, Seed: 3})
	stream := rng.New(5, rng.Dataset, 0, 0)
	for scan := range scans {
		path.slope = slope(scan)
		a.Observe(sweep(t, e, uint64(scan), nil, path.draw(ladder.betas, ladders, stream)))
		if scan%10 != 9 {
			continue
		}
		next, _, err := a.Move(ladder)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := LadderOf(next.Betas()); err != nil { // in order, with its ends
			t.Fatal(err)
		}
		ladder = next
		if err := e.SetLadder(ladder); err != nil {
			t.Fatal(err)
		}
		if scan%1000 == 999 {
			other := newAdapter(t, settings)
			if err := other.Restore(a.Snapshot()); err != nil {
				t.Fatal(err)
			}
			a = other
		}
	}
	if moves := a.Snapshot().Moves; moves < 10 {
		t.Errorf("%d moves, want the ladder to follow", moves)
	}
	curve, err := a.Curve(ladder)
	if err != nil {
		t.Fatal(err)
	}
	path.slope = slope(scans)
	if want := path.barrier(1); math.Abs(curve.Total()/want-1) > 0.05 {
		t.Errorf("Λ = %.3f at the end, want %.3f ± 5%%", curve.Total(), want)
	}
	spread := func(l *Ladder) float64 {
		rates, _ := path.measure(t, l, 500, 11)
		return slices.Max(rates) - slices.Min(rates)
	}
	if got, without := spread(ladder), spread(start); got > without/3 || got > 0.1 {
		t.Errorf("rejection rates spread over %.3f, want at most 0.1 and a third of the %.3f of the ladder that stayed", got, without)
	}
}

// At the best ladder chance alone moves nothing, or seldom: three standard errors of an upper bound of the variance.
func TestAdapterStaysWhereRejectionsAreEqual(t *testing.T) {
	const ladders, fences = 64, 100
	path := precisionPath{2, 9}
	betas := make([]float64, 5)
	for j := range betas {
		betas[j] = (math.Pow(10, float64(j)/4) - 1) / 9
	}
	betas[4] = 1
	ladder, err := LadderOf(betas)
	if err != nil {
		t.Fatal(err)
	}
	a := newAdapter(t, AdapterSettings{Rungs: 5, Ladders: ladders, HalfLife: 20, Gain: 0.2, Decay: 0.6, MinCount: 200})
	e := newEnsemble(t, Settings{Ladder: ladder, Columns: ladders, Seed: 3})
	stream := rng.New(6, rng.Dataset, 0, 0)
	moves := 0
	for scan := range uint64(10 * fences) {
		a.Observe(sweep(t, e, scan, nil, path.draw(betas, ladders, stream)))
		if scan%10 == 9 {
			if _, moved, err := a.Move(ladder); err != nil {
				t.Fatal(err)
			} else if moved {
				moves++
			}
		}
	}
	if moves > 5 {
		t.Errorf("%d moves at %d fences, want next to none", moves, fences)
	}
}

// A move goes γ_t of the way and carries the means over to the new ladder: with no damping, equal rates.
func TestAdapterMove(t *testing.T) {
	ladder := uniformLadder(t, 4)
	observe := func(a *Adapter) {
		a.Observe(Swept{Alpha: []float64{20_000, 80_000, 95_000}, Tried: []int{100_000, 100_000, 100_000}})
	}
	whole := newAdapter(t, AdapterSettings{Rungs: 4, Ladders: 100_000, HalfLife: 10, Gain: 1})
	observe(whole)
	curve, err := whole.Curve(ladder)
	if err != nil {
		t.Fatal(err)
	}
	target, moved, err := whole.Move(ladder)
	if err != nil || !moved {
		t.Fatalf("moved %t (%v), want a move", moved, err)
	}
	want, _ := curve.Ladder(4)
	for j, beta := range target.Betas() {
		if math.Abs(beta-want.betas[j]) > 1e-15 {
			t.Errorf("rung %d at %g, want %g", j, beta, want.betas[j])
		}
	}
	after, err := whole.Curve(target)
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(after.Total()-curve.Total()) > 1e-9 {
		t.Errorf("Λ = %g after the move, want %g as before", after.Total(), curve.Total())
	}
	for i, share := range after.Shares() {
		if math.Abs(share-curve.Total()/3) > 1e-9 {
			t.Errorf("pair %d has the share %g of Λ after the move, want %g", i, share, curve.Total()/3)
		}
	}

	part := newAdapter(t, AdapterSettings{Rungs: 4, Ladders: 100_000, HalfLife: 10, Gain: 0.2, Decay: 0.6})
	l := ladder
	for move := range 3 {
		part.Forget()
		state := part.Snapshot()
		state.Moves = uint64(move)
		if err := part.Restore(state); err != nil {
			t.Fatal(err)
		}
		observe(part)
		curve, err := part.Curve(l)
		if err != nil {
			t.Fatal(err)
		}
		aim, _ := curve.Ladder(4)
		next, moved, err := part.Move(l)
		if err != nil || !moved {
			t.Fatalf("moved %t (%v), want a move", moved, err)
		}
		gamma := 0.2 * math.Pow(float64(1+move), -0.6)
		for j, beta := range next.Betas() {
			if want := (1-gamma)*l.betas[j] + gamma*aim.betas[j]; math.Abs(beta-want) > 1e-15 {
				t.Errorf("move %d: rung %d at %g, want %g", move, j, beta, want)
			}
		}
		if again, moved, _ := part.Move(next); moved || again != next {
			t.Errorf("move %d: moved again without an attempt in between", move)
		}
		l = next
	}
}

func TestAdapterRefuses(t *testing.T) {
	_, err := NewAdapter(AdapterSettings{Rungs: 1, HalfLife: math.NaN(), Gain: 2, Decay: -1, MinCount: math.Inf(1)})
	if err == nil {
		t.Fatal("bad settings: no error")
	}
	for _, want := range []string{"rungs: 1", "ladders: 0", "half-life: NaN", "gain: 2", "decay: -1", "count: +Inf"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
	a := newAdapter(t, AdapterSettings{Rungs: 3, Ladders: 1, HalfLife: 1, Gain: 1})
	if _, _, err := a.Move(uniformLadder(t, 4)); err == nil {
		t.Error("a ladder of another length: no error")
	}
	for _, spoil := range []func(*AdapterState){
		func(s *AdapterState) { s.Alpha = nil }, func(s *AdapterState) { s.Weight[1] = math.NaN() },
		func(s *AdapterState) { s.Square[0] = -1 }, func(s *AdapterState) { s.Fresh[1] = math.Inf(1) },
	} {
		s := a.Snapshot()
		spoil(&s)
		if err := a.Restore(s); err == nil {
			t.Errorf("restored %+v", s)
		}
	}
}

// Acceptances exp(−ε/c) that differ by rung, with noise, end at the target on every rung, each at its own step size.
func TestStepSizesReachTheTarget(t *testing.T) {
	const target, fences = 0.574, 3000
	scale := []float64{1, 30, 0.02, 5} // of ε at the start
	s, err := NewStepSizes(len(scale), target)
	if err != nil {
		t.Fatal(err)
	}
	noise := rng.New(8, rng.Dataset, 0, 0)
	accept := make([]float64, len(scale))
	for range fences {
		for range 3 {
			for i, f := range s.Factors() {
				a := math.Exp(-scale[i] * f)
				accept[i] = min(max(a+0.05*noise.Normal(), 0), 1)
			}
			s.Observe(accept)
		}
		if !s.Move() {
			t.Fatal("noise, but nothing moved")
		}
		snapshot := s.Snapshot()
		if s, err = NewStepSizes(len(scale), target); err != nil {
			t.Fatal(err)
		}
		if err := s.Restore(snapshot); err != nil {
			t.Fatal(err)
		}
	}
	for i, f := range s.Factors() {
		// ln ε still moves by about γ/√3·0.05, near 3e-4 a fence.
		if got := math.Exp(-scale[i] * f); math.Abs(got-target) > 0.01 {
			t.Errorf("rung %d: acceptance %.4f at factor %g, want %g ± 0.01", i, got, f, target)
		}
	}
}

func TestStepSizesKeepTheirBounds(t *testing.T) {
	s, err := NewStepSizes(3, 0.5)
	if err != nil {
		t.Fatal(err)
	}
	if s.Move() {
		t.Error("moved without an acceptance")
	}
	for range 2000 {
		s.Observe([]float64{1, 0, math.NaN()})
		s.Move()
	}
	if got, want := s.Factors(), []float64{1024, 1. / 1024, 1}; math.Abs(got[0]-want[0]) > 1e-9 || math.Abs(got[1]-want[1]) > 1e-12 || got[2] != 1 {
		t.Errorf("factors %v, want %v: ten doublings at most, and none where there is no acceptance", got, want)
	}
	s.Observe([]float64{1, 0, math.NaN()})
	if s.Move() {
		t.Error("moved beyond its bounds")
	}
	// The first move after the start: γ = 10^−0.6.
	one, _ := NewStepSizes(1, 0.5)
	one.Observe([]float64{0.9})
	one.Observe([]float64{0.7})
	one.Move()
	if got, want := one.Snapshot().Log[0], math.Pow(10, -0.6)*0.3; math.Abs(got-want) > 1e-15 {
		t.Errorf("first move %g, want %g", got, want)
	}
	for _, bad := range []func() (*StepSizes, error){
		func() (*StepSizes, error) { return NewStepSizes(0, 0.5) }, func() (*StepSizes, error) { return NewStepSizes(2, 1) },
		func() (*StepSizes, error) { return NewStepSizes(2, math.NaN()) },
	} {
		if _, err := bad(); err == nil {
			t.Error("bad step sizes: no error")
		}
	}
	for _, spoil := range []func(*StepSizesState){
		func(s *StepSizesState) { s.Log = nil }, func(s *StepSizesState) { s.Log[0] = math.NaN() },
		func(s *StepSizesState) { s.Log[1] = 8 }, func(s *StepSizesState) { s.Sum[0] = math.NaN() },
	} {
		state := s.Snapshot()
		spoil(&state)
		if err := s.Restore(state); err == nil {
			t.Errorf("restored %+v", state)
		}
	}
}

func TestDriftESS(t *testing.T) {
	for _, tc := range []struct {
		name string
		logw []float64
		want float64
	}{
		{"equal weights", []float64{3, 3, 3}, 1},
		{"equal weights beyond the range of exp", []float64{-1e4, -1e4}, 1},
		{"weights 1 and 2", []float64{0, math.Ln2}, 9. / 10},
		{"one weight counts", []float64{1000, 0, 0, 0}, 0.25},
		{"a state of no weight", []float64{0, math.Inf(-1)}, 0.5},
		{"no weight at all", []float64{math.Inf(-1), math.Inf(-1)}, math.NaN()},
		{"infinite weight", []float64{math.Inf(1), 0}, math.NaN()},
		{"not a number", []float64{math.NaN(), 0}, math.NaN()},
		{"none", nil, math.NaN()},
	} {
		if got := DriftESS(tc.logw); math.Abs(got-tc.want) > 1e-15 || math.IsNaN(got) != math.IsNaN(tc.want) {
			t.Errorf("%s: %g, want %g", tc.name, got, tc.want)
		}
	}
}
