//go:build linux

package chaos

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// Experiment is what is trained while faults happen.
type Experiment struct {
	Name   string
	YAML   []byte
	Digest string // of its last cut, as it is without any fault
}

// patience is how long an experiment may go without a step once nothing is wrong any more.
const patience = time.Minute

// Run trains the experiments in turn, each as often as it takes, while the faults happen, and finishes the one at hand. The
// error is all that was not as it must be. say is told what happens.
func (c *Cluster) Run(ctx context.Context, experiments []Experiment, faults []Fault, say func(format string, args ...any)) (*Report, error) {
	r := c.newRun(experiments, say)
	defer r.leave()
	err := r.all(ctx, faults)
	if err != nil && r.watch != nil {
		err = fmt.Errorf("%w\n%s", err, r.history(ctx))
	}
	return r.report, err
}

// run is what Run is at.
type run struct {
	*Cluster
	experiments []Experiment
	say         func(format string, args ...any)
	report      *Report
	begun       int // experiments
	at          Experiment
	watch       *watch // of the experiment at hand; nil: none
}

func (c *Cluster) newRun(experiments []Experiment, say func(format string, args ...any)) *run {
	return &run{Cluster: c, experiments: experiments, report: &Report{}, say: func(format string, args ...any) {
		say(time.Now().Format(time.TimeOnly)+" "+format, args...)
	}}
}

// all lets the faults happen, one after the other.
func (r *run) all(ctx context.Context, faults []Fault) error {
	for i, f := range faults {
		if err := r.next(ctx, f.Gap); err != nil {
			return err
		}
		r.say("%2d/%d %s", i+1, len(faults), f)
		if err := r.suffer(ctx, f); err != nil {
			return fmt.Errorf("fault %d, %s: %w", i+1, f.Kind, err)
		}
	}
	return r.finish(ctx)
}

// history is what the coordinators have to say of the experiment at hand.
func (r *run) history(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, answers)
	defer cancel()
	events, err := r.client.Events(ctx, r.watch.name)
	if err != nil {
		return fmt.Sprintf("events of %s: %v", r.watch.name, err)
	}
	var b strings.Builder
	for _, e := range events.Items {
		fmt.Fprintf(&b, "%s %5d %-10s %s\n", e.At.Format("15:04:05.000"), e.Index, e.Reason, e.Text)
	}
	return b.String()
}

// leave ends the watch over the experiment at hand.
func (r *run) leave() {
	if r.watch != nil {
		r.watch.close()
		r.watch = nil
	}
}

// next trains gap steps, in the experiment at hand or, where that ends first, in the next one.
func (r *run) next(ctx context.Context, gap int) error {
	if r.watch == nil {
		if err := r.begin(ctx); err != nil {
			return err
		}
	}
	start := r.watch.present().exp.Step
	exp, err := r.watch.until(ctx, patience, func(e api.Experiment) bool { return api.Final(e.Phase) || e.Step >= start+uint64(gap) })
	if err != nil || !api.Final(exp.Phase) {
		return err
	}
	if err := r.finish(ctx); err != nil {
		return err
	}
	return r.next(ctx, gap)
}

// whole waits until all replicas are at work, or the experiment is over.
func (r *run) whole(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		exp := r.watch.present().exp
		if api.Final(exp.Phase) {
			return nil
		}
		replicas, err := r.client.Replicas(ctx, exp.Name)
		active := 0
		for _, replica := range replicas.Items {
			if replica.State == api.Active {
				active++
			}
		}
		if err == nil && len(replicas.Items) == len(r.Replicas) && active == min(len(r.Replicas), int(exp.Shards)) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("experiment %s: %d of %d replicas are there, %d at work on %d shards: %w", exp.Name, len(replicas.Items), len(r.Replicas), active, exp.Shards, ctx.Err())
		case <-tick.C:
		}
	}
}

// begin submits the next experiment and waits until all replicas are at work.
func (r *run) begin(ctx context.Context) error {
	r.at = r.experiments[r.begun%len(r.experiments)]
	r.begun++
	name := fmt.Sprintf("%s-%d", r.at.Name, r.begun)
	all := uint32(len(r.Replicas)) // those beyond its shards stand by
	quick, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := r.client.Submit(quick, api.Submit{Name: name, YAML: string(r.at.YAML), Replicas: all, MinReplicas: all}); err != nil {
		return err
	}
	r.say("experiment %s", name)
	r.watch = r.observe(ctx, name)
	if _, err := r.watch.until(ctx, patience, func(e api.Experiment) bool { return e.Step > 0 }); err != nil {
		return err
	}
	return r.whole(ctx)
}

