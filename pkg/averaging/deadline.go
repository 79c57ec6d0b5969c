package averaging

import (
	"slices"
	"time"
)

const (
	// remembered is the number of arrivals and of rounds that deadlines and limits look back on.
	remembered = 32

	minDeadline = 500 * time.Millisecond
	maxDeadline = 10 * time.Minute
)

// Arrivals remembers how long after the opening of a round the last 32 contributions came in. They are times of one
// process, decide only whom the leader asks for a sign of life, and are no part of a cut. The zero value is ready.
type Arrivals struct {
	offsets []time.Duration // the last ones, as they came
}

// Record adds the offset of one contribution.
func (a *Arrivals) Record(offset time.Duration) {
	if len(a.offsets) == remembered {
		a.offsets = slices.Delete(a.offsets, 0, 1)
	}
	a.offsets = append(a.offsets, min(max(offset, 0), maxDeadline))
}

// Deadline is how long after its opening a round waits before it asks after a missing group: the median of the
// remembered offsets and four times their median absolute deviation, at least half a second and at most ten minutes,
// and ten minutes before anything has arrived.
func (a *Arrivals) Deadline() time.Duration {
	if len(a.offsets) == 0 {
		return maxDeadline
	}
	middle := median(a.offsets)
	deviations := make([]time.Duration, len(a.offsets))
	for i, d := range a.offsets {
		deviations[i] = (d - middle).Abs()
	}
	return min(max(middle+4*median(deviations), minDeadline), maxDeadline)
}

// median is the middle value, the mean of the two in the middle where their number is even.
func median[T time.Duration | float64](values []T) T {
	v := slices.Sorted(slices.Values(values))
	m := len(v) / 2
	if len(v)%2 == 1 {
		return v[m]
	}
	return v[m-1] + (v[m]-v[m-1])/2
}
