package ledger

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"
)

func (s *State) create(id ID, at time.Time, c ExpCreate) (uint64, error) {
	if e := s.byID[id]; e != nil {
		if !e.same(c) {
			return 0, fmt.Errorf("%w: experiment %s, as %q", ErrExists, id, e.Name)
		}
		return e.Version, nil
	}
	if slices.Contains(s.deleted, id) {
		return 0, fmt.Errorf("%w: experiment %s, and was deleted", ErrExists, id)
	}
	if e := s.byName[c.Name]; e != nil {
		return 0, fmt.Errorf("%w: experiment %q, as %s", ErrExists, c.Name, e.ID)
	}
	e := &experiment{Experiment: Experiment{ID: id, ExpCreate: c, Created: at, Desired: Run, Phase: Queued, From: Start}}
	if err := s.fits(e, use{}, e.use()); err != nil {
		return 0, err
	}
	s.add(e)
	change{e, s, at}.record("created", "steps: %d, shards: %d", c.Steps, c.Shards)
	return e.Version, nil
}

func (s *State) add(e *experiment) {
	s.experiments = append(s.experiments, e)
	s.byID[e.ID], s.byName[e.Name] = e, e
}

// same says whether c is what the experiment was created by. What ExpSet changes does not count.
func (e *experiment) same(c ExpCreate) bool {
	return c.Name == e.Name && c.Owner == e.Owner && c.Dir == e.Dir && c.Steps == e.Steps && c.Shards == e.Shards &&
		c.Min == e.Min && c.CutEvery == e.CutEvery && bytes.Equal(c.Spec, e.Spec)
}

func (s *State) delete(id ID, c ExpDelete) error {
	e := s.byID[id]
	if e == nil {
		if slices.Contains(s.deleted, id) {
			return nil
		}
		return fmt.Errorf("%w: experiment %s", ErrNotFound, id)
	}
	if err := e.seen(c.Version); err != nil {
		return err
	}
	if !e.Phase.Final() {
		return fmt.Errorf("%w: experiment %q is %s, want it cancelled first", ErrConflict, e.Name, e.Phase)
	}
	s.experiments = slices.DeleteFunc(s.experiments, func(other *experiment) bool { return other == e })
	delete(s.byID, id)
	delete(s.byName, e.Name)
	if len(s.deleted) == keptDeleted {
		s.deleted = slices.Delete(s.deleted, 0, 1)
	}
	s.deleted = append(s.deleted, id)
	return nil
}

// seen checks the version that somebody saw, 0 for any.
func (e *experiment) seen(version uint64) error {
	if version != 0 && version != e.Version {
		return fmt.Errorf("%w: experiment %q is at version %d, not %d any more", ErrConflict, e.Name, e.Version, version)
	}
	return nil
}

// set is fine with any version where everything is as it is asked to be: that is how a repetition looks.
func (c change) set(cmd ExpSet) error {
	var news []string
	next := experiment{Experiment: c.Experiment, bytes: c.bytes}
	if cmd.Want != nil && *cmd.Want != c.Want {
		next.Want = *cmd.Want
		news = append(news, fmt.Sprintf("want: %d", next.Wanted()))
	}
	if cmd.Priority != nil && *cmd.Priority != c.Priority {
		next.Priority = *cmd.Priority
		news = append(news, fmt.Sprintf("priority: %d", next.Priority))
	}
	again := cmd.Desired == Run && (c.Phase == Degraded || c.Phase == Inconsistent)
	if cmd.Desired != 0 && cmd.Desired != c.Desired || again {
		next.Desired = cmd.Desired
		news = append(news, "desired: "+cmd.Desired.String())
	}
	if again {
		next.Phase, next.Message = Queued, ""
	}
	if news == nil {
		return nil
	}
	if err := c.seen(cmd.Version); err != nil {
		return err
	}
	if c.Phase.Final() && !again {
		return fmt.Errorf("%w: experiment %q is %s", ErrConflict, c.Name, c.Phase)
	}
	if c.Desired == Cancel && next.Desired != Cancel && !again {
		return fmt.Errorf("%w: experiment %q is being cancelled", ErrConflict, c.Name)
	}
	if next.Wanted() < c.Min {
		return fmt.Errorf("%w: %d replicas, experiment %q begins with %d", ErrInvalid, next.Wanted(), c.Name, c.Min)
	}
	if err := c.state.fits(c.experiment, c.use(), next.use()); err != nil {
		return err
	}
	c.Want, c.Priority, c.Desired, c.Phase, c.Message = next.Want, next.Priority, next.Desired, next.Phase, next.Message
	c.record("set", "%s", strings.Join(news, ", "))
	return nil
}

// phase follows mayBecome. The same phase with another message changes the message, until it is final.
func (c change) phase(cmd ExpPhase) error {
	if cmd.Phase == c.Phase && cmd.Message == c.Message {
		return nil
	}
	if cmd.Phase == c.Phase && c.Phase.Final() || cmd.Phase != c.Phase && !c.Phase.mayBecome(cmd.Phase) {
		return fmt.Errorf("%w: experiment %q is %s, which is not followed by %s", ErrConflict, c.Name, c.Phase, cmd.Phase)
	}
	c.enter(cmd.Phase, cmd.Message)
	return nil
}

func (c change) enter(p Phase, message string) {
	c.Phase, c.Message = p, message
	if message != "" {
		message = ": " + message
	}
	c.record("phase", "%s%s", p, message)
}

// mayBecome says whether ExpPhase may make another phase of it, as in the table of [Phase].
func (p Phase) mayBecome(next Phase) bool {
	if p.Final() || p == next {
		return false
	}
	switch next {
	case Completed:
		return p == Waiting || p == Running // the leader may change behind the last cut
	case Inconsistent:
		return p == Running
	}
	return true
}
