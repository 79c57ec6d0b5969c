package replica

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// LostError says that the replica that holds a shard cannot be reached.
type LostError struct {
	Replica string
	Err     error
}

func (e *LostError) Error() string { return fmt.Sprintf("replica %s is lost: %v", e.Replica, e.Err) }

func (e *LostError) Unwrap() error { return e.Err }

// errAborted ends the waits of a generation that is over.
var errAborted = errors.New("the generation is over")

const (
	// meshGrace is how long another replica may be out of reach before the coordinator is told. Where it is dead the coordinator
	// finds out by itself, and ends the generation.
	meshGrace = time.Second
	// overdue is how long a replica waits for what others bring before it asks: it got lost, or is not made yet.
	overdue = time.Second
)

// Mesh carries the blobs of one generation between the shards held here and those that other replicas hold. What a shard
// here posts for shards here never leaves the process. What others will want at the next step of the way it brings them; all
// else, and what is too large or gets lost, they ask for. It implements [engine.Mesh] and is safe for concurrent use.
type Mesh struct {
	conn       *transport.Conn
	giver      *transport.Giver
	subjects   transport.Subjects
	self       string
	generation uint64
	holders    []string // by shard
	layout     engine.Layout
	overdue    time.Duration
	ctx        context.Context // of the generation
	abort      context.CancelCauseFunc
	local      engine.LocalMesh
	counts     *meshCounts
	status     *Status

	mu       sync.Mutex
	arrivals map[transport.Key]*arrival
}

// arrival is a blob that another replica brings.
type arrival struct {
	there chan struct{} // closed when it has come
	transport.Brought
}

// meshCounts are what all generations of a replica moved.
type meshCounts struct {
	kinds  [numKinds]struct{ sent, received, bytesSent, bytesReceived atomic.Uint64 }
	waited atomic.Int64 // ns
}

// numKinds is one more than the last engine.Kind.
const numKinds = engine.PartBlob + 1

// Traffic is what a replica moved of one kind of blob. Sent counts what was offered to other replicas.
type Traffic struct {
	Sent, Received           uint64
	BytesSent, BytesReceived uint64
}

// Moved is the traffic of a replica by kind, how long it waited for blobs, of its own shards too, and how many messages it
// refused because they were of another generation.
type Moved struct {
	Kinds  map[engine.Kind]Traffic
	Waited time.Duration
	Stale  uint64
}

func (c *meshCounts) read() Moved {
	out := Moved{Kinds: map[engine.Kind]Traffic{}, Waited: time.Duration(c.waited.Load())}
	for kind := range c.kinds {
		n := &c.kinds[kind]
		t := Traffic{n.sent.Load(), n.received.Load(), n.bytesSent.Load(), n.bytesReceived.Load()}
		if t != (Traffic{}) {
			out.Kinds[engine.Kind(kind)] = t
		}
	}
	return out
}

// wireKinds are the names that the kinds of blobs have on the wire.
var wireKinds = [numKinds]transport.Kind{
	engine.EnergiesBlob: transport.KindEnergies, engine.RowsBlob: transport.KindRows, engine.GradientBlob: transport.KindGradient,
	engine.ThetaBlob: transport.KindTheta, engine.StatesBlob: transport.KindStates, engine.NegativesBlob: transport.KindNegatives,
	engine.GatheredBlob: transport.KindGathered, engine.PartBlob: transport.KindGradient,
}

// newMesh is the mesh of a generation.
func newMesh(conn *transport.Conn, giver *transport.Giver, subjects transport.Subjects, self string, generation uint64, holders []string, layout engine.Layout, counts *meshCounts) *Mesh {
	m := &Mesh{conn: conn, giver: giver, subjects: subjects, self: self, generation: generation, holders: holders, layout: layout, overdue: overdue, counts: counts,
		arrivals: map[transport.Key]*arrival{}}
	m.ctx, m.abort = context.WithCancelCause(context.Background())
	return m
}

// group is that of a shard.
func (m *Mesh) group(shard uint32) int { return int(shard) / m.layout.PerGroup() }

// wanting are the other replicas that want a blob; brought says that they need not ask for it.
func (m *Mesh) wanting(key engine.Key) (others []string, brought bool) {
	first := m.group(key.Shard) * m.layout.PerGroup()
	group := m.holders[first:min(first+m.layout.PerGroup(), len(m.holders))]
	switch key.Kind {
	case engine.EnergiesBlob: // for the lead
		others, brought = []string{group[m.layout.Lead()]}, true
	case engine.RowsBlob, engine.NegativesBlob, engine.PartBlob:
		others, brought = []string{m.holders[key.To]}, true
	case engine.ThetaBlob, engine.GatheredBlob:
		others, brought = group, true
	case engine.GradientBlob: // for the leads of all groups
		others = m.holders
	default: // states are for the lead, or for all
		others = group
	}
	others = slices.Sorted(slices.Values(others))
	return slices.DeleteFunc(slices.Compact(others), func(id string) bool { return id == m.self }), brought
}

