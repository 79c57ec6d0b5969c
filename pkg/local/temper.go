package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// TemperOptions say how a law that stands still is tempered: how long it adapts, when it is enough, what is kept.
type TemperOptions struct {
	AdaptScans int   // rounds of 2, 4, 8, … scans adapt the ladder, so many scans in all; 0: none
	Tune       bool  // change the number of rungs too, between rounds
	Scans      int   // scans that count, at most
	Stop       Until // and what ends them before
	Samples    int   // states of the target rung that are kept; 0 for none
	Gap        int   // scans between two states of a chain; 0 is 1

	CheckSerial int // rounds that are made once more, from the start, to compare all states bit by bit; 0 for none

	Each func(*tempering.Round) // is shown every round when it ends
}

// Until says when the scans that count are enough: as soon as one of its rules is met. Zero is no rule.
type Until struct {
	Restarts uint64        // tempered restarts, over all ladders
	Time     time.Duration // of those scans
	RHat     float64       // largest split R̂ of the target chains, above 1
}

// met names the first rule that is met; "" while none is. R̂ of ladders that had no time to differ says nothing: it counts from
// ten round trips on that the swap acceptance allows.
func (u Until) met(at engine.Standing) string {
	switch {
	case u.Restarts > 0 && at.Restarts >= u.Restarts:
		return "restarts"
	case u.Time > 0 && at.Elapsed >= u.Time:
		return "time"
	case u.RHat > 0 && rhatAt(at.Scans) && at.ExpectedTrips() >= 10 && at.RHat() < u.RHat:
		return "rhat"
	}
	return ""
}

// rhatAt says whether R̂ is looked at after so many scans: 64, 96, 144 and so on, so that all looks together cost no more than
// a few.
func rhatAt(scans int) bool {
	look := 64
	for look < scans {
		look += look / 2
	}
	return look == scans
}

// ErrSerial is returned where a repeated computation came to other bits.
var ErrSerial = errors.New("the computation does not repeat itself")

// Validate reports every fault, each by its key.
func (o TemperOptions) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.Scans < 1 {
		fault("scans: %d, want at least 1", o.Scans)
	}
	if o.AdaptScans < 0 || o.Samples < 0 || o.Gap < 0 || o.CheckSerial < 0 {
		fault("adapt_scans %d, samples %d, gap %d, check_serial %d: want 0 or more", o.AdaptScans, o.Samples, o.Gap, o.CheckSerial)
	}
	if o.Stop.Time < 0 {
		fault("time: %v, want 0 or more", o.Stop.Time)
	}
	if o.Stop.RHat != 0 && !(o.Stop.RHat > 1) {
		fault("rhat: %g, want a number above 1, such as 1.01", o.Stop.RHat)
	}
	return errors.Join(errs...)
}

// Tempering is what tempering a law that stands still gave. It is the content of a run's tempering.json.
type Tempering struct {
	Name    string             `json:"name"`
	Step    int                `json:"step"` // training steps behind the law
	Backend string             `json:"backend"`
	Rounds  []*tempering.Round `json:"rounds"` // those that adapted, then the one that counts
	Ended   string             `json:"ended"`  // what ended the last round: a rule, scans, restarts, time or rhat, or interrupted

	X      []float32 `json:"-"` // [n, dim], states of the target rung
	Energy []float64 `json:"-"` // [n]
}

// Final is the round that counts.
func (t *Tempering) Final() *tempering.Round { return t.Rounds[len(t.Rounds)-1] }

