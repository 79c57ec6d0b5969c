package server

import (
	"cmp"
	"encoding/json"
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
	if len(e.Cuts) == 0 {
		return ledger.Cut{}, api.Errorf(api.NotFound, "experiment %q has no cut yet", e.Name)
	}
	text := c.r.PathValue("step")
	if text == "last" {
		return e.Cuts[len(e.Cuts)-1], nil
	}
	step, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return ledger.Cut{}, api.Errorf(api.Invalid, "cut %q, want a step or last", text)
	}
	kept := ""
	for _, cut := range e.Cuts {
		if cut.Step == step {
			return cut, nil
		}
		kept += fmt.Sprintf(", %d", cut.Step)
	}
	return ledger.Cut{}, api.Errorf(api.NotFound, "experiment %q has no cut of step %d, it keeps those of %s", e.Name, step, kept[2:])
}

// replaceCut makes the cut of a step the last one, by a generation that nobody works in, and then puts another in its place.
func (c *call) replaceCut() (any, error) {
	var in api.ReplaceCut
	if err := decode(c.w, c.r, &in); err != nil {
		return nil, err
	}
	e, err := c.experimentOfPath()
	if err != nil {
		return nil, err
	}
	cut, err := c.cut(e)
	if err != nil {
		return nil, err
	}
	idle := e.Phase == ledger.Paused || e.Phase == ledger.Inconsistent || e.Phase == ledger.Degraded
	if !idle {
		return nil, &api.Error{Code: api.Conflict, Message: fmt.Sprintf("experiment %q is %s, want it paused", e.Name, e.Phase), Next: "coordinator pause " + e.Name}
	}
	commit, err := c.replacement(in, cut)
	if err != nil {
		return nil, err
	}
	generation := e.Generation
	if last := e.Cuts[len(e.Cuts)-1]; cut.Step != last.Step || len(e.Holders) > 0 {
		generation++
		if _, err := c.apply(e.ID, ledger.GenerationOpen{Number: generation, From: int64(cut.Step)}); err != nil {
			return nil, err
		}
	}
	if commit != nil {
		commit.Generation = generation
		if _, err := c.apply(e.ID, *commit); err != nil {
			return nil, err
		}
	}
	if e, err = c.experimentOfPath(); err != nil {
		return nil, err
	}
	return result(c.cutOfPath(e))
}

func (c *call) cutOfPath(e ledger.Experiment) (api.Cut, error) {
	cut, err := c.cut(e)
	return cutOf(cut), err
}

// replacement is the command that puts another cut in the place of one, nil where none is given.
func (c *call) replacement(in api.ReplaceCut, old ledger.Cut) (*ledger.CutCommit, error) {
	if in.Manifest == "" {
		if len(in.Parts) > 0 {
			return nil, api.Errorf(api.Invalid, "%d parts without a manifest", len(in.Parts))
		}
		return nil, nil
	}
	manifest, err := blobs.ParseDigest(in.Manifest)
	if err != nil {
		return nil, api.Errorf(api.Invalid, "manifest: %v", err)
	}
	parts, err := partsOf(in.Parts)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(parts, func(a, b ledger.Part) int { return cmp.Compare(a.Name, b.Name) })
	for _, digest := range append([]ledger.Digest{manifest}, digestsOf(parts)...) {
		if !c.node.Blobs().Has(digest) {
			return nil, &api.Error{Code: api.Conflict, Message: fmt.Sprintf("blob %s is not here", digest), Next: "upload it first"}
		}
	}
	data, err := c.node.Blob(c.r.Context(), manifest)
	if err != nil {
		return nil, err
	}
	var says struct{ Step *uint64 }
	if err := json.Unmarshal(data, &says); err != nil || says.Step == nil || *says.Step != old.Step {
		return nil, api.Errorf(api.Invalid, "manifest %.12s is not of a cut of step %d", in.Manifest, old.Step)
	}
	return &ledger.CutCommit{Step: old.Step, Manifest: manifest, Parts: parts, Conservation: ledger.Conservation(in.Conservation), Replace: true}, nil
}

func digestsOf(parts []ledger.Part) []ledger.Digest {
	out := make([]ledger.Digest, len(parts))
	for i, p := range parts {
		out[i] = p.Digest
	}
	return out
}
