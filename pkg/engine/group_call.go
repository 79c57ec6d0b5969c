package engine

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
)

// Train makes one training step: sweep → negatives to those who learn from them → gradient → optimizer step of the lead →
// parameters to all → explore.
func (g *group) Train(scan uint64, step int, lr float64, positives []float32, d Draw) (Result, error) {
	g.call++
	live := &liveRows{g: g, read: make([][]float32, len(g.shards))}
	negatives := g.negativeRows(d.Perm)
	if err := g.sendNegatives(negatives, live); err != nil {
		return Result{}, err
	}
	draws, err := g.exchange(d, live)
	if err != nil {
		return Result{}, err
	}
	theta, scores, err := g.learn(lr, step, positives, negatives, live, d.Weights)
	if err != nil {
		return Result{}, err
	}
	key := Key{Shard: g.places[g.layout.Lead()].ID, Kind: ThetaBlob, Scan: g.call}
	if g.lead != nil {
		g.mesh.Post(key, numberBytes(append(slices.Clone(theta), scores.packed()...)))
	} else {
		v, err := pull[float32](g.mesh, key, len(g.theta)+NumScores)
		if err != nil {
			return Result{}, err
		}
		theta, scores = v[:len(v)-NumScores], unpackScores(to64(v[len(v)-NumScores:]))
	}
	g.spread(theta)
	g.trained = g.call
	r, err := g.explore(scan, d.Perm, draws)
	r.Scores = scores
	return r, err
}

// learn makes the optimizer step, and gives the parameters after it where the lead is held.
func (g *group) learn(lr float64, step int, positives []float32, negatives []negative, live *liveRows, weights []float32) (theta []float32, scores Scores, err error) {
	var own []float32 // gradient of the group
	switch {
	case g.onAll:
		own, scores, err = g.gradient(positives, negatives, live, weights)
	case g.lead != nil:
		in := stepInput{positives: positives, weights: weights}
		if in.negatives, err = g.negatives(g.layout.Lead(), negatives, live); err != nil {
			return nil, Scores{}, err
		}
		if !g.sync {
			return g.lead.step(lr, step, in)
		}
		own, scores, err = g.lead.slope(in)
	}
	if err != nil || g.lead == nil {
		return nil, Scores{}, err
	}
	if g.sync {
		if own, err = meanOverGroups(g.mesh, g.layout, g.call, g.places, own); err != nil {
			return nil, Scores{}, err
		}
	}
	theta, scores.GradNorm, err = g.lead.descend(lr, step, own)
	return theta, scores, err
}

// meanOverGroups is the mean gradient of all groups, whose leads make the same calls.
func meanOverGroups(mesh Mesh, layout Layout, call uint64, places []Place, own []float32) ([]float32, error) {
	leads := make([][]float32, layout.Groups)
	key := Key{Shard: places[layout.Lead()].ID, Kind: GradientBlob, Scan: call}
	mesh.Post(key, numberBytes(own))
	for i := range leads {
		var err error
		key.Shard = layout.Shards(i)[layout.Lead()].ID
		if leads[i], err = pull[float32](mesh, key, len(own)); err != nil {
			return nil, err
		}
	}
	mean := make([]float32, len(own))
	if err := averaging.Mean(mean, leads, nil); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	return mean, nil
}

// Scan explores once without training.
func (g *group) Scan(scan uint64, d Draw) (Result, error) {
	g.call++
	draws, err := g.exchange(d, &liveRows{g: g, read: make([][]float32, len(g.shards))})
	if err != nil {
		return Result{}, err
	}
	return g.explore(scan, d.Perm, draws)
}

// liveRows reads the states of shards that are held here, each shard's at most once in a call.
type liveRows struct {
	g    *group
	read [][]float32
}

// rows are those of a shard, [rows·dim].
func (l *liveRows) rows(shard int, rows []int32) ([]float32, error) {
	if l.read[shard] == nil {
		var err error
		if l.read[shard], err = l.g.shards[shard].rawLive(); err != nil {
			return nil, err
		}
	}
	dim := l.g.spec.dim()
	out := make([]float32, 0, len(rows)*dim)
	for _, row := range rows {
		out = append(out, l.read[shard][int(row)*dim:(int(row)+1)*dim]...)
	}
	return out, nil
}

