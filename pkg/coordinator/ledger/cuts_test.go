package ledger

import "testing"

func TestGenerations(t *testing.T) {
	j := newJournal(t)
	j.refuses(ErrNotFound, id(1), GenerationOpen{Number: 1, From: Start})
	j.do(id(1), moons("moons"))
	all := []string{"a", "b", "a"}
	j.refuses(ErrNotFound, id(1), GenerationOpen{Number: 1, Holders: all, From: Start})
	j.do(id(1), Register{Replica: "a"})
	b := j.do(id(1), Register{Replica: "b"})
	j.refuses(ErrStale, id(1), GenerationOpen{Number: 2, Holders: all, From: Start})
	j.refuses(ErrInvalid, id(1), GenerationOpen{Number: 1, Holders: all[:2], From: Start})
	j.refuses(ErrNotFound, id(1), GenerationOpen{Number: 1, Holders: all, From: 0})
	j.do(id(1), GenerationOpen{Number: 1, Holders: all, From: Start})
	j.refuses(ErrStale, id(1), GenerationOpen{Number: 1, Holders: []string{"a", "a", "a"}, From: Start})
	j.do(id(1), commit(1, 10))
	j.do(id(1), GenerationOpen{Number: 1, Holders: all, From: Start}) // again, though there is a cut now
	j.do(id(1), commit(1, 20))
	j.do(id(1), commit(1, 30))
	j.refuses(ErrConflict, id(1), GenerationOpen{Number: 2, Holders: all, From: Start})
	j.refuses(ErrNotFound, id(1), GenerationOpen{Number: 2, Holders: all, From: 25})
	j.do(id(1), LeaseEnd{Replica: "b", Token: b, Lost: true})
	j.refuses(ErrNotFound, id(1), GenerationOpen{Number: 2, Holders: all, From: 20})
	j.do(id(1), GenerationOpen{Number: 2, Holders: []string{"a", "a", "a"}, From: 20})
	e := j.experiment(id(1))
	if e.Generation != 2 || e.From != 20 || len(e.Cuts) != 2 || e.Cuts[1].Step != 20 {
		t.Errorf("generation %d from %d, cuts %v", e.Generation, e.From, e.Cuts)
	}
	j.do(id(1), GenerationOpen{Number: 3, From: 20})
	if e := j.experiment(id(1)); e.Holders != nil {
		t.Errorf("holders %v, want none", e.Holders)
	}
	j.do(id(1), ExpPhase{Phase: Failed})
	j.refuses(ErrConflict, id(1), GenerationOpen{Number: 4, Holders: []string{"a", "a", "a"}, From: 20})
	j.do(id(1), GenerationOpen{Number: 4, From: 20})
}

func TestCuts(t *testing.T) {
	j := newJournal(t)
	j.refuses(ErrNotFound, id(1), commit(1, 10))
	j.do(id(1), moons("moons"))
	j.refuses(ErrConflict, id(1), commit(0, 10)) // nobody works
	j.do(id(1), ExpPhase{Phase: Cancelled})
	j.do(id(1), ExpDelete{})
	j.running(id(2), "moons")
	first := commit(1, 10)
	j.do(id(2), first)
	j.refuses(ErrStale, id(2), commit(2, 20))
	j.refuses(ErrStale, id(2), commit(0, 20))
	j.refuses(ErrConflict, id(2), commit(1, 9))
	another := first
	another.Manifest = digest(77)
	j.refuses(ErrConflict, id(2), another)
	for step := uint64(20); step <= 50; step += 10 {
		j.do(id(2), commit(1, step))
	}
	e := j.experiment(id(2))
	if len(e.Cuts) != KeptCuts || e.Cuts[0].Step != 30 || e.Cuts[KeptCuts-1].Index != e.Version {
		t.Errorf("cuts %v", e.Cuts)
	}
	j.refuses(ErrConflict, id(2), first) // it is not kept any more
	j.do(id(2), ExpPhase{Phase: Completed})
	j.refuses(ErrConflict, id(2), commit(1, 60))
	j.do(id(2), commit(1, 50)) // again
}

