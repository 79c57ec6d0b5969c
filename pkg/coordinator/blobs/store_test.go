package blobs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"go.uber.org/goleak"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// someBytes are n bytes of which no two seeds give the same.
func someBytes(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func digestOf(data []byte) ledger.Digest { return sha256.Sum256(data) }

func openStore(t testing.TB, c Config) *Store {
	t.Helper()
	if c.Dir == "" {
		c.Dir = "/blobs"
	}
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func putBytes(t testing.TB, s *Store, data []byte) ledger.Digest {
	t.Helper()
	d := digestOf(data)
	if err := s.Put(t.Context(), d, int64(len(data)), bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestBlobsOfEverySizeComeBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "blobs")
	s := openStore(t, Config{Dir: dir, Rate: 1 << 40})
	for i, n := range []int{0, 1, 100, sliceSize - 1, sliceSize, syncEvery, syncEvery + sliceSize + 1} {
		want := someBytes(byte(i), n)
		d := putBytes(t, s, want)
		putBytes(t, s, want) // again
		if got, err := s.Read(d); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes came back as %d (%v)", n, len(got), err)
		}
		content, size, err := s.Open(d)
		if err != nil || size != int64(n) {
			t.Fatalf("open: %d bytes (%v), want %d", size, err, n)
		}
		if n <= 100 { // it reads byte by byte, and seeks
			if err := iotest.TestReader(content, want); err != nil {
				t.Error(err)
			}
		}
		if _, err := content.Seek(int64(n/2), io.SeekStart); err != nil {
			t.Error(err)
		}
		if got, err := io.ReadAll(content); err != nil || !bytes.Equal(got, want[n/2:]) {
			t.Errorf("the second half came back as %d bytes (%v)", len(got), err)
		}
		if err := content.Close(); err != nil {
			t.Error(err)
		}
	}
	if st := s.Stats(); st.Blobs != 7 || st.Ingested != 7 || st.Corrupt != 0 {
		t.Errorf("stats %+v, want 7 blobs, each taken in once", st)
	}
	again := openStore(t, Config{Dir: dir})
	if a, b := again.Stats(), s.Stats(); a.Blobs != b.Blobs || a.Bytes != b.Bytes {
		t.Errorf("after opening again: %+v, want %+v", a, b)
	}
	if free, total, err := s.Disk(); err != nil || free > total {
		t.Errorf("disk has %d of %d bytes left (%v)", free, total, err)
	}
}

func TestWhatIsNotAsAnnouncedLeavesNothing(t *testing.T) {
	m := newMemFS()
	s := openStore(t, Config{FS: m, MaxBlob: 3 * sliceSize})
	data := someBytes(1, 2*sliceSize)
	d := digestOf(data)
	gone, stop := context.WithCancelCause(t.Context())
	stop(errors.New("the caller left"))
	broken := errors.New("line broke")
	for _, tc := range []struct {
		name string
		ctx  context.Context
		d    ledger.Digest
		size int
		r    io.Reader
		want error
	}{
		{"a flipped bit", t.Context(), d, len(data), io.MultiReader(bytes.NewReader(data[:len(data)-1]), bytes.NewReader([]byte{^data[len(data)-1]})), ErrMismatch},
		{"another digest", t.Context(), digestOf(nil), len(data), bytes.NewReader(data), ErrMismatch},
		{"a byte less", t.Context(), d, len(data), bytes.NewReader(data[:len(data)-1]), ErrMismatch},
		{"a byte more", t.Context(), d, len(data), io.MultiReader(bytes.NewReader(data), strings.NewReader("x")), ErrMismatch},
		{"too large", t.Context(), d, 3*sliceSize + 1, bytes.NewReader(data), ErrTooLarge},
		{"a negative size", t.Context(), d, -1, bytes.NewReader(data), ErrTooLarge},
		{"a broken line", t.Context(), d, len(data), io.MultiReader(bytes.NewReader(data[:sliceSize+5]), iotest.ErrReader(broken)), broken},
		{"a broken line at the end", t.Context(), d, len(data), io.MultiReader(bytes.NewReader(data), iotest.ErrReader(broken)), broken},
		{"a line that a proxy broke", t.Context(), d, len(data), io.MultiReader(bytes.NewReader(data[:5]), iotest.ErrReader(io.ErrUnexpectedEOF)), io.ErrUnexpectedEOF},
		{"nobody waits", gone, d, len(data), bytes.NewReader(data), context.Cause(gone)},
	} {
		err := s.Put(tc.ctx, tc.d, int64(tc.size), tc.r)
		if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.d.String()) {
			t.Errorf("%s: %v, want %v with the digest", tc.name, err, tc.want)
		}
		if paths := m.paths(); len(paths) != 0 || s.Has(tc.d) || s.pending != 0 {
			t.Errorf("%s: left %q, %d bytes pending", tc.name, paths, s.pending)
		}
	}
	if st := s.Stats(); st.Refused != 4 || st.Blobs != 0 {
		t.Errorf("stats %+v, want 4 refused", st)
	}
}

