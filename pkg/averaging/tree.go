package averaging

import (
	"fmt"
	"math/bits"
)

// tile is the number of elements that are summed at a time, so that partial sums stay in the cache. It is a multiple
// of scaleBlock.
const tile = 1024

// A term is one vector of a sum. read returns its elements [from, from+len(buf)), in buf or in memory of its own.
type term interface {
	read(buf []float32, from int) []float32
}

type plain []float32

func (p plain) read(buf []float32, from int) []float32 { return p[from : from+len(buf)] }

// Sum writes Σ_i vectors[i] to dst, [n]. The index is the id of a group or shard; nil is one that is missing.
//
// The order of the additions is that of a binary tree fixed over the ids: the node of level l and number k adds the
// ids from k·2^l to (k+1)·2^l − 1, the lower half to the upper; an empty half is left out. So the bits depend on who is
// there and on nothing else. Partial sums are float64, and each element is rounded to float32 once.
func Sum(dst []float32, vectors [][]float32) {
	weights := make([]float64, len(vectors))
	for i := range weights {
		weights[i] = 1
	}
	newTree(plains(len(dst), vectors), weights).sum(dst, 1)
}

// Mean writes Σ_i w_i·vectors[i] / Σ_i w_i to dst, [n], in the tree of [Sum]. Without weights all count the same; with
// them a vector of weight 0 counts nothing, unless all weigh 0: then all count the same. Weights are numbers of chains
// on the target rung, so that the mean is over negatives, not over groups.
//
// The mean of equal vectors is that vector, bit for bit, for weights whose sum is below 2^29. Without a vector the
// result is an error.
func Mean(dst []float32, vectors [][]float32, weights []int) error {
	return meanOf(dst, plains(len(dst), vectors), weights)
}

func meanOf(dst []float32, terms []term, weights []int) error {
	if weights != nil && len(weights) != len(terms) {
		panic(fmt.Sprintf("averaging: mean of %d vectors with %d weights", len(terms), len(weights)))
	}
	w := make([]float64, len(terms))
	var total float64
	for i := range weights {
		if weights[i] < 0 {
			return fmt.Errorf("averaging: mean: weight %d of vector %d, want 0 or more", weights[i], i)
		}
		if terms[i] != nil {
			w[i] = float64(weights[i])
			total += w[i]
		}
	}
	if total == 0 {
		for i := range terms {
			if terms[i] != nil {
				w[i] = 1
				total++
			}
		}
	}
	if total == 0 {
		return fmt.Errorf("averaging: mean: none of %d vectors is there, want at least one", len(terms))
	}
	newTree(terms, w).sum(dst, total)
	return nil
}

func plains(n int, vectors [][]float32) []term {
	terms := make([]term, len(vectors))
	for i, v := range vectors {
		if v == nil {
			continue
		}
		if len(v) != n {
			panic(fmt.Sprintf("averaging: vector %d has %d elements, want %d", i, len(v), n))
		}
		terms[i] = plain(v)
	}
	return terms
}

// tree sums terms tile by tile.
type tree struct {
	terms   []term
	weights []float64
	buf     []float32   // [tile], decoded elements
	partial [][]float64 // by level, [tile]
}

func newTree(terms []term, weights []float64) *tree {
	t := &tree{terms: terms, weights: weights, buf: make([]float32, tile)}
	for range bits.Len(uint(max(len(terms), 1)-1)) + 1 {
		t.partial = append(t.partial, make([]float64, tile))
	}
	return t
}

// sum writes the weighted sum over total to dst.
func (t *tree) sum(dst []float32, total float64) {
	top := len(t.partial) - 1
	for from := 0; from < len(dst); from += tile {
		out := dst[from:min(from+tile, len(dst))]
		if !t.node(top, 0, from, len(out)) {
			clear(out)
			continue
		}
		for i, s := range t.partial[top][:len(out)] {
			out[i] = float32(s / total)
		}
	}
}

// node leaves the sum over the ids from id on, 2^level of them, in partial[level][:n], and says whether there was any.
func (t *tree) node(level, id, from, n int) bool {
	if id >= len(t.terms) {
		return false
	}
	if level == 0 {
		w := t.weights[id]
		if t.terms[id] == nil || w == 0 {
			return false
		}
		out := t.partial[0][:n]
		for i, v := range t.terms[id].read(t.buf[:n], from)[:n] {
			out[i] = w * float64(v)
		}
		return true
	}
	lower := t.node(level-1, id, from, n)
	t.lift(level) // out of the way of the upper half
	upper := t.node(level-1, id+1<<(level-1), from, n)
	switch {
	case !upper:
		return lower
	case !lower:
		t.lift(level)
		return true
	}
	out := t.partial[level][:n]
	for i, v := range t.partial[level-1][:n] {
		out[i] += v
	}
	return true
}

// lift moves a partial sum one level up, by exchange.
func (t *tree) lift(level int) {
	t.partial[level], t.partial[level-1] = t.partial[level-1], t.partial[level]
}
