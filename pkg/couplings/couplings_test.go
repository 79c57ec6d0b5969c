package couplings

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"

	"gonum.org/v1/gonum/floats"
)

func ExampleConfig_Build() {
	c, err := Config{Kind: "exact_ot"}.Build()
	if err != nil {
		panic(err)
	}
	noise, data, labels := []float64{-1, 0, 1}, []float64{4, -4, 0.5}, []string{"right", "left", "middle"}
	p, err := c.Pair(noise, data, 1, nil)
	if err != nil {
		panic(err)
	}
	fmt.Println(Take(data, 1, p.Index), Take(labels, 1, p.Index))
	// Output: [-4 0.5 4] [left middle right]
}

func ExampleReflow() {
	// A trained flow in real use; here x₁ = 2x₀ + 1.
	flow := func(x0 []float64, dim int) ([]float64, error) {
		out := make([]float64, len(x0))
		for i, v := range x0 {
			out[i] = 2*v + 1
		}
		return out, nil
	}
	p, err := NewReflow(flow).Pair([]float64{-1, 0, 3}, nil, 1, nil)
	if err != nil {
		panic(err)
	}
	fmt.Println(p.Data)
	// Output: [-1 1 7]
}

func ExampleSinkhorn_Plan() {
	s, err := NewSinkhorn(0.05, 100)
	if err != nil {
		panic(err)
	}
	plan, err := s.Plan([]float64{0, 1}, []float64{1, 0}, 1)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%.3f\n", plan)
	// Output: [0.000 0.500 0.500 0.000]
}

// normals are n rows of standard normal numbers.
func normals(seed uint64, n, dim int) []float64 {
	return rng.New(seed, rng.Dataset, 0, 0).Normals(n * dim)
}

func uniforms(seed uint64) func() float64 { return rng.New(seed, rng.Coupling, 0, 0).Float64 }

func build(t testing.TB, cfg Config) Coupling {
	t.Helper()
	c, err := cfg.Build()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func pair(t testing.TB, c Coupling, x0, x1 []float64, dim int) Pairing {
	t.Helper()
	p, err := c.Pair(x0, x1, dim, uniforms(1))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func isPermutation(index []int) bool {
	return slices.Equal(slices.Sorted(slices.Values(index)), identity(len(index)))
}

// What every kind promises, on batches of one, of equal rows, and of any rows.
func TestContract(t *testing.T) {
	const dim = 3
	for _, kind := range KindNames() {
		t.Run(kind, func(t *testing.T) {
			c := build(t, Config{Kind: kind})
			for name, batch := range map[string][2][]float64{
				"one row":        {normals(1, 1, dim), normals(2, 1, dim)},
				"any rows":       {normals(1, 40, dim), normals(2, 40, dim)},
				"large numbers":  {scaled(1e150, normals(1, 40, dim)), scaled(1e150, normals(2, 40, dim))},
				"small numbers":  {scaled(1e-200, normals(1, 40, dim)), scaled(1e-200, normals(2, 40, dim))},
				"equal rows":     {make([]float64, 40*dim), make([]float64, 40*dim)},
				"one data point": {normals(1, 40, dim), slices.Repeat(normals(2, 1, dim), 40)},
			} {
				x0, x1 := slices.Clone(batch[0]), slices.Clone(batch[1])
				p := pair(t, c, x0, x1, dim)
				if !slices.Equal(x0, batch[0]) || !slices.Equal(x1, batch[1]) {
					t.Errorf("%s: Pair changed its rows", name)
				}
				n := len(x0) / dim
				draws := strings.HasSuffix(kind, "sinkhorn")
				if len(p.Index) != n || slices.Min(p.Index) < 0 || slices.Max(p.Index) >= n || !draws && !isPermutation(p.Index) {
					t.Errorf("%s: index %v of %d rows", name, p.Index, n)
				}
				if p.Data != nil || (p.Weights != nil) != (kind == "unbalanced_sinkhorn") {
					t.Errorf("%s: data %v, weights %v", name, p.Data, p.Weights)
				}
				if p.Weights != nil && (math.Abs(floats.Sum(p.Weights)/float64(n)-1) > 1e-12 || floats.Min(p.Weights) < 0) {
					t.Errorf("%s: weights %v, want none negative and mean 1", name, p.Weights)
				}
				again := pair(t, c, x0, x1, dim)
				if !slices.Equal(p.Index, again.Index) || !slices.Equal(p.Weights, again.Weights) {
					t.Errorf("%s: two calls differ", name)
				}
			}
		})
	}
}

func scaled(factor float64, rows []float64) []float64 {
	floats.Scale(factor, rows)
	return rows
}

func TestBadRows(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, tc := range []struct {
		name   string
		x0, x1 []float64
		dim    int
		want   string
	}{
		{"no rows", nil, nil, 2, "couplings: 0 numbers of noise in rows of 2, want at least one full row"},
		{"part of a row", []float64{1, 2, 3}, []float64{1, 2, 3}, 2, "couplings: 3 numbers of noise in rows of 2"},
		{"no columns", []float64{1}, []float64{1}, 0, "couplings: 1 numbers of noise in rows of 0"},
		{"fewer data", []float64{1, 2, 3, 4}, []float64{1, 2}, 2, "couplings: 2 numbers of data for 4 of noise, want as many"},
		{"not a number", []float64{1, 2, 3, nan}, []float64{1, 2, 3, 4}, 2, "couplings: noise row 1, column 1 is NaN, want finite numbers"},
		{"infinite", []float64{1, 2, 3, 4}, []float64{1, 2, inf, 4}, 2, "couplings: data row 1, column 0 is +Inf, want finite numbers"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, kind := range KindNames() {
				for _, within := range []bool{false, true} {
					c := build(t, Config{Kind: kind})
					_, err := c.Pair(tc.x0, tc.x1, tc.dim, uniforms(1))
					if within {
						_, err = PairWithinClasses(c, tc.x0, tc.x1, tc.dim, make([]int, 2), uniforms(1))
					}
					if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
						t.Errorf("%s: %v, want %s", kind, err, tc.want)
					}
				}
			}
		})
	}
	huge := []float64{1e200, 0}
	want := "couplings: the distance of noise row 0 and data row 1 overflows"
	if _, err := (Greedy{}).Pair(huge, huge, 1, nil); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("overflow: %v, want %s", err, want)
	}
}

