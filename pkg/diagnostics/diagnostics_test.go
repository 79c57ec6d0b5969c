package diagnostics

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/stat"
)

// pointwise turns an energy of one point into one of a batch.
func pointwise(dim int, e func(x []float64) float64) Energies {
	return func(points []float64) ([]float64, error) {
		out := make([]float64, len(points)/dim)
		for i := range out {
			out[i] = e(points[i*dim : (i+1)*dim])
		}
		return out, nil
	}
}

// normals are n rows of N(mean, sd²) in len(mean) dimensions.
func normals(seed uint64, n int, mean []float64, sd float64) []float64 {
	out := rng.New(seed, rng.Dataset, 0, 0).Normals(n * len(mean))
	for i := range out {
		out[i] = mean[i%len(mean)] + sd*out[i]
	}
	return out
}

func ExampleNLL2D() {
	energy := func(points []float64) ([]float64, error) {
		var out []float64
		for i := 0; i < len(points); i += 2 {
			out = append(out, (points[i]*points[i]+points[i+1]*points[i+1])/2)
		}
		return out, nil
	}
	nll, err := NLL2D(energy, []float64{1, 0, 0, 1, -1, 0, 0, -1}, Quadrature{})
	if err != nil {
		panic(err)
	}
	fmt.Printf("log Z = %.6f = log 2π, NLL = %.6f\n", nll.LogZ, nll.NLL)
	// Output: log Z = 1.837877 = log 2π, NLL = 2.337877
}

func TestLogZIsKnown(t *testing.T) {
	ring := func(x []float64, k int, radius, sd float64) float64 {
		terms := make([]float64, k)
		for i := range terms {
			sin, cos := math.Sincos(2 * math.Pi * float64(i) / float64(k))
			terms[i] = -(math.Pow(x[0]-radius*cos, 2) + math.Pow(x[1]-radius*sin, 2)) / (2 * sd * sd)
		}
		return -floats.LogSumExp(terms)
	}
	for _, tc := range []struct {
		name   string
		dim    int
		energy func(x []float64) float64
		rows   []float64
		want   float64
	}{
		{"normal on the line", 1, func(x []float64) float64 { return x[0] * x[0] / 2 }, []float64{-1, 1}, math.Log(2*math.Pi) / 2},
		{"two far bumps on the line", 1, func(x []float64) float64 {
			return -floats.LogSumExp([]float64{-x[0] * x[0] / 2e-4, -(x[0] - 9) * (x[0] - 9) / 2e-4})
		}, []float64{0, 9}, math.Log(2 * math.Sqrt(2*math.Pi) * 0.01)},
		{"quartic on the line", 1, func(x []float64) float64 { return math.Pow(x[0], 4) }, []float64{0.5}, math.Log(2 * math.Gamma(1.25))},
		{"normal", 2, func(x []float64) float64 { return (x[0]*x[0] + x[1]*x[1]) / 2 }, []float64{0, 1, 1, 0}, math.Log(2 * math.Pi)},
		{"energies near a thousand", 2, func(x []float64) float64 { return 1000 + (x[0]*x[0]+x[1]*x[1])/2 }, []float64{0, 1, 1, 0}, math.Log(2*math.Pi) - 1000},
		{"correlated normal, rows on one side", 2, func(x []float64) float64 {
			a, b := x[0]-3, x[1]+2 // precision [[2, 0.9], [0.9, 0.5]], determinant 0.19
			return (2*a*a + 1.8*a*b + 0.5*b*b) / 2
		}, []float64{3, -2, 4, -2, 3.5, -1}, math.Log(2 * math.Pi / math.Sqrt(0.19))},
		{"ring of narrow bumps", 2, func(x []float64) float64 { return ring(x, 8, 2, 0.02) }, []float64{2, 0, -2, 0, 0, 2, 0, -2},
			math.Log(8 * 2 * math.Pi * 4e-4)},
		{"ring of overlapping bumps", 2, func(x []float64) float64 { return ring(x, 5, 1, 0.7) }, []float64{1, 0, -1, 0, 0, 1, 0, -1},
			math.Log(5 * 2 * math.Pi * 0.49)},
		{"much wider than the rows", 2, func(x []float64) float64 { return (x[0]*x[0] + x[1]*x[1]) / 2 }, []float64{0, 0.5, 0.5, 0}, math.Log(2 * math.Pi)},
		{"a single row", 2, func(x []float64) float64 { return (x[0]*x[0] + x[1]*x[1]) / 2 }, []float64{0, 0}, math.Log(2 * math.Pi)},
		{"a second bump well outside the box", 2, func(x []float64) float64 {
			return -floats.LogSumExp([]float64{-(x[0]*x[0] + x[1]*x[1]) / 2, -(math.Pow(x[0]-12, 2) + x[1]*x[1]) / 2})
		}, []float64{-1, -1, 1, 1}, math.Log(4 * math.Pi)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			run := NLL2D
			if tc.dim == 1 {
				run = NLL1D
			}
			got, err := run(pointwise(tc.dim, tc.energy), tc.rows, Quadrature{})
			if err != nil {
				t.Fatal(err)
			}
			if math.Abs(got.LogZ-tc.want) > 1e-6 || got.LogZError > 1e-4 {
				t.Errorf("log Z %.9f, want %.9f (%+v)", got.LogZ, tc.want, got)
			}
			mean := 0.0
			for i := 0; i < len(tc.rows); i += tc.dim {
				mean += tc.energy(tc.rows[i:i+tc.dim]) * float64(tc.dim) / float64(len(tc.rows))
			}
			if math.Abs(got.NLL-mean-got.LogZ) > 1e-12*math.Abs(mean)+1e-12 {
				t.Errorf("NLL %.12g, want mean energy %.12g + log Z", got.NLL, mean)
			}
		})
	}
}

