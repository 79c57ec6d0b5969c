package blobs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// TestAFaultOfAnyCallNamesItselfAndLeavesNoWrongData fails each call of a put in turn.
func TestAFaultOfAnyCallNamesItselfAndLeavesNoWrongData(t *testing.T) {
	data := someBytes(1, sliceSize+1)
	d := digestOf(data)
	prepared := func() (*memFS, *Store) {
		m := newMemFS()
		s := openStore(t, Config{FS: m, Rate: 1 << 40})
		s.unit = sliceSize
		return m, s
	}
	m, s := prepared()
	m.setFault(nil)
	putBytes(t, s, data)
	ops := m.calls
	for _, want := range []string{"mkdir", "syncdir", "usage", "create", "write", "datasync", "sync", "close", "rename"} {
		if !slices.Contains(ops, want) {
			t.Fatalf("a put makes no call of %s: %q", want, ops)
		}
	}
	for n, op := range ops {
		for _, fault := range []error{syscall.EIO, syscall.ENOSPC, errShort} {
			if fault == errShort && op != "write" || op == "write" && n > 0 && ops[n-1] == "write" {
				continue // of writes in a row the first is enough
			}
			m, s := prepared()
			old := putBytes(t, s, nil)
			m.setFault(func(call int, _, _ string) error {
				if call == n {
					return fault
				}
				return nil
			})
			err := s.Put(t.Context(), d, int64(len(data)), bytes.NewReader(data))
			what := fmt.Sprintf("call %d, %s: %v", n, op, fault)
			if err == nil || s.Has(d) {
				t.Errorf("%s: put returns %v, here %t", what, err, s.Has(d))
				continue
			}
			if fault != errShort && !errors.Is(err, fault) {
				t.Errorf("%s: %v does not say so", what, err)
			}
			if left := temps(m.paths()); len(left) != 0 {
				t.Errorf("%s: leaves %q", what, left)
			}
			again := s.Put(t.Context(), d, int64(len(data)), bytes.NewReader(data))
			if strings.HasSuffix(op, "sync") || op == "syncdir" {
				select {
				case <-s.Broken():
				default:
					t.Errorf("%s: the store is not broken", what)
				}
				if known := s.Put(t.Context(), old, 0, nil); !errors.Is(known, ErrBroken) {
					t.Errorf("%s: a put of what is here: %v, want %v", what, known, ErrBroken)
				}
				if !errors.Is(err, ErrBroken) || !errors.Is(again, ErrBroken) || !errors.Is(s.Err(), fault) {
					t.Errorf("%s: %v, then %v, want %v for good", what, err, again, ErrBroken)
				}
				continue
			}
			if fault == syscall.ENOSPC && !errors.Is(err, ErrFull) {
				t.Errorf("%s: %v, want %v", what, err, ErrFull)
			}
			if got, err := s.Read(d); again != nil || err != nil || !bytes.Equal(got, data) || s.Err() != nil {
				t.Errorf("%s: the next put: %v, then %d bytes (%v)", what, again, len(got), err)
			}
		}
	}
}

// TestACrashAtAnyCallLeavesWhatWasAcknowledged cuts the power at each call of a script in turn, several times with other
// remains, and opens what is left.
func TestACrashAtAnyCallLeavesWhatWasAcknowledged(t *testing.T) {
	contents := map[ledger.Digest][]byte{}
	var digests []ledger.Digest
	for i, n := range []int{10, 0, 3000, 10} {
		data := someBytes(byte(i), n)
		digests = append(digests, digestOf(data))
		contents[digests[i]] = data
	}
	// script returns what may be relied on, and what was there before.
	script := func(m *memFS, s *Store) (acknowledged []ledger.Digest) {
		put := func(i int) {
			d := digests[i]
			if s.Put(t.Context(), d, int64(len(contents[d])), bytes.NewReader(contents[d])) == nil {
				acknowledged = append(acknowledged, d)
			}
		}
		put(0)
		put(1)
		put(0)
		m.flip(s.Path(digests[2]), 0, 1) // is there, and goes bad
		put(2)
		_, _ = s.GC(t.Context(), func(d ledger.Digest) bool { return true })
		_ = s.Remove(digests[3]) // is there, and goes
		_ = s.Scrub(t.Context())
		return acknowledged
	}
	prepared := func() (*memFS, *Store) {
		m := newMemFS()
		s := openStore(t, Config{FS: m, ScrubRate: 1 << 40})
		for _, d := range digests[2:] {
			putBytes(t, s, contents[d])
		}
		m.setFault(nil)
		return m, s
	}
	m, s := prepared()
	script(m, s)
	total := len(m.calls)
	for n := range total + 1 {
		for seed := range uint64(8) {
			m, s := prepared()
			m.setFault(func(call int, _, _ string) error {
				if call >= n {
					return errCrashed
				}
				return nil
			})
			acknowledged := script(m, s)
			after := m.crash(rand.New(rand.NewPCG(uint64(n), seed)))
			s = openStore(t, Config{FS: after})
			if left := temps(after.paths()); len(left) > 0 && !slices.Equal(left, []string{"/blobs/scrub.tmp"}) {
				t.Fatalf("call %d, seed %d: %q is left", n, seed, left)
			}
			for d, want := range contents {
				got, err := s.Read(d)
				flipped := d == digests[2] && !slices.Contains(acknowledged, d)
				switch {
				case err == nil && !bytes.Equal(got, want):
					t.Fatalf("call %d, seed %d: wrong data", n, seed)
				case err != nil && slices.Contains(acknowledged, d):
					t.Fatalf("call %d, seed %d: acknowledged and lost: %v", n, seed, err)
				case errors.Is(err, ErrCorrupt) && !flipped:
					t.Fatalf("call %d, seed %d: a name without its content: %v", n, seed, err)
				}
				putBytes(t, s, want)
			}
		}
	}
	if total < 40 {
		t.Errorf("the script makes %d calls, want all that there are", total)
	}
}

