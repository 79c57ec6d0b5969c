package consensus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// found gives an empty node its first members: it begins a cluster, waits for the one who does, or asks to be taken in.
// Until it knows which, raft's connections are refused: a member that lost its disk must not be taken for one that remembers
// what it acknowledged and for whom it voted.
func (n *Node) found() {
	if n.cfg.Expect <= 1 && n.cfg.Join == "" {
		n.bootstrap([]status{n.status()})
		return
	}
	ticker := time.NewTicker(n.pace(tick))
	defer ticker.Stop()
	for said := ""; ; {
		done, err := n.tryFound()
		if done {
			return
		}
		if err != nil && err.Error() != said {
			said = err.Error()
			n.log.Info("waits for a cluster", "reason", said)
		}
		select {
		case <-ticker.C:
		case <-n.ctx.Done():
			return
		}
	}
}

func (n *Node) tryFound() (done bool, err error) {
	if n.seen.Load() && n.raft.LastIndex() > 0 { // the one who begins has begun
		return true, nil
	}
	if n.cfg.Join != "" {
		err := n.join(n.ctx, n.cfg.Join)
		return err == nil, err
	}
	nodes := map[string]status{n.cfg.Name: n.status()}
	var absent []string
	for _, address := range n.cfg.Peers {
		st, err := n.statusOf(n.ctx, address)
		if err != nil {
			absent = append(absent, address)
			continue
		}
		if !st.Empty && !n.seen.Load() { // this node lost its disk, or was not there when the others began
			err := n.join(n.ctx, address)
			return err == nil, err
		}
		if other, ok := nodes[st.Name]; ok && other.Peer != st.Peer {
			return false, fmt.Errorf("%s and %s are both called %s", other.Peer, st.Peer, st.Name)
		}
		nodes[st.Name] = st
	}
	if len(nodes) < n.cfg.Expect {
		return false, fmt.Errorf("sees %d of %d nodes; no answer from %s", len(nodes), n.cfg.Expect, strings.Join(absent, ", "))
	}
	if len(nodes) > n.cfg.Expect {
		return false, fmt.Errorf("sees %d nodes, want %d", len(nodes), n.cfg.Expect)
	}
	n.seen.Store(true)
	n.peer.admitRaft()
	all := slices.SortedFunc(maps.Values(nodes), func(a, b status) int { return strings.Compare(a.Name, b.Name) })
	if all[0].Name != n.cfg.Name {
		return false, nil
	}
	// The others must have seen each other empty first: after that one which is empty is one that lost its disk.
	for _, st := range all[1:] {
		if !st.Seen {
			return false, nil
		}
	}
	n.bootstrap(all)
	return true, nil
}

// bootstrap begins a cluster.
func (n *Node) bootstrap(nodes []status) {
	var c raft.Configuration
	var names []string
	for _, st := range nodes {
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(st.Name), Address: raft.ServerAddress(st.Peer)})
		names = append(names, st.Name)
	}
	n.log.Info("begins a cluster", "nodes", names)
	n.peer.admitRaft()
	if err := n.raft.BootstrapCluster(c).Error(); err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
		n.fail(1, fmt.Errorf("begin a cluster: %w", err))
	}
}

// join asks a member to take this node in.
func (n *Node) join(ctx context.Context, member string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*n.cfg.Election)
	defer cancel()
	if err := n.ask(ctx, http.MethodPost, member, joinPath, request{Name: n.cfg.Name, Peer: n.address}, nil); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	n.peer.admitRaft()
	return nil
}
