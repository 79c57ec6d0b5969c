package couplings

import (
	"errors"
	"fmt"
	"math"

	"gonum.org/v1/gonum/floats"
)

// Sinkhorn draws each noise row's data row from the plan of entropic optimal transport, the P [n, n] with row and column
// sums 1/n that makes Σ P·cost + reg Σ P log P smallest (Cuturi, "Sinkhorn distances", 2013). A data row may be drawn
// twice, and others not at all. As reg → 0 the plan becomes that of ExactOT, as reg → ∞ independent.
type Sinkhorn struct {
	reg        float64
	damping    float64 // ρ/(ρ + reg); 1 holds the marginals
	iterations int
	weighted   bool
}

// NewSinkhorn returns the coupling with entropic regularisation reg, in units of the largest squared distance of a batch,
// after a number of rounds of Sinkhorn's iteration.
func NewSinkhorn(reg float64, iterations int) (*Sinkhorn, error) {
	if err := checkSinkhorn(reg, 1, iterations); err != nil {
		return nil, err
	}
	return &Sinkhorn{reg: reg, damping: 1, iterations: iterations}, nil
}

// NewUnbalancedSinkhorn returns the coupling whose marginals may differ from 1/n at a price: regMarginal times their
// Kullback–Leibler divergence (Chizat et al., "Scaling algorithms for unbalanced optimal transport problems", 2018). Noise
// rows far from all data lose mass, and the mass of a row, over the mean, is its weight: outliers count for less.
func NewUnbalancedSinkhorn(reg, regMarginal float64, iterations int) (*Sinkhorn, error) {
	if err := checkSinkhorn(reg, regMarginal, iterations); err != nil {
		return nil, err
	}
	return &Sinkhorn{reg: reg, damping: regMarginal / (regMarginal + reg), iterations: iterations, weighted: true}, nil
}

func checkSinkhorn(reg, regMarginal float64, iterations int) error {
	var errs []error
	positive := func(key string, v float64) {
		if !(v > 0) || math.IsInf(v, 1) {
			errs = append(errs, fmt.Errorf("%s: %g, want a finite number above 0", key, v))
		}
	}
	positive("reg", reg)
	positive("reg_marginal", regMarginal)
	if iterations < 1 {
		errs = append(errs, fmt.Errorf("iterations: %d, want at least 1", iterations))
	}
	return errors.Join(errs...)
}

// Pair implements Coupling. Row i gets the smallest j for which the sum of its plan up to j, over the whole row, exceeds u.
func (s *Sinkhorn) Pair(x0, x1 []float64, dim int, u func() float64) (Pairing, error) {
	cost, err := Cost(x0, x1, dim)
	if err != nil {
		return Pairing{}, err
	}
	n := len(x0) / dim
	logPlan := s.logPlan(cost, n)
	out := Pairing{Index: make([]int, n)}
	logMass := make([]float64, n)
	for i := range n {
		row := logPlan[i*n : (i+1)*n]
		// Relative to the row's own mass, which may underflow.
		logMass[i] = floats.LogSumExp(row)
		out.Index[i] = draw(row, logMass[i], u())
	}
	if s.weighted {
		total := floats.LogSumExp(logMass)
		out.Weights = make([]float64, n)
		for i, m := range logMass {
			out.Weights[i] = float64(n) * math.Exp(m-total)
		}
	}
	return out, nil
}

// draw inverts the cumulative sum of exp(row − logMass) at u.
func draw(row []float64, logMass, u float64) int {
	sum, last := 0.0, 0
	for j, l := range row {
		p := math.Exp(l - logMass)
		if sum += p; sum > u {
			return j
		}
		if p > 0 {
			last = j
		}
	}
	return last // the sum fell short of 1 by rounding
}

// Plan is the transport plan [n, n] between the rows x0 and x1, as far as the iterations bring it: the columns of the
// balanced plan sum to 1/n, its rows nearly.
func (s *Sinkhorn) Plan(x0, x1 []float64, dim int) ([]float64, error) {
	cost, err := Cost(x0, x1, dim)
	if err != nil {
		return nil, err
	}
	plan := s.logPlan(cost, len(x0)/dim)
	for at, l := range plan {
		plan[at] = math.Exp(l)
	}
	return plan, nil
}

// logPlan is −cost/reg + fᵢ + gⱼ, where f and g in turn make the rows and the columns sum to 1/n.
func (s *Sinkhorn) logPlan(cost []float64, n int) []float64 {
	kernel, transposed := make([]float64, n*n), make([]float64, n*n)
	for at, c := range cost {
		kernel[at] = -c / s.reg
		transposed[at%n*n+at/n] = kernel[at]
	}
	f, g := make([]float64, n), make([]float64, n)
	logN := math.Log(float64(n))
	update := func(out, kernel, other []float64) {
		eachRow(n, func(i int) {
			out[i] = s.damping * (-logN - logSumExpOf(kernel[i*n:(i+1)*n], other))
		})
	}
	for range s.iterations {
		update(f, kernel, g)
		update(g, transposed, f)
	}
	for at := range kernel {
		kernel[at] += f[at/n] + g[at%n]
	}
	return kernel
}

// logSumExpOf is log Σ exp(a + b).
func logSumExpOf(a, b []float64) float64 {
	largest := math.Inf(-1)
	for j, v := range a {
		largest = max(largest, v+b[j])
	}
	sum := 0.0
	for j, v := range a {
		sum += math.Exp(v + b[j] - largest)
	}
	return largest + math.Log(sum)
}
