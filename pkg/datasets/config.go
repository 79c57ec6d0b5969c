package datasets

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
)

// Config is the `data` section of an experiment. Which keys a dataset takes, and their defaults, is in Kinds; a key that
// is left out (nil, or the empty text) has the default, and a key of another dataset is a fault.
type Config struct {
	Dataset string  `yaml:"dataset"`        // one of the names of Kinds
	Seed    *uint64 `yaml:"seed,omitempty"` // seed of this data alone; the experiment's by default

	Samples      *int     `yaml:"samples,omitempty"`
	TestSamples  *int     `yaml:"test_samples,omitempty"`
	Noise        *float64 `yaml:"noise,omitempty"`
	Components   *int     `yaml:"components,omitempty"`
	Std          *float64 `yaml:"std,omitempty"`
	Radius       *float64 `yaml:"radius,omitempty"`
	Scale        *float64 `yaml:"scale,omitempty"`
	Arclength    *float64 `yaml:"arclength,omitempty"`
	RangeLimit   *float64 `yaml:"range_limit,omitempty"`
	Classes      *int     `yaml:"classes,omitempty"`
	RadialScale  *float64 `yaml:"radial_scale,omitempty"`
	AngularScale *float64 `yaml:"angular_scale,omitempty"`
	SpiralScale  *float64 `yaml:"spiral_scale,omitempty"`
	PerDim       *int     `yaml:"per_dim,omitempty"`

	Means   [][]float64 `yaml:"means,flow,omitempty"`
	Weights []float64   `yaml:"weights,flow,omitempty"`

	Path         string   `yaml:"path,omitempty"`
	Array        string   `yaml:"array,omitempty"`
	Header       *bool    `yaml:"header,omitempty"`
	Columns      []string `yaml:"columns,flow,omitempty"`
	Labels       string   `yaml:"labels,omitempty"`
	Dequantise   string   `yaml:"dequantise,omitempty"`
	Divide       *float64 `yaml:"divide,omitempty"`
	Standardise  *bool    `yaml:"standardise,omitempty"`
	Flatten      *bool    `yaml:"flatten,omitempty"`
	TestFraction *float64 `yaml:"test_fraction,omitempty"`
}

// Kind describes one dataset: its name, what it draws or reads, and its keys.
type Kind struct {
	Name       string
	Definition string // one sentence; U is uniform in (0, 1), z standard normal, all independent
	Params     []Param
}

// Param describes one key of a Kind.
type Param struct {
	Key     string
	Default any    // int, float64, bool or string; nil where there is none
	Doc     string // what it sets
	Want    string // the values it takes, in words
	// Required keys have no default and must be set.
	Required bool

	valid func(v reflect.Value) bool
}

const maxRows = 100_000_000

// number is a float key whose value must be finite and at least lo, or above it where open is set.
func number(key string, def, lo float64, open bool, doc string) Param {
	want := fmt.Sprintf("a finite number of at least %g", lo)
	if open {
		want = fmt.Sprintf("a finite number above %g", lo)
	}
	if math.IsInf(lo, -1) {
		want = "a finite number"
	}
	return Param{Key: key, Default: def, Doc: doc, Want: want, valid: func(v reflect.Value) bool {
		x := v.Float()
		return !math.IsNaN(x) && !math.IsInf(x, 0) && (x > lo || x == lo && !open)
	}}
}

func count(key string, def, lo, hi int, doc string) Param {
	return Param{Key: key, Default: def, Doc: doc, Want: fmt.Sprintf("a whole number from %d to %d", lo, hi), valid: func(v reflect.Value) bool {
		return int64(lo) <= v.Int() && v.Int() <= int64(hi)
	}}
}

