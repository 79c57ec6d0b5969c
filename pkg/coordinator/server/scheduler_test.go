package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// book is a ledger without a consensus.
type book struct {
	mu      sync.Mutex
	state   *ledger.State
	changed chan struct{}
	down    bool // it answers nothing
}

var errDown = errors.New("no quorum")

func (b *book) Apply(_ context.Context, exp ledger.ID, cmd ledger.Command) (ledger.Outcome, error) {
	data, err := ledger.Encode(ledger.Entry{Exp: exp, Command: cmd})
	if err != nil {
		return ledger.Outcome{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down {
		return ledger.Outcome{}, errDown
	}
	out := b.state.Apply(b.state.Index()+1, data)
	close(b.changed)
	b.changed = make(chan struct{})
	return out, nil
}

func (b *book) View(_ context.Context, _ consensus.Consistency, see func(*ledger.State)) (uint64, time.Duration, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down {
		return 0, 0, errDown
	}
	see(b.state)
	return b.state.Index(), 0, nil
}

func (b *book) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

func (b *book) fail(down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = down
}

// stage is a scheduler with a ledger, and drivers that do what the test says.
type stage struct {
	*Scheduler
	*book
	t *testing.T

	mu      sync.Mutex
	started []string
	drivers map[string]*puppet // by experiment
}

type puppet struct{ done chan struct{} }

func (p *puppet) Done() <-chan struct{} { return p.done }

func newStage(t *testing.T) *stage {
	s := &stage{t: t, book: &book{state: ledger.New(), changed: make(chan struct{})}, drivers: map[string]*puppet{}}
	s.Scheduler = NewScheduler(s.book, s.drive, nil)
	s.do(ledger.ID{}, ledger.ClusterInit{Cluster: ledger.ID{1}, Secret: [32]byte{2}})
	for _, name := range []string{"n1", "n2", "n3"} {
		s.do(ledger.ID{}, ledger.NodePut{Name: name, NATS: "nats://" + strings.TrimSuffix(name, "3") + ":4222"})
	}
	return s
}

// lead begins a leadership and returns what ends it.
func (s *stage) lead() (depose func()) {
	ctx, cancel := context.WithCancel(s.t.Context())
	led := make(chan error, 1)
	go func() { led <- s.Lead(ctx) }()
	synctest.Wait()
	return func() {
		s.t.Helper()
		cancel()
		if err := <-led; err != nil {
			s.t.Errorf("the leadership ends with %v", err)
		}
	}
}

// drive is a driver that says that its experiment runs, and ends with the leadership.
func (s *stage) drive(ctx context.Context, e ledger.Experiment) Driver {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &puppet{make(chan struct{})}
	s.started = append(s.started, e.Name)
	s.drivers[e.Name] = p
	context.AfterFunc(ctx, func() { s.put(e.Name, p) })
	return p
}

// drove are the experiments whose drivers were started, in turn.
func (s *stage) drove() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprint(s.started)
}

// driver is that of an experiment which is driven.
func (s *stage) driver(name string) *puppet {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.drivers[name]
	if p == nil {
		s.t.Fatalf("nobody drives %s", name)
	}
	return p
}

// put ends a driver.
func (s *stage) put(name string, p *puppet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drivers[name] == p {
		delete(s.drivers, name)
		close(p.done)
	}
}

// ends makes a driver set a phase and end.
func (s *stage) ends(name string, phase ledger.Phase, message string) {
	s.t.Helper()
	p := s.driver(name)
	s.do(s.exp(name).ID, ledger.ExpPhase{Phase: phase, Message: message})
	s.put(name, p)
}

func (s *stage) do(exp ledger.ID, cmd ledger.Command) ledger.Outcome {
	s.t.Helper()
	out, err := s.Apply(s.t.Context(), exp, cmd)
	if err = errors.Join(err, out.Err); err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *stage) submit(name string, shards, least uint32) ledger.ID {
	s.t.Helper()
	id := ledger.ID{0xe}
	copy(id[1:], name)
	s.do(id, ledger.ExpCreate{Name: name, Spec: []byte("x"), Steps: 1, Shards: shards, Min: least, CutEvery: time.Second})
	return id
}

func (s *stage) exp(name string) (e ledger.Experiment) {
	s.t.Helper()
	_, _, _ = s.View(s.t.Context(), consensus.Leader, func(st *ledger.State) {
		var ok bool
		if e, ok = st.Experiment(name); !ok {
			s.t.Fatalf("no experiment %s", name)
		}
	})
	return e
}

// replied is what a request for work came to.
type replied struct {
	api.Assignment
	ok  bool
	err error
}

// asks lets a replica ask as the HTTP interface does, for 20 seconds.
func (s *stage) asks(a api.Ask) chan replied {
	ctx, cancel := context.WithTimeout(s.t.Context(), longPoll)
	return s.asksWith(ctx, cancel, a)
}

func (s *stage) asksWith(ctx context.Context, cancel func(), a api.Ask) chan replied {
	out := make(chan replied, 1)
	go func() {
		defer cancel()
		work, ok, err := s.Ask(ctx, a)
		out <- replied{work, ok, err}
	}()
	synctest.Wait()
	return out
}

func (s *stage) ask(id string) chan replied { return s.asks(api.Ask{ID: id, Incarnation: 1}) }

// now is what a request has come to by now, once all that can happen has; "" while it waits.
func now(t *testing.T, c chan replied) string {
	t.Helper()
	time.Sleep(time.Second)
	synctest.Wait()
	select {
	case r := <-c:
		switch {
		case r.err != nil:
			return r.err.Error()
		case !r.ok:
			return "nothing"
		case r.Done:
			return fmt.Sprintf("done, exit %d: %s", r.Exit, r.Reason)
		}
		return r.Experiment
	default:
		return ""
	}
}

func (s *stage) expect(what string, got, want any) {
	s.t.Helper()
	if got != want {
		s.t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func (s *stage) index() uint64 {
	index, _, _ := s.View(s.t.Context(), consensus.Leader, func(*ledger.State) {})
	return index
}

func (s *stage) phase(name string) string { return s.exp(name).Phase.String() }

// in shows the pool: "a:e1 b:".
func (s *stage) in() string {
	var out []string
	for _, r := range s.Pool() {
		out = append(out, r.ID+":"+r.Experiment)
	}
	return strings.Join(out, " ")
}

func (s *stage) registers(exp ledger.ID, replica string) uint64 {
	s.t.Helper()
	return s.do(exp, ledger.Register{Replica: replica, Incarnation: 5, Device: "gpu", Platform: "p", Takeover: true}).Value
}

// bubble runs a test with its own clock.
func bubble(t *testing.T, f func(t *testing.T, s *stage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.lead()()
		f(t, s)
	})
}

func TestReplicasServeOneExperimentAfterTheOther(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		a, b := s.ask("a"), s.ask("b")
		s.expect("a without work", now(t, a), "")
		s.expect("the pool", s.in(), "a: b:")
		one := s.submit("one", 2, 2)
		s.submit("two", 2, 1)
		r := <-a
		want := api.Assignment{Meta: api.Kind("Assignment"), Experiment: "one", UID: one.String(), Secret: ledger.ExperimentSecret([32]byte{2}, one), NATS: r.NATS}
		if fmt.Sprint(r.Assignment) != fmt.Sprint(want) || !slices.Equal(r.NATS, []string{"nats://n1:4222", "nats://n2:4222", "nats://n:4222"}) {
			t.Errorf("assignment %+v, want %+v", r.Assignment, want)
		}
		s.expect("b", now(t, b), "one")
		s.expect("one", s.phase("one"), "waiting")
		s.expect("two", s.phase("two"), "queued")
		s.expect("message of two", s.exp("two").Message, "for replicas, 1 to begin with")
		s.registers(one, "a")
		s.registers(one, "b")
		time.Sleep(time.Hour)
		s.expect("the pool", s.in(), "a:one b:one")

		s.ends("one", ledger.Completed, "")
		a, b = s.ask("a"), s.ask("b")
		s.expect("a", now(t, a), "two")
		s.expect("b", now(t, b), "two")
		s.expect("drivers", s.drove(), "[one two]")
		s.expect("leases of one", len(s.exp("one").Replicas), 0)
	})
}