// A kink or a jump makes the sum converge slowly; the doubling must go on until log Z rests.
func TestRoughEnergiesAreRefined(t *testing.T) {
	cone := pointwise(2, func(x []float64) float64 { return 8 * math.Hypot(x[0], x[1]) })
	got, err := NLL2D(cone, []float64{-2, -2, 2, 2}, Quadrature{Tolerance: 1e-6})
	if err != nil {
		t.Fatal(err)
	}
	if want := math.Log(2 * math.Pi / 64); math.Abs(got.LogZ-want) > 2e-6 || got.Nodes[0] <= 512 {
		t.Errorf("log Z %.8f, want %.8f; grid %v", got.LogZ, want, got.Nodes)
	}
	disc := pointwise(2, func(x []float64) float64 {
		if math.Hypot(x[0], x[1]) < 1 {
			return 0
		}
		return math.Inf(1)
	})
	got, err = NLL2D(disc, []float64{-0.5, -0.5, 0.5, 0.5}, Quadrature{})
	if err != nil || math.Abs(got.LogZ-math.Log(math.Pi)) > 1e-3 {
		t.Errorf("disc: log Z %.5f, want log π = %.5f; %v", got.LogZ, math.Log(math.Pi), err)
	}
}

func TestStdErrAndBatches(t *testing.T) {
	rows := normals(3, 1001, []float64{0, 0}, 1)
	quadratic := func(x []float64) float64 { return (x[0]*x[0] + x[1]*x[1]) / 2 }
	sizes := map[int]bool{}
	energies := func(points []float64) ([]float64, error) {
		sizes[len(points)] = true
		return pointwise(2, quadratic)(points)
	}
	got, err := NLL2D(energies, rows, Quadrature{Batch: 1000})
	if err != nil {
		t.Fatal(err)
	}
	if len(sizes) != 1 || !sizes[2000] {
		t.Errorf("calls with %v numbers, want 2000 every time", sizes)
	}
	// ½χ² with two degrees of freedom has mean 1 and variance 1.
	if want := 1 / math.Sqrt(1001); math.Abs(got.StdErr/want-1) > 0.15 || math.Abs(got.NLL-1-math.Log(2*math.Pi)) > 5*want || got.Rows != 1001 {
		t.Errorf("NLL %.4f ± %.4f over %d rows, want %.4f ± %.4f", got.NLL, got.StdErr, got.Rows, 1+math.Log(2*math.Pi), want)
	}
	one, err := NLL2D(pointwise(2, quadratic), rows, Quadrature{})
	if err != nil || math.Abs(one.NLL-got.NLL) > 1e-12 {
		t.Errorf("in larger calls: NLL %.15g, want %.15g; %v", one.NLL, got.NLL, err)
	}
}

func TestFixedBox(t *testing.T) {
	rows := []float64{-1, 0, 1, 0, 0, 1}
	flat := pointwise(2, func([]float64) float64 { return 0 })
	got, err := NLL2D(flat, rows, Quadrature{Fixed: true, Lo: []float64{-2, -2}, Hi: []float64{2, 1}})
	if err != nil || math.Abs(got.LogZ-math.Log(12)) > 1e-9 || math.Abs(got.Rim-1.0/16) > 1e-3 || !slices.Equal(got.Hi, []float64{2, 1}) {
		t.Errorf("uniform: %+v, %v, want log 12", got, err)
	}
	if _, err = NLL2D(flat, rows, Quadrature{Fixed: true, Lo: []float64{0, 0}, Hi: []float64{2, 1}}); err == nil ||
		!strings.Contains(err.Error(), "row 0, column 0 is -1, outside the fixed box from [0 0] to [2 1]") {
		t.Errorf("a row outside: %v", err)
	}
}

