package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/diagnostics"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// Evaluation holds a trained model against the data that it was not trained on. A pointer is nil where the figure does
// not exist: no density is integrated in more than two dimensions, and the law of file data is unknown.
type Evaluation struct {
	Name    string `json:"name"`
	Step    int    `json:"step"`
	Backend string `json:"backend"`

	NLL       *float64    `json:"nll"`          // mean −log p(x) over the test rows, in nats
	NLLKind   string      `json:"nll_kind"`     // quadrature: exact; bridge: by log Z from the ladder; empty without an NLL
	NLLError  *float64    `json:"nll_std_err"`  // standard error over the test rows and, of a bridge, over the ladders
	BitsPer   *float64    `json:"bits_per_dim"` // the same in bits a number, in the numbers of the data's file
	LogZ      *float64    `json:"log_z"`        // that the NLL stands on
	Entropy   *float64    `json:"entropy"`      // of the data's law: no model has a lower expected NLL
	NLLBox    *[2]float64 `json:"nll_box"`      // sides of the square that the density was restricted to, where it has no finite integral; else null
	NLLNote   string      `json:"nll_note,omitempty"`
	Notes     []string    `json:"notes,omitempty"` // figures that could not be had, and why
	TestRows  int         `json:"test_rows"`
	Samples   int         `json:"samples"`
	MMD2      *float64    `json:"mmd2"`         // squared maximum mean discrepancy of samples and test rows, unbiased
	MMDNullSD *float64    `json:"mmd2_null_sd"` // its standard deviation if both had one law
	SlicedW1  *float64    `json:"sliced_w1"`
	SlicedW2  *float64    `json:"sliced_w2"`

	Modes     *int     `json:"modes"` // known modes of the data's law
	ModesHit  *int     `json:"modes_hit"`
	ModeTV    *float64 `json:"mode_tv"`     // total variation between the modes' shares and their weights
	InsideAny *float64 `json:"inside_mode"` // share of the samples within some mode's radius

	Evidence *tempering.LogZ `json:"evidence"` // log Z measured on a ladder, whether or not the NLL stands on it
	Verdict  string          `json:"verdict"`  // how the ladder mixes, in words; empty without one

	SwapAccept     Shares `json:"swap_accept"`     // a pair, while sampling
	ExplorerAccept Shares `json:"explorer_accept"` // a rung, while sampling
	Restarts       uint64 `json:"restarts"`        // walkers that came from the reference to the target while sampling
	Explorer       string `json:"explorer"`        // "langevin (biased)" where the kernel is unadjusted

	Classes        int      `json:"classes,omitempty"` // labels of the data, where they are told apart by a classifier
	ClassifierTest *float64 `json:"classifier_test"`   // accuracy of the classifier, trained on the training rows, on the test rows
	LabelAccuracy  *float64 `json:"label_accuracy"`    // share of the samples that it takes for the label they were drawn with
	ClassTV        *float64 `json:"class_tv"`          // total variation between the classes of the samples and those of the data
	Frechet        *float64 `json:"frechet"`           // squared Fréchet distance in the classifier's features
	FrechetNull    *float64 `json:"frechet_null"`      // the same of two parts of the data

	samples   *Samples
	tempering *Tempering // with an exact kernel; nil without a ladder
}

// Drawn is how the samples, or log Z, were drawn along a ladder; nil without one.
func (ev *Evaluation) Drawn() *Tempering {
	if ev.samples != nil && ev.samples.Tempering != nil {
		return ev.samples.Tempering
	}
	return ev.tempering
}

// energies adapts a trainer to the diagnostics.
func energies(t engine.Learner) diagnostics.Energies {
	return func(points []float64) ([]float64, error) {
		x := make([]float32, len(points))
		for i, v := range points {
			x[i] = float32(v)
		}
		return t.Energies(x)
	}
}

