package models

import (
	"math"
	"slices"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// GaussianMixture is E(x) = −log Σₖ wₖ N(x; μₖ, sₖ² I), a normalised mixture of round Gaussians: log Z = 0 exactly, and
// the mass of every mode is known.
type GaussianMixture struct {
	analytic
	weights, stds []float64
	means         [][]float64
}

// NewGaussianMixture makes a mixture of K components: weights [K] are positive and need not sum to 1 (nil: all equal),
// means are [K][dim], stds [K] positive (one for all: a single element; nil: all 1).
func NewGaussianMixture(weights []float64, means [][]float64, stds []float64) (*GaussianMixture, error) {
	var f faults
	k, dim := len(means), f.points("means", means)
	if k == 0 {
		return nil, f.err()
	}
	if len(weights) == 0 {
		weights = repeat(1, k)
	}
	switch len(stds) {
	case 0:
		stds = repeat(1, k)
	case 1:
		stds = repeat(stds[0], k)
	}
	for _, list := range []struct {
		key    string
		values []float64
	}{{"weights", weights}, {"stds", stds}} {
		if len(list.values) != k {
			f.add(list.key, "%d numbers, want %d as there are means", len(list.values), k)
		}
		for i, v := range list.values {
			if !(v > 0) || math.IsInf(v, 0) {
				f.add(list.key, "element %d is %g, want a positive number", i, v)
			}
		}
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	e := &GaussianMixture{analytic: analytic{"gaussian_mixture", dim}, stds: slices.Clone(stds)}
	sum := 0.0
	for _, w := range weights {
		sum += w
	}
	for i, m := range means {
		e.weights = append(e.weights, weights[i]/sum)
		e.means = append(e.means, slices.Clone(m))
	}
	return e, nil
}

// points checks a list of points and returns their number of coordinates.
func (f *faults) points(key string, points [][]float64) (dim int) {
	if len(points) == 0 {
		f.add(key, "empty, want at least one point")
		return 0
	}
	if dim = len(points[0]); dim == 0 {
		f.add(key, "point 0 has no coordinates")
	}
	for i, p := range points {
		if len(p) != dim {
			f.add(key, "point %d has %d coordinates, want %d as point 0 has", i, len(p), dim)
		}
		for _, v := range p {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				f.add(key, "point %d is %v, want finite numbers", i, p)
				break
			}
		}
	}
	return dim
}

// Energy builds E(x), [batch].
func (e *GaussianMixture) Energy(x *Node, _ []*Node) *Node {
	e.check(x)
	logScale, precision := make([]float64, len(e.weights)), make([]float64, len(e.weights))
	for k, w := range e.weights {
		logScale[k] = math.Log(w) - float64(e.dim)*(math.Log(e.stds[k])+0.5*math.Log(2*math.Pi))
		precision[k] = 1 / (e.stds[k] * e.stds[k])
	}
	means := ExpandAxes(ConstAs(x, e.means), 0)                   // [1, K, dim]
	square := ReduceSum(Square(Sub(ExpandAxes(x, 1), means)), -1) // [batch, K]
	logs := Sub(constRow(x, logScale), MulScalar(Mul(square, constRow(x, precision)), 0.5))
	return Neg(logSumExp(logs))
}

// logSumExp is log Σ exp over the last axis. The shift by the largest term cancels, so it needs no gradient.
func logSumExp(x *Node) *Node {
	top := StopGradient(ReduceMax(x, -1))
	return Add(top, Log(ReduceSum(Exp(Sub(x, ExpandAxes(top, -1))), -1)))
}

// Known gives mean, variance, log Z and the modes, with their weights.
func (e *GaussianMixture) Known() Facts {
	f := Facts{Mean: repeat(0, e.dim), Variance: repeat(0, e.dim), LogZ: new(0.0), Modes: e.means, Weights: e.weights}
	for k, w := range e.weights {
		for i, m := range e.means[k] {
			f.Mean[i] += w * m
		}
	}
	for k, w := range e.weights {
		for i, m := range e.means[k] {
			d := m - f.Mean[i]
			f.Variance[i] += w * (e.stds[k]*e.stds[k] + d*d)
		}
	}
	if len(e.weights) == 1 {
		f.Minima = e.means
		f.MinEnergy = new(float64(e.dim) * (math.Log(e.stds[0]) + 0.5*math.Log(2*math.Pi)))
	}
	return f.clone()
}
