package ledger

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestCluster(t *testing.T) {
	j := newJournal(t)
	if _, _, ok := j.s.Cluster(); ok {
		t.Error("a new state has a cluster")
	}
	j.do(ID{}, ClusterInit{Cluster: id(1), Secret: [32]byte{1}})
	j.refuses(ErrConflict, ID{}, ClusterInit{Cluster: id(2), Secret: [32]byte{1}})
	j.refuses(ErrConflict, ID{}, ClusterInit{Cluster: id(1), Secret: [32]byte{2}})
	if cluster, secret, ok := j.s.Cluster(); !ok || cluster != id(1) || secret != [32]byte{1} {
		t.Errorf("cluster %s, secret %x, %t", cluster, secret, ok)
	}
}

func TestFeatureLevelNeedsAllNodesAndNeverFalls(t *testing.T) {
	j := newJournal(t)
	j.refuses(ErrUnsupported, ID{}, FeatureLevel{1})
	j.do(ID{}, NodePut{Name: "n0", Peer: "n0:7000", Feature: 3})
	j.do(ID{}, NodePut{Name: "n1", Feature: 2})
	j.refuses(ErrUnsupported, ID{}, FeatureLevel{3})
	j.do(ID{}, FeatureLevel{2})
	j.do(ID{}, FeatureLevel{1})
	if j.s.Feature() != 2 {
		t.Errorf("level %d, want 2", j.s.Feature())
	}
	j.refuses(ErrUnsupported, ID{}, NodePut{Name: "n2", Feature: 1})
	j.do(ID{}, NodeDelete{"n1"})
	j.do(ID{}, NodeDelete{"n1"})
	j.do(ID{}, FeatureLevel{3})
	want := []Node{{Name: "n0", Peer: "n0:7000", Feature: 3}}
	if !slices.Equal(j.s.Nodes(), want) {
		t.Errorf("nodes %v, want %v", j.s.Nodes(), want)
	}
}

func TestTokens(t *testing.T) {
	j := newJournal(t)
	a := Token{Name: "a", Hash: digest(1), Scope: Join, Experiments: "moons-*", Expires: noon, Uses: 3}
	b := Token{Name: "b", Hash: digest(2), Scope: Admin, Owner: "ada"}
	j.do(ID{}, TokenPut{b})
	j.do(ID{}, TokenPut{a})
	j.refuses(ErrConflict, ID{}, TokenPut{Token{Name: "c", Hash: digest(1), Scope: Read}})
	if got := j.s.Tokens(); !slices.Equal(got, []Token{a, b}) {
		t.Errorf("tokens %v", got)
	}
	a.Uses = 2
	j.do(ID{}, TokenPut{a})
	if got, ok := j.s.Token("a"); !ok || got != a {
		t.Errorf("token %v, %t, want %v", got, ok, a)
	}
	j.do(ID{}, TokenRevoke{"a"})
	if _, ok := j.s.Token("a"); ok {
		t.Error("the token was revoked and is there")
	}
	j.do(ID{}, TokenRevoke{"nobody"})
}

// TestTokenUse: who counts a use that another counted, or of a token that was revoked, changes nothing.
func TestTokenUse(t *testing.T) {
	j := newJournal(t)
	two := Token{Name: "two", Hash: digest(1), Scope: Join, Expires: noon, Uses: 2}
	j.do(ID{}, TokenCreate{two})
	j.refuses(ErrExists, ID{}, TokenCreate{Token{Name: "two", Hash: digest(2), Scope: Read}})
	j.refuses(ErrConflict, ID{}, TokenCreate{Token{Name: "other", Hash: digest(1), Scope: Read}})
	j.refuses(ErrNotFound, ID{}, TokenUse{"two", digest(2), 1})
	j.refuses(ErrConflict, ID{}, TokenUse{"two", digest(1), 0})
	j.do(ID{}, TokenUse{"two", digest(1), 1})
	j.do(ID{}, TokenCreate{two}) // late again: it does not give the use back
	j.do(ID{}, TokenUse{"two", digest(1), 0})
	j.refuses(ErrConflict, ID{}, TokenUse{"two", digest(1), 1})
	two.Uses = Spent
	if got, _ := j.s.Token("two"); got != two {
		t.Errorf("token %+v, want %+v", got, two)
	}
	j.do(ID{}, TokenRevoke{"two"})
	j.refuses(ErrNotFound, ID{}, TokenUse{"two", digest(1), 0})
	j.do(ID{}, TokenCreate{Token{Name: "any", Hash: digest(3), Scope: Join}})
	j.refuses(ErrConflict, ID{}, TokenUse{"any", digest(3), 0})
	if len(j.s.Tokens()) != 1 {
		t.Errorf("tokens %v, want the last alone", j.s.Tokens())
	}
}

