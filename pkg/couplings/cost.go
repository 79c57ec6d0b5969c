package couplings

import (
	"fmt"
	"math"
	"runtime"
	"sync"
)

// Cost is |x₀ᵢ − x₁ⱼ|² [n, n], row-major, divided by its largest entry: what a coupling makes small. The scale of the data
// drops out, so that a regularisation means the same on any data. Rows that are all equal cost 0.
func Cost(x0, x1 []float64, dim int) ([]float64, error) {
	n, err := check(x0, x1, dim)
	if err != nil {
		return nil, fmt.Errorf("couplings: %w", err)
	}
	cost := make([]float64, n*n)
	eachRow(n, func(i int) {
		a, row := x0[i*dim:(i+1)*dim], cost[i*n:(i+1)*n]
		for j := range row {
			b := x1[j*dim : (j+1)*dim]
			sum := 0.0
			for k, v := range a {
				d := v - b[k]
				sum += d * d
			}
			row[j] = sum
		}
	})
	largest := 0.0
	for at, c := range cost {
		if math.IsInf(c, 1) {
			return nil, fmt.Errorf("couplings: the distance of noise row %d and data row %d overflows, want smaller numbers", at/n, at%n)
		}
		largest = max(largest, c)
	}
	for at := range cost {
		cost[at] /= max(largest, 1e-12)
	}
	return cost, nil
}

// eachRow runs a function of a row number on all cores. Every row is computed whole by one of them, so the bits do not
// depend on how many there are.
func eachRow(n int, f func(i int)) {
	workers := min(runtime.GOMAXPROCS(0), n/32+1) // few rows are not worth a goroutine
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				f(i)
			}
		})
	}
	wg.Wait()
}
