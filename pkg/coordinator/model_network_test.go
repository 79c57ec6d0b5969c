package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/replica"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// network is a crew whose messages go astray: a roll, a giver, processes, and what is on its way between them. A turn is one
// event. Whoever waits for an answer takes turns until it is there.
type network struct {
	*roll
	course    *course
	giver     *transport.Giver
	processes map[string]*process
	messages  []message
	asks      []*ask // not answered yet: sent again at every tick
	clock     time.Time
	turns     int
	starts    uint64
	epoch     int // of the coordinator: an experiment of its own
	absent    []absence

	kills, hangs, leaves, restarts, falls int // that may still happen
	past                                  events

	shelf *shelf
	hand  *hand
}

// message is on its way between two processes; "" is the coordinator.
type message struct {
	epoch    int
	from, to string
	arrive   func()
}

// absence is a process that comes back.
type absence struct {
	id    string
	until time.Time
}

// ask is a request and, once it is done, its answer.
type ask struct {
	from   *process // nil: the coordinator
	to     string   // "": the coordinator
	handle func(p *process, reply func(any, error))
	done   bool
	answer any
	err    error
}

// events are how often something happened to the processes of courses.
type events struct{ killed, hung, left, restarted, deposed, lost, refused int }

func (e *events) add(o events) {
	e.killed, e.hung, e.left = e.killed+o.killed, e.hung+o.hung, e.left+o.left
	e.restarted, e.deposed, e.lost, e.refused = e.restarted+o.restarted, e.deposed+o.deposed, e.lost+o.lost, e.refused+o.refused
}

// mostTurns is more than any course needs that does not stand still.
const mostTurns = 30_000

func newNetwork(c *course) *network {
	n := &network{course: c, clock: time.Unix(0, 0)}
	if !c.calm {
		n.kills, n.hangs, n.leaves, n.restarts, n.falls = c.rand.IntN(3), c.rand.IntN(2), c.rand.IntN(2), c.rand.IntN(2), c.rand.IntN(3)
	}
	n.begin()
	return n
}

func (n *network) now() time.Time { return n.clock }

// begin starts a coordinator that knows nothing. Replicas end when the one before does; its messages may still come.
func (n *network) begin() {
	n.end()
	n.epoch++
	n.absent = nil
	n.shelf = &shelf{leases: map[string]Lease{}, cut: n.course.saved}
	n.processes = map[string]*process{}
	n.elect()
}

// elect lets another coordinator lead the same replicas: it knows what is on the shelf. The one before has not noticed yet,
// and what is on its way to it still comes there.
func (n *network) elect() {
	if n.hand != nil {
		n.hand.closed = true
	}
	if n.chance(1, 2) {
		n.shelf.commit()
	}
	n.shelf.pending = nil
	n.hand = &hand{shelf: n.shelf, net: n}
	n.roll, n.giver, n.asks = newRoll(context.Background(), "coordinator", "", n.hand, n.now), transport.NewGiver(), slices.DeleteFunc(n.asks, func(a *ask) bool { return a.from == nil })
	leases, _ := n.hand.Leases()
	n.recall(leases)
}

func (n *network) end() {
	for _, p := range n.processes {
		p.stop()
	}
}

func (n *network) chance(one, of int) bool { return !n.course.calm && n.course.rand.IntN(of) < one }

func (n *network) start(id string) {
	n.starts++
	n.processes[id] = newProcess(n, id, n.starts)
}

// turn is one event.
func (n *network) turn() {
	if n.turns++; n.turns > mostTurns {
		panic(violation("nothing goes on"))
	}
	if len(n.messages) == 0 || n.chance(1, 60) {
		n.tick()
		return
	}
	i := 0
	if !n.course.calm {
		i = n.course.rand.IntN(len(n.messages))
	}
	m := n.messages[i]
	if !n.chance(1, 25) { // else it comes once more, later
		n.messages[i] = n.messages[len(n.messages)-1]
		n.messages = n.messages[:len(n.messages)-1]
	}
	if n.chance(1, 25) || n.cut(m.from) || n.cut(m.to) || m.epoch != n.epoch { // lost; of another experiment: refused
		n.past.lost++
		return
	}
	m.arrive()
}

