package engine

import (
	"errors"
	"testing"
	"time"
)

// clock runs only when it is told to.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func TestCoresPicksTheFasterSetting(t *testing.T) {
	for _, tc := range []struct {
		name     string
		all, one time.Duration
		want     bool
	}{
		{"one core is faster", 1100 * time.Microsecond, 800 * time.Microsecond, true},
		{"all cores are faster", 2 * time.Millisecond, 3 * time.Millisecond, false},
		{"long calls are left alone", 50 * time.Millisecond, time.Millisecond, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			one, tried := false, 0
			c := newCores(func(o bool) (bool, error) { one = o; tried++; return true, nil })
			wall := &clock{time.Unix(1000, 0)}
			c.now = wall.now
			call := func() {
				took := tc.all
				if one {
					took = tc.one
				}
				wall.t = wall.t.Add(took)
				c.observe(took)
			}
			for range coresWarm + coresBlock*coresBlocks + 1 {
				call()
			}
			if one != tc.want {
				t.Errorf("confined %v, want %v", one, tc.want)
			}
			before := tried
			for range 100 {
				call()
			}
			if tried != before {
				t.Error("tried again at once")
			}
			// The machine changes: the other setting wins at the next look.
			if tc.all < coresLong {
				tc.all, tc.one = tc.one, tc.all
				wall.t = wall.t.Add(coresAgain)
				for range coresBlock*coresBlocks + 1 {
					call()
				}
				if one == tc.want {
					t.Errorf("confined %v after the change, want %v", one, !tc.want)
				}
			}
		})
	}
}

func TestCoresGivesUpWhereThereIsNothingToConfine(t *testing.T) {
	calls := 0
	c := newCores(func(bool) (bool, error) { calls++; return false, errors.New("not here") })
	for range 1000 {
		c.observe(time.Millisecond)
	}
	if calls != 1 {
		t.Errorf("%d attempts, want 1", calls)
	}
}
