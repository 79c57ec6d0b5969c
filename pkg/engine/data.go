package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"time"

	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/couplings"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

// DataConfig is everything that a [DataTrainer] needs beside its backend.
type DataConfig struct {
	Network   models.Network   // an Energy or a Field, whichever the loss asks for
	Base      *models.Gaussian // E = f − log Base; nil for E = f
	Loss      losses.Loss
	Optimizer OptimizerConfig
	Batch     int
	// Temperature divides what Energies gives: the loss's energy has the law exp(−E/Temperature). 0 is 1.
	Temperature float64

	// Rows writes the batch of a step, [batch·dim], and the labels of its rows, which is nil unless Classes > 0. It must be a
	// function of the step alone, and it is called from several goroutines at once.
	Rows func(step int, x []float32, labels []int32)
	// Classes is the number of labels that the field is trained with; 0 trains it without.
	Classes int
	// LabelDropout is the share of rows that a step shows without their label.
	LabelDropout float64
	// DataNoise is the standard deviation of Gaussian noise on the rows.
	DataNoise float64
	// Coupling pairs the noise rows of a step with its data rows; nil pairs them as they come. It is called from several
	// goroutines at once.
	Coupling couplings.Coupling
	// WithinClasses couples rows of one label only.
	WithinClasses bool

	Seed  uint64
	Shard uint32 // part of every key
}

// DataTrainer trains a network by a loss over rows of data. Batches are drawn and coupled on the host, a few steps ahead
// and beside the device's work; since all randomness is counter-based, that changes no bit.
type DataTrainer struct {
	cfg     DataConfig
	backend *backend.Backend
	needs   losses.Needs
	energy  models.Energy // nil for a field
	field   models.Field  // nil for an energy
	rate    schedules.Schedule
	params  int

	theta, ema *tensors.Tensor
	moments    []*tensors.Tensor

	train     *backend.Program
	partNames []string                 // of the packed scores, after loss and norm
	chains    map[int]*backend.Program // by number of chain steps
	energies  *energyProgram

	step  int
	ahead []chan prepared // the batches of this step and those after it that are being prepared
	cores *cores
}

// NewDataTrainer checks that the loss and the network fit; programs compile at their first call.
func NewDataTrainer(b *backend.Backend, cfg DataConfig) (*DataTrainer, error) {
	t := &DataTrainer{cfg: cfg, backend: b, params: max(1, models.NumParams(cfg.Network)), chains: map[int]*backend.Program{}, cores: newCores(b.Confine)}
	t.energy, _ = cfg.Network.(models.Energy)
	t.field, _ = cfg.Network.(models.Field)
	if cfg.Batch < 1 {
		return nil, fmt.Errorf("engine: train: batch %d, want at least 1", cfg.Batch)
	}
	t.needs = cfg.Loss.Needs(cfg.Batch, cfg.Network.Dim())
	switch {
	case t.needs.Energy && t.energy == nil:
		return nil, errors.New("engine: the loss needs an energy, and the network is a vector field")
	case t.needs.Field && t.field == nil:
		return nil, errors.New("engine: the loss needs a vector field, and the network is an energy")
	case t.needs.Hidden && !shows(t.field):
		return nil, errors.New("engine: loss.dispersion needs a field that shows its last hidden layer (models.Hidden)")
	case cfg.Classes > 0 && (t.field == nil || t.field.Classes() < cfg.Classes):
		return nil, fmt.Errorf("engine: %d labels, want a field that knows as many", cfg.Classes)
	}
	var err error
	if t.rate, err = cfg.Optimizer.LR.Build(); err != nil {
		return nil, fmt.Errorf("engine: optimizer.lr: %w", err)
	}
	if _, err := b.Confine(false); err != nil {
		return nil, fmt.Errorf("engine: trainer: %w", err)
	}
	return t, nil
}

func shows(f models.Field) bool {
	_, ok := f.(models.Hidden)
	return ok
}

// Close frees the device memory and waits for the batches under preparation.
func (t *DataTrainer) Close() {
	t.forget()
	t.cores.release()
	backend.Release(t.theta, t.ema)
	backend.Release(t.moments...)
	for _, p := range append(slices.Collect(maps.Values(t.chains)), t.train) {
		if p != nil {
			p.Close()
		}
	}
	t.energies.close()
}

