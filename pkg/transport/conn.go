package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Options say how Dial connects.
type Options struct {
	// URL is nats://host:port or tls://host:port, or several of one cluster, separated by commas: the connection moves to
	// another server when its own is gone. There are no secrets in it.
	URL    string
	Server *Server     // in place of URL: a server in this process
	TLS    *tls.Config // for URL: certificates to show and to trust; nil: what the URL and the server ask for

	// What the server of URL asks for, if anything: a user of one experiment with a secret, or with a file that holds it
	// and is read at every connection; a token; or a file with the JWT and the seed of a user of NATS. See [ServerOptions].
	User, Secret, SecretFile string
	Token                    string
	Credentials              string

	Name string // of the connection, in the server's log and lists, and, if it is a Token, in the subjects of its answers
	// Experiment is stamped on every message that is sent; any other is refused.
	Experiment uint64
	// Notify, if not nil, is told what goes wrong apart from requests. It is called from several goroutines and must not
	// block.
	Notify func(Event)
}

// Event is something that happened to a connection or to a subject that it serves.
type Event struct {
	Kind    EventKind
	Subject string // where it was at one
	Err     error  // why, where there is a reason
}

// EventKind says what happened.
type EventKind int

const (
	Disconnected EventKind = iota + 1 // the server is gone; the connection tries to come back by itself
	Reconnected
	Lost         // the connection is closed for good, as after credentials were revoked
	SlowConsumer // requests come faster than they are handled: the latest were dropped
	Refused      // a message was not handed on
	Panicked     // a handler panicked; the requester got ErrFailed
	Unauthorized // the server refused the secret, or a subject of another experiment
)

var eventNames = [...]string{
	Disconnected: "disconnected", Reconnected: "reconnected", Lost: "lost", SlowConsumer: "slow consumer", Refused: "refused", Panicked: "panicked",
	Unauthorized: "unauthorized",
}

func (k EventKind) String() string { return eventNames[k] }

// How a connection behaves where nobody wants to choose.
const (
	dialTimeout   = 5 * time.Second
	pingInterval  = 2 * time.Second // a half-open connection is noticed after three of them
	reconnectWait = 100 * time.Millisecond
)

// Conn is a connection to a NATS server, for the messages of one experiment. It is safe for concurrent use and comes back
// by itself after the server was gone; what was asked meanwhile fails with ErrDisconnected at once, nothing is sent late.
// Close it.
type Conn struct {
	nats       *nats.Conn
	experiment uint64
	server     *Server // in this process; nil: elsewhere
	notify     func(Event)
	counts     counters

	mu       sync.Mutex
	down     error                 // why requests fail at once; nil while they can be sent
	calls    map[*call]struct{}    // requests that wait for their answer
	services map[*Service]struct{} // nil once the connection is closed
	sending  sync.WaitGroup        // of what is brought; begins only while services is not nil
}

type call struct {
	subject string
	fail    context.CancelCauseFunc
}

// Dial connects to a server. It is ErrUnauthorized that the server does not take what o shows it.
func Dial(ctx context.Context, o Options) (*Conn, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("transport: dial: %w", err)
	}
	if _, err := o.secret(); err != nil {
		return nil, fmt.Errorf("transport: dial: %w", err)
	}
	c := &Conn{experiment: o.Experiment, server: o.Server, notify: o.Notify, services: map[*Service]struct{}{}, calls: map[*call]struct{}{}}
	if c.notify == nil {
		c.notify = func(Event) {}
	}
	d := &dialer{ctx: ctx}
	opts := append(o.nats(c.notify),
		nats.SetCustomDialer(d),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { c.disconnected(Disconnected, err) }),
		nats.ReconnectHandler(func(*nats.Conn) { c.reconnected() }),
		nats.ClosedHandler(func(nc *nats.Conn) { c.disconnected(Lost, nc.LastError()) }),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			switch {
			case sub != nil && errors.Is(err, nats.ErrSlowConsumer):
				c.notify(Event{SlowConsumer, sub.Subject, err})
			case refusedBy(err):
				c.unauthorized(err)
			}
		}),
	)
	nc, err := nats.Connect(o.URL, opts...)
	d.done()
	if err == nil && ctx.Err() != nil {
		nc.Close()
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("transport: dial %s: %w", o.target(), natsError(err))
	}
	c.nats = nc
	return c, nil
}

