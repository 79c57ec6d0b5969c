package tempering

import (
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mathext"

	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
)

func TestAcceptSwap(t *testing.T) {
	for _, tc := range []struct {
		name                                    string
		betaLower, betaUpper, vLower, vUpper, u float64
		want                                    bool
	}{
		{"the hot state is better: always", 0.5, 1, -1, -4, 1, true},
		{"worse, unlucky", 0.5, 1, -4, -1, 0.5, false}, // exp(-1.5) ≈ 0.22
		{"worse, lucky", 0.5, 1, -4, -1, 0.2, true},
		{"equal", 0.5, 1, 3, 3, 0.999, true},
		{"equal and u = 1", 0.5, 1, 3, 3, 1, false}, // log 1 < 0 does not hold; probability 2^-53
		{"hot state is NaN", 0.5, 1, math.NaN(), 1, 1e-300, false},
		{"cold state is NaN", 0.5, 1, 1, math.NaN(), 1e-300, false},
		{"hot state outside the support", 0.5, 1, math.Inf(-1), 1, 1e-300, false},
		{"cold state outside the support", 0.5, 1, 1, math.Inf(-1), 1, true},
		{"both outside", 0.5, 1, math.Inf(-1), math.Inf(-1), 1e-300, false},
		{"far beyond the range of exp", 0, 1, 1e300, -1e300, 1, true},
		{"far below the range of exp", 0, 1, -1e300, 1e300, 1e-300, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			delta := LogRatio(tc.betaLower, tc.betaUpper, tc.vLower, tc.vUpper)
			if got := AcceptSwap(delta, tc.u); got != tc.want {
				t.Errorf("Δ = %g, u = %g: accepted %t, want %t", delta, tc.u, got, tc.want)
			}
			if a := acceptance(delta); !(a >= 0 && a <= 1) {
				t.Errorf("α = %g, want a probability", a)
			}
		})
	}
}

func TestLogUniformIsTheLogarithm(t *testing.T) {
	us := []float64{1, 0x1p-53, 0x1p-1022, math.Nextafter(1, 0), math.Nextafter(1, 0) - 0x1p-50, 0.5, math.Sqrt2 / 2, math.Nextafter(math.Sqrt2/2, 0)}
	s := rng.New(5, rng.Swap, 0, 0)
	for range 200_000 {
		u := 1 - s.Float64()
		us = append(us, u, u*0x1p-40, 1-u*0x1p-20)
	}
	worst := 0.0
	for _, u := range us {
		got, want := logUniform(u), math.Log(u)
		ulp := math.Nextafter(math.Abs(want), math.Inf(1)) - math.Abs(want)
		worst = max(worst, math.Abs(got-want)/ulp)
	}
	if !(worst <= 3) { // within 2 of the truth, and math.Log within 1
		t.Errorf("off by %g units in the last place from math.Log, want at most 3", worst)
	}
	if got := logUniform(0); !math.IsInf(got, -1) {
		t.Errorf("log 0 = %g, want -Inf", got)
	}
	// math.Log is wrong below the normal range on amd64; the series is not.
	if got, want := logUniform(0x1p-1074), -1074*math.Ln2; math.Abs(got-want) > 1e-12 {
		t.Errorf("log 2^-1074 = %g, want %g", got, want)
	}
	// The bits, as 40-digit arithmetic rounds them; they must be the same on every architecture.
	for u, want := range map[float64]uint64{0.3: 0xbff34378fcbda721, 0.9: 0xbfbaf8e8210a415c, 0x1p-53: 0xc0425e4f7b2737fa} {
		if got := math.Float64bits(logUniform(u)); got != want {
			t.Errorf("log %g has bits %#x, want %#x", u, got, want)
		}
	}
}

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

