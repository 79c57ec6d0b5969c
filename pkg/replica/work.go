package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// worker does what the coordinator's commands say, one after the other.
type worker struct {
	self    string
	place   Meeting
	conn    *transport.Conn
	giver   *transport.Giver
	gate    *transport.Gate // of the exchange between replicas; its generation is the worker's
	backend *backend.Backend
	exp     Experiment
	log     *slog.Logger
	counts  meshCounts
	step    atomic.Uint64 // for heartbeats
	pace    atomic.Int64  // ns a step
	status  *Status
	leave   func() // told by the coordinator

	mu    sync.Mutex
	taken Sequence
	last  *call // the newest command in order
	mesh  *Mesh // of the generation that last belongs to

	groups []*member // that it has shards of; touched by the running command alone
}

// member is a group's trainer with its side of the averaging.
type member struct {
	Member
	group int
	side  *averaging.Group // nil where nothing travels
}

// call is a command under way, or done.
type call struct {
	done   chan struct{} // closed when answer is there
	answer []byte
}

// handle answers commands; it is a transport.Handler. One that takes long is answered with ErrNotReady, and asked for again.
func (w *worker) handle(ctx context.Context, m transport.Message) (transport.Message, error) {
	cmd, err := Decode[Command](m.Payload)
	if err != nil {
		return transport.Message{}, err
	}
	switch cmd.Op {
	case Abort:
		w.abort(m.Generation)
		return m.Reply(transport.TypeCommand, nil), nil
	case Ping:
		return m.Reply(transport.TypeCommand, nil), nil
	case Leave:
		if current := w.gate.Generation(); m.Generation < current { // of a coordinator that leads no more
			return transport.Message{}, &transport.StaleError{Message: m.Generation, Current: current}
		}
		w.leave()
		return m.Reply(transport.TypeCommand, nil), nil
	}
	c, err := w.begin(m.Generation, cmd)
	if err != nil {
		return transport.Message{}, err
	}
	held := time.NewTimer(Hold)
	defer held.Stop()
	select {
	case <-c.done:
		return m.Reply(transport.TypeCommand, c.answer), nil
	case <-held.C:
		return transport.Message{}, fmt.Errorf("%w: %s goes on", transport.ErrNotReady, cmd.Op)
	case <-ctx.Done():
		return transport.Message{}, ctx.Err()
	}
}

// arrived takes what another replica brings.
func (w *worker) arrived(b transport.Brought) error {
	w.mu.Lock()
	mesh := w.mesh
	w.mu.Unlock()
	if mesh == nil {
		return &transport.StaleError{Message: b.Key.Generation}
	}
	return mesh.Arrived(b)
}

// begin lets a command run behind the one before it, or finds it under way.
func (w *worker) begin(generation uint64, cmd Command) (*call, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.last
	if repeated, err := w.taken.Take(generation, cmd); repeated || err != nil {
		return before, err
	}
	if cmd.Op == Open {
		if w.mesh != nil {
			w.mesh.close()
		}
		w.mesh = newMesh(w.conn, w.giver, w.place.Subjects, w.self, generation, cmd.Holders, w.exp.Layout, &w.counts)
		w.mesh.status = w.status
		w.gate.Enter(generation)
	}
	c, mesh := &call{done: make(chan struct{})}, w.mesh
	w.last = c
	go func() {
		if before != nil {
			<-before.done
		}
		w.status.begins(cmd.Op)
		answer, err := w.execute(mesh, cmd)
		w.status.ends()
		if cmd.Op == Run {
			answer.Moved = w.counts.read()
			answer.Moved.Stale = w.conn.Counts().Refused["generation"]
		}
		if err != nil {
			answer.Failed = failureOf(err)
			w.log.Debug("command failed", "command", cmd.Op, "generation", generation, "error", err)
		}
		c.answer = Encode(answer)
		close(c.done)
	}()
	return c, nil
}

// abort ends the waits of a generation.
func (w *worker) abort(generation uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mesh != nil && w.mesh.generation == generation {
		w.mesh.abort(errAborted)
	}
}

// close ends what runs and frees the device memory.
func (w *worker) close() {
	w.mu.Lock()
	last := w.last
	if w.mesh != nil {
		w.mesh.close()
	}
	w.mu.Unlock()
	if last != nil {
		<-last.done
	}
	w.drop()
}

func (w *worker) drop() {
	for _, m := range w.groups {
		m.Close()
	}
	w.groups = nil
}

