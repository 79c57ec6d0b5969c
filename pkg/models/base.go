package models

import (
	"errors"
	"fmt"
	"math"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// Gaussian is a normal law with independent coordinates: the base q of a network's energy E = f − log q, and the
// reference of a tempered path.
type Gaussian struct {
	Mean []float64 `yaml:"mean"`
	Std  []float64 `yaml:"std"`
}

// constantFloor is the deviation that FitGaussian gives a constant coordinate, as a part of the largest one.
const constantFloor = 0.01

// FitGaussian fits q to rows [n, dim], row-major: the mean of each coordinate, and scale times its standard deviation
// (dividing by n). A coordinate whose deviation is below 1 % of the largest one gets that 1 % instead, so that q has a
// density; where every coordinate is constant the deviation counts as 1.
func FitGaussian(rows []float64, dim int, scale float64) (Gaussian, error) {
	if dim < 1 || len(rows) == 0 || len(rows)%dim != 0 {
		return Gaussian{}, fmt.Errorf("models: fit a gaussian: %d numbers, want at least one row of %d", len(rows), dim)
	}
	if !(scale > 0) || math.IsInf(scale, 1) {
		return Gaussian{}, fmt.Errorf("models: fit a gaussian: scale %g, want a positive number", scale)
	}
	n := float64(len(rows) / dim)
	q := Gaussian{Mean: make([]float64, dim), Std: make([]float64, dim)}
	for i, v := range rows {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return Gaussian{}, fmt.Errorf("models: fit a gaussian: row %d, coordinate %d is %g, want a finite number", i/dim, i%dim, v)
		}
		q.Mean[i%dim] += v / n
	}
	for i, v := range rows {
		d := v - q.Mean[i%dim]
		q.Std[i%dim] += d * d / n
	}
	largest := 0.0
	for i, v := range q.Std {
		// Deviations within the rounding of the mean are none.
		if q.Std[i] = math.Sqrt(v); q.Std[i] <= 1e-12*math.Abs(q.Mean[i]) {
			q.Std[i] = 0
		}
		largest = max(largest, q.Std[i])
	}
	if largest == 0 {
		largest = 1 / constantFloor
	}
	for i := range q.Std {
		q.Std[i] = scale * max(q.Std[i], constantFloor*largest)
	}
	return q, q.Validate()
}

// Validate reports every fault, each by its key.
func (q Gaussian) Validate() error {
	var f faults
	if len(q.Mean) == 0 {
		f.add("mean", "empty, want a number for each coordinate")
	}
	if len(q.Std) != len(q.Mean) {
		f.add("std", "%d numbers, want %d as mean has", len(q.Std), len(q.Mean))
	}
	for i, v := range q.Mean {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			f.add("mean", "element %d is %g, want a finite number", i, v)
		}
	}
	for i, v := range q.Std {
		if !(v > 0) || math.IsInf(v, 0) {
			f.add("std", "element %d is %g, want a positive number", i, v)
		}
	}
	return f.err()
}

// Dim is the number of coordinates.
func (q Gaussian) Dim() int { return len(q.Mean) }

// LogNormaliser is log ∫ exp(−½ Σ ((xᵢ − mᵢ)/sᵢ)²) dx = Σ log sᵢ + ½ dim log 2π.
func (q Gaussian) LogNormaliser() float64 {
	sum := 0.5 * float64(len(q.Std)) * math.Log(2*math.Pi)
	for _, s := range q.Std {
		sum += math.Log(s)
	}
	return sum
}

// LogDensity builds log q(x), normalised: x [batch, dim] → [batch].
func (q Gaussian) LogDensity(x *Node) *Node {
	if len(q.Std) != len(q.Mean) {
		panic(errors.New("models: gaussian base: mean and std differ in length"))
	}
	analytic{"gaussian base", len(q.Mean)}.check(x)
	z := Div(Sub(x, constRow(x, q.Mean)), constRow(x, q.Std))
	return AddScalar(MulScalar(ReduceSum(Square(z), -1), -0.5), -q.LogNormaliser())
}

// WithBase is the energy E = f − log q (design: `model.base: gaussian`). With f near 0 its law is near q, and it is a
// law, with a finite normaliser, as long as f is bounded below. The parameters are those of f, and what f says of itself as
// a [Coupled] or [GradientOnly] holds for E.
func WithBase(f Energy, q Gaussian) Energy { return like(f, based{f, q}) }

type based struct {
	f Energy
	q Gaussian
}

func (b based) Dim() int        { return b.f.Dim() }
func (b based) Params() []Param { return b.f.Params() }
func (b based) Coupled() bool   { return IsCoupled(b.f) }

func (b based) Energy(x *Node, weights []*Node) *Node { return b.Prepare(weights)(x) }

func (b based) Prepare(weights []*Node) Fn {
	f := At(b.f, weights)
	return func(x *Node) *Node { return Sub(f(x), b.q.LogDensity(x)) }
}
