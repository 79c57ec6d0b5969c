package server

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// TestRoutes asks for everything there is, rightly and wrongly. The cases follow each other in one cluster.
func TestRoutes(t *testing.T) {
	c := start(t, nil)
	admin := c.firstToken(t)
	client := c.client(t, admin)
	reader := token(t, client, api.CreateToken{Name: "reader", Scope: "read"})
	operator := token(t, client, api.CreateToken{Name: "operator", Scope: "operate", Experiments: "two-*", Owner: "ann"})
	join := token(t, client, api.CreateToken{Name: "join", Scope: "join"})
	if _, err := client.PutQuota(t.Context(), "ann", api.PutQuota{Experiments: 1}); err != nil {
		t.Fatal(err)
	}
	_, id := submit(t, client, "moons")
	c.atWork(t, id)
	c.cut(t, id, 1, 10)
	commit := c.cut(t, id, 1, 20)
	blob := commit.Parts[0].Digest.String()
	other := c.put(t, "a blob that nothing names").String()
	fresh := digestOf("fresh")
	cycle := strings.Repeat("ab", 16)

	const moons = "/v1/experiments/moons"
	for _, tc := range []struct {
		name         string
		method, path string
		token        string
		body         any
		header       []string
		status       int
		want         string // code of the error, or part of the answer
	}{
		{"no token", "GET", "/v1/experiments", "", nil, nil, 401, "unauthorized"},
		{"an unknown token", "GET", "/v1/experiments", "guess", nil, nil, 401, "unauthorized"},
		{"another scheme", "GET", "/v1/experiments", "", nil, []string{"Authorization", "Basic " + admin}, 401, "unauthorized"},
		{"a token in the URL is none", "GET", "/v1/experiments?token=" + admin, "", nil, nil, 401, "unauthorized"},
		{"no such path", "GET", "/v1/nothing", admin, nil, nil, 404, "not_found"},
		{"a path that is not clean", "GET", "/v1/../v1/experiments", admin, nil, nil, 404, "not_found"},
		{"another method", "PUT", "/v1/experiments", admin, nil, nil, 405, "invalid"},
		{"a wish for consistency that is none", "GET", "/v1/experiments?consistency=eventual", admin, nil, nil, 422, "invalid"},

		{"all experiments", "GET", "/v1/experiments", reader, nil, nil, 200, `"name":"moons"`},
		{"all experiments, stale", "GET", "/v1/experiments?consistency=stale", reader, nil, nil, 200, `"index":`},
		{"all experiments, linearizable", "GET", "/v1/experiments?consistency=linearizable", reader, nil, nil, 200, `"kind":"ExperimentList"`},
		{"none is for the operator", "GET", "/v1/experiments", operator, nil, nil, 200, `"items":[]`},
		{"one experiment", "GET", moons, reader, nil, nil, 200, `"yaml":"shards: 4"`},
		{"one of another token", "GET", moons, operator, nil, nil, 403, "forbidden"},
		{"one that is not there", "GET", "/v1/experiments/sun", reader, nil, nil, 404, "not_found"},
		{"with the scope join", "GET", moons, join, nil, nil, 403, "forbidden"},

		{"a submission by a reader", "POST", "/v1/experiments", reader, api.Submit{}, nil, 403, "forbidden"},
		{"a submission without uid", "POST", "/v1/experiments", admin, api.Submit{YAML: "shards: 1"}, nil, 422, "invalid"},
		{"a submission that does not check", "POST", "/v1/experiments", admin, api.Submit{UID: cycle, YAML: "shards"}, nil, 422, "experiment.yaml:1"},
		{"a dry run", "POST", "/v1/experiments", admin, api.Submit{YAML: "shards: 2", DryRun: true}, nil, 200, `"name":"named-by-file"`},
		{"a dry run of a name that is taken", "POST", "/v1/experiments", admin, api.Submit{Name: "moons", YAML: "shards: 2", DryRun: true}, nil, 409, "conflict"},
		{"a dry run of more replicas than are wanted", "POST", "/v1/experiments", admin, api.Submit{YAML: "shards: 2", MinReplicas: 3, DryRun: true}, nil, 422, "invalid"},
		{"a submission for another owner", "POST", "/v1/experiments", operator, api.Submit{UID: cycle, Name: "two-a", YAML: "shards: 2", Owner: "bob"}, nil, 403, "forbidden"},
		{"a submission of another name than allowed", "POST", "/v1/experiments", operator, api.Submit{UID: cycle, YAML: "shards: 2"}, nil, 403, "forbidden"},
		{"a name that is no segment of a path", "POST", "/v1/experiments", admin, api.Submit{UID: cycle, Name: "a/b", YAML: "shards: 2"}, nil, 422, "invalid"},
		{"a submission", "POST", "/v1/experiments", operator, api.Submit{UID: cycle, Name: "two-a", YAML: "shards: 2", CutEverySeconds: 2.5}, nil, 201, `"cut_every_seconds":2.5`},
		{"the same again", "POST", "/v1/experiments", operator, api.Submit{UID: cycle, Name: "two-a", YAML: "shards: 2", CutEverySeconds: 2.5}, nil, 201, `"owner":"ann"`},
		{"the name again", "POST", "/v1/experiments", admin, api.Submit{UID: strings.Repeat("ac", 16), Name: "two-a", YAML: "shards: 2"}, nil, 409, "conflict"},
		{"more than the quota", "POST", "/v1/experiments", operator, api.Submit{UID: strings.Repeat("ac", 16), Name: "two-b", YAML: "shards: 2"}, nil, 403, "quota"},

		{"a change by a reader", "PATCH", moons, reader, api.Patch{Desired: "pause"}, nil, 403, "forbidden"},
		{"a change of nothing", "PATCH", moons, admin, api.Patch{}, nil, 422, "invalid"},
		{"a wish that is none", "PATCH", moons, admin, api.Patch{Desired: "sleep"}, nil, 422, "want one of run, pause, cancel"},
		{"a change of another version", "PATCH", moons, admin, api.Patch{Desired: "pause"}, []string{"If-Match", `"1"`}, 412, "conflict"},
		{"a change with a broken version", "PATCH", moons, admin, api.Patch{Desired: "pause"}, []string{"If-Match", `1`}, 400, "invalid"},
		{"a change", "PATCH", moons, admin, api.Patch{Priority: new(int32)}, nil, 200, `"priority":0`},
		{"deleting what runs", "DELETE", moons, admin, nil, nil, 409, "conflict"},
		{"deleting what is not there", "DELETE", "/v1/experiments/sun", admin, nil, nil, 404, "not_found"},

		{"replicas", "GET", moons + "/replicas", reader, nil, nil, 200, `"state":"active","shards":[0,1,2,3]`},
		{"draining a replica that is not there", "POST", moons + "/replicas/r9/drain", admin, nil, nil, 404, "not_found"},
		{"draining one", "POST", moons + "/replicas/r0/drain", admin, nil, nil, 204, ""},
		{"it drains", "GET", moons + "/replicas", reader, nil, nil, 200, `"state":"draining"`},
		{"taking over", "POST", moons + "/replicas/r0/takeover", admin, nil, nil, 204, ""},
		{"its lease is over", "GET", moons + "/replicas", reader, nil, nil, 200, `"items":[]`},
		{"shards", "GET", moons + "/shards", reader, nil, nil, 200, `"shard":3,"replica":"r0"`},
		{"ladder", "GET", moons + "/ladder", reader, nil, nil, 200, `"beta":0.1`},
		{"another ladder by a reader", "PUT", moons + "/ladder", reader, api.PutLadder{}, nil, 403, "forbidden"},
		{"another ladder without a cut", "PUT", moons + "/ladder", admin, api.PutLadder{YAML: "shards: 6"}, nil, 422, "manifest"},
		{"buffer", "GET", moons + "/buffer", reader, nil, nil, 200, `"columns":128`},
		{"buffer without a cut", "GET", "/v1/experiments/two-a/buffer", reader, nil, nil, 404, "not_found"},
		{"events", "GET", moons + "/events", reader, nil, nil, 200, `"reason":"cut","text":"step 20"`},
		{"metrics", "GET", moons + "/metrics", reader, nil, nil, 200, ""},
		{"metrics from no step", "GET", moons + "/metrics?from=x", reader, nil, nil, 422, "invalid"},

		{"cuts", "GET", moons + "/cuts", reader, nil, nil, 200, `"name":"chains"`},
		{"the last cut", "GET", moons + "/cuts/last", reader, nil, nil, 200, `"contents":{"step":20}`},
		{"a cut", "GET", moons + "/cuts/10", reader, nil, nil, 200, `"step":10`},
		{"a cut that is not kept", "GET", moons + "/cuts/15", reader, nil, nil, 404, "it keeps those of 10, 20"},
		{"a cut that is none", "GET", moons + "/cuts/first", reader, nil, nil, 422, "invalid"},
		{"no cut yet", "GET", "/v1/experiments/two-a/cuts/last", reader, nil, nil, 404, "not_found"},
		{"going back while it runs", "POST", moons + "/cuts/10", admin, api.ReplaceCut{}, nil, 409, "coordinator pause moons"},

		{"a blob", "GET", "/v1/blobs/" + blob, reader, nil, nil, 200, "chains of step 20"},
		{"a part of a blob", "GET", "/v1/blobs/" + blob, reader, nil, []string{"Range", "bytes=7-8"}, 206, "of"},
		{"a blob that is none", "GET", "/v1/blobs/xyz", reader, nil, nil, 422, "invalid"},
		{"a blob that is not there", "GET", "/v1/blobs/" + fresh, reader, nil, nil, 404, "not_found"},
		{"a blob of nobody's, with a token for some", "GET", "/v1/blobs/" + other, operator, nil, nil, 403, "forbidden"},
		{"an upload of something else", "PUT", "/v1/blobs/" + fresh, admin, "stale", nil, 422, "invalid"},
		{"an upload by a reader", "PUT", "/v1/blobs/" + fresh, reader, "fresh", nil, 403, "forbidden"},
		{"an upload", "PUT", "/v1/blobs/" + fresh, admin, "fresh", nil, 204, ""},
		{"an upload again", "PUT", "/v1/blobs/" + fresh, admin, "fresh", nil, 204, ""},

		{"a watch from no index", "GET", "/v1/watch?since=-1", reader, nil, nil, 422, "invalid"},
		{"a watch of another's", "GET", "/v1/watch?experiment=moons", operator, nil, nil, 403, "forbidden"},

		{"members", "GET", "/v1/members", reader, nil, nil, 200, `"name":"a"`},
		{"a member of no name", "POST", "/v1/members", admin, api.AddMember{}, nil, 422, "invalid"},
		{"a member by a reader", "POST", "/v1/members", reader, api.AddMember{Name: "b", Peer: "b:7000"}, nil, 403, "forbidden"},
		{"a member of one that is alone", "POST", "/v1/members", admin, api.AddMember{Name: "b", Peer: "b:7000"}, nil, 409, "conflict"},
		{"removing the leader", "DELETE", "/v1/members/a", admin, nil, nil, 409, "conflict"},
		{"removing nobody", "DELETE", "/v1/members/b", admin, nil, nil, 404, "not_found"},
		{"promoting nobody", "POST", "/v1/members/b/promote", admin, nil, nil, 404, "not_found"},
		{"handing over to nobody", "POST", "/v1/members/b/lead", admin, nil, nil, 404, "not_found"},

		{"tokens", "GET", "/v1/tokens", admin, nil, nil, 200, `"name":"operator","scope":"operate","owner":"ann","experiments":"two-*"`},
		{"tokens for an operator", "GET", "/v1/tokens", operator, nil, nil, 403, "forbidden"},
		{"a token of no scope", "POST", "/v1/tokens", admin, api.CreateToken{Name: "x", Scope: "all"}, nil, 422, "invalid"},
		{"a token of a negative life", "POST", "/v1/tokens", admin, api.CreateToken{Name: "x", Scope: "read", TTLSeconds: -1}, nil, 422, "invalid"},
		{"a join token that lives too long", "POST", "/v1/tokens", admin, api.CreateToken{Name: "x", Scope: "join", TTLSeconds: 90000}, nil, 422, "invalid"},
		{"a token for no experiments", "POST", "/v1/tokens", admin, api.CreateToken{Name: "x", Scope: "read", Experiments: "a b"}, nil, 422, "invalid"},
		{"a token of a name that is taken", "POST", "/v1/tokens", admin, api.CreateToken{Name: "reader", Scope: "read"}, nil, 409, "conflict"},
		{"a token", "POST", "/v1/tokens", admin, api.CreateToken{Name: "x", Scope: "read", TTLSeconds: 60}, nil, 201, `"secret":"kelvin_`},
		{"revoking it", "DELETE", "/v1/tokens/x", admin, nil, nil, 204, ""},
		{"revoking it again", "DELETE", "/v1/tokens/x", admin, nil, nil, 404, "not_found"},
		{"revoking the last", "DELETE", "/v1/tokens/bootstrap", admin, nil, nil, 409, "conflict"},

		{"bootstrap with another token", "POST", "/v1/tokens/bootstrap", reader, nil, nil, 401, "unauthorized"},

		{"quotas", "GET", "/v1/quotas", reader, nil, nil, 200, `"owner":"ann","experiments":1`},
		{"a quota", "GET", "/v1/quotas/ann", reader, nil, nil, 200, `"used":{"experiments":1,"replicas":2,"bytes":0}`},
		{"a quota of nobody", "GET", "/v1/quotas/eve", reader, nil, nil, 200, `"used":{"experiments":0,"replicas":0,"bytes":0}`},
		{"a quota by a reader", "PUT", "/v1/quotas/ann", reader, api.PutQuota{}, nil, 403, "forbidden"},
		{"setting one", "PUT", "/v1/quotas/ann", admin, api.PutQuota{Bytes: 9}, nil, 200, `"bytes":9`},

		{"asking with the scope read", "POST", "/v1/pool/ask", reader, api.Ask{ID: "r1"}, nil, 403, "forbidden"},
		{"asking without a name", "POST", "/v1/pool/ask", join, api.Ask{}, nil, 422, "invalid"},
		{"asking in vain", "POST", "/v1/pool/ask", join, api.Ask{ID: "idle"}, nil, 204, ""},
		{"asking", "POST", "/v1/pool/ask", join, api.Ask{ID: "r1", Incarnation: 1 << 60}, nil, 200, `"kind":"Assignment"`},
		{"pool", "GET", "/v1/pool", reader, nil, nil, 200, `"id":"r0"`},

		{"a backup by an operator", "GET", "/v1/backup", operator, nil, nil, 403, "forbidden"},
		{"a backup", "GET", "/v1/backup", admin, nil, nil, 200, "backup.json"},
		{"restoring over what there is", "POST", "/v1/restore", admin, "", nil, 409, "conflict"},

		{"alive", "GET", "/livez", "", nil, nil, 200, "ok"},
		{"ready", "GET", "/readyz", "", nil, nil, 200, "ok"},
		{"started", "GET", "/startupz", "", nil, nil, 200, "ok"},
		{"version", "GET", "/version", "", nil, nil, 200, `"node":"a","leader":"a"`},
		{"document", "GET", "/openapi.json", "", nil, nil, 200, `"openapi": "3.1.0"`},
		{"numbers", "GET", "/metrics", "", nil, nil, 200, `kelvin_swap_accepted_total{experiment="moons",pair="0"} 4`},
	} {
		status, answer, header := c.call(t, tc.method, tc.path, tc.token, tc.body, tc.header...)
		if status != tc.status || !strings.Contains(string(answer), tc.want) {
			t.Errorf("%s: %s %s: %d %s, want %d and %s", tc.name, tc.method, tc.path, status, answer, tc.status, tc.want)
		}
		if status >= 400 {
			codeOf(t, answer)
		}
		if status == 401 && header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: no WWW-Authenticate", tc.name)
		}
	}
	_, numbers, _ := c.call(t, "GET", "/metrics", "", nil)
	for _, rt := range c.routes {
		if key := fmt.Sprintf("route=%q", rt.method+" "+rt.path); !strings.Contains(string(numbers), key) {
			t.Errorf("no case tries %s", key)
		}
	}
}

