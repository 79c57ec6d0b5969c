package ledger

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"math/bits"
	"strings"
)

// version is that of the envelope and of all bodies: ver u8, kind u8, flags u16 (zero), exp [16]byte, at i64 in milliseconds,
// the body, CRC-32C u32 of all before it.
const version = 1

const (
	headBytes = 1 + 1 + 2 + 16 + 8
	tailBytes = 4
)

// kind numbers the commands; a number is never used again. From kindExpCreate on they are about one experiment.
type kind uint8

const (
	kindNoop kind = iota + 1
	kindClusterInit
	kindNodePut
	kindNodeDelete
	kindFeatureLevel
	kindTokenPut
	kindTokenRevoke
	kindQuotaPut
	kindTokenCreate
	kindTokenUse
)

const (
	kindExpCreate kind = iota + 32
	kindExpSet
	kindExpPhase
	kindExpDelete
	kindRegister
	kindLeaseEnd
	kindGenerationOpen
	kindCutCommit
	kindExpRespec
	kindCutReplace
)

func (Noop) kind() kind           { return kindNoop }
func (ClusterInit) kind() kind    { return kindClusterInit }
func (NodePut) kind() kind        { return kindNodePut }
func (NodeDelete) kind() kind     { return kindNodeDelete }
func (FeatureLevel) kind() kind   { return kindFeatureLevel }
func (TokenPut) kind() kind       { return kindTokenPut }
func (TokenRevoke) kind() kind    { return kindTokenRevoke }
func (QuotaPut) kind() kind       { return kindQuotaPut }
func (TokenCreate) kind() kind    { return kindTokenCreate }
func (TokenUse) kind() kind       { return kindTokenUse }
func (ExpCreate) kind() kind      { return kindExpCreate }
func (ExpSet) kind() kind         { return kindExpSet }
func (ExpPhase) kind() kind       { return kindExpPhase }
func (ExpDelete) kind() kind      { return kindExpDelete }
func (Register) kind() kind       { return kindRegister }
func (LeaseEnd) kind() kind       { return kindLeaseEnd }
func (GenerationOpen) kind() kind { return kindGenerationOpen }
func (CutCommit) kind() kind      { return kindCutCommit }
func (ExpRespec) kind() kind      { return kindExpRespec }
func (CutReplace) kind() kind     { return kindCutReplace }

// Encode is the entry's one encoding, which [Decode] reads. What does not fit it, an entry of more than [MaxEntry] bytes too,
// is ErrInvalid. Entry.At is cut to the millisecond.
func Encode(e Entry) ([]byte, error) {
	if e.Command == nil {
		return nil, fmt.Errorf("ledger: encode: %w: no command", ErrInvalid)
	}
	k := e.Command.kind()
	c := &coder{}
	c.number(version, 1)
	c.number(uint64(k), 1)
	c.number(0, 2)
	e.head(c, k)
	c.command(k, e.Command)
	if size := len(c.b) + tailBytes; size > MaxEntry {
		c.fail("%d bytes, want at most %d", size, MaxEntry)
	}
	if c.err != nil {
		return nil, fmt.Errorf("ledger: encode %T: %w", e.Command, c.err)
	}
	return binary.LittleEndian.AppendUint32(c.b, crc32.Checksum(c.b, castagnoli)), nil
}

// Decode reads what Encode wrote. Anything else is ErrInvalid, or, where a later version of this package may have written it,
// ErrUnsupported. The entry shares no memory with data.
func Decode(data []byte) (Entry, error) {
	e, err := decode(data)
	if err != nil {
		return Entry{}, fmt.Errorf("ledger: decode: %w", err)
	}
	return e, nil
}

func decode(data []byte) (Entry, error) {
	if len(data) < headBytes+tailBytes || len(data) > MaxEntry {
		return Entry{}, fmt.Errorf("%w: %d bytes, want %d to %d", ErrInvalid, len(data), headBytes+tailBytes, MaxEntry)
	}
	all, tail := data[:len(data)-tailBytes], data[len(data)-tailBytes:]
	if got, want := crc32.Checksum(all, castagnoli), binary.LittleEndian.Uint32(tail); got != want {
		return Entry{}, fmt.Errorf("%w: checksum %08x, want %08x", ErrInvalid, got, want)
	}
	c := &coder{b: all, reading: true}
	ver, k, flags := c.number(0, 1), kind(c.number(0, 1)), c.number(0, 2)
	if ver == 0 {
		return Entry{}, fmt.Errorf("%w: version 0, want 1 to %d", ErrInvalid, version)
	}
	if ver > version || flags != 0 {
		return Entry{}, fmt.Errorf("%w: version %d with flags %#x, want at most %d without", ErrUnsupported, ver, flags, version)
	}
	var e Entry
	e.head(c, k)
	e.Command = c.command(k, nil)
	if c.err == nil && e.Command == nil {
		return Entry{}, fmt.Errorf("%w: command %d", ErrUnsupported, k)
	}
	return e, c.end()
}

