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

// Temperature implements [Tempered]: an energy's minima are at the data, and there is no law.
func (l EquilibriumMatching) Temperature() (tau float64, law bool) { return 1, false }

// Coupled implements [Coupled].
func (l EquilibriumMatching) Coupled() string {
	if l.Dispersion > 0 {
		return "dispersion: true compares all pairs of rows"
	}
	return ""
}

// Build implements [Loss].
func (l EquilibriumMatching) Build(m Model, in Batch) Result {
	if m.Field != nil {
		m = m.asField()
	}
	rows := l.rows(m, in)
	r := Result{Loss: weightedMean(rows.loss, in.Weights)}
	if l.Dispersion > 0 {
		spread := MulScalar(dispersion(m.Hidden(rows.x, rows.t, in.Labels)), l.Dispersion)
		r.Loss = Add(r.Loss, spread)
		r.Parts = append(r.Parts, Part{"dispersion", spread})
	}
	penalised := rows.state
	if l.TimeInvariant && l.Penalties != (Penalties{}) {
		penalised, _ = l.at(m, in.data(), nil, in.Labels)
	}
	return l.Penalties.addAt(penalised, m, in, r)
}

// equilibriumRows are the parts of the loss that belong to rows.
type equilibriumRows struct {
	state         // of the model at xₜ
	output  *Node // what the field gives, or an energy's gradient, [batch, dim]
	t, loss *Node // the time that the field is shown, nil for 0, and the loss, [batch]
}

func (l EquilibriumMatching) rows(m Model, in Batch) (r equilibriumRows) {
	t := l.times(in.Draws[0])
	xt, ut := interpolants.At(l.Interpolant, in.Source, in.X, t)
	if !l.TimeInvariant {
		r.t = t
	}
	r.state, r.output = l.at(m, xt, r.t, in.Labels)
	if l.Prediction == "velocity" {
		target := Neg(Mul(ut, column(l.speed(t))))
		r.loss = rowMean(Square(Sub(r.slope, StopGradient(target))))
		return r
	}
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

// at evaluates the model at states, and gives the output of a field beside the slope of its energy.
func (l EquilibriumMatching) at(m Model, x, t, labels *Node) (s state, output *Node) {
	s = m.at(x, t, labels)
	output = s.slope
	if m.Field != nil && l.differentiates() {
		s.energy = models.FieldEnergy(l.EnergyType, s.x, output)
		s.slope = Gradient(ReduceAllSum(s.energy), s.x)[0]
	}
	return s, output
}

// differentiates says whether a field is compared by the gradient of an energy that is made of it.
func (l EquilibriumMatching) differentiates() bool {
	return l.Prediction == "velocity" && l.EnergyType != "none"
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

// weight is the factor of a row under LossWeight, [batch]; nil for 1. A time within [interpolants.Edge] of an end counts as
// that far from it: σ is 0 at the end, and must not vanish under a w that does not.
func (l EquilibriumMatching) weight(t *Node) *Node {
	if l.LossWeight == "" || l.LossWeight == "none" {
		return nil
	}
	t = ClipScalar(t, interpolants.Edge, 1-interpolants.Edge)
	switch l.LossWeight {
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
