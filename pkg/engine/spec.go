package engine

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// Spec fixes what a shard compiles: the model, the path, the shapes. What may change while it runs (β, step sizes,
// learning rate, keys) is an input of every call instead.
type Spec struct {
	Network   models.Energy    // f_θ
	Base      *models.Gaussian // E = f_θ − log Base; nil for E = f_θ
	Reference *models.Gaussian // q of the linear path, whose draws are rung 0; nil for the power path

	Start *models.Gaussian // law of the first states under buffer.init: reference; nil: Reference, else Base

	Rungs  int // K, rungs that the shard holds
	Chains int // B, ladders
	Pool   int // M, columns of the replay buffer; equal to Chains where every column is live
	Batch  int // positives a step

	// FromData starts every scan at given rows instead of where the chains ended (CD-k); needs Rungs = 1.
	FromData bool
	// Mix adds fresh starts or jitter to the drawn rows, see [Draw].
	Mix bool

	// Ladder is the number of rungs of the whole ladder where the shard holds but one of them, FirstRung which; Ladder is 0
	// where it holds them all.
	Ladder, FirstRung int

	// Weighted weighs the negatives of a step, see [Draw]; Virtual takes those of the second coldest rung too.
	Weighted, Virtual bool
	// Variational makes q an input of every call, see [Shard.SetReference]; Reference is the first one.
	Variational bool
	// Exchange is one of Exchanges, what a swap moves; "" is state.
	Exchange string

	Loss      losses.Config
	Sampler   samplers.Config
	Optimizer OptimizerConfig

	Seed  uint64
	Shard uint32 // number of the shard in the experiment: part of every device key
}

// Exchanges are the names that Spec.Exchange knows. With "state" a row of the device belongs to a rung, and a swap moves
// the states of two rows. With "label" the states stay, and a swap moves β and the step size of the two rows: nothing as
// large as a state. Any row may then be of rung 0, so that the chain steps of a scan are made there too, and dropped where
// that rung is drawn anew. The chains have the same law either way, though not the same bits.
func Exchanges() []string { return tempering.Exchanges }

// maxBlock is the most gradients of the energy unrolled into one program: XLA's compile time grows faster than their
// number.
const maxBlock = 50

// blockSteps is the most chain steps of one program.
func (s Spec) blockSteps() int { return max(1, maxBlock/s.Sampler.NewKernel(nil).Gradients()) }

func (s Spec) validate() error {
	var errs []error
	if s.Network == nil {
		errs = append(errs, errors.New("no network"))
	} else if s.Network.Dim() < 1 {
		errs = append(errs, fmt.Errorf("network: dimension %d, want at least 1", s.Network.Dim()))
	}
	if s.Rungs < 1 || s.Chains < 1 || s.Batch < 0 || s.Pool < s.Chains {
		errs = append(errs, fmt.Errorf("rungs %d, chains %d, batch %d, pool %d: want rungs, chains ≥ 1, batch ≥ 0, pool ≥ chains", s.Rungs, s.Chains, s.Batch, s.Pool))
	}
	if m := len(s.Sampler.Mass); m > 1 && s.Network != nil && m != s.Network.Dim() {
		errs = append(errs, fmt.Errorf("sampler.mass: %d numbers, want 1 or %d, the dimension", m, s.Network.Dim()))
	}
	if s.FromData && (s.Rungs != 1 || s.Pool != s.Chains) {
		errs = append(errs, fmt.Errorf("chains from the data: rungs %d, pool %d, want 1 rung and no pool", s.Rungs, s.Pool))
	}
	if s.Ladder > 0 && (s.Rungs != 1 || s.FirstRung < 0 || s.FirstRung >= s.Ladder || s.Batch > 0 || s.FromData) {
		errs = append(errs, fmt.Errorf("rung %d of %d: rungs %d, batch %d, want one rung and no training", s.FirstRung, s.Ladder, s.Rungs, s.Batch))
	}
	if s.Variational && (s.Reference == nil || s.ladder() < 2) {
		errs = append(errs, fmt.Errorf("variational reference: rungs %d, reference %t, want at least 2 rungs and a reference", s.Rungs, s.Reference != nil))
	}
	if s.Exchange != "" && !slices.Contains(Exchanges(), s.Exchange) {
		errs = append(errs, fmt.Errorf("exchange: %q, want one of %s", s.Exchange, strings.Join(Exchanges(), ", ")))
	}
	if s.byLabel() && s.ladder() < 2 {
		errs = append(errs, fmt.Errorf("exchange: label of %d rung, want at least 2 rungs", s.Rungs))
	}
	if s.byLabel() && s.pooled() {
		errs = append(errs, fmt.Errorf("exchange: label with pool %d of %d chains, mix %t: want state where a scan moves chains in and out of a pool or mixes fresh starts in", s.Pool, s.Chains, s.Mix))
	}
	return errors.Join(errs...)
}

