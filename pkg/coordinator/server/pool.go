package server

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

const (
	// handover is how long a replica may take from its assignment to its lease; after that it counts as gone.
	handover = 30 * time.Second
	// between is how long a replica may take from its work, or from a request, to the next request.
	between = 5 * time.Second
	// leaving is how long a replica that people asked to leave is waited for.
	leaving = time.Hour
	// mostRefused bounds what a replica may refuse.
	mostRefused = 64
)

// pool are the replicas that ask for work, and those that have some. It lives in the memory of the leader: another one hears of
// them by their next requests and by their leases. It is safe for concurrent use.
type pool struct {
	news chan struct{} // has one element if something happened

	mu       sync.Mutex
	over     chan struct{}        // closed with the leadership; nil without one
	members  map[string]*member   // by id
	released map[string]time.Time // when people asked those to leave that have not asked for work again
}

// member is a replica. It waits for an answer, or works, or is between the two.
type member struct {
	api.Ask
	since  time.Time
	answer chan api.Assignment // of the request that waits, for one assignment; nil: none does
	seen   time.Time           // when it last asked, or had a lease

	at     ledger.ID // that it was given to; zero: none
	name   string    // of that
	given  time.Time
	leased bool // it has had a lease since
}

func newPool() *pool {
	return &pool{news: make(chan struct{}, 1)}
}

// begin opens the pool, empty, for a leadership.
func (p *pool) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over, p.members, p.released = make(chan struct{}), map[string]*member{}, map[string]time.Time{}
}

// end closes it: whoever waits is sent to the next leader.
func (p *pool) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.over)
	p.over, p.members, p.released = nil, nil, nil
}

func (p *pool) tell() {
	select {
	case p.news <- struct{}{}:
	default:
	}
}

var errNotHere = api.Errorf(api.NoLeader, "work is given by the leader, which this coordinator is not")

// ask waits until there is work for a replica, or ctx ends: then, false.
func (p *pool) ask(ctx context.Context, a api.Ask) (api.Assignment, bool, error) {
	answer, over, err := p.enter(a)
	if err != nil {
		return api.Assignment{}, false, err
	}
	select {
	case work, ok := <-answer:
		return work, ok, nil
	case <-over:
		return api.Assignment{}, false, errNotHere
	case <-ctx.Done():
		work, ok := p.leave(a, answer, errors.Is(ctx.Err(), context.DeadlineExceeded))
		return work, ok, nil
	}
}

// enter makes a replica wait for an answer. A channel that is closed says that the same replica asked again.
func (p *pool) enter(a api.Ask) (answer chan api.Assignment, over chan struct{}, err error) {
	if _, err := transport.ParseToken(a.ID); err != nil {
		return nil, nil, api.Errorf(api.Invalid, "id: %v", err)
	}
	if len(a.Refuses) > mostRefused {
		return nil, nil, api.Errorf(api.Invalid, "refuses: %d experiments, want at most the last %d", len(a.Refuses), mostRefused)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over == nil {
		return nil, nil, errNotHere
	}
	m := p.members[a.ID]
	switch {
	case m == nil || m.Incarnation != a.Incarnation && m.answer == nil:
		m = &member{since: time.Now()}
		p.members[a.ID] = m
	case m.Incarnation != a.Incarnation:
		return nil, nil, api.Errorf(api.Conflict, "another process asks for work as replica %s, want an id that no other has", a.ID)
	case m.answer != nil:
		close(m.answer)
	}
	m.Ask, m.answer = a, make(chan api.Assignment, 1)
	m.idle() // whoever asks does not work
	p.tell()
	return m.answer, p.over, nil
}

func (m *member) idle() { m.at, m.name, m.leased = ledger.ID{}, "", false }

// leave ends a request. A replica that will ask again stays for a moment; one that went away does not.
func (p *pool) leave(a api.Ask, answer chan api.Assignment, again bool) (api.Assignment, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case work, ok := <-answer: // it came just now
		return work, ok
	default:
	}
	if m := p.members[a.ID]; m != nil && m.answer == answer {
		m.answer, m.seen = nil, time.Now()
		if !again {
			delete(p.members, a.ID)
		}
		p.tell()
	}
	return api.Assignment{}, false
}