// Kinds lists every dataset with its keys, in the order of the documentation.
func Kinds() []Kind {
	seed := Param{Key: "seed", Doc: "seed of the data alone; the experiment's where it is left out", Want: "a whole number of at least 0"}
	toy := func(minSamples int, more ...Param) []Param {
		head := []Param{count("samples", 2000, minSamples, maxRows, "training rows")}
		return append(append(head, more...), count("test_samples", 20000, 0, maxRows, "rows of the test set, a fresh draw"), seed)
	}
	noise := func(def float64) Param {
		return number("noise", def, 0, false, "standard deviation σ of the normal noise added to both coordinates")
	}
	files := func(what string, more ...Param) []Param {
		head := []Param{{Key: "path", Doc: what + "; a relative path starts at the folder of the experiment file", Want: "a file name", Required: true}}
		return append(append(head, more...),
			Param{Key: "dequantise", Default: "none", Want: "none or uniform", valid: func(v reflect.Value) bool { return v.String() == "none" || v.String() == "uniform" },
				Doc: "uniform: add U to every number of the file, before dividing; the numbers must be whole. Drawn once, at load, by counter"},
			number("divide", 1, 0, true, "every number is divided by it, after dequantising: with 17, whole numbers 0..16 fill [0, 1)"),
			Param{Key: "standardise", Default: false, Want: "true or false",
				Doc: "subtract each column's training mean and divide by its training standard deviation, last; a constant column is only shifted"},
			Param{Key: "flatten", Default: false, Want: "true or false", Doc: "make each row a vector; otherwise a row keeps its shape, such as [8, 8]"},
			Param{Key: "test_fraction", Default: 0.2, Want: "a share in [0, 1)", valid: func(v reflect.Value) bool { return v.Float() >= 0 && v.Float() < 1 },
				Doc: "share of the rows kept for the test set, chosen by counter; 0 keeps none"},
			seed)
	}
	ring := number("radius", 1, 0, true, "radius R")
	return []Kind{
		{"two_moons", "half circles (cos θ, sin θ) and (1 − cos θ, ½ − sin θ), θ evenly spaced over [0, π], plus σz", toy(1, noise(0.05))},
		{"gaussian_mixture", "K equal Gaussians c + std·z with centres R(cos 2πk/K, sin 2πk/K)", toy(1,
			count("components", 8, 1, 10_000, "number K of Gaussians"), number("std", 0.05, 0, false, "standard deviation of each Gaussian"), ring)},
		{"eight_gaussians", "8 equal Gaussians c + std·z at distance `scale` from 0, on the axes and the diagonals", toy(1,
			number("std", 0.02, 0, false, "standard deviation of each Gaussian"), number("scale", 2, 0, true, "distance of the centres from 0"))},
		{"swiss_roll", "t(cos t, sin t) + σz with t = aπ(1 + 2U); then the mean is taken off and everything divided by twice the mean of the columns' standard deviations", toy(2,
			noise(0.05), number("arclength", 3, 0, true, "a, sets the number of turns"))},
		{"circle", "R(cos 2πU, sin 2πU) + σz", toy(1, noise(0.05), ring)},
		{"checkerboard", "uniform on the unit cells of [−L, L]² with ⌊x⌋ + ⌊y⌋ odd, plus σz", toy(1, noise(0),
			number("range_limit", 4, 0, true, "L, half the side of the board"))},
		{"pinwheel", "K blades: radius ρt, angle 2πk/K + κt + αz with t = √U, plus σz", toy(1, noise(0.05),
			count("classes", 5, 1, 10_000, "number K of blades"), number("radial_scale", 2, 0, true, "length ρ of a blade"),
			number("angular_scale", 0.1, 0, false, "width α of a blade, in radians"), number("spiral_scale", 5, math.Inf(-1), false, "twist κ of a blade, in radians"))},
		{"grid", "m² points with coordinates evenly spaced over [−L, L], both ends included, plus σz", append([]Param{
			count("per_dim", 10, 1, 1000, "m, points a side; the training set has m² rows"), number("range_limit", 1, 0, true, "L, half the side of the grid"), noise(0.01)},
			toy(1)[1:]...)},
		{"mixture", "draws from a mixture of Gaussians N(meansₖ, std² I), component k with probability weightsₖ; in any dimension", toy(1,
			Param{Key: "means", Doc: "centres, one list of coordinates each", Want: "points of finite coordinates, as many each, such as [[-6], [6]]", Required: true,
				valid: func(v reflect.Value) bool { return arePoints(v.Interface().([][]float64)) }},
			Param{Key: "weights", Doc: "masses of the components, which need not sum to 1; left out, all are equal", Want: "positive numbers",
				valid: func(v reflect.Value) bool {
					weights := v.Interface().([]float64)
					return len(weights) > 0 && !slices.ContainsFunc(weights, func(w float64) bool { return !(w > 0) || math.IsInf(w, 0) })
				}},
			number("std", 1, 0, true, "standard deviation of each Gaussian"))},
		{"npz", "an array of a NumPy .npz file, one row an entry of its first axis", files("the file",
			Param{Key: "array", Doc: "name of the array; may be left out where the file has a single one besides the labels", Want: "a name"},
			Param{Key: "labels", Doc: "name of an array of whole numbers, one a row; left out, the rows have no labels", Want: "a name"})},
		{"npy", "the array of a NumPy .npy file, one row an entry of its first axis", files("the file")},
		{"idx", "an array of a file in MNIST's IDX format, plain or packed by gzip, one row an entry of its first axis: [28, 28] for an image", files("the file",
			Param{Key: "labels", Doc: "IDX file of the labels, in the folder of path; left out, the rows have no labels", Want: "a file name"})},
		{"images", "the PNG images of a folder, all of one size, or of its sub-folders, one a class; numbers 0 to 255, grey [height, width], colour [3, height, width]",
			files("the folder")},
		{"csv", "the rows of a table in text, fields apart by commas, plain or packed by gzip", files("the file",
			Param{Key: "header", Default: true, Doc: "the first line names the columns; without one they are called 1, 2, …", Want: "true or false"},
			Param{Key: "columns", Doc: "names of the columns to take, in the order of a row; left out, all but the labels", Want: "a list of different names",
				valid: func(v reflect.Value) bool {
					names := slices.Sorted(slices.Values(v.Interface().([]string)))
					return len(names) > 0 && !slices.Contains(names, "") && len(slices.Compact(names)) == v.Len()
				}},
			Param{Key: "labels", Doc: "name of the column of labels: whole numbers, or words, which are numbered in alphabetical order; left out, the rows have no labels", Want: "a name"})},
	}
}

