package consensus

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// script is a log that is being written.
type script struct {
	testing.TB
	entries []*raft.Log
	term    uint64
}

func (s *script) write(exp ledger.ID, commands ...ledger.Command) {
	s.Helper()
	for _, cmd := range commands {
		data, err := ledger.Encode(ledger.Entry{Exp: exp, At: time.Unix(1, 0), Command: cmd})
		if err != nil {
			s.Fatal(err)
		}
		s.entries = append(s.entries, &raft.Log{Index: uint64(len(s.entries)) + 1, Term: s.term, Type: raft.LogCommand, Data: data})
	}
}

// cut is that of a step, whose blobs are called after it.
func cut(step int) ledger.CutCommit {
	return ledger.CutCommit{Generation: 1, Step: uint64(step), Manifest: ledger.Digest{1, byte(step)}, Parts: []ledger.Part{{Name: "a", Digest: ledger.Digest{2, byte(step)}, Bytes: 1}}}
}

// blobsOf are the blobs of cuts.
func blobsOf(steps ...int) (all []ledger.Digest) {
	for _, step := range steps {
		all = append(all, ledger.Names(cut(step))...)
	}
	return all
}

func digestOf(data []byte) ledger.Digest { return sha256.Sum256(data) }

// training is the log of an experiment with cuts of steps 0 to cuts−1.
func training(t testing.TB, exp ledger.ID, cuts int) *script {
	s := &script{TB: t, term: 3}
	s.write(exp, createExperiment("x"), ledger.Register{Replica: "r", Incarnation: 1}, ledger.GenerationOpen{Number: 1, Holders: []string{"r", "r"}, From: ledger.Start})
	for step := range cuts {
		s.write(exp, cut(step))
	}
	return s
}

// asks checks which blobs fsm has asked for since the last time, in any order.
func asks(t testing.TB, asked *[]ledger.Digest, when string, want []ledger.Digest) {
	t.Helper()
	order := func(a, b ledger.Digest) int { return bytes.Compare(a[:], b[:]) }
	slices.SortFunc(*asked, order)
	slices.SortFunc(want, order)
	if !slices.Equal(*asked, want) {
		t.Errorf("%s: asks for %.4s, want %.4s", when, *asked, want)
	}
	*asked = nil
}

func TestEveryCommandWithBlobsAsksForThem(t *testing.T) {
	exp := ledger.ID{1}
	var asked []ledger.Digest
	f := newFSM(func(d []ledger.Digest) { asked = append(asked, d...) })
	s := training(t, exp, 0)
	s.write(exp, ledger.ExpPhase{Phase: ledger.Running})
	f.ApplyBatch(s.entries)
	apply := func(cmd ledger.Command) (errs []error) {
		s.write(exp, cmd)
		for _, out := range f.ApplyBatch(s.entries[len(s.entries)-1:]) {
			errs = append(errs, out.(ledger.Outcome).Err)
		}
		return errs
	}
	asks(t, &asked, "without a cut", nil)
	apply(cut(1))
	asks(t, &asked, "a cut", blobsOf(1))
	apply(ledger.ExpSet{Desired: ledger.Pause})
	apply(ledger.GenerationOpen{Number: 2, From: 1})
	apply(ledger.ExpPhase{Phase: ledger.Paused})
	asks(t, &asked, "a pause", nil)
	other := cut(7)
	if errs := apply(ledger.ExpRespec{Spec: []byte("name: y"), Shards: 2, Step: 1, Manifest: other.Manifest, Parts: other.Parts}); errs[0] != nil {
		t.Fatal(errs)
	}
	asks(t, &asked, "another ladder", blobsOf(7))
	third := cut(8)
	if errs := apply(ledger.CutReplace{Step: 5, Manifest: third.Manifest, Parts: third.Parts}); errs[0] != nil {
		t.Fatal(errs)
	}
	asks(t, &asked, "a cut in the place of others", blobsOf(7, 8))
	bad := cut(9)
	if errs := apply(ledger.ExpRespec{Shards: 2, Step: 5, Manifest: bad.Manifest, Parts: bad.Parts, Conservation: ledger.Conservation{Live: 1}}); errs[0] == nil {
		t.Error("a cut that breaks the laws is taken")
	}
	asks(t, &asked, "what was refused, and is not kept", blobsOf(7, 8))
}

