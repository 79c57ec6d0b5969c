package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/local"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// site is where a driver works: what all drivers of a node share.
type site struct {
	node    *consensus.Node
	server  *transport.Server // in this process; or
	url     string            // of others
	dial    transport.Options
	name    string // of the node
	metrics string // folder for the metrics of experiments
	log     *slog.Logger
}

// driver leads the replicas of one experiment, from where the ledger says it is to its end or to the end of the leadership.
type driver struct {
	site
	exp   ledger.Experiment // as it was when the driver began
	tries int               // that have failed in a row before this one
	again bool              // this one failed, and the next may not; to be read when done is closed
	led   *local.Led
	book  *coordinator.Journal
	done  chan struct{}

	record *record

	calls chan chan<- struct{} // for a cut at the next step, closed when it is durable

	// asked ends the Fleet's wait for replicas when people want something else than a run.
	asked  context.Context
	settle context.CancelCauseFunc

	mu      sync.Mutex
	fleet   *coordinator.Fleet // nil before it stands
	desired ledger.Desired
	want    uint32
	phase   ledger.Phase
	waiting bool
	facts   Facts
	view    view
}

// errAsked is why a Fleet's leadership ends where people want its experiment to pause or to end.
var errAsked = errors.New("people want it")

// drive begins to lead an experiment, after so many tries that failed, and writes its metrics into a record; done is closed when
// that has ended.
func drive(lead context.Context, s site, exp ledger.Experiment, tries int, r *record) *driver {
	d := &driver{site: s, exp: exp, tries: tries, record: r, done: make(chan struct{}), calls: make(chan chan<- struct{}), desired: exp.Desired, want: exp.Want, phase: exp.Phase}
	d.log = d.log.With("experiment", exp.Name)
	d.asked, d.settle = context.WithCancelCause(lead)
	d.book = coordinator.NewJournal(lead, s.node, exp.ID, d.committed)
	go func() {
		defer close(d.done)
		defer d.settle(nil)
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			d.watch()
		}()
		d.run(lead)
		d.settle(nil)
		<-watched
	}()
	return d
}

// Done is closed when the driver has ended.
func (d *driver) Done() <-chan struct{} { return d.done }

// watch follows what people want.
func (d *driver) watch() {
	for {
		changed := d.node.Changed()
		exp, ok := d.experiment(d.asked)
		d.mu.Lock()
		if ok {
			d.desired, d.want = exp.Desired, exp.Want
		}
		stuck := d.waiting && d.desired != ledger.Run
		d.mu.Unlock()
		if stuck {
			d.settle(errAsked)
		}
		select {
		case <-changed:
		case <-d.asked.Done():
			return
		}
	}
}

func (d *driver) experiment(ctx context.Context) (exp ledger.Experiment, ok bool) {
	_, _, err := d.node.View(ctx, consensus.Stale, func(s *ledger.State) { exp, ok = s.ByID(d.exp.ID) })
	return exp, ok && err == nil
}

// say sets the phase. A leadership that is being handed over takes nothing for a while, and may come back.
func (d *driver) say(lead context.Context, phase ledger.Phase, message string) {
	for {
		out, err := d.node.Apply(lead, d.exp.ID, ledger.ExpPhase{Phase: phase, Message: ledger.Clip(message)})
		if err == nil {
			if out.Err != nil {
				d.log.Warn("phase", "phase", phase, "error", out.Err)
				return
			}
			d.mu.Lock()
			d.phase = phase
			d.mu.Unlock()
			return
		}
		select {
		case <-time.After(retry / 10):
		case <-lead.Done(): // the next leader finds out by itself
			return
		}
	}
}

// run leads until there is nothing more to lead.
func (d *driver) run(lead context.Context) {
	defer d.record.close()
	var fleet *coordinator.Fleet
	err := d.rest()
	if err == nil {
		fleet, err = d.open(lead)
	}
	if err == nil {
		err = d.train(fleet)
	}
	asked := errors.Is(err, errAsked) || err != nil && errors.Is(context.Cause(d.asked), errAsked)
	if asked && lead.Err() == nil {
		err = d.obey(lead, fleet)
	} else if err == nil {
		d.say(lead, ledger.Completed, fmt.Sprintf("all %d steps are made", d.led.Steps))
	}
	goesOn := d.conclude(lead, err)
	if fleet == nil {
		return
	}
	if !goesOn { // else the next leader, or the next try, needs the replicas
		fleet.Dismiss()
	}
	fleet.Leave()
}

