package engine

import (
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// Targets whose modes plain chains do not leave, with truths by quadrature or in closed form. Tolerances are five standard
// errors of the budget or more. Every ladder is the one that a few rounds adapted.

func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func near(t *testing.T, name string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("%s: %.4f, want %.4f ± %g", name, got, want, tolerance)
	}
}

// efficient checks that walkers make at least 0.85 of the round trips that the rejection rates allow, which takes
// exploration that forgets energies.
func efficient(t *testing.T, r *tempering.Round) {
	t.Helper()
	if !(r.TripRate >= 0.85*r.PredictedTripRate) {
		t.Errorf("%.4f round trips a scan, want at least 0.85 of the predicted %.4f", r.TripRate, r.PredictedTripRate)
	}
}

// share gathers the share of states whose coordinates have a positive sum, and the mean of the first coordinate.
type share struct {
	dim                   int
	n, positive, firstSum float64
}

func (s *share) visit(x []float32) {
	for row := range slices.Chunk(x, s.dim) {
		sum := float32(0)
		for _, v := range row {
			sum += v
		}
		if sum > 0 {
			s.positive++
		}
		s.firstSum += float64(row[0])
		s.n++
	}
}

func doubleWell(t *testing.T, a float64) *models.TiltedDoubleWell {
	t.Helper()
	return must[*models.TiltedDoubleWell](t)(models.NewTiltedDoubleWell(1, a, 0.5))
}

func twoModes(t *testing.T, dim int, at float64) *models.GaussianMixture {
	t.Helper()
	return must[*models.GaussianMixture](t)(models.NewGaussianMixture([]float64{0.2, 0.8},
		[][]float64{slices.Repeat([]float64{-at}, dim), slices.Repeat([]float64{at}, dim)}, nil))
}

// 10(x² − 1)² + ½x from N(0, 2²): a barrier of 10.5. MALA of step 0.01 has 0.08 of its chains on the right after 60,000
// steps from the left, and 0.86 from the right.
func TestDoubleWell(t *testing.T) {
	well := doubleWell(t, 10)
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		s := newSampler(t, b, temperedConfig(well, 2, 0.01, tempering.Config{Rungs: 6, Chains: 64}))
		adapt(t, s, 128)
		right := share{dim: 1}
		r := round(t, s, RoundOptions{Scans: 1500}, right.visit)
		near(t, "P(x > 0)", right.positive/right.n, 0.273101, 0.02)
		near(t, "log Z", r.LogZ.Bridge, -0.440623, 0.05)
		near(t, "barrier", r.Barrier, 1.5425, 0.06) // six rungs see 1.51 of it
		efficient(t, r)
		if !(r.TripRate >= 0.12) {
			t.Errorf("%.4f round trips a scan, want at least 0.12", r.TripRate)
		}

		// The same ladder under a coin for the parity.
		s.t.cfg.Tempering.Schedule = "seo"
		if err := s.StartFrom(nil, s.Adapted()); err != nil {
			t.Fatal(err)
		}
		coin := round(t, s, RoundOptions{Scans: 1000}, nil)
		if !(r.TripRate > 2*coin.TripRate) {
			t.Errorf("%.4f round trips a scan under deo, %.4f under seo, want more than twice as many", r.TripRate, coin.TripRate)
		}
	})
}

