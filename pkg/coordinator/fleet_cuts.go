package coordinator

import (
	"fmt"
	"slices"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
)

// Cut implements [engine.Learner].
func (f *Fleet) Cut() (checkpoint.Cut, error) {
	err := f.enduring(func() error {
		if err := f.catchUp(); err != nil {
			return err
		}
		if f.last == nil || f.last.Step != f.at || len(f.marks) > 0 {
			if err := f.takeCut(); err != nil {
				return err
			}
		}
		if err := f.settled(); err != nil {
			return err
		}
		if f.at < f.cfg.Steps && f.crew.lopsided(f.holders) { // somebody joined: from here on he takes his share
			return f.open()
		}
		return nil
	})
	if err != nil {
		return checkpoint.Cut{}, err
	}
	return *f.last, nil
}

// dearCut is the part of an interval that a cut may take from the training before people are told.
const dearCut = 0.01

// beginCut takes a cut, which becomes the last one while the training goes on. An error of that is told by what is done next.
func (f *Fleet) beginCut() error {
	start := f.now()
	if err := f.takeCut(); err != nil {
		return err
	}
	took := f.now().Sub(start)
	if !f.dear && took > time.Duration(dearCut*float64(f.cfg.CutEvery)) {
		f.dear = true
		f.cfg.Notice(fmt.Sprintf("a cut stops the training for %v, more than a hundredth of train.cut_every, %v: a longer one costs less", took.Round(time.Millisecond), f.cfg.CutEvery))
	}
	if !f.crew.lopsided(f.holders) {
		return nil
	}
	if err := f.settled(); err != nil { // somebody wants his share
		return err
	}
	return f.open()
}

// settled waits for a cut that is on its way.
func (f *Fleet) settled() error {
	if f.taken == nil {
		return nil
	}
	if err := f.settles.Wait(); err != nil {
		return err
	}
	f.last, f.taken, f.settles = f.taken, nil, nil
	f.cadence.acknowledge(f.now())
	if f.last.Step == f.at { // nothing was trained since
		f.cadence.restart(f.now())
	}
	return nil
}

// takeCut gathers the cut of all groups, and begins to write it down.
func (f *Fleet) takeCut() error {
	if err := f.settled(); err != nil {
		return err
	}
	marked := func(step int) bool { return step <= f.at }                              // those behind are yet to come again
	if f.last != nil && f.last.Step == f.at && !slices.ContainsFunc(f.marks, marked) { // it would be the same
		return nil
	}
	f.cadence.begin(f.now())
	answers, err := f.all(replica.Command{Op: replica.Cut})
	if err != nil {
		return err
	}
	groups := make([]*checkpoint.Cut, f.cfg.Layout.Groups)
	for _, a := range answers {
		data, err := f.fetch(a.Group)
		if err != nil {
			return err
		}
		if groups[a.Group], err = replica.DecodeCut(data); err != nil {
			return fmt.Errorf("coordinator: %w", err)
		}
	}
	if replica.Rounds(f.cfg.Averaging) && f.outer == nil {
		theta, err := f.askLead(replica.Command{Op: replica.Theta})
		if err != nil {
			return err
		}
		start, err := replica.Numbers[float32](theta)
		if err != nil {
			return fmt.Errorf("coordinator: %w", err)
		}
		if f.outer, err = averaging.NewOuter(f.cfg.Averaging, start); err != nil {
			return err
		}
	}
	var outer *averaging.State
	if f.outer != nil {
		s := f.outer.Snapshot()
		outer = &s
	}
	cut, err := merged(groups, outer)
	if err != nil {
		return err
	}
	f.taken, f.settles, f.marks = &cut, f.book.Commit(f.generation, cut), slices.DeleteFunc(f.marks, marked)
	return nil
}

// secure takes a cut where one is due, and waits for it where another step would be more than a loss may cost.
func (f *Fleet) secure() error {
	if f.taken != nil && f.settles.Done() {
		if err := f.settled(); err != nil {
			return err
		}
	}
	if f.taken == nil && f.cadence.due(f.now()) {
		if err := f.beginCut(); err != nil {
			return err
		}
	}
	for (f.last == nil || f.last.Step < f.at) && f.cadence.room(f.now()) < f.pace {
		if f.taken == nil {
			if err := f.beginCut(); err != nil {
				return err
			}
		}
		if err := f.settled(); err != nil {
			return err
		}
	}
	return nil
}
