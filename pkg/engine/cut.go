package engine

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/kelvin-ebm/kelvin/pkg/buffer"
	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
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
			vector("pair_accepted", e.Accepted), vector("pair_alpha", e.AlphaSum))
	}
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
	if t.ensemble != nil {
		e := tempering.State{NonFinite: meta.Swaps}
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
		if read.err != nil {
			return fail(read.err)
		}
		if err := t.ensemble.Restore(e); err != nil {
			return fail(err)
		}
	}
	if err := t.shard.Load(st); err != nil {
		return fail(err)
	}
	t.step, t.scan, t.plan = meta.Step, meta.Scan, plan
	t.perm = identityPerm(sp.rows())
	return t.setSteps(t.step)
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
