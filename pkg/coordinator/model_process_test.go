package coordinator

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// process is a replica. Each of its groups works in a coroutine, which waits for nothing but messages.
type process struct {
	id          string
	net         *network
	incarnation uint64
	token       uint64
	dead        bool
	leaves      bool
	hangs       time.Time // until then nothing reaches it, and it reaches nobody

	gate  transport.Gate
	taken replica.Sequence
	giver *transport.Giver
	made  map[transport.Key]uint64 // the generation in which a blob was made: nobody but the invariant looks at it
	early []func()                 // requests for blobs that are not there yet
	mesh  *paths
	last  *order
	queue []*order

	groups []*trainee
	tasks  []*task
	poking bool
	poked  bool
}

// paths is the mesh of a generation.
type paths struct {
	generation uint64
	holders    []string
	over       bool
	local      map[engine.Key][]byte
	brought    map[transport.Key]blob // by others, unasked
}

// order is a command under way, or done.
type order struct {
	cmd     replica.Command
	mesh    *paths
	answer  *replica.Answer // nil while it is under way
	waiting []func(any, error)
	started bool
}

// blob is what travels, with the generation of its maker.
type blob struct {
	data []byte
	made uint64
}

var (
	errOver  = errors.New("the generation is over")
	errApart = errors.New("processes have come apart")
)

func newProcess(n *network, id string, incarnation uint64) *process {
	return &process{id: id, net: n, incarnation: incarnation, giver: transport.NewGiver(), made: map[transport.Key]uint64{}}
}

// stop is kill -9.
func (p *process) stop() {
	p.dead = true
	for _, t := range p.tasks {
		t.stop()
	}
}

// renew registers, keeps the lease or gives it back.
func (p *process) renew() {
	n, token := p.net, p.token
	send := func(t transport.Type, payload []byte, handle transport.Handler, heard func(transport.Message, error)) {
		n.post(p.id, "", func() {
			m, err := handle(context.Background(), transport.Message{Header: transport.Header{Type: t}, Payload: payload})
			n.post("", p.id, func() {
				if !p.dead && p.token == token {
					heard(m, err)
				}
			})
		})
	}
	switch {
	case token == 0:
		who := transport.Register{Replica: p.id, Incarnation: p.incarnation}
		send(transport.TypeRegister, who.Append(nil), n.register, func(m transport.Message, err error) {
			if err != nil {
				return
			}
			grant, err := transport.DecodeGrant(m.Payload)
			if err != nil {
				panic(err)
			}
			p.token = grant.Token
		})
	case p.leaves:
		send(transport.TypeLeave, transport.Leave{Token: token, Draining: true}.Append(nil), n.leave, func(_ transport.Message, err error) {
			if err == nil || errors.Is(err, transport.ErrStale) {
				n.past.left++
				n.kill(p.id)
			}
		})
	default:
		send(transport.TypeHeartbeat, transport.Heartbeat{Token: token, State: transport.Active}.Append(nil), n.heartbeat, func(_ transport.Message, err error) {
			if errors.Is(err, transport.ErrStale) {
				p.token = 0
				p.abort(p.gate.Generation())
			}
		})
	}
}

func (p *process) abort(generation uint64) {
	if p.mesh != nil && p.mesh.generation == generation {
		p.mesh.over = true
		p.poke()
	}
}

// command takes a command as a replica does.
func (p *process) command(generation uint64, cmd replica.Command, reply func(any, error)) {
	switch cmd.Op {
	case replica.Abort:
		p.abort(generation)
		reply(&replica.Answer{}, nil)
		return
	case replica.Ping:
		reply(&replica.Answer{}, nil)
		return
	}
	f := p.net.course.faults
	if f.noGeneration && cmd.Op != replica.Open {
		generation = p.gate.Generation()
	}
	repeated, err := p.taken.Take(generation, cmd)
	if err != nil {
		p.net.past.refused++
		reply(nil, err)
		return
	}
	if repeated && !(f.retried && cmd.Op != replica.Open) {
		if p.last.answer != nil {
			reply(p.last.answer, nil)
		} else {
			p.last.waiting = append(p.last.waiting, reply)
		}
		return
	}
	if cmd.Op == replica.Open {
		if p.mesh != nil {
			p.mesh.over = true
			if old := p.mesh.generation; !f.noGeneration {
				p.giver.Release(func(k transport.Key) bool { return k.Generation == old })
			}
		}
		p.mesh = &paths{generation: generation, holders: cmd.Holders, local: map[engine.Key][]byte{}, brought: map[transport.Key]blob{}}
		p.gate.Enter(generation)
	}
	p.last = &order{cmd: cmd, mesh: p.mesh, waiting: []func(any, error){reply}}
	p.queue = append(p.queue, p.last)
	p.poke()
}

