package coordinator

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
)

// The model runs the protocol on random courses of events: messages get lost, come twice and in any order, processes die,
// hang, leave and come, the coordinator starts again from the last cut that it saved. What decides is the real thing: Fleet,
// roll and registry; the gate, the giver and the sequence of commands of a replica; ensembles; averaging rounds; the cuts and
// their assembly. Made up are the network (see network), the loop around them in a replica (process), and the chains, which
// are two integers each (trainee). All of it is one thread: a seed is a course of events, and comes to the same each time.

// faults are the deviations from the protocol that the invariants must catch.
type faults struct {
	noGeneration bool // messages do not tell their generation, and nobody asks
	oneSided     bool // of two shards that swap states, one keeps its own too
	earlyCut     bool // a cut is taken over before its parts are there: what is missing is of the cut before
	staleTheta   bool // nobody waits for the parameters of a step
	noHash       bool // parameters are not compared
	retried      bool // a command that comes again is executed again
}

// trial is what a model trains.
type trial struct {
	layout    engine.Layout
	exchange  string
	averaging averaging.Config
}

const (
	trialSteps = 6
	trialEvery = 3 // steps between two cuts that are saved
)

func trials() []trial {
	alone := averaging.Config{}.WithDefaults()
	mean := averaging.Config{Groups: 2, Every: 2}.WithDefaults()
	nesterov := averaging.Config{Groups: 2, Every: 2, Outer: "nesterov", Format: "int8"}.WithDefaults()
	rung := func(split, groups int) engine.Layout {
		return engine.Layout{Placement: "rung", Split: split, Rungs: 3, Chains: 2, Groups: groups}
	}
	ladder := func(groups int) engine.Layout {
		return engine.Layout{Placement: "ladder", Split: 2, Rungs: 3, Chains: 2, Groups: groups}
	}
	return []trial{
		{rung(1, 1), "state", alone}, {rung(2, 1), "state", alone}, {rung(1, 1), "label", alone},
		{ladder(1), "state", alone}, {ladder(2), "state", mean}, {rung(1, 2), "state", nesterov},
	}
}

// violation is what a model panics with when an invariant fails.
type violation string

// restart is what a model panics with when the coordinator dies, and its replicas with it.
type restart struct{}

// deposed is what a model panics with when another coordinator leads.
type deposed struct{}

// course runs one trial under one course of events and returns the digest at its end.
type course struct {
	trial  trial
	faults faults
	rand   *rand.Rand
	calm   bool // nothing goes wrong
	net    *network
	saved  *checkpoint.Cut

	training bool // all replicas that are waited for have come
}

// outcome is what a course comes to.
type outcome struct {
	digest string    // at the end
	broken violation // the invariant that failed, if any
	err    error     // of a training that stopped
	past   events
}

// run goes through one course of events.
func run(tr trial, seed uint64, calm bool, f faults) (out outcome) {
	c := &course{trial: tr, faults: f, rand: rand.New(rand.NewPCG(seed, 0x6b656c76696e)), calm: calm}
	defer func() {
		c.net.end()
		out.past = c.net.past
		if p := recover(); p != nil {
			v, is := p.(violation)
			if !is {
				panic(p)
			}
			out.broken = v
		}
	}()
	c.net = newNetwork(c)
	for {
		var again bool
		if out.digest, again, out.err = c.attempt(); !again {
			return out
		}
		c.net.begin()
	}
}

// attempt is the life of the coordinators of one experiment; again says that it ended before the training did.
func (c *course) attempt() (digest string, again bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			if _, is := p.(restart); !is {
				panic(p)
			}
			again = true
		}
	}()
	replicas := 1
	if !c.calm {
		replicas += c.rand.IntN(3)
	}
	c.training = false
	for id := range replicas {
		c.net.start(fmt.Sprint(id))
	}
	for len(c.net.living()) < replicas {
		c.net.turn()
	}
	c.training = true
	cfg := Config{
		Layout: c.trial.layout, Averaging: c.trial.averaging, Replicas: replicas,
		Steps: trialSteps, Every: []int{trialEvery}, Notice: func(string) {}, CutEvery: time.Duration(c.rand.IntN(4)) * replica.Heartbeat / 2,
	}
	for leads := true; leads; {
		digest, leads, err = c.lead(newFleet(cfg, c.net.hand, c.net, c.net.now))
	}
	if err != nil && len(c.net.living()) == 0 { // as after a restart: people start replicas again
		return "", true, nil
	}
	return digest, false, err
}

// lead is the life of one coordinator; another says that the next one goes on.
func (c *course) lead(f *Fleet) (digest string, another bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			if _, is := p.(deposed); !is {
				panic(p)
			}
			c.net.elect()
			another = true
		}
	}()
	digest, err = c.train(f)
	return digest, false, err
}

