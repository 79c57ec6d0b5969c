package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/local"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// drivers are those of this node: while it leads, one for each experiment that has its turn. They are safe for concurrent use.
type drivers struct {
	site

	mu      sync.Mutex
	all     map[ledger.ID]*driver
	led     map[ledger.ID]known   // that were asked about
	records map[ledger.ID]*record // that were written, or asked for
}

// known is what is known of an experiment without asking anybody.
type known struct {
	spec []byte
	*local.Led
}

func newDrivers(s site) *drivers {
	return &drivers{site: s, all: map[ledger.ID]*driver{}, led: map[ledger.ID]known{}, records: map[ledger.ID]*record{}}
}

// start begins to lead an experiment.
func (d *drivers) start(lead context.Context, exp ledger.Experiment) Driver {
	d.mu.Lock()
	defer d.mu.Unlock()
	tries := 0
	if before := d.all[exp.ID]; before != nil && before.failed() {
		tries = before.tries + 1
	}
	one := drive(lead, d.site, exp, tries, d.record(exp.ID))
	d.all[exp.ID] = one
	return one
}

// record is that of an experiment; the caller holds the lock.
func (d *drivers) record(exp ledger.ID) *record {
	if d.records[exp] == nil {
		d.records[exp] = newRecord(d.metrics, exp)
	}
	return d.records[exp]
}

// tidyEvery is how often it is looked for what deleted experiments left.
const tidyEvery = time.Minute

// tidy forgets deleted experiments, on the leader, until ctx ends.
func (d *drivers) tidy(ctx context.Context) {
	for {
		if err := d.forget(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("tidy up", "error", err)
		}
		select {
		case <-time.After(tidyEvery):
		case <-ctx.Done():
			return
		}
	}
}