// target is where o leads.
func (o Options) target() string {
	if o.Server != nil {
		return "the server in this process"
	}
	return o.URL
}

func (o Options) nats(notify func(Event)) []nats.Option {
	// Permissions can name these subjects.
	inbox := SubjectsOf(o.Experiment).inbox()
	if name, err := ParseToken(o.Name); err == nil {
		inbox += "." + name.s
	}
	opts := []nats.Option{
		nats.CustomInboxPrefix(inbox),
		nats.Name(o.Name),
		nats.Timeout(dialTimeout),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(reconnectWait, reconnectWait),
		nats.ReconnectBufSize(-1),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(2),
		nats.NoCallbacksAfterClientClose(),
	}
	if o.Server != nil {
		opts = append(opts, nats.InProcessServer(o.Server.nats))
		o.Token = o.Server.token
	}
	if o.Token != "" {
		opts = append(opts, nats.Token(o.Token))
	}
	if o.TLS != nil {
		opts = append(opts, nats.Secure(o.TLS))
	}
	if o.Credentials != "" {
		opts = append(opts, nats.UserCredentials(o.Credentials))
	}
	if o.User != "" {
		opts = append(opts, o.asUser(notify)...)
	}
	return opts
}

// dialer opens TCP connections, of which those of the first dial end with its context: NATS itself knows a timeout only.
type dialer struct {
	mu    sync.Mutex
	ctx   context.Context // nil once Dial is done
	stops []func() bool
}

func (d *dialer) Dial(network, address string) (net.Conn, error) {
	d.mu.Lock()
	ctx := d.ctx
	d.mu.Unlock()
	plain := net.Dialer{Timeout: dialTimeout}
	if ctx == nil {
		return plain.Dial(network, address)
	}
	conn, err := plain.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stops = append(d.stops, context.AfterFunc(ctx, func() { conn.Close() }))
	return conn, nil
}

func (d *dialer) done() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, stop := range d.stops {
		stop()
	}
	d.ctx, d.stops = nil, nil
}

func (c *Conn) disconnected(kind EventKind, err error) {
	c.mu.Lock()
	switch {
	case kind == Lost:
		c.fail(ErrClosed)
	case c.down == nil:
		c.fail(ErrDisconnected)
	}
	c.mu.Unlock()
	c.counts.disconnects.Add(1)
	c.notify(Event{kind, "", err})
}

// fail ends all requests, and those to come; c.mu is held.
func (c *Conn) fail(err error) {
	c.down = err
	for one := range c.calls {
		one.fail(err)
	}
}

// unauthorized takes the server's word that the connection may not do what it wanted. Whoever waits for an answer that
// cannot come is told.
func (c *Conn) unauthorized(err error) {
	subject, message := denied(err)
	err = natsError(err)
	c.mu.Lock()
	switch {
	case message:
		for one := range c.calls {
			if one.subject == subject {
				one.fail(err)
			}
		}
	case subject == "", // the server does not take the secret
		strings.HasPrefix(subject, SubjectsOf(c.experiment).inbox()): // no answer would arrive
		c.fail(err)
	}
	c.mu.Unlock()
	c.notify(Event{Unauthorized, subject, err})
}

func (c *Conn) reconnected() {
	c.mu.Lock()
	c.down = nil
	c.mu.Unlock()
	c.counts.reconnects.Add(1)
	c.notify(Event{Reconnected, "", nil})
}

// Request sends m and waits for the answer, until ctx ends. The answer belongs to the experiment of the connection and, if
// the type of m is bound to a generation, to that of m. Errors, besides those of ctx: ErrNoResponders at once if nobody
// serves the subject, ErrDisconnected, ErrClosed, ErrUnauthorized, a *StaleError, a *RemoteError with the peer's refusal,
// what Decode says of a damaged answer, and what Append says of m.
func (c *Conn) Request(ctx context.Context, subject string, m Message) (Message, error) {
	answer, err := c.request(ctx, subject, m)
	if err != nil {
		return Message{}, fmt.Errorf("%s to %s: %w", m.Type, subject, err)
	}
	return answer, nil
}