func TestQuotaCountsWhatIsNotFinal(t *testing.T) {
	j := newJournal(t)
	j.do(ID{}, QuotaPut{Quota{Owner: "ada", Experiments: 2, Replicas: 7}})
	j.do(id(1), moons("one"))
	j.do(id(2), moons("two"))
	j.refuses(ErrQuota, id(3), moons("three"))
	j.refuses(ErrQuota, id(1), ExpSet{Want: ptr(5)})
	j.do(id(1), ExpSet{Want: ptr(4)})
	other := moons("three")
	other.Owner = "bob"
	j.do(id(3), other)
	j.do(id(1), ExpPhase{Phase: Degraded})
	j.do(id(4), moons("four"))
	j.refuses(ErrQuota, id(1), ExpSet{Desired: Run}) // it would count again
	j.do(ID{}, QuotaPut{Quota{Owner: "ada", Replicas: 1}})
	j.do(id(2), ExpSet{Want: ptr(2)}) // less, though still too much
	j.do(ID{}, QuotaPut{Quota{Owner: "ada"}})
	if got := j.s.Quotas(); len(got) != 0 {
		t.Errorf("quotas %v after the last was lifted", got)
	}
	j.do(id(1), ExpSet{Desired: Run})
}

func TestQuotaOfBytesCountsABlobOnce(t *testing.T) {
	j := newJournal(t)
	j.running(id(1), "moons")
	j.do(ID{}, QuotaPut{Quota{Owner: "ada", Bytes: 125}})
	j.do(id(1), commit(1, 10)) // 100 bytes that all cuts share, and 10
	j.do(id(1), commit(1, 20))
	j.refuses(ErrQuota, id(1), commit(1, 30))
	j.do(ID{}, QuotaPut{Quota{Owner: "ada", Bytes: 130}})
	for step := uint64(30); step < 100; step += 10 {
		j.do(id(1), commit(1, step)) // the oldest makes room
	}
}

func TestExperimentIsCreatedOnce(t *testing.T) {
	j := newJournal(t)
	version := j.do(id(1), moons("moons"))
	j.refuses(ErrExists, id(2), moons("moons"))
	j.refuses(ErrExists, id(1), moons("rings"))
	changed := moons("moons")
	changed.Steps++
	j.refuses(ErrExists, id(1), changed)
	e := j.experiment(id(1))
	if e.Version != version || e.Phase != Queued || e.Desired != Run || e.From != Start || !e.Created.Equal(noon) || e.Wanted() != 3 {
		t.Errorf("%+v", e)
	}
	if byName, ok := j.s.Experiment("moons"); !ok || byName.ID != id(1) {
		t.Errorf("by name: %v, %t", byName.ID, ok)
	}
	if _, ok := j.s.Experiment("rings"); ok {
		t.Error("an experiment that was refused is there")
	}
}

func TestExperimentIsDeletedForGood(t *testing.T) {
	j := newJournal(t)
	j.refuses(ErrNotFound, id(1), ExpDelete{})
	j.do(id(1), moons("moons"))
	j.refuses(ErrConflict, id(1), ExpDelete{})
	version := j.do(id(1), ExpPhase{Phase: Cancelled})
	j.refuses(ErrConflict, id(1), ExpDelete{Version: version - 1})
	j.do(id(1), ExpDelete{Version: version})
	j.refuses(ErrExists, id(1), moons("moons"))
	j.refuses(ErrNotFound, id(1), Register{Replica: "a"})
	j.do(id(2), moons("moons"))
	j.do(id(1), ExpDelete{Version: version}) // late again, and the new one stays
	if e, ok := j.s.Experiment("moons"); !ok || e.ID != id(2) {
		t.Errorf("%v, %t, want the second", e.ID, ok)
	}
}

func TestDeletedExperimentsAreForgottenAtLast(t *testing.T) {
	s := New()
	index := uint64(0)
	do := func(exp ID, cmd Command) {
		index++
		if out := s.Apply(index, encoded(t, Entry{exp, noon, cmd})); out.Err != nil {
			t.Fatal(out.Err)
		}
	}
	for n := range keptDeleted + 10 {
		exp := ID{byte(n), byte(n >> 8), 1}
		do(exp, moons("moons"))
		do(exp, ExpPhase{Phase: Cancelled})
		do(exp, ExpDelete{})
	}
	if len(s.deleted) != keptDeleted {
		t.Errorf("%d deleted experiments are remembered, want %d", len(s.deleted), keptDeleted)
	}
	sound(t, s)
}

