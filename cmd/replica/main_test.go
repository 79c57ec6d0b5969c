package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/local"
)

// What is wrong with the command line is wrong at the next start too: exit code 42.
func TestFaultsOfTheCommandLine(t *testing.T) {
	t.Setenv(indexVariable, "")
	t.Setenv(local.TokenVariable, "")
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	full := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(full, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{},
		{"--token-file", empty, "--coordinator", "nats://127.0.0.1:1", "--id", "1"},
		{"--token-file", full + "-missing", "--coordinator", "nats://127.0.0.1:1", "--id", "1"},
		{"--token-file", full, "--id", "1"},
		{"--token-file", full, "--coordinator", "nats://127.0.0.1:1"},
		{"--token-file", full, "--coordinator", "nats://127.0.0.1:1", "--id", "a b"},
		{"--token-file", full, "--coordinator", "https://127.0.0.1:1", "--id", "a.b"},
		{"--token-file", full, "--coordinator", "ftp://127.0.0.1:1", "--id", "1"},
		{"--token-file", full, "--coordinator", "127.0.0.1:1", "--id", "1"},
		{"--token-file", full, "--coordinator", "http://coordinator.example:1", "--id", "1"}, // others could read the token
		{"--token-file", full, "--coordinator", "https://user:secret@127.0.0.1:1", "--id", "1"},
		{"--token-file", full, "--coordinator", "https://127.0.0.1:1,nats://127.0.0.1:1", "--id", "1"},
		{"--token-file", full, "--coordinator", "nats://127.0.0.1:1", "--id", "1", "--experiment", "a"},
		{"--token-file", full, "--coordinator", "nats://127.0.0.1:1", "--id", "1", "--once"},
		{"--token-file", full, "--coordinator", "https://127.0.0.1:1", "--id", "1", "--patience", "-1s"},
		{"--token-file", full, "--coordinator", "https://127.0.0.1:1", "--id", "1", "--nats-user", "r1"},
		{"--token-file", full, "--coordinator", "https://127.0.0.1:1", "--id", "1", "--nats-user", "r1", "--nats-password-file", full, "--nats-credentials", full},
		{"--token-file", full, "--coordinator", "https://127.0.0.1:1", "--id", "1", "--ca", full},
		{"--token-file", full, "--coordinator", "https://127.0.0.1:1", "--id", "1", "--ca", full + "-missing"},
		{"--token-file", full, "--coordinator", "https://127.0.0.1:1", "--id", "1", "--health", "nowhere"},
		{"--no-such-flag"},
	} {
		if code := run(args); code != 42 {
			t.Errorf("%v: exit code %d, want 42", args, code)
		}
	}
}

func TestTokenComesFromFileOrEnvironment(t *testing.T) {
	t.Setenv(local.TokenVariable, "from the environment")
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("  from-the-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"": "from the environment", path: "from-the-file"} {
		if got, err := local.ReadToken(file); err != nil || got != want {
			t.Errorf("--token-file %q: %q, %v, want %q", file, got, err, want)
		}
	}
}

// A replica whose only experiment has ended ends with the status that the coordinators say, and says until then what it waits for.
func TestReplicaAsksCoordinatorsForWork(t *testing.T) {
	t.Setenv(local.TokenVariable, "secret")
	health := freeAddress(t)
	for _, want := range []int{0, 42, 143} {
		var asked atomic.Int32
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var in api.Ask
			if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.ID != "7" || in.Experiment != "digits" || in.Incarnation == 0 {
				t.Errorf("asked as %+v, %v", in, err)
			}
			if r.URL.Path != "/v1/pool/ask" || r.Header.Get("Authorization") != "Bearer secret" {
				t.Errorf("%s with %q", r.URL, r.Header.Get("Authorization"))
			}
			if asked.Add(1) == 1 {
				w.WriteHeader(http.StatusNoContent)
				return
			}
			if res, err := http.Get("http://" + health + "/livez"); err != nil {
				t.Error(err)
			} else {
				defer res.Body.Close()
				if text, _ := io.ReadAll(res.Body); res.StatusCode != 200 || !strings.Contains(string(text), "waits for work") {
					t.Errorf("/livez: %s, %q", res.Status, text)
				}
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(api.Assignment{Meta: api.Kind("Assignment"), Done: true, Exit: want, Reason: "because"})
		}))
		code := run([]string{"--coordinator", "http://127.0.0.1:1," + server.URL, "--id", "7", "--experiment", "digits", "--health", health})
		server.Close()
		if code != want {
			t.Errorf("exit code %d, want %d", code, want)
		}
	}
}

func freeAddress(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
