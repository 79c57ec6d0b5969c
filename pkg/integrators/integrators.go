// Package integrators holds numeric steps of differential equations: Runge–Kutta schemes for dx/dt = f(x, t), with noise
// for dx = f dt + √(2D) dW, and leapfrogs for Hamilton's equations. A step only builds a graph. A [Solver] compiles one and
// carries a batch along a time grid, or with steps of its own choice where the scheme estimates its error.
//
//	dopri5, err := integrators.ByName("dopri5")
//	if err != nil { ... }
//	drift := func(x, t *Node, weights ...*Node) *Node { return field.Field(x, t, nil, weights) }
//	s, err := integrators.NewSolver(b, integrators.Problem{Scheme: dopri5, Drift: drift, State: shape, Inputs: weights})
//	if err != nil { ... }
//	defer s.Close()
//	x, stats, err := s.Solve(ctx, noise, integrators.Grid(0, 1, 20), values...)
//	... // x is on the device; stats says what it took
package integrators

import (
	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// Drift builds f(x, t): x [batch, ...], t [batch] → the shape of x.
type Drift = func(x, t *Node) *Node

// Reversed is the drift that goes back from end to start: where f leads from x(start) to x(end), Reversed(f, start, end)
// leads from x(end) to x(start) as its own time goes from start to end. It is −f(x, start + end − t), not −f(x, t).
func Reversed(f Drift, start, end float64) Drift {
	return func(x, t *Node) *Node { return Neg(f(x, AddScalar(Neg(t), start+end))) }
}

// over makes a coefficient [batch] multiply the rows of x [batch, ...]. A scalar, or a coefficient of x's rank, stays.
func over(c, x *Node) *Node {
	if c.Rank() != 1 {
		return c
	}
	dims := make([]int, x.Rank())
	for axis := range dims {
		dims[axis] = 1
	}
	dims[0] = c.Shape().Dimensions[0]
	return Reshape(c, dims...)
}

// rowAxes are all axes of x [batch, ...] but the first.
func rowAxes(x *Node) []int {
	axes := make([]int, x.Rank()-1)
	for i := range axes {
		axes[i] = i + 1
	}
	return axes
}
