package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// enoughAttempts of every pair tell its rejection rate to 1/16, one standard error: what a ladder can be spaced by.
const enoughAttempts = 64

// Respaced is a ladder of another number of rungs for the training that a group's cut is of: at equal shares of the barrier
// where the cut has seen its pairs often enough, else at equal distances in the ln β of the ladder that it has. The ends stay.
func Respaced(cut *checkpoint.Cut, rungs int) ([]float64, error) {
	books, err := readLadder(cut)
	if err != nil {
		return nil, err
	}
	if rungs < 2 {
		return nil, fmt.Errorf("engine: cut of step %d: a ladder of %d rungs, want at least 2", cut.Step, rungs)
	}
	if curve := seenBarrier(cut.Files["chains"], books); curve != nil {
		if ladder, err := curve.Ladder(rungs); err == nil { // shares too small to tell two β apart are no reason to fail
			return ladder.Betas(), nil
		}
	}
	return spread(books.Betas, rungs), nil
}

// readLadder reads the books of a cut that has a ladder.
func readLadder(cut *checkpoint.Cut) (*Books, error) {
	books, err := ReadBooks(cut)
	if err == nil && books.Live == nil {
		err = fmt.Errorf("engine: cut of step %d: a single rung, want a ladder of at least 2", cut.Step)
	}
	return books, err
}

// seenBarrier is the barrier as the swaps behind a cut show it; nil where they were too few.
func seenBarrier(chains []checkpoint.Tensor, b *Books) *tempering.Curve {
	var seen tempering.AdapterState
	read := reads{tensors: chains}
	get(&read, "swap_alpha", &seen.Alpha)
	get(&read, "swap_weight", &seen.Weight)
	get(&read, "swap_square", &seen.Square)
	get(&read, "swap_fresh", &seen.Fresh)
	ladder, err := tempering.LadderOf(b.Betas)
	if read.err != nil || err != nil {
		return nil
	}
	// What the means say does not hang on how soon they forget.
	pairs, err := tempering.NewAdapter(tempering.AdapterSettings{Rungs: b.Rungs, Ladders: b.Chains, HalfLife: 1, Gain: 1})
	if err != nil || pairs.Restore(seen) != nil || slices.Min(pairs.Counts()) < enoughAttempts {
		return nil
	}
	curve, err := pairs.Curve(ladder)
	if err != nil {
		return nil
	}
	return curve
}

// Reladder is the cut of a group on another ladder, from which its training can go on under an experiment with as many rungs.
// The given cut stays as it is; parameters, optimizer and averaging are shared with it.
//
// Every rung of the shorter ladder is paired with one of the longer, the ends with the ends and the others with whom they are
// next to; a pair keeps its states. A rung that is new starts from a copy of its hotter neighbour's states, as a walker of its
// own whose lineage number is that of the original plus 1; all columns are then warming, see [tempering.Ensemble.Warming]. The
// walkers of a rung that is gone retire. Walkers keep their order under labels from 0 on, new ones follow. Step sizes are
// interpolated; what was learnt of the pairs, and restarts and trips, are forgotten.
func Reladder(cut *checkpoint.Cut, betas []float64) (*checkpoint.Cut, error) {
	fail := func(err error) (*checkpoint.Cut, error) {
		return nil, fmt.Errorf("engine: ladder of the cut of step %d: %w", cut.Step, err)
	}
	books, err := readLadder(cut)
	if err != nil {
		return nil, err
	}
	if _, err := tempering.LadderOf(betas); err != nil {
		return fail(err)
	}
	switch k := len(betas); {
	case k < 2 || k > math.MaxInt32/books.Pool:
		return fail(fmt.Errorf("%d rungs, want at least 2 and, of %d columns, at most %d", k, books.Pool, math.MaxInt32/books.Pool))
	case books.Betas[0] == 0 && betas[0] != 0:
		return fail(fmt.Errorf("β = %g on rung 0, want 0 on the linear path, whose hottest rung is the reference", betas[0]))
	case books.Betas[0] > 0 && betas[0] == 0:
		return fail(errors.New("β = 0 on rung 0, want a positive number on the power path"))
	}
	var meta cutMeta
	if err := json.Unmarshal(cut.Meta, &meta); err != nil {
		return fail(err)
	}
	chains, err := relaid(cut.Files["chains"], books, betas)
	if err != nil {
		return fail(err)
	}
	meta.Rungs, meta.Swaps, meta.SwapMoves = len(betas), 0, 0
	out := &checkpoint.Cut{Step: cut.Step, Files: map[string][]checkpoint.Tensor{}}
	for name, file := range cut.Files {
		out.Files[name] = file
	}
	out.Files["chains"] = chains
	if out.Meta, err = json.Marshal(meta); err != nil {
		return fail(err)
	}
	if _, err := ReadBooks(out); err != nil {
		return fail(err)
	}
	return out, nil
}

