package engine

import "fmt"

// Place is what a shard holds of its group: some rungs of some ladders.
type Place struct {
	ID      uint32 // number in the experiment: part of every device key
	Group   int
	Rungs   [2]int
	Ladders [2]int // of the group, from and to
}

// Layout cuts the chains of an experiment into shards. It follows from the experiment alone, so that any number of replicas
// that hold the shards come to the same numbers.
type Layout struct {
	Placement string // ladder: a shard holds all rungs of some ladders; rung: one rung
	Split     int    // S, ranges that the ladders of a group are cut into
	Rungs     int    // K
	Chains    int    // B, ladders of a group
	Groups    int
}

// Validate reports the first fault.
func (l Layout) Validate() error {
	switch {
	case l.Placement != "ladder" && l.Placement != "rung":
		return fmt.Errorf("placement: %q, want ladder or rung", l.Placement)
	case l.Split < 1 || l.Chains%l.Split != 0:
		return fmt.Errorf("split: %d, want a divisor of chains, %d", l.Split, l.Chains)
	case l.Placement == "rung" && l.Rungs < 2:
		return fmt.Errorf("placement: rung with %d rungs, want ladder, or at least 2 rungs", l.Rungs)
	case l.Groups < 1:
		return fmt.Errorf("groups: %d, want at least 1", l.Groups)
	}
	return nil
}

// PerGroup is the number of shards of a group.
func (l Layout) PerGroup() int {
	if l.Placement == "rung" {
		return l.Split * l.Rungs
	}
	return l.Split
}

// NumShards is that of all groups.
func (l Layout) NumShards() int { return l.Groups * l.PerGroup() }

// Shards are the places of a group's shards: range by range of its ladders and, under rung, rung by rung from the hottest.
func (l Layout) Shards(group int) []Place {
	var out []Place
	each := l.Chains / l.Split
	for s := range l.Split {
		p := Place{Group: group, Rungs: [2]int{0, l.Rungs}, Ladders: [2]int{s * each, (s + 1) * each}}
		if l.Placement == "ladder" {
			p.ID = uint32(group*l.PerGroup() + s)
			out = append(out, p)
			continue
		}
		for k := range l.Rungs {
			p.Rungs = [2]int{k, k + 1}
			p.ID = uint32(group*l.PerGroup() + s*l.Rungs + k)
			out = append(out, p)
		}
	}
	return out
}

// Lead is the index, among the shards of a group, of the one that makes the optimizer step: the first that holds the target
// rung.
func (l Layout) Lead() int {
	if l.Placement == "rung" {
		return l.Rungs - 1
	}
	return 0
}

// rows is the number of chains of a place.
func (p Place) rows() int { return (p.Rungs[1] - p.Rungs[0]) * (p.Ladders[1] - p.Ladders[0]) }

// each calls f with every row of the place, in order, and the row of its group that it is: k·B + b.
func (p Place) each(chains int, f func(row, of int)) {
	row := 0
	for k := p.Rungs[0]; k < p.Rungs[1]; k++ {
		for b := p.Ladders[0]; b < p.Ladders[1]; b++ {
			f(row, k*chains+b)
			row++
		}
	}
}

// PartOf is part i of n of so many things, from and to, as even as can be: what one of n shards gets of a batch or of the ladders.
func PartOf(things, i, n int) (from, to int) { return things * i / n, things * (i + 1) / n }

// largestPart is the size of the largest.
func largestPart(things, n int) int { return (things + n - 1) / n }
