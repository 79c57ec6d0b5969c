package samplers_test

import (
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

// replay is a recorded chain of another sampler than Langevin's on its way.
type replay struct {
	testutil.Case
	kernel   samplers.Kernel
	energy   models.Energy
	weights  []testutil.Tensor
	stepSize schedules.Schedule
	steps    int
	thin     int
	at       int // index of the first input of its part of the program

	x, aux []float64
	got    map[string][]float64
	kept   [][]float64
}

// TestReferenceKernels replays the recorded chains of Hamiltonian Monte Carlo, with any mass, on a curved space, and of the
// descents. All cases make their next step by one call of one program, since compiling is what this test spends its time
// on. Double precision alone: the descents have nothing that Langevin's chains have not, and in single precision a test
// close to its threshold may go the other way.
func TestReferenceKernels(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		var replays []*replay
		seen := map[string]bool{}
		for _, c := range testutil.Reference(t, "samplers") {
			switch c.Component {
			case "LangevinDynamics", "FlowSampler": // tests of their own
				continue
			case "HamiltonianMonteCarlo", "RiemannianManifoldHMC", "GradientDescentSampler", "NesterovSampler":
			default:
				t.Fatalf("%s: component %s is not known", c.Name, c.Component)
			}
			seen[c.Component] = true
			replays = append(replays, newReplay(t, c))
		}
		if len(seen) != 4 {
			t.Fatalf("components %v, want 4 of them", seen)
		}
		var shapes [][]int
		steps := 0
		for _, r := range replays {
			x := r.Inputs["x"].Shape
			r.at = len(shapes)
			shapes = append(shapes, x, x, x, []int{x[0]}, []int{}) // x, aux, z, u, ε
			shapes = append(shapes, testutil.ShapesOf(r.weights)...)
			steps = max(steps, r.steps)
		}
		program := testutil.Compile(t, b, dtypes.Float64, shapes, func(in []*Node) []*Node {
			var out []*Node
			for _, r := range replays {
				out = append(out, r.build(in[r.at:r.at+5+len(r.weights)])...)
			}
			return out
		})
		for m := range steps {
			var in []testutil.Tensor
			for _, r := range replays {
				in = append(in, r.inputs(min(m, r.steps-1))...)
			}
			out := program.Run(t, in...)
			for i, r := range replays {
				if m < r.steps {
					r.collect(m, out[i*len(parts):(i+1)*len(parts)])
				}
			}
		}
		for _, r := range replays {
			t.Run(r.Name, r.check)
		}
	})
}

func newReplay(t *testing.T, c testutil.Case) *replay {
	c.Only(t,
		[]string{"energy", "step_size", "n_steps", "thin", "n_leapfrog_steps", "mass", "n_accepted", "n_rejected", "momentum", "metric", "g", "solver_max_iter"},
		[]string{"energy", "x", "momentum_noise", "uniform", "mass"},
		[]string{"trajectory", "x", "accept_prob", "hamiltonian_current", "hamiltonian_proposed", "proposal_x", "proposal_p", "accepted",
			"diag.mean", "diag.var", "diag.energy", "diag.acceptance_rate"})
	x := c.Inputs["x"]
	r := &replay{Case: c, energy: c.Energy(t, x.Shape[1]), stepSize: c.Schedule(t, "step_size", 1e-3),
		steps: int(c.Num("n_steps", 100)), thin: int(c.Num("thin", 1)), x: x.Data, aux: make([]float64, len(x.Data)), got: map[string][]float64{}}
	r.weights = c.Weights(t, r.energy)
	config := samplers.Config{Steps: r.steps, StepSize: schedules.Constant(1)}
	switch c.Component {
	case "HamiltonianMonteCarlo":
		config.Kind, config.LeapfrogSteps = "hmc", int(c.Num("n_leapfrog_steps", 10))
		switch mass := c.Params["mass"].(type) {
		case float64:
			config.Mass = samplers.Mass{mass}
		case string:
			if mass == "vector" {
				config.Mass = c.Inputs["mass"].Data
			} else if mass != "none" {
				t.Fatalf("mass: %q", mass)
			}
		}
	case "RiemannianManifoldHMC":
		if metric := c.Str("metric", ""); metric != "diag(1 + g*x^2)" {
			t.Fatalf("metric: %q", metric)
		}
		g := c.Num("g", 1)
		config.Kind, config.Metric, config.MetricStrength = "rmhmc", "quadratic", &g
		config.LeapfrogSteps, config.SolverSteps = int(c.Num("n_leapfrog_steps", 10)), int(c.Num("solver_max_iter", 8))
	case "GradientDescentSampler":
		config.Kind = "gradient_descent"
	case "NesterovSampler":
		momentum := c.Num("momentum", 0.9)
		config.Kind, config.Momentum = "nesterov", &momentum
	}
	if err := config.Validate(); err != nil {
		t.Fatal(err)
	}
	r.kernel = config.NewKernel(nil)
	return r
}

