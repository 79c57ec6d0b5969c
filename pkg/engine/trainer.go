package engine

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/buffer"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// TrainerConfig is everything that a [Trainer] needs beside its backend.
type TrainerConfig struct {
	Spec      Spec
	Tempering tempering.Config // of as many rungs and chains as the Spec
	Buffer    buffer.Config
	// Layout cuts the chains into shards; the zero value is one shard a group. Group is the number of the trained group among
	// those of the layout. Local are the ids of the group's shards that are held here, nil for all, and Mesh reaches the
	// others: every process that holds some makes the same calls, in the same order, of a trainer of its own.
	Layout Layout
	Group  int
	Local  []uint32
	Mesh   Mesh
	// GradientOn says who computes the gradient of a step where the group has several shards: "cold", the lead, which holds
	// chains of the target rung, or "all", each a part of it. The two come to the same but for rounding.
	GradientOn string
	// Sync averages the gradients of all groups of the layout at every step.
	Sync bool
	// Start is where an earlier adaptation left off; the zero value begins with the ladder of Tempering and the step sizes of
	// Spec.Sampler.
	Start Adapted
	// StepsBefore is added to the step at which schedules of the sampler are read: the steps behind given weights.
	StepsBefore int
	// Positives writes batch number n, [batch·dim]: with several groups each step of a group takes the next but so many. It
	// must be a function of the number alone.
	Positives func(n int, into []float32)
	// Data are the training rows [n·dim], from which chains start where Buffer.Init says so.
	Data []float64
}

// Trainer trains one group: it calls the shard, decides the swaps between two calls, moves columns in and out of the
// replay buffer, and adapts the ladder. A step depends on the seed and the state alone, so a restored trainer goes on bit
// for bit.
type Trainer struct {
	cfg      TrainerConfig
	shard    chainHolder
	ensemble *tempering.Ensemble // nil for one rung
	buffer   *buffer.Buffer      // nil where every scan starts from the data
	adapting adapting
	moves    correlations // of V before and after exploration
	drift    driftMeter

	stepSize, noise, rate schedules.Schedule
	tablesAt              tables // what is on the device

	step int
	scan uint64
	plan buffer.Plan // what became of the columns that are live now
	perm []int32     // sweep decided from the last scan's energies, not yet applied to the device's rows
	// weights of the negatives after that sweep, see Draw.Weights; nil where they are all equal.
	weights []float32
	swept   sweepNote

	positives, starts []float32
}

// sweepNote is what the last sweep left to say.
type sweepNote struct {
	time      time.Duration
	restarted []bool // [B]
}

// tables are the step sizes that the device holds, to upload them only when they change.
type tables struct{ eps, noise float64 }

// NewTrainer builds the shard; programs compile at their first call.
func NewTrainer(b *backend.Backend, cfg TrainerConfig) (*Trainer, error) {
	cfg.Spec.Shard = uint32(cfg.Group) // with one shard a group; columns are numbered by it in any case
	var shard chainHolder
	var err error
	if cfg.Layout.Split > 0 && (cfg.Layout.PerGroup() > 1 || cfg.Sync) {
		var g *group
		if g, err = newGroup(b, cfg.Spec, cfg.Layout, cfg.Group, cfg.Local, cfg.Mesh); err == nil {
			g.sync = cfg.Sync && cfg.Layout.Groups > 1
			g.onAll = cfg.GradientOn == "all" && cfg.Layout.PerGroup() > 1
			shard = g
		}
	} else {
		shard, err = NewShard(b, cfg.Spec)
	}
	if err != nil {
		return nil, err
	}
	t := &Trainer{cfg: cfg, shard: shard}
	sp := cfg.Spec
	for _, s := range []struct {
		key  string
		from schedules.Config
		into *schedules.Schedule
	}{{"sampler.step_size", sp.Sampler.StepSize, &t.stepSize}, {"sampler.noise_scale", sp.Sampler.NoiseScale, &t.noise}, {"optimizer.lr", sp.Optimizer.LR, &t.rate}} {
		if s.from.Kind == "" { // a kind that does not read it
			s.from = schedules.Constant(1)
		}
		if *s.into, err = s.from.Build(); err != nil {
			return nil, fmt.Errorf("engine: %s: %w", s.key, err)
		}
	}
	if err := t.rewind(cfg.Start); err != nil {
		return nil, err
	}
	t.positives = make([]float32, sp.Batch*sp.dim())
	t.starts = make([]float32, sp.rows()*sp.dim())
	return t, nil
}

