package transport

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
)

// users are those of a test: u1 works for experiment 1, u2 for experiment 2.
func users(user, secret string) (uint64, bool) {
	switch {
	case user == "u1" && secret == "s1":
		return 1, true
	case user == "u2" && secret == "s2":
		return 2, true
	}
	return 0, false
}

// events hands the events of one kind on, and drops what nobody takes.
func events(kind EventKind) (<-chan Event, func(Event)) {
	ch := make(chan Event, 16)
	return ch, func(e Event) {
		if e.Kind == kind {
			select {
			case ch <- e:
			default:
			}
		}
	}
}

func TestUsersWorkWithinTheirExperiment(t *testing.T) {
	s := startServer(t, ServerOptions{Listen: "127.0.0.1:0", Authenticate: users})
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("s1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	leader := dial(t, Options{Server: s, Name: "c0", Experiment: 1})
	r0 := dial(t, Options{URL: s.URL(), User: "u1", Secret: "s1", Name: "r0", Experiment: 1})
	r1 := dial(t, Options{URL: s.URL(), User: "u1", SecretFile: file, Name: "a name with spaces", Experiment: 1})
	place := SubjectsOf(1)
	giver := NewGiver()
	blob := randomBytes(6*ChunkSize + 1)
	put(t, giver, someKey, blob)
	serve(t, leader, place.Heartbeats(), ServeOptions{Handler: echo})
	serve(t, leader, place.Gives(Token{"c0"}), ServeOptions{Handler: giver.Handle})
	serve(t, r0, place.Control(Token{"r0"}), ServeOptions{Handler: echo})
	serve(t, r1, place.Exchange(Token{"r1"}), ServeOptions{Handler: giver.Handle})

	for _, who := range []*Conn{r0, r1} {
		if _, err := who.Request(within(t), place.Heartbeats(), boundMessage(0)); err != nil {
			t.Errorf("a replica asks the leader: %v", err)
		}
	}
	for range 3 { // every request may be answered
		if _, err := leader.Request(within(t), place.Control(Token{"r0"}), boundMessage(0)); err != nil {
			t.Errorf("the leader asks a replica: %v", err)
		}
	}
	for who, subject := range map[*Conn]string{r0: place.Exchange(Token{"r1"}), r1: place.Gives(Token{"c0"})} {
		got, err := who.Pull(within(t), Pull{Subject: subject, Key: someKey, Max: 1 << 30})
		if err != nil || len(got) != len(blob) {
			t.Errorf("a blob of %s: %d bytes, %v", subject, len(got), err)
		}
	}
	if _, err := r0.Request(within(t), place.Exchange(Token{"r9"}), boundMessage(0)); !errors.Is(err, ErrNoResponders) {
		t.Errorf("nobody there: %v, want %v", err, ErrNoResponders)
	}
}

func TestStrangersAreRefused(t *testing.T) {
	s := startServer(t, ServerOptions{Listen: "127.0.0.1:0", Authenticate: users})
	for _, o := range []Options{
		{},
		{User: "u1", Secret: "s2"},
		{User: "u3", Secret: "s1"},
		{Token: "s1"},
	} {
		o.URL = s.URL()
		if _, err := Dial(t.Context(), o); !errors.Is(err, ErrUnauthorized) {
			t.Errorf("user %q: %v, want %v", o.User, err, ErrUnauthorized)
		}
	}
}

// TestOtherExperimentsAreOutOfReach: what a server refuses fails at once by its name, is told as an event, and the next
// good request is answered.
func TestOtherExperimentsAreOutOfReach(t *testing.T) {
	s := startServer(t, ServerOptions{Listen: "127.0.0.1:0", Authenticate: users})
	leader := dial(t, Options{Server: s, Name: "c0", Experiment: 1})
	mine, other := SubjectsOf(2), SubjectsOf(1)
	var overheard atomic.Int32
	listen := ServeOptions{Handler: func(_ context.Context, m Message) (Message, error) {
		overheard.Add(1)
		return m.Reply(m.Type, nil), nil
	}}
	serve(t, leader, other.Heartbeats(), ServeOptions{Handler: echo})
	serve(t, leader, mine.Heartbeats(), ServeOptions{Handler: echo})

	refused, notify := events(Unauthorized)
	stranger := dial(t, Options{URL: s.URL(), User: "u2", Secret: "s2", Name: "r0", Experiment: 1, Notify: notify})
	// Its number is its own business: the server goes by the user. Answers to it would go to an inbox that is not its.
	if _, err := stranger.Request(within(t), mine.Heartbeats(), boundMessage(0)); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("with the inbox of another experiment: %v, want %v", err, ErrUnauthorized)
	}
	if e := <-refused; !strings.HasPrefix(e.Subject, other.inbox()) || !errors.Is(e.Err, ErrUnauthorized) {
		t.Errorf("event %+v, want the inbox", e)
	}

	refused, notify = events(Unauthorized)
	r0 := dial(t, Options{URL: s.URL(), User: "u2", Secret: "s2", Name: "r0", Experiment: 2, Notify: notify})
	ask := func() {
		t.Helper()
		m := boundMessage(0)
		if _, err := r0.Request(within(t), mine.Exchange(Token{"r9"}), m); !errors.Is(err, ErrNoResponders) {
			t.Errorf("a good request: %v, want %v", err, ErrNoResponders)
		}
	}
	ask()
	for _, subject := range []string{other.Heartbeats(), "elsewhere", other.inbox() + ".c0.x"} {
		if _, err := r0.Request(within(t), subject, boundMessage(0)); !errors.Is(err, ErrUnauthorized) {
			t.Errorf("request to %s: %v, want %v", subject, err, ErrUnauthorized)
		}
		if e := <-refused; e.Subject != subject || !errors.Is(e.Err, ErrUnauthorized) {
			t.Errorf("event %+v, want one of %s", e, subject)
		}
		ask()
	}
	for _, subject := range []string{other.Heartbeats(), ">", "kelvin.>", other.inbox() + ".>", "_INBOX.>"} {
		serve(t, r0, subject, listen)
		if e := <-refused; e.Subject != subject || !errors.Is(e.Err, ErrUnauthorized) {
			t.Errorf("event %+v, want one of %s", e, subject)
		}
		ask()
	}
	r1 := dial(t, Options{URL: s.URL(), User: "u1", Secret: "s1", Name: "r1", Experiment: 1})
	if _, err := r1.Request(within(t), other.Heartbeats(), boundMessage(0)); err != nil {
		t.Errorf("beside strangers: %v", err)
	}
	if n := overheard.Load(); n != 0 {
		t.Errorf("%d messages of another experiment were overheard", n)
	}
}

