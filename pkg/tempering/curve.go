package tempering

import (
	"fmt"
	"math"
	"slices"
	"sort"
)

// Curve is the communication barrier Λ(β) along a ladder, read off the rejection rates of its pairs: a monotone cubic
// through the points (β_i, L_i), L_i the sum of the pairs' corrected shares up to rung i, see [Barrier]. Its slope is
// the local barrier λ(β) = ½·E|V(X) − V(X′)|, X and X′ independent draws of π_β (Syed et al. 2022).
type Curve struct {
	betas, shares []float64
	lowerBound    bool
	barrier       monotoneCubic // Λ of β
	inverse       monotoneCubic // β of Λ
}

// minShare keeps the curve strictly increasing where a pair never rejects.
const minShare = 1e-6

// NewCurve returns the curve of the ladder betas whose pairs reject at the given rates, [K−1], each measured over about
// n attempts. A rate that is NaN, as one of a pair that was never tried, is an error.
func NewCurve(betas, rejections []float64, n float64) (*Curve, error) {
	if _, err := LadderOf(betas); err != nil {
		return nil, err
	}
	k := len(betas)
	if k < 2 || len(rejections) != k-1 {
		return nil, fmt.Errorf("tempering: curve: %d rejection rates of %d rungs, want one a pair of at least 2 rungs", len(rejections), k)
	}
	for i, r := range rejections {
		if math.IsNaN(r) {
			return nil, fmt.Errorf("tempering: curve: pair %d: rejection rate NaN, want a pair that was tried", i)
		}
	}
	c := &Curve{betas: slices.Clone(betas)}
	c.shares, c.lowerBound = barrierShares(rejections, n)
	sums := make([]float64, k)
	for i := range c.shares {
		c.shares[i] = max(c.shares[i], minShare)
		sums[i+1] = sums[i] + c.shares[i]
	}
	c.barrier, c.inverse = newMonotoneCubic(c.betas, sums), newMonotoneCubic(sums, c.betas)
	return c, nil
}

// Total is Λ, the barrier between the two ends of the ladder.
func (c *Curve) Total() float64 { return c.barrier.y[len(c.betas)-1] }

// LowerBound reports whether some pair rejected so often that its share, and with it Λ, is only a lower bound.
func (c *Curve) LowerBound() bool { return c.lowerBound }

// Shares are the shares ℓ_i of the pairs in Λ, [K−1], each at least 1e-6.
func (c *Curve) Shares() []float64 { return slices.Clone(c.shares) }

// At is Λ(β), the barrier from rung 0 up to β; β outside the ladder counts as its nearer end.
func (c *Curve) At(beta float64) float64 { return c.barrier.at(beta) }

// Density is the local barrier λ(β) = dΛ/dβ; β outside the ladder counts as its nearer end.
func (c *Curve) Density(beta float64) float64 { return c.barrier.slopeAt(beta) }

// Ladder places that many rungs at equal shares of Λ, which makes the rejection rates of the pairs equal; the ends stay.
// Among the ladders of one length this one has most round trips.
func (c *Curve) Ladder(rungs int) (*Ladder, error) {
	if rungs < 2 {
		return nil, fmt.Errorf("tempering: curve: a ladder of %d rungs, want at least 2", rungs)
	}
	betas := make([]float64, rungs)
	n := float64(rungs - 1)
	for j := range betas {
		betas[j] = c.inverse.at(float64(j) / n * c.Total())
	}
	betas[0], betas[rungs-1] = c.betas[0], 1
	return LadderOf(betas)
}

// monotoneCubic is the piecewise cubic through the points (x_k, y_k), x increasing, that is monotone wherever the
// points are (Fritsch and Carlson, SIAM J. Numer. Anal. 17, 1980).
type monotoneCubic struct{ x, y, slope []float64 }

func newMonotoneCubic(x, y []float64) monotoneCubic {
	n := len(x)
	secant := make([]float64, n-1)
	for k := range secant {
		secant[k] = (y[k+1] - y[k]) / (x[k+1] - x[k])
	}
	m := make([]float64, n)
	m[0], m[n-1] = secant[0], secant[n-2]
	for k := 1; k < n-1; k++ {
		if before, after := secant[k-1], secant[k]; before > 0 && after > 0 || before < 0 && after < 0 {
			m[k] = before/2 + after/2
		}
	}
	for k, d := range secant {
		if d == 0 {
			m[k], m[k+1] = 0, 0
			continue
		}
		// Inside the circle of radius 3 the cubic cannot overshoot. Scaling only shrinks, so the intervals before stay
		// inside theirs.
		if a, b := m[k]/d, m[k+1]/d; math.Hypot(a, b) > 3 {
			scale := 3 / math.Hypot(a, b)
			m[k], m[k+1] = scale*m[k], scale*m[k+1]
		}
	}
	return monotoneCubic{x, y, m}
}

// interval finds the interval [x_k, x_{k+1}] that x belongs to and the place t in [0, 1] there.
func (c monotoneCubic) interval(x float64) (k int, t float64) {
	k = min(max(sort.SearchFloat64s(c.x, x)-1, 0), len(c.x)-2)
	return k, min(max((x-c.x[k])/(c.x[k+1]-c.x[k]), 0), 1)
}

func (c monotoneCubic) at(x float64) float64 {
	k, t := c.interval(x)
	h, rise := c.x[k+1]-c.x[k], c.y[k+1]-c.y[k]
	a, b := h*c.slope[k], h*c.slope[k+1]
	y := c.y[k] + t*(a+t*(3*rise-2*a-b+t*(a+b-2*rise)))
	low, high := min(c.y[k], c.y[k+1]), max(c.y[k], c.y[k+1])
	return min(max(y, low), high) // against rounding
}

func (c monotoneCubic) slopeAt(x float64) float64 {
	k, t := c.interval(x)
	secant := (c.y[k+1] - c.y[k]) / (c.x[k+1] - c.x[k])
	a, b := c.slope[k], c.slope[k+1]
	return a + t*(2*(3*secant-2*a-b)+3*t*(a+b-2*secant))
}
