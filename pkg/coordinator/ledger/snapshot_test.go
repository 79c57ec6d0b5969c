package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"
)

// unsealed is a snapshot without what a fuzzer cannot guess: magic, version, section heads and checksums. Each section is its
// length u32 and its body.
func unsealed(snapshot []byte) (out []byte) {
	rest := snapshot[len(snapshotMagic)+4 : len(snapshot)-sha256.Size]
	for len(rest) > 0 {
		length := binary.LittleEndian.Uint64(rest[4:])
		out = binary.LittleEndian.AppendUint32(out, uint32(length))
		out = append(out, rest[sectionHeadBytes:sectionHeadBytes+length]...)
		rest = rest[sectionHeadBytes+length+4:]
	}
	return out
}

// resealed makes a snapshot of what unsealed made, or of anything.
func resealed(b []byte) []byte {
	out := binary.LittleEndian.AppendUint32([]byte(snapshotMagic), snapshotVersion)
	for i := range len(New().sections()) {
		var length uint32
		if len(b) >= 4 {
			length = min(binary.LittleEndian.Uint32(b), uint32(len(b)-4))
			b = b[4:]
		}
		section := binary.LittleEndian.AppendUint32(nil, uint32(i+1))
		section = binary.LittleEndian.AppendUint64(section, uint64(length))
		section = append(section, b[:length]...)
		out = append(out, seal(section)...)
		b = b[length:]
	}
	sum := sha256.Sum256(out)
	return append(out, sum[:]...)
}

// someState is what a few hundred random entries came to.
func someState(t testing.TB, seed uint64) *State {
	rng := rand.New(rand.NewPCG(seed, seed))
	s := New()
	for i := range uint64(400) {
		s.Apply(i+1, encoded(t, someEntry(rng.IntN, s)))
	}
	return s
}

func TestSnapshotComesBack(t *testing.T) {
	for seed := range uint64(20) {
		sound(t, someState(t, seed))
	}
	sound(t, New())
}

func TestDamagedSnapshotIsRefused(t *testing.T) {
	data := someState(t, 1).Snapshot()
	for i := range data {
		data[i] ^= 1 << (i % 8)
		if _, err := Restore(data); !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnsupported) {
			t.Fatalf("bit flipped in byte %d: %v", i, err)
		}
		data[i] ^= 1 << (i % 8)
	}
	for n := range data {
		if _, err := Restore(data[:n]); !errors.Is(err, ErrInvalid) {
			t.Fatalf("the first %d of %d bytes: %v", n, len(data), err)
		}
	}
	if _, err := Restore(append(data, 0)); !errors.Is(err, ErrInvalid) {
		t.Fatalf("one byte more: %v", err)
	}
	if _, err := Restore(data); err != nil {
		t.Fatal(err)
	}
}

func TestLaterSnapshotIsUnsupported(t *testing.T) {
	data := New().Snapshot()
	data[len(snapshotMagic)]++
	if _, err := Restore(data); !errors.Is(err, ErrUnsupported) {
		t.Fatalf("version %d: %v, want ErrUnsupported", snapshotVersion+1, err)
	}
}

// TestImpossibleStatesAreRefused writes snapshots of states that no entries lead to, with all checksums right.
func TestImpossibleStatesAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(s *State, e *experiment){
		"two experiments of one name":        func(s *State, e *experiment) { s.experiments[1].Name = e.Name },
		"two experiments of one ID":          func(s *State, e *experiment) { s.experiments[1].ID = e.ID },
		"an experiment without an ID":        func(s *State, e *experiment) { e.ID = ID{} },
		"a deleted experiment that is there": func(s *State, e *experiment) { s.deleted = []ID{e.ID} },
		"an experiment deleted twice":        func(s *State, e *experiment) { s.deleted = []ID{id(9), id(9)} },
		"a version above the index":          func(s *State, e *experiment) { e.Version = s.index + 1 },
		"no event of the last change":        func(s *State, e *experiment) { e.Events = e.Events[:len(e.Events)-1] },
		"events out of order":                func(s *State, e *experiment) { e.Events[0].Index = e.Version; e.Events[1].Index = 1 },
		"too few holders":                    func(s *State, e *experiment) { e.Holders = e.Holders[:1] },
		"cuts before the first generation":   func(s *State, e *experiment) { e.Generation = 0 },
		"replicas out of order":              func(s *State, e *experiment) { e.Replicas[0], e.Replicas[1] = e.Replicas[1], e.Replicas[0] },
		"a lease of the future":              func(s *State, e *experiment) { e.Replicas[0].Token = e.Version + 1 },
		"two cuts of one step":               func(s *State, e *experiment) { e.Cuts[1].Step = e.Cuts[0].Step },
		"a cut that breaks conservation":     func(s *State, e *experiment) { e.Cuts[0].Conservation.Labels++ },
		"a cut of a generation to come":      func(s *State, e *experiment) { e.Cuts[0].Generation = e.Generation + 1 },
		"a refused cut that breaks nothing":  func(s *State, e *experiment) { c := e.Cuts[0]; e.Refused = &c },
		"a quota that limits nothing":        func(s *State, e *experiment) { s.quotas["ada"] = Quota{Owner: "ada"} },
		"two tokens with one secret":         func(s *State, e *experiment) { s.tokens["u"] = Token{Name: "u", Hash: digest(1), Scope: Read} },
		"a node below the feature level":     func(s *State, e *experiment) { s.feature = 9 },
	} {
		t.Run(name, func(t *testing.T) {
			j := newJournal(t)
			j.do(ID{}, NodePut{Name: "n0", Feature: 1})
			j.do(ID{}, TokenPut{Token{Name: "t", Hash: digest(1), Scope: Read}})
			j.running(id(1), "moons")
			j.do(id(1), commit(1, 10))
			j.do(id(1), commit(1, 20))
			j.do(id(2), moons("rings"))
			sound(t, j.s)
			spoil(j.s, j.s.byID[id(1)])
			if _, err := Restore(j.s.Snapshot()); !errors.Is(err, ErrInvalid) {
				t.Fatalf("restored: %v", err)
			}
		})
	}
}

// A state that overtakes is sound, and its experiments go on behind the number.
func TestGenerationsGoOnBehindThoseOfALaterState(t *testing.T) {
	const seen = 1 << 40
	s := someState(t, 1)
	s.Overtake(seen)
	sound(t, s)
	s.Overtake(7) // is behind it
	for _, e := range s.Experiments() {
		if e.Generation != seen {
			t.Errorf("experiment %s: generation %d, want %d", e.Name, e.Generation, seen)
		}
	}
	j := newJournal(t)
	j.running(id(1), "moons")
	j.s.Overtake(seen)
	last := j.experiment(id(1))
	j.do(id(1), GenerationOpen{Number: seen + 1, Holders: last.Holders, From: last.From})
}
