package consensus

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// commit stores the blobs of a cut and commits it.
func (c *cluster) commit(exp ledger.ID, step uint64, parts ...[]byte) {
	c.t.Helper()
	cut := ledger.CutCommit{Generation: 1, Step: step}
	put := func(data []byte) ledger.Digest {
		d, err := c.leader().PutBlob(within(c.t), data) // by whoever leads, though anybody could
		if err != nil {
			c.t.Fatal(err)
		}
		return d
	}
	cut.Manifest = put([]byte("manifest"))
	for i, p := range parts {
		cut.Parts = append(cut.Parts, ledger.Part{Name: string(rune('a'+i)) + ".safetensors", Digest: put(p), Bytes: uint64(len(p))})
	}
	c.must(exp, cut)
}

// begin creates an experiment in its first generation.
func (c *cluster) begin(name string) ledger.ID {
	id := c.experiment(name)
	c.must(id, ledger.Register{Replica: "r", Incarnation: 1})
	c.must(id, ledger.GenerationOpen{Number: 1, Holders: []string{"r", "r"}, From: ledger.Start})
	return id
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

func TestBlobsOfACutSurviveAndFollow(t *testing.T) {
	t.Parallel()
	c := three(t)
	exp := c.begin("x")
	late := c.follower().cfg.Name
	c.kill(late)
	part := randomBytes(100_000)
	c.commit(exp, 10, part)
	digest := ledger.Digest(sha256.Sum256(part))
	n := c.leader()
	if got, err := n.Blob(within(t), digest); err != nil || !bytes.Equal(got, part) {
		t.Errorf("blob on the leader: %d bytes, %v", len(got), err)
	}
	c.start(late)
	eventually(t, "the blob on the node that was away, and that it is ready", func() bool {
		return c.nodes[late].blobs.Has(digest) && c.nodes[late].Ready() == nil
	})

	// A copy goes bad: what is read is good all the same.
	path := c.nodes[late].blobs.Path(digest)
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(part)
	bad[5000] ^= 1
	if err := os.WriteFile(path, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := c.nodes[late].Blob(within(t), digest); err != nil || !bytes.Equal(got, part) {
		t.Errorf("blob whose copy here is bad: %d bytes, %v", len(got), err)
	}
	if s := c.nodes[late].Stats(); s.Blobs.Corrupt != 1 {
		t.Errorf("%d damaged copies counted, want 1", s.Blobs.Corrupt)
	}
	r, size, err := c.nodes[late].OpenBlob(within(t), digest)
	if err != nil || size != int64(len(part)) {
		t.Fatal(size, err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, part) {
		t.Errorf("opened: %d bytes, %v", len(got), err)
	}
	r.Close()
	if _, err := n.Blob(within(t), ledger.Digest{1}); err == nil {
		t.Error("a blob that nobody has")
	}
}

func TestBlobWithoutAQuorumIsNotDurable(t *testing.T) {
	t.Parallel()
	c := three(t)
	n := c.leader()
	for name := range c.nodes {
		if name != n.cfg.Name {
			c.net.isolate(name, true)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), quick)
	defer cancel()
	if _, err := n.PutBlob(ctx, []byte("x")); err == nil {
		t.Error("a blob counts as durable on one node of three")
	}
}

func TestBlobsThatASnapshotNamesStay(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cfg := c.configure("a")
	cfg.hooks.grace = time.Nanosecond
	c.cfg["a"] = cfg
	c.start("a")
	exp := c.begin("x")
	part := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 1000) }
	for i := range 3 {
		c.commit(exp, uint64(i), part(i))
	}
	n := c.nodes["a"]
	if err := n.Snapshot(); err != nil {
		t.Fatal(err)
	}
	for i := 3; i < 9; i++ { // more than are kept
		c.commit(exp, uint64(i), part(i))
	}
	if _, err := n.collectOnce(); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, true, true, false, false, false, true, true, true} {
		if got := n.blobs.Has(sha256.Sum256(part(i))); got != want {
			t.Errorf("part of cut %d: there %v, want %v", i, got, want)
		}
	}
}

// identity is the one of the cluster, as a node knows it.
func identity(n *Node) (name string) {
	n.fsm.view(func(s *ledger.State) {
		id, _, _ := s.Cluster()
		name = id.String()
	})
	return name
}

