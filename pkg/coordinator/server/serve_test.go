package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

const tinyExperiment = `
name: tiny
seed: 1
data:      {dataset: two_moons, samples: 64}
model:     {kind: mlp, hidden: [4]}
loss:      {kind: parallel_tempering_cd}
sampler:   {kind: mala, steps: 1, step_size: 0.003}
tempering: {rungs: 3, chains: 4, placement: rung}
optimizer: {kind: adam, lr: 0.001}
train:     {steps: 20, batch: 4}
`

// serving runs a coordinator in a folder, until stop.
func serving(t *testing.T, dir string) (at Reached, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan Reached, 1), make(chan error, 1)
	go func() {
		ended <- Serve(ctx, Config{
			Consensus: consensus.Config{Name: "a", DataDir: dir, Peer: consensus.Peer{Listen: "127.0.0.1:0"}, Heartbeat: 50 * time.Millisecond, SegmentSize: 1 << 20},
			Listen:    "127.0.0.1:0", Admin: "127.0.0.1:0", NATS: NATS{Listen: "127.0.0.1:0"}, Version: "v0", Log: slog.New(slog.DiscardHandler),
			Ready: func(at Reached) { ready <- at },
		})
	}()
	select {
	case at = <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	return at, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	}
}

// TestServe starts a coordinator, gives it an experiment, stops it, and finds all of it again.
func TestServe(t *testing.T) {
	dir := t.TempDir()
	at, stop := serving(t, dir)
	client := firstClient(t, at, dir)
	e, err := client.Submit(t.Context(), api.Submit{YAML: tinyExperiment})
	if err != nil {
		t.Fatal(err)
	}
	if e.Name != "tiny" || e.Steps != 20 || e.Shards != 3 || !strings.Contains(e.YAML, "batch: 4") {
		t.Errorf("%+v", e)
	}
	if _, err := client.Submit(t.Context(), api.Submit{YAML: strings.Replace(tinyExperiment, "rungs", "rung", 1)}); asError(err).Code != api.Invalid || !strings.Contains(err.Error(), "rung") {
		t.Errorf("a misspelt key: %v", err)
	}
	shards, err := client.Shards(t.Context(), "tiny")
	if err != nil || len(shards.Items) != 3 || *shards.Items[2].Rung != 2 || shards.Items[2].Rows != 4 {
		t.Errorf("shards %+v, %v", shards.Items, err)
	}

	// The message bus knows the experiment, by its secret alone.
	work, ok, err := client.Ask(t.Context(), api.Ask{ID: "0", Incarnation: 1, Platform: "p"})
	if err != nil || !ok || work.Experiment != "tiny" || len(work.NATS) != 1 || work.NATS[0] != at.NATS {
		t.Fatalf("%+v, %v, %v, want work at %s", work, ok, err, at.NATS)
	}
	meeting := replica.Meet(work.Secret)
	bus := transport.Options{URL: at.NATS, User: work.UID, Secret: work.Secret, Experiment: meeting.Experiment, Name: "0"}
	conn, err := transport.Dial(t.Context(), bus)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	bus.Secret = strings.Repeat("0", len(work.Secret))
	if _, err := transport.Dial(t.Context(), bus); !errors.Is(err, transport.ErrUnauthorized) {
		t.Errorf("another secret: %v, want it refused", err)
	}

	for path, want := range map[string]string{"/metrics": "kelvin_leader 1", "/debug/pprof/": "goroutine"} {
		if text := fetch(t, "http://"+at.Admin+path); !strings.Contains(text, want) {
			t.Errorf("admin %s has no %s", path, want)
		}
	}
	if text := fetch(t, at.API+"/debug/pprof/"); strings.Contains(text, "goroutine") {
		t.Error("profiles are on the public port")
	}
	client.Close()
	stop()

	at, stop = serving(t, dir)
	defer stop()
	client = firstClient(t, at, dir)
	defer client.Close()
	again, err := client.Experiment(t.Context(), "tiny")
	if err != nil || again.UID != e.UID {
		t.Errorf("after a restart: %+v, %v", again, err)
	}
}

// firstClient waits for the first token.
func firstClient(t *testing.T, at Reached, dir string) *api.Client {
	t.Helper()
	for late := time.Now().Add(10 * time.Second); time.Now().Before(late); time.Sleep(2 * time.Millisecond) {
		secret, err := api.ReadToken(filepath.Join(dir, "admin-token"))
		if err != nil {
			continue
		}
		client, err := api.New(api.Config{Endpoints: []string{at.API}, Token: secret})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Experiments(t.Context()); err == nil {
			return client
		}
		client.Close()
	}
	t.Fatal("no token in ten seconds")
	return nil
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestServeRefuses(t *testing.T) {
	good := func() Config {
		return Config{Consensus: consensus.Config{Name: "a", DataDir: t.TempDir()}, Listen: "127.0.0.1:0", NATS: NATS{Listen: "127.0.0.1:0"}}
	}
	for want, spoil := range map[string]func(*Config){
		"listen: \"0.0.0.0:0\" without TLS":   func(c *Config) { c.Listen = "0.0.0.0:0" },
		"listen: \"nowhere\", want host:port": func(c *Config) { c.Listen = "nowhere" },
		"admin listen: \":0\" without TLS":    func(c *Config) { c.Admin = ":0" },
		"and not both":                        func(c *Config) { c.NATS.URL = "nats://127.0.0.1:1" },
		"nats: want an address":               func(c *Config) { c.NATS = NATS{} },
		"data dir: empty":                     func(c *Config) { c.Consensus.DataDir = "" },
		"without TLS, want TLS or a loopback": func(c *Config) { c.NATS.Listen = "0.0.0.0:0" },
	} {
		cfg := good()
		spoil(&cfg)
		if err := Serve(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