// firstColumn is the number of the shard's first column in the experiment, where all shards are of one size.
func (s Spec) firstColumn() int { return int(s.Shard) * s.Pool }

// ladder is the number of rungs of the whole ladder.
func (s Spec) ladder() int { return max(s.Ladder, s.Rungs) }

// moving says whether rows of the shard trade places with rows of others.
func (s Spec) moving() bool { return s.Ladder > 0 && !s.byLabel() }

func (s Spec) dim() int  { return s.Network.Dim() }
func (s Spec) rows() int { return s.Rungs * s.Chains }

// drawn is the number of rows, from row 0, that hold independent draws of the reference: rung 0 of a linear path.
func (s Spec) drawn() int {
	if s.Reference != nil && s.ladder() > 1 && (s.FirstRung == 0 || s.byLabel()) {
		return s.Chains
	}
	return 0
}

func (s Spec) pooled() bool { return s.Pool > s.Chains || s.Mix }

func (s Spec) byLabel() bool { return s.Exchange == "label" }

// negatives is the number of negatives of a step, the last rows of all.
func (s Spec) negatives() int {
	if s.Virtual {
		return min(2, s.Rungs) * s.Chains
	}
	return s.Chains
}

// energy builds E from the network at its weights.
func (s Spec) energy(network models.Fn) samplers.EnergyFn { return withBase(network, s.Base) }

// path builds the annealing path of the network at its weights, within the sampler's box. A q that is not nil stands for
// Reference.
func (s Spec) path(network models.Fn, q *law) samplers.Path {
	return s.Sampler.Confine(s.unconfined(network, q))
}

func (s Spec) unconfined(network models.Fn, q *law) samplers.Path {
	energy := s.energy(network)
	if s.Reference == nil || s.ladder() == 1 {
		return samplers.Power(energy)
	}
	if q != nil && s.Base != nil {
		// As below, V = −f_θ + log q₀ − log q avoids the large terms that the two densities share.
		return samplers.Path{LogRef: q.logDensity, V: func(x *Node) *Node { return Sub(q.logRatio(s.Base, x), network(x)) }}
	}
	if q != nil {
		return samplers.Linear(energy, q.logDensity)
	}
	if s.Base != nil && sameGaussian(s.Base, s.Reference) {
		// With q = q₀ the base and the reference cancel: V = −f_θ, without the rounding of two large terms.
		return samplers.Path{LogRef: s.Reference.LogDensity, V: func(x *Node) *Node { return Neg(network(x)) }}
	}
	return samplers.Linear(energy, s.Reference.LogDensity)
}

// loss is the loss of a step by the weights of its rows; nil where they count alike.
func (s Spec) loss(network models.Fn, positives, negatives *Node) losses.Contrastive {
	c := losses.Contrastive{Energy: network, Penalty: s.Loss.EnergyPenalty, GradientPenalty: s.Loss.GradientPenalty, Weights: negatives, PositiveWeights: positives}
	if s.Base != nil {
		c.Base = s.Base.LogDensity
	}
	return c
}

// sameGaussian says whether two laws are the same to the last bit.
func sameGaussian(a, b *models.Gaussian) bool {
	return slices.Equal(a.Mean, b.Mean) && slices.Equal(a.Std, b.Std)
}