// rewind puts all that a trainer keeps on the host to where it begins.
func (t *Trainer) rewind(start Adapted) (err error) {
	cfg, sp := t.cfg, t.cfg.Spec
	t.cfg.Start = start
	if err := t.newAdapting(); err != nil {
		return err
	}
	if sp.Rungs > 1 {
		t.ensemble, err = tempering.NewEnsemble(tempering.Settings{Ladder: t.adapting.ladder, Columns: sp.Pool, Offset: uint32(sp.firstColumn()),
			Seed: sp.Seed, Fresh: sp.Reference != nil, Schedule: cfg.Tempering.Schedule, Window: max(1, cfg.Tempering.Window)})
		if err != nil {
			return err
		}
	}
	if !sp.FromData {
		t.buffer, err = buffer.New(buffer.Settings{Slots: sp.Pool, Live: sp.Chains, Ring: t.ring(),
			Parts: t.parts(), Reinit: cfg.Buffer.Reinit, Seed: sp.Seed, Group: sp.Shard})
		if err != nil {
			return err
		}
	}
	t.moves, t.drift = newCorrelations(sp.Rungs, sp.Chains), driftMeter{}
	t.step, t.scan, t.tablesAt = 0, 0, tables{math.NaN(), math.NaN()}
	return nil
}

// Lead says whether the shard that makes the group's optimizer steps is held here. Where it is not, Theta, Params, Energies
// and Cut return [ErrNotLead]; Cut has then given the lead what it needs, and has to be called there too.
func (t *Trainer) Lead() bool {
	g, several := t.shard.(*group)
	return !several || g.lead != nil
}

// SetTheta replaces the parameters, as after an averaging over groups. They move about as far as in an optimizer step, so
// that ladder, step sizes and statistics stand.
func (t *Trainer) SetTheta(theta []float32) error {
	if t.perm == nil {
		return ErrNotStarted
	}
	if n := max(1, models.NumParams(t.cfg.Spec.Network)); len(theta) != n {
		return fmt.Errorf("engine: set parameters: %d numbers, want %d", len(theta), n)
	}
	t.shard.SetTheta(theta)
	t.drift.forget()
	return nil
}

// Close frees the device memory.
func (t *Trainer) Close() { t.shard.Close() }

// Step is the number of training steps made.
func (t *Trainer) Step() int { return t.step }

// Dim is the dimension of a state, Chains the number of ladders, Rungs that of their rungs.
func (t *Trainer) Dim() int    { return t.cfg.Spec.dim() }
func (t *Trainer) Chains() int { return t.cfg.Spec.Chains }
func (t *Trainer) Rungs() int  { return t.cfg.Spec.Rungs }

// Stats are the swap statistics since the last ResetPairs; zero for a single rung.
func (t *Trainer) Stats() tempering.Stats {
	if t.ensemble == nil {
		return tempering.Stats{}
	}
	return t.ensemble.Stats()
}

// Exploration is, of each rung, the correlation of V before and after the exploration of a scan, since the last ResetPairs:
// above ½ swaps meet energies that they have seen. NaN where it is not known; nil for a single rung.
func (t *Trainer) Exploration() []float64 {
	if t.ensemble == nil {
		return nil
	}
	return t.moves.rates(t.cfg.Spec.drawn() / t.cfg.Spec.Chains)
}

// TripRate is the measured number of round trips a scan and column.
func (t *Trainer) TripRate() float64 {
	if t.ensemble == nil {
		return 0
	}
	return t.ensemble.TripRate()
}

// ResetPairs forgets the statistics of the pairs and those of the exploration.
func (t *Trainer) ResetPairs() {
	if t.ensemble != nil {
		t.ensemble.ResetPairs()
	}
	t.moves.reset()
}

// Start draws the first weights and chains and explores, so that the first training step has negatives.
func (t *Trainer) Start() error {
	return t.StartAt(to32(models.InitParams(t.cfg.Spec.Network, t.cfg.Spec.Seed)))
}

