package server

import (
	"context"
	"errors"
	"fmt"
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
