package couplings

import (
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/floats"
)

func marginals(plan []float64, n int) (rows, columns []float64) {
	rows, columns = make([]float64, n), make([]float64, n)
	for at, p := range plan {
		rows[at/n] += p
		columns[at%n] += p
	}
	return rows, columns
}

func plan(t *testing.T, c Coupling, x0, x1 []float64, dim int) []float64 {
	t.Helper()
	p, err := c.(*Sinkhorn).Plan(x0, x1, dim)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSinkhornMarginals(t *testing.T) {
	const n, dim = 50, 2
	for _, reg := range []float64{0.01, 0.05, 1} {
		got := plan(t, build(t, Config{Kind: "sinkhorn", Reg: new(reg), Iterations: new(2000)}), normals(1, n, dim), normals(2, n, dim), dim)
		rows, columns := marginals(got, n)
		for i := range n {
			// The last half of the last round sets the columns; the rows follow as the iteration converges.
			if math.Abs(n*columns[i]-1) > 1e-12 || math.Abs(n*rows[i]-1) > 1e-6 {
				t.Fatalf("reg %g: row %d sums to %g, column to %g, want 1/%d", reg, i, rows[i], columns[i], n)
			}
		}
	}
}

// The plan is the stationary point of Σ P·cost + reg Σ P log P: log P + cost/reg is a row term plus a column term.
func TestSinkhornPlanIsStationary(t *testing.T) {
	const n, dim, reg = 20, 2, 0.1
	x0, x1 := normals(1, n, dim), normals(2, n, dim)
	cost, err := Cost(x0, x1, dim)
	if err != nil {
		t.Fatal(err)
	}
	got := plan(t, build(t, Config{Kind: "sinkhorn", Reg: new(reg)}), x0, x1, dim)
	term := func(i, j int) float64 { return math.Log(got[i*n+j]) + cost[i*n+j]/reg }
	for i := range n {
		for j := range n {
			if d := term(i, j) + term(0, 0) - term(i, 0) - term(0, j); math.Abs(d) > 1e-10 {
				t.Fatalf("entry %d, %d is off by %g", i, j, d)
			}
		}
	}
}

func TestSinkhornTendsToExactOTAndToIndependent(t *testing.T) {
	const n, dim = 12, 2
	x0, x1 := normals(1, n, dim), normals(2, n, dim)
	exact := pair(t, ExactOT{}, x0, x1, dim)
	cost, err := Cost(x0, x1, dim)
	if err != nil {
		t.Fatal(err)
	}
	least, last := costOf(cost, exact.Index)/n, math.Inf(1)
	for _, reg := range []float64{0.1, 0.01, 0.001} {
		got := floats.Dot(cost, plan(t, build(t, Config{Kind: "sinkhorn", Reg: new(reg), Iterations: new(20000)}), x0, x1, dim))
		// The entropy of a plan lies between log n and 2 log n, which bounds the excess.
		if excess := got - least; excess < -1e-9 || excess > reg*math.Log(n) || excess >= last {
			t.Errorf("reg %g: excess cost %g, want it in [0, %g] and falling", reg, excess, reg*math.Log(n))
		} else {
			last = excess
		}
	}
	sharp := pair(t, build(t, Config{Kind: "sinkhorn", Reg: new(1e-4), Iterations: new(20000)}), x0, x1, dim)
	if !slices.Equal(sharp.Index, exact.Index) {
		t.Errorf("reg 1e-4 draws %v, want the optimal %v", sharp.Index, exact.Index)
	}
	for _, p := range plan(t, build(t, Config{Kind: "sinkhorn", Reg: new(1e6)}), x0, x1, dim) {
		if math.Abs(p*n*n-1) > 1e-5 {
			t.Fatalf("reg 1e6: plan %g, want 1/n²", p)
		}
	}
}

// Draws follow the rows of the plan: chi² over many draws for one row.
func TestSinkhornDrawsFollowThePlan(t *testing.T) {
	const n, dim, runs = 6, 2, 4000
	x0, x1 := normals(1, n, dim), normals(2, n, dim)
	s := build(t, Config{Kind: "sinkhorn", Reg: new(0.3)})
	want := plan(t, s, x0, x1, dim)
	counts := make([]float64, n*n)
	u := uniforms(4)
	for range runs {
		p, err := s.Pair(x0, x1, dim, u)
		if err != nil {
			t.Fatal(err)
		}
		for i, j := range p.Index {
			counts[i*n+j]++
		}
	}
	rows, _ := marginals(want, n)
	chi2 := 0.0
	for at, c := range counts {
		expected := runs * want[at] / rows[at/n]
		chi2 += (c - expected) * (c - expected) / expected
	}
	if chi2 > 67.6 { // 0.9999 quantile of chi² with 30 degrees of freedom
		t.Errorf("chi² %g, want below 67.6", chi2)
	}
}

func TestUnbalancedSinkhorn(t *testing.T) {
	const n, dim = 30, 2
	x0, x1 := normals(1, n, dim), normals(2, n, dim)
	x0[0], x0[1] = 12, 12 // far from all data
	p := pair(t, build(t, Config{Kind: "unbalanced_sinkhorn", RegMarginal: new(0.1)}), x0, x1, dim)
	if slices.Index(p.Weights, floats.Min(p.Weights)) != 0 || p.Weights[0] > 0.1 {
		t.Errorf("the outlier has weight %g, want the least, and little", p.Weights[0])
	}
	// A dear marginal is a held one.
	held := pair(t, build(t, Config{Kind: "unbalanced_sinkhorn", RegMarginal: new(1e9), Iterations: new(3000)}), x0, x1, dim)
	for i, w := range held.Weights {
		if math.Abs(w-1) > 1e-4 {
			t.Errorf("row %d has weight %g, want 1", i, w)
		}
	}
	// A cheap one lets the outlier's mass underflow; it still gets a partner.
	free := pair(t, build(t, Config{Kind: "unbalanced_sinkhorn", Reg: new(1e-4), RegMarginal: new(1e-4)}), x0, x1, dim)
	if free.Weights[0] != 0 || math.IsNaN(floats.Sum(free.Weights)) {
		t.Errorf("weights %v, want 0 for the outlier and numbers for all", free.Weights)
	}
}

func TestDraw(t *testing.T) {
	row := []float64{math.Inf(-1), math.Log(0.25), math.Log(0.75), math.Inf(-1)}
	for _, tc := range []struct {
		u    float64
		want int
	}{{0, 1}, {0.2, 1}, {0.3, 2}, {math.Nextafter(1, 0), 2}} {
		if got := draw(row, 0, tc.u); got != tc.want {
			t.Errorf("u = %g gives %d, want %d", tc.u, got, tc.want)
		}
	}
}
