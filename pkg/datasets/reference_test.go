package datasets

import (
	"math"
	"slices"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"

	"gonum.org/v1/gonum/stat"
)

// recorded replays the draws of a case in their order and fails on one of another kind or size.
type recorded struct {
	t    *testing.T
	c    testutil.Case
	next int
}

func (r *recorded) take(kind string, n int) testutil.Tensor {
	r.t.Helper()
	if r.next >= len(r.c.Draws) {
		r.t.Fatalf("a draw of %d %s numbers after the last recorded one", n, kind)
	}
	d := r.c.Draws[r.next]
	r.next++
	in := r.c.Inputs[d.Input]
	if d.Kind != kind || len(in.Data) != n {
		r.t.Fatalf("draw %d: asked for %d %s numbers, recorded are %d %s", r.next-1, n, kind, len(in.Data), d.Kind)
	}
	return in
}

func (r *recorded) Normals(n int) []float64  { return slices.Clone(r.take("normal", n).Data) }
func (r *recorded) Uniforms(n int) []float64 { return slices.Clone(r.take("uniform", n).Data) }
func (r *recorded) Perm(n int) []int         { return r.take("permutation", n).Ints() }

// configOf turns a recorded case into our section. The recorded names are the Python library's.
func configOf(t *testing.T, c testutil.Case) Config {
	names := map[string]string{
		"GaussianMixtureDataset": "gaussian_mixture", "EightGaussiansDataset": "eight_gaussians", "TwoMoonsDataset": "two_moons",
		"SwissRollDataset": "swiss_roll", "CircleDataset": "circle", "CheckerboardDataset": "checkerboard",
		"PinwheelDataset": "pinwheel", "GridDataset": "grid",
	}
	cfg := Config{Dataset: names[c.Component]}
	for key, v := range c.Params {
		x, ok := v.(float64)
		if !ok {
			continue
		}
		switch key {
		case "n_samples":
			cfg.Samples = new(int(x))
		case "n_components":
			cfg.Components = new(int(x))
		case "n_classes":
			cfg.Classes = new(int(x))
		case "n_samples_per_dim":
			cfg.PerDim = new(int(x))
		case "noise":
			cfg.Noise = new(x)
		case "std":
			cfg.Std = new(x)
		case "radius":
			cfg.Radius = new(x)
		case "scale":
			cfg.Scale = new(x)
		case "arclength":
			cfg.Arclength = new(x)
		case "range_limit":
			cfg.RangeLimit = new(x)
		case "radial_scale":
			cfg.RadialScale = new(x)
		case "angular_scale":
			cfg.AngularScale = new(x)
		case "spiral_scale":
			cfg.SpiralScale = new(x)
		case "box", "histogram_bins", "repetitions", "mode_bins", "mode_threshold":
		default:
			t.Fatalf("%s: unknown parameter %s", c.Name, key)
		}
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestReference(t *testing.T) {
	for _, c := range testutil.Reference(t, "datasets") {
		t.Run(c.Name, func(t *testing.T) {
			cfg := configOf(t, c)
			if c.Str("op", "") == "points" {
				comparePoints(t, c, cfg)
			} else {
				compareStatistics(t, c, cfg)
			}
		})
	}
}

func comparePoints(t *testing.T, c testutil.Case, cfg Config) {
	cfg = cfg.WithDefaults()
	n := c.Expect["points"].Shape[0]
	src := &recorded{t: t, c: c}
	rows, labels := generate(cfg, n, src)
	if cfg.Dataset == "swiss_roll" {
		rollScaling(rows).apply(rows)
	}
	if src.next != len(c.Draws) {
		t.Errorf("%d of %d draws used", src.next, len(c.Draws))
	}
	if labels != nil && len(labels) != n {
		t.Errorf("%d labels of %d rows", len(labels), n)
	}
	testutil.Compare(t, "points", rows, c.Expect["points"], c.For64("points"))
}

func compareStatistics(t *testing.T, c testutil.Case, cfg Config) {
	train, _, err := Load(cfg, 20, "")
	if err != nil {
		t.Fatal(err)
	}
	n := train.N()
	columns := map[string][]float64{}
	for i := range n {
		r := train.Row(i)
		columns["x"] = append(columns["x"], r[0])
		columns["y"] = append(columns["y"], r[1])
		columns["radius"] = append(columns["radius"], math.Hypot(r[0], r[1]))
	}
	x, y := columns["x"], columns["y"]
	unbias := float64(n-1) / float64(n)
	compare := func(name string, got []float64) { testutil.Compare(t, name, got, c.Expect[name], c.For64(name)) }
	compare("mean", []float64{stat.Mean(x, nil), stat.Mean(y, nil)})
	compare("covariance", []float64{unbias * stat.Variance(x, nil), unbias * stat.Covariance(x, y, nil),
		unbias * stat.Covariance(x, y, nil), unbias * stat.Variance(y, nil)})
	box := c.Num("box", 0)
	compare("histogram", histogram(x, y, box, int(c.Num("histogram_bins", 0))))
	if want, ok := c.Expect["n_modes"]; ok {
		bins := int(c.Num("mode_bins", 0))
		if got := pieces(histogram(x, y, box, bins), bins, c.Num("mode_threshold", 0)); float64(got) != want.Data[0] {
			t.Errorf("n_modes: %d, want %g", got, want.Data[0])
		}
	}
	for name, column := range columns {
		slices.Sort(column)
		var q []float64
		for _, level := range c.Inputs["levels_"+name].Data {
			q = append(q, stat.Quantile(level, stat.LinInterp, column, nil))
		}
		compare("quantiles_"+name, q)
	}
}

func histogram(x, y []float64, box float64, bins int) []float64 {
	out := make([]float64, bins*bins)
	for i := range x {
		a, b := int(math.Floor((x[i]+box)/(2*box)*float64(bins))), int(math.Floor((y[i]+box)/(2*box)*float64(bins)))
		if a >= 0 && a < bins && b >= 0 && b < bins {
			out[a*bins+b] += 1 / float64(len(x))
		}
	}
	return out
}

// pieces counts the groups of cells, joined over shared edges, that hold at least threshold times the fullest cell.
func pieces(h []float64, bins int, threshold float64) int {
	least := threshold * slices.Max(h)
	seen := make([]bool, len(h))
	var flood func(i, j int) bool
	flood = func(i, j int) bool {
		if i < 0 || j < 0 || i >= bins || j >= bins || seen[i*bins+j] || h[i*bins+j] < least {
			return false
		}
		seen[i*bins+j] = true
		flood(i-1, j)
		flood(i+1, j)
		flood(i, j-1)
		flood(i, j+1)
		return true
	}
	n := 0
	for i := range bins {
		for j := range bins {
			if flood(i, j) {
				n++
			}
		}
	}
	return n
}

func TestReferenceCoversEveryToySet(t *testing.T) {
	var covered []string
	for _, c := range testutil.Reference(t, "datasets") {
		covered = append(covered, configOf(t, c).Dataset)
	}
	for _, k := range Kinds() {
		if k.Params[0].Key != "path" && k.Name != "mixture" && !slices.Contains(covered, k.Name) { // the mixture is not TorchEBM's
			t.Errorf("%s: no recorded case", k.Name)
		}
	}
}
