package runlog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
)

// Line is the record as its line of the metrics file, without the newline. The record must be one that Write takes.
func (r Record) Line() []byte {
	line := appendLine(nil, r)
	return line[:len(line)-1]
}

// appendLine appends a checked record as one line of JSON. Equal records give equal bytes.
func appendLine(b []byte, r Record) []byte {
	b = append(b, `{"step":`...)
	b = strconv.AppendInt(b, int64(r.Step), 10)
	b = append(b, `,"seconds":`...)
	b = strconv.AppendFloat(b, r.Seconds, 'f', 3, 64)
	for _, v := range r.Values {
		b = append(b, `,"`...)
		b = append(b, v.Key...)
		b = append(b, `":`...)
		if v.List == nil {
			b = appendNumber(b, v.Number)
			continue
		}
		b = append(b, '[')
		for i, x := range v.List {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendNumber(b, x)
		}
		b = append(b, ']')
	}
	return append(b, '}', '\n')
}

// appendNumber writes the shortest decimal that reads back as x: counts without an exponent, the rest as %g does.
func appendNumber(b []byte, x float64) []byte {
	if x == float64(int64(x)) && x > -1e15 && x < 1e15 {
		return strconv.AppendInt(b, int64(x), 10)
	}
	return strconv.AppendFloat(b, x, 'g', -1, 64)
}

// parseLine reads one line, without its newline, back into a record with its values in the order of the file.
func parseLine(line []byte) (Record, error) {
	dec := json.NewDecoder(bytes.NewReader(line))
	var r Record
	if t, err := dec.Token(); err != nil {
		return r, unfinished(err)
	} else if t != json.Delim('{') {
		return r, fmt.Errorf("%v, want an object", t)
	}
	hasStep := false
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return r, unfinished(err)
		}
		key := t.(string) // the decoder lets nothing else stand here
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return r, unfinished(err)
		}
		v := Value{Key: key}
		into := any(&v.Number)
		switch {
		case key == "step":
			into, hasStep = &r.Step, true
		case key == "seconds":
			into = &r.Seconds
		case raw[0] == '[':
			into = &v.List
		}
		if err := json.Unmarshal(raw, into); err != nil || string(raw) == "null" {
			return r, fmt.Errorf("%s: %s, want a number or a list of numbers", key, raw)
		}
		if key != "step" && key != "seconds" {
			r.Values = append(r.Values, v)
		}
	}
	if _, err := dec.Token(); err != nil { // the closing brace
		return r, unfinished(err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return r, errors.New("more than one object")
	}
	if !hasStep {
		return r, errors.New("no step")
	}
	return r, nil
}

func unfinished(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errors.New("the line ends too early")
	}
	return err
}

// scan reads the lines of a metrics file. A last line without its newline, or one that is not a record, is torn: a crash
// cut it off; scan returns its length. Any other line that is not a record is an error that names it.
func scan(r io.Reader, path string, each func(rec Record, bytes int)) (torn int, err error) {
	in := bufio.NewReaderSize(r, 1<<16)
	var bad error
	badBytes := 0
	for number := 1; ; number++ {
		line, err := in.ReadBytes('\n')
		if err == io.EOF {
			return badBytes + len(line), nil
		}
		if err != nil {
			return 0, err
		}
		if bad != nil { // and it was not the last one
			return 0, bad
		}
		rec, err := parseLine(line[:len(line)-1])
		if err != nil {
			bad, badBytes = fmt.Errorf("%s: line %d: %w", path, number, err), len(line)
			continue
		}
		each(rec, len(line))
	}
}

// repair cuts the file back to its whole records up to a step and leaves the file at its new end.
func repair(f *os.File, path string, step int) (size int64, rec Recovered, err error) {
	previous := -1
	var order error
	rec.TornBytes, err = scan(f, path, func(r Record, bytes int) {
		if r.Step <= previous && order == nil {
			order = fmt.Errorf("%s: step %d after step %d, want increasing steps", path, r.Step, previous)
		}
		previous = r.Step
		if r.Step > step {
			rec.Dropped++
			return
		}
		size += int64(bytes)
	})
	if err = errors.Join(err, order); err != nil {
		return 0, rec, err
	}
	if rec != (Recovered{}) {
		if err := errors.Join(f.Truncate(size), f.Sync()); err != nil {
			return 0, rec, err
		}
	}
	_, err = f.Seek(size, io.SeekStart)
	return size, rec, err
}

// ReadMetrics reads the metrics of a run, finished or still running: an unfinished last line is left out.
func ReadMetrics(dir string) ([]Record, error) {
	path := filepath.Join(dir, MetricsFile)
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("runlog: %w", err)
	}
	defer f.Close()
	var records []Record
	if _, err := scan(f, path, func(r Record, _ int) { records = append(records, r) }); err != nil {
		return nil, fmt.Errorf("runlog: %w", err)
	}
	return records, nil
}

// Series collects the numbers under a key with their steps; records without the key are passed over.
func Series(records []Record, key string) (steps, numbers []float64) {
	for _, r := range records {
		if x, ok := r.Number(key); ok {
			steps = append(steps, float64(r.Step))
			numbers = append(numbers, x)
		}
	}
	return steps, numbers
}

// ListSeries collects the lists under a key, one series for each place in the list: numbers[i] goes with steps[i] and is
// shorter than others where some records have shorter lists.
func ListSeries(records []Record, key string) (steps, numbers [][]float64) {
	for _, r := range records {
		list, _ := r.List(key)
		for i, x := range list {
			if i == len(numbers) {
				steps, numbers = append(steps, nil), append(numbers, nil)
			}
			steps[i] = append(steps[i], float64(r.Step))
			numbers[i] = append(numbers[i], x)
		}
	}
	return steps, numbers
}
