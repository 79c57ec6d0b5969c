package datasets

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"

	"github.com/sbinet/npyio/npy"
	"github.com/sbinet/npyio/npz"
	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/stat"
)

// npyBytes is an .npy file of version 1 with the header and data given.
func npyBytes(header string, data any) []byte {
	var b bytes.Buffer
	b.WriteString("\x93NUMPY\x01\x00")
	for (len(header)+11)%64 != 0 {
		header += " "
	}
	header += "\n"
	binary.Write(&b, binary.LittleEndian, uint16(len(header)))
	b.WriteString(header)
	if raw, ok := data.([]byte); ok {
		b.Write(raw)
	} else {
		binary.Write(&b, binary.LittleEndian, data)
	}
	return b.Bytes()
}

func header(dtype, order, shape string) string {
	return fmt.Sprintf("{'descr': '%s', 'fortran_order': %s, 'shape': %s, }", dtype, order, shape)
}

// npzBytes is an archive of name, bytes pairs.
func npzBytes(entries ...any) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := 0; i < len(entries); i += 2 {
		w, _ := z.Create(entries[i].(string) + ".npy")
		w.Write(entries[i+1].([]byte))
	}
	z.Close()
	return b.Bytes()
}

func TestReadNPYTypesAndOrders(t *testing.T) {
	big := func(data any) []byte {
		var b bytes.Buffer
		binary.Write(&b, binary.BigEndian, data)
		return b.Bytes()
	}
	for _, tc := range []struct {
		name string
		file []byte
		want []float64
	}{
		{"uint8", npyBytes(header("|u1", "False", "(2, 3)"), []uint8{0, 1, 2, 3, 4, 255}), []float64{0, 1, 2, 3, 4, 255}},
		{"int8", npyBytes(header("|i1", "False", "(2,)"), []int8{-128, 127}), []float64{-128, 127}},
		{"bool", npyBytes(header("|b1", "False", "(2,)"), []uint8{0, 1}), []float64{0, 1}},
		{"int16", npyBytes(header("<i2", "False", "(2,)"), []int16{-3, 4}), []float64{-3, 4}},
		{"uint16 big endian", npyBytes(header(">u2", "False", "(2,)"), big([]uint16{1, 65535})), []float64{1, 65535}},
		{"int32", npyBytes(header("<i4", "False", "(1, 2)"), []int32{-7, 7}), []float64{-7, 7}},
		{"uint32", npyBytes(header("<u4", "False", "(1,)"), []uint32{math.MaxUint32}), []float64{math.MaxUint32}},
		{"int64", npyBytes(header("<i8", "False", "(2,)"), []int64{-1 << 40, 5}), []float64{-1 << 40, 5}},
		{"uint64", npyBytes(header("<u8", "False", "(1,)"), []uint64{1 << 60}), []float64{1 << 60}},
		{"float32", npyBytes(header("<f4", "False", "(2,)"), []float32{0.5, -1.25}), []float64{0.5, -1.25}},
		{"float64 big endian", npyBytes(header(">f8", "False", "(2,)"), big([]float64{math.Pi, -1})), []float64{math.Pi, -1}},
		{"Fortran order, two axes", npyBytes(header("<f8", "True", "(2, 3)"), []float64{1, 4, 2, 5, 3, 6}), []float64{1, 2, 3, 4, 5, 6}},
		{"Fortran order, three axes", npyBytes(header("|u1", "True", "(2, 2, 2)"), []uint8{1, 5, 3, 7, 2, 6, 4, 8}), []float64{1, 2, 3, 4, 5, 6, 7, 8}},
		{"keys in another order, double quotes, no last comma", npyBytes(`{"shape": (2,), "descr": "<f4", "fortran_order": False}`, []float32{1, 2}), []float64{1, 2}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, err := readNPY(bytes.NewReader(tc.file))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(a.data, tc.want) {
				t.Errorf("shape %v, data %v, want %v", a.shape, a.data, tc.want)
			}
		})
	}
}

