package consensus

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/hashicorp/raft-wal/types"

	"github.com/kelvin-ebm/kelvin/pkg/internal/atomicfile"
)

// metaStore keeps what the write-ahead log must know of its segments, and raft's term and vote: a few hundred bytes, written
// as a whole each time. The file begins with the SHA-256 of the rest, since a flipped bit in a vote would break an election
// without anybody noticing.
type metaStore struct {
	path  string
	fresh bool // there was no file

	mu  sync.Mutex
	now metaContent
}

type metaContent struct {
	Segments types.PersistentState
	Stable   map[string][]byte
}

var _ types.MetaStore = (*metaStore)(nil)

// openMeta reads the file, if there is one.
func openMeta(path string) (*metaStore, error) {
	s := &metaStore{path: path, now: metaContent{Stable: map[string][]byte{}}}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		s.fresh = true
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	sum, body, found := bytes.Cut(data, []byte("\n"))
	if !found || string(sum) != metaSum(body) {
		return nil, fmt.Errorf("%w: %s: checksum does not match", ErrCorrupt, path)
	}
	if err := json.Unmarshal(body, &s.now); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, path, err)
	}
	return s, nil
}

func metaSum(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// Load implements [types.MetaStore].
func (s *metaStore) Load(string) (types.PersistentState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now.Segments, nil
}

// CommitState implements [types.MetaStore].
func (s *metaStore) CommitState(segments types.PersistentState) error {
	return s.change(func(c *metaContent) { c.Segments = segments })
}

// GetStable implements [types.MetaStore].
func (s *metaStore) GetStable(key []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.now.Stable[string(key)]), nil
}

// SetStable implements [types.MetaStore].
func (s *metaStore) SetStable(key, value []byte) error {
	return s.change(func(c *metaContent) { c.Stable[string(key)] = slices.Clone(value) })
}

func (s *metaStore) change(change func(*metaContent)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.now)
	body, err := json.Marshal(s.now)
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(s.path, append([]byte(metaSum(body)+"\n"), body...), 0o600)
}

// Close implements [types.MetaStore]: nothing is open between two writes.
func (s *metaStore) Close() error { return nil }