// rest waits before another try, the longer the more there were.
func (d *driver) rest() error {
	if d.tries == 0 {
		return nil
	}
	d.mu.Lock()
	d.waiting = true
	d.mu.Unlock()
	select {
	case <-time.After(min(retry<<min(d.tries, 6), time.Minute)):
		return nil
	case <-d.asked.Done():
		return context.Cause(d.asked)
	}
}

// conclude says in the ledger how the work ended, and whether it goes on: under another leader, or here after a while, as long
// as the reason may pass.
func (d *driver) conclude(lead context.Context, err error) (goesOn bool) {
	nonFinite, diverged := errors.AsType[*engine.NonFiniteError](err)
	replica, broken := errors.AsType[*coordinator.ReplicaError](err)
	switch {
	case err == nil:
		return false
	case lead.Err() != nil || errors.Is(err, coordinator.ErrDeposed):
		d.log.Info("leads no more", "error", err)
		return true
	case errors.Is(err, coordinator.ErrInconsistent): // the ledger has set the phase with the cut that it refused
	case errors.Is(err, checkpoint.ErrNoCut):
		d.say(lead, ledger.Degraded, err.Error())
	case diverged:
		d.say(lead, ledger.Failed, nonFinite.Error())
	case broken:
		d.say(lead, ledger.Failed, replica.Error())
	case errors.Is(err, errSpec):
		d.say(lead, ledger.Failed, err.Error())
	default:
		d.again = true
		d.log.Warn("will try again", "error", err)
		d.say(lead, ledger.Waiting, "will try again: "+err.Error())
		return true
	}
	return false
}

// errSpec says that the experiment cannot be led, now or ever.
var errSpec = errors.New("the experiment cannot be led")

// open connects, and brings the replicas to where the ledger ends.
func (d *driver) open(lead context.Context) (fleet *coordinator.Fleet, err error) {
	if d.led, err = local.Lead(d.exp.Spec, d.exp.Dir); err != nil {
		return nil, fmt.Errorf("%w: %w", errSpec, err)
	}
	secret, err := d.secret(lead)
	if err != nil {
		return nil, err
	}
	least := int(max(1, d.exp.Min))
	if len(d.exp.Replicas) == 0 {
		d.waits(lead, true, fmt.Sprintf("for %d replicas", least))
	}
	fleet, err = coordinator.New(d.asked, coordinator.Config{
		Server: d.server, URL: d.url, Dial: d.dial, Token: secret, Book: d.book, Lead: d.asked, Name: d.name,
		Experiment: replica.Offer{Experiment: d.exp.Spec, Dir: d.exp.Dir}, Layout: d.led.Layout, Averaging: d.led.Averaging,
		Replicas: least, Steps: d.led.Steps, Every: d.led.Looks, CutEvery: d.exp.CutEvery, Grace: grace, Servers: d.servers,
		Waits:  func(waiting bool) { d.waits(lead, waiting, "for replicas: none is left") },
		Notice: func(text string) { d.log.Info(text) }, Log: d.log,
	})
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.fleet = fleet
	d.mu.Unlock()
	if err := fleet.Resume(); err != nil {
		return fleet, err
	}
	d.waits(lead, false, "")
	d.unmeasured(d.record.open(fleet.Step()))
	return fleet, nil
}

// unmeasured says that metrics are lost. No training stops for that.
func (d *driver) unmeasured(err error) {
	if err != nil {
		d.log.Warn("a record of the metrics is lost", "error", err)
	}
}

// servers are the message servers that replicas may go to.
func (d *driver) servers() (urls string) {
	_, _, _ = d.node.View(d.asked, consensus.Stale, func(s *ledger.State) { urls = strings.Join(natsOf(s), ",") }) // never fails
	return urls
}

// grace is how long a replica may be unreachable while its connection moves to another server.
const grace = time.Second

// secret is that of the experiment.
func (d *driver) secret(lead context.Context) (secret string, err error) {
	known := false
	_, _, err = d.node.View(lead, consensus.Leader, func(s *ledger.State) {
		var key [32]byte
		if _, key, known = s.Cluster(); known {
			secret = ledger.ExperimentSecret(key, d.exp.ID)
		}
	})
	if err == nil && !known {
		err = errors.New("the cluster has no identity yet")
	}
	return secret, err
}

