package blobs

import (
	"bytes"
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// answering lets only so many bytes of each answer through, after a change, and counts them.
type answering struct {
	http.ResponseWriter
	left  int
	total *atomic.Int64
	spoil func(p []byte)
}

func (a *answering) Write(p []byte) (int, error) {
	if a.left < len(p) {
		_, _ = a.ResponseWriter.Write(p[:a.left])
		a.total.Add(int64(a.left))
		_ = http.NewResponseController(a.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	if a.spoil != nil {
		p = bytes.Clone(p)
		a.spoil(p)
	}
	a.left -= len(p)
	a.total.Add(int64(len(p)))
	return a.ResponseWriter.Write(p)
}

func limited(left int, total *atomic.Int64, spoil func([]byte)) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(&answering{w, left, total, spoil}, r)
		})
	}
}

func TestAFetchGoesOnWhereItBrokeOff(t *testing.T) {
	data := someBytes(1, 2*sliceSize+77)
	for _, holders := range []int{1, 2} {
		nodes := cluster(t, 3)
		var total atomic.Int64
		for _, n := range nodes[1 : 1+holders] {
			putBytes(t, n.store, data)
			n.line = limited(len(data)/5, &total, nil)
		}
		if err := nodes[0].Fetch(t.Context(), digestOf(data)); err != nil || !nodes[0].holds(data) {
			t.Fatalf("%d holders: %v", holders, err)
		}
		// What was on the way when the line broke may be lost.
		if sent := total.Load(); sent < int64(len(data)) || sent > 2*int64(len(data)) {
			t.Errorf("%d holders: %d bytes sent for %d", holders, sent, len(data))
		}
		if st := nodes[0].store.Stats(); st.Fetched != 1 || st.Ingested != 1 {
			t.Errorf("stats %+v, want one blob fetched", st)
		}
	}
}

// TestAFetchThatCannotWriteGoesOnElsewhere has the disk busy until the first peer is given up.
func TestAFetchThatCannotWriteGoesOnElsewhere(t *testing.T) {
	t.Parallel() // the first peer has to be given up
	data := someBytes(1, 1000)
	var total, asked atomic.Int64
	nodes := cluster(t, 3, func(_ int, m *member) { m.stall = time.Second })
	for range maxWriters {
		nodes[0].store.slots <- struct{}{}
	}
	for _, n := range nodes[1:] {
		putBytes(t, n.store, data)
		n.line = func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if asked.Add(1) == 2 {
					for range maxWriters {
						nodes[0].store.leave()
					}
				}
				limited(1<<30, &total, nil)(h).ServeHTTP(w, r)
			})
		}
	}
	if err := nodes[0].Fetch(t.Context(), digestOf(data)); err != nil || !nodes[0].holds(data) {
		t.Fatal(err)
	}
	if st := nodes[0].store.Stats(); st.Refused != 0 || asked.Load() != 2 {
		t.Errorf("%d contents refused, %d requests, want none and 2", st.Refused, asked.Load())
	}
}

func TestWhatIsNotNeededIsNotMissing(t *testing.T) {
	s := openStore(t, Config{FS: newMemFS()})
	a, b := digestOf([]byte("a")), digestOf([]byte("b"))
	s.Require(a, b)
	s.Forgo(func(d ledger.Digest) bool { return d == a })
	if got := s.Missing(); !slices.Equal(got, []ledger.Digest{b}) {
		t.Errorf("missing %v, want %v", got, b)
	}
	if s.Require(a); len(s.Missing()) != 2 {
		t.Error("what is required again is not missing again")
	}
}

func TestAFetchFindsTheWholeCopy(t *testing.T) {
	data := someBytes(1, 100_000) // its last digit decides which peer is asked first: both orders are tried
	d := digestOf(data)
	lies := func(p []byte) { p[0] ^= 1 }
	damage := func(m *member) { m.fs.flip(m.store.Path(d), 100, 1) }
	var total atomic.Int64
	for _, tc := range []struct {
		name string
		bad  func(m *member)
		want error // if both are like that
	}{
		{"damaged at its start", damage, ErrNotFound},
		{"damaged at its end", func(m *member) { m.fs.flip(m.store.Path(d), len(data)-1, 1) }, ErrNotFound},
		{"cut short", func(m *member) { m.fs.cut(m.store.Path(d), len(data)-1) }, ErrNotFound},
		{"not there", func(m *member) { _ = m.store.Remove(d) }, ErrNotFound},
		{"on a line that flips bits", func(m *member) { m.line = limited(1<<30, &total, lies) }, ErrMismatch},
		{"damaged, and its part taken", func(m *member) { damage(m); m.line = limited(len(data)/2, &total, nil) }, ErrMismatch},
		{"behind a peer that hangs", func(m *member) { m.line = m.hangs }, errStalled},
		{"behind a peer that refuses", func(m *member) { m.line = refuses }, nil},
		{"behind a peer that breaks off", func(m *member) { m.line = breaks }, nil},
		{"of a nonsense size", func(m *member) {
			m.line = func(http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(data[:10]) })
			}
		}, ErrMismatch},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel() // what hangs costs time, and no work
			for bad := 1; bad <= 2; bad++ {
				nodes := cluster(t, 3, func(_ int, m *member) {
					if tc.want == errStalled {
						m.stall = time.Second
					}
				})
				putBytes(t, nodes[1].store, data)
				putBytes(t, nodes[2].store, data)
				tc.bad(nodes[bad])
				if err := nodes[0].Fetch(t.Context(), d); err != nil || !nodes[0].holds(data) {
					t.Errorf("peer %d: %v", bad, err)
				}
				if err := nodes[0].store.Remove(d); err != nil {
					t.Fatal(err)
				}
				if bad == 1 && !nodes[1].store.Has(d) {
					putBytes(t, nodes[1].store, data)
					tc.bad(nodes[1])
				}
				tc.bad(nodes[3-bad])
				err := nodes[0].Fetch(t.Context(), d)
				if err == nil || nodes[0].store.Has(d) || len(nodes[0].fs.paths()) != 0 {
					t.Errorf("both peers: %v, files %q, want an error and nothing", err, nodes[0].fs.paths())
				}
				if tc.want != nil && !errors.Is(err, tc.want) || errors.Is(err, ErrNotFound) != (tc.want == ErrNotFound) {
					t.Errorf("both peers: %v, want %v", err, tc.want)
				}
			}
		})
	}
}