// Step is the number of training steps made.
func (t *DataTrainer) Step() int { return t.step }

// Start draws the first weights.
func (t *DataTrainer) Start() error {
	return t.StartAt(to32(models.InitParams(t.cfg.Network, t.cfg.Seed)))
}

// StartAt is Start with given weights, in the flat order of the network's parameters.
func (t *DataTrainer) StartAt(theta []float32) error {
	if len(theta) == 0 {
		theta = make([]float32, t.params)
	}
	st := State{Theta: theta}
	if t.cfg.Optimizer.EMA > 0 {
		st.EMA = slices.Clone(theta)
	}
	for range t.cfg.Optimizer.moments() {
		st.Moments = append(st.Moments, make([]float32, t.params))
	}
	t.step = 0
	return t.load(st)
}

func (t *DataTrainer) load(st State) error {
	if len(st.Theta) != t.params || len(st.EMA) != b2i(t.cfg.Optimizer.EMA > 0)*t.params || len(st.Moments) != t.cfg.Optimizer.moments() {
		return fmt.Errorf("engine: load state: %d parameters, %d averaged, %d optimizer vectors, want %d, %d, %d", len(st.Theta), len(st.EMA),
			len(st.Moments), t.params, b2i(t.cfg.Optimizer.EMA > 0)*t.params, t.cfg.Optimizer.moments())
	}
	t.forget()
	backend.Release(t.theta, t.ema)
	backend.Release(t.moments...)
	t.ema, t.moments = nil, nil
	upload := func(v []float32) *tensors.Tensor { return tensors.FromFlatDataAndDimensions(slices.Clone(v), t.params) }
	t.theta = upload(st.Theta)
	if st.EMA != nil {
		t.ema = upload(st.EMA)
	}
	for _, m := range st.Moments {
		if len(m) != t.params {
			return fmt.Errorf("engine: load state: optimizer vector of %d numbers, want %d", len(m), t.params)
		}
		t.moments = append(t.moments, upload(m))
	}
	return nil
}

// prepared is the host's part of a step.
type prepared struct {
	step    int
	rows    []float32 // as they came
	x       []float32 // in the order of the coupling
	labels  []int32
	source  []float32
	weights []float32
	starts  []float32 // of the chains
	err     error
}

// prepared is prepare, with a panic of the caller's functions as an error: nobody else would catch it.
func (t *DataTrainer) prepared(step int) (p prepared) {
	defer func() {
		if r := recover(); r != nil {
			p.err = fmt.Errorf("engine: step %d: batch: %v", step+1, r)
		}
	}()
	return t.prepare(step)
}

// prepare makes the batch of a step.
func (t *DataTrainer) prepare(step int) prepared {
	dim, n := t.cfg.Network.Dim(), t.cfg.Batch
	p := prepared{step: step, x: make([]float32, n*dim)}
	if t.cfg.Classes > 0 {
		p.labels = make([]int32, n)
	}
	t.cfg.Rows(step, p.x, p.labels)
	if t.cfg.DataNoise > 0 {
		z := rng.New(t.cfg.Seed, rng.DataNoise, uint64(step), t.cfg.Shard)
		for i := range p.x {
			p.x[i] += float32(t.cfg.DataNoise * z.Normal())
		}
	}
	p.rows = p.x
	if t.needs.Source {
		z := rng.New(t.cfg.Seed, rng.Source, uint64(step), t.cfg.Shard)
		p.source = make([]float32, n*dim)
		for i := range p.source {
			p.source[i] = float32(z.Normal())
		}
		if p.err = t.pair(&p); p.err != nil {
			return p
		}
	}
	if p.labels != nil && t.cfg.LabelDropout > 0 {
		u := rng.New(t.cfg.Seed, rng.LabelDrop, uint64(step), t.cfg.Shard)
		for i := range p.labels {
			if u.Float64() < t.cfg.LabelDropout {
				p.labels[i] = int32(t.field.Classes())
			}
		}
	}
	if c := t.needs.Chains; c != nil {
		s := rng.New(t.cfg.Seed, rng.LossChains, uint64(step), t.cfg.Shard)
		take := func(from []float32, rows int) {
			order := s.Perm(n)
			for i := range rows {
				at := order[i%n] * dim
				p.starts = append(p.starts, from[at:at+dim]...)
			}
		}
		take(p.source, c.FromSource)
		take(p.rows, c.Rows-c.FromSource)
	}
	return p
}

