package server

import (
	"fmt"
	"net/http"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

func (c *call) listExperiments() (any, error) {
	var all []ledger.Experiment
	if err := c.view(func(st *ledger.State) { all = st.Experiments() }); err != nil {
		return nil, err
	}
	var out []api.Experiment
	for _, e := range all {
		if c.may(e.Name) {
			out = append(out, c.experiment(e))
		}
	}
	return list(c, api.KindExperiment, out), nil
}

func (c *call) getExperiment() (any, error) {
	e, err := c.experimentOfPath()
	if err != nil {
		return nil, err
	}
	if c.r.Header.Get("If-None-Match") == etag(e.Version) {
		c.w.Header().Set("ETag", etag(e.Version))
		c.w.WriteHeader(http.StatusNotModified)
		return handled{}, nil
	}
	return c.whole(e), nil
}

// whole is an experiment with its YAML, and its version in the ETag.
func (c *call) whole(e ledger.Experiment) api.Experiment {
	c.w.Header().Set("ETag", etag(e.Version))
	out := c.experiment(e)
	out.YAML = string(e.Spec)
	return out
}

const mostCutEvery = 24 * time.Hour

func (c *call) submit() (any, error) {
	var in api.Submit
	if err := decode(c.w, c.r, &in); err != nil {
		return nil, err
	}
	id, create, err := c.creation(in)
	if err != nil {
		return nil, err
	}
	if in.DryRun {
		return c.tryOut(create)
	}
	if _, err := c.apply(id, create); err != nil {
		return nil, err
	}
	var e ledger.Experiment
	var found bool
	if err := c.view(func(st *ledger.State) { e, found = st.ByID(id) }); err != nil {
		return nil, err
	}
	if !found {
		return nil, api.Errorf(api.NotFound, "experiment %q: it was deleted in between", create.Name)
	}
	return created{c.whole(e)}, nil
}

// creation is the command that a submission comes to.
func (c *call) creation(in api.Submit) (id ledger.ID, cmd ledger.ExpCreate, err error) {
	if id, err = parseID(in.UID); err != nil && (in.UID != "" || !in.DryRun) {
		return id, cmd, err
	}
	every, err := seconds("cut_every_seconds", in.CutEverySeconds, mostCutEvery)
	if err != nil {
		return id, cmd, err
	}
	// Before anything is built of it.
	if in.Name != "" {
		if err := named("name", in.Name); err != nil {
			return id, cmd, err
		}
		if err := c.mayTouch(in.Name); err != nil {
			return id, cmd, err
		}
	} else if c.token.Experiments != "" {
		return id, cmd, &api.Error{Code: api.Forbidden, Message: fmt.Sprintf("name: missing, and token %s is for the experiments %s alone", c.token.Name, c.token.Experiments), Next: "say the name"}
	}
	owner := c.owner()
	if in.Owner != "" && in.Owner != owner {
		if c.token.Scope != ledger.Admin {
			return id, cmd, &api.Error{Code: api.Forbidden, Message: fmt.Sprintf("owner %q: token %s is of %q", in.Owner, c.token.Name, owner)}
		}
		owner = in.Owner
	}
	sub, err := c.check([]byte(in.YAML), in.Dir)
	if err != nil {
		return id, cmd, &api.Error{Code: api.Invalid, Message: err.Error(), Next: "coordinator config validate FILE says it too"}
	}
	cmd = ledger.ExpCreate{Name: sub.Name, Owner: owner, Spec: sub.YAML, Dir: in.Dir, Steps: sub.Steps, Shards: sub.Shards, Want: in.Replicas,
		Min: max(in.MinReplicas, 1), Priority: in.Priority, CutEvery: sub.CutEvery}
	if in.Name != "" {
		cmd.Name = in.Name
	}
	if every > 0 {
		cmd.CutEvery = every
	}
	return id, cmd, named("name", cmd.Name)
}

// owner is whose quota counts for what the token submits.
func (c *call) owner() string {
	if c.token.Owner != "" {
		return c.token.Owner
	}
	return c.token.Name
}

// tryOut says what a creation would come to, by making it in a copy of the state.
func (c *call) tryOut(cmd ledger.ExpCreate) (any, error) {
	var snapshot []byte
	if err := c.view(func(st *ledger.State) { snapshot = st.Snapshot() }); err != nil {
		return nil, err
	}
	state, err := ledger.Restore(snapshot)
	if err != nil {
		return nil, err
	}
	id := ledger.ID{1}
	entry, err := ledger.Encode(ledger.Entry{Exp: id, At: c.now(), Command: cmd})
	if err != nil {
		return nil, err
	}
	if out := state.Apply(c.index+1, entry); out.Err != nil {
		return nil, out.Err
	}
	e, _ := state.ByID(id)
	out := c.experiment(e)
	out.YAML, out.UID, out.Version = string(e.Spec), "", 0
	return out, nil
}

func (c *call) patchExperiment() (any, error) {
	var in api.Patch
	if err := decode(c.w, c.r, &in); err != nil {
		return nil, err
	}
	version, err := c.ifMatch()
	if err != nil {
		return nil, err
	}
	set := ledger.ExpSet{Version: version, Want: in.Replicas, Priority: in.Priority}
	if in.Desired != "" {
		if set.Desired, err = parse("desired", in.Desired, ledger.Run, ledger.Pause, ledger.Cancel); err != nil {
			return nil, err
		}
	}
	if set.Desired == 0 && set.Want == nil && set.Priority == nil {
		return nil, api.Errorf(api.Invalid, "nothing to change, want desired, replicas or priority")
	}
	e, err := c.experimentOfPath()
	if err != nil {
		return nil, err
	}
	if _, err := c.apply(e.ID, set); err != nil {
		return nil, c.outdated(err, e.ID, version)
	}
	if e, err = c.experimentOfPath(); err != nil {
		return nil, err
	}
	return c.whole(e), nil
}

func (c *call) deleteExperiment() (any, error) {
	version, err := c.ifMatch()
	if err != nil {
		return nil, err
	}
	e, err := c.experimentOfPath()
	if err != nil {
		return nil, err
	}
	_, err = c.apply(e.ID, ledger.ExpDelete{Version: version})
	return nil, c.outdated(err, e.ID, version)
}

func (c *call) listReplicas() (any, error) {
	e, err := c.experimentOfPath()
	if err != nil {
		return nil, err
	}
	var out []api.Replica
	for _, r := range e.Replicas {
		one := api.Replica{Meta: api.Kind("Replica"), Name: r.Name, State: api.Standby, Shards: []uint32{}, Lease: r.Token, Incarnation: r.Incarnation,
			Device: r.Device, Platform: r.Platform, Since: r.Since}
		for shard, holder := range e.Holders {
			if holder == r.Name {
				one.Shards = append(one.Shards, uint32(shard))
				one.State = api.Active
			}
		}
		if c.work.Draining(e.ID, r.Name) {
			one.State = api.Draining
		}
		out = append(out, one)
	}
	return list(c, "Replica", out), nil
}

func (c *call) drain() (any, error) {
	e, r, err := c.replica()
	if err != nil {
		return nil, err
	}
	return nil, c.work.Drain(c.r.Context(), e.ID, r.Name)
}

func (c *call) takeover() (any, error) {
	e, r, err := c.replica()
	if err != nil {
		return nil, err
	}
	if c.work.Evict(c.r.Context(), e.ID, r.Name) == nil {
		return nil, nil
	}
	_, err = c.apply(e.ID, ledger.LeaseEnd{Replica: r.Name, Token: r.Token, Lost: true})
	return nil, err
}

// replica is the one that the path names.
func (c *call) replica() (ledger.Experiment, ledger.Replica, error) {
	e, err := c.experimentOfPath()
	if err != nil {
		return e, ledger.Replica{}, err
	}
	name := c.r.PathValue("replica")
	for _, r := range e.Replicas {
		if r.Name == name {
			return e, r, nil
		}
	}
	return e, ledger.Replica{}, api.Errorf(api.NotFound, "experiment %q has no replica %q", e.Name, name)
}

func (c *call) listShards() (any, error) {
	e, err := c.experimentOfPath()
	if err != nil {
		return nil, err
	}
	shards, err := c.work.Shards(e)
	if err != nil {
		return nil, err
	}
	for i := range shards {
		shards[i].Meta = api.Kind("Shard")
		if n := int(shards[i].Shard); n < len(e.Holders) {
			shards[i].Replica = e.Holders[n]
		}
	}
	return list(c, "Shard", shards), nil
}

func (c *call) getBuffer() (any, error) {
	e, err := c.experimentOfPath()
	if err != nil {
		return nil, err
	}
	buffer, err := c.work.Buffer(c.r.Context(), e)
	buffer.Meta = api.Kind("Buffer")
	return result(buffer, err)
}

// result is a value, or an error without one.
func result(v any, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

func (c *call) listEvents() (any, error) {
	e, err := c.experimentOfPath()
	if err != nil {
		return nil, err
	}
	var out []api.Event
	for _, event := range e.Events {
		out = append(out, eventOf(e.Name, event))
	}
	return list(c, api.KindEvent, out), nil
}

// final says whether nothing follows for an experiment, or it is gone.
func (c *call) final(id ledger.ID) bool {
	var over bool
	_, _, err := c.node.View(c.r.Context(), consensus.Stale, func(st *ledger.State) {
		e, found := st.ByID(id)
		over = !found || e.Phase.Final()
	})
	return err == nil && over
}
