package couplings

import (
	"math"
	"slices"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
)

// referenceKinds are the couplings by the names of their classes in TorchEBM.
var referenceKinds = map[string]string{
	"IndependentCoupling": "independent", "ExactOTCoupling": "exact_ot", "GreedyCoupling": "greedy",
	"SinkhornCoupling": "sinkhorn", "UnbalancedSinkhornCoupling": "unbalanced_sinkhorn",
}

func TestReference(t *testing.T) {
	seen := 0
	for _, tc := range testutil.Reference(t, "losses") {
		kind, ok := referenceKinds[tc.Component]
		if !ok {
			continue
		}
		seen++
		t.Run(tc.Name, func(t *testing.T) {
			cfg := Config{Kind: kind}
			params := []string{"tol"} // of the auction; ours is exact
			if kind == "sinkhorn" || kind == "unbalanced_sinkhorn" {
				params = []string{"reg", "n_iters"}
				cfg.Reg, cfg.Iterations = new(tc.Num("reg", 0.05)), new(int(tc.Num("n_iters", 100)))
			}
			if kind == "unbalanced_sinkhorn" {
				params = append(params, "reg_marginal")
				cfg.RegMarginal = new(tc.Num("reg_marginal", 1))
			}
			tc.Only(t, params, []string{"x0", "x1", "uniform"}, []string{"cost", "index", "plan", "x1_paired", "weights"})

			x0, x1 := tc.Inputs["x0"], tc.Inputs["x1"]
			n := x0.Shape[0]
			dim := len(x0.Data) / n
			cost, err := Cost(x0.Data, x1.Data, dim)
			if err != nil {
				t.Fatal(err)
			}
			c := build(t, cfg)
			calls := 0
			p, err := c.Pair(x0.Data, x1.Data, dim, func() float64 {
				calls++
				return tc.Inputs["uniform"].Data[calls-1]
			})
			if err != nil {
				t.Fatal(err)
			}
			if calls != len(tc.Inputs["uniform"].Data) {
				t.Errorf("%d uniform numbers used of %d", calls, len(tc.Inputs["uniform"].Data))
			}
			paired := Take(x1.Data, dim, p.Index)
			for name, want := range tc.Expect {
				tol := tc.For64(name)
				switch name {
				case "cost":
					testutil.Compare(t, name, cost, want, tol)
				case "plan":
					testutil.Compare(t, name, plan(t, c, x0.Data, x1.Data, dim), want, tol)
				case "weights":
					testutil.Compare(t, name, p.Weights, want, tol)
				case "index":
					compareIndex(t, tc, cost, p.Index, want.Ints())
				case "x1_paired":
					// Where equal optima have other pairs, the index says so; their cost has been compared.
					if index, ok := tc.Expect["index"]; kind != "exact_ot" || !ok || slices.Equal(index.Ints(), p.Index) {
						testutil.Compare(t, name, paired, want, tol)
					}
				}
			}
		})
	}
	if seen == 0 {
		t.Error("no cases of couplings")
	}
}

// compareIndex wants the recorded index, or of optimal transport another one that is as cheap: TorchEBM's is within its
// tolerance of the optimum, so ours may be better.
func compareIndex(t *testing.T, tc testutil.Case, cost []float64, got, want []int) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	if tc.Component != "ExactOTCoupling" {
		t.Errorf("index %v, want %v", got, want)
		return
	}
	ours, theirs := costOf(cost, got), costOf(cost, want)
	if !isPermutation(got) || ours > theirs+1e-12 || theirs-ours > math.Max(tc.Num("tol", 1e-4), 1e-12) {
		t.Errorf("index %v costs %g, want %v and %g", got, ours, want, theirs)
	}
}
