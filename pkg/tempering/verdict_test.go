package tempering

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// healthyRound is the double well of the specification on its near-optimal ladder.
func healthyRound() *Round {
	return &Round{
		Number: 7, Kind: "measure", Scans: 2000, Ladders: 16, ChainSteps: 5, Path: "linear", Schedule: "deo", Explorer: "mala", Reference: "gaussian",
		Betas: []float64{0, 0.0058, 0.0647, 0.2165, 0.48, 1}, StepSizes: []float64{1, 0.4, 0.1, 0.05, 0.02, 0.01},
		Rejections: []float64{0.287, 0.290, 0.300, 0.300, 0.298}, Attempts: 16000,
		Accept: []float64{1, 0.60, 0.58, 0.57, 0.57, 0.55}, TargetAccept: 0.574,
		RhoV: []float64{0, 0.1, 0.2, 0.2, 0.3, 0.31}, Overlap: []float64{0.7, 0.7, 0.7, 0.7, 0.7},
		Restarts: 4896, Trips: 4880, TripRate: 0.153, PredictedTripRate: 0.162, TripRateBound: 0.197,
		Barrier: 1.5425, RejectionSum: 1.475, SuggestedRungs: 5,
		LogZ: &LogZ{Bridge: -0.44062, BridgeErr: 0.0065, Forward: -0.443, ForwardErr: 0.0071, ForwardK: 0.31, Reverse: -0.33, ReverseErr: 0.02, ReverseK: 0.62,
			Thermodynamic: -0.4, Rungs: []float64{0, -0.1, -0.2, -0.3, -0.4, -0.44062}},
		RHat: map[string]float64{"energy": 1.001, "norm": 1.003, "projection_0": 1.002}, ESS: map[string]float64{"energy": 9100, "norm": 8200},
		Up: []float64{1, 0.8, 0.6, 0.4, 0.2, 0}, Index: [][]int32{{0, 1, 2, 3, 4, 5}, {1, 0, 3, 2, 5, 4}}, IndexStride: 2,
		MedianAge: 6, P95Age: 20, LambdaAt: []float64{0, 0.5, 1}, LambdaDensity: []float64{50, 0.6, 0.5}, LambdaBarrier: []float64{0, 1.25, 1.5425},
		Histograms: []Histogram{{Lo: -100, Hi: 2, Counts: []int{3, 9}}}, Seconds: 12.5, SwapP50: 0.021, SwapP99: 0.4, Gradients: 800_000,
	}
}

