// Package runlog keeps what a run says about itself: metrics.jsonl and TensorBoard events in its folder, run.json, and the
// progress that a person sees, with log lines that do not get in its way.
//
//	w, err := runlog.Create(dir) // or runlog.Resume(dir, step)
//	if err != nil {
//		return err
//	}
//	defer w.Close()
//	progress := runlog.NewProgress(os.Stderr, runlog.ProgressOptions{Name: "two-moons", Total: 9600})
//	record := runlog.Record{Step: 1, Seconds: 0.01}
//	record.Set("loss", 0.3)
//	record.SetList("swap_accept", []float64{0.4, 0.5})
//	err = w.Write(record)
//	progress.Update(1, runlog.Status{Loss: 0.3, SwapAccept: []float64{0.4, 0.5}})
//	progress.Done("trained in 31 s")
package runlog

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"time"
)

// MetricsFile is the name of the metrics file in a run's folder: one JSON object a line, one line a record.
const MetricsFile = "metrics.jsonl"

// Value is one measured quantity: a number, or a list with one number for every pair, rung, group, …
type Value struct {
	Key    string
	Number float64
	List   []float64 // nil for a plain number
}

// Record is what was measured at one step. Its values keep the order in which they were set, in the file too.
type Record struct {
	Step    int
	Seconds float64 // wall time since the run started, time before a resume included
	Values  []Value
}

// Set sets a number. The key is snake_case and may not be "step" or "seconds"; Write reports what is wrong with it.
func (r *Record) Set(key string, number float64) { r.set(Value{Key: key, Number: number}) }

// SetList sets a list, which is copied; an empty one is written as [].
func (r *Record) SetList(key string, list []float64) {
	r.set(Value{Key: key, List: append([]float64{}, list...)})
}

func (r *Record) set(v Value) {
	for i := range r.Values {
		if r.Values[i].Key == v.Key {
			r.Values[i] = v
			return
		}
	}
	r.Values = append(r.Values, v)
}

// Number returns the number set under a key.
func (r Record) Number(key string) (float64, bool) {
	for _, v := range r.Values {
		if v.Key == key && v.List == nil {
			return v.Number, true
		}
	}
	return 0, false
}

// List returns the list set under a key.
func (r Record) List(key string) ([]float64, bool) {
	for _, v := range r.Values {
		if v.Key == key && v.List != nil {
			return v.List, true
		}
	}
	return nil, false
}

// check reports all that keeps a record out of a JSON file, non-finite values above all.
func (r Record) check() error {
	var errs []error
	finite := func(name string, x float64) {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			errs = append(errs, fmt.Errorf("step %d: %s: %g, want a finite number", r.Step, name, x))
		}
	}
	if r.Step < 0 {
		errs = append(errs, fmt.Errorf("step: %d, want at least 0", r.Step))
	}
	finite("seconds", r.Seconds)
	seen := map[string]bool{"step": true, "seconds": true}
	for _, v := range r.Values {
		switch {
		case !snakeCase(v.Key):
			errs = append(errs, fmt.Errorf("step %d: key %q, want snake_case", r.Step, v.Key))
		case seen[v.Key]:
			errs = append(errs, fmt.Errorf("step %d: key %q is there twice", r.Step, v.Key))
		}
		seen[v.Key] = true
		if v.List == nil {
			finite(v.Key, v.Number)
		}
		for i, x := range v.List {
			finite(fmt.Sprintf("%s[%d]", v.Key, i), x)
		}
	}
	return errors.Join(errs...)
}

func snakeCase(key string) bool {
	for i, c := range []byte(key) {
		letter := c >= 'a' && c <= 'z'
		if !letter && (i == 0 || c != '_' && (c < '0' || c > '9')) {
			return false
		}
	}
	return key != ""
}

// Recovered says what Resume removed from the metrics file.
type Recovered struct {
	TornBytes int // of a last line that a crash had left unfinished
	Dropped   int // records of steps after the one resumed from, which will be made again
}

