package datasets

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// idxBytes is an IDX file of the type of number given.
func idxBytes(kind byte, dims []uint32, data any) []byte {
	var b bytes.Buffer
	b.Write([]byte{0, 0, kind, byte(len(dims))})
	binary.Write(&b, binary.BigEndian, dims)
	binary.Write(&b, binary.BigEndian, data)
	return b.Bytes()
}

func gzipBytes(raw []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(raw)
	z.Close()
	return b.Bytes()
}

func pngBytes(img image.Image) []byte {
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// grey is an image of one row of pixels.
func grey(levels ...uint8) []byte {
	img := image.NewGray(image.Rect(0, 0, len(levels), 1))
	copy(img.Pix, levels)
	return pngBytes(img)
}

// colours is an image of one row of pixels.
func colours(pixels ...color.Color) []byte {
	img := image.NewNRGBA(image.Rect(0, 0, len(pixels), 1))
	for i, c := range pixels {
		img.Set(i, 0, c)
	}
	return pngBytes(img)
}

// folder writes files, by their paths in it, into a new folder.
func folder(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestReadIDX(t *testing.T) {
	for _, tc := range []struct {
		name string
		file []byte
		want []float64
	}{
		{"uint8", idxBytes(0x08, []uint32{2, 1, 2}, []uint8{0, 1, 128, 255}), []float64{0, 1, 128, 255}},
		{"int8", idxBytes(0x09, []uint32{2}, []int8{-128, 127}), []float64{-128, 127}},
		{"int16", idxBytes(0x0B, []uint32{1, 2}, []int16{-300, 300}), []float64{-300, 300}},
		{"int32", idxBytes(0x0C, []uint32{1}, []int32{-1 << 30}), []float64{-1 << 30}},
		{"float32", idxBytes(0x0D, []uint32{1}, []float32{0.5}), []float64{0.5}},
		{"float64", idxBytes(0x0E, []uint32{1}, []float64{math.Pi}), []float64{math.Pi}},
		{"packed", gzipBytes(idxBytes(0x08, []uint32{2}, []uint8{3, 4})), []float64{3, 4}},
	} {
		if a, err := readIDX(bytes.NewReader(tc.file)); err != nil || !slices.Equal(a.data, tc.want) {
			t.Errorf("%s: %+v, %v, want %v", tc.name, a, err, tc.want)
		}
	}
}

// A set in the form of MNIST: rows keep their labels, options work as for other files.
func TestLoadIDX(t *testing.T) {
	const n = 10
	var pixels, labels []uint8
	for i := range uint8(n) {
		pixels = append(pixels, 10*i, 1, 2, 3, 4, 5)
		labels = append(labels, i)
	}
	dir := folder(t, map[string][]byte{
		"images.gz": gzipBytes(idxBytes(0x08, []uint32{n, 2, 3}, pixels)),
		"labels":    idxBytes(0x08, []uint32{n}, labels),
	})
	train, test, err := Load(Config{Dataset: "idx", Path: "images.gz", Labels: "labels", Divide: new(10.0)}, 1, dir)
	if err != nil {
		t.Fatal(err)
	}
	if c, h, w, ok := train.Image(); train.N() != 8 || test.N() != 2 || c != 1 || h != 2 || w != 3 || !ok {
		t.Errorf("%d and %d rows of shape %v", train.N(), test.N(), train.Shape)
	}
	for _, d := range []*Dataset{train, test} {
		for i := range d.N() {
			if d.Row(i)[0] != float64(d.Labels[i]) || d.Row(i)[5] != 0.5 {
				t.Errorf("row %v has label %d", d.Row(i), d.Labels[i])
			}
		}
	}
	if _, _, err := Load(Config{Dataset: "idx", Path: "images.gz", Labels: "absent"}, 1, dir); err == nil || !strings.HasSuffix(err.Error(), "absent: no such file or directory") {
		t.Errorf("absent labels: %v", err)
	}
}

func TestLoadImages(t *testing.T) {
	red, blue := color.NRGBA{255, 0, 10, 255}, color.NRGBA{1, 2, 3, 255}
	tall := image.NewGray(image.Rect(0, 0, 1, 2))
	tall.Pix[1] = 9
	palette := image.NewPaletted(image.Rect(0, 0, 2, 1), color.Palette{blue, red})
	palette.Pix[0] = 1
	for _, tc := range []struct {
		name    string
		files   map[string][]byte
		shape   []int
		rows    []float64
		labels  []int
		classes []string
	}{
		{"flat and grey", map[string][]byte{"b.png": grey(3, 4), "a.PNG": grey(1, 2), ".hidden": nil}, []int{1, 2}, []float64{1, 2, 3, 4}, nil, nil},
		{"height before width", map[string][]byte{"a.png": pngBytes(tall)}, []int{2, 1}, []float64{0, 9}, nil, nil},
		{"classes", map[string][]byte{"dog/1.png": grey(5), "cat/2.png": grey(6), "cat/1.png": grey(7)}, []int{1, 1}, []float64{7, 6, 5}, []int{0, 0, 1}, []string{"cat", "dog"}},
		{"channels before pixels", map[string][]byte{"a.png": colours(red, blue)}, []int{3, 1, 2}, []float64{255, 1, 0, 2, 10, 3}, nil, nil},
		{"a palette", map[string][]byte{"a.png": pngBytes(palette)}, []int{3, 1, 2}, []float64{255, 1, 0, 2, 10, 3}, nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, _, err := Load(Config{Dataset: "images", Path: folder(t, tc.files), TestFraction: new(0.0)}, 1, "")
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(d.Shape, tc.shape) || !slices.Equal(d.Rows, tc.rows) || !slices.Equal(d.Labels, tc.labels) || !slices.Equal(d.ClassNames, tc.classes) {
				t.Errorf("shape %v, rows %v, labels %v, classes %v", d.Shape, d.Rows, d.Labels, d.ClassNames)
			}
		})
	}
}

func TestLoadCSV(t *testing.T) {
	for _, tc := range []struct {
		name    string
		file    string
		cfg     Config
		rows    []float64
		labels  []int
		classes []string
	}{
		{"all columns", "x,y\n1,2.5\n-3,4e1\n", Config{}, []float64{1, 2.5, -3, 40}, nil, nil},
		{"without a header", "1,2\n3,4\n", Config{Header: new(false)}, []float64{1, 2, 3, 4}, nil, nil},
		{"columns in an order of their own", "a,b,c\n1,2,3\n4,5,6\n", Config{Columns: []string{"c", "a"}}, []float64{3, 1, 6, 4}, nil, nil},
		{"columns by number", "1,2,3\n", Config{Header: new(false), Columns: []string{"3"}, Labels: "1"}, []float64{3}, []int{1}, nil},
		{"labels that are numbers", "x,label\n1,7\n2,0\n", Config{Labels: "label"}, []float64{1, 2}, []int{7, 0}, nil},
		{"labels that are words", "kind, x\nvirginica, 1\nsetosa, 2\nvirginica, 3\n", Config{Labels: "kind"}, []float64{1, 2, 3}, []int{1, 0, 1}, []string{"setosa", "virginica"}},
		{"quotes, spaces, other line ends, a byte order mark", "\ufeff\"x\",y\r\n\"1\", 2 \r\n\r\n3,4", Config{}, []float64{1, 2, 3, 4}, nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, file := range [][]byte{[]byte(tc.file), gzipBytes([]byte(tc.file))} {
				cfg := tc.cfg
				cfg.Dataset, cfg.Path, cfg.TestFraction = "csv", "data.csv", new(0.0)
				d, _, err := Load(cfg, 1, folder(t, map[string][]byte{"data.csv": file}))
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(d.Rows, tc.rows) || !slices.Equal(d.Labels, tc.labels) || !slices.Equal(d.ClassNames, tc.classes) {
					t.Errorf("rows %v, labels %v, classes %v", d.Rows, d.Labels, d.ClassNames)
				}
			}
		})
	}
}