// Temper adapts a ladder to a law with fixed weights and then measures it. A context that is cancelled while it measures ends
// the round as a rule would, after the scan under way; Tempering.Ended says so.
func Temper(ctx context.Context, b *backend.Backend, cfg engine.SamplerConfig, theta []float32, o TemperOptions) (_ *Tempering, err error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.CheckSerial > 0 {
		if err := checkSerial(ctx, b, cfg, theta, o); err != nil {
			return nil, err
		}
	}
	if o.Tune { // whatever the ladder is like now
		cfg.Tempering.Ladder = "adaptive"
	}
	s, err := engine.NewSampler(b, cfg)
	if err != nil {
		return nil, err
	}
	defer func() { s.Close() }()
	if err := s.Start(theta); err != nil {
		return nil, err
	}
	out := &Tempering{Step: cfg.StepsBefore, Backend: b.Kind(), Ended: "scans"}
	add := func(r *tempering.Round) {
		r.Number = len(out.Rounds) + 1
		out.Rounds = append(out.Rounds, r)
		if o.Each != nil {
			o.Each(r)
		}
	}
	for scans, left := 2, o.AdaptScans; left > 0; scans *= 2 {
		if scans = min(scans, left); left-scans < scans { // no short last round: it would undo the one before
			scans = left
		}
		left -= scans
		r, err := s.Round(ctx, engine.RoundOptions{Scans: scans, Adapt: true})
		if err != nil {
			return nil, err
		}
		r.Index, r.Histograms = nil, nil // of interest in the final round
		add(r)
		rungs := resized(r, cfg.Tempering.Rungs)
		if !o.Tune || left == 0 || rungs == cfg.Tempering.Rungs {
			continue
		}
		next, err := resize(b, &cfg, s, theta, r, rungs)
		if err != nil {
			return nil, err
		}
		s.Close()
		s = next
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, err := s.Round(context.WithoutCancel(ctx), engine.RoundOptions{Scans: o.Scans, Each: o.collect(ctx, s, out)})
	if err != nil {
		return nil, err
	}
	if len(out.X) > 0 {
		if err := firstNonFinite(out.X, s.Dim()); err != nil {
			return nil, err
		}
		if out.Energy, err = s.Energies(out.X); err != nil {
			return nil, err
		}
	}
	add(r)
	return out, nil
}

// collect gathers samples after each scan and ends the round when that is enough, or ctx cancelled.
func (o TemperOptions) collect(ctx context.Context, s *engine.Sampler, out *Tempering) func(engine.Standing) error {
	want := -1
	return func(at engine.Standing) error {
		if gap := max(1, o.Gap); o.Samples > 0 && len(out.X) != want && at.Scans%gap == 0 {
			rows, err := s.TargetChains()
			if err != nil {
				return err
			}
			want = o.Samples * s.Dim()
			out.X = append(out.X, rows...)
			out.X = out.X[:min(want, len(out.X))]
		}
		if ctx.Err() != nil {
			out.Ended = "interrupted"
			return engine.ErrEnough
		}
		if rule := o.Stop.met(at); rule != "" {
			out.Ended = rule
			return engine.ErrEnough
		}
		return nil
	}
}

// resized is the number of rungs that a round asks for: the suggestion where it is far from what there is. Few scans say
// little, and new rungs have to find their laws, so that a change has to be worth it.
func resized(r *tempering.Round, rungs int) int {
	const fewest = 30 // attempts of each pair and ladder
	if r.Attempts < fewest*uint64(r.Ladders) || r.SuggestedRungs < 2 {
		return rungs
	}
	if want := r.SuggestedRungs; float64(want) > 1.25*float64(rungs) || float64(want) < 0.6*float64(rungs) {
		return min(want, 2*rungs, maxRungs)
	}
	return rungs
}

// maxRungs is the most rungs that tuning gives a ladder by itself.
const maxRungs = 128

// resize makes a sampler with another number of rungs, at equal shares of the barrier that the round found, and starts it: a
// rung begins with copies of the states of the rung of was that was next to it on the hotter side, whose law is the wider.
func resize(b *backend.Backend, cfg *engine.SamplerConfig, was *engine.Sampler, theta []float32, r *tempering.Round, rungs int) (*engine.Sampler, error) {
	curve, err := tempering.NewCurve(r.Betas, r.Rejections, float64(r.Attempts))
	if err != nil {
		return nil, err
	}
	ladder, err := curve.Ladder(rungs)
	if err != nil {
		return nil, err
	}
	rows, err := was.Chains()
	if err != nil {
		return nil, err
	}
	from := was.Adapted()
	cfg.Tempering.Rungs, cfg.Tempering.Betas = rungs, nil
	cfg.Spec.Rungs = rungs
	cfg.Start = engine.Adapted{Betas: ladder.Betas(), Reference: from.Reference}
	var states []float32
	size := len(rows) / len(from.Betas) // of the states of a rung
	for _, beta := range cfg.Start.Betas {
		hotter, nearest := 0, 0
		for k, other := range from.Betas {
			if other <= beta {
				hotter = k
			}
			if math.Abs(other-beta) < math.Abs(from.Betas[nearest]-beta) {
				nearest = k
			}
		}
		cfg.Start.Factors = append(cfg.Start.Factors, from.Factors[nearest])
		states = append(states, rows[hotter*size:(hotter+1)*size]...)
	}
	s, err := engine.NewSampler(b, *cfg)
	if err != nil {
		return nil, err
	}
	if err := s.StartAt(theta, cfg.Start, states); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// checkSerial makes the first rounds that adapt twice and compares, after each, all that the next scan depends on: states,
// walkers, ladder, step sizes, reference, statistics. The second time another sampler takes over after half of the rounds, with
// programs compiled anew, from what the first leaves behind.
func checkSerial(ctx context.Context, b *backend.Backend, cfg engine.SamplerConfig, theta []float32, o TemperOptions) error {
	digests := func(takeOver int) (out []string, err error) {
		s, err := engine.NewSampler(b, cfg)
		if err != nil {
			return nil, err
		}
		defer func() { s.Close() }()
		if err := s.Start(theta); err != nil {
			return nil, err
		}
		for scans := 2; len(out) < o.CheckSerial; scans *= 2 {
			if len(out) == takeOver {
				next, err := engine.NewSampler(b, cfg)
				if err != nil {
					return nil, err
				}
				err = next.Resume(s)
				s.Close()
				if s = next; err != nil {
					return nil, err
				}
			}
			if _, err := s.Round(ctx, engine.RoundOptions{Scans: scans, Adapt: true}); err != nil {
				return nil, err
			}
			digest, err := s.Digest()
			if err != nil {
				return nil, err
			}
			out = append(out, digest)
		}
		return out, nil
	}
	return sameTwice(digests, o.CheckSerial/2, func(i int) string { return fmt.Sprintf("after round %d", i+1) })
}

// TemperingFile holds how the law of a run was tempered last.
const TemperingFile = "tempering.json"

// Write keeps the tempering in a folder, for `coordinator plot`.
func (t *Tempering) Write(dir string) error {
	text, err := json.MarshalIndent(t, "", " ")
	if err != nil {
		return fmt.Errorf("tempering: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("tempering: %w", err)
	}
	return WriteFile(filepath.Join(dir, TemperingFile), append(text, '\n'))
}

// ErrNotDiagnosed is returned for a folder without a tempering.
var ErrNotDiagnosed = errors.New("no " + TemperingFile + " in it, want one that `coordinator tempering diagnose` wrote")

// ReadTempering reads what Write wrote.
func ReadTempering(dir string) (*Tempering, error) {
	path := filepath.Join(dir, TemperingFile)
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: %w", dir, ErrNotDiagnosed)
	case err != nil:
		return nil, fmt.Errorf("tempering: %w", err)
	}
	t := &Tempering{}
	if err := json.Unmarshal(text, t); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(t.Rounds) == 0 || slices.Contains(t.Rounds, nil) {
		return nil, fmt.Errorf("%s: no rounds, want at least one", path)
	}
	return t, nil
}

// ladderRungs is the length of the ladder for a law that brings none.
const ladderRungs = 8

// tempered is how the model is explored along a ladder. exact asks for a kernel with a Metropolis test, which alone has
// exp(−E) as its law, in place of the experiment's.
func (p *Parts) tempered(w taught, seed uint64, exact bool) (engine.SamplerConfig, error) {
	energy, isEnergy := p.Network.(models.Energy)
	switch {
	case !isEnergy:
		return engine.SamplerConfig{}, fmt.Errorf("model.kind: %s is a vector field, want an energy to temper", p.ModelName())
	case p.NoLaw:
		return engine.SamplerConfig{}, fmt.Errorf("loss.kind: %s teaches an energy that is no log density, want another loss to temper what it teaches", p.Config.Loss.Kind)
	}
	if g, ok := energy.(models.GradientOnly); ok {
		return engine.SamplerConfig{}, fmt.Errorf("model: only the gradient of its energy is known (its value is %s), want an energy to temper", g.GradientOnly())
	}
	cfg := engine.SamplerConfig{Spec: p.chains.Spec, Tempering: p.Config.Tempering.WithDefaults(), StepsBefore: w.steps, Start: w.adapted}
	if cfg.Spec.Rungs < 2 {
		cfg.Tempering.Rungs, cfg.Tempering.Betas, cfg.Tempering.Path, cfg.Tempering.Ladder = ladderRungs, nil, "linear", "adaptive"
		cfg.Spec.Rungs = ladderRungs
		cfg.Start = engine.Adapted{}
		q := p.Gaussian
		cfg.Spec.Reference = &q
	}
	cfg.Spec.Seed = seed
	if s := p.Config.Sampler; exact && !s.Adjusted() {
		cfg.Spec.Sampler = samplers.Config{Kind: "mala", Steps: s.Steps, StepSize: s.StepSize}.WithDefaults()
		cfg.Start.Factors = nil
	}
	return cfg, nil
}
