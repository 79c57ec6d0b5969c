package integrators

import (
	"context"
	"fmt"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
)

// Problem is what a [Solver] integrates: dx/dt = f(x, t) for a batch of states.
type Problem struct {
	Scheme RungeKutta
	// Drift builds f(x, t): x as State says, t [batch], and the inputs, such as the weights of a network.
	Drift func(x, t *Node, inputs ...*Node) *Node
	// State is the shape of the states, [batch, dim] or with more axes, float32 or float64.
	State shapes.Shape
	// Inputs are what else the drift takes.
	Inputs []backend.Input
	// FixedSteps makes an adaptive scheme take one step for each interval of the times.
	FixedSteps bool
	// Control chooses the step sizes of an adaptive scheme.
	Control Controller
}

// Stats says what an integration took.
type Stats struct {
	Accepted, Rejected int // steps; with norm row those of all rows together
	Evaluations        int // of the drift, for the whole batch
	NonFinite          int // rows of the last state with a number that is not finite
}

// Solver integrates states of one shape by one compiled program, whatever the times and the values of the inputs. The state
// stays on the device: an adaptive step reads one number a row, a fixed one nothing. It is safe for use by one goroutine
// at a time.
type Solver struct {
	problem Problem
	program *backend.Program
}

// NewSolver compiles the step of a problem.
func NewSolver(b *backend.Backend, p Problem) (*Solver, error) {
	if p.State.Rank() < 2 || p.State.DType != dtypes.Float32 && p.State.DType != dtypes.Float64 {
		return nil, fmt.Errorf("integrators: state: %s, want [batch, dim] of float32 or float64, or more axes", p.State)
	}
	if err := p.Control.Validate(); err != nil {
		return nil, fmt.Errorf("integrators: %w", err)
	}
	p.Control = p.Control.WithDefaults()
	inputs := []backend.Input{{Name: "x", Shape: p.State}, {Name: "t", Shape: p.perStep()}, {Name: "h", Shape: p.perStep()}}
	build := p.step
	if p.adaptive() {
		build = p.attempt
		if p.Scheme.FSAL {
			inputs = append(inputs, backend.Input{Name: "first", Shape: p.State})
		}
	}
	program, err := backend.Compile(b, p.Scheme.Name, append(inputs, p.Inputs...), build)
	if err != nil {
		return nil, fmt.Errorf("integrators: %w", err)
	}
	return &Solver{p, program}, nil
}

// Close frees the compiled program.
func (s *Solver) Close() { s.program.Close() }

// Solve integrates x from times[0] to the last of times, which rise, and gives the state there. A scheme with fixed steps
// makes one for each interval; an adaptive one only tries the first interval as its first step. x stays the caller's, and
// so does the result.
func (s *Solver) Solve(ctx context.Context, x *tensors.Tensor, times []float64, inputs ...*tensors.Tensor) (*tensors.Tensor, Stats, error) {
	states, stats, err := s.integrate(ctx, x, times, false, inputs)
	if err != nil {
		return nil, stats, err
	}
	return states[0], stats, nil
}

// Trajectory is Solve that gives the states at all of times but the first, at which it is x. An adaptive scheme ends a step
// at each of them.
func (s *Solver) Trajectory(ctx context.Context, x *tensors.Tensor, times []float64, inputs ...*tensors.Tensor) ([]*tensors.Tensor, Stats, error) {
	return s.integrate(ctx, x, times, true, inputs)
}

// Grid is steps + 1 equally spaced times from start to end.
func Grid(start, end float64, steps int) []float64 {
	out := make([]float64, steps+1)
	for i := range out {
		out[i] = start + (end-start)*float64(i)/float64(steps)
	}
	out[steps] = end // whatever the rounding
	return out
}

func (p Problem) adaptive() bool { return p.Scheme.Adaptive() && !p.FixedSteps }

// perStep is the shape of t and h: a number a row where rows may go at their own pace.
func (p Problem) perStep() shapes.Shape {
	if p.adaptive() {
		return shapes.Make(p.State.DType, p.State.Dimensions[0])
	}
	return shapes.Make(p.State.DType)
}

// step builds a fixed step. Inputs: x, t, h and those of the drift. Outputs: x⁺, the number of its rows that are not finite.
func (p Problem) step(in []*Node) []*Node {
	x, t, h, inputs := in[0], in[1], in[2], in[3:]
	next := p.Scheme.Step(p.drift(inputs), x, BroadcastToDims(t, p.State.Dimensions[0]), h)
	return []*Node{next, nonFiniteRows(next)}
}

// attempt builds an adaptive step. Inputs: x, t, h, with FSAL f(x, t), and those of the drift. Outputs: x⁺, or x in the rows
// whose step is rejected; the number of its rows that are not finite; the norm of each row; with FSAL the drift there.
func (p Problem) attempt(in []*Node) []*Node {
	x, t, h, inputs := in[0], in[1], in[2], in[3:]
	var first *Node
	if p.Scheme.FSAL {
		first, inputs = inputs[0], inputs[1:]
	}
	next, err, last := p.Scheme.stepFrom(p.drift(inputs), first, x, t, h)
	norm := p.norm(err, x, next)
	accepted := BroadcastToShape(over(LessOrEqual(norm, OnesLike(norm)), x), x.Shape())
	next = Where(accepted, next, x)
	out := []*Node{next, nonFiniteRows(next), norm}
	if p.Scheme.FSAL {
		out = append(out, Where(accepted, last, first))
	}
	return out
}

func (p Problem) drift(inputs []*Node) Drift {
	return func(x, t *Node) *Node { return p.Drift(x, t, inputs...) }
}

// norm is the root mean square of err/(atol + rtol·max(|x|, |x⁺|)), [batch], over the row or the whole batch.
func (p Problem) norm(err, x, next *Node) *Node {
	allowed := AddScalar(MulScalar(Max(Abs(x), Abs(next)), p.Control.Rtol), p.Control.Atol)
	squares := Square(Div(err, allowed))
	if p.Control.Norm == "batch" {
		return BroadcastToDims(Sqrt(ReduceAllMean(squares)), x.Shape().Dimensions[0])
	}
	return Sqrt(ReduceMean(squares, rowAxes(x)...))
}

func nonFiniteRows(x *Node) *Node {
	bad := ConvertDType(LogicalNot(IsFinite(x)), dtypes.Float32)
	return ReduceAllSum(ReduceMax(bad, rowAxes(x)...))
}
