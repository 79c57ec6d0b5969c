package server

import (
	"context"
	"fmt"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

func (c *call) listMembers() (any, error) {
	if err := c.view(func(*ledger.State) {}); err != nil {
		return nil, err
	}
	members, err := c.node.Members(c.r.Context())
	if err != nil {
		return nil, err
	}
	var furthest uint64
	for _, m := range members {
		furthest = max(furthest, m.Applied)
	}
	var out []api.Member
	for _, m := range members {
		one := api.Member{Meta: api.Kind(api.KindMember), Name: m.Name, Peer: m.Peer, API: m.API, NATS: m.NATS, Role: api.Nonvoter, Leader: m.Leads,
			Feature: m.Feature, Healthy: m.Reached && m.Missing == 0 && !m.Full}
		if m.Voter {
			one.Role = api.Voter
		}
		switch {
		case !m.Reached:
			one.Message = "does not answer"
		case m.Missing > 0:
			one.Message = fmt.Sprintf("has yet to fetch %d blobs", m.Missing)
		case m.Full:
			one.Message = "its disk is full"
		}
		if m.Reached {
			one.Behind = furthest - m.Applied
		}
		out = append(out, one)
	}
	return list(c, api.KindMember, out), nil
}

func (c *call) addMember() (any, error) {
	var in api.AddMember
	if err := decode(c.w, c.r, &in); err != nil {
		return nil, err
	}
	if err := named("name", in.Name); err != nil {
		return nil, err
	}
	err := c.node.AddNonvoter(c.r.Context(), in.Name, in.Peer)
	if err != nil && fault(err).Code == api.Internal { // the other node is not as it should be
		err = api.Errorf(api.Conflict, "%v", err)
	}
	return nil, err
}

func (c *call) removeMember() (any, error) {
	return nil, c.node.Remove(c.r.Context(), c.r.PathValue("member"))
}

func (c *call) promoteMember() (any, error) {
	return nil, c.node.Promote(c.r.Context(), c.r.PathValue("member"))
}

// settle takes cuts before the leader changes, as far as they come soon.
func (s *Server) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	s.work.Settle(ctx)
}

func (c *call) leadMember() (any, error) {
	c.settle(c.r.Context())
	return nil, c.node.Transfer(c.r.Context(), c.r.PathValue("member"))
}
