package tempering

import (
	"errors"
	"fmt"
	"slices"
)

// State is all that an Ensemble remembers, plain slices for a cut. [K, M] arrays have column c of row k at k·M+c.
type State struct {
	Labels    []int32  // [K, M] by rung: which walker is there
	Lineage   []uint32 // [K, M] by walker: fresh states so far
	Direction []uint8  // [K, M] by walker: 0 none, 1 last at rung 0, 2 reached the target since
	Scans     []uint64 // [M] scans of the column
	Restarts  []uint64 // [M]
	Trips     []uint64 // [M] round trips
	Since     []uint64 // [M] scan of the column 2K after which its trips count: its first, or 2K before the last Reset
	Warming   []bool   // [M]
	Swapped   []bool   // [K−1, M] by pair: it swapped in the present window (windowed only)

	Attempts  []uint64  // [K−1] pair statistics since the last reset
	Accepted  []uint64  // [K−1]
	AlphaSum  []float64 // [K−1]
	Up, Down  []uint64  // [K] walkers recorded on a rung that saw rung 0 last, or the target
	NonFinite uint64
}

func newState(rungs, columns int) State {
	n := rungs * columns
	s := State{
		Labels: make([]int32, n), Lineage: make([]uint32, n), Direction: make([]uint8, n),
		Scans: make([]uint64, columns), Restarts: make([]uint64, columns), Trips: make([]uint64, columns), Since: make([]uint64, columns),
		Warming: make([]bool, columns), Swapped: make([]bool, (rungs-1)*columns),
		Attempts: make([]uint64, rungs-1), Accepted: make([]uint64, rungs-1), AlphaSum: make([]float64, rungs-1),
		Up: make([]uint64, rungs), Down: make([]uint64, rungs),
	}
	for at := range s.Labels {
		s.Labels[at] = int32(at / columns)
	}
	return s
}

func (s State) clone() State {
	s.Labels, s.Lineage, s.Direction = slices.Clone(s.Labels), slices.Clone(s.Lineage), slices.Clone(s.Direction)
	s.Scans, s.Restarts, s.Trips, s.Since = slices.Clone(s.Scans), slices.Clone(s.Restarts), slices.Clone(s.Trips), slices.Clone(s.Since)
	s.Warming, s.Swapped = slices.Clone(s.Warming), slices.Clone(s.Swapped)
	s.Attempts, s.Accepted, s.AlphaSum = slices.Clone(s.Attempts), slices.Clone(s.Accepted), slices.Clone(s.AlphaSum)
	s.Up, s.Down = slices.Clone(s.Up), slices.Clone(s.Down)
	return s
}

// Snapshot returns a copy of the state.
func (e *Ensemble) Snapshot() State { return e.state.clone() }

// Restore replaces the state by a copy of s, if s fits the ensemble and passes Check.
func (e *Ensemble) Restore(s State) error {
	if err := s.check(e.rungs, e.columns); err != nil {
		return fmt.Errorf("tempering: restore: %w", err)
	}
	if e.settings.Schedule != "windowed" && slices.Contains(s.Swapped, true) {
		return fmt.Errorf("tempering: restore: a pair is closed until its window ends, want none under schedule %s", e.settings.Schedule)
	}
	e.state = s.clone()
	return nil
}

// Check verifies the conservation laws: every column holds each of its walkers once, no walker is in an impossible
// state, and the counters fit together. Every cut is checked.
func (e *Ensemble) Check() error {
	if err := e.state.check(e.rungs, e.columns); err != nil {
		return fmt.Errorf("tempering: conservation: %w", err)
	}
	return nil
}

func (s State) check(rungs, columns int) error {
	var errs []error
	for _, f := range []struct {
		name      string
		got, want int
	}{
		{"labels", len(s.Labels), rungs * columns}, {"lineage", len(s.Lineage), rungs * columns}, {"direction", len(s.Direction), rungs * columns},
		{"scans", len(s.Scans), columns}, {"restarts", len(s.Restarts), columns}, {"trips", len(s.Trips), columns}, {"since", len(s.Since), columns},
		{"warming", len(s.Warming), columns}, {"swapped", len(s.Swapped), (rungs - 1) * columns},
		{"attempts", len(s.Attempts), rungs - 1}, {"accepted", len(s.Accepted), rungs - 1}, {"alpha sum", len(s.AlphaSum), rungs - 1},
		{"up", len(s.Up), rungs}, {"down", len(s.Down), rungs},
	} {
		if f.got != f.want {
			errs = append(errs, fmt.Errorf("%s: %d values, want %d for %d rungs of %d columns", f.name, f.got, f.want, rungs, columns))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	where := make([]int, rungs)
	for c := range columns {
		down := uint64(0) // walkers on their way back
		for k := range where {
			where[k] = -1
		}
		for k := range rungs {
			label := s.Labels[k*columns+c]
			switch {
			case label < 0 || int(label) >= rungs:
				return fmt.Errorf("column %d: label %d on rung %d, want 0 to %d", c, label, k, rungs-1)
			case where[label] >= 0:
				return fmt.Errorf("column %d: label %d on rungs %d and %d, want each label once", c, label, where[label], k)
			}
			where[label] = k
			if d := s.Direction[k*columns+c]; d > downward {
				return fmt.Errorf("column %d: direction %d of walker %d, want 0, 1 or 2", c, d, k)
			} else if d == downward {
				down++
			}
		}
		// Of the walkers that were on their way back at the last Reset, K at most, the restart was before it.
		if s.Trips[c]+down > s.Restarts[c]+uint64(rungs) {
			return fmt.Errorf("column %d: %d round trips and %d walkers on their way back, but %d restarts, want a restart in every trip", c, s.Trips[c], down, s.Restarts[c])
		}
		if s.Since[c] > s.Scans[c] {
			return fmt.Errorf("column %d: counted since scan %d but only %d scans made", c, s.Since[c], s.Scans[c])
		}
	}
	for i := range s.Attempts {
		// Each term is at most 1, and rounding is monotone: the sum cannot pass the count.
		if sum := s.AlphaSum[i]; s.Accepted[i] > s.Attempts[i] || !(sum >= 0 && sum <= float64(s.Attempts[i])) {
			return fmt.Errorf("pair %d: %d accepted and acceptance sum %g of %d attempts", i, s.Accepted[i], sum, s.Attempts[i])
		}
	}
	return nil
}
