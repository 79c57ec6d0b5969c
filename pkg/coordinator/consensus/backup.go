package consensus

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/blobs"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// A backup is a tar of backup.json, the state, and each blob that it names under its digest.
const (
	backupVersion = 1
	backupHead    = "backup.json"
	backupState   = "state"
	backupBlobs   = "blobs/"
	maxBackupHead = 64 << 20
	maxState      = 1 << 30
)

// backupManifest is backup.json.
type backupManifest struct {
	Version int       `json:"version"`
	Cluster string    `json:"cluster"`
	Index   uint64    `json:"index"`
	At      time.Time `json:"at"`
	State   string    `json:"state"` // SHA-256
	Blobs   []string  `json:"blobs"` // digests, in order
}

// Backup writes the state as this node has it, and all blobs that it names, verified.
func (n *Node) Backup(ctx context.Context, w io.Writer) error {
	if err := n.backup(ctx, w); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return nil
}

func (n *Node) backup(ctx context.Context, w io.Writer) error {
	defer n.blobs.Hold()()
	m := backupManifest{Version: backupVersion, At: time.Now().UTC().Truncate(time.Second)}
	var state []byte
	var named []ledger.Digest
	n.fsm.view(func(s *ledger.State) {
		id, _, _ := s.Cluster()
		m.Cluster, m.Index = id.String(), s.Index()
		state = s.Snapshot()
		named = slices.SortedFunc(maps.Keys(s.References()), func(a, b ledger.Digest) int { return bytes.Compare(a[:], b[:]) })
	})
	m.State = ledger.Digest(sha256.Sum256(state)).String()
	for _, d := range named {
		m.Blobs = append(m.Blobs, d.String())
	}
	head, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	out := tar.NewWriter(w)
	add := func(name string, size int64, r io.Reader) error {
		if err := out.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size, ModTime: m.At}); err != nil {
			return err
		}
		_, err := io.Copy(out, r)
		return err
	}
	if err := add(backupHead, int64(len(head)), bytes.NewReader(head)); err != nil {
		return err
	}
	if err := add(backupState, int64(len(state)), bytes.NewReader(state)); err != nil {
		return err
	}
	for _, d := range named {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		content, size, err := n.OpenBlob(ctx, d)
		if err != nil {
			return err
		}
		if err := errors.Join(add(backupBlobs+d.String(), size, content), content.Close()); err != nil {
			return err
		}
	}
	return out.Close()
}

// RestoreFrom replaces the state by that of a backup, on the leader: if there are experiments, only if force is the identity
// of the cluster that loses them. All is verified, and durable on a quorum, before anything changes.
func (n *Node) RestoreFrom(ctx context.Context, r io.Reader, force string) error {
	if err := n.restoreFrom(ctx, r, force); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	return nil
}

func (n *Node) restoreFrom(ctx context.Context, r io.Reader, force string) error {
	reign, err := n.reigning(ctx)
	if err != nil {
		return err
	}
	var identity ledger.ID
	experiments := 0
	n.fsm.view(func(s *ledger.State) { identity, _, _ = s.Cluster(); experiments = len(s.Experiments()) })
	if experiments > 0 && force != identity.String() {
		return fmt.Errorf("%w: this cluster has %d experiments, which would be lost: want its identity, %s, to force it", ledger.ErrConflict, experiments, identity)
	}
	defer n.blobs.Hold()()
	state, err := n.readBackup(ctx, tar.NewReader(r))
	if err != nil {
		return err
	}
	state.Overtake(n.overtaking())
	data := state.Snapshot()
	// What is committed from here on is lost with the old state: whoever leads experiments stops first.
	reign.end(errReignOver)
	err = n.raft.Restore(&raft.SnapshotMeta{Version: raft.SnapshotVersionMax, Index: state.Index(), Size: int64(len(data))}, bytes.NewReader(data), n.enough(ctx))
	select {
	case n.renew <- struct{}{}:
	default:
	}
	if err != nil { // perhaps only of what raft commits behind it
		return fmt.Errorf("%w: %w", ErrUncertain, err)
	}
	return nil
}

// overtaking is a number of a generation that no replica can have seen. The clock is for those that were led by a cluster that
// is lost: generations are slower than its milliseconds.
func (n *Node) overtaking() uint64 {
	above := uint64(time.Now().UnixMilli())
	n.fsm.view(func(s *ledger.State) {
		for _, e := range s.Experiments() {
			above = max(above, e.Generation)
		}
	})
	return above
}

// readBackup stores the blobs of a backup on a quorum and returns its state.
func (n *Node) readBackup(ctx context.Context, in *tar.Reader) (*ledger.State, error) {
	var m backupManifest
	head, err := readEntry(in, backupHead, maxBackupHead)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(head, &m); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, backupHead, err)
	}
	if m.Version != backupVersion {
		return nil, fmt.Errorf("backup of version %d, want %d", m.Version, backupVersion)
	}
	data, err := readEntry(in, backupState, maxState)
	if err != nil {
		return nil, err
	}
	if sum := ledger.Digest(sha256.Sum256(data)).String(); sum != m.State {
		return nil, fmt.Errorf("%w: SHA-256 of the state is %.12s, want %.12s", ErrCorrupt, sum, m.State)
	}
	state, err := ledger.Restore(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	want := state.References()
	for {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		digest, err := blobs.ParseDigest(strings.TrimPrefix(h.Name, backupBlobs))
		if err != nil {
			return nil, fmt.Errorf("%w: file %q, want a blob", ErrCorrupt, h.Name)
		}
		err = n.blobs.Put(ctx, digest, h.Size, in)
		if errors.Is(err, blobs.ErrMismatch) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		if err != nil {
			return nil, n.known(err)
		}
		if err := n.SpreadBlob(ctx, digest); err != nil {
			return nil, err
		}
		delete(want, digest)
	}
	if len(want) > 0 {
		return nil, fmt.Errorf("%w: %d blobs that the state names are not in it", ErrCorrupt, len(want))
	}
	return state, nil
}

// readEntry reads the next file of a tar, which must have the name.
func readEntry(in *tar.Reader, name string, most int64) ([]byte, error) {
	h, err := in.Next()
	if err != nil {
		return nil, fmt.Errorf("%w: not a backup: %w", ErrCorrupt, err)
	}
	if h.Name != name || h.Size > most {
		return nil, fmt.Errorf("%w: file %q of %d bytes, want %s", ErrCorrupt, h.Name, h.Size, name)
	}
	data, err := io.ReadAll(in)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, name, err)
	}
	return data, nil
}
