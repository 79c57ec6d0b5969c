package transport

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/certs"
)

// Routes is host:port where the server takes routes; empty if it is in no cluster.
func (s *Server) Routes() string {
	if addr := s.nats.ClusterAddr(); addr != nil {
		return addr.String()
	}
	return ""
}

// Peers is the number of other servers of the cluster that the server has a route to.
func (s *Server) Peers() int { return s.nats.NumRemotes() }

// freeAddress is a loopback address that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// eventually polls a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for ctx := within(t); !ok(); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within %v", what, limit)
		}
	}
}

// startCluster starts n servers that all have the same list of routes, and waits until each has reached all others.
func startCluster(t *testing.T, n int, o ServerOptions, c Cluster) []*Server {
	t.Helper()
	c.Name = "test"
	for range n {
		c.Routes = append(c.Routes, freeAddress(t))
	}
	servers := make([]*Server, n)
	for i := range servers {
		one, cluster := o, c
		cluster.Listen = c.Routes[i]
		one.Name, one.Listen, one.Cluster = fmt.Sprintf("c%d", i), "127.0.0.1:0", &cluster
		servers[i] = startServer(t, one)
	}
	for _, s := range servers {
		eventually(t, "routes", func() bool { return s.Peers() == n-1 })
	}
	return servers
}

// moving is a connection that knows all servers and is at one of those that are wanted.
func moving(t *testing.T, all []*Server, want func(*Server) bool, o Options) (*Conn, *Server) {
	t.Helper()
	var urls []string
	for _, s := range all {
		urls = append(urls, s.URL())
	}
	o.URL, o.Experiment = strings.Join(urls, ","), experiment
	for { // which one it takes is left to chance
		c, err := Dial(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		at := all[0]
		for _, s := range all {
			if s.URL() == "nats://"+c.nats.ConnectedAddr() {
				at = s
			}
		}
		if want(at) {
			t.Cleanup(c.Close)
			return c, at
		}
		c.Close()
	}
}

// TestServersOfAClusterDie: three servers, an asker at one, an answerer at another; both lose their servers, one after the
// other. Requests fail by their names meanwhile, and succeed when they are repeated.
func TestServersOfAClusterDie(t *testing.T) {
	servers := startCluster(t, 3, ServerOptions{Authenticate: users1}, Cluster{Secret: "between servers"})
	user := Options{User: "u", Secret: "s"}
	asker, itsServer := moving(t, servers, func(*Server) bool { return true }, user)
	answerer, second := moving(t, servers, func(s *Server) bool { return s != itsServer }, user)
	_, third := moving(t, servers, func(s *Server) bool { return s != itsServer && s != second }, user)
	fixed := dial(t, Options{URL: second.URL(), User: "u", Secret: "s"}) // dies with its server
	place := SubjectsOf(experiment)
	x, y := place.Exchange(Token{"x"}), place.Exchange(Token{"y"})

	entered := make(chan struct{}, 100)
	serve(t, answerer, x, ServeOptions{Handler: func(ctx context.Context, m Message) (Message, error) {
		if m.Scan != 0 { // has no answer yet
			entered <- struct{}{}
			<-ctx.Done()
		}
		return m.Reply(m.Type, nil), ctx.Err()
	}})
	serve(t, fixed, y, ServeOptions{Handler: echo})
	ask := func(subject string, scan uint64, patience time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := asker.Request(ctx, subject, Message{Header: Header{Type: TypeGet, Scan: scan}})
		return err
	}
	repeat := func(subject string, want error) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s: %v", subject, want), func() bool {
			err := ask(subject, 0, 100*time.Millisecond)
			if err != nil && !errors.Is(err, ErrNoResponders) && !errors.Is(err, ErrDisconnected) && !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("%s: %v", subject, err)
			}
			return errors.Is(err, want)
		})
	}
	repeat(x, nil) // interest in a subject takes a moment from server to server
	repeat(y, nil)
	var flying sync.WaitGroup
	fly := func(patience time.Duration, want error) {
		flying.Go(func() {
			if err := ask(x, 1, patience); !errors.Is(err, want) {
				t.Errorf("a request on its way: %v, want %v", err, want)
			}
		})
		<-entered
	}

	fly(time.Second, context.DeadlineExceeded) // its answer is lost: nobody can tell
	second.Close()
	repeat(y, ErrNoResponders)
	repeat(x, nil) // the answerer has moved
	flying.Wait()

	fly(limit, ErrDisconnected)
	itsServer.Close()
	flying.Wait()
	repeat(x, nil)
	repeat(y, ErrNoResponders)
	eventually(t, "the last server is alone", func() bool { return third.Peers() == 0 })
	if n := asker.Counts().Disconnects; n != 1 {
		t.Errorf("the asker lost %d servers, want its own", n)
	}
}

// users1 takes one user.
func users1(user, secret string) (uint64, bool) { return experiment, user == "u" && secret == "s" }

