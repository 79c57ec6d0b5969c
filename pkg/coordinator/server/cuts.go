package server

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/blobs"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

func (c *call) listCuts() (any, error) {
	e, err := c.experimentOfPath()
	if err != nil {
		return nil, err
	}
	var out []api.Cut
	for _, cut := range e.Cuts {
		out = append(out, cutOf(cut))
	}
	if e.Refused != nil {
		refused := cutOf(*e.Refused)
		refused.Refused = true
		out = append(out, refused)
	}
	return list(c, "Cut", out), nil
}

func (c *call) getCut() (any, error) {
	e, err := c.experimentOfPath()
	if err != nil {
		return nil, err
	}
	cut, err := c.cut(e)
	if err != nil {
		return nil, err
	}
	manifest, err := c.node.Blob(c.r.Context(), cut.Manifest)
	if err != nil {
		return nil, fmt.Errorf("manifest of the cut of step %d: %w", cut.Step, err)
	}
	out := cutOf(cut)
	if json.Valid(manifest) {
		out.Contents = manifest
	}
	return out, nil
}

// cut is the one that the path names.
func (c *call) cut(e ledger.Experiment) (ledger.Cut, error) {
	step, err := c.step(e)
	if err != nil {
		return ledger.Cut{}, err
	}
	kept := ""
	for _, cut := range e.Cuts {
		if cut.Step == step {
			return cut, nil
		}
		kept += fmt.Sprintf(", %d", cut.Step)
	}
	if kept == "" {
		return ledger.Cut{}, errNoCut(e)
	}
	return ledger.Cut{}, api.Errorf(api.NotFound, "experiment %q has no cut of step %d, it keeps those of %s", e.Name, step, kept[2:])
}

func errNoCut(e ledger.Experiment) error {
	return api.Errorf(api.NotFound, "experiment %q has no cut yet", e.Name)
}

// step is that of the cut that the path names.
func (c *call) step(e ledger.Experiment) (uint64, error) {
	text := c.r.PathValue("step")
	if text == "last" {
		if len(e.Cuts) == 0 {
			return 0, errNoCut(e)
		}
		return e.Cuts[len(e.Cuts)-1].Step, nil
	}
	step, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0, api.Errorf(api.Invalid, "cut %q, want a step or last", text)
	}
	return step, nil
}

// replaceCut makes a cut the last one, or another in its place, in one step: what is refused changes nothing.
func (c *call) replaceCut() (any, error) {
	var in api.ReplaceCut
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
	cmd, err := c.replacement(e, in)
	if err != nil {
		return nil, err
	}
	cmd.Version = version
	if _, err := c.apply(e.ID, cmd); err != nil {
		if err = c.outdated(err, e.ID, version); errors.Is(err, ledger.ErrConflict) {
			err = &api.Error{Code: api.Conflict, Message: err.Error(), Next: "coordinator pause " + e.Name}
		}
		return nil, err
	}
	if e, err = c.experimentOfPath(); err != nil {
		return nil, err
	}
	cut, err := c.cut(e)
	return result(cutOf(cut), err)
}

// replacement is the command that a request comes to.
func (c *call) replacement(e ledger.Experiment, in api.ReplaceCut) (cmd ledger.CutReplace, err error) {
	if cmd.Step, err = c.step(e); err != nil {
		return cmd, err
	}
	cmd.Conservation = ledger.Conservation(in.Conservation)
	if in.Manifest != "" {
		cmd.Manifest, cmd.Parts, err = c.uploaded(in.Manifest, in.Parts, cmd.Step)
	} else if len(in.Parts) > 0 {
		err = api.Errorf(api.Invalid, "%d parts without a manifest", len(in.Parts))
	}
	return cmd, err
}

// uploaded are the blobs of a cut of a step, which must be here.
func (c *call) uploaded(manifestDigest string, in []api.Part, step uint64) (manifest ledger.Digest, parts []ledger.Part, err error) {
	if manifest, err = blobs.ParseDigest(manifestDigest); err != nil {
		return manifest, nil, api.Errorf(api.Invalid, "manifest: %v", err)
	}
	if parts, err = partsOf(in); err != nil {
		return manifest, nil, err
	}
	slices.SortFunc(parts, func(a, b ledger.Part) int { return cmp.Compare(a.Name, b.Name) })
	for _, digest := range append([]ledger.Digest{manifest}, digestsOf(parts)...) {
		if !c.node.Blobs().Has(digest) {
			return manifest, nil, &api.Error{Code: api.Conflict, Message: fmt.Sprintf("blob %s is not here", digest), Next: "upload it first"}
		}
	}
	data, err := c.node.Blob(c.r.Context(), manifest)
	if err != nil {
		return manifest, nil, err
	}
	var says struct{ Step *uint64 }
	if err := json.Unmarshal(data, &says); err != nil || says.Step == nil || *says.Step != step {
		return manifest, nil, api.Errorf(api.Invalid, "manifest %.12s is not of a cut of step %d", manifestDigest, step)
	}
	return manifest, parts, nil
}

func digestsOf(parts []ledger.Part) []ledger.Digest {
	out := make([]ledger.Digest, len(parts))
	for i, p := range parts {
		out[i] = p.Digest
	}
	return out
}