func TestExpSet(t *testing.T) {
	j := newJournal(t)
	j.refuses(ErrNotFound, id(1), ExpSet{Desired: Pause})
	version := j.do(id(1), moons("moons"))
	j.refuses(ErrConflict, id(1), ExpSet{Version: version + 99, Desired: Pause})
	paused := j.do(id(1), ExpSet{Version: version, Desired: Pause})
	j.refuses(ErrConflict, id(1), ExpSet{Version: version, Desired: Cancel})
	if again := j.do(id(1), ExpSet{Version: version, Desired: Pause}); again != paused { // as it is asked to be
		t.Errorf("version %d, want %d", again, paused)
	}
	priority := int32(-5)
	j.do(id(1), ExpSet{Version: paused, Want: ptr(7), Priority: &priority})
	e := j.experiment(id(1))
	if e.Want != 7 || e.Priority != -5 || e.Desired != Pause {
		t.Errorf("%+v", e)
	}
	j.do(id(1), ExpSet{Want: ptr(0)})
	if e := j.experiment(id(1)); e.Wanted() != 3 {
		t.Errorf("wants %d replicas, has 3 shards", e.Wanted())
	}
	j.do(id(1), ExpSet{Desired: Cancel})
	j.refuses(ErrConflict, id(1), ExpSet{Desired: Run})
	j.do(id(1), ExpPhase{Phase: Cancelled})
	j.refuses(ErrConflict, id(1), ExpSet{Desired: Run})
	j.refuses(ErrConflict, id(1), ExpSet{Want: ptr(2)})
	j.do(id(1), ExpSet{Desired: Cancel})

	least := moons("rings")
	least.Min = 2
	j.do(id(2), least)
	j.refuses(ErrInvalid, id(2), ExpSet{Want: ptr(1)})
}

func TestPhases(t *testing.T) {
	phases := []Phase{Queued, Waiting, Running, Paused, Completed, Cancelled, Failed, Inconsistent, Degraded}
	const table = `
		queued       ≡ waiting running paused cancelled failed degraded
		waiting      ≡ queued running paused completed cancelled failed degraded
		running      ≡ queued waiting paused completed cancelled failed inconsistent degraded
		paused       ≡ queued waiting running cancelled failed degraded
		completed    ≡
		cancelled    ≡
		failed       ≡
		inconsistent ≡
		degraded     ≡`
	lines := strings.Split(strings.TrimSpace(table), "\n")
	for i, from := range phases {
		name, to, _ := strings.Cut(lines[i], "≡")
		if strings.TrimSpace(name) != from.String() {
			t.Fatalf("phase %d is %s, want %s", from, from, name)
		}
		for _, next := range phases {
			j := newJournal(t)
			j.do(id(1), moons("moons"))
			j.do(id(1), ExpPhase{Phase: Running}) // from where all can be reached
			j.do(id(1), ExpPhase{Phase: from, Message: "so far"})
			cmd := ExpPhase{Phase: next, Message: "further"}
			if slices.Contains(strings.Fields(to), next.String()) || next == from && !from.Final() {
				j.do(id(1), cmd)
			} else {
				j.refuses(ErrConflict, id(1), cmd)
			}
		}
	}
	j := newJournal(t)
	j.refuses(ErrNotFound, id(1), ExpPhase{Phase: Running})
}

func TestRunLeavesDegradedAndInconsistent(t *testing.T) {
	for _, phase := range []Phase{Degraded, Inconsistent} {
		j := newJournal(t)
		j.running(id(1), "moons")
		j.do(id(1), ExpSet{Desired: Cancel})
		j.do(id(1), ExpPhase{Phase: phase, Message: "bad"})
		j.refuses(ErrConflict, id(1), ExpSet{Desired: Pause})
		j.do(id(1), ExpSet{Desired: Run})
		if e := j.experiment(id(1)); e.Phase != Queued || e.Message != "" || e.Desired != Run {
			t.Errorf("%s: %s, %q, desired %s", phase, e.Phase, e.Message, e.Desired)
		}
	}
}

func TestLeases(t *testing.T) {
	j := newJournal(t)
	j.refuses(ErrNotFound, id(1), Register{Replica: "a"})
	j.do(id(1), moons("moons"))
	b := j.do(id(1), Register{Replica: "b", Incarnation: 1})
	a := j.do(id(1), Register{Replica: "a", Incarnation: 1, Device: "cpu", Platform: "go"})
	if e := j.experiment(id(1)); e.Version != a || e.Replicas[0].Name != "a" || e.Replicas[0].Token != a || e.Replicas[1].Token != b {
		t.Errorf("version %d, leases %v, want %d of a and %d of b", e.Version, e.Replicas, a, b)
	}
	if again := j.do(id(1), Register{Replica: "a", Incarnation: 1, Device: "gpu"}); again != a {
		t.Errorf("the same process has lease %d, then %d", a, again)
	}
	j.refuses(ErrConflict, id(1), Register{Replica: "a", Incarnation: 2})
	over := j.do(id(1), Register{Replica: "a", Incarnation: 2, Takeover: true})
	if over <= b {
		t.Errorf("lease %d follows %d and %d", over, a, b)
	}
	j.do(id(1), LeaseEnd{Replica: "a", Token: a}) // of the first process: it has none any more
	if e := j.experiment(id(1)); len(e.Replicas) != 2 {
		t.Errorf("an old token ended a lease: %v", e.Replicas)
	}
	j.do(id(1), LeaseEnd{Replica: "a", Token: over, Lost: true})
	j.do(id(1), LeaseEnd{Replica: "c", Token: 1})
	if next := j.do(id(1), Register{Replica: "a", Incarnation: 2}); next <= over {
		t.Errorf("lease %d follows %d", next, over)
	}
	if e := j.experiment(id(1)); len(e.Replicas) != 2 || e.Replicas[0].Since.Before(e.Replicas[1].Since) {
		t.Errorf("%v", e.Replicas)
	}
}

