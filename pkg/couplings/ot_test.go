package couplings

import (
	"math"
	"slices"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"

	"gonum.org/v1/gonum/stat/combin"
)

func costOf(cost []float64, index []int) float64 {
	sum := 0.0
	for i, j := range index {
		sum += cost[i*len(index)+j]
	}
	return sum
}

// All permutations of up to seven rows, with real costs and with few different ones, where many permutations tie.
func TestAssignmentIsTheBestPermutation(t *testing.T) {
	s := rng.New(1, rng.Dataset, 0, 0)
	for n := 1; n <= 7; n++ {
		permutations := combin.Permutations(n, n)
		for trial := range 8 {
			cost := make([]float64, n*n)
			for i := range cost {
				if cost[i] = s.Float64(); trial%2 == 1 {
					cost[i] = float64(s.IntN(3))
				}
			}
			best := math.Inf(1)
			for _, p := range permutations {
				best = min(best, costOf(cost, p))
			}
			index, _, _ := assign(cost, n)
			if got := costOf(cost, index); !isPermutation(index) || got > best+1e-12 {
				t.Errorf("n %d, trial %d: %v costs %g, want %g", n, trial, index, got, best)
			}
		}
	}
}

// certify checks the dual prices, which prove optimality without a second solver: u + v ≤ cost, equal on the pairs.
func certify(t *testing.T, cost []float64, n int) {
	t.Helper()
	index, u, v := assign(cost, n)
	if !isPermutation(index) {
		t.Fatalf("%v is no permutation", index)
	}
	worst := 0.0
	for at, c := range cost {
		slack := c - u[at/n] - v[at%n]
		worst = max(worst, -slack)
		if index[at/n] == at%n {
			worst = max(worst, slack)
		}
	}
	if worst > 1e-12 { // the costs are at most 1
		t.Errorf("n %d: the prices are off by %g", n, worst)
	}
}

func TestAssignmentHasADualCertificate(t *testing.T) {
	for _, n := range []int{2, 33, 128, 500} {
		for _, dim := range []int{1, 2, 50} {
			cost, err := Cost(normals(1, n, dim), normals(2, n, dim), dim)
			if err != nil {
				t.Fatal(err)
			}
			certify(t, cost, n)
		}
	}
	// Ties everywhere: points of a small grid, and one cost for all.
	s := rng.New(3, rng.Dataset, 0, 0)
	cost := make([]float64, 200*200)
	for i := range cost {
		cost[i] = float64(s.IntN(4)) / 4
	}
	certify(t, cost, 200)
	certify(t, slices.Repeat([]float64{0.25}, 150*150), 150)
}

// On the line, optimal transport is the pairing by rank.
func TestExactOTOnTheLineSorts(t *testing.T) {
	const n = 300
	x0, x1 := normals(1, n, 1), normals(2, n, 1)
	p := pair(t, ExactOT{}, x0, x1, 1)
	data := Take(x1, 1, p.Index)
	order := identity(n)
	slices.SortFunc(order, func(a, b int) int {
		if x0[a] < x0[b] {
			return -1
		}
		return 1
	})
	if !slices.IsSorted(Take(data, 1, order)) {
		t.Error("the pairs cross")
	}
}

// A permutation of the noise itself, and a shifted copy of it, have known partners.
func TestExactOTFindsCopies(t *testing.T) {
	const n, dim = 200, 4
	x0 := normals(1, n, dim)
	perm := rng.New(5, rng.Dataset, 0, 0).Perm(n)
	x1 := Take(x0, dim, perm)
	for i := range x1 {
		x1[i] += 3 * float64(i%dim)
	}
	p := pair(t, ExactOT{}, x0, x1, dim)
	for i, j := range p.Index {
		if perm[j] != i {
			t.Fatalf("row %d goes to the copy of row %d", i, perm[j])
		}
	}
}

// Place and scale of the data do not change which permutation is the best one for the plain squared distances.
func TestExactOTOfDataElsewhere(t *testing.T) {
	const n, dim = 100, 3
	x0, x1 := normals(1, n, dim), normals(2, n, dim)
	for _, tc := range []struct{ shift, scale float64 }{{0, 1}, {10, 1}, {-3, 0.01}, {5, 40}} {
		moved := slices.Clone(x1)
		for i := range moved {
			moved[i] = tc.shift*float64(1+i%dim) + tc.scale*moved[i]
		}
		cost, err := Cost(x0, moved, dim)
		if err != nil {
			t.Fatal(err)
		}
		best, _, _ := assign(cost, n)
		if got, want := costOf(cost, pair(t, ExactOT{}, x0, moved, dim).Index), costOf(cost, best); math.Abs(got-want) > 1e-12 {
			t.Errorf("%+v: cost %g, want %g", tc, got, want)
		}
	}
}

func TestGreedyTakesTheClosestFirst(t *testing.T) {
	for _, tc := range []struct {
		name   string
		x0, x1 []float64
		want   []int
	}{
		{"against the optimum", []float64{0, 1}, []float64{1.1, 10}, []int{1, 0}},
		{"ties by the lowest rows", []float64{0, 0, 0}, []float64{1, -1, 1}, []int{0, 1, 2}},
		{"the closest first", []float64{0, 5}, []float64{4, 4.5}, []int{0, 1}},
	} {
		if p := pair(t, Greedy{}, tc.x0, tc.x1, 1); !slices.Equal(p.Index, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, p.Index, tc.want)
		}
	}
	const n, dim = 100, 3
	x0, x1 := normals(1, n, dim), normals(2, n, dim)
	cost, err := Cost(x0, x1, dim)
	if err != nil {
		t.Fatal(err)
	}
	greedy, exact := costOf(cost, pair(t, Greedy{}, x0, x1, dim).Index), costOf(cost, pair(t, ExactOT{}, x0, x1, dim).Index)
	if independent := costOf(cost, identity(n)); !(exact <= greedy && greedy < independent) {
		t.Errorf("costs: exact %g, greedy %g, independent %g", exact, greedy, independent)
	}
}

func BenchmarkPair(b *testing.B) {
	const dim = 64
	for _, kind := range []string{"exact_ot", "greedy", "sinkhorn"} {
		for _, n := range []int{128, 1024} {
			x0, x1 := normals(1, n, dim), normals(2, n, dim)
			c := build(b, Config{Kind: kind})
			b.Run(kind+"/"+map[int]string{128: "128", 1024: "1024"}[n], func(b *testing.B) {
				for b.Loop() {
					if _, err := c.Pair(x0, x1, dim, uniforms(1)); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
