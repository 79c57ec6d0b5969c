package engine

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/kelvin-ebm/kelvin/pkg/buffer"
	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// cutMeta is what a cut holds beside arrays. Random numbers need no state: the seed, the step and the scan are all.
type cutMeta struct {
	Seed   uint64       `json:"seed"`
	Step   int          `json:"step"`
	Scan   uint64       `json:"scan"`
	Rungs  int          `json:"rungs"`
	Chains int          `json:"chains"`
	Pool   int          `json:"pool"`
	Dim    int          `json:"dim"`
	Swaps  uint64       `json:"non_finite_swaps"`
	Buffer buffer.State `json:"buffer"`

	Fences    uint64  `json:"fences"`   // moves of ladder and step sizes that could have been
	RefitAt   uint64  `json:"refit_at"` // fence of the next refit of a variational reference
	Fitted    float64 `json:"fitted"`   // states summed up for it
	SizeMoves uint64  `json:"step_size_moves"`
	SwapMoves uint64  `json:"ladder_moves"`
	Window    int     `json:"window"` // of the windowed schedule
}

// Cut takes a consistent snapshot of the training: parameters, optimizer, chains with the pending sweep applied, walkers,
// replay buffer. The conservation laws are checked first: a cut that breaks them is an error.
func (t *Trainer) Cut() (checkpoint.Cut, error) {
	if t.perm == nil {
		return checkpoint.Cut{}, ErrNotStarted
	}
	st, err := t.shard.State()
	if err != nil {
		return checkpoint.Cut{}, err
	}
	for _, part := range []struct {
		name string
		v    []float32
	}{{"parameter", st.Theta}, {"coordinate of a chain", st.Live}, {"coordinate in the replay buffer", st.Pool}} {
		if i := slices.IndexFunc(part.v, notFinite); i >= 0 {
			return checkpoint.Cut{}, &NonFiniteError{t.step, fmt.Sprintf("%s (number %d)", part.name, i), float64(part.v[i])}
		}
	}
	sp := t.cfg.Spec
	meta := cutMeta{Seed: sp.Seed, Step: t.step, Scan: t.scan, Rungs: sp.Rungs, Chains: sp.Chains, Pool: sp.Pool, Dim: sp.dim()}
	live := st.Live
	if !sp.FromData {
		live = permuted(st.Live, t.perm, sp.dim())
	}
	chains := []checkpoint.Tensor{{Name: "live", Shape: []int{sp.rows(), sp.dim()}, Data: live}}
	if st.Rows != nil {
		chains = append(chains, vector("rows", permuted(st.Rows, t.perm, 1)))
	}
	if sp.pooled() {
		chains = append(chains,
			checkpoint.Tensor{Name: "pool", Shape: []int{sp.Rungs * sp.Pool, sp.dim()}, Data: st.Pool},
			vector("write", t.plan.Write))
	}
	if t.ensemble != nil {
		if err := t.ensemble.Check(); err != nil {
			return checkpoint.Cut{}, fmt.Errorf("engine: cut at step %d: %w", t.step, err)
		}
		e := t.ensemble.Snapshot()
		meta.Swaps = e.NonFinite
		chains = append(chains, vector("labels", e.Labels), vector("lineage", e.Lineage), vector("direction", e.Direction), vector("scans", e.Scans),
			vector("restarts", e.Restarts), vector("trips", e.Trips), vector("warming", e.Warming), vector("pair_attempts", e.Attempts),
			vector("pair_accepted", e.Accepted), vector("pair_alpha", e.AlphaSum), vector("since", e.Since), vector("swapped", e.Swapped),
			vector("up", e.Up), vector("down", e.Down))
	}
	chains = append(chains, t.adaptation(&meta)...)
	if t.buffer != nil {
		if err := t.buffer.Check(); err != nil {
			return checkpoint.Cut{}, fmt.Errorf("engine: cut at step %d: %w", t.step, err)
		}
		meta.Buffer = t.buffer.Snapshot()
		chains = append(chains, vector("column_start", meta.Buffer.Start))
		meta.Buffer.Start = nil
	}
	files := map[string][]checkpoint.Tensor{"chains": chains, "params": named(sp.Network, st.Theta)}
	if st.EMA != nil {
		files["ema"] = named(sp.Network, st.EMA)
	}
	for i, m := range st.Moments {
		files["optimizer"] = append(files["optimizer"], vector(fmt.Sprintf("moment%d", i+1), m))
	}
	raw, err := json.Marshal(meta)
	if err != nil {
		return checkpoint.Cut{}, err
	}
	return checkpoint.Cut{Step: t.step, Files: files, Meta: raw}, nil
}

