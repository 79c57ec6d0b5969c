// Package coordinator leads the replicas of one training: it knows who lives, places the shards, lets all train from stop to
// stop, averages the groups' parameters, takes cuts, and goes on from the last cut with whoever is left after a loss.
//
//	fleet, err := coordinator.New(ctx, coordinator.Config{
//		Server: server, Token: token, Experiment: replica.Offer{Experiment: yaml, Dir: dir}, Layout: layout, Replicas: 4, Steps: 9000, Every: []int{50},
//	})
//	if err != nil {
//		return err
//	}
//	defer fleet.Close()
//	err = fleet.Start()
//	report, err := fleet.TrainStep() // an engine.Learner: the numbers are those of a training in one process
//
// What must outlive its process it writes to a [Book]: the replicated ledger or, where the caller keeps the cuts, memory.
package coordinator

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// Fleet is a training on replicas. It implements [engine.Learner]; its methods are for one goroutine.
type Fleet struct {
	cfg  Config
	book Book
	crew crew
	now  func() time.Time
	over func() error // why this coordinator leads no longer; nil while it does

	generation uint64
	holders    []string // by shard; nil before the first generation
	seq        uint64   // of the last command

	at    int // step that the replicas are at
	given int // step of the last report that was handed out
	queue []engine.Report
	fault error // that ends the training once the queue is empty
	facts replica.Facts
	moved map[string]replica.Moved // by replica
	pace  time.Duration            // a step
	idle  int                      // generations in a row that ended, without a loss, before they came to a step

	begun   bool
	weight  []float32       // given to StartAt; nil: the seed draws them
	last    *checkpoint.Cut // all go back to it; nil before the first
	taken   *checkpoint.Cut // will be the last as soon as it is settled; nil where none is on its way
	settles Commitment
	marks   []int // steps after which ResetPairs was called since
	cadence cadence
	dear    bool // people know that cuts take much of the time
	outer   *averaging.Outer
	redone  int
	lost    int
	rounds  int
	spent   time.Duration // in rounds
}

var _ engine.Learner = (*Fleet)(nil)

func newFleet(cfg Config, book Book, crew crew, now func() time.Time) *Fleet {
	return &Fleet{cfg: cfg, book: book, crew: crew, now: now, cadence: cadence{every: cfg.CutEvery}, over: func() error { return nil }, moved: map[string]replica.Moved{}}
}

const (
	// stretch is how long the replicas train on their own, if nothing is to be done earlier.
	stretch = 100 * time.Millisecond
	// mostSteps and mostBytes bound the reports of one answer, which is one message.
	mostSteps = 64
	mostBytes = transport.MaxPayload / 2
	// mostIdle is how often in a row a generation may end for no reason that anybody can name.
	mostIdle = 10
)

// Start implements [engine.Learner].
func (f *Fleet) Start() error { return f.StartAt(nil) }

// StartAt implements [engine.Learner].
func (f *Fleet) StartAt(theta []float32) error {
	f.weight, f.begun = theta, true
	return f.enduring(func() error {
		if f.holders == nil {
			if err := f.open(); err != nil {
				return err
			}
		}
		if err := f.takeCut(); err != nil {
			return err
		}
		return f.settled()
	})
}

// Resume goes on where the book ends: from its last cut, or from the start where there is none.
func (f *Fleet) Resume() error {
	past, err := f.book.Past()
	if err != nil {
		return err
	}
	for _, err := range past.Damaged {
		f.cfg.Notice(fmt.Sprintf("skipped a damaged cut: %v", err))
	}
	f.generation, f.holders = past.Generation, past.Holders
	if past.Cut == nil {
		f.holders = nil
		return f.Start()
	}
	return f.Restore(past.Cut)
}

// Restore implements [engine.Learner].
func (f *Fleet) Restore(cut *checkpoint.Cut) error {
	if n := NumGroups(cut); n != f.cfg.Layout.Groups {
		return fmt.Errorf("coordinator: restore the cut of step %d: it is of %d groups, the experiment has %d", cut.Step, n, f.cfg.Layout.Groups)
	}
	f.last, f.taken, f.marks, f.given, f.begun, f.fault = cut, nil, nil, cut.Step, true, nil
	return f.mended(f.open())
}