// cut says whether a process neither sends nor receives.
func (n *network) cut(id string) bool {
	p := n.processes[id]
	return p != nil && n.clock.Before(p.hangs)
}

// tick lets time go on: leases run, what was not answered is sent again, and now and then something happens to a process.
func (n *network) tick() {
	n.clock = n.clock.Add(replica.Heartbeat / 2)
	if n.course.training && n.chance(1, 4) {
		n.happen()
	}
	n.absent = slices.DeleteFunc(n.absent, func(a absence) bool {
		if n.clock.Before(a.until) || n.processes[a.id] != nil {
			return false
		}
		n.start(a.id)
		return true
	})
	for _, id := range n.ids() {
		n.processes[id].renew()
	}
	n.expire()
	n.asks = slices.DeleteFunc(n.asks, func(a *ask) bool { return a.done || a.from != nil && a.from.dead })
	for _, a := range n.asks {
		n.send(a)
	}
}

func (n *network) ids() []string {
	var ids []string
	for id := range n.processes {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// happen is something that the protocol has to live with.
func (n *network) happen() {
	ids := n.ids()
	if len(ids) == 0 {
		return
	}
	id := ids[n.course.rand.IntN(len(ids))]
	switch n.course.rand.IntN(5) {
	case 0:
		if n.kills--; n.kills >= 0 {
			n.past.killed++
			n.kill(id)
			if n.chance(1, 2) { // it is started again, or another in its stead
				back := absence{id, n.clock.Add(time.Duration(n.course.rand.IntN(8)) * time.Second)}
				if n.chance(1, 2) {
					back.id = fmt.Sprint(10 + n.kills)
				}
				n.absent = append(n.absent, back)
			}
		}
	case 1:
		if n.hangs--; n.hangs >= 0 {
			n.past.hung++
			n.processes[id].hangs = n.clock.Add(time.Duration(n.course.rand.IntN(10)) * time.Second)
		}
	case 2:
		if n.leaves--; n.leaves >= 0 {
			n.processes[id].leaves = true
			n.absent = append(n.absent, absence{fmt.Sprint(20 + n.leaves), n.clock})
		}
	case 3:
		if n.restarts--; n.restarts >= 0 {
			n.past.restarted++
			panic(restart{})
		}
	case 4:
		if n.falls--; n.falls >= 0 {
			n.past.deposed++
			panic(deposed{})
		}
	}
}

func (n *network) kill(id string) {
	n.processes[id].stop()
	delete(n.processes, id)
}

func (n *network) post(from, to string, arrive func()) {
	n.messages = append(n.messages, message{n.epoch, from, to, arrive})
}

// request sends a question until it is answered.
func (n *network) request(from *process, to string, handle func(p *process, reply func(any, error))) *ask {
	a := &ask{from: from, to: to, handle: handle}
	n.asks = append(n.asks, a)
	n.send(a)
	return a
}

func (n *network) send(a *ask) {
	from := ""
	if a.from != nil {
		from = a.from.id
	}
	reply := func(answer any, err error) {
		n.post(a.to, from, func() {
			if a.done || a.from != nil && a.from.dead || err != nil && meaningOf(err) == again {
				return
			}
			a.done, a.answer, a.err = true, answer, err
			if a.from != nil {
				a.from.poke()
			}
		})
	}
	n.post(from, a.to, func() {
		p := n.processes[a.to]
		if a.to != "" && p == nil {
			reply(nil, transport.ErrNoResponders)
			return
		}
		a.handle(p, reply)
	})
}

// ask implements crew.
func (n *network) ask(to []string, generation uint64, cmd replica.Command, failed func()) ([]replica.Answer, []error) {
	answers, errs, asks := make([]replica.Answer, len(to)), make([]error, len(to)), make([]*ask, len(to))
	for i, id := range to {
		asks[i] = n.request(nil, id, func(p *process, reply func(any, error)) { p.command(generation, cmd, reply) })
	}
	told := false
	for waiting := len(to); waiting > 0; {
		for i, a := range asks {
			if a == nil {
				continue
			}
			switch ctx := n.member(to[i]); {
			case a.done && a.err == nil:
				answers[i] = *a.answer.(*replica.Answer)
			case ctx.Err() != nil:
				errs[i] = context.Cause(ctx)
			case a.done && meaningOf(a.err) == unwilling:
				answers[i].Failed = &replica.Failure{Text: a.err.Error()}
			case a.done:
				errs[i] = a.err
			default:
				continue
			}
			a.done, asks[i] = true, nil
			waiting--
			if !told && (errs[i] != nil || answers[i].Failed != nil) {
				told = true
				failed()
			}
		}
		if waiting > 0 {
			n.turn()
		}
	}
	return answers, errs
}

// await takes turns until a is done, the member's lease ends, or the patience is over.
func (n *network) await(a *ask, id string, patience time.Duration) error {
	ctx, start := n.member(id), n.clock
	for !a.done {
		switch {
		case ctx.Err() != nil:
			a.done, a.err = true, context.Cause(ctx)
		case patience > 0 && n.clock.Sub(start) > patience:
			a.done, a.err = true, context.DeadlineExceeded
		default:
			n.turn()
		}
	}
	return a.err
}

// gather implements crew: a course never waits for replicas that nobody starts.
func (n *network) gather(want int) error {
	for len(n.living()) < want {
		n.turn()
	}
	return nil
}

// late implements crew: nothing here takes time.
func (n *network) late() int { return 0 }

// breathe implements crew.
func (n *network) breathe() { n.tick() }

// abort implements crew.
func (n *network) abort(generation uint64) {
	var asks []*ask
	ids := n.enlisted()
	for _, id := range ids {
		asks = append(asks, n.request(nil, id, func(p *process, reply func(any, error)) {
			p.command(generation, replica.Command{Op: replica.Abort}, reply)
		}))
	}
	for i, id := range ids {
		if err := n.await(asks[i], id, 0); errors.Is(err, transport.ErrNoResponders) {
			n.lose(id, err)
		}
	}
}

// reachable implements crew.
func (n *network) reachable(id string, generation uint64) bool {
	return n.await(n.request(nil, id, func(p *process, reply func(any, error)) {
		p.command(generation, replica.Command{Op: replica.Ping}, reply)
	}), id, pingTime) == nil
}

// pull implements crew.
func (n *network) pull(id string, key transport.Key) ([]byte, error) {
	a := n.request(nil, id, func(p *process, reply func(any, error)) { p.give(key, reply) })
	if err := n.await(a, id, 0); err != nil {
		return nil, err
	}
	return a.answer.(blob).data, nil
}

// give and release implement crew.
func (n *network) give(key transport.Key, data []byte) error {
	return n.giver.Put(key, data)
}

func (n *network) release() { n.giver.Release(func(transport.Key) bool { return true }) }

// dismiss and close implement crew; the end of a course is that of its processes.
func (n *network) dismiss(uint64) {}
func (n *network) close()         {}

var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// given is what a giver says to a request, without waiting.
func given(g *transport.Giver, key transport.Key) ([]byte, error) {
	m, err := g.Handle(ended, transport.Message{
		Header:  transport.Header{Type: transport.TypeGet, Generation: key.Generation, Scan: key.Scan, Shard: key.Shard, Peer: key.Peer},
		Payload: []byte{byte(key.Kind)},
	})
	if err != nil {
		return nil, err
	}
	return m.Payload[transport.MaxPayload-transport.ChunkSize:], nil
}
