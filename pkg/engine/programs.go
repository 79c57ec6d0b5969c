package engine

import (
	"fmt"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
)

// reader hands the nodes of a program's inputs out in order.
type reader struct{ nodes []*Node }

func (r *reader) next() *Node {
	n := r.nodes[0]
	r.nodes = r.nodes[1:]
	return n
}

// drawInputs are the inputs that addDraw uploads, in its order.
func (s *Shard) drawInputs() []backend.Input {
	rows, dim := s.spec.rows(), s.spec.dim()
	in := []backend.Input{{Name: "live", Shape: shapes.Make(f32, rows, dim)}}
	if s.spec.FromData {
		return append(in, backend.Input{Name: "starts", Shape: shapes.Make(f32, rows, dim)})
	}
	in = append(in, backend.Input{Name: "permutation", Shape: shapes.Make(dtypes.Int32, rows)})
	if s.spec.pooled() {
		slots := s.spec.Rungs * s.spec.Pool
		in = append(in,
			backend.Input{Name: "pool", Shape: shapes.Make(f32, slots, dim)},
			backend.Input{Name: "source", Shape: shapes.Make(dtypes.Int32, slots)},
			backend.Input{Name: "slots", Shape: shapes.Make(dtypes.Int32, rows)})
	}
	if s.spec.Mix {
		in = append(in,
			backend.Input{Name: "keep", Shape: shapes.Make(f32, rows)},
			backend.Input{Name: "add", Shape: shapes.Make(f32, rows, dim)})
	}
	return in
}

// kernelInputs are the inputs that addKernel uploads, in its order, for a block of n chain steps.
func (s *Shard) kernelInputs(n int) []backend.Input {
	rows := s.spec.rows()
	return []backend.Input{
		{Name: "key", Shape: samplers.KeyShape},
		{Name: "beta", Shape: shapes.Make(f32, rows)},
		{Name: "step_size", Shape: shapes.Make(f32, rows)},
		{Name: "step_table", Shape: shapes.Make(f32, n)},
		{Name: "noise_table", Shape: shapes.Make(f32, n)},
	}
}

// sweep applies the swap decisions to the states that their energies were computed for.
func sweep(live, perm *Node) *Node { return takeRows(live, perm) }

func takeRows(x, index *Node) *Node { return Gather(x, ExpandAxes(index, -1)) }

// drawn reads the inputs of a draw: the swept states, from which negatives are taken, and a function that gives the
// starts of the next scan and the pool after it.
func (s *Shard) drawn(r *reader) (swept *Node, start func() (x, pool *Node)) {
	live := r.next()
	if s.spec.FromData {
		starts := r.next()
		return live, func() (*Node, *Node) { return starts, nil }
	}
	swept = sweep(live, r.next())
	var pool, source, slots, keep, add *Node
	if s.spec.pooled() {
		pool, source, slots = r.next(), r.next(), r.next()
	}
	if s.spec.Mix {
		keep, add = r.next(), r.next()
	}
	return swept, func() (x, newPool *Node) {
		x = swept
		if pool != nil {
			// One gather writes the live columns back, another draws the next ones: no scatter.
			newPool = takeRows(Concatenate([]*Node{pool, swept}, 0), source)
			x = takeRows(newPool, slots)
		}
		if keep != nil {
			wide := BroadcastToDims(ExpandAxes(GreaterThan(keep, ZerosLike(keep)), -1), x.Shape().Dimensions...)
			x = Add(Where(wide, x, ZerosLike(x)), add)
		}
		return x, newPool
	}
}

