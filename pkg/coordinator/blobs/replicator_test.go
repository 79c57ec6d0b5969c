package blobs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// member is a node of a cluster in this process.
type member struct {
	*Replicator
	fs     *memFS
	puts   atomic.Int64                    // bytes that came by PUT
	gets   atomic.Int64                    // requests
	line   func(http.Handler) http.Handler // harms what comes in; nil: does not
	server *httptest.Server
	done   chan struct{} // closed when the test ends
}

func (n *member) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := n.store.Handler()
	if n.line != nil {
		h = n.line(h)
	}
	if r.Method == http.MethodPut {
		r = r.Clone(r.Context()) // the server looks at the body of its own to see whether somebody wanted it
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.TeeReader(r.Body, counter{&n.puts}), r.Body}
	} else {
		n.gets.Add(1)
	}
	h.ServeHTTP(w, r)
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// cluster starts n nodes that know each other. Replicators do nothing by themselves before start. They are very
// patient.
func cluster(t testing.TB, n int, configure ...func(i int, m *member)) []*member {
	nodes := make([]*member, n)
	transport := &http.Transport{ExpectContinueTimeout: time.Minute}
	for i := range nodes {
		nodes[i] = &member{fs: newMemFS(), done: make(chan struct{})}
		nodes[i].Replicator = newReplicator(ReplicatorConfig{
			Store: openStore(t, Config{FS: nodes[i].fs, Rate: 1 << 40}),
			Peers: func() (peers []Peer) {
				for j, p := range nodes {
					if j != i {
						peers = append(peers, Peer{Name: string(rune('a' + j)), URL: p.server.URL, Voter: true, Client: &http.Client{Transport: transport}})
					}
				}
				return peers
			},
		})
		nodes[i].stall, nodes[i].retry = time.Hour, time.Millisecond
		for _, c := range configure {
			c(i, nodes[i])
		}
		nodes[i].server = httptest.NewServer(nodes[i])
	}
	t.Cleanup(func() {
		for _, n := range nodes {
			close(n.done)
			n.Close()
		}
		transport.CloseIdleConnections()
		for _, n := range nodes {
			n.server.Close()
		}
	})
	return nodes
}

func reader(data []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
}

func (n *member) put(ctx context.Context, data []byte) (ledger.Digest, error) {
	d := digestOf(data)
	return d, n.PutQuorum(ctx, d, int64(len(data)), reader(data))
}

// eventually waits for what happens in the background.
func eventually(t testing.TB, what string, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !happened(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

func (n *member) holds(data []byte) bool {
	got, err := n.store.Read(digestOf(data))
	return err == nil && bytes.Equal(got, data)
}

func TestABlobComesToAllNodes(t *testing.T) {
	nodes := cluster(t, 3)
	for _, size := range []int{0, 1, 3*sliceSize + 5} {
		data := someBytes(1, size)
		d, err := nodes[0].put(t.Context(), data)
		if err != nil || !nodes[0].holds(data) || !nodes[1].holds(data) && !nodes[2].holds(data) {
			t.Fatalf("%d bytes: %v, want them here and on another node", size, err)
		}
		eventually(t, "the third copy", func() bool { return nodes[1].holds(data) && nodes[2].holds(data) })
		// A second time nothing is sent.
		before := nodes[1].puts.Load() + nodes[2].puts.Load()
		if err := nodes[0].Spread(t.Context(), d); err != nil {
			t.Error(err)
		}
		if _, err := nodes[1].put(t.Context(), data); err != nil {
			t.Error(err)
		}
		if after := nodes[1].puts.Load() + nodes[2].puts.Load() + nodes[0].puts.Load(); after != before {
			t.Errorf("%d bytes sent again", after-before)
		}
	}
}

func TestOneNodeAloneIsAQuorumOfOne(t *testing.T) {
	r := NewReplicator(ReplicatorConfig{Store: openStore(t, Config{FS: newMemFS()})})
	data := someBytes(1, 10)
	d := digestOf(data)
	if err := r.PutQuorum(t.Context(), d, 10, reader(data)); err != nil {
		t.Error(err)
	}
	if err := r.Spread(t.Context(), d); err != nil {
		t.Error(err)
	}
	if err := r.Spread(t.Context(), digestOf(nil)); !errors.Is(err, ErrNotFound) {
		t.Errorf("spread of nothing: %v, want %v", err, ErrNotFound)
	}
	if err := r.Fetch(t.Context(), digestOf(nil)); !errors.Is(err, ErrNotFound) {
		t.Errorf("fetch from nobody: %v, want %v", err, ErrNotFound)
	}
	r.Close()
	for what, err := range map[string]error{
		"put":   r.PutQuorum(t.Context(), d, 10, reader(data)),
		"fetch": r.Fetch(t.Context(), digestOf(nil)),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close: %v, want %v", what, err, ErrClosed)
		}
	}
}

// hangs is a peer that takes a little and then does nothing.
func (n *member) hangs(http.Handler) http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.CopyN(io.Discard, r.Body, 1000)
		<-n.done
	})
}

