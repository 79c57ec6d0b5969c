package consensus

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/blobs"
)

// FatalError is why a node cannot go on. The process should end with Code.
type FatalError struct {
	Code int // 1, or 75 if a new start will do
	Err  error
}

func (e *FatalError) Error() string { return e.Err.Error() }

func (e *FatalError) Unwrap() error { return e.Err }

const (
	exitFailed    = 1
	exitTemporary = 75
)

// Fatal gets a [*FatalError] when the node cannot go on: a write failed, or it cannot catch up. Whoever runs the node must
// end the process then.
func (n *Node) Fatal() <-chan error { return n.fatal }

func (n *Node) fail(code int, err error) {
	n.log.Error("cannot go on", "error", err)
	select {
	case n.fatal <- &FatalError{Code: code, Err: fmt.Errorf("coordinator %s: %w", n.cfg.Name, err)}:
	default: // there is one
	}
}

// mostUnapplied is how many committed entries a node that is ready may have yet to apply.
const mostUnapplied = 1000

// Ready says why the node should not be asked; nil if it may be.
func (n *Node) Ready() error {
	leader, _ := n.Leader()
	behind := n.raft.CommitIndex() - min(n.raft.CommitIndex(), n.raft.AppliedIndex())
	missing := len(n.blobs.Missing())
	switch {
	case leader == "":
		return errors.New("no leader is known")
	case behind > mostUnapplied:
		return fmt.Errorf("%d entries behind", behind)
	case n.fsm.replaying():
		return errors.New("the log is still being replayed")
	case missing > 0:
		return fmt.Errorf("%d blobs are still missing", missing)
	case n.disk.full.Load():
		return ErrFull
	}
	return nil
}

// counters are of this process.
type counters struct {
	applies, applyNanos, reigns atomic.Uint64
}

func (c *counters) applied(d time.Duration) {
	c.applies.Add(1)
	c.applyNanos.Add(uint64(d))
}

// Stats are numbers for people and monitoring.
type Stats struct {
	Term, Commit, Applied, Last uint64        // of raft
	Reigns                      uint64        // times that this node has led
	Applies                     uint64        // commands that were committed through it,
	ApplyTime                   time.Duration // and how long that took together
	Installs                    uint64        // snapshots that came from a leader or the disk
	Leads, Full                 bool
	Blobs                       blobs.Stats
}

// Stats returns the present numbers.
func (n *Node) Stats() Stats {
	return Stats{
		Term: n.raft.CurrentTerm(), Commit: n.raft.CommitIndex(), Applied: n.raft.AppliedIndex(), Last: n.raft.LastIndex(),
		Reigns: n.stats.reigns.Load(), Applies: n.stats.applies.Load(), ApplyTime: time.Duration(n.stats.applyNanos.Load()),
		Installs: n.fsm.restored.Load(), Leads: n.Leads(), Full: n.disk.full.Load(), Blobs: n.blobs.Stats(),
	}
}

const diskEvery = 5 * time.Second

type diskState struct{ full atomic.Bool }

// lookAtDisk finds out whether a disk is full: has no room for blobs, without which a leader is none.
func (n *Node) lookAtDisk() error {
	full := false
	for _, dir := range []string{n.cfg.DataDir, n.cfg.BlobDir} {
		is, err := n.cfg.hooks.disk(dir)
		if err != nil {
			return err
		}
		full = full || is
	}
	if n.disk.full.Swap(full) != full {
		n.log.Warn("disk", "full", full)
	}
	return nil
}

// watchDisk keeps a node whose disk is full from leading. It still votes.
func (n *Node) watchDisk() {
	ticker := time.NewTicker(n.pace(diskEvery))
	defer ticker.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-n.blobs.Broken():
			n.fail(exitFailed, n.blobs.Err())
			return
		case <-ticker.C:
		}
		if err := n.lookAtDisk(); err != nil {
			n.log.Warn("disk", "error", err)
			continue
		}
		if n.disk.full.Load() && n.Leads() {
			if err := n.stepDown(n.ctx); err != nil {
				n.log.Warn("the disk of the leader is full, and nobody else can lead", "error", err)
			}
		}
	}
}

// stepDown hands leadership to a voter that answers and has room.
func (n *Node) stepDown(ctx context.Context) error {
	servers, err := n.servers()
	if err != nil {
		return err
	}
	for i, st := range n.statuses(ctx, servers) {
		s := servers[i]
		if st != nil && !st.Full && s.Suffrage == raft.Voter && string(s.ID) != n.cfg.Name {
			return n.await(ctx, n.raft.LeadershipTransferToServer(s.ID, s.Address))
		}
	}
	return errors.New("no other voter with room")
}

const (
	installsEvery = time.Second
	installsTime  = 5 * time.Minute
	mostInstalls  = 3
)

// watchInstalls ends a node that gets one snapshot after the other without ever going on from it, as happens when an entry
// of its log is at odds with the leader's where the snapshot ends. With an empty log it starts anew.
func (n *Node) watchInstalls() {
	guard := installGuard{installs: n.fsm.restored.Load(), added: n.journal.added.Load()}
	ticker := time.NewTicker(installsEvery)
	defer ticker.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-ticker.C:
		}
		if !guard.stuck(time.Now(), n.fsm.restored.Load(), n.journal.added.Load()) {
			continue
		}
		n.startOver(fmt.Errorf("%d snapshots in %v, and not an entry after them", len(guard.times), installsTime))
		return
	}
}

// startOver stops the node and empties its log. What it was told is durable is in its snapshots, and its votes stay.
func (n *Node) startOver(why error) {
	n.quiet()
	err := errors.Join(n.raft.Shutdown().Error(), n.journal.Wipe())
	n.fail(exitTemporary, errors.Join(fmt.Errorf("%w: the log is emptied", why), err))
}

// installGuard counts snapshots without progress.
type installGuard struct {
	installs, added uint64 // when it last looked
	times           []time.Time
}

// stuck says whether there were more snapshots than there should be.
func (g *installGuard) stuck(now time.Time, installs, added uint64) bool {
	if added != g.added {
		g.times = nil
	}
	for range installs - g.installs {
		g.times = append(g.times, now)
	}
	g.installs, g.added = installs, added
	for len(g.times) > 0 && now.Sub(g.times[0]) > installsTime {
		g.times = g.times[1:]
	}
	return len(g.times) > mostInstalls
}
