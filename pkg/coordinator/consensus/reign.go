package consensus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// reign is one leadership of this node. It begins when an entry of its term is committed and applied: all that was
// acknowledged under earlier leaders is then in the state.
type reign struct {
	ctx  context.Context
	end  context.CancelCauseFunc
	term uint64
}

// errReignOver is why the context of a leadership ended.
var errReignOver = errors.New("leadership ended")

// Leadership waits until this node leads. The context that it returns ends when it leads no more, or when ctx ends.
func (n *Node) Leadership(ctx context.Context) (context.Context, error) {
	r, err := n.awaitReign(ctx, func() bool { return true })
	if err != nil {
		return nil, fmt.Errorf("wait for leadership: %w", err)
	}
	under, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(r.ctx, func() { cancel(context.Cause(r.ctx)) })
	context.AfterFunc(under, func() { stop() })
	return under, nil
}

// reigning is the reign of this node, which it waits for if raft says that it leads; else a [*NotLeaderError].
func (n *Node) reigning(ctx context.Context) (*reign, error) {
	return n.awaitReign(ctx, func() bool { return n.raft.State() == raft.Leader })
}

// awaitReign waits for a reign while worth says that it is.
func (n *Node) awaitReign(ctx context.Context, worth func() bool) (*reign, error) {
	for {
		n.mu.Lock()
		r, changed := n.reign, n.reignChanged
		n.mu.Unlock()
		if r != nil && worth() {
			return r, nil
		}
		if !worth() {
			return nil, n.notLeader()
		}
		select {
		case <-changed:
		case <-time.After(n.cfg.Heartbeat): // raft may have lost it before it was a reign
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-n.ctx.Done():
			return nil, context.Cause(n.ctx)
		}
	}
}

func (n *Node) setReign(r *reign) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.reign != nil {
		n.reign.end(errReignOver)
	}
	n.reign = r
	close(n.reignChanged)
	n.reignChanged = make(chan struct{})
}

// lead follows raft's leadership.
func (n *Node) lead() {
	defer n.setReign(nil)
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-n.renew: // the state was replaced
			n.setReign(nil)
			n.begin()
		case leads := <-n.raft.LeaderCh():
			// The channel holds the last word only: after a loss and a win in a row this is another term.
			n.setReign(nil)
			if leads {
				n.begin()
			}
		}
	}
}

// begin begins a reign, once that succeeds: raft may lead on for long after an entry of its was not taken in.
func (n *Node) begin() {
	for n.raft.State() == raft.Leader {
		term := n.raft.CurrentTerm()
		err := n.assume()
		if err == nil && n.raft.CurrentTerm() == term {
			ctx, end := context.WithCancelCause(n.ctx)
			n.log.Info("leads", "term", term)
			n.stats.reigns.Add(1)
			n.setReign(&reign{ctx: ctx, end: end, term: term})
			return // if it is lost by now, LeaderCh says so
		}
		n.log.Info("leads, and cannot begin yet", "term", term, "error", err)
		select {
		case <-time.After(n.cfg.Heartbeat / 4):
		case <-n.ctx.Done():
			return
		}
	}
}

// assume commits an entry of this term, and gives the cluster its identity if it has none.
func (n *Node) assume() error {
	if _, err := n.Apply(n.ctx, ledger.ID{}, ledger.Noop{}); err != nil {
		return err
	}
	known := false
	n.fsm.view(func(s *ledger.State) { _, _, known = s.Cluster() })
	if !known {
		var identity ledger.ClusterInit
		rand.Read(identity.Cluster[:])
		rand.Read(identity.Secret[:])
		if _, err := n.Apply(n.ctx, ledger.ID{}, identity); err != nil {
			return err
		}
	}
	n.rise()
	return n.moveIn(n.ctx)
}

// rise brings the feature level up where all voters answer and are ready for it, so that a new cluster has it from the start.
// Otherwise care does, later.
func (n *Node) rise() {
	var level uint32
	n.fsm.view(func(s *ledger.State) { level = s.Feature() })
	if level >= n.cfg.hooks.feature() {
		return
	}
	servers, err := n.servers()
	if err == nil {
		err = n.tell(n.ctx, servers, n.statuses(n.ctx, servers))
	}
	if err != nil {
		n.log.Info("the feature level stays for now", "level", level, "error", err)
	}
}

// moveIn tells the others where this node is, if it was started with another peer port, or its first.
func (n *Node) moveIn(ctx context.Context) error {
	servers, err := n.servers()
	if err != nil {
		return err
	}
	for _, s := range servers {
		if string(s.ID) == n.cfg.Name && string(s.Address) != n.address {
			return n.change(ctx, n.raft.AddVoter(s.ID, raft.ServerAddress(n.address), 0, n.enough(ctx)))
		}
	}
	return nil
}

// Leader is the coordinator that leads, as far as this node knows, and its peer port; "" if there is none.
func (n *Node) Leader() (name, peer string) {
	address, id := n.raft.LeaderWithID()
	return string(id), string(address)
}

// Address is host:port of this node's peer port, as the others know it; its name where it has none.
func (n *Node) Address() string { return n.address }

// Leads says whether this node leads and is ready to.
func (n *Node) Leads() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.reign != nil
}