// Other ways in which a peer is of no use.
var (
	refuses = func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "out of order", http.StatusTeapot) })
	}
	breaks = func(http.Handler) http.Handler {
		return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	}
	flips = func(h http.Handler) http.Handler { // a bit of what is sent to it
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r, body := r.Clone(r.Context()), r.Body
			r.Body = io.NopCloser(readerFunc(func(p []byte) (int, error) {
				n, err := body.Read(p)
				if n > 0 {
					p[n-1] ^= 4
				}
				return n, err
			}))
			h.ServeHTTP(w, r)
		})
	}
)

func TestAQuorumOfThreeDoesWithoutOne(t *testing.T) {
	data := someBytes(1, 300_000)
	for _, tc := range []struct {
		name  string
		spoil func(m *member)
		both  error // if both peers are like that
	}{
		{"hangs", func(m *member) { m.line = m.hangs }, errStalled},
		{"refuses", func(m *member) { m.line = refuses }, ErrNoQuorum},
		{"breaks", func(m *member) { m.line = breaks }, ErrNoQuorum},
		{"line flips bits", func(m *member) { m.line = flips }, ErrMismatch},
		{"full", func(m *member) { m.fs.setFree(10, 1000) }, ErrFull},
		{"dead", func(m *member) {
			m.line = breaks
			m.server.Listener.Close()
		}, ErrNoQuorum},
	} {
		t.Run(tc.name, func(t *testing.T) {
			nodes := cluster(t, 3)
			tc.spoil(nodes[2])
			if _, err := nodes[0].put(t.Context(), data); err != nil || !nodes[0].holds(data) || !nodes[1].holds(data) {
				t.Fatalf("with one peer: %v, want the blob on both nodes", err)
			}
			nodes = cluster(t, 3, func(_ int, m *member) {
				if tc.both == errStalled {
					m.stall = 100 * time.Millisecond
				}
			})
			tc.spoil(nodes[1])
			tc.spoil(nodes[2])
			other := someBytes(2, 300_000)
			if _, err := nodes[0].put(t.Context(), other); !errors.Is(err, ErrNoQuorum) || !errors.Is(err, tc.both) {
				t.Errorf("without a peer: %v, want %v because of %v", err, ErrNoQuorum, tc.both)
			}
			for _, n := range nodes[1:] {
				eventually(t, "nothing half-written", func() bool { return len(temps(n.fs.paths())) == 0 })
				if n.store.Has(digestOf(other)) {
					t.Error("a peer has what it did not confirm")
				}
			}
		})
	}
}

