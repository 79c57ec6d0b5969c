package integrators_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/integrators"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
)

// TestContract is what every scheme must do under a Solver with fixed steps: converge as its order says, give the states of a
// trajectory, count its work, and build its graph once, whatever it is asked for later.
func TestContract(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for _, name := range integrators.Names() {
			t.Run(name, func(t *testing.T) {
				rk := scheme(t, name)
				p := fallingProblem(rk)
				p.FixedSteps = true
				built := 0
				// dx/dt = a (1 − x²) cos t, which tanh(a sin t + c) solves: not linear, and its time matters.
				p.Drift = func(x, t *Node, a ...*Node) *Node {
					built++
					return Mul(Mul(a[0], Cos(ExpandAxes(t, -1))), OneMinus(Square(x)))
				}
				s := newSolver(t, b, p)
				if built != rk.Evaluations() {
					t.Errorf("the drift was built %d times, want %d", built, rk.Evaluations())
				}
				offsets := []float64{0, 0.5, -0.7, 0.1, 0.2, 0.3}
				at := func(a, t float64) (x [][]float64) {
					for pair := range slices.Chunk(offsets, 2) {
						x = append(x, []float64{math.Tanh(a*math.Sin(t) + pair[0]), math.Tanh(a*math.Sin(t) + pair[1])})
					}
					return x
				}
				mistake := func(steps int) float64 {
					got, stats := solve(t, s, at(1, 0), 1, integrators.Grid(0, 2, steps))
					if want := (integrators.Stats{Accepted: steps, Evaluations: steps * rk.Evaluations()}); stats != want {
						t.Errorf("%+v, want %+v", stats, want)
					}
					worst := 0.0
					for i, want := range slices.Concat(at(1, 2)...) {
						worst = max(worst, math.Abs(got[i]-want))
					}
					return worst
				}
				// Few steps for a high order, whose errors would be rounding otherwise. The next term of the error is a part of
				// about h of the leading one, which makes the observed order wrong by some tenths.
				steps := map[int]int{1: 128, 2: 64, 3: 64, 4: 32, 5: 64, 8: 8}[rk.Order]
				coarse, fine := mistake(steps), mistake(2*steps)
				if order := math.Log2(coarse / fine); !(math.Abs(order-float64(rk.Order)) < 0.4) {
					t.Errorf("observed order %.2f (errors %.3g and %.3g), want %d", order, coarse, fine, rk.Order)
				}

				x, a := tensors.FromValue(starts), tensors.FromScalar(0.5)
				defer backend.Release(x, a)
				times := []float64{0, 0.1, 0.4, 0.5}
				states, stats, err := s.Trajectory(t.Context(), x, times, a)
				if err != nil {
					t.Fatal(err)
				}
				if len(states) != 3 || stats.Accepted != 3 {
					t.Fatalf("%d states after %d steps, want 3 after 3", len(states), stats.Accepted)
				}
				for i, state := range states {
					alone, _ := solve(t, s, starts, 0.5, times[:i+2])
					testutil.Compare(t, "state of the trajectory", values(t, state), testutil.Array(alone, len(alone)), testutil.Tolerance{})
				}
				if built != rk.Evaluations() {
					t.Errorf("the drift was built %d times in the end, want %d: a graph was built anew", built, rk.Evaluations())
				}
			})
		}
	})
}

