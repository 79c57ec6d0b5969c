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

var update = flag.Bool("update", false, "rewrite the golden log: only before the version that it is of is released")

const (
	goldenLog      = "testdata/v1.log"                                                  // a line for each entry: the entry in hex, the value and the error that it comes to
	goldenSnapshot = "testdata/v1.snapshot"                                             // after the last
	goldenDigest   = "fea30cf875c01311e3a1c42cfdeb92d41a5cc3ecfb23468bb09df18bd8783739" // of that state
)

// TestLogOfVersion1 replays the log that the first version wrote. Every later version must come to the same: clusters are
// upgraded node by node.
func TestLogOfVersion1(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	log, err := os.ReadFile(goldenLog)
	if err != nil {
		t.Fatal(err)
	}
	s := New()
	lines := bufio.NewScanner(bytes.NewReader(log))
	lines.Buffer(nil, 4*MaxEntry)
	for lines.Scan() {
		text, outcome, _ := strings.Cut(lines.Text(), " ")
		data, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := outcomeOf(t, s.Apply(s.Index()+1, data)); got != outcome {
			t.Fatalf("entry %d comes to %s, want %s", s.Index(), got, outcome)
		}
	}
	if got := s.Digest().String(); got != goldenDigest {
		t.Errorf("digest %s, want %s", got, goldenDigest)
	}
	snapshot, err := os.ReadFile(goldenSnapshot)
	if err != nil {
		t.Fatal(err)
	}
	restored, err := Restore(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	if restored.Digest() != s.Digest() {
		t.Error("the snapshot of version 1 restores to another state than its log")
	}
}

func outcomeOf(t *testing.T, out Outcome) string {
	return fmt.Sprintf("%d %s", out.Value, sentinel(t, out.Err))
}

func writeGolden(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2026))
	s := New()
	var log bytes.Buffer
	add := func(data []byte) {
		fmt.Fprintf(&log, "%x %s\n", data, outcomeOf(t, s.Apply(s.Index()+1, data)))
	}
	for _, cmd := range examples() {
		add(encoded(t, entryOf(cmd)))
	}
	for range 600 {
		add(encoded(t, someEntry(rng.IntN, s)))
	}
	later := encoded(t, entryOf(Noop{}))
	later[0]++
	add(seal(later[:len(later)-tailBytes]))
	for path, data := range map[string][]byte{goldenLog: log.Bytes(), goldenSnapshot: s.Snapshot()} {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
