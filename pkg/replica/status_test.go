package replica

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/engine"
)

func TestLivenessIsProgressOrANamedWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(Status)
		check := func(ok bool, text string) {
			t.Helper()
			got, live := s.Live()
			if live != ok || !strings.Contains(got, text) {
				t.Errorf("%q, live %v, want %q, %v", got, live, text, ok)
			}
		}
		check(true, "begins")
		s.waits("work")
		time.Sleep(24 * time.Hour)
		check(true, "waits for work")

		s.begins(Run) // the first step compiles
		time.Sleep(9 * time.Minute)
		check(true, "run behind step 0")
		time.Sleep(2 * time.Minute)
		check(false, "nothing for 11m0s, want something every 10m0s")

		s.made(1, 4*time.Second)
		check(true, "run behind step 1")
		time.Sleep(49 * time.Second) // 30 s + 5 steps
		check(true, "run behind step 1")
		time.Sleep(2 * time.Second)
		check(false, "want something every 50s")

		came := s.owes(engine.Key{Kind: engine.RowsBlob, Shard: 3, Scan: 9}, "b")
		time.Sleep(time.Hour)
		check(true, "waits for rows of shard 3, scan 9 of replica b")
		came()
		check(true, "run behind step 1")
		time.Sleep(time.Minute)
		check(false, "nothing for 1m0s")

		s.ends()
		s.waits("the coordinator's word")
		time.Sleep(time.Hour)
		check(true, "waits for the coordinator's word")
	})
}

func TestPaceIsAMovingAverage(t *testing.T) {
	s := new(Status)
	for step := range 100 {
		s.made(step, time.Second)
	}
	if s.made(100, 11*time.Second); s.pace != 2*time.Second {
		t.Errorf("pace %v after one slow step, want 2s", s.pace)
	}
}

func TestHealthHandler(t *testing.T) {
	s := new(Status)
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	s.waits("a lease")
	for _, tc := range []struct {
		path   string
		leased bool
		code   int
		body   string
	}{
		{"/livez", false, 200, "waits for a lease\n"},
		{"/readyz", false, 503, "waits for a lease\n"},
		{"/readyz", true, 200, "waits for a lease\n"},
		{"/metrics", true, 404, "404 page not found\n"},
	} {
		s.leased(tc.leased)
		if code, body := get(tc.path); code != tc.code || body != tc.body {
			t.Errorf("%s, lease %v: %d %q, want %d %q", tc.path, tc.leased, code, body, tc.code, tc.body)
		}
	}
}

// Most replicas have nobody who looks.
func TestNilStatus(t *testing.T) {
	var s *Status
	s.waits("x")
	s.leased(true)
	s.begins(Run)
	s.made(1, time.Second)
	s.owes(engine.Key{}, "a")()
	s.ends()
}
