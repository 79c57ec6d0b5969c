package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/buffer"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// SamplerConfig is everything that a [Sampler] needs beside its backend.
type SamplerConfig struct {
	// Spec names the law, the kernel and the shapes. What is about training and the replay buffer is not read.
	Spec        Spec
	Tempering   tempering.Config // of at least two rungs
	Init        string           // first states: one of buffer.Inits; "" is reference where the Spec has a Gaussian, else normal
	Data        []float64        // rows that chains start from under init: data
	Start       Adapted
	StepsBefore int // step at which schedules of the kernel are read
}

// Sampler explores a law that stands still along a ladder, in rounds: those that adapt the ladder, then those that count.
//
//	s, err := engine.NewSampler(b, cfg)
//	err = s.Start(theta)
//	for n := 2; n <= 1024; n *= 2 {
//		_, err = s.Round(ctx, engine.RoundOptions{Scans: n, Adapt: true})
//	}
//	round, err := s.Round(ctx, engine.RoundOptions{Scans: 2000})
//	fmt.Println(round.LogZ.Bridge, round.Verdict())
//
// Numbers of a round that adapts tell how far the adaptation is; only those of the others are to be quoted.
type Sampler struct {
	t      *Trainer
	number int // rounds made

	still  []int    // [rows] scans that the walker of a row has stood there
	age    []uint64 // [B] scans since the column's last restart
	fitted moments  // of the target chains of the round
}

// NewSampler builds the shard; programs compile at their first call.
func NewSampler(b *backend.Backend, cfg SamplerConfig) (*Sampler, error) {
	sp := cfg.Spec
	if sp.Rungs < 2 {
		return nil, fmt.Errorf("engine: sampler: %d rungs, want at least 2", sp.Rungs)
	}
	sp.Pool, sp.Mix, sp.FromData, sp.Batch, sp.Weighted, sp.Virtual = sp.Chains, false, false, 0, false, false
	sp.Optimizer = OptimizerConfig{Kind: "sgd", LR: schedules.Constant(0)}
	sp.Variational = cfg.Tempering.Reference == "variational"
	sp.Exchange = cfg.Tempering.Exchange
	if cfg.Init == "" {
		cfg.Init = "normal"
		if sp.Start != nil || sp.Reference != nil || sp.Base != nil {
			cfg.Init = "reference"
		}
	}
	cfg.Tempering.Scans = 1
	t, err := NewTrainer(b, TrainerConfig{Spec: sp, Tempering: cfg.Tempering, Start: cfg.Start, StepsBefore: cfg.StepsBefore,
		Buffer: buffer.Config{Size: sp.Chains, Init: cfg.Init}, Data: cfg.Data})
	if err != nil {
		return nil, err
	}
	return &Sampler{t: t, still: make([]int, sp.rows()), age: make([]uint64, sp.Chains)}, nil
}

// Start draws the first states and makes the first scan; theta are the weights, in the flat order of the network's
// parameters. A sampler that was started before forgets all.
func (s *Sampler) Start(theta []float32) error { return s.StartFrom(theta, s.t.cfg.Start) }

// StartFrom is Start with another ladder, other step sizes and another reference than those of the configuration.
func (s *Sampler) StartFrom(theta []float32, from Adapted) error {
	if err := s.rewind(from); err != nil {
		return err
	}
	return s.t.StartAt(theta)
}

// StartAt is StartFrom with given states of every rung, [K·B·dim] rung-major, where the next scan begins.
func (s *Sampler) StartAt(theta []float32, from Adapted, rows []float32) error {
	if err := s.rewind(from); err != nil {
		return err
	}
	return s.t.startFromRows(theta, rows)
}

func (s *Sampler) rewind(from Adapted) error {
	s.number = 0
	clear(s.still)
	clear(s.age)
	return s.t.rewind(from)
}

// Reseed gives the sampler another seed, from the next start on. Its programs take the seed at every call.
func (s *Sampler) Reseed(seed uint64) {
	s.t.cfg.Spec.Seed = seed
	s.t.shard.(*Shard).spec.Seed = seed // a sampler has no group
}

// Resume puts a sampler of the same configuration where from stands between two rounds.
func (s *Sampler) Resume(from *Sampler) error {
	cut, err := from.t.Cut()
	if err != nil {
		return err
	}
	if err := s.rewind(from.t.cfg.Start); err != nil {
		return err
	}
	if err := s.t.Restore(&cut); err != nil {
		return err
	}
	s.number = from.number
	copy(s.still, from.still)
	copy(s.age, from.age)
	return nil
}

// AtStep reads the schedules of the kernel at another training step, from the next start on.
func (s *Sampler) AtStep(n int) { s.t.cfg.StepsBefore = n }

// Close frees the device memory.
func (s *Sampler) Close() { s.t.Close() }

// Adapted is where ladder, step sizes and reference stand.
func (s *Sampler) Adapted() Adapted { return s.t.Adapted() }

