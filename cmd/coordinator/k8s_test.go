package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
)

// k8sWorld is a Kubernetes and a coordinator, as much of them as the commands see, in the order in which they were called.
type k8sWorld struct {
	*httptest.Server
	mu      sync.Mutex
	calls   []string
	objects map[string]map[string]any // of Kubernetes, by path
	exps    map[string]*api.Experiment
	refuse  string // a call that is refused: its beginning
}

func newK8sWorld(t *testing.T) *k8sWorld {
	t.Helper()
	w := &k8sWorld{objects: map[string]map[string]any{}, exps: map[string]*api.Experiment{}}
	w.Server = httptest.NewTLSServer(w)
	t.Cleanup(w.Close)
	dir := t.TempDir()
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.Certificate().Raw})
	kubeconfig := fmt.Sprintf(`{current-context: x, clusters: [{name: c, cluster: {server: %q, certificate-authority-data: %s}}], contexts: [{name: x, context: {cluster: c}}]}`,
		w.URL, base64.StdEncoding.EncodeToString(authority))
	for name, text := range map[string][]byte{"ca.pem": authority, "config": []byte(kubeconfig)} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("KUBECONFIG", filepath.Join(dir, "config"))
	t.Setenv(caVariable, filepath.Join(dir, "ca.pem"))
	t.Setenv(serverVariable, w.URL)
	t.Setenv("KELVIN_TOKEN", "secret")
	return w
}

func (w *k8sWorld) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var body map[string]any
	data, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(data, &body)
	call := r.Method + " " + r.URL.Path
	if r.URL.Query().Has("dryRun") || body["dry_run"] == true {
		call = "try " + call
	}
	w.calls = append(w.calls, call)
	answer := func(status int, v any) {
		out.WriteHeader(status)
		_ = json.NewEncoder(out).Encode(v)
	}
	if w.refuse != "" && strings.HasPrefix(call, w.refuse) {
		answer(http.StatusForbidden, map[string]any{"message": "not today", "error": map[string]any{"code": "forbidden", "message": "not today"}})
		return
	}
	if !strings.HasPrefix(r.URL.Path, "/v1/") {
		w.kubernetes(r, body, answer)
		return
	}
	name := strings.TrimPrefix(r.URL.Path, "/v1/experiments/")
	switch {
	case call == "POST /v1/tokens":
		answer(http.StatusCreated, map[string]any{"name": body["name"], "scope": body["scope"], "secret": "joining", "expires": "2030-01-01T00:00:00Z"})
	case r.Method == http.MethodPost:
		e := &api.Experiment{Meta: api.Kind("Experiment"), Name: "replicas", Phase: api.Waiting, Shards: 6}
		if n, ok := body["replicas"].(float64); ok {
			e.Replicas = uint32(n)
		}
		if body["dry_run"] != true {
			w.exps[e.Name] = e
		}
		answer(http.StatusCreated, e)
	case w.exps[name] == nil:
		answer(http.StatusNotFound, api.Failure{Error: api.Errorf(api.NotFound, "no experiment %q", name)})
	case r.Method == http.MethodPatch:
		w.exps[name].Replicas = uint32(body["replicas"].(float64))
		fallthrough
	default:
		answer(http.StatusOK, w.exps[name])
	}
}

func (w *k8sWorld) kubernetes(r *http.Request, body map[string]any, answer func(int, any)) {
	at := w.objects[r.URL.Path]
	switch {
	case strings.HasSuffix(r.URL.Path, "/pods"), strings.HasSuffix(r.URL.Path, "/events"):
		answer(http.StatusOK, map[string]any{"items": []any{}})
	case r.Method == http.MethodPatch && r.Header.Get("Content-Type") == "application/apply-patch+yaml":
		if !r.URL.Query().Has("dryRun") {
			w.objects[r.URL.Path] = body
		}
		answer(http.StatusOK, body)
	case at == nil:
		answer(http.StatusNotFound, map[string]any{"message": "not found"})
	case r.Method == http.MethodPatch:
		maps.Copy(at["spec"].(map[string]any), body["spec"].(map[string]any))
		fallthrough
	default:
		answer(http.StatusOK, at)
	}
}

// command runs a command, and returns what was called and printed.
func (w *k8sWorld) command(t *testing.T, args ...string) (calls []string, text string, err error) {
	t.Helper()
	w.mu.Lock()
	w.calls = nil
	w.mu.Unlock()
	var out bytes.Buffer
	root := newRootCommand()
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(append([]string{"k8s"}, args...))
	err = root.ExecuteContext(t.Context())
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.calls), out.String(), err
}