// TestReplayAsksForNothingThatIsForgotten has a node apply again what it had in its log.
func TestReplayAsksForNothingThatIsForgotten(t *testing.T) {
	exp := ledger.ID{1}
	const cuts = 9
	for _, batch := range []int{1, 2, 5, 100} {
		for _, tc := range []struct {
			name string
			lost int // entries at the end of the old log, which another leader has replaced by none
		}{{"as it was", 0}, {"with another end", 2}} {
			t.Run(fmt.Sprintf("%s, %d at a time", tc.name, batch), func(t *testing.T) {
				var asked []ledger.Digest
				f := newFSM(func(d []ledger.Digest) { asked = append(asked, d...) })
				s := training(t, exp, cuts)
				last := s.entries[len(s.entries)-1]
				f.past = position{last.Index, last.Term}
				s.entries = s.entries[:len(s.entries)-tc.lost]
				if tc.lost > 0 {
					s.term++
					s.write(ledger.ID{}, ledger.Noop{})
				}
				for part := range slices.Chunk(s.entries, batch) {
					if asks(t, &asked, "on the way", nil); !f.replaying() {
						t.Error("the replay is over before its end")
					}
					f.ApplyBatch(part)
				}
				end := cuts - tc.lost
				asks(t, &asked, "at the end", blobsOf(end-3, end-2, end-1))
				if f.replaying() {
					t.Error("the replay is not over at its end")
				}
				s.write(exp, cut(50), cut(51))
				f.ApplyBatch(s.entries[len(s.entries)-2:])
				asks(t, &asked, "afterwards", blobsOf(end-1, 50, 51))
			})
		}
	}
}

func TestASnapshotBehindThePastAsksForNothing(t *testing.T) {
	exp := ledger.ID{1}
	s := training(t, exp, 9)
	snapshot := func(upTo int) io.ReadCloser {
		f := newFSM(func([]ledger.Digest) {})
		f.ApplyBatch(s.entries[:upTo])
		var data bytes.Buffer
		f.view(func(state *ledger.State) { data.Write(state.Snapshot()) })
		return io.NopCloser(&data)
	}
	var asked []ledger.Digest
	f := newFSM(func(d []ledger.Digest) { asked = append(asked, d...) })
	f.past = position{uint64(len(s.entries)), s.term}
	if err := f.Restore(snapshot(len(s.entries) - 3)); err != nil {
		t.Fatal(err)
	}
	asks(t, &asked, "of the node's own past", nil)
	if err := f.Restore(snapshot(len(s.entries))); err != nil {
		t.Fatal(err)
	}
	asks(t, &asked, "of a leader", blobsOf(6, 7, 8))
	if f.replaying() {
		t.Error("the replay is not over at its end")
	}
}

func TestANodeThatWasAwayIsSoonReady(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "a", "b", "c")
	for name, cfg := range c.cfg {
		cfg.hooks.grace = time.Nanosecond
		c.cfg[name] = cfg
	}
	c.startAll()
	exp := c.begin("x")
	c.same()
	late := c.follower().cfg.Name
	c.kill(late)
	part := func(step int) []byte { return bytes.Repeat([]byte{byte(step)}, 1000) }
	for step := range 9 {
		c.commit(exp, uint64(step), part(step))
		if step == 4 {
			for range 100 { // more than a follower gets at a time: it comes by a state that names the first cuts
				c.must(ledger.ID{}, ledger.Noop{})
			}
		}
	}
	c.same()
	for _, n := range c.nodes { // the blobs of the first cuts are nowhere any more
		if removed, err := n.collectOnce(); err != nil || n.blobs.Has(digestOf(part(0))) {
			t.Fatalf("%d removed, %v", removed, err)
		}
	}
	for range 2 { // catching up, and after a restart
		c.start(late)
		c.same()
		eventually(t, "all that the state names, and that nothing is missing", func() bool {
			n := c.nodes[late]
			return n.blobs.Has(digestOf(part(6))) && n.blobs.Has(digestOf(part(8))) && n.Ready() == nil
		})
		c.kill(late)
	}
}

func TestANodeWithoutALeaderCollectsNothing(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "a", "b", "c")
	for name, cfg := range c.cfg {
		cfg.hooks.grace = time.Nanosecond
		c.cfg[name] = cfg
	}
	c.startAll()
	n := c.follower()
	if _, err := n.PutBlob(within(t), []byte("to be named")); err != nil {
		t.Fatal(err)
	}
	collected := func() bool {
		if _, err := n.collectOnce(); err != nil {
			t.Fatal(err)
		}
		return !n.blobs.Has(digestOf([]byte("to be named")))
	}
	c.net.isolate(n.cfg.Name, true)
	eventually(t, "no leader", func() bool { name, _ := n.Leader(); return name == "" })
	if collected() {
		t.Error("a blob is gone that the others may have come to name")
	}
	c.net.isolate(n.cfg.Name, false)
	eventually(t, "the blob that nobody names is gone", collected)
}
