package local

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/internal/atomicfile"
	"github.com/kelvin-ebm/kelvin/pkg/runlog"
)

// CheckCut verifies the conservation laws on all groups of a cut and sums up what is conserved; zero for a training without
// chains.
func CheckCut(cut *checkpoint.Cut) (ledger.Conservation, error) {
	if _, err := CutBooks(cut); err != nil && !errors.Is(err, engine.ErrNoChains) {
		return ledger.Conservation{}, err
	}
	return coordinator.Census(cut)
}

// CutBooks are the books of every group. The error is [engine.ErrNoChains] for a training that keeps none from step to step.
func CutBooks(cut *checkpoint.Cut) ([]*engine.Books, error) {
	var out []*engine.Books
	for g := range coordinator.NumGroups(cut) {
		group, err := coordinator.GroupCut(cut, g)
		if err != nil {
			return nil, err
		}
		books, err := engine.ReadBooks(group)
		if err != nil {
			return nil, err
		}
		out = append(out, books)
	}
	return out, nil
}

// ReplaceCut puts a cut into the folder of a run, in place of the one of its step and of all later ones, so that training
// goes on from it. run.json and the parameters follow; figures and samples stay as they are until the training ends again.
// Where it fails the cuts are as they were; a crash leaves the run with the cut, or with older ones.
func ReplaceCut(dir string, cut *checkpoint.Cut) error {
	cfg, err := LoadExperiment(dir)
	if err != nil {
		return err
	}
	info, err := runlog.ReadRunInfo(dir)
	if err != nil {
		return err
	}
	f := folder{dir: dir}
	digest, err := f.replace(cut)
	if err != nil {
		return fmt.Errorf("replace cut: %w", err)
	}
	saved := *cut
	saved.Digest = digest
	if cut.Step < info.StepsWanted {
		info.Finished = time.Time{}
	}
	return f.settle(cfg.Model.Kind, &saved, info)
}

// replace writes the cut in full beside the others before it moves those out of sight whose place it takes.
func (f folder) replace(cut *checkpoint.Cut) (digest string, err error) {
	steps, err := f.cuts().Steps()
	if err != nil {
		return "", err
	}
	aside := checkpoint.Store{Dir: f.path(atomicfile.TempPrefix + "cut")}
	if err := os.RemoveAll(aside.Dir); err != nil { // of a crash
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(aside.Dir)) }()
	if digest, err = aside.Save(*cut); err != nil {
		return "", err
	}
	// The ledger knows other cuts: the next training begins it anew with what is here.
	if err := consensus.Discard(f.path(coordinatorFolder)); err != nil {
		return "", err
	}
	gone := func(step int) string { return filepath.Join(aside.Dir, fmt.Sprintf("old-%08d", step)) }
	var moved []int
	defer func() {
		if err != nil {
			for _, step := range moved {
				err = errors.Join(err, os.Rename(gone(step), f.cutPath(step)))
			}
		}
	}()
	for _, step := range slices.Backward(steps) { // what is left is a shorter run at any time
		if step < cut.Step {
			break
		}
		if err := os.Rename(f.cutPath(step), gone(step)); err != nil {
			return "", err
		}
		moved = append(moved, step)
	}
	if err := os.Rename(filepath.Join(aside.Dir, filepath.Base(f.cutPath(cut.Step))), f.cutPath(cut.Step)); err != nil {
		return "", err
	}
	moved = nil
	return digest, atomicfile.SyncDir(f.path(cutsFolder))
}

func (f folder) cutPath(step int) string { return f.path(cutsFolder, fmt.Sprintf("%08d", step)) }

// SameTraining says why a cut cannot be gone on from by the training that another one is of: its seed, and the names, types
// and shapes of its arrays have to be the same. Nil where they are.
func SameTraining(cut, other *checkpoint.Cut) error {
	if a, b := coordinator.NumGroups(cut), coordinator.NumGroups(other); a != b {
		return fmt.Errorf("it has %d groups, want %d", a, b)
	}
	for g := range coordinator.NumGroups(cut) {
		a, err := coordinator.GroupCut(cut, g)
		if err != nil {
			return err
		}
		b, err := coordinator.GroupCut(other, g)
		if err != nil {
			return err
		}
		if err := sameGroup(a, b); err != nil {
			return err
		}
	}
	return nil
}

func sameGroup(a, b *checkpoint.Cut) error {
	var seeds [2]struct{ Seed uint64 }
	for i, meta := range [][]byte{a.Meta, b.Meta} {
		if err := json.Unmarshal(meta, &seeds[i]); err != nil {
			return err
		}
	}
	if seeds[0] != seeds[1] {
		return fmt.Errorf("it is of seed %d, want %d", seeds[0].Seed, seeds[1].Seed)
	}
	for _, file := range []string{"params", "ema", "optimizer", "chains"} {
		shapes := func(cut *checkpoint.Cut) map[string]string {
			out := map[string]string{}
			for _, t := range cut.Files[file] {
				if t.Name != "energies" { // may be left out
					out[t.Name] = fmt.Sprint(t.DType(), t.Shape)
				}
			}
			return out
		}
		got, want := shapes(a), shapes(b)
		for _, name := range slices.Sorted(maps.Keys(want)) {
			if got[name] != want[name] {
				return fmt.Errorf("%s: %q is %s, want %s", file, name, cmp.Or(got[name], "missing"), want[name])
			}
			delete(got, name)
		}
		for name := range got {
			return fmt.Errorf("%s: %q: the training has none", file, name)
		}
	}
	return nil
}
