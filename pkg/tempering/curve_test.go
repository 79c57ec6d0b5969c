package tempering

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mathext"
	"gonum.org/v1/gonum/stat/distuv"

	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
)

func ExampleCurve() {
	curve, err := NewCurve([]float64{0, 0.5, 1}, []float64{0.6, 0.2}, 1000)
	if err != nil {
		panic(err)
	}
	next, err := curve.Ladder(3)
	if err != nil {
		panic(err)
	}
	fmt.Printf("Λ = %.3f, rungs at %.3f\n", curve.Total(), next.Betas())
	// Output: Λ = 0.874, rungs at [0.000 0.239 1.000]
}

// increasing points whose steps differ by many powers of ten, some of them 0 where flat is true.
func randomPoints(s *rng.Stream, n int, flat bool) (x, y []float64) {
	x, y = make([]float64, n), make([]float64, n)
	for k := 1; k < n; k++ {
		x[k] = x[k-1] + math.Exp(3*s.Normal())
		y[k] = y[k-1]
		if !flat || s.Float64() < 0.7 {
			y[k] += math.Exp(5 * s.Normal())
		}
	}
	return x, y
}

func TestMonotoneCubicIsMonotone(t *testing.T) {
	const inputs, places = 10_000, 12
	s := rng.New(1, rng.Dataset, 0, 0)
	for input := range inputs {
		n := 2 + s.IntN(10)
		x, y := randomPoints(s, n, input%2 == 0)
		c := newMonotoneCubic(x, y)
		round := 1e-12 * y[n-1]
		last := math.Inf(-1)
		for k := range n - 1 {
			if got := c.at(x[k]); math.Abs(got-y[k]) > round {
				t.Fatalf("input %d: %g at point %d, want %g", input, got, k, y[k])
			}
			secant := (y[k+1] - y[k]) / (x[k+1] - x[k])
			for j := range places {
				at := x[k] + (float64(j)+0.5)/places*(x[k+1]-x[k])
				value, slope := c.at(at), c.slopeAt(at)
				if !(value >= last-round) {
					t.Fatalf("input %d: falls from %g to %g in interval %d", input, last, value, k)
				}
				if !(slope >= -1e-12*(secant+c.slope[k]+c.slope[k+1])) {
					t.Fatalf("input %d: slope %g in interval %d", input, slope, k)
				}
				last = value
			}
		}
	}
}

func TestMonotoneCubicReproducesStraightLines(t *testing.T) {
	s := rng.New(2, rng.Dataset, 0, 0)
	for range 200 {
		x := make([]float64, 2+s.IntN(10))
		y := make([]float64, len(x))
		for k := range x {
			x[k] = (float64(k) + 0.8*s.Float64()) / float64(len(x))
			y[k] = 0.3 + 1.7*x[k]
		}
		c := newMonotoneCubic(x, y)
		for j := range 101 {
			at := x[0] + float64(j)/100*(x[len(x)-1]-x[0])
			if got := c.at(at); math.Abs(got-0.3-1.7*at) > 1e-12 {
				t.Fatalf("%.17g at %g, want %.17g", got, at, 0.3+1.7*at)
			}
			if got := c.slopeAt(at); math.Abs(got-1.7) > 1e-12 {
				t.Fatalf("slope %.17g at %g, want 1.7", got, at)
			}
		}
	}
}

// Within an interval the slope is that of the cubic, by central differences.
func TestMonotoneCubicSlope(t *testing.T) {
	c := newMonotoneCubic([]float64{0, 0.1, 0.5, 1}, []float64{0, 1, 1.2, 4})
	for _, at := range []float64{0.02, 0.09, 0.11, 0.3, 0.45, 0.6, 0.99} {
		const h = 1e-6
		if got, want := c.slopeAt(at), (c.at(at+h)-c.at(at-h))/(2*h); math.Abs(got-want) > 1e-6*math.Abs(want) {
			t.Errorf("slope %g at %g, want %g", got, at, want)
		}
	}
}

