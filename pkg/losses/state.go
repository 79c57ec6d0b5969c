package losses

import (
	"fmt"

	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// state is a model at a batch of states x [batch, dim], evaluated once. x carries gradients: a derivative of slope with
// respect to it is one of the model alone, whatever is behind the states.
type state struct {
	x      *Node
	energy *Node // E [batch]; for a field without an energy x·f, which takes its place
	slope  *Node // ∇E [batch, dim]; for a field f, which stands for it
}

// at evaluates the model at states, and a field at times, nil for 0, and labels. The states are held constant.
func (m Model) at(x, t, labels *Node) state {
	x = models.Pass(StopGradient(x))
	if m.Energy != nil {
		e, grad := models.EnergyAndGrad(m.Energy, x)
		return state{x, e, grad}
	}
	if m.Field == nil {
		panic(fmt.Errorf("losses: a model without energy and field"))
	}
	f := m.Field(x, t, labels)
	return state{x, models.FieldEnergy("dot", x, f), f}
}

// asField is the model without its energy, for a network that is a field as well.
func (m Model) asField() Model { return Model{Field: m.Field, Hidden: m.Hidden} }

// alongHessian builds vᵀ∇²E v of each row, [batch], for directions v [batch, dim] that are held constant.
func (s state) alongHessian(v *Node) *Node {
	along := Gradient(ReduceAllSum(Mul(s.slope, v)), s.x)[0]
	return rowSum(Mul(along, v))
}

// Penalties are regularisers that go with any loss. Embed them in a loss and end its Build with Add.
//
// An energy is penalised at the data. A field f, whose E is x·f and whose ∇E is f, is penalised at the data and time 0 by
// the losses without time; [FlowMatching], and [EquilibriumMatching] unless TimeInvariant, penalise it at the xₜ and t that
// they train it at, for at time 0 it belongs to the noise. An EnergyType is what E and ∇E are made by, if there is one.
type Penalties struct {
	Energy   float64 // weight of mean E², or f² of E = f − log q, and of the same over the negatives where there are some
	Gradient float64 // weight of mean ‖∇E‖²
}

// Add adds the penalties of the model at the data to a result, with those of in.Negatives unless that is nil, and reports
// them as the parts energy_penalty and gradient_penalty.
func (p Penalties) Add(m Model, in Batch, r Result) Result {
	if p == (Penalties{}) {
		return r
	}
	return p.addAt(m.at(in.data(), nil, in.Labels), m, in, r)
}

// addAt is Add at states where the model is known already.
func (p Penalties) addAt(s state, m Model, in Batch, r Result) Result {
	add := func(name string, weight float64, squares *Node) {
		part := MulScalar(squares, weight)
		r.Loss = Add(r.Loss, part)
		r.Parts = append(r.Parts, Part{name, part})
	}
	if p.Energy > 0 {
		f := s.energy
		if m.Network != nil {
			f = m.Network(s.x)
		}
		squares := ReduceAllMean(Square(f))
		if in.Negatives != nil {
			squares = Add(squares, m.negatives(in))
		}
		add("energy_penalty", p.Energy, squares)
	}
	if p.Gradient > 0 {
		add("gradient_penalty", p.Gradient, ReduceAllMean(rowSum(Square(s.slope))))
	}
	return r
}

// negatives is mean f(x⁻)², a scalar; 0 at a step whose chains did not run.
func (m Model) negatives(in Batch) *Node {
	network := m.Network
	if network == nil {
		network = m.Energy
	}
	squares := ReduceAllMean(Square(network(StopGradient(in.Negatives))))
	if in.ran == nil {
		return squares
	}
	return Where(in.ran, squares, ZerosLike(squares))
}

// rowSum sums everything but the first axis: [batch, ...] → [batch].
func rowSum(x *Node) *Node { return ReduceSum(flatRows(x), -1) }

// rowMean is the mean over everything but the first axis: [batch, ...] → [batch].
func rowMean(x *Node) *Node { return ReduceMean(flatRows(x), -1) }

func flatRows(x *Node) *Node { return Reshape(x, x.Shape().Dimensions[0], -1) }

// column makes [batch] multiply the rows of [batch, dim].
func column(c *Node) *Node { return Reshape(c, -1, 1) }