// sampler is a trainer of the same model whose weights stand still, with chains started afresh. Schedules of the sampler
// are read at the step that made the weights.
func (p *Parts) sampler(b *backend.Backend, w taught, seed uint64) (*engine.Trainer, error) {
	cfg := p.chains
	sp := &cfg.Spec
	sp.Pool, sp.Mix, sp.FromData, sp.Batch = sp.Chains, false, false, 0
	sp.Optimizer.EMA = 0
	sp.Seed = seed
	cfg.StepsBefore, cfg.Start = w.steps, w.adapted
	cfg.Layout = engine.Layout{}
	cfg.Tempering.Scans, cfg.Buffer.Warmup, cfg.Buffer.Reinit = 1, 0, 0
	if cfg.Buffer.Init == "" || cfg.Buffer.Init == "data" {
		cfg.Buffer.Init = "normal" // starting at the data would hide what the chains cannot reach
		if p.Base != nil || p.Reference != nil {
			cfg.Buffer.Init = "reference"
		}
	}
	t, err := engine.NewTrainer(b, cfg)
	if err != nil {
		return nil, err
	}
	if err := t.StartAt(w.theta); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// drawChains runs scans until n states are together: burn scans first, then every gap-th counts.
func drawChains(ctx context.Context, t *engine.Trainer, n, burn, gap int) (samples []float32, accept []float64, err error) {
	scans := 0
	scan := func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := t.Explore()
		if err != nil {
			return err
		}
		scans++
		if accept == nil {
			accept = make([]float64, len(r.Accept))
		}
		for k, a := range r.Accept {
			accept[k] += (a - accept[k]) / float64(scans)
		}
		return nil
	}
	for range burn {
		if err := scan(); err != nil {
			return nil, nil, err
		}
	}
	for len(samples) < n*t.Dim() {
		if len(samples) > 0 {
			for range gap {
				if err := scan(); err != nil {
					return nil, nil, err
				}
			}
		}
		rows, err := t.TargetChains()
		if err != nil {
			return nil, nil, err
		}
		samples = append(samples, rows...)
	}
	samples = samples[:n*t.Dim()]
	if err := firstNonFinite(samples, t.Dim()); err != nil {
		return nil, accept, err
	}
	return samples, accept, nil
}

// Evaluate samples the model and compares it with the test rows.
func (p *Parts) Evaluate(ctx context.Context, b *backend.Backend, l engine.Learner) (*Evaluation, error) {
	cfg := p.Config
	ev := &Evaluation{Name: cfg.Name, Step: l.Step(), Backend: b.Kind(), TestRows: p.Test.N(), Samples: cfg.Evaluate.Samples, Explorer: explorer(cfg.Sampler)}
	w, err := learnt(l)
	if err != nil {
		return nil, err
	}
	// A figure that cannot be had is no reason to lose the others: it is noted.
	var bad *sampleError
	switch err := p.sample(ctx, b, w, ev); {
	case errors.As(err, &bad):
		ev.Notes = append(ev.Notes, err.Error())
	case err != nil:
		return nil, fmt.Errorf("evaluate: %w", err)
	}
	if p.Test.N() == 0 {
		ev.Notes = append(ev.Notes, "no test rows to compare with")
		return ev, nil
	}
	if err := p.likelihood(ctx, b, w, ev, l); err != nil {
		ev.Notes = append(ev.Notes, err.Error())
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("evaluate: %w", ctx.Err())
	}
	if ev.samples != nil {
		for _, figure := range []func(*Evaluation) error{p.distances, p.classify} {
			if err := figure(ev); err != nil {
				ev.Notes = append(ev.Notes, err.Error())
			}
		}
	}
	return ev, nil
}

