package main

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
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