func TestCurveTakesPairsThatNeverOrAlwaysReject(t *testing.T) {
	betas := uniformLadder(t, 5).Betas()
	for _, tc := range []struct {
		name  string
		rates []float64
		bound bool
	}{
		{"no rejections", []float64{0, 0, 0, 0}, false},
		{"one pair alone", []float64{0, 0, 0.4, 0}, false},
		{"a pair never swaps", []float64{0.3, 1, 0, 0.2}, true},
		{"rounding below 0", []float64{-1e-16, 0.2, 0.2, 0.2}, false},
	} {
		c, err := NewCurve(betas, tc.rates, 500)
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		if c.LowerBound() != tc.bound {
			t.Errorf("%s: lower bound %t, want %t", tc.name, c.LowerBound(), tc.bound)
		}
		lambda, _ := Barrier(tc.rates, 500)
		if math.Abs(c.Total()-lambda) > 4*minShare || math.Abs(c.Total()-RejectionSum(c.Shares())) > 1e-15 {
			t.Errorf("%s: Λ = %g of shares %v, want %g", tc.name, c.Total(), c.Shares(), lambda)
		}
		for _, beta := range []float64{0, 0.1, 0.25, 0.5, 0.9, 1} {
			if at, density := c.At(beta), c.Density(beta); !(at >= 0 && at <= c.Total() && density >= 0) || math.IsInf(density, 0) {
				t.Errorf("%s: Λ(%g) = %g, λ = %g", tc.name, beta, at, density)
			}
		}
		if c.At(-1) != 0 || c.At(2) != c.Total() {
			t.Errorf("%s: beyond the ends Λ is %g and %g, want 0 and %g", tc.name, c.At(-1), c.At(2), c.Total())
		}
		for _, rungs := range []int{2, 5, 40} {
			l, err := c.Ladder(rungs)
			if err != nil {
				t.Fatalf("%s: %d rungs: %v", tc.name, rungs, err)
			}
			if got := l.Betas(); got[0] != 0 || got[rungs-1] != 1 {
				t.Errorf("%s: %d rungs from %g to %g, want 0 to 1", tc.name, rungs, got[0], got[rungs-1])
			}
		}
	}
	for _, tc := range []struct{ betas, rates []float64 }{
		{[]float64{0, 0.5, 1}, []float64{0.1, math.NaN()}}, {[]float64{0, 0.5, 1}, []float64{0.1}}, {[]float64{1}, nil}, {[]float64{0, 0.5, 0.5, 1}, []float64{0, 0, 0}},
	} {
		if _, err := NewCurve(tc.betas, tc.rates, 100); err == nil {
			t.Errorf("ladder %v, rates %v: no error", tc.betas, tc.rates)
		}
	}
	c, _ := NewCurve(betas, []float64{0.1, 0.1, 0.1, 0.1}, 100)
	if _, err := c.Ladder(1); err == nil {
		t.Error("a ladder of one rung: no error")
	}
}

// A power path keeps the β of its hottest rung.
func TestCurveKeepsTheEnds(t *testing.T) {
	c, err := NewCurve([]float64{0.2, 0.3, 1}, []float64{0.1, 0.7}, 1e4)
	if err != nil {
		t.Fatal(err)
	}
	l, err := c.Ladder(4)
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Betas(); got[0] != 0.2 || got[3] != 1 {
		t.Errorf("ladder %v, want it from 0.2 to 1", got)
	}
}

// precisionPath draws V of every rung of the path from N(0, I_d) to N(0, I_d/(1+slope)): the squared length there is χ²
// of d over the precision p = 1 + slope·β. Its exact barrier is Λ(β) = 2^(2−d)/B(d/2, d/2)·½·ln p.
type precisionPath struct {
	dim   int
	slope float64
}

func (p precisionPath) barrier(beta float64) float64 {
	half := float64(p.dim) / 2
	return math.Exp(float64(2-p.dim)*math.Ln2-mathext.Lbeta(half, half)) / 2 * math.Log1p(p.slope*beta)
}

func (p precisionPath) draw(betas []float64, columns int, stream *rng.Stream) []float64 {
	chi := distuv.ChiSquared{K: float64(p.dim), Src: stream}
	v := make([]float64, len(betas)*columns)
	for row := range v {
		v[row] = -p.slope / 2 * chi.Rand() / (1 + p.slope*betas[row/columns])
	}
	return v
}

