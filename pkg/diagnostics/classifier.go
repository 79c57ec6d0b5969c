package diagnostics

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

// ClassifierOptions are the settings of TrainClassifier. A zero has the default.
type ClassifierOptions struct {
	Seed         uint64
	Hidden       int     // width of the hidden layer, and so of Features; 128 by default
	Epochs       int     // most passes over the training rows; 100 by default
	Batch        int     // rows a step; 64 by default
	LearningRate float64 // of Adam; 0.002 by default
	HeldOut      float64 // share of the rows, in (0, 1), that says when to stop; 0.1 by default
	Patience     int     // epochs without a better held-out loss before stopping; 10 by default
}

func (o ClassifierOptions) withDefaults() ClassifierOptions {
	for _, d := range []struct {
		field *int
		value int
	}{{&o.Hidden, 128}, {&o.Epochs, 100}, {&o.Batch, 64}, {&o.Patience, 10}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if o.LearningRate == 0 {
		o.LearningRate = 0.002
	}
	if o.HeldOut == 0 {
		o.HeldOut = 0.1
	}
	return o
}

// Classifier tells classes apart: softmax(W₂ max(W₁x + b₁, 0) + b₂). Trained on data, it says whether samples of a model
// conditioned on labels show what they were asked for, and its hidden layer is a space in which to compare sets of images.
type Classifier struct {
	dim, hidden, classes int
	params               []float64 // W₁ [dim, hidden], b₁, W₂ [hidden, classes], b₂
	centre               []float64 // [dim], taken off every row
	scale                float64   // that every row is then divided by

	Epochs          int     // passes over the training rows until the parameters that were kept
	HeldOutLoss     float64 // their mean cross-entropy on the held-out rows, in nats
	HeldOutAccuracy float64 // and the share of those that they get right
}

// TrainClassifier fits a classifier to rows [n, dim] with labels from 0 to classes − 1. It minimises the cross-entropy by
// Adam (Kingma and Ba, 2015) and keeps the parameters that were best on rows held out from training. Equal arguments
// give equal bits.
func TrainClassifier(rows []float64, labels []int, dim, classes int, o ClassifierOptions) (*Classifier, error) {
	fail := func(err error) (*Classifier, error) {
		return nil, fmt.Errorf("diagnostics: classifier: %w", err)
	}
	o = o.withDefaults()
	if o.Hidden < 1 || o.Epochs < 1 || o.Batch < 1 || o.Patience < 1 || !(o.LearningRate > 0) || !(o.HeldOut > 0 && o.HeldOut < 1) {
		return fail(fmt.Errorf("options %+v, want positive numbers and a held-out share below 1", o))
	}
	if classes < 2 {
		return fail(fmt.Errorf("%d classes, want at least 2", classes))
	}
	if err := checkRows("rows", rows, dim, 2); err != nil {
		return fail(err)
	}
	n := len(rows) / dim
	if err := checkLabels(labels, n, classes); err != nil {
		return fail(err)
	}
	c := &Classifier{dim: dim, hidden: o.Hidden, classes: classes}
	c.fitScaling(rows)
	c.drawWeights(o.Seed)
	x := c.scaled(rows)
	order := rng.New(o.Seed, rng.Classifier, 0, streamHeldOut).Perm(n)
	heldOut := min(max(int(math.Round(o.HeldOut*float64(n))), 1), n-1)
	testX, testLabels := pick(x, labels, order[:heldOut])
	training := order[heldOut:]

	best, bestParams := math.Inf(1), slices.Clone(c.params)
	adam := newAdam(o.LearningRate, len(c.params))
	grad := make([]float64, len(c.params))
	for epoch := 1; epoch <= o.Epochs && epoch-c.Epochs <= o.Patience; epoch++ {
		shuffled := rng.New(o.Seed, rng.Classifier, uint64(epoch), streamBatches).Perm(len(training))
		for batch := range slices.Chunk(shuffled, o.Batch) {
			for k, i := range batch {
				batch[k] = training[i]
			}
			batchX, batchLabels := pick(x, labels, batch)
			if loss := c.gradient(grad, batchX, batchLabels); math.IsNaN(loss) || math.IsInf(loss, 0) {
				return fail(fmt.Errorf("epoch %d: the loss is %g, want a smaller learning rate", epoch, loss))
			}
			adam.step(c.params, grad)
		}
		if loss, accuracy := c.measure(testX, testLabels); loss < best {
			best = loss
			copy(bestParams, c.params)
			c.Epochs, c.HeldOutLoss, c.HeldOutAccuracy = epoch, loss, accuracy
		}
	}
	if c.Epochs == 0 {
		return fail(errors.New("the held-out loss is not finite, want a smaller learning rate"))
	}
	c.params = bestParams
	return c, nil
}

// Indices of the draws under rng.Classifier.
const (
	streamWeights = iota
	streamHeldOut
	streamBatches
)

// Predict is the most probable class of each of rows [n, dim].
func (c *Classifier) Predict(rows []float64) ([]int, error) {
	if err := checkRows("rows", rows, c.dim, 1); err != nil {
		return nil, fmt.Errorf("diagnostics: classifier: %w", err)
	}
	_, logits := c.forward(c.scaled(rows))
	out := make([]int, len(rows)/c.dim)
	for i := range out {
		out[i] = floats.MaxIdx(logits.RawRowView(i))
	}
	return out, nil
}

// Accuracy is the share of rows [n, dim] whose most probable class is their label.
func (c *Classifier) Accuracy(rows []float64, labels []int) (float64, error) {
	predicted, err := c.Predict(rows)
	if err != nil {
		return 0, err
	}
	if err := checkLabels(labels, len(predicted), c.classes); err != nil {
		return 0, fmt.Errorf("diagnostics: classifier: %w", err)
	}
	return share(predicted, labels), nil
}

// Features are the hidden activations [n, hidden] of rows [n, dim].
func (c *Classifier) Features(rows []float64) ([]float64, error) {
	if err := checkRows("rows", rows, c.dim, 1); err != nil {
		return nil, fmt.Errorf("diagnostics: classifier: %w", err)
	}
	hidden, _ := c.forward(c.scaled(rows))
	return hidden.RawMatrix().Data, nil
}

// NumFeatures is the width of Features.
func (c *Classifier) NumFeatures() int { return c.hidden }

func checkLabels(labels []int, n, classes int) error {
	if len(labels) != n {
		return fmt.Errorf("%d labels for %d rows, want one a row", len(labels), n)
	}
	for i, label := range labels {
		if label < 0 || label >= classes {
			return fmt.Errorf("row %d has label %d, want 0 to %d", i, label, classes-1)
		}
	}
	return nil
}

func share(predicted, labels []int) float64 {
	right := 0
	for i, p := range predicted {
		if p == labels[i] {
			right++
		}
	}
	return float64(right) / float64(len(labels))
}

// fitScaling takes the mean of every column and one scale for all of them: a scale of its own would blow up the pixels
// that hardly vary.
func (c *Classifier) fitScaling(rows []float64) {
	n := float64(len(rows) / c.dim)
	c.centre = make([]float64, c.dim)
	for i, v := range rows {
		c.centre[i%c.dim] += v / n
	}
	square := 0.0
	for i, v := range rows {
		square += (v - c.centre[i%c.dim]) * (v - c.centre[i%c.dim])
	}
	if c.scale = math.Sqrt(square / float64(len(rows))); c.scale == 0 {
		c.scale = 1
	}
}

func (c *Classifier) scaled(rows []float64) *mat.Dense {
	out := make([]float64, len(rows))
	for i, v := range rows {
		out[i] = (v - c.centre[i%c.dim]) / c.scale
	}
	return mat.NewDense(len(rows)/c.dim, c.dim, out)
}

func pick(x *mat.Dense, labels, rows []int) (*mat.Dense, []int) {
	_, dim := x.Dims()
	out, outLabels := mat.NewDense(len(rows), dim, nil), make([]int, len(rows))
	for k, i := range rows {
		out.SetRow(k, x.RawRowView(i))
		outLabels[k] = labels[i]
	}
	return out, outLabels
}

// layers are views of a flat vector of parameters, or of their gradient.
func (c *Classifier) layers(flat []float64) (w1 *mat.Dense, b1 []float64, w2 *mat.Dense, b2 []float64) {
	cut := func(n int) []float64 {
		part := flat[:n:n]
		flat = flat[n:]
		return part
	}
	w1, b1 = mat.NewDense(c.dim, c.hidden, cut(c.dim*c.hidden)), cut(c.hidden)
	w2, b2 = mat.NewDense(c.hidden, c.classes, cut(c.hidden*c.classes)), cut(c.classes)
	return w1, b1, w2, b2
}

// drawWeights takes weights from N(0, 2/inputs) (He et al., "Delving deep into rectifiers", 2015); biases are zero.
func (c *Classifier) drawWeights(seed uint64) {
	c.params = make([]float64, (c.dim+1)*c.hidden+(c.hidden+1)*c.classes)
	w1, _, w2, _ := c.layers(c.params)
	s := rng.New(seed, rng.Classifier, 0, streamWeights)
	for _, w := range []*mat.Dense{w1, w2} {
		inputs, _ := w.Dims()
		for i := range w.RawMatrix().Data {
			w.RawMatrix().Data[i] = s.Normal() * math.Sqrt(2/float64(inputs))
		}
	}
}

// forward gives the hidden activations [n, hidden] and the logits [n, classes] of scaled rows.
func (c *Classifier) forward(x *mat.Dense) (hidden, logits *mat.Dense) {
	w1, b1, w2, b2 := c.layers(c.params)
	hidden, logits = new(mat.Dense), new(mat.Dense)
	hidden.Mul(x, w1)
	hidden.Apply(func(_, j int, v float64) float64 { return max(v+b1[j], 0) }, hidden)
	logits.Mul(hidden, w2)
	logits.Apply(func(_, j int, v float64) float64 { return v + b2[j] }, logits)
	return hidden, logits
}

// measure is the mean cross-entropy, and the share of rows that are right.
func (c *Classifier) measure(x *mat.Dense, labels []int) (loss, accuracy float64) {
	_, logits := c.forward(x)
	predicted := make([]int, len(labels))
	for i, label := range labels {
		row := logits.RawRowView(i)
		loss += (floats.LogSumExp(row) - row[label]) / float64(len(labels))
		predicted[i] = floats.MaxIdx(row)
	}
	return loss, share(predicted, labels)
}

// gradient writes that of the mean cross-entropy to grad, and returns the cross-entropy.
func (c *Classifier) gradient(grad []float64, x *mat.Dense, labels []int) float64 {
	hidden, logits := c.forward(x)
	_, _, w2, _ := c.layers(c.params)
	gw1, gb1, gw2, gb2 := c.layers(grad)
	loss, n := 0.0, float64(len(labels))
	for i, label := range labels { // logits become ∂loss/∂logits = (softmax − one-hot)/n
		row := logits.RawRowView(i)
		logZ := floats.LogSumExp(row)
		loss += (logZ - row[label]) / n
		for j, v := range row {
			row[j] = math.Exp(v-logZ) / n
		}
		row[label] -= 1 / n
	}
	gw2.Mul(hidden.T(), logits)
	columnSums(gb2, logits)
	var back mat.Dense
	back.Mul(logits, w2.T())
	back.Apply(func(i, j int, v float64) float64 {
		if hidden.At(i, j) == 0 {
			return 0
		}
		return v
	}, &back)
	gw1.Mul(x.T(), &back)
	columnSums(gb1, &back)
	return loss
}

func columnSums(out []float64, m *mat.Dense) {
	clear(out)
	rows, _ := m.Dims()
	for i := range rows {
		floats.Add(out, m.RawRowView(i))
	}
}

// adam is the optimizer of Kingma and Ba with its usual decays.
type adam struct {
	rate         float64
	steps        int
	mean, square []float64
}

func newAdam(rate float64, n int) *adam {
	return &adam{rate: rate, mean: make([]float64, n), square: make([]float64, n)}
}

func (a *adam) step(params, grad []float64) {
	const beta1, beta2, epsilon = 0.9, 0.999, 1e-8
	a.steps++
	rate := a.rate / (1 - math.Pow(beta1, float64(a.steps)))
	bias := 1 - math.Pow(beta2, float64(a.steps))
	for i, g := range grad {
		a.mean[i] = beta1*a.mean[i] + (1-beta1)*g
		a.square[i] = beta2*a.square[i] + (1-beta2)*g*g
		params[i] -= rate * a.mean[i] / (math.Sqrt(a.square[i]/bias) + epsilon)
	}
}