// String is one line for a log, empty when nothing was removed.
func (r Recovered) String() string {
	switch {
	case r.TornBytes > 0 && r.Dropped > 0:
		return fmt.Sprintf("%s: cut an unfinished last line (%d bytes) and %d records after the resumed step", MetricsFile, r.TornBytes, r.Dropped)
	case r.TornBytes > 0:
		return fmt.Sprintf("%s: cut an unfinished last line (%d bytes)", MetricsFile, r.TornBytes)
	case r.Dropped > 0:
		return fmt.Sprintf("%s: cut %d records after the resumed step", MetricsFile, r.Dropped)
	}
	return ""
}

// Writer appends records to the metrics file and to a TensorBoard event file. It is not safe for concurrent use.
type Writer struct {
	metrics   *os.File
	size      int64 // bytes of whole lines
	events    *eventWriter
	lastStep  int
	recovered Recovered
	buf       []byte
}

// Create starts the metrics of a new run in dir, which must exist. A metrics file that is there already is an error that
// wraps fs.ErrExist.
func Create(dir string) (*Writer, error) { return open(dir, false, -1, time.Now) }

// Resume goes on with the metrics of a run that continues after step: later records and a torn last line are removed,
// which Recovered tells, and TensorBoard is told to forget them. Without a metrics file it starts one.
func Resume(dir string, step int) (*Writer, error) {
	if step < 0 {
		return nil, fmt.Errorf("runlog: resume after step %d, want at least 0", step)
	}
	return open(dir, true, step, time.Now)
}

func open(dir string, resume bool, step int, now func() time.Time) (*Writer, error) {
	path := filepath.Join(dir, MetricsFile)
	flags := os.O_RDWR | os.O_CREATE
	if !resume {
		flags |= os.O_EXCL
	}
	f, err := os.OpenFile(path, flags, 0o644)
	if err != nil {
		return nil, fmt.Errorf("runlog: %w", err)
	}
	w := &Writer{metrics: f, lastStep: step}
	if resume {
		w.size, w.recovered, err = repair(f, path, step)
	}
	if err == nil {
		w.events, err = createEvents(dir, step, now)
	}
	if err != nil {
		f.Close() // the first error counts
		if !resume {
			os.Remove(path) // nothing half-made stays behind
		}
		return nil, fmt.Errorf("runlog: %w", err)
	}
	return w, nil
}

// Recovered says what Resume removed.
func (w *Writer) Recovered() Recovered { return w.recovered }

// Write appends a record. Steps must increase. A record with a non-finite value, a bad key or a step out of order is
// refused, with the step and key, and nothing of it is written. The line is with the operating system when Write
// returns, so that it outlives the process; Sync makes it outlive a power cut too.
func (w *Writer) Write(r Record) error {
	if err := r.check(); err != nil {
		return fmt.Errorf("runlog: %w", err)
	}
	if r.Step <= w.lastStep {
		return fmt.Errorf("runlog: step %d after step %d, want increasing steps", r.Step, w.lastStep)
	}
	w.buf = appendLine(w.buf[:0], r)
	n, err := w.metrics.Write(w.buf)
	if err != nil {
		if n > 0 { // never leave half a line, such as on a full disk
			err = errors.Join(err, w.metrics.Truncate(w.size))
			_, seekErr := w.metrics.Seek(w.size, io.SeekStart)
			err = errors.Join(err, seekErr)
		}
		return fmt.Errorf("runlog: step %d: %w", r.Step, err)
	}
	w.size += int64(n)
	w.lastStep = r.Step
	if err := w.events.write(r); err != nil {
		return fmt.Errorf("runlog: step %d: %w", r.Step, err)
	}
	return nil
}

// Sync brings what was written to the disk: call it before a cut names the step.
func (w *Writer) Sync() error {
	if err := errors.Join(w.metrics.Sync(), w.events.file.Sync()); err != nil {
		return fmt.Errorf("runlog: %w", err)
	}
	return nil
}

// Close closes the files.
func (w *Writer) Close() error {
	if err := errors.Join(w.metrics.Close(), w.events.file.Close()); err != nil {
		return fmt.Errorf("runlog: %w", err)
	}
	return nil
}
