package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// meshGrace is how long another replica may be out of reach before the coordinator is told. Where it is dead the coordinator
// finds out by itself, and ends the generation.
const meshGrace = time.Second

// Mesh carries the blobs of one generation between the shards held here and those that other replicas hold. What a shard
// here posts for shards here never leaves the process. It implements [engine.Mesh] and is safe for concurrent use.
type Mesh struct {
	conn       *transport.Conn
	giver      *transport.Giver
	subjects   transport.Subjects
	self       string
	generation uint64
	holders    []string        // by shard
	elsewhere  []bool          // by shard: some shard of its group is held by another replica
	ctx        context.Context // of the generation
	abort      context.CancelCauseFunc
	local      engine.LocalMesh
	counts     *meshCounts
	status     *Status
}

// meshCounts are what all generations of a replica moved.
type meshCounts struct {
	kinds  [numKinds]struct{ sent, received, bytesSent, bytesReceived atomic.Uint64 }
	waited atomic.Int64 // ns
}

// numKinds is one more than the last engine.Kind.
const numKinds = engine.GatheredBlob + 1

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
	engine.GatheredBlob: transport.KindGathered,
}

// newMesh is the mesh of a generation; perGroup is the number of shards of a group.
func newMesh(conn *transport.Conn, giver *transport.Giver, subjects transport.Subjects, self string, generation uint64, holders []string, perGroup int, counts *meshCounts) *Mesh {
	m := &Mesh{conn: conn, giver: giver, subjects: subjects, self: self, generation: generation, holders: holders, counts: counts}
	m.ctx, m.abort = context.WithCancelCause(context.Background())
	for shard := range holders {
		elsewhere := false
		for of := shard / perGroup * perGroup; of < min((shard/perGroup+1)*perGroup, len(holders)); of++ {
			elsewhere = elsewhere || holders[of] != self
		}
		m.elsewhere = append(m.elsewhere, elsewhere)
	}
	return m
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
	leaves := m.elsewhere[key.Shard]
	switch key.Kind {
	case engine.RowsBlob:
		leaves = m.holders[key.To] != m.self
	case engine.GradientBlob: // for the leads of all groups
		leaves = slices.ContainsFunc(m.holders, func(id string) bool { return id != m.self })
	}
	if !leaves {
		return
	}
	if _, err := m.giver.Put(m.wire(key), data); err != nil {
		m.abort(err)
		return
	}
	n := &m.counts.kinds[key.Kind]
	n.sent.Add(1)
	n.bytesSent.Add(uint64(len(data)))
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
	data, err := m.conn.Pull(ctx, transport.Pull{Subject: m.subjects.Exchange(token), Key: m.wire(key), Max: transport.MaxBlob, Grace: meshGrace})
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
}

// close ends the waits of the generation and forgets what was posted in it.
func (m *Mesh) close() {
	m.abort(errAborted)
	m.giver.Release(func(k transport.Key) bool { return k.Generation == m.generation })
}
