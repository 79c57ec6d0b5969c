package engine

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
)

// dataMeta is what a cut holds beside arrays.
type dataMeta struct {
	Seed  uint64 `json:"seed"`
	Step  int    `json:"step"`
	Batch int    `json:"batch"`
	Dim   int    `json:"dim"`
}

func (t *DataTrainer) meta() dataMeta {
	return dataMeta{Seed: t.cfg.Seed, Step: t.step, Batch: t.cfg.Batch, Dim: t.cfg.Network.Dim()}
}

// Cut takes a consistent snapshot of the training: parameters, optimizer and step.
func (t *DataTrainer) Cut() (checkpoint.Cut, error) {
	switch {
	case t.theta == nil:
		return checkpoint.Cut{}, ErrNotStarted
	case !t.Lead():
		return checkpoint.Cut{}, ErrNotLead
	}
	st, err := t.state()
	if err != nil {
		return checkpoint.Cut{}, err
	}
	if i := slices.IndexFunc(st.Theta, notFinite); i >= 0 {
		return checkpoint.Cut{}, &NonFiniteError{t.step, fmt.Sprintf("parameter (number %d)", i), float64(st.Theta[i])}
	}
	files := map[string][]checkpoint.Tensor{"params": named(t.cfg.Network, st.Theta)}
	if st.EMA != nil {
		files["ema"] = named(t.cfg.Network, st.EMA)
	}
	for i, m := range st.Moments {
		files["optimizer"] = append(files["optimizer"], vector(fmt.Sprintf("moment%d", i+1), m))
	}
	raw, err := json.Marshal(t.meta())
	if err != nil {
		return checkpoint.Cut{}, err
	}
	return checkpoint.Cut{Step: t.step, Files: files, Meta: raw}, nil
}

// Restore puts the trainer where the cut was taken.
func (t *DataTrainer) Restore(cut *checkpoint.Cut) error {
	fail := func(err error) error { return fmt.Errorf("engine: restore the cut of step %d: %w", cut.Step, err) }
	var got dataMeta
	if err := json.Unmarshal(cut.Meta, &got); err != nil {
		return fail(err)
	}
	want := t.meta()
	if want.Step = got.Step; got != want {
		return fail(fmt.Errorf("seed %d, batch %d, dimension %d, the experiment has %d, %d, %d", got.Seed, got.Batch, got.Dim, want.Seed, want.Batch, want.Dim))
	}
	st := State{}
	var err error
	if st.Theta, err = flat(t.cfg.Network, cut.Files["params"]); err != nil {
		return fail(err)
	}
	if t.cfg.Optimizer.EMA > 0 {
		if st.EMA, err = flat(t.cfg.Network, cut.Files["ema"]); err != nil {
			return fail(err)
		}
	}
	for i := range t.cfg.Optimizer.moments() {
		m, err := checkpoint.Values[float32](cut.Files["optimizer"], fmt.Sprintf("moment%d", i+1), -1)
		if err != nil {
			return fail(err)
		}
		st.Moments = append(st.Moments, m)
	}
	if err := t.load(st); err != nil {
		return fail(err)
	}
	t.step = got.Step
	return nil
}

// Theta copies the parameters to the host, those averaged over the steps where the optimizer keeps them.
func (t *DataTrainer) Theta() ([]float32, error) {
	switch {
	case t.theta == nil:
		return nil, ErrNotStarted
	case !t.Lead():
		return nil, ErrNotLead
	}
	return t.evaluated()
}

// Params are the parameters of Theta by name.
func (t *DataTrainer) Params() ([]checkpoint.Tensor, error) {
	theta, err := t.Theta()
	if err != nil {
		return nil, err
	}
	return named(t.cfg.Network, theta), nil
}