func (w *worker) execute(mesh *Mesh, cmd Command) (Answer, error) {
	w.giver.Release(func(k transport.Key) bool { return k.Kind == transport.KindBulk && k.Scan < cmd.Seq })
	if cmd.Op == Open {
		return Answer{}, w.open(mesh)
	}
	do, err := w.action(mesh, cmd)
	if err != nil {
		return Answer{}, err
	}
	// Groups need not wait for each other: they meet at averaging rounds alone.
	answers, errs := make([]GroupAnswer, len(w.groups)), make([]error, len(w.groups))
	var wait sync.WaitGroup
	for i, m := range w.groups {
		wait.Go(func() {
			answers[i].Group = m.group
			var data []byte
			if data, errs[i] = do(m, &answers[i]); data != nil && errs[i] == nil {
				answers[i].Bulk = true
				errs[i] = w.giver.Put(BulkKey(mesh.generation, cmd.Seq, m.group), data)
			}
			if errs[i] != nil && cmd.Op.collective() {
				mesh.abort(errAborted) // other groups may wait for this one, and this answer for them
			}
		})
	}
	wait.Wait()
	var out Answer
	for i, m := range w.groups {
		if m.Lead() {
			out.Groups = append(out.Groups, answers[i])
		}
	}
	return out, errors.Join(errs...)
}

// open makes a trainer for every group that the generation gives this replica shards of.
func (w *worker) open(mesh *Mesh) error {
	w.drop()
	shards := make([][]uint32, w.exp.Layout.Groups)
	if n := w.exp.Layout.NumShards(); len(mesh.holders) != n {
		return fmt.Errorf("generation %d: holders of %d shards, want %d", mesh.generation, len(mesh.holders), n)
	}
	for shard, holder := range mesh.holders {
		if holder == w.self {
			group := shard / w.exp.Layout.PerGroup()
			shards[group] = append(shards[group], uint32(shard))
		}
	}
	for group, local := range shards {
		if len(local) == 0 {
			continue
		}
		m, err := w.exp.Member(w.backend, group, local, mesh)
		if err != nil {
			return err
		}
		w.groups = append(w.groups, &member{Member: m, group: group})
	}
	return nil
}

// action is what a command does with each group. What it returns, if anything, is given away as bulk.
func (w *worker) action(mesh *Mesh, cmd Command) (func(m *member, a *GroupAnswer) ([]byte, error), error) {
	from, err := transport.ParseToken(cmd.From)
	if err != nil {
		return nil, err
	}
	// bulk is what the command brings: the same for all groups, but for Restore.
	bulk := func(group int) ([]byte, error) {
		data, err := w.conn.Pull(mesh.ctx, transport.Pull{Subject: w.place.Subjects.Gives(from), Key: BulkKey(mesh.generation, cmd.Seq, group), Max: transport.MaxBlob, Grace: meshGrace})
		switch {
		case err == nil, errors.Is(err, transport.ErrTooLarge):
		case mesh.ctx.Err() != nil:
			err = context.Cause(mesh.ctx)
		default: // no failure of the training: whoever leads then begins a generation
			err = fmt.Errorf("%w: %w", errAborted, err)
		}
		return data, err
	}
	var theta []float32
	var brought []byte
	if cmd.Bulk && cmd.Op != Restore {
		var err error
		if brought, err = bulk(0); err != nil {
			return nil, err
		}
	}
	switch cmd.Op {
	case Start:
		if cmd.Bulk {
			var err error
			if theta, err = Numbers[float32](brought); err != nil {
				return nil, err
			}
		}
		return func(m *member, a *GroupAnswer) ([]byte, error) { return nil, w.start(m, a, theta) }, nil
	case Restore:
		return func(m *member, a *GroupAnswer) ([]byte, error) {
			data, err := bulk(m.group)
			if err != nil {
				return nil, err
			}
			return nil, w.restore(m, a, data)
		}, nil
	case Run:
		return func(m *member, a *GroupAnswer) ([]byte, error) { return nil, w.run(m, a, cmd.To) }, nil
	case Reset:
		return func(m *member, _ *GroupAnswer) ([]byte, error) {
			if c, ok := m.Member.(Chained); ok {
				c.ResetPairs()
			}
			return nil, nil
		}, nil
	case Cut:
		return func(m *member, _ *GroupAnswer) ([]byte, error) { return w.cut(m) }, nil
	case Contribute:
		return func(m *member, _ *GroupAnswer) ([]byte, error) { return m.contribute() }, nil
	case Update:
		return func(m *member, _ *GroupAnswer) ([]byte, error) {
			return nil, m.update(w.exp.Averaging, brought, slices.Contains(cmd.Refused, m.group))
		}, nil
	case Theta, Params, Energies, Chains:
		return func(m *member, _ *GroupAnswer) ([]byte, error) {
			return m.look(cmd.Op, brought)
		}, nil
	}
	return nil, fmt.Errorf("%w: %s", transport.ErrUnhandled, cmd.Op)
}

