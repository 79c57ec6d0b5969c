package consensus

import (
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// TestAReignBeginsWheneverRaftLeads has leadership on its way to a node that never takes it, and raft refuses entries meanwhile.
func TestAReignBeginsWheneverRaftLeads(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := c.configure("a")
	cfg.Election = time.Second // is how long the transfer is tried
	c.cfg["a"] = cfg
	c.start("a")
	n := c.leader()
	nobody := raft.ServerAddress(freeAddress(t))
	if err := n.raft.AddNonvoter("nobody", nobody, 0, 0).Error(); err != nil {
		t.Fatal(err)
	}
	c.experiment("x") // which nobody does not have: leadership has to wait for it
	reign, err := n.Leadership(within(t))
	if err != nil {
		t.Fatal(err)
	}
	var transfer raft.Future
	eventually(t, "an entry that is refused because leadership is being handed over", func() bool {
		if transfer == nil || n.Leads() && n.raft.VerifyLeader().Error() == nil {
			transfer = n.raft.LeadershipTransferToServer("nobody", nobody)
		}
		_, err := n.Apply(within(t), ledger.ID{}, ledger.Noop{})
		if errors.Is(err, ErrNotLeader) || errors.Is(err, ErrUncertain) {
			t.Fatalf("apply: %v, want it to be clear that nothing was changed and that this node leads", err)
		}
		return errors.Is(err, ErrTransfer)
	})
	n.renew <- struct{}{} // as after a restore
	<-reign.Done()
	if err := transfer.Error(); err == nil {
		t.Fatal("leadership went to nobody")
	}
	eventually(t, "a new reign of who leads all the time", n.Leads)
	c.experiment("y")
	c.has("x", "y")
}
