package integrators_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/integrators"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
)

// Every tableau is consistent (cᵢ = Σⱼ aᵢⱼ), integrates polynomials in time as its order says (Σ bᵢ cᵢ^(q−1) = 1/q), and so
// does the scheme behind its error estimate, to a lower order.
func TestTableaus(t *testing.T) {
	lower := map[string]int{"adaptive_heun": 1, "bosh3": 2, "dopri5": 4, "dopri8": 7}
	for _, name := range integrators.Names() {
		t.Run(name, func(t *testing.T) {
			rk := scheme(t, name)
			if len(rk.A) != len(rk.B) || len(rk.C) != len(rk.B) {
				t.Fatalf("%d rows, %d weights, %d times, want as many of each", len(rk.A), len(rk.B), len(rk.C))
			}
			for i, row := range rk.A {
				sum := 0.0
				for _, a := range row {
					sum += a
				}
				if math.Abs(sum-rk.C[i]) > 1e-14 {
					t.Errorf("row %d sums to %.17g, want %.17g", i, sum, rk.C[i])
				}
			}
			moment := func(weights []float64, q int) float64 {
				sum := 0.0
				for i, w := range weights {
					c := 1.0 // the last stage with FSAL
					if i < len(rk.C) {
						c = rk.C[i]
					}
					sum += w * math.Pow(c, float64(q-1))
				}
				return sum
			}
			for q := 1; q <= rk.Order; q++ {
				if d := moment(rk.B, q) - 1/float64(q); math.Abs(d) > 1e-14 {
					t.Errorf("Σ b c^%d is off by %g", q-1, d)
				}
			}
			if (lower[name] > 0) != rk.Adaptive() {
				t.Fatalf("adaptive: %v", rk.Adaptive())
			}
			for q := 1; q <= lower[name]; q++ {
				if d := moment(rk.E, q); math.Abs(d) > 1e-14 {
					t.Errorf("Σ e c^%d is %g, want 0", q-1, d)
				}
			}
			if rk.Adaptive() && math.Abs(moment(rk.E, lower[name]+1)) < 1e-6 {
				t.Error("the error estimate sees no polynomial of the next degree")
			}
		})
	}
}

// The error estimate of a pair shrinks with the step size to the power of its order, and that of adaptive_heun is the
// difference between the steps of Heun and of Euler.
func TestStepError(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		in := []testutil.Tensor{testutil.Array([]float64{1, 0.5, 2, 0.25}, 2, 2), testutil.Array([]float64{0.4, 0.9}, 2), testutil.Filled(1)}
		out := testutil.Eval(t, b, dtypes.Float64, in, func(in []*Node) (out []*Node) {
			x, at := in[0], in[1]
			f := func(x, t *Node) *Node { return falling(x, t, in[2]) }
			size := func(h float64) *Node { return Scalar(x.Graph(), x.DType(), h) }
			for _, name := range integrators.AdaptiveNames() {
				next, err := scheme(t, name).StepError(f, x, at, size(0.04))
				_, half := scheme(t, name).StepError(f, x, at, size(0.02))
				out = append(out, next, scheme(t, name).Step(f, x, at, size(0.04)), ReduceAllSum(Abs(err)), ReduceAllSum(Abs(half)))
			}
			heun, err := scheme(t, "adaptive_heun").StepError(f, x, at, size(0.1))
			return append(out, Sub(heun, scheme(t, "euler_maruyama").Step(f, x, at, size(0.1))), err)
		})
		for i, name := range integrators.AdaptiveNames() {
			v := out[4*i:]
			testutil.Compare(t, name, v[0], testutil.Array(v[1], 4), testutil.Tolerance{})
			// The next term of the error makes the observed power wrong by some tenths.
			if order := math.Log2(v[2][0] / v[3][0]); !(math.Abs(order-float64(scheme(t, name).Order)) < 0.4) {
				t.Errorf("%s: the estimate shrinks as h^%.2f (%.3g to %.3g), want h^%d", name, order, v[2][0], v[3][0], scheme(t, name).Order)
			}
		}
		testutil.Compare(t, "Heun less Euler", out[len(out)-1], testutil.Array(out[len(out)-2], 4), testutil.Tolerance{RTol: 1e-12})

		_, err := backend.Compile(b, "test", []backend.Input{{Name: "x", Shape: shapes.Make(dtypes.Float64, 1, 1)}}, func(in []*Node) []*Node {
			h := ScalarOne(in[0].Graph(), in[0].DType())
			_, e := scheme(t, "rk4").StepError(func(x, _ *Node) *Node { return x }, in[0], h, h)
			return []*Node{e}
		})
		if err == nil || !strings.Contains(err.Error(), "rk4 has no error estimate, want one of [adaptive_heun bosh3 dopri5 dopri8]") {
			t.Errorf("got %v, want it to say that rk4 has no error estimate", err)
		}
	})
}

