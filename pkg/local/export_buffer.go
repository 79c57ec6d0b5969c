package local

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator"
	"github.com/kelvin-ebm/kelvin/pkg/datasets"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
)

// BufferStats sum up the replay buffer of a cut, over all groups.
type BufferStats struct {
	Step     int          `json:"step"`     // of the cut
	Groups   int          `json:"groups"`   //
	Columns  int          `json:"columns"`  // of a group
	Live     int          `json:"live"`     // columns of a group that one scan moves
	Dim      int          `json:"dim"`      // numbers of a state
	Bytes    uint64       `json:"bytes"`    // of the states
	AgeMin   uint64       `json:"age_min"`  // scans since a column last started from the reference
	AgeMean  float64      `json:"age_mean"` //
	AgeMax   uint64       `json:"age_max"`  //
	Drawn    uint64       `json:"drawn"`    // columns that scans went on from, over the whole run
	Refilled uint64       `json:"refilled"` // columns that scans started anew
	Restarts uint64       `json:"restarts"` // walkers that came from the reference to the target
	Trips    uint64       `json:"trips"`    // and back to the reference
	Rungs    []BufferRung `json:"rungs"`
}

// BufferRung sums up the coordinates of the states on one rung.
type BufferRung struct {
	Rung int     `json:"rung"`
	Beta float64 `json:"beta"` // of the first group
	Mean float64 `json:"mean"`
	Std  float64 `json:"std"`
	Min  float64 `json:"min"`
	Max  float64 `json:"max"`
}

// Buffer is the replay buffer of a cut: every chain as the next scan finds it, with the books. The error of ReadBuffer is
// [engine.ErrNoChains] for a training that keeps none from step to step.
type Buffer struct{ groups []*engine.Books }

// ReadBuffer reads the buffer of a cut and checks the conservation laws.
func ReadBuffer(cut *checkpoint.Cut) (*Buffer, error) {
	groups, err := CutBooks(cut)
	if err != nil {
		return nil, err
	}
	return &Buffer{groups}, nil
}

// BufferOf is the buffer that the books of a cut's groups describe.
func BufferOf(groups []*engine.Books) *Buffer { return &Buffer{groups} }

// Fill is the part of a cut's columns that scans have worked on; 0 for a training that keeps none from step to step. It reads no
// states: whoever leads asks it of every cut.
func Fill(cut *checkpoint.Cut) float64 {
	used, all := 0, 0
	for g := range coordinator.NumGroups(cut) {
		group, err := coordinator.GroupCut(cut, g)
		if err != nil {
			return 0
		}
		starts, err := checkpoint.Values[uint64](group.Files["chains"], "column_start", -1)
		if err != nil {
			return 0
		}
		all += len(starts)
		scans, err := checkpoint.Values[uint64](group.Files["chains"], "scans", len(starts))
		if err != nil { // a single rung counts none: all columns are live
			used += len(starts)
			continue
		}
		for _, n := range scans {
			if n > 0 {
				used++
			}
		}
	}
	if all == 0 {
		return 0
	}
	return float64(used) / float64(all)
}

// Stats sums the buffer up.
func (b *Buffer) Stats() BufferStats {
	first := b.groups[0]
	s := BufferStats{Step: first.Step, Groups: len(b.groups), Columns: first.Pool, Live: first.Chains, Dim: first.Dim, AgeMin: math.MaxUint64}
	sums := make([]moment, first.Rungs)
	for _, g := range b.groups {
		for _, age := range ages(g) {
			s.AgeMin, s.AgeMax = min(s.AgeMin, age), max(s.AgeMax, age)
			s.AgeMean += float64(age) / float64(len(b.groups)*g.Pool)
		}
		s.Drawn, s.Refilled = s.Drawn+g.Buffer.Drawn, s.Refilled+g.Buffer.Refilled
		if g.Live != nil {
			for c := range g.Pool {
				s.Restarts, s.Trips = s.Restarts+g.Live.Restarts[c], s.Trips+g.Live.Trips[c]
			}
		}
		s.Bytes += 4 * uint64(len(g.States))
		for k := range sums {
			for _, v := range g.States[k*g.Pool*g.Dim : (k+1)*g.Pool*g.Dim] {
				sums[k].add(float64(v))
			}
		}
	}
	for k, m := range sums {
		s.Rungs = append(s.Rungs, BufferRung{Rung: k, Beta: first.Betas[k], Mean: m.mean, Std: math.Sqrt(m.squares / m.n), Min: m.min, Max: m.max})
	}
	return s
}

// moment sums numbers up without cancellation (Welford).
type moment struct{ n, mean, squares, min, max float64 }

func (m *moment) add(v float64) {
	if m.n++; m.n == 1 {
		m.min, m.max = v, v
	}
	d := v - m.mean
	m.mean += d / m.n
	m.squares += d * (v - m.mean)
	m.min, m.max = min(m.min, v), max(m.max, v)
}

// ages are the scans since each column last started from the reference.
func ages(g *engine.Books) []uint64 {
	out := make([]uint64, g.Pool)
	for c, start := range g.Buffer.Start {
		out[c] = g.Buffer.Next - start
	}
	return out
}

