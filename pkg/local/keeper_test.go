package local

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// The ledger may be ahead of cuts/, if the process was killed between the two, or damaged, or gone: the run goes on from the
// newest cut that is whole.
func TestResumeWithAnyLedger(t *testing.T) {
	calm, _ := trained(t)
	want := resumed(t, calm, 9)
	for _, tc := range []struct {
		name   string
		change func(t *testing.T, dir string)
	}{
		{"as it was left", func(*testing.T, string) {}},
		{"the last cut was not linked", func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, cutsFolder, "00000006")); err != nil {
				t.Fatal(err)
			}
		}},
		{"the ledger is gone", func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, coordinatorFolder)); err != nil {
				t.Fatal(err)
			}
		}},
		{"the ledger's node file is damaged", func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, coordinatorFolder, "raft", "log", "mark"), []byte("?"), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir, _ := trained(t)
			tc.change(t, dir)
			if got := resumed(t, dir, 9); got != want {
				t.Errorf("digest %.12s, want %.12s", got, want)
			}
		})
	}
}

// A ledger that another process uses, or that has more than the run in it, is not the run's to throw away.
func TestResumeLeavesOthersLedgers(t *testing.T) {
	dir, _ := trained(t)
	again := func() error {
		opts := options(dir)
		opts.Resume = true
		cfg, err := LoadExperiment(dir)
		if err != nil {
			return err
		}
		_, err = Train(t.Context(), cfg, opts)
		return err
	}
	at := filepath.Join(dir, coordinatorFolder)
	node, err := consensus.Open(t.Context(), consensus.Config{Name: keeperName, DataDir: at, SegmentSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	lead, err := node.Leadership(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := again(); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("error %v, want one that says who uses the ledger", err)
	}
	other := ledger.ID{7}
	out, err := node.Apply(lead, other, ledger.ExpCreate{Name: "other", Owner: "me", Spec: []byte("x"), Steps: 1, Shards: 1, Min: 1})
	if err := errors.Join(err, out.Err); err != nil {
		t.Fatal(err)
	}
	if err := node.Close(); err != nil {
		t.Fatal(err)
	}
	if err := again(); err == nil || !strings.Contains(err.Error(), "2 experiments") {
		t.Errorf("error %v, want one that counts the experiments", err)
	}
}
