package datasets

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
)

func ExampleLoad() {
	train, test, err := Load(Config{Dataset: "two_moons", Samples: new(3000)}, 7, ".")
	if err != nil {
		panic(err)
	}
	fmt.Println(train.N(), test.N(), train.Shape)
	fmt.Printf("entropy %.4f nats\n", train.Law.Entropy())
	// Output:
	// 3000 20000 [2]
	// entropy 0.2892 nats
}

func TestLoadIsAFunctionOfTheSeed(t *testing.T) {
	for _, k := range Kinds() {
		if k.Params[0].Key == "path" {
			continue
		}
		load := func(cfg Config, seed uint64) (*Dataset, *Dataset) {
			cfg.Dataset, cfg.TestSamples = k.Name, new(100)
			if k.Name == "mixture" {
				cfg.Means = [][]float64{{0, 1}, {2, 3}}
			}
			train, test, err := Load(cfg, seed, "")
			if err != nil {
				t.Fatal(err)
			}
			return train, test
		}
		a, aTest := load(Config{}, 1)
		b, bTest := load(Config{}, 1)
		if !slices.Equal(a.Rows, b.Rows) || !slices.Equal(aTest.Rows, bTest.Rows) {
			t.Errorf("%s: two loads with one seed differ", k.Name)
		}
		if c, _ := load(Config{}, 2); slices.Equal(a.Rows, c.Rows) {
			t.Errorf("%s: seeds 1 and 2 give the same rows", k.Name)
		}
		if c, _ := load(Config{Seed: new(uint64(1))}, 2); !slices.Equal(a.Rows, c.Rows) {
			t.Errorf("%s: data.seed does not win over the experiment's", k.Name)
		}
		if slices.Equal(a.Rows[:20], aTest.Rows[:20]) {
			t.Errorf("%s: the test set repeats the training set", k.Name)
		}
		if want := 2000; k.Name != "grid" && a.N() != want || aTest.N() != 100 || a.Dim != 2 {
			t.Errorf("%s: %d and %d rows of %d numbers", k.Name, a.N(), aTest.N(), a.Dim)
		}
		if a.Labels != nil && len(a.Labels) != a.N() {
			t.Errorf("%s: %d labels", k.Name, len(a.Labels))
		}
	}
}

func TestLabelsFollowTheirRows(t *testing.T) {
	train, _, err := Load(Config{Dataset: "gaussian_mixture", Samples: new(403)}, 3, "")
	if err != nil {
		t.Fatal(err)
	}
	counts := make([]int, 8)
	for i, label := range train.Labels {
		c := train.Law.Modes[label]
		if d := math.Hypot(train.Row(i)[0]-c[0], train.Row(i)[1]-c[1]); d > 0.35 {
			t.Fatalf("row %d is %g away from the centre of its label %d", i, d, label)
		}
		counts[label]++
	}
	if want := []int{51, 51, 51, 50, 50, 50, 50, 50}; !slices.Equal(counts, want) {
		t.Errorf("component counts %v, want %v", counts, want)
	}
}

// Rows of the mixture are drawn one by one: the shares of the components and the moments of each are those asked for, within
// five standard errors, in any dimension.
func TestMixtureHasItsMassesAndItsWidth(t *testing.T) {
	const n, std = 20000, 0.5
	means, weights := [][]float64{{-6, 0, 1}, {6, 2, 1}}, []float64{3, 7}
	train, test, err := Load(Config{Dataset: "mixture", Samples: new(n), TestSamples: new(10), Means: means, Weights: weights, Std: new(std)}, 3, "")
	if err != nil {
		t.Fatal(err)
	}
	if train.N() != n || test.N() != 10 || train.Dim != 3 || !slices.Equal(train.Shape, []int{3}) || !slices.Equal(train.Law.ModeWeights, []float64{0.3, 0.7}) {
		t.Errorf("%d and %d rows of %d numbers, masses %v", train.N(), test.N(), train.Dim, train.Law.ModeWeights)
	}
	var count [2]float64
	var sum, squares [2][3]float64
	for i, k := range train.Labels {
		count[k]++
		for j, v := range train.Row(i) {
			sum[k][j] += v - means[k][j]
			squares[k][j] += (v - means[k][j]) * (v - means[k][j])
		}
	}
	if se := math.Sqrt(0.3 * 0.7 / n); math.Abs(count[0]/n-0.3) > 5*se {
		t.Errorf("share of the first component %g, want 0.3 ± %g", count[0]/n, 5*se)
	}
	for k := range means {
		for j := range 3 {
			mean, sd := sum[k][j]/count[k], math.Sqrt(squares[k][j]/count[k])
			if math.Abs(mean) > 5*std/math.Sqrt(count[k]) || math.Abs(sd/std-1) > 5/math.Sqrt(2*count[k]) {
				t.Errorf("component %d, coordinate %d: mean %g off, standard deviation %g, want 0 and %g", k, j, mean, sd, std)
			}
		}
	}
}

