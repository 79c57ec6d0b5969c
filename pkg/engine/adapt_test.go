package engine

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/buffer"
	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// toy trains one Gaussian on data from N(1, ½²), with a fence after every step.
func toy(cfg tempering.Config) TrainerConfig {
	const chains = 32
	if cfg.Rungs == 0 {
		cfg.Rungs = 5
	}
	if cfg.AdaptEvery == 0 {
		cfg.AdaptEvery = 1
	}
	cfg.Chains = chains
	cfg = cfg.WithDefaults()
	return TrainerConfig{
		Spec: Spec{Network: bowl{dim: 2, κ: 1}, Reference: &models.Gaussian{Mean: []float64{0, 0}, Std: []float64{3, 3}},
			Rungs: cfg.Rungs, Chains: chains, Pool: chains, Batch: 32,
			Weighted: cfg.VirtualSwaps, Virtual: cfg.VirtualSwaps, Variational: cfg.Reference == "variational", Exchange: cfg.Exchange,
			Sampler:   samplers.Config{Kind: "mala", Steps: 3, StepSize: schedules.Constant(0.1)}.WithDefaults(),
			Optimizer: OptimizerConfig{Kind: "adam", LR: schedules.Constant(0.02), Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8}, Seed: 3},
		Tempering: cfg,
		Buffer:    buffer.Config{Size: chains, Init: "reference"},
		Positives: func(step int, into []float32) {
			z := rng.New(3, rng.Dataset, uint64(step), 0)
			for i := range into {
				into[i] = float32(1 + 0.5*z.Normal())
			}
		},
	}
}

// mixed makes the toy draw its columns from a pool in which some are drawn anew.
func mixed(c TrainerConfig) TrainerConfig {
	c.Spec.Pool, c.Spec.Mix, c.Spec.Weighted = 3*c.Spec.Chains, true, true
	c.Buffer = buffer.Config{Size: c.Spec.Pool, Init: "reference", Reinit: 0.2}
	return c
}

func newTrainer(t *testing.T, b *backend.Backend, cfg TrainerConfig) *Trainer {
	t.Helper()
	tr, err := NewTrainer(b, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.Close)
	return tr
}

func startTrainer(t *testing.T, b *backend.Backend, cfg TrainerConfig) *Trainer {
	t.Helper()
	tr := newTrainer(t, b, cfg)
	if err := tr.Start(); err != nil {
		t.Fatal(err)
	}
	return tr
}

func trainSteps(t *testing.T, tr *Trainer, n int) (last Report) {
	t.Helper()
	for range n {
		var err error
		if last, err = tr.TrainStep(); err != nil {
			t.Fatal(err)
		}
	}
	return last
}

// A cut in the middle of an adaptation goes on bit for bit, from a file: between two fences, and right after a fence at
// which the variational reference was refitted.
func TestCutInTheMiddleOfAnAdaptation(t *testing.T) {
	between := tempering.Config{AdaptEvery: 4}
	with := func(change func(*tempering.Config)) TrainerConfig {
		cfg := between
		change(&cfg)
		return toy(cfg)
	}
	cases := []struct {
		name string
		cfg  TrainerConfig
		step int
	}{
		{"adaptive ladder and step sizes", toy(between), 70},
		{"variational reference", with(func(c *tempering.Config) { c.Reference = "variational" }), 70},
		{"variational reference, just refitted", with(func(c *tempering.Config) { c.Reference = "variational" }), 64},
		{"windowed", with(func(c *tempering.Config) { c.Schedule = "windowed" }), 70},
		{"seo", with(func(c *tempering.Config) { c.Schedule = "seo" }), 70},
		{"virtual swaps", with(func(c *tempering.Config) { c.VirtualSwaps = true }), 70},
		{"labels", with(func(c *tempering.Config) { c.Exchange, c.Reference, c.VirtualSwaps = "label", "variational", true }), 70},
		{"columns drawn anew", mixed(toy(between)), 70},
	}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for _, tc := range cases {
			if b.Kind() != backend.Go && tc.name != "labels" { // compiles long
				continue
			}
			t.Run(tc.name, func(t *testing.T) {
				tr := startTrainer(t, b, tc.cfg)
				trainSteps(t, tr, tc.step)
				cut, err := tr.Cut()
				if err != nil {
					t.Fatal(err)
				}
				store := checkpoint.Store{Dir: t.TempDir()}
				if _, err := store.Save(cut); err != nil {
					t.Fatal(err)
				}
				at := tr.Adapted()
				trainSteps(t, tr, 50)
				want := digest(t, tr)
				if slices.Equal(at.Factors, tr.Adapted().Factors) || slices.Equal(at.Betas, newTrainer(t, b, tc.cfg).Adapted().Betas) {
					t.Errorf("nothing moved: %+v at the cut", at)
				}
				saved, err := store.Latest()
				if err != nil {
					t.Fatal(err)
				}
				for _, again := range []struct {
					name string
					cut  *checkpoint.Cut
					in   *Trainer
				}{{"saved", saved, newTrainer(t, b, tc.cfg)}, {"in memory, where it was taken", &cut, tr}, {"in memory, once more", &cut, tr}} {
					if err := again.in.Restore(again.cut); err != nil {
						t.Fatal(err)
					}
					trainSteps(t, again.in, 50)
					if got := digest(t, again.in); got != want {
						t.Errorf("%s: the restored trainer went another way", again.name)
					}
				}
			})
		}
	})
}

