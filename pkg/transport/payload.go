package transport

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"time"
	"unicode/utf8"
)

// Payloads are little-endian, field after field, without padding. Every value has one encoding: decoders refuse what they
// would not write, trailing bytes too, with ErrShort or ErrMalformed. Decoding allocates at most twice the input and 64 KiB.

// maxText is the largest text in a payload, in bytes.
const maxText = 1 << 10

// Offer says that a blob can be pulled: its size in bytes and its SHA-256.
type Offer struct {
	Bytes  uint64
	Digest [sha256.Size]byte
}

func (o Offer) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, o.Bytes)
	return append(dst, o.Digest[:]...)
}

// MemberState is what a replica is doing.
type MemberState uint8

const (
	Standby  MemberState = iota + 1 // registered, without shards
	Active                          // with shards
	Draining                        // leaving at the next cut
)

// Heartbeat renews a lease and tells how far a replica is. Its generation and θ version are in the header.
type Heartbeat struct {
	Token    uint64 // of the lease
	Step     uint64 // optimizer steps done
	StepTime time.Duration
	State    MemberState
}

// Append appends the encoded value to dst.
func (h Heartbeat) Append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, h.Token)
	dst = binary.LittleEndian.AppendUint64(dst, h.Step)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.StepTime))
	return append(dst, byte(h.State))
}

// DecodeHeartbeat reads what Heartbeat.Append wrote.
func DecodeHeartbeat(b []byte) (Heartbeat, error) {
	r := reader{b: b}
	h := Heartbeat{Token: r.u64(), Step: r.u64(), StepTime: r.duration(), State: MemberState(r.u8())}
	if r.err == nil && (h.State < Standby || h.State > Draining) {
		r.err = fmt.Errorf("%w: state %d, want %d to %d", ErrMalformed, h.State, Standby, Draining)
	}
	return decoded(h, &r, "HB")
}

// HeartbeatAck answers a heartbeat, with the present generation in the header.
type HeartbeatAck struct {
	Leader  string // name of the coordinator that leads
	Servers string // of messages, URLs separated by commas, see Conn.SetServers; empty: as they were
	Drain   bool   // the replica should leave at the next cut
}

// Append appends the encoded value to dst. Texts longer than 1 KiB are refused by the decoder.
func (a HeartbeatAck) Append(dst []byte) []byte {
	return appendBool(appendText(appendText(dst, a.Leader), a.Servers), a.Drain)
}

// DecodeHeartbeatAck reads what HeartbeatAck.Append wrote.
func DecodeHeartbeatAck(b []byte) (HeartbeatAck, error) {
	r := reader{b: b}
	a := HeartbeatAck{Leader: r.text(), Servers: r.text(), Drain: r.bool()}
	return decoded(a, &r, "HB_ACK")
}

// Register asks for a lease.
type Register struct {
	Replica     string
	Incarnation uint64 // drawn at every start: a second process of one name has another
	MaxShards   uint32
	Device      string // for people
	// Platform is all that the bits of the numbers hang on: plugin, instruction set, number of threads or GPU model. A
	// run takes replicas of one platform.
	Platform string
}

// Append appends the encoded value to dst. Texts longer than 1 KiB are refused by the decoder.
func (g Register) Append(dst []byte) []byte {
	dst = appendText(dst, g.Replica)
	dst = binary.LittleEndian.AppendUint64(dst, g.Incarnation)
	dst = binary.LittleEndian.AppendUint32(dst, g.MaxShards)
	return appendText(appendText(dst, g.Device), g.Platform)
}

// DecodeRegister reads what Register.Append wrote.
func DecodeRegister(b []byte) (Register, error) {
	r := reader{b: b}
	g := Register{Replica: r.text(), Incarnation: r.u64(), MaxShards: r.u32(), Device: r.text(), Platform: r.text()}
	return decoded(g, &r, "REGISTER")
}

// Grant is a lease.
type Grant struct {
	Token  uint64 // to be shown with every heartbeat
	TTL    time.Duration
	Leader string
	URL    string // reserved: empty; other versions expect it
}

// Append appends the encoded value to dst. Texts longer than 1 KiB are refused by the decoder.
func (g Grant) Append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, g.Token)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(g.TTL))
	return appendText(appendText(dst, g.Leader), g.URL)
}

