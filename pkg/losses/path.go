package losses

import (
	"math"

	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/interpolants"
)

// Path is what the losses share that follow rows from noise to data: the path itself, and the law of the times.
type Path struct {
	Interpolant interpolants.Interpolant
	Eps         float64 // times stay this far from 0 and 1
	// Lognormal draws t = 1/(1 + exp(PStd·z + PMean)), z normal, at least 1e-4, in place of uniform times (Esser et al. 2024).
	Lognormal   bool
	PMean, PStd float64
}

// time is the draw that the times come from.
func (p Path) time(batch int) Draw {
	return Draw{Name: "time", Uniform: !p.Lognormal, Dims: []int{batch}}
}

// lognormalFloor is the least time of the lognormal law, whose left tail comes close to 0.
const lognormalFloor = 1e-4

// times turns the draw into times [batch].
func (p Path) times(draw *Node) *Node {
	if p.Lognormal {
		t := Sigmoid(Neg(AddScalar(MulScalar(draw, p.PStd), p.PMean)))
		return ClipScalar(t, math.Max(lognormalFloor, p.Eps), 1-p.Eps)
	}
	return AddScalar(MulScalar(draw, 1-2*p.Eps), p.Eps)
}

// weightedMean is the mean of a loss over the rows [batch], by the weights of the coupling where there are some. Those have
// mean 1 over the whole batch, so that a part of its rows needs no others.
func weightedMean(perRow, weights *Node) *Node {
	if weights != nil {
		perRow = Mul(perRow, weights)
	}
	return ReduceAllMean(perRow)
}
