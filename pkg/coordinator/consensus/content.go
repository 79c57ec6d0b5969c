package consensus

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/blobs"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// Blobs is this node's store, which Close does not outlive.
func (n *Node) Blobs() *blobs.Store { return n.blobs }

// PutBlob stores data; it is durable on a quorum when the error is nil. Nothing keeps it for longer than ten minutes unless
// an entry names it.
func (n *Node) PutBlob(ctx context.Context, data []byte) (ledger.Digest, error) {
	digest := ledger.Digest(sha256.Sum256(data))
	return digest, n.PutBlobFrom(ctx, digest, int64(len(data)), func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data)), nil
	})
}

// PutBlobFrom is PutBlob for what is too large for memory: open is called once a node that gets it, at the same time
// perhaps. A disk that is nearly full is ErrFull.
func (n *Node) PutBlobFrom(ctx context.Context, digest ledger.Digest, size int64, open func() (io.ReadCloser, error)) error {
	if n.disk.full.Load() {
		return fmt.Errorf("blob %s: %w", digest, ErrFull)
	}
	return n.known(n.replicator.PutQuorum(ctx, digest, size, open))
}

// SpreadBlob brings a blob that this node has to a quorum.
func (n *Node) SpreadBlob(ctx context.Context, digest ledger.Digest) error {
	return n.known(n.replicator.Spread(ctx, digest))
}

// known gives errors of the blob store the names that this package has for them.
func (n *Node) known(err error) error {
	if errors.Is(err, blobs.ErrFull) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// Blob returns a blob, verified; one that is not here is fetched first.
func (n *Node) Blob(ctx context.Context, digest ledger.Digest) ([]byte, error) {
	for {
		data, err := n.blobs.Read(digest)
		if err == nil || !absent(err) {
			return data, err
		}
		if err := n.replicator.Fetch(ctx, digest); err != nil {
			return nil, err
		}
	}
}

// OpenBlob opens a blob as [blobs.Store.Open] does; one that is not here is fetched first.
func (n *Node) OpenBlob(ctx context.Context, digest ledger.Digest) (io.ReadSeekCloser, int64, error) {
	for {
		content, size, err := n.blobs.Open(digest)
		if err == nil || !absent(err) {
			return content, size, err
		}
		if err := n.replicator.Fetch(ctx, digest); err != nil {
			return nil, 0, err
		}
	}
}

func absent(err error) bool {
	return errors.Is(err, blobs.ErrNotFound) || errors.Is(err, blobs.ErrCorrupt)
}

// peers are the other coordinators, for the replicator.
func (n *Node) peers() []blobs.Peer {
	servers, err := n.servers()
	if err != nil {
		return nil
	}
	var out []blobs.Peer
	for _, s := range servers {
		if string(s.ID) != n.cfg.Name && n.peer != nil {
			out = append(out, blobs.Peer{Name: string(s.ID), URL: "http://" + string(s.Address), Voter: s.Suffrage == raft.Voter, Client: n.peer.client})
		}
	}
	return out
}

// collectEvery is how often blobs that nobody names are looked for.
const collectEvery = 5 * time.Minute

// collect removes blobs that neither the state nor a snapshot names: a node may have to go back to its snapshots.
func (n *Node) collect() {
	ticker := time.NewTicker(n.cfg.hooks.collectEvery)
	defer ticker.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-ticker.C:
		}
		removed, err := n.collectOnce()
		if err != nil && n.ctx.Err() == nil {
			n.log.Warn("collect blobs", "error", err)
		}
		if removed > 0 {
			n.log.Info("blobs removed that nobody names", "blobs", removed)
		}
	}
}

func (n *Node) collectOnce() (removed int, err error) {
	named := map[ledger.Digest]bool{}
	note := func(s *ledger.State) {
		for d := range s.References() {
			named[d] = true
		}
	}
	// The snapshots first: what is named between the two looks is then in the state.
	ids, err := n.snapshots.ids()
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		_, data, err := n.snapshots.read(id)
		if err != nil {
			return 0, err
		}
		state, err := ledger.Restore(data)
		if err != nil {
			return 0, err
		}
		note(state)
	}
	n.fsm.view(note)
	return n.blobs.GC(n.ctx, func(d ledger.Digest) bool { return named[d] })
}