// TestEveryRouteWantsAToken but those that are open.
func TestEveryRouteWantsAToken(t *testing.T) {
	c := start(t, nil)
	c.firstToken(t)
	for _, rt := range c.routes {
		if rt.scope == open {
			continue
		}
		for _, secret := range []string{"", "guess"} {
			if status, _, _ := c.call(t, rt.method, inPath.ReplaceAllString(rt.path, "x"), secret, nil); status != http.StatusUnauthorized {
				t.Errorf("%s %s with the token %q: %d, want 401", rt.method, rt.path, secret, status)
			}
		}
	}
}

// TestCompareAndSet: of many who saw the same version one changes it.
func TestCompareAndSet(t *testing.T) {
	c := start(t, nil)
	client := c.admin(t)
	e, _ := submit(t, client, "moons")
	const racers = 16
	errs := make(chan error, racers)
	for i := range racers {
		go func() {
			priority := int32(i + 1)
			_, err := client.Patch(t.Context(), "moons", api.Patch{Priority: &priority}, e.Version)
			errs <- err
		}()
	}
	won := 0
	for range racers {
		err := <-errs
		if err == nil {
			won++
		} else if e := asError(err); e.Code != api.Conflict || e.Status != http.StatusPreconditionFailed {
			t.Errorf("a loser got %v with status %d, want a failed precondition", err, e.Status)
		}
	}
	if won != 1 {
		t.Errorf("%d won, want 1", won)
	}

	status, _, header := c.call(t, "GET", "/v1/experiments/moons", c.firstToken(t), nil)
	if status != 200 || header.Get("ETag") == etag(e.Version) {
		t.Errorf("status %d, ETag %s after the change, want another than %s", status, header.Get("ETag"), etag(e.Version))
	}
	if status, body, _ := c.call(t, "GET", "/v1/experiments/moons", c.firstToken(t), nil, "If-None-Match", header.Get("ETag")); status != 304 || len(body) > 0 {
		t.Errorf("the same version again: %d %q, want 304 and nothing", status, body)
	}
}

