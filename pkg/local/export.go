package local

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator"
	"github.com/kelvin-ebm/kelvin/pkg/experiment"
	"github.com/kelvin-ebm/kelvin/pkg/internal/atomicfile"
	"github.com/kelvin-ebm/kelvin/pkg/runlog"
)

// Export is what a coordinator has of an experiment, from which Write makes the folder of a run.
type Export struct {
	Experiment []byte         // resolved, YAML
	Dir        string         // where its relative paths start; "" is the working directory
	Info       runlog.RunInfo // Steps, Digest and Seed are written in
	// Cut puts one cut into the store.
	Cut func(checkpoint.Store) error
	// Metrics writes the lines of metrics.jsonl; nil for none.
	Metrics func(io.Writer) error
}

// Write makes the folder dir, which must be new or empty, in the form that training leaves: other commands read it, and
// training goes on from its cut. Nothing is left behind where it fails.
func (e Export) Write(dir string) (err error) {
	cfg, err := experiment.Parse(filepath.Join(e.Dir, experimentFile), e.Experiment, nil)
	if err != nil {
		return err
	}
	f, err := createFolder(dir)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.removeUnstarted())
		}
	}()
	if err := e.Cut(f.cuts()); err != nil {
		return err
	}
	cut, err := f.cuts().Latest()
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	if err := atomicfile.Write(f.path(runlog.MetricsFile), 0o644, func(w io.Writer) error {
		if e.Metrics == nil {
			return nil
		}
		return e.Metrics(w)
	}); err != nil {
		return err
	}
	e.Info.Name, e.Info.Seed = cfg.Name, cfg.Seed
	if err := f.settle(cfg.Model.Kind, cut, e.Info); err != nil {
		return err
	}
	return f.writeExperiment(cfg) // last: a folder with it holds a run
}

// settle writes what stands beside a run's last cut: its parameters and run.json.
func (f folder) settle(model string, cut *checkpoint.Cut, info runlog.RunInfo) error {
	params, err := CutParams(cut)
	if err != nil {
		return err
	}
	if err := WriteParams(f.path(paramsFile), params, model); err != nil {
		return err
	}
	info.Steps, info.Digest = cut.Step, cut.Digest
	return runlog.WriteRunInfo(f.dir, info)
}

// CutParams are the parameters of the model in a cut, those of the first group where there are several, averaged over the
// steps where the optimizer keeps such ones.
func CutParams(cut *checkpoint.Cut) ([]checkpoint.Tensor, error) {
	group, err := coordinator.GroupCut(cut, 0)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"ema", "params"} {
		if tensors := group.Files[name]; len(tensors) > 0 {
			return tensors, nil
		}
	}
	return nil, fmt.Errorf("cut of step %d: no parameters in it", cut.Step)
}

// WriteParams writes parameters of a model, named as in the model section, as safetensors.
func WriteParams(path string, params []checkpoint.Tensor, model string) error {
	return checkpoint.WriteSafetensors(path, params, map[string]string{"format": "kelvin", "model": model})
}

// RunCuts is the store of a run's cuts. The error is [ErrNoRun] for a folder without a run.
func RunCuts(dir string) (checkpoint.Store, error) {
	if _, err := os.Stat(folder{dir: dir}.path(experimentFile)); err != nil {
		return checkpoint.Store{}, fmt.Errorf("run %s: %w, want the folder of a run (--out of `coordinator train`)", dir, ErrNoRun)
	}
	return folder{dir: dir}.cuts(), nil
}

// WriteSecret writes what fill writes to a file that only its owner can read, whole or not at all.
func WriteSecret(path string, fill func(io.Writer) error) error {
	return atomicfile.Write(path, 0o600, fill)
}
