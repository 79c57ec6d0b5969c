package plan

import (
	"slices"

	"github.com/kelvin-ebm/kelvin/pkg/engine"
)

// Memory are the bytes on a replica's device. Workspace is an estimate, the rest is counted:
//
//	parameters  4·P for each shard: shards share none; and for each lead whose group has several shards. Without chains 4·P for
//	            each group
//	optimizer   4·P for each vector of the optimizer's state, with the lead
//	average     4·P where optimizer.ema keeps an average, with the lead
//	chains      4·n·(D + 2): states, β and step size of n rows
//	pool        4·k·m·D of a replay buffer that is larger than the chains: k rungs of the part, m = M / split columns, that a shard keeps
//	inputs      what a call brings: positives 4·batch·D and, where the group has several shards, the negatives, with the lead, or
//	            with each shard its slice of both, where all compute the gradient;
//	            4·n of a sweep's permutation and, where single rungs exchange states, 4·n·D of incoming ones; what
//	            goes into the pool and out of it; fresh starts
//	workspace   the larger of exploring, 4·n·(2A + 6D), and learning, 4·(m·2A + 3P), with A values of the products in the
//	            network for a state and m = batch + negatives, or a slice of them: forward and backward each keep the product's output; six states
//	            a row are the chain's, its proposal's, their gradients, the noise and the result; a gradient that contains one
//	            counts 4A. Shards of a replica work at the same time. What a compiler fuses, or saves for speed, is not seen
type Memory struct {
	Parameters int `json:"parameters"`
	Optimizer  int `json:"optimizer"`
	Average    int `json:"average"`
	Chains     int `json:"chains"`
	Pool       int `json:"pool"`
	Inputs     int `json:"inputs"`
	Workspace  int `json:"workspace"`
	Total      int `json:"total"`
}

// replica counts what one of them holds and moves.
func (e Experiment) replica(id int, holders []int) Replica {
	out := Replica{ID: id}
	m := &out.Memory
	var exploring, learning int
	for g := range e.Layout.Groups {
		held := 0
		for i, p := range e.Layout.Shards(g) {
			if holders[p.ID] != id {
				continue
			}
			out.Shards = append(out.Shards, p.ID)
			n := rows(p)
			if held++; held == 1 || e.Layout.Chains > 0 {
				m.Parameters += 4 * e.Params
			}
			m.Chains += 4 * n * (e.Dim + 2)
			switch {
			case e.FromData:
				m.Inputs += 4 * n * e.Dim
			case e.Exchange == "state" && e.Layout.Placement == "rung":
				m.Inputs += 4 * n * (1 + e.Dim)
			case e.Exchange == "state":
				m.Inputs += 4 * n
			}
			if e.Pool > 0 {
				m.Pool += 4 * e.slots(p) * e.Dim
				m.Inputs += 4 * (e.slots(p) + n) // what goes where
			}
			if e.Mix {
				m.Inputs += 4 * n * (e.Dim + 1)
			}
			exploring += 4 * n * (2*e.Products + 6*e.Dim)
			if i == e.Layout.Lead() {
				e.lead(m)
			}
			if e.OnAll || i == e.Layout.Lead() {
				learning += e.learning(m)
			}
		}
	}
	m.Workspace = max(exploring, learning)
	m.Total = m.Parameters + m.Optimizer + m.Average + m.Chains + m.Pool + m.Inputs + m.Workspace
	e.transfers(e.Exchange, holders, func(t transfer) {
		if t.from == id {
			out.Sent += t.bytes + t.headers()
		}
		if t.to == id {
			out.Received += t.bytes + t.headers()
		}
	})
	slices.Sort(out.Shards)
	return out
}

// lead adds what a group's lead holds besides its shard.
func (e Experiment) lead(m *Memory) {
	l := e.Layout
	m.Optimizer += 4 * e.Params * e.moments()
	m.Average += 4 * e.Params * e.averages()
	if l.Chains > 0 && (l.PerGroup() > 1 || e.synchronous()) {
		m.Parameters += 4 * e.Params
	}
}

// slots is the number of columns of a replay buffer, on all rungs that it holds, that a place keeps.
func (e Experiment) slots(p engine.Place) int {
	return (p.Rungs[1] - p.Rungs[0]) * e.Pool / e.Layout.Split
}

// learning adds what a shard learns from, the whole step or the largest slice of it, and returns the workspace.
func (e Experiment) learning(m *Memory) int {
	l := e.Layout
	batch, ladders := e.Batch, l.Chains
	if e.OnAll {
		n := l.PerGroup()
		batch, ladders = (batch+n-1)/n, (ladders+n-1)/n
	}
	negatives := ladders
	if e.Virtual {
		negatives *= min(2, l.Rungs)
	}
	m.Inputs += 4 * batch * e.Dim
	if l.PerGroup() > 1 || e.synchronous() {
		m.Inputs += 4 * negatives * e.Dim
	}
	kept := 2 * e.Products
	if e.Twice {
		kept *= 2
	}
	return 4 * ((batch+negatives)*kept + 3*e.Params)
}
