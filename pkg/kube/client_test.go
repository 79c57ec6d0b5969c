package kube_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/kube"
)

// cluster is the API of a cluster that answers as it is told, and remembers what it was asked.
type cluster struct {
	answers   map[string]string // to "GET /path", bodies; others are 404
	status    int               // of all answers; 0: 200
	forbidden string            // path

	asked  []string
	bodies []map[string]any
}

// open serves the cluster, and finds it by a kubeconfig.
func (c *cluster) open(t *testing.T) *kube.Client {
	t.Helper()
	srv := httptest.NewTLSServer(c)
	t.Cleanup(srv.Close)
	path := filepath.Join(t.TempDir(), "config")
	authority := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: here, clusters: [{name: c, cluster: {server: %q, certificate-authority-data: %s}}],
users: [{name: u, user: {token: t0ken}}], contexts: [{name: here, context: {cluster: c, user: u, namespace: lab}}]}`, srv.URL, authority)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := kube.Open(kube.Access{Kubeconfig: path})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.asked = append(c.asked, fmt.Sprintf("%s %s %s %s", r.Method, r.URL.RequestURI(), r.Header.Get("Content-Type"), r.Header.Get("Authorization")))
	if data, _ := io.ReadAll(r.Body); len(data) > 0 {
		var body map[string]any
		if err := json.Unmarshal(data, &body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		c.bodies = append(c.bodies, body)
	}
	w.Header().Set("Content-Type", "application/json")
	answer, ok := c.answers[r.Method+" "+r.URL.Path]
	switch {
	case r.URL.Path == c.forbidden:
		w.WriteHeader(http.StatusForbidden)
	case c.status != 0:
		w.WriteHeader(c.status)
	case !ok:
		w.WriteHeader(http.StatusNotFound)
		answer = `{"kind": "Status", "status": "Failure", "message": "jobs.batch \"digits\" not found", "reason": "NotFound", "code": 404}`
	}
	_, _ = io.WriteString(w, answer)
}

func TestRequests(t *testing.T) {
	c := &cluster{answers: map[string]string{"PATCH /apis/batch/v1/namespaces/kelvin/jobs/digits": "{}", "PATCH /api/v1/namespaces/lab/secrets/kelvin-join": "{}",
		"PATCH /apis/batch/v1/namespaces/lab/jobs/digits": "{}"}}
	k := c.open(t)
	job, err := kube.NewJob(some())
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if err := errors.Join(k.Apply(ctx, job, kube.Try), k.Apply(ctx, job, kube.Really),
		k.Apply(ctx, kube.NewSecret("kelvin-join", "", map[string][]byte{"token": []byte("x")}), kube.Really), k.Scale(ctx, "digits", 3)); err != nil {
		t.Fatal(err)
	}
	apply, ours := " application/apply-patch+yaml Bearer t0ken", "fieldManager=kelvin&fieldValidation=Strict&force=true"
	want := []string{
		"PATCH /apis/batch/v1/namespaces/kelvin/jobs/digits?dryRun=All&" + ours + apply,
		"PATCH /apis/batch/v1/namespaces/kelvin/jobs/digits?" + ours + apply,
		"PATCH /api/v1/namespaces/lab/secrets/kelvin-join?" + ours + apply,
		"PATCH /apis/batch/v1/namespaces/lab/jobs/digits?fieldManager=kelvin-scale&fieldValidation=Strict application/merge-patch+json Bearer t0ken",
	}
	if diff := cmp.Diff(want, c.asked); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if _, has := c.bodies[0]["status"]; has || c.bodies[0]["kind"] != "Job" {
		t.Errorf("applied: %v, want a Job without a status", c.bodies[0])
	}
	scaled := map[string]any{"spec": map[string]any{"completions": 3.0, "parallelism": 3.0, "maxFailedIndexes": 1.0}}
	if diff := cmp.Diff(scaled, c.bodies[3]); diff != "" {
		t.Errorf("scale (-want +got):\n%s", diff)
	}
	if err := k.Scale(ctx, "digits", 0); err == nil || len(c.asked) != 4 {
		t.Errorf("scaled to nothing: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		status  int
		message string
		want    api.Code
		exit    int
	}{
		{400, `Job in version \"v1\" cannot be handled as a Job: strict decoding error: unknown field \"spec.paralelism\"`, api.Invalid, 1},
		{401, "Unauthorized", api.Unauthorized, 5},
		{403, `jobs.batch \"digits\" is forbidden: exceeded quota: lab`, api.Forbidden, 5},
		{404, `namespaces \"kelvin\" not found`, api.NotFound, 3},
		{409, "the object has been modified", api.Conflict, 4},
		{422, `Job.batch \"digits\" is invalid: spec.template: field is immutable`, api.Invalid, 1},
		{429, "too many requests", api.Unavailable, 6},
		{500, "etcdserver: leader changed", api.Internal, 1},
		{503, "", api.Unavailable, 6},
		{504, "request did not complete", api.Timeout, 7},
	} {
		c := &cluster{status: tc.status, answers: map[string]string{}}
		k := c.open(t)
		c.answers["GET /apis/batch/v1/namespaces/lab/jobs/digits"] = fmt.Sprintf(`{"kind": "Status", "message": "%s"}`, tc.message)
		_, err := k.Job(t.Context(), "digits")
		refused, ok := errors.AsType[*api.Error](err)
		if !ok || refused.Code != tc.want || refused.Code.Exit() != tc.exit || !strings.Contains(refused.Message, strings.ReplaceAll(tc.message, `\"`, `"`)) {
			t.Errorf("%d: %v, want %s with %s", tc.status, err, tc.want, tc.message)
		}
	}
}

