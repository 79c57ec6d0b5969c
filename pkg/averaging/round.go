package averaging

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
)

// maxNormRatio is how far above the running median a contribution's norm may be.
const maxNormRatio = 10

var (
	// ErrStale is returned for a contribution to another round or generation.
	ErrStale = errors.New("not of this round")
	// ErrConflict is returned for a second contribution of a group to a round that differs from its first.
	ErrConflict = errors.New("differs from the group's first")
)

// Contribution is what one group sends to one round.
type Contribution struct {
	Generation uint64
	Round      uint64
	Group      int    // 0 to groups − 1
	Vector     Vector // of [Group.Contribution]
	Weight     int    // chains on the target rung that are not warming; read under outer: sync

	Replica string // who sent it, after which optimizer step, with which loss: for people
	Step    int
	Loss    float64
}

// Poisoned says that a contribution was refused: it has a number that is not finite, or it is far larger than those of
// the rounds before.
type Poisoned struct {
	Round   uint64
	Group   int
	Replica string
	Step    int
	Loss    float64

	Element int     // the first that is not finite; −1 where all are
	Value   float32 // of that element
	Norm    float64 // ‖what the group moved, or its gradient‖; NaN where an element is not finite
	Median  float64 // running median of the norms; 0 where too few rounds are known
}

func (p *Poisoned) Error() string {
	who := fmt.Sprintf("averaging: round %d: contribution of group %d (replica %s, step %d, loss %g) refused: ", p.Round, p.Group, p.Replica, p.Step, p.Loss)
	if p.Element >= 0 {
		return who + fmt.Sprintf("element %d is %g, want finite numbers", p.Element, p.Value)
	}
	return who + fmt.Sprintf("norm %.4g, want at most %d times the running median %.4g", p.Norm, maxNormRatio, p.Median)
}

// NoneLeft says that every contribution to a round was refused. The experiment stops.
type NoneLeft struct {
	Round   uint64
	Refused []*Poisoned // by group
}

func (e *NoneLeft) Error() string {
	why := make([]string, len(e.Refused))
	for i, p := range e.Refused {
		why[i] = p.Error()
	}
	return fmt.Sprintf("averaging: round %d: no contribution is left: %s", e.Round, strings.Join(why, "; "))
}

// Unwrap gives the refusals.
func (e *NoneLeft) Unwrap() []error {
	errs := make([]error, len(e.Refused))
	for i, p := range e.Refused {
		errs[i] = p
	}
	return errs
}

// Round collects the contributions to one averaging round, see [Outer.Open]. Neither the order in which they come nor
// a contribution that comes twice changes the result. A Round is not safe for concurrent use.
type Round struct {
	generation, number uint64
	format             string
	n                  int
	weighted           bool
	base               []float32 // what norms are measured from; nil where vectors are differences
	median             float64   // of the rounds before; 0 = not known

	arrived []*arrival // by group
}

type arrival struct {
	vector Vector
	weight int
	norm   float64
	fault  *Poisoned // nil = accepted
}

// Number is the number of the round, from 0.
func (r *Round) Number() uint64 { return r.number }

// Add takes a contribution and keeps its vector. The error is [ErrStale], [ErrConflict], a *[Poisoned], or says what is
// malformed. A group that was refused has arrived: the round goes on without it. The same contribution again has the
// same answer again.
func (r *Round) Add(c Contribution) error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("averaging: round %d: contribution of group %d: "+format, append([]any{r.number, c.Group}, args...)...)
	}
	switch {
	case c.Generation != r.generation || c.Round != r.number:
		return fail("generation %d and round %d, want %d and %d: %w", c.Generation, c.Round, r.generation, r.number, ErrStale)
	case c.Group < 0 || c.Group >= len(r.arrived):
		return fail("want a group from 0 to %d", len(r.arrived)-1)
	case c.Vector.format != r.format || c.Vector.n != r.n:
		return fail("%d elements of %q, want %d of %s", c.Vector.n, c.Vector.format, r.n, r.format)
	case c.Weight < 0:
		return fail("weight %d, want 0 or more", c.Weight)
	}
	if before := r.arrived[c.Group]; before != nil {
		if before.weight != c.Weight || !bytes.Equal(before.vector.data, c.Vector.data) {
			return fail("%w", ErrConflict)
		}
		return before.err()
	}
	norm, element, value := r.norm(c.Vector)
	a := &arrival{vector: c.Vector, weight: c.Weight, norm: norm}
	if element >= 0 || r.median > 0 && norm > maxNormRatio*r.median {
		a.fault = &Poisoned{
			Round: r.number, Group: c.Group, Replica: c.Replica, Step: c.Step, Loss: c.Loss,
			Element: element, Value: value, Norm: norm, Median: r.median,
		}
	}
	r.arrived[c.Group] = a
	return a.err()
}

func (a *arrival) err() error {
	if a.fault == nil {
		return nil // not a *Poisoned that is nil
	}
	return a.fault
}

// norm is ‖v − base‖; where an element is not finite it is NaN, and the element and its value are given too.
func (r *Round) norm(v Vector) (norm float64, element int, value float32) {
	buf := make([]float32, min(tile, v.n))
	var squares float64
	for from := 0; from < v.n; from += tile {
		for i, f := range v.read(buf[:min(tile, v.n-from)], from) {
			if notFinite(f) {
				return math.NaN(), from + i, f
			}
			d := float64(f)
			if r.base != nil {
				d -= float64(r.base[from+i])
			}
			squares += float64(d * d)
		}
	}
	return math.Sqrt(squares), -1, 0
}

// Missing are the groups that have not contributed, in order.
func (r *Round) Missing() []int {
	var groups []int
	for g, a := range r.arrived {
		if a == nil {
			groups = append(groups, g)
		}
	}
	return groups
}

// Refused are the contributions that were refused so far, by group.
func (r *Round) Refused() []*Poisoned {
	var faults []*Poisoned
	for _, a := range r.arrived {
		if a != nil && a.fault != nil {
			faults = append(faults, a.fault)
		}
	}
	return faults
}

// mean is the mean of the accepted contributions, and the median of their norms.
func (r *Round) mean() (m []float32, norm float64, err error) {
	if missing := r.Missing(); len(missing) > 0 {
		return nil, 0, fmt.Errorf("averaging: round %d: groups %v are missing, want all %d", r.number, missing, len(r.arrived))
	}
	terms := make([]term, len(r.arrived))
	weights := make([]int, len(r.arrived))
	var norms []float64
	for g, a := range r.arrived {
		if a.fault != nil {
			continue
		}
		terms[g], weights[g] = a.vector, 1
		if r.weighted {
			weights[g] = a.weight
		}
		norms = append(norms, a.norm)
	}
	if len(norms) == 0 {
		return nil, 0, &NoneLeft{r.number, r.Refused()}
	}
	m = make([]float32, r.n)
	if err := meanOf(m, terms, weights); err != nil {
		return nil, 0, err
	}
	return m, median(norms), nil
}
