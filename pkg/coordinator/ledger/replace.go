package ledger

import (
	"fmt"
	"slices"
)

// cutReplace is fine with any version and in any phase where everything is as it is asked to be: that is how a repetition looks.
func (c change) cutReplace(cmd CutReplace) error {
	if c.replaced(cmd) {
		return nil
	}
	if err := c.seen(cmd.Version); err != nil {
		return err
	}
	stopped := c.Phase == Inconsistent || c.Phase == Degraded
	// Whoever read the experiment while people wanted it to run may be about to drive it.
	if !stopped && (c.Phase != Paused || c.Desired != Pause) {
		return fmt.Errorf("%w: experiment %q is %s and is to %s, want it paused", ErrConflict, c.Name, c.Phase, c.Desired)
	}
	if !stopped && len(c.Holders) > 0 {
		return fmt.Errorf("%w: replicas work on experiment %q", ErrConflict, c.Name)
	}
	next, err := c.backTo(cmd)
	if err != nil {
		return err
	}
	if err := c.state.fits(c.experiment, c.use(), next.use()); err != nil {
		return err
	}
	c.Generation, c.Holders, c.From = c.Generation+1, nil, int64(cmd.Step)
	c.Cuts, c.Refused, c.bytes = next.Cuts, next.Refused, next.bytes
	kind := "restored"
	if len(cmd.Parts) > 0 {
		kind = "replaced"
	}
	c.record(kind, "step %d", cmd.Step)
	return nil
}

// backTo is the experiment with the cut as its last one.
func (c change) backTo(cmd CutReplace) (next experiment, err error) {
	next = experiment{Experiment: c.Experiment}
	i, there := c.cut(cmd.Step)
	switch broken := cmd.Conservation.broken(); {
	case len(cmd.Parts) == 0 && !there:
		return next, fmt.Errorf("%w: a cut of step %d", ErrNotFound, cmd.Step)
	case cmd.Step > c.Steps:
		return next, fmt.Errorf("%w: cut of step %d, experiment %q has %d", ErrInvalid, cmd.Step, c.Name, c.Steps)
	case broken != "":
		return next, fmt.Errorf("%w: cut of step %d: %s", ErrInconsistent, cmd.Step, broken)
	}
	if len(cmd.Parts) == 0 {
		next.Cuts = slices.Clone(c.Cuts[:i+1])
	} else {
		next.Cuts = append(slices.Clone(c.Cuts[max(0, i-KeptCuts+1):i]), Cut{
			Step: cmd.Step, Generation: c.Generation + 1, Manifest: cmd.Manifest, Parts: cmd.Parts, Conservation: cmd.Conservation,
			Index: c.state.index, At: c.at,
		})
		next.Refused = nil // the experiment goes on
	}
	next.bytes = next.weigh()
	return next, nil
}

// replaced says whether the command was applied, its cut is still the last one, and nobody has worked on from there.
func (c change) replaced(cmd CutReplace) bool {
	n := len(c.Cuts)
	if n == 0 || c.From != int64(cmd.Step) || len(c.Holders) > 0 {
		return false
	}
	last := &c.Cuts[n-1]
	if len(cmd.Parts) == 0 {
		return last.Step == cmd.Step
	}
	return last.is(CutCommit{Generation: last.Generation, Step: cmd.Step, Manifest: cmd.Manifest, Parts: cmd.Parts, Conservation: cmd.Conservation})
}
