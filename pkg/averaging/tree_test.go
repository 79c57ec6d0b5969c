package averaging_test

import (
	"math"
	"math/big"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
)

// TestSumRunsInATreeOverIDs takes numbers for which each order of additions gives another result: float64 loses a 1
// beside 2⁶⁰.
func TestSumRunsInATreeOverIDs(t *testing.T) {
	const huge = 0x1p60
	for _, tc := range []struct {
		name  string
		terms []float32 // NaN = missing
		want  float32
	}{
		{"(1 + 2⁶⁰) + (−2⁶⁰ + 1)", []float32{1, huge, -huge, 1}, 0},
		{"(1 + 1) + (2⁶⁰ − 2⁶⁰)", []float32{1, 1, huge, -huge}, 2},
		{"1 + (2⁶⁰ − 2⁶⁰) without id 1", []float32{1, missing, huge, -huge}, 1},
		{"(1 + 2⁶⁰) − 2⁶⁰ without id 2", []float32{1, huge, missing, -huge}, 0},
		{"2⁶⁰ − 2⁶⁰ of ids 0 and 7, then id 8", []float32{huge, missing, missing, missing, missing, missing, missing, -huge, 1}, 1},
		{"ids 4 and 5 before id 0", []float32{1, missing, missing, missing, huge, -huge}, 1},
		{"one", []float32{3}, 3},
		{"none there", []float32{missing, missing, missing}, 0},
		{"none", nil, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := []float32{-1}
			averaging.Sum(got, vectorsOf(tc.terms))
			if got[0] != tc.want {
				t.Errorf("sum %g, want %g", got[0], tc.want)
			}
		})
	}
}

var missing = float32(math.NaN())

func vectorsOf(terms []float32) [][]float32 {
	vectors := make([][]float32, len(terms))
	for i, x := range terms {
		if x == x {
			vectors[i] = []float32{x}
		}
	}
	return vectors
}

func TestMeanKnownAnswers(t *testing.T) {
	for _, tc := range []struct {
		name    string
		terms   []float32
		weights []int
		want    float32
	}{
		{"equal weights", []float32{1, 2, 6}, nil, 3},
		{"weights", []float32{1, 5}, []int{3, 1}, 2},
		{"a group without chains counts nothing", []float32{1, 5, 100}, []int{3, 1, 0}, 2},
		{"groups without chains, all of them", []float32{1, 5}, []int{0, 0}, 3},
		{"a missing group's weight counts nothing", []float32{1, missing, 5}, []int{1, 100, 1}, 3},
		{"only groups without chains are there", []float32{1, missing, 5}, []int{0, 100, 0}, 3},
		{"no overflow on the way", []float32{math.MaxFloat32, math.MaxFloat32, math.MaxFloat32}, []int{9, 9, 9}, math.MaxFloat32},
	} {
		got := []float32{-1}
		if err := averaging.Mean(got, vectorsOf(tc.terms), tc.weights); err != nil || got[0] != tc.want {
			t.Errorf("%s: mean %g, %v, want %g", tc.name, got[0], err, tc.want)
		}
	}
	one := []float32{0}
	for name, err := range map[string]error{
		"no vectors":      averaging.Mean(one, [][]float32{nil, nil}, nil),
		"negative weight": averaging.Mean(one, [][]float32{{1}, {2}}, []int{1, -1}),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestMeanOfEqualVectorsIsThatVector(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := rapid.SliceOfN(rapid.Float32(), 1, 8).Draw(t, "x")
		groups := rapid.IntRange(1, 9).Draw(t, "groups")
		weights := rapid.SliceOfN(rapid.IntRange(0, 1<<25), groups, groups).Draw(t, "weights")
		vectors := slices.Repeat([][]float32{x}, groups)
		got := make([]float32, len(x))
		for _, w := range [][]int{weights, nil} {
			if err := averaging.Mean(got, vectors, w); err != nil {
				t.Fatal(err)
			}
			for i := range x {
				if math.Float32bits(got[i]) != math.Float32bits(x[i]) {
					t.Fatalf("element %d: mean of %d times %g is %g", i, groups, x[i], got[i])
				}
			}
		}
	})
}

// TestMeanIsTheExactMeanRounded compares with rational arithmetic. Up to 16 terms within a factor 2⁴⁰ of each other lose at
// most a few 2⁻⁵³ of the largest on the way, so that the one rounding to float32 is all: less than one unit in the last place.
func TestMeanIsTheExactMeanRounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		terms := rapid.SliceOfN(rapid.Float32Range(0x1p-20, 0x1p20), 1, 16).Draw(t, "terms")
		weights := rapid.SliceOfN(rapid.IntRange(1, 1000), len(terms), len(terms)).Draw(t, "weights")
		got := []float32{0}
		if err := averaging.Mean(got, vectorsOf(terms), weights); err != nil {
			t.Fatal(err)
		}
		sum, total := new(big.Rat), new(big.Rat)
		for i, x := range terms {
			w := new(big.Rat).SetInt64(int64(weights[i]))
			sum.Add(sum, new(big.Rat).Mul(w, new(big.Rat).SetFloat64(float64(x))))
			total.Add(total, w)
		}
		exact, _ := sum.Quo(sum, total).Float64()
		if ulp := float64(math.Nextafter32(got[0], math.MaxFloat32) - got[0]); math.Abs(float64(got[0])-exact) > 0.501*ulp {
			t.Fatalf("mean %v, want %v", got[0], exact)
		}
	})
}

// TestLongVectorsAreSummedElementByElement crosses the borders of what is summed at a time.
func TestLongVectorsAreSummedElementByElement(t *testing.T) {
	const n, groups = 2*1024 + 300, 5
	vectors := make([][]float32, groups)
	for g := range vectors {
		if g != 2 {
			vectors[g] = normals(n, uint64(g))
		}
	}
	got := make([]float32, n)
	averaging.Sum(got, vectors)
	for i := range got {
		column := make([][]float32, groups)
		for g, v := range vectors {
			if v != nil {
				column[g] = v[i : i+1]
			}
		}
		want := []float32{0}
		averaging.Sum(want, column)
		if got[i] != want[0] {
			t.Fatalf("element %d: %g, alone %g", i, got[i], want[0])
		}
	}
}

func TestVectorsOfOtherLengthsPanic(t *testing.T) {
	for name, f := range map[string]func(){
		"sum":     func() { averaging.Sum(make([]float32, 2), [][]float32{{1}}) },
		"weights": func() { _ = averaging.Mean(make([]float32, 1), [][]float32{{1}}, []int{1, 2}) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}
