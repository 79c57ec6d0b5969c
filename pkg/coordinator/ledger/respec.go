package ledger

import (
	"bytes"
	"fmt"
)

// respec is fine with any version and in any phase where everything is as it is asked to be: that is how a repetition looks.
func (c change) respec(cmd ExpRespec) error {
	if c.respecified(cmd) {
		return nil
	}
	if err := c.seen(cmd.Version); err != nil {
		return err
	}
	// Whoever read the experiment while people wanted it to run may be about to drive it as it was.
	if c.Phase != Paused || c.Desired != Pause {
		return fmt.Errorf("%w: experiment %q is %s and is to %s, want it paused", ErrConflict, c.Name, c.Phase, c.Desired)
	}
	if len(c.Holders) > 0 {
		return fmt.Errorf("%w: replicas work on experiment %q", ErrConflict, c.Name)
	}
	if n := len(c.Cuts); n == 0 || c.Cuts[n-1].Step != cmd.Step {
		return fmt.Errorf("%w: cut of step %d, want one of the last cut's", ErrConflict, cmd.Step)
	}
	if broken := cmd.Conservation.broken(); broken != "" {
		return fmt.Errorf("%w: cut of step %d: %s", ErrInconsistent, cmd.Step, broken)
	}
	next := experiment{Experiment: c.Experiment}
	next.Spec, next.Shards, next.Refused = cmd.Spec, cmd.Shards, nil
	next.Cuts = []Cut{{
		Step: cmd.Step, Generation: c.Generation, Manifest: cmd.Manifest, Parts: cmd.Parts, Conservation: cmd.Conservation,
		Index: c.state.index, At: c.at,
	}}
	next.bytes = next.weigh()
	if next.Wanted() < c.Min {
		return fmt.Errorf("%w: %d shards, experiment %q begins with %d replicas", ErrInvalid, cmd.Shards, c.Name, c.Min)
	}
	if err := c.state.fits(c.experiment, c.use(), next.use()); err != nil {
		return err
	}
	c.Spec, c.Shards, c.Cuts, c.Refused, c.bytes = next.Spec, next.Shards, next.Cuts, next.Refused, next.bytes
	c.record("respecified", "rungs: %d, shards: %d, from the cut of step %d", cmd.Conservation.Rungs, cmd.Shards, cmd.Step)
	return nil
}

// respecified says whether the command was applied, and its cut is still the last one.
func (c change) respecified(cmd ExpRespec) bool {
	n := len(c.Cuts)
	if n == 0 || c.Shards != cmd.Shards || !bytes.Equal(c.Spec, cmd.Spec) {
		return false
	}
	last := &c.Cuts[n-1]
	return last.is(CutCommit{Generation: last.Generation, Step: cmd.Step, Manifest: cmd.Manifest, Parts: cmd.Parts, Conservation: cmd.Conservation})
}
