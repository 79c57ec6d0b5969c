//go:build linux

package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
)

const (
	// look is how often each coordinator is asked.
	look = 60 * time.Millisecond
	// blur is how wrong the time between two steps can be: they are told in bundles, and seen by looks that a busy machine delays.
	blur = time.Second
)

// watch sees how an experiment fares, through the eyes of every coordinator, and notes what must never be. Close it.
type watch struct {
	name     string
	cluster  *Cluster
	punctual bool // ClusterConfig.Punctual
	stop     context.CancelFunc
	pollers  sync.WaitGroup

	mu     sync.Mutex
	news   chan struct{} // closed at the next sight
	known  known
	cuts   map[uint64]api.Cut // that were acknowledged, by step
	steps  []progress
	back   []setback
	wrongs []error
}

// known is what was seen of an experiment. Whoever asks after that must not be told less.
type known struct {
	exp        api.Experiment // the newest
	asked      time.Time      // when it was asked for
	generation uint64
	cut        int64 // step of the newest cut that somebody acknowledged; −1: none
}

// progress is that a step was made.
type progress struct {
	at         time.Time
	step       uint64
	generation uint64
}

// setback is that steps were lost and are made again.
type setback struct {
	at    time.Time
	steps uint64
	took  time.Duration // to make them
}

// observe begins to watch an experiment.
func (c *Cluster) observe(ctx context.Context, name string) *watch {
	ctx, stop := context.WithCancel(ctx)
	w := &watch{name: name, cluster: c, punctual: c.cfg.Punctual, stop: stop, news: make(chan struct{}), cuts: map[uint64]api.Cut{}, known: known{cut: -1}}
	for _, co := range c.Coordinators {
		w.pollers.Go(func() { w.poll(ctx, co.Client) })
	}
	return w
}

func (w *watch) close() {
	w.stop()
	w.pollers.Wait()
}

// poll asks one coordinator, most often for what surely holds, and now and then for what it believes: what it was told by a
// quorum, it may say alone.
func (w *watch) poll(ctx context.Context, client *api.Client) {
	sure, belief := client.Reading(api.Linearizable), client.Reading(api.Stale)
	tick := time.NewTicker(look)
	defer tick.Stop()
	for turn := 0; ; turn++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		before, asked := w.present(), time.Now()
		if turn%8 == 7 {
			if cuts, err := belief.Cuts(ctx, w.name); err == nil {
				w.acknowledged(cuts.Items)
			}
			continue
		}
		exp, err := sure.Experiment(ctx, w.name)
		if err != nil {
			continue // how long nobody answers is measured elsewhere
		}
		w.saw(before, exp, asked)
		if mark := exp.LastCut; mark != nil && int64(mark.Step) > before.cut {
			if cuts, err := sure.Cuts(ctx, w.name); err == nil {
				w.acknowledged(cuts.Items)
			}
		}
	}
}

// present is what is known, in sum.
func (w *watch) present() known {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known
}

// saw takes an answer in that was asked for when what came before was known.
func (w *watch) saw(before known, exp api.Experiment, asked time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	cut := int64(-1)
	if exp.LastCut != nil {
		cut = int64(exp.LastCut.Step)
	}
	if exp.Generation < before.generation {
		w.wrong("generation %d, and there was %d before", exp.Generation, before.generation)
	}
	if cut < before.cut {
		w.wrong("the last cut is of step %d, and that of step %d was acknowledged before", cut, before.cut)
	}
	if exp.Step > exp.Steps {
		w.wrong("step %d of %d", exp.Step, exp.Steps)
	}
	if api.Final(before.exp.Phase) && exp.Phase != before.exp.Phase {
		w.wrong("phase %s after %s, which is final", exp.Phase, before.exp.Phase)
	}
	k := &w.known
	k.generation, k.cut = max(k.generation, exp.Generation), max(k.cut, cut)
	if asked.Before(k.asked) {
		return // of the past
	}
	was := k.exp
	k.exp, k.asked = exp, asked
	now := time.Now()
	if exp.StepsRedone > was.StepsRedone { // told with the next new step
		w.setBack(now, was.Step, was.Step-min(was.Step, exp.StepsRedone-was.StepsRedone), exp)
	}
	if exp.Step < was.Step { // with a new leader, who knows what is in the last cut
		w.setBack(now, was.Step, exp.Step, exp)
	}
	if exp.Step > was.Step {
		w.steps = append(w.steps, progress{now, exp.Step, exp.Generation})
	}
	close(w.news)
	w.news = make(chan struct{})
}

