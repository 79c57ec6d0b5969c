package consensus

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/kelvin-ebm/kelvin/pkg/internal/atomicfile"
)

// snapshotStore keeps raft's snapshots, a file each: magic, length and JSON of what raft must know of it, length and bytes of
// the state, SHA-256 of all before. The state is a few megabytes at most, so files are read and written as a whole, and a
// damaged one is never taken for a whole one.
type snapshotStore struct {
	dir    string
	retain int
	note   func(index uint64) error // told of each that is durable
}

var _ raft.SnapshotStore = (*snapshotStore)(nil)

const (
	snapshotMagic  = "KELVSNP1"
	snapshotSuffix = ".snap"
)

// Create implements [raft.SnapshotStore].
func (s *snapshotStore) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration, configurationIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &snapshotSink{store: s, meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%020d-%020d", index, term), Index: index, Term: term,
		Configuration: configuration, ConfigurationIndex: configurationIndex,
	}}, nil
}

// List implements [raft.SnapshotStore]: the newest first; a damaged one is an error.
func (s *snapshotStore) List() ([]*raft.SnapshotMeta, error) {
	var metas []*raft.SnapshotMeta
	ids, err := s.ids()
	for _, id := range ids {
		meta, _, err := s.read(id)
		if err != nil {
			return nil, err
		}
		metas = append(metas, meta)
	}
	return metas, err
}

// Open implements [raft.SnapshotStore].
func (s *snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, data, err := s.read(id)
	if err != nil {
		return nil, nil, err
	}
	return meta, io.NopCloser(bytes.NewReader(data)), nil
}

// ids are the names of the files without their suffix, the newest first.
func (s *snapshotStore) ids() ([]string, error) {
	ids, err := namesWith(s.dir, snapshotSuffix)
	for i, name := range ids {
		ids[i] = strings.TrimSuffix(name, snapshotSuffix)
	}
	slices.Reverse(ids)
	return ids, err
}

func (s *snapshotStore) path(id string) string { return filepath.Join(s.dir, id+snapshotSuffix) }

func (s *snapshotStore) read(id string) (*raft.SnapshotMeta, []byte, error) {
	path := s.path(id)
	file, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	meta, data, err := decodeSnapshot(file)
	if err == nil && meta.ID != id {
		err = fmt.Errorf("it is of %s", meta.ID)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: snapshot %s: %w", ErrCorrupt, path, err)
	}
	return meta, data, nil
}

func encodeSnapshot(meta raft.SnapshotMeta, data []byte) ([]byte, error) {
	meta.Size = int64(len(data))
	head, err := json.Marshal(meta)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, len(snapshotMagic)+4+len(head)+8+len(data)+sha256.Size)
	out = append(out, snapshotMagic...)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(head)))
	out = append(out, head...)
	out = binary.LittleEndian.AppendUint64(out, uint64(len(data)))
	out = append(out, data...)
	sum := sha256.Sum256(out)
	return append(out, sum[:]...), nil
}

func decodeSnapshot(file []byte) (*raft.SnapshotMeta, []byte, error) {
	rest, ok := bytes.CutPrefix(file, []byte(snapshotMagic))
	if !ok || len(rest) < 4+8+sha256.Size {
		return nil, nil, errors.New("not a snapshot, or cut short")
	}
	body, sum := file[:len(file)-sha256.Size], file[len(file)-sha256.Size:]
	if got := sha256.Sum256(body); !bytes.Equal(got[:], sum) {
		return nil, nil, errors.New("SHA-256 does not match")
	}
	rest = rest[:len(rest)-sha256.Size]
	n := uint64(binary.LittleEndian.Uint32(rest))
	if rest = rest[4:]; uint64(len(rest)) < n+8 {
		return nil, nil, errors.New("cut short")
	}
	meta := new(raft.SnapshotMeta)
	if err := json.Unmarshal(rest[:n], meta); err != nil {
		return nil, nil, err
	}
	data := rest[n+8:]
	if want := binary.LittleEndian.Uint64(rest[n:]); uint64(len(data)) != want {
		return nil, nil, fmt.Errorf("%d bytes of state, want %d", len(data), want)
	}
	return meta, data, nil
}

// survey looks into all files: the newest whole one, nil for none, and what is wrong with each damaged one, by its id. check
// looks at the state.
func (s *snapshotStore) survey(check func(state []byte) error) (newest *raft.SnapshotMeta, bad map[string]error, err error) {
	ids, err := s.ids()
	if err != nil {
		return nil, nil, err
	}
	bad = map[string]error{}
	for _, id := range ids {
		meta, data, err := s.read(id)
		if err == nil {
			if err = check(data); err != nil {
				err = fmt.Errorf("%w: snapshot %s: %w", ErrCorrupt, s.path(id), err)
			}
		}
		switch {
		case errors.Is(err, ErrCorrupt):
			bad[id] = err
		case err != nil: // could not be read: perhaps the next time
			return nil, nil, err
		case newest == nil:
			newest = meta
		}
	}
	return newest, bad, nil
}

// putAside renames a damaged file, so that nobody takes it for a snapshot any more.
func (s *snapshotStore) putAside(id string) error {
	return os.Rename(s.path(id), s.path(id)+".bad")
}

// snapshotSink collects one snapshot in memory.
type snapshotSink struct {
	store *snapshotStore
	meta  raft.SnapshotMeta
	data  bytes.Buffer
	done  bool
}

var _ raft.SnapshotSink = (*snapshotSink)(nil)

func (k *snapshotSink) ID() string { return k.meta.ID }

func (k *snapshotSink) Write(p []byte) (int, error) { return k.data.Write(p) }

func (k *snapshotSink) Cancel() error {
	k.done = true
	return nil
}

// Close makes the snapshot durable and removes those that are too many.
func (k *snapshotSink) Close() error {
	if k.done {
		return nil
	}
	k.done = true
	file, err := encodeSnapshot(k.meta, k.data.Bytes())
	if err != nil {
		return err
	}
	if err := atomicfile.WriteFile(k.store.path(k.meta.ID), file, 0o600); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	if err := k.store.note(k.meta.Index); err != nil {
		return err
	}
	ids, err := k.store.ids()
	if err != nil {
		return err
	}
	for _, id := range ids[min(len(ids), k.store.retain):] {
		if err := os.Remove(k.store.path(id)); err != nil {
			return err
		}
	}
	return nil
}