func TestNobodyThere(t *testing.T) {
	srv := httptest.NewServer(nil)
	srv.Close()
	path := filepath.Join(t.TempDir(), "config")
	text := fmt.Sprintf("{clusters: [{name: c, cluster: {server: %s}}], contexts: [{name: x, context: {cluster: c}}], current-context: x}", srv.URL)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := kube.Open(kube.Access{Kubeconfig: path})
	if err != nil {
		t.Fatal(err)
	}
	_, err = k.Job(t.Context(), "digits")
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != api.Unavailable {
		t.Errorf("got %v, want %s", err, api.Unavailable)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := k.Job(ended, "digits"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

func TestKubeconfigs(t *testing.T) {
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, err := kube.Open(kube.Access{}); err == nil || !strings.Contains(err.Error(), "want a kubeconfig") {
		t.Errorf("no kubeconfig: %v", err)
	}
	if _, err := kube.Open(kube.Access{Kubeconfig: "missing"}); err == nil {
		t.Error("a file that is not there: no error")
	}
	path := filepath.Join(t.TempDir(), "config")
	text := `{clusters: [{name: c, cluster: {server: "https://example.org:6443"}}], contexts: [{name: x, context: {cluster: c, namespace: lab}}], current-context: x}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for namespace, want := range map[string]string{"": "lab", "kelvin": "kelvin"} {
		k, err := kube.Open(kube.Access{Kubeconfig: path, Namespace: namespace})
		if err != nil || k.Namespace() != want {
			t.Errorf("namespace %q: %v, want %s", namespace, err, want)
		}
	}
	if _, err := kube.Open(kube.Access{Kubeconfig: path, Context: "other"}); err == nil {
		t.Error("a context that is not there: no error")
	}
}

// TestLookWithoutEvents: whoever may not read events is still told what the pods say.
func TestLookWithoutEvents(t *testing.T) {
	c := &cluster{answers: map[string]string{
		"GET /apis/batch/v1/namespaces/lab/jobs/digits": `{"metadata": {"name": "digits", "namespace": "lab"}, "spec": {"completions": 1}}`,
		"GET /api/v1/namespaces/lab/pods":               `{"items": [{"metadata": {"name": "digits-0-x"}, "status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient cpu."}]}}]}`,
	}}
	c.forbidden = "/api/v1/namespaces/lab/events"
	seen, err := c.open(t).Look(t.Context(), "digits")
	if err != nil || len(seen.Findings) != 1 {
		t.Errorf("%+v, %v, want the finding of a pod", seen, err)
	}
	if !slices.ContainsFunc(c.asked, func(s string) bool {
		return strings.Contains(s, "labelSelector=batch.kubernetes.io%2Fjob-name%3Ddigits")
	}) {
		t.Errorf("pods are asked for by %v", c.asked)
	}
}