// The double well of twelve seeds, 64 ladders and 2,000 scans each after an adaptation from the start. Share, bridge and round
// trips hold every time. The reverse estimate is too high most of the time, and much too low at rare others: the quartic walls
// give V a tail that leaves its weights without a variance, and its Pareto shape says so.
func TestDoubleWellOfTwelveSeeds(t *testing.T) {
	const seeds, halves, ladders, rungs, scans, truth = 12, 2, 64, 6, 2000, -0.440623
	var high, unreliable atomic.Int32
	run := func(t *testing.T, s *Sampler, seed uint64) {
		s.Reseed(seed)
		if err := s.StartFrom(nil, Adapted{}); err != nil {
			t.Fatal(err)
		}
		adapt(t, s, 128)
		s.t.ensemble.Reset()
		record, right := must[*tempering.Record](t)(tempering.NewRecord(rungs, ladders, scans)), share{dim: 1}
		for range scans {
			record.Add(must[Result](t)(s.t.Explore()).V)
			right.visit(must[[]float32](t)(s.TargetChains()))
		}
		z := must[tempering.LogZ](t)(record.LogZ(s.t.Ladder().Betas()))
		name := fmt.Sprintf("seed %d: ", seed)
		near(t, name+"P(x > 0)", right.positive/right.n, 0.273101, 0.02)
		near(t, name+"bridge", z.Bridge, truth, 0.03)
		if rate := s.t.TripRate(); !(rate >= 0.12) {
			t.Errorf("%s%.4f round trips a scan, want at least 0.12", name, rate)
		}
		high.Add(int32(b2i(z.Reverse-truth > 0.05)))
		unreliable.Add(int32(b2i(z.ReverseK > 0.7)))
	}
	t.Run("halves", func(t *testing.T) {
		for half := range uint64(halves) {
			t.Run(fmt.Sprint(half), func(t *testing.T) {
				t.Parallel()
				s := newSampler(t, testutil.Backend(t, backend.Go), temperedConfig(doubleWell(t, 10), 2, 0.01, tempering.Config{Rungs: rungs, Chains: ladders}))
				for i := range uint64(seeds / halves) {
					run(t, s, halves*i+half)
				}
			})
		}
	})
	if high, unreliable := high.Load(), unreliable.Load(); high <= seeds/2 || unreliable <= seeds/2 {
		t.Errorf("the reverse estimate is more than 0.05 too high in %d of %d, and its k̂ above 0.7 in %d: want most", high, seeds, unreliable)
	}
}

// 16(x² − 1)² + ½x: chains cross in some million time units. As many steps as a ladder makes on all its rungs leave every
// plain chain where it began, one in a hundred at most, while the ladder has the weights right.
func TestPlainChainsStayWhereTemperedOnesCross(t *testing.T) {
	const chains, scans, rungs, steps = 128, 1500, 6, 5
	b := testutil.Backend(t, backend.CPU)
	well := doubleWell(t, 16)
	start := slices.Repeat([]float32{-1}, chains)
	for j := range chains / 2 {
		start[j] = 1
	}
	plain := must[*samplers.Trace](t)(samplers.Run(t.Context(), testutil.Backend(t, backend.Go), samplers.RunOptions{Network: well, Chains: chains, Start: start, Seed: 1,
		Sampler: samplers.Config{Kind: "mala", Steps: 1, StepSize: schedules.Constant(0.01)}, Burn: rungs*scans*steps - 1}))
	moved := 0
	for j, x := range plain.X {
		if (x > 0) != (start[j] > 0) {
			moved++
		}
	}
	if share := float64(moved) / chains; !(share < 0.01) || !(plain.AcceptRate > 0.5) {
		t.Errorf("%.3f of the plain chains crossed at an acceptance of %.2f, want less than 0.01", share, plain.AcceptRate)
	}

	s := newSampler(t, b, temperedConfig(well, 2, 0.01, tempering.Config{Rungs: rungs, Chains: 64}))
	adapt(t, s, 128)
	right := share{dim: 1}
	r := round(t, s, RoundOptions{Scans: scans}, right.visit)
	near(t, "P(x > 0)", right.positive/right.n, 0.271407, 0.02)
	near(t, "log Z", r.LogZ.Bridge, -0.683073, 0.05)
}

// 0.2·N(−5, 1) + 0.8·N(5, 1) from N(0, 6²).
func TestTwoModesOnTheLine(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	s := newSampler(t, b, temperedConfig(twoModes(t, 1, 5), 6, 0.5, tempering.Config{Rungs: 6, Chains: 64}))
	adapt(t, s, 128)
	right := share{dim: 1}
	r := round(t, s, RoundOptions{Scans: 1200}, right.visit)
	near(t, "P(x > 0)", right.positive/right.n, 0.8, 0.02)
	near(t, "mean", right.firstSum/right.n, 3, 0.2)
	near(t, "log Z", r.LogZ.Bridge, 0, 0.03)
	near(t, "barrier", r.Barrier, 1.012, 0.05)
	for _, rejection := range r.Rejections {
		near(t, "rejection", rejection, 0.2, 0.02)
	}
}

