package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/buffer"
	"github.com/kelvin-ebm/kelvin/pkg/diagnostics"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// SamplerConfig is everything that a [Sampler] needs beside its backend.
type SamplerConfig struct {
	// Spec names the law, the kernel and the shapes. What is about training and the replay buffer is not read.
	Spec        Spec
	Tempering   tempering.Config // of at least two rungs
	Init        string           // first states: one of buffer.Inits; "" is reference where the Spec has a Gaussian, else normal
	Data        []float64        // rows that chains start from under init: data
	Start       Adapted
	StepsBefore int // step at which schedules of the kernel are read
}

// Sampler explores a law that stands still along a ladder, in rounds: those that adapt the ladder, then those that count.
//
//	s, err := engine.NewSampler(b, cfg)
//	err = s.Start(theta)
//	for n := 2; n <= 1024; n *= 2 {
//		_, err = s.Round(ctx, engine.RoundOptions{Scans: n, Adapt: true})
//	}
//	round, err := s.Round(ctx, engine.RoundOptions{Scans: 2000})
//	fmt.Println(round.LogZ.Bridge, round.Verdict())
//
// Numbers of a round that adapts tell how far the adaptation is; only those of the others are to be quoted.
type Sampler struct {
	t      *Trainer
	number int // rounds made

	still  []int    // [rows] scans that the walker of a row has stood there
	age    []uint64 // [B] scans since the column's last restart
	fitted moments  // of the target chains of the round
}

// NewSampler builds the shard; programs compile at their first call.
func NewSampler(b *backend.Backend, cfg SamplerConfig) (*Sampler, error) {
	sp := cfg.Spec
	if sp.Rungs < 2 {
		return nil, fmt.Errorf("engine: sampler: %d rungs, want at least 2", sp.Rungs)
	}
	sp.Pool, sp.Mix, sp.FromData, sp.Batch, sp.Weighted = sp.Chains, false, false, 0, false
	sp.Optimizer = OptimizerConfig{Kind: "sgd", LR: schedules.Constant(0)}
	sp.Variational = cfg.Tempering.Reference == "variational"
	sp.Exchange = cfg.Tempering.Exchange
	if cfg.Init == "" {
		cfg.Init = "normal"
		if sp.Start != nil || sp.Reference != nil || sp.Base != nil {
			cfg.Init = "reference"
		}
	}
	cfg.Tempering.Scans = 1
	t, err := NewTrainer(b, TrainerConfig{Spec: sp, Tempering: cfg.Tempering, Start: cfg.Start, StepsBefore: cfg.StepsBefore,
		Buffer: buffer.Config{Size: sp.Chains, Init: cfg.Init}, Data: cfg.Data})
	if err != nil {
		return nil, err
	}
	return &Sampler{t: t, still: make([]int, sp.rows()), age: make([]uint64, sp.Chains)}, nil
}

// Start draws the first states and makes the first scan; theta are the weights, in the flat order of the network's
// parameters. A sampler that was started before forgets all.
func (s *Sampler) Start(theta []float32) error { return s.StartFrom(theta, s.t.cfg.Start) }

// StartFrom is Start with another ladder, other step sizes and another reference than those of the configuration.
func (s *Sampler) StartFrom(theta []float32, from Adapted) error {
	if err := s.t.rewind(from); err != nil {
		return err
	}
	s.number = 0
	clear(s.still)
	clear(s.age)
	return s.t.StartAt(theta)
}

// Close frees the device memory.
func (s *Sampler) Close() { s.t.Close() }

// Adapted is where ladder, step sizes and reference stand.
func (s *Sampler) Adapted() Adapted { return s.t.Adapted() }

// Dim is the dimension of a state.
func (s *Sampler) Dim() int { return s.t.Dim() }

// TargetChains copies the chains of the target rung to the host, [B·dim].
func (s *Sampler) TargetChains() ([]float32, error) { return s.t.TargetChains() }

// Energies evaluates E at points [n·dim].
func (s *Sampler) Energies(x []float32) ([]float64, error) { return s.t.Energies(x) }

// Digest is the SHA-256 of all that the next scan depends on: states, walkers, ladder, step sizes, statistics.
func (s *Sampler) Digest() (string, error) { return s.t.Digest() }

// RoundOptions say what a round does.
type RoundOptions struct {
	Scans int  // the most scans that it makes
	Adapt bool // step sizes move on the way, and the ladder (and a variational reference, after a few rounds) at the end
	// Each is called after every scan; an error ends the round, and is returned unless it is ErrEnough.
	Each func(Standing) error
}