// What npyio writes, our reader reads.
func TestReadWhatNpyioWrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data.npz")
	w, err := npz.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	rows := mat.NewDense(5, 3, []float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
	for name, v := range map[string]any{"x.npy": rows, "y.npy": []int64{0, 1, 0, 1, 2}} {
		if err := w.Write(name, v); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	train, test, err := Load(Config{Dataset: "npz", Path: "data.npz", Labels: "y", TestFraction: new(0.4)}, 1, filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if train.N() != 3 || test.N() != 2 || !slices.Equal(train.Shape, []int{3}) {
		t.Fatalf("%d and %d rows of shape %v", train.N(), test.N(), train.Shape)
	}
	for _, d := range []*Dataset{train, test} {
		for i := range d.N() {
			from := int(d.Row(i)[0]-1) / 3
			if !slices.Equal(d.Row(i), rows.RawRowView(from)) || d.Labels[i] != []int{0, 1, 0, 1, 2}[from] {
				t.Errorf("row %v with label %d is none of the file's", d.Row(i), d.Labels[i])
			}
		}
	}
	var b bytes.Buffer
	if err := npy.Write(&b, []float32{1, 2, 4}); err != nil {
		t.Fatal(err)
	}
	if a, err := readNPY(&b); err != nil || !slices.Equal(a.data, []float64{1, 2, 4}) {
		t.Errorf("npy: %v, %v", a, err)
	}
}

func TestBadFiles(t *testing.T) {
	good := npyBytes(header("<f4", "False", "(2, 2)"), []float32{1, 2, 3, 4})
	square := func(v ...float32) []byte { return npyBytes(header("<f4", "False", "(2, 2)"), v) }
	nan := float32(math.NaN())
	archive := npzBytes("x", good)
	corrupt := slices.Clone(npzBytes("x", npyBytes(header("<f8", "False", "(64,)"), make([]float64, 64))))
	corrupt[80] ^= 0xff
	digits, err := os.ReadFile(filepath.Join(testutil.Root(), "examples", "data", "digits.npz"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		file []byte
		cfg  Config // Dataset npz where it is not given
		want string
	}{
		{"not a number", npzBytes("x", square(1, 2, 3, nan)), Config{}, `array "x": row 1, column 1 is NaN, want finite numbers`},
		{"infinite in an image", npzBytes("x", npyBytes(header("<f4", "False", "(1, 2, 2)"), []float32{0, 0, float32(math.Inf(-1)), 0})), Config{},
			`array "x": row 0, column [1 0] is -Inf, want finite numbers`},
		{"not a number, npy", square(nan, 2, 3, 4), Config{Dataset: "npy"}, "array: row 0, column 0 is NaN"},
		{"text", []byte("x,y\n1,2\n"), Config{}, "not an npz archive, or a truncated one: "},
		{"npy read as npz", good, Config{}, "not an npz archive"},
		{"npz read as npy", archive, Config{Dataset: "npy"}, "not in NumPy's npy format"},
		{"empty file", nil, Config{}, "not an npz archive"},
		{"truncated archive", digits[:len(digits)/2], Config{Array: "images"}, "not an npz archive, or a truncated one"},
		{"flipped byte", corrupt, Config{}, `array "x": `},
		{"truncated array", npzBytes("x", good[:len(good)-3]), Config{}, `array "x": truncated: 13 of the 16 bytes of shape [2 2]`},
		{"too long", npzBytes("x", append(slices.Clone(good), 0)), Config{}, `array "x": more than the 16 bytes of shape [2 2]`},
		{"truncated header", good[:30], Config{Dataset: "npy"}, "truncated in the header"},
		{"no such array", archive, Config{Array: "images"}, `array "images": not in the file, which has x`},
		{"no such labels", archive, Config{Labels: "y"}, `array "y": not in the file, which has x`},
		{"which array", npzBytes("b", good, "a", good), Config{}, "has a, b, want data.array to name one of them"},
		{"no arrays", npzBytes(), Config{}, "has no arrays, want data.array"},
		{"complex", npzBytes("x", npyBytes(header("<c8", "False", "(1,)"), []float32{1, 2})), Config{}, `array "x": dtype "<c8", want bool, a whole number`},
		{"text array", npzBytes("x", npyBytes(header("<U3", "False", "(1,)"), make([]byte, 12))), Config{}, `array "x": dtype "<U3", want`},
		{"structured", npzBytes("x", npyBytes("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", []float32{1})), Config{},
			`array "x": a structured dtype`},
		{"scalar", npzBytes("x", npyBytes(header("<f4", "False", "()"), []float32{1})), Config{}, `array "x": a single number, want an array of rows`},
		{"no rows", npzBytes("x", npyBytes(header("<f4", "False", "(0, 2)"), []float32{})), Config{}, `array "x": shape [0 2] is empty`},
		{"no columns", npzBytes("x", npyBytes(header("<f4", "False", "(3, 0)"), []float32{})), Config{}, `array "x": shape [3 0] is empty`},
		{"absurd shape", npzBytes("x", npyBytes(header("<f8", "False", "(4611686018427387904, 4)"), []float64{1})), Config{}, `array "x": shape [4611686018427387904 4]: too large`},
		{"more shape than data", npzBytes("x", npyBytes(header("<f8", "False", "(1000000000000, 4)"), []float64{1})), Config{}, `array "x": truncated: 8 of the 32000000000000 bytes`},
		{"negative shape", npzBytes("x", npyBytes(header("<f8", "False", "(-1,)"), []float64{1})), Config{}, `array "x": header: shape "(-1,)", want a tuple of whole numbers`},
		{"labels of other length", npzBytes("x", good, "y", npyBytes(header("|u1", "False", "(3,)"), []uint8{1, 2, 3})), Config{Labels: "y"},
			`array "y": shape [3], want [2]: one label a row of array "x"`},
		{"labels not whole", npzBytes("x", good, "y", npyBytes(header("<f4", "False", "(2,)"), []float32{1, 1.5})), Config{Labels: "y"},
			`array "y": row 1 is 1.5, want whole numbers as labels`},
		{"dequantise what is not whole", npzBytes("x", square(1, 2, 0.5, 4)), Config{Dequantise: "uniform"},
			`array "x": row 1, column 0 is 0.5, want whole numbers with dequantise: uniform`},
		{"split without a row", archive, Config{TestFraction: new(0.1)}, "test_fraction: 0.1 of the 2 rows"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "data.npz"), tc.file, 0o600); err != nil {
				t.Fatal(err)
			}
			cfg := tc.cfg
			cfg.Path = "data.npz"
			if cfg.Dataset == "" {
				cfg.Dataset = "npz"
			}
			_, _, err := Load(cfg, 1, dir)
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "data.npz") {
				t.Errorf("got %v\nwant one line with the file and %s", err, tc.want)
			}
		})
	}
	_, _, err = Load(Config{Dataset: "npz", Path: "absent.npz"}, 1, "folder")
	if want := "data: folder/absent.npz: no such file or directory"; err == nil || err.Error() != want {
		t.Errorf("absent file: %v, want %s", err, want)
	}
	if _, _, err = Load(Config{Dataset: "npz", Path: t.TempDir()}, 1, ""); err == nil || !strings.Contains(err.Error(), "a folder, want a npz file") {
		t.Errorf("a folder: %v", err)
	}
}