// exchange applies a sweep: it posts the states that go elsewhere, pulls those that come, and says what each local shard
// starts from.
func (g *group) exchange(d Draw, live *liveRows) ([]Draw, error) {
	dim := g.spec.dim()
	if g.spec.FromData {
		draws := make([]Draw, len(g.shards))
		for i, p := range g.places {
			p.each(g.spec.Chains, func(_, of int) { draws[i].Starts = append(draws[i].Starts, d.Starts[of*dim:(of+1)*dim]...) })
		}
		return draws, nil
	}
	if len(d.Perm) != g.spec.rows() {
		return nil, fmt.Errorf("engine: draw: permutation: length %d, want %d", len(d.Perm), g.spec.rows())
	}
	if g.movesLabels() {
		g.labels = permuted(g.labels, d.Perm, 1)
		g.setRows()
		return make([]Draw, len(g.shards)), nil
	}
	draws := make([]Draw, len(g.shards))
	if !g.byRung() { // swaps stay within a shard
		for i, p := range g.places {
			draws[i].Perm = make([]int32, p.rows())
			p.each(g.spec.Chains, func(row, of int) { draws[i].Perm[row] = int32(g.home[d.Perm[of]].row) })
		}
		return draws, g.refill(d, draws)
	}
	moves := slices.DeleteFunc(g.moves(d.Perm), func(m move) bool { // rung 0 of a linear path is drawn anew, unless its states are kept
		return g.spec.Reference != nil && g.places[m.to].Rungs[0] == 0 && !g.spec.pooled()
	})
	for _, m := range moves {
		if g.shards[m.from] == nil {
			continue
		}
		rows, err := live.rows(m.from, m.fromRows)
		if err != nil {
			return nil, err
		}
		g.mesh.Post(Key{Shard: g.places[m.from].ID, Kind: RowsBlob, Scan: g.call, To: g.places[m.to].ID}, numberBytes(rows))
	}
	for i, s := range g.shards {
		if s != nil {
			draws[i] = Draw{Perm: identityPerm(s.spec.rows()), Incoming: make([]float32, s.spec.rows()*dim)}
		}
	}
	for _, m := range moves {
		if g.shards[m.to] == nil {
			continue
		}
		rows, err := pull[float32](g.mesh, Key{Shard: g.places[m.from].ID, Kind: RowsBlob, Scan: g.call, To: g.places[m.to].ID}, len(m.toRows)*dim)
		if err != nil {
			return nil, err
		}
		into := &draws[m.to]
		for j, row := range m.toRows {
			copy(into.Incoming[int(row)*dim:(int(row)+1)*dim], rows[j*dim:(j+1)*dim])
			into.Perm[row] += int32(len(into.Perm))
		}
	}
	return draws, g.refill(d, draws)
}

