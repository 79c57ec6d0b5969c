package datasets

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// The NumPy file format, version 1 to 3 (numpy.lib.format). The decoder is our own: it must never panic, allocate more
// than the file holds, or take a truncated file for zeros, all of which the npyio reader (v0.6.0) does.

// array is a decoded array, row-major whatever the order in the file.
type array struct {
	dtype string // as NumPy writes it, such as <f4 or |u1
	shape []int
	data  []float64
}

// decoders turn one element into a number. 64-bit whole numbers beyond 2^53 are rounded.
func decoder(dtype string) (size int, decode func(b []byte) float64, err error) {
	kinds := map[string]func(o binary.ByteOrder, b []byte) float64{
		"b1": func(_ binary.ByteOrder, b []byte) float64 { return float64(b[0]) },
		"u1": func(_ binary.ByteOrder, b []byte) float64 { return float64(b[0]) },
		"i1": func(_ binary.ByteOrder, b []byte) float64 { return float64(int8(b[0])) },
		"u2": func(o binary.ByteOrder, b []byte) float64 { return float64(o.Uint16(b)) },
		"i2": func(o binary.ByteOrder, b []byte) float64 { return float64(int16(o.Uint16(b))) },
		"u4": func(o binary.ByteOrder, b []byte) float64 { return float64(o.Uint32(b)) },
		"i4": func(o binary.ByteOrder, b []byte) float64 { return float64(int32(o.Uint32(b))) },
		"u8": func(o binary.ByteOrder, b []byte) float64 { return float64(o.Uint64(b)) },
		"i8": func(o binary.ByteOrder, b []byte) float64 { return float64(int64(o.Uint64(b))) },
		"f4": func(o binary.ByteOrder, b []byte) float64 { return float64(math.Float32frombits(o.Uint32(b))) },
		"f8": func(o binary.ByteOrder, b []byte) float64 { return math.Float64frombits(o.Uint64(b)) },
	}
	if len(dtype) == 3 && strings.ContainsRune("<>|=", rune(dtype[0])) {
		if f, ok := kinds[dtype[1:]]; ok {
			var order binary.ByteOrder = binary.LittleEndian
			if dtype[0] == '>' {
				order = binary.BigEndian
			}
			return int(dtype[2] - '0'), func(b []byte) float64 { return f(order, b) }, nil
		}
	}
	return 0, nil, fmt.Errorf("dtype %q, want bool, a whole number of 8 to 64 bits, float32 or float64", dtype)
}

// readNPY decodes one .npy stream.
func readNPY(r io.Reader) (*array, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil || !bytes.Equal(head[:6], []byte("\x93NUMPY")) {
		return nil, errors.New("not in NumPy's npy format")
	}
	lengthBytes := 4
	switch head[6] {
	case 1:
		lengthBytes = 2
	case 2, 3:
	default:
		return nil, fmt.Errorf("npy format version %d, want 1 to 3", head[6])
	}
	var length [4]byte
	if _, err := io.ReadFull(r, length[:lengthBytes]); err != nil {
		return nil, errors.New("truncated in the header")
	}
	n := int64(binary.LittleEndian.Uint32(length[:]))
	header, err := io.ReadAll(io.LimitReader(r, n))
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if int64(len(header)) < n {
		return nil, errors.New("truncated in the header")
	}
	a := &array{}
	fortran, err := a.parseHeader(string(header))
	if err != nil {
		return nil, err
	}
	if a.data, err = readNumbers(r, a.dtype, a.shape); err != nil {
		return nil, err
	}
	if fortran {
		a.data = toRowMajor(a.data, a.shape)
	}
	return a, nil
}

// readNumbers decodes the array that makes up the rest of a stream. It allocates no more than the stream holds.
func readNumbers(r io.Reader, dtype string, shape []int) ([]float64, error) {
	size, decode, err := decoder(dtype)
	if err != nil {
		return nil, err
	}
	count := 1
	for _, d := range shape {
		if d != 0 && count > math.MaxInt/16/d {
			return nil, fmt.Errorf("shape %v: too large", shape)
		}
		count *= d
	}
	want := int64(count) * int64(size)
	raw, err := io.ReadAll(io.LimitReader(r, want+1))
	switch {
	case err != nil && !errors.Is(err, io.ErrUnexpectedEOF): // the end of a packed file that was cut short
		return nil, fmt.Errorf("data: %w", err)
	case int64(len(raw)) < want:
		return nil, fmt.Errorf("truncated: %d of the %d bytes of shape %v", len(raw), want, shape)
	case err != nil:
		return nil, fmt.Errorf("data: %w", err)
	case int64(len(raw)) > want:
		return nil, fmt.Errorf("more than the %d bytes of shape %v", want, shape)
	}
	data := make([]float64, count)
	for i := range data {
		data[i] = decode(raw[i*size:])
	}
	return data, nil
}

