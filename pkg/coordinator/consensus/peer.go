package consensus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// dialFunc opens a connection to a peer port.
type dialFunc func(ctx context.Context, address string) (net.Conn, error)

func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}

// The first byte of a connection.
const (
	speaksRaft byte = 'R'
	speaksHTTP byte = 'H'
)

// greeting is how long a connection may take to say what it is.
const greeting = 10 * time.Second

// peerPort is the port where other coordinators come in. It tells raft's connections from HTTP's.
type peerPort struct {
	listener  net.Listener
	advertise string
	tls       *TLS
	dial      dialFunc
	log       *slog.Logger

	raft, http *branch
	server     *http.Server
	client     *http.Client
	blobs      *http.Client // of the replicator
	mux        *http.ServeMux
	wg         sync.WaitGroup

	admitted atomic.Bool // raft's connections

	mu     sync.Mutex
	conns  map[net.Conn]struct{} // nil when it is closed
	closed chan struct{}
}

// listenPeers opens the port. Close it.
func listenPeers(c Config) (*peerPort, error) {
	l, err := net.Listen("tcp", c.Peer.Listen)
	if err != nil {
		return nil, fmt.Errorf("peer port: %w", err)
	}
	p := &peerPort{listener: l, advertise: c.Peer.Advertise, tls: c.TLS, dial: c.hooks.dial, log: c.Log, mux: http.NewServeMux(), conns: map[net.Conn]struct{}{}, closed: make(chan struct{})}
	if p.advertise == "" {
		p.advertise = l.Addr().String()
	}
	p.raft, p.http = p.branch(), p.branch()
	p.server = &http.Server{Handler: p.mux, ReadHeaderTimeout: greeting, ErrorLog: slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug)}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return p.open(ctx, address, speaksHTTP)
		},
		MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute, DisableCompression: true,
		ExpectContinueTimeout: time.Second,
	}
	p.client = &http.Client{Transport: transport}
	transport = transport.Clone()
	transport.ExpectContinueTimeout = time.Hour // who has a blob already verifies it and says so before it is sent
	p.blobs = &http.Client{Transport: transport}
	return p, nil
}

// serve lets connections in.
func (p *peerPort) serve() {
	p.wg.Go(func() { p.server.Serve(p.http) })
	p.wg.Go(p.accept)
}

// admitRaft lets raft's connections in from now on.
func (p *peerPort) admitRaft() {
	if p != nil { // a node that is alone has no port
		p.admitted.Store(true)
	}
}

func (p *peerPort) accept() {
	for {
		conn, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // such as too many open files: not for ever
			p.log.Warn("peer port", "error", err)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-p.closed:
				return
			}
			continue
		}
		if p.tls != nil {
			conn = tls.Server(conn, p.tls.Server)
		}
		tracked, ok := p.track(conn)
		if !ok {
			return
		}
		p.wg.Go(func() { p.greet(tracked) })
	}
}

// greet hands a connection on to who it is for.
func (p *peerPort) greet(conn *trackedConn) {
	var first [1]byte
	conn.SetDeadline(time.Now().Add(greeting))
	_, err := io.ReadFull(conn, first[:])
	conn.SetDeadline(time.Time{})
	to := p.raft
	switch {
	case err == nil && first[0] == speaksHTTP:
		to = p.http
	case err == nil && first[0] == speaksRaft && p.admitted.Load():
	default:
		p.log.Debug("peer port: connection refused", "from", conn.RemoteAddr(), "first", first[0], "error", err)
		conn.Close()
		return
	}
	select {
	case to.conns <- conn:
	case <-to.closed:
		conn.Close()
	case <-p.closed:
		conn.Close()
	}
}

// open connects to the peer port of another coordinator.
func (p *peerPort) open(ctx context.Context, address string, speaks byte) (net.Conn, error) {
	conn, err := p.dial(ctx, address)
	if err != nil {
		return nil, err
	}
	if p.tls != nil {
		secure := tls.Client(conn, p.tls.client(address))
		if err := secure.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, fmt.Errorf("%s: %w", address, err)
		}
		conn = secure
	}
	tracked, ok := p.track(conn)
	if !ok {
		return nil, net.ErrClosed
	}
	if _, err := tracked.Write([]byte{speaks}); err != nil {
		tracked.Close()
		return nil, err
	}
	return tracked, nil
}

// track sees to it that Close closes a connection.
func (p *peerPort) track(conn net.Conn) (*trackedConn, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns == nil {
		conn.Close()
		return nil, false
	}
	p.conns[conn] = struct{}{}
	return &trackedConn{Conn: conn, port: p}, true
}

type trackedConn struct {
	net.Conn
	port *peerPort
	once sync.Once
	used bool // by somebody whom the port waits for
}

func (c *trackedConn) Close() error {
	c.once.Do(func() {
		c.port.mu.Lock()
		delete(c.port.conns, c.Conn)
		c.port.mu.Unlock()
		if c.used {
			c.port.wg.Done()
		}
	})
	return c.Conn.Close()
}

// use makes the port's Close wait until somebody closes the connection.
func (c *trackedConn) use() bool {
	c.port.mu.Lock()
	defer c.port.mu.Unlock()
	if c.port.conns == nil {
		return false
	}
	c.used = true
	c.port.wg.Add(1)
	return true
}

// Close closes the port and all connections, in and out, and waits until nothing of it runs.
func (p *peerPort) Close() error {
	p.mu.Lock()
	if p.conns == nil {
		p.mu.Unlock()
		return nil
	}
	conns := p.conns
	p.conns = nil
	close(p.closed)
	p.mu.Unlock()
	err := p.listener.Close()
	for conn := range conns {
		conn.Close()
	}
	err = errors.Join(err, p.server.Close())
	p.client.CloseIdleConnections()
	p.blobs.CloseIdleConnections()
	p.wg.Wait()
	return err
}

// branch is the part of the port's connections that speak one protocol. It is a [net.Listener], and raft's way out.
type branch struct {
	port   *peerPort
	conns  chan *trackedConn
	once   sync.Once
	closed chan struct{}
}

var _ raft.StreamLayer = (*branch)(nil)

func (p *peerPort) branch() *branch {
	return &branch{port: p, conns: make(chan *trackedConn), closed: make(chan struct{})}
}

// Accept implements [net.Listener]. Raft answers heartbeats by itself, on the connection's goroutine, and notes a new term even
// after it was shut down: the port waits for whoever has a connection.
func (b *branch) Accept() (net.Conn, error) {
	select {
	case conn := <-b.conns:
		if conn.use() {
			return conn, nil
		}
		conn.Close()
	case <-b.closed:
	case <-b.port.closed:
	}
	return nil, net.ErrClosed
}

// Close implements [net.Listener].
func (b *branch) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

// Addr implements [net.Listener]: it is what the others know this node by, a name, never looked up.
func (b *branch) Addr() net.Addr { return peerAddr(b.port.advertise) }

// Dial implements [raft.StreamLayer].
func (b *branch) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return b.port.open(ctx, string(address), speaksRaft)
}

type peerAddr string

func (peerAddr) Network() string  { return "tcp" }
func (a peerAddr) String() string { return string(a) }
