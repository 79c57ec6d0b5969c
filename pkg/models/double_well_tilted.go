package models

import (
	"math"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// TiltedDoubleWell is E(x) = Σᵢ a(xᵢ² − 1)² + c·xᵢ: two wells of unequal depth a coordinate. With a = 10 and c = 0.5 on
// the line a plain chain needs thousands of time units to cross, which makes it a test of tempering.
type TiltedDoubleWell struct {
	analytic
	a, c  float64
	facts Facts
}

// NewTiltedDoubleWell makes a tilted double well; a must be positive.
func NewTiltedDoubleWell(dim int, a, c float64) (*TiltedDoubleWell, error) {
	var f faults
	f.dim(dim, 1)
	f.positive("a", a)
	f.finite("c", c)
	if err := f.err(); err != nil {
		return nil, err
	}
	e := &TiltedDoubleWell{analytic: analytic{"double_well_tilted", dim}, a: a, c: c}
	energy := func(x float64) float64 { d := x*x - 1; return a*d*d + c*x }
	left, hasLeft := tiltedWell(a, c, -1)
	right, hasRight := tiltedWell(a, c, 1)
	var wells []float64
	if hasLeft {
		wells = append(wells, left)
	}
	if hasRight {
		wells = append(wells, right)
	}
	lowest := wells[:1]
	if c == 0 {
		lowest = wells
	} else if len(wells) == 2 && energy(right) < energy(left) {
		lowest = wells[1:]
	}
	var law *marginal
	if m, ok := integrate(energy); ok {
		law = &m
	}
	e.facts = product(dim, lowest, energy(lowest[0]), law, wells)
	return e, nil
}

// tiltedWell finds the stationary point of a well outside x = ±1/√3, where the curvature changes its sign. A strong tilt leaves
// the well on its lower side alone.
func tiltedWell(a, c, side float64) (float64, bool) {
	slope := func(x float64) float64 { return 4*a*x*(x*x-1) + c }
	near, far := side/math.Sqrt(3), 2*side
	for slope(far)*side < 0 {
		far *= 2
	}
	if slope(near)*side >= 0 {
		return 0, false
	}
	for range 200 {
		if middle := (near + far) / 2; slope(middle)*side < 0 {
			near = middle
		} else {
			far = middle
		}
	}
	return (near + far) / 2, true
}

// Energy builds E(x), [batch].
func (e *TiltedDoubleWell) Energy(x *Node, _ []*Node) *Node {
	e.check(x)
	well := MulScalar(Square(AddScalar(Square(x), -1)), e.a)
	return ReduceSum(Add(well, MulScalar(x, e.c)), -1)
}

// Known gives minima, mean, variance, log Z and the mass of each well (quadrature).
func (e *TiltedDoubleWell) Known() Facts { return e.facts.clone() }
