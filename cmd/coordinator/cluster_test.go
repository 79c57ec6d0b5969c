package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
)

// fakeCluster answers as coordinators do, from a table, and remembers what it was asked for.
type fakeCluster struct {
	answers map[string]any // by "GET /v1/experiments"; an *api.Error fails

	mu    sync.Mutex
	asked []string // "PATCH /v1/experiments/moons {...}"
	blobs map[string][]byte
}

// forever is the answer of a stream in which nothing happens.
const forever = "forever"

func newFakeCluster(t *testing.T, answers map[string]any) *fakeCluster {
	t.Helper()
	f := &fakeCluster{answers: answers, blobs: map[string][]byte{}}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	t.Setenv(serverVariable, server.URL)
	t.Setenv("KELVIN_TOKEN", "secret")
	t.Setenv(configVariable, filepath.Join(t.TempDir(), "config.yaml"))
	t.Setenv("NO_COLOR", "1")
	return f
}

func (f *fakeCluster) set(key string, answer any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[key] = answer
}

func (f *fakeCluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	key := r.Method + " " + r.URL.Path
	f.mu.Lock()
	if f.answers[key] == forever {
		f.mu.Unlock()
		<-r.Context().Done()
		return
	}
	defer f.mu.Unlock()
	if digest, ok := strings.CutPrefix(r.URL.Path, "/v1/blobs/"); ok {
		f.blob(w, r, digest, body)
		return
	}
	if len(body) > 200 && !json.Valid(body) {
		body = fmt.Appendf(nil, "%d bytes", len(body))
	}
	line := key
	if r.URL.RawQuery != "" {
		line += "?" + r.URL.RawQuery
	}
	f.asked = append(f.asked, strings.TrimSpace(line+" "+string(body)))
	answer, ok := f.answers[key]
	if !ok {
		answer = &api.Error{Code: api.NotFound, Message: "experiment " + r.PathValue("name") + ": there is none", Next: "see `coordinator get experiments`"}
	}
	if r.Header.Get("Authorization") != "Bearer secret" {
		answer = &api.Error{Code: api.Unauthorized, Message: "no token", Next: "want --token-file"}
	}
	switch answer := answer.(type) {
	case *api.Error:
		w.WriteHeader(answer.HTTP())
		encodeTo(w, api.Failure{Error: answer})
	case []string: // a stream of lines that ends
		w.Header().Set("Trailer", api.EndTrailer)
		for _, line := range answer {
			fmt.Fprintln(w, line)
		}
		w.Header().Set(api.EndTrailer, "1")
	case nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		encodeTo(w, answer)
	}
}

func encodeTo(w io.Writer, v any) {
	if err := json.NewEncoder(w).Encode(v); err != nil {
		panic(err) // types of the tests
	}
}

func (f *fakeCluster) blob(w http.ResponseWriter, r *http.Request, digest string, body []byte) {
	data, ok := f.blobs[digest]
	switch {
	case r.Method == http.MethodPut:
		if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != digest {
			w.WriteHeader(http.StatusUnprocessableEntity)
			return
		}
		f.blobs[digest] = body
		w.WriteHeader(http.StatusNoContent)
	case !ok:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodGet:
		if _, err := w.Write(data); err != nil {
			panic(err)
		}
	}
}

// hold keeps a cut as the cluster's last one.
func (f *fakeCluster) hold(t *testing.T, experiment string, cut *checkpoint.Cut) {
	t.Helper()
	blobs, _, err := cut.Blobs()
	if err != nil {
		t.Fatal(err)
	}
	held := api.Cut{Meta: api.Kind("Cut"), Step: uint64(cut.Step), Generation: 2, At: time.Now()}
	for _, b := range blobs {
		digest := hex.EncodeToString(b.SHA256[:])
		f.blobs[digest] = b.Data
		if b.Name == checkpoint.Manifest {
			held.Manifest = digest
		} else {
			held.Parts = append(held.Parts, api.Part{Name: b.Name, Digest: digest, Bytes: uint64(len(b.Data))})
		}
	}
	path := "GET /v1/experiments/" + experiment + "/cuts"
	f.answers[path] = api.List[api.Cut]{Meta: api.Kind("CutList"), Items: []api.Cut{held}}
	f.answers[path+"/last"], f.answers[path+"/"+fmt.Sprint(cut.Step)] = held, held
}