const (
	jobPath   = "/apis/batch/v1/namespaces/kelvin/jobs/replicas"
	expPath   = "/v1/experiments/replicas"
	joinPath  = "/api/v1/namespaces/kelvin/secrets/kelvin-join"
	expsPath  = "/v1/experiments"
	replicas6 = "replicas.yaml"
)

func example(name string) string { return filepath.Join("..", "..", "examples", name) }

func TestSubmitTriesBothFirst(t *testing.T) {
	w := newK8sWorld(t)
	w.refuse = "try PATCH"
	calls, _, err := w.command(t, "submit", example(replicas6))
	if exitCode(err) != exitUnauthorised || !slices.Equal(calls, []string{"try POST " + expsPath, "try PATCH " + jobPath}) {
		t.Errorf("a Job that is refused: %v, %v", calls, err)
	}
	w.refuse = ""
	calls, _, err = w.command(t, "submit", example(replicas6), "--dry-run")
	if err != nil || !slices.Equal(calls, []string{"try POST " + expsPath, "try PATCH " + jobPath}) || len(w.exps)+len(w.objects) > 0 {
		t.Errorf("--dry-run: %v, %v", calls, err)
	}
	calls, _, err = w.command(t, "submit", example(replicas6), "--replicas", "7")
	if exitCode(err) != exitUsage || len(calls) != 1 {
		t.Errorf("too many replicas: %v, %v", calls, err)
	}
	w.refuse = "PATCH " + jobPath
	_, _, err = w.command(t, "submit", example(replicas6), "--replicas", "4", "--standbys", "1")
	if exitCode(err) != exitPartial || !strings.Contains(err.Error(), "`coordinator k8s job replicas`") || w.exps["replicas"] == nil || w.exps["replicas"].Replicas != 4 {
		t.Errorf("a Job that cannot be made after all: %v, %+v", err, w.exps["replicas"])
	}
	w.refuse = ""
	if _, text, err := w.command(t, "job", "replicas", "--standbys", "1"); err != nil || text != "job replicas in kelvin: 4 replicas and 1 standbys\n" || w.pods() != 5 {
		t.Errorf("job: %q, %v, %d pods", text, err, w.pods())
	}
	calls, _, err = w.command(t, "submit", example(replicas6))
	if err != nil || !slices.Equal(calls, []string{"try POST " + expsPath, "try PATCH " + jobPath, "POST " + expsPath, "PATCH " + jobPath}) || w.pods() != 6 {
		t.Errorf("submit: %v, %v, %d pods", calls, err, w.pods())
	}
}

// pods is the size of the Job.
func (w *k8sWorld) pods() int {
	spec := w.objects[jobPath]["spec"].(map[string]any)
	n := int(spec["completions"].(float64))
	if spec["parallelism"] != spec["completions"] {
		return -n
	}
	return n
}

func TestScaleShrinksTheJobFirstAndGrowsItLast(t *testing.T) {
	w := newK8sWorld(t)
	if _, _, err := w.command(t, "submit", example(replicas6), "--replicas", "4", "--standbys", "1"); err != nil {
		t.Fatal(err)
	}
	look := []string{"GET " + expPath, "GET " + jobPath}
	experiment, job := "PATCH "+expPath, "PATCH "+jobPath
	for _, tc := range []struct {
		args           []string
		calls          []string
		want, replicas int
	}{
		{[]string{"--replicas", "6"}, []string{experiment, job}, 7, 6},
		{[]string{"--replicas", "3"}, []string{job, experiment}, 4, 3},
		{[]string{"--replicas", "3", "--standbys", "0"}, []string{job, experiment}, 3, 3},
		{[]string{"--replicas", "3"}, []string{experiment, job}, 3, 3},
	} {
		calls, text, err := w.command(t, append([]string{"scale", "replicas"}, tc.args...)...)
		if err != nil || !slices.Equal(calls, append(slices.Clone(look), tc.calls...)) || w.pods() != tc.want || int(w.exps["replicas"].Replicas) != tc.replicas {
			t.Errorf("%v: %v, %v, %s%d pods, %d replicas", tc.args, calls, err, text, w.pods(), w.exps["replicas"].Replicas)
		}
	}
	if _, _, err := w.command(t, "scale", "replicas", "--replicas", "7"); exitCode(err) != exitUsage {
		t.Errorf("more than there are shards: %v", err)
	}
	w.refuse = job
	if _, _, err := w.command(t, "scale", "replicas", "--replicas", "6"); exitCode(err) != exitPartial {
		t.Errorf("half of it: %v", err)
	}
	if _, _, err := w.command(t, "scale", "nothing", "--replicas", "6"); exitCode(err) != exitNotFound {
		t.Errorf("an experiment that there is not: %v", err)
	}
}

