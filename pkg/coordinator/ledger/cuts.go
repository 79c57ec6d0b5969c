package ledger

import (
	"cmp"
	"fmt"
	"slices"
)

// cut is the place of the cut of a step among those of an experiment, and whether there is one.
func (e *Experiment) cut(step uint64) (int, bool) {
	return slices.BinarySearchFunc(e.Cuts, step, func(c Cut, step uint64) int { return cmp.Compare(c.Step, step) })
}

// is says whether the cut is the one that a command committed, or tried to.
func (v *Cut) is(cmd CutCommit) bool {
	return v.Step == cmd.Step && v.Generation == cmd.Generation && v.Manifest == cmd.Manifest &&
		v.Conservation == cmd.Conservation && slices.Equal(v.Parts, cmd.Parts)
}

func (c change) cutCommit(cmd CutCommit) error {
	i, there := c.cut(cmd.Step)
	if there && c.Cuts[i].is(cmd) {
		return nil
	}
	broken := cmd.Conservation.broken()
	if broken != "" && c.Refused != nil && c.Refused.is(cmd) {
		return fmt.Errorf("%w: cut of step %d: %s", ErrInconsistent, cmd.Step, broken)
	}
	if err := c.takes(cmd, there); err != nil {
		return err
	}
	next := Cut{
		Step: cmd.Step, Generation: cmd.Generation, Manifest: cmd.Manifest, Parts: cmd.Parts, Conservation: cmd.Conservation,
		Index: c.state.index, At: c.at,
	}
	if broken != "" {
		err := fmt.Errorf("%w: cut of step %d: %s", ErrInconsistent, cmd.Step, broken)
		if cmd.Replace {
			return err // the cut that was to be replaced is still good
		}
		c.Refused = &next
		c.bytes = c.weigh()
		c.record("refused", "step %d", cmd.Step)
		c.enter(Inconsistent, fmt.Sprintf("cut of step %d: %s", cmd.Step, broken))
		return err
	}
	after := experiment{Experiment: c.Experiment}
	kind := "cut"
	if there {
		kind = "replaced"
		after.Cuts = slices.Clone(c.Cuts)
		after.Cuts[i] = next
	} else {
		after.Cuts = append(slices.Clone(c.Cuts[max(0, len(c.Cuts)-KeptCuts+1):]), next)
	}
	after.Refused = nil // the experiment goes on
	after.bytes = after.weigh()
	if err := c.state.fits(c.experiment, c.use(), after.use()); err != nil {
		return err
	}
	c.Cuts, c.Refused, c.bytes = after.Cuts, after.Refused, after.bytes
	c.record(kind, "step %d", cmd.Step)
	return nil
}

// takes checks whether the experiment can take a cut over now.
func (c change) takes(cmd CutCommit, there bool) error {
	closed := c.Phase == Completed || c.Phase == Cancelled || c.Phase == Failed
	if closed || c.Phase.Final() && !cmd.Replace {
		return fmt.Errorf("%w: experiment %q is %s", ErrConflict, c.Name, c.Phase)
	}
	if cmd.Generation != c.Generation {
		return fmt.Errorf("%w: cut of generation %d, want %d", ErrStale, cmd.Generation, c.Generation)
	}
	if cmd.Replace {
		if len(c.Holders) > 0 {
			return fmt.Errorf("%w: replicas work on experiment %q, want it paused", ErrConflict, c.Name)
		}
		if !there {
			return fmt.Errorf("%w: a cut of step %d to replace", ErrNotFound, cmd.Step)
		}
		return nil
	}
	if len(c.Holders) == 0 {
		return fmt.Errorf("%w: nobody works on experiment %q in generation %d", ErrConflict, c.Name, c.Generation)
	}
	if n := len(c.Cuts); n > 0 && cmd.Step <= c.Cuts[n-1].Step {
		return fmt.Errorf("%w: cut of step %d, want one above %d", ErrConflict, cmd.Step, c.Cuts[n-1].Step)
	}
	return nil
}
