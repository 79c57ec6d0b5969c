package diagnostics

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

func ExampleFrechetDistance() {
	near, far := normals(1, 2000, []float64{0, 0}, 1), normals(2, 2000, []float64{3, 0}, 1)
	d, err := FrechetDistance(far, near, 2, FrechetOptions{})
	if err != nil {
		panic(err)
	}
	fmt.Printf("%.0f, and %.2f for equal laws\n", d.Squared, d.Null)
	// Output: 9, and 0.00 for equal laws
}

// star is a set whose mean is mean and whose covariance is exactly diag(variances): two points on each axis.
func star(mean, variances []float64) []float64 {
	dim := len(mean)
	n := float64(2 * dim)
	var rows []float64
	for axis := range dim {
		for _, sign := range []float64{-1, 1} {
			for j := range dim {
				v := mean[j]
				if j == axis {
					v += sign * math.Sqrt(variances[j]*(n-1)/2)
				}
				rows = append(rows, v)
			}
		}
	}
	return rows
}

// mapped takes rows [n, 2] through a matrix.
func mapped(rows []float64, m [2][2]float64) []float64 {
	out := make([]float64, len(rows))
	for i := 0; i < len(rows); i += 2 {
		out[i] = m[0][0]*rows[i] + m[0][1]*rows[i+1]
		out[i+1] = m[1][0]*rows[i] + m[1][1]*rows[i+1]
	}
	return out
}

func TestFrechetDistanceIsKnown(t *testing.T) {
	zero := []float64{0, 0}
	for _, tc := range []struct {
		name       string
		a, b       []float64
		dim        int
		mean, cova float64
	}{
		{"means", star([]float64{1, 2, 3}, []float64{1, 1, 1}), star([]float64{1, 0, 0}, []float64{1, 1, 1}), 3, 13, 0},
		{"diagonal covariances", star(zero, []float64{4, 9}), star(zero, []float64{1, 25}), 2, 0, 1 + 4}, // (2−1)² + (3−5)²
		{"both", star([]float64{0.5, 0}, []float64{4, 1}), star(zero, []float64{0, 1}), 2, 0.25, 4},
		{"a point and a cloud", star(zero, []float64{0, 0}), star(zero, []float64{2, 3}), 2, 0, 5},
		{"lines that cross", star(zero, []float64{4, 0}), star(zero, []float64{0, 9}), 2, 0, 13}, // nothing in common: the traces
		// Ca = diag(4, 1), Cb = [[2, 1], [1, 1]]: tr(CaCb) = 9, det = 4, and a 2×2 root has trace √(tr + 2√det) = √13.
		{"covariances that do not commute", star(zero, []float64{4, 1}), mapped(star(zero, []float64{1, 1}), [2][2]float64{{1, 1}, {0, 1}}), 2, 0, 5 + 3 - 2*math.Sqrt(13)},
		{"fewer rows than columns", []float64{0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0}, []float64{0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0}, 5,
			5, 4.0/3 + 16.0/3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, pair := range [][2][]float64{{tc.a, tc.b}, {tc.b, tc.a}} {
				got, err := FrechetDistance(pair[0], pair[1], tc.dim, FrechetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if math.Abs(got.Mean-tc.mean) > 1e-13 || math.Abs(got.Covariance-tc.cova) > 1e-13 || got.Squared != got.Mean+got.Covariance {
					t.Errorf("%+v, want %g + %g", got, tc.mean, tc.cova)
				}
			}
		})
	}
}

// A set against itself is at distance 0, in any rank: the root of a singular covariance would leave 1e-8 here.
func TestFrechetDistanceOfEqualSets(t *testing.T) {
	full := normals(3, 500, make([]float64, 10), 1)
	flat := normals(3, 500, make([]float64, 10), 1)
	for i := range flat {
		if i%10 > 2 {
			flat[i] = flat[i-i%10] - 2*flat[i-i%10+1] // three dimensions out of ten
		}
	}
	for name, rows := range map[string][]float64{"full rank": full, "rank three": flat, "few rows": full[:60]} {
		got, err := FrechetDistance(rows, rows, 10, FrechetOptions{})
		if err != nil || got.Squared > 1e-12 {
			t.Errorf("%s: %+v, %v, want 0", name, got, err)
		}
	}
}

// Null is what two samples of one law give: it is of the size of their distance, and a shift of the mean stands out.
func TestFrechetNullIsTheScale(t *testing.T) {
	law := make([]float64, 20)
	data, same := normals(1, 4000, law, 1), normals(2, 2000, law, 1)
	got, err := FrechetDistance(same, data, 20, FrechetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// 4000 and 2000 rows against 2000 and 2000: in proportion 1/4000 + 1/2000 to 2/2000, a factor of ¾.
	if got.NullRows != 2000 || got.Squared < 0.5*got.Null || got.Squared > got.Null {
		t.Errorf("%+v, want about 0.75 of Null", got)
	}
	law[0] = 0.5
	if got, err = FrechetDistance(normals(3, 2000, law, 1), data, 20, FrechetOptions{}); err != nil || got.Squared < 3*got.Null || math.Abs(got.Mean-0.25) > 0.1 {
		t.Errorf("%+v, %v, want a mean part of 0.25 ± 0.1, well above Null", got, err)
	}
}

func TestFrechetErrors(t *testing.T) {
	rows := make([]float64, 8)
	for _, tc := range []struct {
		name string
		a, b []float64
		want string
	}{
		{"part of a row", rows[:3], rows, "samples: 3 numbers, want a multiple of the dimension 2"},
		{"one sample", rows[:2], rows, "samples: 1 of them, want at least 2"},
		{"three rows of data", rows, rows[:6], "data: 3 of them, want at least 4"},
		{"not a number", rows, []float64{0, 0, 0, 0, math.NaN(), 0, 0, 0}, "data: row 2, column 0 is NaN"},
		{"overflow", []float64{1e200, 0, 0, 0}, rows, "+Inf, want smaller numbers in the rows"},
	} {
		_, err := FrechetDistance(tc.a, tc.b, 2, FrechetOptions{})
		if err == nil || !strings.HasPrefix(err.Error(), "diagnostics: fréchet distance: "+tc.want) {
			t.Errorf("%s: %v, want %s", tc.name, err, tc.want)
		}
	}
}
