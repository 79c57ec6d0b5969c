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
	now func() time.Time

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

func newRoll(platform string, now func() time.Time) *roll {
	return &roll{now: now, registry: newRegistry(platform, replica.Lease), news: make(chan struct{}), members: map[string]*living{}}
}

// expire ends the leases that were not renewed.
func (r *roll) expire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range r.registry.expire(r.now()) {
		r.lose(id, fmt.Errorf("no sign of life for %v", replica.Lease))
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
	r.mu.Lock()
	defer r.mu.Unlock()
	token, err := r.registry.register(r.now(), who)
	if err != nil {
		return transport.Message{}, err
	}
	if old := r.members[who.Replica]; old != nil && old.token != token {
		r.lose(who.Replica, errors.New("it was started again"))
	}
	close(r.news)
	r.news = make(chan struct{})
	return m.Reply(transport.TypeGrant, transport.Grant{Token: token, TTL: replica.Lease, Leader: "coordinator"}.Append(nil)), nil
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
	return m.Reply(transport.TypeHeartbeatAck, transport.HeartbeatAck{Leader: "coordinator", Drain: member.draining}.Append(nil)), nil
}

// leave lets a replica go that holds nothing; one that does is asked to come again, when its shards are elsewhere.
func (r *roll) leave(_ context.Context, m transport.Message) (transport.Message, error) {
	leave, err := transport.DecodeLeave(m.Payload)
	if err != nil {
		return transport.Message{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	member, err := r.registry.beat(r.now(), leave.Token)
	if err != nil {
		return transport.Message{}, err
	}
	if member.draining = true; leave.Draining && r.members[member.id] != nil {
		return transport.Message{}, fmt.Errorf("%w: replica %s still holds shards", transport.ErrNotReady, member.id)
	}
	r.lose(member.id, errors.New("it left"))
	r.registry.drop(member.id)
	return m.Reply(transport.TypeLeave, nil), nil
}

func (r *roll) living() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.registry.living()
}

func (r *roll) drop(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lose(id, errors.New("it was lost"))
	r.registry.drop(id)
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
		m.ctx, m.cancel = context.WithCancelCause(context.Background())
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
