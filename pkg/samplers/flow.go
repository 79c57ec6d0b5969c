package samplers

import (
	"fmt"

	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/integrators"
	"github.com/kelvin-ebm/kelvin/pkg/interpolants"
)

// Flow builds the steps that carry noise at t = 0 to data at t = 1 along a field f(x, t) (Lipman et al. 2023; Song et al.
// 2021; Ma et al. 2024): an ordinary equation dx = v dt, or dx = (v + D s) dt + √(2D) dW, which has the same marginals for
// every D ≥ 0. The velocity v and the score s both follow from what the field predicts:
//
//	flow, err := config.NewFlow()
//	if err != nil { ... }
//	times := flow.Times()                       // steps + 1 of them
//	for i, t := range times[:len(times)-1] {
//		x = flow.Step(f, x, all(t), scalar(times[i+1]-t), z[i])
//	}
//	x = flow.Last(f, x)                         // of the equation with noise
//
// [Run] does that on the host, with adaptive steps too.
type Flow struct {
	Path       interpolants.Interpolant
	Scheme     integrators.RungeKutta
	Control    integrators.Controller // of an adaptive scheme
	Prediction string                 // what f is: one of Predictions
	// NegateVelocity takes −f(x, 0) for the velocity, as equilibrium matching trains it: f is a gradient that points from data
	// to noise and never sees the time.
	NegateVelocity bool
	// Timed shows the field the time even so.
	Timed bool
	// Duration is how long a field is followed that does not know the time: the steps lead from 0 to there. 0: see Interval.
	Duration     float64
	Reverse      bool // from data to noise
	Steps        int
	SampleEps    float64 // times keep this far from 0 and 1
	SDE          bool
	Diffusion    interpolants.Diffusion // of the SDE
	LastStep     string                 // of the SDE: one of LastSteps
	LastStepSize float64                // time left for the last step; 0 without one
	// TorchEBM has the time intervals of TorchEBM 0.8.9, and its reversal, which runs a field that depends on time in the wrong
	// order. Its divisions are those of interpolants.TorchEBM, in Path.
	TorchEBM bool

	vp bool // Path is VP, under its guards or not
}

// Predictions are the names that Flow.Prediction knows.
func Predictions() []string { return []string{"velocity", "score", "noise"} }

// LastSteps are the names that Flow.LastStep knows: from t₁ = 1 − h to data by x + h(v + D s), by x + hv, by the mean of the
// data given x, x/α + (σ²/α)s (Tweedie's formula), or no such step.
func LastSteps() []string { return []string{"mean", "euler", "tweedie", "none"} }

// Interval is the time from which and the time to which the steps lead.
func (f Flow) Interval() (start, end float64) {
	switch {
	case f.Duration > 0:
		return 0, f.Duration
	case f.TorchEBM:
		return f.torchInterval()
	}
	start, end = f.SampleEps, 1-f.SampleEps
	if f.SDE && f.LastStepSize > 0 {
		end = 1 - f.LastStepSize
	}
	return start, end
}

// torchInterval is TorchEBM's: sample_eps counts only where it guards a division, and never at the noise end of VP.
func (f Flow) torchInterval() (start, end float64) {
	vp := f.vp
	velocityODE := f.Prediction == "velocity" && !f.SDE
	if !vp && !velocityODE && (f.Prediction != "velocity" || f.Diffusion.Form == "sbdm") {
		start = f.SampleEps
	}
	switch {
	case f.SDE && f.LastStepSize > 0:
		end = 1 - f.LastStepSize
	case !vp && velocityODE:
		end = 1
	default:
		end = 1 - f.SampleEps
	}
	return start, end
}

// Times are the times of the steps, Steps + 1 of them.
func (f Flow) Times() []float64 {
	start, end := f.Interval()
	return integrators.Grid(start, end, f.Steps)
}