func TestAConfigurationThatCannotBeIsRefused(t *testing.T) {
	for _, c := range []Config{
		{}, {Dir: "/b", Rate: -1}, {Dir: "/b", ScrubRate: -1}, {Dir: "/b", Grace: -1}, {Dir: "/b", MaxBlob: Limit + 1}, {Dir: "/b", Reserve: 1},
	} {
		c.FS = newMemFS()
		if _, err := Open(c); err == nil || !strings.Contains(err.Error(), "want") {
			t.Errorf("%+v: %v, want an error that says what would be right", c, err)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: file}); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a file as the folder: %v, want an error that names it", err)
	}
	for _, text := range []string{"", "xy", strings.Repeat("A", 64), strings.Repeat("a", 62), strings.Repeat("a", 66)} {
		if _, err := ParseDigest(text); err == nil {
			t.Errorf("digest %q is taken", text)
		}
	}
}

func TestAFullDiskRefusesNewBlobsOnly(t *testing.T) {
	m := newMemFS()
	s := openStore(t, Config{FS: m})
	old := putBytes(t, s, someBytes(1, 100))
	m.setFree(150, 1000)
	if s.Full() {
		t.Error("85 % used counts as full")
	}
	data := someBytes(2, 51) // 99 would be left
	if err := s.Put(t.Context(), digestOf(data), 51, bytes.NewReader(data)); !errors.Is(err, ErrFull) {
		t.Errorf("put beyond the reserve: %v, want %v", err, ErrFull)
	}
	m.setFree(100, 1000)
	if !s.Full() {
		t.Error("90 % used does not count as full")
	}
	if err := s.Put(t.Context(), old, 100, bytes.NewReader(nil)); err != nil {
		t.Errorf("put of what is here: %v", err)
	}
	if _, err := s.Read(old); err != nil {
		t.Errorf("read: %v", err)
	}
	m.setFree(1000, 1000)
	putBytes(t, s, data)
	m.setFree(0, 0) // not known
	putBytes(t, s, someBytes(3, 100))
}

func TestEveryFlippedByteIsFound(t *testing.T) {
	for _, how := range []struct {
		name string
		find func(s *Store, d ledger.Digest) error
	}{
		{"read", func(s *Store, d ledger.Digest) error { _, err := s.Read(d); return err }},
		{"open", func(s *Store, d ledger.Digest) error {
			content, size, err := s.Open(d)
			if err != nil {
				return err
			}
			defer content.Close()
			got, err := io.ReadAll(io.LimitReader(content, size)) // never sees the end of the file
			if int64(len(got)) >= size {
				return errors.New("all of it was handed out")
			}
			return err
		}},
		{"link", func(s *Store, d ledger.Digest) error { return s.Link(context.Background(), d, "/linked") }},
		{"scrub", func(s *Store, d ledger.Digest) error {
			if err := s.Scrub(context.Background()); err != nil {
				return err
			}
			return map[bool]error{false: ErrCorrupt}[s.Has(d)]
		}},
	} {
		t.Run(how.name, func(t *testing.T) {
			m := newMemFS()
			s := openStore(t, Config{FS: m, Rate: 1 << 40, ScrubRate: 1 << 40})
			data := someBytes(1, 200)
			other := putBytes(t, s, someBytes(2, 200))
			for at := range len(data) + 2 {
				d := putBytes(t, s, data) // repairs it
				switch at {
				case len(data):
					m.cut(s.Path(d), len(data)-1)
				case len(data) + 1:
					m.cut(s.Path(d), 0)
				default:
					m.flip(s.Path(d), at, 1<<(at%8))
				}
				if err := how.find(s, d); !errors.Is(err, ErrCorrupt) {
					t.Fatalf("byte %d: %v, want %v", at, err, ErrCorrupt)
				}
				if missing := s.Missing(); s.Has(d) || len(missing) != 1 || missing[0] != d {
					t.Fatalf("byte %d: missing %v, want %v", at, missing, d)
				}
			}
			if st := s.Stats(); st.Corrupt != uint64(len(data)+2) || st.Bad != 1 || st.Missing != 1 || !s.Has(other) {
				t.Errorf("stats %+v, want every damage counted and the other blob untouched", st)
			}
			if _, err := s.Read(digestOf(data)); !errors.Is(err, ErrNotFound) {
				t.Errorf("read after the damage: %v, want %v", err, ErrNotFound)
			}
			if again := openStore(t, Config{FS: m}); again.Has(digestOf(data)) || again.Stats().Bad != 1 {
				t.Errorf("opened again: %+v, want the copy aside still", again.Stats())
			}
		})
	}
}

