package local

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/buffer"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// SampleOptions say how SampleEnergy draws.
type SampleOptions struct {
	Samples, Burn, Gap int // states; scans before the first counts; scans between two states of a chain
	Seed               uint64
	Kernel             string // mala or langevin
	Steps              int    // chain steps a scan
	StepSize           float64
	NoiseScale         float64 // langevin
	Chains, Rungs      int
	Path               string  // linear or power
	BetaMin            float64 // power path
	ReferenceStd       float64 // of the linear path's reference N(0, s²), and of the first states
}

func (o SampleOptions) sampler() samplers.Config {
	return samplers.Config{Kind: o.Kernel, Steps: o.Steps, StepSize: schedules.Constant(o.StepSize), NoiseScale: schedules.Constant(o.NoiseScale)}
}

func (o SampleOptions) tempering() tempering.Config {
	t := tempering.Config{Rungs: o.Rungs, Chains: o.Chains, Scans: 1, Ladder: "cubic", Path: o.Path, BetaMin: o.BetaMin, ReferenceScale: o.ReferenceStd}
	if o.Path == "power" {
		t.Ladder = "geometric"
	}
	return t
}

// Validate reports every fault, each by its key.
func (o SampleOptions) Validate() error {
	var errs []error
	if o.Samples < 1 || o.Gap < 1 || o.Burn < 0 {
		errs = append(errs, fmt.Errorf("samples %d, gap %d, burn %d: want samples and gap of at least 1, burn of at least 0", o.Samples, o.Gap, o.Burn))
	}
	return errors.Join(append(errs, o.sampler().Validate(), o.tempering().Validate())...)
}

// EnergySamples are draws from an analytic energy.
type EnergySamples struct {
	X              []float32 // [samples, dim]
	Energy         []float64 // [samples]
	Mean, Variance []float64 // by coordinate
	StdErr         []float64 // of the mean, from the means of the chains, which are independent
	Accept         []float64 // explorer acceptance a rung
	SwapAccept     []float64 // a pair of rungs
	Restarts       uint64
	Explorer       string
}

// AnalyticEnergy makes an analytic energy by name; dim 0 is 2 where the parameters leave it open.
func AnalyticEnergy(name string, dim int, params map[string]any) (models.Energy, error) {
	if !slices.Contains(models.AnalyticKinds(), name) {
		return nil, fmt.Errorf("--energy: %q, want one of %s", name, strings.Join(models.AnalyticKinds(), ", "))
	}
	e, err := models.New(name, dim, params)
	if err != nil && dim == 0 {
		if with2, again := models.New(name, 2, params); again == nil {
			return with2, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("--energy %s: %w", name, err)
	}
	return e, nil
}

// SampleEnergy draws from exp(−E), tempered if opts has several rungs.
func SampleEnergy(ctx context.Context, b *backend.Backend, e models.Energy, opts SampleOptions) (*EnergySamples, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	ladder, err := tempering.NewLadder(opts.tempering())
	if err != nil {
		return nil, err
	}
	q := &models.Gaussian{Mean: make([]float64, e.Dim()), Std: slices.Repeat([]float64{opts.ReferenceStd}, e.Dim())}
	var reference *models.Gaussian
	if opts.Rungs > 1 && opts.Path == "linear" {
		reference = q
	}
	t, err := engine.NewTrainer(b, engine.TrainerConfig{
		Spec: engine.Spec{Network: e, Reference: reference, Rungs: opts.Rungs, Chains: opts.Chains, Pool: opts.Chains, Sampler: opts.sampler(),
			Optimizer: engine.OptimizerConfig{Kind: "sgd", LR: schedules.Constant(0), Epsilon: 1e-8}, Seed: opts.Seed, Start: q},
		Ladder: ladder, Scans: 1, Buffer: buffer.Config{Size: opts.Chains, Init: "reference"},
	})
	if err != nil {
		return nil, err
	}
	defer t.Close()
	if err := t.StartAt(nil); err != nil {
		return nil, err
	}
	x, accept, err := Draw(ctx, t, opts.Samples, opts.Burn, opts.Gap)
	if err != nil {
		return nil, err
	}
	out := &EnergySamples{X: x, Accept: accept, Explorer: opts.Kernel, Restarts: t.Stats().Restarts, SwapAccept: acceptance(t.Stats())}
	if opts.Kernel == "langevin" {
		out.Explorer = "langevin (biased)"
	}
	if out.Energy, err = t.Energies(x); err != nil {
		return nil, err
	}
	out.moments(e.Dim(), opts.Chains)
	return out, nil
}

// moments fills mean, variance and the standard error of the mean. Row i belongs to chain i mod chains.
func (s *EnergySamples) moments(dim, chains int) {
	n := len(s.X) / dim
	chains = min(chains, n)
	s.Mean, s.Variance, s.StdErr = make([]float64, dim), make([]float64, dim), make([]float64, dim)
	for j := range dim {
		sum, square := 0.0, 0.0
		means, counts := make([]float64, chains), make([]float64, chains)
		for i := range n {
			v := float64(s.X[i*dim+j])
			sum, square = sum+v, square+v*v
			means[i%chains] += v
			counts[i%chains]++
		}
		s.Mean[j] = sum / float64(n)
		s.Variance[j] = square/float64(n) - s.Mean[j]*s.Mean[j]
		spread := 0.0
		for c := range means {
			d := means[c]/counts[c] - s.Mean[j]
			spread += d * d
		}
		if chains > 1 {
			s.StdErr[j] = math.Sqrt(spread / float64(chains-1) / float64(chains))
		}
	}
}