// poke lets everything go on that can.
func (p *process) poke() {
	if p.poked = true; p.poking {
		return
	}
	p.poking = true
	defer func() { p.poking = false }()
	for p.poked {
		p.poked = false
		for _, t := range p.tasks {
			t.resume()
		}
		if len(p.queue) == 0 {
			return
		}
		switch o := p.queue[0]; {
		case !o.started:
			o.started, p.poked = true, true
			p.begin(o)
		case p.idle():
			p.finish(o)
			p.queue, p.poked = p.queue[1:], true
		}
	}
}

func (p *process) idle() bool {
	for _, t := range p.tasks {
		if !t.done {
			return false
		}
	}
	return true
}

// begin executes a command in every group.
func (p *process) begin(o *order) {
	p.giver.Release(func(k transport.Key) bool { return k.Kind == transport.KindBulk && k.Scan < o.cmd.Seq })
	p.tasks = nil
	if o.cmd.Op == replica.Open {
		p.groups = nil
		layout := p.net.course.trial.layout
		for group := range layout.Groups {
			if g := newTrainee(p, o.mesh, group); g != nil {
				p.groups = append(p.groups, g)
			}
		}
		return
	}
	for _, g := range p.groups {
		t := &task{}
		g.task = t
		t.next, t.stop = iter.Pull(func(yield func(struct{}) bool) {
			t.yield = yield
			t.answer.Group = g.group
			var data []byte
			if data, t.err = g.execute(o.cmd, &t.answer); t.err == nil && data != nil {
				p.put(replica.BulkKey(o.mesh.generation, o.cmd.Seq, g.group), o.mesh, data)
			}
			if t.err != nil {
				o.mesh.over, p.poked = true, true
			}
		})
		p.tasks = append(p.tasks, t)
	}
}

func (p *process) finish(o *order) {
	o.answer = &replica.Answer{}
	for i, t := range p.tasks {
		if p.groups[i].isLead() {
			o.answer.Groups = append(o.answer.Groups, t.answer)
		}
		if t.err == nil {
			continue
		}
		failed := &replica.Failure{Text: t.err.Error()}
		var lost *replica.LostError
		switch {
		case errors.As(t.err, &lost):
			failed.Lost = lost.Replica
		case errors.Is(t.err, errOver):
			failed.Aborted = true
		}
		if o.answer.Failed == nil || failed.Lost != "" || !failed.Aborted {
			o.answer.Failed = failed
		}
	}
	for _, reply := range o.waiting {
		reply(o.answer, nil)
	}
}

// task is a coroutine.
type task struct {
	next   func() (struct{}, bool)
	stop   func()
	yield  func(struct{}) bool
	done   bool
	answer replica.GroupAnswer
	err    error
}

func (t *task) resume() {
	if !t.done {
		_, goes := t.next()
		t.done = !goes
	}
}

// until waits; false says that the process was killed.
func (t *task) until(there func() bool) bool {
	for !there() {
		if !t.yield(struct{}{}) {
			return false
		}
	}
	return true
}

func (p *process) name(key transport.Key) transport.Key {
	if p.net.course.faults.noGeneration {
		key.Generation = 0
	}
	return key
}

// put keeps a blob for others.
func (p *process) put(key transport.Key, mesh *paths, data []byte) {
	key = p.name(key)
	if p.net.course.faults.noGeneration {
		p.giver.Release(func(k transport.Key) bool { return k == key })
	}
	if err := p.giver.Put(key, data); err != nil {
		panic(violation(err.Error()))
	}
	p.made[key] = mesh.generation
	for _, ask := range p.early {
		p.net.post(p.id, p.id, ask)
	}
	p.early = nil
}