// DecodeGrant reads what Grant.Append wrote.
func DecodeGrant(b []byte) (Grant, error) {
	r := reader{b: b}
	g := Grant{Token: r.u64(), TTL: r.duration(), Leader: r.text(), URL: r.text()}
	return decoded(g, &r, "GRANT")
}

// Leave gives a lease back: at the next cut where Draining, else at once.
type Leave struct {
	Token    uint64
	Draining bool
}

// Append appends the encoded value to dst.
func (l Leave) Append(dst []byte) []byte {
	return appendBool(binary.LittleEndian.AppendUint64(dst, l.Token), l.Draining)
}

// DecodeLeave reads what Leave.Append wrote.
func DecodeLeave(b []byte) (Leave, error) {
	r := reader{b: b}
	l := Leave{Token: r.u64(), Draining: r.bool()}
	return decoded(l, &r, "LEAVE")
}

// appendRemoteError appends the payload of TypeErr: the number of the refusal and the text, cut to what fits.
func appendRemoteError(dst []byte, err error) []byte {
	text := []rune(err.Error())
	for len(string(text)) > maxText {
		text = text[:len(text)*3/4]
	}
	return appendText(append(dst, byte(refusalOf(err))), string(text))
}

func decodeRemoteError(b []byte) (RemoteError, error) {
	r := reader{b: b}
	n := r.u8()
	e := RemoteError{Text: r.text()}
	if r.err == nil && int(n) >= len(refusals) {
		r.err = fmt.Errorf("%w: refusal %d, want one below %d", ErrMalformed, n, len(refusals))
	}
	if r.err == nil {
		e.Refusal = refusals[n].err
	}
	return decoded(e, &r, "ERR")
}

func appendText(dst []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint32(dst, uint32(len(s))), s...)
}

func appendBool(dst []byte, b bool) []byte {
	if b {
		return append(dst, 1)
	}
	return append(dst, 0)
}

// reader takes fields off the front of b. After an error, which stays, all fields are zero.
type reader struct {
	b   []byte
	err error
}

// zeros stands for fields that are not there.
var zeros [sha256.Size]byte

func (r *reader) take(n int) []byte {
	if r.err == nil && n > len(r.b) {
		r.err = fmt.Errorf("%w: %d bytes left, want %d", ErrShort, len(r.b), n)
	}
	if r.err != nil {
		return zeros[:min(n, len(zeros))]
	}
	field := r.b[:n:n]
	r.b = r.b[n:]
	return field
}

func (r *reader) u8() uint8   { return r.take(1)[0] }
func (r *reader) u32() uint32 { return binary.LittleEndian.Uint32(r.take(4)) }
func (r *reader) u64() uint64 { return binary.LittleEndian.Uint64(r.take(8)) }

func (r *reader) bool() bool {
	v := r.u8()
	if r.err == nil && v > 1 {
		r.err = fmt.Errorf("%w: %d for a truth value, want 0 or 1", ErrMalformed, v)
	}
	return v == 1
}

func (r *reader) duration() time.Duration {
	v := r.u64()
	if r.err == nil && v > math.MaxInt64 {
		r.err = fmt.Errorf("%w: duration of %d ns, want at most %d", ErrMalformed, v, int64(math.MaxInt64))
	}
	return time.Duration(v)
}

func (r *reader) text() string {
	n := r.u32()
	if r.err == nil && n > maxText {
		r.err = fmt.Errorf("%w: text of %d bytes, want at most %d", ErrMalformed, n, maxText)
	}
	if r.err != nil {
		return ""
	}
	s := r.take(int(n))
	if r.err != nil {
		return ""
	}
	if !utf8.Valid(s) {
		r.err = fmt.Errorf("%w: text is not UTF-8", ErrMalformed)
	}
	return string(s)
}

func (r *reader) offer() (o Offer) {
	o.Bytes = r.u64()
	copy(o.Digest[:], r.take(len(o.Digest)))
	return o
}

// decoded is v if all of the input was read without error.
func decoded[T any](v T, r *reader, what string) (T, error) {
	if r.err == nil && len(r.b) > 0 {
		r.err = fmt.Errorf("%w: %d bytes too many", ErrMalformed, len(r.b))
	}
	if r.err != nil {
		var zero T
		return zero, fmt.Errorf("%s: %w", what, r.err)
	}
	return v, nil
}
