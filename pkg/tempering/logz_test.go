package tempering

import (
	"math"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
)

func logZ(t testing.TB, r *Record, betas []float64) LogZ {
	t.Helper()
	z, err := r.LogZ(betas)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// independent records draws of V that are independent from rung to rung and from scan to scan.
func independent(t testing.TB, rungs, ladders, scans int, seed uint64, draw func(s *rng.Stream, rung int) float64) *Record {
	t.Helper()
	r := newRecord(t, rungs, ladders, scans)
	s := rng.New(seed, rng.Dataset, 1, 0)
	v := make([]float64, rungs*ladders)
	for range scans {
		for row := range v {
			v[row] = draw(s, row/ladders)
		}
		r.Add(v)
	}
	return r
}

// From N(0, I) to precision 10 in ten dimensions, V = −(9/2)·‖x‖² and log Z(β) = −5·ln(1 + 9β). With rungs geometric in
// the precision p, every pair has the ratio 1.58, so that both one-sided weights have a variance and all estimates agree.
func TestLogZOnGaussianPath(t *testing.T) {
	const dim, rungs, ladders, scans = 10, 6, 16, 1000
	precision, betas := make([]float64, rungs), make([]float64, rungs)
	for j := range rungs {
		precision[j] = math.Pow(10, float64(j)/(rungs-1))
		betas[j] = (precision[j] - 1) / 9
	}
	betas[rungs-1] = 1
	r := independent(t, rungs, ladders, scans, 3, func(s *rng.Stream, rung int) float64 {
		chi := 0.0
		for range dim {
			z := s.Normal()
			chi += z * z
		}
		return -4.5 * chi / precision[rung]
	})
	z := logZ(t, r, betas)
	want := -dim / 2 * math.Ln10
	for _, e := range []struct {
		name           string
		got, err, most float64
	}{{"bridge", z.Bridge, z.BridgeErr, 0.03}, {"forward", z.Forward, z.ForwardErr, 0.06}, {"reverse", z.Reverse, z.ReverseErr, 0.06}} {
		if !(e.err > 0 && e.err < e.most) || math.Abs(e.got-want) > 5*e.err {
			t.Errorf("%s %.4f ± %.4f, want %.4f within 5 errors, and an error below %g", e.name, e.got, e.err, want, e.most)
		}
	}
	if z.BridgeErr > z.ForwardErr || z.BridgeErr > z.ReverseErr {
		t.Errorf("errors: bridge %.4f, forward %.4f, reverse %.4f, want the bridge's least", z.BridgeErr, z.ForwardErr, z.ReverseErr)
	}
	if !(z.ForwardK < 0.7 && z.ReverseK < 0.7) {
		t.Errorf("k̂: forward %.2f, reverse %.2f, want below 0.7", z.ForwardK, z.ReverseK)
	}
	for j, got := range z.Rungs {
		if want := -dim / 2 * math.Log(precision[j]); math.Abs(got-want) > 5*z.BridgeErr {
			t.Errorf("rung %d: log Z %.4f, want %.4f", j, got, want)
		}
	}
	if z.Rungs[rungs-1] != z.Bridge {
		t.Errorf("log Z of the last rung %g, want the bridge %g", z.Rungs[rungs-1], z.Bridge)
	}
	// E_β[V] = −45/p and Var_β[V] = 405/p² give what the trapezia would be without noise. Its standard error is 0.007, most
	// of it from the means.
	ladder := 0.0
	for i := range rungs - 1 {
		delta, p, q := betas[i+1]-betas[i], precision[i], precision[i+1]
		ladder += -delta*45*(1/p+1/q)/2 - delta*delta/12*405*(1/(q*q)-1/(p*p))
	}
	if math.Abs(z.Thermodynamic-ladder) > 0.035 {
		t.Errorf("thermodynamic %.4f, want %.4f on this ladder", z.Thermodynamic, ladder)
	}
}

// doubleWell is E = 10(x²−1)² + x/2 from the reference N(0, 2²): Z is known by quadrature.
var doubleWell = struct {
	betas []float64
	logZ  float64
}{[]float64{0, 0.0058, 0.0647, 0.2165, 0.48, 1}, -0.440623}

// doubleWellV is V = −E − log q.
func doubleWellV(x float64) float64 {
	w := x*x - 1
	return -10*w*w - x/2 + x*x/8 + math.Log(2*math.Sqrt(2*math.Pi))
}

// wellDraws draws V on every rung by inverting the law's distribution function on a fine grid.
type wellDraws struct {
	x        []float64
	cdf      [][]float64 // by rung
	mean     []float64   // of V, by rung
	variance []float64
}

func newWellDraws(betas []float64) *wellDraws {
	const n, half = 24_000, 12.0
	d := &wellDraws{x: make([]float64, n)}
	for i := range d.x {
		d.x[i] = half * (2*(float64(i)+0.5)/n - 1)
	}
	for _, beta := range betas {
		sum, first, second := 0.0, 0.0, 0.0
		cdf := make([]float64, n)
		for i, x := range d.x {
			v := doubleWellV(x)
			p := math.Exp(-x*x/8 + beta*v)
			sum, first, second = sum+p, first+p*v, second+p*v*v
			cdf[i] = sum
		}
		for i := range cdf {
			cdf[i] /= sum
		}
		mean := first / sum
		d.cdf, d.mean, d.variance = append(d.cdf, cdf), append(d.mean, mean), append(d.variance, second/sum-mean*mean)
	}
	return d
}

func (d *wellDraws) draw(s *rng.Stream, rung int) float64 {
	i := min(sort.SearchFloat64s(d.cdf[rung], s.Float64()), len(d.x)-1)
	return doubleWellV(d.x[i] + (s.Float64()-0.5)*(d.x[1]-d.x[0]))
}

// The double well grows faster than its Gaussian reference falls: the reverse weights have no variance, their estimate is
// too high and says so, and the bridge stays right.
func TestLogZOfDoubleWell(t *testing.T) {
	const ladders, scans, seeds = 16, 1000, 12
	betas := doubleWell.betas
	well := newWellDraws(betas)
	thermodynamic := 0.0
	for i := range len(betas) - 1 {
		delta := betas[i+1] - betas[i]
		thermodynamic += delta*(well.mean[i]+well.mean[i+1])/2 - delta*delta/12*(well.variance[i+1]-well.variance[i])
	}
	var bridge, bridgeErr, reverse, integral []float64
	unreliable := 0
	for seed := range uint64(seeds) {
		z := logZ(t, independent(t, len(betas), ladders, scans, seed, well.draw), betas)
		bridge, bridgeErr = append(bridge, z.Bridge), append(bridgeErr, z.BridgeErr)
		reverse, integral = append(reverse, z.Reverse), append(integral, z.Thermodynamic)
		if z.ReverseK > 0.7 {
			unreliable++
		}
		if z.ForwardK > 0.7 {
			t.Errorf("seed %d: k̂ %.2f of the forward weights, want below 0.7", seed, z.ForwardK)
		}
	}
	mean, variance := moments(bridge)
	if math.Abs(mean-doubleWell.logZ) > 0.02 {
		t.Errorf("bridge %.4f over %d seeds, want %.4f ± 0.02", mean, seeds, doubleWell.logZ)
	}
	if m, _ := moments(reverse); m-doubleWell.logZ < 0.05 || unreliable <= seeds/2 {
		t.Errorf("reverse %.4f, %d of %d unreliable, want at least 0.05 above %.4f, and most unreliable", m, unreliable, seeds, doubleWell.logZ)
	}
	reported, _ := moments(bridgeErr)
	if sd := math.Sqrt(variance * seeds / (seeds - 1)); reported > 2*sd || reported < sd/2 {
		t.Errorf("error %.4f reported, %.4f between seeds, want the same within a factor 2", reported, sd)
	}
	m, v := moments(integral)
	if se := math.Sqrt(v / (seeds - 1)); math.Abs(m-thermodynamic) > 5*se {
		t.Errorf("thermodynamic %.3f ± %.3f, want %.3f on this ladder", m, se, thermodynamic)
	}
}

// The bridge solves its own equation, and its estimate without one ladder is the bridge of the others.
func TestBridgeWithoutOneLadder(t *testing.T) {
	const ladders, scans = 6, 200
	betas := []float64{0, 1}
	draw := func(s *rng.Stream, rung int) float64 { return s.Normal() + 2*float64(rung) }
	r := independent(t, 2, ladders, scans, 8, draw)
	z := logZ(t, r, betas)
	up, down := 0.0, 0.0
	for _, v := range r.kept {
		for b := range ladders {
			up += logistic(v[b] - z.Bridge)
			down += logistic(z.Bridge - v[ladders+b])
		}
	}
	if math.Abs(up/down-1) > 1e-10 {
		t.Errorf("at the bridge %g the sides are %.12f and %.12f, want them equal", z.Bridge, up, down)
	}
	var others []float64
	for without := range ladders {
		rest := newRecord(t, 2, ladders-1, scans)
		for _, v := range r.kept {
			rest.Add(slices.Concat(v[:without], v[without+1:ladders+without], v[ladders+without+1:]))
		}
		others = append(others, logZ(t, rest, betas).Bridge)
	}
	_, variance := moments(others)
	if want := math.Sqrt((ladders - 1) * variance); math.Abs(z.BridgeErr/want-1) > 0.02 {
		t.Errorf("error %.5f, want %.5f by leaving out each ladder in turn", z.BridgeErr, want)
	}
}

// Where two rungs share no energy, every one of the bridge's terms is below the smallest number.
func TestBridgeOfRungsThatShareNothing(t *testing.T) {
	r := independent(t, 2, 8, 50, 5, func(s *rng.Stream, rung int) float64 { return s.Normal() + 4000*float64(2*rung-1) })
	z := logZ(t, r, []float64{0, 1})
	if want := (z.Forward + z.Reverse) / 2; math.Abs(z.Bridge-want) > 1e-9 || !(z.BridgeErr > 0) {
		t.Errorf("bridge %g ± %g, want %g, between forward %g and reverse %g", z.Bridge, z.BridgeErr, want, z.Forward, z.Reverse)
	}
	// One sample that fits neither rung drags the mean of the one-sided estimates far away; the bridge does not follow.
	r = independent(t, 2, 8, 50, 5, func(s *rng.Stream, rung int) float64 { return s.Normal() })
	r.kept[7][8] = -9000
	if z := logZ(t, r, []float64{0, 1}); math.Abs(z.Bridge) > 0.5 || z.Reverse > -0.5 && z.Reverse < 0.5 {
		t.Errorf("bridge %g, reverse %g, want a bridge near 0 and a reverse far from it", z.Bridge, z.Reverse)
	}
}

func TestLogZOfEqualEnergiesIsExact(t *testing.T) {
	r := newRecord(t, 3, 2, 10)
	for range 5 {
		r.Add([]float64{-3, -3, -3, -3, -3, -3})
	}
	z := logZ(t, r, []float64{0, 0.25, 1})
	for name, got := range map[string]float64{"bridge": z.Bridge, "forward": z.Forward, "reverse": z.Reverse, "thermodynamic": z.Thermodynamic, "rung 1": z.Rungs[1] * 4} {
		if math.Abs(got+3) > 1e-12 {
			t.Errorf("%s %g, want -3", name, got)
		}
	}
	if z.BridgeErr != 0 || !math.IsNaN(z.ForwardK) {
		t.Errorf("error %g, k̂ %g, want 0 and NaN", z.BridgeErr, z.ForwardK)
	}
}

func TestLogZRefusesWhatItCannotUse(t *testing.T) {
	fill := func(rungs, ladders int, spoil func(scan int, v []float64)) *Record {
		r := newRecord(t, rungs, ladders, 4)
		for scan := range 6 { // thinned once: every second scan is kept
			v := make([]float64, rungs*ladders)
			if spoil != nil {
				spoil(scan, v)
			}
			r.Add(v)
		}
		return r
	}
	for _, tc := range []struct {
		name  string
		r     *Record
		betas []float64
		want  string
	}{
		{"not a number", fill(3, 2, func(scan int, v []float64) {
			if scan == 4 {
				v[2*2+1] = math.NaN()
			}
		}), []float64{0, 0.5, 1}, "V is NaN on rung 2 of ladder 1 at scan 4, want a finite number"},
		{"without bounds", fill(3, 2, func(scan int, v []float64) { v[0] = math.Inf(1) }), []float64{0, 0.5, 1}, "V is +Inf on rung 0 of ladder 0 at scan 0, the first of 6 such, want a finite number"},
		{"no weight at all", fill(3, 2, func(scan int, v []float64) { v[0], v[1] = math.Inf(-1), math.Inf(-1) }), []float64{0, 0.5, 1}, "rungs 0–1: bridge: V is finite for 0 states of the lower rung and -Inf for 0 of the upper one"},
		{"another ladder", fill(3, 2, nil), []float64{0, 1}, "2 β for 3 rungs"},
		{"not a ladder", fill(2, 2, nil), []float64{0, 0.5}, "β = 0.5 on the last rung, want 1"},
		{"one rung", fill(1, 2, nil), []float64{1}, "1 rung, want at least 2"},
		{"empty", newRecord(t, 2, 2, 10), []float64{0, 1}, "no scans, want at least 1"},
	} {
		if _, err := tc.r.LogZ(tc.betas); err == nil || !strings.HasPrefix(err.Error(), "tempering: log Z: ") || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q in it", tc.name, err, tc.want)
		}
	}
	z := logZ(t, fill(2, 1, nil), []float64{0, 1})
	if !math.IsNaN(z.BridgeErr) || !math.IsNaN(z.ForwardErr) || !math.IsNaN(z.ReverseErr) || z.Bridge != 0 {
		t.Errorf("%+v of one ladder, want a bridge of 0 and no errors", z)
	}
}

