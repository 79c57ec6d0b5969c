// Package datasets makes and reads training data: the eight two-dimensional toy sets of the field, mixtures of Gaussians in
// any dimension, NumPy and IDX files, folders of PNG images and CSV tables.
//
// Load turns the `data` section of an experiment into a training and a test Dataset. A toy set comes with the Law that it
// was drawn from, where that is known, so that a trained model can be held against it:
//
//	train, test, err := datasets.Load(datasets.Config{Dataset: "two_moons", Samples: new(3000)}, 7, ".")
//	if err != nil {
//		return err
//	}
//	next := datasets.NewBatcher(train.N(), 128, 7)
//	for step := range 9600 {
//		for _, i := range next.Indices(step) {
//			use(train.Row(i))
//		}
//	}
//
// All draws come from counters keyed by the seed; nothing here touches or keeps a generator. The toy sets are those of
// the Python library TorchEBM 0.8.9, point by point when given its draws, with these differences: the generator is
// private to the set (there, a seed reseeds the whole process), and a negative noise or standard deviation is refused.
package datasets

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
)

// Dataset is a table of rows held in memory.
type Dataset struct {
	Name   string    // the dataset's kind, or the file's name
	Dim    int       // numbers a row
	Rows   []float64 // [n, Dim], row-major
	Labels []int     // the class of each row (component, moon, blade, or the file's labels); nil where there are none
	Shape  []int     // shape of one row: [2], [8, 8] for grey images, [3, 8, 8] for colour; its product is Dim
	Law    *Law      // the law behind the rows; nil where it is unknown
	Affine           // the scaling that was applied to the raw numbers

	// ClassNames are the names of labels 0, 1, …: sub-folders, or the words of a CSV column. Nil where labels are numbers.
	ClassNames []string
}

// N is the number of rows.
func (d *Dataset) N() int {
	if d.Dim == 0 {
		return 0
	}
	return len(d.Rows) / d.Dim
}

// Row is row i, [Dim]; it shares the dataset's memory.
func (d *Dataset) Row(i int) []float64 { return d.Rows[i*d.Dim : (i+1)*d.Dim : (i+1)*d.Dim] }

// Classes is the number of classes, one more than the largest label; 0 without labels. A training set tells it: a test set
// may lack the last class. CheckLabels says whether the labels are fit to train on.
func (d *Dataset) Classes() int {
	if len(d.Labels) == 0 {
		return 0
	}
	return max(slices.Max(d.Labels)+1, 0)
}

// CheckLabels returns an error unless there is a label for every row, and a row for every label from 0 to Classes − 1:
// what a model conditioned on labels needs.
func (d *Dataset) CheckLabels() error {
	if len(d.Labels) != d.N() || d.N() == 0 {
		return fmt.Errorf("%s: %d labels for %d rows, want one a row", d.Name, len(d.Labels), d.N())
	}
	seen := map[int]bool{}
	for i, label := range d.Labels {
		if label < 0 {
			return fmt.Errorf("%s: row %d has label %d, want labels from 0 on", d.Name, i, label)
		}
		seen[label] = true
	}
	for label := range d.Classes() {
		if !seen[label] {
			return fmt.Errorf("%s: no row has label %d, but one has %d, want rows of every label from 0 on", d.Name, label, d.Classes()-1)
		}
	}
	return nil
}

// Image says how a row is an image: [height, width] is one of a single channel, [channels, height, width] one of several.
// ok is false for rows of any other shape.
func (d *Dataset) Image() (channels, height, width int, ok bool) {
	switch s := d.Shape; len(s) {
	case 2:
		return 1, s[0], s[1], true
	case 3:
		return s[0], s[1], s[2], true
	}
	return 0, 0, 0, false
}

// Affine is a scaling by column, x = (raw − Shift)·Scale. The zero value is the identity.
type Affine struct {
	Shift, Scale []float64 // [Dim] each, or both nil
}

// Raw takes rows [n, Dim] back to the numbers of the file (plus dequantisation noise) or of the generator.
func (a Affine) Raw(rows []float64) []float64 {
	out := make([]float64, len(rows))
	copy(out, rows)
	for i := range out {
		if a.Scale != nil {
			out[i] = out[i]/a.Scale[i%len(a.Scale)] + a.Shift[i%len(a.Shift)]
		}
	}
	return out
}

// apply scales rows in place.
func (a Affine) apply(rows []float64) {
	if a.Scale == nil {
		return
	}
	for i := range rows {
		rows[i] = (rows[i] - a.Shift[i%len(a.Shift)]) * a.Scale[i%len(a.Scale)]
	}
}

// Load makes or reads the data that cfg asks for. seed is the experiment's, used unless cfg has its own; baseDir is the
// folder that a relative path starts at.
//
// The test set of a toy law is a fresh draw from it; of a file, a part of its rows chosen by counter (rows keep the order
// of the file in both parts). It is never nil, but empty where cfg asks for none. Errors name the key, or the file and
// the array, row and column or the line in it, that is at fault.
func Load(cfg Config, seed uint64, baseDir string) (train, test *Dataset, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, nil, fmt.Errorf("data: %w", err)
	}
	cfg = cfg.WithDefaults()
	if cfg.Seed != nil {
		seed = *cfg.Seed
	}
	if cfg.Path != "" {
		path := cfg.Path
		if !filepath.IsAbs(path) {
			path = filepath.Join(baseDir, path)
		}
		return loadFile(cfg, seed, path)
	}
	n := 0
	if cfg.Samples != nil {
		n = *cfg.Samples
	}
	if cfg.Dataset == "grid" {
		n = *cfg.PerDim * *cfg.PerDim
	}
	law, dim := lawOf(cfg), 2
	if cfg.Dataset == "mixture" {
		dim = len(cfg.Means[0])
	}
	made := func(index uint64, n int) *Dataset {
		rows, labels := generate(cfg, n, streamDraws{rng.New(seed, rng.Dataset, index, 0)})
		return &Dataset{Name: cfg.Dataset, Dim: dim, Rows: rows, Labels: labels, Shape: []int{dim}, Law: law}
	}
	train, test = made(0, n), made(1, *cfg.TestSamples)
	if cfg.Dataset == "swiss_roll" {
		// The roll is scaled by its own moments. The test set takes the training set's, so that both follow one law.
		train.Affine = rollScaling(train.Rows)
		test.Affine = train.Affine
		train.apply(train.Rows)
		test.apply(test.Rows)
	}
	return train, test, nil
}
