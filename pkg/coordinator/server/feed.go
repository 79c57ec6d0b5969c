package server

import (
	"context"
	"sync"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// feed shares one look at the state among all who watch it. It is safe for concurrent use.
type feed struct {
	node Node

	mu      sync.Mutex
	last    *look
	changed <-chan struct{} // closed when last is not the newest any more
}

// look is what there was at an index of the log. It must not be changed.
type look struct {
	index       uint64
	experiments []ledger.Experiment
	nodes       []ledger.Node
}

// calm is how long a watch does not look again: what changes often in it is seen once.
const calm = 20 * time.Millisecond

// look returns what there is, and a channel that is closed when there is more to see.
func (f *feed) look(ctx context.Context) (*look, <-chan struct{}, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last != nil {
		select {
		case <-f.changed:
		default:
			return f.last, f.changed, nil
		}
	}
	changed := f.node.Changed() // before the look, so that nothing is missed
	next := &look{}
	index, _, err := f.node.View(ctx, consensus.Stale, func(st *ledger.State) {
		next.experiments, next.nodes = st.Experiments(), st.Nodes()
	})
	if err != nil {
		return nil, nil, err
	}
	next.index = index
	f.last, f.changed = next, changed
	return next, changed, nil
}
