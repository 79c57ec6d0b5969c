package tempering

import (
	"math"
	"slices"
	"testing"
)

func TestPairsAlternate(t *testing.T) {
	for _, tc := range []struct {
		rungs int
		scan  uint64
		want  []int
	}{
		{1, 0, nil}, {1, 1, nil}, {2, 0, []int{0}}, {2, 1, nil}, {5, 0, []int{0, 2}}, {5, 1, []int{1, 3}}, {6, 0, []int{0, 2, 4}}, {6, 7, []int{1, 3}},
	} {
		if got := slices.Collect(Pairs(tc.rungs, tc.scan)); !slices.Equal(got, tc.want) {
			t.Errorf("%d rungs, scan %d: pairs %v, want %v", tc.rungs, tc.scan, got, tc.want)
		}
	}
}

func TestWindow(t *testing.T) {
	for _, tc := range []struct {
		acceptance float64
		rungs      int
		want       int
	}{
		{0.005, 10, 626}, // Deng et al.'s formula
		{0.1, 6, 23},
		{0.5, 2, 1},
		{1, 10, 1},
		{0, 10, math.MaxInt32},
		{math.NaN(), 10, 1},
		{0.5, 1, 1},
	} {
		if got := Window(tc.acceptance, tc.rungs); got != tc.want {
			t.Errorf("α = %g, %d rungs: window of %d scans, want %d", tc.acceptance, tc.rungs, got, tc.want)
		}
	}
}

// threeStates is a ladder of two or three rungs on a space of three states, small enough for whole transition matrices.
type threeStates struct {
	ladder *Ladder
	v      []float64 // V of the states
	pi     []float64 // the product of the rungs' laws, by joint state
}

func newThreeStates(t *testing.T, betas ...float64) threeStates {
	t.Helper()
	ladder, err := LadderOf(betas)
	if err != nil {
		t.Fatal(err)
	}
	s := threeStates{ladder: ladder, v: []float64{0.3, -1.1, 1.7}}
	logq := []float64{math.Log(0.5), math.Log(0.3), math.Log(0.2)}
	n := int(math.Pow(3, float64(len(betas))))
	total := 0.0
	for joint := range n {
		logp := 0.0
		for i, x := range s.states(joint) {
			logp += logq[x] + betas[i]*s.v[x]
		}
		s.pi = append(s.pi, math.Exp(logp))
		total += s.pi[joint]
	}
	for joint := range s.pi {
		s.pi[joint] /= total
	}
	return s
}

// states are the states of the rungs in a joint state, joint its inverse.
func (s threeStates) states(joint int) []int {
	x := make([]int, s.ladder.NumRungs())
	for i := range x {
		x[i] = joint % 3
		joint /= 3
	}
	return x
}

func (s threeStates) joint(x []int) int {
	joint := 0
	for _, state := range slices.Backward(x) {
		joint = 3*joint + state
	}
	return joint
}

// ensemble returns one column whose uniforms are *u.
func (s threeStates) ensemble(t *testing.T, settings Settings, u *float64) *Ensemble {
	settings.Ladder, settings.Columns = s.ladder, 1
	settings.Uniform = func(uint64, uint32, uint32) float64 { return *u }
	return newEnsemble(t, settings)
}

// row is one row of the transition matrix of the next sweep of e from state: to moved with probability alpha, else to
// joint itself. The probability is checked against the rule as it runs: u below it moves, u above it does not.
func (s threeStates) row(t *testing.T, e *Ensemble, u *float64, state State, joint int) (alpha float64, moved int, swapped bool) {
	t.Helper()
	x := s.states(joint)
	energies := make([]float64, len(x))
	for i := range x {
		energies[i] = s.v[x[i]]
	}
	try := func(at float64) (Swept, int) {
		*u = at
		if err := e.Restore(state); err != nil {
			t.Fatal(err)
		}
		swept := sweep(t, e, 0, nil, energies)
		y := make([]int, len(x))
		for i, from := range swept.Perm {
			y[i] = x[from]
		}
		return swept, s.joint(y)
	}
	swept, moved := try(0x1p-53)
	alpha = RejectionSum(swept.Alpha) // at most one pair is tried, on two and on three rungs
	if alpha > 0 {
		if _, again := try(alpha * (1 - 1e-12)); again != moved {
			t.Errorf("state %v: not accepted at u just below α = %g", x, alpha)
		}
	}
	if alpha < 1 {
		if _, kept := try(min(1, alpha*(1+1e-12)+1e-300)); kept != joint {
			t.Errorf("state %v: accepted at u just above α = %g", x, alpha)
		}
	}
	return alpha, moved, swept.Accepted > 0
}