// StartAt is Start with given weights, in the flat order of the network's parameters.
func (t *Trainer) StartAt(theta []float32) error {
	sp := t.cfg.Spec
	live := make([]float32, sp.rows()*sp.dim())
	var pool []float32
	if sp.pooled() {
		pool = make([]float32, sp.Rungs*sp.Pool*sp.dim())
		t.fillColumns(rng.InitChains, 0, pool, sp.Pool, nil)
		t.plan.Write = slices.Repeat([]int32{-1}, sp.Chains) // no rows to write back yet
	} else {
		t.fillColumns(rng.InitChains, 0, live, sp.Chains, nil)
	}
	if err := t.shard.Load(t.shard.NewState(theta, live, pool)); err != nil {
		return err
	}
	t.perm = identityPerm(sp.rows())
	t.equalWeights()
	if err := t.setSteps(0); err != nil {
		return err
	}
	if !sp.FromData {
		if err := t.warmUp(); err != nil {
			return err
		}
	}
	for range t.cfg.Tempering.Scans {
		if _, err := t.Explore(); err != nil {
			return err
		}
	}
	return nil
}

// TrainStep makes one optimizer step and the scans that follow it.
func (t *Trainer) TrainStep() (Report, error) {
	if t.perm == nil {
		return Report{}, ErrNotStarted
	}
	if err := t.setSteps(t.step); err != nil {
		return Report{}, err
	}
	t.batch(t.step, t.positives)
	weights := t.weights // of the rows that end here, while the draw is about those that start
	draw, next := t.draw(nil, t.step+1)
	draw.Weights = weights
	rate := t.rate.At(t.step)
	r, err := t.shard.Train(t.scan, t.step, rate, t.positives, draw)
	if err != nil {
		return Report{}, err
	}
	t.step++
	if err := t.finite(r.Scores); err != nil {
		return Report{}, err
	}
	t.drift.measure(draw.Perm, r.V0, t.adapting.ladder)
	report := Report{Step: t.step, Loss: r.Scores.Loss, GradNorm: r.Scores.GradNorm, Rate: rate, Accept: r.Accept, NonFinite: r.NonFinite,
		Parts: []Score{{"energy_data", r.Scores.Positives}, {"energy_model", r.Scores.Negatives}, {"energy_penalty", r.Scores.Penalty}}}
	if err := t.sweep(r, next, true); err != nil {
		return Report{}, err
	}
	for i := 1; i < t.cfg.Tempering.Scans; i++ {
		r, err := t.Explore()
		if err != nil {
			return Report{}, err
		}
		for k := range report.Accept {
			report.Accept[k] += (r.Accept[k] - report.Accept[k]) / float64(i+1)
		}
		report.NonFinite += r.NonFinite
	}
	report.Drift = t.drift.ess
	if t.step%t.cfg.Tempering.AdaptEvery == 0 {
		if err := t.fence(); err != nil {
			return Report{}, err
		}
	}
	return report, nil
}

// batch writes the positives of a step, with their noise.
func (t *Trainer) batch(step int, into []float32) {
	sp := t.cfg.Spec
	t.cfg.Positives(step*max(1, t.cfg.Layout.Groups)+t.cfg.Group, into)
	if sigma := sp.Loss.DataNoise; sigma > 0 {
		z := rng.New(sp.Seed, rng.DataNoise, uint64(step), sp.Shard)
		for i := range into {
			into[i] += float32(sigma * z.Normal())
		}
	}
}

// finite checks the scalars of a step, first those that the others are made of.
func (t *Trainer) finite(s Scores) error {
	for _, c := range []struct {
		place string
		value float64
	}{{"mean energy of the data", s.Positives}, {"mean energy of the negatives", s.Negatives}, {"energy penalty", s.Penalty}, {"loss", s.Loss}, {"norm of the gradient", s.GradNorm}} {
		if !bad(c.value) {
			continue
		}
		place := c.place
		if c.place == "mean energy of the negatives" {
			// The rows on the device are those of the scan after the step, and no sweep of theirs is pending. A chain that
			// left before stays away, and is the cause.
			if live, err := t.shard.Live(); err == nil {
				target := live[(t.cfg.Spec.rows()-t.Chains())*t.Dim():]
				if i := slices.IndexFunc(target, notFinite); i >= 0 {
					place += fmt.Sprintf(" (chain %d of rung %d is at %v)", i/t.Dim(), t.Rungs()-1, target[i])
				}
			}
		}
		return &NonFiniteError{t.step, place, c.value}
	}
	return nil
}

func notFinite(v float32) bool { return math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) }