func TestThisNodeHasToHaveIt(t *testing.T) {
	nodes := cluster(t, 3)
	nodes[0].fs.setFree(10, 1000)
	if _, err := nodes[0].put(t.Context(), someBytes(1, 100)); !errors.Is(err, ErrFull) || errors.Is(err, ErrNoQuorum) {
		t.Errorf("put on a full disk: %v, want %v", err, ErrFull)
	}
	unreadable := errors.New("no such file")
	err := nodes[1].PutQuorum(t.Context(), digestOf(nil), 5, func() (io.ReadCloser, error) { return nil, unreadable })
	if !errors.Is(err, unreadable) {
		t.Errorf("put of what cannot be read: %v, want %v", err, unreadable)
	}
	if _, err := nodes[1].put(t.Context(), someBytes(2, 100)); err != nil {
		t.Errorf("put while a peer is full: %v", err)
	}
}

func TestNonvotersDoNotCount(t *testing.T) {
	nodes := cluster(t, 2)
	nodes[1].line = refuses
	peers := nodes[0].peers
	nodes[0].peers = func() []Peer {
		list := peers()
		list[0].Voter = false
		return list
	}
	if _, err := nodes[0].put(t.Context(), someBytes(1, 100)); err != nil {
		t.Error(err)
	}
}