// withHeader is a PNG image whose header claims another size, with the right checksum.
func withHeader(file []byte, width, height uint32) []byte {
	file = slices.Clone(file)
	binary.BigEndian.PutUint32(file[16:], width)
	binary.BigEndian.PutUint32(file[20:], height)
	binary.BigEndian.PutUint32(file[29:], crc32.ChecksumIEEE(file[12:29]))
	return file
}

func TestBadIDXImagesAndCSV(t *testing.T) {
	square := idxBytes(0x08, []uint32{2, 2}, []uint8{1, 2, 3, 4})
	deep := image.NewGray16(image.Rect(0, 0, 1, 1))
	one := func(name string, data []byte) map[string][]byte { return map[string][]byte{name: data} }
	text := func(s string) map[string][]byte { return one("data.csv", []byte(s)) }
	idx, images, table := Config{Dataset: "idx", Path: "x"}, Config{Dataset: "images"}, Config{Dataset: "csv", Path: "data.csv"}
	labelled := func(cfg Config, labels string) Config { cfg.Labels = labels; return cfg }
	for _, tc := range []struct {
		name  string
		cfg   Config
		files map[string][]byte
		want  string // after the folder
	}{
		{"not idx", idx, one("x", []byte("\x93NUMPY")), "/x: not in the IDX format"},
		{"empty idx", idx, one("x", nil), "/x: not in the IDX format"},
		{"type", idx, one("x", idxBytes(0x0A, []uint32{1}, []uint8{1})), "/x: numbers of type 0x0a, want 0x08, 0x09 or 0x0b to 0x0e"},
		{"truncated axes", idx, one("x", square[:9]), "/x: truncated in the lengths of the 2 axes"},
		{"truncated idx", idx, one("x", square[:14]), "/x: truncated: 2 of the 4 bytes of shape [2 2]"},
		{"truncated gzip", idx, one("x", gzipBytes(square)[:20]), "/x: truncated"},
		{"damaged gzip", idx, one("x", []byte{0x1f, 0x8b, 1, 1, 1, 1, 1, 1, 1, 1, 1}), "/x: gzip: invalid header"},
		{"longer than its shape", idx, one("x", append(slices.Clone(square), 0)), "/x: more than the 4 bytes of shape [2 2]"},
		{"a huge shape", idx, one("x", idxBytes(0x08, []uint32{math.MaxUint32, 1 << 20}, []uint8{1})), "/x: truncated: 1 of the 4503599626321920 bytes"},
		{"a shape beyond all bounds", idx, one("x", idxBytes(0x08, []uint32{math.MaxUint32, math.MaxUint32, 9}, []uint8{1})), "/x: shape [4294967295 4294967295 9]: too large"},
		{"an idx number", idx, one("x", idxBytes(0x08, nil, []uint8{1})), "/x: array: a single number, want an array of rows"},
		{"no idx rows", idx, one("x", idxBytes(0x08, []uint32{0, 3}, []uint8{})), "/x: array: shape [0 3] is empty"},
		{"idx not a number", idx, one("x", idxBytes(0x0D, []uint32{1, 2}, []float32{1, float32(math.NaN())})), "/x: array: row 0, column 1 is NaN, want finite numbers"},
		{"too few idx labels", labelled(idx, "y"), map[string][]byte{"x": square, "y": idxBytes(0x08, []uint32{1}, []uint8{1})}, "/y: shape [1], want [2]: one label a row of array"},
		{"truncated idx labels", labelled(idx, "y"), map[string][]byte{"x": square, "y": square[:5]}, "/y: truncated in the lengths"},

		{"no images", images, one(".hidden", nil), ": no files, want PNG images"},
		{"an empty class", images, map[string][]byte{"a/1.png": grey(1), "b/.hidden": nil}, "/b: 0 files and 0 folders, want PNG files of one class"},
		{"folders too deep", images, one("a/b/1.png", grey(1)), "/a: 0 files and 1 folders, want PNG files of one class"},
		{"files beside folders", images, map[string][]byte{"a/1.png": grey(1), "2.png": grey(1)}, ": has files, such as 2.png, beside folders, such as a, want"},
		{"another format", images, one("a.jpg", nil), "/a.jpg: not a .png file, want PNG images alone"},
		{"a name that lies", images, one("a.png", []byte("GIF89a")), "/a.png: not a PNG image, or a truncated one: "},
		{"truncated image", images, one("a.png", grey(1, 2, 3)[:45]), "/a.png: truncated or damaged: "},
		{"a huge image", images, one("a.png", withHeader(grey(1), 1<<20, 1<<20)), "/a.png: 1048576 by 1048576 pixels in 71 bytes, which cannot hold them"},
		{"another size", images, map[string][]byte{"a.png": grey(1, 2), "b.png": grey(1)}, "/b.png: grey, 1 wide and 1 high, want grey, 2 wide and 1 high as the first image"},
		{"colour among grey", images, map[string][]byte{"a.png": grey(1), "b.png": colours(color.White)}, "/b.png: colour, 1 wide and 1 high, want grey, 1 wide and 1 high"},
		{"16 bits", images, one("a.png", pngBytes(deep)), "/a.png: 16 bits a channel, want 8"},
		{"transparent", images, one("a.png", colours(color.White, color.NRGBA{1, 1, 1, 9})), "/a.png: pixel 1, 0 is not opaque"},
		{"a file for a folder", Config{Dataset: "images", Path: "x"}, one("x", nil), "/x: a file, want a folder of PNG images"},
		{"absent folder", Config{Dataset: "images", Path: "x"}, nil, "/x: no such file or directory"},

		{"empty table", table, text(""), "/data.csv: no rows, want at least one"},
		{"a header alone", table, text("x,y\n"), "/data.csv: no rows, want at least one"},
		{"ragged", table, text("x,y\n1,2\n3\n"), "/data.csv:3:1: 1 fields, want 2 as the first line has"},
		{"too long", table, text("x,y\n1,2,3\n"), "/data.csv:2:1: 3 fields, want 2"},
		{"text in a column", table, text("x,y\n1,2\n10,abc\n"), `/data.csv:3:4: "abc", want a number`},
		{"empty field", table, text("x,y\n1,\n"), `/data.csv:2:3: "", want a number`},
		{"NaN in a table", table, text("x\nNaN\n"), `/data.csv:2:1: "NaN", want a finite number`},
		{"beyond float64", table, text("x\n1e999\n"), `/data.csv:2:1: "1e999", want a finite number`},
		{"a quote without an end", table, text("x\n\"1\n"), `/data.csv:2:4: extraneous or missing " in quoted-field`},
		{"no header", table, text("1,2\n3,4\n"), "/data.csv:1:1: numbers in place of the names of columns, want names, or data.header: false"},
		{"a column twice", table, text("x,y,x\n1,2,3\n"), `/data.csv:1:5: column "x" twice`},
		{"no such column", Config{Dataset: "csv", Path: "data.csv", Columns: []string{"z"}}, text("x,y\n1,2\n"), `/data.csv:1:1: data.columns: no column "z", the file has x, y`},
		{"no such label column", labelled(table, "z"), text("x,y\n1,2\n"), `/data.csv:1:1: data.labels: no column "z", the file has x, y`},
		{"labels alone", labelled(table, "x"), text("x\n1\n"), "/data.csv:1:1: the only column is that of the labels"},
		{"a label that is no number", labelled(table, "y"), text("x,y\n1,2\n1,2x\n"), `/data.csv:3:3: "2x", want a number, as the first label is`},
		{"a label that is no name", labelled(table, "y"), text("x,y\n1,cat\n1,2\n"), `/data.csv:3:3: "2", want a name, as the first label is`},
		{"a label that is not whole", labelled(table, "y"), text("x,y\n1,0.5\n"), `/data.csv:2:3: "0.5", want whole numbers as labels`},
		{"no label", labelled(table, "y"), text("x,y\n1,cat\n1,\n"), `/data.csv:3:3: "", want a label`},
		{"dequantise a table that is not whole", Config{Dataset: "csv", Path: "data.csv", Dequantise: "uniform"}, text("x\n0.5\n"),
			"/data.csv:2:1: 0.5, want whole numbers with dequantise: uniform"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := folder(t, tc.files)
			cfg := tc.cfg
			if cfg.Path == "" {
				cfg.Path = dir
			}
			_, _, err := Load(cfg, 1, dir)
			if err == nil || !strings.HasPrefix(err.Error(), "data: "+dir) || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got  %v\nwant data: %s… %s", err, dir, tc.want)
			}
		})
	}
}