func TestAssignmentThatLeadsToNoLeaseIsGivenBack(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		s.submit("one", 1, 1)
		s.expect("a", now(t, s.ask("a")), "one")
		b := s.ask("b")
		s.expect("b", now(t, b), "")
		time.Sleep(longPoll)
		s.expect("b", now(t, b), "nothing")
		b = s.ask("b")
		time.Sleep(handover - longPoll - 5*time.Second)
		s.expect("b, shortly before", now(t, b), "")
		time.Sleep(5 * time.Second)
		s.expect("b", now(t, b), "one")
		s.expect("the pool", s.in(), "b:one")
	})
}

// Whoever asks does not work, whatever was given to him before: he gets it again.
func TestAnswerThatGotLostIsGivenAgain(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		one := s.submit("one", 1, 1)
		s.expect("a", now(t, s.ask("a")), "one")
		s.expect("a, again", now(t, s.ask("a")), "one")
		s.registers(one, "a")
		s.expect("a, whose coordinator got lost", now(t, s.ask("a")), "one")
		s.expect("a, started anew", now(t, s.asks(api.Ask{ID: "a", Incarnation: 2})), "one")
		s.expect("a, which cannot work for it", now(t, s.asks(api.Ask{ID: "a", Incarnation: 2, Refuses: []string{one.String()}})), "")
	})
}

