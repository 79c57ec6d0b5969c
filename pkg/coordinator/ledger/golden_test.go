package ledger

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the last part of the golden log: only before it is released")

// golden are the parts of a log that this version's own wrote, each behind the one before. A part has a line for each entry,
// with the entry in hex, the value and the error that it comes to. snapshot and digest are of the state after the part.
var golden = []struct{ log, snapshot, digest string }{
	{"testdata/v1.log", "testdata/v1.snapshot", "fea30cf875c01311e3a1c42cfdeb92d41a5cc3ecfb23468bb09df18bd8783739"},
	{"testdata/v1-respec.log", "testdata/v1-respec.snapshot", "631ed36c139fdb81c2c27baad7258d8e8c29fbf0aa49a33129df2984c723ecd9"},
	{"testdata/v1-replace.log", "testdata/v1-replace.snapshot", "35900cf878bcf577680fa5f19eb1dd0b319ae0834a4e56b3d2a6c72b5892048d"},
}

// TestLogOfVersion1 replays the log that the first version wrote. Every later version must come to the same: clusters are
// upgraded node by node.
func TestLogOfVersion1(t *testing.T) {
	s := New()
	for i, part := range golden {
		if *update && i == len(golden)-1 {
			writeGolden(t, s, part.log, part.snapshot)
		} else {
			replay(t, s, part.log)
		}
		if got := s.Digest().String(); got != part.digest {
			t.Errorf("%s: digest %s, want %s", part.log, got, part.digest)
		}
		snapshot, err := os.ReadFile(part.snapshot)
		if err != nil {
			t.Fatal(err)
		}
		restored, err := Restore(snapshot)
		if err != nil {
			t.Fatal(err)
		}
		if restored.Digest() != s.Digest() {
			t.Errorf("%s restores to another state than that of %s", part.snapshot, part.log)
		}
	}
}

func replay(t *testing.T, s *State, path string) {
	log, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(log))
	lines.Buffer(nil, 4*MaxEntry)
	for lines.Scan() {
		text, outcome, _ := strings.Cut(lines.Text(), " ")
		data, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := outcomeOf(t, s.Apply(s.Index()+1, data)); got != outcome {
			t.Fatalf("%s: entry %d comes to %s, want %s", path, s.Index(), got, outcome)
		}
	}
}

func outcomeOf(t *testing.T, out Outcome) string {
	return fmt.Sprintf("%d %s", out.Value, sentinel(t, out.Err))
}

// writeGolden writes a part that goes on from a state: what its commands are for, and entries as they come.
func writeGolden(t *testing.T, s *State, path, snapshot string) {
	rng := rand.New(rand.NewPCG(3, 2026))
	var log bytes.Buffer
	add := func(e Entry) {
		data := encoded(t, e)
		fmt.Fprintf(&log, "%x %s\n", data, outcomeOf(t, s.Apply(s.Index()+1, data)))
	}
	for _, cmd := range examples() {
		switch cmd.(type) {
		case TokenCreate, TokenUse, CutReplace:
			add(entryOf(cmd))
		}
	}
	join := Token{Name: "join", Hash: digest(9001), Scope: Join, Uses: 2}
	for _, cmd := range []Command{
		TokenCreate{join}, TokenUse{"join", join.Hash, 1}, TokenUse{"join", join.Hash, 1}, TokenUse{"join", join.Hash, 0}, TokenCreate{join},
		TokenUse{"join", join.Hash, 0}, TokenCreate{Token{Name: "join", Hash: digest(9002), Scope: Read}},
	} {
		add(Entry{ID{}, noon, cmd})
	}
	moon := ID{0: 255, 15: 3} // of no random entry
	other := CutReplace{Step: 5, Manifest: digest(77), Parts: []Part{{"chains", digest(78), 50}}, Conservation: whole(2)}
	for _, cmd := range []Command{
		moons("moon"), Register{Replica: "a", Incarnation: 1}, GenerationOpen{Number: 1, Holders: []string{"a", "a", "a"}, From: Start},
		ExpPhase{Phase: Running}, commit(1, 10), commit(1, 20), CutReplace{Step: 10}, ExpSet{Desired: Pause}, GenerationOpen{Number: 2, From: 20},
		ExpPhase{Phase: Paused}, CutReplace{Step: 10}, CutReplace{Step: 10}, other, other,
	} {
		add(Entry{moon, noon, cmd})
	}
	for range 400 {
		add(someEntry(rng.IntN, s))
	}
	for path, data := range map[string][]byte{path: log.Bytes(), snapshot: s.Snapshot()} {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
