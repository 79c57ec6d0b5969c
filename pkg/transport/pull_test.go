package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
)

var someKey = Key{Kind: KindRows, Generation: 3, Scan: 7, Shard: 1, Peer: 2}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

func put(t testing.TB, g *Giver, key Key, data []byte) {
	t.Helper()
	if err := g.Put(key, data); err != nil {
		t.Fatal(err)
	}
}

func TestBlobsOfEverySizeArePulled(t *testing.T) {
	a, b := pair(t)
	giver := NewGiver()
	serve(t, b, "x", ServeOptions{Handler: giver.Handle})
	var total int64
	for i, n := range []int{0, 1, ChunkSize - 1, ChunkSize, ChunkSize + 1, 9*ChunkSize + 17} {
		key := someKey
		key.Scan = uint64(i)
		want := randomBytes(n)
		put(t, giver, key, want)
		total += int64(n)
		got, err := a.Pull(within(t), Pull{Subject: "x", Key: key, Max: int64(n)})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes came back changed", n)
		}
		if n > 0 {
			if _, err := a.Pull(within(t), Pull{Subject: "x", Key: key, Max: int64(n) - 1}); !errors.Is(err, ErrTooLarge) {
				t.Errorf("%d bytes where %d are wanted: %v, want %v", n, n-1, err, ErrTooLarge)
			}
		}
	}
	if giver.Bytes() != total {
		t.Errorf("%d bytes kept, want %d", giver.Bytes(), total)
	}
	giver.Release(func(k Key) bool { return k.Scan > 1 })
	if giver.Bytes() != 1 {
		t.Errorf("%d bytes kept after the release, want 1", giver.Bytes())
	}
	if a.Counts().Retries != 0 {
		t.Errorf("%d retries on a good line", a.Counts().Retries)
	}
}

// badLine forwards requests from one subject to another and harms both ways, by a generator: it drops, doubles, holds back
// until the next came through, and flips bits.
func badLine(t *testing.T, s *Server, from, to string) (harmed func() map[string]int) {
	nc, err := nats.Connect("", nats.InProcessServer(s.nats))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(1, 2))
	counts := map[string]int{}
	var held func()
	pass := func(data []byte, send func([]byte)) {
		mu.Lock()
		defer mu.Unlock()
		fate := []string{"dropped", "doubled", "held", "flipped", "fine", "fine", "fine", "fine"}[r.IntN(8)]
		if fate == "held" && held != nil {
			fate = "fine"
		}
		counts[fate]++
		switch fate {
		case "doubled":
			send(data)
			send(data)
		case "held":
			held = func() { send(data) }
			return
		case "flipped":
			data = bytes.Clone(data)
			data[r.IntN(len(data))] ^= 1 << r.IntN(8)
			send(data)
		case "fine":
			send(data)
		}
		if held != nil {
			held()
			held = nil
		}
	}
	forward, err := nc.Subscribe(from, func(m *nats.Msg) {
		pass(m.Data, func(data []byte) {
			inbox := nc.NewInbox()
			back, err := nc.Subscribe(inbox, func(answer *nats.Msg) {
				pass(answer.Data, func(data []byte) { _ = m.Respond(data) })
			})
			if err == nil {
				_ = back.AutoUnsubscribe(1)
				_ = nc.PublishRequest(to, inbox, data)
			}
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = forward.Unsubscribe()
		nc.Close()
	})
	return func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		return counts
	}
}

func TestPullOverABadLine(t *testing.T) {
	s := startServer(t, ServerOptions{})
	a, b := dial(t, Options{Server: s}), dial(t, Options{Server: s})
	giver := NewGiver()
	serve(t, b, "x", ServeOptions{Handler: giver.Handle})
	harmed := badLine(t, s, "bad", "x")
	want := randomBytes(40*ChunkSize + 1)
	put(t, giver, someKey, want)
	// A chunk that is given up too early is asked for twice, no more: the timeout is no part of the result.
	got, err := a.Pull(within(t), Pull{Subject: "bad", Key: someKey, Max: 1 << 30, Timeout: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the blob came back changed")
	}
	for _, fate := range []string{"dropped", "doubled", "held", "flipped"} {
		if harmed()[fate] == 0 {
			t.Errorf("nothing was %s: %v", fate, harmed())
		}
	}
	if a.Counts().Retries == 0 || b.Counts().Refused["checksum"]+a.Counts().Refused["checksum"] == 0 {
		t.Errorf("counts %+v and %+v, want retries and damage", a.Counts(), b.Counts())
	}
}

func TestPullWaitsForWhatIsNotThereYet(t *testing.T) {
	a, b := pair(t)
	giver := NewGiver()
	asked := make(chan struct{}, 10)
	serve(t, b, "x", ServeOptions{Handler: func(ctx context.Context, m Message) (Message, error) {
		asked <- struct{}{}
		return giver.Handle(ctx, m)
	}})
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		data, err := a.Pull(within(t), Pull{Subject: "x", Key: someKey, Max: 10})
		done <- result{data, err}
	}()
	<-asked
	other := someKey
	other.Peer++
	put(t, giver, other, []byte("for another"))
	put(t, giver, someKey, []byte("here"))
	if r := <-done; r.err != nil || string(r.data) != "here" {
		t.Errorf("%q, %v", r.data, r.err)
	}
}

