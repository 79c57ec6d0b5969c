// Package rng is the counter-based random generator of the whole project: Philox4x32-10 (Salmon et al., SC 2011).
//
// A draw is a pure function of a key and a counter. Nothing keeps a generator state, so the same numbers come out on
// any number of processes, and a restart needs only the seed and the step number:
//
//	s := rng.New(seed, rng.Shuffle, epoch)
//	order := s.Perm(n)
//
// A [Stream] walks the counter from zero; two streams with different purposes or indices never overlap.
package rng

import (
	"math"
	"math/bits"
)

// Purpose separates the streams of one seed. Values are part of every recorded run: append, never renumber.
type Purpose uint32

const (
	Swap       Purpose = 1  // uniforms of swap decisions: (scan, ladder, pair)
	Explore    Purpose = 2  // device key of a chain block: (scan, shard, block)
	InitChains Purpose = 3  // first states of chains
	InitParams Purpose = 4  // initial weights: (parameter number)
	Dataset    Purpose = 5  // toy generators
	Shuffle    Purpose = 6  // order of the training rows: (epoch)
	Dequantise Purpose = 7  // dequantisation noise of file data
	Split      Purpose = 8  // train/test split
	Reference  Purpose = 9  // draws from the reference on rung 0
	Refill     Purpose = 10 // columns drawn anew (buffer.reinit)
	Buffer     Purpose = 11 // which columns of the replay buffer a scan works on
	DataNoise  Purpose = 12 // noise added to positives
	Evaluate   Purpose = 13 // random projections, held-out draws
	Sample     Purpose = 14 // coordinator sample
	Source     Purpose = 15 // noise rows that a transport loss pairs with the data: (step, shard)
	Coupling   Purpose = 16 // uniforms of a coupling that draws: (step, shard)
	LabelDrop  Purpose = 17 // labels replaced by the null label: (step, shard)
	LossDraws  Purpose = 18 // device key of a loss's own draws: (step, shard, block)
	LossChains Purpose = 19 // which rows the chains of energy matching start from: (step, shard)
	Classifier Purpose = 20 // weights and batches of the classifier that evaluates samples
	Parity     Purpose = 21 // coin of the stochastic even-odd schedule: (scan of the column, ladder)
)

const (
	mulA, mulB   = 0xD2511F53, 0xCD9E8D57
	weylA, weylB = 0x9E3779B9, 0xBB67AE85
)

// Philox4x32 is the Philox4x32-10 block function: 128 counter bits and 64 key bits give 128 random bits.
func Philox4x32(counter [4]uint32, key [2]uint32) [4]uint32 {
	c0, c1, c2, c3 := philox(counter[0], counter[1], counter[2], counter[3], key[0], key[1])
	return [4]uint32{c0, c1, c2, c3}
}

// philox works on variables, which the compiler keeps in registers; arrays it keeps in memory, at twice the time.
func philox(c0, c1, c2, c3, k0, k1 uint32) (uint32, uint32, uint32, uint32) {
	for range 10 {
		hi0, lo0 := bits.Mul32(mulA, c0)
		hi1, lo1 := bits.Mul32(mulB, c2)
		c0, c1, c2, c3 = hi1^c1^k0, lo1, hi0^c3^k1, lo0
		k0 += weylA
		k1 += weylB
	}
	return c0, c1, c2, c3
}

// Uint64 is one 64-bit draw at the counter (purpose, a, b, c) under seed. The indices a, b and c are what the purpose
// says: for Swap they are scan, ladder and pair. Indices a beyond 2^32 are folded into the key, so that scans never wrap.
func Uint64(seed uint64, purpose Purpose, a uint64, b, c uint32) uint64 {
	hi, lo, _, _ := at(seed, purpose, a, b, c)
	return uint64(hi)<<32 | uint64(lo)
}

// Uniform is a draw in (0, 1], never 0, so that its logarithm is finite. It has 53 random bits.
func Uniform(seed uint64, purpose Purpose, a uint64, b, c uint32) float64 {
	return open(Uint64(seed, purpose, a, b, c))
}

func at(seed uint64, purpose Purpose, a uint64, b, c uint32) (uint32, uint32, uint32, uint32) {
	return philox(uint32(a), b, c, uint32(purpose), uint32(seed), uint32(seed>>32)^uint32(a>>32)*weylA)
}

func open(u uint64) float64 { return float64(u>>11+1) * 0x1p-53 }

// Stream is a sequence of draws at the indices (purpose, a, b). It is a plain value: copy it to replay it.
type Stream struct {
	seed    uint64
	purpose Purpose
	a       uint64
	b       uint32
	block   uint32
	buf     [4]uint32
	left    int
	spare   float64
	has     bool
}

// New returns the stream of seed at (purpose, a, b).
func New(seed uint64, purpose Purpose, a uint64, b uint32) *Stream {
	return &Stream{seed: seed, purpose: purpose, a: a, b: b}
}

// Uint64 returns the next 64 random bits.
func (s *Stream) Uint64() uint64 {
	if s.left == 0 {
		s.buf[0], s.buf[1], s.buf[2], s.buf[3] = at(s.seed, s.purpose, s.a, s.b, s.block)
		s.block++
		s.left = 2
	}
	i := 2 * (2 - s.left)
	s.left--
	return uint64(s.buf[i])<<32 | uint64(s.buf[i+1])
}

// Float64 returns a uniform number in [0, 1).
func (s *Stream) Float64() float64 { return float64(s.Uint64()>>11) * 0x1p-53 }

// Normal returns a standard normal number (Box–Muller; both numbers of a pair are used).
func (s *Stream) Normal() float64 {
	if s.has {
		s.has = false
		return s.spare
	}
	r := math.Sqrt(-2 * math.Log(open(s.Uint64())))
	sin, cos := math.Sincos(2 * math.Pi * s.Float64())
	s.spare, s.has = r*sin, true
	return r * cos
}

// IntN returns a uniform integer in [0, n), without modulo bias. It panics if n <= 0.
func (s *Stream) IntN(n int) int {
	if n <= 0 {
		panic("rng: IntN of a number that is not positive")
	}
	for {
		hi, lo := bits.Mul64(s.Uint64(), uint64(n))
		if lo >= -uint64(n)%uint64(n) {
			return int(hi)
		}
	}
}

// Perm returns a uniform permutation of 0..n-1 (Fisher–Yates).
func (s *Stream) Perm(n int) []int {
	p := make([]int, n)
	for i := range p {
		j := s.IntN(i + 1)
		p[i] = p[j]
		p[j] = i
	}
	return p
}

// Normals fills a new slice with n standard normal numbers.
func (s *Stream) Normals(n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = s.Normal()
	}
	return out
}