// The drift of a step that moves nothing is none, up to the rounding of two programs, and it grows with the learning rate;
// the reference never moves.
func TestDriftOfATrainingStep(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		tr := startTrainer(t, b, toy(tempering.Config{}))
		least := 1.1
		for _, lr := range []float64{0, 0.05, 0.3} {
			var err error
			if tr.rate, err = schedules.Constant(lr).Build(); err != nil {
				t.Fatal(err)
			}
			drift := trainSteps(t, tr, 3).Drift
			if len(drift) != 5 || drift[0] != 1 {
				t.Fatalf("lr %g: drift %v, want 5 numbers, the first 1", lr, drift)
			}
			if lr == 0 && slices.ContainsFunc(drift, func(x float64) bool { return math.Abs(x-1) > 1e-6 }) {
				t.Errorf("nothing moved, and the drift is %v", drift)
			}
			if !(drift[4] > 0 && drift[4] < least) {
				t.Errorf("lr %g: effective share %g of the target rung, want less than %g at a smaller rate", lr, drift[4], least)
			}
			least = drift[4]
		}
	})
}

// From a uniform ladder, whose lowest pair has most of the barrier, to equal rejections, while θ moves.
func TestLadderMovesTowardsEqualRejectionInTraining(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	cfg := toy(tempering.Config{Betas: []float64{0, 0.25, 0.5, 0.75, 1}})
	cfg.Spec.Network = bowl{dim: 2, κ: 3, mean: 0.8}
	tr := startTrainer(t, b, cfg)
	spread := func(n int) float64 {
		tr.ResetPairs()
		trainSteps(t, tr, n)
		r := tr.Stats().Rejections()
		return slices.Max(r) - slices.Min(r)
	}
	before := spread(10)
	trainSteps(t, tr, 1500)
	if after := spread(100); !(before > 0.3) || !(after < before/3) {
		t.Errorf("rejections differ by %.3f at first and by %.3f in the end, want a third of it at most: β %.3f", before, after, tr.Ladder().Betas())
	}
}

// Weights of the negatives sum to 1, and a column that was drawn anew has none until a walker has crossed its ladder.
func TestWarmingColumnsWeighNothing(t *testing.T) {
	b := testutil.Backend(t, "go")
	for _, virtual := range []bool{false, true} {
		t.Run(fmt.Sprintf("virtual swaps %t", virtual), func(t *testing.T) {
			tr := startTrainer(t, b, mixed(toy(tempering.Config{VirtualSwaps: virtual})))
			warming, split := 0, 0
			for range 40 {
				trainSteps(t, tr, 1)
				sum, n := 0.0, tr.Chains()
				for j, c := range tr.plan.Draw {
					below, target := float32(0), tr.weights[len(tr.weights)-n+j]
					if virtual {
						below = tr.weights[j]
					}
					sum += float64(below) + float64(target)
					if tr.ensemble.Warming(int(c)) {
						warming++
						if below != 0 || target != 0 {
							t.Fatalf("column %d is warming and weighs %g and %g", c, below, target)
						}
						continue
					}
					if below != 0 {
						split++
					}
				}
				if math.Abs(sum-1) > 1e-6 {
					t.Fatalf("weights sum to %g", sum)
				}
			}
			if warming == 0 || virtual != (split > 0) {
				t.Errorf("%d columns were warming, %d had weight on the rung below the target", warming, split)
			}
		})
	}
}

