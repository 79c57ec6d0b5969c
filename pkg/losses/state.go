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

// at evaluates the model at states, with labels for a field. The states are held constant.
func (m Model) at(x, labels *Node) state {
	x = pass(StopGradient(x))
	if m.Energy != nil {
		e, grad := models.EnergyAndGrad(m.Energy, x)
		return state{x, e, grad}
	}
	if m.Field == nil {
		panic(fmt.Errorf("losses: a model without energy and field"))
	}
	f := m.Field(x, nil, labels)
	return state{x, rowSum(Mul(x, f)), f}
}

// alongHessian builds vᵀ∇²E v of each row, [batch], for directions v [batch, dim] that are held constant.
func (s state) alongHessian(v *Node) *Node {
	along := Gradient(ReduceAllSum(Mul(s.slope, v)), s.x)[0]
	return rowSum(Mul(along, v))
}

// pass is x under a new name. A plain Identity has no gradient in GoMLX v0.26, and a StopGradient gives zeros.
func pass(x *Node) *Node {
	return IdentityWithCustomGradient(x, func(_, v *Node) *Node { return v })
}

// Penalties are regularisers that go with any loss.
type Penalties struct {
	Energy   float64 // weight of mean f², over the data and over the negatives where there are some
	Gradient float64 // weight of mean ‖∇E‖² over the data
}

// add adds the penalties at the data to a loss. clean is the model at the data where the loss has it already.
func (p Penalties) add(m Model, in Batch, clean *state, r Result) Result {
	if p == (Penalties{}) {
		return r
	}
	if clean == nil {
		s := m.at(in.X, in.Labels)
		clean = &s
	}
	add := func(name string, weight float64, squares *Node) {
		part := MulScalar(squares, weight)
		r.Loss = Add(r.Loss, part)
		r.Parts = append(r.Parts, Part{name, part})
	}
	if p.Energy > 0 {
		f := clean.energy
		if m.Network != nil {
			f = m.Network(clean.x)
		}
		squares := ReduceAllMean(Square(f))
		if in.Negatives != nil {
			network := m.Network
			if network == nil {
				network = m.Energy
			}
			squares = Add(squares, ReduceAllMean(Square(network(StopGradient(in.Negatives)))))
		}
		add("energy_penalty", p.Energy, squares)
	}
	if p.Gradient > 0 {
		add("gradient_penalty", p.Gradient, ReduceAllMean(rowSum(Square(clean.slope))))
	}
	return r
}

// rowSum sums everything but the first axis: [batch, ...] → [batch].
func rowSum(x *Node) *Node { return ReduceSum(flatRows(x), -1) }

// rowMean is the mean over everything but the first axis: [batch, ...] → [batch].
func rowMean(x *Node) *Node { return ReduceMean(flatRows(x), -1) }

func flatRows(x *Node) *Node { return Reshape(x, x.Shape().Dimensions[0], -1) }

// column makes [batch] multiply the rows of [batch, dim].
func column(c *Node) *Node { return Reshape(c, -1, 1) }