func TestWhatIsMoreThanTheBlobIsDamageToo(t *testing.T) {
	m := newMemFS()
	s := openStore(t, Config{FS: m})
	for _, n := range []int{0, 100} {
		data := someBytes(1, n)
		d := putBytes(t, s, data)
		m.names[s.Path(d)].data = append(bytes.Clone(data), 'x')
		if _, err := s.Read(d); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d bytes and one more: %v, want %v", n, err, ErrCorrupt)
		}
	}
	// One that was found like that.
	empty := digestOf([]byte("not empty"))
	m.names[s.Path(empty)] = &memFile{}
	m.names[filepath.Dir(s.Path(empty))] = nil
	if _, err := openStore(t, Config{FS: m}).Read(empty); !errors.Is(err, ErrCorrupt) {
		t.Errorf("an empty file of another name: %v, want %v", err, ErrCorrupt)
	}
	// One that somebody removed.
	d := putBytes(t, s, someBytes(2, 10))
	if err := m.Remove(s.Path(d)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(d); !errors.Is(err, ErrCorrupt) || s.Has(d) {
		t.Errorf("a file that is gone: %v, want %v", err, ErrCorrupt)
	}
}

func TestLinksShareTheFile(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, Config{Dir: filepath.Join(dir, "blobs")})
	data := someBytes(1, sliceSize+1)
	d := putBytes(t, s, data)
	path := filepath.Join(dir, "params.safetensors")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Link(t.Context(), d, path); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	a, _ := os.Stat(path)
	b, _ := os.Stat(s.Path(d))
	if err != nil || !bytes.Equal(got, data) || !os.SameFile(a, b) || a.Mode().Perm()&0o222 != 0 {
		t.Errorf("linked %d bytes (%v), same file %t, mode %v, want the blob's own file, read-only", len(got), err, os.SameFile(a, b), a.Mode())
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("folder holds %v, want the blobs and the link", entries)
	}
	if err := s.Remove(d); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
		t.Errorf("after the removal %d bytes are linked (%v), want all", len(got), err)
	}
	if err := s.Link(t.Context(), d, path); !errors.Is(err, ErrNotFound) {
		t.Errorf("link of a removed blob: %v, want %v", err, ErrNotFound)
	}
	if err := s.Remove(d); err != nil {
		t.Errorf("second removal: %v", err)
	}
}

func TestWhereLinksCannotBeACopyIsMade(t *testing.T) {
	m := newMemFS()
	s := openStore(t, Config{FS: m})
	data := someBytes(1, sliceSize+1)
	d := putBytes(t, s, data)
	m.setFault(func(_ int, op, _ string) error {
		if op == "link" {
			return errors.New("another file system")
		}
		return nil
	})
	if err := s.Link(t.Context(), d, "/copy"); err != nil {
		t.Fatal(err)
	}
	if f := m.names["/copy"]; f == nil || !bytes.Equal(f.data, data) || f == m.names[s.Path(d)] || len(temps(m.paths())) != 0 {
		t.Errorf("files %q, want a copy and nothing temporary", m.paths())
	}
}

// A tenth of a small disk stays free, of a large one 20 GB.
func TestReserveIsBounded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		fraction    float64
		total, want uint64
	}{{0.1, 50e9, 5e9}, {0.1, 1e12, 20e9}, {0, 1e12, 0}, {0.5, 30e9, 15e9}} {
		if got := reserved(c.fraction, c.total); got != c.want {
			t.Errorf("%g of %d bytes: %d stay free, want %d", c.fraction, c.total, got, c.want)
		}
	}
}
