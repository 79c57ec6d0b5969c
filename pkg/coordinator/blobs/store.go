package blobs

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// Limit is the size of the largest blob in bytes, unless the configuration says less.
const Limit = 4 << 30

// Errors that callers branch on.
var (
	ErrNotFound = errors.New("no such blob")
	ErrCorrupt  = errors.New("blob is damaged")                        // the copy is set aside, and missing from now on
	ErrMismatch = errors.New("content is not what was announced")      // by digest or size; nothing is kept
	ErrTooLarge = errors.New("blob too large")                         //
	ErrFull     = errors.New("disk is full")                           // or nearly so
	ErrBroken   = errors.New("disk failed to make a write durable")    // for good: end the process
	ErrNoQuorum = errors.New("no quorum of coordinators has the blob") // it may be on some of them
	ErrClosed   = errors.New("replicator is closed")
)

// Config says where a store is and how gently it treats its disk.
type Config struct {
	Dir       string        // of this store alone; made if need be
	Rate      int64         // bytes per second to write; 0: 200 MB/s
	ScrubRate int64         // bytes per second to re-read; 0: 20 MB/s
	MaxBlob   int64         // bytes; 0: Limit
	Reserve   float64       // fraction of the disk that new blobs leave free, though no more than 20 GB; 0: 0.1
	Grace     time.Duration // how long GC spares an unreferenced blob; 0: ten minutes
	FS        FS            // nil: the operating system's
	Log       *slog.Logger  // told of damaged copies; nil: nothing is logged
}

// How a store behaves where nobody wants to choose.
const (
	defaultRate      = 200e6
	defaultScrubRate = 20e6
	defaultReserve   = 0.1
	defaultGrace     = 10 * time.Minute
	badAge           = 7 * 24 * time.Hour // after which GC removes what was set aside
)

// Endings of the files that are not blobs.
const (
	tempSuffix = ".tmp" // being written
	badSuffix  = ".bad" // damaged, for people to look at
)

// Store is the blobs of one node, in <dir>/ab/<hex>. It is safe for concurrent use; a folder belongs to one store.
type Store struct {
	dir     string
	maxBlob int64
	reserve float64
	grace   time.Duration
	fs      FS
	log     *slog.Logger
	writes  bucket
	scrubs  bucket
	stall   time.Duration // that an upload may take for a byte
	unit    int64         // bytes between syncs
	slots   chan struct{} // taken by whoever writes to the disk
	started time.Time
	broken  chan struct{} // closed once a sync failed
	wake    chan struct{} // filled when something is missing

	// names is held while a name changes and the index with it. It is taken before mu, which is held for moments only:
	// asking whether a blob is here never waits for the disk.
	names  sync.Mutex
	shards [256]shardState

	mu      sync.Mutex
	index   map[ledger.Digest]entry
	missing map[ledger.Digest]time.Time // since when
	pins    map[ledger.Digest]int
	holds   int
	bad     map[string]time.Time // paths set aside, and when
	pending int64                // bytes of blobs that are being written, still to come
	serial  uint64
	failure error
	counts  Stats
}

// shardState is what is known of one of the folders that hold blobs.
type shardState uint8

const (
	absent shardState = iota
	found             // by Open: names in it may be on their way to the disk still
	synced            // what is in it stays
)

// entry is a blob that is here, complete and durable.
type entry struct {
	size  int64
	id    uint64    // of this copy: one that replaces it has another
	since time.Time // when somebody last put or required it
}

// Open opens the store in a folder and removes what a crash left half-written. Everything found there counts as new to GC.
func Open(c Config) (*Store, error) {
	if c.Dir == "" {
		return nil, errors.New("blobs: open: no folder, want one")
	}
	if c.Rate < 0 || c.ScrubRate < 0 || c.Grace < 0 {
		return nil, fmt.Errorf("blobs: open: rate %d, scrub rate %d, grace %v, want none negative", c.Rate, c.ScrubRate, c.Grace)
	}
	if c.MaxBlob < 0 || c.MaxBlob > Limit {
		return nil, fmt.Errorf("blobs: open: largest blob %d bytes, want at most %d", c.MaxBlob, int64(Limit))
	}
	if !(c.Reserve >= 0 && c.Reserve < 1) {
		return nil, fmt.Errorf("blobs: open: reserve %g, want a fraction in [0, 1)", c.Reserve)
	}
	s := &Store{
		dir:     c.Dir,
		maxBlob: cmp.Or(c.MaxBlob, Limit),
		reserve: cmp.Or(c.Reserve, defaultReserve),
		grace:   cmp.Or(c.Grace, defaultGrace),
		fs:      c.FS,
		log:     c.Log,
		writes:  bucket{rate: cmp.Or(c.Rate, defaultRate)},
		scrubs:  bucket{rate: cmp.Or(c.ScrubRate, defaultScrubRate)},
		stall:   stallTime,
		unit:    syncEvery,
		slots:   make(chan struct{}, maxWriters),
		started: time.Now(),
		broken:  make(chan struct{}),
		wake:    make(chan struct{}, 1),
		index:   map[ledger.Digest]entry{},
		missing: map[ledger.Digest]time.Time{},
		pins:    map[ledger.Digest]int{},
		bad:     map[string]time.Time{},
	}
	if s.fs == nil {
		s.fs = disk{}
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("blobs: open %s: %w", c.Dir, err)
	}
	return s, nil
}

