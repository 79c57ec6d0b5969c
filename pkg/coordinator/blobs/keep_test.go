package blobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// gcModel is what GC may and must do with a few blobs.
type gcModel struct {
	t        *testing.T
	m        *memFS
	s        *Store
	contents map[ledger.Digest][]byte
	since    map[ledger.Digest]time.Time // of those that are here
	used     map[ledger.Digest]bool
	pins     map[ledger.Digest][]func()
	holds    []func()
	trace    []string
}

// gc collects, with a state of the references that is a moment old.
func (g *gcModel) gc(used map[ledger.Digest]bool) {
	removed, err := g.s.GC(g.t.Context(), func(d ledger.Digest) bool { return used[d] })
	if err != nil {
		g.t.Fatal(err)
	}
	for d, since := range g.since {
		free := !used[d] && len(g.pins[d]) == 0 && len(g.holds) == 0 && time.Since(since) >= defaultGrace
		if free {
			delete(g.since, d)
			removed--
		}
		if g.s.Has(d) == free {
			g.t.Fatalf("%s: blob %s is here: %t; used %t, %d pins, %d holds, for %v", g.trace, d, !free, used[d], len(g.pins[d]), len(g.holds), time.Since(since))
		}
	}
	if removed != 0 {
		g.t.Fatalf("%s: the number of removed blobs is %d too high", g.trace, removed)
	}
}

func (g *gcModel) step(r *rand.Rand) {
	digests := slices.SortedFunc(maps.Keys(g.contents), compareDigests)
	d := digests[r.IntN(len(digests))]
	data := g.contents[d]
	_, here := g.since[d]
	op := []string{"put", "put", "put while GC runs", "require", "forget", "pin", "unpin", "hold", "release", "sleep", "sleep", "sleep", "gc", "gc", "gc of an old state", "damage", "open"}[r.IntN(17)]
	g.trace = append(g.trace, op+" "+d.String()[:4])
	switch op {
	case "put":
		putBytes(g.t, g.s, data)
		g.since[d] = time.Now()
	case "put while GC runs":
		body := io.MultiReader(bytes.NewReader(data[:50]), readerFunc(func([]byte) (int, error) { g.gc(g.used); return 0, io.EOF }), bytes.NewReader(data[50:]))
		if here {
			g.since[d] = time.Now() // and the body is not read
		}
		if err := g.s.Put(g.t.Context(), d, int64(len(data)), body); err != nil {
			g.t.Fatal(err)
		}
		g.since[d] = time.Now()
	case "require":
		g.used[d] = true
		if g.s.Require(d); here {
			g.since[d] = time.Now()
		}
	case "forget":
		delete(g.used, d)
	case "pin":
		g.pins[d] = append(g.pins[d], g.s.Pin(d))
	case "unpin":
		if n := len(g.pins[d]); n > 0 {
			g.pins[d][n-1]()
			g.pins[d][n-1]() // is harmless
			g.pins[d] = g.pins[d][:n-1]
		}
	case "hold":
		g.holds = append(g.holds, g.s.Hold())
	case "release":
		if n := len(g.holds); n > 0 {
			g.holds[n-1]()
			g.holds[n-1]()
			g.holds = g.holds[:n-1]
		}
	case "sleep":
		time.Sleep(time.Duration(r.Int64N(int64(defaultGrace))))
	case "gc":
		g.gc(g.used)
	case "gc of an old state":
		old := maps.Clone(g.used)
		g.used[d] = true
		if g.s.Require(d); here {
			g.since[d] = time.Now()
		}
		g.gc(old)
	case "damage":
		if here {
			g.m.flip(g.s.Path(d), r.IntN(len(data)), 1)
			if _, err := g.s.Read(d); !errors.Is(err, ErrCorrupt) {
				g.t.Fatalf("%s: damage is not found: %v", g.trace, err)
			}
			delete(g.since, d)
		}
	case "open":
		g.s = openStore(g.t, Config{FS: g.m})
		clear(g.pins)
		g.holds = nil
		for d := range g.since {
			g.since[d] = time.Now()
		}
	}
	for d := range g.contents {
		if _, here := g.since[d]; g.s.Has(d) != here {
			g.t.Fatalf("%s: blob %s is here: %t", g.trace, d, !here)
		}
	}
	if op != "open" {
		for _, d := range g.s.Missing() {
			if g.s.Has(d) {
				g.t.Fatalf("%s: blob %s is here and missing", g.trace, d)
			}
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestGCRemovesWhatNobodyNeedsAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		contents := map[ledger.Digest][]byte{}
		for i := range 5 {
			data := someBytes(byte(i), 100)
			contents[digestOf(data)] = data
		}
		for seed := range uint64(80) {
			m := newMemFS()
			g := &gcModel{t: t, m: m, s: openStore(t, Config{FS: m}), contents: contents, since: map[ledger.Digest]time.Time{},
				used: map[ledger.Digest]bool{}, pins: map[ledger.Digest][]func(){}, trace: []string{fmt.Sprint("seed ", seed)}}
			r := rand.New(rand.NewPCG(seed, 0))
			for range 120 {
				g.step(r)
			}
		}
	})
}

