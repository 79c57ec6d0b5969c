package engine

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/couplings"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

func adam(rate float64) OptimizerConfig {
	return OptimizerConfig{Kind: "adam", LR: schedules.Constant(rate), Beta1: 0.9, Beta2: 0.99, Epsilon: 1e-8}
}

func newData(t *testing.T, b *backend.Backend, cfg DataConfig) *DataTrainer {
	t.Helper()
	d, err := NewDataTrainer(b, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	return d
}

func step(t *testing.T, d *DataTrainer) Report {
	t.Helper()
	r, err := d.TrainStep()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// On a batch that holds all rows, score matching of E = ½κ|x − m|² has its optimum at the rows' mean and at the inverse of
// their variance about it.
func TestDataTrainerFindsTheOptimumOfScoreMatching(t *testing.T) {
	const n, dim = 64, 2
	z := rng.New(5, rng.Dataset, 0, 0)
	rows := make([]float32, n*dim)
	mean, square := 0.0, 0.0
	for i := range rows {
		v := 0.7 + 0.5*z.Normal()
		rows[i] = float32(v)
		mean, square = mean+v/(n*dim), square+v*v/(n*dim)
	}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		loss, err := losses.Config{Kind: "score_matching"}.Build()
		if err != nil {
			t.Fatal(err)
		}
		rate := adam(0.05)
		rate.LR = schedules.Config{Kind: "cosine", Start: 0.05, End: 1e-4, Steps: 300}
		rate.EMA = 0.9
		d := newData(t, b, DataConfig{Network: bowl{dim: dim, κ: 1}, Loss: loss, Optimizer: rate, Batch: n,
			Rows: func(_ int, x []float32, _ []int32) { copy(x, rows) }})
		for range 300 {
			step(t, d)
		}
		theta, err := d.Theta()
		if err != nil {
			t.Fatal(err)
		}
		precision, m := math.Exp(float64(theta[0])), float64(theta[1])
		if want := 1 / (square - mean*mean); math.Abs(precision-want) > 1e-3*want || math.Abs(m-mean) > 1e-3 {
			t.Errorf("precision %g and mean %g, want %g and %g", precision, m, want, mean)
		}
		energies, err := d.Energies([]float32{float32(mean), float32(mean), float32(mean) + 1, float32(mean)})
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(energies[0]) > 1e-4 || math.Abs(energies[1]-precision/2) > 1e-3*precision {
			t.Errorf("energies %v, want 0 and %g", energies, precision/2)
		}
	})
}

// probe is a loss that only looks at what it is given.
type probe struct {
	needs losses.Needs
	parts func(b losses.Batch) map[string]*Node
}

func (p probe) Needs(int, int) losses.Needs { return p.needs }

func (p probe) Build(m losses.Model, b losses.Batch) losses.Result {
	f := m.Field(b.X, nil, b.Labels)
	r := losses.Result{Loss: ReduceAllMean(Square(f))}
	for _, name := range []string{"mismatch", "null", "weight", "cost", "scalar"} {
		if v := p.parts(b)[name]; v != nil {
			r.Parts = append(r.Parts, losses.Part{Name: name, Value: v})
		}
	}
	return r
}

// shift is the field f(x) = x − w that knows three labels.
type shift struct{ dim int }

func (s shift) Dim() int     { return s.dim }
func (s shift) Classes() int { return 3 }
func (s shift) Params() []models.Param {
	return []models.Param{{Name: "w", Shape: []int{s.dim}, Init: func([]int, *rng.Stream) []float64 { return make([]float64, s.dim) }}}
}
func (s shift) Field(x, _, _ *Node, w []*Node) *Node { return Sub(x, ExpandAxes(w[0], 0)) }

func part(t *testing.T, r Report, name string) float64 {
	t.Helper()
	for _, p := range r.Parts {
		if p.Name == name {
			return p.Value
		}
	}
	t.Fatalf("no part %s in %v", name, r.Parts)
	return 0
}

// Rows carry their label as their first coordinate, so a label that does not follow its row shows. The optimal coupling of
// a step has a lower cost than the pairs as they come.
func TestLabelsFollowTheirRowsThroughTheCoupling(t *testing.T) {
	const n = 24
	cost := func(b losses.Batch) *Node { return ReduceAllMean(Square(Sub(b.X, b.Source))) }
	look := func(b losses.Batch) map[string]*Node {
		label := ConvertDType(b.Labels, dtypes.Float32)
		null := ConvertDType(Equal(b.Labels, Scalar(b.X.Graph(), dtypes.Int32, 3)), dtypes.Float32)
		first := Reshape(Slice(b.X, AxisRange(), AxisRange(0, 1)), n)
		m := map[string]*Node{"mismatch": ReduceAllMax(Mul(Abs(Sub(first, label)), OneMinus(null))), "null": ReduceAllMean(null), "cost": cost(b)}
		if b.Weights != nil {
			m["weight"] = ReduceAllMean(b.Weights)
		}
		return m
	}
	rows := func(step int, x []float32, labels []int32) {
		for i := range labels {
			labels[i] = int32((i + step) % 3)
			x[2*i], x[2*i+1] = float32(labels[i]), float32(i)
		}
	}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		base := DataConfig{Network: shift{2}, Loss: probe{losses.Needs{Field: true, Source: true}, look}, Optimizer: adam(1e-3), Batch: n, Rows: rows, Classes: 3, Seed: 4}
		free := step(t, newData(t, b, base))
		for _, tc := range []struct {
			name   string
			config couplings.Config
			within bool
		}{{"exact", couplings.Config{Kind: "exact_ot"}, false}, {"within classes", couplings.Config{Kind: "exact_ot"}, true}, {"weighted", couplings.Config{Kind: "unbalanced_sinkhorn"}, false}} {
			cfg := base
			var err error
			if cfg.Coupling, err = tc.config.Build(); err != nil {
				t.Fatal(err)
			}
			cfg.WithinClasses = tc.within
			r := step(t, newData(t, b, cfg))
			if part(t, r, "mismatch") != 0 {
				t.Errorf("%s: a label is %g away from its row", tc.name, part(t, r, "mismatch"))
			}
			if got, was := part(t, r, "cost"), part(t, free, "cost"); !(got < was) {
				t.Errorf("%s: cost %g, want less than the %g of the pairs as they come", tc.name, got, was)
			}
			if math.Abs(part(t, r, "weight")-1) > 1e-5 {
				t.Errorf("%s: mean weight %g, want 1", tc.name, part(t, r, "weight"))
			}
		}
		cfg := base
		cfg.LabelDropout = 0.25
		d, null := newData(t, b, cfg), 0.0
		const steps = 200
		for range steps {
			r := step(t, d)
			if null += part(t, r, "null") / steps; part(t, r, "mismatch") != 0 {
				t.Fatal("a label that was kept is not that of its row")
			}
		}
		// Four standard deviations of a share over 4,800 rows.
		if math.Abs(null-0.25) > 4*math.Sqrt(0.25*0.75/(steps*n)) {
			t.Errorf("%g of the labels dropped, want 0.25", null)
		}
	})
}