// load makes the folder and reads what is in it.
func (s *Store) load() error {
	if err := s.fs.Mkdir(s.dir); err != nil {
		return err
	}
	if err := s.fs.SyncDir(filepath.Dir(s.dir)); err != nil {
		return err
	}
	shards, err := s.fs.List(s.dir)
	if err != nil {
		return err
	}
	for _, shard := range shards {
		b, err := hex.DecodeString(shard)
		if err != nil || len(b) != 1 {
			continue
		}
		dir := filepath.Join(s.dir, shard)
		files, err := s.fs.List(dir)
		if err != nil {
			return err
		}
		s.shards[b[0]] = found
		for _, file := range files {
			if err := s.loadFile(dir, file); err != nil {
				return err
			}
		}
	}
	return s.fs.SyncDir(s.dir)
}

func (s *Store) loadFile(dir, file string) error {
	path := filepath.Join(dir, file)
	if strings.HasSuffix(file, tempSuffix) {
		return s.fs.Remove(path)
	}
	if strings.HasSuffix(file, badSuffix) {
		s.bad[path] = s.started
		return nil
	}
	digest, err := ParseDigest(file)
	if err != nil || path != s.Path(digest) { // somebody else's
		return nil
	}
	size, err := s.fs.Size(path)
	if err != nil {
		return err
	}
	s.serial++
	s.index[digest] = entry{size: size, id: s.serial, since: s.started}
	return nil
}

// ParseDigest reads a digest as its String writes it.
func ParseDigest(text string) (d ledger.Digest, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(d) || text != strings.ToLower(text) {
		return d, fmt.Errorf("digest %.80q, want %d lower-case hex digits", text, 2*len(d))
	}
	copy(d[:], b)
	return d, nil
}

// Path is where the blob is, if it is here. Whoever reads it there has to verify it.
func (s *Store) Path(digest ledger.Digest) string {
	name := digest.String()
	return filepath.Join(s.dir, name[:2], name)
}

// Grace is how long GC spares a blob that nobody references, from when it was last put or required.
func (s *Store) Grace() time.Duration { return s.grace }

// Has says whether a copy is here that is not known to be damaged.
func (s *Store) Has(digest ledger.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.index[digest]
	return ok
}

// Require says that blobs are referenced: one that is here is new to GC, one that is not is missing until it comes, or
// until GC learns that nobody needs it any more. Call it for every reference that appears, before GC may be told of it.
func (s *Store) Require(digests ...ledger.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range digests {
		if !s.touch(d) {
			s.miss(d)
		}
	}
}

// Forgo takes blobs that nobody needs from those that are missing. One that Require speaks of afterwards is missing again.
func (s *Store) Forgo(unneeded func(ledger.Digest) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.missing, func(d ledger.Digest, _ time.Time) bool { return unneeded(d) })
}

// misses says whether a blob is missing.
func (s *Store) misses(digest ledger.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.missing[digest]
	return ok
}

// touch makes a blob new to GC and says whether it is here. mu is held.
func (s *Store) touch(digest ledger.Digest) bool {
	e, ok := s.index[digest]
	if ok {
		e.since = time.Now()
		s.index[digest] = e
	}
	return ok
}

