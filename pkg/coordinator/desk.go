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
	Dial   transport.Options // what else the connection needs: TLS, credentials
	Token  string            // of the experiment, see replica.Meet

	// Book is where leases, generations and cuts are written down; nil keeps them in memory, and the caller keeps the cuts.
	Book Book
	// Lead ends when this coordinator leads no longer: the methods of the Fleet then return its cause, and Close lets the
	// replicas work on for the next. nil never ends.
	Lead context.Context
	Name string // of this coordinator, letters, digits, dashes and underscores; "" is coordinator
	// Waits, if not nil, is told when the Fleet begins to wait for replicas, since none is left, and when it ends to. nil: it
	// does not wait, having none left is an error.
	Waits func(waiting bool)

	// Servers are the URLs of the message servers, separated by commas, as they are now: replicas hear of it. nil: they stay.
	Servers func() string
	// Grace is how long a replica may be unreachable before it is lost: while its connection moves to another server nobody
	// answers for it. 0 where there is one server.
	Grace time.Duration

	Experiment replica.Offer
	Layout     engine.Layout
	Averaging  averaging.Config
	Platform   string // that replicas must have, see replica.Platform; "": that of the first
	Replicas   int    // to wait for before the start
	Steps      int    // in all
	Every      []int  // the caller wants to look at the replicas after every multiple of these steps
	// CutEvery is how much work a loss may cost: cuts are taken so that the last acknowledged one is never older when a step is
	// granted. 0: the caller alone takes cuts.
	CutEvery time.Duration

	Notice func(string) // is told what people should know: losses, new generations; nil: nobody
	Log    *slog.Logger // nil: nothing is logged
}

func (c Config) stops() []int {
	if replica.Rounds(c.Averaging) {
		return append(slices.Clip(c.Every), c.Averaging.Every)
	}
	return c.Every
}

// desk is where replicas register and are reached, over the network. It is safe for concurrent use.
type desk struct {
	*roll
	conn  *transport.Conn
	place replica.Meeting
	giver *transport.Giver
	grace time.Duration
	times *punctuality
	ended context.Context
	end   context.CancelFunc
	wait  sync.WaitGroup
}

var _ crew = (*desk)(nil)

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
	if cfg.Name == "" {
		cfg.Name = "coordinator"
	}
	if cfg.Lead == nil {
		cfg.Lead = context.Background()
	}
	book := cfg.Book
	if book == nil {
		book = newMemory()
	}
	leases, err := book.Leases()
	if err != nil {
		return nil, fmt.Errorf("coordinator: %w", err)
	}
	place := replica.Meet(cfg.Token)
	dial := cfg.Dial
	dial.Server, dial.URL, dial.Name, dial.Experiment = cfg.Server, cfg.URL, cfg.Name, place.Experiment
	if dial.User == "" && dial.Credentials == "" {
		dial.Token = cfg.Token
	}
	conn, err := transport.Dial(ctx, dial)
	if err != nil {
		return nil, fmt.Errorf("coordinator: %w", err)
	}
	d := &desk{roll: newRoll(cfg.Lead, cfg.Name, cfg.Platform, book, time.Now), conn: conn, place: place, giver: transport.NewGiver(), grace: cfg.Grace, times: new(punctuality)}
	d.ended, d.end = context.WithCancel(context.Background())
	if cfg.Servers != nil {
		d.servers = cfg.Servers
	}
	d.recall(leases)
	f := newFleet(cfg, book, d, time.Now)
	f.over = func() error { return context.Cause(cfg.Lead) }
	if err := d.serve(cfg.Experiment); err != nil {
		d.close()
		return nil, fmt.Errorf("coordinator: %w", err)
	}
	if len(leases) == 0 { // else whoever is there goes on
		if err := d.await(ctx, max(1, cfg.Replicas)); err != nil {
			f.Close()
			return nil, err
		}
	}
	return f, nil
}

// late implements [crew].
func (d *desk) late() int { return d.times.count() }

// breathe implements [crew].
func (d *desk) breathe() {
	select {
	case <-time.After(replica.Heartbeat / 2):
	case <-d.lead.Done():
	}
}

// gather implements [crew].
func (d *desk) gather(n int) error { return d.await(context.Background(), n) }

func (d *desk) serve(offer replica.Offer) error {
	if err := d.giver.Put(replica.OfferKey, replica.Encode(offer)); err != nil {
		return err
	}
	name, err := transport.ParseToken(d.who)
	if err != nil {
		return err
	}
	for subject, handler := range map[string]transport.Handler{
		d.place.Subjects.Contributions(): d.giver.Handle,
		d.place.Subjects.Gives(name):     d.giver.Handle,
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
		case <-tick.C:
			d.expire()
		}
	}
}

