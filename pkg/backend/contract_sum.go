package backend

import (
	"slices"

	"github.com/gomlx/gomlx/backends"
	"github.com/gomlx/gomlx/pkg/core/dtypes"
	"github.com/gomlx/gomlx/pkg/core/shapes"
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

// emit builds the sum of the terms, each summed over the reduced axes.
func (s *sum) emit(terms []summand) (backends.Op, error) {
	// A positive term first saves a negation.
	if i := slices.IndexFunc(terms, func(t summand) bool { return !t.minus }); i > 0 {
		terms[0], terms[i] = terms[i], terms[0]
	}
	var total backends.Op
	for _, t := range terms {
		v, err := s.emitTerm(t)
		if err != nil {
			return nil, err
		}
		switch {
		case total == nil && t.minus:
			total, err = s.b.Neg(v)
		case total == nil:
			total = v
		case t.minus:
			total, err = s.b.Sub(total, v)
		default:
			total, err = s.b.Add(total, v)
		}
		if err != nil {
			return nil, err
		}
	}
	return total, nil
}

func (s *sum) emitTerm(t summand) (backends.Op, error) {
	times := 1 // a reduced axis that no factor has counts its dimension
	for a, d := range s.dims {
		if s.reduced[a] && !slices.ContainsFunc(t.factors, func(f factor) bool { return f.on(a) }) {
			times *= d
		}
	}
	var v factor
	var err error
	switch len(t.factors) {
	case 0:
		v, err = s.one()
	case 1:
		v, err = s.compact(t.factors[0], nil)
	default:
		v, err = s.product(t.factors[0], t.factors[1])
	}
	if err != nil {
		return nil, err
	}
	out, err := s.keep(v)
	if err != nil {
		return nil, err
	}
	if times > 1 {
		n, err := s.constant(float64(times))
		if err != nil {
			return nil, err
		}
		if out, err = s.b.Mul(out, n); err != nil {
			return nil, err
		}
	}
	for _, by := range t.scales {
		n, err := s.b.Builder.Reshape(by.op)
		if err != nil {
			return nil, err
		}
		if by.divide {
			out, err = s.b.Div(out, n)
		} else {
			out, err = s.b.Mul(out, n)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *sum) one() (factor, error) {
	op, err := s.constant(1)
	return factor{op: op}, err
}

func (s *sum) constant(v float64) (backends.Op, error) {
	if s.dtype == dtypes.Float32 {
		return s.b.Constant([]float32{float32(v)})
	}
	return s.b.Constant([]float64{v})
}

// compact drops axes of dimension 1 and sums over the reduced axes that the other factor does not have (all of them, if
// there is no other).
func (s *sum) compact(f factor, other *factor) (factor, error) {
	var kept, over, axes []int
	dims := s.b.dims(f.op)
	for i, a := range f.axes {
		switch {
		case a == none:
			continue
		case s.reduced[a] && (other == nil || !other.on(a)):
			over = append(over, len(kept))
		default:
			axes = append(axes, a)
		}
		kept = append(kept, dims[i])
	}
	op := f.op
	var err error
	if len(kept) < len(dims) {
		if op, err = s.b.Reshape(op, kept...); err != nil {
			return factor{}, err
		}
	}
	if len(over) > 0 {
		if op, err = s.b.ReduceSum(op, over...); err != nil {
			return factor{}, err
		}
	}
	return factor{op, axes}, nil
}

// product multiplies two factors and sums over the reduced axes that both have.
func (s *sum) product(f, g factor) (factor, error) {
	x, err := s.compact(f, &g)
	if err != nil {
		return factor{}, err
	}
	y, err := s.compact(g, &f)
	if err != nil {
		return factor{}, err
	}
	d := dot{x: x.op, y: y.op}
	var batch []int
	for i, a := range x.axes {
		if j := slices.Index(y.axes, a); j >= 0 && s.reduced[a] {
			d.contractX, d.contractY = append(d.contractX, i), append(d.contractY, j)
		} else if j >= 0 {
			batch = append(batch, a)
		}
	}
	slices.Sort(batch) // the order in which they are wanted
	for _, a := range batch {
		d.batchX, d.batchY = append(d.batchX, slices.Index(x.axes, a)), append(d.batchY, slices.Index(y.axes, a))
	}
	if len(d.contractX) == 0 {
		return s.outer(x, y)
	}
	free := func(h factor, out []int) []int {
		for _, a := range h.axes {
			if !s.reduced[a] && !slices.Contains(batch, a) {
				out = append(out, a)
			}
		}
		return out
	}
	axes := free(y, free(x, slices.Clone(batch)))
	if swapped := free(x, free(y, slices.Clone(batch))); !slices.IsSorted(axes) && slices.IsSorted(swapped) {
		d, axes = d.swapped(), swapped
	}
	op, err := s.b.emitDot(d)
	return factor{op, axes}, err
}

// outer multiplies without a contraction: both factors spread over their joint axes.
func (s *sum) outer(x, y factor) (factor, error) {
	axes := append(slices.Clone(x.axes), y.axes...)
	slices.Sort(axes)
	axes = slices.Compact(axes)
	a, err := s.spread(x, axes)
	if err != nil {
		return factor{}, err
	}
	b, err := s.spread(y, axes)
	if err != nil {
		return factor{}, err
	}
	op, err := s.b.Mul(a, b)
	return factor{op, axes}, err
}

// spread brings a compact factor into the order of axes, with dimension 1 where it has no axis.
func (s *sum) spread(f factor, axes []int) (backends.Op, error) {
	op := f.op
	var err error
	sorted := slices.Clone(f.axes)
	slices.Sort(sorted)
	if !slices.Equal(sorted, f.axes) {
		permutation := make([]int, len(sorted))
		for i, a := range sorted {
			permutation[i] = slices.Index(f.axes, a)
		}
		if op, err = s.b.Transpose(op, permutation...); err != nil {
			return nil, err
		}
	}
	dims := make([]int, len(axes))
	for i, a := range axes {
		dims[i] = 1
		if slices.Contains(f.axes, a) {
			dims[i] = s.dims[a]
		}
	}
	if len(axes) == len(f.axes) {
		return op, nil
	}
	return s.b.Reshape(op, dims...)
}

// keep gives a summed factor the shape of the result: the kept axes in order.
func (s *sum) keep(f factor) (backends.Op, error) {
	var axes, dims, own []int
	for a, d := range s.dims {
		if s.reduced[a] {
			continue
		}
		if slices.Contains(f.axes, a) {
			own = append(own, len(axes))
		}
		axes, dims = append(axes, a), append(dims, d)
	}
	missing := false
	for i, a := range axes {
		missing = missing || dims[i] > 1 && !slices.Contains(f.axes, a)
	}
	if !missing {
		return s.spread(f, axes)
	}
	sorted := slices.Clone(f.axes)
	slices.Sort(sorted)
	op, err := s.spread(f, sorted)
	if err != nil {
		return nil, err
	}
	return s.b.BroadcastInDim(op, shapes.Make(s.dtype, dims...), own)
}

// dot is a DotGeneral: batch axes first, then the free axes of x, then those of y.
type dot struct {
	x, y                 backends.Op
	contractX, contractY []int
	batchX, batchY       []int
	freeX, freeY         int
}

func (d dot) swapped() dot {
	return dot{d.y, d.x, d.contractY, d.contractX, d.batchY, d.batchX, d.freeY, d.freeX}
}

// transposed is the contraction whose result is that of d with its axes permuted, if swapping the operands does it.
func (d dot) transposed(permutation []int) (dot, bool) {
	batch := len(d.batchX)
	if len(permutation) != batch+d.freeX+d.freeY || d.freeX == 0 || d.freeY == 0 {
		return dot{}, false
	}
	for i, from := range permutation {
		want := i
		switch {
		case i >= batch+d.freeY:
			want = i - d.freeY
		case i >= batch:
			want = i + d.freeX
		}
		if from != want {
			return dot{}, false
		}
	}
	return d.swapped(), true
}

func (b *contractBuilder) emitDot(d dot) (backends.Op, error) {
	d.freeX = len(b.dims(d.x)) - len(d.contractX) - len(d.batchX)
	d.freeY = len(b.dims(d.y)) - len(d.contractY) - len(d.batchY)
	op, err := b.Builder.DotGeneral(d.x, d.contractX, d.batchX, d.y, d.contractY, d.batchY)
	if err == nil {
		b.dots[op] = d
	}
	return op, err
}
