package transport

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// Limits of a message, in bytes.
const (
	HeaderSize = 64
	MaxPayload = 256 << 10
	// MaxMessage is the size above which a message is refused before anything in it is read.
	MaxMessage = 300 << 10
)

const (
	magic   = "KLVN"
	version = 2
)

// Type says what a message is. The numbers between those below are reserved: docs/protocol.md.
type Type uint8

const (
	TypeGet          Type = 2  // asks for one chunk of a blob, payload its [Kind]
	TypeChunk        Type = 3  // answers TypeGet
	TypeHeartbeat    Type = 6  // payload [Heartbeat]
	TypeHeartbeatAck Type = 7  // answers TypeHeartbeat, payload [HeartbeatAck]
	TypeRegister     Type = 8  // payload [Register]
	TypeGrant        Type = 9  // answers TypeRegister, payload [Grant]
	TypeLeave        Type = 10 // payload [Leave]
	TypeStale        Type = 11 // answers a message of another generation; no payload, the generation is the answerer's
	TypeErr          Type = 12 // answers a request that was refused or that failed
	TypeCommand      Type = 13 // from the coordinator to a replica, and the replica's answer; the payload is theirs
	TypePut          Type = 14 // brings a blob that nobody has asked for yet, payload [Brought]; no answer
)

var typeNames = [...]string{
	TypeGet: "GET", TypeChunk: "CHUNK", TypeHeartbeat: "HB", TypeHeartbeatAck: "HB_ACK", TypeRegister: "REGISTER", TypeGrant: "GRANT",
	TypeLeave: "LEAVE", TypeStale: "STALE", TypeErr: "ERR", TypeCommand: "COMMAND", TypePut: "PUT",
}

// String is the name of the type in docs/protocol.md.
func (t Type) String() string {
	if t.known() {
		return typeNames[t]
	}
	return fmt.Sprintf("type %d", uint8(t))
}

func (t Type) known() bool { return int(t) < len(typeNames) && typeNames[t] != "" }

// Bound reports whether messages of the type belong to one generation and are refused in any other. The rest tells of
// generations, or of members that have none yet.
func (t Type) Bound() bool { return t == TypeGet || t == TypeChunk || t == TypePut }

// Header is what every message carries. Fields that a type does not use are zero.
type Header struct {
	Type       Type
	Experiment uint64 // a [Conn] fills it in
	Generation uint64
	Scan       uint64
	Shard      uint32 // whose data it is
	Peer       uint32 // the shard that it is for
	Theta      uint64 // optimizer steps behind the parameters that the sender uses
	Chunk      uint32 // of TypeGet and TypeChunk
	Chunks     uint32 // of TypeChunk: how many the blob has
}

// Message is a header with its payload, at most MaxPayload bytes.
type Message struct {
	Header
	Payload []byte
}

