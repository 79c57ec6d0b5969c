package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// state is a chain: V of where it stands, and the walker that brought it there.
type state struct {
	V      float64
	Walker uint32
}

// index is, of every scan, the walker of each row.
type index [][]uint32

func newIndex(scans, rows int) index {
	out := make(index, scans)
	for i := range out {
		out[i] = make([]uint32, rows)
	}
	return out
}

// gap is V's deviation times the β between neighbours. V has a normal law on every rung, so that the log ratio of a swap is
// N(−gap², 2·gap²), and a third of the swaps is accepted.
const gap = 1.368

// explored is where a chain of a rung goes in a scan: an autoregression with the law of the rung, N(β·s², s²): V is the log ratio of target and reference.
func explored(from state, scan uint64, rung, rungs, ladder int) state {
	s := gap * float64(rungs-1)
	center, keep := s*s*float64(rung)/float64(rungs-1), 0.5
	if scan == 0 {
		from.V = center
	}
	z := rand.New(rand.NewPCG(scan, uint64(rung)<<32|uint64(ladder))).NormFloat64()
	from.V = center + keep*(from.V-center) + s*math.Sqrt(1-keep*keep)*z
	return from
}

func newEnsemble(l engine.Layout) (*tempering.Ensemble, error) {
	ladder, err := tempering.NewLadder(tempering.Config{Rungs: l.Rungs, Chains: l.Chains, Ladder: "uniform"}.WithDefaults())
	if err != nil {
		return nil, err
	}
	return tempering.NewEnsemble(tempering.Settings{Ladder: ladder, Columns: l.Chains, Seed: 1})
}

// serial makes the scans in one loop.
func serial(rungs, chains, scans int) (index, error) {
	ensemble, err := newEnsemble(engine.Layout{Rungs: rungs, Chains: chains})
	if err != nil {
		return nil, err
	}
	out := newIndex(scans, rungs*chains)
	rows, v := make([]state, rungs*chains), make([]float64, rungs*chains)
	for row := range rows {
		rows[row].Walker = uint32(row)
	}
	for scan := range scans {
		for row := range rows {
			rows[row] = explored(rows[row], uint64(scan), row/chains, rungs, row%chains)
			v[row] = rows[row].V
		}
		swept, err := ensemble.Sweep(uint64(scan), nil, v)
		if err != nil {
			return nil, err
		}
		next := make([]state, len(rows))
		for row, from := range swept.Perm {
			next[row] = rows[from]
			out[scan][row] = next[row].Walker
		}
		rows = next
	}
	return out, nil
}

// member stands in for the trainer of a replica's rungs. It posts and pulls what that does: energies to the lead, those of
// all back from it, and the states of accepted swaps between neighbours.
type member struct {
	layout   engine.Layout
	local    []uint32
	mesh     engine.Mesh
	ensemble *tempering.Ensemble
	rows     map[uint32][]state // of the local shards
	seen     index
	step     int
}

func newMember(l engine.Layout, local []uint32, mesh engine.Mesh, seen index) (*member, error) {
	ensemble, err := newEnsemble(l)
	if err != nil {
		return nil, err
	}
	m := &member{layout: l, local: local, mesh: mesh, ensemble: ensemble, rows: map[uint32][]state{}, seen: seen}
	for _, shard := range local {
		m.rows[shard] = make([]state, l.Chains)
		for j := range m.rows[shard] {
			m.rows[shard][j].Walker = uint32(int(shard)*l.Chains + j)
		}
	}
	return m, nil
}

// TrainStep implements [engine.Learner].
func (m *member) TrainStep() (engine.Report, error) {
	scan := uint64(m.step)
	v, err := m.energies(scan)
	if err != nil {
		return engine.Report{}, err
	}
	swept, err := m.ensemble.Sweep(scan, nil, v)
	if err != nil {
		return engine.Report{}, err
	}
	if err := m.swap(scan, swept.Perm); err != nil {
		return engine.Report{}, err
	}
	for _, shard := range m.local {
		for j, row := range m.rows[shard] {
			m.seen[scan][int(shard)*m.layout.Chains+j] = row.Walker
		}
		m.mesh.Release(shard, scan) // whoever posted this scan's energies has what he wanted of those before
	}
	m.step++
	return engine.Report{Step: m.step}, nil
}

