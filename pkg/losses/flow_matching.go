package losses

import (
	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/interpolants"
)

// FlowMatching is the loss of a velocity field, the mean over rows and coordinates of (f(xₜ, t) − uₜ)² (Lipman et al. 2023).
type FlowMatching struct {
	Path
	Negate bool // learn −uₜ, which points from data to noise
	Penalties
}

// Needs implements [Loss].
func (l FlowMatching) Needs(batch, _ int) Needs {
	return Needs{Field: true, Source: true, Draws: []Draw{l.time(batch)}}
}

// Build implements [Loss].
func (l FlowMatching) Build(m Model, in Batch) Result {
	perRow, at := l.rows(m, in)
	return l.Penalties.addAt(at, m.asField(), in, Result{Loss: weightedMean(perRow, in.Weights)})
}

// rows builds the loss of each row, [batch], and the field where it is asked.
func (l FlowMatching) rows(m Model, in Batch) (perRow *Node, at state) {
	t := l.times(in.Draws[0])
	xt, target := interpolants.At(l.Interpolant, in.Source, in.X, t)
	if l.Negate {
		target = Neg(target)
	}
	at = m.asField().at(xt, t, in.Labels)
	return rowMean(Square(Sub(at.slope, StopGradient(target)))), at
}
