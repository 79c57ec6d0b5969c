package chaos

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Any stands for every process in [Network.Set].
const Any = "*"

// Link is how what one process says to another fares. The zero Link is a wire.
type Link struct {
	// Drop lets nothing arrive: neither bytes nor that a connection was opened, closed or reset. Once it is over, what was
	// said arrives, as TCP sees to it.
	Drop bool
	// Delay is how long everything takes at least, Jitter how much longer at most. The order stays.
	Delay, Jitter time.Duration
	// Rate bounds bytes per second, by connection; 0: it does not.
	Rate int
}

// with is the worse of two links.
func (l Link) with(o Link) Link {
	l.Drop = l.Drop || o.Drop
	l.Delay, l.Jitter = max(l.Delay, o.Delay), max(l.Jitter, o.Jitter)
	if l.Rate == 0 || o.Rate > 0 && o.Rate < l.Rate {
		l.Rate = o.Rate
	}
	return l
}

// direction is from whom to whom bytes go, whoever opened the connection.
type direction struct{ from, to string }

// Network carries the TCP connections between processes, and mistreats them as it is told. A process is dialled at a port that
// [Network.Listen] gives it. Close the network.
type Network struct {
	dialer func(net.Conn) string
	wait   sync.WaitGroup

	mu        sync.Mutex
	links     map[direction]Link
	changed   chan struct{} // closed when links change
	closed    bool
	listeners []net.Listener
	conns     map[*conn]bool
}

// NewNetwork returns a network without faults. dialer says which process opened a connection; one of nobody, "", is refused.
func NewNetwork(dialer func(net.Conn) string) *Network {
	return &Network{dialer: dialer, links: map[direction]Link{}, changed: make(chan struct{}), conns: map[*conn]bool{}}
}

// Listen gives the process to, which listens at target, an address on a free port of the loopback interface for the others to
// dial. The process may come and go meanwhile: a connection while it is away is reset.
func (n *Network) Listen(to, target string) (address string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("chaos: network: port for %s: %w", to, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		l.Close()
		return "", errors.New("chaos: network: closed")
	}
	n.listeners = append(n.listeners, l)
	n.wait.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return // closed
			}
			n.wait.Go(func() { n.carry(near.(*net.TCPConn), to, target) })
		}
	})
	return l.Addr().String(), nil
}

// Set says how everything fares that from says to to, on connections that are open too. Where several links apply, for [Any]
// beside a name, the worse counts.
func (n *Network) Set(from, to string, l Link) {
	n.change(func() { n.links[direction{from, to}] = l })
}

// Isolate cuts a process off from all others.
func (n *Network) Isolate(name string) {
	n.Set(name, Any, Link{Drop: true})
	n.Set(Any, name, Link{Drop: true})
}

// Part cuts two processes off from each other.
func (n *Network) Part(a, b string) {
	n.Set(a, b, Link{Drop: true})
	n.Set(b, a, Link{Drop: true})
}

// Heal makes all links wires again.
func (n *Network) Heal() { n.change(func() { clear(n.links) }) }

func (n *Network) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	close(n.changed)
	n.changed = make(chan struct{})
}

// link is the link of a direction, and a channel that is closed when it may have changed.
func (n *Network) link(d direction) (Link, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.links[d]
	for _, wider := range []direction{{d.from, Any}, {Any, d.to}, {Any, Any}} {
		l = l.with(n.links[wider])
	}
	return l, n.changed
}

// Reset breaks all connections of a process, in both directions. Both ends are told.
func (n *Network) Reset(name string) { n.each(name, (*conn).reset) }

// Abandon breaks the connections that a process opened, and tells the other ends alone: what the process says from then on is
// lost, and it waits for answers that do not come.
func (n *Network) Abandon(name string) {
	n.each(name, func(c *conn) {
		if c.out.from == name && c.far != nil {
			c.abandoned.Store(true)
			reset(c.far)
		}
	})
}

func (n *Network) each(name string, f func(*conn)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		if c.out.from == name || c.out.to == name {
			f(c)
		}
	}
}

