package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const experiment = 0xfeed

// limit ends tests that hang; nothing is measured by it.
const limit = 30 * time.Second

func startServer(t testing.TB, o ServerOptions) *Server {
	t.Helper()
	s, err := StartServer(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func dial(t testing.TB, o Options) *Conn {
	t.Helper()
	if o.Experiment == 0 {
		o.Experiment = experiment
	}
	c, err := Dial(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// pair is a server in the process with two connections.
func pair(t testing.TB) (a, b *Conn) {
	s := startServer(t, ServerOptions{})
	return dial(t, Options{Server: s, Name: "a"}), dial(t, Options{Server: s, Name: "b"})
}

func serve(t testing.TB, c *Conn, subject string, o ServeOptions) *Service {
	t.Helper()
	s, err := c.Serve(subject, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

func echo(_ context.Context, m Message) (Message, error) { return m.Reply(m.Type, m.Payload), nil }

// boundMessage is one that belongs to a generation.
func boundMessage(generation uint64, payload ...byte) Message {
	return Message{Header{Type: TypeGet, Generation: generation, Scan: 7, Shard: 1, Peer: 2, Theta: 9}, payload}
}

func TestRequestsAreAnswered(t *testing.T) {
	cert, trust := selfSigned(t)
	for _, tc := range []struct {
		name   string
		server ServerOptions
		dial   func(s *Server) Options
	}{
		{"in the process", ServerOptions{}, func(s *Server) Options { return Options{Server: s} }},
		{"over TCP", ServerOptions{Listen: "127.0.0.1:0"}, func(s *Server) Options { return Options{URL: s.URL()} }},
		{"over TLS", ServerOptions{Listen: "127.0.0.1:0", TLS: cert}, func(s *Server) Options { return Options{URL: s.URL(), TLS: trust} }},
		{"a listening server, from its own process", ServerOptions{Listen: "127.0.0.1:0", TLS: cert}, func(s *Server) Options { return Options{Server: s} }},
		{"with a token", ServerOptions{Listen: "127.0.0.1:0", Token: "secret"}, func(s *Server) Options { return Options{URL: s.URL(), Token: "secret"} }},
		{"with a token, from its own process", ServerOptions{Token: "secret"}, func(s *Server) Options { return Options{Server: s} }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := startServer(t, tc.server)
			a, b := dial(t, tc.dial(s)), dial(t, tc.dial(s))
			serve(t, b, "x", ServeOptions{Handler: echo})
			m := boundMessage(3, 15, 2)
			got, err := a.Request(within(t), "x", m)
			if err != nil {
				t.Fatal(err)
			}
			m.Experiment = experiment
			if got.Header != m.Header || !bytes.Equal(got.Payload, m.Payload) {
				t.Errorf("%+v comes back as %+v", m, got)
			}
			if got := b.Counts(); got.Served != 1 || len(got.Refused) > 0 {
				t.Errorf("counts %+v, want one message served", got)
			}
		})
	}
}

// TestRefusalsAreNamedAndCounted: whatever is wrong with a message, its sender gets the reason as an error, the receiver
// counts it, and the next good message is answered.
func TestRefusalsAreNamedAndCounted(t *testing.T) {
	s := startServer(t, ServerOptions{})
	var reported atomic.Int32
	server := dial(t, Options{Server: s, Notify: func(e Event) {
		if e.Kind == Refused && e.Subject == "x" {
			reported.Add(1)
		}
	}})
	client, stranger := dial(t, Options{Server: s}), dial(t, Options{Server: s, Experiment: 0xbad})
	var gate Gate
	gate.Enter(3)
	serve(t, server, "x", ServeOptions{Gate: &gate, Handler: Mux{TypeGet: echo, TypeHeartbeat: echo}.Handle})

	good := boundMessage(3, 1)
	good.Experiment = experiment
	raw := mustAppend(good)
	corrupt := bytes.Clone(raw)
	corrupt[HeaderSize] ^= 1
	newer := bytes.Clone(raw)
	newer[4]++
	// What no Conn sends goes by the raw connection underneath.
	send := func(b []byte) error {
		msg, err := client.nats.RequestWithContext(within(t), "x", b)
		if err != nil {
			return err
		}
		answer, err := Decode(msg.Data)
		if err != nil {
			return err
		}
		return client.checkAnswer("x", good, answer)
	}
	ask := func(c *Conn, m Message) error {
		_, err := c.Request(within(t), "x", m)
		return err
	}
	for _, tc := range []struct {
		name, counter string
		err           error
		want          error
	}{
		{"old generation", "generation", ask(client, boundMessage(2)), ErrStale},
		{"new generation", "generation", ask(client, boundMessage(4)), ErrStale},
		{"corrupt", "checksum", send(corrupt), ErrChecksum},
		{"oversized", "too_large", send(make([]byte, MaxMessage+1)), ErrTooLarge},
		{"cut short", "short", send(raw[:60]), ErrShort},
		{"not ours", "magic", send(make([]byte, HeaderSize)), ErrMagic},
		{"newer version", "version", send(newer), ErrVersion},
		{"type without a handler", "unhandled", ask(client, Message{Header: Header{Type: TypeLeave}}), ErrUnhandled},
	} {
		if !errors.Is(tc.err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, tc.err, tc.want)
		}
		if server.Counts().Refused[tc.counter] == 0 {
			t.Errorf("%s: not counted as %s: %+v", tc.name, tc.counter, server.Counts().Refused)
		}
		if err := ask(client, good); err != nil {
			t.Errorf("after %s: %v", tc.name, err)
		}
	}
	if err := ask(stranger, boundMessage(3)); !errors.Is(err, ErrExperiment) {
		t.Errorf("other experiment: %v, want %v", err, ErrExperiment)
	}
	if got := server.Counts().Refused; got["generation"] != 2 || got["experiment"] != 1 || len(got) != 8 {
		t.Errorf("refused %v, want 8 reasons", got)
	}
	if n := reported.Load(); n != 9 {
		t.Errorf("%d refusals reported, want 9", n)
	}
	var stale *StaleError
	if err := ask(client, boundMessage(2)); !errors.As(err, &stale) || stale.Message != 2 || stale.Current != 3 {
		t.Errorf("old generation: %v, want the two numbers", err)
	}
	// Heartbeats tell of generations and belong to none.
	if err := ask(client, Message{Header: Header{Type: TypeHeartbeat, Generation: 1}}); err != nil {
		t.Errorf("heartbeat of another generation: %v", err)
	}
}

func TestAnswersOfAnotherGenerationAreRefused(t *testing.T) {
	a, b := pair(t)
	serve(t, b, "x", ServeOptions{Handler: func(_ context.Context, m Message) (Message, error) {
		answer := m.Reply(TypeGet, nil)
		answer.Generation--
		return answer, nil
	}})
	if _, err := a.Request(within(t), "x", boundMessage(3)); !errors.Is(err, ErrStale) {
		t.Errorf("%v, want %v", err, ErrStale)
	}
	if a.Counts().Refused["generation"] != 1 {
		t.Errorf("counts %+v", a.Counts())
	}
}

func TestHandlersFailAlone(t *testing.T) {
	s := startServer(t, ServerOptions{})
	events := make(chan Event, 1)
	server := dial(t, Options{Server: s, Notify: func(e Event) { events <- e }})
	client := dial(t, Options{Server: s})
	serve(t, server, "x", ServeOptions{Handler: func(ctx context.Context, m Message) (Message, error) {
		switch m.Scan {
		case 0:
			panic("no such rung")
		case 1:
			return Message{}, fmt.Errorf("scan 1: %w", ErrNotReady)
		case 2:
			return Message{}, errors.New("disk full")
		case 3:
			return m.Reply(TypeGet, make([]byte, MaxPayload+1)), nil
		}
		return m.Reply(TypeGet, nil), nil
	}})
	for scan, want := range []error{ErrFailed, ErrNotReady, ErrFailed, ErrFailed, nil} {
		_, err := client.Request(within(t), "x", Message{Header: Header{Type: TypeGet, Scan: uint64(scan)}})
		if !errors.Is(err, want) {
			t.Errorf("scan %d: %v, want %v", scan, err, want)
		}
		var remote *RemoteError
		if scan == 2 && (!errors.As(err, &remote) || remote.Text != "disk full") {
			t.Errorf("%v, want the peer's words", err)
		}
	}
	if e := <-events; e.Kind != Panicked || e.Subject != "x" || !strings.Contains(e.Err.Error(), "no such rung") {
		t.Errorf("event %+v, want the panic", e)
	}
	if got := server.Counts(); got.Panics != 1 || got.Served != 5 {
		t.Errorf("counts %+v", got)
	}
}

func TestNobodyAnswers(t *testing.T) {
	a, b := pair(t)
	if _, err := a.Request(within(t), "x", boundMessage(0)); !errors.Is(err, ErrNoResponders) {
		t.Errorf("no service: %v, want %v", err, ErrNoResponders)
	}
	handling := make(chan struct{})
	service := serve(t, b, "x", ServeOptions{Handler: func(ctx context.Context, _ Message) (Message, error) {
		close(handling)
		<-ctx.Done()
		return Message{}, ctx.Err()
	}})
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if _, err := a.Request(ctx, "x", boundMessage(0)); !errors.Is(err, enough) {
		t.Errorf("ended context: %v, want its cause", err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := a.Request(within(t), "x", boundMessage(0))
		answered <- err
	}()
	<-handling
	service.Close()
	service.Close() // closing twice is fine
	if err := <-answered; !errors.Is(err, ErrNotReady) {
		t.Errorf("service closed: %v, want %v", err, ErrNotReady)
	}
	if err := b.Flush(within(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Request(within(t), "x", boundMessage(0)); !errors.Is(err, ErrNoResponders) {
		t.Errorf("after that: %v, want %v", err, ErrNoResponders)
	}
}

// TestSlowConsumerHoldsUpNobody: a subject whose handler does not come back drops what is too much for it, with an event
// and a count, while another subject of the same connection answers; then it goes on where it was.
func TestSlowConsumerHoldsUpNobody(t *testing.T) {
	s := startServer(t, ServerOptions{})
	events := make(chan Event, 100)
	server := dial(t, Options{Server: s, Notify: func(e Event) { events <- e }})
	client := dial(t, Options{Server: s})
	const sent = 500
	gate, handled := make(chan struct{}), make(chan uint64, sent)
	serve(t, server, "slow", ServeOptions{Concurrency: 1, Pending: 10, Handler: func(_ context.Context, m Message) (Message, error) {
		handled <- m.Scan
		<-gate
		return Message{}, nil
	}})
	serve(t, server, "quick", ServeOptions{Handler: echo})
	publish := func(scan uint64) {
		t.Helper()
		if err := client.nats.Publish("slow", mustAppend(Message{Header: Header{Type: TypeHeartbeat, Experiment: experiment, Scan: scan}})); err != nil {
			t.Fatal(err)
		}
	}
	publish(0)
	if first := <-handled; first != 0 {
		t.Fatalf("message %d came first", first)
	}
	for i := range uint64(sent) {
		publish(1 + i)
	}
	// Its answer comes after all that was published has arrived.
	if _, err := client.Request(within(t), "quick", boundMessage(0)); err != nil {
		t.Fatalf("beside a slow one: %v", err)
	}
	if e := <-events; e.Kind != SlowConsumer || e.Subject != "slow" {
		t.Errorf("event %+v, want a slow consumer", e)
	}
	// Ten are pending, and perhaps one waits for its place.
	kept := sent - server.Counts().Dropped
	if kept < 10 || kept > 11 {
		t.Errorf("%d kept of %d, want 10 or 11", kept, sent)
	}
	close(gate)
	for last := uint64(0); kept > 0; kept-- {
		scan := <-handled
		if scan <= last {
			t.Errorf("message %d after message %d, want them one at a time in their order", scan, last)
		}
		last = scan
	}
	publish(sent + 1)
	if scan := <-handled; scan != sent+1 {
		t.Errorf("message %d, want %d: it goes on", scan, sent+1)
	}
	dropped := server.Counts().Dropped
	server.Close()
	if got := server.Counts().Dropped; got != dropped {
		t.Errorf("%d dropped once the service is closed, want %d as before", got, dropped)
	}
}

func TestConcurrencyIsBounded(t *testing.T) {
	a, b := pair(t)
	var running, most atomic.Int32
	full := make(chan struct{})
	serve(t, b, "x", ServeOptions{Concurrency: 3, Handler: func(_ context.Context, m Message) (Message, error) {
		if n := running.Add(1); n == 3 {
			close(full)
		} else if n > most.Load() {
			most.Store(n)
		}
		<-full
		running.Add(-1)
		return m.Reply(m.Type, nil), nil
	}})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, err := a.Request(within(t), "x", boundMessage(0)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if most.Load() > 3 {
		t.Errorf("%d at once, want 3", most.Load())
	}
}

func TestServerGoesAndComesBack(t *testing.T) {
	s, err := StartServer(t.Context(), ServerOptions{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	addr := strings.TrimPrefix(s.URL(), "nats://")
	events := make(chan Event, 10)
	a := dial(t, Options{URL: s.URL(), Notify: func(e Event) { events <- e }})
	back := make(chan Event, 10)
	b := dial(t, Options{URL: s.URL(), Notify: func(e Event) { back <- e }})
	reached := make(chan struct{})
	serve(t, b, "x", ServeOptions{Handler: func(ctx context.Context, m Message) (Message, error) {
		if m.Scan == 0 {
			return m.Reply(m.Type, nil), nil
		}
		close(reached)
		<-ctx.Done()
		return Message{}, ctx.Err()
	}})
	failed := make(chan error, 1)
	go func() {
		_, err := a.Request(within(t), "x", Message{Header: Header{Type: TypeGet, Scan: 1}})
		failed <- err
	}()
	<-reached
	s.Close()
	if err := <-failed; !errors.Is(err, ErrDisconnected) {
		t.Errorf("in the middle of a request: %v, want %v", err, ErrDisconnected)
	}
	if e := <-events; e.Kind != Disconnected {
		t.Errorf("event %+v, want %v", e, Disconnected)
	}
	if _, err := a.Request(within(t), "x", boundMessage(0)); !errors.Is(err, ErrDisconnected) {
		t.Errorf("without a server: %v, want %v", err, ErrDisconnected)
	}
	startServer(t, ServerOptions{Listen: addr})
	if e := <-events; e.Kind != Reconnected {
		t.Errorf("event %+v, want %v", e, Reconnected)
	}
	for e := range back {
		if e.Kind == Reconnected {
			break
		}
	}
	if err := b.Flush(within(t)); err != nil {
		t.Fatal(err)
	}
	// It serves its subjects again by itself.
	if _, err := a.Request(within(t), "x", Message{Header: Header{Type: TypeGet}}); err != nil {
		t.Errorf("the server is back: %v", err)
	}
	if got := a.Counts(); got.Disconnects != 1 || got.Reconnects != 1 {
		t.Errorf("counts %+v", got)
	}
}

func TestClosedConnection(t *testing.T) {
	a, b := pair(t)
	handling, asking := make(chan struct{}), make(chan error, 1)
	serve(t, b, "x", ServeOptions{Handler: func(ctx context.Context, _ Message) (Message, error) {
		close(handling)
		<-ctx.Done()
		return Message{}, nil
	}})
	go func() {
		_, err := a.Request(within(t), "x", boundMessage(0))
		asking <- err
	}()
	<-handling
	a.Close()
	a.Close()
	if err := <-asking; !errors.Is(err, ErrClosed) {
		t.Errorf("request on its way: %v, want %v", err, ErrClosed)
	}
	if _, err := a.Request(within(t), "x", boundMessage(0)); !errors.Is(err, ErrClosed) {
		t.Errorf("request: %v, want %v", err, ErrClosed)
	}
	if _, err := a.Serve("x", ServeOptions{Handler: echo}); !errors.Is(err, ErrClosed) {
		t.Errorf("serve: %v, want %v", err, ErrClosed)
	}
	if err := a.Flush(within(t)); !errors.Is(err, ErrClosed) {
		t.Errorf("flush: %v, want %v", err, ErrClosed)
	}
}

func TestServeRefusesBadOptions(t *testing.T) {
	a, _ := pair(t)
	for _, o := range []ServeOptions{{}, {Handler: echo, Concurrency: -1}, {Handler: echo, Pending: -1}} {
		if _, err := a.Serve("x", o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
	if _, err := a.Serve("a b", ServeOptions{Handler: echo}); !errors.Is(err, nats.ErrBadSubject) {
		t.Errorf("subject with a space: %v", err)
	}
}
