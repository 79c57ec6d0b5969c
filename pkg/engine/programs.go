package engine

import (
	"fmt"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
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

// drawInputs are the inputs that addDraw uploads, in its order, of a training step or a mere scan.
func (s *Shard) drawInputs(train bool) (in []backend.Input) {
	rows, dim := s.spec.rows(), s.spec.dim()
	if train && s.spec.Weighted {
		in = append(in, backend.Input{Name: "weights", Shape: shapes.Make(f32, s.spec.negatives())})
	}
	in = append(in, backend.Input{Name: "live", Shape: shapes.Make(f32, rows, dim)})
	switch {
	case s.spec.FromData:
		return append(in, backend.Input{Name: "starts", Shape: shapes.Make(f32, rows, dim)})
	case s.spec.byLabel() && train:
		return append(in, backend.Input{Name: "negatives", Shape: shapes.Make(dtypes.Int32, s.spec.negatives())})
	case s.spec.byLabel():
		return in
	}
	in = append(in, backend.Input{Name: "permutation", Shape: shapes.Make(dtypes.Int32, rows)})
	if s.spec.moving() {
		in = append(in, backend.Input{Name: "incoming", Shape: shapes.Make(f32, rows, dim)})
	}
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
	in := []backend.Input{
		{Name: "key", Shape: samplers.KeyShape},
		{Name: "beta", Shape: shapes.Make(f32, rows)},
		{Name: "step_size", Shape: shapes.Make(f32, rows)},
	}
	if s.spec.Variational {
		in = append(in, backend.Input{Name: "reference", Shape: shapes.Make(f32, lawSize(s.spec.dim()))})
	}
	return append(in,
		backend.Input{Name: "step_table", Shape: shapes.Make(f32, n)},
		backend.Input{Name: "noise_table", Shape: shapes.Make(f32, n)})
}

// sweep applies the swap decisions to the states that their energies were computed for.
func sweep(live, perm *Node) *Node { return takeRows(live, perm) }

func takeRows(x, index *Node) *Node { return Gather(x, ExpandAxes(index, -1)) }

// nextDraw is a [Draw] in a graph.
type nextDraw struct {
	negatives, weights *Node                  // of a training step; weights is nil where negatives count alike
	start              func() (x, pool *Node) // starts of the next scan, and the pool after it, nil without one
}

// readDraw reads the inputs of drawInputs.
func (s *Shard) readDraw(r *reader, train bool) (d nextDraw) {
	if train && s.spec.Weighted {
		d.weights = r.next()
	}
	live := r.next()
	if s.spec.byLabel() {
		if train {
			d.negatives = takeRows(live, r.next())
		}
		d.start = func() (*Node, *Node) { return live, nil }
		return d
	}
	swept := live
	switch {
	case s.spec.moving():
		perm := r.next()
		swept = takeRows(Concatenate([]*Node{live, r.next()}, 0), perm)
	case !s.spec.FromData:
		swept = sweep(live, r.next())
	}
	if train {
		d.negatives = Slice(swept, AxisRange(s.spec.rows()-s.spec.negatives(), s.spec.rows()))
	}
	if s.spec.FromData {
		starts := r.next()
		d.start = func() (*Node, *Node) { return starts, nil }
		return d
	}
	var pool, source, slots, keep, add *Node
	if s.spec.pooled() {
		pool, source, slots = r.next(), r.next(), r.next()
	}
	if s.spec.Mix {
		keep, add = r.next(), r.next()
	}
	d.start = func() (x, newPool *Node) {
		x = swept
		if pool != nil {
			// One gather writes the live columns back, another draws the next ones: no scatter.
			newPool = takeRows(Concatenate([]*Node{pool, swept}, 0), source)
			x = takeRows(newPool, slots)
		}
		if keep != nil {
			x = Add(Where(wide(GreaterThan(keep, ZerosLike(keep)), x), x, ZerosLike(x)), add)
		}
		return x, newPool
	}
	return d
}

func (s *Shard) compileTrain() (*backend.Program, error) {
	if s.spec.Batch < 1 {
		return nil, fmt.Errorf("engine: train: batch %d, want at least 1", s.spec.Batch)
	}
	in := s.spec.Optimizer.weightInputs(s.params)
	in = append(in,
		backend.Input{Name: "positives", Shape: shapes.Make(f32, s.spec.Batch, s.spec.dim())},
		backend.Input{Name: "hyper", Shape: shapes.Make(f32, hyperSize)})
	in = append(in, s.drawInputs(true)...)
	in = append(in, s.kernelInputs(s.blockLen[0])...)
	return backend.Compile(s.backend, "train", in, func(nodes []*Node) []*Node {
		r := &reader{nodes}
		w := s.spec.Optimizer.readWeights(r)
		positives, hyper := r.next(), r.next()
		d := s.readDraw(r, true)

		pieces := models.Unpack(s.spec.Network, w.theta)
		terms := s.spec.loss(models.At(s.spec.Network, pieces), nil, d.weights).Build(positives, d.negatives)
		w, norm := s.spec.Optimizer.descend(w, terms.Loss, pieces, hyper)
		out := w.nodes()

		x, pool := d.start()
		next, packed := s.explored(r, s.network(w.theta), x, s.blockLen[0], true)
		out = append(out, next)
		if pool != nil {
			out = append(out, pool)
		}
		return append(out, Concatenate([]*Node{packed, packScores(terms, norm)}, 0))
	})
}

func (s *Shard) compileScan() (*backend.Program, error) {
	in := append([]backend.Input{s.thetaInput("theta")}, s.drawInputs(false)...)
	in = append(in, s.kernelInputs(s.blockLen[0])...)
	return backend.Compile(s.backend, "scan", in, func(nodes []*Node) []*Node {
		r := &reader{nodes}
		network := s.network(r.next())
		d := s.readDraw(r, false)
		x, pool := d.start()
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

// packScores is what unpackScores reads.
func packScores(t losses.Terms, norm *Node) *Node {
	return Concatenate([]*Node{vec(t.Loss), vec(t.Positives), vec(t.Negatives), vec(t.Penalty), vec(norm)}, 0)
}

func unpackScores(v []float64) Scores { return Scores{v[0], v[1], v[2], v[3], v[4]} }

// packed is the inverse of unpackScores.
func (s Scores) packed() []float32 {
	return to32([]float64{s.Loss, s.Positives, s.Negatives, s.Penalty, s.GradNorm})
}

// NumScores is the number of figures of a step that travel behind the parameters.
const NumScores = 5

func flatten(pieces []*Node) *Node {
	flat := make([]*Node, len(pieces))
	for i, p := range pieces {
		flat[i] = Reshape(p, p.Shape().Size())
	}
	return Concatenate(flat, 0)
}

func vec(scalar *Node) *Node { return Reshape(scalar, 1) }
