package transport

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"
)

// Handler answers a message. The zero Message is no answer. An error goes to the sender, who finds the package's errors in
// it with [errors.Is]. ctx ends when the service is closed. A handler may keep the payload, and may wait: it holds one of
// the places of its service meanwhile.
type Handler func(ctx context.Context, m Message) (Message, error)

// Mux is a handler for each type of message; others are refused with ErrUnhandled.
type Mux map[Type]Handler

// Handle is a Handler.
func (x Mux) Handle(ctx context.Context, m Message) (Message, error) {
	h, ok := x[m.Type]
	if !ok {
		return Message{}, fmt.Errorf("%w: %s", ErrUnhandled, m.Type)
	}
	return h(ctx, m)
}

// Gate is the generation that a member lives in. Messages of another, older or newer, are refused with a StaleError, if
// their type is bound to one. The zero Gate is at generation 0. It is safe for concurrent use.
type Gate struct{ generation atomic.Uint64 }

// Enter moves to a generation: messages of the one before are refused from now on. Handlers that run go on.
func (g *Gate) Enter(generation uint64) { g.generation.Store(generation) }

// Generation is the present one.
func (g *Gate) Generation() uint64 { return g.generation.Load() }

// Check returns a *StaleError if the message must not be taken.
func (g *Gate) Check(h Header) error {
	if current := g.Generation(); h.Type.Bound() && h.Generation != current {
		return &StaleError{Message: h.Generation, Current: current}
	}
	return nil
}

// ServeOptions say how a subject is served.
type ServeOptions struct {
	Handler Handler
	// Brought takes what others bring, see [Conn.Bring]; nil: nothing is taken. It may keep the data, and must not change them.
	Brought func(Brought) error
	Gate    *Gate // nil: messages of any generation are taken
	// Concurrency is how many messages are handled at once, 256 if zero; 1 keeps their order.
	Concurrency int
	// Pending is how many more wait for their turn, 1024 if zero. Beyond it the latest are dropped and counted, and their
	// senders ask again when they have waited long enough: memory stays bounded, other subjects are not held up.
	Pending int
}

// Service is a subject being served. Close it, or the connection.
type Service struct {
	conn    *Conn
	subject string
	options ServeOptions
	sub     *nats.Subscription
	slots   chan struct{}
	ctx     context.Context
	cancel  context.CancelFunc
	close   sync.Once
}

// Serve hands the messages of a subject to a handler, each in a goroutine of its own, those with an error or of another
// experiment excepted: they are refused and counted. A panic in a handler is counted and reported to both sides.
func (c *Conn) Serve(subject string, o ServeOptions) (*Service, error) {
	if o.Concurrency == 0 {
		o.Concurrency = 256
	}
	if o.Pending == 0 {
		o.Pending = 1024
	}
	if o.Handler == nil || o.Concurrency < 0 || o.Pending < 0 {
		return nil, fmt.Errorf("transport: serve %s: concurrency %d, pending %d, want a handler and positive numbers", subject, o.Concurrency, o.Pending)
	}
	s := &Service{conn: c, subject: subject, options: o, slots: make(chan struct{}, o.Concurrency)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.services == nil {
		s.cancel()
		return nil, fmt.Errorf("transport: serve %s: %w", subject, ErrClosed)
	}
	sub, err := c.nats.Subscribe(subject, s.receive)
	if err == nil {
		err = sub.SetPendingLimits(o.Pending, o.Pending*MaxMessage)
	}
	if err != nil {
		s.cancel()
		return nil, fmt.Errorf("transport: serve %s: %w", subject, natsError(err))
	}
	s.sub = sub
	c.services[s] = struct{}{}
	c.server.serves(s)
	return s, nil
}

// Close stops serving the subject, ends the context of the handlers and waits for them. Do not call it from a handler.
func (s *Service) Close() {
	s.close.Do(func() {
		s.cancel()
		s.conn.mu.Lock()
		delete(s.conn.services, s)
		s.conn.counts.dropped.Add(s.dropped())
		s.conn.mu.Unlock()
		s.conn.server.ends(s)
		_ = s.sub.Unsubscribe() // fails only where the connection is closed already
		for range cap(s.slots) {
			s.slots <- struct{}{}
		}
	})
}

func (s *Service) dropped() uint64 {
	n, err := s.sub.Dropped()
	if err != nil {
		return 0
	}
	return uint64(n)
}

// receive is called by NATS for one message after the other; while all places are taken, the next wait in its queue.
func (s *Service) receive(msg *nats.Msg) {
	select {
	case s.slots <- struct{}{}:
		go func() {
			defer func() { <-s.slots }()
			s.handle(msg)
		}()
	case <-s.ctx.Done():
	}
}

func (s *Service) handle(msg *nats.Msg) {
	m, answer, err := s.answer(msg.Data)
	if msg.Reply == "" || err == nil && answer.Type == 0 {
		return
	}
	if err != nil {
		answer = refusal(m, err)
	}
	data, err := s.conn.encode(&answer)
	if err != nil { // the handler's answer is no message
		answer = refusal(m, fmt.Errorf("%w: its answer: %v", ErrFailed, err))
		if data, err = s.conn.encode(&answer); err != nil {
			return
		}
	}
	// What cannot be sent is like an answer that got lost: the other side asks again.
	_ = msg.Respond(*data)
	buffers.Put(data)
}

// answer decodes a message and asks who handles it.
func (s *Service) answer(data []byte) (m, answer Message, err error) {
	if m, err = Decode(data); err != nil {
		return m, Message{}, s.conn.refuse(s.subject, err)
	}
	err = s.pass(m.Header, func() (err error) {
		if m.Type != TypePut {
			answer, err = s.options.Handler(s.ctx, m)
			return err
		}
		b, err := decodePut(m)
		if err == nil {
			err = s.take(b)
		}
		return err
	})
	return m, answer, err
}

// hand takes what a connection of the same process brings.
func (s *Service) hand(h Header, b Brought) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
		_ = s.pass(h, func() error { return s.take(b) })
	case <-s.ctx.Done():
	}
}

