package server

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
	"github.com/kelvin-ebm/kelvin/pkg/runlog"
)

// All lines can be had at any time, and few of them are in memory.
func TestRecordsAreKeptOnTheDisk(t *testing.T) {
	const records = 5 * tailLines
	dir := t.TempDir()
	r := newRecord(dir, ledger.ID{1})
	steps := func(r *record, from, first, n int) {
		t.Helper()
		lines, _ := r.since(int64(from))
		if len(lines) != n {
			t.Fatalf("%d lines behind step %d, want %d", len(lines), from, n)
		}
		for i, line := range lines {
			if want := fmt.Sprintf(`{"step":%d,`, first+i); !bytes.HasPrefix(line, []byte(want)) {
				t.Fatalf("line %d behind step %d: %s, want %s", i, from, line, want)
			}
		}
	}
	write := func(from, to int) {
		t.Helper()
		for step := from; step <= to; step++ {
			if err := r.write(runlog.Record{Step: step}); err != nil {
				t.Fatal(err)
			}
			if len(r.lines) > 2*tailLines {
				t.Fatalf("%d lines in memory, want at most %d", len(r.lines), 2*tailLines)
			}
		}
	}
	steps(r, -1, 0, 0)
	if err := r.open(0); err != nil {
		t.Fatal(err)
	}
	_, more := r.since(-1)
	write(1, records)
	select {
	case <-more:
	default:
		t.Error("who waits for more was not told")
	}
	steps(r, -1, 1, records)
	steps(r, 10, 11, records-10)
	steps(r, records-3, records-2, 3)
	steps(r, records, 0, 0)
	r.close()
	if len(r.lines) != 1 {
		t.Errorf("%d lines in memory behind the end, want the last", len(r.lines))
	}
	steps(r, -1, 1, records)
	steps(r, records, 0, 0)
	steps(newRecord(dir, ledger.ID{1}), 5, 6, records-5) // of another process
	if err := r.open(100); err != nil {                  // and those behind are made again
		t.Fatal(err)
	}
	write(101, 105)
	steps(r, -1, 1, 105)
	r.close()
}
