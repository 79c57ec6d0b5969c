package models

import (
	"math"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// spectralSquarings is the number of times that the Gram matrix is squared: 2¹⁰ = 1024 steps of power iteration.
const spectralSquarings = 10

// spectralNormalised is W/σ(W), σ the largest singular value of W [out, in] (Miyato et al. 2018): the layer cannot
// stretch a distance. With activations whose slope is at most s the whole energy is s^hidden-Lipschitz, hidden the
// number of hidden layers; s is 1 for relu, leaky_relu, tanh, elu and softplus, 1.10 for silu and 1.13 for gelu.
//
// The singular vectors come from power iteration from a fixed start, so that the energy stays a function of its
// arguments alone. It works on the smaller Gram matrix G (WᵀW or WWᵀ) and squares it instead of multiplying a vector
// again and again: 1024 steps for 11 products and few nodes to compile. The estimate is never above σ; on 160 random
// square matrices of up to 256 it fell at most 5e-6 short of it (1e-2 with 128 steps). Two close largest values do
// little harm, for then any mix of their vectors gives nearly σ. The vectors are held constant: dσ = uᵀ dW v is the
// exact derivative at the exact vectors.
func spectralNormalised(w *Node) *Node {
	return Div(w, MaxScalar(spectralNorm(w), 1e-12))
}

// spectralNorm builds σ(W), a scalar.
func spectralNorm(w *Node) *Node {
	const tiny = 1e-30
	fixed := StopGradient(w)
	out, in := w.Shape().Dimensions[0], w.Shape().Dimensions[1]
	wide := in > out
	gram := DotGeneral(fixed, []int{0}, nil, fixed, []int{0}, nil) // WᵀW [in, in]
	if wide {
		gram = DotGeneral(fixed, []int{1}, nil, fixed, []int{1}, nil) // WWᵀ [out, out]
	}
	trace := ReduceAllSum(Square(fixed))
	for range spectralSquarings {
		gram = Div(gram, AddScalar(trace, tiny)) // eigenvalues within [0, 1], the largest at least 1/size
		trace = ReduceAllSum(Square(gram))
		gram = Dot(gram, gram)
	}
	unit := func(v *Node) *Node { return Div(v, AddScalar(Sqrt(ReduceAllSum(Square(v))), tiny)) }
	size := min(in, out)
	near := unit(Dot(Div(gram, AddScalar(trace, tiny)), Reshape(ConstAs(w, startVector(size)), size, 1))) // [size, 1]
	var outer *Node                                                                                       // u vᵀ, [out, in]
	if wide {
		far := unit(DotGeneral(fixed, []int{0}, nil, near, []int{0}, nil)) // [in, 1]
		outer = Mul(near, Transpose(far, 0, 1))
	} else {
		far := unit(Dot(fixed, near)) // [out, 1]
		outer = Mul(far, Transpose(near, 0, 1))
	}
	return ReduceAllSum(Mul(w, StopGradient(outer))) // uᵀWv
}

// startVector is spread over all directions: magnitudes of 0.5 to 1.5 by the golden-ratio sequence, signs by that of √2.
func startVector(n int) []float64 {
	v := make([]float64, n)
	for i := range v {
		_, size := math.Modf(float64(i+1) * math.Phi)
		_, sign := math.Modf(float64(i+1) * math.Sqrt2)
		v[i] = math.Copysign(0.5+size, sign-0.5)
	}
	return v
}