// suffer lets a fault happen and waits until it is over and mended.
func (r *run) suffer(ctx context.Context, f Fault) error {
	struck := time.Now()
	whom, heal, err := r.strike(ctx, f)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(f.Hold): // a fault lasts; what happens meanwhile is watched
	}
	if err := heal(); err != nil {
		return err
	}
	healed := time.Now()
	quick, cancel := context.WithTimeout(ctx, answers)
	defer cancel()
	if _, err := r.client.Reading(api.Linearizable).Experiment(quick, r.watch.name); err != nil {
		return fmt.Errorf("no answer %v after it was over: %w", answers, err)
	}
	answered := time.Since(healed)
	// Mended is what trains again, with all that was lost made again.
	high := r.watch.highest()
	if _, err := r.watch.until(ctx, patience, func(e api.Experiment) bool { return api.Final(e.Phase) || e.Step > high+mended }); err != nil {
		return err
	}
	longest, redone, took := r.watch.standstill(struck, time.Now())
	if err := r.whole(ctx); err != nil {
		return err
	}
	o := Outcome{Fault: f, Whom: whom, Standstill: longest, Answered: answered, Whole: time.Since(healed), Redone: redone, Again: took}
	r.report.add(o)
	r.say("      %s", o)
	if _, err := r.verify(ctx, r.client); err != nil {
		return err
	}
	return errors.Join(r.watch.faults(), r.unexpected())
}

// mended is how many new steps say that a fault is mended.
const mended = 5

// finish waits for the end of the experiment at hand and holds it against the run without faults, on every coordinator.
func (r *run) finish(ctx context.Context) error {
	if r.watch == nil {
		return nil
	}
	defer r.leave()
	exp, err := r.watch.until(ctx, patience, func(e api.Experiment) bool { return api.Final(e.Phase) })
	if err != nil {
		return err
	}
	if exp.Phase != api.Completed {
		return fmt.Errorf("experiment %s: %s: %s", exp.Name, exp.Phase, exp.Message)
	}
	for _, co := range r.Coordinators {
		if err := r.agrees(ctx, co); err != nil {
			return fmt.Errorf("experiment %s: coordinator %s: %w", exp.Name, co.Name, err)
		}
	}
	if err := r.free(ctx); err != nil {
		return fmt.Errorf("experiment %s: %w", exp.Name, err)
	}
	r.report.finished(exp, r.watch)
	r.say("experiment %s: all %d steps, digest %.12s as without faults", exp.Name, exp.Steps, r.at.Digest)
	return errors.Join(r.watch.faults(), r.unexpected())
}

// free waits until all replicas ask for other work.
func (r *run) free(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		pool, err := r.client.Pool(ctx)
		free := map[string]bool{}
		for _, p := range pool.Items {
			free[p.ID] = p.Experiment == ""
		}
		busy := slices.DeleteFunc(slices.Clone(r.Replicas), func(p *Place) bool { return free[p.Name] })
		if err == nil && len(busy) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it is over, and after %v replica %s asks for no other work: %w", patience, busy[0].Name, errors.Join(err, ctx.Err()))
		case <-tick.C:
		}
	}
}

// agrees wants of a coordinator that it has the last cut, as it is without faults. One that was away may take a while: it asks
// the others for what it lacks.
func (r *run) agrees(ctx context.Context, co *Coordinator) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		digest, err := r.verify(ctx, co.Client)
		if err == nil && digest != r.at.Digest {
			return fmt.Errorf("the digest of the last cut is %s, without faults it is %s", digest, r.at.Digest)
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(look):
		}
	}
}

// verify downloads the last cut, checks every byte of it and counts its walkers. It returns the digest of its contents.
func (r *run) verify(ctx context.Context, client *api.Client) (digest string, err error) {
	fail := func(err error) (string, error) {
		return "", fmt.Errorf("experiment %s: last cut: %w", r.watch.name, err)
	}
	sure := client.Reading(api.Linearizable)
	before := r.watch.present().cut
	last, err := sure.LastCut(ctx, r.watch.name)
	if err != nil {
		return fail(err)
	}
	if int64(last.Step) < before {
		return fail(fmt.Errorf("it is of step %d, and that of step %d was acknowledged", last.Step, before))
	}
	blob := func(digest string) ([]byte, error) {
		var b bytes.Buffer
		_, err := client.Blob(ctx, digest, &b)
		return b.Bytes(), err
	}
	manifest, err := blob(last.Manifest)
	if err != nil {
		return fail(err)
	}
	cut, err := checkpoint.FromBlobs(manifest, func(_ string, sum [sha256.Size]byte) ([]byte, error) { return blob(hex.EncodeToString(sum[:])) })
	if err != nil {
		return fail(err)
	}
	entry, _, err := coordinator.Entry(*cut)
	if err != nil {
		return fail(err)
	}
	counted := entry.Conservation
	if counted != ledger.Conservation(last.Conservation) {
		return fail(fmt.Errorf("step %d: counted %+v, the coordinators say %+v", last.Step, counted, last.Conservation))
	}
	if counted.Labels != counted.Ladders*counted.Rungs || counted.Created-counted.Retired != counted.Live || counted.Live != counted.Labels || counted.Labels == 0 {
		return fail(fmt.Errorf("step %d: counted %+v", last.Step, counted))
	}
	return cut.Digest, nil
}