// measure are the rejection rates of a ladder over so many scans of 64 columns, all drawn afresh at every scan.
func (p precisionPath) measure(t *testing.T, ladder *Ladder, scans int, seed uint64) (rates []float64, attempts float64) {
	t.Helper()
	const columns = 64
	e := newEnsemble(t, Settings{Ladder: ladder, Columns: columns, Seed: seed})
	stream := rng.New(seed, rng.Dataset, 0, uint32(p.dim))
	for scan := range uint64(scans) {
		sweep(t, e, scan, nil, p.draw(ladder.betas, columns, stream))
	}
	return e.Stats().Rejections(), float64(e.Stats().Pairs[0].Attempts)
}

// Rounds of 16, 32, … scans from a cubic ladder end at the ladder of equal rejections, which is geometric in the
// precision, and at the exact barrier.
func TestAdaptedLadderOfGaussians(t *testing.T) {
	for _, tc := range []struct {
		dim, rungs        int
		last              int     // scans of the last round
		lambda, tolerance float64 // of Λ
		rate              float64 // the equal rejection rate, 0 where it is not asked for
	}{
		{2, 10, 8192, 1.1513, 0.01, 0.1272},
		{10, 6, 4096, 2.8332, 0.02 * 2.8332, 0.5205},
		{100, 10, 1024, 9.163, 0.02 * 9.163, 0},
		{1000, 20, 1024, 29.04, 0.02 * 29.04, 0},
	} {
		path := precisionPath{tc.dim, 9}
		if got := path.barrier(1); math.Abs(got/tc.lambda-1) > 2e-4 {
			t.Errorf("d=%d: exact Λ %.4f, want %.4f", tc.dim, got, tc.lambda)
		}
		ladder, err := NewLadder(Config{Rungs: tc.rungs, Chains: 64, Ladder: "cubic"}.WithDefaults())
		if err != nil {
			t.Fatal(err)
		}
		for scans := 16; scans <= 512; scans *= 2 {
			rates, n := path.measure(t, ladder, scans, uint64(scans))
			curve, err := NewCurve(ladder.Betas(), rates, n)
			if err != nil {
				t.Fatal(err)
			}
			if ladder, err = curve.Ladder(tc.rungs); err != nil {
				t.Fatal(err)
			}
		}
		rates, n := path.measure(t, ladder, tc.last, 7)
		curve, err := NewCurve(ladder.Betas(), rates, n)
		if err != nil {
			t.Fatal(err)
		}
		for j := range 11 {
			beta := float64(j) / 10
			if got, want := curve.At(beta), path.barrier(beta); math.Abs(got-want) > tc.tolerance {
				t.Errorf("d=%d, %d rungs: Λ(%g) = %.4f, want %.4f ± %.2g", tc.dim, tc.rungs, beta, got, want, tc.tolerance)
			}
		}
		if math.Abs(curve.Total()/path.barrier(1)-1) > 0.02 || curve.LowerBound() {
			t.Errorf("d=%d, %d rungs: Λ = %.4f (lower bound %t), want %.4f ± 2%%", tc.dim, tc.rungs, curve.Total(), curve.LowerBound(), path.barrier(1))
		}
		for i, r := range rates {
			if tc.rate > 0 && math.Abs(r-tc.rate) > 0.01 {
				t.Errorf("d=%d, %d rungs: pair %d rejects %.4f, want %.4f ± 0.01", tc.dim, tc.rungs, i, r, tc.rate)
			}
		}
		if spread := slices.Max(rates) - slices.Min(rates); spread > 0.05 {
			t.Errorf("d=%d, %d rungs: rates %.3f, want them within 0.05", tc.dim, tc.rungs, rates)
		}
		// The optimum has one ratio of precisions between neighbours: equal steps of ln p.
		for j, beta := range ladder.Betas() {
			if got, want := math.Log1p(9*beta)/math.Log(10), float64(j)/float64(tc.rungs-1); math.Abs(got-want) > 0.02 {
				t.Errorf("d=%d, %d rungs: rung %d at %.3f of ln p, want %.3f ± 0.02", tc.dim, tc.rungs, j, got, want)
			}
		}
	}
}