// The acceptance of a swap between N(0, I/p₁) and N(0, I/p₂), R = p₂/p₁, is 2·I_{1/(1+R)}(d/2, d/2) (Predescu et al.
// 2004). 0.006 is about five standard errors of 10⁵ pairs.
func TestAcceptanceBetweenGaussians(t *testing.T) {
	const pairs = 100_000
	for _, tc := range []struct {
		ratio float64
		dim   int
		want  float64
	}{{2, 1, 0.78365}, {2, 2, 0.66667}, {2, 10, 0.28969}, {4, 2, 0.40000}, {10, 2, 0.18182}, {1.5, 10, 0.53314}} {
		half := float64(tc.dim) / 2
		if exact := 2 * mathext.RegIncBeta(half, half, 1/(1+tc.ratio)); math.Abs(exact-tc.want) > 5e-6 {
			t.Errorf("R=%g d=%d: formula gives %g, want %g", tc.ratio, tc.dim, exact, tc.want)
		}
		ladder, err := LadderOf([]float64{1 / tc.ratio, 1})
		if err != nil {
			t.Fatal(err)
		}
		e, err := NewEnsemble(Settings{Ladder: ladder, Columns: pairs, Seed: 3})
		if err != nil {
			t.Fatal(err)
		}
		v := make([]float64, 2*pairs) // V = −E = −‖x‖²/2 on the power path; β = 1 is N(0, I)
		s := rng.New(17, rng.Dataset, uint64(tc.dim), uint32(10*tc.ratio))
		for i := range v {
			for range tc.dim {
				x := s.Normal()
				if i < pairs {
					x *= math.Sqrt(tc.ratio)
				}
				v[i] -= x * x / 2
			}
		}
		if _, err := e.Sweep(0, nil, v); err != nil {
			t.Fatal(err)
		}
		p := e.Stats().Pairs[0]
		if got := 1 - p.Rejection(); math.Abs(got-tc.want) > 0.006 {
			t.Errorf("R=%g d=%d: mean α %.5f, want %.5f ± 0.006", tc.ratio, tc.dim, got, tc.want)
		}
		if got := float64(p.Accepted) / float64(p.Attempts); math.Abs(got-tc.want) > 0.006 {
			t.Errorf("R=%g d=%d: accepted share %.5f, want %.5f ± 0.006", tc.ratio, tc.dim, got, tc.want)
		}
	}
}