// Drift is dx/dt of the equation for a field: x [batch, dim], t [batch]. Of the equation with noise it is v + D s.
func (f Flow) Drift(field integrators.Drift) integrators.Drift {
	forward := func(x, t *Node) *Node {
		if !f.SDE {
			return f.Velocity(field, x, t)
		}
		v, s := f.both(field, x, t)
		return Add(v, Mul(ExpandAxes(f.Diffusion.At(f.Path, t), -1), s))
	}
	switch {
	case f.Reverse && f.TorchEBM:
		return func(x, t *Node) *Node { return Neg(forward(x, t)) }
	case f.Reverse:
		start, end := f.Interval()
		return integrators.Reversed(forward, start, end)
	}
	return forward
}

// Velocity is the velocity of the flow at x [batch, dim] and t [batch].
func (f Flow) Velocity(field integrators.Drift, x, t *Node) *Node {
	out := f.predict(field, x, t)
	switch f.Prediction {
	case "score":
		return interpolants.ScoreToVelocity(f.Path, x, out, t)
	case "noise":
		return interpolants.NoiseToVelocity(f.Path, x, out, t)
	}
	return out
}

// Score is ∇ₓ log of the density at time t.
func (f Flow) Score(field integrators.Drift, x, t *Node) *Node {
	_, s := f.both(field, x, t)
	return s
}

func (f Flow) predict(field integrators.Drift, x, t *Node) *Node {
	switch {
	case f.NegateVelocity && f.Timed:
		return Neg(field(x, t))
	case f.NegateVelocity:
		return Neg(field(x, ZerosLike(t)))
	}
	return field(x, t)
}

// both is the velocity and the score by one evaluation of the field.
func (f Flow) both(field integrators.Drift, x, t *Node) (v, s *Node) {
	out := f.predict(field, x, t)
	switch f.Prediction {
	case "score":
		return interpolants.ScoreToVelocity(f.Path, x, out, t), out
	case "noise":
		return interpolants.NoiseToVelocity(f.Path, x, out, t), interpolants.NoiseToScore(f.Path, out, t)
	}
	return out, interpolants.VelocityToScore(f.Path, x, out, t)
}

// Step builds x after a step of the length h, a scalar, from t [batch]. z [batch, dim] is standard normal, of the equation
// with noise; else nil.
func (f Flow) Step(field integrators.Drift, x, t, h, z *Node) *Node {
	if !f.SDE {
		return f.Scheme.Step(f.Drift(field), x, t, h)
	}
	return f.Scheme.SDEStep(f.Drift(field), f.Diffusion.At(f.Path, t), x, t, h, z)
}

// Last builds the last step of the equation with noise, from the end of the interval to data. Without one it is x.
func (f Flow) Last(field integrators.Drift, x *Node) *Node {
	_, end := f.Interval()
	t := BroadcastToDims(ConstAs(x, end), x.Shape().Dimensions[0])
	switch {
	case !f.SDE || f.LastStep == "none":
		return x
	case f.LastStep == "mean":
		return Add(x, MulScalar(f.Drift(field)(x, t), f.LastStepSize))
	case f.LastStep == "euler":
		return Add(x, MulScalar(f.Velocity(field, x, t), f.LastStepSize))
	case f.LastStep == "tweedie":
		alpha, sigma := ExpandAxes(f.Path.Alpha(t), -1), ExpandAxes(f.Path.Sigma(t), -1)
		return Div(Add(x, Mul(Square(sigma), f.Score(field, x, t))), alpha)
	}
	panic(fmt.Errorf("samplers: last step %q", f.LastStep))
}

// End is the time of the state after the last step.
func (f Flow) End() float64 {
	_, end := f.Interval()
	if f.SDE {
		end += f.LastStepSize
	}
	return end
}

// PriorLogDensity is the log density of N(0, I), the law at t = 0, at x [batch, ...]: [batch].
func PriorLogDensity(x *Node) *Node {
	const logTwoPi = 1.8378770664093454835606594728112
	axes := make([]int, x.Rank()-1)
	n := 1
	for i := range axes {
		axes[i] = i + 1
		n *= x.Shape().Dimensions[i+1]
	}
	return AddScalar(MulScalar(ReduceSum(Square(x), axes...), -0.5), -0.5*float64(n)*logTwoPi)
}
