package diagnostics

import (
	"fmt"
	"math"
	"slices"

	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"

	"gonum.org/v1/gonum/floats"
)

// Indices of the draws of this package under rng.Evaluate.
const (
	drawSamples = iota
	drawData
	drawProjection
	drawHalves
)

// MMDOptions are the settings of MMD2. The zero value has the defaults.
type MMDOptions struct {
	Seed      uint64  // of the choice of rows
	MaxRows   int     // rows of each set that are used, chosen by counter where there are more; 2000 by default
	Bandwidth float64 // h of the kernel; by default the median distance of two data rows
}

// MMD is a maximum mean discrepancy.
type MMD struct {
	Squared   float64    // the unbiased estimate of MMD²; may be a little below zero for equal laws
	NullSD    float64    // its standard deviation if both sets followed the law of the data
	Bandwidth float64    // h
	Rows      [2]int     // rows used of samples and data
	Factors   [5]float64 // the kernel is the mean of exp(−d²/2(f·h)²) over these f
}

// MMD2 is the squared maximum mean discrepancy of samples [n, dim] from data [m, dim] (Gretton et al., "A kernel
// two-sample test", JMLR 2012, the unbiased estimate of lemma 6).
//
// The kernel is the mean of five Gaussian ones with bandwidths h/4, h/2, h, 2h and 4h, and h is the median distance of
// two different data rows (of 1000 of them, if there are more). So the kernel depends on the data alone, and numbers of several models on
// the same data can be compared. Values within two or three NullSD of zero are what equal laws give.
func MMD2(samples, data []float64, dim int, o MMDOptions) (MMD, error) {
	fail := func(err error) (MMD, error) { return MMD{}, fmt.Errorf("diagnostics: mmd: %w", err) }
	if o.MaxRows == 0 {
		o.MaxRows = 2000
	}
	if o.MaxRows < 2 || !(o.Bandwidth >= 0) || math.IsInf(o.Bandwidth, 1) {
		return fail(fmt.Errorf("max rows %d and bandwidth %g, want at least 2 and a finite positive number", o.MaxRows, o.Bandwidth))
	}
	if err := checkRows("samples", samples, dim, 2); err != nil {
		return fail(err)
	}
	if err := checkRows("data", data, dim, 2); err != nil {
		return fail(err)
	}
	x := subset(samples, dim, o.MaxRows, rng.New(o.Seed, rng.Evaluate, drawSamples, 0))
	y := subset(data, dim, o.MaxRows, rng.New(o.Seed, rng.Evaluate, drawData, 0))
	h := o.Bandwidth
	if h == 0 {
		if h = medianDistance(y[:min(len(y), 1000)]); h == 0 {
			return fail(fmt.Errorf("more than half of the pairs of data rows coincide, want a bandwidth"))
		}
	}
	m, n := float64(len(x)), float64(len(y))
	out := MMD{Bandwidth: h, Rows: [2]int{len(x), len(y)}, Factors: [5]float64{0.25, 0.5, 1, 2, 4}}
	xx, xy := 0.0, 0.0
	for i := range x {
		for j := range i {
			xx += 2 * kernel(x[i], x[j], h)
		}
		for j := range y {
			xy += kernel(x[i], y[j], h)
		}
	}
	// The data's own kernel matrix, kept whole: its centred form gives the variance under equal laws.
	gram := make([]float64, len(y)*len(y))
	means := make([]float64, len(y))
	yy := 0.0
	for i := range y {
		gram[i*len(y)+i] = 1
		means[i] += 1 / n
		for j := range i {
			k := kernel(y[i], y[j], h)
			gram[i*len(y)+j] = k
			means[i] += k / n
			means[j] += k / n
			yy += 2 * k
		}
	}
	out.Squared = xx/(m*(m-1)) + yy/(n*(n-1)) - 2*xy/(m*n)
	grand := floats.Sum(means) / n
	square := 0.0
	for i := range y {
		for j := range i {
			c := gram[i*len(y)+j] - means[i] - means[j] + grand
			square += 2 * c * c
		}
	}
	square /= n * (n - 1)
	out.NullSD = math.Sqrt(2 * square * (1/(m*(m-1)) + 1/(n*(n-1)) + 2/(m*n)))
	return out, nil
}