func TestVerdict(t *testing.T) {
	for _, tc := range []struct {
		name    string
		change  func(*Round)
		verdict string
		level   string // of the gravest finding
		text    string // and its words
	}{
		{"a round that mixes", func(*Round) {},
			"mixes: 4896 restarts, R̂ 1.003, log Z -0.4406 ± 0.0065",
			"ok", "4896 restarts in 16 ladders, 94 % of the round trips that the swap acceptance allows"},
		{"nothing was measured on the target", func(r *Round) { r.LogZ, r.RHat, r.ESS = nil, nil, nil },
			"mixes: 4896 restarts", "ok", "4896 restarts in 16 ladders"},
		{"a pair that hardly accepts", func(r *Round) { r.Kind, r.Rejections[3], r.Barrier = "adapt", 0.96, 2.85 },
			"mixes, with 1 warning: 4896 restarts, R̂ 1.003, log Z -0.4406 ± 0.0065; rungs 3–4 accept 4 %; do: add 2 rungs",
			"warn", "rungs 3–4 accept 4 %: add 2 rungs"},
		{"a pair that hardly accepts, after adaptation", func(r *Round) { r.Rejections[3], r.Barrier = 0.85, 2.4 },
			"mixes, with 2 warnings: 4896 restarts, R̂ 1.003, log Z -0.4406 ± 0.0065; rungs 3–4 accept 15 %; do: add 1 rung",
			"warn", "rungs 3–4 accept 15 %: add 1 rung"},
		{"uneven acceptance after adaptation", func(r *Round) { r.Rejections[0], r.Rejections[3] = 0.1, 0.6 },
			"mixes, with 1 warning: 4896 restarts, R̂ 1.003, log Z -0.4406 ± 0.0065; uneven ladder, rungs 3–4 accept 40 % and rungs 0–1 90 %; do: adapt it longer",
			"warn", "uneven ladder, rungs 3–4 accept 40 % and rungs 0–1 90 %: adapt it longer"},
		{"no restart, and a pair that blocks", func(r *Round) {
			r.Restarts, r.TripRate, r.PredictedTripRate, r.Rejections[3], r.Barrier, r.LogZ, r.Kind = 0, 0, 1e-4, 0.999, 4.1, nil, "adapt"
		}, "does not mix: no restart in 2000 scans of 16 ladders, rungs 3–4 accept less than 1 %; do: add 4 rungs",
			"bad", "no restart in 2000 scans of 16 ladders, rungs 3–4 accept less than 1 %: add 4 rungs"},
		{"no restart though every pair accepts", func(r *Round) { r.Restarts, r.TripRate = 0, 0 },
			"does not mix: no restart in 2000 scans of 16 ladders, where the swap acceptance allows 5153; do: raise sampler.steps above 5",
			"bad", "no restart in 2000 scans of 16 ladders, where the swap acceptance allows 5153: raise sampler.steps above 5"},
		{"few round trips", func(r *Round) { r.TripRate = 0.04 },
			"mixes, with 1 warning: 4896 restarts, R̂ 1.003, log Z -0.4406 ± 0.0065; exploration too short, 25 % of the round trips that the swap acceptance allows; do: raise sampler.steps above 5",
			"warn", "exploration too short, 25 % of the round trips that the swap acceptance allows: raise sampler.steps above 5"},
		{"hardly any round trips", func(r *Round) { r.Restarts, r.TripRate, r.LogZ = 12, 0.0004, nil },
			"does not mix: exploration too short, less than 1 % of the round trips that the swap acceptance allows; do: raise sampler.steps above 5",
			"bad", "exploration too short, less than 1 % of the round trips that the swap acceptance allows"},
		{"too short", func(r *Round) { r.Scans, r.Restarts, r.TripRate, r.LogZ, r.RHat, r.ESS = 8, 3, 0, nil, nil, nil },
			"too short to tell: 3 restarts in 8 scans of 16 ladders",
			"note", "3 restarts in 8 scans of 16 ladders are too few to judge by: measure longer"},
		{"too short, for a pair blocks", func(r *Round) {
			r.Restarts, r.TripRate, r.PredictedTripRate, r.Rejections[3], r.Barrier, r.LogZ, r.Kind = 3, 1e-4, 1e-4, 0.999, 4.1, nil, "adapt"
		}, "too short to tell: 3 restarts in 2000 scans of 16 ladders; rungs 3–4 accept less than 1 %; do: add 4 rungs",
			"warn", "rungs 3–4 accept less than 1 %: add 4 rungs"},
		{"ladders that disagree", func(r *Round) { r.RHat["projection_0"] = 1.352 },
			"does not mix: the ladders disagree on projection_0, R̂ 1.352, want 1.01 or less; do: measure longer or raise sampler.steps above 5",
			"bad", "the ladders disagree on projection_0, R̂ 1.352, want 1.01 or less: measure longer or raise sampler.steps above 5"},
		{"ladders that disagree a little", func(r *Round) { r.RHat["energy"], r.RHat["norm"] = 1.02, math.NaN() },
			"mixes, with 1 warning: 4896 restarts, R̂ 1.020, log Z -0.4406 ± 0.0065; the ladders disagree on energy, R̂ 1.020, want 1.01 or less; do: measure longer or raise sampler.steps above 5",
			"warn", "the ladders disagree on energy, R̂ 1.020"},
		{"few effective samples", func(r *Round) { r.ESS["norm"] = 85.4 },
			"mixes, with 1 warning: 4896 restarts, R̂ 1.003, log Z -0.4406 ± 0.0065; 85 effective samples of norm, want 400; do: measure longer",
			"warn", "85 effective samples of norm, want 400: measure longer"},
		{"too few rungs", func(r *Round) {
			r.Barrier, r.BarrierLowerBound, r.SuggestedRungs, r.Rejections = 7.2, true, 16, []float64{0.95, 0.95, 0.96, 0.95, 0.95}
		}, "mixes, with 1 warning: 4896 restarts, R̂ 1.003, log Z -0.4406 ± 0.0065; 6 rungs for a barrier of at least 7.2, rungs 2–3 accept 4 %; do: use about 16 rungs",
			"warn", "6 rungs for a barrier of at least 7.2, rungs 2–3 accept 4 %: use about 16 rungs"},
		{"many pairs that accept little", func(r *Round) { r.Barrier, r.Rejections = 4.9, []float64{0.8, 0.82, 0.83, 0.82, 0.82} },
			"mixes, with 1 warning: 4896 restarts, R̂ 1.003, log Z -0.4406 ± 0.0065; 4 of 5 pairs accept less than 20 %, least rungs 2–3 17 %; do: add 4 rungs",
			"warn", "4 of 5 pairs accept less than 20 %, least rungs 2–3 17 %: add 4 rungs"},
		{"far more rungs than needed", func(r *Round) { r.Barrier, r.Rejections = 0.1, []float64{0.02, 0.02, 0.02, 0.02, 0.02} },
			"mixes: 4896 restarts, R̂ 1.003, log Z -0.4406 ± 0.0065",
			"note", "6 rungs for a barrier of 0.1: 2 rungs would do; more ladders serve better"},
		{"a first-order transition", func(r *Round) {
			r.Betas, r.Rejections, r.Barrier = []float64{0, 0.4, 0.5, 0.51, 0.7, 1}, []float64{0.3, 0.3, 0.97, 0.3, 0.3}, 3
		}, "mixes, with 2 warnings: 4896 restarts, R̂ 1.003, log Z -0.4406 ± 0.0065; rungs 2–3 accept 3 % at a sharp peak of the barrier, as at a first-order transition; do: use tempering.reference: variational and tempering.ladder: adaptive",
			"warn", "rungs 2–3 accept 3 % at a sharp peak of the barrier, as at a first-order transition"},
		{"a first-order transition on the power path", func(r *Round) {
			r.Path, r.Betas, r.Rejections, r.Barrier = "power", []float64{0.1, 0.4, 0.5, 0.51, 0.7, 1}, []float64{0.3, 0.3, 0.97, 0.3, 0.3}, 3
			r.Accept[0] = 0.5
		}, "mixes, with 2 warnings: 4896 restarts, R̂ 1.003, log Z -0.4406 ± 0.0065; rungs 2–3 accept 3 % at a sharp peak of the barrier, as at a first-order transition; do: use tempering.path: linear and tempering.reference: variational",
			"warn", "rungs 2–3 accept 3 % at a sharp peak of the barrier"},
		{"a first-order transition under a variational reference", func(r *Round) {
			r.Reference, r.Betas, r.Rejections, r.Barrier = "variational", []float64{0, 0.4, 0.5, 0.51, 0.7, 1}, []float64{0.3, 0.3, 0.97, 0.3, 0.3}, 3
		}, "mixes, with 2 warnings: 4896 restarts, R̂ 1.003, log Z -0.4406 ± 0.0065; rungs 2–3 accept 3 % at a sharp peak of the barrier, as at a first-order transition; do: use tempering.ladder: adaptive and more rungs",
			"warn", "rungs 2–3 accept 3 % at a sharp peak of the barrier"},
		{"a barrier that is a lower bound", func(r *Round) { r.BarrierLowerBound, r.Barrier = true, 4.2 },
			"mixes: 4896 restarts, R̂ 1.003, log Z -0.4406 ± 0.0065",
			"note", "the barrier 4.2 is a lower bound, for some pair hardly ever accepts"},
		{"exploration that forgets nothing", func(r *Round) { r.RhoV[4] = 0.81 },
			"mixes, with 1 warning: 4896 restarts, R̂ 1.003, log Z -0.4406 ± 0.0065; V of rung 4 keeps a correlation of 0.81 through a scan, want 0.5 or less; do: raise sampler.steps above 5",
			"warn", "V of rung 4 keeps a correlation of 0.81 through a scan, want 0.5 or less: raise sampler.steps above 5"},
		{"steps that are too short", func(r *Round) { r.Accept[2] = 0.95 },
			"mixes, with 1 warning: 4896 restarts, R̂ 1.003, log Z -0.4406 ± 0.0065; the explorer accepts 95 % on rung 2, want about 57 %; do: use a larger sampler.step_size",
			"warn", "the explorer accepts 95 % on rung 2, want about 57 %: use a larger sampler.step_size"},
		{"steps that are too long on the only chain", func(r *Round) { r.Path, r.Accept[0] = "power", 0.11 },
			"mixes, with 1 warning: 4896 restarts, R̂ 1.003, log Z -0.4406 ± 0.0065; the explorer accepts 11 % on rung 0, want about 57 %; do: use a smaller sampler.step_size",
			"warn", "the explorer accepts 11 % on rung 0, want about 57 %: use a smaller sampler.step_size"},
		{"an explorer without a test", func(r *Round) { r.Explorer, r.TargetAccept = "langevin", 0 },
			"mixes, with 1 warning: 4896 restarts, R̂ 1.003, log Z -0.4406 ± 0.0065; biased: langevin has no Metropolis test, and its step size changes every rung's law; do: use sampler.kind: mala",
			"warn", "biased: langevin has no Metropolis test"},
		{"walkers that do not move", func(r *Round) { r.Stuck = 1 },
			"mixes, with 1 warning: 4896 restarts, R̂ 1.003, log Z -0.4406 ± 0.0065; 1 walker stood on one rung for more than 60 scans",
			"warn", "1 walker stood on one rung for more than 60 scans"},
		{"energies far apart", func(r *Round) { r.Overlap[1] = 0.04 },
			"mixes, with 1 warning: 4896 restarts, R̂ 1.003, log Z -0.4406 ± 0.0065; rungs 1–2 share 4 % of their energies, want 10 %; do: add a rung between them",
			"warn", "rungs 1–2 share 4 % of their energies, want 10 %: add a rung between them"},
		{"too few restarts for log Z", func(r *Round) { r.Restarts, r.Scans, r.TripRate = 120, 80, 0.1 },
			"mixes, with 1 warning: 120 restarts, R̂ 1.003, log Z -0.4406 ± 0.0065; log Z is not to be quoted after 120 restarts of 16 ladders, want 160; do: measure longer",
			"warn", "log Z is not to be quoted after 120 restarts of 16 ladders, want 160: measure longer"},
		{"unreliable weights one way", func(r *Round) { r.LogZ.ReverseK = 0.93 },
			"mixes: 4896 restarts, R̂ 1.003, log Z -0.4406 ± 0.0065",
			"note", "reverse log Z is unreliable, k̂ 0.93 of its weights"},
		{"unreliable weights the other way", func(r *Round) { r.LogZ.ForwardK = 0.75 },
			"mixes: 4896 restarts, R̂ 1.003, log Z -0.4406 ± 0.0065",
			"note", "forward log Z is unreliable, k̂ 0.75 of its weights"},
		{"unreliable weights both ways", func(r *Round) { r.LogZ.ForwardK, r.LogZ.ReverseK = 0.71, 1.2 },
			"mixes, with 1 warning: 4896 restarts, R̂ 1.003, log Z -0.4406 ± 0.0065; forward and reverse log Z are unreliable, k̂ 0.71 and 1.20 of their weights, want 0.7 or less; do: add rungs",
			"warn", "forward and reverse log Z are unreliable"},
		{"few ladders", func(r *Round) { r.Ladders, r.LogZ.BridgeErr = 1, math.NaN() },
			"mixes: 4896 restarts, R̂ 1.003, log Z -0.44",
			"note", "errors of log Z from 1 ladder are rough: use 8 or more tempering.chains"},
		{"numbers that are none", func(r *Round) { r.NonFinite = 12 },
			"mixes, with 1 warning: 4896 restarts, R̂ 1.003, log Z -0.4406 ± 0.0065; an energy that is not finite, 12 times; do: look at the energy where the chains go",
			"warn", "an energy that is not finite, 12 times: look at the energy where the chains go"},
		{"one rung", func(r *Round) { *r = Round{Betas: []float64{1}, Scans: 100, Ladders: 16, RHat: r.RHat} },
			"mixes: R̂ 1.003", "", ""},
		{"one rung and nothing else", func(r *Round) { *r = Round{Betas: []float64{1}, Scans: 100, Ladders: 16} },
			"not known: one rung, and no R̂", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := healthyRound()
			tc.change(r)
			if diff := cmp.Diff(tc.verdict, r.Verdict()); diff != "" {
				t.Errorf("verdict (-want +got):\n%s", diff)
			}
			findings := r.Findings()
			switch {
			case tc.level == "" && len(findings) > 0:
				t.Errorf("findings %v, want none", findings)
			case tc.level != "" && (len(findings) == 0 || findings[0].Level != tc.level || !strings.HasPrefix(findings[0].Text, tc.text)):
				t.Errorf("findings %v, want %s first: %q", findings, tc.level, tc.text)
			}
		})
	}
}