func TestWhoeverStopsWaitingStopsThePut(t *testing.T) {
	nodes := cluster(t, 3, func(i int, m *member) {
		if i > 0 {
			m.line = m.hangs
		}
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	left := errors.New("the caller left")
	data := someBytes(1, 100)
	go func() {
		for !nodes[0].store.Has(digestOf(data)) {
			time.Sleep(time.Millisecond)
		}
		cancel(left)
	}()
	if _, err := nodes[0].put(ctx, data); !errors.Is(err, left) {
		t.Errorf("put: %v, want %v", err, left)
	}
	go func() {
		eventually(t, "a fetch", func() bool { return nodes[1].gets.Load() > 0 || nodes[2].gets.Load() > 0 })
		nodes[0].Close()
	}()
	if err := nodes[0].Fetch(t.Context(), digestOf(nil)); !errors.Is(err, ErrClosed) {
		t.Errorf("fetch while the replicator is closed: %v, want %v", err, ErrClosed)
	}
}

// TestAPeerThatVerifiesItsCopyIsAlive has a peer read its copy for longer than a sender waits for a sign of life.
func TestAPeerThatVerifiesItsCopyIsAlive(t *testing.T) {
	t.Parallel() // it costs time, and no work
	const stall = time.Second
	nodes := cluster(t, 2, func(_ int, m *member) { m.stall, m.store.stall = stall, stall })
	data := someBytes(1, 12*sliceSize)
	putBytes(t, nodes[1].store, data)
	nodes[1].fs.setFault(func(_ int, op, _ string) error {
		if op == "read" {
			time.Sleep(stall / 5)
		}
		return nil
	})
	var read atomic.Int64
	open := func() (io.ReadCloser, error) {
		return io.NopCloser(io.TeeReader(bytes.NewReader(data), counter{&read})), nil
	}
	if err := nodes[0].PutQuorum(t.Context(), digestOf(data), int64(len(data)), open); err != nil {
		t.Errorf("put of what the peer has: %v", err)
	}
	if n := read.Load(); n != int64(len(data)) {
		t.Errorf("%d bytes read, want the %d for this node alone", n, len(data))
	}
}

func TestAStragglerIsLeftBehind(t *testing.T) {
	nodes := cluster(t, 3, func(i int, m *member) {
		m.straggle = time.Millisecond
		if i == 2 {
			m.line = m.hangs
		}
	})
	var closed atomic.Int64
	data := someBytes(1, 16*sliceSize) // more than waits in a connection
	open := func() (io.ReadCloser, error) {
		return struct {
			io.Reader
			io.Closer
		}{bytes.NewReader(data), closerFunc(func() error { closed.Add(1); return nil })}, nil
	}
	if err := nodes[0].PutQuorum(t.Context(), digestOf(data), int64(len(data)), open); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all readers closed", func() bool { return closed.Load() == 3 })
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }

func TestThePeersGetAnswersThatTheyUnderstand(t *testing.T) {
	nodes := cluster(t, 1)
	store := nodes[0].store
	data := someBytes(1, 100)
	d := putBytes(t, store, data)
	other := digestOf([]byte("other"))
	small := openStore(t, Config{FS: newMemFS(), MaxBlob: 3})
	for _, tc := range []struct {
		name, method, path, ranges string
		body                       io.Reader
		h                          http.Handler
		status                     int
		want                       []byte
	}{
		{"get", "GET", prefix + d.String(), "", nil, store.Handler(), 200, data},
		{"a range", "GET", prefix + d.String(), "bytes=10-", nil, store.Handler(), 206, data[10:]},
		{"a range beyond the end", "GET", prefix + d.String(), "bytes=100-", nil, store.Handler(), 416, nil},
		{"head", "HEAD", prefix + d.String(), "", nil, store.Handler(), 200, []byte{}},
		{"get of nothing", "GET", prefix + other.String(), "", nil, store.Handler(), 404, nil},
		{"no digest", "GET", prefix + "x", "", nil, store.Handler(), 400, nil},
		{"no digest to put", "PUT", prefix + "x", "", bytes.NewReader(nil), store.Handler(), 400, nil},
		{"no size", "PUT", prefix + other.String(), "", io.NopCloser(bytes.NewReader(data)), store.Handler(), 411, nil},
		{"not as announced", "PUT", prefix + other.String(), "", bytes.NewReader(data), store.Handler(), 422, nil},
		{"too large", "PUT", prefix + other.String(), "", bytes.NewReader(data), small.Handler(), 413, nil},
		{"put", "PUT", prefix + other.String(), "", bytes.NewReader([]byte("other")), store.Handler(), 204, []byte{}},
		{"another method", "DELETE", prefix + d.String(), "", nil, store.Handler(), 405, nil},
	} {
		req := httptest.NewRequest(tc.method, tc.path, tc.body)
		if tc.ranges != "" {
			req.Header.Set("Range", tc.ranges)
		}
		if tc.status == 411 {
			req.ContentLength = -1
		}
		w := httptest.NewRecorder()
		tc.h.ServeHTTP(w, req)
		if w.Code != tc.status || tc.want != nil && !bytes.Equal(w.Body.Bytes(), tc.want) {
			t.Errorf("%s: %d %q, want %d", tc.name, w.Code, w.Body, tc.status)
		}
		if tc.status == 200 && w.Header().Get("ETag") != `"`+d.String()+`"` {
			t.Errorf("%s: ETag %s, want the digest", tc.name, w.Header().Get("ETag"))
		}
	}
}

func TestABlobThatIsSentAgainIsNewToGC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, Config{FS: newMemFS()})
		data := someBytes(1, 100)
		for range 4 {
			w := httptest.NewRecorder()
			s.Handler().ServeHTTP(w, httptest.NewRequest("PUT", prefix+digestOf(data).String(), bytes.NewReader(data)))
			if w.Code != http.StatusNoContent {
				t.Fatalf("put: %d %s", w.Code, w.Body)
			}
			time.Sleep(s.Grace() * 2 / 3)
			if _, err := s.GC(t.Context(), func(ledger.Digest) bool { return false }); err != nil || !s.Has(digestOf(data)) {
				t.Fatalf("gone before it is as old as it may be: %v", err)
			}
		}
		if n := s.Stats().Ingested; n != 1 {
			t.Errorf("written %d times, want once", n)
		}
	})
}

func TestAnUploadThatHangsIsGivenUp(t *testing.T) {
	nodes := cluster(t, 1)
	nodes[0].store.stall = 10 * time.Millisecond
	conn, err := net.Dial("tcp", nodes[0].server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "PUT "+prefix+digestOf(nil).String()+" HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); err != nil { // until the server closes the connection
		t.Error(err)
	}
	eventually(t, "nothing half-written", func() bool { return len(nodes[0].fs.paths()) == 0 })
}