func TestSwissRollKeepsItsScaling(t *testing.T) {
	train, test, err := Load(Config{Dataset: "swiss_roll"}, 4, "")
	if err != nil {
		t.Fatal(err)
	}
	raw := test.Raw(test.Rows)
	for i := range test.N() {
		// Without the scaling a point lies on t(cos t, sin t): its distance from 0 is its angle, up to turns and noise.
		r, angle := math.Hypot(raw[2*i], raw[2*i+1]), math.Atan2(raw[2*i+1], raw[2*i])
		turns := (r - angle) / (2 * math.Pi)
		if math.Abs(turns-math.Round(turns)) > 0.06 {
			t.Fatalf("row %d is %g turns off the roll", i, turns-math.Round(turns))
		}
	}
	if !reflect.DeepEqual(train.Affine, test.Affine) {
		t.Errorf("training and test set are scaled differently")
	}
}

func TestValidate(t *testing.T) {
	for _, tc := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"no dataset", Config{}, `dataset: "", want one of two_moons, gaussian_mixture, eight_gaussians, swiss_roll, circle, checkerboard, pinwheel, grid, mixture, npz, npy, idx, images, csv`},
		{"unknown dataset", Config{Dataset: "moons"}, `dataset: "moons", want one of two_moons, `},
		{"negative noise", Config{Dataset: "grid", Noise: new(-0.1)}, "noise: -0.1, want a finite number of at least 0"},
		{"NaN", Config{Dataset: "two_moons", Noise: new(math.NaN())}, "noise: NaN, want a finite number of at least 0"},
		{"infinite", Config{Dataset: "pinwheel", SpiralScale: new(math.Inf(1))}, "spiral_scale: +Inf, want a finite number"},
		{"no rows", Config{Dataset: "circle", Samples: new(0)}, "samples: 0, want a whole number from 1 to 100000000"},
		{"one roll row", Config{Dataset: "swiss_roll", Samples: new(1)}, "samples: 1, want a whole number from 2 to"},
		{"zero radius", Config{Dataset: "circle", Radius: new(0.0)}, "radius: 0, want a finite number above 0"},
		{"no centres", Config{Dataset: "mixture"}, "means: missing, want points of finite coordinates"},
		{"ragged centres", Config{Dataset: "mixture", Means: [][]float64{{0}, {1, 2}}}, "means: [[0] [1 2]], want points"},
		{"a centre at infinity", Config{Dataset: "mixture", Means: [][]float64{{math.Inf(1)}}}, "means: [[+Inf]], want points"},
		{"a centre without coordinates", Config{Dataset: "mixture", Means: [][]float64{{}}}, "means: [[]], want points"},
		{"a mass of zero", Config{Dataset: "mixture", Means: [][]float64{{0}, {1}}, Weights: []float64{1, 0}}, "weights: [1 0], want positive numbers"},
		{"masses and no width", Config{Dataset: "mixture", Means: [][]float64{{0}, {1}}, Weights: []float64{1}, Std: new(0.0)},
			"std: 0, want a finite number above 0\nweights: 1 numbers, want 2 as there are means"},
		{"another set's key", Config{Dataset: "two_moons", Components: new(3)}, "components: not a key of dataset two_moons, want one of samples, noise, test_samples, seed"},
		{"samples of a grid", Config{Dataset: "grid", Samples: new(100)}, "samples: not a key of dataset grid"},
		{"no path", Config{Dataset: "npz"}, "path: missing, want a file name"},
		{"labels of npy", Config{Dataset: "npy", Path: "x.npy", Labels: "y"}, "labels: not a key of dataset npy"},
		{"labels are the data", Config{Dataset: "npz", Path: "x", Array: "a", Labels: "a"}, `labels: "a" is the array of the data`},
		{"divide", Config{Dataset: "npz", Path: "x", Divide: new(0.0)}, "divide: 0, want a finite number above 0"},
		{"dequantise", Config{Dataset: "npz", Path: "x", Dequantise: "normal"}, `dequantise: "normal", want none or uniform`},
		{"test fraction", Config{Dataset: "npz", Path: "x", TestFraction: new(1.0)}, "test_fraction: 1, want a share in [0, 1)"},
		{"several at once", Config{Dataset: "circle", Noise: new(-1.0), Radius: new(-2.0)}, "noise: -1, want a finite number of at least 0\nradius: -2, want"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := tc.cfg.Validate()
			if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("got %v, want %s…", err, tc.want)
			}
			if _, _, loadErr := Load(tc.cfg, 1, ""); loadErr == nil {
				t.Error("Load takes what Validate refuses")
			}
		})
	}
}