// TestServersComeBack: a server that was away is found again by the others, at its old address.
func TestServersComeBack(t *testing.T) {
	a, b := freeAddress(t), freeAddress(t)
	start := func(name, listen string) *Server {
		s, err := StartServer(t.Context(), ServerOptions{Name: name, Listen: "127.0.0.1:0", Cluster: &Cluster{Name: "test", Listen: listen, Routes: []string{a, b}}})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first, second := start("a", a), start("b", b)
	defer first.Close()
	eventually(t, "routes", func() bool { return first.Peers() == 1 && second.Peers() == 1 })
	second.Close()
	eventually(t, "the other is gone", func() bool { return first.Peers() == 0 })
	second = start("b", b)
	defer second.Close()
	eventually(t, "the other is back", func() bool { return first.Peers() == 1 && second.Peers() == 1 })
	if second.Routes() != b || startServer(t, ServerOptions{}).Routes() != "" {
		t.Errorf("routes at %q, want %q, and nowhere for a single server", second.Routes(), b)
	}
	asker, answerer := dial(t, Options{Server: first}), dial(t, Options{Server: second})
	serve(t, answerer, "x", ServeOptions{Handler: echo})
	eventually(t, "an answer", func() bool {
		_, err := asker.Request(within(t), "x", boundMessage(0))
		return err == nil
	})
	asker.Close()
	answerer.Close()
}

// log is a writer that tests read while others write.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *log) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Reset()
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// issued is what a coordinator uses for its routes, with a certificate of a new authority, and what a replica could.
func issued(t *testing.T, dir string) (coordinator, replica *tls.Config) {
	t.Helper()
	if err := certs.Init(dir, "test", certs.Year); err != nil {
		t.Fatal(err)
	}
	ca, err := certs.OpenAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := func(role certs.Role) *certs.Certificates {
		cert, key, err := ca.Issue(certs.Request{Identity: certs.Identity{Role: role, Name: string(role)}, Hosts: []string{"127.0.0.1"}, Valid: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		c, err := certs.Load(certs.Files{Cert: cert, Key: key, CA: filepath.Join(dir, "ca.pem")}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if coordinator, err = files(certs.Coordinator).Mutual(); err != nil {
		t.Fatal(err)
	}
	return coordinator, files(certs.Replica).Client()
}

func TestStrangeServersStayOut(t *testing.T) {
	dir := t.TempDir()
	mutual, replica := issued(t, filepath.Join(dir, "ours"))
	stranger, _ := issued(t, filepath.Join(dir, "theirs"))
	var said log // by all servers
	to := slog.New(slog.NewTextHandler(&said, nil))
	servers := startCluster(t, 2, ServerOptions{Log: to}, Cluster{TLS: mutual})
	asker, answerer := dial(t, Options{Server: servers[0]}), dial(t, Options{Server: servers[1]})
	serve(t, answerer, "x", ServeOptions{Handler: echo})
	eventually(t, "an answer over TLS", func() bool {
		_, err := asker.Request(within(t), "x", boundMessage(0))
		return err == nil
	})

	for _, tc := range []struct {
		name    string
		cluster Cluster // that it believes to be in
		of      *Cluster
		says    string
	}{
		{"certificate of another authority", Cluster{TLS: stranger}, nil, "certificate signed by unknown authority"},
		{"certificate of a replica", Cluster{TLS: replica, Secret: "guess"}, nil, "not a coordinator of this cluster"},
		{"wrong secret", Cluster{Secret: "guess"}, &Cluster{Name: "test", Secret: "right"}, "Authorization Violation"},
		{"no secret", Cluster{}, &Cluster{Name: "test", Secret: "right"}, "Authorization Violation"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			said.Reset()
			server := servers[0]
			if tc.of != nil {
				tc.of.Listen = "127.0.0.1:0"
				server = startServer(t, ServerOptions{Name: "c0", Listen: "127.0.0.1:0", Cluster: tc.of, Log: to})
			}
			peers := server.Peers()
			tc.cluster.Name, tc.cluster.Listen, tc.cluster.Routes = "test", "127.0.0.1:0", []string{server.Routes()}
			startServer(t, ServerOptions{Name: "stranger", Listen: "127.0.0.1:0", Cluster: &tc.cluster, Log: to})
			eventually(t, tc.says, func() bool { return strings.Contains(said.String(), tc.says) })
			// The stranger itself counts the route until it is told that it is refused.
			if server.Peers() != peers {
				t.Errorf("the server has %d peers, want %d as before", server.Peers(), peers)
			}
			if strings.Contains(said.String(), "guess") {
				t.Errorf("the secret is in the log: %s", said.String())
			}
		})
	}
	asker.Close()
	answerer.Close()
}

// A connection that is told of servers that joined later moves to one of them when its own is gone.
func TestConnectionMovesToAServerThatJoinedLater(t *testing.T) {
	start := func(name string, routes ...string) *Server {
		s, err := StartServer(t.Context(), ServerOptions{Name: name, Listen: "127.0.0.1:0", Cluster: &Cluster{Name: "c", Listen: "127.0.0.1:0", Routes: routes}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
	first := start("a")
	back := make(chan struct{}, 1)
	c, err := Dial(t.Context(), Options{URL: first.URL(), Notify: func(e Event) {
		if e.Kind == Reconnected {
			back <- struct{}{}
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	second := start("b", first.Routes())
	if err := c.SetServers(first.URL() + "," + second.URL()); err != nil {
		t.Fatal(err)
	}
	first.Close()
	select {
	case <-back:
	case <-time.After(time.Minute):
		t.Fatal("the connection has not come back after a minute")
	}
	if err := c.SetServers("no url:"); err == nil {
		t.Error("a URL that is none was taken")
	}
}
