package models

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Known is implemented by energies that can be checked against the truth.
type Known interface {
	Known() Facts
}

// Facts are what is known of an energy and its law p = exp(−E)/Z, in closed form or by quadrature to about 1e-10.
// A nil field is unknown, or too long to list. The caller owns the slices.
type Facts struct {
	Minima    [][]float64 // all global minima
	MinEnergy *float64    // their energy
	Mean      []float64   // E[x], by coordinate
	Variance  []float64   // Var[x], by coordinate
	LogZ      *float64    // log ∫ exp(−E); 0 for a normalised energy
	Modes     [][]float64 // centres of the modes of p
	Weights   []float64   // mass of each mode; in a double well that of its orthant
}

// maxListed bounds the minima that Facts lists: a double well has 2^dim.
const maxListed = 1024

// marginal is the law of one coordinate of an energy that is a sum over coordinates.
type marginal struct {
	logZ, mean, variance float64
	above                float64 // P(x > 0)
}

// integrate finds the law of exp(−energy) on the line, for a smooth energy that grows at both ends. The trapezoidal
// rule converges faster than any power of the spacing here; it is refined until two passes agree. ok is false where they
// do not, as for wells much narrower than the distance between them.
func integrate(energy func(x float64) float64) (m marginal, ok bool) {
	const enough = 60 // exp(−60) is nothing beside 1 in float64
	lowest := func(r float64) float64 {
		low := math.Inf(1)
		for i := range 4001 {
			low = min(low, energy(r*(float64(i)/2000-1)))
		}
		return low
	}
	r, low := 1.0, 0.0
	for {
		low = lowest(r)
		if energy(r)-low > enough && energy(-r)-low > enough {
			break
		}
		if r *= 2; r > 1e9 {
			return m, false
		}
	}
	for n := 1 << 12; n <= 1<<21; n *= 2 {
		next := trapezoid(energy, r, low, n)
		if n > 1<<12 && close13(next.logZ, m.logZ) && close13(next.mean, m.mean) && close13(next.variance, m.variance) {
			return next, true
		}
		m = next
	}
	return m, false
}

func close13(a, b float64) bool { return math.Abs(a-b) <= 1e-13*(1+math.Abs(b)) }

func trapezoid(energy func(float64) float64, r, low float64, n int) marginal {
	h := 2 * r / float64(n)
	var z, zx, zxx, above float64
	for i := range n + 1 {
		x := h * (float64(i) - float64(n)/2) // symmetric about 0, and 0 is a point
		w := math.Exp(low - energy(x))
		z += w
		zx += w * x
		zxx += w * x * x
		switch {
		case x > 0:
			above += w
		case x == 0: // half of it, and the next term of Euler and Maclaurin, the slope
			slope := (math.Exp(low-energy(h)) - math.Exp(low-energy(-h))) / 2
			above += w/2 + slope/12
		}
	}
	mean := zx / z
	return marginal{math.Log(z*h) - low, mean, zxx/z - mean*mean, above / z}
}

// product gives the facts of a sum over dim coordinates of one energy: the minima of one coordinate, their energy and
// its law, if known. The wells are told apart by the sign of x.
func product(dim int, minima []float64, minEnergy float64, m *marginal, wells []float64) Facts {
	f := Facts{Minima: power(minima, dim), MinEnergy: new(float64(dim) * minEnergy)}
	if m == nil {
		return f
	}
	f.LogZ = new(float64(dim) * m.logZ)
	for range dim {
		f.Mean = append(f.Mean, m.mean)
		f.Variance = append(f.Variance, m.variance)
	}
	f.Modes = power(wells, dim)
	for _, mode := range f.Modes {
		w := 1.0
		for _, x := range mode {
			if len(wells) < 2 {
				continue
			}
			if x > 0 {
				w *= m.above
			} else {
				w *= 1 - m.above
			}
		}
		f.Weights = append(f.Weights, w)
	}
	return f
}

// power lists the points whose coordinates are all taken from values; nil where they are too many.
func power(values []float64, dim int) [][]float64 {
	if len(values) == 0 || float64(dim)*math.Log(float64(len(values))) > math.Log(maxListed)+1e-9 {
		return nil
	}
	points := [][]float64{{}}
	for range dim {
		var next [][]float64
		for _, p := range points {
			for _, v := range values {
				next = append(next, append(append([]float64{}, p...), v))
			}
		}
		points = next
	}
	return points
}

// repeat is a vector of dim equal numbers.
func repeat(v float64, dim int) []float64 {
	out := make([]float64, dim)
	for i := range out {
		out[i] = v
	}
	return out
}

// faults collects what is wrong with the parameters of an energy.
type faults []error

func (f *faults) add(key, format string, args ...any) {
	*f = append(*f, fmt.Errorf("%s: "+format, append([]any{key}, args...)...))
}

func (f *faults) dim(dim, least int) {
	if dim < least {
		f.add("dim", "%d, want at least %d", dim, least)
	}
}

func (f *faults) positive(key string, v float64) {
	if !(v > 0) || math.IsInf(v, 0) {
		f.add(key, "%g, want a positive number", v)
	}
}

func (f *faults) finite(key string, v float64) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		f.add(key, "%g, want a finite number", v)
	}
}

func (f faults) err() error { return errors.Join(f...) }

func (f Facts) clone() Facts {
	points := func(p [][]float64) [][]float64 {
		var out [][]float64
		for _, v := range p {
			out = append(out, slices.Clone(v))
		}
		return out
	}
	number := func(v *float64) *float64 {
		if v == nil {
			return nil
		}
		return new(*v)
	}
	return Facts{points(f.Minima), number(f.MinEnergy), slices.Clone(f.Mean), slices.Clone(f.Variance), number(f.LogZ),
		points(f.Modes), slices.Clone(f.Weights)}
}
