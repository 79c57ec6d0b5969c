package averaging

import (
	"fmt"
	"slices"
)

// Group is the side of one group: what its lead sends to a round, and how it reads the answer. It is not safe for
// concurrent use.
type Group struct {
	cfg  Config
	n    int
	base []float32 // parameters last published; nil under outer: sync
	enc  *Encoder
}

// NewGroup returns the side of a group that starts at theta. Under outer: sync only the length of theta matters.
func NewGroup(cfg Config, theta []float32) (*Group, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("averaging: %w", err)
	}
	enc, err := NewEncoder(cfg.Format, len(theta))
	if err != nil {
		return nil, err
	}
	g := &Group{cfg: cfg, n: len(theta), enc: enc}
	if cfg.Outer != synchronous {
		g.base = slices.Clone(theta)
	}
	return g, nil
}

// Contribution returns what the group sends, x being its parameters, or its gradient under outer: sync. It must be
// called once a round, since the residual moves; a contribution that is sent again is the same Vector.
func (g *Group) Contribution(x []float32) Vector {
	if g.cfg.Outer == synchronous || g.cfg.whole() {
		return g.enc.Encode(x)
	}
	if len(x) != g.n {
		panic(fmt.Sprintf("averaging: contribution of %d elements, want %d", len(x), g.n))
	}
	delta := make([]float32, g.n)
	for i, base := range g.base {
		delta[i] = base - x[i]
	}
	return g.enc.Encode(delta)
}

// Apply reads what the leader published and returns the group's new parameters, or under outer: sync the mean gradient.
// They must not be changed.
func (g *Group) Apply(update Vector) ([]float32, error) {
	if update.format != g.cfg.Format || update.n != g.n {
		return nil, fmt.Errorf("averaging: update: %d elements of %q, want %d of %s", update.n, update.format, g.n, g.cfg.Format)
	}
	next := apply(g.cfg, g.base, update)
	if g.cfg.Outer != synchronous {
		g.base = next
	}
	return next, nil
}

// Residual returns a copy of the encoder's residual for a cut; nil where the format keeps none.
func (g *Group) Residual() []float32 { return g.enc.Residual() }

// Restore goes back to a cut: the parameters last published (nil under outer: sync) and the residual.
func (g *Group) Restore(theta, residual []float32) error {
	if len(theta) != len(g.base) {
		return fmt.Errorf("averaging: restore: parameters of %d elements, want %d", len(theta), len(g.base))
	}
	if err := g.enc.Restore(residual); err != nil {
		return err
	}
	g.base = slices.Clone(theta)
	return nil
}

// Forget drops the residual, what a group does whose contribution was refused: the residual belongs to it.
func (g *Group) Forget() { clear(g.enc.residual) }
