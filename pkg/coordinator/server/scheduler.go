package server

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// Driver leads the replicas of one experiment.
type Driver interface {
	// Done is closed when all is put down: the experiment is in a final phase or paused, which is in the ledger by then, or
	// the leadership is over.
	Done() <-chan struct{}
}

// Ledger is what the scheduler needs of the consensus. [*consensus.Node] is one.
type Ledger interface {
	Apply(ctx context.Context, exp ledger.ID, cmd ledger.Command) (ledger.Outcome, error)
	View(ctx context.Context, c consensus.Consistency, see func(*ledger.State)) (index uint64, age time.Duration, err error)
	Changed() <-chan struct{}
}

// Scheduler decides, on the leader, whose turn it is and which replica works for what; see newPlan for the rule. It is safe for
// concurrent use.
type Scheduler struct {
	ledger Ledger
	start  func(ctx context.Context, exp ledger.Experiment) Driver
	log    *slog.Logger
	pool   *pool
}

// NewScheduler makes a scheduler. start begins to drive an experiment that has its turn; the driver ends with ctx. What people
// want may already be something else than to run it. Without a log nothing is logged.
func NewScheduler(l Ledger, start func(ctx context.Context, exp ledger.Experiment) Driver, log *slog.Logger) *Scheduler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Scheduler{ledger: l, start: start, log: log, pool: newPool()}
}

// Ask gives a replica work. It waits until there is some, or ctx ends: then, false. Without a leadership it is an [*api.Error]
// of code NoLeader.
func (s *Scheduler) Ask(ctx context.Context, a api.Ask) (api.Assignment, bool, error) {
	return s.pool.ask(ctx, a)
}

// Pool are the replicas that ask, or have work, by id.
func (s *Scheduler) Pool() []api.PoolReplica { return s.pool.list() }

// Release makes a replica end, with status 143, when it asks for work the next time: whoever drains one does not want it back.
func (s *Scheduler) Release(replica string) { s.pool.release(replica) }

const (
	// breath is the time between two looks at the ledger: it may change at every millisecond.
	breath = 20 * time.Millisecond
	// retry is how long a driver that ended, or a ledger that does not answer, is left alone.
	retry = time.Second
)

// Lead schedules until ctx, which is that of a leadership, ends and all drivers with it.
func (s *Scheduler) Lead(ctx context.Context) error {
	l := &leadership{Scheduler: s, drivers: map[ledger.ID]Driver{}, ended: map[ledger.ID]time.Time{}}
	defer l.wait.Wait()
	s.pool.begin()
	defer s.pool.end()
	for {
		changed := s.ledger.Changed()
		next, err := l.look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			s.log.Warn("scheduler", "error", err)
			next = time.Now().Add(retry)
		}
		var due <-chan time.Time
		if !next.IsZero() {
			due = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-due:
		case <-changed:
		case <-s.pool.news:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(breath):
		}
	}
}

// leadership is the scheduler's work under one leadership, of one goroutine.
type leadership struct {
	*Scheduler
	wait    sync.WaitGroup // for the drivers
	drivers map[ledger.ID]Driver
	ended   map[ledger.ID]time.Time // when drivers did
}

// cluster is what the scheduler looks at.
type cluster struct {
	exps   []ledger.Experiment // by creation
	secret [32]byte
	nats   []string
}

func (l *leadership) read(ctx context.Context) (c cluster, err error) {
	_, _, err = l.ledger.View(ctx, consensus.Leader, func(st *ledger.State) {
		c.exps = st.Experiments()
		_, c.secret, _ = st.Cluster()
		c.nats = natsOf(st)
	})
	return c, err
}

// natsOf are the URLs of the message servers.
func natsOf(st *ledger.State) (urls []string) {
	for _, n := range st.Nodes() {
		if n.NATS != "" && !slices.Contains(urls, n.NATS) {
			urls = append(urls, n.NATS)
		}
	}
	return urls
}

