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
// an entry names it, or it is put again.
func (n *Node) PutBlob(ctx context.Context, data []byte) (ledger.Digest, error) {
	digest := ledger.Digest(sha256.Sum256(data))
	return digest, n.PutBlobFrom(ctx, digest, int64(len(data)), func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data)), nil
	})
}

// PutBlobs stores what an entry is about to name, two at a time: all of it is durable on a quorum when the error is nil, and
// stays for at least half as long as PutBlob says; on this node it stays until release is called, once or more often.
func (n *Node) PutBlobs(ctx context.Context, data ...[]byte) (release func(), err error) {
	digests := make([]ledger.Digest, len(data))
	pins := make([]func(), len(data))
	for i, d := range data {
		digests[i] = sha256.Sum256(d)
		pins[i] = n.blobs.Pin(digests[i])
	}
	release = func() {
		for _, unpin := range pins {
			unpin()
		}
	}
	u := upload{grace: n.blobs.Grace(), put: func(ctx context.Context, i int) error {
		return n.PutBlobFrom(ctx, digests[i], int64(len(data[i])), func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(data[i])), nil
		})
	}}
	if err := u.run(ctx, len(data)); err != nil {
		release()
		return nil, err
	}
	return release, nil
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
			out = append(out, blobs.Peer{Name: string(s.ID), URL: "http://" + string(s.Address), Voter: s.Suffrage == raft.Voter, Client: n.peer.blobs})
		}
	}
	return out
}

// collectEvery is how often blobs that nobody names are looked for.
const collectEvery = 5 * time.Minute

// collect removes blobs that neither the state nor a snapshot names: a node may have to go back to its snapshots. Besides, it
// forgoes missing ones that the state names no more, as happens to a node that catches up: they are on no node.
func (n *Node) collect() {
	collect, forgo := time.NewTicker(n.cfg.hooks.collectEvery), time.NewTicker(n.pace(tick))
	defer collect.Stop()
	defer forgo.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-forgo.C:
			n.forgo()
			continue
		case <-collect.C:
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

func (n *Node) forgo() {
	if len(n.blobs.Missing()) == 0 {
		return
	}
	n.fsm.view(func(s *ledger.State) { // nothing comes to be named meanwhile
		refs := s.References()
		n.blobs.Forgo(func(d ledger.Digest) bool { _, named := refs[d]; return !named })
	})
}

// collectOnce does nothing while the node may be far behind: it has blobs of entries that it has yet to apply.
func (n *Node) collectOnce() (removed int, err error) {
	if leader, _ := n.Leader(); leader == "" || n.fsm.replaying() {
		return 0, nil
	}
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
