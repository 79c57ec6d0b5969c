package diagnostics

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"

	"gonum.org/v1/gonum/diff/fd"
)

func ExampleTrainClassifier() {
	rows, labels := blobs(1, 600, 3)
	c, err := TrainClassifier(rows, labels, 2, 3, ClassifierOptions{Seed: 1, Hidden: 16, Epochs: 20})
	if err != nil {
		panic(err)
	}
	classes, err := c.Predict([]float64{5, 0, -2.5, 4.3, -2.5, -4.3})
	if err != nil {
		panic(err)
	}
	fmt.Println(classes)
	// Output: [0 1 2]
}

// blobs are n rows around k points of a circle of radius 5, labelled by the point.
func blobs(seed uint64, n, k int) (rows []float64, labels []int) {
	rows = normals(seed, n, make([]float64, 2), 1)
	for i := range n {
		sin, cos := math.Sincos(2 * math.Pi * float64(i%k) / float64(k))
		rows[2*i] += 5 * cos
		rows[2*i+1] += 5 * sin
		labels = append(labels, i%k)
	}
	return rows, labels
}

// Three unit normals at distance 5√3 overlap so little that the best classifier errs once in 10⁵; the worst that is
// allowed here errs on 1 %.
func TestClassifierTellsBlobsApart(t *testing.T) {
	rows, labels := blobs(1, 600, 3)
	c, err := TrainClassifier(rows, labels, 2, 3, ClassifierOptions{Seed: 1, Hidden: 16, Epochs: 20})
	if err != nil {
		t.Fatal(err)
	}
	fresh, freshLabels := blobs(2, 3000, 3)
	accuracy, err := c.Accuracy(fresh, freshLabels)
	if err != nil || accuracy < 0.99 || c.HeldOutAccuracy < 0.95 {
		t.Errorf("accuracy %g on fresh rows, %g on held-out ones, %v", accuracy, c.HeldOutAccuracy, err)
	}
	predicted, err := c.Predict(fresh[:6])
	if err != nil || !slices.Equal(predicted, freshLabels[:3]) {
		t.Errorf("predicts %v, %v, want %v", predicted, err, freshLabels[:3])
	}
	features, err := c.Features(fresh)
	if err != nil || len(features) != 3000*c.NumFeatures() || slices.Min(features) < 0 {
		t.Errorf("%d features, %v, want 3000 rows of %d numbers, none negative", len(features), err, c.NumFeatures())
	}
	again, err := TrainClassifier(rows, labels, 2, 3, ClassifierOptions{Seed: 1, Hidden: 16, Epochs: 20})
	if err != nil || !slices.Equal(again.params, c.params) {
		t.Errorf("trained twice, the parameters differ (%v)", err)
	}
	other, err := TrainClassifier(rows, labels, 2, 3, ClassifierOptions{Seed: 2, Hidden: 16, Epochs: 1})
	if err != nil || slices.Equal(other.params, c.params) {
		t.Errorf("the seed does not matter (%v)", err)
	}
}

