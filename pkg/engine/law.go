package engine

import (
	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// law is a Gaussian with independent coordinates whose numbers are nodes of a graph: a reference that moves without a new
// program.
type law struct {
	mean, std     *Node // [1, dim]
	logNormaliser *Node // scalar
}

// lawSize is the length of the vector that packLaw gives and readLaw reads.
func lawSize(dim int) int { return 2*dim + 1 }

// packLaw is q as an input: means, deviations, and the log normaliser, which a sum in float32 would round.
func packLaw(q models.Gaussian) []float32 {
	return append(append(to32(q.Mean), to32(q.Std)...), float32(q.LogNormaliser()))
}

func readLaw(packed *Node, dim int) *law {
	part := func(from int) *Node { return Reshape(Slice(packed, AxisRange(from, from+dim)), 1, dim) }
	return &law{part(0), part(dim), Reshape(Slice(packed, AxisElem(2*dim)))}
}

// logDensity builds log q(x): x [rows, dim] → [rows].
func (q *law) logDensity(x *Node) *Node {
	return Sub(MulScalar(ReduceSum(Square(q.standard(x)), -1), -0.5), q.logNormaliser)
}

// logRatio builds log base(x) − log q(x), coordinate by coordinate: where the two laws are close, the difference of the
// two sums would be all rounding.
func (q *law) logRatio(base *models.Gaussian, x *Node) *Node {
	of := constantLaw(x, base)
	squares := Sub(Square(q.standard(x)), Square(of.standard(x)))
	return Add(MulScalar(ReduceSum(squares, -1), 0.5), Sub(q.logNormaliser, of.logNormaliser))
}

// standard is (x − mean)/std.
func (q *law) standard(x *Node) *Node { return Div(Sub(x, q.mean), q.std) }

// fromNormal turns standard normals [rows, dim] into draws.
func (q *law) fromNormal(z *Node) *Node { return Add(q.mean, Mul(q.std, z)) }

// constantLaw has the numbers of q as constants, in the graph and the type of like.
func constantLaw(like *Node, q *models.Gaussian) *law {
	row := func(v []float64) *Node { return Reshape(ConvertDType(Const(like.Graph(), v), like.DType()), 1, len(v)) }
	return &law{row(q.Mean), row(q.Std), Scalar(like.Graph(), like.DType(), q.LogNormaliser())}
}