// execute runs a command line as main does.
func execute(ctx context.Context, args ...string) (stdout, stderr string, code int) {
	root := newRootCommand()
	var out, errs bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errs)
	root.SetIn(strings.NewReader("name: piped\ndata: {dataset: two_moons}\ntrain: {steps: 5}\n"))
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil {
		printError(&errs, cmd, err)
		code = exitCode(err)
	}
	return out.String(), errs.String(), code
}

// moons is an experiment of the fake cluster.
func moons(phase string) api.Experiment {
	at := time.Now().Add(-90 * time.Minute)
	return api.Experiment{Meta: api.Kind("Experiment"), Name: "moons", UID: strings.Repeat("ab", 16), Owner: "ada", Version: 7, Created: at, Changed: at,
		Desired: api.Run, Phase: phase, LiveReplicas: 2, Shards: 4, Steps: 100, Step: 40, Generation: 3, LastCut: &api.CutMark{Step: 40, At: at}, Bytes: 2048}
}

func list[T any](kind string, items ...T) api.List[T] {
	return api.List[T]{Meta: api.Kind(kind), Index: 9, Items: items}
}

func clusterAnswers() map[string]any {
	at, accept := time.Now().Add(-time.Hour), 0.25
	exp := "/v1/experiments/moons"
	return map[string]any{
		"GET /v1/experiments": list("ExperimentList", moons(api.Running)), "GET " + exp: moons(api.Running), "PATCH " + exp: moons(api.Running), "DELETE " + exp: nil,
		"POST /v1/experiments":     moons(api.Queued),
		"GET " + exp + "/replicas": list("ReplicaList", api.Replica{Meta: api.Kind("Replica"), Name: "r1", State: api.Active, Shards: []uint32{0, 2}, Lease: 12, Device: "cpu", Platform: "v1 on go", Since: at}),
		"GET " + exp + "/shards":   list("ShardList", api.Shard{Meta: api.Kind("Shard"), Shard: 3, Replica: "r1", Rows: 8}),
		"GET " + exp + "/ladder":   api.Ladder{Meta: api.Kind("Ladder"), Step: 40, Barrier: 1.5, Rungs: []api.Rung{{Rung: 0, Beta: 0, SwapAccept: &accept, SwapAttempts: 20}, {Rung: 1, Beta: 1, StepSize: 0.01}}},
		"GET " + exp + "/buffer":   api.Buffer{Meta: api.Kind("Buffer"), Step: 40, Groups: 1, Columns: 24, Live: 8, Rungs: 3, Fill: 0.5, AgeMax: 7},
		"GET " + exp + "/events":   list("EventList", api.Event{Meta: api.Kind("Event"), Experiment: "moons", Index: 5, At: at, Reason: "lost", Text: "replica r2"}),
		"GET " + exp + "/cuts":     list("CutList", api.Cut{Meta: api.Kind("Cut"), Step: 40, Generation: 3, Bytes: 4096, Manifest: strings.Repeat("cd", 32), At: at}),
		"GET " + exp + "/metrics":  []string{`{"step":10,"seconds":1.5,"loss":0.123456,"beta":[0,0.5,1]}`, `{"step":20,"seconds":3,"loss":-2}`},
		"GET /v1/watch": []string{`{"index":9,"kind":"Inventory","object":{"experiments":[{"name":"moons","uid":"` + strings.Repeat("ab", 16) + `"}]}}`,
			`{"index":10,"kind":"Event","object":{"experiment":"moons","reason":"cut","text":"step 60"}}`,
			`{"index":11,"kind":"Experiment","object":{"name":"moons","uid":"` + strings.Repeat("ab", 16) + `","phase":"completed","step":100,"steps":100}}`},
		"GET /v1/members":                       list("MemberList", api.Member{Meta: api.Kind("Member"), Name: "a", API: "https://a:8443", Role: api.Voter, Leader: true, Healthy: true}),
		"POST /v1/members/b/promote":            nil,
		"POST /v1/members/b/lead":               nil,
		"DELETE /v1/members/b":                  nil,
		"GET /v1/tokens":                        list("TokenList", api.Token{Meta: api.Kind("Token"), Name: "ada", Scope: api.ScopeOperate}),
		"POST /v1/tokens":                       api.NewToken{Token: api.Token{Meta: api.Kind("Token"), Name: "new", Scope: api.ScopeRead}, Secret: "s3cret"},
		"POST /v1/tokens/bootstrap":             api.NewToken{Token: api.Token{Meta: api.Kind("Token"), Name: "admin", Scope: api.ScopeAdmin}, Secret: "f1rst"},
		"DELETE /v1/tokens/ada":                 nil,
		"GET /v1/quotas":                        list("QuotaList", api.Quota{Meta: api.Kind("Quota"), Owner: "ada", Experiments: 3, Used: api.Usage{Experiments: 1}}),
		"GET /v1/quotas/ada":                    api.Quota{Meta: api.Kind("Quota"), Owner: "ada", Experiments: 3, Replicas: 5},
		"PUT /v1/quotas/ada":                    api.Quota{Meta: api.Kind("Quota"), Owner: "ada", Experiments: 3, Replicas: 8, Bytes: 1 << 30},
		"GET /v1/pool":                          list("PoolReplicaList", api.PoolReplica{Meta: api.Kind("PoolReplica"), ID: "r1", Experiment: "moons", Since: at}),
		"POST " + exp + "/replicas/r1/drain":    nil,
		"POST " + exp + "/replicas/r1/takeover": nil,
		"GET /v1/backup":                        []string{"all of it"},
		"POST /v1/restore":                      api.Restored{Meta: api.Kind("Restored"), Cluster: "c0ffee", Experiments: 2},
		"GET /version":                          api.Build{Meta: api.Kind("Build"), Version: "v9", Node: "a", Leader: "a", Cluster: "c0ffee"},
	}
}

