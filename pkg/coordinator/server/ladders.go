package server

import (
	"bytes"
	"fmt"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

func (c *call) getLadder() (any, error) {
	e, err := c.experimentOfPath()
	if err != nil {
		return nil, err
	}
	ladder, err := c.work.Ladder(c.r.Context(), e)
	ladder.Meta = api.Kind("Ladder")
	for i := range ladder.Rungs {
		ladder.Rungs[i].Meta = api.Kind("Rung")
	}
	return result(ladder, err)
}

// putLadder puts another experiment, that differs in nothing but its ladder, and its last cut in the place of what there is.
func (c *call) putLadder() (any, error) {
	var in api.PutLadder
	if err := decode(c.w, c.r, &in); err != nil {
		return nil, err
	}
	version, err := c.ifMatch()
	if err != nil {
		return nil, err
	}
	e, err := c.experimentOfPath()
	if err != nil {
		return nil, err
	}
	respec, err := c.respec(e, in)
	if err != nil {
		return nil, err
	}
	respec.Version = version
	if _, err := c.apply(e.ID, respec); err != nil {
		return nil, c.outdated(err, e.ID, version)
	}
	if e, err = c.experimentOfPath(); err != nil {
		return nil, err
	}
	return c.whole(e), nil
}

// respec is the command that a new ladder comes to. Whether the experiment rests is for the ledger to say.
func (c *call) respec(e ledger.Experiment, in api.PutLadder) (cmd ledger.ExpRespec, err error) {
	if len(e.Cuts) == 0 {
		return cmd, &api.Error{Code: api.Conflict, Message: fmt.Sprintf("experiment %q has no cut yet", e.Name), Next: "submit it with the other ladder"}
	}
	is, err := c.check([]byte(in.YAML), e.Dir)
	if err != nil {
		return cmd, api.Errorf(api.Invalid, "%v", err)
	}
	was, err := c.check(e.Spec, e.Dir)
	if err != nil {
		return cmd, fmt.Errorf("experiment %q as it is: %w", e.Name, err)
	}
	if !bytes.Equal(was.Rest, is.Rest) {
		return cmd, api.Errorf(api.Invalid, "yaml: more than the ladder of experiment %q differs, want other tempering.rungs, betas and ladder alone", e.Name)
	}
	step := e.Cuts[len(e.Cuts)-1].Step
	manifest, parts, err := c.uploaded(in.Manifest, in.Parts, step)
	if err != nil {
		return cmd, err
	}
	return ledger.ExpRespec{Spec: is.YAML, Shards: is.Shards, Step: step, Manifest: manifest, Parts: parts, Conservation: ledger.Conservation(in.Conservation)}, nil
}