// sample draws the samples of an evaluation, and notes how the drawing went.
func (p *Parts) sample(ctx context.Context, b *backend.Backend, w taught, ev *Evaluation) error {
	e := p.Config.Evaluate
	o := DrawOptions{Samples: e.Samples, Burn: e.Scans, Gap: max(1, e.Scans/10)}
	if p.Config.Tempering.Rungs > 1 {
		o.Scans = max(e.Measure, (e.Samples+p.Config.Tempering.Chains-1)/p.Config.Tempering.Chains*o.Gap)
	}
	s, err := p.draw(ctx, b, w, o)
	if s != nil {
		ev.ExplorerAccept = s.Accept
	}
	if s != nil && s.Tempering != nil {
		last := s.Tempering.Final()
		ev.Restarts, ev.Verdict = last.Restarts, last.Verdict()
		for _, r := range last.Rejections {
			ev.SwapAccept = append(ev.SwapAccept, 1-r)
		}
		if p.Config.Sampler.Adjusted() {
			ev.tempering = s.Tempering
		}
	}
	if err == nil {
		ev.samples = s
	}
	return err
}

func (p *Parts) likelihood(ctx context.Context, b *backend.Backend, w taught, ev *Evaluation, l engine.Learner) error {
	if law := p.Test.Law; law != nil {
		if h := law.Entropy(); !math.IsNaN(h) {
			ev.Entropy = &h
		}
	}
	if p.field() != nil {
		ev.NLLNote = "a vector field has no density of its own"
		return nil
	}
	if p.NoLaw {
		ev.NLLNote = "loss.kind: " + p.Config.Loss.Kind + " teaches an energy that is no log density"
		return nil
	}
	if box, walled := p.Config.Sampler.Bounds(); walled {
		if i := slices.IndexFunc(p.Test.Rows, func(v float64) bool { return !(v >= box.Lo && v <= box.Hi) }); i >= 0 {
			return fmt.Errorf("test row %d has %g, outside sampler.box, where the model has no density: no likelihood", i/p.Data.Dim, p.Test.Rows[i])
		}
	}
	var err error
	if p.Data.Dim <= 2 {
		err = p.quadrature(ev, l)
	}
	return errors.Join(err, p.evidence(ctx, b, w, ev, l))
}

// quadrature integrates the density in one or two dimensions.
func (p *Parts) quadrature(ev *Evaluation, l engine.Learner) error {
	dim := p.Data.Dim
	integrate := diagnostics.NLL2D
	if dim == 1 {
		integrate = diagnostics.NLL1D
	}
	within := func(lo, hi float64) (diagnostics.NLL, error) {
		ev.NLLBox = &[2]float64{lo, hi}
		return integrate(energies(l), p.Test.Rows, diagnostics.Quadrature{Fixed: true, Lo: slices.Repeat([]float64{lo}, dim), Hi: slices.Repeat([]float64{hi}, dim)})
	}
	var nll diagnostics.NLL
	var err error
	if walls, walled := p.Config.Sampler.Bounds(); walled {
		nll, err = within(walls.Lo, walls.Hi)
	} else {
		nll, err = integrate(energies(l), p.Test.Rows, diagnostics.Quadrature{})
	}
	if errors.Is(err, diagnostics.ErrNotIntegrable) {
		// A network without a base may be unbounded below: say so, and give the law restricted to a generous square.
		ev.NLLNote = err.Error()
		lo, hi := bounds(p.Data.Rows)
		mid, half := (lo+hi)/2, 5*(hi-lo)/2
		nll, err = within(mid-half, mid+half)
	}
	if err != nil {
		return err
	}
	ev.NLL, ev.LogZ, ev.NLLKind = &nll.NLL, &nll.LogZ, "quadrature"
	if !math.IsNaN(nll.StdErr) {
		ev.NLLError = &nll.StdErr
	}
	p.bits(ev)
	return nil
}

func (p *Parts) distances(ev *Evaluation) error {
	samples := to64(ev.samples.X)
	dim, seed := p.Data.Dim, p.Config.Seed
	mmd, err := diagnostics.MMD2(samples, p.Test.Rows, dim, diagnostics.MMDOptions{Seed: seed})
	if err != nil {
		return err
	}
	ev.MMD2, ev.MMDNullSD = &mmd.Squared, &mmd.NullSD
	w, err := diagnostics.SlicedWasserstein(samples, p.Test.Rows, dim, diagnostics.SlicedOptions{Seed: seed, Projections: p.Config.Evaluate.Projections})
	if err != nil {
		return err
	}
	ev.SlicedW1, ev.SlicedW2 = &w.W1, &w.W2
	law := p.Test.Law
	if law == nil || len(law.Modes) == 0 {
		return nil
	}
	c, err := diagnostics.Coverage(samples, law.Modes, law.ModeWeights, law.ModeRadius)
	if err != nil {
		return err
	}
	ev.Modes, ev.ModesHit, ev.ModeTV, ev.InsideAny = &c.Modes, &c.Hit, &c.TV, &c.Inside
	return nil
}

