package coordinator

import (
	"encoding/json"
	"fmt"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
)

// cut gathers the chains at the lead, who alone returns something.
func (g *trainee) cut() ([]byte, error) {
	g.call++
	for i := range g.places {
		if g.shards[i] == nil {
			continue
		}
		var words []uint64
		for _, c := range g.shards[i] {
			words = append(words, c.id, c.x)
		}
		g.post(g.key(i, engine.StatesBlob), words)
	}
	if !g.isLead() {
		return nil, nil
	}
	live := make([]chain, len(g.home))
	for i, place := range g.places {
		part := g.before[i]
		if g.shards[i] != nil || !g.faults().earlyCut || part == nil {
			words, err := g.pull(g.key(i, engine.StatesBlob), 2*g.rows(place))
			if err != nil {
				return nil, err
			}
			part = nil
			for j := 0; j < len(words); j += 2 {
				part = append(part, chain{words[j], words[j+1]})
			}
			g.before[i] = part
		}
		g.each(place, func(row, of int) { live[of] = part[row] })
	}
	g.at.Walks = g.ensemble.Snapshot()
	g.conserved(live)
	meta, err := json.Marshal(g.at)
	if err != nil {
		return nil, err
	}
	words := make([]uint64, 0, 2*len(live))
	for _, c := range live {
		words = append(words, c.id, c.x)
	}
	cut := checkpoint.Cut{Step: g.at.Step, Meta: meta, Files: map[string][]checkpoint.Tensor{"chains": {vector("live", words)}}}
	if g.side != nil {
		if residual := g.side.Residual(); residual != nil {
			cut.Files[replica.AveragingFile] = []checkpoint.Tensor{vector("residual", residual)}
		}
	}
	return replica.EncodeCut(cut)
}

// conserved checks that every walker is where its label says: with its state, and once.
func (g *trainee) conserved(live []chain) {
	if err := g.ensemble.Check(); err != nil {
		panic(violation(err.Error()))
	}
	chains := g.trial().layout.Chains
	for of, from := range g.at.Perm {
		if g.movesLabels() {
			from = g.at.Labels[from]
		}
		k, b := of/chains, of%chains
		want := uint64((g.group*chains+b)*len(modelLadder) + g.ensemble.Label(k, b))
		if got := live[from].id; got != want {
			panic(violation(fmt.Sprintf("cut of step %d, group %d: walker %d on rung %d of ladder %d, want %d", g.at.Step, g.group, got, k, b, want)))
		}
	}
}

func (g *trainee) restore(data []byte) error {
	cut, err := replica.DecodeCut(data)
	if err != nil {
		return err
	}
	words, err := checkpoint.Values[uint64](cut.Files["chains"], "live", 2*len(g.home))
	if err != nil {
		return err
	}
	g.at = progress{}
	if err := json.Unmarshal(cut.Meta, &g.at); err != nil {
		return err
	}
	if err := g.ensemble.Restore(g.at.Walks); err != nil {
		return err
	}
	for i, place := range g.places {
		if g.shards[i] != nil {
			g.each(place, func(row, of int) { g.shards[i][row] = chain{words[2*of], words[2*of+1]} })
		}
	}
	if !replica.Rounds(g.trial().averaging) {
		return nil
	}
	theta, err := checkpoint.Values[float32](cut.Files[replica.AveragingFile], "theta", -1)
	if err != nil {
		return err
	}
	residual, err := checkpoint.Values[float32](cut.Files[replica.AveragingFile], "residual", -1)
	if err != nil {
		residual = nil
	}
	if g.side, err = averaging.NewGroup(g.trial().averaging, theta); err != nil {
		return err
	}
	return g.side.Restore(theta, residual)
}
