// Package buffer keeps the books of the replay buffer: which of its slots a scan works on, which of the drawn columns
// start afresh, where they are written, and how old each is. A slot holds one column, the K states of a ladder; the
// states themselves live with the caller, on the device. No I/O, no clock, no graph.
//
//	b, err := buffer.New(buffer.Settings{Slots: 10000, Live: 128, Reinit: 0.05, Seed: 7})
//	for scan := uint64(0); ; scan++ {
//		plan := b.Plan(scan)                     // a pure function of the scan and the ring pointer
//		states := gather(store, plan.Draw)       // then plan.Fresh rows from the reference, plan.Jitter rows moved a little
//		states = explore(states)
//		scatter(store, plan.Write, states)
//		err = b.Commit(scan, plan, swept.Restarted)
//	}
//
// There are two policies. [UniformPlan]: a column goes back to the slot it came from, so that each is one long chain
// (persistent contrastive divergence, Tieleman 2008; fresh starts as in Du and Mordatch 2019). [RingPlan]: rows are
// copied out and written at a pointer, as TorchEBM 0.8.9 does it.
package buffer

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
)

// Plan says what one scan does with the buffer. Row j of the scan is one column (with K = 1: one chain).
type Plan struct {
	Draw   []int32 // [B] slot that row j starts from
	Fresh  []bool  // [B] row j starts from the reference instead
	Jitter []bool  // [B] row j gets a little noise before it starts (ring only)
	Write  []int32 // [B] slot that row j is written to; −1: it is dropped (ring only)
}

// Settings fix a Buffer.
type Settings struct {
	Slots int // M, columns kept
	Live  int // B, columns of one scan
	// Parts, if above 1, cuts slots and rows into as many ranges of one size: the rows of a range start from its slots alone, so
	// that each can be kept somewhere else. Both counts are multiples of it. Not for a ring.
	Parts int
	// Ring picks RingPlan in place of UniformPlan.
	Ring bool
	// Reinit is the share of the drawn columns that start afresh, in [0, 1]; with Ring, that get jitter.
	Reinit float64
	Seed   uint64
	Group  uint32 // number of the group in the experiment: part of every draw, as are those of its parts, Group·Parts + part
}

// Buffer is the bookkeeping of one group's replay buffer. It is not safe for concurrent use.
type Buffer struct {
	settings Settings
	state    State
	from     []uint64 // [B], scratch
	marked   []bool   // [M], scratch
}

// State is all that a Buffer remembers, plain values for a cut.
type State struct {
	Start   []uint64 // [M] scan at which the column in the slot last started from the reference
	Pointer uint64   // ring: slot of the next write
	Next    uint64   // the first scan that may be committed next

	// Columns over the whole run: drawn + refilled = written + dropped.
	Drawn    uint64 // went on from a slot
	Refilled uint64 // started afresh
	Written  uint64
	Dropped  uint64 // of a ring smaller than the batch
}