func (m *Mesh) wire(k engine.Key) transport.Key {
	return transport.Key{Kind: wireKinds[k.Kind], Generation: m.generation, Scan: k.Scan, Shard: k.Shard, Peer: k.To}
}

// Post implements [engine.Mesh].
func (m *Mesh) Post(key engine.Key, data []byte) {
	if m.ctx.Err() != nil {
		return // nobody will ask for it
	}
	m.local.Post(key, data)
	others, brought := m.wanting(key)
	if len(others) == 0 {
		return
	}
	if err := m.giver.Put(m.wire(key), data); err != nil {
		m.abort(err)
		return
	}
	if brought {
		m.bring(m.wire(key), data, others)
	}
	n := &m.counts.kinds[key.Kind]
	n.sent.Add(1)
	n.bytesSent.Add(uint64(len(data)))
}

// bring takes a blob to others.
func (m *Mesh) bring(key transport.Key, data []byte, others []string) {
	var subjects []string
	for _, id := range others {
		if token, err := transport.ParseToken(id); err == nil { // else the others find out when they ask it
			subjects = append(subjects, m.subjects.Exchange(token))
		}
	}
	m.conn.Bring(key, data, subjects...)
}

// Arrived takes what another replica brings.
func (m *Mesh) Arrived(b transport.Brought) error {
	if int64(b.Key.Shard) >= int64(len(m.holders)) || b.Key.Generation != m.generation {
		return fmt.Errorf("%w: %v, want one of %d shards in generation %d", transport.ErrMalformed, b.Key, len(m.holders), m.generation)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.arrival(b.Key)
	select {
	case <-a.there: // it came twice
	default:
		a.Brought = b
		close(a.there)
	}
	return nil
}

// arrival is where a blob arrives; m.mu is held.
func (m *Mesh) arrival(key transport.Key) *arrival {
	a := m.arrivals[key]
	if a == nil {
		a = &arrival{there: make(chan struct{})}
		m.arrivals[key] = a
	}
	return a
}

// brought waits for a blob that another replica brings; nil says that it must be asked for.
func (m *Mesh) brought(ctx context.Context, key transport.Key) ([]byte, error) {
	m.mu.Lock()
	a := m.arrival(key)
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.arrivals, key)
	}()
	late := time.NewTimer(m.overdue)
	defer late.Stop()
	select {
	case <-a.there:
		return a.Data, nil
	case <-late.C:
		return nil, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Pull implements [engine.Mesh]. It ends with the generation.
func (m *Mesh) Pull(ctx context.Context, key engine.Key) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(m.ctx, func() { cancel(context.Cause(m.ctx)) })()
	start := time.Now()
	defer func() { m.counts.waited.Add(int64(time.Since(start))) }()

	data, err := m.pull(ctx, key)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("generation %d: %v: %w", m.generation, key, err)
	}
	return data, nil
}

func (m *Mesh) pull(ctx context.Context, key engine.Key) ([]byte, error) {
	holder := m.holders[key.Shard]
	if holder == m.self {
		return m.local.Pull(ctx, key)
	}
	token, err := transport.ParseToken(holder)
	if err != nil {
		return nil, err
	}
	defer m.status.owes(key, holder)()
	var data []byte
	if _, brought := m.wanting(key); brought {
		if data, err = m.brought(ctx, m.wire(key)); err != nil {
			return nil, err
		}
	}
	if data == nil {
		data, err = m.conn.Pull(ctx, transport.Pull{Subject: m.subjects.Exchange(token), Key: m.wire(key), Max: transport.MaxBlob, Grace: meshGrace})
	}
	if err != nil {
		return nil, &LostError{holder, err}
	}
	n := &m.counts.kinds[key.Kind]
	n.received.Add(1)
	n.bytesReceived.Add(uint64(len(data)))
	return data, nil
}

// Release implements [engine.Mesh].
func (m *Mesh) Release(shard uint32, scan uint64) {
	m.local.Release(shard, scan)
	m.giver.Release(func(k transport.Key) bool {
		return k.Generation == m.generation && k.Kind != transport.KindBulk && k.Shard == shard && k.Scan < scan
	})
	// Whoever releases has all that it wanted of those scans: what came after it was asked for is of no use.
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.arrivals, func(k transport.Key, _ *arrival) bool { return m.group(k.Shard) == m.group(shard) && k.Scan < scan })
}

// close ends the waits of the generation and forgets what was posted in it.
func (m *Mesh) close() {
	m.abort(errAborted)
	m.giver.Release(func(k transport.Key) bool { return k.Generation == m.generation })
}
