package tempering

import (
	"math"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
)

// The recorded parallel-tempering cases whose energy needs no network, chains and swaps: E = 2·Σ(x² − 1)². The files
// count rungs from the cold end, so that their pair r is our pair K−2−r, and the parity of a round is that of r.
func TestReference(t *testing.T) {
	energy := func(x []float64) float64 {
		sum := 0.0
		for _, v := range x {
			sum += 2 * (v*v - 1) * (v*v - 1)
		}
		return sum
	}
	cases := 0
	for _, c := range testutil.Reference(t, "losses") {
		if !strings.HasPrefix(c.Name, "ptcd_") || c.Str("energy", "") != "double_well" {
			continue
		}
		cases++
		t.Run(c.Name, func(t *testing.T) {
			temperatures := c.Params["temperatures"].([]any)
			k := len(temperatures)
			temperature := make([]float64, k)
			betas := make([]float64, k)
			for r, v := range temperatures {
				temperature[r] = v.(float64)
				betas[k-1-r] = 1 / temperature[r]
			}
			ladder, err := LadderOf(betas)
			if err != nil {
				t.Fatal(err)
			}
			chains, dim := c.Inputs["x"].Shape[0], c.Inputs["x"].Shape[1]
			rounds, steps, h := int(c.Num("rounds", 0)), int(c.Num("k_steps", 0)), c.Num("step_size", 0)
			uniform := c.Inputs["uniform"]
			e := newEnsemble(t, Settings{Ladder: ladder, Columns: chains, Uniform: func(scan uint64, ladder, pair uint32) float64 {
				return uniform.Slice(int(scan)).Slice(k - 2 - int(pair)).Data[ladder]
			}})
			start := newState(k, chains)
			for b := range start.Scans {
				start.Scans[b] = uint64(k - 2) // a round of even r tries our pairs i ≡ K−2 (mod 2)
			}
			if err := e.Restore(start); err != nil {
				t.Fatal(err)
			}

			states := make([][]float64, k*chains) // row rung·chains + chain
			for row := range states {
				states[row] = c.Inputs["x"].Slice(row % chains).Data
			}
			var gotStates, gotRatio, gotAccepted, gotAttempted []float64
			for round := range rounds {
				v := make([]float64, len(states))
				for row, x := range states {
					r, b := k-1-row/chains, row%chains
					drift, scale := h/temperature[r], math.Sqrt(2*h)
					if c.Str("tempering", "") == "noise" {
						drift, scale = h, math.Sqrt(2*h*temperature[r])
					}
					next := append([]float64(nil), x...)
					for step := range steps {
						z := c.Inputs["noise"].Slice(round).Slice(r).Slice(step).Slice(b).Data
						for d, y := range next {
							next[d] = y - drift*8*y*(y*y-1) + scale*z[d]
						}
					}
					states[row], v[row] = next, -energy(next)
				}
				tried := map[int]bool{}
				for i := range Pairs(k, e.Snapshot().Scans[0]) {
					tried[i] = true
				}
				swept := sweep(t, e, uint64(round), nil, v)
				for r := range k - 1 {
					i := k - 2 - r
					attempted := 0.0
					if tried[i] {
						attempted = 1
					}
					gotAttempted = append(gotAttempted, attempted)
					for b := range chains {
						ratio, accepted := 0.0, 0.0
						if tried[i] {
							ratio = LogRatio(betas[i], betas[i+1], v[i*chains+b], v[(i+1)*chains+b])
						}
						if int(swept.Perm[i*chains+b]) == (i+1)*chains+b {
							accepted = 1
						}
						gotRatio = append(gotRatio, ratio)
						gotAccepted = append(gotAccepted, accepted)
					}
				}
				moved := make([][]float64, len(states))
				for row, from := range swept.Perm {
					moved[row] = states[from]
				}
				states = moved
				for r := range k {
					for b := range chains {
						gotStates = append(gotStates, states[(k-1-r)*chains+b]...)
					}
				}
			}
			testutil.Compare(t, "attempted", gotAttempted, c.Expect["attempted"], testutil.Tolerance{ATol: 1e-300})
			testutil.Compare(t, "accepted", gotAccepted, c.Expect["accepted"], testutil.Tolerance{ATol: 1e-300})
			testutil.Compare(t, "log_ratio", gotRatio, c.Expect["log_ratio"], c.For64("log_ratio"))
			testutil.Compare(t, "states", gotStates, c.Expect["states"], c.For64("states"))
			negatives := gotStates[(rounds-1)*k*chains*dim:][:chains*dim]
			testutil.Compare(t, "negatives", negatives, c.Expect["negatives"], c.For64("negatives"))
		})
	}
	if cases != 2 {
		t.Errorf("%d cases of a double well, want 2", cases)
	}
}
