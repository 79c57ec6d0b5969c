package tempering

import (
	"math"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
)

// The recorded parallel-tempering cases whose energy needs no network, chains and swaps: the double well h·Σ(x² − b²)².
// pkg/losses replays all of them. The files count rungs from the cold end, so that their pair r is our pair K−2−r, and
// the parity of a round is that of r.
func TestReferenceParallelTempering(t *testing.T) {
	for _, c := range testutil.Reference(t, "losses") {
		if c.Component != "ParallelTemperingCD" || c.Str("energy", "") != "double_well" {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			c.Only(t, []string{"energy", "tempering", "temperatures", "k_steps", "rounds", "step_size", "energy_reg_weight"},
				[]string{"x", "noise", "uniform"}, []string{"states", "log_ratio", "attempted", "accepted", "negatives", "loss"})
			height, b := c.Num("energy.barrier_height", 2), c.Num("energy.b", 1)
			energy := func(x []float64) float64 {
				sum := 0.0
				for _, v := range x {
					sum += height * (v*v - b*b) * (v*v - b*b)
				}
				return sum
			}
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
			rounds, steps, size := int(c.Num("rounds", 0)), int(c.Num("k_steps", 0)), c.Schedule(t, "step_size", 1e-3)
			uniform := c.Inputs["uniform"]
			e := newEnsemble(t, Settings{Ladder: ladder, Columns: chains, Uniform: func(scan uint64, ladder, pair uint32) float64 {
				return uniform.Slice(int(scan)).Slice(k - 2 - int(pair)).Data[ladder]
			}})
			start := newState(k, chains)
			for chain := range start.Scans {
				start.Scans[chain] = uint64(k) // a round of even r tries our pairs i ≡ K−2 ≡ K (mod 2)
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
					r, chain := k-1-row/chains, row%chains
					next := append([]float64(nil), x...)
					for step := range steps {
						h := size.At(step)
						drift, scale := h/temperature[r], math.Sqrt(2*h)
						if c.Str("tempering", "") == "noise" {
							drift, scale = h, math.Sqrt(2*h*temperature[r])
						}
						z := c.Inputs["noise"].Slice(round).Slice(r).Slice(step).Slice(chain).Data
						for d, y := range next {
							next[d] = y - drift*4*height*y*(y*y-b*b) + scale*z[d]
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
					for chain := range chains {
						ratio, accepted := 0.0, 0.0
						if tried[i] {
							ratio = LogRatio(betas[i], betas[i+1], v[i*chains+chain], v[(i+1)*chains+chain])
						}
						if int(swept.Perm[i*chains+chain]) == (i+1)*chains+chain {
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
					for chain := range chains {
						gotStates = append(gotStates, states[(k-1-r)*chains+chain]...)
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
}
