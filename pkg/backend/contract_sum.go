package backend

import (
	"slices"

	"github.com/gomlx/gomlx/backends"
	"github.com/gomlx/gomlx/pkg/core/dtypes"
)

// sum is one ReduceSum under study. Everything below it is written in its space: the axes of the value that is summed.
type sum struct {
	b       *contractBuilder
	dtype   dtypes.DType
	dims    []int
	reduced []bool
	visits  int
}

// factor is a value and where its axes lie in the space. Axes of dimension 1 lie nowhere; axes of the space on which no
// axis of the value lies are those along which it is broadcast.
type factor struct {
	op   backends.Op
	axes []int
}

// summand is a term of the sum: a product of one or two factors with scalars.
type summand struct {
	factors []factor
	scales  []scale
	minus   bool
}

type scale struct {
	op     backends.Op // one number, of any rank
	divide bool
}

// Sums of sums can double the work with every addition, in a chain of sampler steps for example. Gradients of products
// are found at once: the bounds leave ample room.
const (
	maxTerms  = 16
	maxVisits = 128
)

func (b *contractBuilder) newSum(x backends.Op, axes []int) (*sum, bool) {
	shape, err := b.OpShape(x)
	if err != nil {
		return nil, false
	}
	s := &sum{b: b, dtype: shape.DType, dims: shape.Dimensions, reduced: make([]bool, len(shape.Dimensions))}
	for _, a := range axes {
		if a < 0 || a >= len(s.reduced) {
			return nil, false
		}
		s.reduced[a] = true
	}
	if len(axes) == 0 { // the builders' way to say all axes
		for a := range s.reduced {
			s.reduced[a] = true
		}
	}
	return s, true
}

// whole places a value that has the very axes of the space.
func (s *sum) whole() []int {
	axes := make([]int, len(s.dims))
	for a, d := range s.dims {
		axes[a] = a
		if d == 1 {
			axes[a] = none
		}
	}
	return axes
}

// operand places an operand of an elementwise operation whose result lies at axes: a scalar, or a value of the same rank
// in which dimensions of 1 are broadcast.
func (s *sum) operand(op backends.Op, axes []int) []int {
	dims := s.b.dims(op)
	placed := make([]int, len(dims))
	for a, d := range dims {
		placed[a] = axes[a]
		if d == 1 {
			placed[a] = none
		}
	}
	return placed
}

// base follows views down to the value that is really there.
func (s *sum) base(op backends.Op, axes []int) factor {
	for {
		how := s.b.made[op]
		if how.kind != isView {
			return factor{op, axes}
		}
		placed := make([]int, len(how.axes))
		for a, to := range how.axes {
			placed[a] = none
			if to != none {
				placed[a] = axes[to]
			}
		}
		op, axes = how.a, placed
	}
}

func (f factor) scalar() bool {
	return !slices.ContainsFunc(f.axes, func(a int) bool { return a != none })
}

func (f factor) on(axis int) bool { return slices.Contains(f.axes, axis) }

// covers says whether f has each axis that g has.
func (f factor) covers(g factor) bool {
	return !slices.ContainsFunc(g.axes, func(a int) bool { return a != none && !f.on(a) })
}

