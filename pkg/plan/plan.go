// Package plan says, before a training starts, what it will take: which replica holds what, how many bytes lie on every device,
// and how many go over the wire. It computes; it opens no device and sends nothing.
//
//	p, err := plan.New(plan.Experiment{
//		Layout:   engine.Layout{Placement: "rung", Split: 1, Rungs: 8, Chains: 64, Groups: 1},
//		Exchange: "state", Scans: 1, Params: 250_000, Dim: 3 * 32 * 32, Batch: 64, Optimizer: engine.OptimizerConfig{Kind: "adam"},
//	}, []int{0, 1, 2, 3, 4, 5, 6, 7})
//	if err != nil {
//		return err
//	}
//	fmt.Println(p.Traffic[0].Total, p.Replicas[7].Memory.Total) // bytes a training step, bytes on the lead's device
//
// Below, P is the number of parameters, D the dimension of a state, K that of rungs, and a float32 takes 4 bytes. The wire
// carries what pkg/engine posts for other replicas; see [Traffic] and [Memory] for the formulas.
package plan

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// Experiment are the numbers that the figures follow from.
type Experiment struct {
	// Layout cuts the chains into shards; a loss without chains has Chains 0 and Rungs 1, and Split shards of the batch.
	Layout engine.Layout
	// OnAll says that every shard computes the gradient of a slice of the step, see [engine.TrainerConfig].
	OnAll    bool
	Exchange string // what a swap moves: state or label
	Scans    int    // scans a training step, at least 1
	// Schedule and Window are those of the swaps, see [tempering.Config].
	Schedule string
	Window   int
	// Accept is the share of tried swaps that are accepted, [K−1] by pair; nil stands for a third each.
	Accept []float64

	Params int // P
	Dim    int // D
	Batch  int // data rows a step of a group
	// Pool is M, the columns of a replay buffer apart from the live chains; 0 where every column is live.
	Pool     int
	Mix      bool // fresh starts or jitter are mixed in, see [engine.Spec]
	FromData bool // every scan starts at rows of the data
	Fresh    bool // rung 0 is an independent draw at every scan
	Virtual  bool // negatives of a step come from the two coldest rungs

	Optimizer engine.OptimizerConfig

	// Products is the number of values that the matrix products and convolutions of one evaluation of the network give for a
	// state. Twice says that the loss contains gradients in the state, so that its own gradient is a second one.
	Products int
	Twice    bool

	Averaging averaging.Config
}

// third is the acceptance of a swap where nobody has measured one.
const third = 1.0 / 3

// Validate reports every fault.
func (e Experiment) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if err := e.Layout.Validate(); err != nil {
		errs = append(errs, err)
	}
	if !slices.Contains(engine.Exchanges(), e.Exchange) {
		fault("exchange: %q, want one of %v", e.Exchange, engine.Exchanges())
	}
	for _, n := range []struct {
		name         string
		value, least int
	}{{"rungs", e.Layout.Rungs, 1}, {"chains", e.Layout.Chains, 0}, {"scans", e.Scans, 1}, {"window", e.Window, 0}, {"parameters", e.Params, 1}, {"dimension", e.Dim, 1},
		{"batch", e.Batch, 1}, {"pool", e.Pool, 0}, {"products", e.Products, 0}} {
		if n.value < n.least {
			fault("%s: %d, want at least %d", n.name, n.value, n.least)
		}
	}
	if e.Accept != nil && len(e.Accept) != e.Layout.Rungs-1 {
		fault("accept: %d pairs, want %d", len(e.Accept), e.Layout.Rungs-1)
	}
	for i, a := range e.Accept {
		if !(a >= 0 && a <= 1) {
			fault("accept: pair %d has %g, want a share in [0, 1]", i, a)
		}
	}
	if e.Averaging.Groups != 0 && e.Averaging.Groups != e.Layout.Groups {
		fault("averaging.groups: %d, want the %d of the layout", e.Averaging.Groups, e.Layout.Groups)
	}
	return errors.Join(errs...)
}

// Plan is what a training takes. It is the JSON of `coordinator plan`.
type Plan struct {
	Params    int    `json:"params"`
	Dim       int    `json:"dim"`
	Placement string `json:"placement"`
	Split     int    `json:"split"`
	Rungs     int    `json:"rungs"`
	Groups    int    `json:"groups"`

	Shards   []Shard   `json:"shards"`
	Replicas []Replica `json:"replicas"`
	Standbys int       `json:"standbys"` // replicas that hold no shard
	// Traffic is that of a training step under the experiment's exchange, then under the other one.
	Traffic []Traffic `json:"traffic"`
	// Rounds are the averaging rounds by wire format, the experiment's first; empty where nothing travels. Every is the
	// number of training steps between two.
	Rounds []Round `json:"averaging_rounds,omitempty"`
	Every  int     `json:"averaging_every,omitempty"`
	Cut    Cut     `json:"cut"`
}

// Shard is what one shard holds, and who holds it.
type Shard struct {
	ID      uint32 `json:"id"`
	Group   int    `json:"group"`
	Rungs   [2]int `json:"rungs"`   // from, to
	Ladders [2]int `json:"ladders"` // of the group, from, to
	Rows    int    `json:"rows"`    // chains
	Replica int    `json:"replica"`
	Lead    bool   `json:"lead"` // it makes the optimizer steps of its group
}