// reply answers a request, with work for an experiment or that there is none any more; false says that no request waits.
func (p *pool) reply(id string, exp ledger.ID, work api.Assignment) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.members[id]
	if m == nil || m.answer == nil {
		return false
	}
	m.answer <- work
	m.answer, m.seen = nil, time.Now()
	m.at, m.name, m.given, m.leased = exp, work.Experiment, time.Now(), false
	if work.Done {
		delete(p.members, id)
		delete(p.released, id)
	}
	return true
}

// caller is what there is to know of a replica whose request waits.
type caller struct {
	leased   ledger.ID // experiment of which its id has a lease; zero: none
	released bool      // people asked it to leave
}

// hands are the replicas, by id, and those of them whose requests wait; admitted are the experiments that are worked on. Who
// has a lease works; who has not come to one, or gave it back and does not ask again, is forgotten. next is when somebody else
// will be, if nothing happens; zero: never.
func (p *pool) hands(admitted []ledger.Experiment) (hands []hand, callers map[string]caller, next time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	leases := p.recall(admitted)
	callers = map[string]caller{}
	for _, id := range slices.Sorted(maps.Keys(p.members)) {
		m := p.members[id]
		h := hand{id: id, bound: m.Experiment, refuses: m.Refuses}
		lease, has := leases[id]
		var until time.Time
		switch {
		case m.answer != nil:
			_, released := p.released[id]
			callers[id] = caller{lease, released}
		case has:
			h.at = lease
			m.leased, m.seen = true, time.Now()
		case !m.leased && slices.ContainsFunc(admitted, func(e ledger.Experiment) bool { return e.ID == m.at }):
			h.at = m.at
			until = m.given.Add(handover)
		default:
			h.away = true
			until = m.seen.Add(between)
			m.idle()
		}
		if !until.IsZero() && !time.Now().Before(until) {
			delete(p.members, id)
			continue
		}
		if !until.IsZero() && (next.IsZero() || until.Before(next)) {
			next = until
		}
		hands = append(hands, h)
	}
	return hands, callers, next
}

// recall are the experiments in which ids have a lease. Those who were given their work by another leader become members.
func (p *pool) recall(admitted []ledger.Experiment) map[string]ledger.ID {
	leases, tokens := map[string]ledger.ID{}, map[string]uint64{}
	for _, e := range admitted {
		for _, r := range e.Replicas {
			if r.Token < tokens[r.Name] { // another experiment has it by now
				continue
			}
			leases[r.Name], tokens[r.Name] = e.ID, r.Token
			m := p.members[r.Name]
			if m == nil {
				m = &member{Ask: api.Ask{ID: r.Name}, since: r.Since}
				p.members[r.Name] = m
			}
			if m.answer == nil { // else the lease is that of its past
				m.at, m.name, m.Device, m.Platform = e.ID, e.Name, r.Device, r.Platform
			}
		}
	}
	return leases
}

// release makes a replica end when it asks for work the next time.
func (p *pool) release(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over != nil {
		maps.DeleteFunc(p.released, func(_ string, at time.Time) bool { return time.Since(at) > leaving })
		p.released[id] = time.Now()
		p.tell()
	}
}

// list shows the replicas, by id.
func (p *pool) list() []api.PoolReplica {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := []api.PoolReplica{}
	for id, m := range p.members {
		out = append(out, api.PoolReplica{Meta: api.Kind("PoolReplica"), ID: id, Bound: m.Experiment, Experiment: m.name, Device: m.Device, Platform: m.Platform, Since: m.since})
	}
	slices.SortFunc(out, func(a, b api.PoolReplica) int { return strings.Compare(a.ID, b.ID) })
	return out
}
