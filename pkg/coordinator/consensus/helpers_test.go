package consensus

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/types"
	"go.uber.org/goleak"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		f.Value.Set("5") // the tests wait for elections and disks rather than compute
	}
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// eventually polls until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%v without: %s", patience, what)
		}
	}
}

// network is how the nodes of a test reach each other; links can be cut.
type network struct {
	mu    sync.Mutex
	names map[string]string // by address
	cut   map[[2]string]bool
	conns map[net.Conn][2]string
}

func newNetwork() *network {
	return &network{names: map[string]string{}, cut: map[[2]string]bool{}, conns: map[net.Conn][2]string{}}
}

func (w *network) dial(from string) dialFunc {
	return func(ctx context.Context, address string) (net.Conn, error) {
		w.mu.Lock()
		link := [2]string{from, w.names[address]}
		cut := w.cut[link]
		w.mu.Unlock()
		if cut {
			return nil, fmt.Errorf("the link from %s to %s is cut", link[0], link[1])
		}
		conn, err := dialTCP(ctx, address)
		if err != nil {
			return nil, err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.cut[link] {
			conn.Close()
			return nil, errors.New("cut")
		}
		c := &linkConn{conn, w}
		w.conns[conn] = link
		return c, nil
	}
}

type linkConn struct {
	net.Conn
	w *network
}

func (c *linkConn) Close() error {
	c.w.mu.Lock()
	delete(c.w.conns, c.Conn)
	c.w.mu.Unlock()
	return c.Conn.Close()
}

// isolate cuts a node off, or lets it back.
func (w *network) isolate(name string, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, other := range w.names {
		for _, link := range [][2]string{{name, other}, {other, name}} {
			w.cut[link] = cut && name != other
		}
	}
	for conn, link := range w.conns {
		if w.cut[link] {
			conn.Close()
		}
	}
}

// cluster is a few nodes in this process.
type cluster struct {
	t     testing.TB
	net   *network
	cfg   map[string]Config
	nodes map[string]*Node // those that run
}

const quick = 150 * time.Millisecond

// hastyFS does not wait for the disk: the process that the nodes of a test share never dies.
type hastyFS struct{ types.VFS }

func (f hastyFS) Create(dir, name string, size uint64) (types.WritableFile, error) {
	w, err := f.VFS.Create(dir, name, size)
	return hastyFile{w}, err
}

func (f hastyFS) OpenWriter(dir, name string) (types.WritableFile, error) {
	w, err := f.VFS.OpenWriter(dir, name)
	return hastyFile{w}, err
}

type hastyFile struct{ types.WritableFile }

func (hastyFile) Sync() error { return nil }

// hosts counts the addresses of the loopback network that are given out.
var hosts atomic.Uint32

// freeAddress is one that nobody listens on, now or while a node is being restarted: where the whole loopback network
// answers, each node gets a host of its own.
func freeAddress(t testing.TB) string {
	t.Helper()
	i := hosts.Add(1)
	l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+os.Getpid()%250, i/250, 1+i%250))
	if err != nil {
		l, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// newCluster configures nodes, none of which runs yet.
func newCluster(t testing.TB, names ...string) *cluster {
	t.TempDir() // the first one says when all are removed: after the nodes are stopped
	c := &cluster{t: t, net: newNetwork(), cfg: map[string]Config{}, nodes: map[string]*Node{}}
	t.Cleanup(func() {
		for name := range c.nodes {
			c.kill(name)
		}
	})
	for _, name := range names {
		c.configure(name)
	}
	if len(names) > 1 {
		var peers []string
		for _, cfg := range c.cfg {
			peers = append(peers, cfg.Peer.Listen)
		}
		for _, name := range names {
			cfg := c.cfg[name]
			cfg.Expect, cfg.Peers = len(names), peers
			c.cfg[name] = cfg
		}
	}
	return c
}

func (c *cluster) configure(name string) Config {
	address := freeAddress(c.t)
	c.net.mu.Lock()
	c.net.names[address] = name
	c.net.mu.Unlock()
	cfg := Config{
		Name: name, DataDir: c.t.TempDir(), Peer: Peer{Listen: address}, Heartbeat: quick, PromoteAfter: 2 * quick,
		SegmentSize: 1 << 20, Log: testLog(), hooks: hooks{dial: c.net.dial(name), vfs: hastyFS{walfs.New()}, disk: func(string) (bool, error) { return false, nil }},
	}
	c.cfg[name] = cfg
	return cfg
}

// start runs the nodes.
func (c *cluster) start(names ...string) {
	c.t.Helper()
	for _, name := range names {
		n, err := Open(within(c.t), c.cfg[name])
		if err != nil {
			c.t.Fatal(err)
		}
		c.nodes[name] = n
	}
}

// startAll runs all nodes.
func (c *cluster) startAll() {
	for name := range c.cfg {
		c.start(name)
	}
}

// kill stops a node without any goodbye.
func (c *cluster) kill(name string) {
	n := c.nodes[name]
	delete(c.nodes, name)
	n.closing.Do(func() { n.closed = n.shut() })
	if n.closed != nil {
		c.t.Errorf("%s: %v", name, n.closed)
	}
}

// leader waits until a node leads.
func (c *cluster) leader() *Node {
	c.t.Helper()
	var leader *Node
	eventually(c.t, "a leader", func() bool {
		for _, n := range c.nodes {
			if n.Leads() && n.raft.VerifyLeader().Error() == nil {
				leader = n
				return true
			}
		}
		return false
	})
	return leader
}

// ask asks whoever leads, and again while leadership does not last: on a busy machine any leader may lose it. It returns the
// last error.
func (c *cluster) ask(what func(leader *Node) error) (err error) {
	c.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if err = what(c.leader()); !errors.Is(err, ErrUncertain) && !errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrTransfer) {
			return err
		}
	}
	return err
}

// must applies a command.
func (c *cluster) must(exp ledger.ID, cmd ledger.Command) (outcome ledger.Outcome) {
	c.t.Helper()
	err := c.ask(func(n *Node) (err error) {
		outcome, err = n.Apply(within(c.t), exp, cmd)
		return err
	})
	if err != nil || outcome.Err != nil {
		c.t.Fatalf("%T: %v, %v", cmd, err, outcome.Err)
	}
	return outcome
}

// same waits until all running nodes are in the same state.
func (c *cluster) same() {
	c.t.Helper()
	eventually(c.t, "equal states", func() bool {
		digests := map[ledger.Digest]bool{}
		for _, n := range c.nodes {
			n.fsm.view(func(s *ledger.State) { digests[s.Digest()] = true })
		}
		return len(digests) == 1
	})
}

// testLog shows what nodes say under -v.
func testLog() *slog.Logger {
	if !testing.Verbose() {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil))
}

// experiment creates one.
func (c *cluster) experiment(name string) ledger.ID {
	id := ledger.ID{}
	copy(id[:], name)
	c.must(id, createExperiment(name))
	return id
}

func createExperiment(name string) ledger.ExpCreate {
	return ledger.ExpCreate{Name: name, Owner: "me", Spec: []byte("name: " + name), Steps: 100, Shards: 2, Min: 1, CutEvery: 10 * time.Second}
}
