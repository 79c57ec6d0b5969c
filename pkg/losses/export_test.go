package losses

import (
	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// The parts of losses that reference vectors name one by one.
var (
	Trim       = trim
	Dispersion = dispersion
	RowMean    = rowMean
)

func (l EquilibriumMatching) Speed(t *Node) *Node    { return l.speed(t) }
func (l EquilibriumMatching) Weight(t *Node) *Node   { return l.weight(t) }
func (l EnergyMatching) FlowWeight(t *Node) *Node    { return l.flowWeight(t) }
func (p Path) Times(draw *Node) *Node                { return p.times(draw) }
func (l DenoisingScoreMatching) Level(u *Node) *Node { return l.level(u) }

// Rows builds the loss of each row, what the model gives, and the energy made of that, if any.
func Rows(l Loss, m Model, in Batch) (perRow, output, energy *Node) {
	switch l := l.(type) {
	case EquilibriumMatching:
		r := l.rows(m, in)
		if l.differentiates() {
			energy = r.energy
		}
		return r.loss, r.output, energy
	case FlowMatching:
		perRow, at := l.rows(m, in)
		return perRow, at.slope, nil
	}
	return perRow, output, nil
}
