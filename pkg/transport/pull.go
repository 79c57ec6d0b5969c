package transport

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"sync"
	"sync/atomic"
	"time"
)

const (
	window = 4 // chunks on their way at once: measured best with chunks of 256 KiB
	// damages is how often a chunk may arrive damaged before the transfer is given up.
	damages = 8
)

// Pull says which blob is wanted from whom.
type Pull struct {
	Subject string // where a Giver answers
	Key     Key
	Max     int64 // bytes; a larger blob is refused with ErrTooLarge before memory is taken for it
	// Timeout is how long a chunk may take before it is asked for again, 2 s if zero. It is longer than a giver waits for a
	// blob to be put.
	Timeout time.Duration
	// Grace is how long nobody may answer, or the connection be gone, before that is an error: while one of them moves to
	// another server of a cluster.
	Grace time.Duration
}

// Pull fetches a blob in chunks, a window of four at a time, and verifies it by its SHA-256. Chunks that get lost, arrive
// damaged or are not there yet are asked for again until ctx ends; everything else is returned at once, see Request. To
// call Pull again is always safe, as long as the giver has not released the blob.
func (c *Conn) Pull(ctx context.Context, p Pull) ([]byte, error) {
	if p.Timeout == 0 {
		p.Timeout = 2 * hold
	}
	data, err := c.pull(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("pull %v: %w", p.Key, err)
	}
	return data, nil
}

func (c *Conn) pull(ctx context.Context, p Pull) ([]byte, error) {
	offer, part, err := c.chunk(ctx, p, 0)
	if err != nil {
		return nil, err
	}
	if offer.Bytes > uint64(max(p.Max, 0)) {
		return nil, fmt.Errorf("%w: blob of %d bytes, want at most %d", ErrTooLarge, offer.Bytes, p.Max)
	}
	chunks := chunksOf(offer.Bytes)
	a := assembly{data: make([]byte, offer.Bytes), have: make([]bool, chunks), digest: sha256.New()}
	a.put(0, part)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var last atomic.Uint32 // the last chunk that was asked for
	var workers sync.WaitGroup
	for range min(window, chunks-1) {
		workers.Go(func() {
			for i := last.Add(1); i < chunks; i = last.Add(1) {
				o, part, err := c.chunk(ctx, p, i)
				if err == nil && o != offer {
					err = fmt.Errorf("%w: chunk %d is of another blob", ErrMalformed, i)
				}
				if err != nil {
					cancel(err) // the first error counts
					return
				}
				a.put(int(i), part)
			}
		})
	}
	workers.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if sum := [sha256.Size]byte(a.digest.Sum(nil)); sum != offer.Digest {
		return nil, fmt.Errorf("%w: blob with SHA-256 %x, want %x", ErrChecksum, sum, offer.Digest)
	}
	return a.data, nil
}

// chunk fetches one chunk, again and again if need be.
func (c *Conn) chunk(ctx context.Context, p Pull, i uint32) (Offer, []byte, error) {
	m := p.Key.message(TypeGet, appendGet(nil, p.Key.Kind))
	m.Chunk = i
	var silent time.Time // since when nobody can be reached
	for damaged := 0; ; c.counts.retries.Add(1) {
		attempt, cancel := context.WithTimeout(ctx, p.Timeout)
		offer, part, err := c.getChunk(attempt, p.Subject, m)
		cancel()
		if !errors.Is(err, ErrNoResponders) && !errors.Is(err, ErrDisconnected) {
			silent = time.Time{}
		}
		switch {
		case err == nil, ctx.Err() != nil:
			return offer, part, err
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, ErrNotReady):
		case wasDamaged(err) && damaged < damages:
			damaged++
		case errors.Is(err, ErrNoResponders) || errors.Is(err, ErrDisconnected):
			if silent.IsZero() {
				silent = time.Now()
			}
			if time.Since(silent) >= p.Grace {
				return Offer{}, nil, err
			}
			pause := time.NewTimer(min(p.Grace, reconnectWait))
			select {
			case <-pause.C:
			case <-ctx.Done():
				pause.Stop()
			}
			continue
		default:
			return Offer{}, nil, err
		}
	}
}

// wasDamaged reports whether a message may have been changed on the way, there or back.
func wasDamaged(err error) bool {
	return errors.Is(err, ErrChecksum) || errors.Is(err, ErrMagic) || errors.Is(err, ErrVersion)
}

func (c *Conn) getChunk(ctx context.Context, subject string, m Message) (Offer, []byte, error) {
	answer, err := c.Request(ctx, subject, m)
	if err != nil {
		return Offer{}, nil, err
	}
	want := m.Header
	want.Type, want.Experiment, want.Chunks = TypeChunk, c.experiment, answer.Chunks
	offer, part, err := decodeChunk(answer.Payload)
	switch {
	case err != nil:
	case answer.Header != want:
		err = fmt.Errorf("%w: answer %+v, want %+v", ErrMalformed, answer.Header, want)
	case answer.Chunks != chunksOf(offer.Bytes) || uint64(len(part)) != min(ChunkSize, offer.Bytes-uint64(m.Chunk)*ChunkSize):
		err = fmt.Errorf("%w: chunk %d of %d with %d bytes of a blob of %d", ErrMalformed, m.Chunk, answer.Chunks, len(part), offer.Bytes)
	}
	return offer, part, err
}

// assembly is a blob coming together. Its chunks are hashed in order, as soon as those before them are there.
type assembly struct {
	data []byte

	mu     sync.Mutex
	have   []bool
	next   int // chunks before it are hashed
	digest hash.Hash
}

func (a *assembly) put(i int, part []byte) {
	copy(a.data[i*ChunkSize:], part)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.have[i] = true
	for ; a.next < len(a.have) && a.have[a.next]; a.next++ {
		rest := a.data[a.next*ChunkSize:]
		a.digest.Write(rest[:min(len(rest), ChunkSize)])
	}
}
