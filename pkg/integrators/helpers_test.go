package integrators_test

import (
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/integrators"
)

// scheme is a scheme by name.
func scheme(t testing.TB, name string) integrators.RungeKutta {
	t.Helper()
	rk, err := integrators.ByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return rk
}

// The equation of most tests is dx/dt = −2a t x², an input a. It is not linear, depends on time, has the solution
// 1/(1/x₀ + a t²), and errors shrink along it, for ∂f/∂x ≤ 0 where x > 0.
func falling(x, t *Node, a ...*Node) *Node {
	return MulScalar(Mul(a[0], Mul(ExpandAxes(t, -1), Square(x))), -2)
}

func fallen(x, a, t float64) float64 { return 1 / (1/x + a*t*t) }

var starts = [][]float64{{1, 0.5}, {2, 1.5}, {0.25, 3}}

func fallingProblem(rk integrators.RungeKutta) integrators.Problem {
	return integrators.Problem{
		Scheme: rk,
		Drift:  falling,
		State:  shapes.Make(dtypes.Float64, len(starts), len(starts[0])),
		Inputs: []backend.Input{{Name: "a", Shape: shapes.Make(dtypes.Float64)}},
	}
}

func newSolver(t testing.TB, b *backend.Backend, p integrators.Problem) *integrators.Solver {
	t.Helper()
	s, err := integrators.NewSolver(b, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// solve integrates states x with the input a.
func solve(t testing.TB, s *integrators.Solver, x [][]float64, a float64, times []float64) ([]float64, integrators.Stats) {
	t.Helper()
	in, input := tensors.FromValue(x), tensors.FromScalar(a)
	defer backend.Release(in, input)
	out, stats, err := s.Solve(t.Context(), in, times, input)
	if err != nil {
		t.Fatal(err)
	}
	return values(t, out), stats
}

// values reads a float64 tensor and frees it.
func values(t testing.TB, x *tensors.Tensor) []float64 {
	t.Helper()
	defer backend.Release(x)
	out, err := backend.Read[float64](x)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
