package server

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// wanting is an experiment for a plan, by its number.
func wanting(n byte, phase ledger.Phase, shards, want, least uint32, priority int32) ledger.Experiment {
	return ledger.Experiment{ID: ledger.ID{n}, Desired: ledger.Run, Phase: phase,
		ExpCreate: ledger.ExpCreate{Name: fmt.Sprintf("e%d", n), Shards: shards, Want: want, Min: least, Priority: priority}}
}

func free(ids ...string) (hands []hand) {
	for _, id := range ids {
		hands = append(hands, hand{id: id})
	}
	return hands
}

// given shows who gets what: "e1: a b, e2: c".
func given(p plan) string {
	by := map[ledger.ID][]string{}
	for id, exp := range p.give {
		by[exp] = append(by[exp], id)
	}
	var out []string
	for exp, ids := range by {
		slices.Sort(ids)
		out = append(out, fmt.Sprintf("e%d: %s", exp[0], strings.Join(ids, " ")))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func numbers(ids []ledger.ID) string {
	var out []string
	for _, id := range ids {
		out = append(out, fmt.Sprintf("e%d", id[0]))
	}
	return strings.Join(out, " ")
}

func TestPlan(t *testing.T) {
	const queued, running, waiting = ledger.Queued, ledger.Running, ledger.Waiting
	at := func(n byte, ids ...string) (hands []hand) {
		for _, id := range ids {
			hands = append(hands, hand{id: id, at: ledger.ID{n}})
		}
		return hands
	}
	bound := func(to string, ids ...string) (hands []hand) {
		for _, id := range ids {
			hands = append(hands, hand{id: id, bound: to})
		}
		return hands
	}
	stopped := wanting(3, running, 4, 0, 1, 0)
	stopped.Desired = ledger.Pause
	for _, tc := range []struct {
		name        string
		exps        []ledger.Experiment
		hands       []hand
		give        string
		admit, wait string
	}{
		{"nothing wants anything", nil, free("a"), "", "", ""},
		{"one gets all that it can spread its shards over", []ledger.Experiment{wanting(1, queued, 2, 0, 1, 0)}, free("a", "b", "c"), "e1: a b", "e1", ""},
		{"standbys where they are wanted", []ledger.Experiment{wanting(1, queued, 2, 3, 1, 0)}, free("a", "b", "c", "d"), "e1: a b c", "e1", ""},
		{"no standbys while somebody else has work", []ledger.Experiment{wanting(1, queued, 2, 4, 1, 0), wanting(2, queued, 2, 0, 1, -5)}, free("a", "b", "c", "d"), "e1: a b, e2: c d", "e1 e2", ""},
		{"an experiment may begin with standbys", []ledger.Experiment{wanting(1, queued, 1, 2, 2, 0)}, free("a", "b"), "e1: a b", "e1", ""},
		{"too few to begin", []ledger.Experiment{wanting(1, queued, 4, 0, 3, 0)}, free("a", "b"), "", "", "e1"},
		{"admitted, it takes what there is", []ledger.Experiment{wanting(1, waiting, 4, 0, 3, 0)}, free("a", "b"), "e1: a b", "", ""},
		{"everybody begins before anybody has more", []ledger.Experiment{wanting(1, running, 8, 0, 1, 0), wanting(2, queued, 8, 0, 2, 0)}, append(at(1, "x"), free("a", "b")...), "e2: a b", "e2", ""},
		{"the rest goes to whoever has least", []ledger.Experiment{wanting(1, running, 8, 0, 1, 0), wanting(2, running, 8, 0, 1, 0)}, append(at(1, "x", "y", "z"), free("a", "b", "c", "d", "e")...), "e1: d, e2: a b c e", "", ""},
		{"a higher priority has all before a lower one begins", []ledger.Experiment{wanting(1, queued, 2, 0, 1, 0), wanting(2, queued, 3, 0, 1, 7)}, free("a", "b", "c"), "e2: a b c", "e2", "e1"},
		{"the oldest begins first", []ledger.Experiment{wanting(1, queued, 1, 0, 1, 0), wanting(2, queued, 1, 0, 1, 0)}, free("a"), "e1: a", "e1", "e2"},
		{"free ones are held for the head of the line", []ledger.Experiment{wanting(1, running, 4, 0, 1, 0), wanting(2, queued, 4, 0, 3, 0), wanting(3, queued, 1, 0, 1, 0)}, append(at(1, "x"), free("a", "b")...), "", "", "e2 e3"},
		{"and not for a head that can never begin", []ledger.Experiment{wanting(2, queued, 9, 0, 9, 0), wanting(3, queued, 1, 0, 1, 0)}, free("a", "b"), "e3: a", "e3", "e2"},
		{"a higher priority takes what is free before it is held", []ledger.Experiment{wanting(1, running, 4, 0, 1, 5), wanting(2, queued, 4, 0, 3, 0)}, append(at(1, "x"), free("a", "b")...), "e1: a b", "", "e2"},
		{"bound ones pass the head of the line", []ledger.Experiment{wanting(1, running, 4, 0, 1, 0), wanting(2, queued, 4, 0, 3, 0), wanting(3, queued, 4, 0, 1, 0)}, slices.Concat(at(1, "x"), free("a", "b"), bound("e3", "c")), "e3: c", "e3", "e2"},
		{"bound ones come first, then those that refuse others", []ledger.Experiment{wanting(1, queued, 2, 2, 2, 0), wanting(2, queued, 1, 0, 1, 0)},
			slices.Concat(free("a"), []hand{{id: "b", refuses: []string{ledger.ID{9}.String()}}}, bound("e1", "c")), "e1: b c, e2: a", "e1 e2", ""},
		{"bound to another", []ledger.Experiment{wanting(1, running, 4, 0, 1, 0)}, bound("e2", "a"), "", "", ""},
		{"bound beyond what is wanted", []ledger.Experiment{wanting(1, running, 4, 1, 1, 0)}, append(at(1, "x"), bound("e1", "a")...), "", "", ""},
		{"refused", []ledger.Experiment{wanting(1, running, 4, 0, 1, 0), wanting(2, running, 4, 0, 1, 0)}, []hand{{id: "a", refuses: []string{ledger.ID{1}.String()}}}, "e2: a", "", ""},
		{"between two requests", []ledger.Experiment{wanting(1, queued, 4, 0, 2, 0), wanting(2, queued, 1, 0, 1, 0)}, append(free("a"), hand{id: "b", away: true}), "", "", "e1 e2"},
		{"what people do not want to run", []ledger.Experiment{stopped, wanting(4, ledger.Paused, 1, 0, 1, 0), wanting(5, ledger.Completed, 1, 0, 1, 0)}, free("a"), "", "", ""},
		{"less is wanted than there is", []ledger.Experiment{wanting(1, running, 4, 1, 1, 0)}, append(at(1, "x", "y"), free("a")...), "", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPlan(tc.exps, tc.hands)
			if got := given(p); got != tc.give {
				t.Errorf("gives %q, want %q", got, tc.give)
			}
			if admit, wait := numbers(p.admit), numbers(p.short); admit != tc.admit || wait != tc.wait {
				t.Errorf("admits %q and leaves %q, want %q and %q", admit, wait, tc.admit, tc.wait)
			}
		})
	}
}

// rule checks a plan against what newPlan promises, in its own terms.
func rule(exps []ledger.Experiment, hands []hand, p plan) error {
	byID := map[ledger.ID]*contender{}
	place := map[ledger.ID]int{}
	had, gets := map[ledger.ID]int{}, map[ledger.ID]int{}
	for i := range exps {
		e := &exps[i]
		byID[e.ID] = &contender{Experiment: *e, uid: e.ID.String(), admitted: admitted(e)}
		place[e.ID] = i
	}
	for _, h := range hands {
		had[h.at]++
		exp, given := p.give[h.id]
		if !given {
			continue
		}
		gets[exp]++
		if c := byID[exp]; h.at != (ledger.ID{}) || h.away || !c.suits(&h) || c.Desired != ledger.Run {
			return fmt.Errorf("%+v was given to %s", h, c.Name)
		}
	}
	for _, id := range p.admit {
		if byID[id].admitted {
			return fmt.Errorf("%s is admitted again", byID[id].Name)
		}
		byID[id].admitted = true
	}
	enough := func(c *contender) bool {
		n := 0
		for _, h := range hands {
			if h.at == c.ID || c.suits(&h) {
				n++
			}
		}
		return n >= c.least()
	}
	for id, c := range byID {
		total := had[id] + gets[id]
		queued := c.Desired == ledger.Run && c.Phase == ledger.Queued
		switch {
		case gets[id] > 0 && !c.admitted:
			return fmt.Errorf("%s is not admitted and gets %d", c.Name, gets[id])
		case gets[id] > 0 && total > max(c.wanted(), c.least()):
			return fmt.Errorf("%s wants %d and would have %d", c.Name, c.wanted(), total)
		case queued && c.admitted && total < c.least():
			return fmt.Errorf("%s begins with %d of %d", c.Name, total, c.least())
		case queued && c.admitted == slices.Contains(p.short, id):
			return fmt.Errorf("%s is neither admitted nor short", c.Name)
		}
	}
	for _, h := range hands {
		exp, given := p.give[h.id]
		for _, id := range p.short {
			e := byID[id]
			if !given || !e.suits(&h) || !enough(e) {
				continue
			}
			c := byID[exp]
			taken := 0
			for _, h := range hands {
				if p.give[h.id] == c.ID && e.suits(&h) {
					taken++
				}
			}
			ahead := c.Priority > e.Priority || c.Priority == e.Priority && place[c.ID] < place[e.ID] && had[c.ID]+taken <= c.least()
			if !ahead {
				return fmt.Errorf("%s gets %s, which %s is short of", c.Name, h.id, e.Name)
			}
		}
		if given || h.away || h.at != (ledger.ID{}) {
			continue
		}
		for id, c := range byID {
			total := had[id] + gets[id]
			if c.Desired != ledger.Run || !c.admitted || !c.suits(&h) || total >= c.wanted() {
				continue
			}
			held := slices.ContainsFunc(p.short, func(id ledger.ID) bool {
				e := byID[id]
				return e.suits(&h) && enough(e) && (e.Priority >= c.Priority || total >= c.needed())
			})
			if !held {
				return fmt.Errorf("%s is free, and %s has %d of %d", h.id, c.Name, total, c.wanted())
			}
		}
	}
	return nil
}

func TestPlanKeepsItsRule(t *testing.T) {
	for seed := range uint64(5_000) {
		r := rand.New(rand.NewPCG(seed, 1))
		var exps []ledger.Experiment
		for n := range 1 + r.IntN(6) {
			shards := 1 + r.Uint32N(6)
			want := r.Uint32N(9)
			most := want
			if want == 0 {
				most = shards
			}
			phases := []ledger.Phase{ledger.Queued, ledger.Queued, ledger.Queued, ledger.Waiting, ledger.Running, ledger.Running, ledger.Paused, ledger.Failed}
			e := wanting(byte(n+1), phases[r.IntN(len(phases))], shards, want, r.Uint32N(most+1), r.Int32N(3))
			if r.IntN(8) == 0 {
				e.Desired = ledger.Pause
			}
			exps = append(exps, e)
		}
		var hands []hand
		for n := range r.IntN(14) {
			h := hand{id: fmt.Sprint(n)}
			some := exps[r.IntN(len(exps))]
			switch r.IntN(8) {
			case 0:
				h.bound = some.Name
			case 1:
				h.refuses = []string{some.ID.String()}
			case 2:
				h.away = true
			case 3, 4:
				if admitted(&some) {
					h.at = some.ID
				}
			}
			hands = append(hands, h)
		}
		p := newPlan(exps, hands)
		if err := rule(exps, hands, p); err != nil {
			t.Fatalf("seed %d: %v\nexperiments %+v\nreplicas %+v\nplan %+v", seed, err, exps, hands, p)
		}
		if again := newPlan(exps, hands); !reflect.DeepEqual(p, again) {
			t.Fatalf("seed %d: %+v, and the second time %+v", seed, p, again)
		}
	}
}

// However many small experiments are submitted, a large one has its turn once those that ran before it have ended.
func TestLargeExperimentHasItsTurn(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 0))
	hands := free("a", "b", "c", "d")
	var exps []ledger.Experiment
	ends := map[ledger.ID]int{}
	submit := func(least uint32) ledger.ID {
		e := wanting(byte(len(exps)+1), ledger.Queued, least, 0, least, 0)
		exps = append(exps, e)
		return e.ID
	}
	submit(1)
	submit(1)
	var large ledger.ID
	for now := range 40 {
		if now == 5 {
			large = submit(4)
		}
		submit(1)
		for i := range exps {
			e := &exps[i]
			if e.Phase == ledger.Running && now >= ends[e.ID] {
				e.Phase = ledger.Completed
				for h := range hands {
					if hands[h].at == e.ID {
						hands[h].at = ledger.ID{}
					}
				}
			}
		}
		p := newPlan(exps, hands)
		for _, id := range p.admit {
			e := find(exps, id)
			e.Phase, ends[id] = ledger.Running, now+1+r.IntN(4)
			if id == large {
				if now > 5+4 {
					t.Errorf("has its turn after %d rounds, those before it had ended after 4", now-5)
				}
				return
			}
		}
		for h := range hands {
			if exp, ok := p.give[hands[h].id]; ok {
				hands[h].at = exp
			}
		}
	}
	t.Error("never has its turn")
}

func BenchmarkPlan(b *testing.B) {
	var exps []ledger.Experiment
	for n := range byte(100) {
		exps = append(exps, wanting(n+1, ledger.Running, 200, 0, 1, int32(n%3)))
	}
	var hands []hand
	for n := range 10_000 {
		hands = append(hands, hand{id: fmt.Sprint(n)})
	}
	for b.Loop() {
		newPlan(exps, hands)
	}
}
