package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// Config says what a [Fleet] trains, and with whom.
type Config struct {
	Server *transport.Server // in this process; or
	URL    string
	Token  string // of the experiment, see replica.Meet

	Experiment replica.Offer
	Layout     engine.Layout
	Averaging  averaging.Config
	Platform   string // that replicas must have, see replica.Platform; "": that of the first
	Replicas   int    // to wait for before the start
	Steps      int    // in all
	Every      []int  // the caller wants to look at the replicas after every multiple of these steps

	Notice func(string) // is told what people should know: losses, new generations; nil: nobody
	Log    *slog.Logger // nil: nothing is logged
}

func (c Config) stops() []int {
	if replica.Rounds(c.Averaging) {
		return append(slices.Clip(c.Every), c.Averaging.Every)
	}
	return c.Every
}

// desk is where replicas register and are reached. It is safe for concurrent use.
type desk struct {
	conn  *transport.Conn
	place replica.Meeting
	giver *transport.Giver
	ended context.Context
	end   context.CancelFunc
	wait  sync.WaitGroup

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

// New connects and waits until as many replicas have registered as are wanted.
func New(ctx context.Context, cfg Config) (*Fleet, error) {
	if cfg.Notice == nil {
		cfg.Notice = func(string) {}
	}
	if err := cfg.Layout.Validate(); err != nil {
		return nil, fmt.Errorf("coordinator: %w", err)
	}
	if cfg.Averaging.Groups != cfg.Layout.Groups {
		return nil, fmt.Errorf("coordinator: averaging.groups: %d, want the %d of the layout", cfg.Averaging.Groups, cfg.Layout.Groups)
	}
	if err := cfg.Averaging.Validate(); err != nil {
		return nil, fmt.Errorf("coordinator: averaging: %w", err)
	}
	place := replica.Meet(cfg.Token)
	conn, err := transport.Dial(ctx, transport.Options{Server: cfg.Server, URL: cfg.URL, Token: cfg.Token, Name: "coordinator", Experiment: place.Experiment})
	if err != nil {
		return nil, fmt.Errorf("coordinator: %w", err)
	}
	d := &desk{conn: conn, place: place, giver: transport.NewGiver(), news: make(chan struct{}),
		registry: newRegistry(cfg.Platform, replica.Lease), members: map[string]*living{}}
	d.ended, d.end = context.WithCancel(context.Background())
	f := &Fleet{cfg: cfg, desk: d, moved: map[string]replica.Moved{}}
	if err := d.serve(cfg.Experiment); err != nil {
		d.close()
		return nil, fmt.Errorf("coordinator: %w", err)
	}
	if err := d.gather(ctx, max(1, cfg.Replicas)); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (d *desk) serve(offer replica.Offer) error {
	if _, err := d.giver.Put(replica.OfferKey, replica.Encode(offer)); err != nil {
		return err
	}
	for subject, handler := range map[string]transport.Handler{
		d.place.Subjects.Contributions(): d.giver.Handle,
		d.place.Subjects.Heartbeats():    transport.Mux{transport.TypeHeartbeat: d.heartbeat}.Handle,
		d.place.Subjects.Registrations(): transport.Mux{transport.TypeRegister: d.register, transport.TypeLeave: d.leave}.Handle,
	} {
		if _, err := d.conn.Serve(subject, transport.ServeOptions{Handler: handler}); err != nil {
			return err
		}
	}
	d.wait.Go(d.watch)
	return nil
}

// watch ends leases that were not renewed.
func (d *desk) watch() {
	tick := time.NewTicker(replica.Heartbeat / 2)
	defer tick.Stop()
	for {
		select {
		case <-d.ended.Done():
			return
		case now := <-tick.C:
			d.mu.Lock()
			for _, id := range d.registry.expire(now) {
				d.lose(id, fmt.Errorf("no sign of life for %v", replica.Lease))
			}
			d.mu.Unlock()
		}
	}
}

// lose ends the membership of a replica in the generation. The caller holds the lock.
func (d *desk) lose(id string, why error) {
	if m := d.members[id]; m != nil {
		m.cancel(why)
	}
}

func (d *desk) register(_ context.Context, m transport.Message) (transport.Message, error) {
	r, err := transport.DecodeRegister(m.Payload)
	if err != nil {
		return transport.Message{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	token, err := d.registry.register(time.Now(), r)
	if err != nil {
		return transport.Message{}, err
	}
	if m := d.members[r.Replica]; m != nil && m.token != token {
		d.lose(r.Replica, errors.New("it was started again"))
	}
	close(d.news)
	d.news = make(chan struct{})
	return m.Reply(transport.TypeGrant, transport.Grant{Token: token, TTL: replica.Lease, Leader: "coordinator"}.Append(nil)), nil
}

func (d *desk) heartbeat(_ context.Context, m transport.Message) (transport.Message, error) {
	beat, err := transport.DecodeHeartbeat(m.Payload)
	if err != nil {
		return transport.Message{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	member, err := d.registry.beat(time.Now(), beat.Token)
	if err != nil {
		return transport.Message{}, err
	}
	return m.Reply(transport.TypeHeartbeatAck, transport.HeartbeatAck{Leader: "coordinator", Drain: member.draining}.Append(nil)), nil
}

// leave lets a replica go that holds nothing; one that does is asked to come again, when its shards are elsewhere.
func (d *desk) leave(_ context.Context, m transport.Message) (transport.Message, error) {
	leave, err := transport.DecodeLeave(m.Payload)
	if err != nil {
		return transport.Message{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	member, err := d.registry.beat(time.Now(), leave.Token)
	if err != nil {
		return transport.Message{}, err
	}
	if member.draining = true; leave.Draining && d.members[member.id] != nil {
		return transport.Message{}, fmt.Errorf("%w: replica %s still holds shards", transport.ErrNotReady, member.id)
	}
	d.lose(member.id, errors.New("it left"))
	d.registry.drop(member.id)
	return m.Reply(transport.TypeLeave, nil), nil
}

// gather waits for n replicas.
func (d *desk) gather(ctx context.Context, n int) error {
	for {
		d.mu.Lock()
		have, news := len(d.registry.living()), d.news
		d.mu.Unlock()
		if have >= n {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return fmt.Errorf("coordinator: %d of %d replicas have registered: %w", have, n, context.Cause(ctx))
		}
	}
}

func (d *desk) living() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.registry.living()
}

func (d *desk) drop(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lose(id, errors.New("it was lost"))
	d.registry.drop(id)
}

// enlist makes the holders of shards the members of a new generation.
func (d *desk) enlist(holders []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id := range d.members {
		d.lose(id, errors.New("the generation is over"))
	}
	d.members = map[string]*living{}
	for _, id := range holders {
		if d.members[id] != nil {
			continue
		}
		m := &living{}
		m.ctx, m.cancel = context.WithCancelCause(context.Background())
		d.members[id] = m
		if r := d.registry.members[id]; r != nil {
			m.token = r.token
		} else {
			m.cancel(errors.New("it left"))
		}
	}
}

// enlisted are the members of the generation, in order.
func (d *desk) enlisted() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	ids := make([]string, 0, len(d.members))
	for id := range d.members {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, byID)
	return ids
}

// leaving says whether a holder of shards wants to leave, and somebody else could take them.
func (d *desk) leaving(holders []string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.registry.living()) > 0 && slices.ContainsFunc(holders, func(id string) bool {
		m := d.registry.members[id]
		return m != nil && m.draining
	})
}

// lopsided says whether the shards would be spread better among those who live now.
func (d *desk) lopsided(holders []string) bool {
	next := placed(len(holders), d.living(), holders)
	return next != nil && heaviest(next) < heaviest(holders)
}

// member is the context of a member; one that ended for others.
func (d *desk) member(id string) context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	if m := d.members[id]; m != nil {
		return m.ctx
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("it holds nothing"))
	return ctx
}

// pingTime is how long a replica may take to say that it is there.
const pingTime = 2 * time.Second

// ask sends a command and waits for its answer, however long it takes, as long as the replica lives.
func (d *desk) ask(id string, generation uint64, cmd replica.Command) (replica.Answer, error) {
	ctx := d.member(id)
	payload := replica.Encode(cmd)
	for {
		m, err := d.request(ctx, 2*replica.Hold, id, generation, payload)
		switch {
		case err == nil:
			return replica.Decode[replica.Answer](m.Payload)
		case ctx.Err() != nil:
			return replica.Answer{}, context.Cause(ctx)
		case errors.Is(err, transport.ErrNotReady), errors.Is(err, context.DeadlineExceeded): // it works; or the answer got lost
		case errors.Is(err, transport.ErrFailed), errors.Is(err, transport.ErrMalformed), errors.Is(err, transport.ErrUnhandled):
			return replica.Answer{Failed: &replica.Failure{Text: err.Error()}}, nil // it lives, and will not do it
		case errors.Is(err, transport.ErrDisconnected):
			select {
			case <-time.After(replica.Heartbeat / 10):
			case <-ctx.Done():
			}
		default:
			return replica.Answer{}, err
		}
	}
}

func (d *desk) request(ctx context.Context, patience time.Duration, id string, generation uint64, payload []byte) (transport.Message, error) {
	token, err := transport.ParseToken(id)
	if err != nil {
		return transport.Message{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return d.conn.Request(ctx, d.place.Subjects.Control(token), transport.Message{
		Header: transport.Header{Type: transport.TypeCommand, Generation: generation}, Payload: payload,
	})
}

// pull fetches a blob from a member.
func (d *desk) pull(id string, key transport.Key) ([]byte, error) {
	token, err := transport.ParseToken(id)
	if err != nil {
		return nil, err
	}
	ctx := d.member(id)
	data, err := d.conn.Pull(ctx, transport.Pull{Subject: d.place.Subjects.Exchange(token), Key: key, Max: transport.MaxBlob})
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return data, err
}

// abort tells all members that the generation is over.
func (d *desk) abort(generation uint64) {
	d.broadcast(d.enlisted(), generation, replica.Command{Op: replica.Abort})
}

// dismiss ends all replicas.
func (d *desk) dismiss(generation uint64) {
	d.mu.Lock()
	ids := make([]string, 0, len(d.registry.members))
	for id := range d.registry.members {
		ids = append(ids, id)
	}
	d.mu.Unlock()
	d.broadcast(ids, generation, replica.Command{Op: replica.Leave})
}

// broadcast sends a command that is answered at once. Of a member that is gone others learn by it.
func (d *desk) broadcast(ids []string, generation uint64, cmd replica.Command) {
	payload := replica.Encode(cmd)
	var wait sync.WaitGroup
	for _, id := range ids {
		wait.Go(func() {
			if _, err := d.request(context.Background(), pingTime, id, generation, payload); errors.Is(err, transport.ErrNoResponders) {
				d.mu.Lock()
				defer d.mu.Unlock()
				d.lose(id, err)
			}
		})
	}
	wait.Wait()
}

// reachable says whether a replica answers.
func (d *desk) reachable(id string, generation uint64) bool {
	_, err := d.request(d.member(id), pingTime, id, generation, replica.Encode(replica.Command{Op: replica.Ping}))
	return err == nil
}

func (d *desk) close() {
	d.end()
	d.wait.Wait()
	d.conn.Close()
}
