package server

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
	"github.com/kelvin-ebm/kelvin/pkg/local"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// Config says what a coordinator is made of, and where it is reached.
type Config struct {
	// Consensus is the part that the others know. Its API and NATS are filled in with what is listened on, where they are
	// empty.
	Consensus consensus.Config

	Listen   string      // host:port of the HTTP interface, port 0 for a free one
	TLS      *tls.Config // of that; nil only on a loopback address, or with Insecure
	Insecure bool        // allows any address without TLS, peer port too, where something else encrypts what goes over the network
	Admin    string      // host:port for profiles and metrics, without tokens; "": none. On a loopback address, or with Insecure

	NATS NATS

	TokenFile string // where the first leader writes the first token; "": admin-token in the data directory
	Version   string // of the program
	Log       *slog.Logger
	Ready     func(Reached) // is told where the coordinator is reached, once it is; nil: nobody
}

// NATS is the message bus: servers of the coordinators' own, or others.
type NATS struct {
	Listen  string             // host:port of the server in this process, port 0 for a free one; or
	URL     string             // of other servers, as in transport.Options
	TLS     *tls.Config        // of Listen, or for URL
	Cluster *transport.Cluster // with the servers of the other coordinators; nil: there are none
	Dial    transport.Options  // what URL asks for beside TLS
}

// Reached is where a coordinator is reached: host:port of the peer port and of the admin interface, URLs of the others; "" for
// what it does not have.
type Reached struct {
	API   string `json:"api"`
	NATS  string `json:"nats"`
	Peer  string `json:"peer"`
	Admin string `json:"admin"`
}

const (
	farewell = 5 * time.Second  // for handing over the leadership
	closing  = 10 * time.Second // for requests that are under way
)

// Serve is a coordinator from its start to the end of ctx. It then hands the leadership over, and puts everything down. A
// [*consensus.FatalError] is why it could not go on.
func Serve(ctx context.Context, cfg Config) error {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.TokenFile == "" {
		cfg.TokenFile = filepath.Join(cfg.Consensus.DataDir, "admin-token")
	}
	cfg.Consensus.Insecure = cfg.Insecure
	c := &assembly{cfg: cfg}
	defer c.close()
	if err := c.open(ctx); err != nil {
		return fmt.Errorf("coordinator %s: %w", cfg.Consensus.Name, err)
	}
	return c.run(ctx)
}

// assembly is what Serve puts together, in the order in which it is opened.
type assembly struct {
	cfg     Config
	api     net.Listener
	admin   net.Listener
	nats    *transport.Server
	node    *consensus.Node
	known   atomic.Pointer[consensus.Node] // for the server of the bus, which is there before
	server  *Server
	http    []*http.Server
	serving sync.WaitGroup
	failed  chan error
}

func (c *assembly) open(ctx context.Context) (err error) {
	cfg := &c.cfg
	if c.api, err = listen(cfg.Listen, cfg.TLS != nil || cfg.Insecure); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if cfg.Admin != "" {
		if c.admin, err = listen(cfg.Admin, cfg.Insecure); err != nil {
			return fmt.Errorf("admin listen: %w", err)
		}
	}
	if err := c.openBus(ctx); err != nil {
		return err
	}
	if cfg.Consensus.API == "" {
		scheme := "http"
		if cfg.TLS != nil {
			scheme = "https"
		}
		cfg.Consensus.API = scheme + "://" + c.api.Addr().String()
	}
	if cfg.Consensus.Log == nil {
		cfg.Consensus.Log = cfg.Log
	}
	if c.node, err = consensus.Open(ctx, cfg.Consensus); err != nil {
		return err
	}
	c.known.Store(c.node)
	at := site{node: c.node, server: c.nats, url: cfg.NATS.URL, dial: cfg.NATS.Dial, name: cfg.Consensus.Name,
		metrics: filepath.Join(cfg.Consensus.DataDir, "metrics"), log: cfg.Log}
	drivers := newDrivers(at)
	c.server, err = New(Options{
		Name: cfg.Consensus.Name, Node: c.node, Work: work{drivers, NewScheduler(c.node, drivers.start, cfg.Log)}, Check: check,
		TokenFile: cfg.TokenFile, Foreign: cfg.NATS.URL != "", Version: cfg.Version, Log: cfg.Log,
	})
	return err
}

// openBus starts a server of the message bus, if it is not elsewhere.
func (c *assembly) openBus(ctx context.Context) (err error) {
	bus := &c.cfg.NATS
	if (bus.Listen == "") == (bus.URL == "") {
		return errors.New("nats: want an address to listen on or the URL of other servers, and not both")
	}
	if bus.URL != "" {
		bus.Dial.TLS = bus.TLS
	} else if c.nats, err = transport.StartServer(ctx, transport.ServerOptions{Name: c.cfg.Consensus.Name, Listen: bus.Listen, TLS: bus.TLS, Insecure: c.cfg.Insecure,
		Authenticate: c.authenticate, Cluster: bus.Cluster, Log: c.cfg.Log}); err != nil {
		return err
	}
	switch {
	case c.cfg.Consensus.NATS != "":
	case bus.URL != "":
		c.cfg.Consensus.NATS = bus.URL
	default:
		c.cfg.Consensus.NATS = c.nats.URL()
	}
	return nil
}

