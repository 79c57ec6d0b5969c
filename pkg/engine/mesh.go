package engine

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"sync"
)

// Kind says what a blob between shards is.
type Kind uint8

// The kinds of blobs. Numbers are little-endian; [rows] and [dim] are those of the shard that posts. V is what the device
// gave, a float32.
const (
	// EnergiesBlob is float32: V, V0 [rows] each, acceptance and the number of non-finite proposals of the shard's rungs; behind
	// them a uint64, the hash of what they were made from: parameters, β and step sizes, reference, number of the scan and
	// permutation before it, which all processes of a group have alike.
	EnergiesBlob Kind = 1
	RowsBlob     Kind = 2 // float32 [n, dim]: states that go to another shard, in the order of its rows
	GradientBlob Kind = 3 // float32 [P]: a group's gradient
	ThetaBlob    Kind = 4 // float32 [P + scores]: the parameters after a step
	StatesBlob   Kind = 5 // float32 [rows, dim]: all states of a shard
	// NegativesBlob is float32 [n, dim]: the states of a shard that are negatives of the step, for one that learns from them.
	NegativesBlob Kind = 6
	// GatheredBlob is float32: V [K·B] of the group, acceptance [K] and the number of non-finite proposals, from the lead, who
	// gathers the energies for all.
	GatheredBlob Kind = 7
	// PartBlob is float32 [P + scores]: a sum of gradients of slices of a step, and of the scores of those, for the shard that adds
	// it to its own.
	PartBlob Kind = 8
)

// Key names a blob. Every shard posts at most one blob under each.
type Key struct {
	Shard uint32 // that posts it
	Kind  Kind
	Scan  uint64 // in which it is made
	To    uint32 // shard that it is for, of RowsBlob, NegativesBlob and PartBlob; else 0
}

func (k Key) String() string {
	return fmt.Sprintf("%s of shard %d, scan %d", [...]string{"nothing", "energies", "rows", "gradient", "parameters", "states", "negatives", "gathered energies", "part of a gradient"}[min(int(k.Kind), 8)], k.Shard, k.Scan)
}

// Mesh carries blobs between the shards of an experiment, wherever they are. Nothing is pushed: a shard posts what others
// will want, and they pull it from the holder of the shard, who keeps it for all of them.
type Mesh interface {
	// Post keeps data, which belongs to the mesh from then on, under a key until Release. It does not block.
	Post(key Key, data []byte)
	// Pull waits for what a shard posts under a key. The caller must not change it.
	Pull(ctx context.Context, key Key) ([]byte, error)
	// Release drops what a shard posted in scans before the given one: nobody will ask for it.
	Release(shard uint32, scan uint64)
}

// LocalMesh is a mesh within one process. The zero value is ready.
type LocalMesh struct {
	mu    sync.Mutex
	blobs map[Key]*posted
}

type posted struct {
	there chan struct{} // closed when data is
	data  []byte
}

func (m *LocalMesh) slot(key Key) *posted {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.blobs == nil {
		m.blobs = map[Key]*posted{}
	}
	p := m.blobs[key]
	if p == nil {
		p = &posted{there: make(chan struct{})}
		m.blobs[key] = p
	}
	return p
}

// Post implements [Mesh]. A second blob under a key panics: two shards take each other for themselves.
func (m *LocalMesh) Post(key Key, data []byte) {
	p := m.slot(key)
	p.data = data
	close(p.there)
}

// Pull implements [Mesh].
func (m *LocalMesh) Pull(ctx context.Context, key Key) ([]byte, error) {
	p := m.slot(key)
	select {
	case <-p.there:
		return p.data, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("engine: waiting for %v: %w", key, ctx.Err())
	}
}

// Release implements [Mesh].
func (m *LocalMesh) Release(shard uint32, scan uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key := range m.blobs {
		if key.Shard == shard && key.Scan < scan {
			delete(m.blobs, key)
		}
	}
}

// pull waits for a blob of n numbers.
func pull[T float32 | float64](mesh Mesh, key Key, n int) ([]T, error) {
	data, err := mesh.Pull(context.Background(), key)
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	size := n * binary.Size(T(0))
	if len(data) != size {
		return nil, fmt.Errorf("engine: %v: %d bytes, want %d", key, len(data), size)
	}
	out := make([]T, n)
	// Loops of our own: package binary calls its order at every number, and the shards of a step wait for this.
	switch out := any(out).(type) {
	case []float32:
		for i := range out {
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
		}
	case []float64:
		for i := range out {
			out[i] = math.Float64frombits(binary.LittleEndian.Uint64(data[8*i:]))
		}
	}
	return out, nil
}

// numberBytes are the numbers as a mesh carries them.
func numberBytes[T float32 | float64](v []T) []byte {
	out := make([]byte, len(v)*binary.Size(T(0)))
	switch v := any(v).(type) {
	case []float32:
		for i, x := range v {
			binary.LittleEndian.PutUint32(out[4*i:], math.Float32bits(x))
		}
	case []float64:
		for i, x := range v {
			binary.LittleEndian.PutUint64(out[8*i:], math.Float64bits(x))
		}
	}
	return out
}
