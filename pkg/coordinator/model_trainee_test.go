package coordinator

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// chain is a state: who it is, which nothing changes, and where it is.
type chain struct{ id, x uint64 }

// trainee trains a group as engine.Trainer does with an engine.Mesh, of which every call here has its like. A chain explores
// by hashing, and the parameters follow the chains of the target rung.
type trainee struct {
	p      *process
	mesh   *paths
	task   *task
	group  int
	places []engine.Place
	shards [][]chain // nil for those that are elsewhere
	home   [][2]int  // shard and row of each row of the group, with every chain in its own

	call uint64
	at   progress
	side *averaging.Group

	ensemble *tempering.Ensemble
	before   map[int][]chain // of the last cut, which only a faulty one needs
}

// progress is what all processes of a group have alike, and what is in a cut beside the chains.
type progress struct {
	Step   int
	Scan   uint64
	Theta  []float32
	Perm   []int32 // not applied yet
	Labels []int32 // exchange of labels: the row that holds the chain of each
	Walks  tempering.State
}

var modelLadder = []float64{0.25, 0.5, 1}

// newTrainee is nil where nothing of the group is held by p.
func newTrainee(p *process, mesh *paths, group int) *trainee {
	layout := p.net.course.trial.layout
	g := &trainee{
		p: p, mesh: mesh, group: group, places: layout.Shards(group),
		shards: make([][]chain, layout.PerGroup()), home: make([][2]int, layout.Rungs*layout.Chains), before: map[int][]chain{},
	}
	holds := false
	for i, place := range g.places {
		g.each(place, func(row, of int) { g.home[of] = [2]int{i, row} })
		if mesh.holders[place.ID] == p.id {
			holds = true
			g.shards[i] = make([]chain, g.rows(place))
		}
	}
	if !holds {
		return nil
	}
	ladder, err := tempering.LadderOf(modelLadder)
	if err != nil {
		panic(err)
	}
	g.ensemble, err = tempering.NewEnsemble(tempering.Settings{Ladder: ladder, Columns: layout.Chains, Offset: uint32(group * layout.Chains), Seed: 3})
	if err != nil {
		panic(err)
	}
	return g
}

func (g *trainee) trial() trial      { return g.p.net.course.trial }
func (g *trainee) faults() faults    { return g.p.net.course.faults }
func (g *trainee) movesLabels() bool { return g.trial().exchange == "label" }
func (g *trainee) lead() int         { return g.trial().layout.Lead() }
func (g *trainee) isLead() bool      { return g.shards[g.lead()] != nil }
func (g *trainee) rows(p engine.Place) int {
	return (p.Rungs[1] - p.Rungs[0]) * (p.Ladders[1] - p.Ladders[0])
}

func (g *trainee) each(p engine.Place, f func(row, of int)) {
	row := 0
	for k := p.Rungs[0]; k < p.Rungs[1]; k++ {
		for b := p.Ladders[0]; b < p.Ladders[1]; b++ {
			f(row, k*g.trial().layout.Chains+b)
			row++
		}
	}
}

func (g *trainee) key(shard int, kind engine.Kind) engine.Key {
	return engine.Key{Shard: g.places[shard].ID, Kind: kind, Scan: g.call}
}

func (g *trainee) post(key engine.Key, words []uint64) { g.p.postBlob(g.mesh, key, pack(words)) }

func (g *trainee) pull(key engine.Key, n int) ([]uint64, error) {
	data, err := g.p.pullBlob(g.task, g.mesh, key)
	if err != nil {
		return nil, err
	}
	words := unpack(data)
	if len(words) != n {
		return nil, fmt.Errorf("%v: %d words, want %d", key, len(words), n)
	}
	return words, nil
}

func pack(words []uint64) []byte {
	var out []byte
	for _, w := range words {
		out = binary.LittleEndian.AppendUint64(out, w)
	}
	return append(out, 0) // never nil
}

func unpack(data []byte) []uint64 {
	out := make([]uint64, len(data)/8)
	for i := range out {
		out[i] = binary.LittleEndian.Uint64(data[8*i:])
	}
	return out
}

