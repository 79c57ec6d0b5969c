package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/replica"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// roll says who lives and who belongs to the generation. It is safe for concurrent use, and sends nothing.
type roll struct {
	lead context.Context // ends when this coordinator leads no longer, and all memberships with it
	now  func() time.Time
	book Book
	who  string // leads
	// servers are those of messages, where that may change.
	servers func() string

	mu       sync.Mutex
	registry *registry
	news     chan struct{}      // closed at the next registration
	members  map[string]*living // of the generation
}

// living is a member of the generation. Its context ends with its lease.
type living struct {
	token  uint64
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func newRoll(lead context.Context, who, platform string, book Book, now func() time.Time) *roll {
	return &roll{lead: lead, servers: func() string { return "" }, now: now, book: book, who: who, registry: newRegistry(platform, replica.Lease), news: make(chan struct{}), members: map[string]*living{}}
}

// recall takes over the leases that another coordinator gave, each as if it had just been renewed: nobody has counted since.
func (r *roll) recall(leases []Lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range leases {
		r.registry.admit(r.now(), l.Register, l.Token)
	}
}

// expire ends the leases that were not renewed. Where that cannot be written down, nothing can: the next generation will tell.
func (r *roll) expire() {
	r.mu.Lock()
	lost := r.registry.expire(r.now())
	for _, m := range lost {
		r.lose(m.id, fmt.Errorf("no sign of life for %v", replica.Lease))
	}
	r.mu.Unlock()
	for _, m := range lost {
		_ = r.book.End(m.id, m.token, true)
	}
}

// lose ends the membership of a replica in the generation. The caller holds the lock.
func (r *roll) lose(id string, why error) {
	if m := r.members[id]; m != nil {
		m.cancel(why)
	}
}

func (r *roll) register(_ context.Context, m transport.Message) (transport.Message, error) {
	who, err := transport.DecodeRegister(m.Payload)
	if err != nil {
		return transport.Message{}, err
	}
	token, err := r.lease(who)
	if err != nil {
		return transport.Message{}, err
	}
	return m.Reply(transport.TypeGrant, transport.Grant{Token: token, TTL: replica.Lease, Leader: r.who}.Append(nil)), nil
}

// lease gives a replica its lease, or tells it the one it has.
func (r *roll) lease(who transport.Register) (token uint64, err error) {
	r.mu.Lock()
	token, err = r.registry.claim(r.now(), who)
	r.mu.Unlock()
	if token != 0 || err != nil {
		return token, err
	}
	if token, err = r.book.Register(who); err != nil { // takes a while: nobody waits for it with the lock
		return 0, fmt.Errorf("%w: %w", transport.ErrNotReady, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.registry.claim(r.now(), who); err != nil { // another process was faster
		return 0, err
	}
	r.registry.admit(r.now(), who, token)
	if old := r.members[who.Replica]; old != nil && old.token != token {
		r.lose(who.Replica, errors.New("it was started again"))
	}
	close(r.news)
	r.news = make(chan struct{})
	return token, nil
}

func (r *roll) heartbeat(_ context.Context, m transport.Message) (transport.Message, error) {
	beat, err := transport.DecodeHeartbeat(m.Payload)
	if err != nil {
		return transport.Message{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	member, err := r.registry.beat(r.now(), beat.Token)
	if err != nil {
		return transport.Message{}, err
	}
	return m.Reply(transport.TypeHeartbeatAck, transport.HeartbeatAck{Leader: r.who, Servers: r.servers(), Drain: member.draining}.Append(nil)), nil
}

// leave lets a replica go that holds nothing; one that does is asked to come again, when its shards are elsewhere.
func (r *roll) leave(_ context.Context, m transport.Message) (transport.Message, error) {
	leave, err := transport.DecodeLeave(m.Payload)
	if err != nil {
		return transport.Message{}, err
	}
	id, err := r.part(leave)
	if err != nil {
		return transport.Message{}, err
	}
	_ = r.book.End(id, leave.Token, false) // as in expire
	return m.Reply(transport.TypeLeave, nil), nil
}

// part ends the lease of a replica that wants to leave and may.
func (r *roll) part(leave transport.Leave) (id string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	member, err := r.registry.beat(r.now(), leave.Token)
	if err != nil {
		return "", err
	}
	if member.draining = true; leave.Draining && r.members[member.id] != nil {
		return "", fmt.Errorf("%w: replica %s still holds shards", transport.ErrNotReady, member.id)
	}
	r.lose(member.id, errors.New("it left"))
	delete(r.registry.members, member.id)
	return member.id, nil
}

// drain makes a replica leave as soon as its shards can be elsewhere; false says that it has no lease.
func (r *roll) drain(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.registry.members[id]
	if m != nil {
		m.draining = true
	}
	return m != nil
}

// await waits until n replicas live that do not want to leave.
func (r *roll) await(ctx context.Context, n int) error {
	for {
		r.mu.Lock()
		have, news := len(r.registry.living()), r.news
		r.mu.Unlock()
		if have >= n {
			return nil
		}
		select {
		case <-news:
		case <-r.lead.Done():
			return context.Cause(r.lead)
		case <-ctx.Done():
			return fmt.Errorf("coordinator: %d of %d replicas have registered: %w", have, n, context.Cause(ctx))
		}
	}
}

func (r *roll) living() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.registry.living()
}

func (r *roll) draining(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.registry.members[id]
	return m != nil && m.draining
}

func (r *roll) drop(id string) {
	r.mu.Lock()
	r.lose(id, errors.New("it was lost"))
	m := r.registry.members[id]
	delete(r.registry.members, id)
	r.mu.Unlock()
	if m != nil {
		_ = r.book.End(id, m.token, true) // as in expire
	}
}

// enlist makes the holders of shards the members of a new generation.
func (r *roll) enlist(holders []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.members {
		r.lose(id, errors.New("the generation is over"))
	}
	r.members = map[string]*living{}
	for _, id := range holders {
		if r.members[id] != nil {
			continue
		}
		m := &living{}
		m.ctx, m.cancel = context.WithCancelCause(r.lead)
		r.members[id] = m
		if lease := r.registry.members[id]; lease != nil {
			m.token = lease.token
		} else {
			m.cancel(errors.New("it left"))
		}
	}
}

// enlisted are the members of the generation, in order.
func (r *roll) enlisted() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := make([]string, 0, len(r.members))
	for id := range r.members {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, byID)
	return ids
}

// leaving says whether a holder of shards wants to leave, and somebody else could take them.
func (r *roll) leaving(holders []string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.registry.living()) > 0 && slices.ContainsFunc(holders, func(id string) bool {
		m := r.registry.members[id]
		return m != nil && m.draining
	})
}

// lopsided says whether the shards would be spread better among those who live now.
func (r *roll) lopsided(holders []string) bool {
	next := placed(len(holders), r.living(), holders)
	return next != nil && heaviest(next) < heaviest(holders)
}

// member is the context of a member; one that ended for others.
func (r *roll) member(id string) context.Context {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := r.members[id]; m != nil {
		return m.ctx
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("it holds nothing"))
	return ctx
}
