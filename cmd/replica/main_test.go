package main

import (
	"os"
	"path/filepath"
	"testing"

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
	if err := os.WriteFile(path, []byte("  from the file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"": "from the environment", path: "from the file"} {
		if got, err := local.ReadToken(file); err != nil || got != want {
			t.Errorf("--token-file %q: %q, %v, want %q", file, got, err, want)
		}
	}
}
