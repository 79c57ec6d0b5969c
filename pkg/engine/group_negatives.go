package engine

// negative is where a chain that is a negative of a step is before the sweep that the step begins with, and the shard that
// learns from it, an index as in placed.
type negative struct {
	placed
	worker int
}

// negativeRows lists the negatives of a step in the order of their rows after the sweep. The row of a shard that is elsewhere is
// right in number alone.
func (g *group) negativeRows(perm []int32) []negative {
	workers := g.workers()
	var out []negative
	for of := g.spec.rows() - g.spec.negatives(); of < g.spec.rows(); of++ {
		from := int32(of)
		if !g.spec.FromData { // a chain from the data ends where it started
			from = perm[of]
		}
		if g.movesLabels() {
			from = g.labels[from]
		}
		at := g.home[from]
		if s := g.shards[at.shard]; s != nil && s.place != nil { // labels within the shard
			at.row = int(s.place[at.row])
		}
		out = append(out, negative{at, workers[of%g.spec.Chains]})
	}
	return out
}

// workers are the shards that learn from the negatives of each ladder.
func (g *group) workers() []int {
	out, n := make([]int, g.spec.Chains), len(g.places)
	for i := range out {
		out[i] = g.layout.Lead()
	}
	for i := range n * b2i(g.onAll) {
		for b, to := PartOf(g.spec.Chains, i, n); b < to; b++ {
			out[b] = i
		}
	}
	return out
}

// route is where negatives are and who learns from them.
type route struct{ from, worker int }

// routes are the rows that go each way, in the order of the negatives.
func routes(negatives []negative) map[route][]int32 {
	out := map[route][]int32{}
	for _, n := range negatives {
		r := route{n.shard, n.worker}
		out[r] = append(out[r], int32(n.row))
	}
	return out
}

func (g *group) negativesKey(r route) Key {
	return Key{Shard: g.places[r.from].ID, Kind: NegativesBlob, Scan: g.call, To: g.places[r.worker].ID}
}

// sendNegatives posts the states that shards elsewhere learn from.
func (g *group) sendNegatives(negatives []negative, live *liveRows) error {
	for r, rows := range routes(negatives) {
		if g.shards[r.from] == nil || g.shards[r.worker] != nil {
			continue
		}
		states, err := live.rows(r.from, rows)
		if err != nil {
			return err
		}
		g.mesh.Post(g.negativesKey(r), numberBytes(states))
	}
	return nil
}

// negatives gathers the states that a shard held here learns from, [·dim], in their order.
func (g *group) negatives(worker int, all []negative, live *liveRows) ([]float32, error) {
	dim := g.spec.dim()
	parts := make([][]float32, len(g.shards))
	for r, rows := range routes(all) {
		if r.worker != worker {
			continue
		}
		var err error
		if g.shards[r.from] != nil {
			parts[r.from], err = live.rows(r.from, rows)
		} else {
			parts[r.from], err = pull[float32](g.mesh, g.negativesKey(r), len(rows)*dim)
		}
		if err != nil {
			return nil, err
		}
	}
	var out []float32
	for _, n := range all {
		if n.worker == worker {
			out = append(out, parts[n.shard][:dim]...)
			parts[n.shard] = parts[n.shard][dim:]
		}
	}
	return out, nil
}