func TestTokenOfReplicas(t *testing.T) {
	w := newK8sWorld(t)
	w.refuse = "try PATCH"
	if calls, _, err := w.command(t, "token"); err == nil || len(calls) != 1 {
		t.Errorf("a Secret that may not be made: %v, %v; want no token then", calls, err)
	}
	w.refuse = ""
	calls, text, err := w.command(t, "token")
	if err != nil || !slices.Equal(calls, []string{"try PATCH " + joinPath, "POST /v1/tokens", "PATCH " + joinPath}) || strings.Contains(text, "joining") {
		t.Errorf("%v, %v, %s", calls, err, text)
	}
	data := w.objects[joinPath]["data"].(map[string]any)
	token, _ := base64.StdEncoding.DecodeString(data["token"].(string))
	authority, _ := base64.StdEncoding.DecodeString(data["ca.pem"].(string))
	if string(token) != "joining\n" || !bytes.HasPrefix(authority, []byte("-----BEGIN CERTIFICATE")) {
		t.Errorf("secret: %s, %s", token, authority)
	}
}

func TestStatusOfAJob(t *testing.T) {
	w := newK8sWorld(t)
	if _, _, err := w.command(t, "submit", example(replicas6)); err != nil {
		t.Fatal(err)
	}
	w.objects[jobPath]["status"] = map[string]any{"conditions": []any{map[string]any{"type": "Suspended", "status": "True"}}}
	_, text, err := w.command(t, "status", "replicas")
	if err != nil || !strings.Contains(text, "job replicas in kelvin: suspended, 0 of 6 replicas with a lease") || !strings.Contains(text, "problem: the Job is suspended\n    fix: ") {
		t.Errorf("%v:\n%s", err, text)
	}
	if _, text, err = w.command(t, "status", "replicas", "-o", "jsonpath={.state}"); err != nil || text != "suspended\n" {
		t.Errorf("%v: %q", err, text)
	}
	if _, _, err = w.command(t, "status", "other"); exitCode(err) != exitNotFound {
		t.Errorf("a Job that there is not: %v", err)
	}
}

// TestManifestsStartThisProgram checks that what the objects in k8s/ call is there, with the flags that they give.
func TestManifestsStartThisProgram(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "..", "k8s", "testdata", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for doc := range strings.SplitSeq(string(text), "\n---\n") {
			var object any
			if err := yaml.Unmarshal([]byte(doc), &object); err != nil {
				t.Fatal(err)
			}
			for _, c := range containers(object) {
				line := append(words(c["command"]), words(c["args"])...)
				if len(line) == 0 || line[0] != "coordinator" {
					continue
				}
				ran++
				for i, arg := range line {
					// What a ConfigMap holds is a duration or a number.
					line[i] = strings.NewReplacer("$(HEARTBEAT)", "1s", "$(ELECTION)", "1s", "$(LEASE)", "1s", "$(BLOB_WRITE_RATE)", "200", "$(POD_NAME)", "kelvin-0", "$(POD_NAMESPACE)", "kelvin").Replace(arg)
				}
				cmd, rest, err := newRootCommand().Find(line[1:])
				if err == nil {
					err = cmd.ParseFlags(rest)
				}
				if err != nil || cmd.Flags().NArg() > 0 {
					t.Errorf("%s: %v: %v", filepath.Base(file), line, err)
				}
			}
		}
	}
	if ran < 6 {
		t.Errorf("%d containers, want those of all overlays", ran)
	}
}

// containers are all those that are somewhere in an object.
func containers(v any) []map[string]any {
	var out []map[string]any
	switch v := v.(type) {
	case map[string]any:
		if _, ok := v["command"]; ok {
			out = append(out, v)
		}
		for _, inner := range v {
			out = append(out, containers(inner)...)
		}
	case []any:
		for _, inner := range v {
			out = append(out, containers(inner)...)
		}
	}
	return out
}

func words(v any) []string {
	var out []string
	list, _ := v.([]any)
	for _, w := range list {
		out = append(out, fmt.Sprint(w))
	}
	return out
}

// TestCommandsOfTheGuideAreThere checks that the commands of docs/kubernetes.md have the flags that it gives them.
func TestCommandsOfTheGuideAreThere(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "kubernetes.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", " ")) {
		rest, ok := strings.CutPrefix(line, "coordinator ")
		if !ok {
			continue
		}
		rest, _, _ = strings.Cut(rest, "#")
		found++
		cmd, args, err := newRootCommand().Find(strings.Fields(rest))
		if err == nil {
			err = cmd.ParseFlags(args)
		}
		if err == nil {
			err = cmd.ValidateArgs(cmd.Flags().Args())
		}
		if err != nil {
			t.Errorf("coordinator %s: %v", strings.TrimSpace(rest), err)
		}
	}
	if found < 15 {
		t.Errorf("%d commands, want those of the page", found)
	}
}
