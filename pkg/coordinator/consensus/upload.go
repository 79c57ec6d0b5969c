package consensus

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
)

// upload puts several blobs so that all of them are young at its end, however long it takes.
type upload struct {
	put   func(ctx context.Context, i int) error // puts one; one that is there is as if it had just come
	grace time.Duration                          // that nodes keep what nobody names
}

// uploads is how many blobs are put at a time.
const uploads = 2

// run puts n blobs, and again those that have aged by half the grace meanwhile.
func (u upload) run(ctx context.Context, n int) error {
	begun := make([]time.Time, n) // the last put of each
	for {
		var old []int
		for i, at := range begun {
			if time.Since(at) > u.grace/2 {
				old = append(old, i)
			}
		}
		if len(old) == 0 {
			return nil
		}
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(uploads)
		for _, i := range old {
			group.Go(func() error {
				if ctx.Err() != nil { // another one failed
					return context.Cause(ctx)
				}
				begun[i] = time.Now()
				return u.put(ctx, i)
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
	}
}