// explored runs n chain steps from x and packs what the host wants to know. fresh draws rung 0 anew.
func (s *Shard) explored(r *reader, network models.Fn, x *Node, n int, fresh bool) (next, packed *Node) {
	key, beta, stepRows, stepTable, noiseTable := r.next(), r.next(), r.next(), r.next(), r.next()
	g := x.Graph()
	rows, dim, chains, first := s.spec.rows(), s.spec.dim(), s.spec.Chains, s.spec.drawn()
	moving := rows - first
	path := s.spec.path(network)

	probe := s.spec.Sampler.NewKernel(nil)
	total := n * samplers.StepCount(probe, moving, dim)
	if first > 0 && fresh {
		total += samplers.NormalCount(first, dim)
	}
	source := samplers.NewSource(key, f32, total)

	var vs, xs []*Node
	if first > 0 {
		reference := Slice(x, AxisRange(0, first))
		if fresh {
			reference = fromNormal(s.spec.Reference, source.Normal(first, dim))
		}
		xs, vs = append(xs, reference), append(vs, path.V(reference))
	}

	cut := func(v *Node) *Node { return Slice(v, AxisRange(first, rows)) }
	target := samplers.Target{Path: path, Beta: cut(beta)}
	sizes := cut(stepRows)
	at := func(table *Node, m int) *Node { return Reshape(Slice(table, AxisElem(m))) }
	point := target.At(cut(x))
	var accepted *Node // nil for a kernel that takes every step
	nonFinite := ZerosLike(sizes)
	for m := range n {
		kernel := s.spec.Sampler.NewKernel(at(noiseTable, m))
		var info samplers.Info
		point, info = kernel.Step(target, point, Mul(sizes, at(stepTable, m)), source.Step(kernel, moving, dim))
		switch {
		case info.Accept == nil:
		case accepted == nil:
			accepted = info.Accept
		default:
			accepted = Add(accepted, info.Accept)
		}
		if info.Accept == nil && len(s.spec.Sampler.Clamp) == 0 {
			nonFinite = info.NonFinite // a chain that left stays away: its last step tells, and the others need no look
		} else {
			nonFinite = Add(nonFinite, info.NonFinite)
		}
	}
	xs, vs = append(xs, point.X), append(vs, point.V)
	if s.spec.Rungs == 1 { // nobody swaps: an unadjusted chain then needs no energies at all
		vs = nil
	}

	rates := Ones(g, shapes.Make(f32, s.spec.Rungs))
	if accepted != nil {
		rates = DivScalar(ReduceMean(Reshape(accepted, moving/chains, chains), -1), float64(n))
		if first > 0 {
			rates = Concatenate([]*Node{Ones(g, shapes.Make(f32, 1)), rates}, 0)
		}
	}
	return Concatenate(xs, 0), Concatenate(append(vs, rates, Reshape(ReduceAllSum(nonFinite), 1)), 0)
}

func (s *Shard) compileTrain() (*backend.Program, error) {
	if s.spec.Batch < 1 {
		return nil, fmt.Errorf("engine: train: batch %d, want at least 1", s.spec.Batch)
	}
	in := s.spec.Optimizer.weightInputs(s.params)
	in = append(in,
		backend.Input{Name: "positives", Shape: shapes.Make(f32, s.spec.Batch, s.spec.dim())},
		backend.Input{Name: "hyper", Shape: shapes.Make(f32, hyperSize)})
	in = append(in, s.drawInputs()...)
	in = append(in, s.kernelInputs(s.blockLen[0])...)
	return backend.Compile(s.backend, "train", in, func(nodes []*Node) []*Node {
		r := &reader{nodes}
		w := s.spec.Optimizer.readWeights(r)
		positives, hyper := r.next(), r.next()
		swept, start := s.drawn(r)

		negatives := Slice(swept, AxisRange(s.spec.rows()-s.spec.Chains, s.spec.rows()))
		pieces := models.Unpack(s.spec.Network, w.theta)
		terms := s.spec.loss(models.At(s.spec.Network, pieces)).Build(positives, negatives)
		w, norm := s.spec.Optimizer.descend(w, terms.Loss, pieces, hyper)
		out := w.nodes()

		x, pool := start()
		next, packed := s.explored(r, s.network(w.theta), x, s.blockLen[0], true)
		out = append(out, next)
		if pool != nil {
			out = append(out, pool)
		}
		scores := Concatenate([]*Node{vec(terms.Loss), vec(terms.Positives), vec(terms.Negatives), vec(terms.Penalty), vec(norm)}, 0)
		return append(out, Concatenate([]*Node{packed, scores}, 0))
	})
}

func (s *Shard) compileScan() (*backend.Program, error) {
	in := append([]backend.Input{s.thetaInput("theta")}, s.drawInputs()...)
	in = append(in, s.kernelInputs(s.blockLen[0])...)
	return backend.Compile(s.backend, "scan", in, func(nodes []*Node) []*Node {
		r := &reader{nodes}
		network := s.network(r.next())
		_, start := s.drawn(r)
		x, pool := start()
		next, packed := s.explored(r, network, x, s.blockLen[0], true)
		out := []*Node{next}
		if pool != nil {
			out = append(out, pool)
		}
		return append(out, packed)
	})
}

func (s *Shard) compileBlock(n int) (*backend.Program, error) {
	in := []backend.Input{s.thetaInput("theta"), {Name: "live", Shape: shapes.Make(f32, s.spec.rows(), s.spec.dim())}}
	in = append(in, s.kernelInputs(n)...)
	return backend.Compile(s.backend, fmt.Sprintf("block of %d", n), in, func(nodes []*Node) []*Node {
		r := &reader{nodes}
		network := s.network(r.next())
		next, packed := s.explored(r, network, r.next(), n, false)
		return []*Node{next, packed}
	})
}

func flatten(pieces []*Node) *Node {
	flat := make([]*Node, len(pieces))
	for i, p := range pieces {
		flat[i] = Reshape(p, p.Shape().Size())
	}
	return Concatenate(flat, 0)
}

func vec(scalar *Node) *Node { return Reshape(scalar, 1) }
