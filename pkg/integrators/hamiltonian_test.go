package integrators_test

import (
	"math"
	"slices"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/integrators"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
)

// The leapfrog keeps, but for rounding, the energy p²/2m + (k/2)(1 − kε²/4m) x² of an oscillator with energy p²/2m + kx²/2,
// for any ε < 2√(m/k). So the true energy stays within a part kε²/4m of it however long the trajectory; a scheme that is not
// symplectic would drift.
func TestLeapfrogKeepsAnEnergyNearby(t *testing.T) {
	const stiffness, inARow, calls = 2.0, 20, 100
	masses, sizes := []float64{1, 4}, []float64{0.1, 0.7, 1.2} // a step size a row
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		program := testutil.Compile(t, b, dtypes.Float64, [][]int{{3, 2}, {3, 2}, {3}, {2}}, func(in []*Node) []*Node {
			x, p, eps, mass := in[0], in[1], in[2], in[3]
			force := func(x *Node) *Node { return MulScalar(x, -stiffness) }
			f := force(x)
			for range inARow {
				x, p, f = integrators.LeapfrogStep(force, x, p, f, eps, mass)
			}
			return []*Node{x, p}
		})
		kept := func(x, p []float64) (out []float64) {
			for i := range x {
				m, eps := masses[i%2], sizes[i/2]
				out = append(out, p[i]*p[i]/(2*m)+stiffness/2*(1-stiffness*eps*eps/(4*m))*x[i]*x[i])
			}
			return out
		}
		x, p := []float64{1, 1, 1, 1, 1, 1}, []float64{0, 1, 0, 1, 0, 1}
		want := kept(x, p)
		for range calls {
			out := program.Run(t, testutil.Array(x, 3, 2), testutil.Array(p, 3, 2), testutil.Array(sizes, 3), testutil.Array(masses, 2))
			x, p = out[0], out[1]
			testutil.Compare(t, "energy", kept(x, p), testutil.Array(want, 6), testutil.Tolerance{RTol: 1e-12})
		}
	})
}

// A trajectory with its momentum turned round at the end goes back to where it started, and the error of a trajectory shrinks
// fourfold with half the step size.
func TestLeapfrogIsReversibleAndOfSecondOrder(t *testing.T) {
	const steps = 16
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		x, p := testutil.Array([]float64{0.3, -1.2, 0.9, 0.1}, 2, 2), testutil.Array([]float64{1, 0.5, -0.7, 0.2}, 2, 2)
		in := []testutil.Tensor{x, p, testutil.Array([]float64{1, 2.5}, 2)}
		forces := 0
		out := testutil.Eval(t, b, dtypes.Float64, in, func(in []*Node) []*Node {
			force := func(x *Node) *Node { // of the double well (x² − 1)²
				forces++
				return MulScalar(Mul(x, OneMinus(Square(x))), 4)
			}
			trajectory := func(x, p *Node, steps int) (*Node, *Node) {
				eps := Scalar(x.Graph(), x.DType(), 0.8/float64(steps))
				f := force(x)
				for range steps {
					x, p, f = integrators.LeapfrogStep(force, x, p, f, eps, in[2])
				}
				return x, p
			}
			endX, endP := trajectory(in[0], in[1], steps)
			if forces != steps+1 {
				t.Errorf("%d forces for %d steps, want one more than steps", forces, steps)
			}
			backX, backP := trajectory(endX, Neg(endP), steps)
			finer, _ := trajectory(in[0], in[1], 2*steps)
			finest, _ := trajectory(in[0], in[1], 4*steps)
			return []*Node{backX, Neg(backP), endX, finer, finest}
		})
		testutil.Compare(t, "x", out[0], x, testutil.Tolerance{ATol: 1e-14})
		testutil.Compare(t, "p", out[1], p, testutil.Tolerance{ATol: 1e-14})
		apart := func(a, b []float64) (worst float64) {
			for i := range a {
				worst = max(worst, math.Abs(a[i]-b[i]))
			}
			return worst
		}
		if order := math.Log2(apart(out[2], out[3]) / apart(out[3], out[4])); !(math.Abs(order-2) < 0.1) {
			t.Errorf("observed order %.2f, want 2", order)
		}
	})
}