// forget drops what is kept of experiments that the ledger does not have any more, their metrics on the disk too.
func (d *drivers) forget(ctx context.Context) error {
	folders, err := os.ReadDir(d.metrics) // before the look: what is new by then is not among them
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	there := map[ledger.ID]bool{}
	_, _, err = d.node.View(ctx, consensus.Leader, func(st *ledger.State) {
		for _, e := range st.Experiments() {
			there[e.ID] = true
		}
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	gone := func(id ledger.ID) bool {
		if there[id] {
			return false
		}
		one := d.all[id]
		return one == nil || one.ended()
	}
	maps.DeleteFunc(d.led, func(id ledger.ID, _ known) bool { return gone(id) })
	maps.DeleteFunc(d.records, func(id ledger.ID, _ *record) bool { return gone(id) })
	for _, f := range folders {
		if id, err := parseID(f.Name()); err == nil && gone(id) {
			if err := os.RemoveAll(filepath.Join(d.metrics, f.Name())); err != nil {
				return err
			}
		}
	}
	maps.DeleteFunc(d.all, func(id ledger.ID, _ *driver) bool { return gone(id) })
	return nil
}

// ended says whether the driver has put everything down.
func (d *driver) ended() bool {
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

// Settle implements [Work].
func (d *drivers) Settle(ctx context.Context) {
	d.mu.Lock()
	var all []*driver
	for _, one := range d.all {
		all = append(all, one)
	}
	d.mu.Unlock()
	var wait sync.WaitGroup
	for _, one := range all {
		wait.Go(func() { one.cut(ctx) })
	}
	wait.Wait()
}

// of is the driver of an experiment, if one is at work.
func (d *drivers) of(exp ledger.ID) *driver {
	d.mu.Lock()
	defer d.mu.Unlock()
	if one := d.all[exp]; one != nil && !one.ended() {
		return one
	}
	return nil
}

// Facts implements [Work].
func (d *drivers) Facts(exp ledger.ID) (Facts, bool) {
	one := d.of(exp)
	if one == nil {
		return Facts{}, false
	}
	return one.Facts(), true
}

// Metrics implements [Work].
func (d *drivers) Metrics(exp ledger.ID, from int64) (lines [][]byte, more <-chan struct{}) {
	d.mu.Lock()
	r := d.record(exp)
	d.mu.Unlock()
	return r.since(from)
}

// Draining implements [Work].
func (d *drivers) Draining(exp ledger.ID, replica string) bool {
	one := d.of(exp)
	if one == nil {
		return false
	}
	fleet := one.reach()
	return fleet != nil && fleet.Draining(replica)
}

// Drain implements [Work].
func (d *drivers) Drain(_ context.Context, exp ledger.ID, replica string) error {
	if fleet, err := d.fleet(exp); err != nil {
		return err
	} else if !fleet.Drain(replica) {
		return api.Errorf(api.NotFound, "replica %s has no lease", replica)
	}
	return nil
}

// Evict implements [Work].
func (d *drivers) Evict(_ context.Context, exp ledger.ID, replica string) error {
	fleet, err := d.fleet(exp)
	if err != nil {
		return err
	}
	fleet.Evict(replica)
	return nil
}

func (d *drivers) fleet(exp ledger.ID) (*coordinator.Fleet, error) {
	if one := d.of(exp); one != nil {
		if fleet := one.reach(); fleet != nil {
			return fleet, nil
		}
	}
	return nil, api.Errorf(api.Conflict, "nobody works on the experiment")
}

// known is what is known of an experiment. It is read once, until people change its ladder.
func (d *drivers) known(exp ledger.Experiment) (*local.Led, error) {
	d.mu.Lock()
	it, ok := d.led[exp.ID]
	d.mu.Unlock()
	if ok && bytes.Equal(it.spec, exp.Spec) {
		return it.Led, nil
	}
	led, err := local.Lead(exp.Spec, exp.Dir)
	if err != nil {
		return nil, fmt.Errorf("experiment %s: %w", exp.Name, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.led[exp.ID] = known{exp.Spec, led}
	return led, nil
}

// Shards implements [Work].
func (d *drivers) Shards(exp ledger.Experiment) ([]api.Shard, error) {
	led, err := d.known(exp)
	if err != nil {
		return nil, err
	}
	var out []api.Shard
	for group := range led.Layout.Groups {
		for _, place := range led.Layout.Shards(group) {
			s := api.Shard{Meta: api.Kind("Shard"), Shard: place.ID, Group: uint32(group),
				Rows: uint32((place.Rungs[1] - place.Rungs[0]) * (place.Ladders[1] - place.Ladders[0]))}
			if led.Layout.Placement == "rung" {
				rung := place.Rungs[0]
				s.Rung = &rung
			}
			out = append(out, s)
		}
	}
	return out, nil
}

// Ladder implements [Work].
func (d *drivers) Ladder(ctx context.Context, exp ledger.Experiment) (api.Ladder, error) {
	if one := d.of(exp.ID); one != nil {
		if v, ok := one.chains(); ok {
			return ladderOf(v), nil
		}
	}
	_, books, err := d.books(ctx, exp)
	if err != nil {
		return api.Ladder{}, err
	}
	b := books[0]
	if b.Live == nil {
		return api.Ladder{}, api.Errorf(api.NotFound, "experiment %s has a single rung", exp.Name)
	}
	v := view{step: uint64(b.Step), betas: b.Betas}
	for k := range b.Live.Attempts {
		v.stats.Pairs = append(v.stats.Pairs, tempering.PairStats{Attempts: b.Live.Attempts[k], Accepted: b.Live.Accepted[k], AlphaSum: b.Live.AlphaSum[k]})
	}
	for c := range b.Live.Trips {
		v.stats.Restarts, v.stats.Trips = v.stats.Restarts+b.Live.Restarts[c], v.stats.Trips+b.Live.Trips[c]
	}
	if b.Scan > 0 {
		v.tripRate = float64(v.stats.Trips) / float64(b.Scan)
	}
	return ladderOf(v), nil
}

// ladderOf shows a ladder. A number that is not known yet is left out.
func ladderOf(v view) api.Ladder {
	out := api.Ladder{Meta: api.Kind("Ladder"), Step: v.step, Restarts: v.stats.Restarts, RoundTrips: v.stats.Trips, RoundTripRate: v.tripRate}
	for k, beta := range v.betas {
		r := api.Rung{Meta: api.Kind("Rung"), Rung: uint32(k), Beta: beta}
		if k < len(v.sizes) {
			r.StepSize = v.sizes[k]
		}
		if k < len(v.accept) {
			r.ExplorerAccept = &v.accept[k]
		}
		if k < len(v.stats.Pairs) && v.stats.Pairs[k].Attempts > 0 {
			p := v.stats.Pairs[k]
			accept := p.AlphaSum / float64(p.Attempts)
			r.SwapAccept, r.SwapAttempts, r.SwapAccepted = &accept, p.Attempts, p.Accepted
		}
		out.Rungs = append(out.Rungs, r)
	}
	if attempts := v.stats.Attempts(); attempts > 0 {
		out.Barrier, _ = tempering.Barrier(v.stats.Rejections(), float64(attempts))
	}
	return out
}

// Buffer implements [Work].
func (d *drivers) Buffer(ctx context.Context, exp ledger.Experiment) (api.Buffer, error) {
	cut, books, err := d.books(ctx, exp)
	if err != nil {
		return api.Buffer{}, err
	}
	s := local.BufferOf(books).Stats()
	return api.Buffer{Meta: api.Kind("Buffer"), Step: uint64(s.Step), Groups: uint32(s.Groups), Columns: uint64(s.Columns), Live: uint64(s.Live),
		Rungs: uint32(len(s.Rungs)), Dim: uint64(s.Dim), AgeMin: s.AgeMin, AgeMean: s.AgeMean, AgeMax: s.AgeMax, Bytes: s.Bytes, Fill: local.Fill(cut)}, nil
}

// books are the last cut and what it says of the chains, by group.
func (d *drivers) books(ctx context.Context, exp ledger.Experiment) (cut *checkpoint.Cut, out []*engine.Books, err error) {
	if cut, err = d.lastCut(ctx, exp); err != nil {
		return nil, nil, err
	}
	out, err = local.CutBooks(cut)
	if errors.Is(err, engine.ErrNoChains) {
		err = api.Errorf(api.NotFound, "experiment %s keeps no chains from step to step", exp.Name)
	}
	return cut, out, err
}

func (d *drivers) lastCut(ctx context.Context, exp ledger.Experiment) (*checkpoint.Cut, error) {
	if len(exp.Cuts) == 0 {
		return nil, api.Errorf(api.NotFound, "experiment %s has no cut yet", exp.Name)
	}
	return coordinator.ReadCut(exp.Cuts[len(exp.Cuts)-1], func(digest ledger.Digest) ([]byte, error) { return d.node.Blob(ctx, digest) })
}
