package datasets

import (
	"fmt"
	"sync"

	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
)

// Batcher says which rows make up the batch of a step. Epochs, each shuffled by the counter (seed, epoch), are strung
// together and cut into batches of one size, so a batch may straddle two epochs and no row is ever left out. The answer
// depends on the step alone: a run can go on from any step, and several processes agree without talking.
//
// A Batcher is safe for use by several goroutines, and copies of it share the permutations that it keeps.
type Batcher struct {
	n, batch int
	seed     uint64
	cache    *permutations
}

type permutations struct {
	mu    sync.Mutex
	epoch [2]int // the epochs of perm, by parity; -1 where there is none
	perm  [2][]int
}

// NewBatcher returns the batcher of n rows in batches of the given size, which may exceed n. It panics unless both are
// at least 1.
func NewBatcher(n, batch int, seed uint64) Batcher {
	if n < 1 || batch < 1 {
		panic(fmt.Sprintf("datasets: batches of %d out of %d rows, want at least 1 of 1", batch, n))
	}
	return Batcher{n, batch, seed, &permutations{epoch: [2]int{-1, -1}}}
}

// Indices are the rows of the batch of step ≥ 0, as many as the batch is large. The slice is the caller's.
func (b Batcher) Indices(step int) []int {
	out := make([]int, 0, b.batch)
	for at := step * b.batch; len(out) < b.batch; {
		order := b.order(at / b.n)
		part := order[at%b.n:]
		part = part[:min(len(part), b.batch-len(out))]
		out = append(out, part...)
		at += len(part)
	}
	return out
}

// Epoch is the epoch that the first row of the batch of step belongs to, counted from 0.
func (b Batcher) Epoch(step int) int { return step * b.batch / b.n }

// Steps is the number of steps that show every row at least the given number of times.
func (b Batcher) Steps(epochs int) int { return (epochs*b.n + b.batch - 1) / b.batch }

// order is the permutation of an epoch. The last even and the last odd one are kept: what a straddling batch needs.
func (b Batcher) order(epoch int) []int {
	b.cache.mu.Lock()
	defer b.cache.mu.Unlock()
	slot := epoch % 2
	if b.cache.epoch[slot] != epoch {
		b.cache.perm[slot] = rng.New(b.seed, rng.Shuffle, uint64(epoch), 0).Perm(b.n)
		b.cache.epoch[slot] = epoch
	}
	return b.cache.perm[slot]
}