// An energy that is infinite on half of the reference's draws halves Z, on the way to the first β above 0. A state on an
// upper rung that its law forbids, as that of a chain which began outside, has no weight to lose in the bridge; the
// reverse estimate is then infinite.
func TestLogZOfAnEnergyWithForbiddenStates(t *testing.T) {
	const ladders, scans = 4, 20
	for _, forbidden := range []int{0, 4} { // states of the middle rung
		r := newRecord(t, 3, ladders, scans)
		for scan := range scans {
			v := make([]float64, 3*ladders)
			for b := range ladders {
				if (scan+b)%2 == 0 {
					v[b] = math.Inf(-1)
				}
			}
			if scan < forbidden {
				v[ladders+scan] = math.Inf(-1)
			}
			r.Add(v)
		}
		z := logZ(t, r, []float64{0, 0.3, 1})
		// With n draws of V = 0, n of −Inf and, of 2n above, m of −Inf: n·σ(−c) = (2n−m)·σ(c) + m, and to the target
		// (2n−m)·σ(−c) = 2n·σ(c).
		n, m := ladders*scans/2., float64(forbidden)
		s := (n - m) / (3*n - m)
		first := math.Log(s / (1 - s))
		second := math.Log((2*n - m) / (2 * n))
		if math.Abs(z.Rungs[1]-first) > 1e-9 || math.Abs(z.Bridge-first-second) > 1e-9 || math.Abs(z.Forward-math.Log(0.5)-second) > 1e-12 {
			t.Errorf("%d forbidden states: bridge %.6f %.6f, forward %.6f, want %.6f %.6f, %.6f", forbidden, z.Rungs[1], z.Bridge, z.Forward, first, first+second, math.Log(0.5)+second)
		}
		if reverse := z.Reverse; forbidden == 0 && reverse != 0 || forbidden > 0 && !math.IsInf(reverse, -1) {
			t.Errorf("%d forbidden states: reverse %g, want 0, and -Inf with some", forbidden, reverse)
		}
	}
}