func TestQuadratureFaults(t *testing.T) {
	rows := []float64{-1, 0, 1, 0, 0, 1}
	square := func(x []float64) float64 { return x[0]*x[0] + x[1]*x[1] }
	broken := errors.New("device lost")
	for _, tc := range []struct {
		name   string
		energy Energies
		rows   []float64
		q      Quadrature
		want   string
	}{
		{"flat", pointwise(2, func([]float64) float64 { return 0 }), rows, Quadrature{}, "diagnostics: nll in 2-d: the energy is not integrable, or grows too slowly: at ["},
		{"falls on one side", pointwise(2, func(x []float64) float64 { return math.Abs(x[1]) - x[0] }), rows, Quadrature{}, "the energy is not integrable, or grows too slowly: at ["},
		{"falls again far out", pointwise(2, func(x []float64) float64 { return min(square(x), 500-math.Hypot(x[0], x[1])) }), rows, Quadrature{},
			"times as far out as the box round the data"},
		{"heavy tails", pointwise(2, func(x []float64) float64 { return 2.5 * math.Log1p(square(x)) }), rows, Quadrature{}, "not integrable, or grows too slowly: "},
		{"not a number", pointwise(2, func(x []float64) float64 {
			if x[0] > 1.5 {
				return math.NaN()
			}
			return square(x)
		}), rows, Quadrature{}, "the energy is NaN at ["},
		{"minus infinity", pointwise(2, func(x []float64) float64 { return math.Inf(-1) }), rows, Quadrature{}, "the energy is -Inf at [-2 -1]"},
		{"nothing there", pointwise(2, func(x []float64) float64 { return math.Inf(1) }), rows, Quadrature{}, "exp(−E) is zero on the whole box"},
		{"a row outside the support", pointwise(2, func(x []float64) float64 {
			if math.Hypot(x[0], x[1]) > 0.99 {
				return math.Inf(1)
			}
			return 100 * square(x)
		}), rows, Quadrature{}, "the energy is +Inf at one of the rows"},
		{"too rough", pointwise(2, func(x []float64) float64 { return square(x) + 5*math.Sin(2e4*x[0]*x[1]) }), rows, Quadrature{MaxPoints: 1 << 22, Tolerance: 1e-9}, "log Z still moves by "},
		{"too few points", pointwise(2, square), rows, Quadrature{MaxPoints: 1000}, "the coarsest grid has [256 256] points on the box from [-2 -1] to [2 2], want at most 1000 in all"},
		{"its own error", func([]float64) ([]float64, error) { return nil, broken }, rows, Quadrature{}, "device lost"},
		{"wrong count", func([]float64) ([]float64, error) { return []float64{1}, nil }, rows, Quadrature{}, "1 energies of 65536 points"},
		{"no rows", pointwise(2, square), nil, Quadrature{}, "rows: 0 of them, want at least 1"},
		{"odd rows", pointwise(2, square), []float64{1, 2, 3}, Quadrature{}, "rows: 3 numbers, want a multiple of the dimension 2"},
		{"NaN row", pointwise(2, square), []float64{1, 2, 3, math.NaN()}, Quadrature{}, "rows: row 1, column 1 is NaN"},
		{"half a box", pointwise(2, square), rows, Quadrature{Lo: []float64{0, 0}}, "want 2 numbers each"},
		{"inverted box", pointwise(2, square), rows, Quadrature{Lo: []float64{1, 1}, Hi: []float64{0, 2}}, "want finite sides above zero"},
		{"bad tolerance", pointwise(2, square), rows, Quadrature{Tolerance: math.NaN()}, "want positive numbers"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := NLL2D(tc.energy, tc.rows, tc.q)
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %+v, %v\nwant one line with %s", got, err, tc.want)
			}
			if tc.name == "its own error" && !errors.Is(err, broken) {
				t.Error("the cause is not wrapped")
			}
		})
	}
}

