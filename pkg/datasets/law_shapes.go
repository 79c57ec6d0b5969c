package datasets

import "math"

// moons is the law of two moons: half a noisy arc about 0 and half its image under x → (1, ½) − x.
type moons struct {
	sigma float64
	rule  panels // on [0, 1], for the integral along the arc
}

func newMoons(sigma float64) moons { return moons{sigma, newPanels([]float64{0, 1}, 48)} }

// arc is the log density at (x, y) of a point at a uniform angle on the upper unit half circle about 0, plus normal
// noise. With r, φ the polar coordinates of (x, y) it is
//
//	1/(2π²σ²) ∫₀^π exp(−(r² + 1 − 2r cos(θ − φ))/2σ²) dθ,
//
// integrated over the angles where the integrand is within e⁻⁴⁰ of its largest value.
func (m moons) arc(x, y float64) float64 {
	sigma := m.sigma
	r, phi := math.Hypot(x, y), math.Atan2(y, x)
	if phi < -math.Pi/2 {
		phi += 2 * math.Pi // now the nearest angle of the arc is the one nearest in numbers
	}
	kappa := r / (sigma * sigma)
	nearest := min(max(phi, 0), math.Pi)
	top := math.Cos(nearest - phi)
	window := 2 * math.Pi
	if c := top - 40/kappa; c > -1 { // also false for kappa = 0
		window = math.Acos(c)
	}
	lo, hi := max(0, phi-window), min(math.Pi, phi+window)
	sum := 0.0
	for i, u := range m.rule.x {
		sum += m.rule.w[i] * math.Exp(kappa*(math.Cos(lo+(hi-lo)*u-phi)-top))
	}
	// r² + 1 − 2r·top without cancellation where x is on the arc.
	square := (r-1)*(r-1) + 2*r*(1-top)
	return math.Log(sum*(hi-lo)) - square/(2*sigma*sigma) - math.Log(2*math.Pi*math.Pi*sigma*sigma)
}

func (m moons) logDensity(x []float64) float64 {
	a, b := m.arc(x[0], x[1]), m.arc(1-x[0], 0.5-x[1])
	return max(a, b) + math.Log1p(math.Exp(-math.Abs(a-b))) - math.Ln2
}

// entropy is −∫ A log p with A the density of the outer arc, in polar coordinates about its centre; the inner arc gives
// the same by symmetry.
func (m moons) entropy() float64 {
	sigma := m.sigma
	radius := newPanels([]float64{max(0, 1-9*sigma), max(0, 1-3*sigma), 1, 1 + 3*sigma, 1 + 9*sigma}, 16)
	widest := max(2*sigma, 0.1)
	breaks := graded(0, math.Pi, 2*sigma, widest)
	for _, b := range graded(0, math.Pi/2, 2*sigma, widest) {
		breaks = append(breaks, -b, math.Pi+b)
	}
	angle := newPanels(breaks, 12)
	sum := 0.0
	for i, r := range radius.x {
		for j, phi := range angle.x {
			sin, cos := math.Sincos(phi)
			x, y := r*cos, r*sin
			if a := m.arc(x, y); a > -60 { // e⁻⁶⁰ adds nothing
				sum -= radius.w[i] * angle.w[j] * r * math.Exp(a) * m.logDensity([]float64{x, y})
			}
		}
	}
	return sum
}

// logBesselI0 is log(I₀(z)) − z for z ≥ 0: by the mean of exp(z cos θ) over the circle, whose trapezoidal sum is exact
// to rounding here, and by the asymptotic series where z is large.
func logBesselI0(z float64) float64 {
	if z > 30 {
		sum, term := 1.0, 1.0
		for k := 1.0; k < 40 && term > 1e-17; k++ {
			term *= (2*k - 1) * (2*k - 1) / (8 * k * z)
			sum += term
		}
		return math.Log(sum) - math.Log(2*math.Pi*z)/2
	}
	const n = 128
	sum := 0.0
	for i := range n {
		sum += math.Exp(z * (math.Cos(2*math.Pi*float64(i)/n) - 1))
	}
	return math.Log(sum / n)
}

