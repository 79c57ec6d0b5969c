package transport

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"sync"
	"time"
)

const (
	// ChunkSize is the number of bytes of a blob that one message carries; the last chunk has what is left.
	ChunkSize = MaxPayload - offerSize
	// MaxBrought is the largest blob, in bytes, that comes without being asked for.
	MaxBrought = MaxPayload - broughtSize
	// MaxBlob is the largest blob, in bytes.
	MaxBlob = 4 << 30

	offerSize   = 8 + sha256.Size
	broughtSize = 1 + 8
	// hold is how long a request for a blob that is not there yet is kept before it is told to come again.
	hold = time.Second
)

// Kind says what a blob holds. How is agreed between those who put and those who pull it, see docs/protocol.md.
type Kind uint8

const (
	KindRows      Kind = 1 // states that accepted swaps move from one shard to another
	KindNegatives Kind = 2 // states of a shard that are negatives of a step, for the lead
	KindTheta     Kind = 3 // parameters after a step
	KindGradient  Kind = 4 // part of a shard in a gradient that several make together
	KindEnergies  Kind = 6 // of all chains of a shard; 5 is reserved
	KindStates    Kind = 7 // all states of a shard
	KindBulk      Kind = 8 // what a command brings or asks for
	KindGathered  Kind = 9 // energies of all chains of a group
)

var kindNames = [...]string{
	KindRows: "rows", KindNegatives: "negatives", KindTheta: "parameters", KindGradient: "gradient", KindEnergies: "energies",
	KindStates: "states", KindBulk: "bulk", KindGathered: "gathered energies",
}