func TestClassesAndCheckLabels(t *testing.T) {
	for _, tc := range []struct {
		labels  []int
		classes int
		want    string
	}{
		{[]int{2, 0, 1, 1}, 3, ""},
		{nil, 0, "d: 0 labels for 4 rows, want one a row"},
		{[]int{0, 1}, 2, "d: 2 labels for 4 rows, want one a row"},
		{[]int{0, -1, 1, 1}, 2, "d: row 1 has label -1, want labels from 0 on"},
		{[]int{-3, -1, -1, -1}, 0, "d: row 0 has label -3, want labels from 0 on"},
		{[]int{0, 1, 3, 3}, 4, "d: no row has label 2, but one has 3, want rows of every label from 0 on"},
		{[]int{1 << 50, 1, 1, 1}, 1<<50 + 1, "d: no row has label 0, but one has 1125899906842624"},
	} {
		d := &Dataset{Name: "d", Dim: 1, Rows: make([]float64, 4), Labels: tc.labels}
		err := d.CheckLabels()
		if d.Classes() != tc.classes || (err == nil) != (tc.want == "") || err != nil && !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("%v: %d classes, %v, want %d, %s", tc.labels, d.Classes(), err, tc.classes, tc.want)
		}
	}
}

func TestImage(t *testing.T) {
	for _, tc := range []struct {
		shape []int
		want  string
	}{{[]int{2}, "0 0 0 false"}, {[]int{8, 9}, "1 8 9 true"}, {[]int{3, 8, 9}, "3 8 9 true"}, {[]int{1, 2, 3, 4}, "0 0 0 false"}} {
		c, h, w, ok := (&Dataset{Shape: tc.shape}).Image()
		if got := fmt.Sprint(c, h, w, ok); got != tc.want {
			t.Errorf("%v: %s, want %s", tc.shape, got, tc.want)
		}
	}
}

