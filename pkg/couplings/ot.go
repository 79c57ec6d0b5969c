package couplings

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/floats"
)

// ExactOT gives every noise row a data row of its own so that the sum of the squared distances is the smallest possible:
// optimal transport between the two batches (Pooladian et al., "Multisample flow matching", 2023; Tong et al., "Improving
// and generalizing flow-based generative models with minibatch optimal transport", 2024). It takes up to n³ steps.
type ExactOT struct{}

// Pair implements Coupling.
func (ExactOT) Pair(x0, x1 []float64, dim int, _ func() float64) (Pairing, error) {
	if _, err := check(x0, x1, dim); err != nil {
		return Pairing{}, fmt.Errorf("couplings: %w", err)
	}
	cost, err := Cost(standardised(x0, dim), standardised(x1, dim), dim)
	if err != nil {
		return Pairing{}, err
	}
	index, _, _ := assign(cost, len(x0)/dim)
	return Pairing{Index: index}, nil
}

// standardised rows have mean 0 and mean square 1. Of Σ |x₀ᵢ − x₁ⱼ|² only −2Σ x₀ᵢ·x₁ⱼ depends on the permutation, and of
// that only a factor on the means and scales: the best permutation stays the best. On one place and scale most rows find
// their partners at once, and distances do not lose their digits to a common offset.
func standardised(rows []float64, dim int) []float64 {
	n := float64(len(rows) / dim)
	out, mean := make([]float64, len(rows)), make([]float64, dim)
	for i, v := range rows {
		mean[i%dim] += v / n
	}
	for i, v := range rows {
		out[i] = v - mean[i%dim]
	}
	if scale := floats.Norm(out, 2) / math.Sqrt(float64(len(out))); scale > 0 {
		floats.Scale(1/scale, out)
	}
	return out
}

// Greedy takes the closest pair, then the closest of the rest, and so on: every data row once, n² log n steps, no
// optimum. Of equal distances the lowest noise row comes first, then the lowest data row.
type Greedy struct{}

// Pair implements Coupling.
func (Greedy) Pair(x0, x1 []float64, dim int, _ func() float64) (Pairing, error) {
	cost, err := Cost(x0, x1, dim)
	if err != nil {
		return Pairing{}, err
	}
	n := len(x0) / dim
	order := identity(n * n)
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(cost[a], cost[b]), cmp.Compare(a, b))
	})
	index, taken := filled(n, -1), make([]bool, n)
	for _, at := range order {
		if i, j := at/n, at%n; index[i] < 0 && !taken[j] {
			index[i], taken[j] = j, true
		}
	}
	return Pairing{Index: index}, nil
}