// Restore puts the trainer where the cut was taken.
func (t *Trainer) Restore(cut *checkpoint.Cut) error {
	fail := func(err error) error { return fmt.Errorf("engine: restore the cut of step %d: %w", cut.Step, err) }
	var meta cutMeta
	if err := json.Unmarshal(cut.Meta, &meta); err != nil {
		return fail(err)
	}
	sp := t.cfg.Spec
	for _, f := range []struct {
		name      string
		got, want any
	}{{"seed", meta.Seed, sp.Seed}, {"rungs", meta.Rungs, sp.Rungs}, {"chains", meta.Chains, sp.Chains}, {"buffer size", meta.Pool, sp.Pool}, {"dimension", meta.Dim, sp.dim()}} {
		if f.got != f.want {
			return fail(fmt.Errorf("%s is %v, the experiment's is %v", f.name, f.got, f.want))
		}
	}
	chains := cut.Files["chains"]
	st := State{}
	var err error
	if st.Theta, err = flat(sp.Network, cut.Files["params"]); err != nil {
		return fail(err)
	}
	if sp.Optimizer.EMA > 0 {
		if st.EMA, err = flat(sp.Network, cut.Files["ema"]); err != nil {
			return fail(err)
		}
	}
	for i := range sp.Optimizer.moments() {
		m, err := checkpoint.Values[float32](cut.Files["optimizer"], fmt.Sprintf("moment%d", i+1), -1)
		if err != nil {
			return fail(err)
		}
		st.Moments = append(st.Moments, m)
	}
	if st.Live, err = checkpoint.Values[float32](chains, "live", sp.rows(), sp.dim()); err != nil {
		return fail(err)
	}
	var plan buffer.Plan
	if sp.pooled() {
		if st.Pool, err = checkpoint.Values[float32](chains, "pool", sp.Rungs*sp.Pool, sp.dim()); err != nil {
			return fail(err)
		}
		if plan.Write, err = checkpoint.Values[int32](chains, "write", sp.Chains); err != nil {
			return fail(err)
		}
		for _, slot := range plan.Write {
			if slot < -1 || int(slot) >= sp.Pool {
				return fail(fmt.Errorf("write: slot %d, want -1 to %d", slot, sp.Pool-1))
			}
		}
	}
	if t.buffer != nil {
		if meta.Buffer.Start, err = checkpoint.Values[uint64](chains, "column_start", -1); err != nil {
			return fail(err)
		}
		if err := t.buffer.Restore(meta.Buffer); err != nil {
			return fail(err)
		}
	}
	// First: a new window forgets which pairs swapped in the old one.
	if err := t.restoreAdaptation(chains, meta); err != nil {
		return fail(err)
	}
	if t.ensemble != nil {
		e, err := readWalkers(chains, meta.Swaps)
		if err != nil {
			return fail(err)
		}
		if err := t.ensemble.Restore(e); err != nil {
			return fail(err)
		}
	}
	if sp.Exchange == "label" {
		if st.Rows, err = checkpoint.Values[int32](chains, "rows", sp.rows()); err != nil {
			return fail(err)
		}
	}
	if err := t.shard.Load(st); err != nil {
		return fail(err)
	}
	t.step, t.scan, t.plan = meta.Step, meta.Scan, plan
	t.perm = identityPerm(sp.rows())
	t.tablesAt = tables{math.NaN(), math.NaN()}
	return t.setSteps(t.step)
}

// adaptation is what a cut holds of ladder, step sizes and reference.
func (t *Trainer) adaptation(meta *cutMeta) []checkpoint.Tensor {
	a := &t.adapting
	meta.Fences, meta.RefitAt, meta.Fitted = a.fences, a.refitAt, a.fitted.n
	out := []checkpoint.Tensor{vector("betas", a.ladder.Betas())}
	if a.swaps != nil {
		swaps := a.swaps.Snapshot()
		meta.SwapMoves, meta.Window = swaps.Moves, t.ensemble.Window()
		var energies []float64 // in the order of the states, whose sweep a cut has applied
		if t.drift.before != nil {
			energies = permuted(t.drift.before, t.perm, 1)
		}
		out = append(out, vector("swap_alpha", swaps.Alpha), vector("swap_weight", swaps.Weight), vector("swap_square", swaps.Square), vector("swap_fresh", swaps.Fresh),
			vector("energy_products", slices.Concat(t.moves.aa, t.moves.bb, t.moves.ab)), vector("energies", energies))
	}
	if a.sizes != nil {
		sizes := a.sizes.Snapshot()
		meta.SizeMoves = sizes.Moves
		out = append(out, vector("step_log", sizes.Log), vector("step_sum", sizes.Sum), vector("step_count", sizes.Count))
	}
	if t.cfg.Spec.Variational {
		out = append(out, vector("reference_mean", a.reference.Mean), vector("reference_std", a.reference.Std),
			vector("fitted_sum", slices.Clone(a.fitted.sum)), vector("fitted_squares", slices.Clone(a.fitted.squares)))
	}
	if t.cfg.Spec.Weighted {
		out = append(out, vector("weights", t.weights))
	}
	return out
}

