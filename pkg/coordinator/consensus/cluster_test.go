package consensus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

func three(t testing.TB) *cluster {
	t.Helper()
	c := newCluster(t, "a", "b", "c")
	c.startAll()
	return c
}

// follower is a node that does not lead.
func (c *cluster) follower() *Node {
	c.t.Helper()
	leader := c.leader()
	for _, n := range c.nodes {
		if n != leader {
			return n
		}
	}
	c.t.Fatal("no follower")
	return nil
}

// has wants all running nodes to know the experiments, once they are in the same state.
func (c *cluster) has(names ...string) {
	c.t.Helper()
	c.same()
	for _, n := range c.nodes {
		n.fsm.view(func(s *ledger.State) {
			for _, name := range names {
				if _, ok := s.Experiment(name); !ok {
					c.t.Errorf("%s has lost experiment %s", n.cfg.Name, name)
				}
			}
		})
	}
}

func TestLeadersMayDieOneByOne(t *testing.T) {
	t.Parallel()
	c := three(t)
	var acknowledged []string
	for i := range 4 {
		for j := range 5 {
			name := fmt.Sprintf("x%d-%d", i, j)
			c.experiment(name)
			acknowledged = append(acknowledged, name)
		}
		name := c.leader().cfg.Name
		c.kill(name)
		c.experiment(fmt.Sprintf("y%d", i))
		acknowledged = append(acknowledged, fmt.Sprintf("y%d", i))
		c.start(name)
	}
	c.has(acknowledged...)
}

func TestIsolatedLeaderLosesItsReign(t *testing.T) {
	t.Parallel()
	c := three(t)
	c.experiment("x")
	old := c.leader()
	reign, err := old.Leadership(within(t))
	if err != nil {
		t.Fatal(err)
	}
	c.net.isolate(old.cfg.Name, true)
	_, err = old.Apply(within(t), ledger.ID{1}, createExperiment("never"))
	if !errors.Is(err, ErrUncertain) && !errors.Is(err, ErrNotLeader) {
		t.Errorf("apply without a quorum: %v, want an ErrUncertain or ErrNotLeader", err)
	}
	select {
	case <-reign.Done():
	case <-time.After(patience):
		t.Fatal("the reign goes on")
	}
	read := func(*ledger.State) {}
	if _, _, err := old.View(within(t), Linearizable, read); !errors.Is(err, ErrNotLeader) {
		t.Errorf("linearizable read of an isolated node: %v, want an ErrNotLeader", err)
	}
	if _, age, err := old.View(within(t), Stale, read); err != nil || age <= 0 {
		t.Errorf("stale read of an isolated node: age %v, %v", age, err)
	}
	eventually(t, "another leader", func() bool {
		for _, n := range c.nodes {
			if n != old && n.Leads() {
				return true
			}
		}
		return false
	})
	c.experiment("y")
	c.net.isolate(old.cfg.Name, false)
	c.has("x", "y")
	if old.Leads() {
		t.Error("the old leader still leads")
	}
}

func TestLeadershipIsHandedOver(t *testing.T) {
	t.Parallel()
	c := three(t)
	c.experiment("x")
	to := c.follower()
	err := c.ask(func(n *Node) error {
		if n == to {
			return nil
		}
		return n.Transfer(within(t), to.cfg.Name)
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new leader", to.Leads)
	old := c.leader()
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	delete(c.nodes, old.cfg.Name)
	c.experiment("y")
	c.has("x", "y")
}

func TestNodesTellTheClusterWhereTheyAre(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "a", "b", "c")
	for name, cfg := range c.cfg {
		cfg.API, cfg.NATS = "https://"+name, "nats://"+name
		c.cfg[name] = cfg
	}
	c.startAll()
	eventually(t, "the list of coordinators, and the feature level", func() bool {
		ready := false
		c.leader().fsm.view(func(s *ledger.State) { ready = len(s.Nodes()) == 3 && s.Feature() == Feature })
		return ready
	})
	c.same()
	members, err := c.follower().Members(within(t))
	if err != nil || len(members) != 3 {
		t.Fatal(members, err)
	}
	leaders := 0
	for i, m := range members {
		name := string("abc"[i])
		if m.Name != name || m.API != "https://"+name || m.NATS != "nats://"+name || m.Peer != c.cfg[name].Peer.Listen || !m.Voter || !m.Reached {
			t.Errorf("member %+v", m)
		}
		if m.Leads {
			leaders++
		}
	}
	if leaders != 1 {
		t.Errorf("%d leaders", leaders)
	}
}

func TestNodeThatLostItsDiskStartsWithoutAVote(t *testing.T) {
	t.Parallel()
	c := three(t)
	c.experiment("x")
	c.same()
	lost := c.follower().cfg.Name
	c.kill(lost)
	c.experiment("y")
	if err := os.RemoveAll(c.cfg[lost].DataDir); err != nil {
		t.Fatal(err)
	}
	c.start(lost)
	demoted := false
	eventually(t, "a vote again", func() bool {
		servers, err := c.leader().servers()
		for _, s := range servers {
			if string(s.ID) == lost {
				demoted = demoted || s.Suffrage != raft.Voter
				return err == nil && demoted && s.Suffrage == raft.Voter
			}
		}
		return false
	})
	c.has("x", "y")
}

func TestOneGrowsToThreeWhileItWorks(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := c.configure("a")
	alone := cfg
	alone.Peer, alone.Heartbeat = Peer{}, 0 // as a training in one process runs
	c.cfg["a"] = alone
	c.start("a")
	c.experiment("x")
	if err := c.nodes["a"].AddNonvoter(within(t), "b", "127.0.0.1:1"); !errors.Is(err, errNoPort) {
		t.Errorf("join a node without a peer port: %v", err)
	}
	c.kill("a")
	c.cfg["a"] = cfg
	c.start("a")

	var mu sync.Mutex // of what follows
	var names []string
	nodes := []*Node{c.nodes["a"]}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(names)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			mu.Lock()
			n := nodes[i%len(nodes)]
			mu.Unlock()
			name := fmt.Sprint("y", i)
			id := ledger.ID{}
			copy(id[:], name)
			if out, err := n.Apply(ctx, id, createExperiment(name)); err == nil && out.Err == nil {
				mu.Lock()
				names = append(names, name)
				mu.Unlock()
			}
			time.Sleep(time.Millisecond) // it is a test of growing, not of speed
		}
	})
	defer wg.Wait()
	defer cancel()
	for _, name := range []string{"b", "c"} {
		cfg := c.configure(name)
		cfg.Join = c.cfg["a"].Peer.Listen
		c.cfg[name] = cfg
		c.start(name)
		n := c.nodes[name]
		mu.Lock()
		nodes = append(nodes, n)
		mu.Unlock()
		eventually(t, "a new voter", func() bool {
			servers, err := n.servers()
			for _, s := range servers {
				if string(s.ID) == name {
					return err == nil && s.Suffrage == raft.Voter
				}
			}
			return false
		})
		at := count()
		eventually(t, "more entries", func() bool { return count() > at })
	}
	cancel()
	wg.Wait()
	if servers, err := c.nodes["a"].servers(); err != nil || len(servers) != 3 || servers[0].Address == "a" {
		t.Errorf("members %v, %v", servers, err)
	}
	c.leader()
	c.has(append(names, "x")...)
}

