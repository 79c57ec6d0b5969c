package local

import (
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/experiment"
)

// Led is what a coordinator must know of an experiment to lead its replicas. It needs no device.
type Led struct {
	Config    *experiment.Config
	YAML      []byte // resolved
	Rest      []byte // the same without its ladder: all that [Reladder] leaves as it is
	Layout    engine.Layout
	Averaging averaging.Config
	Steps     int           // in all
	Chains    bool          // the loss keeps some
	Looks     []int         // after every multiple of these steps a record is made, and the statistics of the pairs are reset
	CutEvery  time.Duration // between cuts; 0: at the end alone
}

// mostLed bounds the rows of a data law that whoever checks an experiment draws to do so.
const mostLed = 10_000_000

func many(n *int) bool { return n != nil && *n > mostLed }

// Lead reads an experiment, whose relative paths start at dir on the replicas, and checks it. Files of data are theirs: nobody
// reads one here, so that an experiment with them must say how many steps it wants.
func Lead(yaml []byte, dir string) (*Led, error) {
	cfg, err := experiment.Parse(filepath.Join(dir, experimentFile), yaml, nil)
	if err != nil {
		return nil, err
	}
	steps := cfg.Train.Steps
	switch {
	case cfg.Data.Path != "" && cfg.Train.Epochs > 0:
		return nil, fmt.Errorf("train.epochs: %d of data in a file, which coordinators do not read, want train.steps", cfg.Train.Epochs)
	case cfg.Data.Path != "":
		cfg = cfg.Clone()
		cfg.Complete(0)
	case many(cfg.Data.Samples) || many(cfg.Data.TestSamples):
		return nil, fmt.Errorf("data.samples, data.test_samples: want at most %d where coordinators lead", mostLed)
	default:
		p, err := Build(cfg, nil, nil)
		if err != nil {
			return nil, err
		}
		cfg, steps = p.Config, p.Steps
	}
	l := &Led{Config: cfg, Layout: layoutOf(cfg), Averaging: cfg.Averaging, Steps: steps, Chains: cfg.Loss.Chains(),
		Looks: recordEvery(cfg), CutEvery: cfg.Train.CutInterval()}
	if l.YAML, err = experiment.Marshal(cfg); err != nil {
		return nil, fmt.Errorf("experiment: %w", err)
	}
	if l.Rest, err = withoutLadder(cfg); err != nil {
		return nil, fmt.Errorf("experiment: %w", err)
	}
	return l, nil
}

// Records says whether the step is one that a record is made of.
func (l *Led) Records(step int) bool { return records(l.Looks, step, l.Steps) }

// recordEvery are the intervals of the steps that records are made of. The numbers of a run hang on them, by the statistics that
// the ladder adapts to: whoever leads a training keeps to the same.
func recordEvery(cfg *experiment.Config) []int { return []int{cfg.Train.LogEvery, cfg.Evaluate.Every} }

// records says whether a step is at one of the intervals, or the last.
func records(every []int, step, last int) bool {
	return step == last || slices.ContainsFunc(every, func(n int) bool { return n > 0 && step%n == 0 })
}