func TestReferences(t *testing.T) {
	j := newJournal(t)
	j.running(id(1), "moons")
	j.do(id(1), commit(1, 10))
	got := j.s.References()
	want := map[Digest]uint64{digest(10): 0, digest(9000): 100, digest(5010): 10}
	if len(got) != len(want) {
		t.Errorf("references %v, want %v", got, want)
	}
	for d, n := range want {
		if bytes, ok := got[d]; !ok || bytes != n {
			t.Errorf("%s: %d bytes, %t, want %d", d, bytes, ok, n)
		}
	}
}

func TestEventsAreARing(t *testing.T) {
	j := newJournal(t)
	j.do(id(1), moons("moons"))
	for i := range 2 * Kept {
		j.do(id(1), ExpSet{Priority: new(int32(i + 1))})
	}
	e := j.experiment(id(1))
	if len(e.Events) != Kept || e.Events[Kept-1].Text != "priority: 128" || e.Events[0].Text != "priority: 65" {
		t.Errorf("%d events from %v to %v", len(e.Events), e.Events[0], e.Events[len(e.Events)-1])
	}
}

func TestLongMessageStaysWithinAText(t *testing.T) {
	j := newJournal(t)
	j.do(id(1), moons("moons"))
	long := Clip(strings.Repeat("ö", MaxText) + "\xff")
	if len(long) > MaxText || !strings.HasSuffix(long, "ö…") {
		t.Errorf("%d bytes, ends with %q", len(long), long[len(long)-8:])
	}
	j.do(id(1), ExpPhase{Phase: Failed, Message: long})
	sound(t, j.s)
}

func TestIndicesRise(t *testing.T) {
	s := New()
	noop := encoded(t, Entry{Command: Noop{}})
	for _, step := range []struct {
		index uint64
		want  error
	}{{0, ErrInvalid}, {5, nil}, {5, nil}, {4, ErrStale}, {9, nil}} {
		if out := s.Apply(step.index, noop); !errors.Is(out.Err, step.want) {
			t.Errorf("index %d: %v, want %v", step.index, out.Err, step.want)
		}
	}
	if s.Index() != 9 {
		t.Errorf("index %d, want 9", s.Index())
	}
}

func TestWhatIsReadIsACopy(t *testing.T) {
	j := newJournal(t)
	j.do(ID{}, NodePut{Name: "n0"})
	j.running(id(1), "moons")
	j.do(id(1), commit(1, 10))
	bad := commit(1, 20)
	bad.Conservation.Live++
	j.refuses(ErrInconsistent, id(1), bad)
	before := j.s.Digest()
	for _, e := range append(j.s.Experiments(), j.experiment(id(1))) {
		e.Spec[0]++
		e.Holders[0] = "x"
		e.Replicas[0].Name = "x"
		e.Cuts[0].Step, e.Cuts[0].Parts[0].Name = 99, "x"
		e.Refused.Step, e.Refused.Parts[0].Name = 99, "x"
		e.Events[0].Text = "x"
	}
	j.s.Nodes()[0].Name = "x"
	clear(j.s.References())
	if j.s.Digest() != before {
		t.Error("who reads the state can change it")
	}
}

func TestExperimentSecret(t *testing.T) {
	a := ExperimentSecret([32]byte{1}, id(1))
	if len(a) != 64 || a == ExperimentSecret([32]byte{2}, id(1)) || a == ExperimentSecret([32]byte{1}, id(2)) {
		t.Errorf("secret %s", a)
	}
}

func TestWordsOfValues(t *testing.T) {
	for value, want := range map[interface{ String() string }]string{
		Run: "run", Cancel: "cancel", Desired(0): "0", Queued: "queued", Degraded: "degraded", Phase(10): "10", Read: "read", Join: "join",
	} {
		if value.String() != want {
			t.Errorf("%q, want %q", value, want)
		}
	}
	if Paused.Final() || !Completed.Final() || !Degraded.Final() {
		t.Error("which phases are final?")
	}
}