// step applies the next sweep of e from state to a law of the joint state.
func (s threeStates) step(t *testing.T, e *Ensemble, u *float64, state State, law []float64) []float64 {
	t.Helper()
	out := make([]float64, len(law))
	for joint, p := range law {
		alpha, moved, _ := s.row(t, e, u, state, joint)
		out[moved] += p * alpha
		out[joint] += p * (1 - alpha)
	}
	return out
}

func farthest(a, b []float64) float64 {
	worst := 0.0
	for i := range a {
		worst = max(worst, math.Abs(a[i]-b[i]))
	}
	return worst
}

// The whole transition matrix of one sweep on a three-state space leaves the product of the rungs' laws as it is, at
// each parity and either number of rungs, and so do eight sweeps on end.
func TestSweepLeavesTheJointLawInvariant(t *testing.T) {
	for _, betas := range [][]float64{{0.2, 1}, {0, 0.35, 1}} {
		s := newThreeStates(t, betas...)
		for _, schedule := range []string{"deo", "seo"} {
			var u float64
			e := s.ensemble(t, Settings{Schedule: schedule, Seed: 5}, &u)
			law := s.pi
			parities := map[uint64]int{}
			for scan := range uint64(8) {
				state := newState(len(betas), 1)
				state.Scans[0] = scan
				if err := e.Restore(state); err != nil {
					t.Fatal(err)
				}
				parities[e.parity(0)&1]++
				if off := farthest(s.step(t, e, &u, state, s.pi), s.pi); off > 1e-14 {
					t.Errorf("%s, betas %v, scan %d: πP differs from π by %g, want 1e-14", schedule, betas, scan, off)
				}
				law = s.step(t, e, &u, state, law)
			}
			if off := farthest(law, s.pi); off > 1e-14 {
				t.Errorf("%s, betas %v: eight sweeps take π away by %g, want 1e-14", schedule, betas, off)
			}
			if len(parities) != 2 {
				t.Errorf("%s: parities %v in eight scans, want both", schedule, parities)
			}
		}
	}
}

// A window of three scans leaves the joint law as it is where exploration forgets between its sweeps, and closes the
// pair with probability 1 − (1−α)³. Where nothing is explored it does not: the states that were refused are tried again,
// the others are not.
func TestWindowLeavesTheJointLawInvariantWhereExplorationForgets(t *testing.T) {
	const window = 3
	s := newThreeStates(t, 0.2, 1)
	for _, explore := range []bool{true, false} {
		var u float64
		e := s.ensemble(t, Settings{Schedule: "windowed", Window: window}, &u)
		open, closed := slices.Clone(s.pi), make([]float64, len(s.pi))
		accepted := 0.0 // mean α under π
		for scan := range uint64(window) {
			if explore {
				redraw := func(law []float64) {
					mass := RejectionSum(law)
					for joint, p := range s.pi {
						law[joint] = p * mass
					}
				}
				redraw(open)
				redraw(closed)
			}
			still, done := make([]float64, len(s.pi)), slices.Clone(closed)
			state := newState(2, 1)
			state.Scans[0] = scan
			for joint, p := range open {
				alpha, moved, swapped := s.row(t, e, &u, state, joint)
				if alpha > 0 && !swapped {
					t.Fatalf("scan %d of the window: the open pair was not tried", scan)
				}
				done[moved] += p * alpha
				still[joint] += p * (1 - alpha)
				if scan == 0 {
					accepted += s.pi[joint] * alpha
				}
			}
			if state.Swapped[0] = true; scan > 0 {
				if alpha, _, _ := s.row(t, e, &u, state, 5); alpha != 0 {
					t.Fatalf("scan %d of the window: a pair that had swapped was tried", scan)
				}
			}
			open, closed = still, done
		}
		law := slices.Clone(open)
		for joint := range law {
			law[joint] += closed[joint]
		}
		off := farthest(law, s.pi)
		if explore && off > 1e-14 {
			t.Errorf("fresh states at every scan: the window takes π away by %g, want 1e-14", off)
		}
		if !explore && off < 0.01 {
			t.Errorf("nothing explored: the window takes π away by %g only; Schedules says that it is not exact there", off)
		}
		if want := 1 - math.Pow(1-accepted, window); explore && math.Abs(RejectionSum(closed)-want) > 1e-14 {
			t.Errorf("swapped with probability %g, want %g", RejectionSum(closed), want)
		}
	}
}

