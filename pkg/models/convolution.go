package models

import (
	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
)

// kernelSize is the height and the width of a kernel. A margin of zeros, one pixel wide, keeps the size of the image.
const (
	kernelSize = 3
	taps       = kernelSize * kernelSize
)

// A convolution of images x [batch, height, width, in] with a kernel w [9·in, out] (tap by tap, the channel fastest) is
// one derivative of a sum over pixels, taps and channels that is linear in each of x, w and v [batch, height, width, out],
//
//	T(x, w, v) = Σ (patches(x) w)·v.
//
// The convolution is ∂T/∂v, its own derivatives are made of ∂T/∂x and ∂T/∂w, and theirs of these three again. So the
// three functions below, which name each other as derivatives, can be differentiated to any order, and each computes
// itself in whatever way is fast. GoMLX v0.26 has no second derivative of its convolution.

// convolve is ∂T/∂v, [batch, height, width, out].
func convolve(x, w *Node) *Node {
	return bilinear(correlate(x, w),
		x, func(v *Node) *Node { return convolveBack(v, w) },
		w, func(v *Node) *Node { return kernelGradient(x, v) })
}

// convolveBack is ∂T/∂x, [batch, height, width, in]: a convolution of v with the kernel turned by 180° and with its
// channels exchanged.
func convolveBack(v, w *Node) *Node {
	in, out := w.Shape().Dimensions[0]/taps, w.Shape().Dimensions[1]
	turned := Transpose(Reverse(Reshape(w, taps, in, out), 0), 1, 2)
	return bilinear(correlate(v, Reshape(turned, taps*out, in)),
		v, func(u *Node) *Node { return convolve(u, w) },
		w, func(u *Node) *Node { return kernelGradient(u, v) })
}

// kernelGradient is ∂T/∂w, [9·in, out].
func kernelGradient(x, v *Node) *Node {
	return bilinear(correlatePixels(x, v),
		x, func(u *Node) *Node { return convolveBack(v, u) },
		v, func(u *Node) *Node { return convolve(x, u) })
}

// correlate computes patches(x) w.
func correlate(x, w *Node) *Node {
	if !convolves(x.Graph()) {
		return mixChannels(patches(x), w)
	}
	in, out := w.Shape().Dimensions[0]/taps, w.Shape().Dimensions[1]
	return Convolve(x, Reshape(w, kernelSize, kernelSize, in, out)).Strides(1).PadSame().Done()
}

// correlatePixels computes Σ patches(x)ᵀ v over the pixels of all images.
func correlatePixels(x, v *Node) *Node {
	if !convolves(x.Graph()) {
		pixels := []int{0, 1, 2}
		return DotGeneral(patches(x), pixels, nil, v, pixels, nil)
	}
	// Channels are images now and images channels, and v is the kernel, as large as the image.
	in, out := x.Shape().Dimensions[3], v.Shape().Dimensions[3]
	margin := [2]int{kernelSize / 2, kernelSize / 2}
	sums := Convolve(TransposeAllAxes(x, 3, 1, 2, 0), TransposeAllAxes(v, 1, 2, 0, 3)).Strides(1).
		PaddingPerDim([][2]int{margin, margin}).Done() // [in, 3, 3, out]
	return Reshape(TransposeAllAxes(sums, 1, 2, 0, 3), taps*in, out)
}

// convolves says whether the backend's own convolution is the way to go. On XLA's CPU it is two to four times as fast as
// the product with patches. In pure Go it is five to ten times as slow, and on CUDA it takes another library, cuDNN, which
// picks its algorithm by measuring.
func convolves(g *Graph) bool {
	b, ok := g.Backend().(*backend.Backend)
	return ok && b.Kind() == backend.CPU
}

// mixChannels multiplies the channels of h [batch, height, width, in] by w [in, out].
func mixChannels(h, w *Node) *Node { return DotGeneral(h, []int{3}, nil, w, []int{0}, nil) }

// patches puts the 3×3 neighbours of every pixel side by side: [batch, height, width, in] → [batch, height, width, 9·in].
func patches(x *Node) *Node {
	height, width := x.Shape().Dimensions[1], x.Shape().Dimensions[2]
	margin := PadAxis{Start: kernelSize / 2, End: kernelSize / 2}
	padded := Pad(x, ScalarZero(x.Graph(), x.DType()), PadAxis{}, margin, margin)
	var parts []*Node
	for i := range kernelSize {
		for j := range kernelSize {
			parts = append(parts, Slice(padded, AxisRange(), AxisRange(i, i+height), AxisRange(j, j+width)))
		}
	}
	return Concatenate(parts, -1)
}

// bilinear is y, a function of a and b, with the derivatives given instead of those of the operations that made y: da
// and db build ∂L/∂a and ∂L/∂b from ∂L/∂y, and what they build may be differentiated in its turn.
//
// GoMLX v0.26 lets its callers set the derivative of an identity only, whose input has the shape of its output. Here
// identities work in pairs: one behind y, which the reverse pass meets first, notes ∂L/∂y, and one before each input makes
// that input's derivative of it. A choice that never falls on the inputs ties the pair together; it costs nothing, for
// compilers drop it.
func bilinear(y, a *Node, da func(v *Node) *Node, b *Node, db func(v *Node) *Node) *Node {
	var cotangent *Node // ∂L/∂y in the reverse pass under way
	tie := func(x *Node, derivative func(v *Node) *Node) *Node {
		return ReduceAllSum(IdentityWithCustomGradient(x, func(_, _ *Node) *Node { return derivative(cotangent) }))
	}
	never := Const(y.Graph(), false)
	tied := Where(never, Add(tie(a, da), tie(b, db)), StopGradient(y))
	return IdentityWithCustomGradient(tied, func(_, v *Node) *Node {
		cotangent = v
		return v
	})
}