// The whole transition matrix of one sweep on a three-state space leaves the product of the rungs' laws as it is, for
// each parity and both numbers of rungs.
func TestSweepLeavesTheJointLawInvariant(t *testing.T) {
	v := []float64{0.3, -1.1, 1.7}
	logq := []float64{math.Log(0.5), math.Log(0.3), math.Log(0.2)}
	for _, betas := range [][]float64{{0.2, 1}, {0, 0.35, 1}} {
		ladder, err := LadderOf(betas)
		if err != nil {
			t.Fatal(err)
		}
		k := len(betas)
		n := 1
		for range k {
			n *= 3
		}
		states := func(joint int) []int {
			x := make([]int, k)
			for i := range x {
				x[i] = joint % 3
				joint /= 3
			}
			return x
		}
		index := func(x []int) int {
			joint := 0
			for i := k - 1; i >= 0; i-- {
				joint = 3*joint + x[i]
			}
			return joint
		}
		pi, total := make([]float64, n), 0.0
		for j := range pi {
			logp := 0.0
			for i, x := range states(j) {
				logp += logq[x] + betas[i]*v[x]
			}
			pi[j] = math.Exp(logp)
			total += pi[j]
		}
		for parity := range 2 {
			var u float64
			e, err := NewEnsemble(Settings{Ladder: ladder, Columns: 1, Uniform: func(uint64, uint32, uint32) float64 { return u }})
			if err != nil {
				t.Fatal(err)
			}
			out := make([]float64, n)
			for j := range pi {
				x := states(j)
				energies := make([]float64, k)
				for i := range x {
					energies[i] = v[x[i]]
				}
				sweep := func(at float64) (float64, []int) {
					u = at
					state := newState(k, 1)
					state.Scans[0] = uint64(parity)
					if err := e.Restore(state); err != nil {
						t.Fatal(err)
					}
					swept, err := e.Sweep(uint64(parity), nil, energies)
					if err != nil {
						t.Fatal(err)
					}
					alpha := 0.0
					for _, p := range e.Stats().Pairs {
						alpha += p.AlphaSum // at most one pair is tried, on two and on three rungs
					}
					y := make([]int, k)
					for i, from := range swept.Perm {
						y[i] = x[from]
					}
					return alpha, y
				}
				// u below α moves to one state, u above it to the other: the rule as it runs, not its formula.
				alpha, moved := sweep(0x1p-53)
				if alpha > 0 {
					if _, again := sweep(alpha * (1 - 1e-12)); !slices.Equal(again, moved) {
						t.Errorf("betas %v parity %d state %v: not accepted at u just below α = %g", betas, parity, x, alpha)
					}
				}
				if alpha < 1 {
					_, kept := sweep(min(1, alpha*(1+1e-12)+1e-300))
					if !slices.Equal(kept, x) {
						t.Errorf("betas %v parity %d state %v: accepted at u just above α = %g", betas, parity, x, alpha)
					}
				}
				out[index(moved)] += pi[j] / total * alpha
				out[j] += pi[j] / total * (1 - alpha)
			}
			for j := range out {
				if math.Abs(out[j]-pi[j]/total) > 1e-14 {
					t.Errorf("betas %v parity %d: πP differs from π by %g at %v, want 1e-14", betas, parity, out[j]-pi[j]/total, states(j))
				}
			}
		}
	}
}

func TestBarrier(t *testing.T) {
	// Gaussian precision path 1 → 10 in d = 100 dimensions, exact Λ 9.163: ten rungs, equally spaced in Λ, have the
	// rejection rate 1 − 2·I_{1/(1+R)}(d/2, d/2), R = 10^(1/9). Plain sum 7.18, corrected 9.15.
	r := 1 - 2*mathext.RegIncBeta(50, 50, 1/(1+math.Pow(10, 1./9)))
	rates := slices.Repeat([]float64{r}, 9)
	if got := RejectionSum(rates); math.Abs(got-7.18) > 0.005 {
		t.Errorf("rejection sum %.4f, want 7.18", got)
	}
	got, bound := Barrier(rates, 1e6)
	if math.Abs(got-9.15) > 0.006 || bound {
		t.Errorf("Λ = %.4f (lower bound %t), want 9.15 and no bound", got, bound)
	}
	if got, bound := Barrier([]float64{1, 0}, 100); math.IsInf(got, 0) || !bound {
		t.Errorf("a pair that never swaps: Λ = %g (lower bound %t), want a finite lower bound", got, bound)
	}
	if got, bound := Barrier([]float64{0, 0}, 100); got != 0 || bound {
		t.Errorf("no rejections: Λ = %g (lower bound %t), want 0", got, bound)
	}
	if got, _ := Barrier([]float64{math.NaN()}, 100); !math.IsNaN(got) {
		t.Errorf("a pair without attempts: Λ = %g, want NaN", got)
	}
}

func TestPredictedTripRate(t *testing.T) {
	for _, tc := range []struct {
		rates []float64
		want  float64
	}{
		{slices.Repeat([]float64{0.5}, 9), 0.05},
		{slices.Repeat([]float64{0.2}, 9), 1 / (2 + 2*9*0.25)},
		{slices.Repeat([]float64{0}, 9), 0.5},
		{[]float64{0.5, 1}, 0},
		{nil, 0.5},
	} {
		if got := PredictedTripRate(tc.rates); math.Abs(got-tc.want) > 1e-15 {
			t.Errorf("%v: τ = %g, want %g", tc.rates, got, tc.want)
		}
	}
}
