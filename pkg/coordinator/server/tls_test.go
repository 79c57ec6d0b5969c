package server

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// TestOverHTTP2: streams, trailers and transfers work there too.
func TestOverHTTP2(t *testing.T) {
	c := start(t, nil)
	secret := c.firstToken(t)
	protocols := make(chan int, 100)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protocols <- r.ProtoMajor
		c.Handler().ServeHTTP(w, r)
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	client, err := api.New(api.Config{Endpoints: []string{srv.URL}, Token: secret, TLS: srv.Client().Transport.(*http.Transport).TLSClientConfig})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()

	_, id := submit(t, client, "moons")
	data := strings.Repeat("large enough for several frames ", 1<<14)
	open := func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(data)), nil }
	for range 2 {
		if err := client.PutBlob(t.Context(), digestOf(data), int64(len(data)), open); err != nil {
			t.Fatal(err)
		}
	}
	var got bytes.Buffer
	if _, err := client.Blob(t.Context(), digestOf(data), &got); err != nil || got.String() != data {
		t.Errorf("%d bytes, %v", got.Len(), err)
	}
	c.work.metrics.add(0)
	steps := 0
	for _, err := range client.Metrics(t.Context(), "moons", -1, true) {
		if err != nil {
			t.Fatal(err)
		}
		steps++
		c.apply(t, id, ledger.ExpPhase{Phase: ledger.Cancelled})
	}
	if steps != 1 {
		t.Errorf("%d records, want 1", steps)
	}
	for change, err := range client.Watch(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		if change.Kind == api.KindMember {
			break
		}
	}
	if _, err := client.Backup(t.Context(), io.Discard); err != nil {
		t.Error(err)
	}
	close(protocols)
	for major := range protocols {
		if major != 2 {
			t.Fatalf("HTTP/%d, want 2", major)
		}
	}
}
