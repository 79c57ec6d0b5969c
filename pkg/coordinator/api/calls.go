package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

// path joins escaped segments below /v1.
func path(segments ...string) string {
	p := "/v1"
	for _, s := range segments {
		p += "/" + url.PathEscape(s)
	}
	return p
}

// Submit creates an experiment. Until ctx ends it is tried again, and still created once.
func (c *Client) Submit(ctx context.Context, s Submit) (Experiment, error) {
	if s.UID == "" {
		var id [16]byte
		rand.Read(id[:])
		s.UID = hex.EncodeToString(id[:])
	}
	return call[Experiment](ctx, c, request{method: http.MethodPost, path: path("experiments"), twice: true}, s)
}

// Experiments are all that the token may see, by creation.
func (c *Client) Experiments(ctx context.Context) (List[Experiment], error) {
	return read[List[Experiment]](ctx, c, path("experiments"))
}

// Experiment is one of them, with its YAML.
func (c *Client) Experiment(ctx context.Context, name string) (Experiment, error) {
	return read[Experiment](ctx, c, path("experiments", name))
}

// Patch changes what people want of an experiment. Another version than the given one, 0 for any, is a Conflict.
func (c *Client) Patch(ctx context.Context, name string, p Patch, version uint64) (Experiment, error) {
	return call[Experiment](ctx, c, versioned(http.MethodPatch, name, version), p)
}

// Delete forgets an experiment in a final phase, with its cuts.
func (c *Client) Delete(ctx context.Context, name string, version uint64) error {
	_, err := call[struct{}](ctx, c, versioned(http.MethodDelete, name, version), nil)
	return err
}

func versioned(method, name string, version uint64) request {
	r := request{method: method, path: path("experiments", name), twice: version == 0 && method == http.MethodPatch}
	if version != 0 {
		r.header = http.Header{"If-Match": {strconv.Quote(strconv.FormatUint(version, 10))}}
	}
	return r
}

// Replicas are those with a lease, by name.
func (c *Client) Replicas(ctx context.Context, name string) (List[Replica], error) {
	return read[List[Replica]](ctx, c, path("experiments", name, "replicas"))
}

// Shards are all of an experiment, with who holds them.
func (c *Client) Shards(ctx context.Context, name string) (List[Shard], error) {
	return read[List[Shard]](ctx, c, path("experiments", name, "shards"))
}

// Ladder is the ladder as the leader last saw it.
func (c *Client) Ladder(ctx context.Context, name string) (Ladder, error) {
	return read[Ladder](ctx, c, path("experiments", name, "ladder"))
}

// Buffer is the replay buffer of the last cut.
func (c *Client) Buffer(ctx context.Context, name string) (Buffer, error) {
	return read[Buffer](ctx, c, path("experiments", name, "buffer"))
}

// Events are the last ones of an experiment, oldest first.
func (c *Client) Events(ctx context.Context, name string) (List[Event], error) {
	return read[List[Event]](ctx, c, path("experiments", name, "events"))
}

// Drain asks a replica to leave once its shards are elsewhere.
func (c *Client) Drain(ctx context.Context, name, replica string) error {
	return c.replica(ctx, name, replica, "drain")
}

// Takeover ends the lease of a replica, so that another process of the same id can take its place at once.
func (c *Client) Takeover(ctx context.Context, name, replica string) error {
	return c.replica(ctx, name, replica, "takeover")
}

func (c *Client) replica(ctx context.Context, name, replica, what string) error {
	_, err := call[struct{}](ctx, c, request{method: http.MethodPost, path: path("experiments", name, "replicas", replica, what)}, nil)
	return err
}

// Cuts are those that are kept, oldest first, and a refused one last.
func (c *Client) Cuts(ctx context.Context, name string) (List[Cut], error) {
	return read[List[Cut]](ctx, c, path("experiments", name, "cuts"))
}

// Cut is the one of a step, with what its manifest says.
func (c *Client) Cut(ctx context.Context, name string, step uint64) (Cut, error) {
	return read[Cut](ctx, c, path("experiments", name, "cuts", strconv.FormatUint(step, 10)))
}

// LastCut is the newest cut, with what its manifest says.
func (c *Client) LastCut(ctx context.Context, name string) (Cut, error) {
	return read[Cut](ctx, c, path("experiments", name, "cuts", "last"))
}

// ReplaceCut puts a cut in place, see [ReplaceCut]. The experiment must be paused. Another version than the given one, 0 for
// any, is a Conflict. Until ctx ends it is tried again, and still done once.
func (c *Client) ReplaceCut(ctx context.Context, name string, step uint64, r ReplaceCut, version uint64) (Cut, error) {
	to := versioned(http.MethodPost, name, version)
	to.path, to.twice = path("experiments", name, "cuts", strconv.FormatUint(step, 10)), true
	return call[Cut](ctx, c, to, r)
}

// PutLadder gives a paused experiment another ladder, see [PutLadder]. Another version than the given one, 0 for any, is a
// Conflict. Until ctx ends it is tried again, and still done once.
func (c *Client) PutLadder(ctx context.Context, name string, l PutLadder, version uint64) (Experiment, error) {
	r := versioned(http.MethodPut, name, version)
	r.path, r.twice = path("experiments", name, "ladder"), true
	return call[Experiment](ctx, c, r, l)
}

// Members are the coordinators, by name.
func (c *Client) Members(ctx context.Context) (List[Member], error) {
	return read[List[Member]](ctx, c, path("members"))
}

