package local

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
	"github.com/kelvin-ebm/kelvin/pkg/runlog"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// crew makes of a fleet, seen now and then, what a person is shown of its replicas.
type crew struct {
	layout engine.Layout
	scans  int // a training step

	rows   []runlog.Replica // of all who ever lived, as they came
	last   roll
	recent roll // where the traffic of the rows starts
	record roll // where that of the next metrics record starts

	waited, worked time.Duration // over all records
}

// roll is a fleet at one moment, when its replicas were at the step of the last report.
type roll struct {
	at         time.Time
	step       int
	generation int
	holders    []string // by shard
	living     []string
	moved      map[string]replica.Moved
}

// freshness is how much time the traffic of a row sums up, at least.
const freshness = time.Second

func (f *fleet) roll(layout engine.Layout) roll {
	now := roll{time.Now(), f.Step(), f.Generations(), f.Holders(), f.Replicas(), f.Moved()}
	if now.holders == nil && len(now.living) > 0 { // what they compile for
		for _, i := range coordinator.Spread(layout.NumShards(), len(now.living)) {
			now.holders = append(now.holders, now.living[i])
		}
	}
	return now
}

// groups is how many groups a replica holds shards of. These wait side by side.
func (c *crew) groups(holders []string, id string) int {
	groups := map[int]bool{}
	for shard, holder := range holders {
		if holder == id {
			groups[shard/c.layout.PerGroup()] = true
		}
	}
	return len(groups)
}

// spent is what an exchange took.
type spent struct {
	bytes          uint64
	waited, worked time.Duration
	steps          int
}

// spent is that of some replicas, together, between two moments of one generation; nothing between others.
func (c *crew) spent(from, to roll, ids ...string) (s spent) {
	if from.generation != to.generation {
		return s
	}
	s.steps = to.step - from.step
	for _, id := range ids {
		before, after := from.moved[id], to.moved[id]
		for kind, t := range after.Kinds {
			s.bytes += t.BytesReceived - before.Kinds[kind].BytesReceived
		}
		s.waited += after.Waited - before.Waited
		s.worked += to.at.Sub(from.at) * time.Duration(c.groups(to.holders, id))
	}
	return s
}

// traffic is nil where there was no step.
func (s spent) traffic(scans int) *runlog.Traffic {
	if s.steps <= 0 || s.worked <= 0 {
		return nil
	}
	return &runlog.Traffic{BytesPerScan: float64(s.bytes) / float64(s.steps*scans), WaitShare: s.waited.Seconds() / s.worked.Seconds()}
}

// muster sees the fleet and returns the row of each replica.
func (c *crew) muster(now roll) []runlog.Replica {
	// What was moved is told after steps. Before the first ones of a generation it lacks what the replicas waited when that
	// began, and counters of one that was started again begin at 0.
	if c.recent.generation != now.generation && c.last.generation > 0 && now.step > c.last.step {
		c.recent, c.record = now, now
	}
	shards := map[string][]int{}
	for shard, id := range now.holders {
		shards[id] = append(shards[id], shard)
	}
	fresh := now.generation == c.recent.generation && now.at.Sub(c.recent.at) >= freshness
	for _, id := range now.living {
		if !slices.ContainsFunc(c.rows, func(r runlog.Replica) bool { return r.ID == id }) {
			c.rows = append(c.rows, runlog.Replica{ID: id})
		}
	}
	for i := range c.rows {
		r := &c.rows[i]
		gone := !slices.Contains(now.living, r.ID)
		if gone && !r.Gone {
			r.GoneAt = now.step
		}
		r.Gone, r.Shards = gone, shards[r.ID]
		if now.generation != c.last.generation {
			r.Traffic = nil // was of other shards
		}
		if len(r.Shards) > 0 && c.last.generation > 0 {
			r.Steps += now.step - c.last.step
		}
		if t := c.spent(c.recent, now, r.ID).traffic(c.scans); t != nil && (fresh || r.Traffic == nil) {
			r.Traffic = t
		}
	}
	if fresh {
		c.recent = now
	}
	c.last = now
	return slices.Clone(c.rows)
}

// since is the traffic of all replicas since the last call.
func (c *crew) since(now roll) *runlog.Traffic {
	s := c.spent(c.record, now, slices.Collect(maps.Keys(now.moved))...)
	t := s.traffic(c.scans)
	if t != nil {
		c.record = now
		c.waited, c.worked = c.waited+s.waited, c.worked+s.worked
	}
	return t
}

// total says what the replicas moved between them, and which part of the time they waited for it.
func (c *crew) total(moved map[string]replica.Moved) string {
	var bytes uint64
	for _, m := range moved {
		for _, kind := range m.Kinds {
			bytes += kind.BytesReceived
		}
	}
	if bytes == 0 {
		return "nothing moved between replicas"
	}
	text := fmt.Sprintf("%.1f MB moved between %d replicas", float64(bytes)/1e6, len(moved))
	if c.worked > 0 {
		text += fmt.Sprintf(", which waited %.0f %% of their time", 100*c.waited.Seconds()/c.worked.Seconds())
	}
	return text
}

// muster shows the replicas, if there are several.
func (r *run) muster() {
	if r.crew != nil {
		r.show.Replicas(r.crew.muster(r.trainer.(*fleet).roll(r.crew.layout)))
	}
}

// round shows what a metrics record says, if several replicas train.
func (r *run) round(step int, status runlog.Status, stats tempering.Stats) {
	if r.crew == nil {
		return
	}
	round := runlog.Round{Status: status, Barrier: math.NaN(), Trips: stats.Trips, Traffic: r.crew.since(r.trainer.(*fleet).roll(r.crew.layout))}
	if n := len(status.SwapAccept); n > 0 && n == len(stats.Pairs) {
		round.Barrier, round.LowerBound = tempering.Barrier(stats.Rejections(), float64(stats.Attempts()))
	}
	r.show.Round(step, round)
}
