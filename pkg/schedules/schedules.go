// Package schedules holds scalars that change over time: step sizes, noise scales, learning rates.
//
// A [Config] is what an experiment writes, a number or a map with a kind; [Config.Build] makes the [Schedule], a pure
// function of the step, and a [Stepper] walks one. [Kinds] describes every kind.
//
//	config := schedules.Config{Kind: "cosine", Start: 0.1, End: 0.01, Steps: 100}
//	if err := config.ValidatePositive("step_size"); err != nil {
//		return err
//	}
//	schedule, err := config.Build()
//	if err != nil {
//		return err
//	}
//	fmt.Println(schedule.At(0), schedule.At(50), schedule.At(100)) // 0.1 0.055 0.01
//
// The formulas are those of TorchEBM 0.8.9 (torchebm.core.base_scheduler), value by value.
package schedules

import "math"

// Schedule is a scalar over time. It is a pure function and safe for use by several goroutines.
type Schedule interface {
	// At is the value at step n ≥ 0; At(0) is the first value used. A negative n counts as 0.
	At(n int) float64
}

// Stepper walks a schedule, as TorchEBM's schedulers do: the value is read before it is advanced.
type Stepper struct {
	schedule Schedule
	n        int
}

// NewStepper stands at step 0 of s.
func NewStepper(s Schedule) *Stepper { return &Stepper{schedule: s} }

// Value is the value at the present step.
func (s *Stepper) Value() float64 { return s.schedule.At(s.n) }

// Step goes one step on and returns the value there.
func (s *Stepper) Step() float64 {
	s.n++
	return s.Value()
}

// Reset goes back to step 0.
func (s *Stepper) Reset() { s.n = 0 }

// Count is the number of steps since the beginning or the last Reset. It is all the state there is.
func (s *Stepper) Count() int { return s.n }

// Seek goes to step n, for a run that is resumed.
func (s *Stepper) Seek(n int) { s.n = max(0, n) }

type fixed float64

func (f fixed) At(int) float64 { return float64(f) }

type exponential struct{ start, rate, floor float64 }

func (e exponential) At(n int) float64 {
	if n <= 0 {
		return e.start // not held to the floor: TorchEBM's first value is the start, whatever the floor
	}
	return max(e.floor, e.start*math.Pow(e.rate, float64(n)))
}

// ramp goes from start to end between the steps from and to; shape maps the way [0, 1) to the part of start that is left.
type ramp struct {
	start, end, from, to float64
	shape                func(start, end, way float64) float64
}

func (r ramp) At(n int) float64 {
	t := float64(n)
	switch {
	case t >= r.to:
		return r.end
	case t <= r.from:
		return r.start
	}
	return r.shape(r.start, r.end, (t-r.from)/(r.to-r.from))
}

func straight(start, end, way float64) float64 { return start + way*(end-start) }

func halfCosine(start, end, way float64) float64 {
	return end + 0.5*(start-end)*(1+math.Cos(math.Pi*way))
}

type multiStep struct {
	start, gamma float64
	milestones   []int
}

func (m multiStep) At(n int) float64 {
	passed := 0
	for passed < len(m.milestones) && m.milestones[passed] <= n {
		passed++
	}
	return m.start * math.Pow(m.gamma, float64(passed))
}

type warmup struct {
	main        Schedule
	steps       int
	first, goal float64
}

func newWarmup(main Schedule, steps int, factor float64) warmup {
	goal := main.At(0)
	return warmup{main, steps, factor * goal, goal}
}

func (w warmup) At(n int) float64 {
	switch {
	case n <= 0:
		return w.first // also with no warm-up steps at all
	case n <= w.steps:
		return w.first + float64(n)/float64(w.steps)*(w.goal-w.first)
	}
	return w.main.At(n - w.steps)
}

// temperature is the schedule of Energy Matching (Balcerak et al. 2025): no noise until virtual time tau_star, then
// rising to epsilon_max at time 1.
type temperature struct{ c Config }

func (s temperature) At(n int) float64 {
	c := s.c
	t := c.TStart + (c.TEnd-c.TStart)*float64(min(max(n, 0), c.Steps))/float64(c.Steps)
	epsilon := c.EpsilonMax
	switch {
	case t < c.TauStar:
		epsilon = 0
	case t < 1:
		epsilon = c.EpsilonMax * (t - c.TauStar) / (1 - c.TauStar)
	}
	if c.Sqrt {
		return math.Sqrt(epsilon)
	}
	return epsilon
}