func TestNotFoundIsTheWordOfEveryPeer(t *testing.T) {
	nodes := cluster(t, 3)
	if err := nodes[0].Fetch(t.Context(), digestOf(nil)); !errors.Is(err, ErrNotFound) {
		t.Errorf("nobody has it: %v, want %v", err, ErrNotFound)
	}
	nodes[2].line = breaks
	if err := nodes[0].Fetch(t.Context(), digestOf(nil)); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("one has it not, one cannot be asked: %v, want an error that leaves it open", err)
	}
}

func TestAFetchEndsWhereThisDiskDoes(t *testing.T) {
	data := someBytes(1, 100)
	nodes := cluster(t, 2)
	putBytes(t, nodes[1].store, data)
	nodes[0].fs.setFree(10, 1000)
	if err := nodes[0].Fetch(t.Context(), digestOf(data)); !errors.Is(err, ErrFull) {
		t.Errorf("fetch on a full disk: %v, want %v", err, ErrFull)
	}
	nodes[0].fs.setFree(1000, 1000)
	nodes[0].fs.setFault(func(_ int, op, _ string) error {
		if op == "sync" {
			return errCrashed
		}
		return nil
	})
	if err := nodes[0].Fetch(t.Context(), digestOf(data)); !errors.Is(err, ErrBroken) {
		t.Errorf("fetch on a disk that fails: %v, want %v", err, ErrBroken)
	}
}

func TestOneFetchServesAllWhoWait(t *testing.T) {
	data := someBytes(1, 100)
	nodes := cluster(t, 2)
	putBytes(t, nodes[1].store, data)
	release := make(chan struct{})
	nodes[1].line = func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-release
			h.ServeHTTP(w, r)
		})
	}
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			if err := nodes[0].Fetch(t.Context(), digestOf(data)); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "a request", func() bool { return nodes[1].gets.Load() > 0 })
	close(release)
	all.Wait()
	if n := nodes[0].store.Stats().Fetched; n != 1 {
		t.Errorf("fetched %d times, want once", n)
	}
}

// TestWhatIsMissingComesByItself damages every byte of a blob in turn; scrub finds it and a peer replaces it.
func TestWhatIsMissingComesByItself(t *testing.T) {
	nodes := cluster(t, 3)
	data := someBytes(1, 50)
	d := putBytes(t, nodes[1].store, data)
	nodes[2].line = breaks
	nodes[0].start()
	nodes[0].store.Require(d)
	for at := range data {
		eventually(t, "the blob", func() bool { return nodes[0].holds(data) })
		nodes[0].fs.flip(nodes[0].store.Path(d), at, 0x10)
		if err := nodes[0].store.Scrub(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the blob", func() bool { return nodes[0].holds(data) && len(nodes[0].store.Missing()) == 0 })
	if st := nodes[0].store.Stats(); st.Corrupt != uint64(len(data)) || st.Fetched != uint64(len(data))+1 {
		t.Errorf("stats %+v, want %d found and fetched", st, len(data))
	}
	// What nobody has yet comes once somebody does.
	late := someBytes(2, 50)
	asked := nodes[1].gets.Load()
	nodes[0].store.Require(digestOf(late))
	eventually(t, "several attempts", func() bool { return nodes[1].gets.Load() > asked+3 })
	putBytes(t, nodes[1].store, late)
	eventually(t, "the late blob", func() bool { return nodes[0].holds(late) })
}

func TestAllNodesKeepEachOtherWhole(t *testing.T) {
	nodes := cluster(t, 3)
	for _, n := range nodes {
		n.start()
	}
	var digests []ledger.Digest
	contents := map[ledger.Digest][]byte{}
	for i := range 6 {
		data := someBytes(byte(i), 1000)
		d, err := nodes[i%3].put(t.Context(), data)
		if err != nil {
			t.Fatal(err)
		}
		digests, contents[d] = append(digests, d), data
		for _, n := range nodes {
			n.store.Require(d)
		}
	}
	whole := func() bool {
		for _, n := range nodes {
			for _, data := range contents {
				if !n.holds(data) {
					return false
				}
			}
		}
		return true
	}
	eventually(t, "all blobs everywhere", whole)
	for i, d := range digests { // each on another minority
		nodes[i%3].fs.flip(nodes[i%3].store.Path(d), 10*i, 1)
	}
	for _, n := range nodes {
		if err := n.store.Scrub(t.Context()); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "all blobs everywhere again", whole)
	for i, n := range nodes {
		if c := n.store.Stats().Corrupt; c != 2 {
			t.Errorf("node %d found %d damaged copies, want 2", i, c)
		}
	}
}
