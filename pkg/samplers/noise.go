package samplers

import (
	"math"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
)

const dtypeOfInfo = dtypes.Float32

// Noise is the randomness of one chain step.
type Noise struct {
	Z *Node // [rows, dim], standard normal; nil for a kernel that does not need it
	U *Node // [rows], uniform in (0, 1); nil for a kernel that does not need it
}

// KeyShape is the shape of a device key: 64 random bits of (seed, purpose, scan, shard, block), then zeros.
var KeyShape = shapes.Make(dtypes.Uint64, 3)

// Source hands out the randomness of one device call, drawn at once from the call's key: one large generator call
// is faster than many small ones. The number of draws must be known beforehand, see [NewSource].
type Source struct {
	uniforms *Node // [total]
	at       int
}

// NewSource draws the uniform numbers of a call: total is the sum of NormalCount and of the plain uniforms.
func NewSource(key *Node, dtype dtypes.DType, total int) *Source {
	if total == 0 { // a descent
		return &Source{}
	}
	_, u := RandomUniform(key, shapes.Make(dtype, total))
	return sourceOf(u)
}

// sourceOf hands out given uniforms [total] in [0, 1).
func sourceOf(u *Node) *Source {
	// A uniform of exactly zero would give an infinite normal, and XLA flushes denormals: keep it above 2^-33.
	return &Source{uniforms: MaxScalar(u, 0x1p-33)}
}

// NormalCount is the number of uniforms behind a block of normals [rows, dim]: pairs along the last axis.
func NormalCount(rows, dim int) int { return rows * 2 * ((dim + 1) / 2) }

// Uniform takes the next uniforms in (0, 1), shaped dims.
func (s *Source) Uniform(dims ...int) *Node {
	n := 1
	for _, d := range dims {
		n *= d
	}
	out := Reshape(Slice(s.uniforms, AxisRange(s.at, s.at+n)), dims...)
	s.at += n
	return StopGradient(out)
}

// Normal takes the next standard normals [rows, dim] by Box–Muller, whose two numbers become two coordinates of one row.
func (s *Source) Normal(rows, dim int) *Node {
	pairs := (dim + 1) / 2
	radius := Sqrt(MulScalar(Log(s.Uniform(rows, pairs)), -2))
	angle := MulScalar(s.Uniform(rows, pairs), 2*math.Pi)
	z := Concatenate([]*Node{Mul(radius, Cos(angle)), Mul(radius, Sin(angle))}, -1)
	if dim%2 == 1 {
		z = Slice(z, AxisRange(), AxisRange(0, dim))
	}
	return StopGradient(z)
}

// StepCount is the number of uniforms behind one step of kernel k.
func StepCount(k Kernel, rows, dim int) int {
	n := 0
	if !noiseless(k) {
		n += NormalCount(rows, dim)
	}
	if k.NeedsUniform() {
		n += rows
	}
	return n
}

// Step takes the randomness of one step of kernel k.
func (s *Source) Step(k Kernel, rows, dim int) Noise {
	var n Noise
	if !noiseless(k) {
		n.Z = s.Normal(rows, dim)
	}
	if k.NeedsUniform() {
		n.U = s.Uniform(rows)
	}
	return n
}
