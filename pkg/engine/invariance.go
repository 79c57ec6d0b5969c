package engine

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/diagnostics"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// InvarianceConfig says what [Invariance] tests.
type InvarianceConfig struct {
	Sampler   samplers.Config  // of an energy, without a box
	Tempering tempering.Config // 0 rungs are 5; chains are not read
	Ladders   int              // independent ladders, the size of every sample; 0 is 20,000
	Seed      uint64
}

// InvarianceReport is what the test found. It passes where no rung has a P below Level.
type InvarianceReport struct {
	Rungs   []InvarianceRung `json:"rungs"`
	Level   float64          `json:"level"`
	Passed  bool             `json:"passed"`
	Seconds float64          `json:"seconds"`
}

// InvarianceRung is the worst that was seen on a rung: the distance of Kolmogorov and Smirnov between its states and its
// law, and the probability of one as large where the law is right.
type InvarianceRung struct {
	Beta float64 `json:"beta"`
	D    float64 `json:"d"`
	P    float64 `json:"p"`
}

const (
	invarianceDim     = 4
	invarianceRungs   = 5
	invarianceLadders = 20_000
	invarianceLevel   = 0.001 // of all tests together
	invarianceSteep   = 10.0  // precision of the target
	adaptLadders      = 64
	adaptRound        = 64 // scans of the last round that adapts
)

// Invariance tests a kernel and its exchange of states on a ladder between two Gaussians, of precision 1 and 10 in four
// dimensions: every rung is drawn independently from its own law, and after each of the scans that follow, exploration and
// sweep, p_β‖x‖² still has to be χ² of four degrees of freedom, p_β the precision of the rung. The scans are two, those of
// both parities, and the first two windows where the schedule has windows. A rung fails below the level of 0.001, shared
// by all tests (Bonferroni).
//
// No chain has to equilibrate, so that errors of a few per cent show at once. Where step sizes and ladder adapt, they first
// do so on other chains: a kernel that hardly moves would pass for that alone. Steps without a Metropolis test fail by their
// bias, if they are long enough for it to show, and so do windows over which exploration does not forget the energies, see
// [tempering.Schedules].
func Invariance(ctx context.Context, b *backend.Backend, cfg InvarianceConfig) (*InvarianceReport, error) {
	began := time.Now()
	fail := func(err error) (*InvarianceReport, error) { return nil, fmt.Errorf("engine: invariance: %w", err) }
	sc, err := cfg.sampler()
	if err != nil {
		return fail(err)
	}
	ladders := sc.Spec.Chains
	if c := sc.Tempering; c.Ladder == "adaptive" || c.Schedule == "windowed" && c.Window == 0 || sc.Spec.Sampler.TargetAccept() > 0 {
		if sc.Start, sc.Tempering.Window, err = adapted(ctx, b, sc); err != nil {
			return fail(err)
		}
	}
	s, err := NewSampler(b, sc)
	if err != nil {
		return fail(err)
	}
	defer s.Close()

	betas := s.t.Ladder().Betas()
	precisions := make([]float64, len(betas))
	report := &InvarianceReport{Passed: true}
	for k, beta := range betas {
		precisions[k] = invarianceSteep * beta
		if sc.Spec.Reference != nil {
			precisions[k] += 1 - beta
		}
		report.Rungs = append(report.Rungs, InvarianceRung{Beta: beta, P: 1})
	}
	if err := s.t.startFromRows(nil, independent(precisions, ladders, cfg.Seed)); err != nil {
		return fail(err)
	}
	scans := 2 * max(1, sc.Tempering.Window)
	report.Level = invarianceLevel / float64(len(betas)*scans)
	for range scans {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if _, err := s.t.Explore(); err != nil {
			return fail(err)
		}
		rows, err := s.Chains()
		if err != nil {
			return fail(err)
		}
		for k, p := range precisions {
			rung := &report.Rungs[k]
			d, value := diagnostics.KolmogorovSmirnov(scaledSquares(rows[k*ladders*invarianceDim:(k+1)*ladders*invarianceDim], p), chiSquare4)
			if value < rung.P {
				rung.D, rung.P = d, value
			}
		}
	}
	for _, r := range report.Rungs {
		report.Passed = report.Passed && r.P >= report.Level
	}
	report.Seconds = time.Since(began).Seconds()
	return report, nil
}

