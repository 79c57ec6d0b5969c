package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// every is one tensor of each type, with the shapes that are easy to get wrong.
func every() []Tensor {
	return []Tensor{
		{"f32", []int{2, 3}, []float32{1, -2.5, float32(math.Inf(1)), 0, 3e-45, 7}},
		{"f64", []int{1, 2, 1}, []float64{math.Pi, math.Copysign(0, -1)}},
		{"i64", []int{2}, []int64{math.MinInt64, math.MaxInt64}},
		{"i32", []int{3}, []int32{-1, 0, 1}},
		{"i16", []int{1}, []int16{-300}},
		{"i8", []int{1}, []int8{-3}},
		{"u64", []int{}, []uint64{math.MaxUint64}},
		{"u32", []int{2}, []uint32{1, math.MaxUint32}},
		{"u16", []int{1}, []uint16{65535}},
		{"u8", []int{3}, []uint8{0, 128, 255}},
		{"bool", []int{3}, []bool{true, false, true}},
		{"empty", []int{0, 4}, []float32{}},
		{"a <name> with \"signs\" β", []int{1}, []float64{1}},
	}
}

func encode(t testing.TB, tensors []Tensor, metadata map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := EncodeSafetensors(&b, tensors, metadata); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func decode(raw []byte) ([]Tensor, map[string]string, error) {
	return DecodeSafetensors(bytes.NewReader(raw), int64(len(raw)))
}

func byName(tensors []Tensor) []Tensor {
	return slices.SortedFunc(slices.Values(tensors), func(a, b Tensor) int { return strings.Compare(a.Name, b.Name) })
}

func TestRoundTripOfEveryType(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.safetensors")
	metadata := map[string]string{"format": "pt", "θ": "<1>"}
	if err := WriteSafetensors(path, every(), metadata); err != nil {
		t.Fatal(err)
	}
	got, meta, err := ReadSafetensors(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(byName(got), byName(every())) || !reflect.DeepEqual(meta, metadata) {
		t.Errorf("got %v with %v\nwant %v with %v", byName(got), meta, byName(every()), metadata)
	}
	// The order of the tensors does not show in the file.
	reversed := every()
	slices.Reverse(reversed)
	if !bytes.Equal(encode(t, every(), metadata), encode(t, reversed, metadata)) {
		t.Error("another order of the tensors gives another file")
	}
	if got, meta, err := decode(encode(t, nil, nil)); err != nil || len(got) != 0 || len(meta) != 0 {
		t.Errorf("an empty file: %v, %v, %v", got, meta, err)
	}
}

func TestLargeTensorsGoInPieces(t *testing.T) {
	values := make([]float32, 3*chunkBytes/4+17)
	flags := make([]bool, 2*chunkBytes+1)
	for i := range values {
		values[i] = float32(i)
	}
	flags[len(flags)-1] = true
	raw := encode(t, []Tensor{{"values", []int{len(values)}, values}, {"flags", []int{len(flags)}, flags}}, nil)
	got, _, err := decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := Values[float32](got, "values", len(values)); err != nil || !slices.Equal(v, values) {
		t.Errorf("values differ (%v)", err)
	}
	if v, err := Values[bool](got, "flags", -1); err != nil || !slices.Equal(v, flags) {
		t.Errorf("flags differ (%v)", err)
	}
}

// python.safetensors was written by Python's safetensors 0.8.0 from NumPy arrays, with
// testdata/python.py; that script also reads kelvin.safetensors, the file that this test compares with ours.
func TestPythonAndKelvinReadEachOther(t *testing.T) {
	got, meta, err := ReadSafetensors(filepath.Join("testdata", "python.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	want := []Tensor{
		{"weight", []int{2, 3}, []float32{0, 0.5, 1, 1.5, 2, 2.5}},
		{"labels", []int{4}, []int32{3, 1, 2, 0}},
		{"scans", []int{2}, []uint64{1, 1 << 63}},
		{"alive", []int{3}, []bool{true, false, true}},
		{"scalar", []int{}, []float64{math.Pi}},
		{"none", []int{0, 2}, []float32{}},
	}
	if !reflect.DeepEqual(byName(got), byName(want)) || !reflect.DeepEqual(meta, map[string]string{"made_by": "numpy"}) {
		t.Errorf("got %v with %v\nwant %v", byName(got), meta, byName(want))
	}
	ours, err := os.ReadFile(filepath.Join("testdata", "kelvin.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(ours, encode(t, every(), map[string]string{"made_by": "kelvin"})) {
		t.Error("we write other bytes than those that Python was seen to read; run testdata/python.py on a new kelvin.safetensors")
	}
}

func TestWriteRefusesWhatDoesNotFit(t *testing.T) {
	for _, tc := range []struct {
		name    string
		tensors []Tensor
		meta    map[string]string
		want    string
	}{
		{"wrong count", []Tensor{{"a", []int{2, 3}, make([]float32, 5)}}, nil, `tensor "a": 5 values in shape [2 3], want 6`},
		{"negative size", []Tensor{{"a", []int{-1}, []float32{}}}, nil, "shape [-1]"},
		{"size beyond all bounds", []Tensor{{"a", []int{math.MaxInt, math.MaxInt}, []float32{}}}, nil, "that can be addressed"},
		{"name twice", []Tensor{{"a", []int{1}, []float32{1}}, {"a", []int{1}, []float32{1}}}, nil, "a name of its own"},
		{"the name of the metadata", []Tensor{{metadataKey, []int{1}, []float32{1}}}, nil, "a name of its own"},
		{"a name that is no text", []Tensor{{"\xff", []int{1}, []float32{1}}}, nil, "valid UTF-8"},
		{"metadata that is no text", nil, map[string]string{"a": "\xff"}, "valid UTF-8"},
		{"a type that the format lacks", []Tensor{{"a", []int{1}, []string{"x"}}}, nil, "[]string"},
		{"no data", []Tensor{{Name: "a"}}, nil, "<nil>"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			err := WriteSafetensors(filepath.Join(dir, "a.safetensors"), tc.tensors, tc.meta)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
			if entries, _ := os.ReadDir(dir); len(entries) != 0 {
				t.Errorf("%d files left behind", len(entries))
			}
		})
	}
}

func TestValuesChecksTypeAndShape(t *testing.T) {
	tensors := every()
	if v, err := Values[float32](tensors, "f32", -1, 3); err != nil || len(v) != 6 {
		t.Errorf("%v, %v", v, err)
	}
	if v, err := Values[uint64](tensors, "u64"); err != nil || len(v) != 1 {
		t.Errorf("%v, %v", v, err)
	}
	for _, err := range []error{
		second(Values[float32](tensors, "missing", 1)),
		second(Values[float64](tensors, "f32", 2, 3)),
		second(Values[float32](tensors, "f32", 3, 2)),
		second(Values[float32](tensors, "f32", 6)),
	} {
		if err == nil || !strings.HasPrefix(err.Error(), "tensor ") {
			t.Errorf("error %v, want one that names the tensor", err)
		}
	}
	if err := second(Values[float64](tensors, "f32", 3, -1)); err.Error() != `tensor "f32": F32 [2 3], want F64 [3 -1]` {
		t.Errorf("error %q", err)
	}
}

func second[T any](_ T, err error) error { return err }

// with gives a file with any header and data.
func with(header string, data int) []byte {
	raw := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(raw, header...), make([]byte, data)...)
}

func TestReadNamesWhatIsWrong(t *testing.T) {
	one := `"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}`
	for _, tc := range []struct {
		name string
		raw  []byte
		want string
	}{
		{"nothing", nil, "0 bytes, want at least 8"},
		{"a header beyond the file", with("{}", 0)[:9], "a header of 2: truncated"},
		{"a header beyond all bounds", slices.Repeat([]byte{0xff}, 64), "want at most 100000000"},
		{"text", []byte("PK\x03\x04 is a zip file and not this"), "not safetensors"},
		{"no header", with("", 0), "want a JSON object"},
		{"a list", with("[]", 0), "want a JSON object"},
		{"an open object", with("{", 0), "unexpected EOF"},
		{"an open tensor", with(`{"a":{"dtype":"F32"`, 0), `tensor "a": unexpected EOF`},
		{"not UTF-8", with("{\"\xff\":1}", 0), "not UTF-8"},
		{"two objects", with("{}{}", 0), `"{}" after the object`},
		{"a name twice", with("{"+one+","+one+"}", 8), `name "a" twice`},
		{"metadata twice", with(`{"__metadata__":{},"__metadata__":{}}`, 0), `name "__metadata__" twice`},
		{"metadata that is not text", with(`{"__metadata__":{"a":1}}`, 0), "metadata: "},
		{"half precision", with(`{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}`, 4), `tensor "a": dtype "F16", want one of F64, F32,`},
		{"an unknown key", with(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}}`, 8), "unknown field"},
		{"no shape", with(`{"a":{"dtype":"F32","data_offsets":[0,8]}}`, 8), "shape or data_offsets missing"},
		{"one offset", with(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}}`, 8), "shape or data_offsets missing"},
		{"a negative size", with(`{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}`, 8), "shape [-2]"},
		{"a size that overflows", with(`{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, 0), "that can be addressed"},
		{"a fraction", with(`{"a":{"dtype":"F32","shape":[2.5],"data_offsets":[0,8]}}`, 8), `tensor "a": json`},
		{"too little room", with(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}`, 4), "want 8 bytes for F32 [2]"},
		{"offsets backwards", with(`{"a":{"dtype":"F32","shape":[0],"data_offsets":[8,0]}}`, 8), "data_offsets [8 0]"},
		{"an overlap", with("{"+one+`,"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}`, 12), `tensor "b": data from byte 4, want from 8`},
		{"a hole", with("{"+one+`,"b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}}`, 20), `tensor "b": data from byte 12, want from 8`},
		{"data cut short", with("{"+one+"}", 7), "7 bytes of data, want 8: truncated"},
		{"data left over", with("{"+one+"}", 9), "9 bytes of data, want 8: damaged"},
		{"a truth value of 2", append(with(`{"a":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}}`, 0), 2), "byte 2 as a truth value"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.safetensors")
			if err := os.WriteFile(path, tc.raw, 0o644); err != nil {
				t.Fatal(err)
			}
			_, _, err := ReadSafetensors(path)
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), "read "+path) {
				t.Errorf("%v, want %q after the file's name", err, tc.want)
			}
		})
	}
	if _, _, err := ReadSafetensors(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if _, _, err := ReadSafetensors(t.TempDir()); err == nil || !strings.Contains(err.Error(), "not a file") {
		t.Errorf("a folder: %v", err)
	}
}