// A virtual swap weighs both states of the coldest pair by the probability of the swap: the mean over the swap's coin, so
// that the two estimates differ by a martingale difference at every scan, and the virtual one varies less.
func TestVirtualSwapsHaveTheSameMeanAndLessVariance(t *testing.T) {
	b := testutil.Backend(t, "go")
	tr := startTrainer(t, b, toy(tempering.Config{VirtualSwaps: true, Ladder: "uniform"}))
	var differences, coin, virtual []float64
	for range 2000 {
		if _, err := tr.Explore(); err != nil {
			t.Fatal(err)
		}
		live, err := tr.shard.Live()
		if err != nil {
			t.Fatal(err)
		}
		n, dim := tr.Chains(), tr.Dim()
		rows := permuted(live, tr.perm, dim)[(tr.Rungs()-2)*n*dim:]
		var plain, weighted float64
		for i, w := range tr.weights {
			f := float64(rows[i*dim] * rows[i*dim])
			weighted += float64(w) * f
			if i >= n {
				plain += f / float64(n)
			}
		}
		if slices.Max(tr.weights[:n]) == 0 { // the pair was not tried
			if math.Abs(plain-weighted) > 1e-5 {
				t.Fatalf("estimates %g and %g of a scan that did not try the pair", plain, weighted)
			}
			continue
		}
		differences, coin, virtual = append(differences, weighted-plain), append(coin, plain), append(virtual, weighted)
	}
	spread := func(v []float64) float64 {
		m, sum := mean(v), 0.0
		for _, x := range v {
			sum += (x - m) * (x - m)
		}
		return sum / float64(len(v))
	}
	if d, tol := mean(differences), 5*math.Sqrt(spread(differences)/float64(len(differences))); len(differences) != 1000 || math.Abs(d) > tol || tol > 0.03 {
		t.Errorf("%d estimates differ by %.5f on average, want 0 ± %.5f", len(differences), d, tol)
	}
	if v, c := spread(virtual), spread(coin); !(v < 0.95*c) {
		t.Errorf("variance %.5f with virtual swaps, %.5f without", v, c)
	}
}

// V before and after exploration: differences between scans do not count, rungs of independent draws have none, and a chain
// that stands still keeps all of it.
func TestExplorationCorrelations(t *testing.T) {
	c := newCorrelations(2, 4)
	for scan := range 3 {
		shift := 100 * float64(scan)
		c.add([]float64{1, 2, 3, 4, 1 + shift, 1 + shift, -1 + shift, -1 + shift}, []float64{9, 9, 9, 8, 1 - shift, -1 - shift, 1 - shift, -1 - shift})
	}
	if got := c.rates(1); got[0] != 0 || got[1] != 0 {
		t.Errorf("correlations %v, want 0 on the drawn rung and for orthogonal changes", got)
	}
	// Centred (−1.5, −0.5, 0.5, 1.5) and (0.25, 0.25, 0.25, −0.75): −1.5/√(5·0.75).
	if got, want := c.rates(0)[0], -1.5/math.Sqrt(5*0.75); math.Abs(got-want) > 1e-12 {
		t.Errorf("correlation %g, want %g", got, want)
	}

	b := testutil.Backend(t, "go")
	rates := func(eps float64) []float64 {
		cfg := toy(tempering.Config{})
		cfg.Spec.Sampler.StepSize, cfg.Spec.Sampler.AcceptTarget = schedules.Constant(eps), new(0.)
		tr := startTrainer(t, b, cfg)
		tr.ResetPairs()
		for range 50 {
			if _, err := tr.Explore(); err != nil {
				t.Fatal(err)
			}
		}
		return tr.Exploration()
	}
	for k, still := range rates(1e-9)[1:] {
		if moving := rates(0.5)[1+k]; !(still > 0.9) || !(moving < 0.6) {
			t.Errorf("rung %d: correlation %.3f at steps of 1e-9, %.3f at 0.5", 1+k, still, moving)
		}
	}
}