func TestConservation(t *testing.T) {
	for name, sum := range map[string]Conservation{
		"a label is there twice":            {Ladders: 2, Rungs: 3, Labels: 5},
		"labels without ladders":            {Labels: 1},
		"a walker too many":                 {Ladders: 2, Rungs: 3, Labels: 6, Created: 9, Retired: 3, Live: 7},
		"more retired than created":         {Ladders: 2, Rungs: 3, Labels: 6, Created: 1, Retired: 2, Live: 1<<64 - 1},
		"a product beyond 64 bits":          {Ladders: 1 << 40, Rungs: 1 << 40},
		"a product that wraps to the right": {Ladders: 1 << 63, Rungs: 2, Labels: 0},
	} {
		t.Run(name, func(t *testing.T) {
			j := newJournal(t)
			j.running(id(1), "moons")
			j.do(id(1), commit(1, 10))
			bad := commit(1, 20)
			bad.Conservation = sum
			j.refuses(ErrInconsistent, id(1), bad)
			e := j.experiment(id(1))
			if e.Phase != Inconsistent || e.Message == "" || e.Refused == nil || e.Refused.Step != 20 || len(e.Cuts) != 1 {
				t.Fatalf("%+v", e)
			}
			if _, kept := j.s.References()[bad.Parts[1].Digest]; !kept {
				t.Error("the blobs of the refused cut can be collected: it is the evidence")
			}
			j.refuses(ErrConflict, id(1), commit(1, 30))
			j.refuses(ErrConflict, id(1), GenerationOpen{Number: 2, Holders: []string{"a", "a", "a"}, From: 10})
			j.do(id(1), ExpSet{Desired: Run})
			j.refuses(ErrInconsistent, id(1), bad) // late again: it does not stop the experiment once more
			if e := j.experiment(id(1)); e.Phase != Queued {
				t.Errorf("%s, want queued", e.Phase)
			}
			j.do(id(1), GenerationOpen{Number: 2, Holders: []string{"a", "a", "a"}, From: 10})
			j.do(id(1), commit(2, 20))
			if e := j.experiment(id(1)); e.Refused != nil {
				t.Error("a refused cut is kept behind a good one")
			}
		})
	}
	none := Conservation{Created: 3, Retired: 3}
	if law := none.broken(); law != "" {
		t.Errorf("without chains: %s", law)
	}
}

func TestReplacedCut(t *testing.T) {
	j := newJournal(t)
	j.running(id(1), "moons")
	j.do(id(1), commit(1, 10))
	j.do(id(1), commit(1, 20))
	better := commit(2, 10)
	better.Manifest, better.Replace = digest(77), true
	j.refuses(ErrStale, id(1), better)
	working := better
	working.Generation = 1
	j.refuses(ErrConflict, id(1), working)
	j.do(id(1), GenerationOpen{Number: 2, From: 20})
	elsewhere := better
	elsewhere.Step = 15
	j.refuses(ErrNotFound, id(1), elsewhere)
	worse := better
	worse.Conservation.Live++
	j.refuses(ErrInconsistent, id(1), worse)
	if e := j.experiment(id(1)); e.Phase != Running || e.Refused != nil {
		t.Errorf("a bad replacement stopped the experiment: %s", e.Phase)
	}
	j.do(id(1), better)
	e := j.experiment(id(1))
	if len(e.Cuts) != 2 || e.Cuts[0].Manifest != digest(77) || e.Cuts[0].Generation != 2 || e.Cuts[1].Step != 20 {
		t.Errorf("cuts %v", e.Cuts)
	}
	j.do(id(1), ExpPhase{Phase: Degraded})
	last := commit(2, 20)
	last.Manifest, last.Replace = digest(78), true
	j.do(id(1), last)
	j.do(id(1), ExpSet{Desired: Run})
	j.do(id(1), ExpPhase{Phase: Cancelled})
	last.Manifest = digest(79)
	j.refuses(ErrConflict, id(1), last)
}
