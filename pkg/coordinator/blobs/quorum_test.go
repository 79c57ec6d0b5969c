package blobs

import (
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// gated is a peer that answers no PUT until gate is closed; asked counts them.
func gated(gate <-chan struct{}, asked *atomic.Int64) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				asked.Add(1)
				<-gate
			}
			h.ServeHTTP(w, r)
		})
	}
}

// large is a blob that goes to a quorum first.
func large(seed byte) []byte { return someBytes(seed, 2*sliceSize) }

// TestALargeBlobGoesToAQuorumFirst puts one while the peer that has its turn is held up, and one while the other is.
func TestALargeBlobGoesToAQuorumFirst(t *testing.T) {
	gate := make(chan struct{})
	var asked [3]atomic.Int64
	nodes := cluster(t, 3, func(i int, m *member) {
		m.hedge = time.Hour
		if i == 1 {
			m.line = gated(gate, &asked[i])
		} else {
			m.line = gated(closed(), &asked[i])
		}
	})
	data := large(1)
	done := make(chan error)
	go func() {
		_, err := nodes[0].put(t.Context(), data)
		done <- err
	}()
	eventually(t, "the first peer is asked, this node done", func() bool {
		return asked[1].Load() == 1 && nodes[0].store.Has(digestOf(data))
	})
	if n := asked[2].Load(); n != 0 {
		t.Errorf("the second peer is asked %d times before the first is done", n)
	}
	close(gate)
	if err := <-done; err != nil || !nodes[1].holds(data) {
		t.Errorf("%v, want it at the first peer", err)
	}
	eventually(t, "the third copy", func() bool { return nodes[2].holds(data) })
	// A small one goes everywhere at once.
	if _, err := nodes[0].put(t.Context(), data[:sliceSize]); err != nil {
		t.Error(err)
	}
	eventually(t, "all copies", func() bool { return nodes[1].holds(data[:sliceSize]) && nodes[2].holds(data[:sliceSize]) })
}

func closed() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// TestAPeerThatIsOfNoUseIsReplaced has the first peer fail at once, or not move, or move while this node is long done; the
// next blob then goes to the other one first.
func TestAPeerThatIsOfNoUseIsReplaced(t *testing.T) {
	for _, tc := range []struct {
		name  string
		hedge time.Duration
		line  func(m *member) func(http.Handler) http.Handler
	}{
		{"fails", time.Hour, func(*member) func(http.Handler) http.Handler { return refuses }},
		{"breaks", time.Hour, func(*member) func(http.Handler) http.Handler { return breaks }},
		{"hangs", time.Millisecond, func(m *member) func(http.Handler) http.Handler { return m.hangs }},
		{"is slow", 50 * time.Millisecond, func(m *member) func(http.Handler) http.Handler { return m.trickles }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			nodes := cluster(t, 3, func(i int, m *member) {
				m.hedge, m.straggle = tc.hedge, time.Millisecond
				if i == 1 {
					m.line = tc.line(m)
				}
			})
			data := large(1)
			if _, err := nodes[0].put(t.Context(), data); err != nil || !nodes[0].holds(data) || !nodes[2].holds(data) {
				t.Fatalf("%v, want the blob here and at the second peer", err)
			}
			eventually(t, "the first peer is known to be slow", func() bool {
				nodes[0].mu.Lock()
				defer nodes[0].mu.Unlock()
				b, known := nodes[0].speeds["b"]
				return known && b == 0 && nodes[0].speeds["c"] > 0
			})
			peers := nodes[0].peers()
			if nodes[0].rank(peers); peers[0].Name != "c" {
				t.Errorf("%s comes first, want the one that is of use", peers[0].Name)
			}
		})
	}
}

// trickles is a peer that takes one byte at a time, and time for each.
func (n *member) trickles(http.Handler) http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var one [1]byte
		for {
			if _, err := io.ReadFull(r.Body, one[:]); err != nil {
				return
			}
			select {
			case <-n.done:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
}

// TestTheFastestPeerComesFirst asks for the order of peers that are known, and of one that is not.
func TestTheFastestPeerComesFirst(t *testing.T) {
	r := newReplicator(ReplicatorConfig{})
	defer r.Close()
	p := &putting{Replicator: r, size: 2 * sliceSize}
	for name, took := range map[string]time.Duration{"slow": time.Minute, "fast": time.Second} {
		s := &sending{}
		s.moved.Store(p.size)
		p.note(Peer{Name: name}, s, nil, took)
	}
	p.note(Peer{Name: "dead"}, &sending{}, ErrNoQuorum, time.Second)
	p.note(Peer{Name: "dead"}, &sending{}, nil, 0) // it had the blob: that says nothing
	peers := []Peer{{Name: "dead"}, {Name: "slow"}, {Name: "fast"}, {Name: "new"}}
	r.rank(peers)
	for i, want := range []string{"new", "fast", "slow", "dead"} {
		if peers[i].Name != want {
			t.Errorf("place %d: %s, want %s", i, peers[i].Name, want)
		}
	}
}

// TestFiveNodesNeedTwoPeers has one of the first two fail: one more is asked, not both.
func TestFiveNodesNeedTwoPeers(t *testing.T) {
	gate := make(chan struct{})
	var asked [5]atomic.Int64
	nodes := cluster(t, 5, func(i int, m *member) {
		m.hedge = time.Hour
		switch i {
		case 1:
			m.line = refuses
		case 2:
			m.line = gated(gate, &asked[i])
		default:
			m.line = gated(closed(), &asked[i])
		}
	})
	var digest ledger.Digest
	done := make(chan error)
	data := large(1)
	go func() {
		var err error
		digest, err = nodes[0].put(t.Context(), data)
		done <- err
	}()
	eventually(t, "the third peer has it", func() bool { return nodes[3].holds(data) && asked[2].Load() == 1 })
	if asked[4].Load() != 0 {
		t.Error("the fourth peer is asked before the quorum is complete")
	}
	close(gate)
	if err := <-done; err != nil || digest != digestOf(data) {
		t.Error(err)
	}
	eventually(t, "all that can have it do", func() bool { return nodes[2].holds(data) && nodes[4].holds(data) })
}
