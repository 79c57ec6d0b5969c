package consensus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// Errors of a node.
var (
	// ErrUncertain says that a command may or may not come to be committed. All of the ledger's can be applied again.
	ErrUncertain = errors.New("uncertain whether it was committed")
	// ErrLeadershipLost is an ErrUncertain whose reason is that this node leads no more.
	ErrLeadershipLost = fmt.Errorf("leadership lost: %w", ErrUncertain)
	// ErrNotLeader is what a [NotLeaderError] unwraps to: nothing was changed.
	ErrNotLeader = errors.New("not the leader")
	// ErrTransfer says that leadership is being handed over: nothing was changed, and the same node may be asked again.
	ErrTransfer = errors.New("leadership is being handed over")
	// ErrCorrupt says that something on the disk is not what was written. The message names the file.
	ErrCorrupt = errors.New("damaged")
	// ErrFull says that a disk is too full to take in more.
	ErrFull = errors.New("disk full")
)

// NotLeaderError says who leads, as far as the node knows. It is an ErrNotLeader.
type NotLeaderError struct {
	Leader string // "" if there is none
	Peer   string // its peer port
}

func (e *NotLeaderError) Error() string {
	if e.Leader == "" {
		return ErrNotLeader.Error() + ", and there is none at the moment"
	}
	return fmt.Sprintf("%v: that is %s (%s)", ErrNotLeader, e.Leader, e.Peer)
}

func (e *NotLeaderError) Unwrap() error { return ErrNotLeader }

func (n *Node) notLeader() error {
	name, peer := n.Leader()
	return &NotLeaderError{Leader: name, Peer: peer}
}

// maxPlain bounds, in bytes, the entries whose size is up to people. Those that name the blobs of a large cut, or who holds
// each of many shards, may be larger.
const maxPlain = 64 << 10

// plain says whether a command has that bound.
func plain(command ledger.Command) bool {
	_, holders := command.(ledger.GenerationOpen)
	return !holders && len(ledger.Names(command)) == 0
}

// Apply commits a command about an experiment, or about the cluster if exp is zero, and returns what it came to once it is
// applied here. The error says whether there is an outcome: a [*NotLeaderError], [ErrTransfer] or, for a command that not all
// coordinators know yet, ErrUnsupported of the ledger if nothing was changed, [ErrUncertain] if that is open; Outcome.Err is the
// ledger's own answer.
func (n *Node) Apply(ctx context.Context, exp ledger.ID, command ledger.Command) (ledger.Outcome, error) {
	fail := func(err error) (ledger.Outcome, error) {
		return ledger.Outcome{}, fmt.Errorf("apply %T: %w", command, err)
	}
	data, err := ledger.Encode(ledger.Entry{Exp: exp, At: time.Now(), Command: command})
	if err != nil {
		return fail(err)
	}
	if plain(command) && len(data) > maxPlain {
		return fail(fmt.Errorf("%w: %d bytes, want at most %d", ledger.ErrInvalid, len(data), maxPlain))
	}
	var level uint32
	n.fsm.view(func(s *ledger.State) { level = s.Feature() })
	if need := ledger.Level(command); need > level {
		return fail(fmt.Errorf("%w: it needs feature level %d, and not all coordinators have more than %d: upgrade them", ledger.ErrUnsupported, need, level))
	}
	if err := ctx.Err(); err != nil {
		return fail(context.Cause(ctx))
	}
	var wait time.Duration // to be taken in by raft; 0: for ever
	if deadline, ok := ctx.Deadline(); ok {
		wait = max(time.Until(deadline), time.Nanosecond)
	}
	begin := time.Now()
	future := n.raft.Apply(data, wait)
	if err := n.await(ctx, future); err != nil {
		return fail(err)
	}
	n.stats.applied(time.Since(begin))
	return future.Response().(ledger.Outcome), nil
}

// await waits for what raft makes of a request.
func (n *Node) await(ctx context.Context, future raft.Future) error {
	n.mu.Lock()
	if n.ctx.Err() != nil {
		n.mu.Unlock()
		return fmt.Errorf("%w: %w", ErrUncertain, ErrClosed)
	}
	n.waiting.Add(1) // raft must answer before it is stopped: afterwards it does not always
	n.mu.Unlock()
	done := make(chan error, 1)
	go func() {
		defer n.waiting.Done()
		done <- future.Error()
	}()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUncertain, context.Cause(ctx))
	}
	return n.meaning(err)
}

// meaning is what an error of raft says to callers.
func (n *Node) meaning(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader):
		return n.notLeader()
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return ErrTransfer
	case errors.Is(err, raft.ErrEnqueueTimeout): // nothing was done
		return context.DeadlineExceeded
	case errors.Is(err, raft.ErrLeadershipLost):
		return ErrLeadershipLost
	}
	return fmt.Errorf("%w: %w", ErrUncertain, err)
}

// Consistency is what a read is worth.
type Consistency int

// The values of Consistency.
const (
	// Stale reads what this node has, which may be behind.
	Stale Consistency = iota
	// Leader reads on the leader without asking the others: nobody else has led since, if clocks run equally fast.
	Leader
	// Linearizable reads on the leader after a quorum confirmed it: all that was acknowledged before is in it.
	Linearizable
)

// View runs read on the state, which must not be kept or changed; nothing is applied meanwhile. It returns the index of the last entry in it and how long
// ago, at the least, the leader was heard; on any but the leader only Stale does without a [*NotLeaderError].
func (n *Node) View(ctx context.Context, c Consistency, read func(*ledger.State)) (index uint64, age time.Duration, err error) {
	if n.cfg.hooks.readView != nil {
		c = n.cfg.hooks.readView(c)
	}
	switch c {
	case Stale:
		if n.raft.State() != raft.Leader {
			if heard := n.raft.LastContact(); !heard.IsZero() {
				age = time.Since(heard)
			} else {
				age = time.Since(n.opened)
			}
		}
	case Leader:
		if _, err := n.reigning(ctx); err != nil {
			return 0, 0, fmt.Errorf("read: %w", err)
		}
	case Linearizable:
		if err := n.catchUp(ctx); err != nil {
			return 0, 0, fmt.Errorf("read: %w", err)
		}
	default:
		return 0, 0, fmt.Errorf("read: consistency %d, want one of the constants", c)
	}
	return n.fsm.view(read), age, nil
}

// catchUp waits until all is applied that was committed when it was called.
func (n *Node) catchUp(ctx context.Context) error {
	for {
		r, err := n.reigning(ctx)
		if err != nil {
			return err
		}
		// An entry of this term is committed, see reign: so what was acknowledged under another leader is behind commit.
		commit := n.raft.CommitIndex()
		if err := n.await(ctx, n.raft.VerifyLeader()); err != nil {
			if errors.Is(err, ErrUncertain) && ctx.Err() == nil {
				err = n.notLeader()
			}
			return err
		}
		if n.raft.CurrentTerm() != r.term {
			continue // it was lost and won again in between
		}
		return n.waitApplied(ctx, commit)
	}
}

// waitApplied waits until the entry is applied on this node.
func (n *Node) waitApplied(ctx context.Context, index uint64) error {
	for {
		applied, changed := n.fsm.applied()
		if applied >= index {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-n.ctx.Done():
			return context.Cause(n.ctx)
		}
	}
}

// Changed is closed when the next entry is applied on this node.
func (n *Node) Changed() <-chan struct{} {
	_, changed := n.fsm.applied()
	return changed
}