// energies explores, and gathers V of all rows by way of the lead.
func (m *member) energies(scan uint64) ([]float64, error) {
	l := m.layout
	for _, shard := range m.local {
		v := make([]float64, l.Chains)
		for j, row := range m.rows[shard] {
			m.rows[shard][j] = explored(row, scan, int(shard), l.Rungs, j)
			v[j] = m.rows[shard][j].V
		}
		m.mesh.Post(engine.Key{Shard: shard, Kind: engine.EnergiesBlob, Scan: scan}, packed(v))
	}
	all := engine.Key{Shard: uint32(l.Lead()), Kind: engine.GatheredBlob, Scan: scan}
	if m.Lead() {
		v := make([]float64, 0, l.Rungs*l.Chains)
		for shard := range uint32(l.Rungs) {
			of, err := pulled[float64](m.mesh, engine.Key{Shard: shard, Kind: engine.EnergiesBlob, Scan: scan}, l.Chains)
			if err != nil {
				return nil, err
			}
			v = append(v, of...)
		}
		m.mesh.Post(all, packed(v))
	}
	return pulled[float64](m.mesh, all, l.Rungs*l.Chains)
}

// swap moves the states of accepted swaps.
func (m *member) swap(scan uint64, perm []int32) error {
	b := m.layout.Chains
	// leaving are the ladders whose states go from a rung to a neighbour.
	leaving := func(from, to int) (ladders []int) {
		for j := range b {
			if to >= 0 && to < m.layout.Rungs && int(perm[to*b+j]) == from*b+j {
				ladders = append(ladders, j)
			}
		}
		return ladders
	}
	key := func(from, to int) engine.Key {
		return engine.Key{Shard: uint32(from), Kind: engine.RowsBlob, Scan: scan, To: uint32(to)}
	}
	for _, shard := range m.local {
		rung := int(shard)
		for _, to := range []int{rung - 1, rung + 1} {
			if ladders := leaving(rung, to); len(ladders) > 0 {
				var rows []state
				for _, j := range ladders {
					rows = append(rows, m.rows[shard][j])
				}
				m.mesh.Post(key(rung, to), packed(rows))
			}
		}
	}
	for _, shard := range m.local {
		rung := int(shard)
		for _, from := range []int{rung - 1, rung + 1} {
			ladders := leaving(from, rung)
			if len(ladders) == 0 {
				continue
			}
			rows, err := pulled[state](m.mesh, key(from, rung), len(ladders))
			if err != nil {
				return err
			}
			for i, j := range ladders {
				m.rows[shard][j] = rows[i]
			}
		}
	}
	return nil
}

func packed[T float64 | state](v []T) []byte {
	data, err := binary.Append(nil, binary.LittleEndian, v)
	if err != nil {
		panic(err) // of fixed size
	}
	return data
}

func pulled[T float64 | state](mesh engine.Mesh, key engine.Key, n int) ([]T, error) {
	data, err := mesh.Pull(context.Background(), key)
	if err != nil {
		return nil, err
	}
	out := make([]T, n)
	if len(data) != binary.Size(out) {
		return nil, fmt.Errorf("%v: %d bytes, want %d", key, len(data), binary.Size(out))
	}
	_, err = binary.Decode(data, binary.LittleEndian, out)
	return out, err
}

// Lead, and what follows, implement [replica.Member]: nothing is learnt and nothing is kept.
func (m *member) Lead() bool                            { return m.rows[uint32(m.layout.Lead())] != nil }
func (m *member) Start() error                          { return nil }
func (m *member) StartAt([]float32) error               { return nil }
func (m *member) Step() int                             { return m.step }
func (m *member) Weights() ([]float32, error)           { return nil, nil }
func (m *member) SetTheta([]float32) error              { return nil }
func (m *member) Theta() ([]float32, error)             { return nil, nil }
func (m *member) Close()                                {}
func (m *member) Params() ([]checkpoint.Tensor, error)  { return nil, nil }
func (m *member) Energies([]float32) ([]float64, error) { return nil, engine.ErrNoEnergy }

// Cut implements [engine.Learner]; it is empty.
func (m *member) Cut() (checkpoint.Cut, error) {
	if !m.Lead() {
		return checkpoint.Cut{}, engine.ErrNotLead
	}
	return checkpoint.Cut{Step: m.step, Meta: json.RawMessage("{}")}, nil
}

// Restore implements [engine.Learner]: a scan cannot be made again.
func (m *member) Restore(*checkpoint.Cut) error {
	return fmt.Errorf("a replica was lost after %d scans", m.step)
}
