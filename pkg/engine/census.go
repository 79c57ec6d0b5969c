package engine

import (
	"encoding/json"
	"fmt"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
)

// Census counts the walkers in a cut. Where the conservation laws hold, every ladder has each of its labels once, so that
// Labels is Ladders·Rungs, and all who were made and not replaced by a fresh one live: Created − Retired = Live.
type Census struct {
	Ladders, Rungs         int    // 0 without chains
	Labels                 uint64 // (ladder, label) that are on exactly one rung
	Created, Retired, Live uint64
}

// Count takes the census of the cut of one group. It reads what was written, not what the trainer believes.
func Count(cut *checkpoint.Cut) (c Census, err error) {
	chains, ok := cut.Files["chains"]
	if !ok {
		return c, nil
	}
	fail := func(err error) (Census, error) { return c, fmt.Errorf("engine: census of step %d: %w", cut.Step, err) }
	var meta cutMeta
	if err := json.Unmarshal(cut.Meta, &meta); err != nil {
		return fail(err)
	}
	labels, err := checkpoint.Values[int32](chains, "labels", -1)
	if err != nil {
		// Nobody moves between rungs: every chain that is kept is its column's only walker.
		starts, err := checkpoint.Values[uint64](chains, "column_start", -1)
		if err != nil {
			return c, nil
		}
		n := uint64(len(starts))
		return Census{Ladders: len(starts), Rungs: 1, Labels: n, Created: n, Live: n}, nil
	}
	lineage, err := checkpoint.Values[uint32](chains, "lineage", len(labels))
	if err != nil {
		return fail(err)
	}
	if meta.Rungs < 1 || len(labels)%meta.Rungs != 0 {
		return fail(fmt.Errorf("%d labels, want a multiple of the %d rungs", len(labels), meta.Rungs))
	}
	c.Rungs, c.Ladders = meta.Rungs, len(labels)/meta.Rungs
	seen := make([]int, len(labels))
	for at, label := range labels {
		if label >= 0 && int(label) < c.Rungs {
			seen[int(label)*c.Ladders+at%c.Ladders]++
		}
	}
	for walker, times := range seen {
		if times == 1 {
			c.Labels++
		}
		c.Live += uint64(times)
		c.Created += uint64(lineage[walker]) + 1
		c.Retired += uint64(lineage[walker])
	}
	return c, nil
}