// TestWhatOpenFoundIsDurableOnceItIsPutAgain is a process that dies between a rename and its sync, and the power cut after
// the next one acknowledged the blob.
func TestWhatOpenFoundIsDurableOnceItIsPutAgain(t *testing.T) {
	for seed := range uint64(20) {
		m := newMemFS()
		s := openStore(t, Config{FS: m})
		putBytes(t, s, nil) // other names
		data := someBytes(1, 100)
		d := digestOf(data)
		m.setFault(func(_ int, op, path string) error {
			if op == "syncdir" && path != "/blobs" {
				return errCrashed
			}
			return nil
		})
		if err := s.Put(t.Context(), d, 100, bytes.NewReader(data)); !errors.Is(err, ErrBroken) {
			t.Fatalf("put without the last sync: %v, want %v", err, ErrBroken)
		}
		m.setFault(nil)
		s = openStore(t, Config{FS: m})
		if !s.Has(d) {
			t.Fatal("the file is not found")
		}
		putBytes(t, s, data)
		if got, err := openStore(t, Config{FS: m.crash(rand.New(rand.NewPCG(seed, 0)))}).Read(d); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("seed %d: acknowledged and lost: %v", seed, err)
		}
	}
}

func TestABadSectorIsDamage(t *testing.T) {
	m := newMemFS()
	s := openStore(t, Config{FS: m})
	d := putBytes(t, s, someBytes(1, 100))
	m.setFault(func(_ int, op, _ string) error {
		if op == "read" {
			return syscall.EIO
		}
		return nil
	})
	if _, err := s.Read(d); !errors.Is(err, ErrCorrupt) || !errors.Is(err, syscall.EIO) || s.Has(d) {
		t.Errorf("read: %v, want %v because of %v", err, ErrCorrupt, syscall.EIO)
	}
	// Where the copy cannot be set aside it is not served either, and found out again after the next start.
	m.setFault(nil)
	putBytes(t, s, someBytes(1, 100))
	m.flip(s.Path(d), 3, 1)
	m.setFault(func(_ int, op, _ string) error {
		if op == "rename" {
			return syscall.EROFS
		}
		return nil
	})
	if _, err := s.Read(d); !errors.Is(err, ErrCorrupt) || s.Has(d) {
		t.Errorf("read: %v, want %v", err, ErrCorrupt)
	}
	m.setFault(nil)
	if _, err := openStore(t, Config{FS: m}).Read(d); !errors.Is(err, ErrCorrupt) {
		t.Errorf("read after opening again: %v, want %v", err, ErrCorrupt)
	}
	// A shortage is not damage.
	d = putBytes(t, s, someBytes(2, 100))
	m.setFault(func(_ int, op, _ string) error {
		if op == "open" {
			return syscall.EMFILE
		}
		return nil
	})
	if _, err := s.Read(d); !errors.Is(err, syscall.EMFILE) || errors.Is(err, ErrCorrupt) || !s.Has(d) {
		t.Errorf("read without file descriptors: %v, want %v and the blob kept", err, syscall.EMFILE)
	}
}

func TestADamagedCopyDoesNotTakeItsSuccessorAlong(t *testing.T) {
	m := newMemFS()
	s := openStore(t, Config{FS: m})
	data := someBytes(1, 100)
	d := putBytes(t, s, data)
	slow, _, err := s.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	m.flip(s.Path(d), 3, 1)
	putBytes(t, s, data) // finds the damage first, and repairs it
	if _, err := io.ReadAll(slow); !errors.Is(err, ErrCorrupt) {
		t.Errorf("read of the old copy: %v, want %v", err, ErrCorrupt)
	}
	if got, err := s.Read(d); err != nil || !bytes.Equal(got, data) || s.Stats().Corrupt != 1 {
		t.Errorf("the new copy: %d bytes (%v), %d found damaged, want all and 1", len(got), err, s.Stats().Corrupt)
	}
}

// racing calls f once before a file is opened.
type racing struct {
	*memFS
	f func()
}

func (r *racing) Open(path string) (File, error) {
	if f := r.f; f != nil {
		r.f = nil
		f()
	}
	return r.memFS.Open(path)
}

func TestARemovalIsNoDamage(t *testing.T) {
	fsys := &racing{memFS: newMemFS()}
	s := openStore(t, Config{FS: fsys})
	data := someBytes(1, 100)
	d := putBytes(t, s, data)
	remove := func() {
		if err := s.Remove(d); err != nil {
			t.Error(err)
		}
	}
	fsys.f = remove
	if _, err := s.Read(d); !errors.Is(err, ErrNotFound) || s.Stats().Corrupt != 0 || len(s.Missing()) != 0 {
		t.Errorf("read while it is removed: %v, stats %+v, want %v", err, s.Stats(), ErrNotFound)
	}
	putBytes(t, s, data)
	fsys.f = func() { remove(); putBytes(t, s, data) }
	if got, err := s.Read(d); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read while it is replaced: %d bytes (%v)", len(got), err)
	}
}