const smallYAML = "name: moons\ndata: {dataset: two_moons}\ntrain: {steps: 5}\n"

// Every command asks the coordinators for what it should, and shows what they say.
func TestClusterCommands(t *testing.T) {
	f := newFakeCluster(t, clusterAnswers())
	dir := t.TempDir()
	file, backup, secret := filepath.Join(dir, "moons.yaml"), filepath.Join(dir, "backup.tar"), filepath.Join(dir, "token")
	if err := os.WriteFile(file, []byte(smallYAML), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args   string
		want   []string // in what is shown
		asked  string   // in what the last request was
		status int
	}{
		{"submit " + file + " --replicas 3 --set seed=5 --priority 2", []string{"moons", "queued"}, `\nseed: 5\n`, 0},
		{"submit " + file + " --dry-run --name other --dir /data", []string{"moons"}, `"dir":"/data","min_replicas":1,"dry_run":true}`, 0},
		{"submit -f - -o json", []string{`"phase": "queued"`}, "name: piped", 0},
		{"submit " + file + " --wait --timeout 1m", []string{"waiting until it is completed", "completed", "100 of 100"}, "GET /v1/watch?experiment=moons&since=7", 0},
		{"submit " + file + " --wait=later", []string{`--wait: "later", want running or completed`}, "", 2},
		{"submit " + file + " --timeout 1s", []string{"--timeout: ends a waiting"}, "", 2},
		{"submit nowhere.yaml", []string{"nowhere.yaml"}, "", 2},
		{"submit", []string{"want one FILE"}, "", 2},
		{"get experiments", []string{"│ moons │ running", "40 of 100", "2 of 4"}, "GET /v1/experiments?consistency=leader", 0},
		{"get exp moons -o wide --consistency stale", []string{"owner", "ada", "2.0 KiB"}, "GET /v1/experiments/moons?consistency=stale", 0},
		{"get experiments -o jsonpath={.items[*].name}", []string{"moons\n"}, "", 0},
		{"get experiments moons -o yaml", []string{"kind: Experiment\n", "uid: abab"}, "", 0},
		{"get experiments --watch", []string{"moons"}, "GET /v1/experiments?consistency=leader", 0},
		{"get replicas moons", []string{"r1", "active", "0 2"}, "", 0},
		{"get shards moons", []string{"all", "r1"}, "", 0},
		{"get ladder moons", []string{"0.250", "barrier 1.5"}, "", 0},
		{"get buffer moons", []string{"50 %", "0 to 7"}, "", 0},
		{"get cuts moons", []string{"4.0 KiB", "60 min"}, "", 0},
		{"get events moons", []string{"lost", "replica r2"}, "", 0},
		{"get members", []string{"a", "voter", "*", "yes"}, "", 0},
		{"get tokens", []string{"ada", "operate", "never"}, "", 0},
		{"get quotas", []string{"1 of 3"}, "", 0},
		{"get quota ada -o json", []string{`"replicas": 5`}, "", 0},
		{"get pool", []string{"r1", "moons"}, "", 0},
		{"get replicas", []string{"no name, want that of the experiment"}, "", 2},
		{"get members a b", []string{"2 names, want coordinator get members"}, "", 2},
		{"get experiments --consistency strong", []string{`"strong", want stale, leader or linearizable`}, "", 2},
		{"get experiments -o xml", []string{`-o: "xml", want table, wide, json, yaml or jsonpath=PATH`}, "", 2},
		{"get experiments -o jsonpath={.items[*].nmae}", []string{`no "nmae" in it`}, "", 1},
		{"get experiments nothing", []string{"there is none", "see `coordinator get experiments`"}, "", 3},
		{"describe experiment moons", []string{"40 of 100", "2, at most as many as it has shards, 4, at least 0", "r1", "replica r2", "4.0 KiB"}, "", 0},
		{"describe experiment moons -o jsonpath={.experiment.phase}/{.replicas[0].name}", []string{"running/r1\n"}, "", 0},
		{"watch", []string{"moons: cut: step 60", "moons: completed, step 100 of 100"}, "GET /v1/watch?since=0", 0},
		{"watch moons -o json --since 3", []string{`{"index":10,"kind":"Event"`}, "GET /v1/watch?experiment=moons&since=3", 0},
		{"watch nothing", []string{"there is none"}, "", 3},
		{"logs moons", []string{"moons: lost: replica r2", "step=10 seconds=1.5 loss=0.1235 beta=[0 0.5 1]", "loss=-2"}, "GET /v1/experiments/moons/metrics?from=-1", 0},
		{"logs moons -f --from 10 -o json", []string{`{"step":20,"seconds":3,"loss":-2}`}, "", 0},
		{"wait moons --timeout 1m", []string{"moons is completed, step 100 of 100"}, "", 0},
		{"wait moons --for paused", []string{"moons is completed, and will not be paused"}, "", 1},
		{"wait moons --for done", []string{`--for: "done", want queued`}, "", 2},
		{"pause moons", []string{"moons is running, and is to run"}, `PATCH /v1/experiments/moons {"desired":"pause"}`, 0},
		{"resume moons --wait", []string{"moons is running"}, "GET /v1/experiments/moons", 0},
		{"cancel moons --timeout -1s --wait", []string{"--timeout: -1s"}, "", 2},
		{"cancel moons", nil, `{"desired":"cancel"}`, 0},
		{"delete moons --wait", []string{"moons is deleted"}, "DELETE /v1/experiments/moons", 0},
		{"scale moons --replicas 0", []string{"moons may have replicas: as many as it has shards, 4; it has 2"}, `{"replicas":0}`, 0},
		{"scale moons", []string{"--replicas: missing"}, "", 2},
		{"replicas drain moons r1", []string{"replica r1 of moons leaves at the next cut"}, "POST /v1/experiments/moons/replicas/r1/drain", 0},
		{"replicas takeover moons r1", nil, "POST /v1/experiments/moons/replicas/r1/takeover", 0},
		{"replicas drain moons", []string{"1 arguments, want the experiment and the replica"}, "", 2},
		{"members list -o jsonpath={.items[0].api}", []string{"https://a:8443\n"}, "", 0},
		{"members promote b", []string{"b is a voter"}, "POST /v1/members/b/promote", 0},
		{"members lead b", []string{"b is to lead"}, "POST /v1/members/b/lead", 0},
		{"members remove b", []string{"b is removed"}, "DELETE /v1/members/b", 0},
		{"members remove c", []string{"there is none"}, "", 3},
		{"token create new --ttl 2h", []string{"s3cret\n"}, `{"name":"new","scope":"read","owner":"new","ttl_seconds":7200}`, 0},
		{"token create new --scope join --uses 4 --out " + secret, []string{"token new, scope read\n"}, `{"name":"new","scope":"join","uses":4}`, 0},
		{"token create new --out " + secret, []string{"file exists"}, "", 4},
		{"token create new --scope root", []string{`--scope: "root", want read, operate, admin or join`}, "", 2},
		{"token create new --uses 3", []string{"--uses: are counted of the scope join alone"}, "", 2},
		{"token ls", []string{"ada"}, "GET /v1/tokens?consistency=leader", 0},
		{"token revoke ada", []string{"token ada is revoked"}, "DELETE /v1/tokens/ada", 0},
		{"token bootstrap -o json", []string{`"secret": "f1rst"`}, "POST /v1/tokens/bootstrap", 0},
		{"quota set ada --replicas 8 --bytes 1GiB", []string{"1.0 GiB"}, `PUT /v1/quotas/ada {"experiments":3,"replicas":8,"bytes":1073741824}`, 0},
		{"quota set ada --bytes much", []string{"--bytes:"}, "", 2},
		{"quota set ada", []string{"want a limit"}, "", 2},
		{"quota get ada", []string{"0 of 5"}, "", 0},
		{"backup " + backup, []string{"10 B → "}, "GET /v1/backup", 0},
		{"restore " + backup + " --force c0ffee", []string{"2 experiments restored to cluster c0ffee"}, "POST /v1/restore?force=c0ffee all of it", 0},
		{"restore " + backup + "x", []string{"no such file"}, "", 1},
		{"top --times 2 --interval 1ms", []string{"40 of 100", "steps/s", "voter"}, "", 0},
		{"top --interval 0s", []string{"--interval: 0s"}, "", 2},
		{"version", []string{"v9", "c0ffee"}, "GET /version", 0},
		{"version --client -o jsonpath={.kind}", []string{"Version\n"}, "", 0},
		{"cut ls moons", []string{"4.0 KiB"}, "", 0},
		{"cut ls moons --run x", []string{"want one of an experiment's NAME and --run DIR"}, "", 2},
		{"cut ls --run x --server http://localhost:1", []string{"--run: a folder of this machine"}, "", 2},
		{"__complete pause mo", []string{"moons\trunning\n", ":4\n"}, "GET /v1/experiments?consistency=stale", 0},
		{"__complete replicas drain moons r", []string{"r1\tactive\n"}, "", 0},
		{"__complete members lead ", []string{"a\tvoter\n"}, "", 0},
	} {
		t.Run(tc.args, func(t *testing.T) {
			f.asked = nil
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			stdout, stderr, code := execute(ctx, strings.Split(tc.args, " ")...)
			if code != tc.status {
				t.Errorf("exit code %d, want %d: %s", code, tc.status, stderr)
			}
			for _, want := range tc.want {
				if !strings.Contains(stdout+stderr, want) {
					t.Errorf("want %q in\n%s%s", want, stdout, stderr)
				}
			}
			if tc.status != 0 && (stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "error: ")) {
				t.Errorf("an error shows as\n%s%s", stdout, stderr)
			}
			if tc.asked != "" && (len(f.asked) == 0 || !strings.Contains(f.asked[len(f.asked)-1], tc.asked)) {
				t.Errorf("asked for %q, want %q last", f.asked, tc.asked)
			}
			if slices.ContainsFunc(f.asked, func(line string) bool { return strings.Contains(line, "secret") }) {
				t.Error("the token is in a URL or a body")
			}
		})
	}
	info, err := os.Stat(secret)
	text, _ := os.ReadFile(secret)
	if err != nil || info.Mode().Perm() != 0o600 || string(text) != "s3cret\n" {
		t.Errorf("%q with %v in the token file (%v)", text, info.Mode(), err)
	}
	if info, err := os.Stat(backup); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("backup: %v (%v)", info.Mode(), err)
	}
}