func TestRemove(t *testing.T) {
	t.Parallel()
	c := three(t)
	c.experiment("x")
	gone := c.follower().cfg.Name
	remove := func(name string) error {
		return c.ask(func(n *Node) error {
			if name == "" {
				return n.Remove(within(t), n.cfg.Name)
			}
			return n.Remove(within(t), name)
		})
	}
	if err := remove(""); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("remove the leader: %v, want an ErrConflict", err)
	}
	if err := remove("z"); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("remove a stranger: %v, want an ErrNotFound", err)
	}
	c.kill(gone)
	if err := remove(gone); err != nil && !errors.Is(err, ledger.ErrNotFound) { // it was uncertain the first time
		t.Fatal(err)
	}
	eventually(t, "two members, and a list without the third", func() bool {
		n, told := c.leader(), 0
		servers, err := n.servers()
		n.fsm.view(func(s *ledger.State) { told = len(s.Nodes()) })
		return err == nil && len(servers) == 2 && told == 2
	})
	c.has("x")
}

func TestFollowerCatchesUpFromASnapshot(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "a", "b", "c")
	for name, cfg := range c.cfg {
		cfg.SnapshotThreshold, cfg.Trailing, cfg.SegmentSize = 20, 5, 4096 // a segment is removed as a whole
		c.cfg[name] = cfg
	}
	c.startAll()
	c.experiment("x")
	c.same()
	late := c.follower().cfg.Name
	c.kill(late)
	for i := range 50 {
		c.experiment(fmt.Sprint("y", i))
	}
	for range 3 {
		for _, n := range c.nodes {
			if err := n.Snapshot(); err != nil {
				t.Fatal(err)
			}
		}
		c.experiment(fmt.Sprint("z", c.leader().Stats().Last))
	}
	for _, n := range c.nodes {
		if ids, err := n.snapshots.ids(); err != nil || len(ids) != 2 {
			t.Errorf("snapshots %v, %v, want the last 2", ids, err)
		}
	}
	c.start(late)
	c.has("x", "y0", "y49")
	if n := c.nodes[late].Stats().Installs; n != 1 {
		t.Errorf("%d snapshots installed, want 1", n)
	}
	for name := range c.cfg { // everybody from the disk
		c.kill(name)
	}
	c.startAll()
	c.experiment("w")
	c.has("x", "y49", "w")
}

func TestPeersFile(t *testing.T) {
	t.Parallel()
	c := three(t)
	c.experiment("x")
	c.same()
	for _, name := range []string{"a", "b", "c"} {
		c.kill(name)
	}
	delete(c.cfg, "b")
	delete(c.cfg, "c")
	path := filepath.Join(c.cfg["a"].DataDir, "raft", "peers.json")
	text := fmt.Sprintf(`[{"id": "a", "address": %q}]`, c.cfg["a"].Peer.Listen)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c.start("a")
	c.experiment("y")
	c.has("x", "y")
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	c.kill("a")
	c.start("a")
	c.leader()
	c.has("x", "y")
}

func TestDataDirectoryHasOneOwner(t *testing.T) {
	cfg := Config{Name: "a", DataDir: t.TempDir()}
	n, err := Open(within(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := Open(within(t), cfg); err == nil {
		second.Close()
		t.Error("two nodes on one directory")
	}
	n.Close()
	cfg.Name = "b"
	if second, err := Open(within(t), cfg); err == nil {
		second.Close()
		t.Error("a node on the directory of another")
	}
}
