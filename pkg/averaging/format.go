package averaging

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
)

// scaleBlock is the number of int8 elements that share a scale.
const scaleBlock = 256

const (
	signBit     = 1 << 31
	infinity    = 0xff << 23       // bits of +Inf; those of a NaN without its sign are above
	nanScale    = infinity | 1<<22 // of a block with a number that is not finite
	least       = 0x1p-126         // the smallest normal float32
	roundToUnit = 3 << 22          // float32 numbers near 1.5·2²³ are one apart, and end in the bits of a small integer
)

// Vector is a vector of float32 numbers in a wire format:
//
//	fp32  4 bytes an element, little endian
//	bf16  its upper 2 bytes, rounded to nearest even; too large a number becomes ±Inf
//	int8  blocks of 256: a scale s (fp32), then one signed byte q an element, −127 to 127; the element is q·s
//
// The int8 scale is absmax/127 of its block, or 0 where that is no normal number. A block with a number that is not finite
// has the scale NaN, so that whoever decodes it sees as much. The zero value is no vector.
type Vector struct {
	format string
	n      int
	data   []byte
}

// Parse takes data as a vector of n elements. It keeps data.
func Parse(format string, n int, data []byte) (Vector, error) {
	if !slices.Contains(Formats, format) {
		return Vector{}, fmt.Errorf("averaging: vector: format: %q, want one of %s", format, strings.Join(Formats, ", "))
	}
	if n < 0 || n > math.MaxInt/8 {
		return Vector{}, fmt.Errorf("averaging: vector: %d elements, want 0 or more", n)
	}
	if want := Size(format, n); len(data) != want {
		return Vector{}, fmt.Errorf("averaging: vector: %d bytes, want %d for %d elements of %s", len(data), want, n, format)
	}
	if format == int8b256 {
		if err := checkBlocks(data); err != nil {
			return Vector{}, fmt.Errorf("averaging: vector: %w", err)
		}
	}
	return Vector{format, n, data}, nil
}

// Len is the number of elements.
func (v Vector) Len() int { return v.n }

// Format is one of [Formats].
func (v Vector) Format() string { return v.format }

// Bytes are the vector on the wire, without format and length. They must not be changed.
func (v Vector) Bytes() []byte { return v.data }

// Decode writes the elements to dst, [Len].
func (v Vector) Decode(dst []float32) {
	if len(dst) != v.n {
		panic(fmt.Sprintf("averaging: decode %d elements into %d", v.n, len(dst)))
	}
	v.read(dst, 0)
}

// Size is the number of bytes of a [Vector] of n elements in one of [Formats].
func Size(format string, n int) int {
	switch format {
	case bf16:
		return 2 * n
	case int8b256:
		return n + 4*((n+scaleBlock-1)/scaleBlock)
	}
	return 4 * n
}

// checkBlocks refuses int8 blocks that no encoder writes.
func checkBlocks(data []byte) error {
	for block := 0; len(data) > 0; block++ {
		u := binary.LittleEndian.Uint32(data)
		n := min(4+scaleBlock, len(data))
		q := data[4:n]
		data = data[n:]
		s := math.Float32frombits(u)
		switch {
		case u == nanScale || u == 0:
			if i := slices.IndexFunc(q, func(b byte) bool { return b != 0 }); i >= 0 {
				return fmt.Errorf("block %d: element %d is %d under the scale %g, want 0", block, i, int8(q[i]), s)
			}
		case !(s >= least) || u >= infinity:
			return fmt.Errorf("block %d: scale %g, want 0, a positive normal number, or NaN", block, s)
		default:
			if i := slices.Index(q, 0x80); i >= 0 {
				return fmt.Errorf("block %d: element %d is -128, want -127 to 127", block, i)
			}
		}
	}
	return nil
}

// read decodes the elements from on into buf; under int8 from is a multiple of scaleBlock.
func (v Vector) read(buf []float32, from int) []float32 {
	switch v.format {
	case fp32:
		data := v.data[4*from:]
		for i := range buf {
			buf[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
		}
	case bf16:
		data := v.data[2*from:]
		for i := range buf {
			buf[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(data[2*i:])) << 16)
		}
	case int8b256:
		data := v.data[Size(int8b256, from):]
		for out := buf; len(out) > 0; {
			n := min(scaleBlock, len(out))
			s := math.Float32frombits(binary.LittleEndian.Uint32(data))
			for i, q := range data[4 : 4+n] {
				out[i] = float32(int8(q)) * s
			}
			out, data = out[n:], data[4+n:]
		}
	}
	return buf
}

