package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tested is a coordinator with a real consensus and work that only pretends.
type tested struct {
	*Server
	node *consensus.Node
	work *pretended
	url  string
	log  *logged
}

// start opens a coordinator that is alone, unless change says otherwise, and serves its interface.
func start(t testing.TB, change func(*consensus.Config)) *tested {
	t.Helper()
	cfg := consensus.Config{Name: "a", DataDir: t.TempDir(), SegmentSize: 1 << 20, NATS: "nats://127.0.0.1:4222"}
	if change != nil {
		change(&cfg)
	}
	log := &logged{}
	cfg.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	node, err := consensus.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	c := &tested{node: node, work: &pretended{metrics: newSeries()}, log: log}
	c.Server, err = New(Options{Name: cfg.Name, Node: node, Work: c.work, Check: pretend, TokenFile: filepath.Join(cfg.DataDir, "admin-token"), Version: "v0", Log: cfg.Log})
	if err != nil {
		t.Fatal(err)
	}
	node.Handle("/v1/", c.PeerHandler())
	srv := httptest.NewUnstartedServer(c.Handler())
	srv.Config.MaxHeaderBytes = maxHeader
	srv.Config.ErrorLog = slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug)
	srv.Start()
	c.url = srv.URL
	leading, stop := context.WithCancel(context.Background())
	led := make(chan struct{})
	go func() {
		defer close(led)
		_ = c.Lead(leading)
	}()
	t.Cleanup(func() {
		c.end()
		stop()
		<-led
		srv.Close()
		c.Close()
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// client is one with a token, which waits until that is known.
func (c *tested) client(t testing.TB, token string) *api.Client {
	t.Helper()
	client, err := api.New(api.Config{Endpoints: []string{c.url}, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// admin is a client with the first token, once that is there.
func (c *tested) admin(t testing.TB) *api.Client {
	t.Helper()
	return c.client(t, c.firstToken(t))
}

func (c *tested) firstToken(t testing.TB) string {
	t.Helper()
	c.until(t, func(st *ledger.State) bool { return len(st.Tokens()) > 0 })
	secret, err := api.ReadToken(c.tokenFile)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// until waits for a state.
func (c *tested) until(t testing.TB, wanted func(*ledger.State) bool) {
	t.Helper()
	late := time.After(10 * time.Second)
	for {
		changed := c.node.Changed()
		ok := false
		if _, _, err := c.node.View(t.Context(), consensus.Stale, func(st *ledger.State) { ok = wanted(st) }); err != nil {
			t.Fatal(err)
		}
		if ok {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatal("waited for ten seconds")
		}
	}
}

// apply commits a command that must be fine.
func (c *tested) apply(t testing.TB, id ledger.ID, cmd ledger.Command) ledger.Outcome {
	t.Helper()
	out, err := c.node.Apply(t.Context(), id, cmd)
	if err = errors.Join(err, out.Err); err != nil {
		t.Fatal(err)
	}
	return out
}

// token makes a token of a scope for some experiments.
func token(t testing.TB, admin *api.Client, in api.CreateToken) string {
	t.Helper()
	out, err := admin.CreateToken(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return out.Secret
}

// submit creates an experiment.
func submit(t testing.TB, c *api.Client, name string) (api.Experiment, ledger.ID) {
	t.Helper()
	e, err := c.Submit(t.Context(), api.Submit{Name: name, YAML: "shards: 4"})
	if err != nil {
		t.Fatal(err)
	}
	id, err := parseID(e.UID)
	if err != nil {
		t.Fatal(err)
	}
	return e, id
}

// put stores a blob on a coordinator.
func (c *tested) put(t testing.TB, data string) ledger.Digest {
	t.Helper()
	digest, err := c.node.PutBlob(t.Context(), []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

// cut commits a cut of a step of an experiment that replica r0 works on.
func (c *tested) cut(t testing.TB, id ledger.ID, generation, step uint64) ledger.CutCommit {
	t.Helper()
	cmd := ledger.CutCommit{Generation: generation, Step: step, Manifest: c.put(t, fmt.Sprintf(`{"step": %d}`, step)),
		Parts:        []ledger.Part{{Name: "chains", Digest: c.put(t, fmt.Sprintf("chains of step %d", step)), Bytes: 20}},
		Conservation: ledger.Conservation{Ladders: 2, Rungs: 3, Labels: 6, Created: 6, Live: 6}}
	c.apply(t, id, cmd)
	return cmd
}

// work has replica r0 work on an experiment of four shards.
func (c *tested) atWork(t testing.TB, id ledger.ID) {
	t.Helper()
	c.apply(t, id, ledger.ExpPhase{Phase: ledger.Running})
	c.apply(t, id, ledger.Register{Replica: "r0", Incarnation: 7, Device: "cpu", Platform: "go"})
	c.apply(t, id, ledger.GenerationOpen{Number: 1, Holders: []string{"r0", "r0", "r0", "r0"}, From: ledger.Start})
}

// call makes a bare request. A body that is a string goes as it is.
func (c *tested) call(t testing.TB, method, path, secret string, body any, header ...string) (status int, answer []byte, headers http.Header) {
	t.Helper()
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(b)
	default:
		data, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		in = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, c.url+path, in)
	if err != nil {
		t.Fatal(err)
	}
	if secret != "" {
		req.Header.Set("Authorization", "Bearer "+secret)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return res.StatusCode, answer, res.Header
}

// codeOf is the code of the error in an answer.
func codeOf(t testing.TB, answer []byte) api.Code {
	t.Helper()
	var f api.Failure
	if err := json.Unmarshal(answer, &f); err != nil || f.Error == nil || f.Error.Message == "" {
		t.Errorf("answer %q, want an error with code and message", answer)
		return ""
	}
	return f.Error.Code
}

// pretend checks experiments that are one line.
func pretend(yaml []byte, _ string) (Submitted, error) {
	var shards uint32
	if _, err := fmt.Sscanf(string(yaml), "shards: %d", &shards); err != nil {
		return Submitted{}, errors.New("experiment.yaml:1: want shards")
	}
	_, rest, _ := bytes.Cut(yaml, []byte("\n"))
	return Submitted{Name: "named-by-file", YAML: yaml, Rest: rest, Steps: 100, Shards: shards, CutEvery: time.Second}, nil
}

// pretended is work that does nothing.
type pretended struct {
	metrics *series

	mu      sync.Mutex
	drained []string
	asks    []api.Ask
	panics  bool
}

var _ Work = (*pretended)(nil)

// panic makes Facts panic, or not.
func (p *pretended) panic(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.panics = yes
}

func (p *pretended) Lead(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func (p *pretended) Facts(ledger.ID) (Facts, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.panics {
		panic("of a driver")
	}
	return Facts{Step: 42, Redone: 3, Steps: Timing{42, time.Second}, Pairs: []Pair{{10, 4}}}, true
}

func (p *pretended) Shards(e ledger.Experiment) (out []api.Shard, err error) {
	for i := range e.Shards {
		out = append(out, api.Shard{Shard: i, Rows: 8})
	}
	return out, nil
}

func (p *pretended) Ladder(context.Context, ledger.Experiment) (api.Ladder, error) {
	return api.Ladder{Step: 42, Rungs: []api.Rung{{Rung: 0, Beta: 0.1}, {Rung: 1, Beta: 1}}}, nil
}

func (p *pretended) Buffer(_ context.Context, e ledger.Experiment) (api.Buffer, error) {
	if len(e.Cuts) == 0 {
		return api.Buffer{}, api.Errorf(api.NotFound, "no cut yet")
	}
	return api.Buffer{Columns: 128}, nil
}

func (p *pretended) Metrics(_ ledger.ID, from int64) (lines [][]byte, more <-chan struct{}) {
	return p.metrics.since(from)
}

func (p *pretended) Draining(_ ledger.ID, replica string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.drained) > 0 && p.drained[0] == replica
}

func (p *pretended) Drain(_ context.Context, _ ledger.ID, replica string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drained = append(p.drained, replica)
	return nil
}

func (p *pretended) Settle(context.Context) {}

func (p *pretended) Evict(context.Context, ledger.ID, string) error {
	return api.Errorf(api.Conflict, "nobody drives it")
}

func (p *pretended) Ask(_ context.Context, a api.Ask) (api.Assignment, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asks = append(p.asks, a)
	if a.ID == "idle" {
		return api.Assignment{}, false, nil
	}
	return api.Assignment{Experiment: "x", UID: "ab", Secret: "secret-of-the-experiment", NATS: []string{"nats://127.0.0.1:4222"}}, true, nil
}

func (p *pretended) Pool() []api.PoolReplica { return []api.PoolReplica{{ID: "r0", Device: "cpu"}} }

// series are metrics that come one by one.
type series struct {
	mu    sync.Mutex
	lines [][]byte
	more  chan struct{}
}

func newSeries() *series { return &series{more: make(chan struct{})} }

func (s *series) add(step int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, fmt.Appendf(nil, `{"step":%d,"seconds":0.5,"loss":1}`, step))
	close(s.more)
	s.more = make(chan struct{})
}

// since takes the line of step n to be the n-th.
func (s *series) since(from int64) ([][]byte, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lines[min(int(from+1), len(s.lines)):], s.more
}

// logged is what was logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// knowsToken is a state that has a token of that name.
func knowsToken(name string) func(*ledger.State) bool {
	return func(st *ledger.State) bool {
		_, ok := st.Token(name)
		return ok
	}
}

func digestOf(data string) string { return ledger.Digest(sha256.Sum256([]byte(data))).String() }
