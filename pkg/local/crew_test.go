package local

import (
	"reflect"
	"testing"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
	"github.com/kelvin-ebm/kelvin/pkg/runlog"
)

// A training of two groups of two shards on two replicas, of which one is lost, and comes again.
func TestCrew(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	// moved is what a replica has received, in KiB of energies and of rows, and how long it has waited.
	moved := func(energies, rows uint64, waited time.Duration) replica.Moved {
		return replica.Moved{Waited: waited, Kinds: map[engine.Kind]replica.Traffic{
			engine.EnergiesBlob: {BytesReceived: energies << 10, BytesSent: 1 << 40}, engine.RowsBlob: {BytesReceived: rows << 10},
		}}
	}
	at := func(ms, step, generation int, holders string, living []string, moves map[string]replica.Moved) roll {
		r := roll{at: start.Add(time.Duration(ms) * time.Millisecond), step: step, generation: generation, living: living, moved: moves}
		for _, id := range holders {
			r.holders = append(r.holders, string(id))
		}
		return r
	}
	both, zero := []string{"0", "1"}, []string{"0"}
	// Here replica 0 holds a shard of each group, and 1 likewise.
	c := &crew{layout: engine.Layout{Placement: "ladder", Split: 2, Rungs: 4, Chains: 8, Groups: 2}, scans: 4}
	row := func(id string, shards []int, steps int, traffic *runlog.Traffic) runlog.Replica {
		return runlog.Replica{ID: id, Shards: shards, Steps: steps, Traffic: traffic}
	}
	gone := runlog.Replica{ID: "1", Shards: []int{1, 3}, Steps: 300, Gone: true, GoneAt: 300, Traffic: &runlog.Traffic{BytesPerScan: 1024, WaitShare: 0.5}}
	for _, tc := range []struct {
		name string
		roll roll
		want []runlog.Replica
	}{
		{"before the first generation", at(0, 0, 0, "0101", both, nil), []runlog.Replica{row("0", []int{0, 2}, 0, nil), row("1", []int{1, 3}, 0, nil)}},
		{"its start", at(10000, 0, 1, "0101", both, nil), []runlog.Replica{row("0", []int{0, 2}, 0, nil), row("1", []int{1, 3}, 0, nil)}},
		// What was waited while all compiled is not counted: the first step is where counting starts.
		{"first step", at(20000, 100, 1, "0101", both, map[string]replica.Moved{"0": moved(1, 1, 9*time.Second), "1": moved(2, 2, 15*time.Second)}),
			[]runlog.Replica{row("0", []int{0, 2}, 100, nil), row("1", []int{1, 3}, 100, nil)}},
		// In 2 s and 200 steps of 4 scans: 0 receives 2 KiB a scan and waits 0.4 s of 2 groups' 4 s, 1 receives 1 KiB and waits 2 s.
		{"later", at(22000, 300, 1, "0101", both, map[string]replica.Moved{"0": moved(1+1200, 1+400, 9400*time.Millisecond), "1": moved(2+800, 2, 17*time.Second)}),
			[]runlog.Replica{row("0", []int{0, 2}, 300, &runlog.Traffic{BytesPerScan: 2048, WaitShare: 0.1}), row("1", []int{1, 3}, 300, &runlog.Traffic{BytesPerScan: 1024, WaitShare: 0.5})}},
		{"a loss", at(22001, 300, 1, "0101", zero, map[string]replica.Moved{"0": moved(1201, 401, 9400*time.Millisecond), "1": moved(802, 2, 17*time.Second)}),
			[]runlog.Replica{row("0", []int{0, 2}, 300, &runlog.Traffic{BytesPerScan: 2048, WaitShare: 0.1}), gone}},
		{"next generation", at(27000, 300, 2, "0000", zero, map[string]replica.Moved{"0": moved(1201, 401, 9400*time.Millisecond), "1": moved(802, 2, 17*time.Second)}),
			[]runlog.Replica{row("0", []int{0, 1, 2, 3}, 300, nil), {ID: "1", Steps: 300, Gone: true, GoneAt: 300}}},
		{"it comes again", at(28000, 350, 2, "0000", both, map[string]replica.Moved{"0": moved(1201, 401, 19*time.Second), "1": moved(802, 2, 17*time.Second)}),
			[]runlog.Replica{row("0", []int{0, 1, 2, 3}, 350, nil), {ID: "1", Steps: 300, GoneAt: 300}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := c.muster(tc.roll); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("%+v, want %+v", got, tc.want)
			}
			if tc.name == "later" { // 3 KiB a scan of both; 2.4 s of 8 s
				if got, want := c.since(tc.roll), (runlog.Traffic{BytesPerScan: 3072, WaitShare: 0.3}); got == nil || *got != want {
					t.Errorf("a round of %+v, want %+v", got, want)
				}
			}
			if got := c.since(tc.roll); got != nil {
				t.Errorf("a round of %+v, though nothing was done since the last", got)
			}
		})
	}
	if got, want := c.total(map[string]replica.Moved{"0": moved(1201, 401, 0), "1": moved(802, 2, 0)}), "2.5 MB moved between 2 replicas, which waited 30 % of their time"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := (&crew{}).total(map[string]replica.Moved{"0": moved(1, 0, time.Second)}), "0.0 MB moved between 1 replicas"; got != want {
		t.Errorf("after a single step: %s, want %s", got, want)
	}
	if got, want := (&crew{}).total(nil), "nothing moved between replicas"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
