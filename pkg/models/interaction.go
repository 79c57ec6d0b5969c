package models

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// Coupled is implemented by energies whose value at one row depends on the other rows of the batch. A gradient of the sum
// over the batch moves all rows together, which unadjusted Langevin dynamics may do. To accept or reject one row, to swap
// two rows or to differentiate one row's score on its own makes no sense for them.
type Coupled interface {
	Coupled() bool
}

// IsCoupled says whether the rows of e depend on each other.
func IsCoupled(e Energy) bool {
	c, ok := e.(Coupled)
	return ok && c.Coupled()
}

// Interaction is an energy V whose states push each other apart, or for a negative strength pull each other together
// (TorchEBM's InteractionModel),
//
//	Eᵢ = V(xᵢ) − ½ s/σ² Σⱼ ‖xᵢ − xⱼ‖²,
//
// with j over the batch. The gradient of Σ Eᵢ in xᵢ is ∇V(xᵢ) − 2 s n/σ² (xᵢ − mean x) for a batch of n: Langevin dynamics
// with steps η need 2 s n η/σ² well below 1, and V must grow faster than s n‖x‖²/σ² or the states fly apart.
type Interaction struct {
	of    Energy
	scale float64 // s/σ²
}

// NewInteraction lets the states of an energy interact, with a width sigmaW, positive, and a strength.
func NewInteraction(of Energy, sigmaW, strength float64) (*Interaction, error) {
	if of == nil {
		return nil, errors.New("of: missing, want an energy")
	}
	var f faults
	f.positive("sigma_w", sigmaW)
	f.finite("strength", strength)
	if err := f.err(); err != nil {
		return nil, err
	}
	return &Interaction{of, strength / sigmaW / sigmaW}, nil
}

// Dim is the number of coordinates of a state.
func (e *Interaction) Dim() int { return e.of.Dim() }

// Params lists the parameters of V.
func (e *Interaction) Params() []Param { return e.of.Params() }

// Coupled is true: see [Coupled].
func (e *Interaction) Coupled() bool { return true }

// Energy builds E(x), [batch].
func (e *Interaction) Energy(x *Node, weights []*Node) *Node { return e.Prepare(weights)(x) }

// Prepare does the work of V on its weights.
func (e *Interaction) Prepare(weights []*Node) Fn {
	v := At(e.of, weights)
	return func(x *Node) *Node {
		analytic{"interaction", e.Dim()}.check(x)
		// Σⱼ ‖xᵢ − xⱼ‖² = n‖xᵢ − m‖² + Σⱼ ‖xⱼ − m‖² about the mean m, without the cancellation of ‖xᵢ‖² + ‖xⱼ‖² − 2xᵢ·xⱼ.
		n := float64(x.Shape().Dimensions[0])
		squares := ReduceSum(Square(Sub(x, ReduceAndKeep(x, ReduceMean, 0))), -1) // [batch]
		pairs := Add(MulScalar(squares, n), ReduceAllSum(squares))
		return Sub(v(x), MulScalar(pairs, e.scale/2))
	}
}

// kindInteraction is the kind of an analytic energy whose states interact; it takes the options of that energy as well.
const kindInteraction = "interaction"

// inner is the section of V in a section of kind interaction.
func (c Config) inner() Config {
	c.Kind, c.Of, c.SigmaW, c.Strength = c.Of, "", nil, nil
	return c
}

// describe is the kind of a section with every option that it takes.
func (c Config) describe() (Kind, bool) {
	kind, ok := findKind(c.Kind)
	if c.Kind == kindInteraction && slices.Contains(interactingKinds(), c.Of) {
		inner, _ := findKind(c.Of)
		for _, p := range inner.Params {
			if !kind.has(p.Key) {
				kind.Params = append(kind.Params, p)
			}
		}
	}
	return kind, ok
}

func interactingKinds() []string {
	return slices.DeleteFunc(AnalyticKinds(), func(name string) bool { return name == kindInteraction })
}

// makeInteraction builds the energy of a section of kind interaction.
func (c Config) makeInteraction(dim int) (Network, error) {
	if !slices.Contains(interactingKinds(), c.Of) {
		return nil, fmt.Errorf("of: %q, want one of %s", c.Of, strings.Join(interactingKinds(), ", "))
	}
	v, err := c.inner().make(dim, 0)
	if c.SigmaW == nil {
		return nil, errors.Join(errors.New("sigma_w: missing, want a positive number"), err)
	}
	if err != nil {
		return nil, err
	}
	return networkOr(NewInteraction(v.(Energy), *c.SigmaW, *c.Strength))
}
