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
	"github.com/kelvin-ebm/kelvin/pkg/experiment"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// SampleOptions say how SampleEnergy draws.
type SampleOptions struct {
	Samples, Burn, Gap int // states; scans before the first counts; scans between two states of a chain
	Seed               uint64
	Sampler            samplers.Config // its Steps are the chain steps a scan
	Chains, Rungs      int
	Path               string  // linear or power
	BetaMin            float64 // power path
	ReferenceStd       float64 // of the linear path's reference N(0, s²), and of the first states

	Thin        int  // with one rung: chain steps between two states of a chain, in place of Gap; 0: Gap scans
	Trajectory  bool // with one rung: keep the states chain by chain
	Diagnostics bool // with one rung: keep mean, variance, energy and acceptance of every kept step
}

// SamplerConfig reads a sampler section from overrides as experiments have them, "kind=hmc" or "step_size={kind: cosine,
// start: 0.1, end: 0.01}", with the defaults of the kind. The error lists every fault, each by its key.
func SamplerConfig(sets []string) (samplers.Config, error) {
	// The smallest experiment whose loss leaves the choice of the sampler free.
	const frame = "data: {dataset: gaussian_mixture}\nloss: {kind: denoising_score_matching}\ntrain: {steps: 1}\n"
	var overrides []string
	for _, set := range sets {
		overrides = append(overrides, "sampler."+set)
	}
	c, err := experiment.Parse("sampler", []byte(frame), overrides)
	var faults *experiment.Error
	if errors.As(err, &faults) {
		var lines []error
		for _, f := range faults.Faults {
			lines = append(lines, errors.New(strings.TrimPrefix(f.Text, "sampler.")))
		}
		return samplers.Config{}, errors.Join(lines...)
	}
	if err != nil {
		return samplers.Config{}, err
	}
	return c.Sampler, nil
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
	if o.Samples < 1 || o.Gap < 1 || o.Burn < 0 || o.Thin < 0 {
		errs = append(errs, fmt.Errorf("samples %d, gap %d, burn %d, thin %d: want samples and gap of at least 1, burn and thin of at least 0", o.Samples, o.Gap, o.Burn, o.Thin))
	}
	if o.Sampler.IsFlow() {
		errs = append(errs, errors.New("kind: flow follows a field from noise to data, and this is an energy: want another kind, or --run of a model that is a field"))
	}
	if o.Rungs > 1 {
		if o.Sampler.Settles() {
			errs = append(errs, fmt.Errorf("kind: %s has no law to temper, want --rungs 1", o.Sampler.Kind))
		}
		if hot := o.Sampler.NoiseScale; hot.Kind != "" && !hot.IsConstant(1) {
			errs = append(errs, errors.New("noise_scale: β is the temperature on a ladder, want 1, or --rungs 1"))
		}
		if o.Thin > 0 || o.Trajectory || o.Diagnostics {
			errs = append(errs, errors.New("thin, trajectory and diagnostics are of chains without swaps: want --rungs 1"))
		}
	}
	return errors.Join(append(errs, o.Sampler.Validate(), o.tempering().Validate())...)
}

