// Package checkpoint writes arrays and whole training states to disk so that they are there in full or not at all, and
// says what is wrong with a file that is damaged. Arrays are in the safetensors format, which Python reads too; a cut
// is a folder of such files with a manifest that holds their hashes.
//
//	err := checkpoint.WriteSafetensors("params.safetensors", []checkpoint.Tensor{{Name: "theta", Shape: []int{n}, Data: theta}}, nil)
//	tensors, _, err := checkpoint.ReadSafetensors("params.safetensors")
//	theta, err := checkpoint.Values[float32](tensors, "theta", -1)
//
//	store := checkpoint.Store{Dir: "runs/two-moons/cuts", Keep: 3}
//	digest, err := store.Save(checkpoint.Cut{Step: 300, Files: files, Meta: meta})
//	cut, skipped, err := store.LatestGood()
package checkpoint

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/kelvin-ebm/kelvin/pkg/internal/atomicfile"
)

// Tensor is a named array, row-major. Data is a slice of an [Element]; an empty Shape is a scalar, one number.
type Tensor struct {
	Name  string
	Shape []int
	Data  any
}

// Element are the types that a tensor may hold; in the file F64, F32, I64 … I8, U64 … U8 and BOOL.
type Element interface {
	float64 | float32 | int64 | int32 | int16 | int8 | uint64 | uint32 | uint16 | uint8 | bool
}

const (
	maxHeader   = 100_000_000 // bytes; the limit of the format's own library
	chunkBytes  = 1 << 16
	metadataKey = "__metadata__"
)

// kind is what the format knows about an element type.
type kind struct {
	dtype string
	size  int64 // bytes an element
	count func(data any) (n int64, ok bool)
	write func(w io.Writer, data any) error
	read  func(r io.Reader, n int64) (any, error)
}

var kinds = []kind{
	kindOf[float64]("F64"), kindOf[float32]("F32"),
	kindOf[int64]("I64"), kindOf[int32]("I32"), kindOf[int16]("I16"), kindOf[int8]("I8"),
	kindOf[uint64]("U64"), kindOf[uint32]("U32"), kindOf[uint16]("U16"), kindOf[uint8]("U8"), kindOf[bool]("BOOL"),
}

func kindOf[T Element](dtype string) kind {
	var zero T
	size := binary.Size(zero)
	step := chunkBytes / size
	return kind{
		dtype: dtype,
		size:  int64(size),
		count: func(data any) (int64, bool) {
			values, ok := data.([]T)
			return int64(len(values)), ok
		},
		write: func(w io.Writer, data any) error {
			values := data.([]T)
			buf := make([]byte, 0, min(len(values)*size, chunkBytes))
			for part := range slices.Chunk(values, step) {
				var err error
				if buf, err = binary.Append(buf[:0], binary.LittleEndian, part); err != nil {
					return err
				}
				if _, err := w.Write(buf); err != nil {
					return err
				}
			}
			return nil
		},
		read: func(r io.Reader, n int64) (any, error) {
			values := make([]T, n)
			buf := make([]byte, min(len(values)*size, chunkBytes))
			for part := range slices.Chunk(values, step) {
				raw := buf[:len(part)*size]
				if _, err := io.ReadFull(r, raw); err != nil {
					return nil, err
				}
				if dtype == "BOOL" {
					if i := slices.IndexFunc(raw, func(b byte) bool { return b > 1 }); i >= 0 {
						return nil, fmt.Errorf("byte %d as a truth value, want 0 or 1", raw[i])
					}
				}
				if _, err := binary.Decode(raw, binary.LittleEndian, part); err != nil {
					return nil, err
				}
			}
			return values, nil
		},
	}
}

// DType is the format's name of the element type, or "" for Data that cannot be written.
func (t Tensor) DType() string {
	for _, k := range kinds {
		if _, ok := k.count(t.Data); ok {
			return k.dtype
		}
	}
	return ""
}

func (t Tensor) kind() (kind, int64, error) {
	for _, k := range kinds {
		if n, ok := k.count(t.Data); ok {
			return k, n, nil
		}
	}
	return kind{}, 0, fmt.Errorf("tensor %q: data of type %T, want a slice of numbers or bool", t.Name, t.Data)
}

// elements multiplies a shape out.
func elements(shape []int) (int64, error) {
	n := int64(1)
	for _, d := range shape {
		if d < 0 || d > 0 && n > math.MaxInt64/8/int64(d) {
			return 0, fmt.Errorf("shape %v, want sizes of 0 or more that can be addressed", shape)
		}
		n *= int64(d)
	}
	return n, nil
}

