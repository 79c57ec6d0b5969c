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
	Layout    engine.Layout
	Averaging averaging.Config
	Steps     int           // in all
	Chains    bool          // the loss keeps some
	Looks     []int         // after every multiple of these steps a record is made, and the statistics of the pairs are reset
	CutEvery  time.Duration // between cuts; 0: at the end alone
}

// Lead reads an experiment, whose relative paths start at dir, and checks all of it, its data too.
func Lead(yaml []byte, dir string) (*Led, error) {
	cfg, err := experiment.Parse(filepath.Join(dir, experimentFile), yaml, nil)
	if err != nil {
		return nil, err
	}
	p, err := Build(cfg, nil, nil)
	if err != nil {
		return nil, err
	}
	l := &Led{Config: p.Config, Layout: p.layout(), Averaging: p.Config.Averaging, Steps: p.Steps, Chains: p.Config.Loss.Chains(),
		Looks: []int{p.Config.Train.LogEvery, p.Config.Evaluate.Every}, CutEvery: p.Config.Train.CutInterval()}
	if l.YAML, err = experiment.Marshal(p.Config); err != nil {
		return nil, fmt.Errorf("experiment: %w", err)
	}
	return l, nil
}

// Records says whether the step is one that a record is made of. In [Train] they are the same: the numbers of a run hang on
// them, by the statistics that the ladder adapts to.
func (l *Led) Records(step int) bool {
	return step == l.Steps || slices.ContainsFunc(l.Looks, func(every int) bool { return every > 0 && step%every == 0 })
}
