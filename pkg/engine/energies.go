package engine

import (
	"fmt"
	"slices"

	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// energyChunk is the number of points of one call of an energyProgram: few of large states.
func energyChunk(dim int) int { return max(64, min(4096, 1<<18/dim)) }

// energyProgram evaluates an energy at any number of points, in chunks of one shape.
type energyProgram struct {
	backend     *backend.Backend
	dim, params int
	build       func(theta, x *Node) *Node
	program     *backend.Program
}

func newEnergyProgram(b *backend.Backend, dim, params int, build func(theta, x *Node) *Node) *energyProgram {
	return &energyProgram{backend: b, dim: dim, params: params, build: build}
}

func (e *energyProgram) close() {
	if e != nil && e.program != nil {
		e.program.Close()
	}
}

// run evaluates at points x [n·dim] under theta, in float32.
func (e *energyProgram) run(theta *tensors.Tensor, x []float32) ([]float64, error) {
	if len(x)%e.dim != 0 {
		return nil, fmt.Errorf("engine: energies: %d numbers, want a multiple of the dimension %d", len(x), e.dim)
	}
	size := energyChunk(e.dim)
	if e.program == nil {
		in := []backend.Input{{Name: "theta", Shape: shapes.Make(f32, e.params)}, {Name: "x", Shape: shapes.Make(f32, size, e.dim)}}
		p, err := backend.Compile(e.backend, "energies", in, func(nodes []*Node) []*Node {
			return []*Node{e.build(nodes[0], nodes[1])}
		})
		if err != nil {
			return nil, err
		}
		e.program = p
	}
	out := make([]float64, 0, len(x)/e.dim)
	for at := 0; at < len(x); at += size * e.dim {
		chunk := make([]float32, size*e.dim)
		n := copy(chunk, x[at:]) / e.dim
		in := tensors.FromFlatDataAndDimensions(chunk, size, e.dim)
		res, err := e.program.Run(theta, in)
		backend.Release(in)
		if err != nil {
			return nil, fmt.Errorf("engine: %w", err)
		}
		values, err := backend.Read[float32](res[0])
		backend.Release(res...)
		if err != nil {
			return nil, fmt.Errorf("engine: %w", err)
		}
		for _, v := range values[:n] {
			out = append(out, float64(v))
		}
	}
	return out, nil
}

// Energies evaluates E at points x [n·dim], in float32, with the averaged parameters where the optimizer keeps them.
func (s *Shard) Energies(x []float32) ([]float64, error) {
	theta := s.theta
	if s.ema != nil {
		theta = s.ema
	}
	return s.energyProgram().run(theta, x)
}

// energiesAt is Energies with other parameters.
func (s *Shard) energiesAt(theta, x []float32) ([]float64, error) {
	t := tensors.FromFlatDataAndDimensions(slices.Clone(theta), s.params)
	defer backend.Release(t)
	return s.energyProgram().run(t, x)
}

func (s *Shard) energyProgram() *energyProgram {
	if s.energies == nil {
		s.energies = newEnergyProgram(s.backend, s.spec.dim(), s.params, func(theta, x *Node) *Node {
			return s.spec.energy(s.network(theta))(x)
		})
	}
	return s.energies
}

// withBase builds E = f − log q; nil for q is E = f.
func withBase(f models.Fn, q *models.Gaussian) func(x *Node) *Node {
	if q == nil {
		return f
	}
	return func(x *Node) *Node { return Sub(f(x), q.LogDensity(x)) }
}