// Values returns the data of a tensor by its name, and checks its type and its shape; −1 in shape fits any size.
func Values[T Element](tensors []Tensor, name string, shape ...int) ([]T, error) {
	i := slices.IndexFunc(tensors, func(t Tensor) bool { return t.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("tensor %q is missing", name)
	}
	t := tensors[i]
	values, ok := t.Data.([]T)
	fits := len(t.Shape) == len(shape)
	for axis := 0; fits && axis < len(shape); axis++ {
		fits = shape[axis] == -1 || shape[axis] == t.Shape[axis]
	}
	if !ok || !fits {
		return nil, fmt.Errorf("tensor %q: %s %v, want %s %v", name, t.DType(), t.Shape, Tensor{Data: []T{}}.DType(), shape)
	}
	return values, nil
}

// entry is the format's header line of one tensor.
type entry struct {
	DType   string  `json:"dtype"`
	Shape   []int   `json:"shape"`
	Offsets []int64 `json:"data_offsets"`
}

// WriteSafetensors writes tensors and metadata to path, in full or not at all. Equal content gives equal bytes, in
// whatever order the tensors come.
func WriteSafetensors(path string, tensors []Tensor, metadata map[string]string) error {
	return atomicfile.Write(path, 0o644, func(w io.Writer) error { return EncodeSafetensors(w, tensors, metadata) })
}

// EncodeSafetensors writes the file's content to w, in pieces: large arrays are not copied.
func EncodeSafetensors(w io.Writer, tensors []Tensor, metadata map[string]string) error {
	header, order, err := layout(tensors, metadata)
	if err != nil {
		return err
	}
	if _, err := w.Write(header); err != nil {
		return err
	}
	for _, t := range order {
		k, _, err := t.kind()
		if err != nil {
			return err
		}
		if err := k.write(w, t.Data); err != nil {
			return err
		}
	}
	return nil
}

// layout puts wide elements first, so that every array is aligned, and renders the header.
func layout(tensors []Tensor, metadata map[string]string) (header []byte, order []Tensor, err error) {
	type item struct {
		t     Tensor
		k     kind
		bytes int64
	}
	var items []item
	names := map[string]bool{}
	for _, t := range tensors {
		k, n, err := t.kind()
		if err != nil {
			return nil, nil, err
		}
		want, err := elements(t.Shape)
		switch {
		case err != nil:
			return nil, nil, fmt.Errorf("tensor %q: %w", t.Name, err)
		case n != want:
			return nil, nil, fmt.Errorf("tensor %q: %d values in shape %v, want %d", t.Name, n, t.Shape, want)
		case names[t.Name] || t.Name == metadataKey || !utf8.ValidString(t.Name):
			return nil, nil, fmt.Errorf("tensor %q: want a name of its own, valid UTF-8 and not %s", t.Name, metadataKey)
		}
		names[t.Name] = true
		items = append(items, item{t, k, n * k.size})
	}
	slices.SortFunc(items, func(a, b item) int {
		return cmp.Or(cmp.Compare(b.k.size, a.k.size), cmp.Compare(a.t.Name, b.t.Name))
	})
	var text bytes.Buffer
	text.Write(make([]byte, 8))
	sep := byte('{')
	put := func(key string, value any) error {
		text.WriteByte(sep)
		sep = ','
		for i, v := range []any{key, value} {
			raw, err := json.Marshal(v)
			if err != nil {
				return err
			}
			text.Write(raw)
			if i == 0 {
				text.WriteByte(':')
			}
		}
		return nil
	}
	if len(metadata) > 0 {
		for _, key := range slices.Sorted(maps.Keys(metadata)) {
			if !utf8.ValidString(key) || !utf8.ValidString(metadata[key]) {
				return nil, nil, fmt.Errorf("metadata %q: want valid UTF-8", key)
			}
		}
		if err := put(metadataKey, metadata); err != nil {
			return nil, nil, err
		}
	}
	offset := int64(0)
	for _, it := range items {
		if err := put(it.t.Name, entry{it.k.dtype, append([]int{}, it.t.Shape...), []int64{offset, offset + it.bytes}}); err != nil {
			return nil, nil, err
		}
		offset += it.bytes
		order = append(order, it.t)
	}
	if sep == '{' {
		text.WriteByte('{')
	}
	text.WriteByte('}')
	for text.Len()%8 != 0 {
		text.WriteByte(' ')
	}
	header = text.Bytes()
	if len(header)-8 > maxHeader {
		return nil, nil, fmt.Errorf("header of %d bytes, want at most %d: too many tensors or too long names", len(header)-8, maxHeader)
	}
	binary.LittleEndian.PutUint64(header, uint64(len(header)-8))
	return header, order, nil
}

// ReadSafetensors reads a file, its tensors in the order of their data. A file that is cut short, inconsistent or of a
// type that [Element] lacks is an error that names the file and what is wrong with it.
func ReadSafetensors(path string) ([]Tensor, map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("read %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("read %s: not a file", path)
	}
	tensors, metadata, err := DecodeSafetensors(f, info.Size())
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", path, err)
	}
	return tensors, metadata, nil
}