// Encoder brings the vectors of one sender into a wire format. Under int8 it feeds the error back: what rounding took
// from a vector, the residual, is added to the next one, so that over the rounds the decoded vectors add up to the given
// ones but for the last residual, at most half a step of each element (Seide et al. 2014; Karimireddy et al. 2019). bf16 has
// no residual: its error is a part of each element, 2⁻⁹ at most, so that no element stands still under a large neighbour.
type Encoder struct {
	format   string
	n        int
	residual []float32 // [n] under int8, else nil
}

// NewEncoder returns an encoder of vectors of n elements, with a residual of zeros.
func NewEncoder(format string, n int) (*Encoder, error) {
	if !slices.Contains(Formats, format) {
		return nil, fmt.Errorf("averaging: encoder: format: %q, want one of %s", format, strings.Join(Formats, ", "))
	}
	e := &Encoder{format: format, n: n}
	if format == int8b256 {
		e.residual = make([]float32, n)
	}
	return e, nil
}

// Encode returns x, [n], in the wire format. Numbers that are not finite stay so; under int8 all numbers of their block
// become NaN, and the residual of the block stays as it was.
func (e *Encoder) Encode(x []float32) Vector {
	if len(x) != e.n {
		panic(fmt.Sprintf("averaging: encode %d elements, want %d", len(x), e.n))
	}
	v := Vector{e.format, e.n, make([]byte, Size(e.format, e.n))}
	switch e.format {
	case fp32:
		for i, f := range x {
			binary.LittleEndian.PutUint32(v.data[4*i:], math.Float32bits(f))
		}
	case bf16:
		for i, f := range x {
			binary.LittleEndian.PutUint16(v.data[2*i:], toBF16(f))
		}
	case int8b256:
		data := v.data
		for from := 0; from < e.n; from += scaleBlock {
			to := min(from+scaleBlock, e.n)
			s := quantise(data[4:4+to-from], x[from:to], e.residual[from:to])
			binary.LittleEndian.PutUint32(data, math.Float32bits(s))
			data = data[4+to-from:]
		}
	}
	return v
}

// toBF16 rounds to the nearest bfloat16, to the even one of two that are equally near. A NaN stays one.
func toBF16(f float32) uint16 {
	u := math.Float32bits(f)
	if u&^signBit > infinity {
		return uint16(u>>16) | 1<<6 // the bits that are cut off may be all that made it a NaN
	}
	return uint16((u + 0x7fff + u>>16&1) >> 16)
}

// quantise writes round(y/s) of y = x + residual to q, all zeros before, and y − q·s to residual, and returns the scale s.
func quantise(q []byte, x, residual []float32) float32 {
	var top uint32 // the bits of the largest |y|: they are ordered as the numbers are, Inf and NaN last
	for i, f := range x {
		top = max(top, math.Float32bits(f+residual[i])&^signBit)
	}
	if top >= infinity {
		return math.Float32frombits(nanScale)
	}
	s := math.Float32frombits(top) / 127
	if s < least { // below normal numbers a scale has too few digits; the residual keeps all
		for i, f := range x {
			residual[i] += f
		}
		return 0
	}
	if 127*s > math.MaxFloat32 { // rounded up, next to the largest number: 127 steps would be infinite
		s = math.Nextafter32(s, 0)
	}
	inverse := 1 / s
	for i, f := range x {
		y := f + residual[i]
		k := int8(math.Float32bits(float32(y*inverse) + roundToUnit)) // the addition rounds to an integer, to even in a tie
		q[i] = byte(k)
		residual[i] = y - float32(float32(k)*s)
	}
	return s
}

// Residual returns a copy of what the receivers still miss, [n]; nil where the format keeps none. A cut holds it.
func (e *Encoder) Residual() []float32 { return slices.Clone(e.residual) }

// Restore replaces the residual by a copy; nil stands for zeros.
func (e *Encoder) Restore(residual []float32) error {
	if residual == nil {
		clear(e.residual)
		return nil
	}
	if len(residual) != len(e.residual) {
		return fmt.Errorf("averaging: restore: residual of %d elements, want %d under format: %s", len(residual), len(e.residual), e.format)
	}
	if i := slices.IndexFunc(residual, notFinite); i >= 0 {
		return fmt.Errorf("averaging: restore: residual %d is %g, want a finite number", i, residual[i])
	}
	copy(e.residual, residual)
	return nil
}

func notFinite(f float32) bool { return math.Float32bits(f)&^signBit >= infinity }
