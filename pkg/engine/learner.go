package engine

import (
	"errors"
	"fmt"
	"math"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// Learner is what a training loop needs of a trainer: [Trainer] learns from chains, [DataTrainer] from the data alone. A
// step depends on the seed and the state alone, so a restored learner goes on bit for bit.
type Learner interface {
	// Start draws the first weights, and whatever the first step needs; StartAt is Start with given weights, in the flat order
	// of the network's parameters.
	Start() error
	StartAt(theta []float32) error
	// TrainStep makes one optimizer step.
	TrainStep() (Report, error)
	// Step is the number of training steps made.
	Step() int
	// Cut takes a consistent snapshot, Restore goes back to one.
	Cut() (checkpoint.Cut, error)
	Restore(*checkpoint.Cut) error
	// Theta copies the flat parameters to the host, Params gives them by name; those averaged over the steps where the
	// optimizer keeps them.
	Theta() ([]float32, error)
	Params() ([]checkpoint.Tensor, error)
	// Energies evaluates E at points [n·dim] under the parameters of Theta; ErrNoEnergy for a model without one.
	Energies(x []float32) ([]float64, error)
	// Close frees the device memory.
	Close()
}

// ErrNoEnergy is returned where the energy of a model is asked for that gives a vector field instead.
var ErrNoEnergy = errors.New("engine: the model is a vector field: it has no energy")

// Report is what one training step gave.
type Report struct {
	Step      int // steps made, this one included
	Loss      float64
	GradNorm  float64   // of the gradient, before clipping
	Parts     []Score   // parts of the loss worth a line in the metrics
	Rate      float64   // learning rate of the step
	Accept    []float64 // explorer acceptance a rung, mean over the step's scans; nil without chains
	Drift     []float64 // effective share of each rung's chains under the new parameters, see [Trainer]; nil where it is not known
	NonFinite int       // see [Result]
}

// Score is a named part of a loss.
type Score struct {
	Name  string
	Value float64
}

// NonFiniteError says that a training step gave a number that is not finite.
type NonFiniteError struct {
	Step  int    // step that failed, counted from 1
	Place string // which number
	Value float64
}

func (e *NonFiniteError) Error() string {
	return fmt.Sprintf("step %d: %s is %v; start anew with a lower optimizer.lr or sampler.step_size, or with optimizer.clip_norm", e.Step, e.Place, e.Value)
}

func bad(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) }

// named cuts a flat parameter vector into the network's tensors. A network without parameters has a vector of one number
// that nobody reads.
func named(network models.Network, flat []float32) []checkpoint.Tensor {
	out, err := checkpoint.ParamTensors(network, flat[:models.NumParams(network)])
	if err != nil {
		panic(err) // the lengths agree
	}
	return out
}

// flat is the inverse of named.
func flat(network models.Network, tensors []checkpoint.Tensor) ([]float32, error) {
	if models.NumParams(network) == 0 {
		return make([]float32, 1), nil
	}
	return checkpoint.FlatParams[float32](network, tensors)
}