// DecodeSafetensors reads the content of a file of size bytes from r. It allocates little more than size, whatever the
// file claims.
func DecodeSafetensors(r io.Reader, size int64) ([]Tensor, map[string]string, error) {
	var prefix [8]byte
	if size < 8 {
		return nil, nil, fmt.Errorf("%d bytes, want at least 8: truncated, or not safetensors", size)
	}
	buffered := bufio.NewReaderSize(r, int(min(size, chunkBytes)))
	if _, err := io.ReadFull(buffered, prefix[:]); err != nil {
		return nil, nil, fmt.Errorf("header: %w", noEOF(err))
	}
	length := binary.LittleEndian.Uint64(prefix[:])
	if length > maxHeader {
		return nil, nil, fmt.Errorf("header of %d bytes, want at most %d: not safetensors, or damaged", length, maxHeader)
	}
	if int64(length) > size-8 {
		return nil, nil, fmt.Errorf("%d bytes, but a header of %d: truncated, or not safetensors", size, length)
	}
	raw := make([]byte, length)
	if _, err := io.ReadFull(buffered, raw); err != nil {
		return nil, nil, fmt.Errorf("header: %w", noEOF(err))
	}
	parts, metadata, err := parseHeader(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("header: %w", err)
	}
	room := size - 8 - int64(length)
	offset := int64(0)
	for _, p := range parts {
		if p.begin != offset {
			return nil, nil, fmt.Errorf("tensor %q: data from byte %d, want from %d, where the one before it ends", p.name, p.begin, offset)
		}
		offset = p.end
	}
	if offset != room {
		what := "damaged"
		if offset > room {
			what = "truncated"
		}
		return nil, nil, fmt.Errorf("%d bytes of data, want %d: %s", room, offset, what)
	}
	tensors := make([]Tensor, 0, len(parts))
	for _, p := range parts {
		data, err := p.kind.read(buffered, p.n)
		if err != nil {
			return nil, nil, fmt.Errorf("tensor %q: %w", p.name, noEOF(err))
		}
		tensors = append(tensors, Tensor{p.name, p.shape, data})
	}
	return tensors, metadata, nil
}

// part is a checked header entry.
type part struct {
	name       string
	shape      []int
	kind       kind
	n          int64
	begin, end int64
}

// parseHeader reads the header by tokens, since a plain decoding would let the last of two equal names win.
func parseHeader(raw []byte) ([]part, map[string]string, error) {
	if !utf8.Valid(raw) {
		return nil, nil, errors.New("not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return nil, nil, fmt.Errorf("starts with %.20q, want a JSON object", raw)
	}
	var parts []part
	var metadata map[string]string
	names := map[string]bool{}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, nil, noEOF(err)
		}
		name, ok := key.(string)
		if !ok || names[name] {
			return nil, nil, fmt.Errorf("name %q twice", name)
		}
		names[name] = true
		if name == metadataKey {
			if err := dec.Decode(&metadata); err != nil {
				return nil, nil, fmt.Errorf("metadata: %w", noEOF(err))
			}
			continue
		}
		var e entry
		if err := dec.Decode(&e); err != nil {
			return nil, nil, fmt.Errorf("tensor %q: %w", name, noEOF(err))
		}
		p, err := e.check()
		if err != nil {
			return nil, nil, fmt.Errorf("tensor %q: %w", name, err)
		}
		p.name = name
		parts = append(parts, p)
	}
	if _, err := dec.Token(); err != nil {
		return nil, nil, noEOF(err)
	}
	if rest := strings.TrimSpace(string(raw[dec.InputOffset():])); rest != "" {
		return nil, nil, fmt.Errorf("%.20q after the object", rest)
	}
	slices.SortStableFunc(parts, func(a, b part) int { return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end)) })
	return parts, metadata, nil
}

func (e entry) check() (part, error) {
	i := slices.IndexFunc(kinds, func(k kind) bool { return k.dtype == e.DType })
	if i < 0 {
		var known []string
		for _, k := range kinds {
			known = append(known, k.dtype)
		}
		return part{}, fmt.Errorf("dtype %q, want one of %s", e.DType, strings.Join(known, ", "))
	}
	if e.Shape == nil || len(e.Offsets) != 2 {
		return part{}, errors.New("shape or data_offsets missing")
	}
	n, err := elements(e.Shape)
	if err != nil {
		return part{}, err
	}
	begin, end := e.Offsets[0], e.Offsets[1]
	if begin < 0 || end < begin || end-begin != n*kinds[i].size {
		return part{}, fmt.Errorf("data_offsets %v, want %d bytes for %s %v", e.Offsets, n*kinds[i].size, e.DType, e.Shape)
	}
	return part{shape: e.Shape, kind: kinds[i], n: n, begin: begin, end: end}, nil
}

// noEOF says that a file ended early: a bare EOF would read as success to some callers.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