// New returns the books of a buffer whose columns all start at scan 0.
func New(s Settings) (*Buffer, error) {
	var errs []error
	if s.Live < 1 || s.Live > math.MaxInt32 {
		errs = append(errs, fmt.Errorf("buffer: %d live columns, want 1 to %d", s.Live, math.MaxInt32))
	}
	if !s.Ring && s.Slots < s.Live {
		errs = append(errs, fmt.Errorf("buffer: %d slots, want at least the %d live columns", s.Slots, s.Live))
	}
	if s.Slots < 1 || s.Slots > math.MaxInt32 {
		errs = append(errs, fmt.Errorf("buffer: %d slots, want 1 to %d", s.Slots, math.MaxInt32))
	}
	if s.Parts = max(s.Parts, 1); s.Slots%s.Parts != 0 || s.Live%s.Parts != 0 || s.Ring && s.Parts > 1 {
		errs = append(errs, fmt.Errorf("buffer: %d parts of %d slots and %d live columns, ring %t, want a divisor of both, and 1 of a ring", s.Parts, s.Slots, s.Live, s.Ring))
	}
	if !(s.Reinit >= 0 && s.Reinit <= 1) {
		errs = append(errs, fmt.Errorf("buffer: reinit: %g, want a share in [0, 1]", s.Reinit))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Buffer{settings: s, state: State{Start: make([]uint64, s.Slots)}, from: make([]uint64, s.Live), marked: make([]bool, s.Slots)}, nil
}

// Plan returns what a scan does. It changes nothing: the same scan gives the same plan until the next Commit, and with
// the uniform policy for ever.
func (b *Buffer) Plan(scan uint64) Plan {
	s := b.settings
	if !s.Ring {
		var plan Plan
		for part := range s.Parts {
			draws := rng.New(s.Seed, rng.Buffer, scan, s.Group*uint32(s.Parts)+uint32(part))
			plan.add(UniformPlan(s.Slots/s.Parts, s.Live/s.Parts, s.Reinit, draws), part*s.Slots/s.Parts)
		}
		return plan
	}
	draws := rng.New(s.Seed, rng.Buffer, scan, s.Group)
	offsets := RingOffsets(s.Slots, s.Live, draws.IntN)
	var perm []int
	if s.Reinit > 0 {
		perm = draws.Perm(s.Live)
	}
	return RingPlan(s.Slots, int(b.state.Pointer), offsets, perm, s.Reinit)
}

// Commit notes that a plan was carried out in a scan. Scans are committed in order, each once. restarted says of each
// row whether a walker reached its target rung from the reference in this scan (a tempered restart, which starts its
// age anew); nil where nothing is tempered. Nothing changes when an error is returned.
func (b *Buffer) Commit(scan uint64, plan Plan, restarted []bool) error {
	s := &b.state
	if scan < s.Next {
		return fmt.Errorf("buffer: commit of scan %d, want scan %d or a later one", scan, s.Next)
	}
	if err := b.checkPlan(plan, restarted); err != nil {
		return fmt.Errorf("buffer: commit of scan %d: %w", scan, err)
	}
	// All rows are read before any is written: a ring writes over slots that later rows were drawn from.
	for j, slot := range plan.Draw {
		b.from[j] = s.Start[slot]
		if plan.Fresh[j] || restarted != nil && restarted[j] {
			b.from[j] = scan
		}
	}
	for j, slot := range plan.Write {
		if plan.Fresh[j] {
			s.Refilled++
		} else {
			s.Drawn++
		}
		if slot < 0 {
			s.Dropped++
			continue
		}
		s.Written++
		s.Start[slot] = b.from[j]
	}
	if b.settings.Ring {
		s.Pointer = ringNext(b.settings.Slots, b.settings.Live, s.Pointer)
	}
	s.Next = scan + 1
	return nil
}

func (b *Buffer) checkPlan(plan Plan, restarted []bool) error {
	n := b.settings.Live
	for _, f := range []struct {
		name string
		n    int
	}{{"draw", len(plan.Draw)}, {"fresh", len(plan.Fresh)}, {"jitter", len(plan.Jitter)}, {"write", len(plan.Write)}} {
		if f.n != n {
			return fmt.Errorf("%s has %d rows, want %d", f.name, f.n, n)
		}
	}
	if restarted != nil && len(restarted) != n {
		return fmt.Errorf("restarts of %d rows, want %d", len(restarted), n)
	}
	for _, slot := range plan.Draw {
		if slot < 0 || int(slot) >= b.settings.Slots {
			return fmt.Errorf("draw from slot %d, want 0 to %d", slot, b.settings.Slots-1)
		}
	}
	var err error
	done := 0
	for j, slot := range plan.Write {
		switch {
		case int(slot) >= b.settings.Slots || slot < -1:
			err = fmt.Errorf("write to slot %d, want −1 to %d", slot, b.settings.Slots-1)
		case !b.settings.Ring && slot != plan.Draw[j]:
			err = fmt.Errorf("row %d was drawn from slot %d and goes to slot %d, want the same slot", j, plan.Draw[j], slot)
		case slot >= 0 && b.marked[slot]:
			err = fmt.Errorf("write to slot %d twice", slot)
		}
		if err != nil {
			break
		}
		if slot >= 0 {
			b.marked[slot] = true
		}
		done++
	}
	for _, slot := range plan.Write[:done] {
		if slot >= 0 {
			b.marked[slot] = false
		}
	}
	return err
}

// Ages returns, for every slot, the scans since its column last started from the reference.
func (b *Buffer) Ages() []uint64 {
	out := make([]uint64, len(b.state.Start))
	for slot, start := range b.state.Start {
		out[slot] = b.state.Next - start
	}
	return out
}

// Snapshot returns a copy of the state.
func (b *Buffer) Snapshot() State {
	s := b.state
	s.Start = slices.Clone(s.Start)
	return s
}

// Restore replaces the state by a copy of s, if s fits the buffer and passes Check.
func (b *Buffer) Restore(s State) error {
	if err := b.check(s); err != nil {
		return fmt.Errorf("buffer: restore: %w", err)
	}
	s.Start = slices.Clone(s.Start)
	b.state = s
	return nil
}

// Check verifies the conservation laws: what was drawn or refilled was written or dropped, in whole scans; no column
// starts in the future; the pointer lies in the ring.
func (b *Buffer) Check() error {
	if err := b.check(b.state); err != nil {
		return fmt.Errorf("buffer: conservation: %w", err)
	}
	return nil
}

func (b *Buffer) check(s State) error {
	slots, live := b.settings.Slots, uint64(b.settings.Live)
	if len(s.Start) != slots {
		return fmt.Errorf("%d slots, want %d", len(s.Start), slots)
	}
	if s.Drawn+s.Refilled != s.Written+s.Dropped || (s.Drawn+s.Refilled)%live != 0 {
		return fmt.Errorf("%d drawn and %d refilled, but %d written and %d dropped, want equal sums in scans of %d", s.Drawn, s.Refilled, s.Written, s.Dropped, live)
	}
	if scans := (s.Drawn + s.Refilled) / live; scans > s.Next {
		return fmt.Errorf("%d columns in %d scans of %d", s.Drawn+s.Refilled, s.Next, live)
	}
	if !b.settings.Ring && (s.Dropped != 0 || s.Pointer != 0) {
		return fmt.Errorf("%d columns dropped, pointer %d, want none without a ring", s.Dropped, s.Pointer)
	}
	if s.Pointer >= uint64(slots) {
		return fmt.Errorf("pointer %d, want below %d", s.Pointer, slots)
	}
	for slot, start := range s.Start {
		if start > s.Next || start == s.Next && s.Next > 0 {
			return fmt.Errorf("slot %d started at scan %d, want before scan %d", slot, start, s.Next)
		}
	}
	return nil
}
