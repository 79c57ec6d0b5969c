package local

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/experiment"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// Ladder says which other ladder a training is to go on with: one of so many rungs, or the one of Betas, hottest rung first.
type Ladder struct {
	Rungs int // 0: as many as Betas
	Betas []float64
}

// Reladder is an experiment, and its cut, on another ladder; see [engine.Reladder]. In the experiment no more changes than
// tempering.rungs, tempering.betas and, where it names a spacing that Betas do not have, tempering.ladder. Rungs alone are
// spaced as tempering.ladder says where that is a formula, else from the ladder of the cut, see [engine.Respaced]. Both
// arguments stay as they are.
func Reladder(cfg *experiment.Config, cut *checkpoint.Cut, to Ladder) (*experiment.Config, *checkpoint.Cut, error) {
	if (to.Rungs == 0) == (len(to.Betas) == 0) {
		return nil, nil, fmt.Errorf("ladder: %d rungs and %d β, want one of the two", to.Rungs, len(to.Betas))
	}
	next := cfg.Clone()
	t := &next.Tempering
	formula := t.Ladder != "adaptive" && t.Ladder != "fixed"
	given := slices.Clone(to.Betas)
	switch {
	case len(given) > 0:
		t.Rungs, t.Betas = len(given), given
		if formula {
			t.Ladder = "fixed"
		}
	case formula:
		t.Rungs = to.Rungs
		ladder, err := tempering.NewLadder(*t)
		if err != nil {
			return nil, nil, err
		}
		given = ladder.Betas()
	default:
		t.Rungs = to.Rungs
	}
	var groups []*checkpoint.Cut
	for g := range coordinator.NumGroups(cut) {
		group, err := coordinator.GroupCut(cut, g)
		if err != nil {
			return nil, nil, err
		}
		betas := given
		if betas == nil { // the ladders of groups that adapt differ
			if betas, err = engine.Respaced(group, to.Rungs); err != nil {
				return nil, nil, err
			}
		}
		if g == 0 && len(t.Betas) > 0 {
			t.Betas = betas
		}
		if group, err = engine.Reladder(group, betas); err != nil {
			return nil, nil, err
		}
		groups = append(groups, group)
	}
	text, err := experiment.Marshal(next)
	if err != nil {
		return nil, nil, err
	}
	if next, err = experiment.Parse(folder{dir: cfg.Dir}.path(experimentFile), text, nil); err != nil { // checks it
		return nil, nil, err
	}
	changed, err := coordinator.WithChains(cut, groups)
	return next, changed, err
}

// SetLadder puts the run in a folder on another ladder, its experiment and its last cut; cuts before that one go. Nothing may be
// training it. Where it fails the run is as it was; behind a crash it may have the new experiment and the old cut, and
// SetLadder has to be called again. It returns the experiment, which training goes on with, and the cut.
func SetLadder(dir string, to Ladder) (*experiment.Config, *checkpoint.Cut, error) {
	cfg, err := LoadExperiment(dir)
	if err != nil {
		return nil, nil, err
	}
	f := folder{dir: dir}
	cut, err := f.cuts().Latest()
	if err != nil {
		return nil, nil, err
	}
	next, changed, err := Reladder(cfg, cut, to)
	if err != nil {
		return nil, nil, err
	}
	if err := f.writeExperiment(next); err != nil {
		return nil, nil, err
	}
	if err := ReplaceCut(dir, changed); err != nil {
		return nil, nil, errors.Join(err, f.writeExperiment(cfg))
	}
	last := f.cuts()
	last.Keep = 1
	if _, err := last.Save(*changed); err != nil { // it is there; those before it are of the other ladder
		return nil, nil, err
	}
	return next, changed, nil
}

// withoutLadder is an experiment without what Reladder changes.
func withoutLadder(cfg *experiment.Config) ([]byte, error) {
	rest := cfg.Clone()
	rest.Tempering.Rungs, rest.Tempering.Betas, rest.Tempering.Ladder = 0, nil, ""
	return experiment.Marshal(rest)
}

// difference is the first line in which two texts differ, from 1, 0 for none, with what each has there.
func difference(a, b []byte) (line int, inA, inB []byte) {
	as, bs := bytes.Split(a, []byte("\n")), bytes.Split(b, []byte("\n"))
	for i := range max(len(as), len(bs)) {
		inA, inB = nil, nil
		if i < len(as) {
			inA = as[i]
		}
		if i < len(bs) {
			inB = bs[i]
		}
		if !bytes.Equal(inA, inB) {
			return i + 1, inA, inB
		}
	}
	return 0, nil, nil
}
