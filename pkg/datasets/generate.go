package datasets

import (
	"math"
	"slices"

	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/stat"
)

// draws is where a generator takes its random numbers from: a counter's stream, or numbers recorded elsewhere.
type draws interface {
	Normals(n int) []float64  // standard normal
	Uniforms(n int) []float64 // uniform in [0, 1)
	Perm(n int) []int         // a uniform permutation of 0..n-1
}

type streamDraws struct{ *rng.Stream }

func (s streamDraws) Uniforms(n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = s.Float64()
	}
	return out
}

// generate draws n rows [n, dim] of the toy set of cfg, which has its defaults written in, and their labels. The dimension
// is 2 but for the set that says its own.
// Swiss rolls come out unscaled.
func generate(cfg Config, n int, src draws) (rows []float64, labels []int) {
	switch cfg.Dataset {
	case "two_moons":
		return twoMoons(n, *cfg.Noise, src)
	case "gaussian_mixture", "eight_gaussians":
		return mixture(n, centres(cfg), *cfg.Std, src)
	case "swiss_roll":
		return swissRoll(n, *cfg.Noise, *cfg.Arclength, src), nil
	case "circle":
		return circle(n, *cfg.Noise, *cfg.Radius, src), nil
	case "checkerboard":
		return checkerboard(n, *cfg.Noise, *cfg.RangeLimit, src), nil
	case "pinwheel":
		return pinwheel(n, cfg, src)
	case "grid":
		return grid(n, *cfg.PerDim, *cfg.RangeLimit, *cfg.Noise, src), nil
	case "mixture":
		return weighted(n, cfg.Means, shares(cfg), *cfg.Std, src)
	}
	panic("datasets: no generator for " + cfg.Dataset) // Validate has refused it
}

// linspace is n evenly spaced numbers from lo to hi, both included; the last one is exactly hi.
func linspace(lo, hi float64, n int) []float64 {
	out := make([]float64, n)
	step := 0.0
	if n > 1 {
		step = (hi - lo) / float64(n-1)
	}
	for i := range out {
		if i < n/2 || n == 1 {
			out[i] = lo + step*float64(i)
		} else {
			out[i] = hi - step*float64(n-1-i) // from the nearer end, so that the grid is symmetric in floating point
		}
	}
	return out
}

// balanced says how many of n points component i of k gets: as even as it can be, the first ones one more.
func balanced(n, k, i int) int {
	if i < n%k {
		return n/k + 1
	}
	return n / k
}

func addNoise(rows []float64, sigma float64, src draws) {
	for i, z := range src.Normals(len(rows)) {
		rows[i] += sigma * z
	}
}

// shuffled puts the rows (and labels) in the order of a permutation from src.
func shuffled(rows []float64, labels []int, src draws) ([]float64, []int) {
	out, outLabels := make([]float64, 0, len(rows)), make([]int, 0, len(labels))
	for _, j := range src.Perm(len(labels)) {
		out = append(out, rows[2*j], rows[2*j+1])
		outLabels = append(outLabels, labels[j])
	}
	return out, outLabels
}

func twoMoons(n int, sigma float64, src draws) ([]float64, []int) {
	rows, labels := make([]float64, 0, 2*n), make([]int, n)
	for _, angle := range linspace(0, math.Pi, n/2) {
		sin, cos := math.Sincos(angle)
		rows = append(rows, cos, sin)
	}
	for i, angle := range linspace(0, math.Pi, n-n/2) {
		sin, cos := math.Sincos(angle)
		rows = append(rows, 1-cos, 0.5-sin)
		labels[n/2+i] = 1
	}
	addNoise(rows, sigma, src)
	return rows, labels
}

// centres are the means of the mixtures and of the grid.
func centres(cfg Config) [][]float64 {
	var out [][]float64
	switch cfg.Dataset {
	case "gaussian_mixture":
		k := *cfg.Components
		for i := range k {
			sin, cos := math.Sincos(2 * math.Pi * float64(i) / float64(k))
			out = append(out, []float64{*cfg.Radius * cos, *cfg.Radius * sin})
		}
	case "eight_gaussians":
		s, q := *cfg.Scale, *cfg.Scale/math.Sqrt2
		out = [][]float64{{s, 0}, {-s, 0}, {0, s}, {0, -s}, {q, q}, {q, -q}, {-q, q}, {-q, -q}}
	case "grid":
		axis := linspace(-*cfg.RangeLimit, *cfg.RangeLimit, *cfg.PerDim)
		for _, x := range axis {
			for _, y := range axis {
				out = append(out, []float64{x, y})
			}
		}
	}
	return out
}