// start starts a group with given weights, or with those that the seed draws.
func (w *worker) start(m *member, a *GroupAnswer, theta []float32) (err error) {
	if theta != nil {
		err = m.StartAt(theta)
	} else {
		err = m.Start()
	}
	if err != nil {
		return err
	}
	a.Facts = m.facts()
	if !Rounds(w.exp.Averaging) {
		return nil
	}
	if theta, err = m.Weights(); err != nil {
		return err
	}
	m.side, err = averaging.NewGroup(w.exp.Averaging, theta)
	return err
}

func (w *worker) restore(m *member, a *GroupAnswer, data []byte) error {
	cut, err := DecodeCut(data)
	if err != nil {
		return err
	}
	if err := m.Restore(cut); err != nil {
		return err
	}
	w.step.Store(uint64(cut.Step))
	a.Facts = m.facts()
	if !Rounds(w.exp.Averaging) {
		return nil
	}
	theta, err := checkpoint.Values[float32](cut.Files[AveragingFile], "theta", -1)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	var residual []float32
	for _, t := range cut.Files[AveragingFile] {
		if t.Name == "residual" {
			residual, _ = t.Data.([]float32)
		}
	}
	if m.side, err = averaging.NewGroup(w.exp.Averaging, theta); err != nil {
		return err
	}
	return m.side.Restore(theta, residual)
}

func (w *worker) run(m *member, a *GroupAnswer, to int) error {
	for m.Step() < to {
		start := time.Now()
		report, err := m.TrainStep()
		if err != nil {
			return err
		}
		if m.Lead() {
			a.Reports = append(a.Reports, report)
		}
		w.step.Store(uint64(m.Step()))
		took := time.Since(start)
		w.pace.Store(int64(took))
		w.status.made(m.Step(), took)
	}
	a.Facts = m.facts()
	return nil
}

// cut is the group's cut, of its lead; nil of others, who have given it their part.
func (w *worker) cut(m *member) ([]byte, error) {
	cut, err := m.Cut()
	switch {
	case errors.Is(err, engine.ErrNotLead):
		return nil, nil
	case err != nil:
		return nil, err
	}
	if m.side != nil {
		if residual := m.side.Residual(); residual != nil {
			cut.Files[AveragingFile] = []checkpoint.Tensor{{Name: "residual", Shape: []int{len(residual)}, Data: residual}}
		}
	}
	return EncodeCut(cut)
}

// contribute is what the group's lead sends to an averaging round.
func (m *member) contribute() ([]byte, error) {
	if !m.Lead() {
		return nil, nil
	}
	theta, err := m.Weights()
	if err != nil {
		return nil, err
	}
	return m.side.Contribution(theta).Bytes(), nil
}

// update goes on from the parameters that a round came to.
func (m *member) update(cfg averaging.Config, data []byte, refused bool) error {
	theta, err := m.Weights()
	if err != nil {
		return err
	}
	v, err := averaging.Parse(cfg.Format, len(theta), data)
	if err != nil {
		return err
	}
	if refused {
		m.side.Forget()
	}
	if theta, err = m.side.Apply(v); err != nil {
		return err
	}
	return m.SetTheta(theta)
}

// look answers questions to group 0. Chains are gathered by all who hold some, in every group: the calls of all groups are the
// same. The rest is with the lead.
func (m *member) look(op Op, brought []byte) ([]byte, error) {
	if op == Chains {
		c, ok := m.Member.(Chained)
		if !ok {
			return nil, errors.New("chains: the loss keeps none")
		}
		x, err := c.TargetChains()
		if err != nil || !m.Lead() || m.group != 0 {
			return nil, err
		}
		return Bytes(x), nil
	}
	if !m.Lead() || m.group != 0 {
		return nil, nil
	}
	switch op {
	case Theta:
		theta, err := m.Theta()
		return Bytes(theta), err
	case Params:
		tensors, err := m.Params()
		if err != nil {
			return nil, err
		}
		return EncodeTensors(tensors)
	}
	x, err := Numbers[float32](brought)
	if err != nil {
		return nil, err
	}
	e, err := m.Energies(x)
	return Bytes(e), err
}

// facts are nil without chains.
func (m *member) facts() *Facts {
	c, ok := m.Member.(Chained)
	if !ok || !m.Lead() {
		return nil
	}
	return &Facts{Stats: c.Stats(), TripRate: c.TripRate(), Exploration: c.Exploration(), Adapted: c.Adapted(), StepSizes: c.StepSizes()}
}