// look does all that there is to do now. next is when there will be more, if nothing happens; zero: never.
func (l *leadership) look(ctx context.Context) (next time.Time, err error) {
	l.reap() // first: what a driver wrote before its end is then in what is read
	c, err := l.read(ctx)
	if err != nil {
		return next, err
	}
	for i := range c.exps {
		if err := l.tidy(ctx, &c.exps[i]); err != nil {
			return next, err
		}
	}
	hands, callers, next := l.pool.hands(slices.DeleteFunc(slices.Clone(c.exps), func(e ledger.Experiment) bool { return !admitted(&e) }))
	for i := range hands {
		if caller, waits := callers[hands[i].id]; waits {
			l.settle(c, &hands[i], caller)
		}
	}
	p := newPlan(c.exps, hands)
	for _, id := range p.admit {
		if err := l.phase(ctx, find(c.exps, id), ledger.Waiting, ""); err != nil {
			return next, err
		}
	}
	for _, id := range p.short {
		e := find(c.exps, id)
		if err := l.phase(ctx, e, ledger.Queued, fmt.Sprintf("for replicas, %d to begin with", max(1, e.Min))); err != nil {
			return next, err
		}
	}
	for i := range c.exps {
		if at := l.drive(ctx, &c.exps[i]); !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	for id, exp := range p.give {
		if e := find(c.exps, exp); admitted(e) && len(c.nats) > 0 { // else a moment later: the first leader has yet to write down where it is
			l.pool.reply(id, exp, c.assignment(e))
		}
	}
	return next, nil
}

func find(exps []ledger.Experiment, id ledger.ID) *ledger.Experiment {
	return &exps[slices.IndexFunc(exps, func(e ledger.Experiment) bool { return e.ID == id })]
}

func (c *cluster) assignment(e *ledger.Experiment) api.Assignment {
	return api.Assignment{Meta: api.Kind("Assignment"), Experiment: e.Name, UID: e.ID.String(), Secret: ledger.ExperimentSecret(c.secret, e.ID), NATS: c.nats}
}

// reap takes the drivers out that have ended.
func (l *leadership) reap() {
	maps.DeleteFunc(l.ended, func(_ ledger.ID, at time.Time) bool { return time.Since(at) >= retry })
	for id, d := range l.drivers {
		select {
		case <-d.Done():
			delete(l.drivers, id)
			l.ended[id] = time.Now()
		default:
		}
	}
}

// tidy brings an experiment that nobody drives to where people want it, and ends what is left of its leases: whoever had one was
// told to leave.
func (l *leadership) tidy(ctx context.Context, e *ledger.Experiment) error {
	if l.drivers[e.ID] != nil || admitted(e) && len(e.Replicas) > 0 { // else its driver does it, or will
		return nil
	}
	for _, r := range e.Replicas {
		if _, err := l.apply(ctx, e, ledger.LeaseEnd{Replica: r.Name, Token: r.Token}); err != nil {
			return err
		}
	}
	if len(e.Holders) > 0 && !e.Phase.Final() { // nothing of the last generation may be taken over any more
		open := ledger.GenerationOpen{Number: e.Generation + 1, From: ledger.Start}
		if n := len(e.Cuts); n > 0 {
			open.From = int64(e.Cuts[n-1].Step)
		}
		if _, err := l.apply(ctx, e, open); err != nil {
			return err
		}
	}
	switch {
	case e.Phase.Final():
		return nil
	case e.Desired == ledger.Cancel:
		return l.phase(ctx, e, ledger.Cancelled, "")
	case e.Desired == ledger.Pause:
		return l.phase(ctx, e, ledger.Paused, "")
	case e.Phase == ledger.Paused:
		return l.phase(ctx, e, ledger.Queued, "")
	}
	return nil
}

// phase changes an experiment's phase, in e too. A message of "" leaves the one of a phase that it is in already.
func (l *leadership) phase(ctx context.Context, e *ledger.Experiment, to ledger.Phase, message string) error {
	if e.Phase == to && (message == "" || e.Message == message) {
		return nil
	}
	done, err := l.apply(ctx, e, ledger.ExpPhase{Phase: to, Message: message})
	if done {
		e.Phase, e.Message = to, message
	}
	return err
}

// apply commits a command. What the ledger refuses has changed since it was read, and is read again.
func (l *leadership) apply(ctx context.Context, e *ledger.Experiment, cmd ledger.Command) (done bool, err error) {
	out, err := l.ledger.Apply(ctx, e.ID, cmd)
	if err != nil {
		return false, fmt.Errorf("experiment %s: %w", e.Name, err)
	}
	if out.Err != nil {
		l.log.Warn("scheduler", "experiment", e.Name, "error", out.Err)
	}
	return out.Err == nil, nil
}

// settle answers a replica for which there is nothing to decide: it may end, or has a place already. The rest is for the plan.
func (l *leadership) settle(c cluster, h *hand, caller caller) {
	end := func(status int, format string, args ...any) {
		h.away = true
		l.pool.reply(h.id, ledger.ID{}, api.Assignment{Meta: api.Kind("Assignment"), Experiment: h.bound, Done: true, Exit: status, Reason: fmt.Sprintf(format, args...)})
	}
	if caller.released {
		end(143, "asked to leave")
		return
	}
	if h.bound != "" {
		i := slices.IndexFunc(c.exps, func(e ledger.Experiment) bool { return e.Name == h.bound })
		if i < 0 {
			end(42, "experiment %s: not found", h.bound)
			return
		}
		switch e := &c.exps[i]; {
		case e.Phase == ledger.Completed, e.Phase == ledger.Cancelled:
			end(0, "experiment %s is %s", e.Name, e.Phase)
			return
		case e.Phase.Final():
			end(42, "experiment %s is %s: %s", e.Name, e.Phase, e.Message)
			return
		}
	}
	if caller.leased == (ledger.ID{}) {
		return
	}
	e := find(c.exps, caller.leased)
	if known := (&contender{Experiment: *e, uid: e.ID.String()}); known.suits(h) && l.pool.reply(h.id, e.ID, c.assignment(e)) {
		h.at = e.ID
	}
}

// drive starts the driver of an experiment that has its turn. A time is when it may.
func (l *leadership) drive(ctx context.Context, e *ledger.Experiment) time.Time {
	if !admitted(e) || l.drivers[e.ID] != nil {
		return time.Time{}
	}
	if at, ok := l.ended[e.ID]; ok {
		return at.Add(retry)
	}
	d := l.start(ctx, *e)
	l.drivers[e.ID] = d
	l.wait.Go(func() {
		<-d.Done()
		l.pool.tell()
	})
	return time.Time{}
}