// TestSecretChanges: a connection whose secret the server does not take any more says so, and comes back with the new one.
func TestSecretChanges(t *testing.T) {
	var valid atomic.Value
	valid.Store("old")
	options := ServerOptions{Listen: "127.0.0.1:0", Authenticate: func(_, secret string) (uint64, bool) { return experiment, secret == valid.Load() }}
	s, err := StartServer(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	options.Listen = strings.TrimPrefix(s.URL(), "nats://")
	file := filepath.Join(t.TempDir(), "secret")
	write := func(secret string) {
		if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old")
	refused, notify := events(Unauthorized)
	back, notifyBack := events(Reconnected)
	c := dial(t, Options{URL: s.URL(), User: "u", SecretFile: file, Notify: func(e Event) { notify(e); notifyBack(e) }})
	s.Close()
	valid.Store("new")
	again := startServer(t, options)
	serve(t, dial(t, Options{Server: again}), SubjectsOf(experiment).Heartbeats(), ServeOptions{Handler: echo})
	for range 3 { // it does not give up
		if e := <-refused; !errors.Is(e.Err, ErrUnauthorized) {
			t.Errorf("event %+v, want %v", e, ErrUnauthorized)
		}
	}
	if _, err := c.Request(within(t), SubjectsOf(experiment).Heartbeats(), boundMessage(0)); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("while it is refused: %v, want %v", err, ErrUnauthorized)
	}
	write("new")
	<-back
	if _, err := c.Request(within(t), SubjectsOf(experiment).Heartbeats(), boundMessage(0)); err != nil {
		t.Errorf("with the new secret: %v", err)
	}
}

// TestConfigOfTheDocs: docs/protocol.md tells operators of a NATS cluster of their own what to configure. It is what a
// replica needs, and does not let it do what it should not.
func TestConfigOfTheDocs(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "protocol.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(doc), "```conf\n")
	text, _, closed := strings.Cut(text, "```")
	if !found || !closed {
		t.Fatal("docs/protocol.md has no configuration")
	}
	file := filepath.Join(t.TempDir(), "nats.conf")
	text = strings.NewReplacer("$COORDINATOR_SECRET", "sc", "$R0_SECRET", "s0").Replace(text)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	opts, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	opts.Host, opts.Port, opts.NoSigs, opts.NoLog = "127.0.0.1", server.RANDOM_PORT, true, true
	ns, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	defer ns.WaitForShutdown()
	defer ns.Shutdown()

	refused, notify := events(Unauthorized)
	leader := dial(t, Options{URL: ns.ClientURL(), User: "coordinator", Secret: "sc", Name: "c0"})
	r0 := dial(t, Options{URL: ns.ClientURL(), User: "r0", Secret: "s0", Name: "r0", Notify: notify})
	place := SubjectsOf(experiment)
	serve(t, leader, place.Heartbeats(), ServeOptions{Handler: echo})
	serve(t, leader, place.Gives(Token{"c0"}), ServeOptions{Handler: echo})
	serve(t, leader, place.Exchange(Token{"r1"}), ServeOptions{Handler: echo}) // as another replica would
	serve(t, r0, place.Control(Token{"r0"}), ServeOptions{Handler: echo})
	serve(t, r0, place.Exchange(Token{"r0"}), ServeOptions{Handler: echo})
	for _, subject := range []string{place.Heartbeats(), place.Gives(Token{"c0"}), place.Exchange(Token{"r1"})} {
		if _, err := r0.Request(within(t), subject, boundMessage(0)); err != nil {
			t.Errorf("r0 asks: %v", err)
		}
	}
	for _, subject := range []string{place.Control(Token{"r0"}), place.Exchange(Token{"r0"})} {
		if _, err := leader.Request(within(t), subject, boundMessage(0)); err != nil {
			t.Errorf("r0 is asked: %v", err)
		}
	}
	if _, err := r0.Request(within(t), place.Control(Token{"r1"}), boundMessage(0)); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("r0 commands another replica: %v, want %v", err, ErrUnauthorized)
	}
	<-refused
	for _, subject := range []string{place.Heartbeats(), place.Control(Token{"r1"}), place.inbox() + ".c0.>"} {
		serve(t, r0, subject, ServeOptions{Handler: echo})
		if e := <-refused; e.Subject != subject {
			t.Errorf("event %+v, want one of %s", e, subject)
		}
	}
	leader.Close()
	r0.Close()
}
