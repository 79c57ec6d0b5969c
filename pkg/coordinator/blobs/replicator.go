package blobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// Peer is another coordinator, whose Handler is reached under URL.
type Peer struct {
	Name  string
	URL   string // such as http://b:7000
	Voter bool   // counts for quorums
	// Client reaches it. A transport whose ExpectContinueTimeout is set, and long, spares it the blobs that it has: it verifies
	// its copy before it says so.
	Client *http.Client
}

// ReplicatorConfig says what a replicator moves, and where.
type ReplicatorConfig struct {
	Store *Store
	Peers func() []Peer // the other coordinators at present; nil: there are none
	Log   *slog.Logger  // told of blobs that do not come; nil: nothing is logged
}

// How patient a replicator is.
const (
	stallTime    = 15 * time.Second // without a byte or an answer; then a peer counts as gone
	straggleTime = 30 * time.Second // that a peer has left once the quorum is complete; after it, it fetches
	retryMin     = time.Second      // between attempts to fetch what is missing
	retryMax     = 30 * time.Second
	scrubEvery   = 24 * time.Hour
	maxFetches   = 3
)

// Replicator moves blobs between the coordinators: it puts them on a quorum, and fetches what its store misses. It also
// scrubs the store once a day. It is safe for concurrent use. Close it.
type Replicator struct {
	store    *Store
	peers    func() []Peer
	log      *slog.Logger
	stall    time.Duration
	straggle time.Duration
	retry    time.Duration
	fetches  chan struct{} // taken by a running fetch

	ctx  context.Context
	stop context.CancelCauseFunc

	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
	flights map[ledger.Digest]*flight
}

// NewReplicator starts a replicator.
func NewReplicator(c ReplicatorConfig) *Replicator {
	r := newReplicator(c)
	r.start()
	return r
}

func newReplicator(c ReplicatorConfig) *Replicator {
	r := &Replicator{
		store:    c.Store,
		peers:    c.Peers,
		log:      c.Log,
		stall:    stallTime,
		straggle: straggleTime,
		retry:    retryMin,
		fetches:  make(chan struct{}, maxFetches),
		flights:  map[ledger.Digest]*flight{},
	}
	if r.peers == nil {
		r.peers = func() []Peer { return nil }
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	r.ctx, r.stop = context.WithCancelCause(context.Background())
	return r
}

func (r *Replicator) start() {
	_ = r.spawn(r.repair)
	_ = r.spawn(r.scrub)
}

// Close ends everything that is under way, with ErrClosed, and waits for it.
func (r *Replicator) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.stop(ErrClosed)
	r.running.Wait()
}

// spawn runs f in a goroutine that Close waits for.
func (r *Replicator) spawn(f func()) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return ErrClosed
	}
	r.running.Go(f)
	return nil
}

// PutQuorum stores a blob here and at the voters among the peers, all at once, and returns nil once a majority of them,
// this node included, has it durable. The others go on for a while; those that do not get it fetch it when they need it.
// open is called for every node, at the same time perhaps, also after PutQuorum returned. Errors: those of Store.Put for
// this node, ErrNoQuorum, ErrClosed, and that of ctx; then the blob may be on some nodes, where GC takes care of it.
func (r *Replicator) PutQuorum(ctx context.Context, digest ledger.Digest, size int64, open func() (io.ReadCloser, error)) error {
	err := r.putQuorum(ctx, digest, size, open, func(ctx context.Context) error {
		body, err := open()
		if err != nil {
			return err
		}
		defer body.Close()
		return r.store.put(ctx, digest, size, body, nil)
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
		err = r.putQuorum(ctx, digest, b.size, open, func(ctx context.Context) error {
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

// putQuorum runs here, and sends what open gives to the voters.
func (r *Replicator) putQuorum(ctx context.Context, digest ledger.Digest, size int64, open func() (io.ReadCloser, error), here func(context.Context) error) error {
	var voters []Peer
	for _, p := range r.peers() {
		if p.Voter {
			voters = append(voters, p)
		}
	}
	// What runs may outlive this call, and ends with the replicator.
	running, cancel := context.WithCancelCause(r.ctx)
	unlink := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	defer unlink()
	var sends sync.WaitGroup
	done := make(chan error, len(voters))
	local := make(chan error, 1)
	for _, p := range voters {
		sends.Add(1)
		err := r.spawn(func() {
			defer sends.Done()
			if err := r.send(running, p, digest, size, open); err != nil {
				done <- fmt.Errorf("%s: %w", p.Name, err)
				return
			}
			done <- nil
		})
		if err != nil {
			cancel(err)
			return err
		}
	}
	if err := r.spawn(func() { local <- here(running) }); err != nil {
		cancel(err)
		return err
	}
	need := (len(voters) + 1) / 2 // of the peers: a majority of all, without this node
	if err := r.await(running, need, len(voters), local, done); err != nil {
		cancel(err)
		return err
	}
	unlink()
	late := time.AfterFunc(r.straggle, func() { cancel(context.DeadlineExceeded) })
	if err := r.spawn(func() { sends.Wait(); late.Stop(); cancel(nil) }); err != nil {
		cancel(err) // closing: the blob is durable nevertheless
	}
	return nil
}

// await waits for this node and for need of the peers.
func (r *Replicator) await(ctx context.Context, need, peers int, local, done <-chan error) error {
	have, here := 0, false
	var failed []error
	for !here || have < need {
		select {
		case err := <-local:
			if err != nil {
				return err
			}
			here = true
		case err := <-done:
			if err != nil {
				failed = append(failed, err)
			} else {
				have++
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if peers-len(failed) < need {
			return fmt.Errorf("%w: %w", ErrNoQuorum, errors.Join(failed...))
		}
	}
	return nil
}

// send puts a blob on a peer.
func (r *Replicator) send(ctx context.Context, p Peer, digest ledger.Digest, size int64, open func() (io.ReadCloser, error)) error {
	ctx, alive := r.watch(ctx)
	defer alive.end()
	body := func() (io.ReadCloser, error) {
		b, err := open()
		if err != nil {
			return nil, err
		}
		return alive.reader(b), nil
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

// do sends a request and hands the answer on if its status is the one that is wanted.
func (p Peer) do(req *http.Request, status int, handle func(*http.Response) error) error {
	resp, err := p.Client.Do(req)
	if err != nil {
		if cause := context.Cause(req.Context()); cause != nil {
			return cause
		}
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != status {
		return answerError(resp)
	}
	return handle(resp)
}

// watchdog ends a context when nothing moves for a while.
type watchdog struct {
	timer  *time.Timer
	stall  time.Duration
	cancel context.CancelCauseFunc
}

var errStalled = errors.New("nothing moves")

func (r *Replicator) watch(ctx context.Context) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watchdog{stall: r.stall, cancel: cancel}
	w.timer = time.AfterFunc(r.stall, func() { cancel(fmt.Errorf("%w for %v", errStalled, r.stall)) })
	return ctx, w
}

func (w *watchdog) end() {
	w.timer.Stop()
	w.cancel(nil)
}

// sign is one of life.
func (w *watchdog) sign() { w.timer.Reset(w.stall) }

// reader counts what is read as a sign of life.
func (w *watchdog) reader(r io.ReadCloser) io.ReadCloser { return &watched{r, w} }

type watched struct {
	io.ReadCloser
	dog *watchdog
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if n > 0 {
		w.dog.sign()
	}
	return n, err
}