// Explore makes one scan without training: with weights that stand still, this is how a model is sampled.
func (t *Trainer) Explore() (Result, error) { return t.scanOnce(nil) }

// scanOnce makes one scan without training, of the given columns if any.
func (t *Trainer) scanOnce(given *buffer.Plan) (Result, error) {
	draw, plan := t.draw(given, t.step)
	r, err := t.shard.Scan(t.scan, draw)
	if err != nil {
		return Result{}, err
	}
	return r, t.sweep(r, plan, given == nil)
}

// sweep ends a scan: it decides the swaps, which the next call applies, and notes the plan in the buffer's books.
func (t *Trainer) sweep(r Result, plan buffer.Plan, commit bool) error {
	scan := t.scan
	t.plan = plan
	t.scan++
	t.observeSteps(r)
	var restarted []bool
	if t.ensemble != nil {
		start := time.Now()
		swept, err := t.ensemble.Sweep(scan, plan.Draw, r.V)
		if err != nil {
			return fmt.Errorf("engine: %w", err)
		}
		t.swept = sweepNote{time.Since(start), swept.Restarted}
		t.perm, restarted = swept.Perm, swept.Restarted
		t.observeSwaps(r, swept)
		t.weigh(swept)
	}
	if t.buffer != nil && commit {
		if err := t.buffer.Commit(scan, plan, restarted); err != nil {
			return fmt.Errorf("engine: %w", err)
		}
	}
	return nil
}

// scheduled is a schedule of the sampler at a training step and a chain step of its scan.
func (t *Trainer) scheduled(s schedules.Schedule, step, m int) float64 {
	if t.cfg.Spec.Loss.Compat == "torchebm" { // its sampler starts its schedules anew at every call
		return s.At(m)
	}
	return s.At(t.cfg.StepsBefore + step)
}

// epsAt is ε of the target rung before any adaptation.
func (t *Trainer) epsAt(step, m int) float64 { return t.scheduled(t.stepSize, step, m) }

// setSteps puts β and the step sizes of a training step on the device, if they changed.
func (t *Trainer) setSteps(step int) error {
	sp := t.cfg.Spec
	n := sp.Sampler.Steps
	now := tables{t.epsAt(step, 0), t.scheduled(t.noise, step, 0)}
	if now == t.tablesAt {
		return nil
	}
	if !(now.eps > 0) {
		return fmt.Errorf("engine: sampler.step_size: %g at step %d, want a positive number", now.eps, step)
	}
	t.shard.SetLadder(t.adapting.ladder.Betas(), t.rungStepSizes(now.eps))
	factor, noise := make([]float64, n), make([]float64, n)
	levels := sp.Sampler.NoiseFactors()
	for m := range n {
		factor[m], noise[m] = t.epsAt(step, m)/now.eps, t.scheduled(t.noise, step, m)
		if levels != nil {
			noise[m] *= levels[m]
		}
	}
	t.shard.SetTables(factor, noise)
	t.tablesAt = now
	return nil
}

// Energies evaluates E at points [n·dim] under the current (or averaged) parameters.
func (t *Trainer) Energies(x []float32) ([]float64, error) { return t.shard.Energies(x) }

// Theta copies the parameters to the host, those averaged over the steps where the optimizer keeps them.
func (t *Trainer) Theta() ([]float32, error) {
	theta, err := t.shard.Theta()
	if err == nil && theta == nil {
		return nil, ErrNotStarted
	}
	return theta, err
}

// TargetChains copies the chains of rung N to the host, [chains·dim], the pending sweep applied.
func (t *Trainer) TargetChains() ([]float32, error) {
	live, err := t.shard.Live()
	if err != nil {
		return nil, err
	}
	sp := t.cfg.Spec
	if sp.FromData {
		return live, nil
	}
	return permuted(live, t.perm, sp.dim())[(sp.rows()-sp.Chains)*sp.dim():], nil
}

func permuted[T any](rows []T, perm []int32, dim int) []T {
	out := make([]T, len(rows))
	for i, from := range perm {
		copy(out[i*dim:(i+1)*dim], rows[int(from)*dim:(int(from)+1)*dim])
	}
	return out
}

func identityPerm(n int) []int32 {
	p := make([]int32, n)
	for i := range p {
		p[i] = int32(i)
	}
	return p
}

// ErrNotStarted is returned for a trainer that was neither started nor restored.
var ErrNotStarted = errors.New("engine: trainer not started")
