package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	walfs "github.com/hashicorp/raft-wal/fs"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// harm changes a file in place.
func harm(t *testing.T, pattern string, change func([]byte) []byte) {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatal(pattern, paths, err)
	}
	path := paths[len(paths)-1]
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedLogIsRefusedAndNothingIsLost(t *testing.T) {
	t.Parallel()
	c := three(t)
	for i := range 10 {
		c.experiment(fmt.Sprint("x", i))
	}
	c.same()
	hurt := c.follower().cfg.Name
	c.kill(hurt)
	harm(t, filepath.Join(c.cfg[hurt].DataDir, "raft/log/*.wal"), func(b []byte) []byte {
		b[bytes.Index(b, []byte("name: x5"))] ^= 4
		return b
	})
	if n, err := Open(within(t), c.cfg[hurt]); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("%v, %v, want an ErrCorrupt", n, err)
	}
	c.experiment("y")
	if err := os.RemoveAll(c.cfg[hurt].DataDir); err != nil { // what an operator does
		t.Fatal(err)
	}
	c.start(hurt)
	c.has("x0", "x9", "y")
}

func TestDamagedSnapshotIsPutAside(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Name: "a", DataDir: dir, Log: testLog()}
	apply := func(n *Node, name string) {
		t.Helper()
		id := ledger.ID{}
		copy(id[:], name)
		reign, err := n.Leadership(within(t))
		if err != nil {
			t.Fatal(err)
		}
		if out, err := n.Apply(reign, id, createExperiment(name)); err != nil || out.Err != nil {
			t.Fatal(out, err)
		}
	}
	reopen := func(n *Node) *Node {
		t.Helper()
		if n != nil {
			if err := n.Close(); err != nil {
				t.Fatal(err)
			}
		}
		n, err := Open(within(t), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		return n
	}
	n := reopen(nil)
	for _, name := range []string{"x", "y"} {
		apply(n, name)
		if err := n.Snapshot(); err != nil {
			t.Fatal(err)
		}
	}
	n.Close()
	harm(t, filepath.Join(dir, "raft/snapshots/*.snap"), func(b []byte) []byte { return b[:len(b)-1] })
	n = reopen(n)
	apply(n, "z")
	n.fsm.view(func(s *ledger.State) {
		if len(s.Experiments()) != 3 {
			t.Errorf("%d experiments, want 3", len(s.Experiments()))
		}
	})
	if bad, err := filepath.Glob(filepath.Join(dir, "raft/snapshots/*.bad")); err != nil || len(bad) != 1 {
		t.Errorf("put aside: %v, %v", bad, err)
	}

	// Where the log does not reach back behind the damage, the node must not start, however often it is tried.
	n.Close()
	cfg.Trailing = 1
	n = reopen(n)
	apply(n, "w")
	if err := n.Snapshot(); err != nil {
		t.Fatal(err)
	}
	n.Close()
	harm(t, filepath.Join(dir, "raft/snapshots/*.snap"), func(b []byte) []byte { return b[:len(b)-1] })
	for range 2 {
		if n, err := Open(within(t), cfg); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("damage that nothing makes good: %v, %v, want an ErrCorrupt", n, err)
		}
	}
}

func TestFailedDiskEndsTheNode(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "a", "b", "c")
	disks := map[string]*faultFS{}
	for name, cfg := range c.cfg {
		disks[name] = &faultFS{VFS: walfs.New()}
		cfg.hooks.vfs = disks[name]
		c.cfg[name] = cfg
	}
	c.startAll()
	c.experiment("x")
	c.same()
	hurt := c.follower()
	disks[hurt.cfg.Name].set(nil, syscall.EIO)
	c.experiment("y")
	select {
	case err := <-hurt.Fatal():
		var fatal *FatalError
		if !errors.As(err, &fatal) || fatal.Code != 1 || !errors.Is(err, syscall.EIO) {
			t.Errorf("%v, want a FatalError of code 1 about EIO", err)
		}
	case <-time.After(patience):
		t.Fatal("nobody is told")
	}
	c.kill(hurt.cfg.Name)
	disks[hurt.cfg.Name].set(nil, nil)
	c.start(hurt.cfg.Name)
	c.has("x", "y")
}

func TestFullDiskMayNotLead(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "a", "b", "c")
	var full sync.Map
	for name, cfg := range c.cfg {
		cfg.hooks.disk = func(string) (bool, error) {
			_, is := full.Load(name)
			return is, nil
		}
		c.cfg[name] = cfg
	}
	c.startAll()
	old := c.leader()
	full.Store(old.cfg.Name, true)
	eventually(t, "another leader", func() bool { return !old.Leads() })
	eventually(t, "a node that is not ready", func() bool { return errors.Is(old.Ready(), ErrFull) })
	if _, err := old.PutBlob(within(t), []byte("x")); !errors.Is(err, ErrFull) {
		t.Errorf("blob on a full disk: %v, want an ErrFull", err)
	}
	c.experiment("x")
	full.Clear()
	eventually(t, "it is ready again", func() bool { return old.Ready() == nil })
}

func TestNodeThatStartsOverCatchesUp(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "a", "b", "c")
	for name, cfg := range c.cfg {
		cfg.Trailing, cfg.SegmentSize = 1, 4096
		c.cfg[name] = cfg
	}
	c.startAll()
	c.experiment("x")
	c.same()
	for _, n := range c.nodes {
		if err := n.Snapshot(); err != nil {
			t.Fatal(err)
		}
	}
	stuck := c.follower()
	stuck.startOver(errors.New("one snapshot after the other"))
	var fatal *FatalError
	if err := <-stuck.Fatal(); !errors.As(err, &fatal) || fatal.Code != 75 {
		t.Errorf("%v, want a FatalError of code 75", err)
	}
	c.experiment("y")
	c.kill(stuck.cfg.Name)
	c.start(stuck.cfg.Name)
	c.has("x", "y")
}

func TestJournalKnowsOfSnapshotsThatAreGone(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, nil)
	store(t, j, 1, 10)
	if err := j.NoteSnapshot(50); err != nil { // installed
		t.Fatal(err)
	}
	if err := j.Wipe(); err != nil {
		t.Fatal(err)
	}
	j.Close()
	j = open(t, dir, nil)
	for snapshot, want := range map[uint64]error{0: ErrCorrupt, 49: ErrCorrupt, 50: nil, 51: nil} {
		if err := j.Reaches(snapshot); !errors.Is(err, want) {
			t.Errorf("snapshots to %d: %v, want %v", snapshot, err, want)
		}
	}
	store(t, j, 51, 60)
	for snapshot, want := range map[uint64]error{0: ErrCorrupt, 49: ErrCorrupt, 50: nil, 55: nil} {
		if err := j.Reaches(snapshot); !errors.Is(err, want) {
			t.Errorf("log from 51, snapshots to %d: %v, want %v", snapshot, err, want)
		}
	}
}