// parts are the outputs of a step.
var parts = []string{"x", "aux", "energies", "accepted", "accept_prob", "hamiltonian_current", "hamiltonian_proposed", "proposal_x", "proposal_p", "not finite"}

// build makes a step. Inputs: x, aux, z, u, ε, weights. Outputs: parts.
func (r *replay) build(in []*Node) []*Node {
	x, aux, z, u, eps := in[0], in[1], in[2], in[3], in[4]
	rows := x.Shape().Dimensions[0]
	target := samplers.Target{
		Beta: BroadcastToDims(ScalarOne(x.Graph(), x.DType()), rows),
		Path: samplers.Power(models.At(r.energy, in[5:])),
	}
	p := target.At(x)
	p.Aux = aux
	p, info := r.kernel.Step(target, p, BroadcastToDims(eps, rows), samplers.Noise{Z: z, U: u})
	out := []*Node{p.X, p.Aux, Neg(p.V), info.Accept, info.AcceptProb, info.Current, info.Proposed, info.ProposalX, info.ProposalP, info.NonFinite}
	for i, n := range out {
		if n == nil {
			out[i] = ZerosLike(x)
		}
	}
	return out
}

func (r *replay) inputs(m int) []testutil.Tensor {
	x := r.Inputs["x"]
	z, u := testutil.Filled(0, x.Shape...), testutil.Filled(0, x.Shape[0])
	if all, ok := r.Inputs["momentum_noise"]; ok {
		z, u = all.Slice(m), r.Inputs["uniform"].Slice(m)
	}
	in := []testutil.Tensor{testutil.Array(r.x, x.Shape...), testutil.Array(r.aux, x.Shape...), z, u, testutil.Filled(r.stepSize.At(m))}
	return append(in, r.weights...)
}

func (r *replay) collect(m int, out [][]float64) {
	r.x, r.aux = out[0], out[1]
	for i, name := range parts[3:] {
		r.got[name] = append(r.got[name], out[i+3]...)
	}
	if (m+1)%r.thin != 0 {
		return
	}
	dim := r.Inputs["x"].Shape[1]
	r.kept = append(r.kept, r.x)
	r.got["x"] = r.x
	mean, variance := moments(r.x, dim)
	energy, _ := moments(out[2], 1)
	rate, _ := moments(out[3], 1)
	r.got["diag.mean"] = append(r.got["diag.mean"], mean...)
	r.got["diag.var"] = append(r.got["diag.var"], variance...)
	r.got["diag.energy"] = append(r.got["diag.energy"], energy...)
	r.got["diag.acceptance_rate"] = append(r.got["diag.acceptance_rate"], rate[0])
}

func (r *replay) check(t *testing.T) {
	x := r.Inputs["x"]
	rows, dim := x.Shape[0], x.Shape[1]
	for row := range rows {
		for _, state := range r.kept {
			r.got["trajectory"] = append(r.got["trajectory"], state[row*dim:(row+1)*dim]...)
		}
	}
	for name, want := range r.Expect {
		testutil.Compare(t, name, r.got[name], want, r.For64(name))
	}
	taken := 0.0
	for _, v := range r.got["accepted"] {
		taken += v
	}
	if want := r.Num("n_accepted", taken); taken != want {
		t.Errorf("%g proposals accepted, want %g", taken, want)
	}
	if want := float64(r.steps*rows) - taken; r.Num("n_rejected", want) != want {
		t.Errorf("%g proposals rejected, want %g", want, r.Num("n_rejected", want))
	}
	for _, v := range r.got["not finite"] {
		if v != 0 {
			t.Error("a step is reported as not finite")
			break
		}
	}
}
