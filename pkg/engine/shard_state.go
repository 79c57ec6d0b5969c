package engine

import (
	"fmt"
	"slices"

	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
)

// State is all of a shard that a cut must hold, on the host. Random numbers need none.
type State struct {
	Theta, EMA []float32   // EMA is nil where the optimizer keeps no average
	Moments    [][]float32 // optimizer state
	Live, Pool []float32   // chains; Pool is nil where every column is live
	// Rows is, under exchange of labels, the row of the device that holds the chain of each row of Live, [rows], so that a
	// loaded shard goes on with the same random numbers. Nil otherwise; where it is nil, every chain is in its own row.
	Rows []int32
}

// NewState is the state at the start of training: given weights, chains in live [rows·dim] and pool.
func (s *Shard) NewState(theta, live, pool []float32) State {
	st := State{Theta: theta, Live: live, Pool: pool}
	if len(theta) == 0 {
		st.Theta = make([]float32, s.params)
	}
	if s.spec.Optimizer.EMA > 0 {
		st.EMA = append([]float32(nil), st.Theta...)
	}
	for range s.spec.Optimizer.moments() {
		st.Moments = append(st.Moments, make([]float32, s.params))
	}
	return st
}

// checkState checks the lengths of a state.
func (s *Shard) checkState(st State) error {
	for _, part := range []struct {
		name      string
		got, want int
	}{
		{"parameters", len(st.Theta), s.params},
		{"averaged parameters", len(st.EMA), b2i(s.spec.Optimizer.EMA > 0) * s.params},
		{"optimizer vectors", len(st.Moments), s.spec.Optimizer.moments()},
		{"chains", len(st.Live), s.spec.rows() * s.spec.dim()},
		{"pool", len(st.Pool), b2i(s.spec.pooled()) * s.spec.Rungs * s.spec.Pool * s.spec.dim()},
	} {
		if part.got != part.want {
			return fmt.Errorf("engine: load state: %s: length %d, want %d", part.name, part.got, part.want)
		}
	}
	if err := s.spec.checkRows(st.Rows); err != nil {
		return fmt.Errorf("engine: load state: rows: %w", err)
	}
	return nil
}

// Load puts a state on the device.
func (s *Shard) Load(st State) error {
	if err := s.checkState(st); err != nil {
		return err
	}
	backend.Release(s.theta, s.ema, s.live, s.pool)
	backend.Release(s.moments...)
	s.place = slices.Clone(st.Rows)
	if s.spec.byLabel() && s.spec.Ladder == 0 && s.place == nil {
		s.place = identityPerm(s.spec.rows())
	}
	s.theta = tensors.FromFlatDataAndDimensions(slices.Clone(st.Theta), s.params)
	s.live = tensors.FromFlatDataAndDimensions(toRows(st.Live, s.place, s.spec.dim()), s.spec.rows(), s.spec.dim())
	s.ema, s.pool, s.moments = nil, nil, nil
	if st.EMA != nil {
		s.ema = tensors.FromFlatDataAndDimensions(slices.Clone(st.EMA), s.params)
	}
	if s.spec.pooled() {
		s.pool = tensors.FromFlatDataAndDimensions(slices.Clone(st.Pool), s.spec.Rungs*s.spec.Pool, s.spec.dim())
	}
	for _, m := range st.Moments {
		s.moments = append(s.moments, tensors.FromFlatDataAndDimensions(slices.Clone(m), s.params))
	}
	s.setRows()
	return nil
}

// readout copies tensors to the host and keeps the first error.
type readout struct{ err error }

// numbers is nil for no tensor.
func (r *readout) numbers(t *tensors.Tensor) []float32 {
	if t == nil || r.err != nil {
		return nil
	}
	var v []float32
	v, r.err = backend.Read[float32](t)
	return v
}

func (r *readout) weights(into *State, theta, ema *tensors.Tensor, moments []*tensors.Tensor) {
	into.Theta, into.EMA = r.numbers(theta), r.numbers(ema)
	for _, m := range moments {
		into.Moments = append(into.Moments, r.numbers(m))
	}
}

// State copies the shard's state to the host.
func (s *Shard) State() (st State, err error) {
	var host readout
	host.weights(&st, s.theta, s.ema, s.moments)
	st.Live, st.Pool = host.numbers(s.live), host.numbers(s.pool)
	if host.err != nil {
		return State{}, fmt.Errorf("engine: read state: %w", host.err)
	}
	st.Live, st.Rows = fromRows(st.Live, s.place, s.spec.dim()), slices.Clone(s.place)
	return st, nil
}

// Live copies the chains to the host, [rows·dim], as the last scan left them.
func (s *Shard) Live() ([]float32, error) {
	live, err := s.rawLive()
	return fromRows(live, s.place, s.spec.dim()), err
}

// rawLive is Live in the order of the device's rows.
func (s *Shard) rawLive() ([]float32, error) {
	live, err := backend.Read[float32](s.live)
	if err != nil {
		return nil, fmt.Errorf("engine: read chains: %w", err)
	}
	return live, nil
}

// rawPool copies the replay buffer to the host, [slots·dim].
func (s *Shard) rawPool() ([]float32, error) {
	pool, err := backend.Read[float32](s.pool)
	if err != nil {
		return nil, fmt.Errorf("engine: read replay buffer: %w", err)
	}
	return pool, nil
}

// SetTheta replaces the parameters.
func (s *Shard) SetTheta(theta []float32) {
	backend.Release(s.theta)
	s.theta = tensors.FromFlatDataAndDimensions(slices.Clone(theta), s.params)
}

// Theta copies the parameters to the host, those averaged over the steps where the optimizer keeps them; nil before Load.
func (s *Shard) Theta() ([]float32, error) {
	switch {
	case s.theta == nil:
		return nil, nil
	case s.ema != nil:
		return backend.Read[float32](s.ema)
	}
	return backend.Read[float32](s.theta)
}