func TestMissingIsForgottenWhenNobodyNeedsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemFS()
		s := openStore(t, Config{FS: m})
		a, b := digestOf([]byte("a")), digestOf([]byte("b"))
		s.Require(a, b)
		none := func(ledger.Digest) bool { return false }
		if _, err := s.GC(t.Context(), none); err != nil || len(s.Missing()) != 2 {
			t.Errorf("missing %v (%v), want both: the state may be older than they are", s.Missing(), err)
		}
		time.Sleep(defaultGrace)
		if _, err := s.GC(t.Context(), func(d ledger.Digest) bool { return d == a }); err != nil || !slices.Equal(s.Missing(), []ledger.Digest{a}) {
			t.Errorf("missing %v (%v), want %v", s.Missing(), err, a)
		}
		// What was set aside goes after a week.
		d := putBytes(t, s, []byte("a"))
		m.flip(s.Path(d), 0, 1)
		_, _ = s.Read(d)
		time.Sleep(badAge)
		if _, err := s.GC(t.Context(), none); err != nil || s.Stats().Bad != 1 {
			t.Errorf("%d files aside after a week (%v), want 1", s.Stats().Bad, err)
		}
		time.Sleep(time.Second)
		if _, err := s.GC(t.Context(), none); err != nil || s.Stats().Bad != 0 || len(m.paths()) != 0 {
			t.Errorf("files %q after more than a week (%v), want none", m.paths(), err)
		}
	})
}

func TestGCStopsAndKeepsWhatItCannotRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemFS()
		s := openStore(t, Config{FS: m})
		d := putBytes(t, s, []byte("a"))
		time.Sleep(defaultGrace)
		none := func(ledger.Digest) bool { return false }
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if n, err := s.GC(ctx, none); n != 0 || !errors.Is(err, context.Canceled) {
			t.Errorf("gc that nobody waits for: %d removed (%v)", n, err)
		}
		m.setFault(func(_ int, op, _ string) error {
			if op == "remove" {
				return errCrashed
			}
			return nil
		})
		if n, err := s.GC(t.Context(), none); n != 0 || !errors.Is(err, errCrashed) || !s.Has(d) {
			t.Errorf("gc on a disk that fails: %d removed (%v), want the error and the blob", n, err)
		}
		m.setFault(nil)
		if n, err := s.GC(t.Context(), none); n != 1 || err != nil || s.Has(d) || s.Stats().Removed != 1 {
			t.Errorf("gc: %d removed (%v), want 1", n, err)
		}
	})
}

func TestScrubKeepsItsPaceAndItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemFS()
		c := Config{FS: m, ScrubRate: 300, Rate: 1 << 40}
		s := openStore(t, c)
		for i := range 10 {
			putBytes(t, s, someBytes(byte(i), 1000))
		}
		began := time.Now()
		if err := s.Scrub(t.Context()); err != nil {
			t.Fatal(err)
		}
		// A third of a second's worth is free.
		if took := time.Since(began).Round(time.Second); took != 33*time.Second {
			t.Errorf("10,000 bytes at 300 a second take %v, want 33 s", took)
		}
		if last, next := s.scrubState(); last.Unix() != time.Now().Unix() || next != (ledger.Digest{}) {
			t.Errorf("the last pass ended at %v and goes on at %v, want now and nowhere", last, next)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		if err := s.Scrub(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("scrub with a deadline: %v", err)
		}
		before := s.Stats().ScrubbedBytes - 10_000
		s = openStore(t, c)
		if err := s.Scrub(t.Context()); err != nil {
			t.Fatal(err)
		}
		if after := s.Stats().ScrubbedBytes; before != 4000 || after != 6000 {
			t.Errorf("%d bytes, then %d after opening again, want 4,000 and the other 6,000", before, after)
		}
		// Whatever is in the file, a scrub runs.
		for _, text := range []string{"", "x", "12", "12 x", "99999999999999999999 " + digestOf(nil).String()} {
			m.names["/blobs/scrub"] = &memFile{data: []byte(text)}
			if _, next := s.scrubState(); next != (ledger.Digest{}) {
				t.Errorf("%q: goes on at %v, want from the start", text, next)
			}
		}
	})
}

func TestWritesKeepTheirPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Config{FS: newMemFS(), Rate: 3 * sliceSize})
		began := time.Now()
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() { putBytes(t, s, someBytes(byte(i), 4*sliceSize)) })
		}
		all.Wait()
		if took := time.Since(began).Round(time.Second / 10); took != 5*time.Second {
			t.Errorf("16 MiB at 3 MiB a second, the first one free, take %v, want 5 s", took)
		}
	})
}

func TestASenderThatHangsHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Config{FS: newMemFS()})
		ctx, cancel := context.WithCancelCause(t.Context())
		left := errors.New("the sender left")
		var hanging sync.WaitGroup
		for i := range 3 * maxWriters {
			data := someBytes(byte(i), 2*sliceSize)
			hanging.Go(func() {
				body := io.MultiReader(bytes.NewReader(data[:sliceSize]), readerFunc(func([]byte) (int, error) { <-ctx.Done(); return 0, context.Cause(ctx) }))
				if err := s.Put(t.Context(), digestOf(data), int64(len(data)), body); !errors.Is(err, left) {
					t.Errorf("put of a sender that hangs: %v, want %v", err, left)
				}
			})
		}
		synctest.Wait()
		putBytes(t, s, someBytes(99, sliceSize))
		cancel(left)
		hanging.Wait()
	})
}

// TestManyAtOnce lets everything happen at the same time; reads give the content or say why not.
func TestManyAtOnce(t *testing.T) {
	m := newMemFS()
	s := openStore(t, Config{FS: m, Rate: 1 << 40, ScrubRate: 1 << 40, Grace: 1})
	var contents [][]byte
	for i := range 8 {
		contents = append(contents, someBytes(byte(i), 2000))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all, background sync.WaitGroup
	background.Go(func() {
		for r := rand.New(rand.NewPCG(1, 1)); ctx.Err() == nil; {
			if _, err := s.GC(t.Context(), func(ledger.Digest) bool { return r.IntN(2) == 0 }); err != nil {
				t.Error(err)
			}
			if err := s.Scrub(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	for g := range uint64(4) {
		all.Go(func() {
			r := rand.New(rand.NewPCG(2, g))
			for range 300 {
				data := contents[r.IntN(len(contents))]
				d := digestOf(data)
				release := s.Pin(d)
				if err := s.Put(t.Context(), d, int64(len(data)), bytes.NewReader(data)); err != nil {
					t.Error(err)
				}
				switch r.IntN(4) {
				case 0: // nobody else damages or removes anything: it has to be here
					m.mu.Lock()
					f := m.names[s.Path(d)]
					m.mu.Unlock()
					if f == nil {
						t.Errorf("blob %s was put, is pinned and not here", d)
					}
				case 1:
					if got, err := s.Read(d); err != nil || !bytes.Equal(got, data) {
						t.Errorf("pinned blob %s: %d bytes (%v)", d, len(got), err)
					}
				}
				release()
				other := contents[r.IntN(len(contents))]
				if got, err := s.Read(digestOf(other)); err == nil && !bytes.Equal(got, other) || err != nil && !errors.Is(err, ErrNotFound) {
					t.Errorf("blob %s: %d bytes (%v)", digestOf(other), len(got), err)
				}
			}
		})
	}
	all.Wait()
	cancel()
	background.Wait()
	if st := s.Stats(); st.Corrupt != 0 || st.Removed == 0 || s.pending != 0 {
		t.Errorf("stats %+v, %d bytes pending, want removals and no damage", st, s.pending)
	}
}
