package diagnostics

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/floats"
)

// ModeCoverage says which modes of a law samples reach, and in which proportions.
type ModeCoverage struct {
	Modes  int     // number of modes
	Hit    int     // modes with at least one sample
	Counts []int   // samples at each mode, [Modes]
	Inside float64 // share of the samples at some mode
	// TV is the total variation distance of the shares from the weights, with the samples at no mode as one more class of
	// weight 0: 0 is perfect, 1 − max(weights) is a sampler stuck in the heaviest mode.
	TV float64
}

// Coverage counts samples [n, dim] at modes, each [dim]: a sample belongs to its nearest mode, if that is no further away
// than radius. weights are the modes' probabilities; nil is all equal.
func Coverage(samples []float64, modes [][]float64, weights []float64, radius float64) (ModeCoverage, error) {
	fail := func(err error) (ModeCoverage, error) {
		return ModeCoverage{}, fmt.Errorf("diagnostics: mode coverage: %w", err)
	}
	if len(modes) == 0 {
		return fail(fmt.Errorf("no modes, want at least one"))
	}
	dim := len(modes[0])
	for k, m := range modes {
		if len(m) != dim {
			return fail(fmt.Errorf("mode %d has %d coordinates, want %d as mode 0", k, len(m), dim))
		}
	}
	if !(radius > 0) {
		return fail(fmt.Errorf("radius %g, want a positive number", radius))
	}
	if weights == nil {
		weights = make([]float64, len(modes))
		floats.AddConst(1/float64(len(modes)), weights)
	}
	if len(weights) != len(modes) || math.Abs(floats.Sum(weights)-1) > 1e-6 || floats.Min(weights) < 0 {
		return fail(fmt.Errorf("%d weights for %d modes with sum %g, want one a mode, none negative, with sum 1", len(weights), len(modes), floats.Sum(weights)))
	}
	if err := checkRows("samples", samples, dim, 1); err != nil {
		return fail(err)
	}
	n := len(samples) / dim
	out := ModeCoverage{Modes: len(modes), Counts: make([]int, len(modes))}
	inside := 0
	for i := range n {
		nearest, best := -1, math.Inf(1)
		for k, m := range modes {
			d := 0.0
			for a, v := range m {
				d += (samples[i*dim+a] - v) * (samples[i*dim+a] - v)
			}
			if d < best {
				nearest, best = k, d
			}
		}
		if best <= radius*radius {
			out.Counts[nearest]++
			inside++
		}
	}
	out.Inside = float64(inside) / float64(n)
	out.TV = (1 - out.Inside) / 2
	for k, c := range out.Counts {
		if c > 0 {
			out.Hit++
		}
		out.TV += math.Abs(float64(c)/float64(n)-weights[k]) / 2
	}
	return out, nil
}
