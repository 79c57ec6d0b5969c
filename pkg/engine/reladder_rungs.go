package engine

import (
	"math"
	"slices"
	"sort"
)

// source is the rung of the old ladder whose states a rung of the new one starts from; copied, if another rung keeps them.
type source struct {
	rung   int
	copied bool
}

// sources are those of all rungs of a ladder, hottest first.
func sources(old, betas []float64) []source {
	at := make([]float64, len(betas)) // along the old ladder, in rungs
	for j, beta := range betas {
		rung, part := place(old, beta)
		at[j] = float64(rung) + part
	}
	rungs := make([]float64, len(old))
	for i := range rungs {
		rungs[i] = float64(i)
	}
	out := make([]source, len(betas))
	if len(betas) <= len(old) {
		for j, i := range paired(at, rungs) {
			out[j].rung = i
		}
		return out
	}
	keeps := paired(rungs, at)
	for j := range out {
		if i, kept := slices.BinarySearch(keeps, j); kept {
			out[j].rung = i
		} else { // rung 0 keeps that of the old ladder
			out[j] = source{out[j-1].rung, true}
		}
	}
	return out
}

// paired gives every number of few one of many, in order and each at most once: the first the first, the last the last, and
// the others so that the distances of the pairs sum up to the least. Both increase, and few has no more numbers than many, at
// least 2.
func paired(few, many []float64) []int {
	a, b := few[1:len(few)-1], many[1:len(many)-1]
	cost := make([][]float64, len(a)+1) // [i][j] is the least of the first i of a with the first j of b
	for i := range cost {
		cost[i] = make([]float64, len(b)+1)
		for j := range cost[i] {
			switch {
			case i == 0:
			case j < i:
				cost[i][j] = math.Inf(1)
			default:
				cost[i][j] = min(cost[i][j-1], cost[i-1][j-1]+math.Abs(a[i-1]-b[j-1]))
			}
		}
	}
	out := make([]int, len(few))
	out[len(out)-1] = len(many) - 1
	for i, j := len(a), len(b); i > 0; j-- {
		if cost[i][j] != cost[i][j-1] {
			out[i] = j // the place in many, whose first is not in b
			i--
		}
	}
	return out
}

// place finds β between rung and rung+1 of a ladder, a part in [0, 1] of the way in ln β, or in β above a rung of β = 0.
func place(betas []float64, beta float64) (rung int, part float64) {
	above := sort.Search(len(betas), func(i int) bool { return betas[i] > beta })
	rung = min(max(above-1, 0), len(betas)-2)
	low, high := betas[rung], betas[rung+1]
	if low == 0 {
		part = beta / high
	} else {
		part = math.Log(beta/low) / math.Log(high/low)
	}
	return rung, min(max(part, 0), 1)
}

// spread is a ladder of so many rungs at equal distances along another one, as place measures them.
func spread(betas []float64, rungs int) []float64 {
	n := len(betas) - 1
	out := make([]float64, rungs)
	for j := range rungs - 1 {
		at := float64(j) * float64(n) / float64(rungs-1)
		rung := min(int(at), n-1)
		low, high, part := betas[rung], betas[rung+1], at-float64(rung)
		if low == 0 {
			out[j] = part * high
		} else {
			out[j] = low * math.Pow(high/low, part)
		}
	}
	out[rungs-1] = betas[n]
	return out
}

// interpolated are the values of a ladder's rungs on another one. A rung of β = 0 is drawn anew at every scan, without a step
// size: the rungs behind it do not listen to it.
func interpolated(old, values, betas []float64) []float64 {
	out := make([]float64, len(betas))
	for j, beta := range betas {
		rung, part := place(old, beta)
		if beta > 0 && old[rung] == 0 {
			part = 1
		}
		out[j] = float64((1-part)*values[rung]) + float64(part*values[rung+1])
	}
	return out
}