// TestGiverSendsEarlyRequestsAway keeps them for a second, by a clock that does not take one.
func TestGiverSendsEarlyRequestsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, m := NewGiver(), someKey.message(TypeGet, appendGet(nil, someKey.Kind))
		start := time.Now()
		if _, err := g.Handle(t.Context(), m); !errors.Is(err, ErrNotReady) || time.Since(start) != hold {
			t.Errorf("%v after %v, want %v after %v", err, time.Since(start), ErrNotReady, hold)
		}
	})
}

func TestGiverRefuses(t *testing.T) {
	g := NewGiver()
	put(t, g, someKey, []byte("rows"))
	put(t, g, someKey, []byte("rows"))
	if err := g.Put(someKey, []byte("ROWS")); err == nil {
		t.Error("other data under a taken key")
	}
	if err := g.Put(Key{}, nil); err == nil {
		t.Error("a key without a kind")
	}
	get := someKey.message(TypeGet, appendGet(nil, KindRows))
	for _, tc := range []struct {
		name string
		edit func(m *Message)
		want error
	}{
		{"a chunk behind the last", func(m *Message) { m.Chunk = 1 }, ErrMalformed},
		{"kind 0", func(m *Message) { m.Payload = []byte{0} }, ErrMalformed},
		{"no kind", func(m *Message) { m.Payload = nil }, ErrShort},
		{"another type", func(m *Message) { m.Type = TypeHeartbeat }, ErrUnhandled},
	} {
		m := get
		tc.edit(&m)
		if _, err := g.Handle(t.Context(), m); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
}

// TestPullGivesUp at once where asking again cannot help, and in the end where it does not.
func TestPullGivesUp(t *testing.T) {
	s := startServer(t, ServerOptions{})
	a, b := dial(t, Options{Server: s}), dial(t, Options{Server: s})
	p := Pull{Subject: "x", Key: someKey, Max: 1 << 30}
	if _, err := a.Pull(within(t), p); !errors.Is(err, ErrNoResponders) {
		t.Errorf("nobody there: %v, want %v", err, ErrNoResponders)
	}
	giver := NewGiver()
	blob := randomBytes(3 * ChunkSize)
	put(t, giver, someKey, blob)
	chunk := func(edit func(m *Message)) Handler {
		return func(ctx context.Context, m Message) (Message, error) {
			answer, err := giver.Handle(ctx, m)
			if m.Chunk == 1 {
				edit(&answer)
			}
			return answer, err
		}
	}
	var gate Gate
	gate.Enter(4)
	for i, tc := range []struct {
		name    string
		options ServeOptions
		want    error
	}{
		{"another generation", ServeOptions{Handler: giver.Handle, Gate: &gate}, ErrStale},
		{"a giver that fails", ServeOptions{Handler: func(context.Context, Message) (Message, error) { return Message{}, errors.New("no disk") }}, ErrFailed},
		{"a line that damages everything", ServeOptions{Handler: func(context.Context, Message) (Message, error) { return Message{}, ErrChecksum }}, ErrChecksum},
		{"a byte that only the digest finds", ServeOptions{Handler: chunk(func(m *Message) { m.Payload[offerSize+5] ^= 1 })}, ErrChecksum},
		{"a chunk cut short", ServeOptions{Handler: chunk(func(m *Message) { m.Payload = m.Payload[:len(m.Payload)-1] })}, ErrMalformed},
		{"a chunk of another blob", ServeOptions{Handler: chunk(func(m *Message) { m.Payload[20] ^= 1 })}, ErrMalformed},
		{"the wrong chunk", ServeOptions{Handler: chunk(func(m *Message) { m.Chunk = 2 })}, ErrMalformed},
		{"the wrong scan", ServeOptions{Handler: chunk(func(m *Message) { m.Scan++ })}, ErrMalformed},
		{"the wrong number of chunks", ServeOptions{Handler: chunk(func(m *Message) { m.Chunks++ })}, ErrMalformed},
		{"no chunk", ServeOptions{Handler: chunk(func(m *Message) { *m = m.Reply(TypeErr, nil) })}, ErrShort},
	} {
		p.Subject = fmt.Sprintf("x%d", i)
		serve(t, b, p.Subject, tc.options)
		if _, err := a.Pull(within(t), p); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}

	// A pull in the middle when the server goes.
	reached := make(chan struct{})
	p.Subject = "y"
	serve(t, b, "y", ServeOptions{Handler: func(ctx context.Context, m Message) (Message, error) {
		if m.Chunk < 2 {
			return giver.Handle(ctx, m)
		}
		close(reached)
		<-ctx.Done()
		return Message{}, ctx.Err()
	}})
	failed := make(chan error, 1)
	go func() {
		_, err := a.Pull(within(t), Pull{Subject: "y", Key: someKey, Max: 1 << 30, Timeout: limit})
		failed <- err
	}()
	<-reached
	s.Close()
	if err := <-failed; !errors.Is(err, ErrDisconnected) {
		t.Errorf("server gone: %v, want %v", err, ErrDisconnected)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Pull(ctx, p); !errors.Is(err, context.Canceled) {
		t.Errorf("ended context: %v", err)
	}
}

// What is brought comes whole up to the size of a message; of what is larger the news alone, but within a process.
func TestBlobsAreBrought(t *testing.T) {
	for _, within := range []bool{false, true} {
		s := startServer(t, ServerOptions{Listen: "127.0.0.1:0"})
		link := Options{URL: s.URL()}
		if within {
			link = Options{Server: s}
		}
		got, refused := make(chan Brought, 1), make(chan Event, 1)
		a := dial(t, link)
		link.Notify = func(e Event) { refused <- e }
		b := dial(t, link)
		var gate Gate
		gate.Enter(someKey.Generation)
		for _, subject := range []string{"x", "y"} {
			serve(t, b, subject, ServeOptions{Gate: &gate, Handler: echo, Brought: func(b Brought) error {
				got <- b
				return nil
			}})
		}
		for _, n := range []int{0, 1, MaxBrought, MaxBrought + 1} {
			want := randomBytes(n)
			go a.Bring(someKey, want, "x", "nobody", "y")
			for range 2 {
				b := <-got
				if b.Key != someKey || b.Bytes != uint64(n) {
					t.Errorf("%v of %d bytes, want %v of %d", b.Key, b.Bytes, someKey, n)
				}
				if news := !within && n > MaxBrought; (b.Data == nil) != news || !news && !bytes.Equal(b.Data, want) {
					t.Errorf("%d bytes of %d came, or changed", len(b.Data), n)
				}
			}
		}
		old := someKey
		old.Generation--
		a.Bring(old, nil, "x")
		if e := <-refused; !errors.Is(e.Err, ErrStale) {
			t.Errorf("a blob of an old generation: %v, want %v", e.Err, ErrStale)
		}
	}
}

// Whoever does not take what is brought, or belongs to another experiment, says so; one that has ended is not asked.
func TestBroughtBlobsAreRefused(t *testing.T) {
	s := startServer(t, ServerOptions{})
	a, b := dial(t, Options{Server: s}), dial(t, Options{Server: s})
	other := dial(t, Options{Server: s, Experiment: 8})
	serve(t, b, "x", ServeOptions{Handler: echo})
	ended := serve(t, b, "y", ServeOptions{Handler: echo, Brought: func(Brought) error {
		t.Error("a service that has ended was handed a blob")
		return nil
	}})
	ended.Close()
	a.Bring(someKey, nil, "x", "y")
	other.Bring(someKey, nil, "x")
	for _, why := range []string{"unhandled", "experiment"} {
		if n := b.Counts().Refused[why]; n != 1 {
			t.Errorf("%d refused as %s, want 1", n, why)
		}
	}
}
