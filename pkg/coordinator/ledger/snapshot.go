package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
)

// A snapshot is the magic, a version u32, the sections in their order, and the SHA-256 of all before it. A section is its number
// u32, the length of its body u64, the body, and the CRC-32C u32 of number, length and body: it says which part of a damaged
// snapshot is damaged.
const (
	snapshotMagic    = "KLVNSTAT"
	snapshotVersion  = 1
	sectionHeadBytes = 4 + 8
)

// The least bytes of elements of lists.
const (
	leastNode       = 5 + 4 + 4 + 4 + 4
	leastToken      = 5 + 32 + 1 + 4 + 4 + 8 + 4
	leastQuota      = 4 + 4 + 4 + 8
	leastReplica    = 5 + 8 + 8 + 4 + 4 + 8
	leastCut        = 8 + 8 + 32 + 4 + 6*8 + 8 + 8
	leastEvent      = 8 + 8 + 4 + 4
	leastExperiment = 16 + 5 + 4 + 4 + 4 + 8 + 4 + 4 + 4 + 4 + 8 + 8 + 8 + 8 + 1 + 1 + 4 + 8 + 4 + 8 + 4 + 4 + 1 + 4
)

// sections are the parts of a state, in their order in a snapshot, where the first has number 1.
func (s *State) sections() []func(*coder) {
	return []func(*coder){
		s.identity,
		func(c *coder) { table(c, s.nodes, leastNode, (*Node).fields, func(n *Node) string { return n.Name }) },
		func(c *coder) {
			table(c, s.tokens, leastToken, (*Token).fields, func(t *Token) string { return t.Name })
		},
		func(c *coder) {
			table(c, s.quotas, leastQuota, (*Quota).fields, func(q *Quota) string { return q.Owner })
		},
		func(c *coder) {
			list(c, &s.experiments, math.MaxInt32, leastExperiment, func(e **experiment) {
				if c.reading {
					*e = new(experiment)
				}
				(*e).fields(c)
			})
		},
		func(c *coder) { list(c, &s.deleted, keptDeleted, len(ID{}), c.id) },
	}
}

// identity is what there is once.
func (s *State) identity(c *coder) {
	c.u64(&s.index)
	c.u32(&s.feature)
	there := s.cluster != ClusterInit{}
	c.bool(&there)
	if there {
		s.cluster.fields(c)
	}
}

// table is a map, by its keys, which are in the values.
func table[V any](c *coder, m map[string]V, least int, fields func(*V, *coder), key func(*V) string) {
	values := sorted(m)
	list(c, &values, math.MaxInt32, least, func(v *V) { fields(v, c) })
	if !c.reading {
		return
	}
	for i := range values {
		if i > 0 && key(&values[i-1]) >= key(&values[i]) {
			c.fail("%q behind %q, want them in order, each once", key(&values[i]), key(&values[i-1]))
		}
		m[key(&values[i])] = values[i]
	}
}

func (e *experiment) fields(c *coder) {
	c.id(&e.ID)
	e.ExpCreate.fields(c)
	c.time(&e.Created)
	c.time(&e.Changed)
	c.u64(&e.Version)
	choice(c, &e.Desired, Run, Cancel)
	choice(c, &e.Phase, Queued, Degraded)
	c.text(&e.Message)
	c.u64(&e.Generation)
	c.holders(&e.Holders)
	c.from(&e.From)
	list(c, &e.Replicas, math.MaxInt32, leastReplica, func(r *Replica) { r.fields(c) })
	list(c, &e.Cuts, KeptCuts, leastCut, func(v *Cut) { v.fields(c) })
	optional(c, &e.Refused, func(v *Cut) { v.fields(c) })
	list(c, &e.Events, Kept, leastEvent, func(v *Event) { v.fields(c) })
}

func (r *Replica) fields(c *coder) {
	c.name(&r.Name)
	c.u64(&r.Token)
	c.u64(&r.Incarnation)
	c.text(&r.Device)
	c.text(&r.Platform)
	c.time(&r.Since)
}

func (v *Cut) fields(c *coder) {
	c.u64(&v.Generation)
	c.cut(&v.Step, &v.Manifest, &v.Parts, &v.Conservation)
	c.u64(&v.Index)
	c.time(&v.At)
}