// A label goes with its row whatever the coupling does, and stays in place within classes.
func TestLabelsFollowTheirRows(t *testing.T) {
	const n, dim = 60, 2
	x0, x1 := normals(1, n, dim), normals(2, n, dim)
	labels := make([]int, n)
	for i := range labels {
		labels[i] = i * i % 7 // 0, 1, 2 and 4, not equally often
		x1[i*dim] += 10 * float64(labels[i])
	}
	labelOf := map[float64]int{}
	for i, label := range labels {
		labelOf[x1[i*dim]] = label
	}
	for _, kind := range KindNames() {
		c := build(t, Config{Kind: kind})
		p := pair(t, c, x0, x1, dim)
		rows, moved := Take(x1, dim, p.Index), Take(labels, 1, p.Index)
		for i := range n {
			if labelOf[rows[i*dim]] != moved[i] {
				t.Fatalf("%s: row %d has label %d, want %d", kind, i, moved[i], labelOf[rows[i*dim]])
			}
		}
		p, err := PairWithinClasses(c, x0, x1, dim, labels, uniforms(1))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(Take(labels, 1, p.Index), labels) {
			t.Errorf("%s: within classes the labels move", kind)
		}
		if kind == "exact_ot" && !isPermutation(p.Index) {
			t.Errorf("within classes: %v is no permutation", p.Index)
		}
		if p.Weights != nil && math.Abs(floats.Sum(p.Weights)-n) > 1e-9 {
			t.Errorf("within classes: weights with mean %g, want 1", floats.Sum(p.Weights)/n)
		}
	}
	if _, err := PairWithinClasses(ExactOT{}, x0, x1, dim, labels[1:], nil); err == nil || err.Error() != "couplings: 59 labels for 60 rows, want one a row" {
		t.Errorf("one label short: %v", err)
	}
}

// With one class apart from the other, transport across classes sends noise on the left to the class on the left, so the
// noise of a label is half a normal; within classes it stays the whole one.
func TestNoiseOfAClassStaysNormal(t *testing.T) {
	const n = 400
	x0, x1, labels := normals(1, n, 1), normals(2, n, 1), make([]int, n)
	for i := range labels {
		labels[i] = i % 2
		x1[i] += 20 * float64(labels[i])
	}
	meanOfClass0 := func(labels []int) float64 {
		sum, count := 0.0, 0.0
		for i, label := range labels {
			if label == 0 {
				sum, count = sum+x0[i], count+1
			}
		}
		return sum / count
	}
	across := pair(t, ExactOT{}, x0, x1, 1)
	// The lower half of a normal has mean −√(2/π) ≈ −0.80; the mean of 200 normals has standard error 0.07.
	if m := meanOfClass0(Take(labels, 1, across.Index)); m > -0.5 {
		t.Errorf("across classes: mean of the noise %g, want about -0.8", m)
	}
	within, err := PairWithinClasses(ExactOT{}, x0, x1, 1, labels, nil)
	if err != nil {
		t.Fatal(err)
	}
	if m := meanOfClass0(Take(labels, 1, within.Index)); math.Abs(m) > 0.3 {
		t.Errorf("within classes: mean of the noise %g, want about 0", m)
	}
}