// Two modes in sixteen dimensions, five deviations to either side along the diagonal. From a uniform ladder, where the
// lowest pair has nearly all of the barrier, seven rounds equalise the rejections.
func TestTwoModesInSixteenDimensions(t *testing.T) {
	b := testutil.Backend(t, backend.CPU)
	cfg := tempering.Config{Rungs: 12, Chains: 64}
	for k := range cfg.Rungs {
		cfg.Betas = append(cfg.Betas, float64(k)/float64(cfg.Rungs-1))
	}
	config := temperedConfig(twoModes(t, 16, 1.25), 6, 0.5, cfg)
	config.Spec.Sampler.Steps = 4
	s := newSampler(t, b, config)
	adapt(t, s, 1024)
	right := share{dim: 16}
	r := round(t, s, RoundOptions{Scans: 2500}, right.visit)
	if spread := slices.Max(r.Rejections) - slices.Min(r.Rejections); !(spread < 0.05) {
		t.Errorf("rejections %.3f differ by %.3f, want less than 0.05", r.Rejections, spread)
	}
	near(t, "P(Σx > 0)", right.positive/right.n, 0.8, 0.02)
	near(t, "log Z", r.LogZ.Bridge, 0, 0.05)
	near(t, "barrier", r.Barrier, 5.57, 0.1)
	efficient(t, r)
}

// 25 modes on a grid of spacing 4 and width ½, of weights 1 to 25. MALA of 60,000 steps from 0 is 0.30 off in total
// variation.
func TestGridOfModes(t *testing.T) {
	const modes = 25
	var means [][]float64
	var weights []float64
	for k := range modes {
		means = append(means, []float64{4 * float64(k/5-2), 4 * float64(k%5-2)})
		weights = append(weights, float64(k+1))
	}
	grid := must[*models.GaussianMixture](t)(models.NewGaussianMixture(weights, means, []float64{0.5}))
	b := testutil.Backend(t, backend.CPU)
	s := newSampler(t, b, temperedConfig(grid, 6, 0.1, tempering.Config{Rungs: 10, Chains: 32}))
	adapt(t, s, 128)
	var counts [modes]float64
	n := 0.
	r := round(t, s, RoundOptions{Scans: 1200}, func(x []float32) {
		cell := func(v float32) int { return 2 + max(-2, min(2, int(math.Round(float64(v)/4)))) }
		for at := 0; at < len(x); at += 2 {
			counts[5*cell(x[at])+cell(x[at+1])]++
			n++
		}
	})
	distance := 0.
	for k, count := range counts {
		distance += math.Abs(count/n-weights[k]/325) / 2
		if count == 0 {
			t.Errorf("mode %d was never visited", k)
		}
	}
	if !(distance < 0.06) {
		t.Errorf("weights of the modes are %.3f off in total variation, want less than 0.06", distance)
	}
	near(t, "log Z", r.LogZ.Bridge, 0, 0.05)
	efficient(t, r)
}

// From N(0, I) to N(0, I/10), where the barrier is ½·2^{2−d}/B(d/2, d/2)·ln 10 and log Z is d/2·ln(2π/10).
func TestGaussianPath(t *testing.T) {
	for _, tc := range []struct {
		kind                     string
		dim, rungs, ladders      int
		scans                    int
		barrier, logZ, rejection float64
		barrierTol, logZTol      float64
	}{
		{backend.Go, 10, 6, 64, 500, 2.833, -2.3236, 0.5205, 0.05, 0.2},
		{backend.CPU, 100, 10, 32, 400, 9.163, -23.2354, 0.7971, 0.02 * 9.163, 0.5},
	} {
		b := testutil.Backend(t, tc.kind)
		target := must[*models.Harmonic](t)(models.NewHarmonic(tc.dim, 10))
		s := newSampler(t, b, temperedConfig(target, 1, 0.03, tempering.Config{Rungs: tc.rungs, Chains: tc.ladders}))
		adapt(t, s, 128)
		r := round(t, s, RoundOptions{Scans: tc.scans}, nil)
		near(t, "barrier", r.Barrier, tc.barrier, tc.barrierTol)
		near(t, "log Z", r.LogZ.Bridge, tc.logZ, tc.logZTol)
		for _, rejection := range r.Rejections {
			near(t, "rejection", rejection, tc.rejection, 0.03)
		}
	}
}