// pingTime is how long a replica may take to say that it is there.
const pingTime = 2 * time.Second

// ask implements [crew].
func (d *desk) ask(to []string, generation uint64, cmd replica.Command, failed func()) ([]replica.Answer, []error) {
	answers, errs := make([]replica.Answer, len(to)), make([]error, len(to))
	cmd.From = d.who
	payload := replica.Encode(cmd)
	var stop sync.Once
	var wait sync.WaitGroup
	if cmd.Op == replica.Contribute {
		defer d.times.round()()
	}
	for i, id := range to {
		wait.Go(func() {
			start := time.Now()
			answers[i], errs[i] = d.askOne(id, generation, payload)
			if cmd.Op == replica.Contribute {
				d.times.came(time.Since(start))
			}
			if errs[i] != nil || answers[i].Failed != nil {
				stop.Do(failed)
			}
		})
	}
	wait.Wait()
	return answers, errs
}

// askOne sends a command and waits for its answer, however long it takes, as long as the replica lives.
func (d *desk) askOne(id string, generation uint64, payload []byte) (replica.Answer, error) {
	ctx := d.member(id)
	var silent time.Time // since when nobody answers for it
	for {
		m, err := d.request(ctx, 2*replica.Hold, id, generation, payload)
		if err == nil {
			return replica.Decode[replica.Answer](m.Payload)
		}
		if ctx.Err() != nil {
			return replica.Answer{}, context.Cause(ctx)
		}
		nobody := errors.Is(err, transport.ErrNoResponders)
		if !nobody {
			silent = time.Time{}
		} else if silent.IsZero() {
			silent = time.Now()
		}
		switch meaningOf(err) {
		case unwilling:
			return replica.Answer{Failed: &replica.Failure{Text: err.Error()}}, nil
		case gone:
			if !nobody || time.Since(silent) >= d.grace {
				return replica.Answer{}, err
			}
		}
		if nobody || errors.Is(err, transport.ErrDisconnected) {
			select {
			case <-time.After(replica.Heartbeat / 10):
			case <-ctx.Done():
			}
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

// pull implements [crew].
func (d *desk) pull(id string, key transport.Key) ([]byte, error) {
	token, err := transport.ParseToken(id)
	if err != nil {
		return nil, err
	}
	ctx := d.member(id)
	data, err := d.conn.Pull(ctx, transport.Pull{Subject: d.place.Subjects.Exchange(token), Key: key, Max: transport.MaxBlob, Grace: d.grace})
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return data, err
}

// give implements [crew].
func (d *desk) give(key transport.Key, data []byte) error {
	return d.giver.Put(key, data)
}

// release implements [crew].
func (d *desk) release() {
	d.giver.Release(func(k transport.Key) bool { return k != replica.OfferKey })
}

// abort implements [crew]. A member that does not hear it would wait for ever for one that has, so it is told until it answers.
func (d *desk) abort(generation uint64) {
	payload := replica.Encode(replica.Command{Op: replica.Abort})
	var wait sync.WaitGroup
	for _, id := range d.enlisted() {
		wait.Go(func() {
			ctx := d.member(id)
			_, err := d.request(ctx, pingTime, id, generation, payload)
			for err != nil && ctx.Err() == nil && meaningOf(err) == again {
				_, err = d.request(ctx, pingTime, id, generation, payload)
			}
			d.missing(id, err)
		})
	}
	wait.Wait()
}

// dismiss implements [crew].
func (d *desk) dismiss(generation uint64) {
	d.mu.Lock()
	ids := make([]string, 0, len(d.registry.members))
	for id := range d.registry.members {
		ids = append(ids, id)
	}
	d.mu.Unlock()
	payload := replica.Encode(replica.Command{Op: replica.Leave})
	var wait sync.WaitGroup
	for _, id := range ids {
		wait.Go(func() {
			_, err := d.request(context.Background(), pingTime, id, generation, payload)
			d.missing(id, err)
		})
	}
	wait.Wait()
}

// missing ends the membership of a replica if a request to it came to nobody.
func (d *desk) missing(id string, err error) {
	if errors.Is(err, transport.ErrNoResponders) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.lose(id, err)
	}
}

// reachable implements [crew].
func (d *desk) reachable(id string, generation uint64) bool {
	_, err := d.request(d.member(id), pingTime, id, generation, replica.Encode(replica.Command{Op: replica.Ping}))
	return err == nil
}

func (d *desk) close() {
	d.end()
	d.wait.Wait()
	d.conn.Close()
}
