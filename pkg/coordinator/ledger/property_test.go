package ledger

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestNodesAgree applies random logs to two states, one of which goes through a snapshot every few entries.
func TestNodesAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "") }
		every := 1 + draw(7)
		a, b := New(), New()
		for i := range uint64(60) {
			data, err := Encode(someEntry(draw, a))
			if err != nil {
				t.Fatal(err)
			}
			outA, outB := a.Apply(i+1, data), b.Apply(i+1, data)
			if outA.Value != outB.Value || text(outA.Err) != text(outB.Err) {
				t.Fatalf("entry %d: %v on one node, %v on the other", i+1, outA, outB)
			}
			if int(i)%every == 0 {
				if b, err = Restore(b.Snapshot()); err != nil {
					t.Fatal(err)
				}
			}
			if a.Digest() != b.Digest() {
				t.Fatalf("entry %d: the states differ", i+1)
			}
		}
	})
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestLongLogReachesAllOutcomes makes sure that the random logs of these tests are worth something, and checks every state.
func TestLongLogReachesAllOutcomes(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	j := newJournal(t)
	seen := map[kind]map[string]int{}
	for range 4000 {
		e := someEntry(rng.IntN, j.s)
		out := j.apply(e.Exp, e.Command)
		k := e.Command.kind()
		if seen[k] == nil {
			seen[k] = map[string]int{}
		}
		seen[k][sentinel(t, out.Err)]++
	}
	for k, want := range map[kind][]string{
		kindClusterInit:    {"ok", "conflict"},
		kindNodePut:        {"ok", "unsupported"},
		kindFeatureLevel:   {"ok", "unsupported"},
		kindTokenPut:       {"ok", "conflict"},
		kindTokenCreate:    {"ok", "exists", "conflict"},
		kindTokenUse:       {"ok", "conflict"},
		kindExpCreate:      {"ok", "exists", "quota exceeded"},
		kindExpSet:         {"ok", "conflict", "not found", "quota exceeded"},
		kindExpPhase:       {"ok", "conflict", "not found"},
		kindExpDelete:      {"ok", "conflict", "not found"},
		kindRegister:       {"ok", "conflict", "not found"},
		kindLeaseEnd:       {"ok", "not found"},
		kindGenerationOpen: {"ok", "conflict", "not found", "stale"},
		kindCutCommit:      {"ok", "conflict", "not found", "stale", "inconsistent", "quota exceeded"},
		kindExpRespec:      {"ok", "conflict", "not found", "inconsistent"},
		kindCutReplace:     {"ok", "conflict", "not found", "inconsistent"},
	} {
		for _, outcome := range want {
			if seen[k][outcome] == 0 {
				t.Errorf("command %d never came to %q: %v", k, outcome, seen[k])
			}
		}
	}
}

// TestEveryEntryHasOneEncoding changes single bits of entries: what still decodes has the changed bytes as its encoding.
func TestEveryEntryHasOneEncoding(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	s := New()
	for i := range uint64(500) {
		e := someEntry(rng.IntN, s)
		data := encoded(t, e)
		s.Apply(i+1, data)
		for range 20 {
			mutant := slices.Clone(data)
			mutant[rng.IntN(len(mutant))] ^= 1 << rng.IntN(8)
			sealed := seal(mutant[:len(mutant)-tailBytes])
			if got, err := Decode(sealed); err == nil && !bytes.Equal(encoded(t, got), sealed) {
				t.Fatalf("%x decodes to %+v, whose encoding is another", sealed, got)
			}
			if !bytes.Equal(mutant, data) {
				if _, err := Decode(mutant); err == nil {
					t.Fatalf("a flipped bit of %T was not seen", e.Command)
				}
			}
		}
	}
}
