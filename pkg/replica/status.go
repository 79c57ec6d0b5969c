package replica

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/engine"
)

const (
	// slack and paces say how long a step may take: slack beside so many times the moving average.
	slack = 30 * time.Second
	paces = 5
	// patient is how long may pass before the first step of a run, and in any other command: a program may be compiled there.
	patient = 10 * time.Minute
	// smoothing is the weight of the last step in the moving average.
	smoothing = 0.1
)

// Status is what a replica does, for whoever looks after its process; see Options.Status. The zero value is that of a replica
// that has not begun. It is safe for concurrent use, and nobody hears what a nil one is told.
type Status struct {
	mu         sync.Mutex
	registered bool
	waiting    string                 // for what, while no command runs
	command    Op                     // that runs; 0: none
	step       int                    // the last
	pace       time.Duration          // moving average of a step; 0 before the first
	moved      time.Time              // when the last step was made, or the command began
	stepped    bool                   // a step was made in this command
	pulls      map[*engine.Key]string // what others owe, with who does
}

func (s *Status) change(f func()) {
	if s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		f()
	}
}

// waits says what the replica waits for outside of commands.
func (s *Status) waits(what string) { s.change(func() { s.waiting = what }) }

// leased says whether the replica has a lease.
func (s *Status) leased(has bool) { s.change(func() { s.registered = has }) }

// begins says that a command runs, until it ends.
func (s *Status) begins(op Op) {
	s.change(func() { s.command, s.moved, s.stepped = op, time.Now(), false })
}

func (s *Status) ends() { s.change(func() { s.command = 0 }) }

// made says that a step was made.
func (s *Status) made(step int, took time.Duration) {
	s.change(func() {
		if s.pace == 0 {
			s.pace = took
		}
		s.pace += time.Duration(smoothing * float64(took-s.pace))
		s.step, s.moved, s.stepped = step, time.Now(), true
	})
}

// owes says that another replica owes a blob, until the function that it returns is called.
func (s *Status) owes(key engine.Key, who string) (came func()) {
	if s == nil {
		return func() {}
	}
	s.change(func() {
		if s.pulls == nil {
			s.pulls = map[*engine.Key]string{}
		}
		s.pulls[&key] = who
	})
	return func() { s.change(func() { delete(s.pulls, &key); s.moved = time.Now() }) }
}

// Live says what the replica does, and whether it gets on with it: a step is made in time, or it waits for something that is
// not its own to give.
func (s *Status) Live() (what string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.command == 0 {
		if s.waiting == "" {
			return "begins", true
		}
		return "waits for " + s.waiting, true
	}
	for key, who := range s.pulls {
		return fmt.Sprintf("%s behind step %d: waits for %v of replica %s", s.command, s.step, *key, who), true
	}
	limit := patient
	if s.command == Run && s.stepped {
		limit = slack + paces*s.pace
	}
	silent := time.Since(s.moved)
	if silent <= limit {
		return fmt.Sprintf("%s behind step %d", s.command, s.step), true
	}
	return fmt.Sprintf("%s behind step %d: nothing for %v, want something every %v", s.command, s.step, silent.Round(time.Second), limit.Round(time.Second)), false
}

// Ready says whether the replica is registered.
func (s *Status) Ready() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.registered
}

// Handler answers /livez and /readyz: 200 or 503, with a line that says what the replica does.
func (s *Status) Handler() http.Handler {
	answer := func(w http.ResponseWriter, text string, ok bool) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if !ok {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintln(w, text)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		text, ok := s.Live()
		answer(w, text, ok)
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		text, _ := s.Live()
		answer(w, text, s.Ready())
	})
	return mux
}
