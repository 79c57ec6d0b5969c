package engine

import (
	"slices"
	"time"
)

// cores finds out by trying whether the calls of a shard are faster with XLA's workers on one core or on all, and looks
// again now and then, since other programs come and go. Only times hang on it, no bits.
type cores struct {
	confine func(one bool) (bool, error)
	now     func() time.Time

	off     bool // one setting only
	one     bool // the setting in force
	trial   int  // calls of the present trial made; −1 between trials
	skip    int  // calls until the next trial
	times   [2][]time.Duration
	settled time.Time // end of the last trial
}

const (
	coresWarm   = 10 // calls before the first trial: the first ones compile and fill caches
	coresBlock  = 8  // calls of one setting before the other has its turn
	coresBlocks = 6  // turns of a trial
	coresFirst  = 1  // calls of a turn that do not count
	coresLong   = 10 * time.Millisecond
	coresAgain  = 20 * time.Second
)

func newCores(confine func(bool) (bool, error)) *cores {
	return &cores{confine: confine, now: time.Now, trial: -1, skip: coresWarm}
}

// set switches to a setting; where that is not to be had there is nothing to try.
func (c *cores) set(one bool) {
	if c.one == one {
		return
	}
	done, err := c.confine(one)
	if err != nil || !done {
		c.off = true
	}
	c.one = one
}

// release lets the workers use all cores again.
func (c *cores) release() { c.set(false) }

// observe is told how long a call took.
func (c *cores) observe(took time.Duration) {
	switch {
	case c.off:
	case c.trial < 0 && c.skip > 0:
		c.skip--
	case c.trial < 0 && !c.settled.IsZero() && c.now().Sub(c.settled) < coresAgain:
	case c.trial < 0 && took > coresLong && !c.one: // work enough for every core
		c.settled = c.now()
	case c.trial < 0:
		c.trial, c.times = 0, [2][]time.Duration{}
		c.set(false)
	default:
		if c.trial%coresBlock >= coresFirst {
			i := c.trial / coresBlock % 2
			c.times[i] = append(c.times[i], took)
		}
		c.trial++
		if c.trial == coresBlock*coresBlocks {
			c.trial, c.settled = -1, c.now()
			c.set(median(c.times[1]) < median(c.times[0]))
			return
		}
		c.set(c.trial/coresBlock%2 == 1)
	}
}

func median(v []time.Duration) time.Duration {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
