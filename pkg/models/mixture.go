package models

import (
	"math"
	"slices"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// Mixture is E(x) = −log Σₖ exp(aₖ − ½‖x − mₖ‖²/s²), round Gaussians of one fixed width whose logits a and means m are
// trained. The masses of its law are softmax(a), so that what a sampler does to the weights of separate modes can be read
// off two parameters. The last logit is 0 and is no parameter, since only differences of logits matter.
type Mixture struct {
	dim      int
	means    [][]float64 // at the start, [K][dim]
	logits   []float64   // at the start, [K−1]
	variance float64     // s²
}

// NewMixture makes a mixture of K components of standard deviation std. means [K][dim] and logits [K−1] are the values
// that training starts from; without logits all components weigh the same at first.
func NewMixture(means [][]float64, logits []float64, std float64) (*Mixture, error) {
	var f faults
	dim := f.points("means", means)
	if len(logits) > 0 && len(logits) != len(means)-1 {
		f.add("logits", "%d numbers, want %d, one for each of means but the last, whose logit is 0", len(logits), max(len(means)-1, 0))
	}
	for i, a := range logits {
		if math.IsNaN(a) || math.IsInf(a, 0) {
			f.add("logits", "element %d is %g, want a finite number", i, a)
		}
	}
	f.positive("std", std)
	if err := f.err(); err != nil {
		return nil, err
	}
	e := &Mixture{dim: dim, logits: slices.Clone(logits), variance: std * std}
	if len(logits) == 0 {
		e.logits = make([]float64, len(means)-1)
	}
	for _, m := range means {
		e.means = append(e.means, slices.Clone(m))
	}
	return e, nil
}

// Dim is the number of coordinates of a state.
func (e *Mixture) Dim() int { return e.dim }

// Params lists the means [K, dim] and, of several components, the logits [K−1].
func (e *Mixture) Params() []Param {
	params := []Param{{"means", []int{len(e.means), e.dim}, startAt(slices.Concat(e.means...))}}
	if len(e.logits) > 0 {
		params = append(params, Param{"logits", []int{len(e.logits)}, startAt(e.logits)})
	}
	return params
}

// startAt starts a parameter at given values.
func startAt(values []float64) Init {
	return func([]int, *Stream) []float64 { return slices.Clone(values) }
}

// Energy builds E(x), [batch].
func (e *Mixture) Energy(x *Node, weights []*Node) *Node {
	analytic{"mixture", e.dim}.check(x)
	checkWeights("mixture", e.Params(), weights)
	means := ExpandAxes(weights[0], 0)                            // [1, K, dim]
	square := ReduceSum(Square(Sub(ExpandAxes(x, 1), means)), -1) // [batch, K]
	logs := DivScalar(square, -2*e.variance)
	if len(e.logits) > 0 {
		logits := Concatenate([]*Node{weights[1], ConstAs(x, []float64{0})}, 0)
		logs = Add(logs, ExpandAxes(logits, 0))
	}
	return Neg(logSumExp(logs))
}
