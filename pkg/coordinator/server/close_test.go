package server

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// unled is a coordinator that knows no leader. Its state is empty, and of some index.
type unled struct {
	Node
	index   uint64
	changed chan struct{}
}

func (n *unled) Leader() (name, peer string) { return "", "" }
func (n *unled) Leads() bool                 { return false }
func (n *unled) Changed() <-chan struct{}    { return n.changed }

func (n *unled) View(_ context.Context, _ consensus.Consistency, see func(*ledger.State)) (uint64, time.Duration, error) {
	see(ledger.New())
	return n.index, 0, nil
}

func unledServer(t *testing.T, n *unled) *Server {
	t.Helper()
	s, err := New(Options{Name: "a", Node: n, Work: &pretended{}, Check: pretend, TokenFile: "token"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestCloseDoesNotWaitForCommits: a request that waits for a quorum has ten seconds when the coordinator is stopped.
func TestCloseDoesNotWaitForCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := unledServer(t, &unled{})
		waits := &route{method: "POST", path: "/x", scope: open, where: here, do: func(c *call) (any, error) {
			<-c.r.Context().Done() // as a commit without a quorum does
			return nil, api.Errorf(api.Timeout, "not committed")
		}}
		s.mux.HandleFunc("POST /x", func(w http.ResponseWriter, r *http.Request) { s.answer(waits, w, r) })
		answered := make(chan struct{})
		go func() {
			s.PeerHandler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/x", nil))
			close(answered)
		}()
		synctest.Wait()
		begin := time.Now()
		s.end()
		<-answered
		if took := time.Since(begin); took != closing {
			t.Errorf("took %v, want %v", took, closing)
		}
	})
}

// TestWatchBehindTheClient: a coordinator that knows less than its client says nothing until it knows as much: what the client
// saw created would seem to be gone.
func TestWatchBehindTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &unled{index: 7, changed: make(chan struct{})}
		s := unledServer(t, n)
		defer s.Close()
		rec := httptest.NewRecorder()
		ctx, cancel := context.WithCancel(t.Context())
		c := &call{Server: s, w: rec, r: httptest.NewRequestWithContext(ctx, "GET", "/v1/watch?since=9", nil)}
		over := make(chan struct{})
		go func() {
			defer close(over)
			_, _ = c.watch()
		}()
		synctest.Wait()
		if rec.Body.Len() > 0 {
			t.Errorf("before it knows as much: %s", rec.Body)
		}
		before := n.changed
		n.index, n.changed = 9, make(chan struct{})
		close(before)
		time.Sleep(2 * calm)
		synctest.Wait()
		if got := rec.Body.String(); len(got) == 0 {
			t.Error("once it knows as much: nothing, want the inventory")
		}
		cancel()
		<-over
	})
}

// TestForget: what there is of an experiment, in memory and on the disk, goes with it.
func TestForget(t *testing.T) {
	c := start(t, nil)
	client := c.admin(t)
	_, kept := submit(t, client, "kept")
	_, gone := submit(t, client, "gone")
	d := newDrivers(site{node: c.node, metrics: t.TempDir()})
	for _, id := range []ledger.ID{kept, gone} {
		ended := &driver{done: make(chan struct{})}
		close(ended.done)
		d.all[id], d.led[id] = ended, known{}
		if err := os.Mkdir(filepath.Join(d.metrics, id.String()), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c.apply(t, gone, ledger.ExpPhase{Phase: ledger.Cancelled})
	if err := d.forget(t.Context()); err != nil || len(d.all) != 2 {
		t.Errorf("%v, %d drivers, want both while they are in the ledger", err, len(d.all))
	}
	if err := client.Delete(t.Context(), "gone", 0); err != nil {
		t.Fatal(err)
	}
	if err := d.forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(d.metrics)
	if err != nil || len(left) != 1 || left[0].Name() != kept.String() || d.all[kept] == nil || len(d.all) != 1 || len(d.led) != 1 {
		t.Errorf("%v, folders %v, %d drivers, %d layouts, want those of one experiment", err, left, len(d.all), len(d.led))
	}
}