func mixture(n int, centres [][]float64, std float64, src draws) ([]float64, []int) {
	rows, labels := make([]float64, 0, 2*n), make([]int, 0, n)
	for i, c := range centres {
		z := src.Normals(2 * balanced(n, len(centres), i))
		for j := 0; j < len(z); j += 2 {
			rows = append(rows, c[0]+std*z[j], c[1]+std*z[j+1])
			labels = append(labels, i)
		}
	}
	return shuffled(rows, labels, src)
}

func swissRoll(n int, sigma, arclength float64, src draws) []float64 {
	rows := make([]float64, 0, 2*n)
	for _, u := range src.Uniforms(n) {
		t := arclength * math.Pi * (1 + 2*u)
		sin, cos := math.Sincos(t)
		rows = append(rows, t*cos, t*sin)
	}
	addNoise(rows, sigma, src)
	return rows
}

// rollScaling takes off the column means and divides by twice the mean of the columns' standard deviations (n − 1).
func rollScaling(rows []float64) Affine {
	var columns [2][]float64
	for i, v := range rows {
		columns[i%2] = append(columns[i%2], v)
	}
	mx, sx := stat.MeanStdDev(columns[0], nil)
	my, sy := stat.MeanStdDev(columns[1], nil)
	scale := 1 / (sx + sy)
	return Affine{Shift: []float64{mx, my}, Scale: []float64{scale, scale}}
}

func circle(n int, sigma, radius float64, src draws) []float64 {
	rows := make([]float64, 0, 2*n)
	for _, u := range src.Uniforms(n) {
		sin, cos := math.Sincos(2 * math.Pi * u)
		rows = append(rows, radius*cos, radius*sin)
	}
	addNoise(rows, sigma, src)
	return rows
}

func checkerboard(n int, sigma, limit float64, src draws) []float64 {
	rows := make([]float64, 0, 2*n)
	for len(rows) < 2*n {
		u := src.Uniforms(2 * max(1000, n*5/2))
		for i := 0; i < len(u) && len(rows) < 2*n; i += 2 {
			x, y := limit*(2*u[i]-1), limit*(2*u[i+1]-1)
			// The Euclidean remainder of an integer-valued float: also 1 for −1, −3, …
			if odd := math.Abs(math.Mod(math.Floor(x)+math.Floor(y), 2)); odd == 1 {
				rows = append(rows, x, y)
			}
		}
	}
	addNoise(rows, sigma, src)
	return rows
}

func pinwheel(n int, cfg Config, src draws) ([]float64, []int) {
	rows, labels := make([]float64, 0, 2*n), make([]int, 0, n)
	k := *cfg.Classes
	for i := range k {
		u := src.Uniforms(balanced(n, k, i))
		z := src.Normals(len(u))
		for j := range u {
			t := math.Sqrt(u[j])
			sin, cos := math.Sincos(2*math.Pi*float64(i)/float64(k) + *cfg.SpiralScale*t + *cfg.AngularScale*z[j])
			rows = append(rows, *cfg.RadialScale*t*cos, *cfg.RadialScale*t*sin)
			labels = append(labels, i)
		}
	}
	rows, labels = shuffled(rows, labels, src)
	if *cfg.Noise > 0 {
		addNoise(rows, *cfg.Noise, src)
	}
	return rows, labels
}

// grid is n points round the m² grid points in turn: the set itself has n = m², a test set as many as it asks for.
func grid(n, m int, limit, sigma float64, src draws) []float64 {
	axis := linspace(-limit, limit, m)
	rows := make([]float64, 0, 2*n)
	for i := range n {
		cell := i % (m * m)
		rows = append(rows, axis[cell/m], axis[cell%m])
	}
	if sigma > 0 {
		addNoise(rows, sigma, src)
	}
	return rows
}

// shares are the probabilities of the components of a mixture.
func shares(cfg Config) []float64 {
	out := slices.Clone(cfg.Weights)
	if len(out) == 0 {
		out = slices.Repeat([]float64{1}, len(cfg.Means))
	}
	sum := floats.Sum(out)
	for k := range out {
		out[k] /= sum
	}
	return out
}

// weighted draws n rows one by one: how many of them are of a component is a matter of chance.
func weighted(n int, means [][]float64, shares []float64, std float64, src draws) ([]float64, []int) {
	below := floats.CumSum(make([]float64, len(shares)), shares)
	dim := len(means[0])
	rows, labels := src.Normals(n*dim), make([]int, n)
	for i, u := range src.Uniforms(n) {
		k := 0
		for k < len(below)-1 && u >= below[k] {
			k++
		}
		labels[i] = k
		for j, m := range means[k] {
			rows[i*dim+j] = m + std*rows[i*dim+j]
		}
	}
	return rows, labels
}
