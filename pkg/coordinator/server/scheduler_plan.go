package server

import (
	"cmp"
	"math"
	"slices"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// hand is a replica that can work.
type hand struct {
	id      string
	bound   string    // name of the only experiment that it works for; "": any
	refuses []string  // uids of experiments that cannot be had there
	at      ledger.ID // that it works for, or was given to; zero: none
	away    bool      // between two requests for work: it will be free in a moment
}

// plan is what the leader does next with the replicas that it has.
type plan struct {
	admit []ledger.ID          // of the queued experiments, those whose turn it is
	short []ledger.ID          // those that stay queued
	give  map[string]ledger.ID // free replicas, by id, with the experiment that they are to work for
}

// newPlan shares the free replicas out. Experiments count that people want to run and that are queued or admitted, which is
// waiting or running; they are given in the order of their creation. The rule:
//
//   - An experiment that was admitted keeps what it has. Nobody gets more than it wants, nor a replica that is bound to another
//     experiment, or that refuses it.
//   - A higher priority has all that its shards can be spread over before a lower one gets anything. Within a priority
//     everybody has the number it begins with, the oldest first, before anybody has more; the rest goes one by one to whoever
//     has least.
//   - A queued experiment is admitted when as many replicas as it begins with can be had at once. While they cannot, those that
//     are free are held for it, unless there are too few even if nobody worked: whoever is behind it may pass only with replicas that it
//     could not use. So it has its turn once enough have become free, however many smaller ones follow.
//   - Standbys, beyond the number of shards, are given last: from what is free and held for nobody.
func newPlan(exps []ledger.Experiment, hands []hand) plan {
	p := planner{hands: hands, taken: make([]bool, len(hands)), out: plan{give: map[string]ledger.ID{}}}
	levels := p.levels(exps)
	for _, level := range levels {
		for _, c := range level {
			p.begin(c)
		}
		p.fill(level, (*contender).needed)
	}
	for _, level := range levels {
		p.fill(level, (*contender).wanted)
	}
	return p.out
}

type planner struct {
	hands []hand
	taken []bool // by hand: given in this plan, or held for somebody
	out   plan
}

// contender is an experiment that wants replicas.
type contender struct {
	ledger.Experiment
	uid      string
	admitted bool
	has      int
	usable   []int // hands that it could be given, the best first; those that others got in the meantime are still among them
}

// wanted is how many replicas it takes at most.
func (c *contender) wanted() int { return int(c.Wanted()) }

// needed is how many its shards can be spread over.
func (c *contender) needed() int { return min(c.wanted(), int(c.Shards)) }

// least is how many it begins with.
func (c *contender) least() int { return int(max(1, c.Min)) }

func (c *contender) suits(h *hand) bool {
	return (h.bound == "" || h.bound == c.Name) && !slices.Contains(h.refuses, c.uid)
}

// admitted says whether an experiment has had its turn.
func admitted(e *ledger.Experiment) bool {
	return e.Phase == ledger.Waiting || e.Phase == ledger.Running
}

// levels are the contenders by priority, the highest first, and the oldest first in each.
func (p *planner) levels(exps []ledger.Experiment) (levels [][]*contender) {
	has := map[ledger.ID]int{}
	for i := range p.hands {
		has[p.hands[i].at]++
	}
	var all []*contender
	for i := range exps {
		e := &exps[i]
		if e.Desired != ledger.Run || e.Phase != ledger.Queued && !admitted(e) {
			continue
		}
		c := &contender{Experiment: *e, uid: e.ID.String(), admitted: admitted(e), has: has[e.ID]}
		for h := range p.hands {
			if free := p.hands[h].at == (ledger.ID{}) && !p.hands[h].away; free && c.suits(&p.hands[h]) {
				c.usable = append(c.usable, h)
			}
		}
		// First those that are of least use to others.
		slices.SortStableFunc(c.usable, func(a, b int) int {
			ha, hb := &p.hands[a], &p.hands[b]
			return cmp.Or(-cmp.Compare(ha.bound, hb.bound), -cmp.Compare(len(ha.refuses), len(hb.refuses)))
		})
		all = append(all, c)
	}
	slices.SortStableFunc(all, func(a, b *contender) int { return -cmp.Compare(a.Priority, b.Priority) })
	for i, c := range all {
		if i == 0 || c.Priority != all[i-1].Priority {
			levels = append(levels, nil)
		}
		levels[len(levels)-1] = append(levels[len(levels)-1], c)
	}
	return levels
}

// begin brings a contender to the number that it begins with, or holds for it what there is.
func (p *planner) begin(c *contender) {
	c.usable = slices.DeleteFunc(c.usable, func(h int) bool { return p.taken[h] })
	lacks := max(0, c.least()-c.has)
	switch {
	case c.admitted:
	case len(c.usable) >= lacks:
		c.admitted = true
		p.out.admit = append(p.out.admit, c.ID)
	default:
		p.out.short = append(p.out.short, c.ID)
		if p.enough(c) {
			for _, h := range c.usable {
				p.taken[h] = true
			}
		}
		return
	}
	for range min(lacks, len(c.usable)) {
		p.give(c)
	}
}

// enough says whether a contender could begin if nobody worked.
func (p *planner) enough(c *contender) bool {
	n := 0
	for h := range p.hands {
		if p.hands[h].at == c.ID || c.suits(&p.hands[h]) {
			n++
		}
	}
	return n >= c.least()
}

// fill gives to the admitted ones of a level, up to a limit, one by one to whoever has least.
func (p *planner) fill(level []*contender, limit func(*contender) int) {
	for {
		var next *contender
		fewest := math.MaxInt
		for _, c := range level {
			if c.admitted && c.has < min(limit(c), fewest) && p.first(c) {
				next, fewest = c, c.has
			}
		}
		if next == nil {
			return
		}
		p.give(next)
	}
}

// first says whether there is a hand for a contender, which is then the first of the usable ones.
func (p *planner) first(c *contender) bool {
	for len(c.usable) > 0 && p.taken[c.usable[0]] {
		c.usable = c.usable[1:]
	}
	return len(c.usable) > 0
}

// give gives the first of the usable hands; the caller has made sure that it is free.
func (p *planner) give(c *contender) {
	h := c.usable[0]
	c.usable = c.usable[1:]
	c.has++
	p.taken[h] = true
	p.out.give[p.hands[h].id] = c.ID
}
