package losses

import (
	"fmt"
	"math"

	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/interpolants"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

// EnergyMatching teaches an energy two things: that −∇E carries noise to data along the path between them, and, by
// contrastive divergence near the data, that the data's law is exp(−E/EpsilonMax) (Balcerak et al. 2025). The paper trains
// with LambdaCD = 0 first, which runs no chains.
type EnergyMatching struct {
	Path
	Sigma  schedules.Schedule // standard deviation of noise added to xₜ, over the training steps
	Cutoff float64            // time from which the weight of the flow falls from 1 to 0 at t = 1; 1 or more keeps it at 1

	LambdaCD      schedules.Schedule // weight of the contrastive part, over the training steps; nil for none
	EpsilonMax    float64            // temperature of the Boltzmann law
	TauStar       float64            // share of its steps after which a chain from noise gets any noise
	Steps         int                // of a chain
	StepSize      float64
	NoiseFraction float64 // share of the chains that start from noise, the others from data
	TrimFraction  float64 // share of the negatives with the highest energies that is left out
	Clamp         float64 // the contrastive part is at least −Clamp; negative for no bound
	Penalties
}

// Needs implements [Loss].
func (l EnergyMatching) Needs(batch, dim int) Needs {
	n := Needs{Energy: true, Source: true, Draws: []Draw{l.time(batch), {Name: "smoothing", Dims: []int{batch, dim}}},
		Scalars: []Setting{{"sigma", l.Sigma}}}
	if l.LambdaCD != nil {
		n.Scalars = append(n.Scalars, Setting{"lambda_cd", l.LambdaCD})
		n.Chains = l.chains(batch)
	}
	return n
}

// Temperature implements [Tempered]: the law is exp(−E/EpsilonMax), and there is none at EpsilonMax 0.
func (l EnergyMatching) Temperature() (tau float64, law bool) {
	if l.EpsilonMax > 0 {
		return l.EpsilonMax, true
	}
	return 1, false
}

// Coupled implements [Coupled].
func (l EnergyMatching) Coupled() string {
	switch {
	case l.LambdaCD == nil:
		return ""
	case l.TrimFraction > 0:
		return fmt.Sprintf("cd_trim_fraction: %g looks for the highest energies among all negatives", l.TrimFraction)
	case l.Clamp >= 0:
		return fmt.Sprintf("cd_clamp: %g bounds a mean over all rows", l.Clamp)
	}
	return ""
}

func (l EnergyMatching) chains(batch int) *Chains {
	fromSource := int(math.RoundToEven(float64(batch) * l.NoiseFraction))
	return &Chains{Rows: batch, FromSource: fromSource, Steps: l.Steps, StepSize: l.StepSize,
		Temperature: func(i, m int) float64 {
			// From noise the chain first follows the flow, and warms up on the last part of its way.
			t := float64(m) / float64(l.Steps)
			if i >= fromSource || t >= 1 {
				return l.EpsilonMax
			}
			return l.EpsilonMax * math.Max(0, (t-l.TauStar)/(1-l.TauStar))
		},
		On: func(step int) bool { return l.LambdaCD.At(step) > 0 },
	}
}

// Build implements [Loss].
func (l EnergyMatching) Build(m Model, in Batch) Result {
	flow := l.flow(m, in)
	r := Result{Loss: flow, Parts: []Part{{"flow_loss", flow}}}
	if l.LambdaCD == nil {
		in.Negatives = nil
		return l.Add(m, in, r)
	}
	in.ran = GreaterThan(in.Scalars[1], ScalarZero(in.X.Graph(), in.Scalars[1].DType()))
	value := l.contrast(m, in)
	part := Mul(value, in.Scalars[1])
	clamped := ScalarZero(value.Graph(), value.DType())
	if l.Clamp >= 0 {
		floor := Scalar(value.Graph(), value.DType(), -l.Clamp)
		below := LessThan(part, floor)
		part, clamped = Where(below, floor, part), ConvertDType(below, value.DType())
	}
	r.Loss = Add(r.Loss, part)
	r.Parts = append(r.Parts, Part{"cd_loss", part}, Part{"cd_value", value}, Part{"cd_clamped", clamped})
	return l.Add(m, in, r)
}

// contrast is mean E(x) − trimmed mean E(x⁻), in one pass of the network. x are the rows as they came: those of a coupling
// have a law of their own.
func (l EnergyMatching) contrast(m Model, in Batch) *Node {
	data := in.data()
	n, rows := data.Shape().Dimensions[0], in.Negatives.Shape().Dimensions[0]
	e := m.Energy(StopGradient(Concatenate([]*Node{data, in.Negatives}, 0)))
	down := trim(Slice(e, AxisRange(n, n+rows)), l.TrimFraction)
	up := BroadcastToDims(Scalar(e.Graph(), e.DType(), 1/float64(n)), n)
	return ReduceAllSum(Mul(e, Concatenate([]*Node{up, Neg(down)}, 0)))
}

// flow is mean w(t)·(∇E(xₜ) + uₜ)² over rows and coordinates.
func (l EnergyMatching) flow(m Model, in Batch) *Node {
	t := l.times(in.Draws[0])
	xt, ut := interpolants.At(l.Interpolant, in.Source, in.X, t)
	xt = Add(xt, Mul(in.Draws[1], in.Scalars[0]))
	_, slope := models.EnergyAndGrad(m.Energy, StopGradient(xt))
	perRow := rowMean(Square(Add(slope, ut)))
	return weightedMean(Mul(perRow, l.flowWeight(t)), in.Weights)
}

// flowWeight is w(t), [batch].
func (l EnergyMatching) flowWeight(t *Node) *Node {
	if l.Cutoff >= 1 {
		return OnesLike(t)
	}
	return ClipScalar(DivScalar(OneMinus(t), 1-l.Cutoff), 0, 1)
}

// trim is the weight of each number of v [n] in its mean without the ⌊fraction·n⌋ largest, held constant. The weights of
// those are 0, by which a NaN stays one.
func trim(v *Node, fraction float64) *Node {
	v = StopGradient(v)
	n := v.Shape().Dimensions[0]
	drop := int(fraction * float64(n))
	// The rank of a number is how many are above it; among equal ones the first is the highest.
	rows, columns := InsertAxes(v, 1), InsertAxes(v, 0)
	order := Iota(v.Graph(), v.Shape(), 0)
	above := Or(GreaterThan(columns, rows), And(Equal(columns, rows), LessThan(InsertAxes(order, 0), InsertAxes(order, 1))))
	rank := ReduceSum(ConvertDType(above, v.DType()), 1)
	kept := GreaterOrEqual(rank, Scalar(v.Graph(), v.DType(), float64(drop)))
	return DivScalar(ConvertDType(kept, v.DType()), float64(n-drop))
}