// name is that of an array of a group, with the group in
// front where there are several.
func (b *Buffer) name(group int, format string, args ...any) string {
	name := fmt.Sprintf(format, args...)
	if len(b.groups) > 1 {
		name = fmt.Sprintf("group%d_%s", group, name)
	}
	return name
}

// Arrays are the buffer as arrays of an npz file, of every group: rung0 to rungN [columns, dim], from the hottest to the
// target; ages [columns], in scans; and with a ladder labels [rungs, columns], the walker on each rung, and betas [rungs].
// Where there are several groups, group0_ and so on stands before the names.
func (b *Buffer) Arrays() []datasets.Array {
	var out []datasets.Array
	for i, g := range b.groups {
		size := g.Pool * g.Dim
		for k := range g.Rungs {
			out = append(out, datasets.Array{Name: b.name(i, "rung%d", k), Shape: []int{g.Pool, g.Dim}, Data: g.States[k*size : (k+1)*size]})
		}
		scans := make([]int64, g.Pool)
		for c, age := range ages(g) {
			scans[c] = int64(age)
		}
		out = append(out, datasets.Array{Name: b.name(i, "ages"), Shape: []int{g.Pool}, Data: scans})
		if g.Live != nil {
			out = append(out, datasets.Array{Name: b.name(i, "labels"), Shape: []int{g.Rungs, g.Pool}, Data: g.Live.Labels},
				datasets.Array{Name: b.name(i, "betas"), Shape: []int{g.Rungs}, Data: g.Betas})
		}
	}
	return out
}

// SetArrays replaces the buffer by arrays as Arrays gives them, their numbers as float64. All rungs of all groups must be
// there; ages and labels stay where the arrays have none; betas are not read, since a ladder belongs to the training.
// Nothing changes, neither here nor in cut, which is the one that the buffer was read from, unless every array has the right
// shape, all numbers are finite and every column holds each walker once.
func (b *Buffer) SetArrays(cut *checkpoint.Cut, arrays []datasets.Array) error {
	byName := map[string]datasets.Array{}
	for _, a := range arrays {
		byName[a.Name] = a
	}
	var faults []error
	// take returns the numbers of an array, nil where it is missing or wrong.
	take := func(name string, required bool, shape ...int) []float64 {
		a, ok := byName[name]
		delete(byName, name)
		values, isFloat := a.Data.([]float64)
		switch {
		case !ok && required:
			faults = append(faults, fmt.Errorf("array %q: missing, want shape %v", name, shape))
		case !ok:
		case !slices.Equal(a.Shape, shape):
			faults = append(faults, fmt.Errorf("array %q: shape %v, want %v", name, a.Shape, shape))
		case !isFloat:
			faults = append(faults, fmt.Errorf("array %q: %T, want float64", name, a.Data))
		default:
			if i := slices.IndexFunc(values, func(v float64) bool { return math.IsNaN(v) || math.Abs(v) > math.MaxFloat32 }); i >= 0 {
				faults = append(faults, fmt.Errorf("array %q: number %d is %g, want finite ones of float32", name, i, values[i]))
				return nil
			}
			return values
		}
		return nil
	}
	changed := make([]*engine.Books, len(b.groups))
	for i, old := range b.groups {
		g := *old
		g.States = make([]float32, 0, len(old.States))
		for k := range g.Rungs {
			for _, v := range take(b.name(i, "rung%d", k), true, g.Pool, g.Dim) {
				g.States = append(g.States, float32(v))
			}
		}
		if scans := take(b.name(i, "ages"), false, g.Pool); scans != nil {
			g.Buffer.Start = make([]uint64, g.Pool)
			for c, age := range scans {
				if age != math.Trunc(age) || age < 0 || age > float64(g.Buffer.Next) {
					faults = append(faults, fmt.Errorf("array %q: column %d is %g scans old, want a whole number from 0 to %d", b.name(i, "ages"), c, age, g.Buffer.Next))
					break
				}
				g.Buffer.Start[c] = g.Buffer.Next - uint64(age)
			}
		}
		if g.Live != nil {
			if labels := take(b.name(i, "labels"), false, g.Rungs, g.Pool); labels != nil {
				live := *g.Live
				live.Labels = make([]int32, len(labels))
				for at, v := range labels {
					if live.Labels[at] = -1; v == math.Trunc(v) { // −1 is refused below, with its column
						live.Labels[at] = int32(min(max(v, -1), math.MaxInt32))
					}
				}
				g.Live = &live
			}
		}
		delete(byName, b.name(i, "betas"))
		changed[i] = &g
	}
	for _, a := range arrays {
		if _, left := byName[a.Name]; left {
			faults = append(faults, fmt.Errorf("array %q: not one of a buffer of %d rungs of %d columns", a.Name, b.groups[0].Rungs, b.groups[0].Pool))
		}
	}
	if len(faults) == 0 {
		for i, g := range changed {
			if err := g.Check(); err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", b.name(i, "labels, ages"), err))
			}
		}
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	for i, g := range changed {
		group, err := coordinator.GroupCut(cut, i)
		if err != nil {
			return err
		}
		if err := g.Write(group); err != nil { // shares its tensors with the whole
			return err
		}
	}
	b.groups = changed
	return nil
}