// pair puts the data rows, and their labels with them, in the order of the noise rows that they are paired with.
func (t *DataTrainer) pair(p *prepared) error {
	if t.cfg.Coupling == nil {
		return nil
	}
	dim := t.cfg.Network.Dim()
	u := rng.New(t.cfg.Seed, rng.Coupling, uint64(p.step), t.cfg.Shard)
	var pairing couplings.Pairing
	var err error
	if t.cfg.WithinClasses {
		labels := make([]int, len(p.labels))
		for i, y := range p.labels {
			labels[i] = int(y)
		}
		pairing, err = couplings.PairWithinClasses(t.cfg.Coupling, to64(p.source), to64(p.x), dim, labels, u.Float64)
	} else {
		pairing, err = t.cfg.Coupling.Pair(to64(p.source), to64(p.x), dim, u.Float64)
	}
	if err != nil {
		return fmt.Errorf("engine: step %d: %w", p.step+1, err)
	}
	switch {
	case pairing.Data != nil && p.labels != nil:
		return fmt.Errorf("engine: step %d: coupling: it has rows of its own, whose labels nobody knows: want another for a conditional field", p.step+1)
	case pairing.Data != nil:
		p.x = to32(pairing.Data)
	default:
		p.x = couplings.Take(p.x, dim, pairing.Index)
		if p.labels != nil {
			p.labels = couplings.Take(p.labels, 1, pairing.Index)
		}
	}
	if pairing.Weights != nil {
		p.weights = to32(pairing.Weights)
	}
	return nil
}

// lookAhead is how many batches are prepared beside the step at work: an optimal coupling can take longer than the
// device's part, and then needs whatever cores there are.
func lookAhead() int { return min(4, runtime.GOMAXPROCS(0)) }

// next hands out the batch of the step and begins with those of the steps after it.
func (t *DataTrainer) next() prepared {
	for len(t.ahead) <= lookAhead() {
		ready, step := make(chan prepared, 1), t.step+len(t.ahead)
		t.ahead = append(t.ahead, ready)
		go func() { ready <- t.prepared(step) }()
	}
	p := <-t.ahead[0]
	t.ahead = slices.Delete(t.ahead, 0, 1)
	return p
}

// forget waits for the batches under preparation and drops them.
func (t *DataTrainer) forget() {
	for _, ready := range t.ahead {
		<-ready
	}
	t.ahead = nil
}

// TrainStep makes one optimizer step: batch → chains, where the loss has some → loss → gradient → clip → optimizer.
func (t *DataTrainer) TrainStep() (report Report, err error) {
	defer func() {
		if err != nil { // the step's batch is spent
			t.forget()
		}
	}()
	if t.theta == nil {
		return Report{}, ErrNotStarted
	}
	batch := t.next()
	if batch.err != nil {
		return Report{}, batch.err
	}
	if t.train == nil {
		p, err := t.compileTrain()
		if err != nil {
			return Report{}, err
		}
		t.train = p
	}
	start := time.Now()
	negatives, err := t.runChains(batch)
	if err != nil {
		return Report{}, err
	}
	rate := t.rate.At(t.step)
	packed, err := t.update(batch, negatives, rate)
	if err != nil {
		return Report{}, err
	}
	t.cores.observe(time.Since(start))
	t.step++
	report = Report{Step: t.step, Loss: float64(packed[0]), GradNorm: float64(packed[1]), Rate: rate}
	for i, name := range t.partNames {
		report.Parts = append(report.Parts, Score{name, float64(packed[2+i])})
	}
	for _, s := range append(slices.Clone(report.Parts), Score{"loss", report.Loss}, Score{"norm of the gradient", report.GradNorm}) {
		if bad(s.Value) {
			return Report{}, &NonFiniteError{t.step, s.Name, s.Value}
		}
	}
	return report, nil
}