// kernel is the mean of the five Gaussians. Each is the fourth power of the next wider one.
func kernel(a, b []float64, h float64) float64 {
	d2 := 0.0
	for i, v := range a {
		d2 += (v - b[i]) * (v - b[i])
	}
	k := math.Exp(-d2 / (32 * h * h))
	sum := k
	for range 4 {
		k *= k
		k *= k
		sum += k
	}
	return sum / 5
}

// subset is at most n rows of a table, chosen by the stream, each as a slice of it.
func subset(rows []float64, dim, n int, s *rng.Stream) [][]float64 {
	total := len(rows) / dim
	order := make([]int, total)
	for i := range order {
		order[i] = i
	}
	if total > n {
		order = s.Perm(total)[:n]
	}
	out := make([][]float64, len(order))
	for i, j := range order {
		out[i] = rows[j*dim : (j+1)*dim]
	}
	return out
}

func medianDistance(rows [][]float64) float64 {
	d := make([]float64, 0, len(rows)*(len(rows)-1)/2)
	for i := range rows {
		for j := range i {
			d = append(d, floats.Distance(rows[i], rows[j], 2))
		}
	}
	slices.Sort(d)
	return d[len(d)/2]
}

// SlicedOptions are the settings of SlicedWasserstein. The zero value has the defaults.
type SlicedOptions struct {
	Seed        uint64 // of the directions
	Projections int    // number of directions; 256 by default
}

// Sliced is a pair of sliced Wasserstein distances.
type Sliced struct {
	W1          float64 // mean over the directions of the 1-Wasserstein distance of the projections
	W2          float64 // root of the mean of the squared 2-Wasserstein distance
	Projections int
}

// SlicedWasserstein compares samples [n, dim] with data [m, dim] along random directions (Bonneel et al., "Sliced and
// Radon Wasserstein barycenters of measures", 2015). Along a direction the distance is exact, for unequal numbers of rows
// too. Both numbers are in the unit of the data; finite sets of one law are about n^−½ apart.
func SlicedWasserstein(samples, data []float64, dim int, o SlicedOptions) (Sliced, error) {
	fail := func(err error) (Sliced, error) {
		return Sliced{}, fmt.Errorf("diagnostics: sliced wasserstein: %w", err)
	}
	if o.Projections == 0 {
		o.Projections = 256
	}
	if o.Projections < 0 {
		return fail(fmt.Errorf("%d projections, want at least 1", o.Projections))
	}
	if err := checkRows("samples", samples, dim, 1); err != nil {
		return fail(err)
	}
	if err := checkRows("data", data, dim, 1); err != nil {
		return fail(err)
	}
	out := Sliced{Projections: o.Projections}
	a, b := make([]float64, len(samples)/dim), make([]float64, len(data)/dim)
	square := 0.0
	for p := range o.Projections {
		direction := rng.New(o.Seed, rng.Evaluate, drawProjection, uint32(p)).Normals(dim)
		floats.Scale(1/floats.Norm(direction, 2), direction)
		project(a, samples, direction)
		project(b, data, direction)
		w1, w2 := wasserstein(a, b)
		out.W1 += w1 / float64(o.Projections)
		square += w2 / float64(o.Projections)
	}
	out.W2 = math.Sqrt(square)
	return out, nil
}

// project fills out with the sorted projections of rows.
func project(out, rows, direction []float64) {
	dim := len(direction)
	for i := range out {
		out[i] = floats.Dot(rows[i*dim:(i+1)*dim], direction)
	}
	slices.Sort(out)
}

// wasserstein integrates |F⁻¹ − G⁻¹| and its square over the quantiles of two sorted samples.
func wasserstein(a, b []float64) (w1, w2squared float64) {
	n, m := len(a), len(b)
	// Levels are counted in steps of 1/nm: a[i] covers [i·m, (i+1)·m), b[j] covers [j·n, (j+1)·n).
	for i, j, at := 0, 0, 0; at < n*m; {
		next := min((i+1)*m, (j+1)*n)
		weight := float64(next-at) / (float64(n) * float64(m))
		d := a[i] - b[j]
		w1 += weight * math.Abs(d)
		w2squared += weight * d * d
		if next == (i+1)*m {
			i++
		}
		if next == (j+1)*n {
			j++
		}
		at = next
	}
	return w1, w2squared
}