// miss notes that a blob is missing. mu is held.
func (s *Store) miss(digest ledger.Digest) {
	if _, ok := s.missing[digest]; !ok {
		s.missing[digest] = time.Now()
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Missing returns the blobs that are required, or were damaged, and are not here, in order.
func (s *Store) Missing() []ledger.Digest {
	s.mu.Lock()
	digests := slices.Collect(maps.Keys(s.missing))
	s.mu.Unlock()
	slices.SortFunc(digests, compareDigests)
	return digests
}

func compareDigests(a, b ledger.Digest) int { return bytes.Compare(a[:], b[:]) }

// digests returns the blobs that are here, in order.
func (s *Store) digests() []ledger.Digest {
	s.mu.Lock()
	digests := slices.Collect(maps.Keys(s.index))
	s.mu.Unlock()
	slices.SortFunc(digests, compareDigests)
	return digests
}

// Remove removes a blob, referenced or not; one that is not here is fine.
func (s *Store) Remove(digest ledger.Digest) error {
	if _, err := s.remove(digest, func(entry) bool { return true }); err != nil {
		return fmt.Errorf("blobs: remove %s: %w", digest, err)
	}
	return nil
}

// remove removes a blob if it is here and may go.
func (s *Store) remove(digest ledger.Digest, mayGo func(entry) bool) (bool, error) {
	s.names.Lock()
	defer s.names.Unlock()
	s.mu.Lock()
	e, ok := s.index[digest]
	ok = ok && mayGo(e)
	if ok {
		delete(s.index, digest)
	}
	s.mu.Unlock()
	if !ok {
		return false, nil
	}
	err := s.fs.Remove(s.Path(digest))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.mu.Lock()
		s.index[digest] = e // still there
		s.mu.Unlock()
		return false, err
	}
	return true, nil
}

// setAside takes a damaged copy out of use, unless another one has taken its place.
func (s *Store) setAside(digest ledger.Digest, id uint64, why error) {
	s.names.Lock()
	defer s.names.Unlock()
	s.mu.Lock()
	e, ok := s.index[digest]
	if !ok || e.id != id {
		s.mu.Unlock()
		return
	}
	path := s.Path(digest)
	delete(s.index, digest)
	s.counts.Corrupt++
	s.bad[path+badSuffix] = time.Now()
	s.miss(digest)
	s.mu.Unlock()
	err := s.fs.Rename(path, path+badSuffix)
	if err != nil { // it stays, and is verified again if it is ever found
		s.mu.Lock()
		delete(s.bad, path+badSuffix)
		s.mu.Unlock()
	}
	s.log.Error("blob is damaged", "blob", digest, "why", why, "kept", path+badSuffix, "rename", err)
}

// Stats are what a store has and what it did since Open.
type Stats struct {
	Blobs   int   // here
	Bytes   int64 // of those
	Missing int
	Bad     int // files set aside

	Corrupt       uint64 // copies found damaged or gone
	Ingested      uint64 // blobs that were written here
	IngestedBytes uint64 // of those
	Fetched       uint64 // those of them that this node asked its peers for
	Refused       uint64 // contents that were not as announced
	Removed       uint64 // by GC
	ScrubbedBytes uint64 // read by Scrub
}

// Stats returns the present numbers.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.counts
	st.Blobs, st.Missing, st.Bad = len(s.index), len(s.missing), len(s.bad)
	for _, e := range s.index {
		st.Bytes += e.size
	}
	return st
}

// Disk returns how many bytes of the file system are left and how many it can hold; total is 0 where that is not known.
func (s *Store) Disk() (free, total uint64, err error) {
	free, total, err = s.fs.Usage(s.dir)
	if err != nil {
		err = fmt.Errorf("blobs: disk usage: %w", err)
	}
	return free, total, err
}

// Full says whether new blobs are refused with ErrFull.
func (s *Store) Full() bool {
	free, total, err := s.Disk()
	return err == nil && total > 0 && s.full(free, total)
}

func (s *Store) full(free, total uint64) bool { return free <= reserved(s.reserve, total) }

// mostReserve is what is left free of a large disk, in bytes.
const mostReserve = 20e9

// reserved is what new blobs leave free of a disk, in bytes.
func reserved(fraction float64, total uint64) uint64 {
	return uint64(min(fraction*float64(total), mostReserve))
}

// Full says whether the disk of a folder has no room for new blobs under the default reserve; false where that is not known.
func Full(dir string) (bool, error) {
	free, total, err := usage(dir)
	return err == nil && total > 0 && free <= reserved(defaultReserve, total), err
}

// Broken is closed once the disk failed to make a write durable. What it has of that write is anybody's guess, so the
// store takes nothing in any more: end the process.
func (s *Store) Broken() <-chan struct{} { return s.broken }

// Err is the failure behind Broken, an ErrBroken; nil before.
func (s *Store) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

// fail breaks the store.
func (s *Store) fail(what string, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure == nil {
		s.failure = fmt.Errorf("%w: %s: %w", ErrBroken, what, err)
		close(s.broken)
	}
	return s.failure
}
