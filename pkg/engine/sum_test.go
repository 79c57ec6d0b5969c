package engine

import (
	"slices"
	"sync"
	"testing"
)

// Shard i has the number 3^i, so that a sum that leaves one out or takes one twice shows; and numbers whose float32 sum
// depends on the order, which must not hang on who holds them.
func TestSummationAddsEveryShardOnce(t *testing.T) {
	for n := 1; n <= 9; n++ {
		for lead := range n {
			places := make([]Place, n)
			for i := range places {
				places[i].ID = uint32(10 + i)
			}
			vector := func(i int) []float32 {
				power := float32(1)
				for range i {
					power *= 3
				}
				return []float32{power, 1e7 / power, power / 7}
			}
			run := func(processes int) (sum []float32) {
				mesh, sums, errs := &LocalMesh{}, make([][]float32, processes), make([]error, processes)
				var wait sync.WaitGroup
				for p := range processes {
					parts := make([][]float32, n)
					for i := p; i < n; i += processes {
						parts[i] = vector(i)
					}
					wait.Go(func() { sums[p], errs[p] = summation{places, lead, mesh}.add(1, parts) })
				}
				wait.Wait()
				for p, err := range errs {
					if err != nil {
						t.Fatal(err)
					}
					if (sums[p] != nil) != (lead%processes == p) {
						t.Errorf("%d shards, lead %d: process %d of %d has sum %v", n, lead, p, processes, sums[p])
					}
				}
				return sums[lead%processes]
			}
			alone, want := run(1), float32(0)
			for i := range n {
				want += vector(i)[0]
			}
			if alone[0] != want {
				t.Errorf("%d shards, lead %d: %g, want %g", n, lead, alone[0], want)
			}
			for processes := 2; processes <= n; processes++ {
				if got := run(processes); !slices.Equal(got, alone) {
					t.Errorf("%d shards, lead %d, %d processes: %v, want %v as in one", n, lead, processes, got, alone)
				}
			}
		}
	}
}

func TestSlicesCoverAll(t *testing.T) {
	for things := range 12 {
		for n := 1; n < 9; n++ {
			next := 0
			for i := range n {
				from, to := PartOf(things, i, n)
				if from != next || to-from > largestPart(things, n) {
					t.Errorf("part %d of %d of %d: %d to %d behind %d, want at most %d", i, n, things, from, to, next, largestPart(things, n))
				}
				next = to
			}
			if next != things {
				t.Errorf("%d parts of %d end at %d", n, things, next)
			}
		}
	}
}
