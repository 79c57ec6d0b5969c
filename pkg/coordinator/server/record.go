package server

import (
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
	"github.com/kelvin-ebm/kelvin/pkg/runlog"
)

// record keeps the metrics of an experiment in a file, from which a later leadership of this node goes on, and the last of them
// in memory, for those who follow. It is safe for concurrent use.
type record struct {
	dir string

	mu    sync.Mutex
	file  *runlog.Writer // nil while nobody writes, and where it could not be opened
	steps []int          // of lines
	lines [][]byte       // the last ones
	more  chan struct{}  // closed at the next line
}

// tailLines is how many lines are kept in memory while they come, at least.
const tailLines = 256

func newRecord(metrics string, exp ledger.ID) *record {
	return &record{dir: filepath.Join(metrics, exp.String())}
}

// open begins behind a step; lines of later ones, which are made again, are cut off.
func (r *record) open(step int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.steps, r.lines = nil, nil
	err := os.MkdirAll(r.dir, 0o755)
	if err == nil {
		r.file, err = runlog.Resume(r.dir, step) // where there is none, it begins
	}
	return err
}

func (r *record) write(rec runlog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lines) == 2*tailLines {
		r.steps, r.lines = slices.Clone(r.steps[tailLines:]), slices.Clone(r.lines[tailLines:])
	}
	r.steps, r.lines = append(r.steps, rec.Step), append(r.lines, rec.Line())
	r.tell()
	if r.file == nil { // it could not be opened
		return nil
	}
	return r.file.Write(rec)
}

// since are the lines behind a step, and a channel that is closed once there are more. What is not in memory is read.
func (r *record) since(from int64) (lines [][]byte, more <-chan struct{}) {
	r.mu.Lock()
	steps, tail := r.steps, r.lines
	if r.more == nil {
		r.more = make(chan struct{})
	}
	more = r.more
	r.mu.Unlock()
	if len(steps) == 0 || from < int64(steps[0]) {
		old, _ := runlog.ReadMetrics(r.dir) // where there is none, none is known
		for _, rec := range old {
			if int64(rec.Step) > from && (len(steps) == 0 || rec.Step < steps[0]) {
				lines = append(lines, rec.Line())
			}
		}
		if n := len(old); n > 0 {
			r.remember(old[n-1])
		}
	}
	for i, step := range steps {
		if int64(step) > from {
			lines = append(lines, tail[i])
		}
	}
	return lines, more
}

// remember keeps the last line where none is in memory: whoever has it need not have the file read again.
func (r *record) remember(last runlog.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil && len(r.steps) == 0 {
		r.steps, r.lines = []int{last.Step}, [][]byte{last.Line()}
	}
}

// close ends the file, with what could not be written, which has been told. The last line alone stays in memory.
func (r *record) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tell()
	if r.file == nil {
		return
	}
	_ = r.file.Close()
	r.file = nil
	if n := len(r.lines); n > 0 {
		r.steps, r.lines = slices.Clone(r.steps[n-1:]), slices.Clone(r.lines[n-1:])
	}
}

// tell wakes who waits for more; the caller holds the lock.
func (r *record) tell() {
	if r.more != nil {
		close(r.more)
		r.more = nil
	}
}