// arePoints says whether points are some, of one dimension and finite.
func arePoints(points [][]float64) bool {
	for _, p := range points {
		if len(p) == 0 || len(p) != len(points[0]) || slices.ContainsFunc(p, func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) }) {
			return false
		}
	}
	return len(points) > 0
}

func kindOf(name string) (Kind, bool) {
	for _, k := range Kinds() {
		if k.Name == name {
			return k, true
		}
	}
	return Kind{}, false
}

// keys walks over the optional keys of the section: visit gets each key with its field.
func (c *Config) keys(visit func(key string, field reflect.Value)) {
	v := reflect.ValueOf(c).Elem()
	for i := 1; i < v.NumField(); i++ { // field 0 is Dataset
		key, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		visit(key, v.Field(i))
	}
}

// WithDefaults returns the section with every key that it left out and that has a default written in.
func (c Config) WithDefaults() Config {
	kind, _ := kindOf(c.Dataset)
	c.keys(func(key string, field reflect.Value) {
		for _, p := range kind.Params {
			if p.Key != key || p.Default == nil || !field.IsZero() {
				continue
			}
			def := reflect.ValueOf(p.Default)
			if field.Kind() == reflect.Pointer {
				ptr := reflect.New(def.Type())
				ptr.Elem().Set(def)
				def = ptr
			}
			field.Set(def)
		}
	})
	return c
}

// Validate reports every fault of the section, each by its key. Files are not opened: Load does that.
func (c Config) Validate() error {
	kind, ok := kindOf(c.Dataset)
	if !ok {
		var names []string
		for _, k := range Kinds() {
			names = append(names, k.Name)
		}
		return fmt.Errorf("dataset: %q, want one of %s", c.Dataset, strings.Join(names, ", "))
	}
	var errs []error
	c.keys(func(key string, field reflect.Value) {
		var param *Param
		var takes []string
		for i, p := range kind.Params {
			takes = append(takes, p.Key)
			if p.Key == key {
				param = &kind.Params[i]
			}
		}
		switch {
		case field.IsZero() && param != nil && param.Required:
			errs = append(errs, fmt.Errorf("%s: missing, want %s", key, param.Want))
		case field.IsZero():
		case param == nil:
			errs = append(errs, fmt.Errorf("%s: not a key of dataset %s, want one of %s", key, kind.Name, strings.Join(takes, ", ")))
		default:
			v := reflect.Indirect(field)
			if param.valid != nil && !param.valid(v) {
				if v.Kind() == reflect.String {
					errs = append(errs, fmt.Errorf("%s: %q, want %s", key, v.Interface(), param.Want))
				} else {
					errs = append(errs, fmt.Errorf("%s: %v, want %s", key, v.Interface(), param.Want))
				}
			}
		}
	})
	if len(c.Weights) > 0 && len(c.Weights) != len(c.Means) {
		errs = append(errs, fmt.Errorf("weights: %d numbers, want %d as there are means", len(c.Weights), len(c.Means)))
	}
	if c.Array != "" && c.Array == c.Labels {
		errs = append(errs, fmt.Errorf("labels: %q is the array of the data, want another one", c.Labels))
	}
	if c.Labels != "" && slices.Contains(c.Columns, c.Labels) {
		errs = append(errs, fmt.Errorf("labels: %q is one of the columns of the data, want another one", c.Labels))
	}
	return errors.Join(errs...)
}
