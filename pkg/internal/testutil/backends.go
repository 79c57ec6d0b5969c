package testutil

import (
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
)

var opened = map[string]func() (*backend.Backend, error){
	"go":      sync.OnceValues(func() (*backend.Backend, error) { return backend.Open(backend.Config{Kind: "go", Threads: 2}) }),
	"xla:cpu": sync.OnceValues(func() (*backend.Backend, error) { return backend.Open(backend.Config{Kind: "xla:cpu", Threads: 2}) }),
}

// Backends runs a numeric test on every backend: xla:cpu and go, or those that KELVIN_TEST_BACKENDS names
// (comma-separated). A backend that cannot be opened fails the test, for a skipped backend proves nothing.
func Backends(t *testing.T, test func(t *testing.T, b *backend.Backend)) {
	t.Helper()
	kinds := "xla:cpu,go"
	if v := os.Getenv("KELVIN_TEST_BACKENDS"); v != "" {
		kinds = v
	}
	for kind := range strings.SplitSeq(kinds, ",") {
		t.Run(kind, func(t *testing.T) { test(t, Backend(t, kind)) })
	}
}

// Backend opens one backend, shared by all tests of the process.
func Backend(t testing.TB, kind string) *backend.Backend {
	t.Helper()
	open := opened[kind]
	if open == nil {
		t.Fatalf("KELVIN_TEST_BACKENDS: %q, want xla:cpu or go", kind)
	}
	b, err := open()
	if err != nil {
		t.Fatalf("backend %s: %v (the command `go run ./cmd/coordinator backend install cpu` installs XLA)", kind, err)
	}
	return b
}
