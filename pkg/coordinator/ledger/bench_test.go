package ledger

import (
	"fmt"
	"testing"
)

// largeState has 1,000 experiments with 10,000 replicas, 100,000 shards and 3,000 cuts.
func largeState(b *testing.B) *State {
	b.Helper()
	s := New()
	do := func(exp ID, cmd Command) {
		if out := s.Apply(s.Index()+1, encoded(b, Entry{exp, noon, cmd})); out.Err != nil {
			b.Fatal(out.Err)
		}
	}
	for n := range 1000 {
		exp := ID{byte(n), byte(n >> 8), 1}
		create := moons(fmt.Sprintf("moons-%d", n))
		create.Shards, create.Spec = 100, make([]byte, 2<<10)
		do(exp, create)
		var ids []string
		for r := range 10 {
			ids = append(ids, fmt.Sprintf("replica-%d", r))
			do(exp, Register{Replica: ids[r], Incarnation: uint64(n), Device: "NVIDIA H100", Platform: "xla:cuda/H100/2"})
		}
		open := GenerationOpen{Number: 1, From: Start}
		for shard := range create.Shards {
			open.Holders = append(open.Holders, ids[shard/10])
		}
		do(exp, open)
		for step := range uint64(KeptCuts) {
			do(exp, commit(1, step))
		}
	}
	return s
}

func BenchmarkSnapshot(b *testing.B) {
	s := largeState(b)
	b.SetBytes(int64(len(s.Snapshot())))
	for b.Loop() {
		s.Snapshot()
	}
}

func BenchmarkRestore(b *testing.B) {
	data := largeState(b).Snapshot()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := Restore(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkApply(b *testing.B) {
	s := largeState(b)
	exp := ID{7, 0, 1}
	step := uint64(KeptCuts)
	for b.Loop() {
		data, err := Encode(Entry{exp, noon, commit(1, step)})
		if err != nil {
			b.Fatal(err)
		}
		if out := s.Apply(s.Index()+1, data); out.Err != nil {
			b.Fatal(out.Err)
		}
		step++
	}
}
