package datasets

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// readCSV reads a table of comma-separated text (RFC 4180). Errors begin with file:line:column, the column in bytes.
func readCSV(cfg Config, path string) (*table, error) {
	f, _, err := openFile("csv", path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := unpacked(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return decodeCSV(cfg, path, r)
}

func decodeCSV(cfg Config, path string, r io.Reader) (*table, error) {
	text := bufio.NewReader(r)
	if mark, err := text.Peek(3); err == nil && string(mark) == "\ufeff" { // how spreadsheets begin UTF-8
		if _, err := text.Discard(3); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	c := &csvTable{cfg: cfg, path: path, Reader: csv.NewReader(text), label: -1}
	c.FieldsPerRecord = -1 // the message here says more
	c.TrimLeadingSpace = true
	c.ReuseRecord = true
	for {
		record, err := c.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, c.readError(err)
		}
		if c.width == 0 {
			isHeader, err := c.begin(record)
			if err != nil {
				return nil, err
			}
			if isHeader {
				continue
			}
		}
		if err := c.add(record); err != nil {
			return nil, err
		}
	}
	if len(c.data) == 0 {
		return nil, fmt.Errorf("%s: no rows, want at least one", path)
	}
	c.shape = []int{len(c.data) / len(c.take), len(c.take)}
	if err := c.numberLabels(); err != nil {
		return nil, err
	}
	return &c.table, nil
}

// csvTable is a table on its way.
type csvTable struct {
	*csv.Reader
	table
	cfg    Config
	path   string
	width  int   // fields a record; 0 before the first
	take   []int // fields that make up a row
	label  int   // field of the label, or -1
	words  []string
	places [][2]int // line and column of each word, for messages
}

// place says where a field of the last record begins.
func (c *csvTable) place(field int) string {
	return c.at(c.FieldPos(field))
}

func (c *csvTable) at(line, column int) string { return fmt.Sprintf("%s:%d:%d", c.path, line, column) }

func (c *csvTable) readError(err error) error {
	var at *csv.ParseError
	if errors.As(err, &at) {
		return fmt.Errorf("%s: %w", c.at(at.Line, at.Column), at.Err)
	}
	return fmt.Errorf("%s: %w", c.path, err)
}

// begin picks the columns by the first record, and says whether that is a header.
func (c *csvTable) begin(record []string) (isHeader bool, err error) {
	c.width = len(record)
	names := make([]string, c.width)
	for i := range names {
		names[i] = strconv.Itoa(i + 1)
	}
	if isHeader = *c.cfg.Header; isHeader {
		numbers := 0
		for i, field := range record {
			names[i] = strings.Clone(strings.TrimSpace(field)) // the record will be used again
			if slices.Contains(names[:i], names[i]) {
				return false, fmt.Errorf("%s: column %q twice", c.place(i), names[i])
			}
			if _, err := strconv.ParseFloat(names[i], 64); err == nil {
				numbers++
			}
		}
		if numbers == c.width {
			return false, fmt.Errorf("%s: numbers in place of the names of columns, want names, or data.header: false", c.place(0))
		}
	}
	find := func(key, name string) (int, error) {
		if i := slices.Index(names, name); i >= 0 {
			return i, nil
		}
		return 0, fmt.Errorf("%s: %s: no column %q, the file has %s", c.place(0), key, name, listed(names))
	}
	if c.cfg.Labels != "" {
		if c.label, err = find("data.labels", c.cfg.Labels); err != nil {
			return false, err
		}
	}
	for _, name := range c.cfg.Columns {
		i, err := find("data.columns", name)
		if err != nil {
			return false, err
		}
		c.take = append(c.take, i)
	}
	if c.cfg.Columns == nil {
		for i := range names {
			if i != c.label {
				c.take = append(c.take, i)
			}
		}
	}
	if len(c.take) == 0 {
		return false, fmt.Errorf("%s: the only column is that of the labels, want one with data", c.place(0))
	}
	return isHeader, nil
}

// add appends a record as a row.
func (c *csvTable) add(record []string) error {
	if len(record) != c.width {
		return fmt.Errorf("%s: %d fields, want %d as the first line has", c.place(0), len(record), c.width)
	}
	for _, i := range c.take {
		v, err := strconv.ParseFloat(strings.TrimSpace(record[i]), 64)
		switch {
		case err != nil && !errors.Is(err, strconv.ErrRange):
			return fmt.Errorf("%s: %.40q, want a number", c.place(i), record[i])
		case math.IsNaN(v) || math.IsInf(v, 0):
			return fmt.Errorf("%s: %.40q, want a finite number", c.place(i), record[i])
		case c.cfg.Dequantise == "uniform" && v != math.Trunc(v):
			return fmt.Errorf("%s: %g, want whole numbers with dequantise: uniform", c.place(i), v)
		}
		c.data = append(c.data, v)
	}
	if c.label >= 0 {
		c.words = append(c.words, strings.Clone(strings.TrimSpace(record[c.label])))
		line, column := c.FieldPos(c.label)
		c.places = append(c.places, [2]int{line, column})
	}
	return nil
}

// numberLabels turns the column of labels into numbers: the first label says whether they are numbers or names.
func (c *csvTable) numberLabels() error {
	if c.label < 0 {
		return nil
	}
	isNumber := func(word string) (float64, bool) {
		v, err := strconv.ParseFloat(word, 64)
		return v, err == nil
	}
	if _, numbers := isNumber(c.words[0]); !numbers {
		c.classes = slices.Compact(slices.Sorted(slices.Values(c.words)))
	}
	c.labels = make([]int, len(c.words))
	for i, word := range c.words {
		v, number := isNumber(word)
		want := ""
		switch {
		case word == "":
			want = "a label"
		case c.classes != nil && number:
			want = "a name, as the first label is"
		case c.classes == nil && !number:
			want = "a number, as the first label is"
		case c.classes == nil && (v != math.Trunc(v) || math.Abs(v) > 1<<53): // also true of NaN
			want = "whole numbers as labels"
		}
		if want != "" {
			return fmt.Errorf("%s: %.40q, want %s", c.at(c.places[i][0], c.places[i][1]), word, want)
		}
		if c.labels[i] = int(v); c.classes != nil {
			c.labels[i], _ = slices.BinarySearch(c.classes, word)
		}
	}
	return nil
}