// head is what follows version, kind and flags.
func (e *Entry) head(c *coder, k kind) {
	c.id(&e.Exp)
	c.time(&e.At)
	if known := (k >= kindNoop && k <= kindTokenUse) || (k >= kindExpCreate && k <= kindCutReplace); known {
		c.want((e.Exp == ID{}) == (k < kindExpCreate), "experiment %s, want one for commands about an experiment, zero for others", e.Exp)
	}
}

// command is the body of a command of kind k: of cmd when writing, of the one that is returned when reading. It is nil for a
// kind that is not known.
func (c *coder) command(k kind, cmd Command) Command {
	switch k {
	case kindNoop:
		return body(c, cmd, func(*Noop, *coder) {})
	case kindClusterInit:
		return body(c, cmd, (*ClusterInit).fields)
	case kindNodePut:
		return body(c, cmd, (*NodePut).fields)
	case kindNodeDelete:
		return body(c, cmd, (*NodeDelete).fields)
	case kindFeatureLevel:
		return body(c, cmd, (*FeatureLevel).fields)
	case kindTokenPut:
		return body(c, cmd, (*TokenPut).fields)
	case kindTokenRevoke:
		return body(c, cmd, (*TokenRevoke).fields)
	case kindQuotaPut:
		return body(c, cmd, (*QuotaPut).fields)
	case kindTokenCreate:
		return body(c, cmd, (*TokenCreate).fields)
	case kindTokenUse:
		return body(c, cmd, (*TokenUse).fields)
	case kindExpCreate:
		return body(c, cmd, (*ExpCreate).fields)
	case kindExpSet:
		return body(c, cmd, (*ExpSet).fields)
	case kindExpPhase:
		return body(c, cmd, (*ExpPhase).fields)
	case kindExpDelete:
		return body(c, cmd, (*ExpDelete).fields)
	case kindRegister:
		return body(c, cmd, (*Register).fields)
	case kindLeaseEnd:
		return body(c, cmd, (*LeaseEnd).fields)
	case kindGenerationOpen:
		return body(c, cmd, (*GenerationOpen).fields)
	case kindCutCommit:
		return body(c, cmd, (*CutCommit).fields)
	case kindExpRespec:
		return body(c, cmd, (*ExpRespec).fields)
	case kindCutReplace:
		return body(c, cmd, (*CutReplace).fields)
	}
	return nil
}

func body[T Command](c *coder, cmd Command, fields func(*T, *coder)) Command {
	v, ok := cmd.(T)
	c.want(ok || c.reading, "command %T, want %T", cmd, v)
	fields(&v, c)
	return v
}

func (v *ClusterInit) fields(c *coder) {
	c.id(&v.Cluster)
	c.bytes32(&v.Secret)
	c.want(v.Cluster != ID{}, "cluster without an id")
}

func (v *NodePut) fields(c *coder) {
	(*Node)(v).fields(c)
}

func (v *Node) fields(c *coder) {
	c.name(&v.Name)
	c.text(&v.Peer)
	c.text(&v.API)
	c.text(&v.NATS)
	c.u32(&v.Feature)
}

func (v *NodeDelete) fields(c *coder) { c.name(&v.Name) }

func (v *FeatureLevel) fields(c *coder) { c.u32(&v.Level) }

func (v *TokenPut) fields(c *coder) { v.Token.fields(c) }

func (v *Token) fields(c *coder) {
	c.name(&v.Name)
	c.digest(&v.Hash)
	choice(c, &v.Scope, Read, Join)
	c.text(&v.Owner)
	c.text(&v.Experiments)
	prefix := strings.TrimSuffix(v.Experiments, "*")
	c.want(prefix == "" || IsName(prefix), "experiments %q, want a name, or a prefix with * at the end", v.Experiments)
	c.time(&v.Expires)
	c.u32(&v.Uses)
	c.want(v.Uses == 0 || v.Scope == Join, "%d uses, want 0 but for a join token", v.Uses)
}

func (v *TokenCreate) fields(c *coder) { v.Token.fields(c) }

func (v *TokenUse) fields(c *coder) {
	c.name(&v.Name)
	c.digest(&v.Hash)
	c.u32(&v.Left)
	c.want(v.Left < Spent-1, "%d uses left, want at most %d", v.Left, uint32(Spent-2))
}

func (v *TokenRevoke) fields(c *coder) { c.name(&v.Name) }

func (v *QuotaPut) fields(c *coder) { v.Quota.fields(c) }

func (v *Quota) fields(c *coder) {
	c.text(&v.Owner)
	c.u32(&v.Experiments)
	c.u32(&v.Replicas)
	c.u64(&v.Bytes)
}

