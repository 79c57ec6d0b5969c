package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Options say how Dial connects.
type Options struct {
	URL         string      // nats://host:port or tls://host:port, several separated by commas; or
	Server      *Server     // a server in this process
	TLS         *tls.Config // for URL: certificates to show and to trust; nil: what the URL and the server ask for
	Credentials string      // file with the user's JWT and seed; empty: none
	Token       string      // that the server of URL asks for, see [ServerOptions]; empty: none
	Name        string      // of the connection, in the server's log and lists
	Inbox       string      // prefix of the subjects for answers, where permissions want one of its own; empty: NATS's
	// Experiment is stamped on every message that is sent; any other is refused. Take the first eight bytes of the
	// experiment's id.
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
)

var eventNames = [...]string{
	Disconnected: "disconnected", Reconnected: "reconnected", Lost: "lost", SlowConsumer: "slow consumer", Refused: "refused", Panicked: "panicked",
}

func (k EventKind) String() string { return eventNames[k] }

// How a connection behaves where nobody wants to choose.
const (
	dialTimeout   = 5 * time.Second
	pingInterval  = 10 * time.Second // a half-open connection is noticed after two of them
	reconnectWait = 100 * time.Millisecond
)

// Conn is a connection to a NATS server, for the messages of one experiment. It is safe for concurrent use and comes back
// by itself after the server was gone; what was asked meanwhile fails with ErrDisconnected at once, nothing is sent late.
// Close it.
type Conn struct {
	nats       *nats.Conn
	experiment uint64
	notify     func(Event)
	counts     counters

	mu       sync.Mutex
	session  context.Context // ends when the server is gone
	end      context.CancelCauseFunc
	services map[*Service]struct{} // nil once the connection is closed
}

// Dial connects to a server.
func Dial(ctx context.Context, o Options) (*Conn, error) {
	if (o.URL == "") == (o.Server == nil) {
		return nil, errors.New("transport: dial: want a URL or a server in this process, and not both")
	}
	c := &Conn{experiment: o.Experiment, notify: o.Notify, services: map[*Service]struct{}{}}
	if c.notify == nil {
		c.notify = func(Event) {}
	}
	c.session, c.end = context.WithCancelCause(context.Background())
	d := &dialer{ctx: ctx}
	opts := append(o.nats(),
		nats.SetCustomDialer(d),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { c.disconnected(Disconnected, err) }),
		nats.ReconnectHandler(func(*nats.Conn) { c.reconnected() }),
		nats.ClosedHandler(func(nc *nats.Conn) { c.disconnected(Lost, nc.LastError()) }),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			if sub != nil && errors.Is(err, nats.ErrSlowConsumer) {
				c.notify(Event{SlowConsumer, sub.Subject, err})
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
		return nil, fmt.Errorf("transport: dial %s: %w", o.target(), err)
	}
	c.nats = nc
	return c, nil
}

// target is where o leads, without secrets.
func (o Options) target() string {
	if o.Server != nil {
		return "the server in this process"
	}
	var shown []string
	for one := range strings.SplitSeq(o.URL, ",") {
		if u, err := url.Parse(one); err == nil {
			u.User = nil // a token or a password
			one = u.String()
		}
		shown = append(shown, one)
	}
	return strings.Join(shown, ",")
}

func (o Options) nats() []nats.Option {
	opts := []nats.Option{
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
	if o.Inbox != "" {
		opts = append(opts, nats.CustomInboxPrefix(o.Inbox))
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
	reason := ErrDisconnected
	if kind == Lost {
		reason = ErrClosed
	}
	c.end(reason)
	c.mu.Unlock()
	c.counts.disconnects.Add(1)
	c.notify(Event{kind, "", err})
}

func (c *Conn) reconnected() {
	c.mu.Lock()
	c.session, c.end = context.WithCancelCause(context.Background())
	c.mu.Unlock()
	c.counts.reconnects.Add(1)
	c.notify(Event{Reconnected, "", nil})
}

// Request sends m and waits for the answer, until ctx ends. The answer belongs to the experiment of the connection and, if
// the type of m is bound to a generation, to that of m. Errors, besides those of ctx: ErrNoResponders at once if nobody
// serves the subject, ErrDisconnected, ErrClosed, a *StaleError, a *RemoteError with the peer's refusal, what Decode says
// of a damaged answer, and what Append says of m.
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
	c.mu.Lock()
	session := c.session
	c.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(session, func() { cancel(context.Cause(session)) })()
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

// Publish sends m to whoever listens, if anybody: a hint that may get lost.
func (c *Conn) Publish(subject string, m Message) error {
	data, err := c.encode(&m)
	if err == nil {
		err = natsError(c.nats.Publish(subject, *data))
		buffers.Put(data)
	}
	if err != nil {
		return fmt.Errorf("%s to %s: %w", m.Type, subject, err)
	}
	return nil
}

// Flush waits until the server has taken everything that was published and every subject that is served.
func (c *Conn) Flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := c.nats.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("transport: flush: %w", natsError(err))
	}
	return nil
}

// Close ends all services, waits for their handlers, and closes the connection. Do not call it from a handler.
func (c *Conn) Close() {
	c.mu.Lock()
	services := c.services
	c.services = nil
	c.mu.Unlock()
	for s := range services {
		s.Close()
	}
	c.mu.Lock()
	c.end(ErrClosed)
	c.mu.Unlock()
	c.nats.Close()
}

// buffers hold encoded messages while NATS copies them into its own buffer.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// encode stamps m with the experiment and encodes it into a buffer of the pool.
func (c *Conn) encode(m *Message) (*[]byte, error) {
	m.Experiment = c.experiment
	buffer := buffers.Get().(*[]byte)
	data, err := m.Append((*buffer)[:0])
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
	}
	return err
}
