package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
)

// All three files train, in small, and make the figure.
func TestMethodsTrain(t *testing.T) {
	const steps = 9
	var runs []learned
	for _, m := range methods {
		r, err := train(t.Context(), m.file, backend.Options{NoInstall: true}, "backend=go", "data.samples=500", "data.test_samples=0", "train.steps=9")
		if err != nil {
			t.Fatalf("%s: %v", m.file, err)
		}
		if n := len(r.step); n != steps+1 || len(r.sigma) != n || len(r.means[1]) != n || r.sigma[0] != 0.5 || r.means[0][0] != -5 || r.means[1][0] != 5 {
			t.Errorf("%s: %d steps from σ(a) = %g and the means %g and %g, want %d from 0.5, −5 and 5", m.file, n-1, r.sigma[0], r.means[0][0], r.means[1][0], steps)
		}
		if !(r.share > 0.2 && r.share < 0.4) {
			t.Errorf("%s: share %g of the left-hand mode, want about 0.3", m.file, r.share)
		}
		runs = append(runs, r)
	}
	f, err := figure(runs)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "weights.png")
	if err := f.Save(path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() == 0 {
		t.Errorf("no figure: %v", err)
	}
}

func TestLateIsTheLastThird(t *testing.T) {
	if got := late([]float64{9, 9, 9, 9, 9, 1, 2, 3}); got != 2.5 { // a start and seven steps
		t.Errorf("mean %g, want 2.5, that of the last two", got)
	}
}