// Where errors shrink along the solution, the error of an integration is no more than the sum of what its steps are allowed,
// and that of a step no more than its estimate, since the better one of two solutions goes on.
func TestAdaptiveStepsMeetTheTolerance(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for _, tc := range []struct {
			scheme string
			rtol   float64
			norm   string
		}{
			{"adaptive_heun", 1e-3, "row"}, {"bosh3", 1e-5, "batch"}, {"dopri5", 1e-8, "row"}, {"dopri8", 1e-10, "batch"},
		} {
			t.Run(tc.scheme, func(t *testing.T) {
				p := fallingProblem(scheme(t, tc.scheme))
				p.Control = integrators.Controller{Atol: tc.rtol / 1000, Rtol: tc.rtol, Norm: tc.norm}
				built := 0
				p.Drift = func(x, at *Node, a ...*Node) *Node {
					built++
					return falling(x, at, a...)
				}
				s := newSolver(t, b, p)
				builtOnce := built
				x, a := tensors.FromValue(starts), tensors.FromScalar(1.0)
				defer backend.Release(x, a)
				// The first step is far too long, so that some are rejected.
				times := []float64{0, 2.5, 3, 4}
				states, stats, err := s.Trajectory(t.Context(), x, times, a)
				if err != nil {
					t.Fatal(err)
				}
				if stats.Rejected == 0 || stats.Accepted < 3 || stats.NonFinite != 0 {
					t.Errorf("%+v, want some steps of either kind and finite rows", stats)
				}
				elements := len(slices.Concat(starts...))
				largest := slices.Max(slices.Concat(starts...))
				// A root mean square of 1 lets a single element have √n.
				allowed := float64(stats.Accepted) * math.Sqrt(float64(elements)) * (tc.rtol/1000 + tc.rtol*largest)
				for i, state := range states {
					for j, got := range values(t, state) {
						want := fallen(slices.Concat(starts...)[j], 1, times[i+1])
						if !(math.Abs(got-want) <= allowed) {
							t.Errorf("x(%g) = %.12g, want %.12g ± %.2g", times[i+1], got, want, allowed)
						}
					}
				}
				// The same in one go: only the ends of the times count.
				whole, one := solve(t, s, starts, 1, times)
				for j, got := range whole {
					if want := fallen(slices.Concat(starts...)[j], 1, 4); !(math.Abs(got-want) <= allowed) {
						t.Errorf("x(4) = %.12g in one go, want %.12g ± %.2g", got, want, allowed)
					}
				}
				attempts := one.Accepted + one.Rejected
				if tc.norm == "batch" && !p.Scheme.FSAL && one.Evaluations != attempts*p.Scheme.Evaluations() {
					t.Errorf("%d evaluations in %d attempts, want %d each", one.Evaluations, attempts, p.Scheme.Evaluations())
				}
				if built != builtOnce {
					t.Error("a graph was built anew")
				}
			})
		}
	})
}

// With norm row every row has its own step sizes: what the others are does not change a bit of it.
func TestARowDoesNotDependOnTheOthers(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		p := fallingProblem(scheme(t, "bosh3"))
		p.Control.Norm = "row"
		s := newSolver(t, b, p)
		times := integrators.Grid(0, 2, 4)
		some, _ := solve(t, s, starts, 1, times)
		others, _ := solve(t, s, [][]float64{starts[0], {100, 200}, {0, 0}}, 1, times)
		if !slices.Equal(some[:2], others[:2]) {
			t.Errorf("row 0 is %v beside some rows and %v beside others", some[:2], others[:2])
		}
	})
}

// Back along Reversed to where it started; dx/dt = −f(x, t) alone would lead elsewhere, since f depends on time.
func TestThereAndBack(t *testing.T) {
	const start, end = 0.5, 2
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		p := fallingProblem(scheme(t, "dopri5"))
		p.Control = integrators.Controller{Atol: 1e-12, Rtol: 1e-10}
		p.Inputs[0].Name = "direction"
		p.Drift = func(x, at *Node, direction ...*Node) *Node {
			there := func(x, t *Node) *Node { return falling(x, t, OnesLike(direction[0])) }
			back := integrators.Reversed(there, start, end)
			return Where(GreaterThan(direction[0], ZerosLike(direction[0])), there(x, at), back(x, at))
		}
		s := newSolver(t, b, p)
		times := integrators.Grid(start, end, 10)
		there, _ := solve(t, s, starts, 1, times)
		back, stats := solve(t, s, [][]float64{there[:2], there[2:4], there[4:]}, -1, times)
		// Backwards errors grow, by (x(start)/x(end))² at most, which is below 150 here.
		allowed := 150 * math.Sqrt(6) * 3 * 1e-10 * float64(2*stats.Accepted)
		testutil.Compare(t, "there and back", back, testutil.Array(slices.Concat(starts...), 3, 2), testutil.Tolerance{ATol: allowed})
	})
}

// Float32 states, of more axes than two, under an adaptive scheme.
func TestFloat32Images(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		s := newSolver(t, b, integrators.Problem{
			Scheme: scheme(t, "bosh3"),
			Drift:  func(x, t *Node, _ ...*Node) *Node { return Neg(x) },
			State:  shapes.Make(dtypes.Float32, 2, 1, 2, 2),
		})
		x := tensors.FromFlatDataAndDimensions([]float32{1, 2, 3, 4, 5, 6, 7, 8}, 2, 1, 2, 2)
		defer backend.Release(x)
		out, _, err := s.Solve(t.Context(), x, integrators.Grid(0, 1, 3))
		if err != nil {
			t.Fatal(err)
		}
		defer backend.Release(out)
		got, err := backend.Read[float32](out)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range got {
			if want := float64(i+1) * math.Exp(-1); !(math.Abs(float64(v)-want) < 0.01*want) { // ten steps of 1e-3
				t.Errorf("element %d: %g, want %g", i, v, want)
			}
		}
	})
}

