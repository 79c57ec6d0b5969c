package engine

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

const f32 = dtypes.Float32

// Shard is a batch of chains with the parameters that they share, on one device. Row k·B + b holds the chain of ladder b
// on rung k. Parameters and states stay on the device between calls; a call brings back energies and scalars. A shard
// serves one goroutine.
type Shard struct {
	spec    Spec
	backend *backend.Backend
	params  int // length of θ; at least 1, since a tensor without elements is no tensor

	theta, ema *tensors.Tensor
	moments    []*tensors.Tensor
	live       *tensors.Tensor // [rows, dim]
	pool       *tensors.Tensor // [rungs·pool, dim]; nil where every column is live

	beta, stepRows, stepTable, noiseTable *tensors.Tensor
	reference                             *tensors.Tensor // q as packLaw gives it; nil where it is compiled in

	betas, steps []float32 // of the rungs, behind beta and stepRows
	// place is, under exchange of labels, the row of the device that holds the chain of each row k·B + b; nil: the same.
	place []int32

	*programs
	shared     bool  // with other shards, and closed by another
	blockLen   []int // chain steps of each block of a scan
	blockSteps int   // the most of them

	cores *cores
}

// NewShard compiles nothing yet: programs are compiled at their first call, once.
func NewShard(b *backend.Backend, spec Spec) (*Shard, error) {
	if err := spec.validate(); err != nil {
		return nil, fmt.Errorf("engine: shard: %w", err)
	}
	s := &Shard{spec: spec, backend: b, params: max(1, models.NumParams(spec.Network)), programs: &programs{blocks: map[int]*backend.Program{}}, cores: newCores(b.Confine)}
	// The one before may have left the workers on one core.
	if _, err := b.Confine(false); err != nil {
		return nil, fmt.Errorf("engine: shard: %w", err)
	}
	s.blockSteps = spec.blockSteps()
	for left := spec.Sampler.Steps; left > 0; left -= s.blockSteps {
		s.blockLen = append(s.blockLen, min(left, s.blockSteps))
	}
	if spec.Variational {
		s.SetReference(*spec.Reference)
	}
	return s, nil
}

// Close frees the device memory, and the cores that the shard did not use.
func (s *Shard) Close() {
	s.cores.release()
	backend.Release(s.theta, s.ema, s.live, s.pool, s.beta, s.stepRows, s.stepTable, s.noiseTable, s.reference)
	backend.Release(s.moments...)
	if !s.shared {
		s.programs.close()
	}
}

// programs are what a shard compiles, each at its first call. Shards of one shape share them.
type programs struct {
	mu          sync.Mutex
	train, scan *backend.Program
	blocks      map[int]*backend.Program // by number of chain steps
	energies    *energyProgram
}

func (p *programs) close() {
	for _, program := range append([]*backend.Program{p.train, p.scan}, slices.Collect(maps.Values(p.blocks))...) {
		if program != nil {
			program.Close()
		}
	}
	p.energies.close()
}

// compiled gives the program of a slot, and compiles it where it is not there yet.
func (p *programs) compiled(slot **backend.Program, compile func() (*backend.Program, error)) (*backend.Program, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if *slot == nil {
		program, err := compile()
		if err != nil {
			return nil, err
		}
		*slot = program
	}
	return *slot, nil
}

// block gives the program of n chain steps.
func (s *Shard) block(n int) (*backend.Program, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blocks[n] == nil {
		program, err := s.compileBlock(n)
		if err != nil {
			return nil, err
		}
		s.blocks[n] = program
	}
	return s.blocks[n], nil
}

// SetLadder sets β and the step size of each rung. Neither is compiled in.
func (s *Shard) SetLadder(betas, stepSizes []float64) {
	s.betas, s.steps = to32(betas), to32(stepSizes)
	s.setRows()
}

// SetRows sets β and the step size of every row, [rows], where the shard holds one rung and labels move.
func (s *Shard) SetRows(betas, stepSizes []float32) {
	backend.Release(s.beta, s.stepRows)
	s.beta = tensors.FromFlatDataAndDimensions(slices.Clone(betas), len(betas))
	s.stepRows = tensors.FromFlatDataAndDimensions(slices.Clone(stepSizes), len(stepSizes))
}

// setRows gives every row of the device β and the step size of the rung whose chain it holds.
func (s *Shard) setRows() {
	set := func(old **tensors.Tensor, perRung []float32) {
		rows := make([]float32, s.spec.rows())
		for i := range rows {
			rows[i] = perRung[i/s.spec.Chains]
		}
		backend.Release(*old)
		*old = tensors.FromFlatDataAndDimensions(toRows(rows, s.place, 1), len(rows))
	}
	if s.betas == nil || s.spec.byLabel() && s.spec.Ladder > 0 { // no ladder yet, or rows that know their own β
		return
	}
	set(&s.beta, s.betas)
	set(&s.stepRows, s.steps)
}

