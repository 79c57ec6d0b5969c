package engine

import (
	"errors"
	"fmt"
	"slices"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// chainHolder is where a trainer's chains and parameters are: one shard, or the shards of a group.
type chainHolder interface {
	NewState(theta, live, pool []float32) State
	Load(State) error
	State() (State, error)
	Live() ([]float32, error)
	Theta() ([]float32, error)
	SetTheta([]float32)
	SetLadder(betas, stepSizes []float64)
	SetTables(steps, noise []float64)
	SetReference(models.Gaussian)
	Train(scan uint64, step int, lr float64, positives []float32, d Draw) (Result, error)
	Scan(scan uint64, d Draw) (Result, error)
	Energies(x []float32) ([]float64, error)
	Close()
}

// ErrNotLead is returned where the answer is with another process: that which holds the shard that makes the optimizer steps
// of the group.
var ErrNotLead = errors.New("engine: the group's lead shard is elsewhere")

// group holds the chains of a group on several shards. Each of the processes that hold some of them makes the same calls in
// the same order; what they have to agree on, the energies, all of them gather over the mesh. Rows are numbered over the group,
// k·B + b, as if it were one shard.
type group struct {
	spec   Spec
	layout Layout
	places []Place
	shards []*Shard // one for each place; nil for those that are elsewhere
	lead   *lead    // nil where the lead shard is elsewhere
	mesh   Mesh
	call   uint64 // calls that used the mesh: the same on every process
	// sync averages the gradients of all groups at every step, whose leads make the same calls; trained is the last such call.
	sync    bool
	trained uint64
	onAll   bool             // every shard computes a part of the gradient
	slope   *backend.Program // that part, compiled at the first step
	backend *backend.Backend

	home []placed // of each row of the group: where it is when every chain is in its own row
	// labels is, under exchange of labels by shards of one rung, the row whose place holds the chain of each row; nil otherwise.
	labels       []int32
	betas, steps []float32 // of the rungs
	theta        []float32 // as the shards have them
	agreed       agreement
}

// placed is a row of a shard.
type placed struct{ shard, row int }

// newGroup makes the shards whose ids are in local; nil means all of them.
func newGroup(b *backend.Backend, spec Spec, layout Layout, number int, local []uint32, mesh Mesh) (_ *group, err error) {
	if err := layout.Validate(); err != nil {
		return nil, fmt.Errorf("engine: group: %w", err)
	}
	switch {
	case layout.Rungs != spec.Rungs || layout.Chains != spec.Chains:
		return nil, fmt.Errorf("engine: group: layout of %d rungs and %d chains, want %d and %d", layout.Rungs, layout.Chains, spec.Rungs, spec.Chains)
	case spec.Pool%layout.Split != 0:
		return nil, fmt.Errorf("engine: group: a replay buffer of %d columns, want a multiple of split, %d", spec.Pool, layout.Split)
	}
	if mesh == nil {
		mesh = &LocalMesh{}
	}
	g := &group{backend: b, spec: spec, layout: layout, places: layout.Shards(number), mesh: mesh, home: make([]placed, spec.rows())}
	defer func() {
		if err != nil {
			g.Close()
		}
	}()
	compiled := map[bool]*programs{} // by whether rows are drawn anew: all else is alike
	for i, place := range g.places {
		place.each(spec.Chains, func(row, of int) { g.home[of] = placed{i, row} })
		if local != nil && !slices.Contains(local, place.ID) {
			g.shards = append(g.shards, nil)
			continue
		}
		shard, err := NewShard(b, g.shardSpec(place))
		if err != nil {
			return nil, err
		}
		shard.cores.off = true // shards run side by side: the cores are no one's to try
		if same := compiled[shard.spec.drawn() > 0]; same != nil {
			shard.programs, shard.shared = same, true
		}
		compiled[shard.spec.drawn() > 0] = shard.programs
		g.shards = append(g.shards, shard)
		if i == layout.Lead() {
			g.lead = newLead(b, spec, shard.params)
		}
	}
	return g, nil
}

// shardSpec is what one shard of the group compiles.
func (g *group) shardSpec(p Place) Spec {
	s := g.spec
	s.Chains = p.Ladders[1] - p.Ladders[0]
	s.Pool, s.Batch, s.Weighted, s.Virtual, s.Shard = s.Pool/g.layout.Split, 0, false, false, p.ID
	s.Optimizer = OptimizerConfig{Kind: "sgd"}
	if g.byRung() {
		s.Ladder, s.Rungs, s.FirstRung = s.Rungs, 1, p.Rungs[0]
	}
	return s
}

func (g *group) byRung() bool { return g.layout.Placement == "rung" }

// movesLabels says whether chains keep their places, anywhere in the group, while β moves.
func (g *group) movesLabels() bool { return g.byRung() && g.spec.byLabel() }

// Close frees the device memory.
func (g *group) Close() {
	for _, s := range g.shards {
		if s != nil {
			s.Close()
		}
	}
	if g.lead != nil {
		g.lead.close()
	}
	if g.slope != nil {
		g.slope.Close()
	}
}

// NewState is that of a single shard with all chains.
func (g *group) NewState(theta, live, pool []float32) State {
	whole := Shard{spec: g.spec, params: max(1, models.NumParams(g.spec.Network))}
	return whole.NewState(theta, live, pool)
}

// Load puts the parts of a state where they belong.
func (g *group) Load(st State) error {
	whole := Shard{spec: g.spec, params: max(1, models.NumParams(g.spec.Network))}
	if err := whole.checkState(st); err != nil {
		return err
	}
	g.theta = st.Theta
	g.agreed.setTheta(st.Theta)
	if g.lead != nil {
		g.lead.load(st)
	}
	rows := st.Rows
	if rows == nil {
		rows = identityPerm(g.spec.rows())
	}
	if g.movesLabels() {
		g.labels = slices.Clone(rows)
	}
	dim := g.spec.dim()
	for i, s := range g.shards {
		if s == nil {
			continue
		}
		part := State{Theta: st.Theta, Live: make([]float32, s.spec.rows()*dim)}
		switch {
		case g.movesLabels(): // each chain where the labels say
			for of, at := range rows {
				if home := g.home[at]; home.shard == i {
					copy(part.Live[home.row*dim:(home.row+1)*dim], st.Live[of*dim:(of+1)*dim])
				}
			}
		default:
			g.places[i].each(g.spec.Chains, func(row, of int) { copy(part.Live[row*dim:(row+1)*dim], st.Live[of*dim:(of+1)*dim]) })
		}
		g.eachSlot(i, func(slot, of int) { part.Pool = append(part.Pool, st.Pool[of*dim:(of+1)*dim]...) })
		if s.spec.byLabel() && !g.byRung() {
			part.Rows = make([]int32, s.spec.rows())
			g.places[i].each(g.spec.Chains, func(row, of int) { part.Rows[row] = int32(g.home[rows[of]].row) })
		}
		if err := s.Load(part); err != nil {
			return err
		}
	}
	g.setRows()
	return nil
}

// SetTheta replaces the parameters, of the lead and of the shards.
func (g *group) SetTheta(theta []float32) {
	g.spread(theta)
	if g.lead != nil {
		g.lead.setTheta(theta)
	}
}

// spread gives the shards the parameters after a step.
func (g *group) spread(theta []float32) {
	g.theta = theta
	g.agreed.setTheta(theta)
	for _, s := range g.shards {
		if s != nil {
			s.SetTheta(theta)
		}
	}
}

// Theta copies the parameters to the host, those averaged over the steps where the optimizer keeps them.
func (g *group) Theta() ([]float32, error) {
	switch {
	case g.lead == nil:
		return nil, ErrNotLead
	case g.lead.theta == nil:
		return nil, nil
	}
	return g.lead.evaluated()
}

// Energies evaluates E at points x [n·dim] with the parameters of Theta.
func (g *group) Energies(x []float32) ([]float64, error) {
	theta, err := g.Theta()
	if err != nil {
		return nil, err
	}
	return g.shards[g.layout.Lead()].energiesAt(theta, x)
}

// SetLadder sets β and the step size of each rung.
func (g *group) SetLadder(betas, stepSizes []float64) {
	g.betas, g.steps = to32(betas), to32(stepSizes)
	g.agreed.setLadder(betas, stepSizes)
	if g.movesLabels() {
		g.setRows()
		return
	}
	for i, s := range g.shards {
		if s != nil {
			r := g.places[i].Rungs
			s.SetLadder(betas[r[0]:r[1]], stepSizes[r[0]:r[1]])
		}
	}
}

// setRows gives every row β and the step size of the rung whose chain it holds, where labels move between shards.
func (g *group) setRows() {
	if !g.movesLabels() || g.betas == nil || g.labels == nil {
		return
	}
	betas, steps := make([][]float32, len(g.shards)), make([][]float32, len(g.shards))
	for i, p := range g.places {
		betas[i], steps[i] = make([]float32, p.rows()), make([]float32, p.rows())
	}
	for of, at := range g.labels {
		home, rung := g.home[at], of/g.spec.Chains
		betas[home.shard][home.row], steps[home.shard][home.row] = g.betas[rung], g.steps[rung]
	}
	for i, s := range g.shards {
		if s != nil {
			s.SetRows(betas[i], steps[i])
		}
	}
}

// SetTables is that of every shard.
func (g *group) SetTables(steps, noise []float64) {
	g.agreed.setTables(steps, noise)
	for _, s := range g.shards {
		if s != nil {
			s.SetTables(steps, noise)
		}
	}
}

// SetReference is that of every shard.
func (g *group) SetReference(q models.Gaussian) {
	g.agreed.setReference(q)
	for _, s := range g.shards {
		if s != nil {
			s.SetReference(q)
		}
	}
}

// State gathers the state of all shards at the lead; whoever does not hold it gives its part and returns ErrNotLead.
func (g *group) State() (State, error) {
	live, pool, rows, err := g.states(g.lead != nil, true)
	if err != nil {
		return State{}, err
	}
	if g.lead == nil {
		return State{}, ErrNotLead
	}
	st, err := g.lead.state()
	st.Live, st.Pool, st.Rows = live, pool, rows
	return st, err
}

// Live gathers the chains of all shards on every process, [rows·dim].
func (g *group) Live() ([]float32, error) {
	live, _, _, err := g.states(true, false)
	return live, err
}

// states posts the states of the local shards, with those of the replay buffer if all are asked for, and, where they are wanted,
// pulls those of all shards. rows is State.Rows.
func (g *group) states(wanted, all bool) (live, pool []float32, rows []int32, err error) {
	g.call++
	dim := g.spec.dim()
	for i, s := range g.shards {
		if s == nil {
			continue
		}
		raw, err := s.rawLive()
		if err == nil && all && s.pool != nil {
			var kept []float32
			kept, err = s.rawPool()
			raw = append(raw, kept...)
		}
		if err != nil {
			return nil, nil, nil, err
		}
		for _, at := range s.place { // labels within the shard travel as numbers that float32 holds
			raw = append(raw, float32(at))
		}
		g.mesh.Post(Key{Shard: g.places[i].ID, Kind: StatesBlob, Scan: g.call}, numberBytes(raw))
	}
	if !wanted {
		return nil, nil, nil, nil
	}
	live = make([]float32, g.spec.rows()*dim)
	slots := 0 // of a shard
	if all && g.spec.pooled() {
		pool = make([]float32, g.spec.Rungs*g.spec.Pool*dim)
		slots = len(pool) / dim / len(g.places)
	}
	ofPlace := inverse(g.labels)
	inner := g.spec.byLabel() && !g.byRung()
	if g.spec.byLabel() {
		rows = slices.Clone(g.labels)
		if inner {
			rows = make([]int32, g.spec.rows())
		}
	}
	for i, p := range g.places {
		n := p.rows()
		want := (n + slots) * dim
		if inner {
			want += n
		}
		raw, err := pull[float32](g.mesh, Key{Shard: p.ID, Kind: StatesBlob, Scan: g.call}, want)
		if err != nil {
			return nil, nil, nil, err
		}
		if slots > 0 {
			g.eachSlot(i, func(slot, of int) { copy(pool[of*dim:(of+1)*dim], raw[(n+slot)*dim:(n+slot+1)*dim]) })
		}
		back := make([]int, n) // row of the group, of each row of the shard
		p.each(g.spec.Chains, func(row, of int) { back[row] = of })
		for row, of := range back {
			at := row
			switch {
			case inner:
				at = int(raw[n*dim+row])
				rows[of] = int32(back[at])
			case ofPlace != nil:
				of = int(ofPlace[of])
			}
			copy(live[of*dim:(of+1)*dim], raw[at*dim:(at+1)*dim])
		}
	}
	return live, pool, rows, nil
}

// eachSlot calls f with every slot of the replay buffer of a shard, in order, and the slot of the group that it is, k·M + m; with
// none where all columns are live.
func (g *group) eachSlot(shard int, f func(slot, of int)) {
	if !g.spec.pooled() {
		return
	}
	p, each := g.places[shard], g.spec.Pool/g.layout.Split
	first := p.Ladders[0] / (p.Ladders[1] - p.Ladders[0]) * each
	slot := 0
	for k := p.Rungs[0]; k < p.Rungs[1]; k++ {
		for m := first; m < first+each; m++ {
			f(slot, k*g.spec.Pool+m)
			slot++
		}
	}
}
