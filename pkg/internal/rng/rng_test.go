package rng

import (
	"math"
	"testing"
)

// The three known answers of the Random123 distribution (kat_vectors, philox4x32 10).
func TestPhiloxKnownAnswers(t *testing.T) {
	for _, tc := range []struct {
		name    string
		counter [4]uint32
		key     [2]uint32
		want    [4]uint32
	}{
		{"zeros", [4]uint32{}, [2]uint32{}, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{"ones", [4]uint32{math.MaxUint32, math.MaxUint32, math.MaxUint32, math.MaxUint32}, [2]uint32{math.MaxUint32, math.MaxUint32},
			[4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{"digits of pi", [4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, [2]uint32{0xa4093822, 0x299f31d0},
			[4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := Philox4x32(tc.counter, tc.key); got != tc.want {
				t.Errorf("got %08x, want %08x", got, tc.want)
			}
		})
	}
}

func TestUniformIsNeverZero(t *testing.T) {
	if open(0) != 0x1p-53 || open(math.MaxUint64) != 1 {
		t.Errorf("open(0) = %g, open(max) = %g, want 2^-53 and 1", open(0), open(math.MaxUint64))
	}
}

func TestMoments(t *testing.T) {
	const n = 200_000
	s := New(11, Dataset, 0, 0)
	var mean, second, fourth float64
	for range n {
		z := s.Normal()
		mean += z / n
		second += z * z / n
		fourth += z * z * z * z / n
	}
	// Five standard errors: sd of z, z², z⁴ is 1, √2, √96.
	for _, c := range []struct {
		name           string
		got, want, tol float64
	}{{"mean", mean, 0, 5 / math.Sqrt(n)}, {"second", second, 1, 5 * math.Sqrt2 / math.Sqrt(n)}, {"fourth", fourth, 3, 5 * math.Sqrt(96) / math.Sqrt(n)}} {
		if math.Abs(c.got-c.want) > c.tol {
			t.Errorf("%s moment %g, want %g ± %g", c.name, c.got, c.want, c.tol)
		}
	}
}

func TestStreamsDiffer(t *testing.T) {
	seen := map[uint64]string{}
	for _, purpose := range []Purpose{Swap, Explore} {
		for _, a := range []uint64{0, 1, 1 << 32, 1 << 33} {
			for b := range uint32(3) {
				for _, seed := range []uint64{0, 1, 1 << 32} {
					v := New(seed, purpose, a, b).Uint64()
					if prev, ok := seen[v]; ok {
						t.Fatalf("seed %d purpose %d a %d b %d repeats %s", seed, purpose, a, b, prev)
					}
					seen[v] = "an earlier stream"
				}
			}
		}
	}
}

func TestPermIsUniform(t *testing.T) {
	const n, runs = 4, 24_000
	counts := map[[n]int]int{}
	for i := range runs {
		p := New(3, Shuffle, uint64(i), 0).Perm(n)
		counts[[n]int(p)]++
	}
	if len(counts) != 24 {
		t.Fatalf("%d of 24 permutations seen", len(counts))
	}
	chi2 := 0.0
	for _, c := range counts {
		d := float64(c) - runs/24
		chi2 += d * d / (runs / 24)
	}
	if chi2 > 56.8 { // 0.9999 quantile of chi² with 23 degrees of freedom
		t.Errorf("chi² = %g over 24 permutations, want below 56.8", chi2)
	}
}