// The first derivative of a step with respect to its start and to a parameter of the drift, and the second one, against
// differences of values: a loss may be differentiated through a step of every scheme.
func TestStepsCanBeDifferentiated(t *testing.T) {
	names := integrators.Names()
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		program := testutil.Compile(t, b, dtypes.Float64, [][]int{{2, 1}, {}}, func(in []*Node) []*Node {
			x, a := in[0], in[1]
			h, at := Scalar(x.Graph(), x.DType(), 0.3), Const(x.Graph(), []float64{0.2, 0.7})
			var out []*Node
			for _, name := range names {
				y := scheme(t, name).Step(func(x, t *Node) *Node { return falling(x, t, a) }, x, at, h)
				slope := Gradient(ReduceAllSum(y), x, a)
				twice := Gradient(ReduceAllSum(slope[0]), x)
				out = append(out, y, slope[0], slope[1], twice[0])
			}
			return out
		})
		const d = 1e-5
		at := func(x0, x1, a float64) [][]float64 {
			return program.Run(t, testutil.Array([]float64{x0, x1}, 2, 1), testutil.Filled(a))
		}
		here := at(0.8, 1.2, 0.9)
		up, down := at(0.8+d, 1.2+d, 0.9), at(0.8-d, 1.2-d, 0.9)
		more, less := at(0.8, 1.2, 0.9+d), at(0.8, 1.2, 0.9-d)
		// A central difference is off by d²/6 times the third derivative, and by rounding of 1e-16/d.
		tolerance := testutil.Tolerance{RTol: 1e-7, ATol: 1e-9}
		for i, name := range names {
			y, dx, da, dxx := 4*i, 4*i+1, 4*i+2, 4*i+3
			for row := range 2 {
				testutil.Compare(t, name+" dy/dx", here[dx][row:row+1], testutil.Filled((up[y][row]-down[y][row])/(2*d), 1), tolerance)
				testutil.Compare(t, name+" d²y/dx²", here[dxx][row:row+1], testutil.Filled((up[dx][row]-down[dx][row])/(2*d), 1), tolerance)
			}
			sum := func(v [][]float64) float64 { return v[y][0] + v[y][1] }
			testutil.Compare(t, name+" dy/da", here[da], testutil.Filled((sum(more)-sum(less))/(2*d)), tolerance)
		}
	})
}

