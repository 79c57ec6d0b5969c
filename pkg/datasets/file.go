package datasets

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"

	"gonum.org/v1/gonum/stat"
)

// loadFile reads, checks, splits and scales the file of cfg, which has its defaults written in.
func loadFile(cfg Config, seed uint64, path string) (train, test *Dataset, err error) {
	t, err := readTable(cfg, path)
	if err != nil {
		return nil, nil, fmt.Errorf("data: %w", err)
	}
	n := t.shape[0]
	d := &Dataset{Name: filepath.Base(path), Dim: len(t.data) / n, Rows: t.data, Labels: t.labels, ClassNames: t.classes, Shape: t.shape[1:]}
	if len(d.Shape) == 0 || *cfg.Flatten {
		d.Shape = []int{d.Dim}
	}
	if cfg.Dequantise == "uniform" {
		// Keyed by row, not by place in the split, so that a row looks the same whatever the test fraction is.
		for i := range n {
			s := rng.New(seed, rng.Dequantise, uint64(i), 0)
			row := d.Row(i)
			for j := range row {
				row[j] += s.Float64()
			}
		}
	}
	testRows := int(math.Round(*cfg.TestFraction * float64(n)))
	if *cfg.TestFraction > 0 && (testRows == 0 || testRows == n) {
		return nil, nil, fmt.Errorf("data: test_fraction: %g of the %d rows of %s leaves a set without rows", *cfg.TestFraction, n, path)
	}
	order := rng.New(seed, rng.Split, 0, 0).Perm(n)
	test, train = d.part(order[:testRows]), d.part(order[testRows:])
	scaling := scalingOf(train, *cfg.Divide, *cfg.Standardise)
	for _, part := range []*Dataset{train, test} {
		part.Affine = scaling
		part.apply(part.Rows)
	}
	return train, test, nil
}

// part is a copy of some rows, in the order of the whole.
func (d *Dataset) part(rows []int) *Dataset {
	slices.Sort(rows)
	out := &Dataset{Name: d.Name, Dim: d.Dim, Shape: d.Shape, ClassNames: d.ClassNames, Rows: make([]float64, 0, len(rows)*d.Dim)}
	for _, i := range rows {
		out.Rows = append(out.Rows, d.Row(i)...)
		if d.Labels != nil {
			out.Labels = append(out.Labels, d.Labels[i])
		}
	}
	return out
}

// scalingOf is the division and, where asked for, the standardisation by the moments of the training rows (n − 1).
func scalingOf(train *Dataset, divide float64, standardise bool) Affine {
	if divide == 1 && !standardise {
		return Affine{}
	}
	a := Affine{Shift: make([]float64, train.Dim), Scale: make([]float64, train.Dim)}
	column := make([]float64, train.N())
	for j := range a.Scale {
		a.Scale[j] = 1 / divide
		if !standardise {
			continue
		}
		for i := range column {
			column[i] = train.Rows[i*train.Dim+j]
		}
		mean, sd := stat.MeanStdDev(column, nil)
		a.Shift[j] = mean
		if sd > 1e-12*math.Abs(mean) { // else a constant column; also false for the NaN of a single row
			a.Scale[j] = 1 / sd
		}
	}
	return a
}

// table is what a file holds: finite numbers, whole ones where they are to be dequantised, at least one row of one number.
type table struct {
	array
	labels  []int    // nil where there are none
	classes []string // names of the labels, nil where they have none
}

