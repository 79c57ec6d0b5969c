package plan

import (
	"math"

	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// Traffic are the bytes that all replicas together send each other in a training step, by what they are. Nothing is sent
// within a replica. With R replicas that hold shards of a group, n rows of a shard and r numbers of its acceptance (its
// rungs; its rows where labels move between shards):
//
//	energies   a scan: 4·(2n + r + 3) of every shard to the lead: V, V₀, acceptance, non-finite proposals, a hash; then
//	           4·(K·B + K + 1) of the lead to each of the R − 1 others: V, acceptance, non-finite proposals of the group
//	rows       a scan, placement rung, exchange of states: 4·D each way for every accepted swap of two replicas; none to
//	           a rung 0 that is drawn anew
//	negatives  a step: 4·D for each chain that is a negative of the step and not where it is learnt from: with the lead or, where
//	           all shards compute the gradient, with the shard that has its slice of the ladders
//	theta      a step: 4·(P + 5) of the lead to each of the R − 1 others; the five are the scores of the step
//	gradient   a step, where all shards compute it: 4·(P + 5) for each of the n − 1 edges of the tree over a group's shards that
//	           joins two replicas; with averaging.outer sync 4·P of every group's lead to the lead of every other group
//	headers    169 for each message pair, a chunk of at most 256 KiB; NATS adds its subjects
//
// Rows, and negatives where a shard holds one rung, are means: swaps are random. So is the place of a chain under exchange of
// labels, which in the long run is at each of its K places equally often. A loss without chains has the last three alone, its
// gradient is computed by all shards, and its scores are two and one for each of its parts; five are counted.
type Traffic struct {
	Exchange  string  `json:"exchange"`
	Energies  float64 `json:"energies"`
	Rows      float64 `json:"rows"`
	Negatives float64 `json:"negatives"`
	Theta     float64 `json:"theta"`
	Gradient  float64 `json:"gradient"`
	Headers   float64 `json:"headers"`
	Total     float64 `json:"total"`
}

// pairBytes are the bytes of a request for a chunk and of its answer, without the chunk itself.
const pairBytes = 2*transport.HeaderSize + 1 + (transport.MaxPayload - transport.ChunkSize)

// transfer is what one replica pulls from another in a training step: so many blobs with so many bytes in all.
type transfer struct {
	kind         engine.Kind
	from, to     int // replicas
	blobs, bytes float64
}

// headers are the bytes around the chunks of the blobs, as if all had one size.
func (t transfer) headers() float64 {
	return t.blobs * math.Ceil(t.bytes/t.blobs/transport.ChunkSize) * pairBytes
}

func (e Experiment) traffic(exchange string, holders []int) Traffic {
	out := Traffic{Exchange: exchange}
	e.transfers(exchange, holders, func(t transfer) {
		*out.of(t.kind) += t.bytes
		out.Headers += t.headers()
	})
	out.Total = out.Energies + out.Rows + out.Negatives + out.Theta + out.Gradient + out.Headers
	return out
}

func (t *Traffic) of(kind engine.Kind) *float64 {
	switch kind {
	case engine.EnergiesBlob, engine.GatheredBlob:
		return &t.Energies
	case engine.RowsBlob:
		return &t.Rows
	case engine.NegativesBlob:
		return &t.Negatives
	case engine.ThetaBlob:
		return &t.Theta
	default:
		return &t.Gradient
	}
}

// transfers gives every transfer of a training step to yield.
func (e Experiment) transfers(exchange string, holders []int, yield func(transfer)) {
	send := func(t transfer) {
		if t.from != t.to && t.bytes > 0 {
			yield(t)
		}
	}
	scans, state := float64(e.Scans), float64(4*e.Dim)
	var leads []int
	for g := range e.Layout.Groups {
		places := e.Layout.Shards(g)
		lead := holders[places[e.Layout.Lead()].ID]
		leads = append(leads, lead)
		for _, to := range members(places, holders) {
			if e.Layout.Chains > 0 {
				send(transfer{engine.GatheredBlob, lead, to, scans, scans * float64(e.gathered())})
			}
			send(transfer{engine.ThetaBlob, lead, to, 1, float64(4 * (e.Params + engine.NumScores))})
		}
		for _, p := range places {
			if e.Layout.Chains == 0 {
				break
			}
			send(transfer{engine.EnergiesBlob, holders[p.ID], lead, scans, scans * float64(e.energies(exchange, p))})
			e.negativesTo(exchange, p, places, func(worker engine.Place, n float64) {
				send(transfer{engine.NegativesBlob, holders[p.ID], holders[worker.ID], math.Min(1, n), n * state})
			})
		}
		e.parts(places, func(from, to engine.Place) {
			send(transfer{engine.PartBlob, holders[from.ID], holders[to.ID], 1, float64(4 * (e.Params + engine.NumScores))})
		})
		if e.Layout.Placement != "rung" || exchange != "state" {
			continue
		}
		for i, lower := range places {
			if lower.Rungs[1] == e.Layout.Rungs {
				continue
			}
			upper, ladders := places[i+1], lower.Ladders[1]-lower.Ladders[0]
			share := e.accepted(lower.Rungs[0])
			some := 1 - math.Pow(1-share, float64(ladders)) // any swap at all
			bytes := scans * float64(ladders) * share * state
			send(transfer{engine.RowsBlob, holders[lower.ID], holders[upper.ID], scans * some, bytes})
			if !e.Fresh || lower.Rungs[0] > 0 {
				send(transfer{engine.RowsBlob, holders[upper.ID], holders[lower.ID], scans * some, bytes})
			}
		}
	}
	if e.synchronous() {
		for g, from := range leads {
			for h, to := range leads {
				if g != h {
					send(transfer{engine.GradientBlob, from, to, 1, float64(4 * e.Params)})
				}
			}
		}
	}
}

// parts gives the edges of the tree in which the shards of a group add up their parts of a gradient.
func (e Experiment) parts(places []engine.Place, yield func(from, to engine.Place)) {
	if !e.OnAll {
		return
	}
	n := len(places)
	for i := 1; i < n; i++ { // counted from the lead; the lowest bit set is the round
		at := func(i int) engine.Place { return places[(e.Layout.Lead()+i)%n] }
		yield(at(i), at(i&(i-1)))
	}
}

// synchronous says whether the leads average their gradients at every step.
func (e Experiment) synchronous() bool { return e.Averaging.Outer == "sync" && e.Layout.Groups > 1 }

// members are the replicas that hold one of the places, each once.
func members(places []engine.Place, holders []int) []int {
	var out []int
	seen := map[int]bool{}
	for _, p := range places {
		if r := holders[p.ID]; !seen[r] {
			seen[r] = true
			out = append(out, r)
		}
	}
	return out
}

// energies is the size of the blob that tells the lead of a place after a scan.
func (e Experiment) energies(exchange string, p engine.Place) int {
	n, rates := rows(p), p.Rungs[1]-p.Rungs[0]
	if exchange == "label" && e.Layout.Placement == "rung" {
		rates = n
	}
	if e.Layout.Rungs == 1 {
		n = 0 // a single rung swaps with nobody
	}
	return 4 * (2*n + rates + 3)
}

// gathered is the size of the blob in which the lead tells all others what the shards of a group found.
func (e Experiment) gathered() int {
	rows := e.Layout.Rungs * e.Layout.Chains
	if e.Layout.Rungs == 1 {
		rows = 0
	}
	return 4 * (rows + e.Layout.Rungs + 1)
}

// negativesTo gives the expected numbers of chains of a place that are negatives of a step, by who learns from them.
func (e Experiment) negativesTo(exchange string, p engine.Place, places []engine.Place, yield func(worker engine.Place, n float64)) {
	all := e.negatives(exchange, p)
	if !e.OnAll {
		yield(places[e.Layout.Lead()], all)
		return
	}
	for i, worker := range places {
		from, to := engine.PartOf(e.Layout.Chains, i, len(places))
		if shared := min(to, p.Ladders[1]) - max(from, p.Ladders[0]); shared > 0 {
			yield(worker, all*float64(shared)/float64(p.Ladders[1]-p.Ladders[0]))
		}
	}
}

// negatives is the expected number of chains of a place that are negatives of a step. These are the chains that are on the
// coldest rungs after a sweep, where they were before it.
func (e Experiment) negatives(exchange string, p engine.Place) float64 {
	ladders, k := float64(p.Ladders[1]-p.Ladders[0]), e.Layout.Rungs
	rungs := []int{k - 1}
	if e.Virtual && k > 1 {
		rungs = append(rungs, k-2)
	}
	switch {
	case e.Layout.Placement == "ladder":
		return ladders * float64(len(rungs))
	case exchange == "label":
		return ladders * float64(len(rungs)) / float64(k)
	}
	n, at := 0.0, p.Rungs[0]
	for _, rung := range rungs {
		switch at {
		case rung:
			n += 1 - e.swaps(rung-1) - e.swaps(rung)
		case rung - 1:
			n += e.swaps(at)
		case rung + 1:
			n += e.swaps(rung)
		}
	}
	return ladders * n
}

// swaps is accepted, and 0 for a pair beyond the ends of the ladder.
func (e Experiment) swaps(pair int) float64 {
	if pair < 0 || pair > e.Layout.Rungs-2 {
		return 0
	}
	return e.accepted(pair)
}