// relaid are the chains of a cut on another ladder.
func relaid(chains []checkpoint.Tensor, b *Books, betas []float64) ([]checkpoint.Tensor, error) {
	k, pairs := len(betas), len(betas)-1
	from := sources(b.Betas, betas)
	walkers := rewalked(b.Live, from, b.Pool)
	anew := map[string]any{
		"betas":  slices.Clone(betas),
		"labels": walkers.Labels, "lineage": walkers.Lineage, "direction": walkers.Direction, "restarts": walkers.Restarts,
		"trips": walkers.Trips, "since": walkers.Since, "warming": walkers.Warming, "swapped": walkers.Swapped, "pair_attempts": walkers.Attempts,
		"pair_accepted": walkers.Accepted, "pair_alpha": walkers.AlphaSum, "up": walkers.Up, "down": walkers.Down,
		"swap_alpha": make([]float64, pairs), "swap_weight": make([]float64, pairs), "swap_square": make([]float64, pairs), "swap_fresh": make([]float64, pairs),
		"energy_products": make([]float64, 3*k),
		"energies":        []float64{}, // of states that are not all there any more
		"step_sum":        make([]float64, k), "step_count": make([]uint64, k),
		"rows": identityPerm(k * b.Chains), // every chain is in its own row
	}
	out := slices.Clone(chains)
	for i, t := range out {
		var err error
		switch t.Name {
		case "live":
			out[i], err = b.moved(t, from, b.Chains)
		case "pool":
			out[i], err = b.moved(t, from, b.Pool)
		case "step_log":
			var logs []float64
			if logs, err = checkpoint.Values[float64](chains, t.Name, b.Rungs); err == nil {
				out[i] = vector(t.Name, interpolated(b.Betas, logs, betas))
			}
		case "weights":
			var slots []int32
			if slots, err = b.liveSlots(chains); err == nil {
				out[i] = vector(t.Name, warmWeights(t.Shape[0], slots, walkers.Warming))
			}
		default:
			if data, ok := anew[t.Name]; ok {
				out[i] = tensorOf(t.Name, data)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// tensorOf is a vector of one of the types of a cut.
func tensorOf(name string, data any) checkpoint.Tensor {
	switch v := data.(type) {
	case []bool:
		return vector(name, v)
	case []uint8:
		return vector(name, v)
	case []int32:
		return vector(name, v)
	case []uint32:
		return vector(name, v)
	case []uint64:
		return vector(name, v)
	}
	return vector(name, data.([]float64))
}

// moved are the states of so many columns, those of every rung from where it starts.
func (b *Books) moved(t checkpoint.Tensor, from []source, columns int) (checkpoint.Tensor, error) {
	rows, err := checkpoint.Values[float32]([]checkpoint.Tensor{t}, t.Name, b.Rungs*columns, b.Dim)
	if err != nil {
		return t, err
	}
	size := columns * b.Dim
	data := make([]float32, 0, len(from)*size)
	for _, s := range from {
		data = append(data, rows[s.rung*size:(s.rung+1)*size]...)
	}
	return checkpoint.Tensor{Name: t.Name, Shape: []int{len(from) * columns, b.Dim}, Data: data}, nil
}

// rewalked are the walkers of M columns on another ladder.
func rewalked(old *tempering.State, from []source, columns int) tempering.State {
	k, pairs := len(from), len(from)-1
	grown := slices.ContainsFunc(from, func(s source) bool { return s.copied })
	s := tempering.State{
		Labels: make([]int32, k*columns), Lineage: make([]uint32, k*columns), Direction: make([]uint8, k*columns), Scans: old.Scans,
		Restarts: make([]uint64, columns), Trips: make([]uint64, columns), Since: slices.Clone(old.Since), Warming: slices.Clone(old.Warming),
		Swapped: make([]bool, pairs*columns), Attempts: make([]uint64, pairs), Accepted: make([]uint64, pairs), AlphaSum: make([]float64, pairs),
		Up: make([]uint64, k), Down: make([]uint64, k),
	}
	for c := range columns {
		var kept []int32 // labels, in order
		for _, f := range from {
			if !f.copied {
				kept = append(kept, old.Labels[f.rung*columns+c])
			}
		}
		slices.Sort(kept)
		fresh := len(kept)
		for rung, f := range from {
			was := old.Labels[f.rung*columns+c]
			label, _ := slices.BinarySearch(kept, was)
			lineage := old.Lineage[int(was)*columns+c]
			if f.copied {
				label, lineage = fresh, lineage+1
				fresh++
			}
			s.Labels[rung*columns+c], s.Lineage[label*columns+c] = int32(label), lineage
			// Only a walk from rung 0 to the target that began on this ladder ends the warming.
			if !grown {
				s.Direction[label*columns+c] = old.Direction[int(was)*columns+c]
			}
		}
		s.Warming[c] = s.Warming[c] || grown
		s.Since[c] = max(s.Since[c], s.Scans[c]-min(s.Scans[c], 2*uint64(k)))
	}
	return s
}

// liveSlots is the column of each chain that scans move, −1 where it is none of the pool's.
func (b *Books) liveSlots(chains []checkpoint.Tensor) ([]int32, error) {
	p, err := b.pages(chains)
	if err != nil || p.write != nil {
		return p.write, err
	}
	return identityPerm(b.Chains), nil
}

// warmWeights are n weights of negatives, those of the target rung last, as after a sweep that tried no pair: the columns that
// are not warming count alike, or all where all are warming.
func warmWeights(n int, slots []int32, warming []bool) []float32 {
	cold := func(slot int32) bool { return slot >= 0 && warming[slot] }
	warm := 0
	for _, slot := range slots {
		if !cold(slot) {
			warm++
		}
	}
	out := make([]float32, n)
	for j, slot := range slots {
		switch at := n - len(slots) + j; {
		case warm == 0:
			out[at] = 1 / float32(len(slots))
		case !cold(slot):
			out[at] = 1 / float32(warm)
		}
	}
	return out
}
