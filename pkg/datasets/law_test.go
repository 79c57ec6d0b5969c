package datasets

import (
	"math"
	"testing"
)

func lawFor(t *testing.T, cfg Config) *Law {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	return lawOf(cfg.WithDefaults())
}

// The entropy that a law reports against the plain trapezoidal sum of −p log p over a box, and the density's integral.
func TestLawsAgreeWithThePlainSumOverABox(t *testing.T) {
	for _, tc := range []struct {
		cfg            Config
		x0, x1, y0, y1 float64
		cells          int
	}{
		{Config{Dataset: "two_moons"}, -1.5, 2.5, -1, 1.5, 500},
		{Config{Dataset: "two_moons", Noise: new(0.3)}, -4, 5, -3.5, 4, 300},
		{Config{Dataset: "circle"}, -1.5, 1.5, -1.5, 1.5, 400},
		{Config{Dataset: "circle", Noise: new(1.0), Radius: new(0.5)}, -9, 9, -9, 9, 300},
		{Config{Dataset: "gaussian_mixture", Components: new(5), Std: new(0.3)}, -4, 4, -4, 4, 300},
		{Config{Dataset: "eight_gaussians", Std: new(0.1)}, -3, 3, -3, 3, 600},
		{Config{Dataset: "grid", PerDim: new(4), Noise: new(0.2)}, -3, 3, -3, 3, 400},
		{Config{Dataset: "mixture", Means: [][]float64{{-1, 0}, {1, 0.5}, {0, -1}}, Weights: []float64{2, 3, 5}, Std: new(0.4)}, -5, 5, -5, 5, 300},
		{Config{Dataset: "checkerboard", RangeLimit: new(2.5), Noise: new(0.1)}, -3.5, 3.5, -3.5, 3.5, 400},
	} {
		law := lawFor(t, tc.cfg)
		hx, hy := (tc.x1-tc.x0)/float64(tc.cells), (tc.y1-tc.y0)/float64(tc.cells)
		mass, entropy := 0.0, 0.0
		for i := range tc.cells {
			for j := range tc.cells {
				l := law.LogDensity([]float64{tc.x0 + hx*float64(i), tc.y0 + hy*float64(j)})
				if p := math.Exp(l) * hx * hy; p > 0 {
					mass += p
					entropy -= p * l
				}
			}
		}
		if math.Abs(mass-1) > 1e-6 {
			t.Errorf("%s: the density integrates to %.9f, want 1", tc.cfg.Dataset, mass)
		}
		if math.Abs(entropy-law.Entropy()) > 1e-6 {
			t.Errorf("%s: entropy %.9f, the plain sum gives %.9f", tc.cfg.Dataset, law.Entropy(), entropy)
		}
	}
}

func TestKnownEntropies(t *testing.T) {
	normal := func(std float64) float64 { return 1 + math.Log(2*math.Pi*std*std) } // two dimensions
	for _, tc := range []struct {
		name string
		cfg  Config
		want float64
		tol  float64
	}{
		// Also the plain sum's value, above. The 0.290 nats quoted for this law are this number, rounded upwards: the evenly
		// spaced angles of a finite set favour the ends of the arcs a little, by 0.0005 nats for 3000 rows.
		{"two moons", Config{Dataset: "two_moons"}, 0.28923, 1e-5},
		// Far apart, a mixture's entropy is that of its parts and of the choice among them.
		{"separate Gaussians", Config{Dataset: "eight_gaussians"}, math.Log(8) + normal(0.02), 1e-9},
		{"one Gaussian", Config{Dataset: "gaussian_mixture", Components: new(1)}, normal(0.05), 1e-9},
		{"separate grid points", Config{Dataset: "grid"}, math.Log(100) + normal(0.01), 1e-9},
		{"a grid of one point", Config{Dataset: "grid", PerDim: new(1)}, normal(0.01), 1e-9},
		{"all of one place", Config{Dataset: "gaussian_mixture", Radius: new(1e-9), Std: new(1.0)}, normal(1), 1e-9},
		{"two separate Gaussians on the line", Config{Dataset: "mixture", Means: [][]float64{{-6}, {6}}, Weights: []float64{0.3, 0.7}, Std: new(0.1)},
			-0.3*math.Log(0.3) - 0.7*math.Log(0.7) + normal(0.1)/2, 1e-9},
		{"two Gaussians in one place", Config{Dataset: "mixture", Means: [][]float64{{2}, {2}}, Weights: []float64{1, 3}}, normal(1) / 2, 1e-9},
		{"half of an 8 by 8 square", Config{Dataset: "checkerboard"}, math.Log(32), 1e-12},
		{"half a board that is no whole number wide", Config{Dataset: "checkerboard", RangeLimit: new(0.5)}, math.Log(0.5), 1e-12},
		{"a board much smaller than its noise", Config{Dataset: "checkerboard", RangeLimit: new(1e-4), Noise: new(1.0)}, normal(1), 1e-6},
		// A thin ring is a uniform angle times a normal radius.
		{"thin circle", Config{Dataset: "circle", Noise: new(1e-3)}, math.Log(2*math.Pi) + normal(1e-3)/2, 1e-6},
		{"circle much smaller than its noise", Config{Dataset: "circle", Radius: new(1e-6)}, normal(0.05), 1e-9},
		{"moons much smaller than their noise", Config{Dataset: "two_moons", Noise: new(1000.0)}, normal(1000), 1e-5},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := lawFor(t, tc.cfg).Entropy(); !(math.Abs(got-tc.want) <= tc.tol) {
				t.Errorf("entropy %.9g, want %.9g ± %g", got, tc.want, tc.tol)
			}
		})
	}
}