// waits says whether the experiment waits for replicas.
func (d *driver) waits(lead context.Context, waiting bool, why string) {
	d.mu.Lock()
	d.waiting = waiting
	phase, unwanted := d.phase, d.desired != ledger.Run
	d.mu.Unlock()
	switch {
	case waiting && unwanted:
		d.settle(errAsked)
	case waiting:
		d.say(lead, ledger.Waiting, why)
	case phase != ledger.Running:
		d.say(lead, ledger.Running, "")
	}
}

// train makes the steps that are left. What is asked for in between ends it with errAsked, at a step of which all is known.
func (d *driver) train(fleet *coordinator.Fleet) error {
	recorder := local.NewRecorder(d.led.Config, fleet.Step())
	begun := time.Now()
	d.note(fleet, nil, begun)
	for fleet.Step() < d.led.Steps {
		if fleet.Settled() {
			if d.unwanted() {
				return errAsked
			}
			d.shrink(fleet)
			select {
			case durable := <-d.calls:
				_, err := fleet.Cut()
				close(durable)
				if err != nil {
					return err
				}
			default:
			}
		}
		start := time.Now()
		report, err := fleet.TrainStep()
		if err != nil {
			return err
		}
		recorder.Add(report)
		d.note(fleet, &report, start)
		last := report.Step == d.led.Steps
		if d.led.Records(report.Step) {
			var chains replica.Chained
			if d.led.Chains {
				chains = fleet
			}
			d.unmeasured(d.record.write(recorder.Record(report, chains, time.Since(begun).Seconds())))
			if chains != nil {
				chains.ResetPairs()
			}
		}
		if last {
			if _, err := fleet.Cut(); err != nil {
				return err
			}
		}
	}
	return nil
}

// cut takes a cut as soon as may be, and waits until it is durable, the driver ends, or ctx does.
func (d *driver) cut(ctx context.Context) {
	durable := make(chan struct{})
	select {
	case d.calls <- durable:
	case <-d.done:
		return
	case <-ctx.Done():
		return
	}
	select {
	case <-durable:
	case <-d.done:
	case <-ctx.Done():
	}
}

// committed is told how long a cut took to be durable.
func (d *driver) committed(cut checkpoint.Cut, took time.Duration) {
	fill := local.Fill(&cut)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.facts.BufferFill = fill
	d.facts.Cuts.Count++
	d.facts.Cuts.Time += took
}

func (d *driver) unwanted() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.desired != ledger.Run
}

// shrink asks replicas to leave that are more than are wanted, the last ones first.
func (d *driver) shrink(fleet *coordinator.Fleet) {
	d.mu.Lock()
	want := int(d.want)
	d.mu.Unlock()
	ids := fleet.Replicas()
	for want > 0 && len(ids) > want {
		fleet.Drain(ids[len(ids)-1])
		ids = ids[:len(ids)-1]
	}
}

// obey ends the work because people want it: with a cut, if there is a replica that could give one, and a generation without
// members, so that nothing of this one can be taken over any more.
func (d *driver) obey(lead context.Context, fleet *coordinator.Fleet) error {
	from := -1
	err := errAsked // there is nobody to give a cut
	if fleet != nil && d.asked.Err() == nil {
		var cut checkpoint.Cut
		if cut, err = fleet.Cut(); err == nil {
			from = cut.Step
		} else if !errors.Is(err, errAsked) && !errors.Is(err, engine.ErrNotStarted) {
			return err
		}
	}
	if err != nil {
		exp, ok := d.experiment(lead)
		if !ok {
			return fmt.Errorf("experiment %s: %w", d.exp.Name, ledger.ErrNotFound)
		}
		if n := len(exp.Cuts); n > 0 {
			from = int(exp.Cuts[n-1].Step)
		}
	}
	if _, err := d.book.Open(nil, from); err != nil {
		return err
	}
	d.mu.Lock()
	phase := ledger.Paused
	if d.desired == ledger.Cancel {
		phase = ledger.Cancelled
	}
	d.mu.Unlock()
	message := "before its first cut"
	if from >= 0 {
		message = fmt.Sprintf("at the cut of step %d", from)
	}
	d.say(lead, phase, message)
	return nil
}