// Replica is what lies on the device of one replica, and what it sends and receives in a training step under the
// experiment's exchange.
type Replica struct {
	ID       int      `json:"id"`
	Shards   []uint32 `json:"shards"`
	Memory   Memory   `json:"memory"`
	Sent     float64  `json:"sent"`
	Received float64  `json:"received"`
}

// Round are the bytes of an averaging round: contributions of the groups' leads to the coordinator, one vector [P] each, and
// from there to every replica that holds a shard.
type Round struct {
	Format string `json:"format"`
	Up     int    `json:"up"`
	Down   int    `json:"down"`
}

// Cut are the bytes of a cut: the states of the shards that are elsewhere to the leads of their groups, and from there all of
// it to the coordinator: 4·(states + P·(1 + moments + average)) and a few numbers more.
type Cut struct {
	ToLeads       int `json:"to_leads"`
	ToCoordinator int `json:"to_coordinator"`
}

// New makes the plan of an experiment whose shard i is held by replica holders[i], of as many replicas as the largest number
// says; each of them holds at least one.
func New(e Experiment, holders []int) (*Plan, error) {
	if err := e.Validate(); err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	if n := e.Layout.NumShards(); len(holders) != n {
		return nil, fmt.Errorf("plan: holders of %d shards, want %d", len(holders), n)
	}
	if r := slices.Min(holders); r < 0 {
		return nil, fmt.Errorf("plan: replica %d, want 0 or more", r)
	}
	replicas := slices.Max(holders) + 1
	for r := range replicas {
		if !slices.Contains(holders, r) {
			return nil, fmt.Errorf("plan: replica %d holds no shard, want one at least", r)
		}
	}
	l := e.Layout
	p := &Plan{Params: e.Params, Dim: e.Dim, Placement: l.Placement, Split: l.Split, Rungs: l.Rungs, Groups: l.Groups, Cut: e.cut(holders)}
	p.Traffic = []Traffic{e.traffic(e.Exchange, holders)}
	for _, other := range engine.Exchanges() {
		if other != e.Exchange {
			p.Traffic = append(p.Traffic, e.traffic(other, holders))
		}
	}
	for r := range replicas {
		p.Replicas = append(p.Replicas, e.replica(r, holders))
	}
	for g := range e.Layout.Groups {
		for i, place := range e.Layout.Shards(g) {
			p.Shards = append(p.Shards, Shard{
				ID: place.ID, Group: g, Rungs: place.Rungs, Ladders: place.Ladders, Rows: rows(place), Replica: holders[place.ID], Lead: i == e.Layout.Lead(),
			})
		}
	}
	if e.Averaging.Travels() && !e.synchronous() {
		p.Every = e.Averaging.Every
		others := slices.DeleteFunc(slices.Clone(averaging.Formats), func(f string) bool { return f == e.Averaging.Format })
		for _, format := range append([]string{e.Averaging.Format}, others...) {
			n := averaging.Size(format, e.Params)
			p.Rounds = append(p.Rounds, Round{Format: format, Up: e.Layout.Groups * n, Down: replicas * n})
		}
	}
	return p, nil
}

// rows is the number of chains of a place.
func rows(p engine.Place) int { return (p.Rungs[1] - p.Rungs[0]) * (p.Ladders[1] - p.Ladders[0]) }

// cut counts what a cut moves. Under exchange of labels within a shard, its places travel with the states.
func (e Experiment) cut(holders []int) Cut {
	var c Cut
	vectors := 1 + e.moments() + e.averages()
	for g := range e.Layout.Groups {
		places := e.Layout.Shards(g)
		lead := holders[places[e.Layout.Lead()].ID]
		c.ToCoordinator += 4 * e.Params * vectors
		for _, p := range places {
			n := 4 * (rows(p) + e.slots(p)) * e.Dim
			c.ToCoordinator += n
			if holders[p.ID] == lead {
				continue
			}
			if e.Exchange == "label" && e.Layout.Placement == "ladder" {
				n += 4 * rows(p)
			}
			c.ToLeads += n
		}
	}
	return c
}

// moments is the number of vectors [P] of optimizer state, averages that of averaged parameters.
func (e Experiment) moments() int {
	switch {
	case e.Optimizer.Kind != "sgd":
		return 2
	case e.Optimizer.Momentum > 0:
		return 1
	}
	return 0
}

func (e Experiment) averages() int {
	if e.Optimizer.EMA > 0 {
		return 1
	}
	return 0
}

// accepted is the expected number of accepted swaps of a pair in a scan of one ladder. A pair is tried in every second scan;
// under the windowed schedule it is tried through every second window of W scans until it swaps, which it does with
// probability 1 − (1−a)^W.
func (e Experiment) accepted(pair int) float64 {
	a := third
	if e.Accept != nil {
		a = e.Accept[pair]
	}
	w := float64(e.window())
	return (1 - math.Pow(1-a, w)) / (2 * w)
}

func (e Experiment) window() int {
	switch {
	case e.Schedule != "windowed":
		return 1
	case e.Window > 0:
		return e.Window
	}
	mean := third
	if e.Accept != nil {
		mean = 0
		for _, a := range e.Accept {
			mean += a / float64(len(e.Accept))
		}
	}
	return tempering.Window(mean, e.Layout.Rungs)
}
