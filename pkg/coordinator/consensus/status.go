package consensus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// Feature is the newest level of commands that this program knows.
const Feature = 1

// status is what a node says of itself on its peer port.
type status struct {
	Name     string `json:"name"`
	Peer     string `json:"peer"`
	API      string `json:"api"`
	NATS     string `json:"nats"`
	Feature  uint32 `json:"feature"`
	Cluster  string `json:"cluster"`  // "" until it knows
	Empty    bool   `json:"empty"`    // it has no state
	Seen     bool   `json:"seen"`     // it is empty, and has seen all that it expects empty too
	Nonvoter bool   `json:"nonvoter"` // and wants to stay one
	Applied  uint64 `json:"applied"`
	Missing  int    `json:"missing"` // blobs
	Full     bool   `json:"full"`    // its disk
}

// request is an empty node's wish to be a member.
type request struct {
	Name string `json:"name"`
	Peer string `json:"peer"`
}

const (
	statusPath = "/peer/status"
	joinPath   = "/peer/join"
	maxBody    = 64 << 10
)

func (n *Node) status() status {
	s := status{
		Name: n.cfg.Name, Peer: n.address, API: n.cfg.API, NATS: n.cfg.NATS, Feature: n.cfg.hooks.feature(), Nonvoter: n.cfg.Nonvoter,
		Empty: n.raft.LastIndex() == 0, Seen: n.seen.Load(), Applied: n.raft.AppliedIndex(), Missing: len(n.blobs.Missing()), Full: n.disk.full.Load(),
	}
	if n.fsm.replaying() { // nobody knows yet how many
		s.Missing++
	}
	n.fsm.view(func(state *ledger.State) {
		if id, _, ok := state.Cluster(); ok {
			s.Cluster = id.String()
		}
	})
	return s
}

// statusOf asks another node.
func (n *Node) statusOf(ctx context.Context, address string) (s status, err error) {
	if address == n.address {
		return n.status(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Heartbeat)
	defer cancel()
	err = n.ask(ctx, http.MethodGet, address, statusPath, nil, &s)
	return s, err
}

// ask makes one request to a peer port; answer may be nil.
func (n *Node) ask(ctx context.Context, method, address, path string, body, answer any) error {
	if n.peer == nil {
		return errNoPort
	}
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+address+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	resp, err := n.peer.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err = io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers: %s", address, bytes.TrimSpace(data))
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(data, answer)
}

func (n *Node) serveStatus(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(n.status())
}

// serveJoin takes a node in, if this one leads, or else asks the leader to.
func (n *Node) serveJoin(w http.ResponseWriter, r *http.Request) {
	if !n.Leads() {
		if err := n.Forward(w, r); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
		return
	}
	var who request
	err := json.NewDecoder(io.LimitReader(r.Body, maxBody)).Decode(&who)
	if err != nil || !plainName(who.Name) || who.Peer == "" {
		http.Error(w, "want a name and the address of a peer port", http.StatusBadRequest)
		return
	}
	if err := n.admit(r.Context(), who); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
	}
}

// admit makes a node a member without a vote. One that has lost its state loses its vote too: what it acknowledged and whom
// it voted for, it does not know any more.
func (n *Node) admit(ctx context.Context, who request) error {
	servers, err := n.servers()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(servers, func(s raft.Server) bool { return string(s.ID) == who.Name })
	if i >= 0 {
		s := servers[i]
		if who.Name == n.cfg.Name {
			return fmt.Errorf("a node called %s leads this cluster, want another name", who.Name)
		}
		if other, err := n.statusOf(ctx, string(s.Address)); err == nil && other.Name == who.Name && other.Peer != who.Peer {
			return fmt.Errorf("a node called %s lives at %s, want another name", who.Name, s.Address)
		}
		if s.Suffrage == raft.Voter {
			n.log.Warn("member has lost its state: it starts anew, without a vote", "node", who.Name)
			if err := n.change(ctx, n.raft.DemoteVoter(s.ID, 0, n.enough(ctx))); err != nil {
				return err
			}
		}
	}
	n.log.Info("takes in a node", "node", who.Name, "peer", who.Peer)
	return n.change(ctx, n.raft.AddNonvoter(raft.ServerID(who.Name), raft.ServerAddress(who.Peer), 0, n.enough(ctx)))
}

// enough is how long raft may take to begin with a change of members.
func (n *Node) enough(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return max(time.Until(deadline), time.Nanosecond)
	}
	return 10 * n.cfg.Election
}

// change waits for a change of members.
func (n *Node) change(ctx context.Context, future raft.IndexFuture) error {
	if err := n.await(ctx, future); err != nil {
		return fmt.Errorf("change of members: %w", err)
	}
	return nil
}

// servers are the members as raft knows them.
func (n *Node) servers() ([]raft.Server, error) {
	future := n.raft.GetConfiguration()
	if err := future.Error(); err != nil {
		return nil, err
	}
	return future.Configuration().Servers, nil
}

var errNoPort = errors.New("this node has no peer port: start it with a listen address to grow the cluster")
