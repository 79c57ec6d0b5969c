package coordinator

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// brokenError says that a generation has ended, with those who were lost, if any.
type brokenError struct {
	lost []string
	err  error
}

func (e *brokenError) Error() string { return e.err.Error() }

func (e *brokenError) Unwrap() error { return e.err }

// ReplicaError is what a replica says that can train no further, for a reason of the training's own.
type ReplicaError struct{ Replica, Text string }

func (e *ReplicaError) Error() string { return fmt.Sprintf("replica %s: %s", e.Replica, e.Text) }

// enduring does op, and does it again in the next generation as long as it breaks one.
func (f *Fleet) enduring(op func() error) error {
	for {
		err := op()
		if err := f.over(); err != nil {
			return err
		}
		if _, broken := errors.AsType[*brokenError](err); !broken {
			return err
		}
		if err := f.mended(err); err != nil {
			return err
		}
	}
}

// mended opens generations until one stands, if err broke the last; other errors it returns as they are.
func (f *Fleet) mended(err error) error {
	for {
		broken, is := errors.AsType[*brokenError](err)
		if !is {
			return err
		}
		if err := f.mourn(broken); err != nil {
			return err
		}
		err = f.open()
	}
}

// mourn drops who was lost.
func (f *Fleet) mourn(b *brokenError) error {
	if err := f.over(); err != nil {
		return err
	}
	if err := f.settled(); err != nil { // the cut on its way does not need the replicas any more
		return err
	}
	if f.last != nil {
		f.redone += max(0, f.at-f.last.Step)
	}
	for _, id := range b.lost {
		f.crew.drop(id)
	}
	f.lost += len(b.lost)
	if len(b.lost) > 0 {
		f.cfg.Notice(fmt.Sprintf("lost at step %d: replica %s (%v)", f.at, strings.Join(b.lost, ", "), b.err))
		return nil
	}
	if f.idle++; f.idle > mostIdle {
		return fmt.Errorf("coordinator: step %d fails again and again, though all replicas are there: %w", f.at+1, b.err)
	}
	if f.idle > 1 {
		f.crew.breathe() // connections may be on their way to another server
	}
	return nil
}

// open begins a generation with all who live, from the last cut or from the start.
func (f *Fleet) open() error {
	again := f.holders != nil
	ids, err := f.convene()
	if err != nil {
		return err
	}
	holders := f.holders
	if spare := len(ids) - len(holders); spare > 0 && !again {
		f.cfg.Notice(fmt.Sprintf("%d replicas for %d shards: %d stand by", len(ids), len(holders), spare))
	}
	if _, err := f.all(replica.Command{Op: replica.Open, Holders: holders}); err != nil {
		return err
	}
	if f.last == nil {
		f.at = 0
		var theta map[int][]byte
		if f.weight != nil {
			theta = map[int][]byte{0: replica.Bytes(f.weight)}
		}
		return f.tell(replica.Command{Op: replica.Start}, theta)
	}
	cuts := map[int][]byte{}
	for group := range f.cfg.Layout.Groups {
		cut, err := GroupCut(f.last, group)
		if err != nil {
			return err
		}
		if cuts[group], err = replica.EncodeCut(*cut); err != nil {
			return err
		}
	}
	if replica.Rounds(f.cfg.Averaging) {
		if err := f.restoreOuter(); err != nil {
			return err
		}
	}
	f.at = f.last.Step
	if err := f.tell(replica.Command{Op: replica.Restore}, cuts); err != nil {
		return err
	}
	f.cadence.restart(f.now())
	if again {
		f.cfg.Notice(fmt.Sprintf("generation %d goes on from step %d on %d of %d replicas", f.generation, f.at, len(f.crew.enlisted()), len(ids)))
	}
	if slices.Contains(f.marks, f.at) {
		_, err := f.all(replica.Command{Op: replica.Reset})
		return err
	}
	return nil
}

// tell is a command to all that brings something for groups.
func (f *Fleet) tell(cmd replica.Command, brings map[int][]byte) error {
	for group, data := range brings {
		if err := f.crew.give(replica.BulkKey(f.generation, f.seq+1, group), data); err != nil {
			return err
		}
	}
	defer f.crew.release()
	cmd.Bulk = len(brings) > 0
	groups, err := f.all(cmd)
	f.note(groups)
	return err
}

// all sends a command to all members of the generation and returns the answers of the groups' leads, in order. If one fails,
// the others are told to stop waiting for it.
func (f *Fleet) all(cmd replica.Command) ([]replica.GroupAnswer, error) {
	return f.send(cmd, f.crew.enlisted(), func() { f.crew.abort(f.generation) })
}

