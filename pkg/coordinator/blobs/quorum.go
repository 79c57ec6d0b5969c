package blobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// PutQuorum stores a blob here and at the voters among the peers, and returns nil once a majority of them, this node
// included, has it durable. A large one goes to as many peers as that takes first, to those that were fastest last time, and
// to the others when it is done, or when one of the first fails or lags behind. Those that do not get it fetch it when they
// need it. open is called for every node, at the same time perhaps, also after PutQuorum returned. Errors: those of
// Store.Put for this node, ErrNoQuorum, ErrClosed, and that of ctx; then the blob may be on some nodes, where GC takes care
// of it.
func (r *Replicator) PutQuorum(ctx context.Context, digest ledger.Digest, size int64, open func() (io.ReadCloser, error)) error {
	err := r.putQuorum(ctx, digest, size, open, func(ctx context.Context, read *atomic.Int64) error {
		body, err := open()
		if err != nil {
			return err
		}
		defer body.Close()
		return r.store.put(ctx, digest, size, &counted{body, read}, nil)
	})
	if err != nil {
		return fmt.Errorf("blobs: put %s: %w", digest, err)
	}
	return nil
}

// Spread brings a blob of this store to a quorum, as PutQuorum does.
func (r *Replicator) Spread(ctx context.Context, digest ledger.Digest) error {
	b, err := r.store.open(digest)
	if err == nil {
		err = b.Close()
	}
	if err == nil {
		open := func() (io.ReadCloser, error) {
			c, _, err := r.store.Open(digest)
			return c, err
		}
		err = r.putQuorum(ctx, digest, b.size, open, func(ctx context.Context, _ *atomic.Int64) error {
			whole, err := r.store.whole(ctx, digest, b.size, nil)
			if err == nil && !whole {
				err = ErrCorrupt
			}
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("blobs: spread %s: %w", digest, err)
	}
	return nil
}

// putting is a blob on its way to a quorum.
type putting struct {
	*Replicator
	ctx    context.Context // may outlive the call, and ends with the replicator
	digest ledger.Digest
	size   int64
	open   func() (io.ReadCloser, error)
	need   int // peers that have to have it: a majority of all, without this node

	rest    []Peer     // not asked yet
	sends   []*sending // under way, or done
	running sync.WaitGroup
	done    chan error // of each send
	local   chan error // of this node
	read    atomic.Int64
}

// sending is the part of one peer.
type sending struct {
	moved atomic.Int64 // bytes that went out
	then  int64        // those when somebody last looked
	over  atomic.Bool
}

// putQuorum runs here, which may count what it reads, and sends what open gives to the voters.
func (r *Replicator) putQuorum(ctx context.Context, digest ledger.Digest, size int64, open func() (io.ReadCloser, error), here func(context.Context, *atomic.Int64) error) error {
	voters := slices.DeleteFunc(slices.Clone(r.peers()), func(p Peer) bool { return !p.Voter })
	p := &putting{
		Replicator: r, digest: digest, size: size, open: open, need: (len(voters) + 1) / 2,
		rest: voters, done: make(chan error, len(voters)), local: make(chan error, 1),
	}
	running, cancel := context.WithCancelCause(r.ctx)
	p.ctx = running
	unlink := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	defer unlink()
	first := len(voters)
	if p.large() {
		r.rank(voters)
		first = p.need
	}
	began := time.Now()
	err := p.ask(first)
	if err == nil {
		err = r.spawn(func() { p.local <- here(running, &p.read) })
	}
	if err == nil {
		err = p.await()
	}
	if err != nil {
		cancel(err)
		return err
	}
	unlink()
	_ = p.ask(len(p.rest)) // in vain if the replicator closes: the blob is durable nevertheless
	late := time.AfterFunc(r.straggle+time.Since(began), func() { cancel(context.DeadlineExceeded) })
	if err := r.spawn(func() { p.running.Wait(); late.Stop(); cancel(nil) }); err != nil {
		cancel(err)
	}
	return nil
}

// large says whether it matters to whom the blob goes first.
func (p *putting) large() bool { return p.size > sliceSize }

// rank puts the peers that took the last large blob fastest first, and before them those that nobody knows yet.
func (r *Replicator) rank(peers []Peer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	speed := func(p Peer) float64 {
		if s, ok := r.speeds[p.Name]; ok {
			return s
		}
		return math.Inf(1)
	}
	slices.SortStableFunc(peers, func(a, b Peer) int { return cmp.Compare(speed(b), speed(a)) })
}

// ask starts to send to n more peers, if there are so many.
func (p *putting) ask(n int) error {
	for range min(n, len(p.rest)) {
		peer, s := p.rest[0], &sending{}
		p.rest = p.rest[1:]
		p.sends = append(p.sends, s)
		p.running.Add(1)
		err := p.spawn(func() {
			defer p.running.Done()
			began := time.Now()
			err := p.send(p.ctx, peer, p.digest, p.size, p.open, &s.moved)
			if err != nil {
				err = fmt.Errorf("%s: %w", peer.Name, err)
			}
			s.over.Store(true)
			p.note(peer, s, err, time.Since(began))
			p.done <- err
		})
		if err != nil {
			p.running.Done()
			return err
		}
	}
	return nil
}

// note remembers how fast a peer was; of one that had the blob nothing is learnt.
func (p *putting) note(peer Peer, s *sending, err error, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !p.large() || err == nil && s.moved.Load() < p.size:
	case err != nil:
		p.speeds[peer.Name] = 0
	default:
		p.speeds[peer.Name] = float64(p.size) / took.Seconds()
	}
}

// await waits for this node and for as many peers as a quorum needs.
func (p *putting) await() error {
	have, here, waited := 0, false, false
	peers := len(p.sends) + len(p.rest)
	look := time.NewTicker(p.hedge)
	defer look.Stop()
	var failed []error
	for !here || have < p.need {
		select {
		case err := <-p.local:
			if err != nil {
				return err
			}
			here = true
		case err := <-p.done:
			if err == nil {
				have++
				continue
			}
			if failed = append(failed, err); peers-len(failed) < p.need {
				return fmt.Errorf("%w: %w", ErrNoQuorum, errors.Join(failed...))
			}
			if err := p.ask(1); err != nil {
				return err
			}
		case <-look.C:
			if p.lag() || waited {
				if err := p.ask(len(p.rest)); err != nil {
					return err
				}
			}
			waited = here
		case <-p.ctx.Done():
			return context.Cause(p.ctx)
		}
	}
	return nil
}

// lag says whether a send has not moved since the last look, or is far behind this node.
func (p *putting) lag() bool {
	lag := false
	for _, s := range p.sends {
		now := s.moved.Load()
		lag = lag || !s.over.Load() && (now == s.then || now < p.read.Load()/2)
		s.then = now
	}
	return lag
}

// send puts a blob on a peer and counts what went out.
func (r *Replicator) send(ctx context.Context, p Peer, digest ledger.Digest, size int64, open func() (io.ReadCloser, error), moved *atomic.Int64) error {
	ctx, alive := r.watch(ctx)
	defer alive.end()
	body := func() (io.ReadCloser, error) {
		b, err := open()
		if err != nil {
			return nil, err
		}
		moved.Store(0)
		return &counted{alive.reader(b), moved}, nil
	}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error {
		alive.sign()
		return nil
	}})
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, p.URL+prefix+digest.String(), http.NoBody)
	if err != nil {
		return err
	}
	if size > 0 { // else the client would send it as of unknown length
		if req.Body, err = body(); err != nil {
			return err
		}
		req.GetBody, req.ContentLength = body, size // a connection that went stale costs a second attempt
		req.Header.Set("Expect", "100-continue")
	}
	return p.do(req, http.StatusNoContent, func(*http.Response) error { return nil })
}

// counted counts what is read.
type counted struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}