// parseHeader reads a Python dictionary such as {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }.
func (a *array) parseHeader(text string) (fortran bool, err error) {
	body, ok := strings.CutPrefix(strings.TrimSpace(text), "{")
	body, closed := strings.CutSuffix(body, "}")
	if !ok || !closed {
		return false, errors.New("header is not a dictionary")
	}
	seen := map[string]bool{}
	for body = strings.TrimSpace(body); body != ""; body = strings.TrimSpace(body) {
		key, rest, ok := strings.Cut(body, ":")
		if !ok {
			return false, fmt.Errorf("header: no value in %.40q", body)
		}
		key, rest = strings.Trim(key, `'" `), strings.TrimSpace(rest)
		end := strings.IndexByte(rest, ',')
		if strings.HasPrefix(rest, "(") {
			if end = strings.IndexByte(rest, ')'); end < 0 {
				return false, errors.New("header: shape without an end")
			}
			end++
		} else if strings.HasPrefix(rest, "[") {
			return false, errors.New("a structured dtype, want an array of plain numbers")
		} else if end < 0 {
			end = len(rest)
		}
		value := strings.TrimSpace(rest[:end])
		body = strings.TrimPrefix(strings.TrimSpace(rest[end:]), ",")
		seen[key] = true
		switch key {
		case "descr":
			a.dtype = strings.Trim(value, `'"`)
		case "fortran_order":
			fortran = value == "True"
			if !fortran && value != "False" {
				return false, fmt.Errorf("header: fortran_order %.40q, want True or False", value)
			}
		case "shape":
			if !strings.HasPrefix(value, "(") {
				return false, fmt.Errorf("header: shape %.40q, want a tuple", value)
			}
			for part := range strings.SplitSeq(strings.Trim(value, "()"), ",") {
				if part = strings.TrimSuffix(strings.TrimSpace(part), "L"); part == "" {
					continue
				}
				d, err := strconv.Atoi(part)
				if err != nil || d < 0 || len(a.shape) == 32 {
					return false, fmt.Errorf("header: shape %.40q, want a tuple of whole numbers", value)
				}
				a.shape = append(a.shape, d)
			}
		default:
			return false, fmt.Errorf("header: unknown key %.40q", key)
		}
	}
	for _, key := range []string{"descr", "fortran_order", "shape"} {
		if !seen[key] {
			return false, fmt.Errorf("header: no %s", key)
		}
	}
	return fortran, nil
}

// toRowMajor reorders numbers whose first axis runs fastest.
func toRowMajor(data []float64, shape []int) []float64 {
	out := make([]float64, len(data))
	index := make([]int, len(shape))
	for i := range out {
		at, stride := 0, 1
		for axis, d := range shape {
			at += index[axis] * stride
			stride *= d
		}
		out[i] = data[at]
		for axis := len(shape) - 1; axis >= 0; axis-- {
			if index[axis]++; index[axis] < shape[axis] {
				break
			}
			index[axis] = 0
		}
	}
	return out
}

// npzFile is an open .npz archive.
type npzFile struct{ entries map[string]*zip.File }

func openNPZ(r io.ReaderAt, size int64) (*npzFile, error) {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, fmt.Errorf("not an npz archive, or a truncated one: %w", err)
	}
	f := &npzFile{map[string]*zip.File{}}
	for _, e := range z.File {
		name := strings.TrimSuffix(e.Name, ".npy")
		if _, twice := f.entries[name]; twice {
			return nil, fmt.Errorf("array %q twice", name)
		}
		f.entries[name] = e
	}
	return f, nil
}

// names are the arrays of the archive, sorted.
func (f *npzFile) names() []string {
	var out []string
	for name := range f.entries {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// read decodes one array; its name may carry the ending of the archive's entry.
func (f *npzFile) read(name string) (*array, error) {
	name = strings.TrimSuffix(name, ".npy")
	e, ok := f.entries[name]
	if !ok {
		return nil, fmt.Errorf("array %q: not in the file, which has %s", name, listed(f.names()))
	}
	r, err := e.Open()
	if err != nil {
		return nil, fmt.Errorf("array %q: %w", name, err)
	}
	defer r.Close()
	a, err := readNPY(r)
	if err != nil {
		return nil, fmt.Errorf("array %q: %w", name, err)
	}
	return a, nil
}

// listed is a short list of names for a message.
func listed(names []string) string {
	switch {
	case len(names) == 0:
		return "no arrays"
	case len(names) > 8:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:8], ", "), len(names)-8)
	}
	return strings.Join(names, ", ")
}
