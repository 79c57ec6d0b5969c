package main

import (
	"path/filepath"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/local"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// Both energies train to the end, in small, on pure Go. A non-finite loss would be an error.
func TestEnergiesTrain(t *testing.T) {
	fromGoMLX, err := models.FromGoMLX(2, network)
	if err != nil {
		t.Fatal(err)
	}
	for name, energy := range map[string]models.Energy{"hollows": hollows{8}, "gomlx": fromGoMLX} {
		t.Run(name, func(t *testing.T) {
			summary, err := train(t.Context(), energy, local.Options{Out: filepath.Join(t.TempDir(), "run")},
				"backend.kind=go", "train.steps=12", "train.batch=32", "tempering.chains=16", "tempering.rungs=3", "train.frames=0",
				"data.samples=200", "data.test_samples=0", "evaluate={samples: 32, scans: 2}") // no test rows: a short evaluation
			if err != nil {
				t.Fatal(err)
			}
			if summary.Steps != 12 || summary.Digest == "" {
				t.Errorf("ended at step %d with the digest %q", summary.Steps, summary.Digest)
			}
		})
	}
}