// execute does a command.
func (g *trainee) execute(cmd replica.Command, a *replica.GroupAnswer) ([]byte, error) {
	var brought []byte
	if cmd.Bulk {
		group := 0
		if cmd.Op == replica.Restore {
			group = g.group
		}
		var err error
		if brought, err = g.p.fetch(g.task, g.mesh, "", replica.BulkKey(g.mesh.generation, cmd.Seq, group)); err != nil {
			return nil, err
		}
	}
	switch cmd.Op {
	case replica.Start:
		return nil, g.start()
	case replica.Restore:
		return nil, g.restore(brought)
	case replica.Run:
		for g.at.Step < cmd.To {
			if err := g.trainStep(); err != nil {
				return nil, err
			}
			a.Reports = append(a.Reports, engine.Report{Step: g.at.Step})
		}
		return nil, nil
	case replica.Reset:
		g.ensemble.Reset()
		return nil, nil
	case replica.Cut:
		return g.cut()
	case replica.Contribute:
		if !g.isLead() {
			return nil, nil
		}
		return g.side.Contribution(g.at.Theta).Bytes(), nil
	case replica.Update:
		v, err := averaging.Parse(g.trial().averaging.Format, len(g.at.Theta), brought)
		if err != nil {
			return nil, err
		}
		g.at.Theta, err = g.side.Apply(v)
		return nil, err
	case replica.Theta:
		if !g.isLead() || g.group != 0 {
			return nil, nil
		}
		return replica.Bytes(g.at.Theta), nil
	}
	return nil, errors.New("unknown command")
}

func (g *trainee) start() (err error) {
	g.at = progress{Theta: []float32{0.5, -0.25}}
	for of := range g.home {
		g.at.Perm = append(g.at.Perm, int32(of))
	}
	for i, place := range g.places {
		g.each(place, func(row, of int) {
			if g.shards[i] != nil {
				k, b := of/g.trial().layout.Chains, of%g.trial().layout.Chains
				id := uint64((g.group*g.trial().layout.Chains+b)*len(modelLadder) + k)
				g.shards[i][row] = chain{id, hashed(id)}
			}
		})
	}
	if g.movesLabels() {
		g.at.Labels = slices.Clone(g.at.Perm)
	}
	if replica.Rounds(g.trial().averaging) {
		g.side, err = averaging.NewGroup(g.trial().averaging, g.at.Theta)
	}
	return err
}

// hashed is FNV-1a over words.
func hashed(words ...uint64) uint64 {
	h := uint64(0xcbf29ce484222325)
	for _, w := range words {
		for range 2 {
			h = (h ^ w ^ h>>29) * 0x100000001b3
		}
	}
	return h
}

func (g *trainee) trainStep() error {
	g.call++
	perm := g.at.Perm
	if err := g.exchange(perm); err != nil {
		return err
	}
	if err := g.learn(); err != nil {
		return err
	}
	g.at.Step++
	hash := g.hash(perm)
	g.explore(hash)
	v, err := g.gather(hash)
	if err != nil {
		return err
	}
	for i, place := range g.places {
		if g.shards[i] != nil {
			g.p.dropBlobs(g.mesh, place.ID, g.call)
		}
	}
	swept, err := g.ensemble.Sweep(g.at.Scan, nil, v)
	if err != nil {
		return err
	}
	g.at.Perm = swept.Perm
	g.at.Scan++
	return nil
}

// exchange posts the negatives of the step, and brings every chain to where the sweep wants it.
func (g *trainee) exchange(perm []int32) error {
	chains := g.trial().layout.Chains
	negatives := make([][]uint64, len(g.places))
	for of := len(perm) - chains; of < len(perm); of++ {
		from := perm[of]
		if g.movesLabels() {
			from = g.at.Labels[from]
		}
		at := g.home[from]
		if s := g.shards[at[0]]; s != nil {
			negatives[at[0]] = append(negatives[at[0]], uint64(of), s[at[1]].x)
		}
	}
	for i := range g.places {
		if g.shards[i] != nil {
			g.post(g.key(i, engine.NegativesBlob), append(negatives[i], make([]uint64, 2*chains-len(negatives[i]))...))
		}
	}
	if g.movesLabels() {
		old := slices.Clone(g.at.Labels)
		for of, from := range perm {
			g.at.Labels[of] = old[from]
		}
		return nil
	}
	type pair struct{ from, to int }
	sends, takes := map[pair][]uint64{}, map[pair][]int{}
	old := make([][]chain, len(g.shards))
	for i, s := range g.shards {
		old[i] = slices.Clone(s)
	}
	var order []pair
	for of, before := range perm {
		from, to := g.home[before], g.home[of]
		if from[0] == to[0] {
			if g.shards[to[0]] != nil {
				g.shards[to[0]][to[1]] = old[from[0]][from[1]]
			}
			continue
		}
		p := pair{from[0], to[0]}
		if takes[p] == nil {
			order = append(order, p)
		}
		takes[p] = append(takes[p], to[1])
		if s := old[from[0]]; s != nil {
			sends[p] = append(sends[p], s[from[1]].id, s[from[1]].x)
		}
	}
	rowsKey := func(p pair) engine.Key {
		key := g.key(p.from, engine.RowsBlob)
		key.To = g.places[p.to].ID
		return key
	}
	for _, p := range order {
		if g.shards[p.from] != nil {
			g.post(rowsKey(p), sends[p])
		}
	}
	for _, p := range order {
		if g.shards[p.to] == nil || g.faults().oneSided && p.to < p.from {
			continue
		}
		words, err := g.pull(rowsKey(p), 2*len(takes[p]))
		if err != nil {
			return err
		}
		for j, row := range takes[p] {
			g.shards[p.to][row] = chain{words[2*j], words[2*j+1]}
		}
	}
	return nil
}

