package engine

import (
	"fmt"
	"math"
	"slices"

	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// Adapted is where an adaptation stands: what a later run on the same law, or a slightly other one, begins with.
type Adapted struct {
	Betas     []float64        // [K]; nil for the ladder that the configuration names
	Factors   []float64        // [K], of the step sizes; nil for 1
	Reference *models.Gaussian // of the linear path; nil for Spec.Reference
}

// adapting is the part of a trainer that moves: β, step sizes and the reference, at fences only.
type adapting struct {
	ladder  *tempering.Ladder
	swaps   *tempering.Adapter   // nil for one rung; watches whether or not the ladder moves
	sizes   *tempering.StepSizes // nil where step sizes stay
	factors []float64            // [K], where sizes begins

	reference models.Gaussian // in use on a linear path
	fitted    moments         // of the target chains since the last refit
	fences    uint64
	refitAt   uint64 // fence of the next refit of a variational reference
}

// halfLife of the mean acceptances, in training steps: θ moves little over so few.
const halfLife = 5

// firstRefit is the first fence at which a variational reference is fitted; each next one comes after twice as many.
const firstRefit = 4

func (t *Trainer) newAdapting() error {
	cfg, sp := t.cfg.Tempering, t.cfg.Spec
	if cfg.Rungs != sp.Rungs || cfg.Chains != sp.Chains {
		return fmt.Errorf("engine: tempering of %d rungs and %d chains, want those of the shard, %d and %d", cfg.Rungs, cfg.Chains, sp.Rungs, sp.Chains)
	}
	t.adapting = adapting{}
	a := &t.adapting
	var err error
	if start := t.cfg.Start.Betas; start != nil {
		a.ladder, err = tempering.LadderOf(start)
	} else {
		a.ladder, err = tempering.NewLadder(cfg)
	}
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	if a.ladder.NumRungs() != sp.Rungs {
		return fmt.Errorf("engine: ladder of %d rungs, want %d", a.ladder.NumRungs(), sp.Rungs)
	}
	a.factors = slices.Repeat([]float64{1}, sp.Rungs)
	if f := t.cfg.Start.Factors; f != nil {
		if len(f) != sp.Rungs {
			return fmt.Errorf("engine: %d step-size factors, want one for each of %d rungs", len(f), sp.Rungs)
		}
		copy(a.factors, f)
	}
	a.refitAt = firstRefit
	if sp.Reference != nil {
		a.reference = *sp.Reference
		if q := t.cfg.Start.Reference; q != nil {
			a.reference = *q
		}
		if m := t.logMass(); math.IsInf(m, -1) {
			return fmt.Errorf("engine: sampler.box: [%g, %g] holds nothing of the reference, want a box round the data", sp.Sampler.Box[0], sp.Sampler.Box[1])
		}
		if sp.Variational {
			t.shard.SetReference(a.reference)
		}
	}
	// A single chain keeps the step size that it was given, unless somebody asks for an acceptance.
	if target := sp.Sampler.TargetAccept(); target > 0 && (sp.Rungs > 1 || sp.Sampler.AcceptTarget != nil) {
		if a.sizes, err = tempering.NewStepSizes(sp.Rungs, target); err != nil {
			return fmt.Errorf("engine: %w", err)
		}
	}
	if sp.Rungs == 1 {
		return nil
	}
	scans := float64(max(1, cfg.Scans))
	a.swaps, err = tempering.NewAdapter(tempering.AdapterSettings{Rungs: sp.Rungs, Ladders: sp.Chains,
		// At least some 200 observations: n = B(1+ρ)/(1−ρ) ≈ 2.9·B·halfLife.
		HalfLife: max(halfLife*scans, 70/float64(sp.Chains)), Gain: 0.2, Decay: 0.6, MinCount: 200})
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	return nil
}

// Adapted is where ladder, step sizes and reference stand.
func (t *Trainer) Adapted() Adapted {
	a := Adapted{Betas: t.adapting.ladder.Betas(), Factors: t.factors()}
	if t.cfg.Spec.Reference != nil {
		q := t.adapting.reference
		a.Reference = &q
	}
	return a
}

// Ladder is the ladder in use.
func (t *Trainer) Ladder() *tempering.Ladder { return t.adapting.ladder }

// StepSizes are those of the rungs in the scans to come, [K].
func (t *Trainer) StepSizes() []float64 { return t.rungStepSizes(t.epsAt(t.step, 0)) }

// logMass is the log of what the sampler's box holds of the reference: log Z at β = 0.
func (t *Trainer) logMass() float64 {
	if box, walled := t.cfg.Spec.Sampler.Bounds(); walled {
		return box.LogMass(t.adapting.reference)
	}
	return 0
}

// factors are what the adaptation makes of the step sizes, [K].
func (t *Trainer) factors() []float64 {
	out := slices.Clone(t.adapting.factors)
	if t.adapting.sizes != nil {
		for k, f := range t.adapting.sizes.Factors() {
			out[k] *= f
		}
	}
	return out
}

func (t *Trainer) rungStepSizes(eps float64) []float64 {
	sp := t.cfg.Spec
	var std []float64
	if sp.Reference != nil {
		std = t.adapting.reference.Std
	}
	out := sp.Sampler.RungStepSizes(eps, t.adapting.ladder.Betas(), std)
	for k, f := range t.factors() {
		out[k] *= f
	}
	return out
}

// observeSteps keeps what a scan says about step sizes.
func (t *Trainer) observeSteps(r Result) {
	if t.adapting.sizes == nil {
		return
	}
	accept := slices.Clone(r.Accept)
	for k := range t.cfg.Spec.drawn() / t.cfg.Spec.Chains { // independent draws have no step size
		accept[k] = math.NaN()
	}
	t.adapting.sizes.Observe(accept)
}

// observeSwaps keeps what a scan and its sweep say about the ladder.
func (t *Trainer) observeSwaps(r Result, swept tempering.Swept) {
	t.adapting.swaps.Observe(swept)
	t.moves.add(r.V0, r.V)
	if !t.cfg.Spec.pooled() {
		t.drift.after(r.V)
	}
}

// fence is the point between two training steps at which ladder, step sizes and reference may move. The conservation laws
// are checked here too.
func (t *Trainer) fence() error {
	a := &t.adapting
	a.fences++
	moved := a.sizes != nil && a.sizes.Move()
	if t.ensemble != nil {
		shifted, err := t.ladderFence()
		if err != nil {
			return fmt.Errorf("engine: step %d: %w", t.step, err)
		}
		moved = moved || shifted
	}
	if moved {
		t.tablesAt = tables{math.NaN(), math.NaN()}
	}
	return nil
}

// ladderFence is the part of a fence that is about several rungs.
func (t *Trainer) ladderFence() (moved bool, err error) {
	if err := t.ensemble.Check(); err != nil {
		return false, err
	}
	if t.buffer != nil {
		if err := t.buffer.Check(); err != nil {
			return false, err
		}
	}
	a := &t.adapting
	if t.cfg.Tempering.Ladder == "adaptive" {
		next, shifted, err := a.swaps.Move(a.ladder)
		if err != nil {
			return false, err
		}
		if shifted {
			if err := t.setLadder(next); err != nil {
				return false, err
			}
		}
		moved = shifted
	}
	if err := t.widen(a.swaps.Rejections()); err != nil {
		return false, err
	}
	if !t.cfg.Spec.Variational {
		return moved, nil
	}
	rows, err := t.TargetChains()
	if err != nil {
		return false, err
	}
	a.fitted.add(rows, t.Dim())
	if a.fences == a.refitAt {
		a.refitAt *= 2
		t.refit()
		moved = true
	}
	return moved, nil
}

func (t *Trainer) setLadder(next *tempering.Ladder) error {
	if err := t.ensemble.SetLadder(next); err != nil {
		return err
	}
	t.adapting.ladder = next
	return nil
}

// widen sets the window of the windowed schedule by the rejection rates, where the configuration leaves it open.
func (t *Trainer) widen(rejections []float64) error {
	if cfg := t.cfg.Tempering; cfg.Schedule != "windowed" || cfg.Window > 0 {
		return nil
	}
	worst := 0.0
	for _, r := range rejections {
		if math.IsNaN(r) {
			return nil
		}
		worst = max(worst, r)
	}
	if w := tempering.Window(1-worst, t.cfg.Spec.Rungs); w != t.ensemble.Window() {
		return t.ensemble.SetWindow(w)
	}
	return nil
}

// refit moves the variational reference to the moments of the target chains. V is another function from here on, so that
// whatever was learnt of it is forgotten.
func (t *Trainer) refit() {
	a := &t.adapting
	a.reference = a.fitted.gaussian(a.reference)
	a.fitted = moments{}
	t.shard.SetReference(a.reference)
	t.forget()
}

// forget drops all statistics: they were about another law. Walkers go on in the direction that they had.
func (t *Trainer) forget() {
	t.adapting.swaps.Forget()
	t.ensemble.Reset()
	t.moves.reset()
	t.drift.forget()
}

// equalWeights gives every negative of the target rung the same weight.
func (t *Trainer) equalWeights() {
	sp := t.cfg.Spec
	if !sp.Weighted {
		return
	}
	t.weights = make([]float32, sp.negatives())
	target := t.weights[len(t.weights)-sp.Chains:]
	for j := range target {
		target[j] = 1 / float32(sp.Chains)
	}
}

// weigh gives the negatives their weights after a sweep. Warming columns are no samples of the model and count nothing,
// unless all of them are warming. Virtual swaps give both states of a tried pair the probability with which they would be
// on the target rung.
func (t *Trainer) weigh(swept tempering.Swept) {
	sp := t.cfg.Spec
	if !sp.Weighted {
		return
	}
	b := sp.Chains
	warm := 0
	for _, c := range t.plan.Draw {
		if !t.ensemble.Warming(int(c)) {
			warm++
		}
	}
	below, target := make([]float32, b), make([]float32, b)
	for j, c := range t.plan.Draw {
		share := 1 / float64(b)
		switch {
		case warm > 0 && t.ensemble.Warming(int(c)):
			continue
		case warm > 0:
			share = 1 / float64(warm)
		}
		stay := 1.0 // probability of the state that is on the target rung now
		if alpha := swept.Target[j]; t.cfg.Tempering.VirtualSwaps && !math.IsNaN(alpha) {
			stay = 1 - alpha
			if swept.TargetSwapped[j] {
				stay = alpha
			}
		}
		target[j], below[j] = float32(share*stay), float32(share*(1-stay))
	}
	t.weights = target
	if sp.Virtual {
		t.weights = append(below, target...)
	}
}

// correlations are those of V before and after exploration, by rung, over the ladders of each scan: differences between
// scans, as while θ moves, do not count.
type correlations struct {
	ladders    int
	aa, bb, ab []float64 // [K]
}

func newCorrelations(rungs, ladders int) correlations {
	return correlations{ladders, make([]float64, rungs), make([]float64, rungs), make([]float64, rungs)}
}

func (c *correlations) reset() { clear(c.aa); clear(c.bb); clear(c.ab) }

func (c *correlations) add(before, after []float64) {
	n := c.ladders
	for k := range len(before) / n {
		a, b := finitePairs(before[k*n:(k+1)*n], after[k*n:(k+1)*n])
		meanA, meanB := mean(a), mean(b)
		for i := range a {
			da, db := a[i]-meanA, b[i]-meanB
			c.aa[k] += da * da
			c.bb[k] += db * db
			c.ab[k] += da * db
		}
	}
}

// finitePairs leaves out what is not finite on either side: energies of states without weight correlate with nothing.
func finitePairs(a, b []float64) (keptA, keptB []float64) {
	for i := range a {
		if !bad(a[i]) && !bad(b[i]) {
			keptA, keptB = append(keptA, a[i]), append(keptB, b[i])
		}
	}
	return keptA, keptB
}

// rates are the correlations, [K]: 0 on the first rungs that are drawn anew, NaN where V does not vary, or with one ladder.
func (c *correlations) rates(drawn int) []float64 {
	out := make([]float64, len(c.aa))
	for k := drawn; k < len(out); k++ {
		out[k] = c.ab[k] / math.Sqrt(c.aa[k]*c.bb[k])
	}
	return out
}

func mean(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}

// driftMeter measures how far a training step moves the law of every rung, by the effective share of the chains when they
// are reweighted to the new law.
type driftMeter struct {
	before []float64 // V of the last scan, under the parameters before; nil where it is not known
	ess    []float64 // [K] of the last training step; nil where it was not measured
}

func (d *driftMeter) forget()           { d.before = nil }
func (d *driftMeter) after(v []float64) { d.before = v }

// measure compares V of the states that a training step found, [rows], with V under its new parameters.
func (d *driftMeter) measure(perm []int32, now []float64, ladder *tempering.Ladder) {
	d.ess = nil
	if d.before == nil || len(now) == 0 {
		return
	}
	betas := ladder.Betas()
	ladders := len(now) / len(betas)
	logw := make([]float64, ladders)
	for k, beta := range betas {
		if beta == 0 { // the reference does not move
			d.ess = append(d.ess, 1)
			continue
		}
		for j := range logw {
			row := k*ladders + j
			logw[j] = beta * (now[row] - d.before[perm[row]])
		}
		d.ess = append(d.ess, tempering.DriftESS(logw))
	}
}

// moments are sums over states, from which a Gaussian is fitted.
type moments struct {
	n            float64
	sum, squares []float64 // [dim]
}

func (m *moments) add(rows []float32, dim int) {
	if len(m.sum) == 0 {
		m.sum, m.squares = make([]float64, dim), make([]float64, dim)
	}
	for at := 0; at < len(rows); at += dim {
		m.n++
		for i, v := range rows[at : at+dim] {
			m.sum[i] += float64(v)
			m.squares[i] += float64(v) * float64(v)
		}
	}
}

// gaussian has the moments' mean and deviation; a coordinate that does not vary keeps the deviation of q.
func (m *moments) gaussian(q models.Gaussian) models.Gaussian {
	out := models.Gaussian{Mean: make([]float64, len(m.sum)), Std: make([]float64, len(m.sum))}
	for i := range m.sum {
		out.Mean[i] = m.sum[i] / m.n
		if out.Std[i] = math.Sqrt(max(0, m.squares[i]/m.n-out.Mean[i]*out.Mean[i])); !(out.Std[i] > 0) {
			out.Std[i] = q.Std[i]
		}
	}
	return out
}