// Reply is the answer of a type to m: same generation, scan, shards and θ version.
func (m Message) Reply(t Type, payload []byte) Message {
	h := m.Header
	h.Type, h.Chunk, h.Chunks = t, 0, 0
	return Message{h, payload}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is CRC-32C over the message b with the field of the checksum itself, the last of the header, zero.
func checksum(b []byte) uint32 {
	crc := crc32.Update(0, castagnoli, b[:HeaderSize-4])
	crc = crc32.Update(crc, castagnoli, []byte{0, 0, 0, 0})
	return crc32.Update(crc, castagnoli, b[HeaderSize:])
}

// Append appends the encoded message to dst. The error is ErrTooLarge or ErrMalformed: what Decode would refuse is not sent.
func (m Message) Append(dst []byte) ([]byte, error) { return m.append(dst, m.Payload) }

// append is Append of a message whose payload is in parts.
func (h Header) append(dst []byte, parts ...[]byte) ([]byte, error) {
	size := 0
	for _, part := range parts {
		size += len(part)
	}
	if size > MaxPayload {
		return dst, fmt.Errorf("%w: payload of %d bytes, want at most %d", ErrTooLarge, size, MaxPayload)
	}
	if err := h.check(); err != nil {
		return dst, err
	}
	start := len(dst)
	le := binary.LittleEndian
	dst = append(dst, magic...)
	dst = append(dst, version, byte(h.Type), 0, 0) // no flags
	dst = le.AppendUint64(dst, h.Experiment)
	dst = le.AppendUint64(dst, h.Generation)
	dst = le.AppendUint64(dst, h.Scan)
	dst = le.AppendUint32(dst, h.Shard)
	dst = le.AppendUint32(dst, h.Peer)
	dst = le.AppendUint64(dst, h.Theta)
	dst = le.AppendUint32(dst, h.Chunk)
	dst = le.AppendUint32(dst, h.Chunks)
	dst = le.AppendUint32(dst, uint32(size))
	dst = le.AppendUint32(dst, 0)
	for _, part := range parts {
		dst = append(dst, part...)
	}
	le.PutUint32(dst[start+HeaderSize-4:], checksum(dst[start:]))
	return dst, nil
}

// Decode reads a message; its payload is a part of b. The errors are ErrTooLarge, ErrShort, ErrMagic, ErrVersion,
// ErrChecksum and ErrMalformed, in the order of the checks: nothing but the version is read before the checksum is right.
// Every message has one encoding: a decoded message encodes to b.
func Decode(b []byte) (Message, error) {
	switch {
	case len(b) > MaxMessage:
		return Message{}, fmt.Errorf("%w: %d bytes, want at most %d", ErrTooLarge, len(b), MaxMessage)
	case len(b) < HeaderSize:
		return Message{}, fmt.Errorf("%w: %d bytes, want at least the %d of the header", ErrShort, len(b), HeaderSize)
	case string(b[:4]) != magic:
		return Message{}, fmt.Errorf("%w: starts with %q, want %q", ErrMagic, b[:4], magic)
	case b[4] != version:
		return Message{}, fmt.Errorf("%w: %d, want %d", ErrVersion, b[4], version)
	}
	le := binary.LittleEndian
	if got, want := checksum(b), le.Uint32(b[60:]); got != want {
		return Message{}, fmt.Errorf("%w: %08x, want %08x", ErrChecksum, got, want)
	}
	switch have, size := len(b)-HeaderSize, le.Uint32(b[56:]); {
	case size > MaxPayload:
		return Message{}, fmt.Errorf("%w: payload of %d bytes, want at most %d", ErrTooLarge, size, MaxPayload)
	case have != int(size):
		return Message{}, fmt.Errorf("%w: %d bytes of payload, want %d", ErrMalformed, have, size)
	}
	m := Message{
		Header: Header{
			Type:       Type(b[5]),
			Experiment: le.Uint64(b[8:]),
			Generation: le.Uint64(b[16:]),
			Scan:       le.Uint64(b[24:]),
			Shard:      le.Uint32(b[32:]),
			Peer:       le.Uint32(b[36:]),
			Theta:      le.Uint64(b[40:]),
			Chunk:      le.Uint32(b[48:]),
			Chunks:     le.Uint32(b[52:]),
		},
		Payload: b[HeaderSize:len(b):len(b)],
	}
	if flags := le.Uint16(b[6:]); flags != 0 {
		return Message{}, fmt.Errorf("%w: flags %#x, want none in version %d", ErrMalformed, flags, version)
	}
	return m, m.check()
}

// check verifies what does not depend on the payload.
func (h Header) check() error {
	switch {
	case !h.Type.known():
		return fmt.Errorf("%w: %s, want a known one", ErrMalformed, h.Type)
	case h.Type == TypeChunk && h.Chunk >= h.Chunks:
		return fmt.Errorf("%w: chunk %d of %d", ErrMalformed, h.Chunk, h.Chunks)
	case h.Type != TypeChunk && h.Chunks != 0, h.Type != TypeChunk && h.Type != TypeGet && h.Chunk != 0:
		return fmt.Errorf("%w: %s with chunk %d of %d, want none", ErrMalformed, h.Type, h.Chunk, h.Chunks)
	}
	return nil
}