// Labels that say nothing about the rows cannot be learnt: training stops long before its last epoch, and the held-out
// loss is not better than that of guessing by more than chance.
func TestClassifierStopsEarly(t *testing.T) {
	s := rng.New(4, rng.Dataset, 0, 0)
	labels := make([]int, 1000)
	for i := range labels {
		labels[i] = s.IntN(2)
	}
	c, err := TrainClassifier(normals(5, 1000, make([]float64, 3), 1), labels, 3, 2, ClassifierOptions{Hidden: 32, Epochs: 1000, Patience: 3, HeldOut: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	// 500 coin flips are right in half the cases, ± 2.2 %.
	if c.Epochs > 100 || math.Abs(c.HeldOutAccuracy-0.5) > 0.1 || c.HeldOutLoss < 0.65 {
		t.Errorf("epoch %d, accuracy %g, loss %g", c.Epochs, c.HeldOutAccuracy, c.HeldOutLoss)
	}
}

func TestClassifierGradient(t *testing.T) {
	rows, labels := blobs(3, 7, 3)
	c := &Classifier{dim: 2, hidden: 5, classes: 3}
	c.fitScaling(rows)
	c.drawWeights(1)
	for i := range c.params {
		c.params[i] += 0.1 * float64(i%3) // biases too
	}
	x := c.scaled(rows)
	grad := make([]float64, len(c.params))
	loss := c.gradient(grad, x, labels)
	if measured, _ := c.measure(x, labels); math.Abs(loss-measured) > 1e-14 {
		t.Errorf("loss %g, measured %g", loss, measured)
	}
	at := slices.Clone(c.params)
	want := fd.Gradient(nil, func(p []float64) float64 {
		c.params = p
		loss, _ := c.measure(x, labels)
		return loss
	}, at, &fd.Settings{Formula: fd.Central})
	for i, g := range grad {
		if math.Abs(g-want[i]) > 1e-8 {
			t.Errorf("parameter %d: %g, want %g", i, g, want[i])
		}
	}
}

// Columns that never vary, and rows that are all one, are no fault.
func TestClassifierTakesConstantColumns(t *testing.T) {
	rows := []float64{0, 1, 0, 2, 0, 3, 0, 4}
	for _, x := range [][]float64{rows, make([]float64, 8)} {
		c, err := TrainClassifier(x, []int{0, 1, 0, 1}, 2, 2, ClassifierOptions{Epochs: 2})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Accuracy(x, []int{0, 1, 0, 1}); err != nil {
			t.Error(err)
		}
	}
}

func TestClassifierErrors(t *testing.T) {
	rows, labels := []float64{1, 2, 3, 4}, []int{0, 1}
	for _, tc := range []struct {
		name    string
		rows    []float64
		labels  []int
		classes int
		o       ClassifierOptions
		want    string
	}{
		{"one class", rows, labels, 1, ClassifierOptions{}, "1 classes, want at least 2"},
		{"label too large", rows, []int{0, 2}, 2, ClassifierOptions{}, "row 1 has label 2, want 0 to 1"},
		{"negative label", rows, []int{-1, 0}, 2, ClassifierOptions{}, "row 0 has label -1, want 0 to 1"},
		{"labels short", rows, []int{0}, 2, ClassifierOptions{}, "1 labels for 2 rows"},
		{"not a number", []float64{1, 2, 3, math.NaN()}, labels, 2, ClassifierOptions{}, "rows: row 1, column 1 is NaN"},
		{"one row", rows[:2], labels[:1], 2, ClassifierOptions{}, "rows: 1 of them, want at least 2"},
		{"options", rows, labels, 2, ClassifierOptions{HeldOut: 1}, "options {"},
		{"learning rate", rows, labels, 2, ClassifierOptions{LearningRate: math.NaN()}, "options {"},
		{"divergence", rows, labels, 2, ClassifierOptions{LearningRate: 1e200}, "epoch 2: the loss is NaN, want a smaller learning rate"},
		{"divergence at the end", rows, labels, 2, ClassifierOptions{LearningRate: 1e200, Epochs: 1}, "the held-out loss is not finite, want a smaller learning rate"},
	} {
		_, err := TrainClassifier(tc.rows, tc.labels, 2, tc.classes, tc.o)
		if err == nil || !strings.HasPrefix(err.Error(), "diagnostics: classifier: "+tc.want) {
			t.Errorf("%s: %v, want %s", tc.name, err, tc.want)
		}
	}
	c, err := TrainClassifier(rows, labels, 2, 2, ClassifierOptions{Epochs: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Predict(rows[:3]); err == nil {
		t.Error("Predict takes part of a row")
	}
	if _, err := c.Features(nil); err == nil {
		t.Error("Features takes no rows")
	}
	if _, err := c.Accuracy(rows, []int{0}); err == nil {
		t.Error("Accuracy takes one label for two rows")
	}
	if _, err := c.Accuracy(rows[:3], []int{0}); err == nil || strings.Count(err.Error(), "classifier") != 1 {
		t.Errorf("Accuracy of part of a row: %v, want an error that names the classifier once", err)
	}
}