// A round in which everything is wrong still names the gravest first, and says each thing once.
func TestFindingsAreInOrder(t *testing.T) {
	r := healthyRound()
	r.RHat["energy"], r.NonFinite, r.LogZ.ReverseK, r.Stuck, r.RhoV[5] = 1.5, 1, 0.9, 2, 0.9
	var levels []string
	seen := map[string]bool{}
	for _, f := range r.Findings() {
		levels = append(levels, f.Level)
		if seen[f.Text] || strings.ContainsAny(f.Text, "!\n") || strings.Contains(f.Text, "NaN") {
			t.Errorf("%q: want one plain line, once", f.Text)
		}
		seen[f.Text] = true
	}
	if diff := cmp.Diff([]string{"bad", "warn", "warn", "warn", "note", "ok"}, levels); diff != "" {
		t.Errorf("levels (-want +got):\n%s", diff)
	}
}

// What a round does not know is no fault.
func TestFindingsOfAnUnknownRound(t *testing.T) {
	nan := math.NaN()
	r := &Round{Kind: "measure", Scans: 500, Ladders: 8, Betas: []float64{0, 0.5, 1}, Rejections: []float64{nan, nan}, Accept: []float64{nan, nan, nan}, TargetAccept: 0.6,
		RhoV: []float64{nan, nan, nan}, Overlap: []float64{nan, nan}, Restarts: 500, TripRate: nan, PredictedTripRate: nan, Barrier: nan,
		RHat: map[string]float64{"energy": nan}, ESS: map[string]float64{"energy": nan}}
	if got := r.Findings(); len(got) != 1 || got[0].Level != "note" {
		t.Errorf("findings %v, want no more than that too little is known", got)
	}
	if got := r.Verdict(); got != "too short to tell: 500 restarts in 500 scans of 8 ladders" {
		t.Errorf("verdict %q", got)
	}
}