// SetReference moves the reference q of a linear path, without a new program; needs Spec.Variational. The next scan draws
// and explores under it; what V the last one gave is of the q before. q has the dimension of the states.
func (s *Shard) SetReference(q models.Gaussian) {
	backend.Release(s.reference)
	s.reference = tensors.FromFlatDataAndDimensions(packLaw(q), lawSize(s.spec.dim()))
}

// SetTables sets, for every chain step of a scan, the factor on the step size and Langevin's noise scale.
func (s *Shard) SetTables(steps, noise []float64) {
	set := func(old **tensors.Tensor, v []float64) {
		backend.Release(*old)
		*old = tensors.FromFlatDataAndDimensions(to32(v), len(v))
	}
	set(&s.stepTable, steps)
	set(&s.noiseTable, noise)
}

// Draw says which states the next scan starts from. A nil Draw in a call without a pool means: rows stay as they are.
type Draw struct {
	// Perm is the swap sweep: row i takes the state that row Perm[i] ended the last scan with. In a shard that holds one rung
	// of a ladder, numbers from rows on are rows of Incoming.
	Perm     []int32
	Incoming []float32 // [rows·dim]: states from other shards, where the shard holds one rung and states move
	// Source and Slots serve a pool. After the sweep, slot j of the pool takes row Source[j] of [pool; live]; then row i
	// starts from slot Slots[i]. Rows and slots are numbered rung by rung: k·B + b, k·M + m.
	Source, Slots []int32
	// Keep and Add serve fresh starts and jitter: x ← x·[Keep > 0] + Add, [rows] and [rows·dim]. Needs Spec.Mix.
	Keep, Add []float32
	// Starts are the rows of a scan that starts from given data (Spec.FromData), [rows·dim].
	Starts []float32
	// Weights weigh the negatives of a training call where Spec.Weighted is set, [B], or with Spec.Virtual [2B]: rung K−2,
	// then the target rung, after the sweep. Their sum is 1.
	Weights []float32
}

// Scores are the scalars of a training step.
type Scores struct {
	Loss, Positives, Negatives, Penalty, GradNorm float64
}

// Result is what a call brings back.
type Result struct {
	V []float64 // V of every row after the scan, [rows]; empty for a single rung, which swaps with nobody
	// V0 is V of every row when the exploration began, under the parameters that explore: against V it shows what the
	// exploration of a rung forgets. On a rung of independent draws it is V, to rounding.
	V0     []float64
	Accept []float64 // acceptance of each rung's explorer; 1 on a rung of independent draws and for Langevin
	// NonFinite counts proposals whose log density is not finite, and states that left for infinity: those of every step
	// for MALA and a clamped chain, of the last step for a chain that cannot come back.
	NonFinite int
	Scores    Scores // of a training call
}

// Train makes one training step: sweep → negatives → loss → gradient → clip → optimizer → draw → explore under the new
// parameters. scan numbers the exploration; lr is the learning rate of optimizer step number step.
func (s *Shard) Train(scan uint64, step int, lr float64, positives []float32, d Draw) (Result, error) {
	program, err := s.compiled(&s.train, s.compileTrain)
	if err != nil {
		return Result{}, err
	}
	c := s.begin()
	c.state(&s.theta)
	if s.ema != nil {
		c.state(&s.ema)
	}
	for i := range s.moments {
		c.state(&s.moments[i])
	}
	c.host(tensors.FromFlatDataAndDimensions(positives, s.spec.Batch, s.spec.dim()))
	c.host(tensors.FromFlatDataAndDimensions(s.spec.Optimizer.hyper(lr, step), hyperSize))
	return s.explore(c, program, scan, d, true)
}

// Scan explores once without training: sweep → draw → explore.
func (s *Shard) Scan(scan uint64, d Draw) (Result, error) {
	program, err := s.compiled(&s.scan, s.compileScan)
	if err != nil {
		return Result{}, err
	}
	c := s.begin()
	c.keep(s.theta)
	return s.explore(c, program, scan, d, false)
}

// explore adds the inputs of a scan to the call, runs it and the blocks that follow.
func (s *Shard) explore(c *call, p *backend.Program, scan uint64, d Draw, train bool) (Result, error) {
	if err := s.addDraw(c, d, train); err != nil {
		return Result{}, err
	}
	s.addKernel(c, scan, 0)
	packed, err := c.run(p)
	if err != nil {
		return Result{}, err
	}
	result := s.unpack(packed, true, train)
	for i, n := range s.blockLen[1:] {
		block, err := s.block(n)
		if err != nil {
			return Result{}, err
		}
		c := s.begin()
		c.keep(s.theta)
		c.state(&s.live)
		s.addKernel(c, scan, i+1)
		packed, err := c.run(block)
		if err != nil {
			return Result{}, err
		}
		next := s.unpack(packed, false, false)
		done := float64((i + 1) * s.blockSteps)
		for k := range next.Accept { // mean over the chain steps
			next.Accept[k] = (result.Accept[k]*done + next.Accept[k]*float64(n)) / (done + float64(n))
		}
		next.NonFinite += result.NonFinite
		next.V0, next.Scores = result.V0, result.Scores
		result = next
	}
	return result, nil
}

