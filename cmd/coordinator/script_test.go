package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/local"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
)

var update = flag.Bool("update", false, "rewrite the expected output in testdata/script")

// TestMain makes this test's binary the coordinator too, for the scripts, and a replica that works for coordinators.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"coordinator": main, "poolreplica": poolReplica})
}

// poolReplica works for the coordinator at a URL, with the token in a file, under an id: `poolreplica URL FILE ID`.
func poolReplica() {
	work := func(url, tokenFile, id string) error {
		token, err := api.ReadToken(tokenFile)
		if err != nil {
			return err
		}
		c, err := api.New(api.Config{Endpoints: []string{url}, Token: token})
		if err != nil {
			return err
		}
		defer c.Close()
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		return replica.Pool(ctx, replica.PoolOptions{Coordinators: c, Options: replica.Options{ID: id, Build: local.Replicated, Version: version()}})
	}
	if err := work(os.Args[1], os.Args[2], os.Args[3]); err != nil && !errors.Is(err, replica.ErrPreempted) {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(replica.ExitCode(err))
	}
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
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"waitfor": waitFor, "reached": reached},
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

// reached waits until a coordinator has written its --ready-file, and puts the URL of its HTTP interface into an environment
// variable: `reached ready.json KELVIN_SERVER`.
func reached(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: reached file variable")
	}
	waitFor(ts, false, args[:1])
	var at struct{ API string }
	if err := json.Unmarshal([]byte(ts.ReadFile(args[0])), &at); err != nil || at.API == "" {
		ts.Fatalf("%s: %v, want the URL of an API in it", args[0], err)
	}
	ts.Setenv(args[1], at.API)
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
		{fmt.Errorf("get: %w", &api.Error{Code: api.Conflict}), 4},
		{fmt.Errorf("get: %w", &api.Error{Code: api.Forbidden}), 5},
		{fmt.Errorf("get: %w", &api.Error{Code: api.NoLeader}), 6},
		{fmt.Errorf("get: %w", &api.Error{Code: api.Timeout, Cause: context.Canceled}), 130},
		{fmt.Errorf("wait: %w", context.DeadlineExceeded), 7},
		{fmt.Errorf("verify: %w", partialError{errors.New("2 of 3")}), 8},
	} {
		if got := exitCode(tc.err); got != tc.want {
			t.Errorf("%v: exit code %d, want %d", tc.err, got, tc.want)
		}
	}
}