// Whatever else speaks for a round, some numbers alone keep it from being called one that mixes; and what a finding compares
// is what it prints.
func TestNoRoundMixesThat(t *testing.T) {
	for _, tc := range []struct {
		name    string
		change  func(*Round)
		verdict string // its beginning
	}{
		{"could not be expected to make ten trips, however many restarts there were", func(r *Round) { r.Scans, r.Ladders, r.Restarts, r.PredictedTripRate = 60, 1, 12, 0.162 },
			"too short to tell: 12 restarts in 60 scans of 1 ladder"},
		{"is no longer than 2K scans", func(r *Round) { r.Scans, r.Ladders = 12, 1000 }, "too short to tell: 4896 restarts in 12 scans of 1000 ladders"},
		{"has ladders that disagree, though each is short", func(r *Round) { r.Scans, r.RHat["energy"] = 60, 1.2 },
			"too short to tell: 4896 restarts in 60 scans of 16 ladders; the ladders disagree on energy, R̂ 1.200, want 1.01 or less"},
		{"has ladders that stand still, each elsewhere", func(r *Round) { r.RHat["energy"] = math.Inf(1) }, "does not mix: the ladders disagree on energy, R̂ +Inf"},
		{"has one rung and chains that disagree", func(r *Round) {
			*r = Round{Betas: []float64{1}, Scans: 100, Ladders: 4, RHat: map[string]float64{"energy": 1.3}}
		},
			"does not mix: the ladders disagree on energy, R̂ 1.300"},
		{"meets the same energies again and again", func(r *Round) { r.RhoV[3] = 0.96 }, "does not mix: V of rung 3 keeps a correlation of 0.96 through a scan, want 0.5 or less"},
		{"meets the same energies and is short", func(r *Round) { r.Scans, r.RhoV[3] = 12, 0.96 }, "too short to tell: 4896 restarts in 12 scans of 16 ladders; V of rung 3"},
	} {
		r := healthyRound()
		tc.change(r)
		if got := r.Verdict(); !strings.HasPrefix(got, tc.verdict) {
			t.Errorf("a round that %s: %q, want %q", tc.name, got, tc.verdict)
		}
	}
	r := healthyRound()
	r.RhoV[3], r.RHat["energy"], r.LogZ.ForwardK, r.LogZ.ReverseK, r.Overlap[2] = 0.5049, 1.01049, 0.7049, 0.7049, 0.0951
	if got := r.Findings(); len(got) != 1 || got[0].Level != "ok" {
		t.Errorf("numbers that are printed as those that are wanted: findings %v", got)
	}
	r.RhoV[3], r.ESS["norm"] = 0.506, 399.9
	if got := r.Verdict(); !strings.Contains(got, "399 effective samples of norm, want 400") && !strings.Contains(got, "a correlation of 0.51") {
		t.Errorf("%q", got)
	}
}

