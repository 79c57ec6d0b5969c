package averaging

import (
	"fmt"
	"math"
	"slices"
)

// leastKnown is the number of rounds from which their median is a yardstick: in its first rounds a training may well
// quicken tenfold.
const leastKnown = 8

// Outer is the leader's side: it opens rounds, turns the contributions of a round into what is published, and holds
// what that needs: the parameters last published, momentum, residual, norms. It is not safe for concurrent use.
type Outer struct {
	cfg   Config
	n     int
	enc   *Encoder
	open  *Round // nil between Step and Open
	state State
}

// State is all that an Outer remembers, for a cut.
type State struct {
	Round    uint64    // rounds made
	Theta    []float32 // parameters last published; nil under outer: sync
	Momentum []float32 // nesterov only
	Residual []float32 // of what was published; format: int8 only
	Norms    []float64 // median norm of the contributions to each of the last 32 rounds, zeros left out
}

// NewOuter returns the leader's side of an experiment that starts at theta, which every group has. Under outer: sync
// only the length of theta matters.
func NewOuter(cfg Config, theta []float32) (*Outer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("averaging: %w", err)
	}
	enc, err := NewEncoder(cfg.Format, len(theta))
	if err != nil {
		return nil, err
	}
	o := &Outer{cfg: cfg, n: len(theta), enc: enc}
	if cfg.Outer != synchronous {
		o.state.Theta = slices.Clone(theta)
	}
	if cfg.Outer == nesterov {
		o.state.Momentum = make([]float32, len(theta))
	}
	return o, nil
}

// Open begins the next round; one that is open already begins anew. The limit on norms is that of the rounds before, so
// that who is refused does not hang on the order of arrival: 10 times the median over the last 32 rounds of the median
// norm of a round, from 8 rounds on. A norm is that of what a group moved since the last round, whatever the form in
// which it is sent, or of its gradient.
func (o *Outer) Open(generation uint64) *Round {
	r := &Round{
		generation: generation, number: o.state.Round, format: o.cfg.Format, n: o.n, weighted: o.cfg.Outer == synchronous,
		arrived: make([]*arrival, o.cfg.Groups),
	}
	if o.cfg.whole() {
		r.base = o.state.Theta
	}
	if len(o.state.Norms) >= leastKnown {
		r.median = median(o.state.Norms)
	}
	o.open = r
	return r
}

// Step ends the round r, which must have heard of every group, and returns what all groups get, see [Group.Apply]. With
// Δ the mean of what the groups moved, θ_base − θ_group, and the parameters θ last published:
//
//	mean      θ ← θ − Δ, the mean of the groups' parameters
//	nesterov  b ← μb + Δ,  θ ← θ − lr·(Δ + μb)      (DiLoCo: Douillard et al. 2023; b is 0 at first)
//	sync      the mean of the gradients, weighted
//
// Under bf16 and int8 what is published is the difference of the parameters, and the leader itself goes on from what the
// groups decode: every holder has the same bits. Arithmetic is float64, rounded once to float32.
//
// The error is a *[NoneLeft], or says which groups are missing or which number is not finite. But for missing groups, it
// ends the experiment, which can go on from a cut only.
func (o *Outer) Step(r *Round) (Vector, error) {
	if r != o.open {
		return Vector{}, fmt.Errorf("averaging: outer step of round %d of generation %d: %w", r.number, r.generation, ErrStale)
	}
	m, norm, err := r.mean()
	if err != nil {
		return Vector{}, err
	}
	o.open = nil
	o.move(m)
	update := o.enc.Encode(m)
	next := apply(o.cfg, o.state.Theta, update)
	if i := slices.IndexFunc(next, notFinite); i >= 0 {
		return Vector{}, fmt.Errorf("averaging: round %d: element %d is %g after the outer step, want finite numbers", r.number, i, next[i])
	}
	if o.cfg.Outer != synchronous {
		o.state.Theta = next
	}
	if norm > 0 { // a round in which nothing moved is no yardstick
		o.state.Norms = append(o.state.Norms, norm)
		o.state.Norms = o.state.Norms[max(0, len(o.state.Norms)-remembered):]
	}
	o.state.Round++
	return update, nil
}

// move turns m, the mean of the contributions, into what is published, and moves the momentum.
func (o *Outer) move(m []float32) {
	switch {
	case o.cfg.Outer == nesterov:
		lr, mu := o.cfg.LR, o.cfg.Momentum
		for i, delta := range m {
			b := float64(mu*float64(o.state.Momentum[i])) + float64(delta)
			d := -float64(lr * (float64(delta) + float64(mu*b)))
			o.state.Momentum[i] = float32(b)
			if o.cfg.differences() {
				m[i] = float32(d)
			} else {
				m[i] = float32(float64(o.state.Theta[i]) + d)
			}
		}
	case o.cfg.Outer == mean && o.cfg.differences():
		for i, delta := range m {
			m[i] = -delta
		}
	}
}

// apply is how every holder reads what was published: the parameters, their difference to theta, or a gradient.
func apply(cfg Config, theta []float32, update Vector) []float32 {
	next := make([]float32, update.n)
	update.Decode(next)
	if cfg.differences() {
		for i, d := range next {
			next[i] = theta[i] + d
		}
	}
	return next
}

// Theta are the parameters last published; nil under outer: sync. They must not be changed.
func (o *Outer) Theta() []float32 { return o.state.Theta }

// Snapshot returns a copy of the state.
func (o *Outer) Snapshot() State {
	s := o.state
	s.Residual = o.enc.Residual()
	return s.clone()
}

func (s State) clone() State {
	s.Theta, s.Momentum, s.Residual, s.Norms = slices.Clone(s.Theta), slices.Clone(s.Momentum), slices.Clone(s.Residual), slices.Clone(s.Norms)
	return s
}

// Restore replaces the state by a copy of s, if s fits.
func (o *Outer) Restore(s State) error {
	for _, f := range []struct {
		name      string
		got, want []float32
	}{{"parameters", s.Theta, o.state.Theta}, {"momentum", s.Momentum, o.state.Momentum}} {
		if len(f.got) != len(f.want) {
			return fmt.Errorf("averaging: restore: %s of %d elements, want %d", f.name, len(f.got), len(f.want))
		}
		if i := slices.IndexFunc(f.got, notFinite); i >= 0 {
			return fmt.Errorf("averaging: restore: %s: element %d is %g, want a finite number", f.name, i, f.got[i])
		}
	}
	if len(s.Norms) > remembered {
		return fmt.Errorf("averaging: restore: norms of %d rounds, want at most %d", len(s.Norms), remembered)
	}
	if i := slices.IndexFunc(s.Norms, func(v float64) bool { return !(v > 0) || math.IsInf(v, 1) }); i >= 0 {
		return fmt.Errorf("averaging: restore: norm %d is %g, want a positive number", i, s.Norms[i])
	}
	if err := o.enc.Restore(s.Residual); err != nil {
		return err
	}
	o.state = s.clone()
	o.state.Residual = nil // the encoder has it
	o.open = nil
	return nil
}