// chained is a loss whose chains start from the data; it reports where they ended.
type chained struct{ chains losses.Chains }

func (c chained) Needs(int, int) losses.Needs {
	return losses.Needs{Energy: true, Source: true, Chains: &c.chains}
}

func (c chained) Build(m losses.Model, b losses.Batch) losses.Result {
	return losses.Result{Loss: ReduceAllMean(m.Energy(b.X)), Parts: []losses.Part{
		{Name: "mean", Value: ReduceAllMean(b.Negatives)}, {Name: "square", Value: ReduceAllMean(Square(b.Negatives))}}}
}

// Under E = ½κ|x|² a chain is x ← (1 − hκ)x + √(2hτ)z, so that its mean and variance after K steps are known. K takes more
// than one block, and the temperature rises on the way.
func TestChainsOfALoss(t *testing.T) {
	const n, dim, steps, h, κ = 512, 2, 70, 0.01, 2.0
	temperature := func(m int) float64 { return float64(m) / steps }
	shrink, variance := 1.0, 0.0
	for m := range steps {
		shrink *= 1 - h*κ
		variance = variance*(1-h*κ)*(1-h*κ) + 2*h*temperature(m)
	}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		on := func(at int) bool { return at == 1 }
		d := newData(t, b, DataConfig{Network: bowl{dim: dim, κ: κ}, Optimizer: adam(0), Batch: n, Seed: 2,
			Loss: chained{losses.Chains{Rows: 2 * n, FromSource: 0, Steps: steps, StepSize: h, On: on, Temperature: func(_, m int) float64 { return temperature(m) }}},
			Rows: func(_ int, x []float32, _ []int32) {
				for i := range x {
					x[i] = 3
				}
			}})
		if r := step(t, d); part(t, r, "mean") != 3 || part(t, r, "square") != 9 {
			t.Errorf("chains that are off moved: mean %g", part(t, r, "mean"))
		}
		r := step(t, d)
		mean, square := part(t, r, "mean"), part(t, r, "square")
		const count = 2 * n * dim
		if sd := math.Sqrt(variance / count); math.Abs(mean-3*shrink) > 4*sd {
			t.Errorf("mean %g after the chains, want %g ± %g", mean, 3*shrink, sd)
		}
		if got := square - mean*mean; math.Abs(got-variance) > 4*variance*math.Sqrt(2.0/count) {
			t.Errorf("variance %g after the chains, want %g", got, variance)
		}
	})
}

func TestDataTrainerRefusesWhatDoesNotFit(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	energyLoss := probe{needs: losses.Needs{Energy: true}}
	fieldLoss := probe{needs: losses.Needs{Field: true}}
	for _, tc := range []struct {
		name string
		cfg  DataConfig
		want string
	}{
		{"an energy for a field", DataConfig{Network: bowl{dim: 1, κ: 1}, Loss: fieldLoss, Batch: 1}, "needs a vector field"},
		{"a field for an energy", DataConfig{Network: shift{1}, Loss: energyLoss, Batch: 1}, "needs an energy"},
		{"no hidden layer to show", DataConfig{Network: shift{1}, Loss: probe{needs: losses.Needs{Hidden: true}}, Batch: 1}, "hidden layer"},
		{"more labels than the field knows", DataConfig{Network: shift{1}, Loss: fieldLoss, Batch: 1, Classes: 4}, "4 labels"},
		{"no rows", DataConfig{Network: shift{1}, Loss: fieldLoss}, "batch 0"},
	} {
		tc.cfg.Optimizer = adam(1)
		d, err := NewDataTrainer(b, tc.cfg)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
		if d != nil {
			d.Close()
		}
	}
	d := newData(t, b, DataConfig{Network: shift{1}, Loss: probe{needs: losses.Needs{Field: true}, parts: func(losses.Batch) map[string]*Node { return nil }},
		Optimizer: adam(1), Batch: 1, Rows: func(_ int, x []float32, _ []int32) { x[0] = float32(math.Inf(1)) }})
	if _, err := d.Energies([]float32{1}); !errors.Is(err, ErrNoEnergy) {
		t.Errorf("the energy of a field: %v, want ErrNoEnergy", err)
	}
	var bad *NonFiniteError
	if _, err := d.TrainStep(); !errors.As(err, &bad) || bad.Step != 1 || bad.Place != "loss" {
		t.Errorf("a row at infinity: %v, want the loss of step 1", err)
	}
}