// AddMember lets a coordinator in as a non-voter; the leader promotes it once it has caught up.
func (c *Client) AddMember(ctx context.Context, m AddMember) error {
	_, err := call[struct{}](ctx, c, request{method: http.MethodPost, path: path("members"), twice: true}, m)
	return err
}

// RemoveMember takes a coordinator out of the quorum.
func (c *Client) RemoveMember(ctx context.Context, name string) error {
	_, err := call[struct{}](ctx, c, request{method: http.MethodDelete, path: path("members", name)}, nil)
	return err
}

// Promote makes a non-voter a voter, however far it is.
func (c *Client) Promote(ctx context.Context, name string) error {
	return c.member(ctx, name, "promote")
}

// Lead hands the leadership to a member.
func (c *Client) Lead(ctx context.Context, name string) error { return c.member(ctx, name, "lead") }

func (c *Client) member(ctx context.Context, name, what string) error {
	_, err := call[struct{}](ctx, c, request{method: http.MethodPost, path: path("members", name, what), twice: true}, nil)
	return err
}

// Tokens are all tokens, by name, without their secrets.
func (c *Client) Tokens(ctx context.Context) (List[Token], error) {
	return read[List[Token]](ctx, c, path("tokens"))
}

// CreateToken makes a token. Its secret is shown this once.
func (c *Client) CreateToken(ctx context.Context, t CreateToken) (NewToken, error) {
	return call[NewToken](ctx, c, request{method: http.MethodPost, path: path("tokens")}, t)
}

// RevokeToken forgets a token.
func (c *Client) RevokeToken(ctx context.Context, name string) error {
	_, err := call[struct{}](ctx, c, request{method: http.MethodDelete, path: path("tokens", name)}, nil)
	return err
}

// Bootstrap trades the token that the first leader wrote to its data directory, or the right to be on its machine, for the
// first token of scope admin. It works until that one is used: each time the secret is another, and those before are void.
func (c *Client) Bootstrap(ctx context.Context) (NewToken, error) {
	return call[NewToken](ctx, c, request{method: http.MethodPost, path: path("tokens", "bootstrap"), twice: true}, nil)
}

// Quotas are all quotas, by owner.
func (c *Client) Quotas(ctx context.Context) (List[Quota], error) {
	return read[List[Quota]](ctx, c, path("quotas"))
}

// Quota is what an owner may take, and takes; without limits where none was set.
func (c *Client) Quota(ctx context.Context, owner string) (Quota, error) {
	return read[Quota](ctx, c, path("quotas", owner))
}

// PutQuota sets what an owner may take.
func (c *Client) PutQuota(ctx context.Context, owner string, q PutQuota) (Quota, error) {
	return call[Quota](ctx, c, request{method: http.MethodPut, path: path("quotas", owner), twice: true}, q)
}

// Ask waits up to 20 seconds for work. Nothing yet is false. What the coordinators exchange the token for is used in its
// place from then on, so that a token for a number of uses is used up by as many processes.
func (c *Client) Ask(ctx context.Context, a Ask) (Assignment, bool, error) {
	r := request{method: http.MethodPost, path: path("pool", "ask"), twice: true}
	r.token, _ = c.credential.Load().(string)
	out, header, err := exchange[Assignment](ctx, c, r, a)
	var e *Error
	if errors.As(err, &e) && e.Code == Unauthorized && r.token != "" { // too old
		r.token = ""
		out, header, err = exchange[Assignment](ctx, c, r, a)
	}
	if fresh := header.Get(CredentialHeader); err == nil && fresh != "" {
		c.credential.Store(fresh)
	}
	return out, out.Kind != "", err
}

// Pool are the replicas that the scheduler knows, by id.
func (c *Client) Pool(ctx context.Context) (List[PoolReplica], error) {
	return read[List[PoolReplica]](ctx, c, path("pool"))
}

// Build says what the coordinator runs that answers.
func (c *Client) Build(ctx context.Context) (Build, error) {
	return call[Build](ctx, c, request{method: http.MethodGet, path: "/version", twice: true}, nil)
}

// Wait watches an experiment until it is as wanted, and returns it as it then is. A deleted one is NotFound.
func (c *Client) Wait(ctx context.Context, name string, wanted func(Experiment) bool) (Experiment, error) {
	exp, err := c.Experiment(ctx, name)
	if err != nil || wanted(exp) {
		return exp, err
	}
	for change, err := range c.WatchExperiment(ctx, name, exp.Version) {
		switch {
		case err != nil:
			return exp, err
		case change.Kind == KindInventory:
			inv, err := change.Inventory()
			if err != nil {
				return exp, err
			}
			if len(inv.Experiments) == 0 || inv.Experiments[0].UID != exp.UID {
				return exp, Errorf(NotFound, "experiment %s: it was deleted", name)
			}
		case change.Kind == KindExperiment && change.Deleted:
			return exp, Errorf(NotFound, "experiment %s: it was deleted", name)
		case change.Kind == KindExperiment:
			if exp, err = change.Experiment(); err != nil || wanted(exp) {
				return exp, err
			}
		}
	}
	if err := context.Cause(ctx); err != nil {
		return exp, fmt.Errorf("api: wait for %s: %w", name, err)
	}
	return exp, Errorf(NotFound, "experiment %s: nothing more will be told of it", name) // the stream has an end
}
