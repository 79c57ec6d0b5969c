package transport

import (
	"encoding/binary"
	"fmt"
	"math"
)

// DType is the type of the elements of a Tensor.
type DType uint8

const (
	Float32 DType = iota + 1
	Float64
	BFloat16
	Int8
	Uint8
	Int32
	Uint64
)

var dtypeSizes = [...]int{Float32: 4, Float64: 8, BFloat16: 2, Int8: 1, Uint8: 1, Int32: 4, Uint64: 8}

// Size is the number of bytes of an element, 0 of an unknown type.
func (d DType) Size() int {
	if int(d) < len(dtypeSizes) {
		return dtypeSizes[d]
	}
	return 0
}

// Limits of tensors.
const (
	maxRank    = 8
	maxTensors = 256 // of a list
)

// Tensor is an array as it travels: elements little-endian, the last axis fastest. An axis may be empty.
type Tensor struct {
	DType DType
	Dims  []int
	Data  []byte
}

// Number are the Go types that Tensors are made from and read as.
type Number interface {
	float32 | float64 | int8 | uint8 | int32 | uint64
}

func dtypeOf[T Number]() DType {
	switch any(*new(T)).(type) {
	case float32:
		return Float32
	case float64:
		return Float64
	case int8:
		return Int8
	case uint8:
		return Uint8
	case int32:
		return Int32
	default:
		return Uint64
	}
}

// NewTensor returns a copy of v as a tensor of the given shape, [len(v)] without one. It panics if they do not fit.
func NewTensor[T Number](v []T, dims ...int) Tensor {
	if len(dims) == 0 {
		dims = []int{len(v)}
	}
	t := Tensor{DType: dtypeOf[T](), Dims: dims}
	t.Data = make([]byte, 0, len(v)*t.DType.Size())
	if n, ok := elements(dims); !ok || n != len(v) {
		panic(fmt.Sprintf("transport: %d elements for a tensor of shape %v", len(v), dims))
	}
	t.Data, _ = binary.Append(t.Data, binary.LittleEndian, v)
	return t
}

// Values returns a copy of the elements of t, or an error if they are of another type.
func Values[T Number](t Tensor) ([]T, error) {
	if want := dtypeOf[T](); t.DType != want {
		return nil, fmt.Errorf("%w: tensor of type %d, want %d", ErrMalformed, t.DType, want)
	}
	v := make([]T, len(t.Data)/t.DType.Size())
	_, err := binary.Decode(t.Data, binary.LittleEndian, v)
	return v, err
}

// elements is the product of dims, if none is negative and the product fits an int32, whatever the order of the factors.
func elements(dims []int) (int, bool) {
	n, empty := int64(1), false
	for _, d := range dims {
		if d < 0 || d > math.MaxInt32 {
			return 0, false
		}
		if d == 0 {
			empty = true
			continue
		}
		if n *= int64(d); n > math.MaxInt32 {
			return 0, false
		}
	}
	if empty {
		n = 0
	}
	return int(n), true
}

// append appends dtype, rank, dims and the elements.
func (t Tensor) append(dst []byte) []byte {
	dst = append(dst, byte(t.DType), byte(len(t.Dims)))
	for _, d := range t.Dims {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(d))
	}
	return append(dst, t.Data...)
}

// size is the number of bytes that append appends.
func (t Tensor) size() int { return 2 + 4*len(t.Dims) + len(t.Data) }

// tensor reads one tensor; its data are a part of the input.
func (r *reader) tensor() Tensor {
	t := Tensor{DType: DType(r.u8())}
	rank := int(r.u8())
	if r.err == nil && (t.DType.Size() == 0 || rank > maxRank) {
		r.err = fmt.Errorf("%w: tensor of type %d and rank %d, want a known type and at most %d axes", ErrMalformed, t.DType, rank, maxRank)
	}
	if r.err != nil {
		return Tensor{}
	}
	t.Dims = make([]int, rank)
	for i := range t.Dims {
		t.Dims[i] = int(r.u32())
	}
	if r.err != nil {
		return Tensor{}
	}
	n, ok := elements(t.Dims)
	if !ok {
		r.err = fmt.Errorf("%w: tensor of shape %v, want at most %d elements", ErrMalformed, t.Dims, math.MaxInt32)
		return Tensor{}
	}
	if size := int64(n) * int64(t.DType.Size()); size > int64(len(r.b)) {
		r.err = fmt.Errorf("%w: %d bytes left, want %d for a tensor of shape %v", ErrShort, len(r.b), size, t.Dims)
		return Tensor{}
	}
	t.Data = r.take(n * t.DType.Size())
	return t
}

// tensors reads a list of tensors up to the end of the input.
func (r *reader) tensors() []Tensor {
	var list []Tensor
	for r.err == nil && len(r.b) > 0 {
		if len(list) == maxTensors {
			r.err = fmt.Errorf("%w: more than %d tensors", ErrMalformed, maxTensors)
			return nil
		}
		list = append(list, r.tensor())
	}
	return list
}

// vector reads a tensor [n] of float64.
func (r *reader) vector(name string) []float64 {
	t := r.tensor()
	if r.err == nil && (t.DType != Float64 || len(t.Dims) != 1) {
		r.err = fmt.Errorf("%w: %s of type %d and shape %v, want a vector of type %d", ErrMalformed, name, t.DType, t.Dims, Float64)
	}
	if r.err != nil {
		return nil
	}
	v, err := Values[float64](t)
	r.err = err
	return v
}

func appendTensors(dst []byte, list []Tensor) []byte {
	for _, t := range list {
		dst = t.append(dst)
	}
	return dst
}

func tensorsSize(list []Tensor) (n int) {
	for _, t := range list {
		n += t.size()
	}
	return n
}
