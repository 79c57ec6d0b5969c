package integrators_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/integrators"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// TestReference replays every recorded integration, in float64 and (but for adaptive steps, whose sequence may change) in
// float32. Cases that differ only in numbers share a program.
func TestReference(t *testing.T) {
	cases := testutil.Reference(t, "integrators")
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		r := replayer{b: b, twins: map[string]*twin{}, solvers: map[string]*integrators.Solver{}, parent: t}
		for _, c := range cases {
			t.Run(c.Name, func(t *testing.T) {
				switch c.Component {
				case "LeapfrogIntegrator":
					r.leapfrog(t, c)
				case "GeneralisedLeapfrogIntegrator":
					r.generalised(t, c)
				default:
					r.rungeKutta(t, c)
				}
			})
		}
	})
}

// replayer keeps the programs of a backend.
type replayer struct {
	b       *backend.Backend
	twins   map[string]*twin
	solvers map[string]*integrators.Solver
	parent  *testing.T // programs live as long as this test
}

// components are our names of TorchEBM's schemes.
var components = map[string]string{
	"EulerMaruyamaIntegrator": "euler_maruyama", "BackwardEulerMaruyamaIntegrator": "backward_euler_maruyama",
	"HeunIntegrator": "heun", "MidpointIntegrator": "midpoint", "RK4Integrator": "rk4", "RK438Integrator": "rk438",
	"AdaptiveHeunIntegrator": "adaptive_heun", "Bosh3Integrator": "bosh3", "Dopri5Integrator": "dopri5", "Dopri8Integrator": "dopri8",
}

func (r *replayer) rungeKutta(t *testing.T, c testutil.Case) {
	c.Only(t, []string{"drift", "op", "step_size", "n_steps", "noise_scale", "diffusion", "adaptive", "atol", "rtol", "safety",
		"min_factor", "max_factor", "max_step_size", "max_steps", "order", "solver_max_iter"},
		[]string{"A", "b", "x", "t", "t_grid", "noise", "diffusion"}, []string{"x", "x_noise_scale", "x_diffusion"})
	rk, err := integrators.ByName(components[c.Component])
	if err != nil {
		t.Fatalf("component %s: %v", c.Component, err)
	}
	if n := int(c.Num("solver_max_iter", 0)); n > 0 && rk.Iterations > 0 {
		rk.Iterations = n
	}
	if c.Bool("adaptive", false) {
		r.adaptive(t, c, rk)
		return
	}
	x := c.Inputs["x"]
	rows, steps := x.Shape[0], int(c.Num("n_steps", 1))
	column := []int{rows, 1}
	drift := driftOf(t, c)
	program := r.twin(fmt.Sprint(rk.Name, rk.Iterations, x.Shape), append([][]int{x.Shape, {rows}, {}, x.Shape, column}, testutil.ShapesOf(drift)...),
		func(in []*Node) []*Node {
			return []*Node{rk.SDEStep(recorded(in[5:]), in[4], in[0], in[1], in[2], in[3])}
		})
	step := func(s state, times testutil.Tensor, h float64, noise, diffusion testutil.Tensor) state {
		return program.run(t, s, append([]testutil.Tensor{times, testutil.Filled(h), noise, diffusion}, drift...)...)
	}
	none, still := testutil.Filled(0, x.Shape...), testutil.Filled(0, column...)
	start := newState(x)
	h := c.Num("step_size", 0)
	switch op := c.Str("op", ""); op {
	case "step":
		step(start, c.Inputs["t"], h, none, still).compare(t, c, "x")
	case "sde_step":
		scale := c.Num("noise_scale", 1)
		for name, diffusion := range map[string]testutil.Tensor{
			"x_noise_scale": testutil.Filled(scale*scale, column...), "x_diffusion": c.Inputs["diffusion"],
		} {
			if _, ok := c.Expect[name]; ok {
				step(start, c.Inputs["t"], h, c.Inputs["noise"], diffusion).compare(t, c, name)
			}
		}
	case "integrate", "sde_integrate":
		grid := c.Inputs["t_grid"].Data
		if grid == nil {
			for k := range steps + 1 {
				grid = append(grid, float64(k)*h)
			}
		}
		noise, diffusion := none, still
		d0, d1 := c.Num("noise_scale", 0)*c.Num("noise_scale", 0), 0.0
		if line := c.Str("diffusion", ""); line != "" {
			if _, err := fmt.Sscanf(line, "%g + %g*t", &d0, &d1); err != nil {
				t.Fatalf("diffusion: %q, want a line such as 0.3 + 0.5*t", line)
			}
		}
		for k, at := range grid[:len(grid)-1] {
			if op == "sde_integrate" {
				noise, diffusion = c.Inputs["noise"].Slice(k), testutil.Filled(d0+d1*at, column...)
			}
			start = step(start, testutil.Filled(at, rows), grid[k+1]-at, noise, diffusion)
		}
		start.compare(t, c, "x")
	default:
		t.Fatalf("op: %q, want step, integrate, sde_step or sde_integrate", op)
	}
}

