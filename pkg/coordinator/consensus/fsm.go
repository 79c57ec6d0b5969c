package consensus

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// fsm puts the ledger behind raft. It never touches the bytes of blobs, and a panic of it ends the process: the state may be
// half changed.
type fsm struct {
	// named is told of blobs that the state came to name, with fsm locked; it must not wait.
	named func([]ledger.Digest)

	restored atomic.Uint64 // snapshots that were taken over

	mu      sync.Mutex // the state is for one goroutine, whoever reads it too
	state   *ledger.State
	index   uint64        // of the last command or change of members
	changed chan struct{} // closed when index changes
}

var _ raft.BatchingFSM = (*fsm)(nil)

func newFSM(named func([]ledger.Digest)) *fsm {
	return &fsm{named: named, state: ledger.New(), changed: make(chan struct{})}
}

// Apply implements [raft.FSM].
func (f *fsm) Apply(entry *raft.Log) any { return f.ApplyBatch([]*raft.Log{entry})[0] }

// ApplyBatch implements [raft.BatchingFSM].
func (f *fsm) ApplyBatch(entries []*raft.Log) []any {
	f.mu.Lock()
	defer f.mu.Unlock()
	outcomes := make([]any, len(entries))
	for i, e := range entries {
		if e.Type == raft.LogCommand {
			outcome := f.state.Apply(e.Index, e.Data)
			outcomes[i] = outcome
			if outcome.Err == nil || errors.Is(outcome.Err, ledger.ErrInconsistent) { // a refused cut is kept too
				f.named(namedBy(e.Data))
			}
		}
		f.index = e.Index
	}
	f.wake()
	return outcomes
}

// namedBy are the blobs that an entry brings in.
func namedBy(data []byte) []ledger.Digest {
	entry, err := ledger.Decode(data)
	if err != nil {
		return nil
	}
	cut, ok := entry.Command.(ledger.CutCommit)
	if !ok {
		return nil
	}
	digests := []ledger.Digest{cut.Manifest}
	for _, p := range cut.Parts {
		digests = append(digests, p.Digest)
	}
	return digests
}

// wake tells everybody who waits for a change. f.mu is held.
func (f *fsm) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// Snapshot implements [raft.FSM].
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fsmSnapshot(f.state.Snapshot()), nil
}

// Restore implements [raft.FSM]: after an error all is as it was.
func (f *fsm) Restore(r io.ReadCloser) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	state, err := ledger.Restore(data)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = state
	f.index = state.Index()
	f.restored.Add(1)
	f.named(slices.Collect(maps.Keys(state.References())))
	f.wake()
	return nil
}

// applied returns the index of the last entry and a channel that the next one closes.
func (f *fsm) applied() (index uint64, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.index, f.changed
}

// view runs read on the state.
func (f *fsm) view(read func(*ledger.State)) (index uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	read(f.state)
	return f.index
}

// fsmSnapshot is a state in canonical bytes.
type fsmSnapshot []byte

// Persist implements [raft.FSMSnapshot].
func (s fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := io.Copy(sink, bytes.NewReader(s)); err != nil {
		return err
	}
	return sink.Close()
}

// Release implements [raft.FSMSnapshot].
func (fsmSnapshot) Release() {}
