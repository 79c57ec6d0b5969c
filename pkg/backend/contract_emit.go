package backend

import (
	"slices"

	"github.com/gomlx/gomlx/backends"
	"github.com/gomlx/gomlx/pkg/core/dtypes"
	"github.com/gomlx/gomlx/pkg/core/shapes"
)

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
