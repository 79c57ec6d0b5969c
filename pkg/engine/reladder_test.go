package engine

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// withRungs is the same training on a ladder of another number of rungs.
func withRungs(cfg TrainerConfig, rungs int) TrainerConfig {
	cfg.Spec.Rungs, cfg.Tempering.Rungs = rungs, rungs
	if cfg.Layout.Split > 0 {
		cfg.Layout.Rungs = rungs
	}
	return cfg
}

// relaidCut is a cut on as many rungs, checked against the cut that it is of.
func relaidCut(t *testing.T, cut *checkpoint.Cut, rungs int) *checkpoint.Cut {
	t.Helper()
	sum := must[string](t)(cut.Sum())
	betas := must[[]float64](t)(Respaced(cut, rungs))
	out := must[*checkpoint.Cut](t)(Reladder(cut, betas))
	if again := must[string](t)(cut.Sum()); again != sum {
		t.Error("the cut that it is of was changed")
	}
	was, is := must[*Books](t)(ReadBooks(cut)), must[*Books](t)(ReadBooks(out))
	if is.Rungs != rungs || is.Pool != was.Pool || is.Chains != was.Chains || is.Scan != was.Scan || !slices.Equal(is.Betas, betas) ||
		is.Betas[0] != was.Betas[0] || !slices.Equal(is.Buffer.Start, was.Buffer.Start) || is.Buffer.Drawn != was.Buffer.Drawn {
		t.Fatalf("books %+v, want those of %+v on %d rungs", is, was, rungs)
	}
	census := must[Census](t)(Count(out))
	if n := uint64(rungs * was.Pool); census.Labels != n || census.Live != n || census.Created-census.Retired != n {
		t.Errorf("census %+v, want %d walkers", census, n)
	}
	size, grows := was.Pool*was.Dim, rungs > was.Rungs
	kept := make([]bool, was.Rungs)
	for j, s := range sources(was.Betas, betas) {
		if !slices.Equal(is.States[j*size:(j+1)*size], was.States[s.rung*size:(s.rung+1)*size]) {
			t.Errorf("the states of rung %d are not those of rung %d before", j, s.rung)
		}
		for c := range was.Pool {
			before, now := was.Live.Labels[s.rung*was.Pool+c], is.Live.Labels[j*was.Pool+c]
			raised := is.Live.Lineage[int(now)*was.Pool+c] - was.Live.Lineage[int(before)*was.Pool+c]
			if raised != uint32(b2i(s.copied)) || grows && s.copied != (int(now) >= was.Rungs) || grows && !s.copied && now != before {
				t.Fatalf("column %d, rung %d: walker %d of lineage +%d from walker %d on rung %d", c, j, now, raised, before, s.rung)
			}
		}
		if !s.copied && kept[s.rung] {
			t.Errorf("the states of rung %d are kept twice", s.rung)
		}
		kept[s.rung] = true
	}
	for c := range was.Pool {
		if is.Live.Warming[c] != (grows || was.Live.Warming[c]) || is.Live.Scans[c] != was.Live.Scans[c] || is.Live.Restarts[c]+is.Live.Trips[c] != 0 {
			t.Fatalf("column %d: %+v", c, is.Live)
		}
	}
	for _, name := range []string{"params", "optimizer", "ema"} {
		a, b := checkpoint.Cut{Files: map[string][]checkpoint.Tensor{name: cut.Files[name]}}, checkpoint.Cut{Files: map[string][]checkpoint.Tensor{name: out.Files[name]}}
		if must[string](t)(a.Sum()) != must[string](t)(b.Sum()) {
			t.Errorf("%s: changed", name)
		}
	}
	return out
}

// A training goes on from its cut on more rungs and on fewer, in every form of chains, and twice the same.
func TestReladder(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	layout := func(placement, exchange string) TrainerConfig {
		return groupTraining(t, Layout{Placement: placement, Split: 2, Rungs: 4, Chains: 8, Groups: 1}, exchange, nil)
	}
	for _, tc := range []struct {
		name  string
		cfg   TrainerConfig
		rungs []int
	}{
		{"states", toy(tempering.Config{}), []int{8, 3}},
		{"as many, spaced anew", toy(tempering.Config{}), []int{5}},
		{"labels, virtual swaps, variational", toy(tempering.Config{Exchange: "label", Reference: "variational", VirtualSwaps: true}), []int{6, 2}},
		{"windowed", toy(tempering.Config{Schedule: "windowed"}), []int{4}},
		{"columns drawn anew", mixed(toy(tempering.Config{})), []int{7, 3}},
		{"shards of rungs", layout("rung", "state"), []int{5, 3}},
		{"shards of rungs, labels", layout("rung", "label"), []int{5}},
		{"shards of ladders, labels", layout("ladder", "label"), []int{3}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tr := startTrainer(t, b, tc.cfg)
			trainSteps(t, tr, 12)
			cut := must[checkpoint.Cut](t)(tr.Cut())
			for _, rungs := range tc.rungs {
				changed := relaidCut(t, &cut, rungs)
				var digests []string
				for range 2 {
					next := newTrainer(t, b, withRungs(tc.cfg, rungs))
					if err := next.Restore(changed); err != nil {
						t.Fatal(err)
					}
					trainSteps(t, next, 6)
					digests = append(digests, digest(t, next))
				}
				if digests[0] != digests[1] {
					t.Errorf("%d rungs: two trainings from one cut differ", rungs)
				}
			}
		})
	}
}

