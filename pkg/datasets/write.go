package datasets

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"time"
)

// Array is a named array of an npz file, row-major.
type Array struct {
	Name  string
	Shape []int
	Data  any // []float32, []float64, []int32, []int64 or []uint8
}

// WriteNPZ writes arrays as a NumPy .npz file (numpy.load reads it). The same arrays give the same bytes.
func WriteNPZ(w io.Writer, arrays []Array) error {
	z := zip.NewWriter(w)
	for _, a := range arrays {
		// A fixed time keeps the bytes of equal runs equal.
		f, err := z.CreateHeader(&zip.FileHeader{Name: a.Name + ".npy", Method: zip.Deflate, Modified: time.Unix(315532800, 0).UTC()})
		if err != nil {
			return fmt.Errorf("datasets: write npz: array %q: %w", a.Name, err)
		}
		if err := writeNPY(f, a); err != nil {
			return fmt.Errorf("datasets: write npz: array %q: %w", a.Name, err)
		}
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("datasets: write npz: %w", err)
	}
	return nil
}

// writeNPY writes format 1.0 of NumPy's NEP 1: magic, header padded to 64 bytes, data in C order.
func writeNPY(w io.Writer, a Array) error {
	var descr string
	length := 0
	switch v := a.Data.(type) {
	case []float32:
		descr, length = "<f4", len(v)
	case []float64:
		descr, length = "<f8", len(v)
	case []int32:
		descr, length = "<i4", len(v)
	case []int64:
		descr, length = "<i8", len(v)
	case []uint8:
		descr, length = "|u1", len(v)
	default:
		return fmt.Errorf("data of type %T, want a slice of float32, float64, int32, int64 or uint8", a.Data)
	}
	n, shape := 1, make([]string, len(a.Shape))
	for i, d := range a.Shape {
		n *= d
		shape[i] = fmt.Sprint(d)
	}
	if n != length {
		return fmt.Errorf("%d elements for shape %v, want %d", length, a.Shape, n)
	}
	dims := strings.Join(shape, ", ")
	if len(shape) == 1 {
		dims += ","
	}
	header := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", descr, dims)
	const prefix = 10 // magic, version and the header's length
	pad := 64 - (prefix+len(header)+1)%64
	header += strings.Repeat(" ", pad%64) + "\n"
	var b bytes.Buffer
	b.WriteString("\x93NUMPY\x01\x00")
	if err := binary.Write(&b, binary.LittleEndian, uint16(len(header))); err != nil {
		return err
	}
	b.WriteString(header)
	if _, err := w.Write(b.Bytes()); err != nil {
		return err
	}
	return binary.Write(w, binary.LittleEndian, a.Data)
}
