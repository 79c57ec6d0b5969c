package engine

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
)

// Three rungs of two ladders whose chains stand still at 1 to 6: what moves is the sweep alone, and the loss is known by
// hand. f = ½e^w(x − m)² at w = m = 0 has the gradient (½x², −x), whose mean over the positives is (1, −½) for x⁺ = ±√2
// and 1.5 ± ½ in place of the second.
func TestNegativesAreTakenAfterTheSweep(t *testing.T) {
	positives := []float32{1, 2} // ½x²: 1.25, −x: −1.5
	// Rows 0, 2, 4 are one ladder and 1, 3, 5 the other. After the first sweep they are 3 2 1 6 5 4, after the second 3 6 5 2 1 4.
	sweeps := [][]int32{{2, 1, 0, 5, 4, 3}, {0, 3, 4, 1, 2, 5}}
	ends := [][]float32{{3, 2, 1, 6, 5, 4}, {3, 6, 5, 2, 1, 4}}
	weights := []float32{0.5, 0, 0.125, 0.375}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for _, exchange := range Exchanges() {
			for _, weighted := range []bool{false, true} {
				name := fmt.Sprintf("%s weighted %t", exchange, weighted)
				spec := Spec{Network: bowl{dim: 1, κ: 1}, Rungs: 3, Chains: 2, Pool: 2, Batch: 2, Weighted: weighted, Virtual: weighted, Exchange: exchange,
					Sampler: samplers.Config{Kind: "langevin", Steps: 1}, Optimizer: OptimizerConfig{Kind: "sgd"}, Seed: 1}
				s := start(t, b, spec, []float64{0.25, 0.5, 1}, []float64{0, 0, 0})
				if err := s.Load(s.NewState([]float32{0, 0}, []float32{1, 2, 3, 4, 5, 6}, nil)); err != nil {
					t.Fatal(err)
				}
				of := []float32{0, 0, 0.5, 0.5} // the mean over the target rung
				if weighted {
					of = weights
				}
				for i, perm := range sweeps {
					d := Draw{Perm: perm}
					if weighted {
						d.Weights = weights
					}
					r, err := s.Train(uint64(i), i, 0, positives, d)
					if err != nil {
						t.Fatal(err)
					}
					energy, slope := 0.0, 0.0
					for j, x := range ends[i][2:] {
						energy += float64(of[j] * x * x / 2)
						slope -= float64(of[j] * x)
					}
					got := []float64{r.Scores.Positives, r.Scores.Negatives, r.Scores.Loss, r.Scores.GradNorm}
					want := []float64{1.25, energy, 1.25 - energy, math.Hypot(1.25-energy, -1.5-slope)}
					testutil.Compare(t, name+": scores", got, testutil.Array(want, 4), testutil.Tolerance{RTol: 1e-6})
					live, err := s.Live()
					if err != nil {
						t.Fatal(err)
					}
					if !slices.Equal(live, ends[i]) {
						t.Errorf("%s: chains %v after sweep %d, want %v", name, live, i, ends[i])
					}
					for k, x := range live {
						if v := -float64(x*x) / 2; r.V[k] != v || r.V0[k] != v {
							t.Errorf("%s: row %d after sweep %d: V %g, before %g, want %g", name, k, i, r.V[k], r.V0[k], v)
						}
					}
				}
				st, err := s.State()
				if err != nil {
					t.Fatal(err)
				}
				var rows []int32
				if exchange == "label" {
					rows = []int32{2, 5, 4, 1, 0, 3} // those that 3 6 5 2 1 4 were loaded into
				}
				if !slices.Equal(st.Live, ends[1]) || !slices.Equal(st.Rows, rows) {
					t.Errorf("%s: state %v in rows %v, want %v in %v", name, st.Live, st.Rows, ends[1], rows)
				}
			}
		}
	})
}