// The windowed schedule holds a parity by the column's own count, and opens every pair again when the next window begins.
func TestWindowsHoldAParity(t *testing.T) {
	const rungs, window = 5, 3
	e := newEnsemble(t, Settings{Ladder: uniformLadder(t, rungs), Columns: 2, Schedule: "windowed", Window: window})
	even, odd := []int{1, 0, 1, 0}, []int{0, 1, 0, 1}
	none := make([]int, rungs-1)
	v := make([]float64, rungs) // every swap is accepted, so that a window tries each pair once
	for scan, want := range [][]int{even, none, none, odd, none, none, even, none} {
		if got := sweep(t, e, uint64(scan), []int32{1}, v).Tried; !slices.Equal(got, want) {
			t.Errorf("scan %d: attempts %v, want %v", scan, got, want)
		}
	}
	// Column 1 stands in the middle of its third window, column 0 before its first.
	if got := sweep(t, e, 8, nil, make([]float64, 2*rungs)).Tried; !slices.Equal(got, even) {
		t.Errorf("both columns: attempts %v, want those of column 0 alone, %v", got, even)
	}
	if err := e.SetWindow(1); err != nil {
		t.Fatal(err)
	}
	for scan, want := range [][]int{odd, even, odd} {
		if got := sweep(t, e, uint64(9+scan), []int32{1}, v).Tried; !slices.Equal(got, want) {
			t.Errorf("windows of one scan, scan %d: attempts %v, want %v", 9+scan, got, want)
		}
	}
	if err := e.SetWindow(0); err == nil {
		t.Error("a window of no scan: no error")
	}
	deo := newEnsemble(t, Settings{Ladder: uniformLadder(t, rungs), Columns: 2})
	if err := deo.Restore(func() State { s := newState(rungs, 2); s.Swapped[1] = true; return s }()); err == nil {
		t.Error("deo takes over the state of a window: no error")
	}
}

// The coin of seo is fair and each ladder's own.
func TestCoinsOfLaddersDiffer(t *testing.T) {
	const columns, scans = 64, 500
	e := newEnsemble(t, Settings{Ladder: uniformLadder(t, 3), Columns: columns, Schedule: "seo", Seed: 2})
	tried := make([]int, 2)
	mixed := 0
	for scan := range uint64(scans) {
		got := sweep(t, e, scan, nil, make([]float64, 3*columns)).Tried
		tried[0] += got[0]
		tried[1] += got[1]
		if got[0] > 0 && got[1] > 0 {
			mixed++
		}
	}
	// 5 standard errors of 32,000 coins.
	if n := float64(columns * scans); math.Abs(float64(tried[0])/n-0.5) > 0.014 || tried[0]+tried[1] != columns*scans {
		t.Errorf("attempts %v of %g coins, want half each", tried, n)
	}
	if mixed != scans {
		t.Errorf("the ladders showed both parities in %d of %d scans, want all", mixed, scans)
	}
}

// Energies that do not depend on the walker give one rejection rate on every pair and a known rate of round trips.
func TestRoundTripRateAtConstantRejection(t *testing.T) {
	const scans = 60_000
	for _, tc := range []struct {
		schedule   string
		rungs      int
		rejection  float64
		window     int
		want, rtol float64
	}{
		{"deo", 10, 0.5, 0, 0.0500, 0.05}, {"deo", 10, 0.2, 0, 0.1538, 0.05}, {"deo", 10, 0.8, 0, 0.01351, 0.10}, {"deo", 20, 0.5, 0, 0.0250, 0.10},
		{"seo", 10, 0.5, 0, 0.0278, 0.12}, {"seo", 10, 0.2, 0, 0.0444, 0.12}, {"seo", 10, 0.8, 0, 0.01111, 0.12}, {"seo", 20, 0.5, 0, 0.01316, 0.12},
		// Window(0.1, 6) = 23: five pairs that fail to swap in a window with probability 0.9²³; deo has 0.01087.
		{"windowed", 6, 0.9, 23, 0.01462, 0.10},
	} {
		ladder := uniformLadder(t, tc.rungs)
		e := newEnsemble(t, Settings{Ladder: ladder, Columns: 1, Seed: 1, Fresh: true, Schedule: tc.schedule, Window: tc.window})
		v := constantRejection(ladder, tc.rejection)
		for scan := range uint64(scans) {
			sweep(t, e, scan, nil, v)
		}
		rates := e.Stats().Rejections()
		predicted := map[string]float64{
			"deo": PredictedTripRate(rates), "seo": PredictedTripRateSEO(rates), "windowed": PredictedTripRateWindowed(rates, tc.window),
		}[tc.schedule]
		if math.Abs(predicted/tc.want-1) > 2e-3 {
			t.Errorf("%s K=%d r=%g: predicted %g, want %g", tc.schedule, tc.rungs, tc.rejection, predicted, tc.want)
		}
		if got := e.TripRate(); math.Abs(got/tc.want-1) > tc.rtol {
			t.Errorf("%s K=%d r=%g: %.5f round trips a scan, want %.5f ± %g%%", tc.schedule, tc.rungs, tc.rejection, got, tc.want, 100*tc.rtol)
		}
		for i, r := range rates {
			if math.Abs(r-tc.rejection) > 1e-9 {
				t.Errorf("%s K=%d pair %d: rejection rate %g, want %g", tc.schedule, tc.rungs, i, r, tc.rejection)
			}
		}
		for i, f := range e.UpFraction() {
			if want := upFraction(tc.schedule, tc.rungs, tc.rejection, tc.window, i); math.Abs(f-want) > 0.06 {
				t.Errorf("%s K=%d r=%g: %.3f of the walkers on rung %d came from rung 0, want %.3f", tc.schedule, tc.rungs, tc.rejection, f, i, want)
			}
		}
	}
}