// learn makes the optimizer step at the lead, and gives the parameters to all.
func (g *trainee) learn() error {
	key := g.key(g.lead(), engine.ThetaBlob)
	if g.isLead() {
		n := g.trial().layout.Chains
		x := make([]uint64, g.trial().layout.Rungs*n)
		for i := range g.places {
			words, err := g.pull(g.key(i, engine.NegativesBlob), 2*n)
			if err != nil {
				return err
			}
			for j := 0; j < len(words) && words[j] > 0; j += 2 { // row 0 is never that of a target
				x[words[j]] = words[j+1]
			}
		}
		theta := slices.Clone(g.at.Theta)
		for i := range theta {
			theta[i] += 0.01 * (float32(hashed(x[len(x)-n:]...)>>(40+i))/(1<<23) - 1)
		}
		g.at.Theta = theta
		g.post(key, thetaWords(theta))
		return nil
	}
	if g.faults().staleTheta {
		holder := g.p.net.processes[g.mesh.holders[key.Shard]]
		if holder == nil || holder.mesh != nil && holder.mesh.local[key] == nil {
			return nil
		}
	}
	words, err := g.pull(key, len(g.at.Theta))
	if err != nil {
		return err
	}
	theta := make([]float32, len(words))
	for i, w := range words {
		theta[i] = math.Float32frombits(uint32(w))
	}
	g.at.Theta = theta
	return nil
}

func thetaWords(theta []float32) []uint64 {
	words := make([]uint64, len(theta))
	for i, v := range theta {
		words[i] = uint64(math.Float32bits(v))
	}
	return words
}

// hash is that of what a scan is made from, as in engine.
func (g *trainee) hash(perm []int32) uint64 {
	words := []uint64{g.at.Scan}
	if !g.faults().noHash {
		words = append(words, thetaWords(g.at.Theta)...)
	}
	for _, from := range perm {
		words = append(words, uint64(from))
	}
	return hashed(words...)
}

// explore moves the local chains and posts their energies.
func (g *trainee) explore(hash uint64) {
	rungOf := make([]int, len(g.home))
	for of := range rungOf {
		at := of
		if g.movesLabels() {
			at = int(g.at.Labels[of])
		}
		rungOf[at] = of / g.trial().layout.Chains
	}
	theta := hashed(thetaWords(g.at.Theta)...)
	for i, place := range g.places {
		if g.shards[i] == nil {
			continue
		}
		words := make([]uint64, 0, len(g.shards[i])+1)
		g.each(place, func(row, of int) {
			c := &g.shards[i][row]
			c.x = hashed(c.x, theta, g.at.Scan, uint64(place.ID), uint64(row), math.Float64bits(modelLadder[rungOf[of]]))
			words = append(words, c.x)
		})
		g.post(g.key(i, engine.EnergiesBlob), append(words, hash))
	}
}

// gather brings V of all rows to all, by way of the lead.
func (g *trainee) gather(hash uint64) ([]float64, error) {
	key := g.key(g.lead(), engine.GatheredBlob)
	if g.isLead() {
		all := make([]uint64, len(g.home))
		ofPlace := make([]int, len(g.home))
		for of := range ofPlace {
			at := of
			if g.movesLabels() {
				at = int(g.at.Labels[of])
			}
			ofPlace[at] = of
		}
		for i, place := range g.places {
			n := g.rows(place)
			words, err := g.pull(g.key(i, engine.EnergiesBlob), n+1)
			if err != nil {
				return nil, err
			}
			if words[n] != hash {
				return nil, fmt.Errorf("%w: shard %d has hash %016x, want %016x", errApart, place.ID, words[n], hash)
			}
			g.each(place, func(row, of int) { all[ofPlace[of]] = words[row] })
		}
		g.post(key, all)
	}
	words, err := g.pull(key, len(g.home))
	if err != nil {
		return nil, err
	}
	v := make([]float64, len(words))
	for i, x := range words {
		v[i] = float64(x>>40) / (1 << 22) // in [0, 4)
	}
	return v, nil
}
