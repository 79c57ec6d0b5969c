package averaging

import (
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
)

// BenchmarkMean measures decoding and the tree sum of 8 groups, in bytes of float32.
func BenchmarkMean(b *testing.B) {
	const n, groups = 1 << 20, 8
	for _, format := range Formats {
		terms := make([]term, groups)
		for g := range terms {
			terms[g] = encoded(b, format, normals(n, uint64(g)))
		}
		dst := make([]float32, n)
		b.Run(format, func(b *testing.B) {
			b.SetBytes(4 * n * groups)
			for b.Loop() {
				if err := meanOf(dst, terms, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkEncode measures encoding, in bytes of float32.
func BenchmarkEncode(b *testing.B) {
	const n = 1 << 20
	x := normals(n, 0)
	for _, format := range Formats {
		b.Run(format, func(b *testing.B) {
			e, err := NewEncoder(format, n)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(4 * n)
			for b.Loop() {
				e.Encode(x)
			}
		})
	}
}

func normals(n int, stream uint64) []float32 {
	s := rng.New(1, rng.InitParams, stream, 0)
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(s.Normal())
	}
	return x
}

func encoded(tb testing.TB, format string, x []float32) Vector {
	tb.Helper()
	e, err := NewEncoder(format, len(x))
	if err != nil {
		tb.Fatal(err)
	}
	return e.Encode(x)
}