func TestStandardiseUsesTrainingMoments(t *testing.T) {
	const n = 50
	values := make([]float64, 0, 3*n)
	for i := range n {
		values = append(values, float64(i*i), 7, -3*float64(i))
	}
	dir := t.TempDir()
	file := npyBytes(header("<f8", "False", fmt.Sprintf("(%d, 3, 1)", n)), values)
	if err := os.WriteFile(filepath.Join(dir, "x.npy"), file, 0o600); err != nil {
		t.Fatal(err)
	}
	train, test, err := Load(Config{Dataset: "npy", Path: "x.npy", Standardise: new(true), Divide: new(2.0), Flatten: new(true)}, 1, dir)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(train.Shape, []int{3}) || test.N() != 10 {
		t.Errorf("shape %v and %d test rows, want [3] and 10", train.Shape, test.N())
	}
	for j, wantSD := range []float64{1, 0, 1} {
		var column []float64
		for i := range train.N() {
			column = append(column, train.Row(i)[j])
		}
		mean, sd := stat.MeanStdDev(column, nil)
		if math.Abs(mean) > 1e-12 || math.Abs(sd-wantSD) > 1e-12 {
			t.Errorf("column %d: mean %g, standard deviation %g, want 0 and %g", j, mean, sd, wantSD)
		}
	}
	for i, v := range test.Raw(test.Rows) {
		if math.Abs(v-math.Round(v)) > 1e-9 || i%3 == 1 && math.Abs(v-7) > 1e-12 {
			t.Fatalf("number %d of the test set comes back as %g", i, v)
		}
	}
	all, none, err := Load(Config{Dataset: "npy", Path: "x.npy", TestFraction: new(0.0)}, 1, dir)
	if err != nil || all.N() != n || none == nil || none.N() != 0 || !slices.Equal(all.Rows, values) || !slices.Equal(all.Shape, []int{3, 1}) {
		t.Errorf("without a test set: %v", err)
	}
}

// The decoder never panics, and what it takes is consistent.
func FuzzReadNPZ(f *testing.F) {
	f.Add(npzBytes("x", npyBytes(header("<f4", "False", "(2, 2)"), []float32{1, 2, 3, 4}), "y", npyBytes(header("|u1", "True", "(2, 1)"), []uint8{1, 2})))
	f.Add(npyBytes(header(">i8", "True", "(1, 2, 3)"), make([]int64, 6)))
	f.Add(npyBytes("{'descr': '<f4', 'fortran_order': False, 'shape': (3", []byte{}))
	f.Add([]byte("\x93NUMPY\x02\x00\xff\xff\xff\xff{}"))
	f.Add([]byte("PK\x05\x06"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		check := func(a *array, err error) {
			if err != nil {
				return
			}
			n := 1
			for _, d := range a.shape {
				n *= d
			}
			if n != len(a.data) {
				t.Errorf("shape %v with %d numbers", a.shape, len(a.data))
			}
		}
		check(readNPY(bytes.NewReader(raw)))
		z, err := openNPZ(bytes.NewReader(raw), int64(len(raw)))
		if err != nil {
			return
		}
		for _, name := range z.names() {
			check(z.read(name))
		}
	})
}