// Every kind's defaults pass its own checks, and every key of the section belongs to some kind and the other way round.
func TestKindsAndConfigAgree(t *testing.T) {
	used := map[string]bool{}
	for _, k := range Kinds() {
		cfg := Config{Dataset: k.Name}
		for _, p := range k.Params {
			used[p.Key] = true
			if p.Required && p.Key == "means" {
				cfg.Means = [][]float64{{1}}
			} else if p.Required {
				cfg.Path = "x"
			}
			if p.Doc == "" || p.Want == "" {
				t.Errorf("%s.%s: no documentation", k.Name, p.Key)
			}
		}
		full := cfg.WithDefaults()
		if err := full.Validate(); err != nil {
			t.Errorf("%s: defaults: %v", k.Name, err)
		}
		full.keys(func(key string, field reflect.Value) {
			for _, p := range k.Params {
				if p.Key == key && p.Default != nil && field.IsZero() {
					t.Errorf("%s.%s: the default is not written in", k.Name, key)
				}
			}
		})
	}
	(&Config{}).keys(func(key string, _ reflect.Value) {
		if !used[key] {
			t.Errorf("%s: a key of no dataset", key)
		}
		delete(used, key)
	})
	for key := range used {
		t.Errorf("%s: a parameter without a key", key)
	}
}

func TestBatcherStringsEpochsTogether(t *testing.T) {
	for _, tc := range []struct{ n, batch int }{{10, 3}, {10, 10}, {7, 20}, {1, 1}, {5, 1}} {
		b := NewBatcher(tc.n, tc.batch, 9)
		var all []int
		for step := range 40 {
			got := b.Indices(step)
			if len(got) != tc.batch {
				t.Fatalf("%+v: %d indices", tc, len(got))
			}
			all = append(all, got...)
		}
		for epoch := 0; (epoch+1)*tc.n <= len(all); epoch++ {
			part := slices.Sorted(slices.Values(all[epoch*tc.n : (epoch+1)*tc.n]))
			for i, v := range part {
				if v != i {
					t.Fatalf("%+v: epoch %d holds %v", tc, epoch, part)
				}
			}
		}
		// The same from any step, in any order, and from another batcher.
		other := NewBatcher(tc.n, tc.batch, 9)
		for _, step := range []int{33, 2, 39, 0, 17} {
			if !slices.Equal(other.Indices(step), all[step*tc.batch:(step+1)*tc.batch]) {
				t.Errorf("%+v: step %d depends on the steps before it", tc, step)
			}
		}
	}
	b := NewBatcher(100, 30, 1)
	if slices.Equal(b.Indices(0), NewBatcher(100, 30, 2).Indices(0)) {
		t.Error("the order does not depend on the seed")
	}
	if b.Epoch(3) != 0 || b.Epoch(4) != 1 || b.Steps(3) != 10 || b.Steps(1) != 4 {
		t.Errorf("epochs of steps 3 and 4: %d and %d; steps of 3 and 1 epochs: %d and %d", b.Epoch(3), b.Epoch(4), b.Steps(3), b.Steps(1))
	}
}

func TestDigits(t *testing.T) {
	cfg := Config{Dataset: "npz", Path: "examples/data/digits.npz", Array: "images", Labels: "labels", Dequantise: "uniform", Divide: new(17.0)}
	train, test, err := Load(cfg, 7, testutil.Root())
	if err != nil {
		t.Fatal(err)
	}
	if train.N() != 1438 || test.N() != 359 || train.Dim != 64 || !slices.Equal(train.Shape, []int{8, 8}) || train.Name != "digits.npz" {
		t.Fatalf("%s: %d and %d rows of shape %v", train.Name, train.N(), test.N(), train.Shape)
	}
	if lo, hi := slices.Min(train.Rows), slices.Max(train.Rows); lo < 0 || hi >= 1 {
		t.Errorf("values from %g to %g, want them in [0, 1)", lo, hi)
	}
	counts := make([]int, 10)
	for _, d := range []*Dataset{train, test} {
		for _, l := range d.Labels {
			counts[l]++
		}
	}
	if want := []int{178, 182, 177, 183, 181, 182, 181, 179, 174, 180}; !slices.Equal(counts, want) {
		t.Errorf("digits %v, want %v", counts, want)
	}
	plain := cfg
	plain.Dequantise, plain.Divide = "", nil
	whole, _, err := Load(plain, 7, testutil.Root())
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range train.Raw(train.Rows) {
		if d := v - whole.Rows[i]; d < -1e-9 || d > 1 {
			t.Fatalf("number %d: %g from the file became %g, want it raised by less than 1", i, whole.Rows[i], v)
		}
	}
}
