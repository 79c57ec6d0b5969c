package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/kelvin-ebm/kelvin/pkg/buffer"
	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// ErrNoChains is returned for a cut of a training that keeps no chains from step to step.
var ErrNoChains = errors.New("no chains in it")

// Books are what a group's cut says of its chains, read without a device: for people, and for who has to vouch for the cut.
type Books struct {
	Step   int
	Scan   uint64
	Rungs  int              // K
	Chains int              // B, ladders that a scan moves
	Pool   int              // M, columns kept
	Dim    int              // of a state
	Betas  []float64        // [K]
	States []float32        // [K·M·dim], rung by rung from the hottest, as the next scan finds them
	Live   *tempering.State // of the walkers; nil for a single rung
	Buffer buffer.State     // Start is [M]
}

// ReadBooks reads the books of a group's cut and checks the conservation laws: every column holds each of its walkers once,
// and what was drawn from the buffer was written back. [ErrNoChains] where there is nothing to read.
func ReadBooks(cut *checkpoint.Cut) (*Books, error) {
	fail := func(err error) (*Books, error) { return nil, fmt.Errorf("engine: cut of step %d: %w", cut.Step, err) }
	chains := cut.Files["chains"]
	if chains == nil || !slices.ContainsFunc(chains, isNamed("column_start")) {
		return fail(ErrNoChains)
	}
	var meta cutMeta
	if err := json.Unmarshal(cut.Meta, &meta); err != nil {
		return fail(err)
	}
	if meta.Rungs < 1 || meta.Chains < 1 || meta.Pool < 1 || meta.Dim < 1 {
		return fail(fmt.Errorf("%d rungs, %d chains, %d columns of %d numbers, want at least 1 of each", meta.Rungs, meta.Chains, meta.Pool, meta.Dim))
	}
	b := &Books{Step: cut.Step, Scan: meta.Scan, Rungs: meta.Rungs, Chains: meta.Chains, Pool: meta.Pool, Dim: meta.Dim, Buffer: meta.Buffer}
	read := reads{tensors: chains}
	get(&read, "betas", &b.Betas)
	get(&read, "column_start", &b.Buffer.Start)
	if read.err != nil {
		return fail(read.err)
	}
	if b.Rungs > 1 {
		live, err := readWalkers(chains, meta.Swaps)
		if err != nil {
			return fail(err)
		}
		b.Live = &live
	}
	if err := b.Check(); err != nil {
		return fail(err)
	}
	pages, err := b.pages(chains)
	if err != nil {
		return fail(err)
	}
	b.States = make([]float32, b.Rungs*b.Pool*b.Dim)
	pages.each(func(column, row []float32) { copy(column, row) }, b.States)
	return b, nil
}

// Check verifies the conservation laws.
func (b *Books) Check() error {
	// A ring alone drops columns, and has a pointer that moves.
	ring := b.Buffer.Dropped > 0 || b.Buffer.Pointer > 0
	columns, err := buffer.New(buffer.Settings{Slots: b.Pool, Live: b.Chains, Ring: ring})
	if err != nil {
		return err
	}
	if err := columns.Restore(b.Buffer); err != nil {
		return err
	}
	if b.Live == nil {
		return nil
	}
	ladder, err := tempering.LadderOf(b.Betas)
	if err != nil {
		return err
	}
	if ladder.NumRungs() != b.Rungs {
		return fmt.Errorf("betas: %d numbers, want %d", ladder.NumRungs(), b.Rungs)
	}
	// Pairs that are closed for a while belong to windowed, which refuses nothing that the others allow.
	walkers, err := tempering.NewEnsemble(tempering.Settings{Ladder: ladder, Columns: b.Pool, Schedule: "windowed"})
	if err != nil {
		return err
	}
	return walkers.Restore(*b.Live)
}