func TestReflowErrors(t *testing.T) {
	for _, tc := range []struct {
		name string
		data []float64
		err  error
		want string
	}{
		{"flow fails", nil, errors.New("step 3: not finite"), "couplings: reflow: step 3: not finite"},
		{"other size", []float64{1}, nil, "couplings: reflow: 1 numbers of data for 2 of noise"},
		{"not a number", []float64{1, math.NaN()}, nil, "couplings: reflow: data row 1, column 0 is NaN"},
	} {
		r := NewReflow(func([]float64, int) ([]float64, error) { return tc.data, tc.err })
		if _, err := r.Pair([]float64{1, 2}, nil, 1, nil); err == nil || !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %s", tc.name, err, tc.want)
		}
	}
	r := NewReflow(func(x []float64, _ int) ([]float64, error) { return x, nil })
	if _, err := PairWithinClasses(r, []float64{1}, []float64{1}, 1, []int{0}, nil); err == nil {
		t.Error("reflow within classes passes, want an error")
	}
}

func TestValidate(t *testing.T) {
	for _, tc := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"no kind", Config{}, `kind: "", want one of independent, exact_ot, sinkhorn, unbalanced_sinkhorn, greedy`},
		{"unknown kind", Config{Kind: "emd"}, `kind: "emd", want one of independent`},
		{"option of another kind", Config{Kind: "ot", Reg: new(0.1)}, "reg: not an option of kind exact_ot, want one of kind, within_classes"},
		{"classes of independent", Config{Kind: "independent", WithinClasses: new(true)}, "within_classes: not an option of kind independent"},
		{"all at once", Config{Kind: "unbalanced_sinkhorn", Reg: new(0.0), RegMarginal: new(math.NaN()), Iterations: new(0)},
			"reg: 0, want a finite number above 0\nreg_marginal: NaN, want a finite number above 0\niterations: 0, want at least 1"},
		{"infinite", Config{Kind: "sinkhorn", Reg: new(math.Inf(1))}, "reg: +Inf, want a finite number above 0"},
	} {
		err := tc.cfg.Validate()
		if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %s", tc.name, err, tc.want)
		}
		if _, err := tc.cfg.Build(); err == nil {
			t.Errorf("%s: Build takes what Validate refuses", tc.name)
		}
	}
	if c, ok := build(t, Config{Kind: "ot"}).(ExactOT); !ok {
		t.Errorf("ot is %T, want ExactOT", c)
	}
	for _, k := range Kinds() {
		full := Config{Kind: k.Name}.WithDefaults()
		if full.Classwise() || !(Config{WithinClasses: new(true)}).Classwise() {
			t.Errorf("%s: within_classes is off by default, and on where it is set", k.Name)
		}
		if err := full.Validate(); err != nil || k.Doc == "" || k.Formula == "" || k.Source == "" {
			t.Errorf("%s: %+v: %v", k.Name, k, err)
		}
	}
}

// No input makes a coupling panic or answer with an index out of range.
func FuzzPair(f *testing.F) {
	f.Add(uint8(2), []byte{1, 2, 3, 4, 5, 6, 7, 8})
	f.Add(uint8(1), []byte{0, 0, 0, 0})
	f.Add(uint8(0), []byte{})
	f.Add(uint8(3), []byte{9, 255, 9, 255, 9})
	f.Fuzz(func(t *testing.T, dim uint8, raw []byte) {
		// Few different values, so that ties are common; 254 and 255 are no numbers.
		values := make([]float64, min(len(raw), 64))
		for i := range values {
			values[i] = float64(raw[i] % 16)
			switch raw[i] {
			case 254:
				values[i] = math.Inf(-1)
			case 255:
				values[i] = math.NaN()
			}
		}
		x0, x1 := values[:len(values)/2], values[len(values)/2:]
		for _, kind := range KindNames() {
			p, err := build(t, Config{Kind: kind}).Pair(x0, x1, int(dim), uniforms(1))
			if err != nil {
				continue
			}
			if len(p.Index)*int(dim) != len(x0) || slices.Min(p.Index) < 0 || slices.Max(p.Index) >= len(p.Index) {
				t.Errorf("%s: index %v for %d numbers in rows of %d", kind, p.Index, len(x0), dim)
			}
		}
	})
}
