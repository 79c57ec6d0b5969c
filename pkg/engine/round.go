package engine

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/diagnostics"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

const (
	recordedScans = 1 << 14 // the most scans whose energies a round keeps
	recordedSize  = 1 << 23 // and the most energies
	chainScans    = 1 << 12 // scans of which it keeps statistics of the target chains
	indexScans    = 2000    // scans of which it keeps the places of some walkers
	indexWalkers  = 16
)

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

func (w *watch) round(s *Sampler, took time.Duration) (*tempering.Round, error) {
	t := s.t
	sp, cfg := t.cfg.Spec, t.cfg.Tempering
	stats := t.Stats()
	r := &tempering.Round{Number: s.number, Kind: "measure", Scans: w.scans, Ladders: w.chains, ChainSteps: sp.Sampler.Steps,
		Path: cfg.Path, Schedule: cfg.Schedule, Explorer: sp.Sampler.Kind, Reference: cfg.Reference,
		Betas: t.adapting.ladder.Betas(), StepSizes: t.StepSizes(), Rejections: stats.Rejections(), Accept: w.accept, TargetAccept: sp.Sampler.TargetAccept(),
		RhoV: t.Exploration(), Overlap: w.record.Overlap(overlapBins), Histograms: w.record.Histograms(histogramBins),
		Restarts: stats.Restarts, Trips: stats.Trips, TripRate: t.ensemble.TripRate(),
		RHat: w.rhat(), ESS: w.perStatistic(diagnostics.ESS), Up: t.ensemble.UpFraction(), Index: w.index, IndexStride: w.indexEvery,
		NonFinite: uint64(w.nonFinite) + stats.NonFinite, Seconds: took.Seconds(),
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
	if t.ensemble.TripScans() == 0 { // no trip could end
		r.TripRate = math.NaN()
	}
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
	r.PredictedTripRate = t.predictedTripRate(r.Rejections)
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
		if z, err := w.record.LogZ(r.Betas); err == nil {
			r.LogZ = new(z.From(t.logMass()))
		} else { // the energies are at fault: all else holds
			r.LogZFault = strings.TrimPrefix(err.Error(), "tempering: log Z: ")
		}
	}
	return r, nil
}

// predictedTripRate is the rate of round trips that rejection rates allow under the schedule.
func (t *Trainer) predictedTripRate(rejections []float64) float64 {
	switch t.cfg.Tempering.Schedule {
	case "seo":
		return tempering.PredictedTripRateSEO(rejections)
	case "windowed":
		return tempering.PredictedTripRateWindowed(rejections, t.ensemble.Window())
	}
	return tempering.PredictedTripRate(rejections)
}
