package ledger

import (
	"fmt"
	"slices"
	"strings"
)

// lease is the place of a replica's lease among those of an experiment, which are by name, and whether there is one.
func (e *Experiment) lease(replica string) (int, bool) {
	return slices.BinarySearchFunc(e.Replicas, replica, func(r Replica, name string) int { return strings.Compare(r.Name, name) })
}

func (c change) register(cmd Register) (token uint64, err error) {
	i, there := c.lease(cmd.Replica)
	next := Replica{Name: cmd.Replica, Token: c.state.index, Incarnation: cmd.Incarnation, Device: cmd.Device, Platform: cmd.Platform, Since: c.at}
	switch {
	case !there:
		c.Replicas = slices.Insert(c.Replicas, i, next)
		c.record("registered", "replica %s, lease %d", next.Name, next.Token)
	case c.Replicas[i].Incarnation == cmd.Incarnation:
	case cmd.Takeover:
		old := c.Replicas[i].Token
		c.Replicas[i] = next
		c.record("registered", "replica %s, lease %d, in place of lease %d", next.Name, next.Token, old)
	default:
		return 0, fmt.Errorf("%w: another process of replica %s has lease %d", ErrConflict, cmd.Replica, c.Replicas[i].Token)
	}
	return c.Replicas[i].Token, nil
}

func (c change) leaseEnd(cmd LeaseEnd) error {
	i, there := c.lease(cmd.Replica)
	if !there || c.Replicas[i].Token != cmd.Token {
		return nil
	}
	c.Replicas = slices.Delete(c.Replicas, i, i+1)
	kind := "left"
	if cmd.Lost {
		kind = "lost"
	}
	c.record(kind, "replica %s, lease %d", cmd.Replica, cmd.Token)
	return nil
}

func (c change) generationOpen(cmd GenerationOpen) error {
	if cmd.Number == c.Generation && cmd.From == c.From && slices.Equal(cmd.Holders, c.Holders) {
		return nil
	}
	if cmd.Number != c.Generation+1 {
		return fmt.Errorf("%w: generation %d, want %d", ErrStale, cmd.Number, c.Generation+1)
	}
	distinct, err := c.holders(cmd.Holders)
	if err != nil {
		return err
	}
	kept, err := c.upTo(cmd.From)
	if err != nil {
		return err
	}
	c.Generation, c.Holders, c.From = cmd.Number, cmd.Holders, cmd.From
	c.Cuts = slices.Delete(c.Cuts, kept, len(c.Cuts))
	c.bytes = c.weigh()
	from := "the start"
	if c.From != Start {
		from = fmt.Sprintf("step %d", c.From)
	}
	c.record("generation", "%d from %s, replicas at work: %d", c.Generation, from, distinct)
	return nil
}

// Overtake makes the generations of every experiment go on behind a number, if they are not behind it yet. A state that was put
// back in the place of a later one has to: who lived through the later one refuses the generations that it knows.
func (s *State) Overtake(generation uint64) {
	for _, e := range s.experiments {
		e.Generation = max(e.Generation, generation)
	}
}

// holders checks those of a new generation and counts the replicas.
func (c change) holders(holders []string) (distinct int, err error) {
	if len(holders) == 0 {
		return 0, nil
	}
	if c.Phase.Final() {
		return 0, fmt.Errorf("%w: experiment %q is %s, want a generation without holders", ErrConflict, c.Name, c.Phase)
	}
	if len(holders) != int(c.Shards) {
		return 0, fmt.Errorf("%w: %d holders, experiment %q has %d shards", ErrInvalid, len(holders), c.Name, c.Shards)
	}
	replicas := map[string]bool{}
	for _, replica := range holders {
		if _, there := c.lease(replica); !there {
			return 0, fmt.Errorf("%w: a lease of replica %s", ErrNotFound, replica)
		}
		replicas[replica] = true
	}
	return len(replicas), nil
}

// upTo is the number of cuts that are left of a generation that starts from a step.
func (c change) upTo(from int64) (int, error) {
	if from == Start {
		if len(c.Cuts) > 0 {
			return 0, fmt.Errorf("%w: start from the very beginning, experiment %q has a cut of step %d", ErrConflict, c.Name, c.Cuts[len(c.Cuts)-1].Step)
		}
		return 0, nil
	}
	i, there := c.cut(uint64(from))
	if !there {
		return 0, fmt.Errorf("%w: a cut of step %d", ErrNotFound, from)
	}
	return i + 1, nil
}