// String is the name of the kind in docs/protocol.md.
func (k Kind) String() string {
	if k.known() {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

func (k Kind) known() bool { return int(k) < len(kindNames) && kindNames[k] != "" }

// Key names a blob.
type Key struct {
	Kind        Kind
	Generation  uint64
	Scan        uint64 // of parameters: the step that made them
	Shard, Peer uint32 // whose it is and which shard it is for, 0 where it is for all
}

// String is the key in words.
func (k Key) String() string {
	return fmt.Sprintf("%s of shard %d for shard %d, scan %d of generation %d", k.Kind, k.Shard, k.Peer, k.Scan, k.Generation)
}

func (k Key) message(t Type, payload []byte) Message {
	return Message{Header{Type: t, Generation: k.Generation, Scan: k.Scan, Shard: k.Shard, Peer: k.Peer}, payload}
}

// Giver keeps blobs until they are released, and gives them away in chunks to whoever asks, as often as they ask. A blob
// that is not there yet is waited for. It is safe for concurrent use.
type Giver struct {
	mu    sync.Mutex
	blobs map[Key]blob
	news  chan struct{} // closed at the next Put
}

type blob struct {
	data  []byte
	offer func() Offer // computed when somebody asks
}

// NewGiver returns a giver without blobs.
func NewGiver() *Giver {
	return &Giver{blobs: map[Key]blob{}, news: make(chan struct{})}
}

// Put keeps data under a key. The data belong to the giver from here on. The same again is fine, other data under a key that
// is taken are an error.
func (g *Giver) Put(key Key, data []byte) error {
	if !key.Kind.known() || int64(len(data)) > MaxBlob {
		return fmt.Errorf("transport: put: %s with %d bytes, want a known kind and at most %d", key.Kind, len(data), int64(MaxBlob))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if old, taken := g.blobs[key]; taken {
		if !bytes.Equal(old.data, data) {
			return fmt.Errorf("transport: put: %v has %d bytes already, others than the %d that are put", key, len(old.data), len(data))
		}
		return nil
	}
	g.blobs[key] = blob{data, sync.OnceValue(func() Offer { return Offer{uint64(len(data)), sha256.Sum256(data)} })}
	close(g.news)
	g.news = make(chan struct{})
	return nil
}

// Release forgets the blobs whose key makes drop true.
func (g *Giver) Release(drop func(Key) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.DeleteFunc(g.blobs, func(k Key, _ blob) bool { return drop(k) })
}

// Bytes is the size of the blobs that are kept.
func (g *Giver) Bytes() (n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, b := range g.blobs {
		n += int64(len(b.data))
	}
	return n
}

// Handle answers TypeGet; it is a Handler. If the blob does not come within a second the answer is ErrNotReady.
func (g *Giver) Handle(ctx context.Context, m Message) (Message, error) {
	if m.Type != TypeGet {
		return Message{}, fmt.Errorf("%w: %s", ErrUnhandled, m.Type)
	}
	r := reader{b: m.Payload}
	kind, err := decoded(Kind(r.u8()), &r, "GET")
	if err == nil && !kind.known() {
		err = fmt.Errorf("GET: %w: %s, want a known one", ErrMalformed, kind)
	}
	if err != nil {
		return Message{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, hold)
	defer cancel()
	key := Key{Kind: kind, Generation: m.Generation, Scan: m.Scan, Shard: m.Shard, Peer: m.Peer}
	b, err := g.wait(ctx, key)
	if err != nil {
		return Message{}, err
	}
	offer := b.offer()
	chunks := chunksOf(offer.Bytes)
	if m.Chunk >= chunks {
		return Message{}, fmt.Errorf("GET: %w: chunk %d of %d", ErrMalformed, m.Chunk, chunks)
	}
	part := b.data[int(m.Chunk)*ChunkSize:]
	part = part[:min(len(part), ChunkSize)]
	payload := append(offer.append(make([]byte, 0, offerSize+len(part))), part...)
	answer := m.Reply(TypeChunk, payload)
	answer.Chunk, answer.Chunks = m.Chunk, chunks
	return answer, nil
}

func (g *Giver) wait(ctx context.Context, key Key) (blob, error) {
	for {
		g.mu.Lock()
		b, ok := g.blobs[key]
		news := g.news
		g.mu.Unlock()
		if ok {
			return b, nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return blob{}, fmt.Errorf("%w: %v", ErrNotReady, key)
		}
	}
}

// chunksOf is the number of chunks of a blob; an empty one has one.
func chunksOf(bytes uint64) uint32 {
	return uint32(max(1, (bytes+ChunkSize-1)/ChunkSize))
}

// appendGet is the payload of TypeGet.
func appendGet(dst []byte, kind Kind) []byte { return append(dst, byte(kind)) }

// decodeChunk reads the payload of TypeChunk: the offer of the whole blob, then the chunk's bytes.
func decodeChunk(b []byte) (Offer, []byte, error) {
	r := reader{b: b}
	o := r.offer()
	if r.err == nil && o.Bytes > MaxBlob {
		r.err = fmt.Errorf("%w: blob of %d bytes, want at most %d", ErrMalformed, o.Bytes, int64(MaxBlob))
	}
	part := r.take(len(r.b))
	o, err := decoded(o, &r, "CHUNK")
	return o, part, err
}

// Brought is a blob that came unasked.
type Brought struct {
	Key   Key
	Bytes uint64 // its size
	Data  []byte // nil of one larger than MaxBrought: it is there, and wants to be asked for
}

// Bring tells those who serve the subjects of a blob that they will want: it sends the blob itself, in one message, up to
// MaxBrought. It does not wait, and nothing says whether the blob arrived: keep it in a Giver, whom they ask if it does not. To
// connections within this process it hands the blob over as it is, whatever its size; nobody may change the data any more.
func (c *Conn) Bring(key Key, data []byte, subjects ...string) {
	h := key.message(TypePut, nil).Header
	h.Experiment = c.experiment
	b := Brought{Key: key, Bytes: uint64(len(data)), Data: data}
	var elsewhere []string
	for _, subject := range subjects {
		within := c.server.within(subject)
		for _, s := range within {
			s.hand(h, b)
		}
		if within == nil {
			elsewhere = append(elsewhere, subject)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(elsewhere) == 0 || c.services == nil {
		return
	}
	c.sending.Go(func() {
		message := b.message(h)
		defer buffers.Put(message)
		for _, subject := range elsewhere {
			_ = c.nats.Publish(subject, *message) // not sent is like lost on the way
		}
	})
}

// message encodes what is brought into a buffer of the pool.
func (b Brought) message(h Header) *[]byte {
	head := appendPut(make([]byte, 0, broughtSize), b.Key.Kind, b.Bytes)
	if b.Bytes > MaxBrought {
		b.Data = nil
	}
	message, err := encode(h, head, b.Data)
	if err != nil {
		panic(err) // the type is known and the size bounded
	}
	return message
}

// appendPut is the payload of TypePut without the blob.
func appendPut(dst []byte, kind Kind, size uint64) []byte {
	return binary.LittleEndian.AppendUint64(append(dst, byte(kind)), size)
}

// decodePut reads what Bring sent.
func decodePut(m Message) (Brought, error) {
	r := reader{b: m.Payload}
	b := Brought{Key: Key{Kind: Kind(r.u8()), Generation: m.Generation, Scan: m.Scan, Shard: m.Shard, Peer: m.Peer}, Bytes: r.u64()}
	if r.err == nil && (!b.Key.Kind.known() || b.Bytes > MaxBlob) {
		r.err = fmt.Errorf("%w: %s of %d bytes, want a known kind and at most %d", ErrMalformed, b.Key.Kind, b.Bytes, int64(MaxBlob))
	}
	if b.Bytes <= MaxBrought {
		b.Data = r.take(int(b.Bytes))
	}
	return decoded(b, &r, "PUT")
}