// classify tells samples apart by a classifier of the data's labels: which label they show, and how far their law is from the
// data's in the classifier's features. It says nothing about points in the plane, which the other figures describe.
func (p *Parts) classify(ev *Evaluation) error {
	classes := p.Data.Classes()
	if p.Data.Dim <= 2 || classes < 2 || p.Data.CheckLabels() != nil {
		return nil
	}
	c, err := diagnostics.TrainClassifier(p.Data.Rows, p.Data.Labels, p.Data.Dim, classes, diagnostics.ClassifierOptions{Seed: p.Config.Seed})
	if err != nil {
		return err
	}
	ev.Classes = classes
	accuracy, err := c.Accuracy(p.Test.Rows, p.Test.Labels)
	if err != nil {
		return err
	}
	ev.ClassifierTest = &accuracy
	samples := to64(ev.samples.X)
	shown, err := c.Predict(samples)
	if err != nil {
		return err
	}
	tv := classDistance(shown, p.Data.Labels, classes)
	ev.ClassTV = &tv
	if wanted := ev.samples.Labels; wanted != nil {
		right := 0.0
		for i, y := range shown {
			if y == int(wanted[i]) {
				right++
			}
		}
		right /= float64(len(shown))
		ev.LabelAccuracy = &right
	}
	features, err := c.Features(samples)
	if err != nil {
		return err
	}
	real, err := c.Features(p.Test.Rows)
	if err != nil {
		return err
	}
	f, err := diagnostics.FrechetDistance(features, real, c.NumFeatures(), diagnostics.FrechetOptions{Seed: p.Config.Seed})
	if err != nil {
		return err
	}
	ev.Frechet, ev.FrechetNull = &f.Squared, &f.Null
	return nil
}

// classDistance is the total variation between two sets of labels.
func classDistance(a, b []int, classes int) float64 {
	share := make([]float64, classes)
	for _, y := range a {
		share[y] += 1 / float64(len(a))
	}
	for _, y := range b {
		share[y] -= 1 / float64(len(b))
	}
	tv := 0.0
	for _, s := range share {
		tv += math.Abs(s) / 2
	}
	return tv
}

func bounds(rows []float64) (lo, hi float64) {
	lo, hi = math.Inf(1), math.Inf(-1)
	for _, v := range rows {
		lo, hi = min(lo, v), max(hi, v)
	}
	return lo, hi
}

func to64(v []float32) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = float64(x)
	}
	return out
}

// Shares are numbers from 0 to 1, NaN where there is none: of a pair that few scans never tried. JSON has null for it.
type Shares []float64

// MarshalJSON implements [json.Marshaler].
func (s Shares) MarshalJSON() ([]byte, error) {
	if s == nil {
		return []byte("null"), nil
	}
	out := make([]*float64, len(s))
	for i, x := range s {
		if !math.IsNaN(x) {
			out[i] = &x
		}
	}
	return json.Marshal(out)
}

// String writes them as "98 60 – %".
func (s Shares) String() string {
	out := make([]string, len(s))
	for i, x := range s {
		out[i] = "–"
		if !math.IsNaN(x) {
			out[i] = fmt.Sprintf("%.0f", 100*x)
		}
	}
	return strings.Join(out, " ") + " %"
}

// JSON is the evaluation as indented JSON. Keys stay; figures that do not exist are null.
func (ev *Evaluation) JSON() ([]byte, error) {
	text, err := json.MarshalIndent(ev, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("evaluation: %w", err)
	}
	return append(text, '\n'), nil
}