// EnergySamples are draws from an analytic energy.
type EnergySamples struct {
	X              []float32 // [samples, dim]
	Energy         []float64 // [samples]
	Mean, Variance []float64 // by coordinate
	StdErr         []float64 // of the mean, from the means of the chains, which are independent; NaN with one chain
	Accept         []float64 // explorer acceptance a rung; nil for a sampler that takes every step
	SwapAccept     []float64 // a pair of rungs
	Restarts       uint64
	Explorer       string
	Rejected       int             // proposals rejected because they were not finite; of chains without swaps
	Trace          *samplers.Trace // of chains without swaps
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

// SampleEnergy draws from exp(−E), tempered if opts has several rungs. With an optimiser for a sampler it finds minima instead.
func SampleEnergy(ctx context.Context, b *backend.Backend, e models.Energy, opts SampleOptions) (*EnergySamples, error) {
	opts.Sampler = opts.Sampler.WithDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	if models.IsCoupled(e) && (opts.Sampler.Adjusted() || opts.Rungs > 1) {
		return nil, errors.New("the energy couples the chains, so that they cannot be accepted or swapped one by one: want --sampler langevin or a descent, and --rungs 1")
	}
	draw := opts.chains
	if opts.Rungs > 1 {
		draw = opts.tempered
	}
	out, err := draw(ctx, b, e)
	if err != nil {
		return nil, err
	}
	if out.Explorer = explorer(opts.Sampler); !opts.Sampler.Adjusted() {
		out.Accept = nil
	}
	chains := opts.Chains
	if opts.Sampler.Settles() {
		chains = opts.Samples
	}
	out.moments(e.Dim(), chains)
	return out, nil
}

// chains runs chains without swaps.
func (o SampleOptions) chains(ctx context.Context, b *backend.Backend, e models.Energy) (*EnergySamples, error) {
	run := samplers.RunOptions{Sampler: o.Sampler, Network: e, Chains: o.Chains, StartStd: o.ReferenceStd, Thin: o.Thin,
		Trajectory: true, Diagnostics: o.Diagnostics, Seed: o.Seed}
	if o.Sampler.Settles() {
		run.Chains = o.Samples
		if run.Thin == 0 {
			run.Thin = o.Sampler.Steps
		}
	} else {
		run.Burn = o.Burn * o.Sampler.Steps
		if run.Thin == 0 {
			run.Thin = o.Gap * o.Sampler.Steps
		}
		run.Sampler.Steps = (o.Samples + o.Chains - 1) / o.Chains * run.Thin
	}
	trace, err := samplers.Run(ctx, b, run)
	if err != nil {
		return nil, err
	}
	if trace.Lost > 0 {
		return nil, fmt.Errorf("%d of %d chains left the finite numbers, chain %d first, at step %d: want a smaller step size", trace.Lost, trace.Chains, trace.FirstChain, trace.FirstStep)
	}
	out := &EnergySamples{Trace: trace, Rejected: trace.NonFinite, Accept: []float64{trace.AcceptRate}}
	first := 0
	if o.Sampler.Settles() {
		first = trace.Kept - 1 // what came before was on the way
	}
	for k := first; k < trace.Kept; k++ { // row i belongs to chain i mod chains
		for c := range trace.Chains {
			at := c*trace.Kept + k
			out.Energy = append(out.Energy, trace.TrajectoryEnergy[at])
			for _, v := range trace.Trajectory[at*trace.Dim : (at+1)*trace.Dim] {
				out.X = append(out.X, float32(v))
			}
		}
	}
	out.X, out.Energy = out.X[:o.Samples*trace.Dim], out.Energy[:o.Samples]
	if !o.Trajectory {
		trace.Trajectory, trace.TrajectoryEnergy = nil, nil
	}
	return out, nil
}

// tempered runs ladders of chains that swap.
func (o SampleOptions) tempered(ctx context.Context, b *backend.Backend, e models.Energy) (*EnergySamples, error) {
	ladder, err := tempering.NewLadder(o.tempering())
	if err != nil {
		return nil, err
	}
	q := &models.Gaussian{Mean: make([]float64, e.Dim()), Std: slices.Repeat([]float64{o.ReferenceStd}, e.Dim())}
	var reference *models.Gaussian
	if o.Path == "linear" {
		reference = q
	}
	t, err := engine.NewTrainer(b, engine.TrainerConfig{
		Spec: engine.Spec{Network: e, Reference: reference, Rungs: o.Rungs, Chains: o.Chains, Pool: o.Chains, Sampler: o.Sampler,
			Optimizer: engine.OptimizerConfig{Kind: "sgd", LR: schedules.Constant(0), Epsilon: 1e-8}, Seed: o.Seed, Start: q},
		Ladder: ladder, Scans: 1, Buffer: buffer.Config{Size: o.Chains, Init: "reference"},
	})
	if err != nil {
		return nil, err
	}
	defer t.Close()
	if err := t.StartAt(nil); err != nil {
		return nil, err
	}
	x, accept, err := Draw(ctx, t, o.Samples, o.Burn, o.Gap)
	if err != nil {
		return nil, err
	}
	out := &EnergySamples{X: x, Accept: accept, Restarts: t.Stats().Restarts, SwapAccept: acceptance(t.Stats())}
	out.Energy, err = t.Energies(x)
	return out, err
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
		s.StdErr[j] = math.NaN()
		if chains > 1 {
			s.StdErr[j] = math.Sqrt(spread / float64(chains-1) / float64(chains))
		}
	}
}
