package runlog

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// workers are three replicas at work, one that stands by and one that was lost.
func workers() []Replica {
	return []Replica{
		{ID: "0", Shards: []int{0, 1, 2, 5}, Steps: 1200, Traffic: &Traffic{BytesPerScan: 6042, WaitShare: 0.25}},
		{ID: "1", Shards: []int{3}, Steps: 400, Traffic: &Traffic{BytesPerScan: 1.5 * (1 << 20), WaitShare: 0.5}},
		{ID: "2", Gone: true, GoneAt: 450, Steps: 450, Traffic: &Traffic{}},
		{ID: "10"},
		{ID: "11", Shards: []int{4}},
	}
}

func someRound() Round {
	return Round{
		Status: Status{Loss: -0.1742, SwapAccept: []float64{0.59, 0.8, 0.71}}, Barrier: 0.844, Trips: 5138,
		Traffic: &Traffic{BytesPerScan: 14233, WaitShare: 0.531},
	}
}

func TestEachReplicaHasALineBelowTheBar(t *testing.T) {
	for _, color := range []bool{false, true} {
		var out buffer
		c := newClock()
		p := NewProgress(&out, ProgressOptions{Name: "two-moons", Total: 9600, Replicas: 5, Terminal: true, Width: 80, Color: color, Now: c.now})
		p.Replicas(workers()[:2])
		train(p, c, 2000, 100)
		p.Round(2000, someRound())
		p.Replicas(workers())
		p.Log("lost at step 450: replica 2")
		p.Done("trained")
		p.Round(2100, someRound()) // a line, as of Log
		p.Replicas(nil)
		lines := screen(t, out.String())
		want := []string{
			"cut 1 at step 2000",
			"2000  Λ 0.84  swap 0.59/0.70  trips 5138  loss -0.1742  13.9 KiB/scan  wait 53 %",
			"lost at step 450: replica 2",
			"",
			" 0  ━━━━━━━━━━━━────  shards 0-2,5      wait  25 %     5.9 KiB/scan  1200 steps",
			" 1  ━━━━━━━━────────  shard 3           wait  50 %     1.5 MiB/scan  400 steps",
			" 2  ────────────────  gone at step 450",
			"10  ────────────────  stands by",
			"11  ────────────────  shard 4",
			"trained",
			"2100  Λ 0.84  swap 0.59/0.70  trips 5138  loss -0.1742  13.9 KiB/scan  wait 53 %",
		}
		if len(lines) == len(want) && strings.Contains(lines[3], " 20% ━━━") {
			want[3] = lines[3]
		}
		if !slices.Equal(lines, want) {
			t.Errorf("screen:\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
		}
	}
}

func TestReplicaLinesFitTheTerminal(t *testing.T) {
	many := workers()
	for len(many) < 40 {
		many = append(many, Replica{ID: "12345", Shards: []int{len(many)}, Steps: 1 << 20, Traffic: &Traffic{BytesPerScan: math.MaxUint32, WaitShare: 1.01}})
	}
	for _, tc := range []struct {
		width, rows int
		first, last string
	}{
		{120, 5, " 0  ━━━━━━━━━━━━────  shards 0-2,5      wait  25 %     5.9 KiB/scan  1200 steps", "and 36 more"},
		{60, 16, "    0  ━━━━━━━━━━━━────  shards 0-2,5      wait  25 %", "and 25 more"},
		{59, 16, "    0  shards 0-2,5      wait  25 %     5.9 KiB/scan", "and 25 more"},
		{20, 2, "0  shards 0-2,5", "and 39 more"},
		{20, 1, "and 40 more", "and 40 more"},
		{4, 16, "", "and "},
	} {
		b := &bar{replicas: many}
		lines := b.replicaRows(tc.rows, tc.width)
		if len(lines) != tc.rows || lines[0] != tc.first || lines[len(lines)-1] != tc.last {
			t.Errorf("width %d, %d rows:\n%s\nwant %q … %q", tc.width, tc.rows, strings.Join(lines, "\n"), tc.first, tc.last)
		}
		for _, line := range lines {
			if columns(line) > tc.width {
				t.Errorf("width %d: %d columns: %q", tc.width, columns(line), line)
			}
		}
	}
	if lines := (&bar{replicas: many}).replicaRows(0, 80); len(lines) != 0 {
		t.Errorf("no rows: %q", lines)
	}
}

func TestARoundIsALine(t *testing.T) {
	without := someRound()
	without.SwapAccept, without.Traffic = nil, nil
	bound := someRound()
	bound.LowerBound = true
	unknown := someRound()
	unknown.Barrier, unknown.Traffic = math.NaN(), nil
	for _, tc := range []struct {
		name  string
		r     Round
		width int
		want  string
	}{
		{"wide", someRound(), 94, "step  360  Λ 0.84  swap 0.59 min 0.70 mean  trips 5138  loss -0.1742  13.9 KiB/scan  wait 53 %"},
		{"fewer words", someRound(), 80, " 360  Λ 0.84  swap 0.59/0.70  trips 5138  loss -0.1742  13.9 KiB/scan  wait 53 %"},
		{"no loss", someRound(), 79, " 360  Λ 0.84  swap 0.59/0.70  trips 5138  13.9 KiB/scan  wait 53 %"},
		{"lower bound", bound, 120, "step  360  Λ ≥ 0.84  swap 0.59 min 0.70 mean  trips 5138  loss -0.1742  13.9 KiB/scan  wait 53 %"},
		{"no barrier, no traffic", unknown, 120, "step  360  Λ –  swap 0.59 min 0.70 mean  trips 5138  loss -0.1742"},
		{"no ladder, no traffic", without, 80, "step  360  loss -0.1742"},
	} {
		if got := tc.r.line(360, 4000, tc.width); got != tc.want {
			t.Errorf("%s:\n%q, want\n%q", tc.name, got, tc.want)
		}
	}
}

func TestPlainLinesSayWhatReplicasDo(t *testing.T) {
	var out bytes.Buffer
	c := newClock()
	p := NewProgress(&out, ProgressOptions{Total: 100, Replicas: 5, Now: c.now})
	p.Replicas(workers()[4:])
	p.Update(1, Status{Loss: 1})
	p.Round(1, someRound())
	p.Replicas(workers())
	c.t = c.t.Add(2 * time.Second)
	p.Update(50, Status{Loss: 0.5, SwapAccept: []float64{0.5}})
	p.Done("")
	want := `step 1/100  1%  loss 1.0000
replicas  11: shard 4
step 50/100  50%  24.5 steps/s  2s left  loss 0.5000  swap 0.50 min 0.50 mean  Λ 0.84  trips 5138  13.9 KiB/scan  wait 53 %
replicas  0: shards 0-2,5, 5.9 KiB/scan, wait 25 %; 1: shard 3, 1.5 MiB/scan, wait 50 %; 2: gone at step 450; 10: stands by; 11: shard 4
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestQuietSaysNothingOfReplicas(t *testing.T) {
	var out bytes.Buffer
	p := NewProgress(&out, ProgressOptions{Total: 100, Replicas: 5, Quiet: true, Terminal: true})
	p.Replicas(workers())
	p.Round(1, someRound())
	p.Done("trained")
	if out.Len() > 0 {
		t.Errorf("%q", out.String())
	}
}

func TestBytes(t *testing.T) {
	for bytes, want := range map[float64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 3 << 20: "3.0 MiB", 1 << 60: "1048576.0 TiB"} {
		if got := formatBytes(bytes); got != want {
			t.Errorf("%g: %s, want %s", bytes, got, want)
		}
	}
}
