package experiment

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"
)

// Key describes a key of an experiment, for documentation.
type Key struct {
	Path    string // with its section: train.batch
	Doc     string // what it says, and the values that it takes
	Default string // as written in YAML, in words where other keys decide; empty where there is none
}

// Keys describes the sections and the keys of an experiment in the order of a file, but for those that the tables of
// datasets, models, losses and samplers describe. The caller owns the result.
func Keys() ([]Key, error) {
	values, err := defaults()
	if err != nil {
		return nil, err
	}
	known := docs()
	var out []Key
	add := func(path string) {
		d, ok := known[path]
		if !ok {
			return
		}
		key := Key{Path: path, Doc: d.text}
		if want := d.want(); want != "" {
			key.Doc += "; " + want
		}
		if value, ok := values[path]; ok {
			key.Default = fmt.Sprint(value)
		} else if d.follows != "" {
			key.Default = "follows " + d.follows
		}
		out = append(out, key)
	}
	root := reflect.TypeFor[Config]()
	sections, index := fields(root)
	for _, section := range sections {
		add(section)
		if t := root.Field(index[section]).Type; t.Kind() == reflect.Struct {
			keys, _ := fields(t)
			for _, key := range keys {
				add(join(section, key))
			}
		}
	}
	return out, nil
}

// want is the values that a key takes, in words; empty where its text says them.
func (d keyDoc) want() string {
	want := d.values()
	named := len(d.oneOf) > 0
	for _, word := range d.oneOf {
		named = named && regexp.MustCompile(`\b`+regexp.QuoteMeta(word)+`\b`).MatchString(d.text)
	}
	if named || strings.Contains(d.text, want) {
		return ""
	}
	return want
}

func (d keyDoc) values() string {
	if len(d.oneOf) > 0 {
		return "one of " + strings.Join(d.oneOf, ", ")
	}
	low, high := d.min, d.max
	left, right := "[", "]"
	if d.above != nil {
		low, left = d.above, "("
	}
	if d.below != nil {
		high, right = d.below, ")"
	}
	switch {
	case low != nil && high != nil:
		return fmt.Sprintf("in %s%v, %v%s", left, low, high, right)
	case d.above != nil:
		return fmt.Sprintf("above %v", low)
	case low != nil:
		return fmt.Sprintf("%v or more", low)
	}
	return ""
}
