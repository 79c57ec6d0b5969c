package blobs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// flight is a fetch under way, for everybody who wants that blob.
type flight struct {
	done chan struct{}
	err  error // once done is closed
}

// Fetch brings a blob here from any peer that has it. Three are fetched at a time; what one peer has begun another may
// finish. If ctx ends first, the fetch itself goes on. Errors: ErrNotFound if all peers answer and none has a whole copy;
// those of Store.Put; ErrClosed; else what the peers said.
func (r *Replicator) Fetch(ctx context.Context, digest ledger.Digest) error {
	f, err := r.launch(digest)
	if err != nil {
		return fmt.Errorf("blobs: fetch %s: %w", digest, err)
	}
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return fmt.Errorf("blobs: fetch %s: %w", digest, context.Cause(ctx))
	}
}

// launch starts to fetch a blob, unless that is under way.
func (r *Replicator) launch(digest ledger.Digest) (*flight, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f, ok := r.flights[digest]; ok {
		return f, nil
	}
	if r.closed {
		return nil, ErrClosed
	}
	f := &flight{done: make(chan struct{})}
	r.flights[digest] = f
	r.running.Go(func() {
		if err := r.fetch(digest); err != nil {
			f.err = fmt.Errorf("blobs: fetch %s: %w", digest, err)
		}
		r.mu.Lock()
		delete(r.flights, digest)
		r.mu.Unlock()
		close(f.done)
	})
	return f, nil
}

func (r *Replicator) fetch(digest ledger.Digest) error {
	select {
	case r.fetches <- struct{}{}:
		defer func() { <-r.fetches }()
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
	if r.store.Has(digest) {
		return nil
	}
	peers := r.peers()
	if len(peers) == 0 {
		return ErrNotFound
	}
	first := int(digest[len(digest)-1]) % len(peers) // the load of many fetches is spread
	peers = append(peers[first:len(peers):len(peers)], peers[:first]...)
	err := r.gather(digest, peers)
	if errors.Is(err, ErrMismatch) {
		// Somebody's part was damaged. A peer that gives all of it finds out by itself whether its copy is.
		var errs []error
		for _, p := range peers {
			if err = r.gather(digest, []Peer{p}); err == nil {
				break
			}
			errs = append(errs, err)
		}
		if err != nil {
			err = summary(errs)
		}
	}
	if err == nil {
		r.store.mu.Lock()
		r.store.counts.Fetched++
		r.store.mu.Unlock()
	}
	return err
}

// gather puts a blob together from what the peers give, each going on where the one before ended.
func (r *Replicator) gather(digest ledger.Digest, peers []Peer) error {
	g := gathering{Replicator: r, digest: digest}
	defer g.close()
	var errs []error
	for _, p := range peers {
		var err error
		for failed := 0; failed < 2 && !errors.Is(err, errStalled); failed++ { // in a row: a line may break
			before := g.position()
			if err = g.pull(p); err == nil {
				return g.in.commit(r.ctx)
			}
			if r.ctx.Err() != nil || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrFull) || errors.Is(err, ErrBroken) || g.in != nil && g.in.err != nil {
				return err
			}
			if g.position() > before {
				failed = -1
			}
		}
		errs = append(errs, fmt.Errorf("%s: %w", p.Name, err))
	}
	return summary(errs)
}

// summary is ErrNotFound only if it is the word of every peer; else it is what the others said.
func summary(errs []error) error {
	var others []error
	for _, err := range errs {
		if !errors.Is(err, ErrNotFound) {
			others = append(others, err)
		}
	}
	if len(others) == 0 {
		return ErrNotFound
	}
	return errors.Join(others...)
}

// gathering is a blob that comes in parts.
type gathering struct {
	*Replicator
	digest ledger.Digest
	in     *ingest // nil until its size is known
}

func (g *gathering) position() int64 {
	if g.in == nil {
		return 0
	}
	return g.in.n
}

func (g *gathering) close() {
	if g.in != nil {
		g.in.close()
	}
}

// pull reads the rest of the blob from a peer.
func (g *gathering) pull(p Peer) error {
	ctx, alive := g.watch(g.ctx)
	defer alive.end()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+prefix+g.digest.String(), http.NoBody)
	if err != nil {
		return err
	}
	want := http.StatusOK
	if from := g.position(); from > 0 {
		want = http.StatusPartialContent
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	return p.do(req, want, func(resp *http.Response) error {
		size := resp.ContentLength
		if size < 0 {
			return errors.New("answers without a size")
		}
		if want == http.StatusPartialContent {
			if size, err = rangeSize(resp.Header.Get("Content-Range"), g.in.n); err != nil {
				return err
			}
		}
		if g.in != nil && g.in.size != size {
			return fmt.Errorf("%w: has %d bytes, want %d", ErrMismatch, size, g.in.size)
		}
		if g.in == nil {
			if g.in, err = g.store.begin(g.digest, size); err != nil {
				return err
			}
		}
		err := g.in.readFrom(ctx, alive.reader(resp.Body))
		if cause := context.Cause(ctx); err != nil && g.in.err == nil && cause != nil {
			return cause
		}
		return err
	})
}

// rangeSize reads the size of the whole from a Content-Range that begins at from and ends with the last byte.
func rangeSize(header string, from int64) (int64, error) {
	bounds, total, _ := strings.Cut(strings.TrimPrefix(header, "bytes "), "/")
	size, err := strconv.ParseInt(total, 10, 64)
	if err != nil || bounds != fmt.Sprintf("%d-%d", from, size-1) {
		return 0, fmt.Errorf("answers with the range %.80q, want all from byte %d", header, from)
	}
	return size, nil
}

// repair fetches what the store misses, until the replicator is closed.
func (r *Replicator) repair() {
	wait := r.retry
	for {
		ok := true
		missing := r.store.Missing()
		var flights []*flight
		for _, d := range missing {
			f, err := r.launch(d)
			if err != nil {
				return
			}
			flights = append(flights, f)
		}
		for i, f := range flights {
			<-f.done
			if f.err != nil && r.ctx.Err() == nil && r.store.misses(missing[i]) {
				ok = false
				r.log.Warn("blob is missing", "blob", missing[i], "err", f.err)
			}
		}
		var again <-chan time.Time
		if ok {
			wait = r.retry
		} else {
			again = time.After(wait)
			wait = min(2*wait, retryMax)
		}
		select {
		case <-r.ctx.Done():
			return
		case <-r.store.wake:
		case <-again:
		}
	}
}

// scrub reads all blobs once a day, until the replicator is closed.
func (r *Replicator) scrub() {
	for {
		last, _ := r.store.scrubState()
		timer := time.NewTimer(time.Until(last.Add(scrubEvery)))
		select {
		case <-timer.C:
		case <-r.ctx.Done():
			timer.Stop()
			return
		}
		if err := r.store.Scrub(r.ctx); err != nil {
			return // closed
		}
	}
}
