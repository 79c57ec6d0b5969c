package transport

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// What follows are encodings for the contents of blobs that carry their shapes along.

// Rows are states on their way, [n, …], with the label of the walker that each belongs to, [n].
type Rows struct {
	Labels []int32
	States Tensor
}

// Append appends the encoded value to dst.
func (w Rows) Append(dst []byte) []byte {
	labels := NewTensor(w.Labels)
	return w.States.append(labels.append(slices.Grow(dst, labels.size()+w.States.size())))
}

// DecodeRows reads what Rows.Append wrote; the states are a part of b.
func DecodeRows(b []byte) (Rows, error) {
	r := reader{b: b}
	labels := r.tensor()
	w := Rows{States: r.tensor()}
	if r.err == nil && (labels.DType != Int32 || len(labels.Dims) != 1 || len(w.States.Dims) == 0 || w.States.Dims[0] != labels.Dims[0]) {
		r.err = fmt.Errorf("%w: labels of type %d and shape %v for states of shape %v, want a label of type %d for every state", ErrMalformed, labels.DType, labels.Dims, w.States.Dims, Int32)
	}
	if r.err == nil {
		w.Labels, r.err = Values[int32](labels)
	}
	return decoded(w, &r, "rows")
}

// Theta are parameters, and what changes with them at an averaging boundary.
type Theta struct {
	Cut       bool      // the boundary is a cut: everybody writes its part
	Betas     []float64 // [K], the ladder from here on; empty: it stays
	StepSizes []float64 // [K], of the explorers; empty: they stay
	Params    []Tensor
}

// Append appends the encoded value to dst.
func (t Theta) Append(dst []byte) []byte {
	betas, steps := NewTensor(t.Betas), NewTensor(t.StepSizes)
	dst = slices.Grow(dst, 1+betas.size()+steps.size()+tensorsSize(t.Params))
	return appendTensors(steps.append(betas.append(appendBool(dst, t.Cut))), t.Params)
}

// DecodeTheta reads what Theta.Append wrote; the parameters are a part of b.
func DecodeTheta(b []byte) (Theta, error) {
	r := reader{b: b}
	t := Theta{Cut: r.bool(), Betas: r.vector("betas"), StepSizes: r.vector("step sizes"), Params: r.tensors()}
	return decoded(t, &r, "theta")
}

// Gradient is the part of a shard in a gradient that several shards make together.
type Gradient struct {
	Rows   uint64  // rows of data behind it
	Loss   float64 // mean over them
	Params []Tensor
}

// Append appends the encoded value to dst.
func (g Gradient) Append(dst []byte) []byte {
	dst = slices.Grow(dst, 16+tensorsSize(g.Params))
	dst = binary.LittleEndian.AppendUint64(dst, g.Rows)
	dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(g.Loss))
	return appendTensors(dst, g.Params)
}

// DecodeGradient reads what Gradient.Append wrote; the gradient is a part of b.
func DecodeGradient(b []byte) (Gradient, error) {
	r := reader{b: b}
	g := Gradient{Rows: r.u64(), Loss: math.Float64frombits(r.u64()), Params: r.tensors()}
	return decoded(g, &r, "gradient")
}

// Contribution is what a group brings to an averaging round: its parameters, or how they moved, and what its pairs saw.
type Contribution struct {
	Round   uint64
	Group   uint32
	Weight  float64   // of the group in a weighted mean
	Loss    float64   // of its last step
	Alpha   []float64 // [K−1], sums of the acceptances of the pairs since the last round
	Tried   []float64 // [K−1], attempts behind them
	Explore []float64 // [K], mean acceptance of the explorers
	Params  []Tensor
}

// Append appends the encoded value to dst.
func (c Contribution) Append(dst []byte) []byte {
	alpha, tried, explore := NewTensor(c.Alpha), NewTensor(c.Tried), NewTensor(c.Explore)
	dst = slices.Grow(dst, 28+alpha.size()+tried.size()+explore.size()+tensorsSize(c.Params))
	dst = binary.LittleEndian.AppendUint64(dst, c.Round)
	dst = binary.LittleEndian.AppendUint32(dst, c.Group)
	dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(c.Weight))
	dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(c.Loss))
	return appendTensors(explore.append(tried.append(alpha.append(dst))), c.Params)
}

// DecodeContribution reads what Contribution.Append wrote; the parameters are a part of b.
func DecodeContribution(b []byte) (Contribution, error) {
	r := reader{b: b}
	c := Contribution{
		Round: r.u64(), Group: r.u32(), Weight: math.Float64frombits(r.u64()), Loss: math.Float64frombits(r.u64()),
		Alpha: r.vector("alpha"), Tried: r.vector("tried"), Explore: r.vector("explore"), Params: r.tensors(),
	}
	return decoded(c, &r, "contribution")
}