// A ladder without a past makes its first trips late: that is no fault of the exploration. One that has made hardly any when
// every walker could have made two has one.
func TestLateTripsAreNoFault(t *testing.T) {
	for _, tc := range []struct {
		perWalker, efficiency float64
		fault                 bool
	}{{0.6, 0.05, false}, {1, 0.4, false}, {1, 0.1, true}, {2, 0.67, false}, {2, 0.2, true}, {50, 0.48, true}} {
		r := healthyRound()
		k := len(r.Betas)
		r.Scans = 2*k + int(tc.perWalker*float64(k)/r.PredictedTripRate)
		r.TripRate = tc.efficiency * r.PredictedTripRate
		if fault := strings.Contains(r.Verdict(), "exploration too short"); fault != tc.fault {
			t.Errorf("%g trips a walker expected, %g of them made: %q", tc.perWalker, tc.efficiency, r.Verdict())
		}
	}
}

func TestRoundThatCouldNotMeasureLogZ(t *testing.T) {
	r := healthyRound()
	r.LogZ, r.LogZFault = nil, "V is NaN on rung 0 of ladder 3 at scan 17, the first of 12 such, want a finite number"
	if got, want := r.Verdict(), "mixes, with 1 warning: 4896 restarts, R̂ 1.003; log Z is not known, V is NaN on rung 0 of ladder 3 at scan 17, the first of 12 such, want a finite number; do: look at the energy where the chains go"; got != want {
		t.Errorf("verdict %q, want %q", got, want)
	}
}