// readTable reads the file or folder of any kind. Its errors begin with the file, and say where in it.
func readTable(cfg Config, path string) (*table, error) {
	switch cfg.Dataset {
	case "images":
		return readImages(path)
	case "csv":
		return readCSV(cfg, path)
	}
	f, size, err := openFile(cfg.Dataset, path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var data, labels *array
	name, labelsName := "array", fmt.Sprintf("array %q", cfg.Labels)
	switch cfg.Dataset {
	case "npz":
		data, labels, name, err = readArchive(cfg, f, size)
	case "npy":
		data, err = readNPY(f)
	case "idx":
		if data, err = readIDX(f); err == nil && cfg.Labels != "" {
			labelsPath := filepath.Join(filepath.Dir(path), cfg.Labels)
			labelsName = "labels of " + labelsPath
			if labels, err = readIDXFile(labelsPath); err != nil {
				return nil, err
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := check(data, cfg.Dequantise == "uniform"); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", path, name, err)
	}
	t := &table{array: *data}
	if labels != nil {
		if len(labels.shape) != 1 || labels.shape[0] != data.shape[0] {
			return nil, fmt.Errorf("%s: %s: shape %v, want [%d]: one label a row of %s", path, labelsName, labels.shape, data.shape[0], name)
		}
		t.labels = make([]int, len(labels.data))
		for i, v := range labels.data {
			if v != math.Trunc(v) || math.Abs(v) > 1<<53 { // also true of NaN
				return nil, fmt.Errorf("%s: %s: row %d is %g, want whole numbers as labels", path, labelsName, i, v)
			}
			t.labels[i] = int(v)
		}
	}
	return t, nil
}

// openFile opens a file of some kind of data for reading, and says how long it is.
func openFile(kind, path string) (f *os.File, size int64, err error) {
	f, err = os.Open(path)
	if err != nil {
		return nil, 0, plain(path, err)
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("a folder, want a %s file", kind)
	}
	if err != nil {
		f.Close()
		return nil, 0, plain(path, err)
	}
	return f, info.Size(), nil
}

// plain is an error that begins with the path, and names it once.
func plain(path string, err error) error {
	if pe, ok := err.(*os.PathError); ok {
		err = pe.Err
	}
	return fmt.Errorf("%s: %w", path, err)
}

// unpacked reads through gzip where the stream begins like one.
func unpacked(r io.Reader) (io.Reader, error) {
	b := bufio.NewReader(r)
	if magic, err := b.Peek(2); err != nil || magic[0] != 0x1f || magic[1] != 0x8b {
		return b, nil // a file too short for a gzip one is not one
	}
	z, err := gzip.NewReader(b)
	if err != nil {
		return nil, err
	}
	return z, nil
}

func readArchive(cfg Config, r io.ReaderAt, size int64) (data, labels *array, name string, err error) {
	z, err := openNPZ(r, size)
	if err != nil {
		return nil, nil, "", err
	}
	key := cfg.Array
	if key == "" {
		candidates := slices.DeleteFunc(z.names(), func(n string) bool { return n == cfg.Labels })
		if len(candidates) != 1 {
			return nil, nil, "", fmt.Errorf("has %s, want data.array to name one of them", listed(candidates))
		}
		key = candidates[0]
	}
	name = fmt.Sprintf("array %q", strings.TrimSuffix(key, ".npy"))
	if data, err = z.read(key); err != nil {
		return nil, nil, "", err
	}
	if cfg.Labels != "" {
		labels, err = z.read(cfg.Labels)
	}
	return data, labels, name, err
}

// check refuses an array without a row, numbers that are not finite and, where whole is set, those that are not whole. Rows and columns count
// from 0; in a row of several axes the column is given by its index along each.
func check(a *array, whole bool) error {
	if len(a.shape) == 0 {
		return errors.New("a single number, want an array of rows")
	}
	if len(a.data) == 0 {
		return fmt.Errorf("shape %v is empty, want at least one row of one number", a.shape)
	}
	row := len(a.data) / a.shape[0]
	for i, v := range a.data {
		if !math.IsNaN(v) && !math.IsInf(v, 0) && (!whole || v == math.Trunc(v)) {
			continue
		}
		at := fmt.Sprintf("row %d, column %d", i/row, i%row)
		if len(a.shape) > 2 {
			rest, index := i%row, make([]int, len(a.shape)-1)
			for axis := len(index) - 1; axis >= 0; axis-- {
				index[axis], rest = rest%a.shape[axis+1], rest/a.shape[axis+1]
			}
			at = fmt.Sprintf("row %d, column %v", i/row, index)
		}
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("%s is %g, want finite numbers", at, v)
		}
		return fmt.Errorf("%s is %g, want whole numbers with dequantise: uniform", at, v)
	}
	return nil
}
