package ledger

import (
	"slices"
	"testing"
)

// respecs has an experiment that is paused at the cuts of steps 10 and 20, and the command that gives it five shards.
func respecs(j *journal) ExpRespec {
	j.Helper()
	j.running(id(1), "moons")
	j.do(id(1), commit(1, 10))
	j.do(id(1), commit(1, 20))
	j.do(id(1), ExpSet{Desired: Pause})
	j.do(id(1), GenerationOpen{Number: 2, From: 20})
	j.do(id(1), ExpPhase{Phase: Paused})
	return ExpRespec{
		Spec: []byte("rungs: 5"), Shards: 5, Step: 20, Manifest: digest(77), Parts: []Part{{"chains", digest(78), 50}},
		Conservation: Conservation{Ladders: 2, Rungs: 5, Labels: 10, Created: 12, Retired: 2, Live: 10},
	}
}

func TestRespec(t *testing.T) {
	j := newJournal(t)
	respec := respecs(j)
	respec.Version = j.experiment(id(1)).Version
	version := j.do(id(1), respec)
	e := j.experiment(id(1))
	if string(e.Spec) != "rungs: 5" || e.Shards != 5 || e.Phase != Paused || e.Version != version {
		t.Errorf("%+v", e)
	}
	if len(e.Cuts) != 1 || e.Cuts[0].Step != 20 || e.Cuts[0].Manifest != digest(77) || e.Cuts[0].Generation != 2 || e.Cuts[0].Index != version {
		t.Errorf("cuts %+v, want the new one alone", e.Cuts)
	}
	if refs := j.s.References(); refs[digest(78)] != 50 || len(refs) != 2 {
		t.Errorf("references %v, want none of the cuts before", refs)
	}
	if last := e.Events[len(e.Events)-1]; last.Kind != "respecified" || last.Text != "rungs: 5, shards: 5, from the cut of step 20" {
		t.Errorf("event %+v", last)
	}

	// It goes on, on five shards. A repetition is known as one until there is another cut.
	j.do(id(1), ExpSet{Desired: Run})
	five := slices.Repeat([]string{"a"}, 5)
	j.refuses(ErrInvalid, id(1), GenerationOpen{Number: 3, Holders: five[:3], From: 20})
	j.do(id(1), GenerationOpen{Number: 3, Holders: five, From: 20})
	j.do(id(1), ExpPhase{Phase: Running})
	j.do(id(1), respec)
	j.do(id(1), commit(3, 30))
	j.refuses(ErrConflict, id(1), respec)
}

func TestRespecRefusals(t *testing.T) {
	broken := Conservation{Ladders: 2, Rungs: 5, Labels: 9, Created: 10, Live: 10}
	for _, tc := range []struct {
		name    string
		want    error
		prepare []Command
		change  func(*ExpRespec)
	}{
		{"another version", ErrConflict, nil, func(c *ExpRespec) { c.Version = 1 }},
		{"people want it to run", ErrConflict, []Command{ExpSet{Desired: Run}}, nil},
		{"it waits for its turn", ErrConflict, []Command{ExpPhase{Phase: Queued}}, nil},
		{"it is to be cancelled", ErrConflict, []Command{ExpSet{Desired: Cancel}}, nil},
		{"it is closed", ErrConflict, []Command{ExpPhase{Phase: Cancelled}}, nil},
		{"replicas work", ErrConflict, []Command{GenerationOpen{Number: 3, Holders: []string{"a", "a", "b"}, From: 20}}, nil},
		{"an older cut", ErrConflict, nil, func(c *ExpRespec) { c.Step = 10 }},
		{"a cut that is not there", ErrConflict, nil, func(c *ExpRespec) { c.Step = 30 }},
		{"a walker is lost", ErrInconsistent, nil, func(c *ExpRespec) { c.Conservation = broken }},
		{"fewer shards than replicas to begin with", ErrInvalid, nil, func(c *ExpRespec) { c.Shards = 1 }},
		{"more replicas than the quota", ErrQuota, []Command{QuotaPut{Quota{Owner: "ada", Replicas: 4}}}, nil},
		{"more bytes than the quota", ErrQuota, []Command{QuotaPut{Quota{Owner: "ada", Bytes: 130}}}, func(c *ExpRespec) { c.Parts[0].Bytes = 131 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j := newJournal(t)
			respec := respecs(j)
			j.s.byID[id(1)].Min = 2
			for _, cmd := range tc.prepare {
				exp := id(1)
				if cmd.kind() < kindExpCreate {
					exp = ID{}
				}
				j.do(exp, cmd)
			}
			if tc.change != nil {
				tc.change(&respec)
			}
			j.refuses(tc.want, id(1), respec)
			if e := j.experiment(id(1)); e.Shards != 3 || len(e.Cuts) != 2 || e.Refused != nil {
				t.Errorf("%+v", e)
			}
		})
	}
	j := newJournal(t)
	j.refuses(ErrNotFound, id(1), ExpRespec{Shards: 1, Parts: []Part{{"a", digest(1), 1}}})
	j.do(id(1), moons("moons"))
	j.do(id(1), ExpSet{Desired: Pause})
	j.do(id(1), ExpPhase{Phase: Paused})
	j.refuses(ErrConflict, id(1), ExpRespec{Shards: 1, Parts: []Part{{"a", digest(1), 1}}}) // no cut
}