// dataMeta is what a cut holds beside arrays.
type dataMeta struct {
	Seed  uint64 `json:"seed"`
	Step  int    `json:"step"`
	Batch int    `json:"batch"`
	Dim   int    `json:"dim"`
}

func (t *DataTrainer) meta() dataMeta {
	return dataMeta{Seed: t.cfg.Seed, Step: t.step, Batch: t.cfg.Batch, Dim: t.cfg.Network.Dim()}
}

// Cut takes a consistent snapshot of the training: parameters, optimizer and step.
func (t *DataTrainer) Cut() (checkpoint.Cut, error) {
	if t.theta == nil {
		return checkpoint.Cut{}, ErrNotStarted
	}
	st, err := t.state()
	if err != nil {
		return checkpoint.Cut{}, err
	}
	if i := slices.IndexFunc(st.Theta, notFinite); i >= 0 {
		return checkpoint.Cut{}, &NonFiniteError{t.step, fmt.Sprintf("parameter (number %d)", i), float64(st.Theta[i])}
	}
	files := map[string][]checkpoint.Tensor{"params": named(t.cfg.Network, st.Theta)}
	if st.EMA != nil {
		files["ema"] = named(t.cfg.Network, st.EMA)
	}
	for i, m := range st.Moments {
		files["optimizer"] = append(files["optimizer"], vector(fmt.Sprintf("moment%d", i+1), m))
	}
	raw, err := json.Marshal(t.meta())
	if err != nil {
		return checkpoint.Cut{}, err
	}
	return checkpoint.Cut{Step: t.step, Files: files, Meta: raw}, nil
}

func (t *DataTrainer) state() (st State, err error) {
	read := func(from *tensors.Tensor) (v []float32) {
		if from != nil && err == nil {
			v, err = backend.Read[float32](from)
		}
		return v
	}
	st.Theta, st.EMA = read(t.theta), read(t.ema)
	for _, m := range t.moments {
		st.Moments = append(st.Moments, read(m))
	}
	if err != nil {
		return State{}, fmt.Errorf("engine: read state: %w", err)
	}
	return st, nil
}

// Restore puts the trainer where the cut was taken.
func (t *DataTrainer) Restore(cut *checkpoint.Cut) error {
	fail := func(err error) error { return fmt.Errorf("engine: restore the cut of step %d: %w", cut.Step, err) }
	var got dataMeta
	if err := json.Unmarshal(cut.Meta, &got); err != nil {
		return fail(err)
	}
	want := t.meta()
	if want.Step = got.Step; got != want {
		return fail(fmt.Errorf("seed %d, batch %d, dimension %d, the experiment has %d, %d, %d", got.Seed, got.Batch, got.Dim, want.Seed, want.Batch, want.Dim))
	}
	st := State{}
	var err error
	if st.Theta, err = flat(t.cfg.Network, cut.Files["params"]); err != nil {
		return fail(err)
	}
	if t.cfg.Optimizer.EMA > 0 {
		if st.EMA, err = flat(t.cfg.Network, cut.Files["ema"]); err != nil {
			return fail(err)
		}
	}
	for i := range t.cfg.Optimizer.moments() {
		m, err := checkpoint.Values[float32](cut.Files["optimizer"], fmt.Sprintf("moment%d", i+1), -1)
		if err != nil {
			return fail(err)
		}
		st.Moments = append(st.Moments, m)
	}
	if err := t.load(st); err != nil {
		return fail(err)
	}
	t.step = got.Step
	return nil
}

// Theta copies the parameters to the host, those averaged over the steps where the optimizer keeps them.
func (t *DataTrainer) Theta() ([]float32, error) {
	if t.theta == nil {
		return nil, ErrNotStarted
	}
	if t.ema != nil {
		return backend.Read[float32](t.ema)
	}
	return backend.Read[float32](t.theta)
}

// Params are the parameters of Theta by name.
func (t *DataTrainer) Params() ([]checkpoint.Tensor, error) {
	theta, err := t.Theta()
	if err != nil {
		return nil, err
	}
	return named(t.cfg.Network, theta), nil
}