// Close breaks all connections and waits until nothing of the network is left.
func (n *Network) Close() {
	n.change(func() {
		n.closed = true
		for _, l := range n.listeners {
			l.Close()
		}
		for c := range n.conns {
			c.reset()
		}
	})
	n.wait.Wait()
}

// conn is a connection between two processes.
type conn struct {
	out       direction    // of what the one who dialled says
	near, far *net.TCPConn // to the one who dialled; to the other one, nil until it is reached
	gone      chan struct{}
	once      sync.Once
	abandoned atomic.Bool
}

// reset breaks both ends.
func (c *conn) reset() {
	c.once.Do(func() {
		close(c.gone)
		reset(c.near)
		if c.far != nil {
			reset(c.far)
		}
	})
}

func reset(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// carry serves a connection until both ends are done with it.
func (n *Network) carry(near *net.TCPConn, to, target string) {
	from := n.dialer(near)
	if from == "" {
		reset(near)
		return
	}
	c := &conn{out: direction{from, to}, near: near, gone: make(chan struct{})}
	defer c.reset()
	if !n.add(c) {
		return
	}
	defer n.remove(c)
	if !n.arrives(c, c.out, time.Now()) {
		return
	}
	far, err := net.DialTimeout("tcp", target, 5*time.Second)
	if err != nil {
		return
	}
	n.mu.Lock()
	c.far = far.(*net.TCPConn)
	n.mu.Unlock()
	select {
	case <-c.gone: // reset meanwhile
		far.Close()
		return
	default:
	}
	var both sync.WaitGroup
	both.Go(func() { n.pump(c, c.out, c.near, c.far) })
	both.Go(func() { n.pump(c, direction{to, from}, c.far, c.near) })
	both.Wait()
}

func (n *Network) add(c *conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.closed {
		n.conns[c] = true
	}
	return !n.closed
}

func (n *Network) remove(c *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
}

// said is what one end of a connection said, and when: bytes, or how it ended.
type said struct {
	at    time.Time
	bytes []byte
	end   error
}

const (
	chunk   = 32 << 10 // bytes that are read at once
	backlog = 16       // chunks on their way; the sender is held up beyond that
)

// pump carries what src says to dst.
func (n *Network) pump(c *conn, d direction, src, dst *net.TCPConn) {
	way := make(chan said, backlog)
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(way)
		buffer := make([]byte, chunk)
		for {
			m, err := src.Read(buffer)
			if m > 0 {
				way <- said{time.Now(), bytes.Clone(buffer[:m]), nil}
			}
			if err != nil {
				way <- said{time.Now(), nil, err}
				return
			}
		}
	})
	defer reader.Wait()
	defer func() {
		for range way { // lets the reader go
		}
	}()
	due, free := time.Time{}, time.Time{}
	for s := range way {
		l, _ := n.link(d)
		if at := s.at.Add(l.Delay + jitter(l.Jitter)); at.After(due) {
			due = at
		}
		if free.After(due) {
			due = free
		}
		if l.Rate > 0 {
			free = due.Add(time.Duration(float64(len(s.bytes)) / float64(l.Rate) * float64(time.Second)))
		}
		if !n.arrives(c, d, due) {
			return
		}
		if c.abandoned.Load() {
			if d == c.out && s.end == nil {
				continue // into the void
			}
			if d != c.out {
				return // the one who dialled is not told
			}
		}
		switch {
		case errors.Is(s.end, io.EOF):
			dst.CloseWrite()
		case s.end != nil:
			c.reset()
		default:
			if _, err := dst.Write(s.bytes); err != nil && !c.abandoned.Load() {
				c.reset()
			}
		}
	}
}

func jitter(most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	return rand.N(most)
}

// arrives waits until what is due at a time gets through. false: the connection is gone.
func (n *Network) arrives(c *conn, d direction, due time.Time) bool {
	for {
		l, changed := n.link(d)
		if !l.Drop {
			if time.Until(due) <= 0 {
				return true
			}
			changed = nil // it is on its way
		}
		var timer <-chan time.Time
		if !l.Drop {
			timer = time.After(time.Until(due))
		}
		select {
		case <-c.gone:
			return false
		case <-changed:
		case <-timer:
		}
	}
}