// What a scan says of its start and its end, in two blocks of steps: the start of a chain that is not drawn anew is the end
// of the one before, rung 0 holds independent draws for the whole scan, and a cut of labels goes on bit for bit, with the
// pending sweep applied as a trainer's cuts have it.
func TestStartOfAScan(t *testing.T) {
	const rungs, chains, rows = 3, 4, 12
	q := &models.Gaussian{Mean: []float64{1, 1}, Std: []float64{2, 2}}
	perm := identity(rows)
	perm[0], perm[4], perm[7], perm[11] = 4, 0, 11, 7
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for _, exchange := range Exchanges() {
			t.Run(exchange, func(t *testing.T) {
				s := start(t, b, Spec{Network: bowl{dim: 2, κ: 3, fixed: true}, Reference: q, Rungs: rungs, Chains: chains, Pool: chains,
					Sampler: samplers.Config{Kind: "mala", Steps: 3}, Exchange: exchange, Seed: 4}, []float64{0, 0.3, 1}, []float64{2, 1, 0.4})
				s.blockLen, s.blockSteps = []int{2, 1}, 2
				scan := func(n uint64, perm []int32) (Result, State) {
					t.Helper()
					r, err := s.Scan(n, Draw{Perm: perm})
					if err != nil {
						t.Fatal(err)
					}
					st, err := s.State()
					if err != nil {
						t.Fatal(err)
					}
					return r, st
				}
				before, cut := scan(0, perm)
				r, st := scan(1, perm)
				for i := range rows {
					near := func(a, b float64) bool { return math.Abs(a-b) <= 1e-5*(1+math.Abs(b)) }
					if i < chains {
						if !near(r.V0[i], r.V[i]) || slices.Equal(st.Live[2*i:2*i+2], cut.Live[2*i:2*i+2]) {
							t.Errorf("row %d: V %g, at the start %g: want a new draw, and to keep it", i, r.V[i], r.V0[i])
						}
						continue
					}
					if want := before.V[perm[i]]; !near(r.V0[i], want) {
						t.Errorf("row %d: V %g at the start, want that of row %d after the scan before, %g", i, r.V0[i], perm[i], want)
					}
				}
				if slices.Equal(r.V[chains:], r.V0[chains:]) {
					t.Error("nothing moved")
				}
				if r.Accept[0] != 1 || !(r.Accept[1] > 0 && r.Accept[1] < 1) || !(r.Accept[2] > 0 && r.Accept[2] < 1) {
					t.Errorf("acceptance %v", r.Accept)
				}

				cut.Live = permuted(cut.Live, perm, 2)
				if exchange == "label" {
					cut.Rows = permuted(cut.Rows, perm, 1)
				}
				if err := s.Load(cut); err != nil {
					t.Fatal(err)
				}
				r2, st2 := scan(1, identity(rows))
				if !slices.Equal(r.V, r2.V) || !slices.Equal(r.V0, r2.V0) || !slices.Equal(r.Accept, r2.Accept) || !slices.Equal(st.Live, st2.Live) || !slices.Equal(st.Rows, st2.Rows) {
					t.Error("a loaded shard went another way")
				}
			})
		}
	})
}

func TestSpecOfTemperingValidate(t *testing.T) {
	q := &models.Gaussian{Mean: []float64{0}, Std: []float64{1}}
	for _, tc := range []struct {
		name string
		spec Spec
		want []string
	}{
		{"labels", Spec{Rungs: 2, Chains: 2, Pool: 2, Exchange: "label"}, nil},
		{"variational", Spec{Rungs: 2, Chains: 2, Pool: 3, Reference: q, Variational: true, Weighted: true, Virtual: true, Exchange: "state"}, nil},
		{"another exchange", Spec{Rungs: 2, Chains: 2, Pool: 2, Exchange: "labels"}, []string{`exchange: "labels", want one of state, label`}},
		{"one label", Spec{Rungs: 1, Chains: 2, Pool: 2, Exchange: "label"}, []string{"exchange: label of 1 rung, want at least 2 rungs"}},
		{"labels in a pool", Spec{Rungs: 2, Chains: 2, Pool: 3, Exchange: "label"},
			[]string{"exchange: label with pool 3 of 2 chains, mix false: want state where a scan moves chains in and out of a pool or mixes fresh starts in"}},
		{"nothing to move", Spec{Rungs: 2, Chains: 2, Pool: 2, Variational: true},
			[]string{"variational reference: rungs 2, reference false, want at least 2 rungs and a reference"}},
	} {
		tc.spec.Network = bowl{dim: 1, κ: 1}
		var lines []string
		if err := tc.spec.validate(); err != nil {
			lines = strings.Split(err.Error(), "\n")
		}
		if !slices.Equal(lines, tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, lines, tc.want)
		}
	}
}

func TestLabelsStayInTheirLadder(t *testing.T) {
	b := testutil.Backend(t, "go")
	s := start(t, b, Spec{Network: bowl{dim: 1, κ: 1, fixed: true}, Rungs: 2, Chains: 2, Pool: 2, Exchange: "label",
		Sampler: samplers.Config{Kind: "mala", Steps: 1}}, []float64{0.5, 1}, []float64{0.1, 0.1})
	const want = "engine: draw: permutation: row 0 has 1, want every number below 4 once, with the same remainder by 2"
	if _, err := s.Scan(0, Draw{Perm: []int32{1, 0, 2, 3}}); err == nil || err.Error() != want {
		t.Errorf("scan: %v, want %s", err, want)
	}
	st := s.NewState(nil, make([]float32, 4), nil)
	st.Rows = []int32{0, 1, 2}
	if err := s.Load(st); err == nil || err.Error() != "engine: load state: rows: length 3, want 4" {
		t.Errorf("load: %v", err)
	}
}
