package coordinator

import (
	"math"
	"time"
)

// cadence says when a cut is due, and how much may be trained until one is acknowledged: whatever is lost, no more is made again
// than one interval's work. Cuts begin early enough to be acknowledged before the interval is over. It has no clock: every event
// brings its time.
type cadence struct {
	every time.Duration // 0: nothing is due, and nothing is bounded
	since time.Time     // when the state of the last acknowledged cut was taken
	begun time.Time     // when that of the newest was, acknowledged or not
	took  time.Duration // how long cuts were on their way of late
}

// restart says that all are at the last acknowledged cut.
func (c *cadence) restart(now time.Time) { c.since, c.begun = now, now }

// begin says that the state of a cut is being taken.
func (c *cadence) begin(now time.Time) { c.begun = now }

// acknowledge says that the newest cut is durable.
func (c *cadence) acknowledge(now time.Time) {
	c.since = c.begun
	c.took = max(now.Sub(c.begun), c.took*7/8) // a slow one is remembered for a while
}

// due says whether the next cut should begin.
func (c *cadence) due(now time.Time) bool {
	reserve := min(c.took+2*stretch, c.every/2)
	return c.every > 0 && now.Sub(c.begun) >= c.every-reserve
}

// room is how long may be trained before a newer cut is acknowledged.
func (c *cadence) room(now time.Time) time.Duration {
	if c.every == 0 {
		return math.MaxInt64
	}
	return c.every - now.Sub(c.since)
}
