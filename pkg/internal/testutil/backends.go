package testutil

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
)

var opened = map[string]func() (*backend.Backend, error){
	backend.Go:   openOnce(backend.Go),
	backend.CPU:  openOnce(backend.CPU),
	backend.CUDA: openOnce(backend.CUDA),
}

func openOnce(kind string) func() (*backend.Backend, error) {
	return sync.OnceValues(func() (*backend.Backend, error) {
		// Tests need no network: the plugin is there, or they say how to get it.
		return backend.Open(context.Background(), backend.Config{Kind: kind, Threads: 2}, backend.Options{NoInstall: true})
	})
}

// Backends runs a numeric test on every backend: xla:cpu and go, or those that KELVIN_TEST_BACKENDS names
// (comma-separated; xla:cuda too). A backend that cannot be opened fails the test, for a skipped backend proves nothing.
func Backends(t *testing.T, test func(t *testing.T, b *backend.Backend)) {
	t.Helper()
	kinds := backend.CPU + "," + backend.Go
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
		t.Fatalf("KELVIN_TEST_BACKENDS: %q, want xla:cuda, xla:cpu or go", kind)
	}
	b, err := open()
	if err != nil {
		t.Fatalf("backend %s: %v (the command `go run ./cmd/coordinator backend install cpu` installs XLA)", kind, err)
	}
	return b
}
