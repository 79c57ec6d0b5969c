package datasets

import (
	"math"
	"slices"
	"sync"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/integrate/quad"
)

// Law is what is known of the distribution behind a toy set.
type Law struct {
	// LogDensity is the logarithm of the normalised density at x [dim], in nats; nil where it is unknown or there is none.
	LogDensity func(x []float64) float64

	Modes       [][]float64 // centres of the law's separate bumps; nil where it has no such points
	ModeWeights []float64   // the probability of each mode
	// ModeRadius is how far from a mode a point still counts as its: in the plane four standard deviations, which leave out
	// 0.03 % of a mode, but never more than half the distance of the nearest two modes.
	ModeRadius float64

	entropy func() float64
}

// Entropy is the differential entropy in nats, NaN where it is unknown. No model's expected negative log-likelihood on
// fresh data is below it. It is worked out by quadrature at the first call (well below a second), to about 1e-6.
func (l *Law) Entropy() float64 {
	if l == nil || l.entropy == nil {
		return math.NaN()
	}
	return l.entropy()
}

// lawOf is the law of the toy set of cfg, which has its defaults written in; nil where it is not known.
//
// Where a generator spaces something evenly (angles of the moons, points a component) instead of drawing it, the law is
// the one that it tends to as the number of rows grows.
func lawOf(cfg Config) *Law {
	var l *Law
	switch cfg.Dataset {
	case "two_moons":
		if sigma := *cfg.Noise; sigma > 0 {
			m := newMoons(sigma)
			l = &Law{LogDensity: m.logDensity, entropy: m.entropy}
		}
	case "circle":
		if sigma, radius := *cfg.Noise, *cfg.Radius; sigma > 0 {
			l = &Law{
				LogDensity: func(x []float64) float64 { return circleLogDensity(math.Hypot(x[0], x[1]), radius, sigma) },
				entropy:    func() float64 { return circleEntropy(radius, sigma) },
			}
		}
	case "checkerboard":
		b := board{limit: *cfg.RangeLimit, sigma: *cfg.Noise}
		l = &Law{LogDensity: b.logDensity, entropy: b.entropy}
	case "gaussian_mixture", "eight_gaussians":
		l = mixtureLaw(centres(cfg), *cfg.Std)
		if std, m := *cfg.Std, l.Modes; std > 0 {
			l.LogDensity = func(x []float64) float64 { return ringLogDensity(x, m, std) }
			l.entropy = func() float64 { return ringEntropy(m, std) }
		}
	case "grid":
		l = mixtureLaw(centres(cfg), *cfg.Noise)
		if std, axis := *cfg.Noise, linspace(-*cfg.RangeLimit, *cfg.RangeLimit, *cfg.PerDim); std > 0 {
			// The sum over a square grid of points is a product of two sums.
			l.LogDensity = func(x []float64) float64 { return combLogDensity(x[0], axis, std) + combLogDensity(x[1], axis, std) }
			l.entropy = func() float64 { return 2 * combEntropy(axis, std) }
		}
	case "mixture":
		l = gaussiansLaw(cfg.Means, shares(cfg), *cfg.Std)
	}
	if l != nil && l.entropy != nil {
		l.entropy = sync.OnceValue(l.entropy)
	}
	return l
}

// mixtureLaw holds the modes of an equal mixture, without its density.
func mixtureLaw(centres [][]float64, std float64) *Law {
	l := &Law{Modes: centres, ModeWeights: make([]float64, len(centres)), ModeRadius: 4 * std}
	// All our mixtures are rings or grids, where the nearest neighbour of the first centre is as near as any two are.
	nearest := math.Inf(1)
	for i, c := range centres {
		l.ModeWeights[i] = 1 / float64(len(centres))
		if i > 0 {
			nearest = min(nearest, floats.Distance(c, centres[0], 2))
		}
	}
	if std == 0 || l.ModeRadius > nearest/2 {
		l.ModeRadius = nearest / 2
	}
	if math.IsInf(l.ModeRadius, 1) { // a single point
		l.ModeRadius = 0
	}
	return l
}

// ringLogDensity is the log density at x of an equal mixture of round Gaussians.
func ringLogDensity(x []float64, centres [][]float64, std float64) float64 {
	terms := make([]float64, len(centres))
	for i, c := range centres {
		dx, dy := (x[0]-c[0])/std, (x[1]-c[1])/std
		terms[i] = -(dx*dx + dy*dy) / 2
	}
	return floats.LogSumExp(terms) - math.Log(2*math.Pi*std*std*float64(len(centres)))
}

// ringEntropy uses that the components of a ring are all alike: H = −E log p under the first one, by the trapezoidal
// rule, which converges faster than any power of the step for a smooth integrand that dies out.
func ringEntropy(centres [][]float64, std float64) float64 {
	const perStd, reach = 6, 9
	h := std / perStd
	sum := 0.0
	for i := -reach * perStd; i <= reach*perStd; i++ {
		for j := -reach * perStd; j <= reach*perStd; j++ {
			x, y := float64(i)/perStd, float64(j)/perStd
			weight := math.Exp(-(x*x + y*y) / 2)
			sum -= weight * ringLogDensity([]float64{centres[0][0] + h*float64(i), centres[0][1] + h*float64(j)}, centres, std)
		}
	}
	return sum / (2 * math.Pi * perStd * perStd)
}

// combLogDensity is the log density at x of an equal mixture of Gaussians on the line, at the points of axis.
func combLogDensity(x float64, axis []float64, std float64) float64 {
	terms := make([]float64, len(axis))
	for i, c := range axis {
		z := (x - c) / std
		terms[i] = -z * z / 2
	}
	return floats.LogSumExp(terms) - math.Log(math.Sqrt(2*math.Pi)*std*float64(len(axis)))
}

func combEntropy(axis []float64, std float64) float64 {
	const perStd, reach = 6, 9
	sum := 0.0
	for k, c := range axis {
		// What the components further than 30 standard deviations away add is below e^(−(30−9)²/2).
		lo, _ := slices.BinarySearch(axis, c-30*std)
		hi, _ := slices.BinarySearch(axis, c+30*std)
		near := axis[lo:max(hi, k+1)]
		missing := math.Log(float64(len(axis)) / float64(len(near)))
		for i := -reach * perStd; i <= reach*perStd; i++ {
			z := float64(i) / perStd
			sum -= math.Exp(-z*z/2) * (combLogDensity(c+std*z, near, std) - missing)
		}
	}
	return sum / (math.Sqrt(2*math.Pi) * perStd * float64(len(axis)))
}

// panels are breakpoints with a Gauss–Legendre rule between each two of them.
type panels struct{ x, w []float64 }

// newPanels puts a rule of the given order between neighbouring breaks, which may come in any order and repeat.
func newPanels(breaks []float64, order int) panels {
	slices.Sort(breaks)
	breaks = slices.Compact(breaks)
	var p panels
	x, w := make([]float64, order), make([]float64, order)
	for i := 1; i < len(breaks); i++ {
		quad.Legendre{}.FixedLocations(x, w, breaks[i-1], breaks[i])
		p.x, p.w = append(p.x, x...), append(p.w, w...)
	}
	return p
}

// graded are breaks from lo to hi whose widths grow by half from first at both ends up to widest.
func graded(lo, hi, first, widest float64) []float64 {
	var out []float64
	width := first
	for a, b := lo, hi; ; {
		out = append(out, a, b)
		if b-a <= 2*width {
			return append(out, (a+b)/2)
		}
		a, b = a+width, b-width
		width = min(1.5*width, widest)
	}
}
