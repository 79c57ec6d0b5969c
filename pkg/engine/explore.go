package engine

import (
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"

	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
)

// walk makes the chain steps of a block.
type walk struct {
	sampler               samplers.Config
	steps                 int
	sizes                 *Node // of each row, [rows]
	stepTable, noiseTable *Node // factors of each step, [steps]
	source                *samplers.Source
}

// from walks from a point. accepted counts the proposals that each row took, [rows], and is nil for a kernel that takes
// every step; nonFinite is that of [Result], [rows].
func (w walk) from(target samplers.Target, point samplers.Point) (end samplers.Point, accepted, nonFinite *Node) {
	at := func(table *Node, m int) *Node { return Reshape(Slice(table, AxisElem(m))) }
	rows, dim := point.X.Shape().Dimensions[0], point.X.Shape().Dimensions[1]
	nonFinite = ZerosLike(w.sizes)
	for m := range w.steps {
		kernel := w.sampler.NewKernel(at(w.noiseTable, m))
		var info samplers.Info
		point, info = kernel.Step(target, point, Mul(w.sizes, at(w.stepTable, m)), w.source.Step(kernel, rows, dim))
		switch {
		case info.Accept == nil:
		case accepted == nil:
			accepted = info.Accept
		default:
			accepted = Add(accepted, info.Accept)
		}
		if info.Accept == nil && len(w.sampler.Clamp) == 0 {
			nonFinite = info.NonFinite // a chain that left stays away: its last step tells, and the others need no look
		} else {
			nonFinite = Add(nonFinite, info.NonFinite)
		}
	}
	return point, accepted, nonFinite
}

// explored runs the n chain steps of a block from x and packs what unpack reads. The first block of a scan draws rung 0 of
// a linear path anew, and tells V of the start.
func (s *Shard) explored(r *reader, network models.Fn, x *Node, n int, first bool) (next, packed *Node) {
	key, beta, sizes := r.next(), r.next(), r.next()
	rows, dim, hot := s.spec.rows(), s.spec.dim(), s.spec.drawn()
	var moved *law // the reference, where it is no constant
	if s.spec.Variational {
		moved = readLaw(r.next(), dim)
	}
	w := walk{sampler: s.spec.Sampler, steps: n, sizes: sizes, stepTable: r.next(), noiseTable: r.next()}
	path := s.spec.path(network, moved)

	walking := rows - hot
	if s.spec.byLabel() {
		walking = rows
	}
	total := n * samplers.StepCount(s.spec.Sampler.NewKernel(nil), walking, dim)
	if hot > 0 && first {
		total += samplers.NormalCount(hot, dim)
	}
	w.source = samplers.NewSource(key, f32, total)
	var draws *Node // of rung 0, one for each ladder
	if hot > 0 && first {
		z := w.source.Normal(hot, dim)
		q := moved
		if q == nil {
			q = constantLaw(z, s.spec.Reference)
		}
		if box, walled := s.spec.Sampler.Bounds(); walled {
			draws = box.Normal(z, q.mean, q.std)
		} else {
			draws = q.fromNormal(z)
		}
	}
	if s.spec.byLabel() {
		return s.exploredByLabel(w, path, x, beta, draws, first)
	}

	var xs, vs, v0s []*Node
	if hot > 0 {
		reference := Slice(x, AxisRange(0, hot))
		if draws != nil {
			reference = draws
		}
		v := path.V(reference)
		xs, vs, v0s = append(xs, reference), append(vs, v), append(v0s, v)
	}
	g := x.Graph()
	var accepted *Node
	nonFinite := Zeros(g, shapes.Make(f32, 1))
	if walking > 0 {
		cut := func(v *Node) *Node { return Slice(v, AxisRange(hot, rows)) }
		w.sizes = cut(sizes)
		target := samplers.Target{Path: path, Beta: cut(beta)}
		start := target.At(cut(x))
		var end samplers.Point
		end, accepted, nonFinite = w.from(target, start)
		xs, vs, v0s = append(xs, end.X), append(vs, end.V), append(v0s, start.V)
	}
	if first {
		vs = append(vs, v0s...)
	}
	if s.spec.ladder() == 1 { // nobody swaps: an unadjusted chain then needs no energies at all
		vs = nil
	}
	rates := Ones(g, shapes.Make(f32, s.spec.Rungs))
	if accepted != nil {
		rates = DivScalar(ReduceMean(Reshape(accepted, walking/s.spec.Chains, s.spec.Chains), -1), float64(n))
		if hot > 0 {
			rates = Concatenate([]*Node{Ones(g, shapes.Make(f32, 1)), rates}, 0)
		}
	}
	return Concatenate(xs, 0), Concatenate(append(vs, rates, vec(ReduceAllSum(nonFinite))), 0)
}

// exploredByLabel is explored where any row may be of any rung. Those at β = 0 hold their draws: chain steps leave q
// invariant at best, and a kernel without a Metropolis test not even that.
func (s *Shard) exploredByLabel(w walk, path samplers.Path, x, beta, draws *Node, first bool) (next, packed *Node) {
	hot := Equal(beta, ZerosLike(beta))
	if draws != nil {
		// The chains of a ladder stay among its rows, every Chains-th one, so that each row has the draw of its ladder.
		all := Reshape(BroadcastToDims(ExpandAxes(draws, 0), s.spec.Rungs, s.spec.Chains, s.spec.dim()), x.Shape().Dimensions...)
		x = Where(wide(hot, x), all, x)
	}
	target := samplers.Target{Path: path, Beta: beta}
	start := target.At(x)
	end, accepted, nonFinite := w.from(target, start)
	rates := OnesLike(beta)
	if accepted != nil {
		rates = Where(hot, rates, DivScalar(accepted, float64(w.steps)))
	}
	vs := []*Node{Where(hot, start.V, end.V)}
	if first {
		vs = append(vs, start.V)
	}
	count := ReduceAllSum(Where(hot, ZerosLike(nonFinite), nonFinite))
	return Where(wide(hot, x), start.X, end.X), Concatenate(append(vs, rates, vec(count)), 0)
}

// wide is a condition on each row [rows] for all numbers of x [rows, dim].
func wide(condition, x *Node) *Node {
	return BroadcastToDims(ExpandAxes(condition, -1), x.Shape().Dimensions...)
}