func TestSolverReportsFaults(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	// dx/dt = a x² with x(0) = x₀ has no solution past t = 1/(a x₀).
	p := fallingProblem(scheme(t, "dopri5"))
	p.Drift = func(x, _ *Node, a ...*Node) *Node { return Mul(a[0], Square(x)) }
	p.Control.MaxSteps = 300
	adaptive := newSolver(t, b, p)
	p.FixedSteps = true
	fixed := newSolver(t, b, p)
	p.FixedSteps, p.Control.MaxSteps = false, 3
	short := newSolver(t, b, p)

	x, a := tensors.FromValue(starts), tensors.FromScalar(1.0)
	huge := tensors.FromScalar(math.Inf(1))
	defer backend.Release(x, a, huge)
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	for _, tc := range []struct {
		name  string
		ctx   context.Context
		s     *integrators.Solver
		times []float64
		input *tensors.Tensor
		want  string
	}{
		{"one time", t.Context(), adaptive, []float64{1}, a, "integrators: times: 1 of them, want at least 2"},
		{"back in time", t.Context(), adaptive, []float64{1, 0}, a, "integrators: times: 0 after 1, want times that rise; the drift Reversed goes back"},
		{"standing still", t.Context(), fixed, []float64{0, 1, 1}, a, "integrators: times: 1 after 1, want times that rise"},
		{"no number", t.Context(), fixed, []float64{0, math.NaN()}, a, "integrators: times: NaN, want finite numbers"},
		{"past the end of the solution", t.Context(), adaptive, []float64{0, 2}, a, "integrators: dopri5: step size: "},
		{"too few steps", t.Context(), short, []float64{0, 0.33}, a, "integrators: dopri5: max_steps: 3 attempts brought t to "},
		{"a drift that is not finite", t.Context(), adaptive, []float64{0, 1}, huge, "integrators: dopri5: the drift is not finite at t = 0 (row 0)"},
		{"cancelled", cancelled, fixed, []float64{0, 1}, a, "integrators: dopri5: context canceled"},
		{"another input", t.Context(), fixed, []float64{0, 1}, x, "integrators: dopri5: backend: run dopri5: input a has shape"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, _, err := tc.s.Solve(tc.ctx, x, tc.times, tc.input)
			if err == nil || !strings.HasPrefix(err.Error(), tc.want) || out != nil {
				t.Errorf("got %v, want %s…", err, tc.want)
			}
			if strings.Contains(tc.want, "canceled") && !errors.Is(err, context.Canceled) {
				t.Errorf("%v is no context.Canceled", err)
			}
		})
	}

	// Fixed steps go on, and say how many rows were lost: those that leap past the pole grow without bound.
	_, stats := solve(t, fixed, [][]float64{{0.1, 0.1}, {50, 1}, {0.1, 0.2}}, 1, integrators.Grid(0, 2, 10))
	if stats.NonFinite != 1 {
		t.Errorf("%d rows not finite, want 1", stats.NonFinite)
	}
	got := values(t, func() *tensors.Tensor { // the caller's state is whole
		out, _, err := fixed.Solve(t.Context(), x, []float64{0, 1e-300}, a)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}())
	testutil.Compare(t, "a step of hardly any size", got, testutil.Array(slices.Concat(starts...), 3, 2), testutil.Tolerance{})
}

func TestNewSolverReportsFaults(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	for _, tc := range []struct {
		name string
		edit func(p *integrators.Problem)
		want []string
	}{
		{"a state without rows", func(p *integrators.Problem) { p.State = shapes.Make(dtypes.Float64, 3) }, []string{"state: (Float64)[3], want [batch, dim]"}},
		{"whole numbers", func(p *integrators.Problem) { p.State = shapes.Make(dtypes.Int32, 3, 2) }, []string{"state: (Int32)[3 2], want [batch, dim]"}},
		{"a drift of another shape", func(p *integrators.Problem) {
			p.Drift = func(x, t *Node, _ ...*Node) *Node { return t }
		}, []string{"a drift of (Float64)[3] for states (Float64)[3 2], want the same shape"}},
		{"two settings", func(p *integrators.Problem) {
			p.Control = integrators.Controller{Atol: -1, MaxSteps: -1}
		}, []string{"atol: -1, want a positive number", "max_steps: -1, want at least 1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := fallingProblem(scheme(t, "dopri5"))
			tc.edit(&p)
			_, err := integrators.NewSolver(b, p)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want it to say %s", err, want)
				}
			}
		})
	}
}