// No reader panics, and what it takes is consistent and finite.
func FuzzReaders(f *testing.F) {
	f.Add(idxBytes(0x08, []uint32{2, 2}, []uint8{1, 2, 3, 4}))
	f.Add(gzipBytes(idxBytes(0x0D, []uint32{1}, []float32{1})))
	f.Add(idxBytes(0x0E, []uint32{1 << 31, 1 << 31, 1 << 31}, []uint8{}))
	f.Add(grey(1, 2, 3))
	f.Add(colours(color.White, color.Black))
	f.Add(withHeader(grey(1), 1<<30, 1<<30))
	f.Add([]byte("x,y\n1,2\n3,a\n"))
	f.Add([]byte("\"x\",y\n1,\"\n"))
	f.Add([]byte("\ufeff,\n,,"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		check := func(name string, shape []int, data []float64) {
			n := 1
			for _, d := range shape {
				n *= d
			}
			if n != len(data) {
				t.Errorf("%s: shape %v with %d numbers", name, shape, len(data))
			}
		}
		if a, err := readIDX(bytes.NewReader(raw)); err == nil {
			check("idx", a.shape, a.data)
		}
		if pixels, shape, err := readPNG(bytes.NewReader(raw), int64(len(raw))); err == nil {
			check("png", shape, pixels)
		}
		for _, cfg := range []Config{{Dataset: "csv"}, {Dataset: "csv", Header: new(false), Labels: "1"}} {
			c, err := decodeCSV(cfg.WithDefaults(), "x.csv", bytes.NewReader(raw))
			if err != nil {
				continue
			}
			check("csv", c.shape, c.data)
			if cfg.Labels != "" && len(c.labels) != c.shape[0] {
				t.Errorf("csv: %d labels for %d rows", len(c.labels), c.shape[0])
			}
		}
	})
}