// What coordinators refuse comes out as the exit code of its kind, and as an object where JSON was asked for.
func TestClusterErrors(t *testing.T) {
	f := newFakeCluster(t, map[string]any{})
	for _, tc := range []struct {
		code api.Code
		want int
	}{
		{api.NotFound, 3}, {api.Conflict, 4}, {api.Unauthorized, 5}, {api.Forbidden, 5}, {api.NoLeader, 6}, {api.Timeout, 7}, {api.OverQuota, 1}, {api.Invalid, 1}, {api.Internal, 1},
	} {
		refused := &api.Error{Code: tc.code, Message: "moons: no", Next: "do it differently"}
		f.set("PATCH /v1/experiments/moons", refused)
		f.set("GET /v1/experiments/moons", refused)
		stdout, stderr, code := execute(t.Context(), "pause", "moons", "--patience", "0s")
		if code != tc.want || stdout != "" || stderr != "error: moons: no: do it differently\n" {
			t.Errorf("%s: exit code %d, want %d, with %q%q", tc.code, code, tc.want, stdout, stderr)
		}
		_, stderr, _ = execute(t.Context(), "get", "experiments", "moons", "-o", "json", "--patience", "0s")
		var got api.Failure
		if err := json.Unmarshal([]byte(stderr), &got); err != nil {
			t.Fatalf("%q: %v", stderr, err)
		}
		if diff := cmp.Diff(map[string]string{"code": string(tc.code), "message": "moons: no", "next": "do it differently"},
			map[string]string{"code": string(got.Error.Code), "message": got.Error.Message, "next": got.Error.Next}); diff != "" {
			t.Error(diff)
		}
	}

	f.set("GET /v1/experiments/moons", moons(api.Running))
	f.set("GET /v1/watch", forever)
	if _, stderr, code := execute(t.Context(), "wait", "moons", "--timeout", "20ms"); code != 7 || !strings.Contains(stderr, "moons is not completed after 20ms") {
		t.Errorf("exit code %d with %q", code, stderr)
	}
	failed := moons(api.Failed)
	failed.Message = "the loss is NaN"
	f.set("GET /v1/experiments/moons", failed)
	if _, stderr, code := execute(t.Context(), "wait", "moons"); code != 1 || !strings.Contains(stderr, "moons is failed, and will not be completed: the loss is NaN; see `coordinator describe experiment moons`") {
		t.Errorf("exit code %d with %q", code, stderr)
	}
	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, code := execute(interrupted, "get", "experiments"); code != 130 {
		t.Errorf("interrupted: exit code %d, want 130", code)
	}
	t.Setenv("KELVIN_TOKEN", "")
	if _, stderr, code := execute(t.Context(), "get", "experiments"); code != 5 || stderr != "error: no token: want --token-file\n" {
		t.Errorf("no token: exit code %d with %q", code, stderr)
	}
}

