package tempering

import (
	"math"
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

// Sweep compares the draw with the acceptance, and takes the logarithm where they are close: that must say what AcceptSwap does.
func TestDrawsAwayFromTheAcceptanceNeedNoLogarithm(t *testing.T) {
	s := rng.New(9, rng.Swap, 0, 0)
	check := func(delta, u float64) {
		t.Helper()
		alpha := acceptance(delta)
		if near(u, alpha) || u < 0x1p-53 || u > 1 {
			return
		}
		if got, want := u < alpha, AcceptSwap(delta, u); got != want {
			t.Fatalf("Δ = %g, u = %g, α = %g: %t, want %t", delta, u, alpha, got, want)
		}
	}
	for range 20_000 {
		for _, delta := range []float64{-40 * s.Float64(), -s.Float64(), -1e-9 * s.Float64(), -1e3 * s.Float64(), s.Float64()} {
			alpha := acceptance(delta)
			check(delta, 1-s.Float64())
			for _, off := range []float64{1.01e-12, 2e-12, 1e-11, 1e-8} {
				check(delta, alpha*(1-off))
				check(delta, alpha*(1+off))
			}
		}
	}
	for _, delta := range []float64{0, math.Inf(1), math.Inf(-1), math.NaN(), -1e300, 1e300} {
		for _, u := range []float64{1, math.Nextafter(1, 0), 0.5, 0x1p-53} {
			check(delta, u)
		}
	}
	if got, want := near(1, acceptance(0)), true; got != want { // u = 1 is a rejection at Δ = 0
		t.Error("u = 1 at Δ = 0 is not left to AcceptSwap")
	}
}
