package ledger

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits of fields. What is above them is refused before memory is taken for it.
const (
	MaxText   = 4 << 10 // bytes of a text, such as a path, an address or a message; see [Clip]
	maxName   = 128     // bytes of a name
	maxShards = 1 << 14 // of an experiment
	maxBytes  = 1 << 40 // of a blob
)

// A time is in milliseconds since 1970, of the years 1 to 9999: those that JSON can write.
const (
	firstMilli = -62135596800000 // the zero time
	lastMilli  = 253402300799999
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// coder goes over the fields of a value, which are little-endian and without padding, either way: it appends them to b, or
// takes them off the front of b. One list of fields serves both, so that what is written is what is read, and the same
// checks stand at both ends: every value has one encoding, and nothing else decodes. After an error, which stays and wraps
// ErrInvalid, nothing more is read.
type coder struct {
	b       []byte
	reading bool
	err     error
}

func (c *coder) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
	}
}

// want fails with the rest of the arguments unless ok. They are put on the heap either way: what is checked for every element
// of a list calls fail itself.
func (c *coder) want(ok bool, format string, args ...any) {
	if !ok {
		c.fail(format, args...)
	}
}

// take returns the next n bytes, nil if there are not so many.
func (c *coder) take(n int) []byte {
	if c.err == nil && n > len(c.b) {
		c.fail("%d bytes left, want %d", len(c.b), n)
	}
	if c.err != nil {
		return nil
	}
	field := c.b[:n]
	c.b = c.b[n:]
	return field
}

// number is an unsigned integer of size bytes.
func (c *coder) number(v uint64, size int) uint64 {
	if !c.reading {
		var field [8]byte
		binary.LittleEndian.PutUint64(field[:], v)
		c.b = append(c.b, field[:size]...)
		return v
	}
	var field [8]byte
	copy(field[:], c.take(size))
	return binary.LittleEndian.Uint64(field[:])
}

func (c *coder) u32(v *uint32) { *v = uint32(c.number(uint64(*v), 4)) }
func (c *coder) u64(v *uint64) { *v = c.number(*v, 8) }
func (c *coder) i32(v *int32)  { *v = int32(uint32(c.number(uint64(uint32(*v)), 4))) }
func (c *coder) i64(v *int64)  { *v = int64(c.number(uint64(*v), 8)) }

func (c *coder) bool(v *bool) {
	n := uint64(0)
	if *v {
		n = 1
	}
	n = c.number(n, 1)
	c.want(n <= 1, "%d for a truth value, want 0 or 1", n)
	*v = n == 1
}

// choice is one of the values least to most.
func choice[T ~uint8](c *coder, v *T, least, most T) {
	*v = T(c.number(uint64(*v), 1))
	if *v < least || *v > most {
		c.fail("%T %d, want %d to %d", *v, uint8(*v), uint8(least), uint8(most))
	}
}

func (c *coder) bytes32(v *[32]byte) { c.fixed(v[:]) }

func (c *coder) id(v *ID) { c.fixed(v[:]) }

func (c *coder) digest(v *Digest) { c.fixed(v[:]) }

func (c *coder) fixed(v []byte) {
	if c.reading {
		copy(v, c.take(len(v)))
	} else {
		c.b = append(c.b, v...)
	}
}

func (c *coder) duration(v *time.Duration) {
	*v = time.Duration(c.number(uint64(*v), 8))
	c.want(*v >= 0, "duration of %d ns, want 0 or more", int64(*v))
}

// time is cut to the millisecond and given back in UTC.
func (c *coder) time(v *time.Time) {
	milli := int64(c.number(uint64(v.UnixMilli()), 8))
	if milli < firstMilli || milli > lastMilli {
		c.fail("time of %d ms, want one of the years 1 to 9999", milli)
	}
	*v = time.UnixMilli(milli).UTC()
}

// blob is a length and that many bytes; nil where there are none.
func (c *coder) blob(v *[]byte, most int) {
	n := c.count(len(*v), most, 1)
	if !c.reading {
		c.b = append(c.b, *v...)
		return
	}
	*v = append([]byte(nil), c.take(n)...)
}

func (c *coder) text(v *string) { c.limited(v, MaxText) }

func (c *coder) limited(v *string, most int) {
	n := c.count(len(*v), most, 1)
	if c.reading {
		*v = string(c.take(n))
	} else {
		c.b = append(c.b, *v...)
	}
	if !utf8.ValidString(*v) {
		c.fail("text %q is not UTF-8", *v)
	}
}

// name is what stands in a path or in a subject.
func (c *coder) name(v *string) {
	c.limited(v, maxName)
	if !IsName(*v) {
		c.fail("name %q, want 1 to %d letters, digits, dots, dashes and underscores", *v, maxName)
	}
}

// IsName says whether s can be the name of something in the ledger: 1 to 128 letters, digits, dots, dashes and underscores.
func IsName(s string) bool {
	return len(s) >= 1 && len(s) <= maxName && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_')
	}) < 0
}

// Clip makes any string a text that fits a command: valid UTF-8 of at most [MaxText] bytes. What is too long loses its end.
func Clip(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= MaxText {
		return s
	}
	const more = "…"
	end := MaxText - len(more)
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + more
}

// count is the number of things that follow, each of at least size bytes: one above what can be there is refused, so that
// what a reader allocates is bounded by what it was given.
func (c *coder) count(n, most, size int) int {
	if !c.reading && n > math.MaxUint32 {
		n = math.MaxUint32 // above any limit
	}
	v := int(c.number(uint64(n), 4))
	if v > most {
		c.fail("%d bytes or elements, want at most %d", v, most)
	}
	if c.reading && c.err == nil && v > len(c.b)/size {
		c.fail("%d elements in %d bytes, want at least %d bytes each", v, len(c.b), size)
	}
	if c.err != nil {
		return 0
	}
	return v
}

// list is a count, at most most, and the elements, of at least size bytes each; nil where there are none.
func list[T any](c *coder, v *[]T, most, size int, element func(*T)) {
	n := c.count(len(*v), most, size)
	if c.reading {
		*v = slices.Grow([]T(nil), n)[:n]
	}
	for i := range *v {
		if c.err != nil {
			return
		}
		element(&(*v)[i])
	}
}

// optional is a truth value and, where it is true, what v points at.
func optional[T any](c *coder, v **T, value func(*T)) {
	there := *v != nil
	c.bool(&there)
	if c.reading && there {
		*v = new(T)
	}
	if there {
		value(*v)
	}
}

// end fails if anything is left.
func (c *coder) end() error {
	if c.reading {
		c.want(len(c.b) == 0, "%d bytes too many", len(c.b))
	}
	return c.err
}