// For H = x²/2 + p²/2m the generalised leapfrog is the leapfrog. For one that does not separate it keeps areas, goes back
// when p is turned round, is of second order, and says how well its equations are solved.
func TestGeneralisedLeapfrog(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		start := []testutil.Tensor{testutil.Array([]float64{-0.6, 0.4, 1.1}, 3, 1), testutil.Array([]float64{0.9, -1.5, 0.3}, 3, 1)}
		out := testutil.Eval(t, b, dtypes.Float64, start, func(in []*Node) []*Node {
			x, p := in[0], in[1]
			number := func(v float64) *Node { return Scalar(x.Graph(), x.DType(), v) }
			solved := integrators.GeneralisedLeapfrog{Iterations: 30}

			mass := number(2)
			plainX, plainP, _ := integrators.LeapfrogStep(Neg, x, p, Neg(x), number(0.3), mass)
			sameX, sameP, _ := integrators.GeneralisedLeapfrog{Iterations: 2}.Step(
				func(x, _ *Node) *Node { return Neg(x) }, func(_, p *Node) *Node { return Div(p, mass) }, x, p, number(0.3))

			nextX, nextP, residual := solved.Step(curvedForce, curvedVelocity, x, p, number(0.2))
			dx := Gradient(ReduceAllSum(nextX), x, p)
			dp := Gradient(ReduceAllSum(nextP), x, p)
			area := Sub(Mul(dx[0], dp[1]), Mul(dx[1], dp[0]))
			backX, backP, _ := solved.Step(curvedForce, curvedVelocity, nextX, Neg(nextP), number(0.2))

			trajectory := func(steps int) *Node {
				x, p := x, p
				for range steps {
					x, p, _ = solved.Step(curvedForce, curvedVelocity, x, p, number(0.4/float64(steps)))
				}
				return x
			}
			_, _, loose := integrators.GeneralisedLeapfrog{Iterations: 2}.Step(curvedForce, curvedVelocity, x, p, number(0.2))
			return []*Node{plainX, plainP, sameX, sameP, area, backX, Neg(backP), residual, loose, trajectory(1), trajectory(2), trajectory(4)}
		})
		tight := testutil.Tolerance{ATol: 1e-13}
		testutil.Compare(t, "x of a Hamiltonian that separates", out[2], testutil.Array(out[0], 3), tight)
		testutil.Compare(t, "p of a Hamiltonian that separates", out[3], testutil.Array(out[1], 3), tight)
		testutil.Compare(t, "area", out[4], testutil.Filled(1, 3), tight)
		testutil.Compare(t, "x there and back", out[5], start[0], tight)
		testutil.Compare(t, "p there and back", out[6], start[1], tight)
		testutil.Compare(t, "residual of 30 rounds", out[7], testutil.Filled(0, 3), tight)
		if slices.Min(out[8]) < 1e-6 {
			t.Errorf("residual of 2 rounds %v, want it to show that they are not enough", out[8])
		}
		for i := range 3 {
			if order := math.Log2(math.Abs(out[9][i]-out[10][i]) / math.Abs(out[10][i]-out[11][i])); !(math.Abs(order-2) < 0.2) {
				t.Errorf("row %d: observed order %.2f, want 2", i, order)
			}
		}
	})
}

// A force that is not finite stays so, and is not made a harmless number; one that is too large is clipped where asked for.
func TestForcesAtAWall(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		in := []testutil.Tensor{testutil.Array([]float64{0, 1, -1e9}, 3, 1)}
		out := testutil.Eval(t, b, dtypes.Float64, in, func(in []*Node) []*Node {
			one := ScalarOne(in[0].Graph(), in[0].DType())
			x, p, _ := integrators.LeapfrogStep(func(x *Node) *Node { return Neg(Log(Neg(x))) }, in[0], in[0], Log(Neg(in[0])), one, nil)
			return []*Node{x, p, integrators.ClipForce(Neg, 1e6)(in[0])}
		})
		for i, name := range []string{"x", "p"} {
			if !math.IsNaN(out[i][1]) {
				t.Errorf("%s = %g behind a force that is not finite, want NaN", name, out[i][1])
			}
		}
		testutil.Compare(t, "clipped force", out[2], testutil.Array([]float64{0, -1, 1e6}, 3), testutil.Tolerance{})
	})
}
