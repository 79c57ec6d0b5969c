package consensus

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

func TestASlowUploadEndsWithYoungBlobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const blobs, each = 9, 4 * time.Minute
		began := time.Now()
		last := make([]time.Time, blobs)
		var running, most atomic.Int32
		u := upload{grace: 10 * time.Minute, put: func(_ context.Context, i int) error {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			if last[i].IsZero() {
				defer time.Sleep(each)
			}
			last[i] = time.Now()
			return nil
		}}
		if err := u.run(t.Context(), blobs); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != (blobs+1)/2*each || most.Load() != 2 {
			t.Errorf("took %v with %d at a time, want %v: two at a time, and what is there costs nothing", took, most.Load(), (blobs+1)/2*each)
		}
		for i, at := range last {
			if age := time.Since(at); age > u.grace/2 {
				t.Errorf("blob %d is %v old", i, age)
			}
		}
	})
}

func TestAnUploadEndsWithTheFirstError(t *testing.T) {
	wrong := errors.New("wrong")
	puts := 0
	u := upload{grace: time.Hour, put: func(ctx context.Context, i int) error {
		if i == 1 {
			<-ctx.Done() // the other one's doing
			return context.Cause(ctx)
		}
		puts++
		return wrong
	}}
	if err := u.run(t.Context(), 10); !errors.Is(err, wrong) || puts != 1 {
		t.Errorf("%v after %d puts, want the first one's error", err, puts)
	}
}

func TestWhatIsUploadedStaysUntilItIsReleased(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := c.configure("a")
	cfg.hooks.grace = time.Second
	c.cfg["a"] = cfg
	c.start("a")
	n := c.leader()
	data := [][]byte{[]byte("a"), []byte("b"), []byte("a")}
	release, err := n.PutBlobs(within(t), data...)
	if err != nil {
		t.Fatal(err)
	}
	other, err := n.PutBlob(within(t), []byte("nobody's"))
	if err != nil {
		t.Fatal(err)
	}
	// collected says whether a blob is gone, after another collection.
	collected := func(digest ledger.Digest) func() bool {
		return func() bool {
			if _, err := n.collectOnce(); err != nil {
				t.Fatal(err)
			}
			return !n.blobs.Has(digest)
		}
	}
	eventually(t, "a younger blob that nobody holds is gone", collected(other))
	for _, d := range data {
		if !n.blobs.Has(sha256.Sum256(d)) {
			t.Errorf("%s is gone before it is released", d)
		}
	}
	release()
	release() // is harmless
	for _, d := range data {
		eventually(t, "what is released is gone", collected(sha256.Sum256(d)))
	}

	n.disk.full.Store(true)
	if release, err := n.PutBlobs(within(t), []byte("c")); !errors.Is(err, ErrFull) || release != nil {
		t.Errorf("upload to a full disk: %v, want an ErrFull and nothing to release", err)
	}
}
