package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// expiring is a context that is cancelled, as by Ctrl-C, when it was asked so many times.
type expiring struct {
	context.Context
	left int
}

func (c *expiring) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

// An interrupt while a ladder is measured shows and writes what there is, and is told by the exit code.
func TestInterruptWhileMeasuring(t *testing.T) {
	t.Setenv("KELVIN_NO_INSTALL", "1")
	dir := t.TempDir()
	ladder := strings.Fields("--energy double_well --dim 1 --rungs 3 --chains 16 --reference-std 2 --step-size 0.05 --scans 1000000 --backend go")
	for _, tc := range []struct {
		name   string
		args   []string
		stdout []string
		files  []string
	}{
		{"diagnose", []string{"tempering", "diagnose", "--adapt-scans", "2", "--out", dir + "/d"}, []string{"interrupted after ", "\nverdict: "}, []string{"d/tempering.json"}},
		{"diagnose, as JSON", []string{"tempering", "diagnose", "--adapt-scans", "2", "--out", dir + "/j", "-o", "json"}, []string{`"ended": "interrupted"`, `"verdict": "`}, []string{"j/tempering.json"}},
		{"tune", []string{"tempering", "tune", "--adapt-scans", "2"}, []string{"as it is:\n", "\nfinal "}, nil},
		{"sample", []string{"sample", "--burn", "2", "--gap", "1", "--samples", "1000000", "--out", dir + "/s.npz"}, []string{"interrupted after ", "\nverdict: "}, []string{"s.npz"}},
		{"sample, before the first", []string{"sample", "--burn", "2", "--gap", "1000", "--samples", "1000000", "--out", dir + "/none.npz"}, []string{"interrupted after ", "\nverdict: "}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := newRootCommand()
			var stdout, stderr bytes.Buffer
			root.SetOut(&stdout)
			root.SetErr(&stderr)
			root.SetArgs(append(tc.args, ladder...))
			err := root.ExecuteContext(&expiring{t.Context(), 100})
			if exitCode(err) != exitInterrupt || !strings.HasPrefix(err.Error(), "interrupted after ") {
				t.Errorf("error %v, exit code %d", err, exitCode(err))
			}
			for _, want := range tc.stdout {
				if !strings.Contains(stdout.String(), want) {
					t.Errorf("want %q in\n%s", want, stdout.String())
				}
			}
			if strings.Contains(stdout.String(), "NaN") {
				t.Errorf("NaN in\n%s", stdout.String())
			}
			for _, name := range tc.files {
				if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
					t.Errorf("%s: %v, want something in it", name, err)
				}
			}
		})
	}
	if _, err := os.Stat(dir + "/none.npz"); err == nil {
		t.Error("none.npz: written without samples")
	}
}
