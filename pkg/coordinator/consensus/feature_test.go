package consensus

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// While a coordinator is of an older version, no command is proposed that it does not know. When the last one is upgraded the
// level rises by itself, and does not fall with a coordinator that is put back: that one is not taken in.
func TestNewCommandsWaitForTheOldestCoordinator(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "a", "b", "c")
	var announced atomic.Uint32
	cfg := c.cfg["c"]
	cfg.hooks.feature = announced.Load
	c.cfg["c"] = cfg
	c.startAll()
	exp := c.begin("x")
	c.commit(exp, 10, []byte("part"))
	replace := func() (out ledger.Outcome, err error) {
		err = c.ask(func(n *Node) (err error) {
			out, err = n.Apply(within(t), exp, ledger.CutReplace{Step: 10})
			return err
		})
		return out, err
	}
	level := func() (level uint32) {
		c.leader().fsm.view(func(s *ledger.State) { level = s.Feature() })
		return level
	}
	eventually(t, "a list of all coordinators", func() bool {
		n := 0
		c.leader().fsm.view(func(s *ledger.State) { n = len(s.Nodes()) })
		return n == 3
	})
	if _, err := replace(); !errors.Is(err, ledger.ErrUnsupported) || level() != 0 {
		t.Errorf("a command of level 1 at level %d: %v, want an ErrUnsupported at level 0", level(), err)
	}
	announced.Store(Feature)
	eventually(t, "the level of all coordinators", func() bool { return level() == Feature })
	if out, err := replace(); err != nil || !errors.Is(out.Err, ledger.ErrConflict) { // it is not paused
		t.Errorf("the command at level %d: %v, %v, want the ledger's answer", level(), out, err)
	}
	announced.Store(0)
	var out ledger.Outcome
	err := c.ask(func(n *Node) (err error) {
		out, err = n.Apply(within(t), ledger.ID{}, ledger.NodePut{Name: "c"})
		return err
	})
	if err != nil || !errors.Is(out.Err, ledger.ErrUnsupported) || level() != Feature {
		t.Errorf("an older coordinator: %v, %v at level %d, want it refused, and the level where it was", out, err, level())
	}
}