// expand writes the value as a sum of terms. fires says whether at least one of them is worth a contraction.
func (s *sum) expand(op backends.Op, axes []int) (terms []summand, fires bool) {
	f := s.base(op, axes)
	whole := []summand{{factors: []factor{f}}}
	if s.visits++; s.visits > maxVisits {
		return whole, false
	}
	how := s.b.made[f.op]
	switch how.kind {
	case isAdd, isSub:
		left, leftFires := s.expand(how.a, s.operand(how.a, f.axes))
		right, rightFires := s.expand(how.b, s.operand(how.b, f.axes))
		if !leftFires && !rightFires || len(left)+len(right) > maxTerms {
			return whole, false
		}
		if how.kind == isSub {
			right = negated(right)
		}
		return append(left, right...), true
	case isNeg:
		if terms, fires = s.expand(how.a, s.operand(how.a, f.axes)); fires {
			return negated(terms), true
		}
	case isDivScalar:
		if terms, fires = s.expand(how.a, s.operand(how.a, f.axes)); fires {
			by := s.base(how.b, s.operand(how.b, f.axes))
			return scaled(terms, scale{by.op, true}), true
		}
	case isMul:
		for _, swap := range []bool{false, true} {
			a, b := how.a, how.b
			if swap {
				a, b = b, a
			}
			if by := s.base(a, s.operand(a, f.axes)); by.scalar() {
				if terms, fires = s.expand(b, s.operand(b, f.axes)); fires {
					return scaled(terms, scale{by.op, false}), true
				}
				return whole, false
			}
		}
		product := summand{}
		s.multiply(&product, f, how)
		if len(product.factors) == 2 && s.worthwhile(product.factors[0], product.factors[1]) {
			return []summand{product}, true
		}
	}
	return whole, false
}

// multiply adds the factors of a product to t. A factor that is itself made by broadcasting (negated, scaled, or a product
// larger than both its operands) is opened down to the values from before; all others are taken as they are.
func (s *sum) multiply(t *summand, f factor, how origin) {
	for _, op := range []backends.Op{how.a, how.b} {
		if len(t.factors) > 2 { // too many already
			return
		}
		g := s.base(op, s.operand(op, f.axes))
		if g.scalar() {
			t.scales = append(t.scales, scale{g.op, false})
			continue
		}
		inside, scales, minus := s.peel(g)
		inner := s.b.made[inside.op]
		product := false
		if inner.kind == isMul {
			x, y := s.base(inner.a, s.operand(inner.a, inside.axes)), s.base(inner.b, s.operand(inner.b, inside.axes))
			product = !x.covers(inside) && !y.covers(inside)
		}
		if !product && inside.covers(g) {
			t.factors = append(t.factors, g)
			continue
		}
		t.scales = append(t.scales, scales...)
		t.minus = t.minus != minus
		if product {
			s.multiply(t, inside, inner)
		} else {
			t.factors = append(t.factors, inside)
		}
	}
}

// peel takes signs and scalars off a value.
func (s *sum) peel(f factor) (inside factor, scales []scale, minus bool) {
	for {
		how := s.b.made[f.op]
		switch how.kind {
		case isNeg:
			minus = !minus
			f = s.base(how.a, s.operand(how.a, f.axes))
		case isDivScalar:
			scales = append(scales, scale{s.base(how.b, s.operand(how.b, f.axes)).op, true})
			f = s.base(how.a, s.operand(how.a, f.axes))
		case isMul:
			x, y := s.base(how.a, s.operand(how.a, f.axes)), s.base(how.b, s.operand(how.b, f.axes))
			if y.scalar() {
				x, y = y, x
			}
			if !x.scalar() || y.scalar() {
				return f, scales, minus
			}
			scales = append(scales, scale{x.op, false})
			f = y
		default:
			return f, scales, minus
		}
	}
}

// worthwhile says whether Σ x·y should become a matrix product. With a batch axis and all of the product's axes in one
// factor, a batch of matrix-vector products would replace one pass over that factor; that pass is the faster way.
func (s *sum) worthwhile(x, y factor) bool {
	contracted, batch, single, summed := false, false, 0, false
	for a, d := range s.dims {
		if d == 1 {
			continue
		}
		inX, inY := x.on(a), y.on(a)
		summed = summed || s.reduced[a]
		switch {
		case inX && inY && s.reduced[a]:
			contracted = true
		case inX && inY:
			batch = true
		case inX || inY:
			single++
		}
	}
	spread := !x.covers(y) && !y.covers(x) // the product is larger than both factors
	if contracted {
		return spread || single > 0 && !batch
	}
	return summed && spread
}

func negated(terms []summand) []summand {
	for i := range terms {
		terms[i].minus = !terms[i].minus
	}
	return terms
}

func scaled(terms []summand, by scale) []summand {
	for i := range terms {
		terms[i].scales = append(terms[i].scales, by)
	}
	return terms
}