// Fresh rows must cost what the law says they cost: mean −log p is the entropy within its standard error.
func TestRowsFollowTheirLaw(t *testing.T) {
	for _, cfg := range []Config{
		{Dataset: "two_moons"}, {Dataset: "two_moons", Noise: new(0.3)}, {Dataset: "circle"}, {Dataset: "gaussian_mixture", Std: new(0.4)},
		{Dataset: "mixture", Means: [][]float64{{-6}, {6}}, Weights: []float64{3, 7}}, {Dataset: "mixture", Means: [][]float64{{-1, 0}, {1, 0}}, Std: new(0.3)},
		{Dataset: "eight_gaussians"}, {Dataset: "grid"}, {Dataset: "checkerboard"}, {Dataset: "checkerboard", Noise: new(0.05)},
	} {
		_, test, err := Load(cfg, 5, "")
		if err != nil {
			t.Fatal(err)
		}
		sum, squares := 0.0, 0.0
		for i := range test.N() {
			e := -test.Law.LogDensity(test.Row(i))
			sum += e
			squares += e * e
		}
		n := float64(test.N())
		mean := sum / n
		se := math.Sqrt(max(0, squares/n-mean*mean)/n) + 1e-9
		if math.Abs(mean-test.Law.Entropy()) > 5*se {
			t.Errorf("%s: mean −log p %.5f ± %.5f, entropy %.5f", cfg.Dataset, mean, se, test.Law.Entropy())
		}
	}
}

func TestMoonsDensityIsTheMeanOverManyPointsOfTheArcs(t *testing.T) {
	for _, sigma := range []float64{0.05, 0.4} {
		law := lawFor(t, Config{Dataset: "two_moons", Noise: new(sigma)})
		for _, x := range [][]float64{{0, 1}, {-1, 0}, {1.02, -0.03}, {0.5, 0.25}, {2, 0.5}, {-0.9, -0.3}, {0, 0}, {1.5, 0.9}, {0, -0.2}} {
			const n = 20000
			sum := 0.0
			for i := range n {
				sin, cos := math.Sincos(math.Pi * (float64(i) + 0.5) / n)
				for _, c := range [][2]float64{{cos, sin}, {1 - cos, 0.5 - sin}} {
					dx, dy := (x[0]-c[0])/sigma, (x[1]-c[1])/sigma
					sum += math.Exp(-(dx*dx+dy*dy)/2) / (2 * n)
				}
			}
			want := math.Log(sum / (2 * math.Pi * sigma * sigma))
			if got := law.LogDensity(x); math.Abs(got-want) > 1e-4 { // the sum is off by up to 3e-5 where the ends of the arcs are what counts
				t.Errorf("σ %g at %v: log density %.9g, want %.9g", sigma, x, got, want)
			}
		}
	}
}

