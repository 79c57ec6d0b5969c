package losses

import (
	"fmt"

	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/interpolants"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// EquilibriumMatching teaches a field without time to point from data to noise along the paths between them, with a length
// c(t) that vanishes at the data, which so become its equilibria (Wang and Du 2025). The target of a row is −uₜ c(t), and
// the loss the mean over rows and coordinates of the squared error. A model that is an energy compares ∇E.
type EquilibriumMatching struct {
	Path
	// Prediction is what the field gives: velocity (the target above), noise (x₀) or score (−x₀/σ).
	Prediction string
	// EnergyType says what is compared with the target, for velocity: none the field f itself, dot or mean the gradient of
	// x·f, l2 that of −½‖f‖².
	EnergyType string
	// LossWeight weighs score and noise: none, velocity (w/σ)², likelihood w/σ², with w = (α̇/α)σ² − σσ̇.
	LossWeight string

	CT           string  // shape of c(t): truncated, linear or constant
	CTThreshold  float64 // truncated: c falls from here on
	CTMultiplier float64 // c(0)

	// TimeInvariant shows the field time 0 always.
	TimeInvariant bool

	// Dispersion weighs log mean exp(−‖zᵢ − zⱼ‖²/width) over all pairs of rows, itself included, of the field's last hidden
	// layer z (Wang and He 2025); 0 for none.
	Dispersion float64
	Penalties
}

// Needs implements [Loss].
func (l EquilibriumMatching) Needs(batch, _ int) Needs {
	plain := l.Prediction == "velocity" && l.EnergyType == "none" && l.TimeInvariant
	return Needs{Field: !plain || l.Dispersion > 0, Hidden: l.Dispersion > 0, Source: true, Draws: []Draw{l.time(batch)}}
}

// Build implements [Loss].
func (l EquilibriumMatching) Build(m Model, in Batch) Result {
	rows := l.rows(m, in)
	r := Result{Loss: weightedMean(rows.loss, in.Weights)}
	if l.Dispersion > 0 {
		spread := MulScalar(dispersion(m.Hidden(rows.xt, rows.t, in.Labels)), l.Dispersion)
		r.Loss = Add(r.Loss, spread)
		r.Parts = append(r.Parts, Part{"dispersion", spread})
	}
	return l.Penalties.add(m, in, nil, r)
}

// equilibriumRows are the parts of the loss that belong to rows.
type equilibriumRows struct {
	loss   *Node // [batch]
	output *Node // what the field gives, or an energy's gradient, [batch, dim]
	energy *Node // [batch]; nil where the field itself is compared
	xt, t  *Node // where the field is asked; t is nil for time 0
}

func (l EquilibriumMatching) rows(m Model, in Batch) (r equilibriumRows) {
	t := l.times(in.Draws[0])
	xt, ut := interpolants.At(l.Interpolant, in.Source, in.X, t)
	r.xt = pass(StopGradient(xt))
	if !l.TimeInvariant {
		r.t = t
	}
	if l.Prediction == "velocity" {
		slope := l.slope(&r, m, in.Labels)
		target := Neg(Mul(ut, column(l.speed(t))))
		r.loss = rowMean(Square(Sub(slope, StopGradient(target))))
		return r
	}
	r.output = m.Field(r.xt, r.t, in.Labels)
	residual := Sub(r.output, in.Source)
	if l.Prediction == "score" {
		residual = Add(Mul(r.output, column(l.Interpolant.Sigma(t))), in.Source)
	}
	r.loss = rowMean(Square(residual))
	if weight := l.weight(t); weight != nil {
		r.loss = Mul(r.loss, weight)
	}
	return r
}

// slope builds what is compared with the target of a velocity, [batch, dim].
func (l EquilibriumMatching) slope(r *equilibriumRows, m Model, labels *Node) *Node {
	if m.Field == nil {
		r.energy, r.output = models.EnergyAndGrad(m.Energy, r.xt)
		return r.output
	}
	r.output = m.Field(r.xt, r.t, labels)
	switch l.EnergyType {
	case "none":
		return r.output
	case "dot", "mean":
		r.energy = rowSum(Mul(r.xt, r.output))
	case "l2":
		r.energy = MulScalar(rowSum(Square(r.output)), -0.5)
	default:
		panic(fmt.Errorf("losses: energy type %q, want none, dot, mean or l2", l.EnergyType))
	}
	return Gradient(ReduceAllSum(r.energy), r.xt)[0]
}

// speed is c(t), [batch].
func (l EquilibriumMatching) speed(t *Node) *Node {
	var c *Node
	switch l.CT {
	case "truncated":
		c = MinScalar(DivScalar(OneMinus(t), 1-l.CTThreshold), 1)
	case "linear":
		c = OneMinus(t)
	case "constant":
		c = OnesLike(t)
	default:
		panic(fmt.Errorf("losses: ct %q, want truncated, linear or constant", l.CT))
	}
	return MulScalar(c, l.CTMultiplier)
}

// weight is the factor of a row under LossWeight, [batch]; nil for 1.
func (l EquilibriumMatching) weight(t *Node) *Node {
	switch l.LossWeight {
	case "none", "":
		return nil
	case "velocity":
		return Square(Div(l.Interpolant.DriftVariance(t), l.Interpolant.Sigma(t)))
	case "likelihood":
		return Div(l.Interpolant.DriftVariance(t), Square(l.Interpolant.Sigma(t)))
	}
	panic(fmt.Errorf("losses: loss weight %q, want none, velocity or likelihood", l.LossWeight))
}

// dispersion is log mean exp(−‖zᵢ − zⱼ‖²/width) over all pairs of rows of z [batch, ...], a scalar.
func dispersion(z *Node) *Node {
	z = flatRows(z)
	squares, products := ReduceSum(Square(z), -1), DotGeneral(z, []int{1}, nil, z, []int{1}, nil)
	distances := Sub(Add(InsertAxes(squares, 0), InsertAxes(squares, 1)), MulScalar(products, 2))
	return Log(ReduceAllMean(Exp(DivScalar(distances, -float64(z.Shape().Dimensions[1])))))
}