// chainless is a cut of a training over data alone.
func chainless(step int) *checkpoint.Cut {
	return &checkpoint.Cut{Step: step, Meta: []byte(`{"seed":1}`), Files: map[string][]checkpoint.Tensor{
		"params": {{Name: "w", Shape: []int{2}, Data: []float32{1, float32(step)}}}}}
}

// An experiment's cut comes out as a run's folder, and goes back.
func TestClusterCuts(t *testing.T) {
	f := newFakeCluster(t, clusterAnswers())
	exp := moons(api.Paused)
	exp.YAML = smallYAML
	f.set("GET /v1/experiments/moons", exp)
	f.hold(t, "moons", chainless(20))
	f.set("POST /v1/experiments/moons/cuts/20", api.Cut{Meta: api.Kind("Cut"), Step: 20})
	dir := t.TempDir()
	ok := func(want string, args ...string) {
		t.Helper()
		stdout, stderr, code := execute(t.Context(), args...)
		if code != 0 || !strings.Contains(stdout, want) {
			t.Fatalf("%v: exit code %d, %q%q, want %q", args, code, stdout, stderr, want)
		}
	}
	run := filepath.Join(dir, "run")
	ok("moons, step 20 → ", "export", "moons", "--out", run)
	ok("20", "cut", "ls", "--run", run, "-o", "jsonpath={.items[*].step}")
	ok(`"whole": true`, "cut", "verify", "moons", "-o", "json")
	ok("1 tensors, step 20", "params", "export", "moons", "--out", filepath.Join(dir, "p.safetensors"))
	metrics, err := os.ReadFile(filepath.Join(run, "metrics.jsonl"))
	if err != nil || strings.Count(string(metrics), "\n") != 2 {
		t.Errorf("metrics %q (%v)", metrics, err)
	}
	ok("cut of step 20", "cut", "export", "moons", "--out", filepath.Join(dir, "kept"))

	f.asked = nil
	if _, stderr, code := execute(t.Context(), "cut", "restore", "moons", "--from", filepath.Join(dir, "kept")); code != 2 || !strings.Contains(stderr, "drops the cut of step 20 for good, want --yes") {
		t.Errorf("exit code %d with %q", code, stderr)
	}
	ok("moons is at step 20", "cut", "restore", "moons", "--from", filepath.Join(dir, "kept"), "--yes")
	last := f.asked[len(f.asked)-1]
	if !strings.HasPrefix(last, `POST /v1/experiments/moons/cuts/20 {"manifest":"`) || !strings.Contains(last, `"name":"params.safetensors"`) {
		t.Errorf("asked for %s", last)
	}
	if _, stderr, code := execute(t.Context(), "buffer", "stats", "moons"); code != 1 || !strings.Contains(stderr, "no chains in it") {
		t.Errorf("buffer of no chains: exit code %d with %q", code, stderr)
	}

	// A blob that is not what its name says is found, whoever serves it.
	for digest := range f.blobs {
		f.blobs[digest] = []byte("spoiled")
	}
	if stdout, stderr, code := execute(t.Context(), "cut", "verify", "moons"); code != 1 || !strings.Contains(stdout, "digest") {
		t.Errorf("spoiled blobs: exit code %d, %s%s", code, stdout, stderr)
	}
	if _, err := os.Stat(filepath.Join(dir, "none")); err == nil {
		t.Error("something was left")
	}
	if _, _, code := execute(t.Context(), "export", "moons", "--out", filepath.Join(dir, "none")); code != 1 {
		t.Errorf("an export of spoiled blobs: exit code %d", code)
	}
	clear(f.blobs) // so is one that nobody has any more
	if stdout, stderr, code := execute(t.Context(), "cut", "verify", "moons"); code != 1 || !strings.Contains(stdout, "20") || !strings.Contains(stderr, "no cut is whole") {
		t.Errorf("missing blobs: exit code %d, %s%s", code, stdout, stderr)
	}
	if _, _, code := execute(t.Context(), "cut", "verify", "moons", "--cut", "30"); code != 3 {
		t.Errorf("a cut that is not there: exit code %d, want 3", code)
	}
}
