package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
)

// startThree opens three coordinators that know each other, and says which of them leads.
func startThree(t *testing.T) (all []*tested, leader int) {
	t.Helper()
	var peers []string
	var held []net.Listener // all three at once, so that they differ
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, l)
		peers = append(peers, l.Addr().String())
	}
	for _, l := range held {
		l.Close()
	}
	for i, peer := range peers {
		all = append(all, start(t, func(cfg *consensus.Config) {
			cfg.Name = string(rune('a' + i))
			cfg.Peer.Listen, cfg.Peers, cfg.Expect = peer, peers, 3
			cfg.Heartbeat = 100 * time.Millisecond
		}))
	}
	return all, leading(t, all)
}

// leading waits for a leader that all know of.
func leading(t *testing.T, all []*tested) int {
	t.Helper()
	for late := time.Now().Add(20 * time.Second); time.Now().Before(late); time.Sleep(5 * time.Millisecond) {
		for i, c := range all {
			agree := c.node.Leads()
			for _, other := range all {
				name, _ := other.node.Leader()
				agree = agree && name == c.name
			}
			if agree {
				return i
			}
		}
	}
	t.Fatal("no leader in 20 seconds")
	return 0
}

func TestThreeCoordinators(t *testing.T) {
	all, first := startThree(t)
	leader, follower, third := all[first], all[(first+1)%3], all[(first+2)%3]
	secret := leader.firstToken(t)
	client := follower.client(t, secret) // that has perhaps not heard of the token
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()

	t.Run("a write by way of a follower", func(t *testing.T) {
		e, err := client.Submit(ctx, api.Submit{Name: "moons", YAML: "shards: 4"})
		if err != nil {
			t.Fatal(err)
		}
		again, err := third.client(t, secret).Reading(api.Linearizable).Experiment(ctx, "moons")
		if err != nil || again.UID != e.UID {
			t.Errorf("by way of the third: %+v, %v", again, err)
		}
		if status, answer, _ := follower.call(t, "PATCH", "/v1/experiments/moons", secret, api.Patch{Desired: "pause"}, "If-Match", `"1"`); status != 412 {
			t.Errorf("another version: %d %s, want 412 from the leader", status, answer)
		}
		if status, answer, _ := follower.call(t, "POST", "/v1/experiments", secret, `{"yaml": "`+strings.Repeat("x", maxBody)+`"}`); status != 413 {
			t.Errorf("too large: %d %.80s, want 413", status, answer)
		}
	})

	t.Run("a stale read is the follower's", func(t *testing.T) {
		stale := client.Reading(api.Stale)
		for {
			list, err := stale.Experiments(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if len(list.Items) == 1 {
				break
			}
		}
	})

	t.Run("what was passed on is not passed on again", func(t *testing.T) {
		req, err := http.NewRequestWithContext(ctx, "GET", "http://peer/v1/experiments", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(consensus.ForwardedBy, "z")
		req.Header.Set("Authorization", "Bearer "+secret)
		follower.until(t, knowsToken(firstToken))
		rec := httptest.NewRecorder()
		follower.PeerHandler().ServeHTTP(rec, req)
		if rec.Code != 503 || codeOf(t, rec.Body.Bytes()) != api.NoLeader {
			t.Errorf("%d %s, want 503 and no leader", rec.Code, rec.Body)
		}
	})

	t.Run("nobody claims to have been passed on", func(t *testing.T) {
		status, answer, _ := follower.call(t, "GET", "/v1/experiments", secret, nil, consensus.ForwardedBy, "z")
		if status != 200 {
			t.Errorf("%d %s, want the header ignored", status, answer)
		}
		status, answer, _ = follower.call(t, "POST", "/v1/tokens/bootstrap", "", nil, atLoopback, "1", "X-Forwarded-For", "10.0.0.1")
		if status != 401 {
			t.Errorf("%d %s, want 401", status, answer)
		}
	})

	t.Run("blobs", func(t *testing.T) {
		data := bytes.Repeat([]byte("blob "), 1<<18)
		digest := digestOf(string(data))
		open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
		for range 2 {
			if err := client.PutBlob(ctx, digest, int64(len(data)), open); err != nil {
				t.Fatal(err)
			}
		}
		var got bytes.Buffer
		if n, err := third.client(t, secret).Blob(ctx, digest, &got); err != nil || n != int64(len(data)) || !bytes.Equal(got.Bytes(), data) {
			t.Errorf("%d bytes, %v, want %d", n, err, len(data))
		}
	})

	t.Run("members, a backup and metrics by way of a follower", func(t *testing.T) {
		members, err := client.Members(ctx)
		if err != nil || len(members.Items) != 3 {
			t.Fatalf("members %+v, %v, want three", members.Items, err)
		}
		for _, m := range members.Items {
			if m.Role != api.Voter || !m.Healthy || m.Leader != (m.Name == leader.name) {
				t.Errorf("member %+v", m)
			}
		}
		var tar bytes.Buffer
		if _, err := client.Backup(ctx, &tar); err != nil || !bytes.Contains(tar.Bytes(), []byte("backup.json")) {
			t.Errorf("backup of %d bytes: %v", tar.Len(), err)
		}
		leader.work.metrics.add(0)
		var steps []uint64
		for m, err := range client.Metrics(ctx, "moons", -1, false) {
			if err != nil {
				t.Fatal(err)
			}
			steps = append(steps, m.Step)
		}
		if !slices.Equal(steps, []uint64{0}) {
			t.Errorf("metrics of steps %v, want 0", steps)
		}
	})

	t.Run("another leader", func(t *testing.T) {
		endpoints := []string{leader.url, follower.url, third.url}
		anywhere, err := api.New(api.Config{Endpoints: endpoints, Token: secret})
		if err != nil {
			t.Fatal(err)
		}
		defer anywhere.Close()
		if err := anywhere.Lead(ctx, follower.name); err != nil {
			t.Fatal(err)
		}
		for i := range 5 { // while it changes
			if _, err := anywhere.Submit(ctx, api.Submit{Name: fmt.Sprint("x", i), YAML: "shards: 1"}); err != nil {
				t.Fatal(err)
			}
		}
		now := all[leading(t, all)]
		if now.name != follower.name {
			t.Errorf("%s leads, want %s", now.name, follower.name)
		}
		build, err := anywhere.Build(ctx)
		if err != nil || build.Leader != follower.name {
			t.Errorf("version %+v, %v, want leader %s", build, err, follower.name)
		}
		if status, answer, _ := third.call(t, "DELETE", "/v1/members/"+follower.name, secret, nil); status != 409 {
			t.Errorf("removing the leader: %d %s, want 409", status, answer)
		}
		if err := anywhere.RemoveMember(ctx, leader.name); err != nil {
			t.Errorf("removing the old leader: %v", err)
		}
	})
}

// TestNoLeader: what needs a leader says that there is none, the rest works.
func TestNoLeader(t *testing.T) {
	c := start(t, func(cfg *consensus.Config) {
		cfg.Peer.Listen, cfg.Peers, cfg.Expect = "127.0.0.1:0", []string{"127.0.0.1:1", "127.0.0.1:2"}, 3 // who never come
		cfg.Heartbeat = 100 * time.Millisecond
	})
	for _, tc := range []struct {
		method, path string
		status       int
	}{
		{"POST", "/v1/tokens/bootstrap", 503},
		{"GET", "/v1/experiments", 503},
		{"GET", "/v1/experiments?consistency=stale", 401},
		{"GET", "/readyz", 503},
		{"GET", "/startupz", 503},
		{"GET", "/livez", 200},
		{"GET", "/metrics", 200},
	} {
		status, answer, header := c.call(t, tc.method, tc.path, "guess", nil)
		if status != tc.status {
			t.Errorf("%s %s: %d %s, want %d", tc.method, tc.path, status, answer, tc.status)
		}
		if status == 503 && header.Get("Retry-After") == "" {
			t.Errorf("%s %s: no Retry-After", tc.method, tc.path)
		}
	}
}
