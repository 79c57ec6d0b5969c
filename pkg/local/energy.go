package local

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// SampleOptions say how SampleEnergy draws.
type SampleOptions struct {
	Samples, Burn, Gap int // states; scans before the first counts; scans between two states of a chain
	Seed               uint64
	Sampler            samplers.Config  // its Steps are the chain steps a scan
	Tempering          tempering.Config // WithDefaults is applied; 1 rung is no tempering
	ReferenceStd       float64          // of the linear path's reference N(0, s²), and of the first states

	// With several rungs. Burn is then the number of scans that adapt the ladder.
	Scans       int                    // scans that count; 0: as many as the samples need
	Stop        Until                  // ends them before
	Tune        bool                   // change the number of rungs while the ladder adapts
	CheckSerial int                    // see TemperOptions
	Each        func(*tempering.Round) // is shown every round

	Thin        int  // with one rung: chain steps between two states of a chain, in place of Gap; 0: Gap scans
	Trajectory  bool // with one rung: keep the states chain by chain
	Diagnostics bool // with one rung: keep mean, variance, energy and acceptance of every kept step
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
	if o.Tempering.Rungs > 1 {
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
	if o.Tempering.Rungs == 1 && (o.Scans != 0 || o.Stop != (Until{}) || o.Tune || o.CheckSerial != 0) {
		errs = append(errs, errors.New("scans, stop, tune and check_serial are of a ladder: want --rungs of at least 2"))
	}
	if o.Tempering.VirtualSwaps {
		errs = append(errs, errors.New("tempering.virtual_swaps: is about training, want false"))
	}
	if !(o.ReferenceStd > 0) || math.IsInf(o.ReferenceStd, 1) {
		errs = append(errs, fmt.Errorf("reference_std: %g, want a positive number", o.ReferenceStd))
	}
	return errors.Join(append(errs, o.Sampler.Validate(), o.Tempering.Validate())...)
}

// EnergySamples are draws from an analytic energy.
type EnergySamples struct {
	X              []float32 // [samples, dim]
	Energy         []float64 // [samples]
	Mean, Variance []float64 // by coordinate
	StdErr         []float64 // of the mean, from the means of the chains, which are independent; NaN with one chain
	Accept         []float64 // explorer acceptance a rung; nil for a sampler that takes every step
	Explorer       string
	Rejected       int             // proposals rejected because they were not finite; of chains without swaps
	Trace          *samplers.Trace // of chains without swaps
	Tempering      *Tempering      // of chains that swap
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
	opts.Sampler, opts.Tempering = opts.Sampler.WithDefaults(), opts.Tempering.WithDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	if models.IsCoupled(e) && (opts.Sampler.Adjusted() || opts.Tempering.Rungs > 1) {
		return nil, errCoupled
	}
	draw := opts.chains
	if opts.Tempering.Rungs > 1 {
		draw = opts.tempered
	}
	out, err := draw(ctx, b, e)
	if err != nil {
		return nil, err
	}
	if out.Explorer = explorer(opts.Sampler); !opts.Sampler.Adjusted() {
		out.Accept = nil
	}
	chains := opts.Tempering.Chains
	if opts.Sampler.Settles() {
		chains = opts.Samples
	}
	out.moments(e.Dim(), chains)
	return out, nil
}

// chains runs chains without swaps.
func (o SampleOptions) chains(ctx context.Context, b *backend.Backend, e models.Energy) (*EnergySamples, error) {
	run := samplers.RunOptions{Sampler: o.Sampler, Network: e, Chains: o.Tempering.Chains, StartStd: o.ReferenceStd, Thin: o.Thin,
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
		run.Sampler.Steps = (o.Samples + run.Chains - 1) / run.Chains * run.Thin
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
	got, err := Temper(ctx, b, o.ladder(e), nil, TemperOptions{AdaptScans: o.Burn, Tune: o.Tune, Scans: o.measured(), Stop: o.Stop, Samples: o.Samples, Gap: o.Gap,
		CheckSerial: o.CheckSerial, Each: o.Each})
	if err != nil {
		return nil, err
	}
	return &EnergySamples{X: got.X, Energy: got.Energy, Accept: got.Final().Accept, Tempering: got}, nil
}

// TemperEnergy adapts a ladder to exp(−E) and measures it. Of opts it reads what says how: sampler, ladder, reference, seed.
func TemperEnergy(ctx context.Context, b *backend.Backend, e models.Energy, opts SampleOptions, o TemperOptions) (*Tempering, error) {
	opts.Sampler, opts.Tempering = opts.Sampler.WithDefaults(), opts.Tempering.WithDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	if models.IsCoupled(e) {
		return nil, errCoupled
	}
	return Temper(ctx, b, opts.ladder(e), nil, o)
}

// errCoupled is returned where states would be accepted or swapped one by one that have no energies of their own.
var errCoupled = errors.New("the energy couples the chains, so that they cannot be accepted or swapped one by one: want --sampler langevin or a descent, and --rungs 1")

// measured is the number of scans that count, at most.
func (o SampleOptions) measured() int {
	if o.Scans > 0 {
		return o.Scans
	}
	return (o.Samples + o.Tempering.Chains - 1) / o.Tempering.Chains * max(1, o.Gap)
}

// ladder is how an energy without weights is tempered.
func (o SampleOptions) ladder(e models.Energy) engine.SamplerConfig {
	q := &models.Gaussian{Mean: make([]float64, e.Dim()), Std: slices.Repeat([]float64{o.ReferenceStd}, e.Dim())}
	cfg := engine.SamplerConfig{Tempering: o.Tempering, Init: "reference",
		Spec: engine.Spec{Network: e, Start: q, Rungs: o.Tempering.Rungs, Chains: o.Tempering.Chains, Sampler: o.Sampler, Seed: o.Seed}}
	if o.Tempering.Path == "linear" {
		cfg.Spec.Reference = q
	}
	return cfg
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