func TestEveryTruncationIsFound(t *testing.T) {
	raw := encode(t, every(), map[string]string{"a": "b"})
	for n := range raw {
		if _, _, err := decode(raw[:n]); err == nil {
			t.Fatalf("%d of %d bytes read without an error", n, len(raw))
		}
		// The same with a size that the reader does not deliver: a file that shrinks while it is read.
		if _, _, err := DecodeSafetensors(bytes.NewReader(raw[:n]), int64(len(raw))); err == nil {
			t.Fatalf("%d of %d promised bytes read without an error", n, len(raw))
		}
	}
}

func FuzzDecodeSafetensors(f *testing.F) {
	f.Add(encode(f, every(), map[string]string{"a": "b"}))
	f.Add(encode(f, nil, nil))
	f.Add(with(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"I8","shape":[],"data_offsets":[8,9]}}`, 9))
	f.Add(with(`{"a":{"dtype":"F64","shape":[1099511627776],"data_offsets":[0,8796093022208]}}`, 8))
	f.Fuzz(func(t *testing.T, raw []byte) {
		tensors, metadata, err := decode(raw)
		if err != nil {
			return
		}
		again, meta, err := decode(encode(t, tensors, metadata))
		if err != nil {
			t.Fatalf("what was read cannot be written and read again: %v", err)
		}
		// Printed, since NaN differs from itself.
		if fmt.Sprint(byName(again)) != fmt.Sprint(byName(tensors)) || len(meta) != len(metadata) {
			t.Fatalf("%v became %v", byName(tensors), byName(again))
		}
	})
}
