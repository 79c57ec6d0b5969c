package blobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
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
	straggleTime = 30 * time.Second // that a peer has left, and as long as the quorum took, once that is complete; after it, it fetches
	hedgeTime    = time.Second / 4  // that the peers of a quorum may lag behind before the others are asked too
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
	hedge    time.Duration
	retry    time.Duration
	fetches  chan struct{} // taken by a running fetch

	ctx  context.Context
	stop context.CancelCauseFunc

	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
	flights map[ledger.Digest]*flight
	speeds  map[string]float64 // bytes per second of the last large blob that a peer took, 0 if it did not; by name
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
		hedge:    hedgeTime,
		retry:    retryMin,
		fetches:  make(chan struct{}, maxFetches),
		flights:  map[ledger.Digest]*flight{},
		speeds:   map[string]float64{},
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