func (v *ExpCreate) fields(c *coder) {
	c.name(&v.Name)
	c.text(&v.Owner)
	c.blob(&v.Spec, MaxSpec)
	c.text(&v.Dir)
	c.u64(&v.Steps)
	c.u32(&v.Shards)
	c.u32(&v.Want)
	c.u32(&v.Min)
	c.i32(&v.Priority)
	c.duration(&v.CutEvery)
	c.shards(v.Shards)
	c.want(v.Min <= v.Wanted(), "%d replicas to begin with, want at most %d", v.Min, v.Wanted())
}

func (c *coder) shards(n uint32) {
	c.want(n >= 1 && n <= maxShards, "%d shards, want 1 to %d", n, maxShards)
}

// Wanted is the number of replicas that it takes at most.
func (v ExpCreate) Wanted() uint32 {
	if v.Want == 0 {
		return v.Shards
	}
	return v.Want
}

func (v *ExpSet) fields(c *coder) {
	c.u64(&v.Version)
	choice(c, &v.Desired, 0, Cancel)
	optional(c, &v.Want, c.u32)
	optional(c, &v.Priority, c.i32)
}

func (v *ExpPhase) fields(c *coder) {
	choice(c, &v.Phase, Queued, Degraded)
	c.text(&v.Message)
}

func (v *ExpDelete) fields(c *coder) { c.u64(&v.Version) }

func (v *Register) fields(c *coder) {
	c.name(&v.Replica)
	c.u64(&v.Incarnation)
	c.text(&v.Device)
	c.text(&v.Platform)
	c.bool(&v.Takeover)
}

func (v *LeaseEnd) fields(c *coder) {
	c.name(&v.Replica)
	c.u64(&v.Token)
	c.bool(&v.Lost)
}

func (v *GenerationOpen) fields(c *coder) {
	c.u64(&v.Number)
	c.holders(&v.Holders)
	c.from(&v.From)
	c.want(v.Number > 0, "generation 0, want 1 or more")
}

func (c *coder) holders(v *[]string) {
	list(c, v, maxShards, 5, c.name)
}

func (c *coder) from(v *int64) {
	c.i64(v)
	c.want(*v >= Start, "start at step %d, want one of 0 or more, or %d for the very beginning", *v, Start)
}

func (v *CutCommit) fields(c *coder) {
	c.u64(&v.Generation)
	c.cut(&v.Step, &v.Manifest, &v.Parts, &v.Conservation)
	c.bool(&v.Replace)
}

func (v *ExpRespec) fields(c *coder) {
	c.u64(&v.Version)
	c.blob(&v.Spec, MaxSpec)
	c.u32(&v.Shards)
	c.shards(v.Shards)
	c.cut(&v.Step, &v.Manifest, &v.Parts, &v.Conservation)
}

func (v *CutReplace) fields(c *coder) {
	c.u64(&v.Version)
	other := len(v.Parts) > 0
	c.bool(&other)
	if other {
		c.cut(&v.Step, &v.Manifest, &v.Parts, &v.Conservation)
		return
	}
	c.step(&v.Step)
	c.want(v.Manifest == Digest{} && v.Conservation == Conservation{}, "manifest %s of a cut without parts", v.Manifest)
}

func (c *coder) step(v *uint64) {
	c.u64(v)
	c.want(*v <= math.MaxInt64, "step %d, want at most %d", *v, int64(math.MaxInt64))
}

// cut is what a cut in the state has of its command.
func (c *coder) cut(step *uint64, manifest *Digest, parts *[]Part, sum *Conservation) {
	c.step(step)
	c.digest(manifest)
	list(c, parts, MaxParts, 5+32+8, func(p *Part) { p.fields(c) })
	sum.fields(c)
	c.want(len(*parts) > 0, "cut without parts")
	for i := 1; i < len(*parts); i++ {
		if before, p := (*parts)[i-1].Name, (*parts)[i].Name; before >= p {
			c.fail("part %q behind %q, want them by name, each once", p, before)
		}
	}
}

func (v *Part) fields(c *coder) {
	c.name(&v.Name)
	c.digest(&v.Digest)
	c.u64(&v.Bytes)
	if v.Bytes > maxBytes {
		c.fail("part %s of %d bytes, want at most %d", v.Name, v.Bytes, int64(maxBytes))
	}
}

func (v *Conservation) fields(c *coder) {
	c.u64(&v.Ladders)
	c.u64(&v.Rungs)
	c.u64(&v.Labels)
	c.u64(&v.Created)
	c.u64(&v.Retired)
	c.u64(&v.Live)
}

// broken says which law does not hold, "" if all do.
func (v Conservation) broken() string {
	if over, labels := bits.Mul64(v.Ladders, v.Rungs); over != 0 || labels != v.Labels {
		return fmt.Sprintf("%d labels are there once, want one at each of %d rungs of %d ladders", v.Labels, v.Rungs, v.Ladders)
	}
	if v.Retired > v.Created || v.Created-v.Retired != v.Live {
		return fmt.Sprintf("%d walkers live, want the %d that were created without the %d that retired", v.Live, v.Created, v.Retired)
	}
	return ""
}
