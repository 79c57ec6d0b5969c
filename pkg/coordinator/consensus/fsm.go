package consensus

import (
	"bytes"
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

	// past is the end of the log that the node started with, until it is applied again. Most blobs of the cuts on the way
	// there are on no node any more: named is told of those alone that the state names at the end.
	past position
}

// position is that of an entry in the log.
type position struct{ index, term uint64 }

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
	naming := map[ledger.ID]bool{} // experiments that may have come to name blobs; what was refused is kept in part
	for i, e := range entries {
		if e.Type == raft.LogCommand {
			outcomes[i] = f.state.Apply(e.Index, e.Data)
			if entry, err := ledger.Decode(e.Data); err == nil && len(ledger.Names(entry.Command)) > 0 {
				naming[entry.Exp] = true
			}
		}
		f.index = e.Index
	}
	switch last := entries[len(entries)-1]; {
	case f.behind(position{last.Index, last.Term}):
	case f.past.index > 0:
		f.namesAll()
	default:
		for id := range naming {
			if e, ok := f.state.ByID(id); ok {
				f.named(slices.Collect(maps.Keys(e.References())))
			}
		}
	}
	f.wake()
	return outcomes
}

// behind says whether more of the past follows an entry. What another leader put in the place of its end is of a later term.
// f.mu is held.
func (f *fsm) behind(at position) bool { return at.index < f.past.index && at.term <= f.past.term }

// namesAll is told where nothing of the past is left. f.mu is held.
func (f *fsm) namesAll() {
	f.past = position{}
	f.named(slices.Collect(maps.Keys(f.state.References())))
}

// replaying says that entries which the node once had applied are yet to be applied again: the state is an old one.
func (f *fsm) replaying() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.past.index > 0
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
	if !f.behind(position{index: f.index}) {
		f.namesAll()
	}
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