// sampler is the configuration of the chains that the test watches.
func (cfg InvarianceConfig) sampler() (SamplerConfig, error) {
	out := SamplerConfig{Tempering: cfg.Tempering}
	if out.Tempering.Rungs == 0 && len(out.Tempering.Betas) == 0 {
		out.Tempering.Rungs = invarianceRungs
	}
	out.Tempering = out.Tempering.WithDefaults()
	if cfg.Ladders < 0 {
		return out, fmt.Errorf("ladders: %d, want at least 1, or 0 for %d", cfg.Ladders, invarianceLadders)
	}
	ladders := cfg.Ladders
	if ladders == 0 {
		ladders = invarianceLadders
	}
	out.Tempering.Chains = ladders
	sampler := cfg.Sampler.WithDefaults()
	if sampler.IsFlow() || sampler.Settles() {
		return out, fmt.Errorf("sampler.kind: %s has no law to keep, want mala, hmc, rmhmc or langevin", sampler.Kind)
	}
	if err := sampler.Validate(); err != nil {
		return out, fmt.Errorf("sampler: %w", err)
	}
	if len(sampler.Box) > 0 {
		return out, fmt.Errorf("sampler.box: %v, want none: the laws of the test are Gaussians", sampler.Box)
	}
	target, err := models.NewHarmonic(invarianceDim, invarianceSteep)
	if err != nil {
		return out, err
	}
	out.Spec = Spec{Network: target, Rungs: out.Tempering.Rungs, Chains: ladders, Sampler: sampler, Seed: cfg.Seed}
	if out.Tempering.Path == "linear" {
		out.Spec.Reference = &models.Gaussian{Mean: make([]float64, invarianceDim), Std: slices.Repeat([]float64{1}, invarianceDim)}
	}
	return out, nil
}

// adapted are the step sizes, the ladder and the window that rounds on other chains come to.
func adapted(ctx context.Context, b *backend.Backend, cfg SamplerConfig) (_ Adapted, window int, err error) {
	cfg.Spec.Chains, cfg.Tempering.Chains = adaptLadders, adaptLadders
	s, err := NewSampler(b, cfg)
	if err != nil {
		return Adapted{}, 0, err
	}
	defer s.Close()
	if err := s.Start(nil); err != nil {
		return Adapted{}, 0, err
	}
	for scans := 2; scans <= adaptRound; scans *= 2 {
		if _, err := s.Round(ctx, RoundOptions{Scans: scans, Adapt: true}); err != nil {
			return Adapted{}, 0, err
		}
	}
	out := s.Adapted()
	out.Reference = nil // laws are told by the one that the test began with
	if cfg.Tempering.Schedule == "windowed" {
		window = s.t.ensemble.Window()
	}
	return out, window, nil
}

// independent are states of every rung, [rungs·ladders·4] rung-major, drawn from N(0, I/precision).
func independent(precisions []float64, ladders int, seed uint64) []float32 {
	out := make([]float32, len(precisions)*ladders*invarianceDim)
	for j := range ladders {
		z := rng.New(seed, rng.InitChains, 0, uint32(j))
		for k, p := range precisions {
			row := out[(k*ladders+j)*invarianceDim:][:invarianceDim]
			for i := range row {
				row[i] = float32(z.Normal() / math.Sqrt(p))
			}
		}
	}
	return out
}

// scaledSquares are p‖x‖² of each row, +Inf for one that is not finite: as far out as can be.
func scaledSquares(rows []float32, p float64) []float64 {
	out := make([]float64, len(rows)/invarianceDim)
	for i, x := range rows {
		out[i/invarianceDim] += p * float64(x) * float64(x)
	}
	for i, y := range out {
		if math.IsNaN(y) {
			out[i] = math.Inf(1)
		}
	}
	return out
}

// chiSquare4 is the distribution function of χ² with four degrees of freedom.
func chiSquare4(x float64) float64 {
	if math.IsInf(x, 1) {
		return 1
	}
	return -math.Expm1(-x/2) - x/2*math.Exp(-x/2)
}

// startFromRows starts with given states of every rung, and makes no scan.
func (t *Trainer) startFromRows(theta, rows []float32) error {
	if err := t.shard.Load(t.shard.NewState(theta, rows, nil)); err != nil {
		return err
	}
	t.perm = identityPerm(t.cfg.Spec.rows())
	return t.setSteps(0)
}
