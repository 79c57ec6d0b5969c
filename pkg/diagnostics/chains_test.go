package diagnostics

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
)

func ExampleSplitRHat() {
	chains := make([][]float64, 4)
	for m := range chains {
		chains[m] = rng.New(1, rng.Evaluate, uint64(m), 0).Normals(1000)
	}
	together, err := SplitRHat(chains)
	if err != nil {
		panic(err)
	}
	for t := range chains[3] {
		chains[3][t]++ // this one sits in another place
	}
	apart, err := SplitRHat(chains)
	if err != nil {
		panic(err)
	}
	fmt.Printf("R̂ %.2f of chains of one law, %.2f with one of them elsewhere\n", together, apart)
	// Output: R̂ 1.00 of chains of one law, 1.10 with one of them elsewhere
}

// recorded is testdata/arviz.json: what ArviZ, SciPy and NumPy say of the same numbers. Nil is where they have NaN or
// infinity. make.py beside it names the versions.
type recorded struct {
	Chains []struct {
		Name            string
		Chains          [][]float64
		ESS, Bulk, RHat *float64
	}
	Autocorrelation struct{ X, Rho []float64 }
	Pareto          []struct {
		Name       string
		LogWeights []float64 `json:"log_weights"`
		K          *float64
	}
	PValues []struct {
		N    int
		D, P float64
	} `json:"p_values"`
	Draws struct {
		X    []float64
		D, P float64 // against N(0.3, 1)
	}
	Pairs struct {
		A, B                 []float64
		Correlation, Overlap float64
		Histogram            []int
	}
}