// authenticate says which experiment a user of the message bus works for: the user is its uid.
func (c *assembly) authenticate(user, secret string) (experiment uint64, ok bool) {
	id, err := parseID(user)
	node := c.known.Load()
	if err != nil || node == nil {
		return 0, false
	}
	want := ""
	_, _, err = node.View(context.Background(), consensus.Stale, func(st *ledger.State) {
		_, key, begun := st.Cluster()
		if _, found := st.ByID(id); found && begun {
			want = ledger.ExperimentSecret(key, id)
		}
	})
	if err != nil || want == "" || subtle.ConstantTimeCompare([]byte(secret), []byte(want)) != 1 {
		return 0, false
	}
	return replica.Meet(want).Experiment, true
}

// check says what an experiment file comes to.
func check(yaml []byte, dir string) (Submitted, error) {
	led, err := local.Lead(yaml, dir)
	if err != nil {
		return Submitted{}, err
	}
	shards := 0
	for group := range led.Layout.Groups {
		shards += len(led.Layout.Shards(group))
	}
	return Submitted{Name: led.Config.Name, YAML: led.YAML, Rest: led.Rest, Steps: uint64(led.Steps), Shards: uint32(shards), CutEvery: led.CutEvery}, nil
}

// work is what the leader does: the scheduler gives replicas to the drivers.
type work struct {
	*drivers
	*Scheduler
}

// Lead implements [Work].
func (w work) Lead(ctx context.Context) error {
	tidied := make(chan struct{})
	go func() {
		defer close(tidied)
		w.drivers.tidy(ctx)
	}()
	defer func() { <-tidied }()
	return w.Scheduler.Lead(ctx)
}

// Drain implements [Work]: the replica is not to come back either.
func (w work) Drain(ctx context.Context, exp ledger.ID, replica string) error {
	if err := w.drivers.Drain(ctx, exp, replica); err != nil {
		return err
	}
	w.Scheduler.Release(replica)
	return nil
}

// run answers until ctx ends or something fails.
func (c *assembly) run(ctx context.Context) error {
	c.failed = make(chan error, 2)
	c.node.Handle("/v1/", c.server.PeerHandler())
	c.serve(c.api, c.server.Handler(), c.cfg.TLS)
	if c.admin != nil {
		c.serve(c.admin, c.server.adminHandler(), nil)
	}
	leading, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	led := make(chan struct{})
	go func() {
		defer close(led)
		_ = c.server.Lead(leading) // ends with it
	}()
	if c.cfg.Ready != nil {
		c.cfg.Ready(c.reached())
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-c.node.Fatal():
	case err = <-c.failed:
	}
	c.server.end()
	if err == nil && c.node.Leads() {
		c.server.settle(leading)
		handing, cancel := context.WithTimeout(leading, farewell)
		if err := c.node.Transfer(handing, ""); err != nil {
			c.cfg.Log.Debug("leadership is not handed over", "error", err) // there may be nobody
		}
		cancel()
	}
	stop()
	<-led
	return err
}

func (c *assembly) serve(l net.Listener, h http.Handler, secure *tls.Config) {
	srv := &http.Server{
		Handler: h, TLSConfig: secure, ReadHeaderTimeout: headerTimeout, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(c.cfg.Log.Handler(), slog.LevelDebug),
	}
	c.http = append(c.http, srv)
	c.serving.Go(func() {
		err := error(nil)
		if secure != nil {
			err = srv.ServeTLS(l, "", "")
		} else {
			err = srv.Serve(l)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			c.failed <- fmt.Errorf("serve %s: %w", l.Addr(), err)
		}
	})
}

func (c *assembly) reached() Reached {
	out := Reached{API: c.cfg.Consensus.API, NATS: c.cfg.Consensus.NATS, Peer: c.node.Address()}
	if c.admin != nil {
		out.Admin = c.admin.Addr().String()
	}
	return out
}

// close puts down what was opened, in the reverse order.
func (c *assembly) close() {
	ctx, cancel := context.WithTimeout(context.Background(), closing)
	defer cancel()
	if c.server != nil {
		c.server.end()
	}
	for _, srv := range c.http {
		if srv.Shutdown(ctx) != nil {
			_ = srv.Close()
		}
	}
	c.serving.Wait()
	if c.server != nil {
		c.server.Close()
	}
	if c.node != nil {
		if err := c.node.Close(); err != nil {
			c.cfg.Log.Error("close", "error", err)
		}
	}
	if c.nats != nil {
		c.nats.Close()
	}
	for _, l := range []net.Listener{c.api, c.admin} {
		if l != nil {
			_ = l.Close() // mostly for the second time
		}
	}
}

// listen listens on any address if it is safe to, else on a loopback address alone.
func listen(address string, safe bool) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("%q, want host:port", address)
	}
	if ip := net.ParseIP(host); !safe && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("%q without TLS, want TLS or a loopback address", address)
	}
	return net.Listen("tcp", address)
}

// adminHandler is for whoever runs the coordinator.
func (s *Server) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.metricsHandler())
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}
