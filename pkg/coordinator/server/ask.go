package server

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// longPoll is how long a replica waits for work in one request.
const longPoll = 20 * time.Second

func (c *call) ask() (any, error) {
	var in api.Ask
	if err := decode(c.w, c.r, &in); err != nil {
		return nil, err
	}
	if err := named("id", in.ID); err != nil {
		return nil, err
	}
	if in.Experiment != "" {
		if err := c.mayTouch(in.Experiment); err != nil {
			return nil, err
		}
	} else if c.token.Experiments != "" {
		return nil, &api.Error{Code: api.Forbidden, Message: fmt.Sprintf("token %s is for the experiments %s", c.token.Name, c.token.Experiments), Next: "say which one the replica is for"}
	}
	if err := c.admit(in); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), longPoll)
	defer cancel()
	defer context.AfterFunc(c.ended, cancel)()
	if !c.busKnown(ctx) {
		c.w.WriteHeader(http.StatusNoContent)
		return handled{}, nil
	}
	out, ok, err := c.work.Ask(ctx, in)
	if err != nil && c.r.Context().Err() == nil && ctx.Err() == nil {
		return nil, err
	}
	if !ok || err != nil {
		c.w.WriteHeader(http.StatusNoContent)
		return handled{}, nil
	}
	out.Meta = api.Kind("Assignment")
	out.ForeignNATS = c.foreign
	return out, nil
}

// busKnown waits until the ledger says where the message bus is: just after the first start it does not yet.
func (c *call) busKnown(ctx context.Context) bool {
	for {
		changed, known := c.node.Changed(), false
		_, _, _ = c.node.View(ctx, consensus.Stale, func(st *ledger.State) {
			known = slices.ContainsFunc(st.Nodes(), func(n ledger.Node) bool { return n.NATS != "" })
		})
		if known {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// admit gives a replica a credential of its process. Once the token is revoked that it came with, there is no other.
func (c *call) admit(in api.Ask) error {
	p := process{id: in.ID, incarnation: in.Incarnation, token: markOf(c.token), experiments: c.token.Experiments}
	if c.process != nil {
		p.token = c.process.token
		if p != *c.process {
			return &api.Error{Code: api.Forbidden, Message: fmt.Sprintf("the credential is of another process than that of incarnation %d of replica %s", in.Incarnation, in.ID)}
		}
	} else if err := c.useToken(in); err != nil {
		return err
	}
	var cluster [32]byte
	stands := false
	err := c.view(func(st *ledger.State) {
		_, cluster, _ = st.Cluster()
		stands = slices.ContainsFunc(st.Tokens(), func(t ledger.Token) bool { return markOf(t) == p.token })
	})
	if err == nil && stands {
		c.w.Header().Set(api.CredentialHeader, newCredential(cluster, p, c.now()))
	}
	return err
}

// useToken counts a use of a join token, once for a process.
func (c *call) useToken(in api.Ask) error {
	c.joins.mu.Lock() // one after the other: each counts from what the one before left
	defer c.joins.mu.Unlock()
	var token ledger.Token
	var found bool
	if err := c.view(func(st *ledger.State) { token, found = st.Token(c.token.Name) }); err != nil {
		return err
	}
	if !found || token.Hash != c.token.Hash {
		return errUnknownToken
	}
	use := fmt.Sprintf("%s %s %d", markOf(token), in.ID, in.Incarnation)
	if _, counted := c.joins.known[use]; counted || token.Uses == 0 {
		return nil
	}
	if token.Uses == ledger.Spent {
		return &api.Error{Code: api.Unauthorized, Message: fmt.Sprintf("token %s is used up", token.Name), Next: "ask for a new one"}
	}
	_, err := c.apply(ledger.ID{}, ledger.TokenUse{Name: token.Name, Hash: token.Hash, Left: token.Uses - 1})
	if err == nil {
		c.joins.note(use, c.now())
	}
	return err
}

func (c *call) listPool() (any, error) {
	if err := c.view(func(*ledger.State) {}); err != nil {
		return nil, err
	}
	var out []api.PoolReplica
	for _, r := range c.work.Pool() {
		if c.token.Experiments == "" || c.may(r.Experiment) || c.may(r.Bound) {
			r.Meta = api.Kind("PoolReplica")
			out = append(out, r)
		}
	}
	return list(c, "PoolReplica", out), nil
}

// Lead does the leader's work whenever this coordinator leads, until ctx ends.
func (s *Server) Lead(ctx context.Context) error {
	for {
		reign, err := s.node.Leadership(ctx)
		if err != nil {
			return err
		}
		if err = s.ensureToken(reign); err == nil {
			err = s.work.Lead(reign)
		}
		if err != nil && reign.Err() == nil {
			s.log.Error("leader's work", "error", err)
		}
		select { // if it came to its end early, not for ever
		case <-reign.Done():
		case <-time.After(time.Second):
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}