func (s *Service) take(b Brought) error {
	if s.options.Brought == nil {
		return fmt.Errorf("%w: %s", ErrUnhandled, TypePut)
	}
	return s.options.Brought(b)
}

// pass checks that a message may be handed on, and does so.
func (s *Service) pass(h Header, on func() error) (err error) {
	switch {
	case h.Experiment != s.conn.experiment:
		err = fmt.Errorf("%w: %016x, want %016x", ErrExperiment, h.Experiment, s.conn.experiment)
	case s.options.Gate != nil:
		err = s.options.Gate.Check(h)
	}
	if err != nil {
		return s.conn.refuse(s.subject, err)
	}
	s.conn.counts.served.Add(1)
	defer func() {
		if p := recover(); p != nil {
			s.conn.counts.panics.Add(1)
			err = fmt.Errorf("%w: panic: %v", ErrFailed, p)
			s.conn.notify(Event{Panicked, s.subject, err})
		}
	}()
	if err = on(); errors.Is(err, ErrUnhandled) {
		err = s.conn.refuse(s.subject, err)
	}
	return err
}

// refusal is the answer to m that tells why it was not taken.
func refusal(m Message, err error) Message {
	var stale *StaleError
	if errors.As(err, &stale) {
		answer := m.Reply(TypeStale, nil)
		answer.Generation = stale.Current
		return answer
	}
	return m.Reply(TypeErr, appendRemoteError(nil, err))
}

// refuse counts and reports a message that is not taken.
func (c *Conn) refuse(subject string, err error) error {
	c.counts.refused[refusalOf(err)].Add(1)
	c.notify(Event{Refused, subject, err})
	return err
}

// counters are Counts as they are counted.
type counters struct {
	requests, served, retries, panics, dropped, disconnects, reconnects atomic.Uint64
	refused                                                             [len(refusals)]atomic.Uint64
}

// Counts are what a connection did since it was dialled.
type Counts struct {
	Requests    uint64            // sent
	Served      uint64            // messages handed to handlers
	Refused     map[string]uint64 // messages not handed on, by reason: short, too_large, magic, version, checksum, malformed, experiment, generation, unhandled
	Retries     uint64            // chunks asked for again
	Panics      uint64            // of handlers
	Dropped     uint64            // messages that came too fast
	Disconnects uint64
	Reconnects  uint64
}

// Counts returns the counters; reasons that never occurred are left out.
func (c *Conn) Counts() Counts {
	n := &c.counts
	out := Counts{
		Requests: n.requests.Load(), Served: n.served.Load(), Refused: map[string]uint64{}, Retries: n.retries.Load(), Panics: n.panics.Load(),
		Dropped: n.dropped.Load(), Disconnects: n.disconnects.Load(), Reconnects: n.reconnects.Load(),
	}
	for i, r := range refusals {
		if v := n.refused[i].Load(); v > 0 {
			out.Refused[r.name] = v
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.services {
		out.Dropped += s.dropped()
	}
	return out
}