// restoreAdaptation is the inverse of adaptation.
func (t *Trainer) restoreAdaptation(chains []checkpoint.Tensor, meta cutMeta) error {
	a, sp := &t.adapting, t.cfg.Spec
	swaps := tempering.AdapterState{Moves: meta.SwapMoves}
	sizes := tempering.StepSizesState{Moves: meta.SizeMoves}
	q := models.Gaussian{}
	fitted := moments{n: meta.Fitted}
	var betas, products, energies []float64
	read := reads{tensors: chains}
	get(&read, "betas", &betas)
	if a.swaps != nil {
		get(&read, "swap_alpha", &swaps.Alpha)
		get(&read, "swap_weight", &swaps.Weight)
		get(&read, "swap_square", &swaps.Square)
		get(&read, "swap_fresh", &swaps.Fresh)
		get(&read, "energy_products", &products)
		get(&read, "energies", &energies)
	}
	if a.sizes != nil {
		get(&read, "step_log", &sizes.Log)
		get(&read, "step_sum", &sizes.Sum)
		get(&read, "step_count", &sizes.Count)
	}
	if sp.Variational {
		get(&read, "reference_mean", &q.Mean)
		get(&read, "reference_std", &q.Std)
		get(&read, "fitted_sum", &fitted.sum)
		get(&read, "fitted_squares", &fitted.squares)
	}
	if sp.Weighted {
		get(&read, "weights", &t.weights)
	}
	if read.err != nil {
		return read.err
	}
	ladder, err := tempering.LadderOf(betas)
	if err != nil {
		return err
	}
	if a.swaps != nil {
		if err := t.setLadder(ladder); err != nil {
			return err
		}
		if err := t.ensemble.SetWindow(meta.Window); err != nil {
			return err
		}
		if err := a.swaps.Restore(swaps); err != nil {
			return err
		}
	}
	if a.sizes != nil {
		if err := a.sizes.Restore(sizes); err != nil {
			return err
		}
	}
	if sp.Variational {
		if err := q.Validate(); err != nil || q.Dim() != sp.dim() {
			return fmt.Errorf("reference of %d dimensions, want a valid one of %d: %w", q.Dim(), sp.dim(), err)
		}
		a.reference, a.fitted = q, moments{fitted.n, slices.Clone(fitted.sum), slices.Clone(fitted.squares)} // sums go on in place
		t.shard.SetReference(q)
	}
	a.fences, a.refitAt = meta.Fences, meta.RefitAt
	if t.ensemble == nil {
		return nil
	}
	if n := sp.Rungs; len(products) != 3*n {
		return fmt.Errorf("energy_products: %d numbers, want %d", len(products), 3*n)
	}
	if n := len(energies); n != 0 && n != sp.rows() {
		return fmt.Errorf("energies: %d numbers, want %d or none", n, sp.rows())
	}
	for i, sums := range [][]float64{t.moves.aa, t.moves.bb, t.moves.ab} {
		copy(sums, products[i*sp.Rungs:])
	}
	t.drift.forget()
	if len(energies) > 0 {
		t.drift.after(energies)
	}
	return nil
}

// Digest is the SHA-256 of what a cut would hold now.
func (t *Trainer) Digest() (string, error) {
	cut, err := t.Cut()
	if err != nil {
		return "", err
	}
	return cut.Sum()
}

// Params are the parameters of Theta by name.
func (t *Trainer) Params() ([]checkpoint.Tensor, error) {
	theta, err := t.Theta()
	if err != nil {
		return nil, err
	}
	return named(t.cfg.Spec.Network, theta), nil
}

func vector[T checkpoint.Element](name string, v []T) checkpoint.Tensor {
	return checkpoint.Tensor{Name: name, Shape: []int{len(v)}, Data: v}
}

// reads keeps the first error of a row of reads.
type reads struct {
	tensors []checkpoint.Tensor
	err     error
}

func get[T checkpoint.Element](r *reads, name string, into *[]T) {
	if r.err == nil {
		*into, r.err = checkpoint.Values[T](r.tensors, name, -1)
	}
}
