package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// journal is the raft log and the votes of one node on disk: a write-ahead log that notices when it was damaged. Raft rests
// on a node remembering what it acknowledged; one that forgot must not take part. So
//   - every entry carries a checksum over all that raft reads of it,
//   - the end of the log is written down beside it: the write-ahead log takes a damaged end for a torn write and cuts it off,
//   - the first write that fails is the last: whether a failed fsync left anything on the disk cannot be found out.
type journal struct {
	wal   *wal.WAL
	meta  *metaStore
	fatal func(error)   // told of the first failed write
	added atomic.Uint64 // entries, since it was opened

	mu     sync.Mutex // of whoever writes
	mark   *mark
	broken error // of the first failed write
}

// journalOptions say how a journal is opened.
type journalOptions struct {
	SegmentSize int         // bytes, allocated in advance
	VFS         types.VFS   // of the segments; nil: the disk
	Fatal       func(error) // may be called by any goroutine
	Log         hclog.Logger
}

var (
	_ raft.LogStore          = (*journal)(nil)
	_ raft.MonotonicLogStore = (*journal)(nil)
	_ raft.StableStore       = (*journal)(nil)
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openJournal opens the journal in dir, which exists, and reads all of it: [ErrCorrupt] names what is damaged.
func openJournal(dir string, o journalOptions) (*journal, error) {
	if o.VFS == nil {
		o.VFS = walfs.New()
	}
	meta, err := openMeta(filepath.Join(dir, "meta"))
	if err != nil {
		return nil, err
	}
	segments, err := namesWith(dir, ".wal")
	if err != nil {
		return nil, err
	}
	if meta.fresh && len(segments) > 0 {
		return nil, fmt.Errorf("%w: %s is missing, and there are %d segments of a log", ErrCorrupt, meta.path, len(segments))
	}
	mark, err := openMark(filepath.Join(dir, "mark"), meta.fresh)
	if err != nil {
		return nil, err
	}
	w, err := wal.Open(dir, wal.WithMetaStore(meta), wal.WithSegmentSize(o.SegmentSize),
		wal.WithSegmentFiler(segment.NewFiler(dir, o.VFS)), wal.WithLogger(o.Log))
	if err != nil {
		mark.Close()
		if errors.Is(err, wal.ErrCorrupt) || errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return nil, fmt.Errorf("raft log in %s: %w", dir, err)
	}
	j := &journal{wal: w, meta: meta, mark: mark, fatal: o.Fatal}
	if err := j.verify(); err != nil {
		return nil, errors.Join(fmt.Errorf("raft log in %s: %w", dir, err), j.Close())
	}
	return j, nil
}

// verify reads every entry.
func (j *journal) verify() error {
	first, err := j.wal.FirstIndex()
	if err != nil {
		return err
	}
	last, err := j.wal.LastIndex()
	if err != nil {
		return err
	}
	if last < j.mark.last {
		return fmt.Errorf("%w: it ends with entry %d, want at least %d", ErrCorrupt, last, j.mark.last)
	}
	if last == 0 {
		return nil
	}
	var entry raft.Log
	for i := first; i <= last; i++ {
		if err := j.GetLog(i, &entry); err != nil {
			return err
		}
	}
	return nil
}

// IsMonotonic implements [raft.MonotonicLogStore]: raft must empty the log after it installed a snapshot.
func (j *journal) IsMonotonic() bool { return j.wal.IsMonotonic() }

// FirstIndex implements [raft.LogStore].
func (j *journal) FirstIndex() (uint64, error) { return j.wal.FirstIndex() }

// LastIndex implements [raft.LogStore].
func (j *journal) LastIndex() (uint64, error) { return j.wal.LastIndex() }

// GetLog implements [raft.LogStore].
func (j *journal) GetLog(index uint64, entry *raft.Log) error {
	err := j.wal.GetLog(index, entry)
	if errors.Is(err, wal.ErrNotFound) {
		return raft.ErrLogNotFound
	}
	if errors.Is(err, wal.ErrClosed) {
		return err
	}
	if err == nil && (entry.Index != index || len(entry.Extensions) != 4 || binary.LittleEndian.Uint32(entry.Extensions) != checksum(entry)) {
		err = errors.New("checksum does not match")
	}
	if err != nil {
		return fmt.Errorf("%w: entry %d: %w", ErrCorrupt, index, err)
	}
	entry.Extensions = nil
	return nil
}

// StoreLog implements [raft.LogStore].
func (j *journal) StoreLog(entry *raft.Log) error { return j.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements [raft.LogStore].
func (j *journal) StoreLogs(entries []*raft.Log) error {
	if len(entries) == 0 {
		return nil
	}
	return j.write(func() error {
		sealed := make([]*raft.Log, len(entries))
		for i, e := range entries {
			c := *e // the entry itself is being read by raft
			c.Extensions = binary.LittleEndian.AppendUint32(nil, checksum(e))
			sealed[i] = &c
		}
		if err := j.wal.StoreLogs(sealed); err != nil {
			return err
		}
		j.added.Add(uint64(len(entries)))
		return j.mark.set(entries[len(entries)-1].Index, j.mark.snapshot, false)
	})
}

// DeleteRange implements [raft.LogStore].
func (j *journal) DeleteRange(from, to uint64) error {
	return j.write(func() error {
		if to >= j.mark.last { // before the entries go: the mark may not promise more than there is
			first, err := j.wal.FirstIndex()
			if err != nil {
				return err
			}
			end := uint64(0)
			if from > first {
				end = from - 1
			}
			if err := j.mark.set(end, j.mark.snapshot, true); err != nil {
				return err
			}
		}
		return j.wal.DeleteRange(from, to)
	})
}

// Wipe removes all entries; the votes stay.
func (j *journal) Wipe() error {
	first, err := j.wal.FirstIndex()
	if err != nil {
		return err
	}
	last, err := j.wal.LastIndex()
	if err != nil || last == 0 {
		return err
	}
	return j.DeleteRange(first, last)
}

// NoteSnapshot says that there is a snapshot that ends with the entry.
func (j *journal) NoteSnapshot(index uint64) error {
	return j.write(func() error { return j.mark.set(j.mark.last, max(j.mark.snapshot, index), false) })
}

// Reaches says whether the log, behind a snapshot that ends with entry snapshot, 0 for none, has all that ever was on the disk.
func (j *journal) Reaches(snapshot uint64) error {
	first, err := j.wal.FirstIndex()
	if err != nil {
		return err
	}
	last, err := j.wal.LastIndex()
	if err != nil {
		return err
	}
	if last > 0 && first > snapshot+1 {
		return fmt.Errorf("%w: the snapshots reach to entry %d, and the log begins with %d", ErrCorrupt, snapshot, first)
	}
	if max(last, snapshot) < j.mark.snapshot {
		return fmt.Errorf("%w: the snapshots reach to entry %d, the log to %d, want %d", ErrCorrupt, snapshot, last, j.mark.snapshot)
	}
	return nil
}

// Set implements [raft.StableStore].
func (j *journal) Set(key, value []byte) error {
	return j.write(func() error { return j.wal.Set(key, value) })
}

// Get implements [raft.StableStore].
func (j *journal) Get(key []byte) ([]byte, error) { return j.wal.Get(key) }

// SetUint64 implements [raft.StableStore].
func (j *journal) SetUint64(key []byte, value uint64) error {
	return j.write(func() error { return j.wal.SetUint64(key, value) })
}

// GetUint64 implements [raft.StableStore].
func (j *journal) GetUint64(key []byte) (uint64, error) { return j.wal.GetUint64(key) }

// write runs one that changes the disk, if none has failed yet.
func (j *journal) write(do func() error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken != nil {
		return j.broken
	}
	err := do()
	if err == nil || errors.Is(err, wal.ErrClosed) {
		return err
	}
	j.broken = fmt.Errorf("raft log: %w", err)
	j.fatal(j.broken)
	return j.broken
}

// Close closes the files.
func (j *journal) Close() error {
	return errors.Join(j.wal.Close(), j.meta.Close(), j.mark.Close())
}

// checksum is over all of an entry that raft acts on.
func checksum(e *raft.Log) uint32 {
	var head [17]byte
	binary.LittleEndian.PutUint64(head[0:], e.Index)
	binary.LittleEndian.PutUint64(head[8:], e.Term)
	head[16] = byte(e.Type)
	return crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, e.Data)
}

// mark is a file that says how far the history reaches that is on the disk: the last entry of the log, and the entry that the
// last snapshot ends with. It is written after them, without waiting for the disk: the system keeps it when the process dies.
// After a power cut it may be behind, never ahead.
type mark struct {
	f              *os.File
	seq            uint64
	last, snapshot uint64
}

const (
	// slotSize keeps the two slots of a mark on different sectors, so that a torn write leaves one of them whole.
	slotSize  = 4096
	markBytes = 3*8 + 4
)

// openMark opens or, if fresh, creates a mark.
func openMark(path string, fresh bool) (*mark, error) {
	flags := os.O_RDWR
	if fresh {
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s is missing", ErrCorrupt, path)
	}
	if err != nil {
		return nil, err
	}
	m := &mark{f: f}
	for slot := range int64(2) {
		var b [markBytes]byte
		if _, err := f.ReadAt(b[:], slot*slotSize); err != nil {
			continue // shorter: never written
		}
		seq := binary.LittleEndian.Uint64(b[0:])
		if crc32.Checksum(b[:markBytes-4], castagnoli) == binary.LittleEndian.Uint32(b[markBytes-4:]) && seq > m.seq {
			m.seq, m.last, m.snapshot = seq, binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:])
		}
	}
	if fresh && m.seq == 0 {
		for range 2 { // both slots
			err = errors.Join(err, m.set(0, 0, true))
		}
	}
	if err == nil && m.seq == 0 {
		err = fmt.Errorf("%w: %s: neither of its two copies is whole", ErrCorrupt, path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return m, nil
}

// set writes both down; sync waits until they are on the disk.
func (m *mark) set(last, snapshot uint64, sync bool) error {
	var b [markBytes]byte
	binary.LittleEndian.PutUint64(b[0:], m.seq+1)
	binary.LittleEndian.PutUint64(b[8:], last)
	binary.LittleEndian.PutUint64(b[16:], snapshot)
	binary.LittleEndian.PutUint32(b[markBytes-4:], crc32.Checksum(b[:markBytes-4], castagnoli))
	if _, err := m.f.WriteAt(b[:], int64(m.seq+1)%2*slotSize); err != nil {
		return err
	}
	m.seq, m.last, m.snapshot = m.seq+1, last, snapshot
	if sync {
		return m.f.Sync()
	}
	return nil
}

func (m *mark) Close() error { return errors.Join(m.f.Sync(), m.f.Close()) }

// namesWith lists the files of a folder whose names end in suffix, in order.
func namesWith(dir, suffix string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), suffix) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