func asError(err error) *api.Error { return fault(err) }

// TestReplaceCut goes back to a cut and puts another in its place.
func TestReplaceCut(t *testing.T) {
	c := start(t, nil)
	client := c.admin(t)
	_, id := submit(t, client, "moons")
	c.atWork(t, id)
	c.cut(t, id, 1, 10)
	c.cut(t, id, 1, 20)
	c.apply(t, id, ledger.GenerationOpen{Number: 2, From: 20})
	c.apply(t, id, ledger.ExpSet{Desired: ledger.Pause})
	c.apply(t, id, ledger.ExpPhase{Phase: ledger.Paused})

	// What is refused forgets no cut: it is one command.
	bad := api.ReplaceCut{Manifest: c.put(t, `{"step": 10, "bad": true}`).String(), Conservation: api.Conservation{Ladders: 1, Rungs: 2, Labels: 3},
		Parts: []api.Part{{Name: "chains", Digest: c.put(t, "bad chains").String(), Bytes: 10}}}
	if _, err := client.ReplaceCut(t.Context(), "moons", 10, bad, 0); asError(err).Code != api.Conflict {
		t.Errorf("one that breaks a law: %v, want a conflict", err)
	}
	if _, err := client.ReplaceCut(t.Context(), "moons", 10, api.ReplaceCut{}, 1); asError(err).Status != http.StatusPreconditionFailed {
		t.Errorf("of another version: %v, want a failed precondition", err)
	}
	if cuts, err := client.Cuts(t.Context(), "moons"); err != nil || len(cuts.Items) != 2 {
		t.Errorf("cuts: %+v, %v, want both", cuts, err)
	}
	if cut, err := client.ReplaceCut(t.Context(), "moons", 10, api.ReplaceCut{}, 0); err != nil || cut.Step != 10 {
		t.Fatalf("going back: %+v, %v", cut, err)
	}
	if cuts, err := client.Cuts(t.Context(), "moons"); err != nil || len(cuts.Items) != 1 {
		t.Fatalf("cuts: %+v, %v, want that of step 10 alone", cuts, err)
	}
	manifest, part := c.put(t, `{"step": 10, "new": true}`), c.put(t, "other chains")
	in := api.ReplaceCut{Manifest: manifest.String(), Parts: []api.Part{{Name: "chains", Digest: part.String(), Bytes: 12}},
		Conservation: api.Conservation{Ladders: 1, Rungs: 2, Labels: 2, Created: 2, Live: 2}}
	for name, spoil := range map[string]func(*api.ReplaceCut){
		"blob":         func(r *api.ReplaceCut) { r.Parts = []api.Part{{Name: "chains", Digest: digestOf("nowhere"), Bytes: 1}} },
		"digest":       func(r *api.ReplaceCut) { r.Manifest = "abc" },
		"manifest":     func(r *api.ReplaceCut) { r.Manifest = "" },
		"of a cut of":  func(r *api.ReplaceCut) { r.Manifest = part.String() },
		"labels":       func(r *api.ReplaceCut) { r.Conservation.Labels = 3 },
		"cut without ": func(r *api.ReplaceCut) { r.Parts = nil },
	} {
		bad := in
		spoil(&bad)
		if _, err := client.ReplaceCut(t.Context(), "moons", 10, bad, 0); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, want it refused", name, err)
		}
	}
	cut, err := client.ReplaceCut(t.Context(), "moons", 10, in, 0)
	if err != nil || cut.Manifest != manifest.String() {
		t.Fatalf("replacing: %+v, %v", cut, err)
	}
	got, err := client.LastCut(t.Context(), "moons")
	if want := `{"step":10,"new":true}`; err != nil || string(got.Contents) != want {
		t.Errorf("the cut says %s, %v, want %s", got.Contents, err, want)
	}
	if fmt.Sprint(got.Conservation) != fmt.Sprint(in.Conservation) {
		t.Errorf("conservation %+v, want %+v", got.Conservation, in.Conservation)
	}
	in.Manifest = c.put(t, `{"step": 4}`).String()
	if _, err := client.ReplaceCut(t.Context(), "moons", 4, in, 0); err != nil {
		t.Errorf("one of a step that is not kept: %v", err)
	}
	if cuts, err := client.Cuts(t.Context(), "moons"); err != nil || len(cuts.Items) != 1 || cuts.Items[0].Step != 4 {
		t.Errorf("cuts: %+v, %v, want that of step 4 alone", cuts, err)
	}
}