// Dim is the dimension of a state.
func (s *Sampler) Dim() int { return s.t.Dim() }

// TargetChains copies the chains of the target rung to the host, [B·dim].
func (s *Sampler) TargetChains() ([]float32, error) { return s.t.TargetChains() }

// Chains copies the states of every rung to the host, [K·B·dim] rung-major.
func (s *Sampler) Chains() ([]float32, error) {
	rows, err := s.t.shard.Live()
	if err != nil {
		return nil, err
	}
	return permuted(rows, s.t.perm, s.t.Dim()), nil
}

// Energies evaluates E at points [n·dim].
func (s *Sampler) Energies(x []float32) ([]float64, error) { return s.t.Energies(x) }

// Digest is the SHA-256 of all that the next scan depends on: states, walkers, ladder, step sizes, statistics.
func (s *Sampler) Digest() (string, error) { return s.t.Digest() }

// RoundOptions say what a round does.
type RoundOptions struct {
	Scans int  // the most scans that it makes
	Adapt bool // step sizes move on the way, and the ladder (and a variational reference, after a few rounds) at the end
	// Each is called after every scan; an error ends the round, and is returned unless it is ErrEnough.
	Each func(Standing) error
}

// ErrEnough, returned by RoundOptions.Each, ends a round as if its scans were made.
var ErrEnough = errors.New("engine: enough scans")

// Standing is where a round stands after a scan.
type Standing struct {
	Scans    int    // made in the round
	Restarts uint64 // in the round, over all ladders
	Elapsed  time.Duration
	watch    *watch
	trainer  *Trainer
}

// ExpectedTrips is the number of round trips that the swap acceptance of the round allows in its scans but for the first 2K,
// over all ladders; NaN before every pair was tried.
func (s Standing) ExpectedTrips() float64 {
	w := s.watch
	return s.trainer.predictedTripRate(s.trainer.Stats().Rejections()) * float64(max(s.Scans-2*w.rungs, 0)*w.chains)
}

// RHat is the largest split R̂ of the round so far; NaN where it is too early to say.
func (s Standing) RHat() float64 {
	worst := math.NaN()
	for _, v := range s.watch.rhat() {
		if math.IsNaN(worst) || v > worst {
			worst = v
		}
	}
	return worst
}

// variationalRound is the first round after which a variational reference is fitted: before, chains are far from the
// target's law.
const variationalRound = 6

// Round makes scans with ladder and reference standing still, and says what they showed. All that it tells is of its own
// scans, but for walkers, which go on with the direction that they had.
func (s *Sampler) Round(ctx context.Context, o RoundOptions) (*tempering.Round, error) {
	t := s.t
	if t.perm == nil {
		return nil, ErrNotStarted
	}
	w, err := s.newWatch(o)
	if err != nil {
		return nil, err
	}
	s.fitted = moments{}
	t.ensemble.Reset()
	t.moves.reset()
	began := time.Now()
	for w.scans < o.Scans {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		w.places(t.ensemble)
		r, err := t.Explore()
		if err != nil {
			return nil, err
		}
		if err := w.scan(s, r); err != nil {
			return nil, err
		}
		if o.Adapt && t.adapting.sizes != nil && t.adapting.sizes.Move() {
			t.tablesAt = tables{math.NaN(), math.NaN()}
			if err := t.setSteps(0); err != nil {
				return nil, err
			}
		}
		if o.Each == nil {
			continue
		}
		err = o.Each(Standing{w.scans, t.Stats().Restarts, time.Since(began), w, t})
		if errors.Is(err, ErrEnough) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	s.number++
	round, err := w.round(s, time.Since(began))
	if err != nil {
		return nil, err
	}
	if o.Adapt {
		if err := s.adapt(round); err != nil {
			return nil, err
		}
	}
	return round, nil
}

// adapt moves the ladder to equal rejection by the round's rates, and a variational reference to the moments of its target
// chains.
func (s *Sampler) adapt(r *tempering.Round) error {
	t := s.t
	if t.cfg.Tempering.Ladder == "adaptive" && r.Attempts > 0 {
		curve, err := tempering.NewCurve(r.Betas, r.Rejections, float64(r.Attempts))
		if err != nil {
			return fmt.Errorf("engine: round %d: %w", r.Number, err)
		}
		next, err := curve.Ladder(len(r.Betas))
		if err != nil {
			return fmt.Errorf("engine: round %d: %w", r.Number, err)
		}
		if err := t.setLadder(next); err != nil {
			return fmt.Errorf("engine: round %d: %w", r.Number, err)
		}
	}
	if err := t.widen(r.Rejections); err != nil {
		return fmt.Errorf("engine: round %d: %w", r.Number, err)
	}
	if t.cfg.Spec.Variational && s.number >= variationalRound {
		t.adapting.fitted = s.fitted
		t.refit()
	}
	t.tablesAt = tables{math.NaN(), math.NaN()}
	return t.setSteps(0)
}