func (s *Shard) addDraw(c *call, d Draw, train bool) error {
	check := func(name string, got, want int) error {
		if got != want {
			return fmt.Errorf("engine: draw: %s: length %d, want %d", name, got, want)
		}
		return nil
	}
	if train && s.spec.Weighted {
		if err := check("weights", len(d.Weights), s.spec.negatives()); err != nil {
			return err
		}
		c.host(tensors.FromFlatDataAndDimensions(d.Weights, len(d.Weights)))
	}
	rows, dim := s.spec.rows(), s.spec.dim()
	c.state(&s.live)
	if s.spec.FromData {
		if err := check("starts", len(d.Starts), rows*dim); err != nil {
			return err
		}
		c.host(tensors.FromFlatDataAndDimensions(d.Starts, rows, dim))
		return nil
	}
	if s.spec.byLabel() && s.spec.Ladder > 0 { // whoever holds the whole ladder moves the labels, see SetRows
		return nil
	}
	if err := check("permutation", len(d.Perm), rows); err != nil {
		return err
	}
	if s.spec.byLabel() {
		if err := s.moveLabels(d.Perm); err != nil {
			return fmt.Errorf("engine: draw: permutation: %w", err)
		}
		if train {
			negatives := slices.Clone(s.place[rows-s.spec.negatives():])
			c.host(tensors.FromFlatDataAndDimensions(negatives, len(negatives)))
		}
		return nil
	}
	c.host(tensors.FromFlatDataAndDimensions(d.Perm, rows))
	if s.spec.moving() {
		if err := check("incoming", len(d.Incoming), rows*dim); err != nil {
			return err
		}
		c.host(tensors.FromFlatDataAndDimensions(d.Incoming, rows, dim))
	}
	if s.spec.pooled() {
		slots := s.spec.Rungs * s.spec.Pool
		if err := check("source", len(d.Source), slots); err != nil {
			return err
		}
		if err := check("slots", len(d.Slots), rows); err != nil {
			return err
		}
		c.state(&s.pool)
		c.host(tensors.FromFlatDataAndDimensions(d.Source, slots))
		c.host(tensors.FromFlatDataAndDimensions(d.Slots, rows))
	}
	if s.spec.Mix {
		if err := check("keep", len(d.Keep), rows); err != nil {
			return err
		}
		if err := check("add", len(d.Add), rows*dim); err != nil {
			return err
		}
		c.host(tensors.FromFlatDataAndDimensions(d.Keep, rows))
		c.host(tensors.FromFlatDataAndDimensions(d.Add, rows, dim))
	}
	return nil
}

func (s *Shard) addKernel(c *call, scan uint64, block int) {
	key := rng.Uint64(s.spec.Seed, rng.Explore, scan, s.spec.Shard, uint32(block))
	c.host(tensors.FromFlatDataAndDimensions([]uint64{key, 0, 0}, 3))
	c.keep(s.beta)
	c.keep(s.stepRows)
	if s.reference != nil {
		c.keep(s.reference)
	}
	at := block * s.blockSteps
	n := s.blockLen[block]
	if len(s.blockLen) == 1 {
		c.keep(s.stepTable)
		c.keep(s.noiseTable)
		return
	}
	for _, t := range []*tensors.Tensor{s.stepTable, s.noiseTable} { // a block's part of the tables
		tensors.MustConstFlatData(t, func(flat []float32) {
			c.host(tensors.FromFlatDataAndDimensions(slices.Clone(flat[at:at+n]), n))
		})
	}
}

// unpack reads what explored packed, of the first block of a scan or a later one, and the scores of a training step.
func (s *Shard) unpack(packed []float32, first, train bool) Result {
	take := func(n int) []float64 {
		part := to64(packed[:n])
		packed = packed[n:]
		return part
	}
	rows, rungs := s.spec.rows(), s.spec.Rungs
	if s.spec.ladder() == 1 {
		rows = 0
	}
	r := Result{V: fromRows(take(rows), s.place, 1)}
	if first {
		r.V0 = fromRows(take(rows), s.place, 1)
	}
	switch {
	case s.spec.byLabel() && s.spec.Ladder > 0:
		r.Accept = take(rows) // of each row, whose rungs differ
	case s.spec.byLabel():
		r.Accept = rungMeans(fromRows(take(rows), s.place, 1), rungs)
	default:
		r.Accept = take(rungs)
	}
	r.NonFinite = int(take(1)[0])
	if train {
		r.Scores = unpackScores(take(NumScores))
	}
	return r
}

func (s *Shard) thetaInput(name string) backend.Input {
	return backend.Input{Name: name, Shape: shapes.Make(f32, s.params)}
}

// network is f at a flat parameter vector. It is made once for all states that it is to be evaluated at, so that what
// depends on the weights alone is computed once.
func (s *Shard) network(theta *Node) models.Fn {
	return models.At(s.spec.Network, models.Unpack(s.spec.Network, theta))
}

func to32(v []float64) []float32 {
	out := make([]float32, len(v))
	for i, x := range v {
		out[i] = float32(x)
	}
	return out
}

func to64(v []float32) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = float64(x)
	}
	return out
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