func TestBoundReplicas(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		bound := func(id, to string) chan replied { return s.asks(api.Ask{ID: id, Incarnation: 1, Experiment: to}) }
		s.expect("an unknown one", now(t, bound("x", "none")), "done, exit 42: experiment none: not found")
		one, two := s.submit("one", 1, 1), s.submit("two", 2, 2)
		s.expect("of the first", now(t, bound("a", "one")), "one")
		s.registers(one, "a")
		b := bound("b", "two")
		s.expect("while it is queued", now(t, b), "")
		s.do(two, ledger.ExpSet{Desired: ledger.Pause})
		s.expect("while it is paused", now(t, b), "")
		s.expect("two", s.phase("two"), "paused")
		c := bound("c", "two")
		s.expect("while it is paused", now(t, c), "")
		s.do(two, ledger.ExpSet{Desired: ledger.Run})
		s.expect("in its turn", now(t, b), "two")
		s.expect("in its turn", now(t, c), "two")
		d := bound("d", "two")
		s.expect("beyond what is wanted", now(t, d), "")
		s.ends("two", ledger.Failed, "loss is NaN")
		s.expect("after a failure", now(t, d), "done, exit 42: experiment two is failed: loss is NaN")
		s.ends("one", ledger.Completed, "")
		s.expect("after the end", now(t, bound("a", "one")), "done, exit 0: experiment one is completed")
	})
}

func TestDesires(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		settled := func(name, want string) {
			t.Helper()
			time.Sleep(2 * time.Second)
			s.expect(name, s.phase(name), want)
		}
		one := s.submit("one", 1, 1)
		settled("one", "queued")
		s.do(one, ledger.ExpSet{Desired: ledger.Pause})
		settled("one", "paused")
		s.do(one, ledger.ExpSet{Desired: ledger.Run})
		settled("one", "queued")
		s.expect("a", now(t, s.ask("a")), "one")
		s.registers(one, "a")
		s.do(one, ledger.ExpSet{Desired: ledger.Pause}) // its driver's to obey
		settled("one", "waiting")
		s.ends("one", ledger.Paused, "at the cut of step 7")
		settled("one", "paused")
		s.expect("what the driver said", s.exp("one").Message, "at the cut of step 7")
		s.do(one, ledger.ExpSet{Desired: ledger.Cancel})
		settled("one", "cancelled")
		s.expect("drivers", s.drove(), "[one]")
	})
}

func TestDriverThatEndedIsStartedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		one := s.submit("one", 1, 1)
		s.expect("a", now(t, s.ask("a")), "one")
		s.registers(one, "a")
		for range 3 {
			s.put("one", s.driver("one"))
			time.Sleep(2 * retry)
		}
		s.expect("drivers", s.drove(), "[one one one one]")
		s.expect("the pool", s.in(), "a:one")
	})
}