// TrainStep implements [engine.Learner]. The replicas may be ahead of the report that it returns, see Settled.
func (f *Fleet) TrainStep() (engine.Report, error) {
	if !f.begun {
		return engine.Report{}, engine.ErrNotStarted
	}
	if len(f.queue) == 0 && f.fault == nil {
		if f.given >= f.cfg.Steps {
			return engine.Report{}, fmt.Errorf("coordinator: step %d, want none behind the last, %d", f.given+1, f.cfg.Steps)
		}
		err := f.enduring(func() error {
			for len(f.queue) == 0 && f.fault == nil {
				if err := f.advance(); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return engine.Report{}, err
		}
	}
	if len(f.queue) == 0 {
		return engine.Report{}, f.fault
	}
	report := f.queue[0]
	f.queue = f.queue[1:]
	f.given = report.Step
	return report, nil
}

// Settled says whether the replicas are at the step of the last report. Cut, Theta and all that asks them is for then; it is
// so at every multiple of Config.Every.
func (f *Fleet) Settled() bool { return len(f.queue) == 0 }

// Step implements [engine.Learner].
func (f *Fleet) Step() int { return f.given }

// advance trains to the next stop.
func (f *Fleet) advance() error {
	if f.at == f.given && f.crew.leaving(f.holders) { // before anything is ahead
		if err := f.takeCut(); err != nil {
			return err
		}
		if err := f.settled(); err != nil {
			return err
		}
		if err := f.open(); err != nil {
			return err
		}
	}
	if err := f.secure(); err != nil {
		return err
	}
	marks := f.marks
	if f.at < f.given {
		marks = append(slices.Clip(marks), f.given)
	}
	to := nextStop(f.at, f.cfg.Steps, f.cfg.stops(), marks)
	to = min(to, f.at+f.most())
	if to <= f.at {
		return fmt.Errorf("coordinator: the replicas are at step %d, the last, and gave no report of step %d", f.at, f.given+1)
	}
	start := f.now()
	groups, err := f.all(replica.Command{Op: replica.Run, To: to})
	var fault *engine.NonFiniteError
	if errors.As(err, &fault) {
		f.fault, f.queue = fault, f.fresh(groups)
		return nil
	}
	if err != nil {
		return err
	}
	f.pace = f.now().Sub(start) / time.Duration(to-f.at)
	f.at, f.idle = to, 0
	f.note(groups)
	if f.outer != nil && (to%f.cfg.Averaging.Every == 0 || to == f.cfg.Steps) {
		start := f.now()
		if err := f.average(); err != nil {
			return err
		}
		f.rounds, f.spent = f.rounds+1, f.spent+f.now().Sub(start)
	}
	if slices.Contains(f.marks, to) {
		if _, err := f.all(replica.Command{Op: replica.Reset}); err != nil {
			return err
		}
	}
	f.queue = f.fresh(groups)
	return nil
}

// most is how many steps the replicas make on their own.
func (f *Fleet) most() int {
	if f.pace == 0 {
		return 1
	}
	report := f.cfg.Layout.Groups * (300 + 20*f.cfg.Layout.Rungs) // bytes of a step, at most
	return max(1, min(int(min(stretch, f.cadence.room(f.now()))/f.pace), mostSteps, mostBytes/report))
}

// catchUp brings the replicas to the step of the last report.
func (f *Fleet) catchUp() error {
	if !f.begun {
		return engine.ErrNotStarted
	}
	if len(f.queue) > 0 {
		return fmt.Errorf("coordinator: the replicas are at step %d, ahead of step %d, whose report was the last", f.at, f.given)
	}
	for f.at < f.given {
		if err := f.advance(); err != nil {
			return err
		}
	}
	return nil
}

// fresh are the reports that were not handed out yet, each of all groups in one.
func (f *Fleet) fresh(groups []replica.GroupAnswer) []engine.Report {
	var out []engine.Report
	for i := range shortest(groups) {
		if groups[0].Reports[i].Step > f.given {
			out = append(out, together(groups, i))
		}
	}
	return out
}

// shortest is the number of steps that all groups have reported.
func shortest(groups []replica.GroupAnswer) int {
	if len(groups) == 0 {
		return 0
	}
	n := len(groups[0].Reports)
	for _, g := range groups {
		n = min(n, len(g.Reports))
	}
	return n
}

// together is the mean of the groups' i-th reports; that of a single group as it is. Non-finite proposals are added up.
func together(groups []replica.GroupAnswer, i int) engine.Report {
	out := groups[0].Reports[i]
	out.Parts, out.Accept, out.Drift = slices.Clone(out.Parts), slices.Clone(out.Accept), slices.Clone(out.Drift)
	for g := 1; g < len(groups); g++ {
		r := groups[g].Reports[i]
		mean := func(into *float64, v float64) { *into += (v - *into) / float64(g+1) }
		mean(&out.Loss, r.Loss)
		mean(&out.GradNorm, r.GradNorm)
		for j := range min(len(out.Parts), len(r.Parts)) {
			mean(&out.Parts[j].Value, r.Parts[j].Value)
		}
		for k := range min(len(out.Accept), len(r.Accept)) {
			mean(&out.Accept[k], r.Accept[k])
		}
		for k := range min(len(out.Drift), len(r.Drift)) {
			mean(&out.Drift[k], r.Drift[k])
		}
		out.NonFinite += r.NonFinite
	}
	return out
}

// note keeps what group 0 says of its chains.
func (f *Fleet) note(groups []replica.GroupAnswer) {
	for _, g := range groups {
		if g.Group == 0 && g.Facts != nil {
			f.facts = *g.Facts
		}
	}
}

// average makes an averaging round.
func (f *Fleet) average() error {
	answers, err := f.all(replica.Command{Op: replica.Contribute})
	if err != nil {
		return err
	}
	round := f.outer.Open(f.generation)
	var refused []int
	for _, a := range answers {
		data, err := f.fetch(a.Group)
		if err != nil {
			return err
		}
		v, err := averaging.Parse(f.cfg.Averaging.Format, len(f.outer.Theta()), data)
		if err != nil {
			return fmt.Errorf("coordinator: contribution of group %d: %w", a.Group, err)
		}
		err = round.Add(averaging.Contribution{
			Generation: f.generation, Round: round.Number(), Group: a.Group, Vector: v, Replica: f.leadOf(a.Group), Step: f.at,
		})
		var poisoned *averaging.Poisoned
		switch {
		case errors.As(err, &poisoned):
			refused = append(refused, a.Group)
			f.cfg.Notice(err.Error())
		case err != nil:
			return err
		}
	}
	update, err := f.outer.Step(round)
	if err != nil {
		return err
	}
	return f.tell(replica.Command{Op: replica.Update, Refused: refused}, map[int][]byte{0: update.Bytes()})
}

// Theta implements [engine.Learner].
func (f *Fleet) Theta() ([]float32, error) {
	data, err := f.look(replica.Theta, nil)
	if err != nil {
		return nil, err
	}
	return replica.Numbers[float32](data)
}

// Params implements [engine.Learner].
func (f *Fleet) Params() ([]checkpoint.Tensor, error) {
	data, err := f.look(replica.Params, nil)
	if err != nil {
		return nil, err
	}
	return replica.DecodeTensors(data)
}

// Energies implements [engine.Learner].
func (f *Fleet) Energies(x []float32) ([]float64, error) {
	data, err := f.look(replica.Energies, replica.Bytes(x))
	if err != nil {
		return nil, err
	}
	return replica.Numbers[float64](data)
}

// TargetChains copies the chains of group 0 on rung N to the host, [chains·dim].
func (f *Fleet) TargetChains() ([]float32, error) {
	data, err := f.look(replica.Chains, nil)
	if err != nil {
		return nil, err
	}
	return replica.Numbers[float32](data)
}

// look asks group 0 about its parameters or chains, and brings the points x if they are not nil.
func (f *Fleet) look(op replica.Op, x []byte) (data []byte, err error) {
	err = f.enduring(func() (err error) {
		if err := f.catchUp(); err != nil {
			return err
		}
		if op != replica.Chains { // those are with many
			data, err = f.askLead(replica.Command{Op: op, Bulk: x != nil}, x)
			return err
		}
		if _, err := f.all(replica.Command{Op: op}); err != nil {
			return err
		}
		data, err = f.fetch(0)
		return err
	})
	return data, err
}

// ResetPairs forgets the statistics of the pairs. An error is that of the next step.
func (f *Fleet) ResetPairs() {
	f.marks = append(f.marks, f.given)
	err := f.enduring(func() error {
		if err := f.catchUp(); err != nil {
			return err
		}
		_, err := f.all(replica.Command{Op: replica.Reset})
		return err
	})
	if err != nil {
		f.fault = err
	}
}

// Stats, TripRate, Exploration, Adapted and StepSizes are those of group 0, as it was when the replicas last answered.
func (f *Fleet) Stats() tempering.Stats  { return f.facts.Stats }
func (f *Fleet) TripRate() float64       { return f.facts.TripRate }
func (f *Fleet) Exploration() []float64  { return f.facts.Exploration }
func (f *Fleet) Adapted() engine.Adapted { return f.facts.Adapted }
func (f *Fleet) StepSizes() []float64    { return f.facts.StepSizes }

// Generations is the number of generations so far, Redone that of the steps that were made again after losses.
func (f *Fleet) Generations() int { return int(f.generation) }
func (f *Fleet) Redone() int      { return f.redone }

// Lost is the number of replicas that were lost. Rounds are the averaging rounds so far, and the time that they took together.
func (f *Fleet) Lost() int                    { return f.lost }
func (f *Fleet) Rounds() (int, time.Duration) { return f.rounds, f.spent }

// Late is the number of rounds that waited for somebody longer than was to be expected from the ones before.
func (f *Fleet) Late() int { return f.crew.late() }

// Replicas are the ids of those who live and do not want to leave.
func (f *Fleet) Replicas() []string { return f.crew.living() }

// Drain asks a replica to leave as soon as its shards can be elsewhere; false says that it has no lease. Evict ends the lease
// of one that is believed to be dead, at once. Draining says who leaves. Unlike the other methods these are safe for
// concurrent use.
func (f *Fleet) Drain(id string) bool    { return f.crew.drain(id) }
func (f *Fleet) Evict(id string)         { f.crew.drop(id) }
func (f *Fleet) Draining(id string) bool { return f.crew.draining(id) }

// Holders are the replicas of the shards in this generation; nil before the first.
func (f *Fleet) Holders() []string { return slices.Clone(f.holders) }

// Moved is what the replicas have moved between them so far, by their ids.
func (f *Fleet) Moved() map[string]replica.Moved { return maps.Clone(f.moved) }

// leadOf is the replica that holds the lead shard of a group.
func (f *Fleet) leadOf(group int) string {
	return f.holders[group*f.cfg.Layout.PerGroup()+f.cfg.Layout.Lead()]
}

// Close ends the replicas, if this coordinator still leads, and the connection.
func (f *Fleet) Close() {
	if f.over() == nil {
		f.Dismiss()
	}
	f.crew.close()
}

// Dismiss ends the replicas.
func (f *Fleet) Dismiss() { f.crew.dismiss(f.generation) }

// Leave ends the connection alone: another coordinator goes on with the replicas.
func (f *Fleet) Leave() { f.crew.close() }

// bulkKey is that of the last command.
func (f *Fleet) bulkKey(group int) transport.Key { return replica.BulkKey(f.generation, f.seq, group) }