func (r *replayer) adaptive(t *testing.T, c testutil.Case, rk integrators.RungeKutta) {
	x, drift := c.Inputs["x"], driftOf(t, c)
	if order := int(c.Num("order", float64(rk.Order))); order != rk.Order {
		t.Fatalf("order: %d, want %d", order, rk.Order)
	}
	if op := c.Str("op", ""); op != "integrate" {
		t.Fatalf("op: %q with adaptive steps, want integrate", op)
	}
	times := c.Inputs["t_grid"].Data
	if times == nil {
		steps := int(c.Num("n_steps", 1))
		times = integrators.Grid(0, c.Num("step_size", 0)*float64(steps), steps)
	}
	p := integrators.Problem{
		Scheme: rk,
		Drift:  func(x, t *Node, inputs ...*Node) *Node { return recorded(inputs)(x, t) },
		State:  shapes.Make(dtypes.Float64, x.Shape...),
		Control: integrators.Controller{Atol: c.Num("atol", 0), Rtol: c.Num("rtol", 0), Safety: c.Num("safety", 0),
			MinFactor: c.Num("min_factor", 0), MaxFactor: c.Num("max_factor", 0),
			MaxStepSize: c.Num("max_step_size", 0), MaxSteps: int(c.Num("max_steps", 0))},
	}
	var args []*tensors.Tensor
	for i, d := range append([]testutil.Tensor{x}, drift...) {
		args = append(args, tensors.FromFlatDataAndDimensions(slices.Clone(d.Data), d.Shape...))
		if i > 0 {
			p.Inputs = append(p.Inputs, backend.Input{Name: fmt.Sprint("drift", i), Shape: shapes.Make(dtypes.Float64, d.Shape...)})
		}
	}
	defer backend.Release(args...)
	key := fmt.Sprint(rk.Name, x.Shape, p.Control)
	if r.solvers[key] == nil {
		s, err := integrators.NewSolver(r.b, p)
		if err != nil {
			t.Fatal(err)
		}
		r.parent.Cleanup(s.Close)
		r.solvers[key] = s
	}
	out, _, err := r.solvers[key].Solve(t.Context(), args[0], times, args[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Release(out)
	got, err := backend.Read[float64](out)
	if err != nil {
		t.Fatal(err)
	}
	testutil.Compare(t, "x", got, c.Expect["x"], c.For64("x"))
}

func (r *replayer) leapfrog(t *testing.T, c testutil.Case) {
	c.Only(t, []string{"energy", "step_size", "n_steps", "mass", "safe"}, []string{"energy", "x", "p", "mass"},
		[]string{"step.x", "step.p", "integrate.x", "integrate.p"})
	x := c.Inputs["x"]
	energy := c.Energy(t, x.Shape[1])
	args := c.Weights(t, energy)
	mass, hasMass := c.Inputs["mass"]
	if m := c.Num("mass", 0); m > 0 {
		mass, hasMass = testutil.Filled(m), true
	}
	if !hasMass {
		mass = testutil.Filled(1)
	}
	program := r.twin(fmt.Sprint("leapfrog", c.EnergyKey(), x.Shape, mass.Shape, hasMass, c.Bool("safe", false)),
		append([][]int{x.Shape, x.Shape, x.Shape, {}, mass.Shape}, testutil.ShapesOf(args)...),
		func(in []*Node) []*Node {
			force := func(x *Node) *Node { return models.Score(models.At(energy, in[5:]), x) }
			if c.Bool("safe", false) {
				force = integrators.ClipForce(force, 1e6)
			}
			m := in[4]
			if !hasMass {
				m = nil
			}
			x, p, f := integrators.LeapfrogStep(force, in[0], in[1], in[2], in[3], m)
			return []*Node{x, p, f}
		})
	step := func(s state, h float64) state {
		return program.run(t, s, append([]testutil.Tensor{testutil.Filled(h), mass}, args...)...)
	}
	// A step of size 0 gives the force at the start.
	s := step(newState(x, c.Inputs["p"], testutil.Filled(0, x.Shape...)), 0)
	for k := range int(c.Num("n_steps", 1)) {
		s = step(s, c.Num("step_size", 0))
		if k == 0 {
			s.compare(t, c, "step.x", "step.p")
		}
	}
	s.compare(t, c, "integrate.x", "integrate.p")
}

func (r *replayer) generalised(t *testing.T, c testutil.Case) {
	c.Only(t, []string{"hamiltonian", "step_size", "n_steps", "solver_max_iter"}, []string{"x", "p"},
		[]string{"step.x", "step.p", "integrate.x", "integrate.p"})
	if h := c.Str("hamiltonian", ""); h != "x^2/2 + p^2/(2(1+x^2)) + log(1+x^2)/2" {
		t.Fatalf("hamiltonian: %q: this test does not know it", h)
	}
	x := c.Inputs["x"]
	g := integrators.GeneralisedLeapfrog{Iterations: int(c.Num("solver_max_iter", 8))}
	program := r.twin(fmt.Sprint("generalised", x.Shape, g), [][]int{x.Shape, x.Shape, {}}, func(in []*Node) []*Node {
		x, p, _ := g.Step(curvedForce, curvedVelocity, in[0], in[1], in[2])
		return []*Node{x, p}
	})
	s := newState(x, c.Inputs["p"])
	for k := range int(c.Num("n_steps", 1)) {
		s = program.run(t, s, testutil.Filled(c.Num("step_size", 0)))
		if k == 0 {
			s.compare(t, c, "step.x", "step.p")
		}
	}
	s.compare(t, c, "integrate.x", "integrate.p")
}

// curvedForce and curvedVelocity are −∂H/∂x and ∂H/∂p of H = x²/2 + p²/(2(1 + x²)) + log(1 + x²)/2.
func curvedForce(x, p *Node) *Node {
	g := OnePlus(Square(x))
	return Neg(Add(Sub(x, Div(Mul(x, Square(p)), Square(g))), Div(x, g)))
}

func curvedVelocity(x, p *Node) *Node { return Div(p, OnePlus(Square(x))) }

// driftOf are the numbers of a recorded drift: A, b, the frequency ω, and whether it is the cubic one.
func driftOf(t *testing.T, c testutil.Case) []testutil.Tensor {
	dim := c.Inputs["x"].Shape[1]
	switch name := c.Str("drift", ""); name {
	case "linear_forced":
		return []testutil.Tensor{c.Inputs["A"], c.Inputs["b"], testutil.Filled(c.Num("drift.omega", 0)), testutil.Filled(0)}
	case "cubic":
		return []testutil.Tensor{testutil.Filled(0, dim, dim), testutil.Filled(0, dim), testutil.Filled(0), testutil.Filled(1)}
	default:
		t.Fatalf("drift: %q, want linear_forced or cubic", name)
		return nil
	}
}

// recorded is the drift of driftOf: x A' + b cos(ωt), or x − x³ + sin t.
func recorded(in []*Node) integrators.Drift {
	a, b, omega, cubic := in[0], in[1], in[2], in[3]
	return func(x, t *Node) *Node {
		t = ExpandAxes(t, -1)
		linear := Add(Dot(x, Transpose(a, 0, 1)), Mul(ExpandAxes(b, 0), Cos(Mul(omega, t))))
		return Add(Mul(OneMinus(cubic), linear), Mul(cubic, Add(Sub(x, Mul(x, Square(x))), Sin(t))))
	}
}

// twin is a program that takes its arrays in both precisions.
type twin struct {
	graph *testutil.Graph
	dims  int // number of inputs
}

func (r *replayer) twin(key string, dims [][]int, build func(in []*Node) []*Node) *twin {
	if r.twins[key] == nil {
		graph := testutil.Compile(r.parent, r.b, dtypes.Float64, append(slices.Clone(dims), dims...), func(in []*Node) []*Node {
			small := make([]*Node, len(dims))
			for i, n := range in[len(dims):] {
				small[i] = ConvertDType(n, dtypes.Float32)
			}
			return append(build(in[:len(dims)]), build(small)...)
		})
		r.twins[key] = &twin{graph, len(dims)}
	}
	return r.twins[key]
}

// state is what a step passes on, in float64 and in float32.
type state struct {
	shape          []int
	double, single [][]float64
}

func newState(parts ...testutil.Tensor) state {
	s := state{shape: parts[0].Shape}
	for _, p := range parts {
		s.double, s.single = append(s.double, p.Data), append(s.single, p.Data)
	}
	return s
}

// run makes a step from s with further inputs.
func (w *twin) run(t *testing.T, s state, rest ...testutil.Tensor) state {
	var in []testutil.Tensor
	for _, half := range [][][]float64{s.double, s.single} {
		for _, part := range half {
			in = append(in, testutil.Array(part, s.shape...))
		}
		in = append(in, rest...)
	}
	out := w.graph.Run(t, in...)
	return state{s.shape, out[:len(out)/2], out[len(out)/2:]}
}

// compare compares the parts of the state, in order, with expectations.
func (s state) compare(t *testing.T, c testutil.Case, names ...string) {
	t.Helper()
	for i, name := range names {
		testutil.Compare(t, name, s.double[i], c.Expect[name], c.For64(name))
		testutil.Compare(t, name+" in float32", s.single[i], c.Expect[name], c.For32(name))
	}
}