// ErrEnough, returned by RoundOptions.Each, ends a round as if its scans were made.
var ErrEnough = errors.New("engine: enough scans")

// Standing is where a round stands after a scan.
type Standing struct {
	Scans    int    // made in the round
	Restarts uint64 // in the round, over all ladders
	Elapsed  time.Duration
	watch    *watch
}

// RHat is the largest split R̂ of the round so far; NaN where it is too early to say.
func (s Standing) RHat() float64 {
	worst := math.NaN()
	for _, v := range s.watch.rhat() {
		if math.IsNaN(worst) || v > worst {
			worst = v
		}
	}
	return worst
}

const (
	recordedScans = 1 << 14 // the most scans whose energies a round keeps
	recordedSize  = 1 << 23 // and the most energies
	chainScans    = 1 << 12 // scans of which it keeps statistics of the target chains
	indexScans    = 2000    // scans of which it keeps the places of some walkers
	indexWalkers  = 16
	// variationalRound is the first round after which a variational reference is fitted: before, chains are far from the
	// target's law.
	variationalRound = 6
)

// Round makes scans with ladder and reference standing still, and says what they showed.
func (s *Sampler) Round(ctx context.Context, o RoundOptions) (*tempering.Round, error) {
	t := s.t
	if t.perm == nil {
		return nil, ErrNotStarted
	}
	w, err := s.newWatch(o)
	if err != nil {
		return nil, err
	}
	s.fitted = moments{}
	t.ResetPairs()
	before, began := t.Stats(), time.Now()
	for w.scans < o.Scans {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		w.places(t.ensemble)
		r, err := t.Explore()
		if err != nil {
			return nil, err
		}
		if err := w.scan(s, r); err != nil {
			return nil, err
		}
		if o.Adapt && t.adapting.sizes != nil && t.adapting.sizes.Move() {
			t.tablesAt = tables{math.NaN(), math.NaN()}
			if err := t.setSteps(0); err != nil {
				return nil, err
			}
		}
		if o.Each == nil {
			continue
		}
		err = o.Each(Standing{w.scans, t.Stats().Restarts - before.Restarts, time.Since(began), w})
		if errors.Is(err, ErrEnough) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	s.number++
	round, err := w.round(s, before, time.Since(began))
	if err != nil {
		return nil, err
	}
	if o.Adapt {
		if err := s.adapt(round); err != nil {
			return nil, err
		}
	}
	return round, nil
}

// adapt moves the ladder to equal rejection by the round's rates, and a variational reference to the moments of its target
// chains.
func (s *Sampler) adapt(r *tempering.Round) error {
	t := s.t
	if t.cfg.Tempering.Ladder == "adaptive" && r.Attempts > 0 {
		curve, err := tempering.NewCurve(r.Betas, r.Rejections, float64(r.Attempts))
		if err != nil {
			return fmt.Errorf("engine: round %d: %w", r.Number, err)
		}
		next, err := curve.Ladder(len(r.Betas))
		if err != nil {
			return fmt.Errorf("engine: round %d: %w", r.Number, err)
		}
		if err := t.setLadder(next); err != nil {
			return fmt.Errorf("engine: round %d: %w", r.Number, err)
		}
	}
	if err := t.widen(r.Rejections); err != nil {
		return fmt.Errorf("engine: round %d: %w", r.Number, err)
	}
	if t.cfg.Spec.Variational && s.number >= variationalRound {
		t.adapting.fitted = s.fitted
		t.refit()
	}
	t.tablesAt = tables{math.NaN(), math.NaN()}
	return t.setSteps(0)
}

// watch gathers what a round shows.
type watch struct {
	adapts        bool
	scans         int
	rungs, chains int
	record        *tempering.Record
	accept        []float64 // [K], mean
	nonFinite     int
	sweeps        []float64 // milliseconds

	stats       []string // names of the statistics of the target chains
	directions  [][]float64
	series      [][][]float64 // [statistic][chain][kept scan]
	every, kept int           // scans between two that are kept, by size and by number

	index       [][]int32
	indexEvery  int
	indexColumn int // columns whose walkers are followed
}

func (s *Sampler) newWatch(o RoundOptions) (*watch, error) {
	sp := s.t.cfg.Spec
	if o.Scans < 1 {
		return nil, fmt.Errorf("engine: round: %d scans, want at least 1", o.Scans)
	}
	w := &watch{adapts: o.Adapt, rungs: sp.Rungs, chains: sp.Chains, accept: make([]float64, sp.Rungs), indexEvery: 1,
		indexColumn: min(sp.Chains, max(1, indexWalkers/sp.Rungs)), every: 1 + sp.rows()*sp.dim()>>18, kept: 1,
		stats: []string{"energy", "norm"}}
	var err error
	if w.record, err = tempering.NewRecord(sp.Rungs, sp.Chains, min(recordedScans, max(2, recordedSize/sp.rows()))); err != nil {
		return nil, fmt.Errorf("engine: round: %w", err)
	}
	for i := range min(3, sp.dim()) {
		w.stats = append(w.stats, fmt.Sprintf("projection_%d", i))
		w.directions = append(w.directions, direction(sp.Seed, i, sp.dim()))
	}
	w.series = make([][][]float64, len(w.stats))
	for i := range w.series {
		w.series[i] = make([][]float64, sp.Chains)
	}
	return w, nil
}

// direction is a random unit vector.
func direction(seed uint64, i, dim int) []float64 {
	z := rng.New(seed, rng.Evaluate, uint64(i), 1)
	out := make([]float64, dim)
	norm := 0.0
	for j := range out {
		out[j] = z.Normal()
		norm += out[j] * out[j]
	}
	for j := range out {
		out[j] /= math.Sqrt(norm)
	}
	return out
}

// places notes the rungs of some walkers, before the scan that moves them.
func (w *watch) places(e *tempering.Ensemble) {
	if w.scans%w.indexEvery != 0 {
		return
	}
	if len(w.index) == indexScans {
		w.index, w.indexEvery = everySecond(w.index), 2*w.indexEvery
		if w.scans%w.indexEvery != 0 {
			return
		}
	}
	at := make([]int32, w.rungs*w.indexColumn)
	for c := range w.indexColumn {
		e.Positions(c, at[c*w.rungs:(c+1)*w.rungs])
	}
	w.index = append(w.index, at[:min(len(at), indexWalkers)])
}

func everySecond[T any](v []T) []T {
	out := v[:0]
	for i := 0; i < len(v); i += 2 {
		out = append(out, v[i])
	}
	return slices.Clone(out)
}

// scan takes in what a scan gave, its sweep decided.
func (w *watch) scan(s *Sampler, r Result) error {
	t := s.t
	w.record.Add(r.V)
	for k, a := range r.Accept {
		w.accept[k] += (a - w.accept[k]) / float64(w.scans+1)
	}
	w.nonFinite += r.NonFinite
	w.sweeps = append(w.sweeps, t.swept.time.Seconds()*1000)
	still := make([]int, len(s.still))
	for row, from := range t.perm {
		if int(from) == row {
			still[row] = s.still[row] + 1
		}
	}
	s.still = still
	for j, restarted := range t.swept.restarted {
		s.age[j]++
		if restarted {
			s.age[j] = 0
		}
	}
	w.scans++
	if (w.scans-1)%(w.every*w.kept) != 0 {
		return nil
	}
	return w.states(s, r)
}

// states notes statistics of the target chains.
func (w *watch) states(s *Sampler, r Result) error {
	t := s.t
	if len(w.series[0][0]) == chainScans {
		w.kept *= 2
		for _, stat := range w.series {
			for c := range stat {
				stat[c] = everySecond(stat[c])
			}
		}
	}
	rows, err := t.TargetChains()
	if err != nil {
		return err
	}
	dim := t.Dim()
	if w.adapts && t.cfg.Spec.Variational {
		s.fitted.add(rows, dim)
	}
	top := (w.rungs - 1) * w.chains
	for c := range w.chains {
		x := rows[c*dim : (c+1)*dim]
		v := r.V[t.perm[top+c]]
		values := []float64{-v, norm(x)}
		if t.cfg.Spec.Reference != nil {
			values[0] -= logDensity(t.adapting.reference, x)
		}
		for _, u := range w.directions {
			dot := 0.0
			for i, y := range x {
				dot += float64(y) * u[i]
			}
			values = append(values, dot)
		}
		for i, value := range values {
			w.series[i][c] = append(w.series[i][c], value)
		}
	}
	return nil
}

func norm(x []float32) float64 {
	sum := 0.0
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return math.Sqrt(sum)
}

func logDensity(q models.Gaussian, x []float32) float64 {
	sum := -q.LogNormaliser()
	for i, v := range x {
		z := (float64(v) - q.Mean[i]) / q.Std[i]
		sum -= z * z / 2
	}
	return sum
}

// rhat is split R̂ of every statistic that has one.
func (w *watch) rhat() map[string]float64 {
	return w.perStatistic(diagnostics.SplitRHat)
}

func (w *watch) perStatistic(of func([][]float64) (float64, error)) map[string]float64 {
	out := map[string]float64{}
	for i, name := range w.stats {
		if v, err := of(w.series[i]); err == nil && !math.IsNaN(v) {
			out[name] = v
		}
	}
	return out
}

const overlapBins, histogramBins, curvePoints = 64, 48, 16 // points a pair of rungs

func (w *watch) round(s *Sampler, before tempering.Stats, took time.Duration) (*tempering.Round, error) {
	t := s.t
	sp, cfg := t.cfg.Spec, t.cfg.Tempering
	stats := t.Stats()
	r := &tempering.Round{Number: s.number, Kind: "measure", Scans: w.scans, Ladders: w.chains, ChainSteps: sp.Sampler.Steps,
		Path: cfg.Path, Schedule: cfg.Schedule, Explorer: sp.Sampler.Kind, Reference: cfg.Reference,
		Betas: t.adapting.ladder.Betas(), StepSizes: t.StepSizes(), Rejections: stats.Rejections(), Accept: w.accept, TargetAccept: sp.Sampler.TargetAccept(),
		RhoV: t.Exploration(), Overlap: w.record.Overlap(overlapBins), Histograms: w.record.Histograms(histogramBins),
		Restarts: stats.Restarts - before.Restarts, Trips: stats.Trips - before.Trips,
		RHat: w.rhat(), ESS: w.perStatistic(diagnostics.ESS), Up: t.ensemble.UpFraction(), Index: w.index, IndexStride: w.indexEvery,
		NonFinite: uint64(w.nonFinite) + stats.NonFinite - before.NonFinite, Seconds: took.Seconds(),
		Gradients: uint64(w.scans) * uint64(sp.Sampler.Steps*sp.Sampler.NewKernel(nil).Gradients()) * uint64(sp.rows()-sp.drawn()),
	}
	if w.adapts {
		r.Kind = "adapt"
	}
	if cfg.Path == "power" {
		r.Reference = ""
	}
	r.Attempts = stats.Pairs[0].Attempts
	for _, p := range stats.Pairs {
		r.Attempts = min(r.Attempts, p.Attempts)
	}
	r.TripRate = float64(r.Trips) / float64(w.scans) / float64(w.chains)
	for _, scans := range s.still {
		if scans > 10*w.rungs {
			r.Stuck++
		}
	}
	ages := slices.Sorted(slices.Values(s.age))
	r.MedianAge, r.P95Age = ages[len(ages)/2], ages[len(ages)*95/100]
	slices.Sort(w.sweeps)
	r.SwapP50, r.SwapP99 = w.sweeps[len(w.sweeps)/2], w.sweeps[len(w.sweeps)*99/100]
	if r.Attempts == 0 { // a round of one scan
		r.PredictedTripRate, r.TripRateBound, r.Barrier, r.RejectionSum = math.NaN(), math.NaN(), math.NaN(), math.NaN()
		return r, nil
	}
	r.PredictedTripRate = tempering.PredictedTripRate(r.Rejections)
	switch cfg.Schedule {
	case "seo":
		r.PredictedTripRate = tempering.PredictedTripRateSEO(r.Rejections)
	case "windowed":
		r.PredictedTripRate = tempering.PredictedTripRateWindowed(r.Rejections, t.ensemble.Window())
	}
	r.RejectionSum = tempering.RejectionSum(r.Rejections)
	curve, err := tempering.NewCurve(r.Betas, r.Rejections, float64(r.Attempts))
	if err != nil {
		return nil, fmt.Errorf("engine: round %d: %w", r.Number, err)
	}
	r.Barrier, r.BarrierLowerBound = curve.Total(), curve.LowerBound()
	r.SuggestedRungs, r.TripRateBound = tempering.SuggestRungs(r.Barrier), tempering.TripRateBound(r.Barrier)
	for i, beta := range r.Betas {
		points := curvePoints
		if i == len(r.Betas)-1 {
			points = 1
		}
		for j := range points {
			at := beta
			if j > 0 {
				at += float64((r.Betas[i+1] - beta) * float64(j) / curvePoints)
			}
			r.LambdaAt = append(r.LambdaAt, at)
			r.LambdaDensity = append(r.LambdaDensity, curve.Density(at))
			r.LambdaBarrier = append(r.LambdaBarrier, curve.At(at))
		}
	}
	if sp.Reference != nil && sp.Sampler.Adjusted() {
		z, err := w.record.LogZ(r.Betas)
		if err != nil {
			return nil, fmt.Errorf("engine: round %d: %w", r.Number, err)
		}
		r.LogZ = new(z.From(t.logMass()))
	}
	return r, nil
}
