package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/experiment"
	"github.com/kelvin-ebm/kelvin/pkg/internal/atomicfile"
)

// Names of the files in a run's folder, beside those of the packages that write their own.
const (
	experimentFile = "experiment.yaml"
	paramsFile     = "params.safetensors"
	samplesFile    = "samples.npz"
	reportFile     = "report.html"
	evaluationFile = "evaluation.json"
	cutsFolder     = "cuts"
	framesFolder   = "frames"
)

// ErrRunExists and ErrNoRun are returned for a folder that holds a run where none is wanted, and the other way round.
var (
	ErrRunExists = errors.New("holds a run already")
	ErrNoRun     = errors.New("no " + experimentFile + " in it")
)

// keptCuts is the number of cuts that stay on disk: the last, and those before it in case the disk damages it.
const keptCuts = 3

// folder is the folder of one run.
type folder struct {
	dir  string
	made string // the outermost folder that createFolder made on the way; "" where dir was there
}

func (f folder) path(name ...string) string {
	return filepath.Join(append([]string{f.dir}, name...)...)
}

func (f folder) cuts() checkpoint.Store {
	return checkpoint.Store{Dir: f.path(cutsFolder), Keep: keptCuts}
}

// createFolder makes the folder of a new run and proves that it can be written to. A folder that holds anything is
// refused, so that no run is ever overwritten; what was made is removed again when something fails.
func createFolder(dir string) (_ folder, err error) {
	f := folder{dir: dir}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return f, fmt.Errorf("output folder: %w", err)
	case slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == experimentFile }):
		return f, fmt.Errorf("output folder %s: %w, want --resume to go on with it, or another --out", dir, ErrRunExists)
	case isEmpty(filepath.Join(dir, cutsFolder)) && !slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() != cutsFolder && e.Name() != coordinatorFolder }):
		// A run that was killed before its first cut left no more than this.
	case len(entries) > 0:
		return f, fmt.Errorf("output folder %s: not empty, want an empty or a new folder as --out", dir)
	}
	f.made = firstMissing(dir)
	defer func() {
		if err != nil {
			err = errors.Join(err, f.removeUnstarted())
		}
	}()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return f, fmt.Errorf("output folder: %w", err)
	}
	if err := f.cuts().Prepare(); err != nil {
		return f, fmt.Errorf("output folder %s: %w", dir, err)
	}
	return f, nil
}

// removeUnstarted removes what a run left that never came to its first cut.
func (f folder) removeUnstarted() error {
	if f.made != "" {
		if _, err := os.Lstat(f.dir); err == nil { // on a read-only disk even a folder that is not there cannot be removed
			if err := os.RemoveAll(f.dir); err != nil {
				return err
			}
		}
		for dir := filepath.Dir(f.dir); len(dir) >= len(f.made); dir = filepath.Dir(dir) {
			if os.Remove(dir) != nil { // not empty: another run's folder is in it
				break
			}
		}
		return nil
	}
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries { // the folder was empty when the run got it
		errs = append(errs, os.RemoveAll(f.path(e.Name())))
	}
	return errors.Join(errs...)
}

func isEmpty(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && len(entries) == 0
}

// firstMissing is the outermost folder on the way to dir that does not exist; "" where dir does.
func firstMissing(dir string) string {
	missing := ""
	for {
		if _, err := os.Lstat(dir); err == nil {
			return missing
		}
		missing = dir
		parent := filepath.Dir(dir)
		if parent == dir {
			return missing
		}
		dir = parent
	}
}

// writeExperiment writes the resolved experiment, its data path turned to start at the run's folder.
func (f folder) writeExperiment(cfg *experiment.Config) error {
	cfg = cfg.Clone()
	if err := cfg.Rebase(f.dir); err != nil {
		return err
	}
	text, err := experiment.Marshal(cfg)
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(f.path(experimentFile), text, 0o644)
}

// LoadExperiment reads the resolved experiment of a run.
func LoadExperiment(dir string) (*experiment.Config, error) {
	path := folder{dir: dir}.path(experimentFile)
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("run %s: %w, want the folder of a run (--out of `coordinator train`)", dir, ErrNoRun)
	}
	return experiment.Load(path, nil)
}