// A new leader hears of replicas that work by their leases, and of the others when they ask again.
func TestAnotherLeaderGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.expect("without a leader", now(t, s.ask("a")), errNotHere.Error())
		depose := s.lead()
		one := s.submit("one", 1, 1)
		s.expect("a", now(t, s.ask("a")), "one")
		s.registers(one, "a")
		b := s.ask("b")
		s.expect("b", now(t, b), "")
		depose()
		s.expect("b, whose leader is gone", now(t, b), errNotHere.Error())
		s.expect("the pool without a leader", s.in(), "")

		two := s.submit("two", 1, 1)
		s.do(two, ledger.ExpSet{Desired: ledger.Pause})
		depose = s.lead()
		time.Sleep(time.Minute)
		s.expect("the pool", s.in(), "a:one")
		s.expect("two", s.phase("two"), "paused")
		s.do(two, ledger.ExpSet{Desired: ledger.Run})
		s.expect("b", now(t, s.ask("b")), "two")
		s.expect("drivers", s.drove(), "[one one two]")
		depose()
	})
}

func TestReplicaThatWentAwayIsGivenNothing(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		ctx, hangUp := context.WithCancel(t.Context())
		gone := s.asksWith(ctx, hangUp, api.Ask{ID: "a", Incarnation: 1})
		s.expect("a", now(t, gone), "")
		hangUp()
		s.expect("a", now(t, gone), "nothing")
		s.expect("the pool", s.in(), "")

		b := s.ask("b")
		time.Sleep(longPoll)
		s.expect("b", now(t, b), "nothing")
		s.expect("the pool, in which b is about to ask again", s.in(), "b:")
		s.submit("one", 1, 1)
		time.Sleep(time.Second)
		s.expect("one", s.phase("one"), "queued")
		s.expect("b", now(t, s.ask("b")), "one")
	})
}

func TestOneProcessAnId(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		first := s.ask("a")
		s.expect("the first", now(t, first), "")
		s.expect("another process", now(t, s.asks(api.Ask{ID: "a", Incarnation: 2})), "another process asks for work as replica a, want an id that no other has")
		again := s.ask("a")
		s.expect("the same once more", now(t, again), "")
		s.expect("the first", now(t, first), "nothing")
		s.submit("one", 1, 1)
		s.expect("the same once more", now(t, again), "one")
		for _, bad := range []api.Ask{{ID: "a.b"}, {ID: ""}, {ID: "b", Refuses: make([]string, 65)}} {
			_, _, err := s.Ask(t.Context(), bad)
			if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != api.Invalid {
				t.Errorf("%+v: %v", bad, err)
			}
		}
	})
}

func TestReleasedReplicaEnds(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		one := s.submit("one", 1, 1)
		s.expect("a", now(t, s.ask("a")), "one")
		lease := s.registers(one, "a")
		s.Release("a")
		time.Sleep(time.Minute)
		s.do(one, ledger.LeaseEnd{Replica: "a", Token: lease})
		s.expect("a", now(t, s.ask("a")), "done, exit 143: asked to leave")
		s.expect("a, started again", now(t, s.ask("a")), "one")
	})
}

func TestLeaseThatIsLostFreesThePlace(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		one := s.submit("one", 1, 1)
		s.expect("a", now(t, s.ask("a")), "one")
		lease := s.registers(one, "a")
		b := s.ask("b")
		s.expect("b", now(t, b), "")
		s.do(one, ledger.LeaseEnd{Replica: "a", Token: lease, Lost: true})
		s.expect("b", now(t, b), "one")
		s.expect("the pool", s.in(), "a: b:one")
		time.Sleep(between)
		s.expect("the pool", s.in(), "b:one")
	})
}

func TestSchedulerOutlastsALedgerThatDoesNotAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		s.submit("one", 1, 1)
		time.Sleep(time.Second)
		s.fail(true)
		a := s.ask("a")
		time.Sleep(10 * time.Second)
		s.expect("a", now(t, a), "")
		s.fail(false)
		s.expect("a", now(t, a), "one")
	})
}

// A ledger in which nothing is left to do is not written to.
func TestSchedulerComesToRest(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		one := s.submit("one", 2, 1)
		s.submit("two", 4, 4)
		s.expect("a", now(t, s.ask("a")), "one")
		s.registers(one, "a")
		time.Sleep(time.Minute)
		index := s.index()
		for range 10 {
			b := s.ask("b")
			time.Sleep(longPoll)
			_ = now(t, b)
		}
		s.expect("log index", s.index(), index)
	})
}
