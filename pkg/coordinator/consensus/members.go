package consensus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// Member is a coordinator of the cluster.
type Member struct {
	ledger.Node
	Voter, Leads bool
	Reached      bool   // it answered; what follows is known only then
	Applied      uint64 // index
	Missing      int    // blobs
	Full         bool   // its disk
}

// Members lists the coordinators by name, as this node knows them, and asks each how it is.
func (n *Node) Members(ctx context.Context) ([]Member, error) {
	servers, err := n.servers()
	if err != nil {
		return nil, fmt.Errorf("members: %w", err)
	}
	leader, _ := n.Leader()
	members := make([]Member, len(servers))
	statuses := n.statuses(ctx, servers)
	n.fsm.view(func(s *ledger.State) {
		for i, server := range servers {
			m := &members[i]
			m.Node = ledger.Node{Name: string(server.ID), Peer: string(server.Address)}
			m.Voter, m.Leads = server.Suffrage == raft.Voter, string(server.ID) == leader
			for _, node := range s.Nodes() {
				if node.Name == m.Name {
					m.Node = node
				}
			}
			if st := statuses[i]; st != nil {
				m.Reached, m.Applied, m.Missing, m.Full = true, st.Applied, st.Missing, st.Full
			}
		}
	})
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	return members, nil
}

// statuses asks servers at the same time; nil for those that do not answer, or in another's name.
func (n *Node) statuses(ctx context.Context, servers []raft.Server) []*status {
	out := make([]*status, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() {
			if st, err := n.statusOf(ctx, string(s.Address)); err == nil && st.Name == string(s.ID) {
				out[i] = &st
			}
		})
	}
	wg.Wait()
	return out
}

// AddNonvoter takes in the empty node that runs at the peer address and was told to join; such a node also asks by itself. It
// becomes a voter once it has kept up for a while, unless its own configuration says otherwise.
func (n *Node) AddNonvoter(ctx context.Context, name, peer string) error {
	if n.cfg.alone() {
		return fmt.Errorf("add %s: %w", name, errNoPort)
	}
	if _, err := n.reigning(ctx); err != nil {
		return fmt.Errorf("add %s: %w", name, err)
	}
	st, err := n.statusOf(ctx, peer)
	if err != nil {
		return fmt.Errorf("add %s: %w", name, err)
	}
	if st.Name != name {
		return fmt.Errorf("add %s: at %s is %s", name, peer, st.Name)
	}
	if !st.Empty {
		return fmt.Errorf("add %s: it has state of its own, want an empty one", name)
	}
	return n.admit(ctx, request{Name: name, Peer: peer})
}

// Promote makes a member a voter at once.
func (n *Node) Promote(ctx context.Context, name string) error {
	s, err := n.server(ctx, name)
	if err != nil {
		return fmt.Errorf("promote %s: %w", name, err)
	}
	return n.change(ctx, n.raft.AddVoter(s.ID, s.Address, 0, n.enough(ctx)))
}

// Remove takes a member out; it may be dead. The leader cannot remove itself.
func (n *Node) Remove(ctx context.Context, name string) error {
	if name == n.cfg.Name {
		if _, err := n.reigning(ctx); err != nil {
			return fmt.Errorf("remove %s: %w", name, err)
		}
		return fmt.Errorf("remove %s: it leads: %w: hand leadership over first", name, ledger.ErrConflict)
	}
	s, err := n.server(ctx, name)
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	if err := n.change(ctx, n.raft.RemoveServer(s.ID, 0, n.enough(ctx))); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	_, err = n.Apply(ctx, ledger.ID{}, ledger.NodeDelete{Name: name})
	return err
}

// Transfer hands leadership to a voter, "" for whoever is the furthest.
func (n *Node) Transfer(ctx context.Context, name string) error {
	if name == "" {
		if err := n.await(ctx, n.raft.LeadershipTransfer()); err != nil {
			return fmt.Errorf("transfer leadership: %w", err)
		}
		return nil
	}
	s, err := n.server(ctx, name)
	if err == nil && s.Suffrage != raft.Voter {
		err = fmt.Errorf("it has no vote: %w", ledger.ErrConflict)
	}
	if err == nil && name != n.cfg.Name {
		err = n.await(ctx, n.raft.LeadershipTransferToServer(s.ID, s.Address))
	}
	if err != nil {
		return fmt.Errorf("transfer leadership to %s: %w", name, err)
	}
	return nil
}