// The double well of TestDoubleWell goes from six rungs to eight, and from those to five: its law stays what it is. While a
// column has had no restart on a ladder that grew, it is warming, and counts for no pair.
func TestReladderKeepsTheLaw(t *testing.T) {
	b := testutil.Backend(t, backend.Go) // a cut is numbers, wherever they were made
	config := func(rungs int) SamplerConfig {
		return temperedConfig(doubleWell(t, 10), 2, 0.01, tempering.Config{Rungs: rungs, Chains: 64})
	}
	s := newSampler(t, b, config(6))
	adapt(t, s, 128)
	for _, rungs := range []int{8, 5} {
		cut := must[checkpoint.Cut](t)(s.t.Cut())
		grows := rungs > s.t.Rungs()
		s = newSampler(t, b, config(rungs))
		if err := s.t.Restore(relaidCut(t, &cut, rungs)); err != nil {
			t.Fatal(err)
		}
		warming := 64
		for scan := 0; grows && warming > 0; scan++ {
			if scan == 1000 {
				t.Fatalf("%d columns are warming after %d scans", warming, scan)
			}
			must[Result](t)(s.t.Explore())
			state := s.t.ensemble.Snapshot()
			warming = 0
			for c, restarts := range state.Restarts {
				warming += b2i(state.Warming[c])
				if state.Warming[c] != (restarts == 0) {
					t.Fatalf("scan %d: column %d has %d restarts, warming %t", scan, c, restarts, state.Warming[c])
				}
			}
			if attempts := slices.Max(state.Attempts); warming == 64 && attempts > 0 {
				t.Fatalf("scan %d: %d attempts count while all columns are warming", scan, attempts)
			}
		}
		right := share{dim: 1}
		r := round(t, s, RoundOptions{Scans: 1200}, right.visit)
		near(t, "P(x > 0)", right.positive/right.n, 0.273101, 0.02)
		near(t, "log Z", r.LogZ.Bridge, -0.440623, 0.05)
		efficient(t, r)
		// Spaced by the barrier that the other ladder saw, no pair is far from the others.
		for _, rejection := range r.Rejections {
			near(t, "rejection", rejection, tempering.RejectionSum(r.Rejections)/float64(rungs-1), 0.1)
		}
	}
}

// A training whose columns are weighed does not learn from those that are warming, once one of the others is there.
func TestReladderLeavesWarmingColumnsOut(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	cfg := mixed(toy(tempering.Config{}))
	cfg.Buffer.Reinit = 0.001 // walkers have the time to arrive
	tr := startTrainer(t, b, cfg)
	trainSteps(t, tr, 12)
	cut := must[checkpoint.Cut](t)(tr.Cut())
	next := newTrainer(t, b, withRungs(cfg, 7))
	if err := next.Restore(relaidCut(t, &cut, 7)); err != nil {
		t.Fatal(err)
	}
	chains := cfg.Spec.Chains
	for step := 0; ; step++ {
		warm := 0
		for _, c := range next.plan.Draw {
			warm += b2i(!next.ensemble.Warming(int(c)))
		}
		sum := float32(0)
		for j, w := range next.weights {
			sum += w
			if warm > 0 && next.ensemble.Warming(int(next.plan.Draw[j])) != (w == 0) {
				t.Fatalf("step %d: weight %g of column %d", step, w, next.plan.Draw[j])
			}
			if warm == 0 && w != 1/float32(chains) {
				t.Fatalf("step %d: weight %g while all are warming, want 1/%d", step, w, chains)
			}
		}
		near(t, "sum of the weights", float64(sum), 1, 1e-5)
		if warm > chains/2 {
			return
		}
		if step == 300 {
			t.Fatalf("%d columns are warm after %d steps", warm, step)
		}
		trainSteps(t, next, 1)
	}
}

func TestReladderRefusals(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	tr := startTrainer(t, b, toy(tempering.Config{}))
	cut := must[checkpoint.Cut](t)(tr.Cut())
	for _, tc := range []struct {
		want  string
		betas []float64
	}{
		{"increase", []float64{0, 0.5, 0.4, 1}},
		{"increase", []float64{0, math.NaN(), 1}},
		{"on the last rung", []float64{0, 0.9}},
		{"1 rungs", []float64{1}},
		{"no rungs", nil},
		{"want 0 on the linear path", []float64{0.1, 1}},
	} {
		if _, err := Reladder(&cut, tc.betas); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v: %v, want %q", tc.betas, err, tc.want)
		}
	}
	if _, err := Respaced(&cut, 1); err == nil {
		t.Error("a ladder of one rung")
	}
	labels, err := checkpoint.Values[int32](cut.Files["chains"], "labels", -1)
	if err != nil {
		t.Fatal(err)
	}
	labels[0] = labels[cut.Files["chains"][0].Shape[0]-1]
	if _, err := Reladder(&cut, []float64{0, 1}); err == nil || !strings.Contains(err.Error(), "label") {
		t.Errorf("a cut that breaks a conservation law: %v", err)
	}
}