func (v *Event) fields(c *coder) {
	c.u64(&v.Index)
	c.time(&v.At)
	c.text(&v.Kind)
	c.text(&v.Text)
}

// Snapshot is the state in its one encoding, which [Restore] reads: equal states give equal bytes. It holds the cluster's
// secret, and no blobs.
func (s *State) Snapshot() []byte {
	out := binary.LittleEndian.AppendUint32([]byte(snapshotMagic), snapshotVersion)
	for i, section := range s.sections() {
		from := len(out)
		out = binary.LittleEndian.AppendUint32(out, uint32(i+1))
		out = append(out, make([]byte, 8)...) // the length, when it is known
		c := &coder{b: out}
		section(c)
		if c.err != nil {
			panic(fmt.Errorf("ledger: snapshot: section %d holds what no entry can bring: %w", i+1, c.err))
		}
		out = c.b
		binary.LittleEndian.PutUint64(out[from+4:], uint64(len(out)-from-sectionHeadBytes))
		out = binary.LittleEndian.AppendUint32(out, crc32.Checksum(out[from:], castagnoli))
	}
	sum := sha256.Sum256(out)
	return append(out, sum[:]...)
}

// Digest is the SHA-256 of the snapshot: two nodes with the same one are in the same state.
func (s *State) Digest() Digest { return sha256.Sum256(s.Snapshot()) }

// Restore makes a state of a snapshot. It checks all of it first; what no [State.Snapshot] wrote is ErrInvalid, and
// ErrUnsupported where a later version of this package may have.
func Restore(data []byte) (*State, error) {
	s, err := restore(data)
	if err != nil {
		return nil, fmt.Errorf("ledger: restore: %w", err)
	}
	return s, nil
}

func restore(data []byte) (*State, error) {
	rest, found := bytes.CutPrefix(data, []byte(snapshotMagic))
	if !found || len(rest) < 4+sha256.Size {
		return nil, fmt.Errorf("%w: %d bytes that are no snapshot, want %q at the beginning", ErrInvalid, len(data), snapshotMagic)
	}
	if v := binary.LittleEndian.Uint32(rest); v > snapshotVersion {
		return nil, fmt.Errorf("%w: version %d, want at most %d", ErrUnsupported, v, snapshotVersion)
	} else if v == 0 {
		return nil, fmt.Errorf("%w: version 0, want 1 to %d", ErrInvalid, snapshotVersion)
	}
	rest = rest[4 : len(rest)-sha256.Size]
	s := New()
	var err error
	for i, section := range s.sections() {
		if rest, err = readSection(rest, i+1, section); err != nil {
			return nil, fmt.Errorf("section %d: %w", i+1, err)
		}
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%w: %d bytes behind the last section", ErrInvalid, len(rest))
	}
	// Last, so that damage is named by its section.
	if body, sum := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]; sha256.Sum256(body) != [sha256.Size]byte(sum) {
		return nil, fmt.Errorf("%w: the SHA-256 of it all is another", ErrInvalid)
	}
	if err := s.link(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return s, nil
}

// readSection reads a section off the front of b, by its number.
func readSection(b []byte, number int, section func(*coder)) (rest []byte, err error) {
	if len(b) < sectionHeadBytes+4 {
		return nil, fmt.Errorf("%w: %d bytes left, want at least %d", ErrInvalid, len(b), sectionHeadBytes+4)
	}
	if n := binary.LittleEndian.Uint32(b); n != uint32(number) {
		return nil, fmt.Errorf("%w: number %d", ErrInvalid, n)
	}
	length := binary.LittleEndian.Uint64(b[4:])
	if most := uint64(len(b) - sectionHeadBytes - 4); length > most {
		return nil, fmt.Errorf("%w: length %d, want at most %d", ErrInvalid, length, most)
	}
	end := sectionHeadBytes + int(length)
	if got, want := crc32.Checksum(b[:end], castagnoli), binary.LittleEndian.Uint32(b[end:]); got != want {
		return nil, fmt.Errorf("%w: checksum %08x, want %08x", ErrInvalid, got, want)
	}
	c := &coder{b: b[sectionHeadBytes:end], reading: true}
	section(c)
	return b[end+4:], c.end()
}