// Snapshot writes the state down and cuts the log behind it, as happens by itself from time to time.
func (n *Node) Snapshot() error {
	if err := n.raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}

// server finds a member, on the leader.
func (n *Node) server(ctx context.Context, name string) (raft.Server, error) {
	if _, err := n.reigning(ctx); err != nil {
		return raft.Server{}, err
	}
	servers, err := n.servers()
	if err != nil {
		return raft.Server{}, err
	}
	i := slices.IndexFunc(servers, func(s raft.Server) bool { return string(s.ID) == name })
	if i < 0 {
		return raft.Server{}, fmt.Errorf("no such member: %w", ledger.ErrNotFound)
	}
	return servers[i], nil
}

const (
	// mostBehind is how many entries a node may be behind that becomes a voter.
	mostBehind = 250
	// tick is how often the leader looks after the members.
	tick = time.Second
)

// pace is how often something is done that takes that long with the default timeouts.
func (n *Node) pace(usual time.Duration) time.Duration {
	return max(100*time.Millisecond, min(usual, time.Duration(float64(usual)*n.cfg.Heartbeat.Seconds())))
}

// care looks after the members while this node leads: what they say of themselves goes into the ledger, those who joined and
// have kept up become voters, and the feature level follows the oldest program among the voters.
func (n *Node) care() {
	steady := map[string]time.Time{} // since when a node without a vote has kept up
	ticker := time.NewTicker(n.pace(tick))
	defer ticker.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-ticker.C:
		}
		n.mu.Lock()
		r := n.reign
		n.mu.Unlock()
		if r == nil {
			clear(steady)
			continue
		}
		if err := n.careOnce(r.ctx, steady); err != nil && r.ctx.Err() == nil {
			n.log.Warn("members", "error", err)
		}
	}
}

func (n *Node) careOnce(ctx context.Context, steady map[string]time.Time) error {
	servers, err := n.servers()
	if err != nil {
		return err
	}
	var errs []error
	last := n.raft.LastIndex() // before they are asked: what comes meanwhile is nobody's delay
	statuses := n.statuses(ctx, servers)
	errs = append(errs, n.tell(ctx, servers, statuses))
	now := time.Now()
	for i, s := range servers {
		if s.Suffrage == raft.Voter {
			delete(steady, string(s.ID))
			continue
		}
		st := statuses[i]
		if st == nil || st.Nonvoter || st.Missing > 0 || st.Full || st.Applied+mostBehind < last {
			delete(steady, string(s.ID))
			continue
		}
		since, known := steady[string(s.ID)]
		if !known {
			steady[string(s.ID)] = now
		} else if now.Sub(since) >= n.cfg.PromoteAfter {
			n.log.Info("member becomes a voter", "node", s.ID)
			errs = append(errs, n.change(ctx, n.raft.AddVoter(s.ID, s.Address, 0, n.enough(ctx))))
		}
	}
	return errors.Join(errs...)
}

// tell brings the ledger's list of coordinators up to date.
func (n *Node) tell(ctx context.Context, servers []raft.Server, statuses []*status) error {
	var known []ledger.Node
	var level uint32
	n.fsm.view(func(s *ledger.State) { known, level = s.Nodes(), s.Feature() })
	var errs []error
	apply := func(c ledger.Command) {
		outcome, err := n.Apply(ctx, ledger.ID{}, c)
		errs = append(errs, err, outcome.Err)
	}
	common := n.cfg.hooks.feature()
	for i, s := range servers {
		st := statuses[i]
		if st == nil {
			common = 0
			continue
		}
		if s.Suffrage == raft.Voter {
			common = min(common, st.Feature)
		}
		node := ledger.Node{Name: string(s.ID), Peer: string(s.Address), API: st.API, NATS: st.NATS, Feature: st.Feature}
		if !slices.Contains(known, node) {
			apply(ledger.NodePut(node))
		}
	}
	for _, node := range known {
		if !slices.ContainsFunc(servers, func(s raft.Server) bool { return string(s.ID) == node.Name }) {
			apply(ledger.NodeDelete{Name: node.Name})
		}
	}
	if common > level {
		apply(ledger.FeatureLevel{Level: common})
	}
	return errors.Join(errs...)
}