// setBack notes that the training, as it is now, went back from a step. Each generation may cost one interval between cuts.
// w.mu is held.
func (w *watch) setBack(now time.Time, from, to uint64, exp api.Experiment) {
	b := setback{at: now, steps: from - to}
	generations := uint64(1)
	for i, p := range slices.Backward(w.steps) {
		last := w.steps[len(w.steps)-1]
		// Made before; lost once before, though the next generation may have been seen no sooner than beyond it.
		if p.step <= to || p.generation != last.generation || i+1 < len(w.steps) && p.step > w.steps[i+1].step {
			break
		}
		b.took = last.at.Sub(p.at)
		if i == len(w.steps)-1 && exp.Generation > p.generation {
			generations = exp.Generation - p.generation
		}
	}
	w.back = append(w.back, b)
	if most := time.Duration(exp.CutEverySeconds * float64(generations) * float64(time.Second)); w.punctual && most > 0 && b.took > most+blur {
		w.wrong("%d steps are made again that took %v, want at most %v: one interval for each of %d generations", b.steps, b.took, most, generations)
	}
}

// acknowledged notes cuts that a coordinator says there are: from then on, they or newer ones must be there.
func (w *watch) acknowledged(cuts []api.Cut) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, cut := range cuts {
		if cut.Refused {
			w.wrong("the cut of step %d was refused: %+v", cut.Step, cut.Conservation)
			continue
		}
		if c := cut.Conservation; c.Labels != c.Ladders*c.Rungs || c.Created-c.Retired != c.Live || c.Live != c.Labels || c.Labels == 0 {
			w.wrong("the cut of step %d breaks the conservation laws: %+v", cut.Step, c)
		}
		if other, ok := w.cuts[cut.Step]; ok && other.Manifest != cut.Manifest {
			w.wrong("the cut of step %d has the digest %.12s, and had %.12s", cut.Step, cut.Manifest, other.Manifest)
		}
		w.cuts[cut.Step] = cut
		w.known.cut = max(w.known.cut, int64(cut.Step))
	}
}

// wrong notes what must not be; w.mu is held.
func (w *watch) wrong(format string, args ...any) {
	if len(w.wrongs) < 20 {
		w.wrongs = append(w.wrongs, fmt.Errorf("experiment %s: "+format, append([]any{w.name}, args...)...))
	}
}

// faults is what was seen that must not be.
func (w *watch) faults() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(w.wrongs...)
}

// until waits until the experiment is as wanted, and gives up where no step was made for patience.
func (w *watch) until(ctx context.Context, patience time.Duration, wanted func(api.Experiment) bool) (api.Experiment, error) {
	last, since := uint64(0), time.Now()
	for {
		w.mu.Lock()
		exp, news, steps := w.known.exp, w.news, uint64(len(w.steps))
		w.mu.Unlock()
		if exp.Phase != "" && wanted(exp) {
			return exp, nil
		}
		if steps > last {
			last, since = steps, time.Now()
		}
		if patient := time.Until(since.Add(patience)); patient <= 0 {
			return exp, fmt.Errorf("experiment %s: no step for %v: %s %s, step %d of generation %d", w.name, patience, exp.Phase, exp.Message, exp.Step, exp.Generation)
		}
		select {
		case <-ctx.Done():
			return exp, fmt.Errorf("experiment %s: %w", w.name, ctx.Err())
		case <-news:
		case <-time.After(time.Until(since.Add(patience))):
		}
	}
}

// highest is the highest step that was seen.
func (w *watch) highest() (step uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.steps {
		step = max(step, p.step)
	}
	return step
}

// standstill is the longest time without a new step between two times, and what was made again: steps, and how long they had
// taken.
func (w *watch) standstill(from, to time.Time) (longest time.Duration, redone uint64, took time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := from
	for _, p := range w.steps {
		if p.at.After(from) && !p.at.After(to) {
			longest, last = max(longest, p.at.Sub(last)), p.at
		}
	}
	for _, b := range w.back {
		if b.at.After(from) && !b.at.After(to) {
			redone, took = redone+b.steps, took+b.took
		}
	}
	if !api.Final(w.known.exp.Phase) { // nobody waits for a step behind the last
		longest = max(longest, to.Sub(last))
	}
	return longest, redone, took
}