// send sends a command to some members and calls failed at the first failure.
func (f *Fleet) send(cmd replica.Command, to []string, failed func()) ([]replica.GroupAnswer, error) {
	f.seq++
	cmd.Seq = f.seq
	answers, errs := f.crew.ask(to, f.generation, cmd, failed)
	var groups []replica.GroupAnswer
	for i, a := range answers {
		groups = append(groups, a.Groups...)
		if a.Moved.Kinds != nil {
			f.moved[to[i]] = a.Moved
		}
	}
	slices.SortFunc(groups, func(a, b replica.GroupAnswer) int { return a.Group - b.Group })
	return groups, f.verdict(to, answers, errs)
}

// verdict says what became of a command: a failure of the training itself comes before that of a replica.
func (f *Fleet) verdict(to []string, answers []replica.Answer, errs []error) error {
	var fatal error
	var nonFinite *engine.NonFiniteError
	broken := &brokenError{}
	for i, id := range to {
		failed := answers[i].Failed
		switch {
		case errs[i] != nil:
			broken.lost, broken.err = append(broken.lost, id), errs[i]
		case failed == nil:
		case failed.NonFinite != nil:
			if nonFinite == nil || failed.NonFinite.Step < nonFinite.Step {
				nonFinite = failed.NonFinite
			}
		case failed.Lost != "":
			if broken.err == nil {
				broken.err = errors.New(failed.Text)
			}
			if !slices.Contains(broken.lost, failed.Lost) && !f.crew.reachable(failed.Lost, f.generation) {
				broken.lost = append(broken.lost, failed.Lost)
			}
		case failed.Aborted:
			if broken.err == nil {
				broken.err = errors.New(failed.Text)
			}
		case failed.NoEnergy:
			fatal = engine.ErrNoEnergy
		case fatal == nil:
			fatal = &ReplicaError{id, failed.Text}
		}
	}
	slices.Sort(broken.lost)
	broken.lost = slices.Compact(broken.lost)
	switch {
	case nonFinite != nil:
		return nonFinite
	case fatal != nil:
		return fatal
	case broken.err != nil:
		return broken
	}
	return nil
}

// fetch pulls what the lead of a group gave away with its last answer.
func (f *Fleet) fetch(group int) ([]byte, error) {
	return f.pulled(f.leadOf(group), f.bulkKey(group))
}

func (f *Fleet) pulled(id string, key transport.Key) ([]byte, error) {
	data, err := f.crew.pull(id, key)
	if err != nil {
		return nil, &brokenError{[]string{id}, err}
	}
	return data, nil
}

// askLead is a question to the lead of group 0, which brings x if it is given.
func (f *Fleet) askLead(cmd replica.Command, x ...[]byte) ([]byte, error) {
	if cmd.Bulk {
		if err := f.crew.give(replica.BulkKey(f.generation, f.seq+1, 0), x[0]); err != nil {
			return nil, err
		}
		defer f.crew.release()
	}
	if _, err := f.send(cmd, []string{f.leadOf(0)}, func() {}); err != nil {
		return nil, err
	}
	return f.fetch(0)
}

func (f *Fleet) restoreOuter() error {
	s, err := outerState(f.last)
	if err != nil {
		return err
	}
	if f.outer == nil {
		if f.outer, err = averaging.NewOuter(f.cfg.Averaging, s.Theta); err != nil {
			return err
		}
	}
	return f.outer.Restore(s)
}

// convene places the shards with those who live, and writes it down as a new generation.
func (f *Fleet) convene() (ids []string, err error) {
	from := -1
	if f.last != nil {
		from = f.last.Step
	}
	for {
		ids = f.crew.living()
		if len(ids) == 0 && f.cfg.Waits != nil {
			f.cfg.Waits(true)
			if err := f.crew.gather(1); err != nil {
				return nil, err
			}
			f.cfg.Waits(false)
			continue
		}
		holders := placed(f.cfg.Layout.NumShards(), ids, f.holders)
		if holders == nil {
			where := "the start"
			if f.last != nil {
				where = fmt.Sprintf("the cut of step %d", f.last.Step)
			}
			return nil, fmt.Errorf("coordinator: no replica is left at step %d: want at least one to go on from %s", f.at, where)
		}
		generation, err := f.book.Open(holders, from)
		if gone, ok := errors.AsType[*GoneError](err); ok { // a moment ago they were there
			for _, id := range gone.Replicas {
				f.crew.drop(id)
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		f.generation, f.holders, f.queue = generation, holders, nil
		f.crew.enlist(holders)
		return ids, nil
	}
}