func TestBackupBringsEverythingBack(t *testing.T) {
	t.Parallel()
	c := three(t)
	exp := c.begin("x")
	part := randomBytes(10_000)
	c.commit(exp, 10, part)
	var buffer bytes.Buffer
	if err := c.leader().Backup(within(t), &buffer); err != nil {
		t.Fatal(err)
	}
	backup := buffer.Bytes()
	experiment := func(n *Node) (e ledger.Experiment) {
		n.fsm.view(func(s *ledger.State) { e, _ = s.Experiment("x") })
		return e
	}
	was := experiment(c.leader())

	fresh := newCluster(t, "d", "e", "f")
	fresh.startAll()
	restore := func(data []byte, force func(*Node) string) error {
		return fresh.ask(func(n *Node) error { return n.RestoreFrom(within(t), bytes.NewReader(data), force(n)) })
	}
	unforced := func(*Node) string { return "" }
	for _, cut := range []int{1000, len(backup) / 2, len(backup) - 2000} {
		if err := restore(backup[:cut], unforced); !errors.Is(err, ErrCorrupt) {
			t.Errorf("backup cut after %d of %d bytes: %v, want an ErrCorrupt", cut, len(backup), err)
		}
	}
	flipped := bytes.Clone(backup)
	flipped[bytes.Index(flipped, part[:100])+50] ^= 1
	if err := restore(flipped, unforced); !errors.Is(err, ErrCorrupt) {
		t.Errorf("backup with a damaged blob: %v, want an ErrCorrupt", err)
	}
	reign, err := fresh.leader().Leadership(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := restore(backup, unforced); err != nil && !errors.Is(err, ledger.ErrConflict) { // it was uncertain the first time
		t.Fatal(err)
	}
	<-reign.Done() // whoever worked on the old state has to stop
	is := experiment(fresh.leader())
	if is.ID != was.ID || len(is.Cuts) != 1 || is.Cuts[0].Manifest != was.Cuts[0].Manifest || identity(fresh.leader()) != identity(c.leader()) {
		t.Errorf("restored %+v of cluster %s, want %+v of %s", is, identity(fresh.leader()), was, identity(c.leader()))
	}
	eventually(t, "the new coordinators in the list, and none of the old", func() bool {
		var nodes []ledger.Node
		fresh.leader().fsm.view(func(s *ledger.State) { nodes = s.Nodes() })
		return len(nodes) == 3 && nodes[0].Name == "d"
	})
	fresh.has("x")
	for _, n := range fresh.nodes {
		if got, err := n.Blob(within(t), sha256.Sum256(part)); err != nil || !bytes.Equal(got, part) {
			t.Errorf("blob on %s: %d bytes, %v", n.cfg.Name, len(got), err)
		}
	}
	fresh.experiment("y")
	if err := restore(backup, unforced); !errors.Is(err, ledger.ErrConflict) {
		t.Errorf("restore over experiments: %v, want an ErrConflict", err)
	}
	if err := restore(backup, identity); err != nil {
		t.Errorf("forced: %v", err)
	}
	fresh.experiment("z")
	fresh.has("x", "z")
}

func TestForward(t *testing.T) {
	t.Parallel()
	c := three(t)
	leader := c.leader()
	for _, n := range c.nodes {
		n.Handle("/v1/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if n == leader {
				w.Header().Set("ETag", "7")
				w.WriteHeader(http.StatusTeapot)
			} else if err := n.Forward(w, r); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			body, _ := io.ReadAll(r.Body)
			io.WriteString(w, n.cfg.Name+r.URL.Path+r.Header.Get("Authorization")+r.Header.Get(ForwardedBy)+string(body))
		}))
	}
	follower := c.follower()
	forward := func(header ...string) (*httptest.ResponseRecorder, error) {
		r := httptest.NewRequest("POST", "/v1/x", strings.NewReader("body"))
		r.Header.Set("Authorization", "Bearer 1")
		for _, h := range header {
			r.Header.Set(ForwardedBy, h)
		}
		w := httptest.NewRecorder()
		return w, follower.Forward(w, r)
	}
	eventually(t, "a follower that knows the leader", func() bool { name, _ := follower.Leader(); return name == leader.cfg.Name })
	w, err := forward()
	if want := leader.cfg.Name + "/v1/xBearer 1" + follower.cfg.Name + "body"; err != nil || w.Code != http.StatusTeapot || w.Header().Get("ETag") != "7" || w.Body.String() != want {
		t.Errorf("%d %q, %v, want %q", w.Code, w.Body, err, want)
	}
	var other *NotLeaderError
	if w, err := forward("z"); !errors.As(err, &other) || other.Leader != leader.cfg.Name || w.Body.Len() > 0 {
		t.Errorf("a second time: %v, want a NotLeaderError that names the leader", err)
	}
	if err := leader.Forward(httptest.NewRecorder(), httptest.NewRequest("GET", "/v1/x", nil)); !errors.Is(err, ErrNotLeader) {
		t.Errorf("forward to itself: %v", err)
	}
	c.net.isolate(follower.cfg.Name, true)
	if w, err := forward(); err == nil || w.Body.Len() > 0 {
		t.Errorf("to a leader that cannot be reached: %q, %v", w.Body, err)
	}
}