func readRecorded(t *testing.T) recorded {
	t.Helper()
	raw, err := os.ReadFile("testdata/arviz.json")
	if err != nil {
		t.Fatal(err)
	}
	var r recorded
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// near compares to a relative tolerance.
func near(got, want, tolerance float64) bool { return math.Abs(got-want) <= tolerance*math.Abs(want) }

func TestChainsAgreeWithArviZ(t *testing.T) {
	cases := readRecorded(t).Chains
	if len(cases) < 20 {
		t.Fatalf("%d recorded cases", len(cases))
	}
	for _, tc := range cases {
		for _, s := range []struct {
			name string
			f    func([][]float64) (float64, error)
			want *float64
		}{{"ESS", ESS, tc.ESS}, {"BulkESS", BulkESS, tc.Bulk}, {"SplitRHat", SplitRHat, tc.RHat}} {
			got, err := s.f(tc.Chains)
			switch {
			case err != nil:
				t.Errorf("%s of %s: %v", s.name, tc.Name, err)
			case s.want == nil && s.name == "SplitRHat" && len(tc.Chains) == 1: // ArviZ wants two chains
				if tc.Name == "one chain" && !(got > 0.99 && got < 1.05) {
					t.Errorf("SplitRHat of the halves of one iid chain: %g", got)
				}
			case s.want == nil:
				if !math.IsInf(got, 1) {
					t.Errorf("%s of %s: %g, want +Inf", s.name, tc.Name, got)
				}
			case !near(got, *s.want, 1e-10):
				t.Errorf("%s of %s: %.15g, ArviZ has %.15g", s.name, tc.Name, got, *s.want)
			}
		}
	}
}

func TestUnusableChainsAreErrors(t *testing.T) {
	ok := []float64{1, 2, 3, 4, 5}
	for _, tc := range []struct {
		name   string
		chains [][]float64
		want   string
	}{
		{"none", nil, "no chains"},
		{"too short", [][]float64{{1, 2, 3}}, "3 draws a chain, want at least 4"},
		{"unequal", [][]float64{ok, ok[:4]}, "chain 1: 4 draws, want 5 as chain 0"},
		{"a NaN", [][]float64{ok, {1, 2, 3, math.NaN(), 5}}, "chain 1: draw 3 is NaN"},
		{"an infinity", [][]float64{{1, 2, math.Inf(-1), 4, 5}, ok}, "chain 0: draw 2 is -Inf"},
		{"constant", [][]float64{{7, 7, 7, 7}, {7, 7, 7, 7}}, "every draw is 7"},
		{"constant but for a middle draw", [][]float64{{7, 7, 1, 7, 7}}, "every draw is 7"},
	} {
		for name, f := range map[string]func([][]float64) (float64, error){"ess": ESS, "bulk ess": BulkESS, "split r-hat": SplitRHat} {
			if got, err := f(tc.chains); err == nil || !strings.HasPrefix(err.Error(), "diagnostics: "+name+": "+tc.want) {
				t.Errorf("%s of %s: %g, %v, want %q", name, tc.name, got, err, tc.want)
			}
		}
	}
	if got, err := ESS([][]float64{{1e300, -1e300, 1e300, 2e300}}); err == nil || !strings.Contains(err.Error(), "variance +Inf") {
		t.Errorf("ess of draws whose variance overflows: %g, %v", got, err)
	}
}

// TestStatisticsOfChainsHaveTheirSymmetries: units do not matter to ESS and R̂, monotone maps not to BulkESS, nor the order
// of the chains to any.
func TestStatisticsOfChainsHaveTheirSymmetries(t *testing.T) {
	mapped := func(f func(float64) float64, chains [][]float64) [][]float64 {
		out := make([][]float64, len(chains))
		for m, chain := range chains {
			for _, v := range chain {
				out[m] = append(out[m], f(v))
			}
		}
		return out
	}
	chains := make([][]float64, 3)
	for m := range chains {
		chains[m] = rng.New(5, rng.Evaluate, uint64(m), 0).Normals(500)
		for i := 1; i < 500; i++ {
			chains[m][i] += 0.8 * chains[m][i-1]
		}
	}
	affine := func(v float64) float64 { return 1e-6*v - 4 }
	reversed := slices.Clone(chains)
	slices.Reverse(reversed)
	for _, tc := range []struct {
		name string
		f    func([][]float64) (float64, error)
		maps map[string][][]float64
	}{
		{"ESS", ESS, map[string][][]float64{"affine": mapped(affine, chains), "reversed": reversed}},
		{"SplitRHat", SplitRHat, map[string][][]float64{"affine": mapped(affine, chains), "reversed": reversed}},
		{"BulkESS", BulkESS, map[string][][]float64{"affine": mapped(affine, chains), "exp": mapped(math.Exp, chains), "reversed": reversed}},
	} {
		want, err := tc.f(chains)
		if err != nil {
			t.Fatal(err)
		}
		for name, other := range tc.maps {
			if got, err := tc.f(other); err != nil || !near(got, want, 1e-6) {
				t.Errorf("%s under %s: %g, %v, want %g", tc.name, name, got, err, want)
			}
		}
	}
}

func TestAutocorrelation(t *testing.T) {
	r := readRecorded(t).Autocorrelation
	got := Autocorrelation(r.X)
	if len(got) != len(r.Rho) || got[0] != 1 {
		t.Fatalf("%v", got)
	}
	for lag := range got {
		if math.Abs(got[lag]-r.Rho[lag]) > 1e-14 {
			t.Errorf("lag %d: %g, ArviZ has %g", lag, got[lag], r.Rho[lag])
		}
	}
	// 1, −1, 1, −1: ρ_t = (−1)^t (4−t)/4
	for lag, want := range []float64{1, -0.75, 0.5, -0.25} {
		if got := Autocorrelation([]float64{1, -1, 1, -1})[lag]; math.Abs(got-want) > 1e-15 {
			t.Errorf("lag %d of an alternating chain: %g, want %g", lag, got, want)
		}
	}
	if got := Autocorrelation(nil); got != nil {
		t.Errorf("of nothing: %v", got)
	}
	for _, x := range [][]float64{{0.1, 0.1, 0.1}, {3}, {1, math.NaN(), 2}} {
		for lag, rho := range Autocorrelation(x) {
			if !math.IsNaN(rho) {
				t.Errorf("of %v at lag %d: %g, want NaN", x, lag, rho)
			}
		}
	}
}

func TestParetoKAgreesWithArviZ(t *testing.T) {
	for _, tc := range readRecorded(t).Pareto {
		got := ParetoK(tc.LogWeights)
		if tc.K == nil {
			if !math.IsNaN(got) {
				t.Errorf("%s: %g, want NaN", tc.Name, got)
			}
			continue
		}
		if !near(got, *tc.K, 1e-9) {
			t.Errorf("%s: %.15g, ArviZ has %.15g", tc.Name, got, *tc.K)
		}
		shuffled := slices.Clone(tc.LogWeights)
		slices.Reverse(shuffled)
		for i := range shuffled {
			shuffled[i] += 512
		}
		if again := ParetoK(shuffled); !near(again, got, 1e-8) {
			t.Errorf("%s: %g in another order and unit, %g before", tc.Name, again, got)
		}
	}
}

func TestParetoKHasItsEnds(t *testing.T) {
	stream := rng.New(3, rng.Evaluate, 0, 0)
	w := make([]float64, 400)
	for i := range w {
		w[i] = -0.7 * math.Log(1-stream.Float64())
	}
	k := ParetoK(w)
	if math.Abs(k-0.7) > 0.35 { // its standard error is about (1+k)/√tail = 0.22, less by the prior
		t.Errorf("k %g of Pareto weights of shape 0.7", k)
	}
	for i := range 100 { // they are below the tail before and after
		w[slices.Index(w, slices.Min(w))] = 1000 + float64(i)
	}
	for i, v := range w {
		if v >= 1000 {
			w[i] = math.Inf(-1)
		}
	}
	if got := ParetoK(w); got != k {
		t.Errorf("k %g with weights of zero in the body, %g before", got, k)
	}
	two := make([]float64, 110) // two values; at this size one of the points of the prior is b = 0
	for i := range 22 {
		two[i] = math.Ln2
	}
	if got := ParetoK(two); math.IsNaN(got) || math.IsInf(got, 0) {
		t.Errorf("k %g of weights of two values", got)
	}
	for _, bad := range []float64{math.NaN(), math.Inf(1)} {
		if got := ParetoK(append(slices.Clone(w), bad)); !math.IsNaN(got) {
			t.Errorf("k %g with a log weight %g", got, bad)
		}
	}
	if got := ParetoK(nil); !math.IsNaN(got) {
		t.Errorf("k %g of no weights", got)
	}
}

func TestKolmogorovSmirnov(t *testing.T) {
	r := readRecorded(t)
	law := func(x float64) float64 { return 0.5 * math.Erfc((0.3-x)/math.Sqrt2) }
	if d, p := KolmogorovSmirnov(r.Draws.X, law); !near(d, r.Draws.D, 1e-12) || !near(p, r.Draws.P, 1e-10) {
		t.Errorf("d %g, p %g, SciPy has %g and %g", d, p, r.Draws.D, r.Draws.P)
	}
	for _, tc := range r.PValues {
		got, z := kolmogorovP(tc.N, tc.D), tc.D*math.Sqrt(float64(tc.N))
		if tc.N > 1000 && z < 1.5 {
			if math.Abs(got-tc.P) > 3e-5 {
				t.Errorf("n %d, z %.3g: p %g, SciPy has %g", tc.N, z, got, tc.P)
			}
		} else if !near(got, tc.P, 1e-10) {
			t.Errorf("n %d, z %.3g: p %.14g, SciPy has %.14g", tc.N, z, got, tc.P)
		}
	}
	// The example of Marsaglia, Tsang and Wang.
	if got := 1 - kolmogorovP(10, 0.274); math.Abs(got-0.6284796154565) > 1e-13 {
		t.Errorf("P(D_10 < 0.274) = %.14g, want 0.6284796154565", got)
	}
	uniform := func(x float64) float64 { return min(max(x, 0), 1) }
	for _, tc := range []struct {
		name string
		x    []float64
		d, p float64
	}{
		{"two draws at one side", []float64{0.2, 0.1}, 0.8, 2 * 0.2 * 0.2}, // both below 0.2, or both above 0.8
		{"least distance", []float64{0.125, 0.375, 0.625, 0.875}, 0.125, 1},
		{"all beyond the end", []float64{2, 3, math.Inf(1)}, 1, 0},
		{"one draw", []float64{0.3}, 0.7, 0.6}, // P(max(U, 1−U) ≥ 0.7)
		{"no draws", nil, math.NaN(), math.NaN()},
		{"a NaN", []float64{0.5, math.NaN()}, math.NaN(), math.NaN()},
	} {
		d, p := KolmogorovSmirnov(tc.x, uniform)
		if same := func(a, b float64) bool { return math.Abs(a-b) < 1e-14 || math.IsNaN(a) && math.IsNaN(b) }; !same(d, tc.d) || !same(p, tc.p) {
			t.Errorf("%s: d %g, p %g, want %g and %g", tc.name, d, p, tc.d, tc.p)
		}
	}
}

func TestHistogramOverlapAndCorrelation(t *testing.T) {
	r := readRecorded(t).Pairs
	if got := Histogram(r.A, -2, 2, 15); !slices.Equal(got, r.Histogram) {
		t.Errorf("histogram %v, NumPy has %v", got, r.Histogram)
	}
	if got := Overlap(r.A, r.B, 20); !near(got, r.Overlap, 1e-14) {
		t.Errorf("overlap %g, NumPy has %g", got, r.Overlap)
	}
	if got := Correlation(r.A, r.B); !near(got, r.Correlation, 1e-13) {
		t.Errorf("correlation %g, SciPy has %g", got, r.Correlation)
	}

	nan, inf := math.NaN(), math.Inf(1)
	if got := Histogram([]float64{-1, 0, 0.5, 1, 1.5, 2, 3, nan, inf, -inf}, 0, 2, 4); !slices.Equal(got, []int{1, 1, 1, 2}) {
		t.Errorf("histogram %v, want 1 1 1 2", got)
	}
	if got := Histogram([]float64{3, 3, 4}, 3, 3, 2); !slices.Equal(got, []int{0, 2}) {
		t.Errorf("histogram of an empty range %v, want 0 2", got)
	}
	for _, tc := range []struct {
		name string
		a, b []float64
		want float64
	}{
		{"itself", []float64{1, 2, 3, 4}, []float64{4, 3, 2, 1}, 1},
		{"one value", []float64{5, 5}, []float64{5}, 1},
		{"apart", []float64{0, 1}, []float64{9, 10, 10}, 0},
		{"half", []float64{0, 0, 10, 10}, []float64{10, 10, 10}, 0.5},
		{"empty", nil, []float64{1}, nan},
		{"a NaN", []float64{1, nan}, []float64{1}, nan},
		{"an infinity", []float64{1}, []float64{1, inf}, nan},
	} {
		if got := Overlap(tc.a, tc.b, 5); got != tc.want && !(math.IsNaN(got) && math.IsNaN(tc.want)) {
			t.Errorf("overlap, %s: %g, want %g", tc.name, got, tc.want)
		}
	}
	for _, tc := range []struct {
		name string
		a, b []float64
		want float64
	}{
		{"a line", []float64{1, 2, 4}, []float64{-1, -2, -4}, -1},
		{"none", []float64{1, 2, 3}, []float64{1, 0, 1}, 0},
		{"constant", []float64{1, 2, 3}, []float64{0.1, 0.1, 0.1}, nan},
		{"one pair", []float64{1}, []float64{2}, nan},
		{"a NaN", []float64{1, nan, 3}, []float64{1, 2, 3}, nan},
	} {
		if got := Correlation(tc.a, tc.b); math.Abs(got-tc.want) > 1e-15 && !(math.IsNaN(got) && math.IsNaN(tc.want)) {
			t.Errorf("correlation, %s: %g, want %g", tc.name, got, tc.want)
		}
	}
	for name, f := range map[string]func(){
		"2 bins from 1 to 0":  func() { Histogram(nil, 1, 0, 2) },
		"0 bins from 0 to 1":  func() { Overlap([]float64{0}, []float64{1}, 0) },
		"2 bins from NaN":     func() { Histogram(nil, nan, 1, 2) },
		"1 and 2 numbers":     func() { Correlation([]float64{1}, []float64{1, 2}) },
		"3 bins from 0 to +I": func() { Histogram(nil, 0, inf, 3) },
	} {
		func() {
			defer func() {
				if text := fmt.Sprint(recover()); !strings.Contains(text, name) {
					t.Errorf("panic %q, want %q in it", text, name)
				}
			}()
			f()
		}()
	}
}

// BenchmarkESS is of the chains of 64 ladders over 5,000 scans.
func BenchmarkESS(b *testing.B) {
	chains := make([][]float64, 64)
	for m := range chains {
		chains[m] = rng.New(1, rng.Evaluate, uint64(m), 0).Normals(5000)
	}
	for name, f := range map[string]func([][]float64) (float64, error){"ess": ESS, "bulk": BulkESS, "rhat": SplitRHat} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := f(chains); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
