package ledger

import "testing"

// rests has an experiment that is paused at the cuts of steps 10, 20 and 30, and the command that puts another one at 20.
func rests(j *journal) CutReplace {
	j.Helper()
	j.running(id(1), "moons")
	for _, step := range []uint64{10, 20, 30} {
		j.do(id(1), commit(1, step))
	}
	j.do(id(1), ExpSet{Desired: Pause})
	j.do(id(1), GenerationOpen{Number: 2, From: 30})
	j.do(id(1), ExpPhase{Phase: Paused})
	return CutReplace{Step: 20, Manifest: digest(77), Parts: []Part{{"chains", digest(78), 50}}, Conservation: whole(1)}
}

func steps(e Experiment) (out []uint64) {
	for _, c := range e.Cuts {
		out = append(out, c.Step)
	}
	return out
}

func TestCutReplace(t *testing.T) {
	for _, tc := range []struct {
		name string
		step uint64
		own  bool // the cut that is kept stays
		want []uint64
	}{
		{"back to a kept one", 20, true, []uint64{10, 20}},
		{"back to the last one, without those who worked", 30, true, []uint64{10, 20, 30}},
		{"another in place of a kept one", 20, false, []uint64{10, 20}},
		{"another in place of the last one", 30, false, []uint64{10, 20, 30}},
		{"one from between", 15, false, []uint64{10, 15}},
		{"one from before all that are kept", 5, false, []uint64{5}},
		{"one from behind them", 40, false, []uint64{20, 30, 40}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j := newJournal(t)
			replace := rests(j)
			replace.Step = tc.step
			if tc.own {
				replace = CutReplace{Step: tc.step}
			}
			before := j.experiment(id(1))
			replace.Version = before.Version
			j.do(id(1), replace)
			e := j.experiment(id(1))
			if got := steps(e); len(got) != len(tc.want) {
				t.Fatalf("cuts of steps %v, want %v", got, tc.want)
			}
			for i, step := range tc.want {
				if e.Cuts[i].Step != step {
					t.Fatalf("cuts of steps %v, want %v", steps(e), tc.want)
				}
			}
			if last := e.Cuts[len(e.Cuts)-1]; tc.own == (last.Manifest == digest(77)) {
				t.Errorf("last cut %+v", last)
			}
			if e.Phase != Paused || e.From != int64(tc.step) {
				t.Errorf("%s from step %d, want it paused at %d", e.Phase, e.From, tc.step)
			}
			if nothing := tc.own && tc.step == 30; nothing != (e.Generation == 2) {
				t.Errorf("generation %d", e.Generation) // what was opened before cannot commit a cut
			}
			j.do(id(1), ExpSet{Desired: Run})
			j.do(id(1), GenerationOpen{Number: e.Generation + 1, Holders: []string{"a", "a", "b"}, From: int64(tc.step)})
			j.refuses(ErrConflict, id(1), replace) // else it would seem to have had an effect
			j.do(id(1), commit(e.Generation+1, tc.step+1))
			j.refuses(ErrConflict, id(1), replace)
		})
	}
}

func TestCutReplaceRefusals(t *testing.T) {
	for _, tc := range []struct {
		name    string
		want    error
		prepare []Command
		change  func(*CutReplace)
	}{
		{"another version", ErrConflict, nil, func(c *CutReplace) { c.Version = 1 }},
		{"people want it to run", ErrConflict, []Command{ExpSet{Desired: Run}}, nil},
		{"it waits for its turn", ErrConflict, []Command{ExpPhase{Phase: Queued}}, nil},
		{"it is closed", ErrConflict, []Command{ExpPhase{Phase: Cancelled}}, nil},
		{"replicas work", ErrConflict, []Command{GenerationOpen{Number: 3, Holders: []string{"a", "a", "b"}, From: 30}}, nil},
		{"a walker is lost", ErrInconsistent, nil, func(c *CutReplace) { c.Conservation.Live++ }},
		{"behind the end", ErrInvalid, nil, func(c *CutReplace) { c.Step = 901 }},
		{"a cut that is not kept, and no other", ErrNotFound, nil, func(c *CutReplace) { *c = CutReplace{Step: 15} }},
		{"more bytes than the quota", ErrQuota, []Command{QuotaPut{Quota{Owner: "ada", Bytes: 130}}}, func(c *CutReplace) { c.Parts[0].Bytes = 131 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			j := newJournal(t)
			replace := rests(j)
			for _, cmd := range tc.prepare {
				exp := id(1)
				if cmd.kind() < kindExpCreate {
					exp = ID{}
				}
				j.do(exp, cmd)
			}
			if tc.change != nil {
				tc.change(&replace)
			}
			j.refuses(tc.want, id(1), replace)
			if e := j.experiment(id(1)); len(e.Cuts) != 3 || e.Refused != nil {
				t.Errorf("cuts of steps %v, want all of them", steps(e))
			}
		})
	}
}

// TestCutReplaceOfAnInconsistentExperiment: who held shards when it stopped holds none any more.
func TestCutReplaceOfAnInconsistentExperiment(t *testing.T) {
	j := newJournal(t)
	j.running(id(1), "moons")
	j.do(id(1), commit(1, 10))
	bad := commit(1, 20)
	bad.Conservation.Live++
	j.refuses(ErrInconsistent, id(1), bad)
	j.do(id(1), CutReplace{Step: 10})
	if e := j.experiment(id(1)); e.Phase != Inconsistent || len(e.Holders) > 0 || e.Refused == nil {
		t.Errorf("%+v, want the refused cut kept, and nobody at work", e)
	}
	j.do(id(1), CutReplace{Step: 20, Manifest: digest(77), Parts: []Part{{"chains", digest(78), 50}}, Conservation: whole(1)})
	if e := j.experiment(id(1)); e.Refused != nil || len(e.Cuts) != 2 {
		t.Errorf("%+v", e)
	}
	j.do(id(1), ExpSet{Desired: Run})
}