// Gretton et al.: the unbiased estimate is zero on average for equal laws, and NullSD is its spread.
func TestMMDOfEqualLaws(t *testing.T) {
	const runs, n, m = 60, 150, 200
	var values, sds []float64
	for i := range uint64(runs) {
		got, err := MMD2(normals(2*i, n, []float64{1, -1}, 0.5), normals(2*i+1, m, []float64{1, -1}, 0.5), 2, MMDOptions{})
		if err != nil {
			t.Fatal(err)
		}
		values, sds = append(values, got.Squared), append(sds, got.NullSD)
	}
	mean, sd := stat.MeanStdDev(values, nil)
	predicted := stat.Mean(sds, nil)
	if math.Abs(mean) > 4*predicted/math.Sqrt(runs) {
		t.Errorf("mean %g, want 0 ± %g", mean, 4*predicted/math.Sqrt(runs))
	}
	// The relative error of a standard deviation from 60 values is about 9 %, some more for the skewed law of MMD².
	if r := sd / predicted; r < 0.65 || r > 1.5 {
		t.Errorf("standard deviation %g over the runs, predicted %g", sd, predicted)
	}
}

// For a Gaussian kernel of bandwidth s, E k(x, y) between N(0, σ²I) and N(δ, σ²I) is
// (s²/(s² + 2σ²))^(d/2) exp(−|δ|²/2(s² + 2σ²)).
func TestMMDOfShiftedGaussians(t *testing.T) {
	const n, runs, dim, sigma = 500, 12, 3, 0.7
	delta := []float64{0.5, 0, -0.3}
	var values []float64
	for i := range uint64(runs) {
		got, err := MMD2(normals(2*i, n, make([]float64, dim), sigma), normals(2*i+1, n, delta, sigma), dim, MMDOptions{Bandwidth: 1.3})
		if err != nil {
			t.Fatal(err)
		}
		values = append(values, got.Squared)
	}
	want := 0.0
	for _, f := range []float64{0.25, 0.5, 1, 2, 4} {
		s2 := f * f * 1.3 * 1.3
		v := s2 + 2*sigma*sigma
		want += 2 * math.Pow(s2/v, dim/2.0) * (1 - math.Exp(-floats.Dot(delta, delta)/(2*v))) / 5
	}
	mean, sd := stat.MeanStdDev(values, nil)
	if se := sd / math.Sqrt(runs); math.Abs(mean-want) > 4*se || se > want/10 {
		t.Errorf("MMD² %g ± %g, want %g", mean, se, want)
	}
}

func TestMMDSubsetsAndBandwidth(t *testing.T) {
	x, y := normals(1, 3000, []float64{0}, 1), normals(2, 2500, []float64{0}, 1)
	a, err := MMD2(x, y, 1, MMDOptions{Seed: 4, MaxRows: 400})
	if err != nil {
		t.Fatal(err)
	}
	b, _ := MMD2(x, y, 1, MMDOptions{Seed: 4, MaxRows: 400})
	c, _ := MMD2(x, y, 1, MMDOptions{Seed: 5, MaxRows: 400})
	if a != b || a.Squared == c.Squared || a.Rows != [2]int{400, 400} {
		t.Errorf("seed 4 twice: %+v and %+v; seed 5: %+v", a, b, c)
	}
	// The distance of two standard normals is √2·|z|, with median √2·0.6745.
	if want := math.Sqrt2 * 0.67449; math.Abs(a.Bandwidth-want) > 0.1 {
		t.Errorf("median distance %g, want about %g", a.Bandwidth, want)
	}
	if _, err := MMD2(x, make([]float64, 10), 1, MMDOptions{}); err == nil || !strings.Contains(err.Error(), "pairs of data rows coincide, want a bandwidth") {
		t.Errorf("constant data: %v", err)
	}
	if _, err := MMD2([]float64{1, math.Inf(1)}, y, 1, MMDOptions{}); err == nil || !strings.Contains(err.Error(), "samples: row 1, column 0 is +Inf") {
		t.Errorf("infinite sample: %v", err)
	}
	if _, err := MMD2([]float64{1}, y, 1, MMDOptions{}); err == nil || !strings.Contains(err.Error(), "samples: 1 of them, want at least 2") {
		t.Errorf("one sample: %v", err)
	}
}

