package diagnostics_test

import (
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/datasets"
	"github.com/kelvin-ebm/kelvin/pkg/diagnostics"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
)

// The handwritten digits of the examples: the classifier learns them, and its features tell one digit from the others.
func TestClassifierLearnsDigits(t *testing.T) {
	cfg := datasets.Config{Dataset: "npz", Path: "examples/data/digits.npz", Array: "images", Labels: "labels", Flatten: new(true)}
	train, test, err := datasets.Load(cfg, 7, testutil.Root())
	if err != nil {
		t.Fatal(err)
	}
	c, err := diagnostics.TrainClassifier(train.Rows, train.Labels, train.Dim, train.Classes(), diagnostics.ClassifierOptions{Seed: 7, Epochs: 25})
	if err != nil {
		t.Fatal(err)
	}
	accuracy, err := c.Accuracy(test.Rows, test.Labels)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("accuracy %.4f on the test set, %.4f held out, epoch %d", accuracy, c.HeldOutAccuracy, c.Epochs)
	if accuracy < 0.96 {
		t.Errorf("accuracy %g on the %d rows of the test set, want at least 0.96", accuracy, test.N())
	}

	features := func(rows []float64) []float64 {
		t.Helper()
		f, err := c.Features(rows)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	real := features(train.Rows)
	held, err := diagnostics.FrechetDistance(features(test.Rows), real, c.NumFeatures(), diagnostics.FrechetOptions{Seed: 7})
	if err != nil {
		t.Fatal(err)
	}
	var zeros []float64
	for i, label := range test.Labels {
		if label == 0 {
			zeros = append(zeros, test.Row(i)...)
		}
	}
	wrong, err := diagnostics.FrechetDistance(features(zeros), real, c.NumFeatures(), diagnostics.FrechetOptions{Seed: 7})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("held-out digits %+v; zeros alone %+v", held, wrong)
	if held.Squared > 2*held.Null || wrong.Squared < 2*wrong.Null {
		t.Errorf("held-out digits at %g with Null %g, zeros alone at %g with Null %g", held.Squared, held.Null, wrong.Squared, wrong.Null)
	}
}