// Write puts states, walker labels and the columns' starts back into the cut that they were read from; the cut that its
// tensors are shared with changes too. Nothing is written where the conservation laws do not hold.
func (b *Books) Write(cut *checkpoint.Cut) error {
	fail := func(err error) error { return fmt.Errorf("engine: cut of step %d: %w", cut.Step, err) }
	if want := b.Rungs * b.Pool * b.Dim; len(b.States) != want {
		return fail(fmt.Errorf("%d numbers in the states, want %d", len(b.States), want))
	}
	if i := slices.IndexFunc(b.States, notFinite); i >= 0 {
		return fail(fmt.Errorf("number %d of the states is %g, want finite ones", i, b.States[i]))
	}
	if err := b.Check(); err != nil {
		return fail(err)
	}
	was, err := ReadBooks(cut)
	if err != nil {
		return err
	}
	if was.Rungs != b.Rungs || was.Pool != b.Pool || was.Dim != b.Dim {
		return fail(fmt.Errorf("%d rungs of %d columns of %d numbers, want %d of %d of %d", b.Rungs, b.Pool, b.Dim, was.Rungs, was.Pool, was.Dim))
	}
	chains := cut.Files["chains"]
	pages, err := b.pages(chains)
	if err != nil {
		return fail(err)
	}
	pages.each(func(column, row []float32) { copy(row, column) }, b.States)
	replace := func(name string, data any) {
		if i := slices.IndexFunc(chains, isNamed(name)); i >= 0 {
			chains[i].Data = data
		}
	}
	replace("column_start", slices.Clone(b.Buffer.Start))
	if b.Live != nil {
		replace("labels", slices.Clone(b.Live.Labels))
	}
	// The energies of the last scan are those of the states that were there.
	if i := slices.IndexFunc(chains, isNamed("energies")); i >= 0 && !slices.Equal(was.States, b.States) {
		chains[i] = vector("energies", []float64{})
	}
	return nil
}

// pages are the arrays in which a cut keeps the states of all columns.
type pages struct {
	books      *Books
	live, pool []float32
	write      []int32 // slot that a live column is written to before the next scan; nil without a pool
}

func (b *Books) pages(chains []checkpoint.Tensor) (pages, error) {
	p := pages{books: b}
	var err error
	if p.live, err = checkpoint.Values[float32](chains, "live", b.Rungs*b.Chains, b.Dim); err != nil {
		return p, err
	}
	if !slices.ContainsFunc(chains, isNamed("pool")) {
		if b.Pool != b.Chains {
			return p, fmt.Errorf("no pool for %d columns of which %d are live", b.Pool, b.Chains)
		}
		return p, nil
	}
	if p.pool, err = checkpoint.Values[float32](chains, "pool", b.Rungs*b.Pool, b.Dim); err != nil {
		return p, err
	}
	if p.write, err = checkpoint.Values[int32](chains, "write", b.Chains); err != nil {
		return p, err
	}
	for _, slot := range p.write {
		if slot < -1 || int(slot) >= b.Pool {
			return p, fmt.Errorf("write: slot %d, want -1 to %d", slot, b.Pool-1)
		}
	}
	return p, nil
}

// each calls f with every state [dim] of an array of all columns and the place in the cut that it is kept at: among the live
// rows for a column that a scan has just moved, else in the pool.
func (p pages) each(f func(column, row []float32), columns []float32) {
	k, b, m, dim := p.books.Rungs, p.books.Chains, p.books.Pool, p.books.Dim
	moved := make([]int, m) // live column of each slot, −1 for none
	for c := range moved {
		if moved[c] = c; p.pool != nil {
			moved[c] = -1
		}
	}
	for j, slot := range p.write {
		if slot >= 0 {
			moved[slot] = j
		}
	}
	for rung := range k {
		for c, j := range moved {
			from, at := p.live, rung*b+j
			if j < 0 {
				from, at = p.pool, rung*m+c
			}
			column := (rung*m + c) * dim
			f(columns[column:column+dim], from[at*dim:(at+1)*dim])
		}
	}
}

// isNamed says whether a tensor has a name.
func isNamed(name string) func(checkpoint.Tensor) bool {
	return func(t checkpoint.Tensor) bool { return t.Name == name }
}

// readWalkers reads what a cut says of the walkers.
func readWalkers(chains []checkpoint.Tensor, nonFinite uint64) (tempering.State, error) {
	e := tempering.State{NonFinite: nonFinite}
	read := reads{tensors: chains}
	get(&read, "labels", &e.Labels)
	get(&read, "lineage", &e.Lineage)
	get(&read, "direction", &e.Direction)
	get(&read, "scans", &e.Scans)
	get(&read, "restarts", &e.Restarts)
	get(&read, "trips", &e.Trips)
	get(&read, "warming", &e.Warming)
	get(&read, "pair_attempts", &e.Attempts)
	get(&read, "pair_accepted", &e.Accepted)
	get(&read, "pair_alpha", &e.AlphaSum)
	get(&read, "since", &e.Since)
	get(&read, "swapped", &e.Swapped)
	get(&read, "up", &e.Up)
	get(&read, "down", &e.Down)
	return e, read.err
}
