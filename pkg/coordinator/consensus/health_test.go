package consensus

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

func TestInstallGuard(t *testing.T) {
	now := time.Unix(0, 0)
	type look struct {
		after           time.Duration
		installs, added uint64
		stuck           bool
	}
	for _, tc := range []struct {
		name  string
		looks []look
	}{
		{"one after the other", []look{{time.Second, 1, 0, false}, {time.Second, 2, 0, false}, {time.Second, 3, 0, false}, {time.Second, 4, 0, true}}},
		{"all between two looks", []look{{time.Second, 5, 0, true}}},
		{"an entry between them", []look{{time.Second, 3, 0, false}, {time.Second, 3, 1, false}, {time.Second, 6, 1, false}}},
		{"far apart", []look{{time.Second, 3, 0, false}, {6 * time.Minute, 4, 0, false}, {time.Second, 6, 0, false}, {time.Second, 7, 0, true}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var g installGuard
			at := now
			for i, l := range tc.looks {
				at = at.Add(l.after)
				if got := g.stuck(at, l.installs, l.added); got != l.stuck {
					t.Errorf("look %d: stuck %v, want %v", i, got, l.stuck)
				}
			}
		})
	}
}

func TestConfigSaysWhatIsWrong(t *testing.T) {
	good := Config{Name: "a", DataDir: "d", Peer: Peer{Listen: "127.0.0.1:0"}}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Config){
		`name: "a/b"`:              func(c *Config) { c.Name = "a/b" },
		"data dir: empty":          func(c *Config) { c.DataDir = "" },
		"without TLS":              func(c *Config) { c.Peer.Listen = "0.0.0.0:7000" },
		`peer port: "x", want`:     func(c *Config) { c.Peer.Listen = "x" },
		"set a listen address":     func(c *Config) { c.Peer.Listen = ""; c.Join = "b:7000" },
		`peer "b", want host:port`: func(c *Config) { c.Join = "b" },
		"want one of the two":      func(c *Config) { c.Expect, c.Peers, c.Join = 3, []string{"b:1", "c:1"}, "b:1" },
		"only 1 peers are named":   func(c *Config) { c.Expect, c.Peers = 3, []string{"b:1"} },
		"none above the next":      func(c *Config) { c.Lease = 2 * time.Second },
	} {
		c := good
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if n, err := Open(within(t), c); err == nil {
			n.Close()
			t.Errorf("opened in spite of %q", want)
		}
	}
}

func TestErrorsHaveOneFamily(t *testing.T) {
	if !errors.Is(ErrLeadershipLost, ErrUncertain) {
		t.Error("ErrLeadershipLost is no ErrUncertain")
	}
	for _, e := range []*NotLeaderError{{}, {Leader: "a", Peer: "a:7000"}} {
		if !errors.Is(e, ErrNotLeader) || strings.Contains(e.Error(), "\n") {
			t.Errorf("%q", e)
		}
	}
}

// openRequest is one that raft has not answered.
type openRequest chan struct{}

func (r openRequest) Error() error { <-r; return raft.ErrLeadershipLost }

func TestStartingOverWaitsForWhatRaftHasToAnswer(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.configure("a")
	c.start("a")
	n := c.leader()
	request := make(openRequest)
	answer := sync.OnceFunc(func() { close(request) })
	t.Cleanup(answer)
	soon, cancel := context.WithTimeout(t.Context(), quick)
	defer cancel()
	if err := n.await(soon, request); !errors.Is(err, ErrUncertain) {
		t.Fatalf("a request without an answer: %v, want an ErrUncertain", err)
	}
	go n.startOver(errors.New("one snapshot after the other"))
	eventually(t, "nothing new is taken in", func() bool { return n.ctx.Err() != nil })
	if state := n.raft.State(); state == raft.Shutdown {
		t.Error("raft is stopped before it has answered")
	}
	if _, err := n.Apply(within(t), ledger.ID{}, ledger.Noop{}); !errors.Is(err, ErrClosed) {
		t.Errorf("an entry while the node ends: %v, want an ErrClosed", err)
	}
	answer()
	if err := <-n.Fatal(); err == nil || n.raft.State() != raft.Shutdown {
		t.Errorf("%v, raft is %v; want the reason, and it stopped", err, n.raft.State())
	}
}
