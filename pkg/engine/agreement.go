package engine

import (
	"fmt"
	"math"

	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// agreement is what all processes of a group must have alike, as hashes. Each computes for itself what follows from the same
// energies; should two ever come to something else, a run would go on with numbers that mean nothing. So every shard's
// energies carry the hash of what they were made from, and the lead compares it with its own.
type agreement struct{ theta, ladder, tables, reference fnv }

// fnv is a running 64-bit FNV-1a hash over words: by bytes it would take longer than SHA-256 does.
type fnv uint64

const fnvStart fnv = 0xcbf29ce484222325

func (h fnv) add(words ...uint64) fnv {
	for _, w := range words {
		h = (h ^ fnv(w)) * 0x100000001b3
	}
	return h
}

func (h fnv) floats(v []float32) fnv {
	h = h.add(uint64(len(v)))
	for _, x := range v {
		h = h.add(uint64(math.Float32bits(x)))
	}
	return h
}

func (h fnv) doubles(v []float64) fnv {
	h = h.add(uint64(len(v)))
	for _, x := range v {
		h = h.add(math.Float64bits(x))
	}
	return h
}

func (a *agreement) setTheta(theta []float32) { a.theta = fnvStart.floats(theta) }

func (a *agreement) setLadder(betas, stepSizes []float64) {
	a.ladder = fnvStart.doubles(betas).doubles(stepSizes)
}

func (a *agreement) setTables(steps, noise []float64) {
	a.tables = fnvStart.doubles(steps).doubles(noise)
}

func (a *agreement) setReference(q models.Gaussian) {
	a.reference = fnvStart.doubles(q.Mean).doubles(q.Std)
}

// hash is that of all that a scan is made from, but for the states: parameters, ladder, step sizes, reference, the scan's
// number and the permutation before it.
func (a *agreement) hash(scan uint64, perm []int32) uint64 {
	h := fnvStart.add(uint64(a.theta), uint64(a.ladder), uint64(a.tables), uint64(a.reference), scan, uint64(len(perm)))
	for _, from := range perm {
		h = h.add(uint64(from))
	}
	return uint64(h)
}

// hashWords is the number of float32 whose bits carry a hash behind the numbers of a blob, the low half first.
const hashWords = 2

func appendHash(v []float32, hash uint64) []float32 {
	return append(v, math.Float32frombits(uint32(hash)), math.Float32frombits(uint32(hash>>32)))
}

// cutHash is v without the hash at its end, and that hash.
func cutHash(v []float32) ([]float32, uint64) {
	n := len(v) - hashWords
	return v[:n], uint64(math.Float32bits(v[n])) | uint64(math.Float32bits(v[n+1]))<<32
}

// disagreement is the error of a shard whose energies were made from something else than the lead's. It is a fault of the
// program or of a machine: no other try would mend it.
func disagreement(scan uint64, shard uint32, hash uint64, lead uint32, want uint64) error {
	return fmt.Errorf("engine: scan %d: shard %d goes on from parameters, ladder, step sizes and swaps with hash %016x, want %016x, that of the lead, shard %d: their processes have come apart",
		scan, shard, hash, want, lead)
}
