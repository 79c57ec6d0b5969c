package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func id(n int) ID { return ID{0: byte(n), 15: 1} }

func digest(n int) Digest { return Digest{0: byte(n), 1: byte(n >> 8), 31: 1} }

func ptr(n uint32) *uint32 { return &n }

// whole is a conservation that holds for cuts of some ladders with three rungs.
func whole(ladders uint64) Conservation {
	return Conservation{Ladders: ladders, Rungs: 3, Labels: 3 * ladders, Created: 10, Retired: 10 - 3, Live: 3}
}

func moons(name string) ExpCreate {
	return ExpCreate{Name: name, Owner: "ada", Spec: []byte("name: " + name), Dir: "/data", Steps: 900, Shards: 3, Min: 1, CutEvery: 10 * time.Second}
}

func commit(generation, step uint64) CutCommit {
	return CutCommit{
		Generation: generation, Step: step, Manifest: digest(int(step)),
		Parts:        []Part{{"buffer", digest(9000), 100}, {"chains", digest(5000 + int(step)), 10}},
		Conservation: whole(2),
	}
}

// journal applies entries one after the other, and checks with each what holds for all.
type journal struct {
	*testing.T
	s *State
}

func newJournal(t *testing.T) *journal { return &journal{t, New()} }

func encoded(t testing.TB, e Entry) []byte {
	t.Helper()
	data, err := Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// contents is the state without its index.
func contents(s *State) []byte {
	index := s.index
	s.index = 1 << 60 // above all versions
	defer func() { s.index = index }()
	return s.Snapshot()
}

// apply applies a command, and applies it again.
func (j *journal) apply(exp ID, cmd Command) Outcome {
	j.Helper()
	data := encoded(j, Entry{exp, noon.Add(time.Duration(j.s.index) * time.Second), cmd})
	before := contents(j.s)
	out := j.s.Apply(j.s.index+1, data)
	after := contents(j.s)
	if out.Err != nil && !errors.Is(out.Err, ErrInconsistent) && !bytes.Equal(before, after) {
		j.Fatalf("%T: %v changed the state", cmd, out.Err)
	}
	for _, at := range []uint64{j.s.index, j.s.index + 1} {
		again := j.s.Apply(at, data)
		if again.Value != out.Value || fmt.Sprint(again.Err) != fmt.Sprint(out.Err) {
			j.Fatalf("%T again: %d, %v, want %d, %v", cmd, again.Value, again.Err, out.Value, out.Err)
		}
		if !bytes.Equal(contents(j.s), after) {
			j.Fatalf("%T again changed the state", cmd)
		}
	}
	if err := j.s.check(); err != nil {
		j.Fatalf("%T: %v", cmd, err)
	}
	return out
}

// do applies a command that is fine.
func (j *journal) do(exp ID, cmd Command) uint64 {
	j.Helper()
	out := j.apply(exp, cmd)
	if out.Err != nil {
		j.Fatalf("%+v: %v", cmd, out.Err)
	}
	return out.Value
}

// refuses applies a command that comes to an error.
func (j *journal) refuses(want error, exp ID, cmd Command) {
	j.Helper()
	if out := j.apply(exp, cmd); !errors.Is(out.Err, want) || out.Value != 0 {
		j.Fatalf("%+v: %d, %v, want 0, %v", cmd, out.Value, out.Err, want)
	}
}

func (j *journal) experiment(id ID) Experiment {
	j.Helper()
	e, ok := j.s.ByID(id)
	if !ok {
		j.Fatalf("no experiment %s", id)
	}
	return e
}

// running has an experiment with replicas a and b in generation 1.
func (j *journal) running(id ID, name string) {
	j.Helper()
	j.do(id, moons(name))
	j.do(id, Register{Replica: "a", Incarnation: 1})
	j.do(id, Register{Replica: "b", Incarnation: 1})
	j.do(id, GenerationOpen{Number: 1, Holders: []string{"a", "a", "b"}, From: Start})
	j.do(id, ExpPhase{Phase: Running})
}

// someEntry draws an entry from a small world, so that names, numbers and steps meet; draw(n) is below n. Most fit the state.
func someEntry(draw func(int) int, s *State) Entry {
	among := func(names ...string) string { return names[draw(len(names))] }
	flip := func(odds int) bool { return draw(odds) == 0 }
	near := func(n uint64) uint64 {
		if flip(6) {
			return n + uint64(draw(4)) - min(n, 1)
		}
		return n
	}
	e := Entry{Exp: id(draw(250)), At: noon.Add(time.Duration(draw(1000)) * time.Millisecond)}
	var exp Experiment
	if n := len(s.experiments); n > 0 && !flip(8) {
		exp, _ = s.experiments[draw(n)].view()
		e.Exp = exp.ID
	}
	replica := among("r0", "r1", "r2", "r3", "r4")
	step := func() uint64 {
		if n := len(exp.Cuts); n > 0 {
			return exp.Cuts[draw(n)].Step
		}
		return uint64(draw(3))
	}
	switch draw(29) {
	case 0:
		e.Command = Noop{}
	case 1:
		e.Command = ClusterInit{Cluster: id(draw(2)), Secret: [32]byte{byte(draw(2))}}
	case 2:
		e.Command = NodePut{Name: among("n0", "n1", "n2"), Peer: among("n0:7000", "n1:7000"), Feature: uint32(draw(3))}
	case 3:
		e.Command = NodeDelete{Name: among("n0", "n1", "n2")}
	case 4:
		e.Command = FeatureLevel{Level: uint32(draw(3))}
	case 5:
		t := Token{Name: among("t0", "t1", "t2"), Hash: digest(draw(4)), Scope: Scope(1 + draw(4)), Experiments: among("", "exp0", "exp*")}
		if t.Scope == Join {
			t.Uses = uint32(draw(3))
		}
		e.Command = TokenPut{Token: t}
	case 26:
		t := Token{Name: among("t0", "t1", "t2"), Hash: digest(draw(4)), Scope: Join, Uses: uint32(draw(3))}
		e.Command = TokenCreate{Token: t}
		if old, there := s.Token(t.Name); there && !flip(4) {
			e.Command = TokenUse{Name: old.Name, Hash: old.Hash, Left: min(old.Uses-1, uint32(draw(3)))}
		}
	case 6:
		e.Command = TokenRevoke{Name: among("t0", "t1", "t2")}
	case 7:
		e.Command = QuotaPut{Quota: Quota{Owner: among("ada", "bob"), Experiments: uint32(draw(4)), Replicas: uint32(draw(20)), Bytes: uint64(draw(3000))}}
	case 8, 9:
		if !flip(4) {
			e.Exp = id(draw(250))
		}
		e.Command = ExpCreate{
			Name: among("exp0", "exp1", "exp2"), Owner: among("ada", "bob"), Spec: make([]byte, draw(5)),
			Steps: 100, Shards: uint32(1 + draw(4)), Want: uint32(draw(2) * 4), Min: uint32(draw(2)), Priority: int32(draw(3) - 1),
		}
	case 11:
		set := ExpSet{Desired: Desired(draw(4))}
		if flip(2) {
			set.Version = near(exp.Version)
		}
		if flip(2) {
			set.Want = ptr(uint32(draw(6)))
		}
		if flip(2) {
			priority := int32(draw(5) - 2)
			set.Priority = &priority
		}
		e.Command = set
	case 12:
		phase := ExpPhase{Phase: Phase(1 + draw(4)), Message: among("", "because")}
		if flip(6) {
			phase.Phase = Phase(5 + draw(5))
		}
		e.Command = phase
	case 13:
		e.Command = ExpDelete{Version: exp.Version * uint64(draw(2))}
	case 14, 15, 16, 17:
		e.Command = Register{Replica: replica, Incarnation: uint64(draw(3)), Device: "cpu", Platform: "go", Takeover: flip(3)}
	case 18:
		end := LeaseEnd{Replica: replica, Token: uint64(draw(50)), Lost: flip(2)}
		if i, there := exp.lease(replica); there && !flip(4) {
			end.Token = exp.Replicas[i].Token
		}
		e.Command = end
	case 19, 20:
		open := GenerationOpen{Number: max(1, near(exp.Generation+1)), From: Start}
		if len(exp.Cuts) > 0 && !flip(5) {
			open.From = int64(step())
		}
		for range exp.Shards * uint32(min(draw(4), 1)) {
			holder := replica
			if n := len(exp.Replicas); n > 0 && !flip(20) {
				holder = exp.Replicas[draw(n)].Name
			}
			open.Holders = append(open.Holders, holder)
		}
		e.Command = open
	case 24, 25:
		last := Start
		if n := len(exp.Cuts); n > 0 {
			last = int64(exp.Cuts[n-1].Step)
		}
		switch always := flip(3); { // else step by step to where it is accepted
		case !always && exp.Desired != Pause:
			e.Command = ExpSet{Desired: Pause}
		case !always && len(exp.Holders) > 0:
			e.Command = GenerationOpen{Number: exp.Generation + 1, From: last}
		case !always && exp.Phase != Paused:
			e.Command = ExpPhase{Phase: Paused}
		default:
			respec := ExpRespec{Spec: make([]byte, draw(5)), Shards: uint32(1 + draw(4)), Step: uint64(max(last, 0)), Manifest: digest(draw(30)),
				Parts: []Part{{"chains", digest(draw(200)), uint64(draw(2000))}}, Conservation: whole(2)}
			if flip(2) {
				respec.Version = near(exp.Version)
			}
			if flip(4) {
				respec.Conservation.Labels++
			}
			if flip(8) {
				respec.Step = step()
			}
			e.Command = respec
		}
	case 27, 28:
		switch always := flip(3); {
		case !always && exp.Desired != Pause:
			e.Command = ExpSet{Desired: Pause}
		case !always && len(exp.Holders) > 0:
			e.Command = GenerationOpen{Number: exp.Generation + 1, From: exp.From}
		case !always && exp.Phase != Paused:
			e.Command = ExpPhase{Phase: Paused}
		default:
			replace := CutReplace{Step: step() + uint64(draw(2))}
			if flip(2) {
				replace.Manifest, replace.Conservation = digest(draw(30)), whole(2)
				replace.Parts = []Part{{"chains", digest(draw(200)), uint64(draw(2000))}}
			}
			if flip(2) {
				replace.Version = near(exp.Version)
			}
			if flip(4) && replace.Parts != nil {
				replace.Conservation.Labels++
			}
			e.Command = replace
		}
	default:
		cut := commit(near(exp.Generation), step()+uint64(draw(4)))
		cut.Replace = flip(4)
		cut.Manifest = digest(draw(30))
		cut.Parts[1].Digest = digest(draw(200))
		cut.Parts[1].Bytes = uint64(draw(2000))
		if flip(15) {
			cut.Conservation.Labels += uint64(draw(2))
		}
		e.Command = cut
	}
	switch e.Command.(type) {
	case Noop, ClusterInit, NodePut, NodeDelete, FeatureLevel, TokenPut, TokenRevoke, TokenCreate, TokenUse, QuotaPut:
		e.Exp = ID{}
	}
	return e
}

// sentinel is the error among those of the package, by its text; "ok" for none.
func sentinel(t testing.TB, err error) string {
	t.Helper()
	if err == nil {
		return "ok"
	}
	all := []error{ErrInvalid, ErrNotFound, ErrExists, ErrConflict, ErrStale, ErrInconsistent, ErrQuota, ErrUnsupported}
	i := slices.IndexFunc(all, func(e error) bool { return errors.Is(err, e) })
	if i < 0 {
		t.Fatalf("%v is none of the package's errors", err)
	}
	return all[i].Error()
}
