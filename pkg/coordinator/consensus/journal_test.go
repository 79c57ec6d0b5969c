package consensus

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/types"
)

// open opens a journal of small segments and fails the test if it cannot.
func open(t *testing.T, dir string, vfs types.VFS) *journal {
	t.Helper()
	j, err := openJournal(dir, journalOptions{SegmentSize: 4096, VFS: vfs, Fatal: func(error) {}, Log: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func entries(from, to uint64) []*raft.Log {
	var out []*raft.Log
	for i := from; i <= to; i++ {
		out = append(out, &raft.Log{Index: i, Term: 1 + i/20, Type: raft.LogCommand, Data: fmt.Appendf(nil, "entry %d %s", i, strings.Repeat("x", 100))})
	}
	return out
}

func store(t *testing.T, j *journal, from, to uint64) {
	t.Helper()
	for i := from; i <= to; i += 3 {
		if err := j.StoreLogs(entries(i, min(i+2, to))); err != nil {
			t.Fatal(err)
		}
	}
}

// checkEntries wants exactly these entries.
func checkEntries(t *testing.T, j *journal, from, to uint64) {
	t.Helper()
	first, err := j.FirstIndex()
	last, err2 := j.LastIndex()
	if err != nil || err2 != nil || first != from || last != to {
		t.Fatalf("entries %d to %d, want %d to %d (%v, %v)", first, last, from, to, err, err2)
	}
	for _, want := range entries(from, to) {
		var got raft.Log
		if err := j.GetLog(want.Index, &got); err != nil {
			t.Fatal(err)
		}
		if got.AppendedAt = want.AppendedAt; !reflect.DeepEqual(got, *want) {
			t.Fatalf("entry %d: %+v, want %+v", want.Index, got, *want)
		}
	}
}

func TestJournalKeepsEntriesAndVotes(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, nil)
	if !j.IsMonotonic() {
		t.Error("raft would not empty the log after a snapshot")
	}
	if cache, err := raft.NewLogCache(512, j); err != nil || !cache.IsMonotonic() {
		t.Error("the cache hides that the log is monotonic")
	}
	store(t, j, 1, 100)
	if err := j.SetUint64([]byte("CurrentTerm"), 7); err != nil {
		t.Fatal(err)
	}
	if err := j.DeleteRange(1, 10); err != nil { // behind a snapshot
		t.Fatal(err)
	}
	if err := j.DeleteRange(91, 100); err != nil { // at odds with the leader
		t.Fatal(err)
	}
	j.Close()
	j = open(t, dir, nil)
	checkEntries(t, j, 11, 90)
	store(t, j, 91, 95)
	j.Close()
	j = open(t, dir, nil)
	checkEntries(t, j, 11, 95)
	if term, err := j.GetUint64([]byte("CurrentTerm")); term != 7 || err != nil {
		t.Errorf("term %d, %v, want 7", term, err)
	}
	if err := j.Wipe(); err != nil {
		t.Fatal(err)
	}
	store(t, j, 500, 510) // behind a snapshot that was installed
	j.Close()
	checkEntries(t, open(t, dir, nil), 500, 510)
}

// Every bit of every file of the log matters: none can be flipped without somebody noticing, or else nothing was lost.
func TestJournalNoticesDamage(t *testing.T) {
	made := t.TempDir()
	j := open(t, made, nil)
	store(t, j, 1, 100)
	if err := j.SetUint64([]byte("CurrentTerm"), 7); err != nil {
		t.Fatal(err)
	}
	j.Close()
	files, err := os.ReadDir(made)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	noticed := 0
	check := func(name, what string, harm func([]byte) []byte) {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(made)); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if data = harm(data); data == nil {
			err = os.Remove(path)
		} else {
			err = os.WriteFile(path, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		j, err := openJournal(dir, journalOptions{SegmentSize: 4096, Fatal: func(error) {}, Log: hclog.NewNullLogger()})
		if err != nil {
			noticed++
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s, %s: %v, want an ErrCorrupt", name, what, err)
			}
			return
		}
		defer j.Close()
		checkEntries(t, j, 1, 100)
		if term, err := j.GetUint64([]byte("CurrentTerm")); term != 7 || err != nil {
			t.Errorf("%s, %s: term %d, %v", name, what, term, err)
		}
	}
	for _, f := range files {
		check(f.Name(), "removed", func([]byte) []byte { return nil })
		check(f.Name(), "emptied", func([]byte) []byte { return []byte{} })
		for range 40 {
			var bit int
			check(f.Name(), "flipped", func(b []byte) []byte {
				bit = rng.IntN(8 * min(len(b), 6000))
				b[bit/8] ^= 1 << (bit % 8)
				return b
			})
			check(f.Name(), "cut short", func(b []byte) []byte { return b[:rng.IntN(min(len(b), 6000))] })
		}
	}
	if noticed < 40*len(files) { // most of what is there is entries
		t.Errorf("damage noticed %d times only, of %d files", noticed, len(files))
	}
}

// faultFS fails the next writes or syncs of segments.
type faultFS struct {
	types.VFS
	mu    sync.Mutex
	write error
	sync  error
}

func (f *faultFS) set(write, sync error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.write, f.sync = write, sync
}

func (f *faultFS) Create(dir, name string, size uint64) (types.WritableFile, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.write != nil {
		return nil, f.write
	}
	w, err := f.VFS.Create(dir, name, size)
	return &faultFile{w, f}, err
}

func (f *faultFS) OpenWriter(dir, name string) (types.WritableFile, error) {
	w, err := f.VFS.OpenWriter(dir, name)
	return &faultFile{w, f}, err
}

type faultFile struct {
	types.WritableFile
	fs *faultFS
}

func (f *faultFile) WriteAt(p []byte, at int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.fs.write != nil {
		n, _ := f.WritableFile.WriteAt(p[:len(p)/2], at)
		return n, f.fs.write
	}
	return f.WritableFile.WriteAt(p, at)
}

func (f *faultFile) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.fs.sync != nil {
		return f.fs.sync
	}
	return f.WritableFile.Sync()
}

func TestJournalNeverRetriesAFailedWrite(t *testing.T) {
	for name, fault := range map[string][2]error{"disk full": {syscall.ENOSPC, nil}, "failed fsync": {nil, syscall.EIO}} {
		t.Run(name, func(t *testing.T) {
			dir, vfs := t.TempDir(), &faultFS{VFS: walfs.New()}
			var told []error
			j, err := openJournal(dir, journalOptions{SegmentSize: 4096, VFS: vfs, Fatal: func(err error) { told = append(told, err) }, Log: hclog.NewNullLogger()})
			if err != nil {
				t.Fatal(err)
			}
			store(t, j, 1, 10)
			vfs.set(fault[0], fault[1])
			if err := j.StoreLogs(entries(11, 12)); err == nil {
				t.Error("a write is said to be durable")
			}
			vfs.set(nil, nil)
			if err := j.StoreLogs(entries(11, 12)); err == nil {
				t.Error("it goes on after a failed write")
			}
			if len(told) != 1 {
				t.Errorf("told of %v, want of one failure", told)
			}
			j.Close()
			j = open(t, dir, nil)
			if last, err := j.LastIndex(); last < 10 || err != nil {
				t.Errorf("after a restart the last entry is %d, %v; 10 were acknowledged", last, err)
			}
		})
	}
}
