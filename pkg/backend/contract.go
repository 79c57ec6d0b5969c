package backend

import (
	"slices"
	"sync/atomic"

	"github.com/gomlx/gomlx/backends"
	"github.com/gomlx/gomlx/pkg/core/dtypes"
	"github.com/gomlx/gomlx/pkg/core/shapes"
)

// contractBuilder recognises contractions. GoMLX's gradient of a matrix product is ReduceSum(Mul(a, b)) over operands that
// are broadcast along complementary axes: memory and time of batch × in × out multiply-adds done one by one. The builder
// remembers how each value came about (a broadcast, reshaped or transposed view of another one, a sum, a product) and,
// when such a product is summed, asks the wrapped builder for a DotGeneral of the operands before their broadcast.
// Nothing else changes: an operation of this builder is an operation of the wrapped one, and products that nobody uses
// any more are dropped by the compilers. Since it sees each operation, it serves all orders of differentiation.
type contractBuilder struct {
	backends.Builder
	made   map[backends.Op]origin // how a value was made; values not in it are taken as they are
	dots   map[backends.Op]dot    // the contractions issued, so that a transposition of one can be had without copying
	counts *counters
}

// counters are shared by all builders of a backend, which may compile from several goroutines.
type counters struct{ contracted, summed atomic.Int64 }

func newContractBuilder(inner backends.Builder, counts *counters) *contractBuilder {
	return &contractBuilder{Builder: inner, made: map[backends.Op]origin{}, dots: map[backends.Op]dot{}, counts: counts}
}

// origin is the way a value was made.
type origin struct {
	kind originKind
	a, b backends.Op
	axes []int // of a view: for each axis of a, the axis of the result that it became, or none
}

type originKind int

const (
	opaque originKind = iota
	isView
	isMul
	isAdd
	isSub
	isNeg
	isDivScalar // a / b with a scalar b
)

// none marks an axis of dimension 1, which has no counterpart.
const none = -1

func (b *contractBuilder) dims(op backends.Op) []int {
	shape, err := b.OpShape(op)
	if err != nil {
		return nil
	}
	return shape.Dimensions
}

// contractible says whether the values are of a type for which a matrix product computes the same thing. The 16-bit types
// are left alone: what they accumulate in differs between backends.
func (b *contractBuilder) contractible(op backends.Op) bool {
	shape, err := b.OpShape(op)
	return err == nil && (shape.DType == dtypes.Float32 || shape.DType == dtypes.Float64) && !slices.Contains(shape.Dimensions, 0)
}

func (b *contractBuilder) note(op backends.Op, err error, how origin) (backends.Op, error) {
	// XLA's builder returns its operand from operations without effect; such a value must not become its own origin.
	if err == nil && op != how.a && op != how.b && b.contractible(op) {
		if _, known := b.made[op]; !known {
			b.made[op] = how
		}
	}
	return op, err
}

// BroadcastInDim implements [backends.Builder].
func (b *contractBuilder) BroadcastInDim(x backends.Op, shape shapes.Shape, broadcastAxes []int) (backends.Op, error) {
	out, err := b.Builder.BroadcastInDim(x, shape, broadcastAxes)
	axes := slices.Clone(broadcastAxes)
	for i, d := range b.dims(x) {
		if d == 1 && i < len(axes) {
			axes[i] = none
		}
	}
	return b.note(out, err, origin{kind: isView, a: x, axes: axes})
}

// Reshape implements [backends.Builder]. A reshape that only adds or drops axes of dimension 1 is a view.
func (b *contractBuilder) Reshape(x backends.Op, dimensions ...int) (backends.Op, error) {
	out, err := b.Builder.Reshape(x, dimensions...)
	if err != nil {
		return nil, err
	}
	to := b.dims(out)
	from := b.dims(x)
	axes := make([]int, len(from))
	at := 0
	for i, d := range from {
		axes[i] = none
		if d == 1 {
			continue
		}
		for at < len(to) && to[at] == 1 {
			at++
		}
		if at == len(to) || to[at] != d {
			return out, nil
		}
		axes[i] = at
		at++
	}
	return b.note(out, nil, origin{kind: isView, a: x, axes: axes})
}