func (c *Conn) request(ctx context.Context, subject string, m Message) (Message, error) {
	data, err := c.encode(&m)
	if err != nil {
		return Message{}, err
	}
	defer buffers.Put(data)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	one := &call{subject, cancel}
	c.mu.Lock()
	down := c.down
	c.calls[one] = struct{}{}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.calls, one)
		c.mu.Unlock()
	}()
	if down != nil {
		cancel(down)
	}
	if ctx.Err() != nil {
		return Message{}, context.Cause(ctx)
	}
	c.counts.requests.Add(1)
	msg, err := c.nats.RequestWithContext(ctx, subject, *data)
	if ctx.Err() != nil {
		return Message{}, context.Cause(ctx)
	}
	if err != nil {
		return Message{}, natsError(err)
	}
	answer, err := Decode(msg.Data)
	if err != nil {
		return Message{}, c.refuse(subject, err)
	}
	return answer, c.checkAnswer(subject, m, answer)
}

// checkAnswer tells answers from refusals, and refuses what does not belong to the request.
func (c *Conn) checkAnswer(subject string, m, answer Message) error {
	switch {
	case answer.Experiment != c.experiment:
		return c.refuse(subject, fmt.Errorf("%w: answer of %016x, want %016x", ErrExperiment, answer.Experiment, c.experiment))
	case answer.Type == TypeErr:
		remote, err := decodeRemoteError(answer.Payload)
		if err != nil {
			return c.refuse(subject, err)
		}
		return &remote
	case answer.Type == TypeStale:
		return &StaleError{Message: m.Generation, Current: answer.Generation}
	case m.Type.Bound() && answer.Generation != m.Generation:
		return c.refuse(subject, &StaleError{Message: answer.Generation, Current: m.Generation})
	}
	return nil
}

// SetServers says where the connection goes when its own server is gone, from now on: URLs as in [Options], separated by
// commas. It stays where it is meanwhile. A connection within the process has no other place to go.
func (c *Conn) SetServers(urls string) error {
	if c.server != nil {
		return nil
	}
	if err := c.nats.SetServerPool(strings.Split(urls, ",")); err != nil {
		return fmt.Errorf("transport: servers %s: %w", Options{URL: urls}.target(), natsError(err))
	}
	return nil
}

// Flush waits until the server has taken every subject that is served. The other servers of a cluster hear of them a
// moment later.
func (c *Conn) Flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := c.nats.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("transport: flush: %w", natsError(err))
	}
	return nil
}

// Close ends all services, waits for their handlers and for what is being sent, and closes the connection. Do not call it from a handler.
func (c *Conn) Close() {
	c.mu.Lock()
	services := c.services
	c.services = nil
	c.mu.Unlock()
	for s := range services {
		s.Close()
	}
	c.mu.Lock()
	c.fail(ErrClosed)
	c.mu.Unlock()
	c.sending.Wait()
	c.nats.Close()
}

// buffers hold encoded messages while NATS copies them into its own buffer.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// encode stamps m with the experiment and encodes it into a buffer of the pool.
func (c *Conn) encode(m *Message) (*[]byte, error) {
	m.Experiment = c.experiment
	return encode(m.Header, m.Payload)
}

// encode encodes a message whose payload is in parts.
func encode(h Header, parts ...[]byte) (*[]byte, error) {
	buffer := buffers.Get().(*[]byte)
	data, err := h.append((*buffer)[:0], parts...)
	*buffer = data
	if err != nil {
		buffers.Put(buffer)
		return nil, err
	}
	return buffer, nil
}

// natsError gives the errors of NATS that callers branch on the names of this package.
func natsError(err error) error {
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return ErrNoResponders
	case errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrDisconnected), errors.Is(err, nats.ErrConnectionReconnecting):
		return ErrDisconnected
	case errors.Is(err, nats.ErrConnectionClosed):
		return ErrClosed
	case refusedBy(err):
		return fmt.Errorf("%w: %w", ErrUnauthorized, err)
	}
	return err
}