// circleLogDensity is the log density, at distance r from 0, of a uniform point on a circle plus normal noise:
// exp(−(r² + R²)/2σ²) I₀(rR/σ²)/2πσ².
func circleLogDensity(r, radius, sigma float64) float64 {
	d := (r - radius) / sigma
	return -d*d/2 + logBesselI0(r*radius/(sigma*sigma)) - math.Log(2*math.Pi*sigma*sigma)
}

func circleEntropy(radius, sigma float64) float64 {
	breaks := graded(max(0, radius-9*sigma), radius+9*sigma, sigma, sigma)
	p := newPanels(breaks, 16)
	sum := 0.0
	for i, r := range p.x {
		l := circleLogDensity(r, radius, sigma)
		sum -= p.w[i] * 2 * math.Pi * r * math.Exp(l) * l
	}
	return sum
}

// board is the law of the checkerboard. A cell is a product of intervals, so the noisy density is one too:
// p = (e(x) o(y) + o(x) e(y))/area with e and o the noisy indicators of the even and the odd intervals.
type board struct{ limit, sigma float64 }

// parity is the share of even and odd unit intervals of [−L, L] within reach of x, blurred by the noise.
func (b board) parity(x float64) (even, odd float64) {
	var sums [2]float64
	add := func(cell float64, v float64) { sums[int(math.Abs(math.Mod(cell, 2)))] += v }
	if b.sigma == 0 {
		if math.Abs(x) <= b.limit {
			add(math.Floor(x), 1)
		}
		return sums[0], sums[1]
	}
	reach := 40 * b.sigma
	for cell := math.Floor(max(-b.limit, x-reach)); cell < min(b.limit, x+reach); cell++ {
		lo, hi := (max(cell, -b.limit)-x)/b.sigma, (min(cell+1, b.limit)-x)/b.sigma
		if hi <= lo {
			continue
		}
		if lo > 0 { // from the thinner tail, where no digits cancel
			lo, hi = -hi, -lo
		}
		add(cell, (math.Erfc(-hi/math.Sqrt2)-math.Erfc(-lo/math.Sqrt2))/2)
	}
	return sums[0], sums[1]
}

func (b board) area() float64 {
	even, odd := 0.0, 0.0
	for cell := math.Floor(-b.limit); cell < b.limit; cell++ {
		length := min(cell+1, b.limit) - max(cell, -b.limit)
		if math.Mod(cell, 2) == 0 {
			even += length
		} else {
			odd += length
		}
	}
	return 2 * even * odd
}

// logDensity is −Inf outside the board, and in its empty cells where there is no noise.
func (b board) logDensity(x []float64) float64 {
	ex, ox := b.parity(x[0])
	ey, oy := b.parity(x[1])
	return math.Log(ex*oy+ox*ey) - math.Log(b.area())
}

func (b board) entropy() float64 {
	area := b.area()
	switch {
	case b.sigma == 0:
		return math.Log(area)
	case b.limit > 50:
		return math.NaN() // thousands of edges a side: not worth the minutes
	}
	// The density varies near the edges only; there the panels are three standard deviations wide.
	var breaks []float64
	edge := func(e float64) {
		for j := -3.0; j <= 3; j++ {
			breaks = append(breaks, e+3*b.sigma*j)
		}
	}
	edge(-b.limit)
	for e := math.Floor(-b.limit) + 1; e < b.limit; e++ {
		edge(e)
	}
	edge(b.limit)
	p := newPanels(breaks, 12)
	even, odd := make([]float64, len(p.x)), make([]float64, len(p.x))
	for i, x := range p.x {
		even[i], odd[i] = b.parity(x)
	}
	sum := 0.0
	for i := range p.x {
		for j := range p.x {
			if v := (even[i]*odd[j] + odd[i]*even[j]) / area; v > 0 {
				sum -= p.w[i] * p.w[j] * v * math.Log(v)
			}
		}
	}
	return sum
}