// A shift by δ moves every projection by δ·u: W1 is the mean of |δ·u|, in the plane 2|δ|/π, and W2 is |δ|/√d.
func TestSlicedWassersteinOfAShift(t *testing.T) {
	x := normals(1, 400, []float64{0, 0}, 1)
	shifted := make([]float64, len(x))
	for i, v := range x {
		shifted[i] = v + []float64{3, 4}[i%2]
	}
	got, err := SlicedWasserstein(shifted, x, 2, SlicedOptions{Seed: 2, Projections: 4000})
	if err != nil {
		t.Fatal(err)
	}
	// The standard deviations of 5|cos φ| and 25cos²φ are 1.54 and 8.84; four standard errors.
	if math.Abs(got.W1-10/math.Pi) > 4*1.54/math.Sqrt(4000) || math.Abs(got.W2*got.W2-12.5) > 4*8.84/math.Sqrt(4000) {
		t.Errorf("W1 %g and W2 %g, want %g and %g", got.W1, got.W2, 10/math.Pi, 5/math.Sqrt2)
	}
	if same, _ := SlicedWasserstein(x, x, 2, SlicedOptions{}); same.W1 != 0 || same.W2 != 0 || same.Projections != 256 {
		t.Errorf("of a set from itself: %+v", same)
	}
	// Another set of the shifted law: the mean over directions, up to the sampling error of about n^−½.
	other, _ := SlicedWasserstein(normals(9, 4000, []float64{3, 4}, 1), normals(8, 3000, []float64{0, 0}, 1), 2, SlicedOptions{Projections: 2000})
	if math.Abs(other.W1-10/math.Pi) > 0.2 {
		t.Errorf("between two Gaussians: W1 %g, want %g", other.W1, 10/math.Pi)
	}
}

func TestWassersteinOfUnequalCounts(t *testing.T) {
	for _, tc := range []struct {
		a, b   []float64
		w1, w2 float64
	}{
		{[]float64{0, 1}, []float64{0, 1}, 0, 0},
		{[]float64{0, 1}, []float64{0.5}, 0.5, 0.25},
		{[]float64{0, 3}, []float64{0, 0, 3}, 0.5, 1.5}, // a sixth of the mass moves by 3
		{[]float64{1, 2, 3}, []float64{1, 1, 2, 2, 3, 3}, 0, 0},
	} {
		if w1, w2 := wasserstein(tc.a, tc.b); math.Abs(w1-tc.w1) > 1e-15 || math.Abs(w2-tc.w2) > 1e-15 {
			t.Errorf("%v and %v: %g, %g, want %g, %g", tc.a, tc.b, w1, w2, tc.w1, tc.w2)
		}
	}
}

func TestCoverage(t *testing.T) {
	var modes [][]float64
	for k := range 8 {
		sin, cos := math.Sincos(math.Pi / 4 * float64(k))
		modes = append(modes, []float64{2 * cos, 2 * sin})
	}
	at := func(k, n int) []float64 { return normals(uint64(k), n, modes[k], 0.02) }
	var all []float64
	for k := range 8 {
		all = append(all, at(k, 1000)...)
	}
	got, err := Coverage(all, modes, nil, 0.08)
	if err != nil {
		t.Fatal(err)
	}
	if got.Hit != 8 || got.Inside < 0.999 || got.TV > 0.001 {
		t.Errorf("the law itself: %+v", got)
	}
	got, _ = Coverage(at(3, 1000), modes, nil, 0.2)
	if got.Hit != 1 || got.Counts[3] != 1000 || math.Abs(got.TV-7.0/8) > 1e-12 {
		t.Errorf("one mode: %+v, want TV 7/8", got)
	}
	got, _ = Coverage(make([]float64, 20), modes, nil, 0.2)
	if got.Hit != 0 || got.Inside != 0 || got.TV != 1 {
		t.Errorf("all at the origin: %+v, want nothing inside and TV 1", got)
	}
	half := append(at(0, 300), at(1, 100)...)
	got, _ = Coverage(half, modes[:2], []float64{0.5, 0.5}, 0.2)
	if got.Hit != 2 || math.Abs(got.TV-0.25) > 1e-12 {
		t.Errorf("three to one: %+v, want TV ¼", got)
	}
	for _, tc := range []struct {
		samples []float64
		modes   [][]float64
		weights []float64
		radius  float64
		want    string
	}{
		{all, nil, nil, 1, "no modes"},
		{all, [][]float64{{1, 2}, {1}}, nil, 1, "mode 1 has 1 coordinates, want 2"},
		{all, modes, nil, 0, "radius 0, want a positive number"},
		{all, modes, []float64{1}, 1, "1 weights for 8 modes"},
		{all[:3], modes, nil, 1, "samples: 3 numbers, want a multiple"},
		{nil, modes, nil, 1, "samples: 0 of them"},
	} {
		if _, err := Coverage(tc.samples, tc.modes, tc.weights, tc.radius); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("got %v, want %s", err, tc.want)
		}
	}
}
