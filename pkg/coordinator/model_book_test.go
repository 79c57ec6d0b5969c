package coordinator

import (
	"fmt"
	"slices"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// shelf holds what the coordinators of one experiment write down, with the rules that the replicated one has.
type shelf struct {
	tokens     uint64
	generation uint64
	holders    []string
	leases     map[string]Lease
	cut        *checkpoint.Cut
	cutIn      uint64   // generation of the cut
	pending    *pending // a cut on its way
}

// pending is a cut that may or may not be taken over if the coordinator that brought it ends first.
type pending struct {
	generation uint64
	cut        checkpoint.Cut
}

// commit takes over what is on its way, unless a newer generation has begun.
func (s *shelf) commit() {
	p := s.pending
	if s.pending = nil; p == nil || p.generation != s.generation {
		return
	}
	if s.cut != nil && (p.cut.Step < s.cut.Step || p.cut.Step == s.cut.Step && p.generation != s.cutIn) {
		panic(violation(fmt.Sprintf("a cut of step %d behind that of step %d", p.cut.Step, s.cut.Step)))
	}
	s.cut, s.cutIn = &p.cut, p.generation
}

// hand is the book of one coordinator: closed when it is deposed.
type hand struct {
	*shelf
	net    *network
	closed bool
}

func (h *hand) Past() (Past, error) {
	return Past{Generation: h.generation, Holders: slices.Clone(h.holders), Cut: h.cut}, nil
}

func (h *hand) Leases() (out []Lease, err error) {
	for _, l := range h.leases {
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b Lease) int { return byID(a.Replica, b.Replica) })
	return out, nil
}

func (h *hand) Register(r transport.Register) (uint64, error) {
	if h.closed {
		return 0, ErrDeposed
	}
	if l, ok := h.leases[r.Replica]; ok && l.Incarnation == r.Incarnation {
		return l.Token, nil
	}
	h.tokens++
	h.leases[r.Replica] = Lease{r, h.tokens}
	return h.tokens, nil
}

func (h *hand) End(id string, token uint64, _ bool) error {
	if h.closed {
		return ErrDeposed
	}
	if h.leases[id].Token == token {
		delete(h.leases, id)
	}
	return nil
}

func (h *hand) Open(holders []string, from int) (uint64, error) {
	if h.closed {
		return 0, ErrDeposed
	}
	for _, id := range holders {
		if h.leases[id].Token == 0 {
			return 0, &GoneError{[]string{id}}
		}
	}
	if last := -1; from != last && (h.cut == nil || h.cut.Step != from) {
		panic(violation(fmt.Sprintf("generation %d would begin at step %d, the last cut is another", h.generation+1, from)))
	}
	h.generation, h.holders = h.generation+1, slices.Clone(holders)
	return h.generation, nil
}

func (h *hand) Commit(generation uint64, cut checkpoint.Cut) Commitment {
	p := &pending{generation, cut}
	if !h.closed {
		h.pending = p
	}
	return commitment{h, p}
}

// commitment is a pending cut, as the coordinator that brought it knows it.
type commitment struct {
	hand *hand
	cut  *pending
}

func (c commitment) Wait() error {
	h := c.hand
	for range h.net.course.rand.IntN(4) { // things happen meanwhile
		if !h.closed && !h.net.course.calm && h.pending == c.cut {
			h.net.turn()
		}
	}
	if h.closed {
		return ErrDeposed
	}
	if c.cut.generation != h.generation {
		panic(violation(fmt.Sprintf("a cut of generation %d in generation %d", c.cut.generation, h.generation)))
	}
	if h.pending == c.cut {
		h.commit()
	}
	return nil
}

func (c commitment) Done() bool { return c.hand.pending != c.cut || c.hand.net.chance(1, 2) }