func TestLogDensityFarAwayIsFinite(t *testing.T) {
	for _, cfg := range []Config{{Dataset: "two_moons"}, {Dataset: "circle"}, {Dataset: "eight_gaussians"}, {Dataset: "grid"}} {
		law := lawFor(t, cfg)
		near := law.LogDensity([]float64{30, -40})
		far := law.LogDensity([]float64{300, -400})
		if math.IsNaN(near) || math.IsInf(near, 0) || !(far < near) {
			t.Errorf("%s: log density %g at distance 50 and %g at 500", cfg.Dataset, near, far)
		}
	}
	if v := lawFor(t, Config{Dataset: "two_moons"}).LogDensity([]float64{0, 0}); math.IsNaN(v) || math.IsInf(v, 0) {
		t.Errorf("two moons at the centre of an arc: %g", v)
	}
}

func TestLawsThatAreUnknown(t *testing.T) {
	for _, cfg := range []Config{{Dataset: "swiss_roll"}, {Dataset: "pinwheel"}, {Dataset: "two_moons", Noise: new(0.0)}, {Dataset: "circle", Noise: new(0.0)}} {
		law := lawFor(t, cfg)
		if law != nil || !math.IsNaN(law.Entropy()) {
			t.Errorf("%s: law %v, want none", cfg.Dataset, law)
		}
	}
	points := lawFor(t, Config{Dataset: "grid", Noise: new(0.0)})
	if points.LogDensity != nil || !math.IsNaN(points.Entropy()) || len(points.Modes) != 100 || math.Abs(points.ModeRadius-1.0/9) > 1e-12 {
		t.Errorf("grid without noise: %+v, want 100 modes, radius 1/9, no density", points)
	}
}

func TestModes(t *testing.T) {
	law := lawFor(t, Config{Dataset: "eight_gaussians"})
	if len(law.Modes) != 8 || law.ModeWeights[3] != 0.125 || math.Abs(law.ModeRadius-0.08) > 1e-15 {
		t.Errorf("eight Gaussians: %d modes of weight %g, radius %g", len(law.Modes), law.ModeWeights[3], law.ModeRadius)
	}
	wide := lawFor(t, Config{Dataset: "gaussian_mixture", Std: new(1.0)})
	if want := math.Sin(math.Pi / 8); math.Abs(wide.ModeRadius-want) > 1e-12 {
		t.Errorf("overlapping mixture: radius %g, want half the distance of neighbours, %g", wide.ModeRadius, want)
	}
}

// The radius of a mode of the mixture leaves out as much of it in every dimension as four standard deviations do in the plane.
func TestModesOfTheMixture(t *testing.T) {
	for _, tc := range []struct {
		means [][]float64
		want  float64
	}{
		{[][]float64{{-60}, {60}}, 2 * 3.58625},             // 2(1 − Φ(3.58625)) = e⁻⁸
		{[][]float64{{-60, 0}, {60, 0}}, 2 * 4},             // exp(−4²/2) = e⁻⁸
		{[][]float64{{-60, 0}, {60, 0}, {60, 5}}, 2.5},      // half the distance of neighbours
		{[][]float64{{-60, 0, 0}, {60, 0, 0}}, 2 * 4.30930}, // of a χ law with three degrees of freedom
	} {
		law := lawFor(t, Config{Dataset: "mixture", Means: tc.means, Std: new(2.0)})
		if len(law.Modes) != len(tc.means) || math.Abs(law.ModeRadius-tc.want) > 1e-3 {
			t.Errorf("%v: %d modes of radius %g, want radius %g", tc.means, len(law.Modes), law.ModeRadius, tc.want)
		}
	}
	if h := lawFor(t, Config{Dataset: "mixture", Means: [][]float64{{0, 0, 0}}}).Entropy(); !math.IsNaN(h) {
		t.Errorf("entropy %g in three dimensions, want none", h)
	}
}

func TestBesselI0(t *testing.T) {
	// Abramowitz and Stegun, table 9.8 (e^−x I₀(x)), and the two branches where they meet.
	for _, tc := range []struct{ z, want float64 }{{0, 1}, {1, 0.4657596076}, {5, 0.1835408126}, {10, 0.1278333372}, {20, 0.0897803119}} {
		if got := math.Exp(logBesselI0(tc.z)); math.Abs(got-tc.want) > 1e-10 {
			t.Errorf("e^−z I₀(z) at %g: %.10f, want %.10f", tc.z, got, tc.want)
		}
	}
	if a, b := logBesselI0(30), logBesselI0(30+1e-9); math.Abs(a-b) > 1e-10 {
		t.Errorf("log I₀ jumps from %.15g to %.15g at 30", a, b)
	}
}
