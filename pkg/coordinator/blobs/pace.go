package blobs

import (
	"context"
	"sync"
	"time"
)

// bucket lets bytes through at a rate, and what gathers in a third of a second at once. The zero value of everything but
// the rate is a full bucket.
type bucket struct {
	rate int64 // bytes per second

	mu   sync.Mutex
	free time.Time // when what has been taken is paid for
}

const burst = time.Second / 3

// take waits until n bytes may pass.
func (b *bucket) take(ctx context.Context, n int) error {
	now := time.Now()
	b.mu.Lock()
	if b.free.Before(now) {
		b.free = now
	}
	b.free = b.free.Add(time.Duration(float64(n) / float64(b.rate) * float64(time.Second)))
	wait := b.free.Sub(now) - burst
	b.mu.Unlock()
	if wait <= 0 {
		return context.Cause(ctx)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