// refill says which columns of its part of the replay buffer each local shard writes and starts from, and which start afresh.
func (g *group) refill(d Draw, draws []Draw) error {
	if !g.spec.pooled() {
		return nil
	}
	dim, slots := g.spec.dim(), g.spec.Rungs*g.spec.Pool
	for i, s := range g.shards {
		if s == nil {
			continue
		}
		part, own := &draws[i], map[int32]int32{} // slot of the shard by slot of the group
		n := s.spec.Rungs * s.spec.Pool
		g.eachSlot(i, func(slot, of int) {
			own[int32(of)] = int32(slot)
			from := int32(slot)
			if row := int(d.Source[of]) - slots; row >= 0 {
				from = int32(n + g.home[row].row)
			}
			part.Source = append(part.Source, from)
		})
		var err error
		g.places[i].each(g.spec.Chains, func(_, of int) {
			slot, is := own[d.Slots[of]]
			if !is {
				err = fmt.Errorf("engine: draw: row %d starts from slot %d, which shard %d does not have", of, d.Slots[of], g.places[i].ID)
			}
			part.Slots = append(part.Slots, slot)
			if g.spec.Mix {
				part.Keep, part.Add = append(part.Keep, d.Keep[of]), append(part.Add, d.Add[of*dim:(of+1)*dim]...)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// move is the states that go from one shard to another in a sweep.
type move struct {
	from, to         int
	fromRows, toRows []int32
}

// moves lists, in a fixed order, which states change their shards.
func (g *group) moves(perm []int32) []move {
	index := map[[2]int]int{}
	var out []move
	for of := range perm {
		from, to := g.home[perm[of]], g.home[of]
		if from.shard == to.shard {
			continue
		}
		pair := [2]int{from.shard, to.shard}
		i, known := index[pair]
		if !known {
			i = len(out)
			index[pair] = i
			out = append(out, move{from: from.shard, to: to.shard})
		}
		out[i].fromRows, out[i].toRows = append(out[i].fromRows, int32(from.row)), append(out[i].toRows, int32(to.row))
	}
	return out
}

// explore lets every local shard explore, side by side, and gathers what all of them found.
func (g *group) explore(scan uint64, perm []int32, draws []Draw) (Result, error) {
	hash := g.agreed.hash(scan, perm)
	errs := make([]error, len(g.shards))
	var wait sync.WaitGroup
	for i, s := range g.shards {
		if s == nil {
			continue
		}
		wait.Go(func() {
			r, err := s.Scan(scan, draws[i])
			if err != nil {
				errs[i] = fmt.Errorf("shard %d: %w", g.places[i].ID, err)
				return
			}
			found := to32(slices.Concat(r.V, r.V0, r.Accept, []float64{float64(r.NonFinite)}))
			g.mesh.Post(Key{Shard: g.places[i].ID, Kind: EnergiesBlob, Scan: g.call}, numberBytes(appendHash(found, hash)))
		})
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return Result{}, err
	}
	r, err := g.gather(scan, hash)
	if err != nil {
		return Result{}, err
	}
	// Whoever posted this call's energies has pulled all that it wanted of the calls before. Other groups are known to have
	// done so at the steps alone that they share.
	done := g.call
	if g.sync {
		done = g.trained
	}
	for i, s := range g.shards {
		if s != nil {
			g.mesh.Release(g.places[i].ID, done)
		}
	}
	return r, nil
}

// gather brings what the shards found to all processes, by way of the lead: as many blobs as there are shards and processes,
// not as many as pairs of them. V0 stays with the lead, who alone reports.
func (g *group) gather(scan, hash uint64) (Result, error) {
	rows, rungs := g.energies(), g.spec.Rungs
	key := Key{Shard: g.places[g.layout.Lead()].ID, Kind: GatheredBlob, Scan: g.call}
	var r Result
	if g.lead != nil {
		var err error
		if r, err = g.collect(scan, hash); err != nil {
			return Result{}, err
		}
		g.mesh.Post(key, numberBytes(to32(slices.Concat(r.V, r.Accept, []float64{float64(r.NonFinite)}))))
	}
	// The lead reads its own blob too, so that all have the same bits.
	all, err := pull[float32](g.mesh, key, rows+rungs+1)
	if err != nil {
		return Result{}, err
	}
	found := to64(all)
	r.V, r.Accept, r.NonFinite = found[:rows], found[rows:rows+rungs], int(found[rows+rungs])
	return r, nil
}

// energies is the number of rows of the group whose energies are wanted: none where nobody swaps.
func (g *group) energies() int {
	if g.spec.ladder() == 1 {
		return 0
	}
	return g.spec.rows()
}

// collect puts what the shards found into the rows of the group. They must have found it from what the lead has too.
func (g *group) collect(scan, hash uint64) (Result, error) {
	rows := g.energies()
	r := Result{V: make([]float64, rows), V0: make([]float64, rows)}
	accept := make([]float64, g.spec.rows()) // of every row
	ofPlace := inverse(g.labels)
	for _, p := range g.places {
		n, rates := p.rows(), p.Rungs[1]-p.Rungs[0]
		if g.movesLabels() {
			rates = n
		}
		held := n
		if rows == 0 {
			held = 0
		}
		found, err := pull[float32](g.mesh, Key{Shard: p.ID, Kind: EnergiesBlob, Scan: g.call}, 2*held+rates+1+hashWords)
		if err != nil {
			return Result{}, err
		}
		found, other := cutHash(found)
		if other != hash {
			return Result{}, disagreement(scan, p.ID, other, g.places[g.layout.Lead()].ID, hash)
		}
		p.each(g.spec.Chains, func(row, of int) {
			rate := found[2*held+row*rates/n]
			if ofPlace != nil {
				of = int(ofPlace[of])
			}
			if held > 0 {
				r.V[of], r.V0[of] = float64(found[row]), float64(found[held+row])
			}
			accept[of] = float64(rate)
		})
		r.NonFinite += int(found[len(found)-1])
	}
	r.Accept = rungMeans(accept, g.spec.Rungs)
	return r, nil
}

// inverse of a permutation; nil of nil.
func inverse(perm []int32) []int32 {
	if perm == nil {
		return nil
	}
	out := make([]int32, len(perm))
	for i, at := range perm {
		out[at] = int32(i)
	}
	return out
}
