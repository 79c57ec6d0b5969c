package losses

import (
	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

// Loss is an objective of a batch of data, without a replay buffer: score matching, equilibrium matching and their kin.
// It only says what it needs and builds its graph; drawing, pairing and scheduling are the engine's. Add one by
// implementing it; a row in [Kinds] makes it a word of the experiment's file.
type Loss interface {
	// Needs says what a step needs beside the rows of data, for a batch [batch, dim].
	Needs(batch, dim int) Needs
	// Build builds the loss of a batch under a model.
	Build(m Model, in Batch) Result
}

// Tempered is a loss whose optimum E does not have the law exp(−E): sampling and log densities must ask for another one.
type Tempered interface {
	// Temperature is the τ of the law exp(−E/τ) that the loss teaches. law is false where there is none: the energy then has
	// its minima at the data, or carries noise to data, and says nothing of probabilities; τ is 1 there.
	Temperature() (tau float64, law bool)
}

// Coupled is a loss that may be no mean over the rows of its batch. The gradient of any other is the mean of those of equal
// parts of the batch, which is how several shards share a step.
type Coupled interface {
	// Coupled says by what setting the rows of a batch have to do with each other, and how; "" where they do not.
	Coupled() (reason string)
}

// Needs is what a step of a loss needs beside the data.
type Needs struct {
	// Energy, Field and Hidden say that the loss cannot do without Model.Energy, Model.Field, Model.Hidden. With none of
	// them set an energy will do, and a field too.
	Energy, Field, Hidden bool
	// Source asks for Batch.Source, draws of N(0, I) that are paired with the rows by the configured coupling.
	Source bool
	// Draws are the random arrays of a step, in the order of Batch.Draws.
	Draws []Draw
	// Scalars are settings that may follow a schedule over the training steps, in the order of Batch.Scalars.
	Scalars []Setting
	// Chains are short unadjusted Langevin chains that run before the step; nil for none.
	Chains *Chains
}

// Draw is a random array: standard normal, or uniform in (0, 1).
type Draw struct {
	Name    string
	Uniform bool
	Dims    []int
}

// Setting is a setting of the loss that may follow a schedule.
type Setting struct {
	Name string // its key in the loss section
	At   schedules.Schedule
}

// Chains are short Langevin chains x ← x − h∇E + √(2hτ)z under the weights of the step, held constant in the loss.
// Chain i starts from row i of the source for i < FromSource and from a row of the data after that, both in an order
// shuffled by counter.
type Chains struct {
	Rows, FromSource int
	Steps            int
	StepSize         float64
	// Temperature is τ of chain i at step m, counted from 0.
	Temperature func(i, m int) float64
	// On says whether step n of the training runs them; where it does not, Batch.Negatives holds the starts.
	On func(step int) bool
}

// Model is what a loss differentiates, at the weights of the step.
type Model struct {
	Energy EnergyFn // E(x), [batch]
	// Network is f of E = f − log q, for the energy penalty; nil where E itself is meant.
	Network EnergyFn
	Field   models.FieldFn // f(x, t, y), [batch, dim]
	// Hidden builds the activations of the last hidden layer, [batch, width]; nil for a field that has none to show.
	Hidden models.FieldFn
}

// Batch is the input of one step.
type Batch struct {
	X         *Node   // rows of data, [batch, dim]; in the order of the coupling
	Data      *Node   // the same rows as they came: a coupling may leave some out, or take one twice; nil: X
	Labels    *Node   // [batch] int32, the null label where it was dropped; nil without labels
	Source    *Node   // [batch, dim]
	Weights   *Node   // [batch], the coupling's, with mean 1 over the whole batch; nil where they are all equal
	Draws     []*Node // see Needs
	Scalars   []*Node
	Negatives *Node // the ends of the chains, [rows, dim]
	ran       *Node // whether they are ends, a boolean scalar: at a step without chains they are starts; nil: they are ends
}

// data are the rows as they came, [batch, dim]; with labels those of the coupling, which the labels belong to.
func (b Batch) data() *Node {
	if b.Data == nil || b.Labels != nil {
		return b.X
	}
	return b.Data
}

// Result is a loss and the parts of it that are worth a line in the metrics, scalars all.
type Result struct {
	Loss  *Node
	Parts []Part
}

// Part is a named scalar.
type Part struct {
	Name  string
	Value *Node
}