// Transpose implements [backends.Builder]. The transposition of a contraction is the contraction of the swapped operands.
func (b *contractBuilder) Transpose(x backends.Op, permutation ...int) (backends.Op, error) {
	if d, ok := b.dots[x]; ok {
		if swapped, ok := d.transposed(permutation); ok {
			return b.emitDot(swapped)
		}
	}
	out, err := b.Builder.Transpose(x, permutation...)
	axes := make([]int, len(permutation))
	dims := b.dims(x)
	for to, from := range permutation {
		if from < 0 || from >= len(axes) || len(dims) != len(axes) {
			return out, err
		}
		axes[from] = to
		if dims[from] == 1 {
			axes[from] = none
		}
	}
	return b.note(out, err, origin{kind: isView, a: x, axes: axes})
}

// Identity implements [backends.Builder].
func (b *contractBuilder) Identity(x backends.Op) (backends.Op, error) {
	out, err := b.Builder.Identity(x)
	dims := b.dims(x)
	axes := make([]int, len(dims))
	for i, d := range dims {
		axes[i] = i
		if d == 1 {
			axes[i] = none
		}
	}
	return b.note(out, err, origin{kind: isView, a: x, axes: axes})
}

// Mul implements [backends.Builder].
func (b *contractBuilder) Mul(x, y backends.Op) (backends.Op, error) {
	out, err := b.Builder.Mul(x, y)
	return b.note(out, err, origin{kind: isMul, a: x, b: y})
}

// Add implements [backends.Builder].
func (b *contractBuilder) Add(x, y backends.Op) (backends.Op, error) {
	out, err := b.Builder.Add(x, y)
	return b.note(out, err, origin{kind: isAdd, a: x, b: y})
}

// Sub implements [backends.Builder].
func (b *contractBuilder) Sub(x, y backends.Op) (backends.Op, error) {
	out, err := b.Builder.Sub(x, y)
	return b.note(out, err, origin{kind: isSub, a: x, b: y})
}

// Neg implements [backends.Builder].
func (b *contractBuilder) Neg(x backends.Op) (backends.Op, error) {
	out, err := b.Builder.Neg(x)
	return b.note(out, err, origin{kind: isNeg, a: x})
}

// Div implements [backends.Builder].
func (b *contractBuilder) Div(x, y backends.Op) (backends.Op, error) {
	out, err := b.Builder.Div(x, y)
	if size(b.dims(y)) != 1 && !b.scalarView(y) {
		return out, err
	}
	return b.note(out, err, origin{kind: isDivScalar, a: x, b: y})
}

// scalarView says whether a value is one number, broadcast.
func (b *contractBuilder) scalarView(op backends.Op) bool {
	for {
		how := b.made[op]
		if how.kind != isView {
			return size(b.dims(op)) == 1
		}
		op = how.a
	}
}

// ReduceSum implements [backends.Builder]. It is where contractions are recognised.
func (b *contractBuilder) ReduceSum(x backends.Op, axes ...int) (backends.Op, error) {
	if b.contractible(x) {
		if s, ok := b.newSum(x, axes); ok {
			terms, fires := s.expand(x, s.whole())
			if fires {
				out, err := s.emit(terms)
				if err != nil {
					return nil, err
				}
				b.counts.contracted.Add(1)
				return out, nil
			}
		}
	}
	b.counts.summed.Add(1)
	out, err := b.Builder.ReduceSum(x, axes...)
	if err != nil {
		return nil, err
	}
	return out, nil
}

func size(dims []int) int {
	n := 1
	for _, d := range dims {
		n *= d
	}
	return n
}
