package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// link fills in what follows from the experiments of a state that was read.
func (s *State) link() error {
	for _, e := range s.experiments {
		if s.byID[e.ID] != nil || s.byName[e.Name] != nil {
			return fmt.Errorf("experiment %q or its ID %s is there twice", e.Name, e.ID)
		}
		s.byID[e.ID], s.byName[e.Name] = e, e
		e.bytes = e.weigh()
	}
	return nil
}

// check says what in the state no entries can have led to, beyond what each field for itself can be.
func (s *State) check() error {
	for _, n := range s.Nodes() {
		if n.Feature < s.feature {
			return fmt.Errorf("coordinator %s supports feature level %d, want at least %d", n.Name, n.Feature, s.feature)
		}
	}
	secrets := map[Digest]string{}
	for _, t := range s.Tokens() {
		if other, twice := secrets[t.Hash]; twice {
			return fmt.Errorf("tokens %s and %s have the same secret", other, t.Name)
		}
		secrets[t.Hash] = t.Name
	}
	for _, q := range s.Quotas() {
		if q == (Quota{Owner: q.Owner}) {
			return fmt.Errorf("quota of owner %q limits nothing", q.Owner)
		}
	}
	gone := map[ID]bool{}
	for _, id := range s.deleted {
		if id == (ID{}) || gone[id] || s.byID[id] != nil {
			return fmt.Errorf("experiment %s is deleted, and there or deleted twice", id)
		}
		gone[id] = true
	}
	for _, e := range s.experiments {
		if err := e.check(s.index); err != nil {
			return fmt.Errorf("experiment %q: %w", e.Name, err)
		}
	}
	return nil
}

func (e *Experiment) check(index uint64) error {
	switch {
	case e.ID == ID{}:
		return errors.New("no ID")
	case e.Version == 0 || e.Version > index:
		return fmt.Errorf("version %d, want 1 to %d", e.Version, index)
	case len(e.Events) == 0 || e.Events[len(e.Events)-1].Index != e.Version:
		return fmt.Errorf("the last event is not of version %d", e.Version)
	case !slices.IsSortedFunc(e.Events, func(a, b Event) int { return cmp.Compare(a.Index, b.Index) }):
		return errors.New("events are not in order")
	case len(e.Holders) > 0 && len(e.Holders) != int(e.Shards):
		return fmt.Errorf("%d holders of %d shards", len(e.Holders), e.Shards)
	case e.Generation == 0 && (len(e.Holders) > 0 || len(e.Cuts) > 0 || e.Refused != nil || e.From != Start):
		return errors.New("holders or cuts before the first generation")
	}
	for i, r := range e.Replicas {
		if i > 0 && e.Replicas[i-1].Name >= r.Name {
			return fmt.Errorf("replica %s behind %s", r.Name, e.Replicas[i-1].Name)
		}
		if r.Token == 0 || r.Token > e.Version {
			return fmt.Errorf("lease %d of replica %s, want 1 to %d", r.Token, r.Name, e.Version)
		}
	}
	for i := range e.Cuts {
		c := &e.Cuts[i]
		if i > 0 && e.Cuts[i-1].Step >= c.Step {
			return fmt.Errorf("cut of step %d behind that of step %d", c.Step, e.Cuts[i-1].Step)
		}
		if broken := c.Conservation.broken(); broken != "" {
			return fmt.Errorf("cut of step %d: %s", c.Step, broken)
		}
		if err := e.dates(c); err != nil {
			return err
		}
	}
	if c := e.Refused; c != nil {
		if c.Conservation.broken() == "" {
			return fmt.Errorf("cut of step %d was refused, and nothing is wrong with it", c.Step)
		}
		return e.dates(c)
	}
	return nil
}

// dates checks when a cut was made.
func (e *Experiment) dates(c *Cut) error {
	if c.Generation == 0 || c.Generation > e.Generation || c.Index == 0 || c.Index > e.Version {
		return fmt.Errorf("cut of step %d: generation %d at index %d, want at most %d and %d", c.Step, c.Generation, c.Index, e.Generation, e.Version)
	}
	return nil
}
