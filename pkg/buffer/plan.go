package buffer

import "github.com/kelvin-ebm/kelvin/pkg/internal/rng"

// UniformPlan draws live of slots columns, each set equally likely and no column twice, and writes them back where they
// came from. Rows are in ascending order of their slots; with slots == live that is every slot in its place. Each row
// starts afresh with probability reinit, by itself, so that small shares of few columns come out right.
func UniformPlan(slots, live int, reinit float64, draws *rng.Stream) Plan {
	drawn := make([]bool, slots)
	if live < slots {
		// Floyd's method: one draw a column, no permutation of all slots.
		for top := slots - live; top < slots; top++ {
			slot := draws.IntN(top + 1)
			if drawn[slot] {
				slot = top
			}
			drawn[slot] = true
		}
	}
	plan := Plan{Draw: make([]int32, 0, live), Fresh: make([]bool, live), Jitter: make([]bool, live)}
	for slot := range slots {
		if live == slots || drawn[slot] {
			plan.Draw = append(plan.Draw, int32(slot))
		}
	}
	plan.Write = append([]int32(nil), plan.Draw...)
	if reinit > 0 {
		for j := range plan.Fresh {
			plan.Fresh[j] = draws.Float64() < reinit
		}
	}
	return plan
}

// add appends a plan whose slots are counted from first on.
func (p *Plan) add(o Plan, first int) {
	for i := range o.Draw {
		o.Draw[i] += int32(first)
		o.Write[i] += int32(first)
	}
	p.Draw, p.Write = append(p.Draw, o.Draw...), append(p.Write, o.Write...)
	p.Fresh, p.Jitter = append(p.Fresh, o.Fresh...), append(p.Jitter, o.Jitter...)
}

// RingOffsets draws the offsets that RingPlan wants for live rows; draw(n) is a uniform number in [0, n).
func RingOffsets(slots, live int, draw func(n int) int) []int {
	n := slots // more rows than slots: any slot for each row
	if live <= slots {
		n = slots / live
	}
	offsets := make([]int, live)
	for j := range offsets {
		offsets[j] = draw(n)
	}
	return offsets
}

// RingPlan is the replay buffer of TorchEBM 0.8.9, B = len(offsets) rows over the slots: row j starts from a copy of slot
// j·⌊slots/B⌋ + offsets[j], one of each stratum, so that slots beyond B·⌊slots/B⌋ are never drawn; with more rows than
// slots the offsets are the slots. The rows that the first max(1, ⌊share·B⌋) entries of perm, a permutation of the rows,
// name get jitter; share 0 means none, and perm is not looked at. Row j is written to slot pointer + j, wrapping round;
// B ≥ slots keeps the last rows, in order, and drops the others.
func RingPlan(slots, pointer int, offsets, perm []int, share float64) Plan {
	live := len(offsets)
	plan := Plan{Draw: make([]int32, live), Fresh: make([]bool, live), Jitter: make([]bool, live), Write: make([]int32, live)}
	stride := 0
	if live <= slots {
		stride = slots / live
	}
	for j, offset := range offsets {
		plan.Draw[j] = int32(j*stride + offset)
		if live >= slots {
			plan.Write[j] = int32(max(j-(live-slots), -1))
		} else {
			plan.Write[j] = int32((pointer + j) % slots)
		}
	}
	if share > 0 {
		for _, j := range perm[:max(1, int(share*float64(live)))] {
			plan.Jitter[j] = true
		}
	}
	return plan
}

// ringNext is the pointer after a scan of live rows.
func ringNext(slots, live int, pointer uint64) uint64 {
	if live >= slots {
		return 0
	}
	return (pointer + uint64(live)) % uint64(slots)
}