// The fixed-point iteration of an implicit stage is a geometric series on dx/dt = λx: after n evaluations a step of backward
// Euler has its first n + 1 terms, and misses the implicit solution by (hλ)ⁿ⁺¹/(1 − hλ). For h|λ| > 1 it runs away.
func TestImplicitStageIsAFixedPointIteration(t *testing.T) {
	rk := scheme(t, "backward_euler_maruyama")
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		rates := []float64{-0.5, 0.5, -0.9, -1.5, 1.5}
		var counts = []int{1, 3, 8}
		in := []testutil.Tensor{testutil.Filled(1, len(rates), 1), testutil.Array(rates, len(rates))}
		out := testutil.Eval(t, b, dtypes.Float64, in, func(in []*Node) []*Node {
			var out []*Node
			for _, n := range counts {
				rk.Iterations = n
				// A step size a row: h = λ for the drift x.
				out = append(out, rk.Step(func(x, t *Node) *Node { return x }, in[0], ZerosLike(in[1]), in[1]))
			}
			return out
		})
		for i, n := range counts {
			var want []float64
			for _, z := range rates {
				want = append(want, (1-math.Pow(z, float64(n+1)))/(1-z))
			}
			testutil.Compare(t, fmt.Sprintf("%d evaluations", n), out[i], testutil.Array(want, len(want), 1), testutil.Tolerance{RTol: 1e-14})
		}
	})
}

// √(2Dh) z is added, for D and h of every allowed shape.
func TestSDEStep(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		in := []testutil.Tensor{
			testutil.Array([]float64{1, 2, 3, 4}, 2, 2), testutil.Array([]float64{0.1, 0.2}, 2),
			testutil.Array([]float64{1, -1, 0.5, 2}, 2, 2), testutil.Array([]float64{0.5, 2}, 2),
		}
		out := testutil.Eval(t, b, dtypes.Float64, in, func(in []*Node) []*Node {
			x, h, z, d := in[0], in[1], in[2], in[3]
			at := ZerosLike(h)
			still := func(x, _ *Node) *Node { return ZerosLike(x) }
			var out []*Node
			for _, name := range integrators.SDENames() {
				rk := scheme(t, name)
				out = append(out,
					rk.SDEStep(still, d, x, at, h, z),
					rk.SDEStep(still, ExpandAxes(d, -1), x, at, h, z),
					rk.SDEStep(still, nil, x, at, h, nil),
					rk.SDEStep(still, Scalar(x.Graph(), x.DType(), 2.), x, at, Scalar(x.Graph(), x.DType(), 0.25), z))
			}
			return out
		})
		noisy := testutil.Array([]float64{1 + math.Sqrt(0.1), 2 - math.Sqrt(0.1), 3 + 0.5*math.Sqrt(0.8), 4 + 2*math.Sqrt(0.8)}, 2, 2)
		for i, name := range integrators.SDENames() {
			tolerance := testutil.Tolerance{RTol: 1e-14}
			testutil.Compare(t, name+", a diffusion a row", out[4*i], noisy, tolerance)
			testutil.Compare(t, name+", a column of them", out[4*i+1], noisy, tolerance)
			testutil.Compare(t, name+", without", out[4*i+2], in[0], tolerance)
			testutil.Compare(t, name+", scalars", out[4*i+3], testutil.Array([]float64{2, 1, 3.5, 6}, 2, 2), tolerance)
		}
	})
}

func TestByName(t *testing.T) {
	for _, k := range integrators.Kinds() {
		for _, name := range append(slices.Clone(k.Aliases), k.Name) {
			rk, err := integrators.ByName(name)
			switch {
			case k.Hamiltonian:
				if err == nil {
					t.Errorf("%s: no error, though it is no Runge–Kutta scheme", name)
				}
			case err != nil:
				t.Error(err)
			case rk.Name != k.Name || rk.Order != k.Order || rk.Adaptive() != k.Adaptive:
				t.Errorf("%s: %s of order %d, adaptive %v, want %s, %d, %v", name, rk.Name, rk.Order, rk.Adaptive(), k.Name, k.Order, k.Adaptive)
			}
		}
		if k.Doc == "" || k.Formula == "" || k.Source == "" {
			t.Errorf("%s: something is not documented", k.Name)
		}
	}
	want := `integrator: "rk5", want one of euler_maruyama, backward_euler_maruyama, heun, midpoint, rk4, rk438, adaptive_heun, bosh3, dopri5, dopri8`
	if _, err := integrators.ByName("rk5"); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
