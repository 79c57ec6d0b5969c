package server

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// TestPutLadder gives a paused experiment of four shards a ladder with which it has six.
func TestPutLadder(t *testing.T) {
	c := start(t, nil)
	client := c.admin(t)
	_, id := submit(t, client, "moons")
	manifest, part := c.put(t, `{"step": 20, "new": true}`), c.put(t, "other chains")
	in := api.PutLadder{YAML: "shards: 6", Manifest: manifest.String(), Parts: []api.Part{{Name: "chains", Digest: part.String(), Bytes: 12}},
		Conservation: api.Conservation{Ladders: 1, Rungs: 6, Labels: 6, Created: 6, Live: 6}}
	refused := func(code api.Code, what string, change func(*api.PutLadder)) {
		t.Helper()
		bad := in
		if change != nil {
			change(&bad)
		}
		if _, err := client.PutLadder(t.Context(), "moons", bad, 0); err == nil || asError(err).Code != code || !strings.Contains(err.Error(), what) {
			t.Errorf("%v, want %s of %q", err, code, what)
		}
	}
	refused(api.Conflict, "no cut yet", nil)
	c.atWork(t, id)
	c.cut(t, id, 1, 10)
	c.cut(t, id, 1, 20)
	refused(api.Conflict, "want it paused", nil)
	c.apply(t, id, ledger.ExpSet{Desired: ledger.Pause})
	c.apply(t, id, ledger.GenerationOpen{Number: 2, From: 20})
	c.apply(t, id, ledger.ExpPhase{Phase: ledger.Paused})

	refused(api.Invalid, "want shards", func(l *api.PutLadder) { l.YAML = "rungs: 6" })
	refused(api.Invalid, "more than the ladder", func(l *api.PutLadder) { l.YAML += "\nseed: 2" })
	refused(api.Invalid, "manifest", func(l *api.PutLadder) { l.Manifest = "" })
	refused(api.Invalid, "not of a cut of step 20", func(l *api.PutLadder) { l.Manifest = part.String() })
	refused(api.Invalid, "cut without parts", func(l *api.PutLadder) { l.Parts = nil })
	refused(api.Conflict, "is not here", func(l *api.PutLadder) { l.Parts = []api.Part{{Name: "chains", Digest: digestOf("nowhere"), Bytes: 1}} })
	refused(api.Conflict, "labels", func(l *api.PutLadder) { l.Conservation.Labels-- })
	before, err := client.Experiment(t.Context(), "moons")
	if err != nil || before.Shards != 4 || before.Cuts != 2 {
		t.Fatalf("%+v, %v, want it unchanged", before, err)
	}
	stale := strconv.Quote(strconv.FormatUint(before.Version-1, 10))
	if status, answer, _ := c.call(t, http.MethodPut, "/v1/experiments/moons/ladder", c.firstToken(t), in, "If-Match", stale); status != http.StatusPreconditionFailed {
		t.Errorf("an old version: %d %s, want 412", status, answer)
	}

	for range 2 { // again, it changes nothing
		e, err := client.PutLadder(t.Context(), "moons", in, before.Version)
		if err != nil || e.Shards != 6 || e.YAML != "shards: 6" || e.Cuts != 1 || e.LastCut.Step != 20 || e.Phase != api.Paused {
			t.Fatalf("%+v, %v", e, err)
		}
	}
	if cut, err := client.LastCut(t.Context(), "moons"); err != nil || cut.Manifest != in.Manifest || cut.Conservation != in.Conservation {
		t.Errorf("%+v, %v, want the new cut", cut, err)
	}
}
