package coordinator

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// registry knows the replicas that live, by their leases. It has no clock: every event brings its time.
type registry struct {
	platform string // that all must have; "" until the first has registered
	ttl      time.Duration
	members  map[string]*membership
}

// membership is one lease.
type membership struct {
	id          string
	token       uint64
	incarnation uint64
	heard       time.Time
	draining    bool // wants to leave
}

func newRegistry(platform string, ttl time.Duration) *registry {
	return &registry{platform: platform, ttl: ttl, members: map[string]*membership{}}
}

// claim says whether a replica may have a lease. A second living process of an id is told to wait (transport.ErrNotReady), one
// of another platform is refused (transport.ErrVersion). The token is 0 where the lease is yet to be written down and admitted.
func (r *registry) claim(now time.Time, m transport.Register) (token uint64, err error) {
	if _, err := transport.ParseToken(m.Replica); err != nil {
		return 0, err
	}
	if r.platform != "" && m.Platform != r.platform {
		return 0, fmt.Errorf("%w: replica %s is %q, want %q: the numbers would differ", transport.ErrVersion, m.Replica, m.Platform, r.platform)
	}
	if old := r.members[m.Replica]; old != nil {
		if old.incarnation != m.Incarnation && now.Sub(old.heard) < r.ttl {
			return 0, fmt.Errorf("%w: another replica %s lives", transport.ErrNotReady, m.Replica)
		}
		if old.incarnation == m.Incarnation { // its first grant got lost
			old.heard = now
			return old.token, nil
		}
	}
	return 0, nil
}

// admit begins a lease. The first says what platform all must have.
func (r *registry) admit(now time.Time, m transport.Register, token uint64) {
	if r.platform == "" {
		r.platform = m.Platform
	}
	r.members[m.Replica] = &membership{id: m.Replica, token: token, incarnation: m.Incarnation, heard: now}
}

// beat renews the lease of a token; an unknown one is transport.ErrStale.
func (r *registry) beat(now time.Time, token uint64) (*membership, error) {
	for _, m := range r.members {
		if m.token == token {
			m.heard = now
			return m, nil
		}
	}
	return nil, fmt.Errorf("%w: lease %d is over", transport.ErrStale, token)
}

// expire ends the leases that were not renewed in time, and returns them.
func (r *registry) expire(now time.Time) []*membership {
	var lost []*membership
	for id, m := range r.members {
		if now.Sub(m.heard) >= r.ttl {
			lost = append(lost, m)
			delete(r.members, id)
		}
	}
	slices.SortFunc(lost, func(a, b *membership) int { return byID(a.id, b.id) })
	return lost
}

// living are the ids with a lease that do not want to leave, in order.
func (r *registry) living() []string {
	var ids []string
	for _, id := range slices.SortedFunc(maps.Keys(r.members), byID) {
		if !r.members[id].draining {
			ids = append(ids, id)
		}
	}
	return ids
}

// byID orders numbers as numbers.
func byID(a, b string) int {
	na, errA := strconv.Atoi(a)
	nb, errB := strconv.Atoi(b)
	if errA == nil && errB == nil {
		return cmp.Compare(na, nb)
	}
	return cmp.Compare(a, b)
}

// Spread says which of several replicas, by number, holds each of n shards of a training that begins: neighbouring shards go
// together, and replicas beyond the number of shards get none.
func Spread(n, replicas int) []int {
	holders := make([]int, n)
	for shard := range holders {
		holders[shard] = shard * min(replicas, n) / n
	}
	return holders
}

// placed says who holds each of n shards. Those who held some keep them, as far as nobody holds more than his share; the
// rest goes to whoever holds least. At first every replica gets neighbouring shards. Without ids it is nil.
func placed(n int, ids []string, before []string) []string {
	if len(ids) == 0 {
		return nil
	}
	holders := make([]string, n)
	if before == nil {
		for shard, i := range Spread(n, len(ids)) {
			holders[shard] = ids[i]
		}
		return holders
	}
	share := (n + len(ids) - 1) / len(ids)
	held := map[string]int{}
	for shard, id := range before {
		if slices.Contains(ids, id) && held[id] < share {
			holders[shard] = id
			held[id]++
		}
	}
	for shard, id := range holders {
		if id == "" {
			id = slices.MinFunc(ids, func(a, b string) int { return cmp.Or(cmp.Compare(held[a], held[b]), byID(a, b)) })
			holders[shard] = id
			held[id]++
		}
	}
	return holders
}

// heaviest is the largest number of shards that anybody holds.
func heaviest(holders []string) int {
	held, most := map[string]int{}, 0
	for _, id := range holders {
		held[id]++
		most = max(most, held[id])
	}
	return most
}

// nextStop is the step up to which all may train from step at without a word of the coordinator: the next multiple of any of
// the intervals, the next of the marks, or the end.
func nextStop(at, end int, intervals, marks []int) int {
	next := end
	for _, every := range intervals {
		if every > 0 {
			next = min(next, (at/every+1)*every)
		}
	}
	for _, mark := range marks {
		if mark > at {
			next = min(next, mark)
		}
	}
	return next
}