// TestRestore brings a cluster's backup to another, with its tokens.
func TestRestore(t *testing.T) {
	old, fresh := start(t, nil), start(t, nil)
	client := old.admin(t)
	e, id := submit(t, client, "moons")
	old.atWork(t, id)
	cut := old.cut(t, id, 1, 10)
	var tar bytes.Buffer
	if _, err := client.Backup(t.Context(), &tar); err != nil {
		t.Fatal(err)
	}
	bytesOf := func(data []byte) (int64, func() (io.ReadCloser, error)) {
		return int64(len(data)), func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	}

	into := fresh.admin(t)
	damaged := bytes.Clone(tar.Bytes())
	damaged[bytes.Index(damaged, []byte("chains of step"))] ^= 1
	size, open := bytesOf(damaged)
	if _, err := into.Restore(t.Context(), size, open, ""); asError(err).Code != api.Invalid {
		t.Errorf("a damaged backup: %v, want it invalid", err)
	}
	size, open = bytesOf(tar.Bytes())
	out, err := into.Restore(t.Context(), size, open, "")
	if err != nil || out.Experiments != 1 {
		t.Fatalf("%+v, %v", out, err)
	}
	moved := fresh.client(t, old.firstToken(t))
	again, err := moved.Experiment(t.Context(), "moons")
	if err != nil || again.UID != e.UID {
		t.Errorf("%+v, %v", again, err)
	}
	var part bytes.Buffer
	if _, err := moved.Blob(t.Context(), cut.Parts[0].Digest.String(), &part); err != nil || part.String() != "chains of step 10" {
		t.Errorf("%q, %v", part.String(), err)
	}
	if _, err := moved.Restore(t.Context(), size, open, "another cluster"); asError(err).Code != api.Conflict {
		t.Errorf("over what there is: %v, want a conflict", err)
	}
	if _, err := moved.Restore(t.Context(), size, open, out.Cluster); err != nil {
		t.Errorf("by force: %v", err)
	}
}