// give answers a request for a blob, when it is there.
func (p *process) give(key transport.Key, reply func(any, error)) {
	if p.dead {
		return
	}
	if err := p.gate.Check(transport.Header{Type: transport.TypeGet, Generation: key.Generation}); err != nil && !p.net.course.faults.noGeneration {
		reply(nil, err)
		return
	}
	data, err := given(p.giver, p.name(key))
	if errors.Is(err, transport.ErrNotReady) {
		p.early = append(p.early, func() { p.give(key, reply) })
		return
	}
	reply(blob{data, p.made[p.name(key)]}, err)
}

// wires are the names of kinds on the wire.
var wires = map[engine.Kind]transport.Kind{
	engine.EnergiesBlob: transport.KindEnergies, engine.RowsBlob: transport.KindRows, engine.ThetaBlob: transport.KindTheta,
	engine.StatesBlob: transport.KindStates, engine.NegativesBlob: transport.KindNegatives, engine.GatheredBlob: transport.KindGathered,
}

func (m *paths) wire(k engine.Key) transport.Key {
	return transport.Key{Kind: wires[k.Kind], Generation: m.generation, Scan: k.Scan, Shard: k.Shard, Peer: k.To}
}

// postBlob and pullBlob are what engine.Mesh is to a group.
func (p *process) postBlob(m *paths, key engine.Key, data []byte) {
	if m.over {
		return
	}
	if _, taken := m.local[key]; taken {
		panic(violation(fmt.Sprintf("%v made twice", key)))
	}
	m.local[key] = data
	p.put(m.wire(key), m, data)
	if key.Kind == engine.StatesBlob {
		return
	}
	others := slices.Compact(slices.Sorted(slices.Values(m.holders)))
	if key.Kind == engine.RowsBlob {
		others = m.holders[key.To : key.To+1]
	}
	for _, id := range others {
		if id != p.id {
			p.net.post(p.id, id, func() { p.net.processes[id].bring(m.wire(key), blob{data, m.generation}) })
		}
	}
}

// bring takes a blob that another process brings.
func (p *process) bring(key transport.Key, b blob) {
	if p == nil || p.dead || p.mesh == nil {
		return
	}
	if err := p.gate.Check(transport.Header{Type: transport.TypePut, Generation: key.Generation}); err != nil && !p.net.course.faults.noGeneration {
		return
	}
	key = p.name(key)
	if _, came := p.mesh.brought[key]; !came {
		p.mesh.brought[key] = b
		p.poke()
	}
}

func (p *process) pullBlob(t *task, m *paths, key engine.Key) ([]byte, error) {
	holder := m.holders[key.Shard]
	if holder == p.id {
		if !t.until(func() bool { return m.over || m.local[key] != nil }) || m.local[key] == nil {
			return nil, errOver
		}
		return m.local[key], nil
	}
	return p.fetch(t, m, holder, m.wire(key))
}

// fetch pulls a blob from another process, or from the coordinator.
func (p *process) fetch(t *task, m *paths, holder string, key transport.Key) ([]byte, error) {
	if m.over {
		return nil, errOver
	}
	a := p.net.request(p, holder, func(other *process, reply func(any, error)) {
		if other == nil {
			data, err := given(p.net.giver, key)
			reply(blob{data, key.Generation}, err)
			return
		}
		other.give(key, reply)
	})
	came := false
	alive := t.until(func() bool {
		_, came = m.brought[p.name(key)]
		return m.over || a.done || came
	})
	if alive && !m.over && came { // whatever comes first
		a.done, a.answer, a.err = true, m.brought[p.name(key)], nil
	}
	switch {
	case !alive, m.over:
		a.done = true
		return nil, errOver
	case a.err != nil:
		return nil, &replica.LostError{Replica: holder, Err: a.err}
	}
	b := a.answer.(blob)
	if b.made != m.generation {
		panic(violation(fmt.Sprintf("generation %d uses %v of generation %d", m.generation, key, b.made)))
	}
	return b.data, nil
}

// dropBlobs is engine.Mesh.Release.
func (p *process) dropBlobs(m *paths, shard uint32, scan uint64) {
	for key := range m.local {
		if key.Shard == shard && key.Scan < scan {
			delete(m.local, key)
		}
	}
	p.giver.Release(func(k transport.Key) bool {
		return k.Generation == m.generation && k.Kind != transport.KindBulk && k.Shard == shard && k.Scan < scan
	})
}
