package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kelvin-ebm/kelvin/pkg/local"
)

var update = flag.Bool("update", false, "rewrite the expected output in testdata/script")

// TestMain makes this test's binary the coordinator too, for the scripts.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"coordinator": main})
}

// TestScripts runs the command lines of testdata/script, each in a folder of its own. $EXAMPLES is the examples' folder.
func TestScripts(t *testing.T) {
	examples, err := filepath.Abs(filepath.Join("..", "..", "examples"))
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"waitfor": waitFor},
		Setup: func(env *testscript.Env) error {
			env.Setenv("EXAMPLES", examples)
			env.Setenv("KELVIN_NO_INSTALL", "1")
			env.Setenv("NO_COLOR", "1")
			// The plugin is looked for below the home folder, which a script does not have.
			if home, err := os.UserHomeDir(); err == nil {
				env.Setenv("HOME", home)
			}
			return nil
		},
	})
}

// waitFor waits until a file has something in it, at most a minute: `waitfor run/metrics.jsonl`.
func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: waitfor file")
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-tick.C {
		if info, err := os.Stat(ts.MkAbs(args[0])); err == nil && info.Size() > 0 {
			return
		}
	}
	ts.Fatalf("%s: still nothing in it after a minute", args[0])
}

func TestExitCodes(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want int
	}{
		{errors.New("any"), 1},
		{usageErrorf("--x: wrong"), 2},
		{fmt.Errorf("run x: %w", local.ErrNoRun), 3},
		{fmt.Errorf("output folder x: %w", local.ErrRunExists), 4},
		{fmt.Errorf("%w at step 3", local.ErrInterrupted), 130},
		{fmt.Errorf("sampling: %w", context.Canceled), 130},
	} {
		if got := exitCode(tc.err); got != tc.want {
			t.Errorf("%v: exit code %d, want %d", tc.err, got, tc.want)
		}
	}
}