// train is the loop of a training: the statistics are reset and a cut is saved at every stop.
func (c *course) train(f *Fleet) (string, error) {
	if err := f.Resume(); err != nil {
		return "", err
	}
	if f.Step() == trialSteps { // the one before came so far
		cut, err := f.Cut()
		if err != nil {
			return "", err
		}
		return cut.Sum()
	}
	for f.Step() < trialSteps {
		want := f.Step() + 1
		r, err := f.TrainStep()
		if err != nil {
			return "", err
		}
		if r.Step != want {
			panic(violation(fmt.Sprintf("report of step %d, want %d", r.Step, want)))
		}
		if f.Step()%trialEvery != 0 {
			continue
		}
		f.ResetPairs()
		cut, err := f.Cut()
		if err != nil {
			return "", err
		}
		c.saved = &cut
	}
	cut, err := f.Cut()
	if err != nil {
		return "", err
	}
	return cut.Sum()
}

// fault says what is wrong with an outcome; "" is nothing.
func (o outcome) fault(want string) string {
	switch {
	case o.broken != "":
		return string(o.broken)
	case o.err != nil:
		return "error: " + o.err.Error()
	case o.digest != want:
		return fmt.Sprintf("digest %.12s, want %.12s as of the calm course", o.digest, want)
	}
	return ""
}

// calmDigests are what the trials come to when nothing goes wrong.
func calmDigests(t *testing.T) (all []trial, want []string) {
	t.Helper()
	for i, tr := range trials() {
		calm := run(tr, uint64(i), true, faults{})
		if calm.broken != "" || calm.err != nil {
			t.Fatalf("trial %d, calm: %s %v", i, calm.broken, calm.err)
		}
		all, want = append(all, tr), append(want, calm.digest)
	}
	return all, want
}

// TestModel tries the protocol on many courses of events: at every cut each walker is where its label says, once; nothing of
// an old generation is used; the training ends, with the digest of the calm course.
func TestModel(t *testing.T) {
	all, want := calmDigests(t)
	seeds := uint64(20_000)
	if testing.Short() {
		seeds = 1_000
	}
	var next, failed atomic.Uint64
	var mu sync.Mutex
	var past events
	var wait sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			var mine events
			for seed := next.Add(1) - 1; seed < seeds && failed.Load() < 5; seed = next.Add(1) - 1 {
				i := seed % uint64(len(all))
				o := run(all[i], seed, false, faults{})
				mine.add(o.past)
				if text := o.fault(want[i]); text != "" {
					failed.Add(1)
					t.Errorf("seed %d, trial %d: %s", seed, i, text)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			past.add(mine)
		})
	}
	wait.Wait()
	t.Logf("%d courses: %+v", seeds, past)
	least := int(seeds) / 100
	if past.killed < least || past.hung < least || past.left < least || past.restarted < least || past.deposed < least || past.lost < least || past.refused < least {
		t.Errorf("of some events there were fewer than %d", least)
	}
}

// TestModelCatches is whether the invariants would notice: each fault of the protocol within so many seeds.
func TestModelCatches(t *testing.T) {
	all, want := calmDigests(t)
	for _, tc := range []struct {
		name   string
		faults faults
	}{
		{"no generation check", faults{noGeneration: true}},
		{"a swap on one side", faults{oneSided: true}},
		{"a cut before its parts are there", faults{earlyCut: true}},
		{"parameters not waited for nor compared", faults{staleTheta: true, noHash: true}},
		{"a retried command executed twice", faults{retried: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			const seeds = 200
			for seed := range uint64(seeds) {
				i := seed % uint64(len(all))
				if text := run(all[i], seed, false, tc.faults).fault(want[i]); text != "" {
					t.Logf("seed %d, trial %d: %s", seed, i, text)
					return
				}
			}
			t.Errorf("%d seeds did not notice", seeds)
		})
	}
}

// Where parameters are compared, a training whose processes come apart stops and says so: it never comes to other numbers.
func TestModelStopsWhereProcessesComeApart(t *testing.T) {
	all, want := calmDigests(t)
	stopped := 0
	for seed := range uint64(200) {
		i := seed % uint64(len(all))
		o := run(all[i], seed, false, faults{staleTheta: true})
		if o.err != nil && strings.Contains(o.err.Error(), errApart.Error()) {
			stopped++
		} else if text := o.fault(want[i]); text != "" {
			t.Errorf("seed %d, trial %d: %s, want the calm digest, or the hashes that differ", seed, i, text)
		}
	}
	if stopped == 0 {
		t.Error("nothing was stale")
	}
}
