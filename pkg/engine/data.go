package engine

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
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

	// Layout cuts a step's batch into Layout.Split shards, each a part of its rows; the zero value is one shard. Group is the number
	// of the trained group among those of the layout, each of which takes the next but so many batches. Local are the ids of the
	// group's shards that are held here, nil for all, and Mesh reaches the others: every process that holds some makes the same
	// calls, in the same order, of a trainer of its own.
	Layout Layout
	Group  int
	Local  []uint32
	Mesh   Mesh
	// Sync averages the gradients of all groups of the layout at every step.
	Sync bool

	Seed uint64
}

// DataTrainer trains a network by a loss over rows of data. Batches are drawn and coupled on the host, a few steps ahead
// and beside the device's work; since all randomness is counter-based, that changes no bit.
type DataTrainer struct {
	descent // what the optimizer keeps is with the process that holds the lead shard
	cfg     DataConfig
	needs   losses.Needs  // of a shard
	energy  models.Energy // nil for a field
	field   models.Field  // nil for an energy
	rate    schedules.Schedule

	places []Place // shards of the group
	held   []bool  // whether each is held here
	mesh   Mesh
	call   uint64 // steps that used the mesh: the same on every process

	train     *backend.Program         // a whole step, or the gradient of a shard, where several make one
	partNames []string                 // of the packed scores, after loss and norm
	compiling sync.Mutex               // guards chains
	chains    map[int]*backend.Program // by number of chain steps
	energies  *energyProgram

	step  int
	ahead []chan prepared // the batches of this step and those after it that are being prepared
	cores *cores
}

// NewDataTrainer checks that the loss and the network fit; programs compile at their first call.
func NewDataTrainer(b *backend.Backend, cfg DataConfig) (*DataTrainer, error) {
	t := &DataTrainer{descent: descent{backend: b, optimizer: cfg.Optimizer, params: max(1, models.NumParams(cfg.Network))}, cfg: cfg,
		chains: map[int]*backend.Program{}, cores: newCores(b.Confine)}
	t.energy, _ = cfg.Network.(models.Energy)
	t.field, _ = cfg.Network.(models.Field)
	if cfg.Batch < 1 {
		return nil, fmt.Errorf("engine: train: batch %d, want at least 1", cfg.Batch)
	}
	if err := t.place(); err != nil {
		return nil, err
	}
	t.needs = cfg.Loss.Needs(t.rows(), cfg.Network.Dim())
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
	t.descent.close()
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
	for _, m := range st.Moments {
		if len(m) != t.params {
			return fmt.Errorf("engine: load state: optimizer vector of %d numbers, want %d", len(m), t.params)
		}
	}
	t.forget()
	if !t.Lead() {
		st.EMA, st.Moments = nil, nil
	}
	t.descent.load(st)
	return nil
}

// prepared is the host's part of a step, or a shard's part of that.
type prepared struct {
	step    int
	shard   uint32    // that it is of; part of every device key
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
	t.cfg.Rows(step*max(1, t.cfg.Layout.Groups)+t.cfg.Group, p.x, p.labels)
	if t.cfg.DataNoise > 0 {
		z := rng.New(t.cfg.Seed, rng.DataNoise, uint64(step), uint32(t.cfg.Group))
		for i := range p.x {
			p.x[i] += float32(t.cfg.DataNoise * z.Normal())
		}
	}
	p.rows = p.x
	if t.needs.Source {
		z := rng.New(t.cfg.Seed, rng.Source, uint64(step), uint32(t.cfg.Group))
		p.source = make([]float32, n*dim)
		for i := range p.source {
			p.source[i] = float32(z.Normal())
		}
		if p.err = t.pair(&p); p.err != nil {
			return p
		}
	}
	if p.labels != nil && t.cfg.LabelDropout > 0 {
		u := rng.New(t.cfg.Seed, rng.LabelDrop, uint64(step), uint32(t.cfg.Group))
		for i := range p.labels {
			if u.Float64() < t.cfg.LabelDropout {
				p.labels[i] = int32(t.field.Classes())
			}
		}
	}
	return p
}

// part is what shard i works on, with the starts of its chains.
func (t *DataTrainer) part(p prepared, i int) prepared {
	dim, n := t.cfg.Network.Dim(), t.rows()
	p.shard = t.places[i].ID
	cut := func(v []float32, width int) []float32 {
		if v == nil {
			return nil
		}
		return v[i*n*width : (i+1)*n*width]
	}
	p.rows, p.x, p.source, p.weights = cut(p.rows, dim), cut(p.x, dim), cut(p.source, dim), cut(p.weights, 1)
	if p.labels != nil {
		p.labels = p.labels[i*n : (i+1)*n]
	}
	if c := t.needs.Chains; c != nil {
		s := rng.New(t.cfg.Seed, rng.LossChains, uint64(p.step), p.shard)
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
	u := rng.New(t.cfg.Seed, rng.Coupling, uint64(p.step), uint32(t.cfg.Group))
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
	start := time.Now()
	rate := t.rate.At(t.step)
	packed, err := t.learn(batch, rate)
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
