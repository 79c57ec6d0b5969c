package tempering

import (
	"fmt"
	"math"
	"slices"
)

// maxDoublings bounds the factor of a step size: 2^±10.
const maxDoublings = 10

// StepSizes steers the step size ε of every rung to an acceptance a* of its explorer by stochastic approximation
// (Robbins and Monro 1951): at a fence
//
//	ln ε_i ← ln ε_i + γ_t·(mean acceptance of rung i since the last fence − a*),   γ_t = (t + 10)^−0.6,
//
// at most ten doublings away from where it began. Step sizes are the rung's own, whichever states visit it. A StepSizes
// is not safe for concurrent use.
type StepSizes struct {
	target float64
	state  StepSizesState
}

// StepSizesState is all that a StepSizes remembers, plain slices for a cut, each [K].
type StepSizesState struct {
	Log   []float64 // ln of the factor
	Sum   []float64 // of acceptances since the last move
	Count []uint64  // and their number
	Moves uint64    // t
}

func (s StepSizesState) clone() StepSizesState {
	s.Log, s.Sum, s.Count = slices.Clone(s.Log), slices.Clone(s.Sum), slices.Clone(s.Count)
	return s
}

// NewStepSizes returns factors of 1 for the rungs. The target acceptance is in (0, 1): 0.574 for MALA, 0.65 for
// Hamiltonian Monte Carlo.
func NewStepSizes(rungs int, target float64) (*StepSizes, error) {
	if rungs < 1 {
		return nil, fmt.Errorf("tempering: step sizes: %d rungs, want at least 1", rungs)
	}
	if !(target > 0 && target < 1) {
		return nil, fmt.Errorf("tempering: step sizes: target acceptance %g, want a value in (0, 1)", target)
	}
	return &StepSizes{target, StepSizesState{Log: make([]float64, rungs), Sum: make([]float64, rungs), Count: make([]uint64, rungs)}}, nil
}

// Observe takes up the acceptance of each rung's explorer over one scan, [K], mean over its chains. NaN is a rung that
// has none, as one that draws afresh.
func (s *StepSizes) Observe(accept []float64) {
	for i, a := range accept {
		if !math.IsNaN(a) {
			s.state.Sum[i] += a
			s.state.Count[i]++
		}
	}
}

// Move changes the factors at a fence and reports whether any changed. A rung without an acceptance since the last move
// keeps its own; without any acceptance the fence does not count.
func (s *StepSizes) Move() (moved bool) {
	st := &s.state
	if slices.Max(st.Count) == 0 {
		return false
	}
	const bound = maxDoublings * math.Ln2
	gamma := math.Pow(float64(st.Moves)+10, -0.6)
	for i, n := range st.Count {
		if n == 0 {
			continue
		}
		next := st.Log[i] + float64(gamma*(st.Sum[i]/float64(n)-s.target))
		next = min(max(next, -bound), bound)
		moved = moved || next != st.Log[i]
		st.Log[i], st.Sum[i], st.Count[i] = next, 0, 0
	}
	st.Moves++
	return moved
}

// Factors multiply the rungs' own step sizes, [K].
func (s *StepSizes) Factors() []float64 {
	out := make([]float64, len(s.state.Log))
	for i, l := range s.state.Log {
		out[i] = math.Exp(l)
	}
	return out
}

// Snapshot returns a copy of the state.
func (s *StepSizes) Snapshot() StepSizesState { return s.state.clone() }

// Restore replaces the state by a copy of st, if st fits.
func (s *StepSizes) Restore(st StepSizesState) error {
	k := len(s.state.Log)
	if len(st.Log) != k || len(st.Sum) != k || len(st.Count) != k {
		return fmt.Errorf("tempering: step sizes: restore: %d, %d and %d values, want %d of each", len(st.Log), len(st.Sum), len(st.Count), k)
	}
	for i := range k {
		if !(math.Abs(st.Log[i]) <= maxDoublings*math.Ln2) {
			return fmt.Errorf("tempering: step sizes: restore: ln of the factor %g on rung %d, want at most %d doublings", st.Log[i], i, maxDoublings)
		}
		if !(st.Sum[i] >= 0) || math.IsInf(st.Sum[i], 1) {
			return fmt.Errorf("tempering: step sizes: restore: acceptance sum %g on rung %d, want a number of 0 or more", st.Sum[i], i)
		}
	}
	s.state = st.clone()
	return nil
}
