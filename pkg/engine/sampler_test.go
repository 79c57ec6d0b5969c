package engine

import (
	"errors"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// temperedConfig tempers an energy from a Gaussian of deviation std by five steps of MALA a scan; eps is the first step
// size of the target rung.
func temperedConfig(energy models.Energy, std, eps float64, cfg tempering.Config) SamplerConfig {
	d := energy.Dim()
	cfg = cfg.WithDefaults()
	return SamplerConfig{Tempering: cfg, Spec: Spec{Network: energy, Rungs: cfg.Rungs, Chains: cfg.Chains,
		Reference: &models.Gaussian{Mean: make([]float64, d), Std: slices.Repeat([]float64{std}, d)},
		Sampler:   samplers.Config{Kind: "mala", Steps: 5, StepSize: schedules.Constant(eps)}.WithDefaults(), Seed: 1}}
}

func newSampler(t *testing.T, b *backend.Backend, cfg SamplerConfig) *Sampler {
	t.Helper()
	s, err := NewSampler(b, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if err := s.Start(nil); err != nil {
		t.Fatal(err)
	}
	return s
}

// round makes a round, and shows visit the target chains after every scan; nil shows nobody.
func round(t *testing.T, s *Sampler, o RoundOptions, visit func(x []float32)) *tempering.Round {
	t.Helper()
	if visit != nil {
		o.Each = func(Standing) error {
			rows, err := s.TargetChains()
			if err == nil {
				visit(rows)
			}
			return err
		}
	}
	r, err := s.Round(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// adapt makes rounds of 16, 32, … scans that adapt, up to last.
func adapt(t *testing.T, s *Sampler, last int) {
	t.Helper()
	for n := 16; n <= last; n *= 2 {
		round(t, s, RoundOptions{Scans: n, Adapt: true}, nil)
	}
}

func digest(t *testing.T, of interface{ Digest() (string, error) }) string {
	t.Helper()
	d, err := of.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// well is a small law for tests of the bookkeeping.
func well(cfg tempering.Config) SamplerConfig {
	if cfg.Rungs == 0 {
		cfg.Rungs = 4
	}
	if cfg.Chains == 0 {
		cfg.Chains = 16
	}
	return temperedConfig(bowl{dim: 2, κ: 6, mean: 0.5, fixed: true}, 1, 0.05, cfg)
}

// What a sampler did before leaves no trace: started again it makes the numbers of a fresh one, and of one that begins with
// the ladder, the step sizes and the reference that were handed over.
func TestSamplerStartsAfresh(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for _, tc := range []struct {
			name string
			cfg  tempering.Config
		}{
			{"states", tempering.Config{}},
			{"labels, variational, windowed", tempering.Config{Exchange: "label", Reference: "variational", Schedule: "windowed"}},
		} {
			if b.Kind() != backend.Go && tc.cfg.Exchange == "" { // compiles long
				continue
			}
			t.Run(tc.name, func(t *testing.T) {
				run := func(s *Sampler) string {
					for n := 2; n <= 64; n *= 2 {
						round(t, s, RoundOptions{Scans: n, Adapt: true}, nil)
					}
					return digest(t, s)
				}
				cfg := well(tc.cfg)
				s := newSampler(t, b, cfg)
				first := run(s)
				from := s.Adapted()
				if err := s.Start(nil); err != nil {
					t.Fatal(err)
				}
				if again := run(s); again != first {
					t.Error("started again, the sampler went another way")
				}
				if err := s.StartFrom(nil, from); err != nil {
					t.Fatal(err)
				}
				handed := run(s)
				cfg.Start = from
				if fresh := run(newSampler(t, b, cfg)); fresh != handed {
					t.Error("a fresh sampler and one that was started from the same adaptation went different ways")
				}
				if handed == first {
					t.Error("the adaptation that was handed over changed nothing")
				}
			})
		}
	})
}

// A round without adaptation leaves ladder, step sizes and reference where they are; one with it moves all of them.
func TestRoundsMoveWhatTheyMay(t *testing.T) {
	b := testutil.Backend(t, "go")
	s := newSampler(t, b, well(tempering.Config{Reference: "variational"}))
	start := s.Adapted()
	r := round(t, s, RoundOptions{Scans: 20}, nil)
	if now := s.Adapted(); !slices.Equal(now.Betas, start.Betas) || !slices.Equal(now.Factors, start.Factors) || !slices.Equal(now.Reference.Std, start.Reference.Std) {
		t.Errorf("a round that measures moved %v to %v", start, now)
	}
	if r.Kind != "measure" || r.Number != 1 || r.Scans != 20 || !slices.Equal(r.Betas, start.Betas) {
		t.Errorf("%s round %d of %d scans at %v", r.Kind, r.Number, r.Scans, r.Betas)
	}
	for range variationalRound {
		r = round(t, s, RoundOptions{Scans: 50, Adapt: true}, nil)
	}
	now := s.Adapted()
	for k := 1; k < 3; k++ {
		if now.Betas[k] == start.Betas[k] || now.Factors[k] == start.Factors[k] {
			t.Errorf("rung %d: β %g, factor %g after rounds that adapt", k, now.Betas[k], now.Factors[k])
		}
	}
	// The law is N(½, 1/6); 16 ladders of 50 scans fit its deviation to some 4 %, and 1/√6 is far from the 1 of before.
	for i := range 2 {
		if m, sd := now.Reference.Mean[i], now.Reference.Std[i]; math.Abs(m-0.5) > 0.1 || math.Abs(sd-1/math.Sqrt(6)) > 0.08 {
			t.Errorf("reference N(%.3f, %.3f²), want that of the target, N(0.5, 0.408²)", m, sd)
		}
	}
	if r.Kind != "adapt" || r.LogZ == nil {
		t.Errorf("round: kind %s, log Z %v", r.Kind, r.LogZ)
	}
}

func TestRoundEndsWhenItIsEnough(t *testing.T) {
	b := testutil.Backend(t, "go")
	s := newSampler(t, b, well(tempering.Config{}))
	var last Standing
	r, err := s.Round(t.Context(), RoundOptions{Scans: 1000, Each: func(at Standing) error {
		if last = at; at.Restarts >= 40 {
			return ErrEnough
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if r.Scans >= 1000 || r.Scans != last.Scans || r.Restarts != last.Restarts || r.Restarts < 40 {
		t.Errorf("%d scans with %d restarts, want as at the end of the last scan, %d with %d", r.Scans, r.Restarts, last.Scans, last.Restarts)
	}
	if rhat := last.RHat(); !(rhat > 0.9 && rhat < 1.5) {
		t.Errorf("R̂ %g", rhat)
	}
	broken := errors.New("broken")
	if _, err := s.Round(t.Context(), RoundOptions{Scans: 3, Each: func(Standing) error { return broken }}); !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
	if _, err := s.Round(t.Context(), RoundOptions{}); err == nil || err.Error() != "engine: round: 0 scans, want at least 1" {
		t.Errorf("no scans: %v", err)
	}
}

// Log Z needs the exact law, and a reference that has one.
func TestRoundWithoutLogZ(t *testing.T) {
	b := testutil.Backend(t, "go")
	langevin := well(tempering.Config{})
	langevin.Spec.Sampler = samplers.Config{Kind: "langevin", Steps: 5, StepSize: schedules.Constant(0.01)}.WithDefaults()
	power := well(tempering.Config{Path: "power"})
	power.Spec.Reference = nil
	for name, cfg := range map[string]SamplerConfig{"langevin": langevin, "power": power} {
		r := round(t, newSampler(t, b, cfg), RoundOptions{Scans: 10}, nil)
		if r.LogZ != nil {
			t.Errorf("%s: log Z %+v, want none", name, r.LogZ)
		}
		if !(r.Barrier > 0) || len(r.Overlap) != 3 || len(r.LambdaAt) != 3*curvePoints+1 {
			t.Errorf("%s: barrier %g, overlap %v, λ at %v", name, r.Barrier, r.Overlap, r.LambdaAt)
		}
	}
}

// A round counts what it made itself, and its walkers go on as they were: right after a reference was refitted, and in so few
// scans that walkers without a past would have made less than half of their trips, it has the trips that it should.
func TestRoundRightAfterARefit(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	s := newSampler(t, b, well(tempering.Config{Reference: "variational", Chains: 64}))
	if r := round(t, s, RoundOptions{Scans: 6}, nil); !math.IsNaN(r.TripRate) || !strings.HasPrefix(r.Verdict(), "too short to tell") {
		t.Errorf("%g trips a scan in the first 2K scans of a ladder, where none can end; %s", r.TripRate, r.Verdict())
	}
	for range variationalRound {
		round(t, s, RoundOptions{Scans: 50, Adapt: true}, nil)
	}
	// Some 250 trips, which vary by less than those of independent arrivals, a sixteenth.
	const scans = 12
	r := round(t, s, RoundOptions{Scans: scans}, nil)
	if got := r.TripRate / r.PredictedTripRate; !(math.Abs(got-0.95) < 0.25) || math.Abs(r.TripRate*scans*64-float64(r.Trips)) > 1e-9 {
		t.Errorf("%d trips at a rate of %.3f, %.2f of the predicted, want 0.95 ± 0.25", r.Trips, r.TripRate, got)
	}
	if again := round(t, s, RoundOptions{Scans: scans}, nil); again.Trips > 2*r.Trips || again.Restarts > 2*r.Restarts {
		t.Errorf("%d trips and %d restarts, then %d and %d: want each round's own", r.Trips, r.Restarts, again.Trips, again.Restarts)
	}
}

// walled is a bowl with no energy, or none that is a number, to the left of a wall.
type walled struct {
	bowl
	beyond float64
}

func (w walled) Energy(x *graph.Node, weights []*graph.Node) *graph.Node {
	inside := graph.GreaterThan(graph.Squeeze(graph.Slice(x, graph.AxisRange(), graph.AxisRange(0, 1)), -1), graph.ScalarZero(x.Graph(), x.DType()))
	e := w.bowl.Energy(x, weights)
	return graph.Where(inside, e, graph.MulScalar(graph.OnesLike(e), w.beyond))
}

// Draws of the reference that the energy forbids have no weight, and log Z is that of what is left; such that have no weight
// at all cost the round its log Z, with their place named, and nothing else.
func TestEnergiesThatAreNotFinite(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for _, beyond := range []float64{math.Inf(1), math.NaN()} {
			cfg := well(tempering.Config{Chains: 32})
			cfg.Spec.Network = walled{bowl{dim: 2, κ: 6, fixed: true}, beyond}
			cfg.Spec.Start = &models.Gaussian{Mean: []float64{2, 0}, Std: []float64{0.3, 1}}
			cfg.Init = "reference"
			s := newSampler(t, b, cfg)
			adapt(t, s, 64)
			r := round(t, s, RoundOptions{Scans: 400}, nil)
			if r.Restarts == 0 || slices.ContainsFunc(r.RhoV, bad) || r.NonFinite == 0 {
				t.Errorf("E = %g: %d restarts, ρ_V %v, %d non-finite ratios", beyond, r.Restarts, r.RhoV, r.NonFinite)
			}
			if math.IsInf(beyond, 1) {
				// Half of ∫exp(−3x²) = π/3, to five standard errors.
				if r.LogZ == nil || math.Abs(r.LogZ.Bridge-math.Log(math.Pi/6)) > 0.1 {
					t.Errorf("log Z %+v %s, want %.3f", r.LogZ, r.LogZFault, math.Log(math.Pi/6))
				}
				continue
			}
			if r.LogZ != nil || !strings.HasPrefix(r.LogZFault, "V is NaN on rung 0 of ladder ") ||
				!slices.ContainsFunc(r.Findings(), func(f tempering.Finding) bool { return strings.Contains(f.Text, r.LogZFault) }) {
				t.Errorf("log Z %+v, fault %q, findings %v", r.LogZ, r.LogZFault, r.Findings())
			}
		}
	})
}

// A sampler that takes over from another goes its way, and one with another seed another way, as a fresh one would.
func TestSamplerTakesOver(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	cfg := well(tempering.Config{Reference: "variational", Exchange: "label"})
	s := newSampler(t, b, cfg)
	adapt(t, s, 32)
	other := must[*Sampler](t)(NewSampler(b, cfg))
	t.Cleanup(other.Close)
	if err := other.Resume(s); err != nil {
		t.Fatal(err)
	}
	for range variationalRound {
		round(t, s, RoundOptions{Scans: 8, Adapt: true}, nil)
		round(t, other, RoundOptions{Scans: 8, Adapt: true}, nil)
	}
	if digest(t, other) != digest(t, s) {
		t.Error("the sampler that took over went another way")
	}
	s.Reseed(2)
	cfg.Spec.Seed = 2
	fresh := newSampler(t, b, cfg)
	if err := s.Start(nil); err != nil {
		t.Fatal(err)
	}
	adapt(t, s, 16)
	adapt(t, fresh, 16)
	if digest(t, s) != digest(t, fresh) {
		t.Error("a sampler with a new seed and a fresh one went different ways")
	}
}

// Given states are where the next scan begins, but for the rung that is drawn anew.
func TestSamplerStartsAtGivenStates(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	cfg := well(tempering.Config{})
	cfg.Spec.Sampler.StepSize, cfg.Spec.Sampler.AcceptTarget = schedules.Constant(1e-12), new(0.)
	s := newSampler(t, b, cfg)
	rows := make([]float32, cfg.Spec.rows()*2)
	for i := range rows {
		rows[i] = float32(i % 7)
	}
	if err := s.StartAt(nil, s.Adapted(), rows); err != nil {
		t.Fatal(err)
	}
	if got := must[[]float32](t)(s.Chains()); !slices.Equal(got, rows) {
		t.Error("other states than the given")
	}
	round(t, s, RoundOptions{Scans: 1}, nil) // the even pairs: rungs 2 and 3 keep theirs between them
	got, want := must[[]float32](t)(s.Chains())[64:], slices.Clone(rows[64:])
	slices.Sort(got)
	slices.Sort(want)
	if !slices.EqualFunc(got, want, func(a, b float32) bool { return math.Abs(float64(a-b)) < 1e-4 }) {
		t.Errorf("states %v after a scan of next to no steps, want %v", got, want)
	}
}

func TestSamplerErrors(t *testing.T) {
	b := testutil.Backend(t, "go")
	one := well(tempering.Config{Rungs: 1})
	if _, err := NewSampler(b, one); err == nil || err.Error() != "engine: sampler: 1 rungs, want at least 2" {
		t.Errorf("one rung: %v", err)
	}
	start := well(tempering.Config{})
	start.Start = Adapted{Betas: []float64{0, 1}}
	if _, err := NewSampler(b, start); err == nil || err.Error() != "engine: ladder of 2 rungs, want 4" {
		t.Errorf("a ladder of two rungs: %v", err)
	}
	s, err := NewSampler(b, well(tempering.Config{}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Round(t.Context(), RoundOptions{Scans: 1}); !errors.Is(err, ErrNotStarted) {
		t.Errorf("not started: %v", err)
	}
}

// Scans and training steps leave nothing behind on the heap.
func TestSteadyState(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		tr := startTrainer(t, b, toy(tempering.Config{Reference: "variational", VirtualSwaps: true, Exchange: "label"}))
		heap := func(n int) int64 {
			for range n / 2 {
				if _, err := tr.Explore(); err != nil {
					t.Fatal(err)
				}
				if _, err := tr.TrainStep(); err != nil {
					t.Fatal(err)
				}
			}
			runtime.GC()
			runtime.GC() // what finalizers let go
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc)
		}
		before := heap(200)
		if grown := heap(1800) - before; grown > 1<<20 {
			t.Errorf("the heap grew by %d bytes in 1,800 scans, want at most 1 MiB", grown)
		}
	})
}