// upFraction is f(i) of walkers that all meet the same rejection rate r. Under seo they diffuse, and f is a straight
// line. Under deo they keep their direction until a rejection. With a_i and b_i the up-shares of those on rung i that try
// the pair above and below next, a_i = (1−r)·a_{i−1} + r·b_i and b_i = (1−r)·b_{i+1} + r·a_i with a_0 = 1, b_N = 0 have
// the solution a_i = 1 − c·r·i, b_i = 1 − c·(1 + r·(i−1)), c = 1/(1 + r·(N−1)).
func upFraction(schedule string, rungs int, r float64, window, rung int) float64 {
	i, n := float64(rung), float64(rungs-1)
	switch {
	case schedule == "seo":
		return 1 - i/n
	case rung == 0 || rung == rungs-1:
		return 1 - i/n
	case schedule == "windowed":
		r = math.Pow(r, float64(window))
	}
	return 1 - (1/2.+r*(i-1/2.))/(1+r*(n-1))
}

// constantRejection are energies of the rungs, whatever their states, at which each swap is refused with probability r.
func constantRejection(ladder *Ladder, r float64) []float64 {
	betas := ladder.Betas()
	v := make([]float64, len(betas))
	for i := range len(v) - 1 {
		v[i+1] = v[i] - math.Log1p(-r)/(betas[i+1]-betas[i])
	}
	return v
}

// 200 rungs that swap with probability one half: four ladders in one ensemble and each in its own, by its number, end in
// the same state bit for bit.
func TestLaddersRunAlikeInOneEnsembleAndInFour(t *testing.T) {
	const rungs, columns, scans = 200, 4, 1 << 12
	ladder := uniformLadder(t, rungs)
	one := constantRejection(ladder, 0.5)
	v := make([]float64, 0, rungs*columns)
	for _, x := range one {
		v = append(v, slices.Repeat([]float64{x}, columns)...)
	}
	for _, schedule := range Schedules {
		settings := Settings{Ladder: ladder, Columns: columns, Seed: 13, Fresh: true, Schedule: schedule, Window: 4}
		whole := newEnsemble(t, settings)
		for scan := range uint64(scans) {
			sweep(t, whole, scan, nil, v)
		}
		want, together := whole.Snapshot(), newState(rungs, columns)
		for c := range columns {
			settings.Columns, settings.Offset = 1, uint32(c)
			part := newEnsemble(t, settings)
			for scan := range uint64(scans) {
				sweep(t, part, scan, nil, one)
			}
			got := part.Snapshot()
			for k := range rungs {
				at := k*columns + c
				together.Labels[at], together.Lineage[at], together.Direction[at] = got.Labels[k], got.Lineage[k], got.Direction[k]
				together.Up[k] += got.Up[k]
				together.Down[k] += got.Down[k]
			}
			for i := range rungs - 1 {
				together.Swapped[i*columns+c] = got.Swapped[i]
				together.Attempts[i] += got.Attempts[i]
				together.Accepted[i] += got.Accepted[i]
			}
			together.Scans[c], together.Restarts[c], together.Trips[c] = got.Scans[0], got.Restarts[0], got.Trips[0]
		}
		together.AlphaSum = want.AlphaSum // a sum in another order
		if !equalStates(want, together) {
			t.Errorf("%s: one ensemble of four ladders and four of one differ", schedule)
		}
		if n := RejectionSum(whole.Stats().Rejections()) / (rungs - 1); math.Abs(n-0.5) > 1e-9 {
			t.Errorf("%s: %g of the swaps rejected, want one half", schedule, n)
		}
	}
}
