package consensus

import (
	"testing"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

func TestOneNodeAlone(t *testing.T) {
	dir := t.TempDir()
	begin := time.Now()
	n, err := Open(within(t), Config{Name: "a", DataDir: dir, Log: testLog()})
	if err != nil {
		t.Fatal(err)
	}
	reign, err := n.Leadership(within(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("leads after %v", time.Since(begin))
	id := ledger.ID{1}
	outcome, err := n.Apply(reign, id, createExperiment("x"))
	if err != nil || outcome.Err != nil {
		t.Fatal(err, outcome.Err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if reign.Err() == nil {
		t.Error("the reign goes on after Close")
	}
	n, err = Open(within(t), Config{Name: "a", DataDir: dir, Log: testLog()})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	found := false
	if _, err := n.Leadership(within(t)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := n.View(within(t), Linearizable, func(s *ledger.State) { _, found = s.Experiment("x") }); err != nil || !found {
		t.Errorf("after a restart: found %v, %v", found, err)
	}
}

func TestThreeNodesGoOnWithoutTheirLeader(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "a", "b", "c")
	c.startAll()
	c.experiment("x")
	c.same()
	c.kill(c.leader().cfg.Name)
	c.experiment("y")
	c.same()
	for name := range c.cfg {
		if c.nodes[name] == nil {
			c.start(name)
		}
	}
	c.same()
}
