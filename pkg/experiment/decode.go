package experiment

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/big"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// shortForms names the sections that may be written as one word, and the key that the word is.
var shortForms = map[string]string{"backend": "kind", "loss.interpolant": "kind", "loss.coupling": "kind", "sampler.interpolant": "kind"}

// selfDecoding is a type that reads its own YAML, such as a schedule. The faults that it reports start with key paths
// relative to it.
type selfDecoding interface {
	UnmarshalYAML(unmarshal func(any) error) error
}

// decoder writes a tree into a struct by its yaml tags, and notes where each key was set.
type decoder struct {
	faults  []Fault
	origins map[string]Origin
	// excused are the keys with a fault already: what Validate says about them follows from that fault.
	excused map[string]bool
}

func (d *decoder) fault(at Origin, path, format string, args ...any) {
	d.faults = append(d.faults, Fault{At: at, Path: path, Text: fmt.Sprintf(format, args...)})
	d.excused[path] = true
}

// fields lists the yaml keys of a struct with their fields.
func fields(t reflect.Type) (keys []string, index map[string]int) {
	index = map[string]int{}
	for i := range t.NumField() {
		f := t.Field(i)
		key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if !f.IsExported() || key == "" || key == "-" {
			continue
		}
		keys = append(keys, key)
		index[key] = i
	}
	return keys, index
}

func (d *decoder) structValue(n *node, v reflect.Value, path string) {
	keys, index := fields(v.Type())
	for _, e := range n.pairs {
		if i, ok := index[e.key]; ok {
			d.keyed(e, v.Field(i), join(path, e.key))
			continue
		}
		meant := d.unknown(e, keys, kindKeys(path, n, keys), path)
		switch {
		case meant == "":
		case n.get(meant) == nil: // go on as if it were spelt well, for the faults below it
			d.keyed(e, v.Field(index[meant]), join(path, meant))
		default: // beside the well-spelt key it is decoded for its faults alone
			origins := maps.Clone(d.origins)
			d.keyed(e, reflect.New(v.Field(index[meant]).Type()).Elem(), join(path, meant))
			d.origins = origins
		}
	}
}

// keyed decodes the value of one key.
func (d *decoder) keyed(e *entry, v reflect.Value, path string) {
	d.origins[path] = e.at
	if e.value.kind == nullNode && !isSection(v.Type()) {
		d.fault(e.at, path, "%s: no value, want %s, or leave the key out for its default", path, want(v.Type()))
		return
	}
	d.value(e.value, v, path, e.at)
}

// isSection says whether a type is a struct of keys, and not a schedule.
func isSection(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !reflect.PointerTo(t).Implements(reflect.TypeFor[selfDecoding]())
}

// kindKeys are those of a section's keys that its kind reads, n being the section or nil; all of them for a section without
// kinds.
func kindKeys(section string, n *node, keys []string) []string {
	name, kind := "kind", map[string]string{"model": "mlp", "loss": temperedCD, "sampler": "mala"}[section]
	if section == "data" {
		name = "dataset"
	}
	if n != nil && n.get(name) != nil {
		kind = n.get(name).value.text
	}
	var out []string
	for _, key := range keys {
		if key == name || slices.ContainsFunc(keyUses(section, key), func(u use) bool { return slices.Contains(u.kinds, kind) }) {
			out = append(out, key)
		}
	}
	if len(out) < 2 { // no kinds, or none that is known
		return keys
	}
	return out
}

// unknown reports a key that the section does not have, and gives the key that was meant, or "". offered are the keys that
// the message names where none is near.
func (d *decoder) unknown(e *entry, keys, offered []string, path string) string {
	in := ""
	if path != "" {
		in = " in `" + path + "`"
	}
	here := join(path, e.key)
	if near, ok := nearest(e.key, keys); ok {
		d.fault(e.at, here, "unknown key `%s`%s, did you mean `%s`?", e.key, in, near)
		return near
	}
	elsewhere := keyPaths(e.key)
	section, key, dotted := strings.Cut(e.key, ".")
	switch {
	case len(elsewhere) > 0:
		d.fault(e.at, here, "unknown key `%s`%s, did you mean `%s`?", e.key, in, strings.Join(elsewhere, "` or `"))
	case dotted && slices.Contains(keyPaths(key), e.key):
		d.fault(e.at, here, "unknown key `%s`, did you mean `%s: {%s: …}`? (dots are for --set)", e.key, section, key)
	default:
		d.fault(e.at, here, "unknown key `%s`%s, want one of %s", e.key, in, strings.Join(offered, ", "))
	}
	return ""
}

// keyPaths lists the paths of the sections' keys of that name.
func keyPaths(key string) []string {
	var paths []string
	t := reflect.TypeFor[Config]()
	sections, index := fields(t)
	for _, s := range sections {
		if f := t.Field(index[s]).Type; f.Kind() == reflect.Struct {
			if keys, _ := fields(f); slices.Contains(keys, key) {
				paths = append(paths, join(s, key))
			}
		}
	}
	return paths
}

// value decodes n into v; at is where to point at when the value as a whole is wrong.
func (d *decoder) value(n *node, v reflect.Value, path string, at Origin) {
	if self, ok := v.Addr().Interface().(selfDecoding); ok {
		d.self(self, n, v.Type(), path, at)
		return
	}
	t := v.Type()
	wrong := func() { d.fault(at, path, "%s: %s, want %s", path, n.what(), want(t)) }
	switch t.Kind() {
	case reflect.Pointer:
		p := reflect.New(t.Elem())
		d.value(n, p.Elem(), path, at)
		v.Set(p)
	case reflect.Struct:
		field, short := shortForms[path]
		_, index := fields(t)
		switch {
		case n.kind == mapNode:
			d.structValue(n, v, path)
		case n.kind == nullNode: // a section whose keys are all commented out
		case short && (n.kind == plainNode || n.kind == quotedNode):
			d.keyed(&entry{key: field, at: at, value: n}, v.Field(index[field]), join(path, field))
		default:
			d.fault(at, path, "%s: %s, want a section with the keys %s", path, n.what(), strings.Join(kindKeys(path, nil, fieldNames(t)), ", "))
		}
	case reflect.Slice:
		if n.kind != listNode {
			wrong()
			return
		}
		if len(n.items) == 0 {
			return // nil, so that a written list reads back equal
		}
		list := reflect.MakeSlice(t, len(n.items), len(n.items))
		for i, item := range n.items {
			place := fmt.Sprintf("%s[%d]", path, i)
			before := len(d.faults)
			d.value(item, list.Index(i), place, item.at)
			if len(d.faults) > before {
				d.excused[path] = true
			}
		}
		v.Set(list)
	case reflect.String:
		switch {
		case n.kind == quotedNode:
			v.SetString(n.text)
		case n.kind != plainNode:
			wrong()
		default:
			if f := scalar(n.text); f != nil {
				d.fault(at, path, "%s: %s, want text; with quotes it is: \"%s\"", path, n.what(), n.text)
				return
			}
			v.SetString(n.text)
		}
	case reflect.Bool:
		b, isBool := scalar(n.text).(bool)
		if n.kind != plainNode || !isBool {
			wrong()
			return
		}
		v.SetBool(b)
	case reflect.Float64, reflect.Float32:
		f, err := n.number()
		if err != nil {
			d.fault(at, path, "%s: %s, %s", path, n.what(), err)
			return
		}
		v.SetFloat(f)
	case reflect.Int, reflect.Int64, reflect.Int32, reflect.Uint64, reflect.Uint32, reflect.Uint:
		d.integer(n, v, path, at)
	default:
		panic(fmt.Sprintf("experiment: %s has the type %s, which the decoder does not know", path, t))
	}
}

func (d *decoder) integer(n *node, v reflect.Value, path string, at Origin) {
	i, err := n.integer()
	switch {
	case err != nil:
		d.fault(at, path, "%s: %s, %s", path, n.what(), err)
	case v.CanUint():
		if i.Sign() < 0 || !i.IsUint64() || v.OverflowUint(i.Uint64()) {
			d.fault(at, path, "%s: %s, want a whole number from 0 to %d", path, n.text, uint64(math.MaxUint64)>>(64-v.Type().Bits()))
			return
		}
		v.SetUint(i.Uint64())
	case !i.IsInt64() || v.OverflowInt(i.Int64()):
		d.fault(at, path, "%s: %s, want a smaller whole number", path, n.text)
	default:
		v.SetInt(i.Int64())
	}
}

// self lets a type read its own YAML, after the checks that need no knowledge of the type: numbers that are not finite,
// and keys that are none of its options.
func (d *decoder) self(into selfDecoding, n *node, t reflect.Type, path string, at Origin) {
	before := len(d.faults)
	plain := d.plain(n, t, path, at)
	if len(d.faults) > before {
		d.excused[path] = true
	}
	err := into.UnmarshalYAML(func(dst any) error {
		p, ok := dst.(*any)
		if !ok {
			return fmt.Errorf("experiment: %s decodes itself into %T, want *any", t, dst)
		}
		*p = plain
		return nil
	})
	for _, err := range flatten(err) {
		place, text := path, err.Error()
		if key, rest, ok := cutKey(text); ok {
			place, text = join(path, key), rest
		}
		if !d.isExcused(place) {
			origin, known := d.origins[place]
			if !known {
				origin = at
			}
			d.fault(origin, place, "%s: %s", place, text)
		}
		d.excused[path] = true
	}
}

// plain is the tree as Go values: map[string]any, []any, float64, bool, string. t guides the search for unknown keys.
func (d *decoder) plain(n *node, t reflect.Type, path string, at Origin) any {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch n.kind {
	case mapNode:
		out := map[string]any{}
		var keys []string
		var index map[string]int
		if t != nil && t.Kind() == reflect.Struct {
			keys, index = fields(t)
		}
		for _, e := range n.pairs {
			key := e.key
			if _, known := index[key]; !known && index != nil {
				if key = d.unknown(e, keys, keys, path); key == "" || n.get(key) != nil {
					continue
				}
			}
			var sub reflect.Type
			if i, known := index[key]; known {
				sub = t.Field(i).Type
			}
			here := join(path, key)
			d.origins[here] = e.at
			out[key] = d.plain(e.value, sub, here, e.at)
		}
		return out
	case listNode:
		out := make([]any, len(n.items))
		for i, item := range n.items {
			out[i] = d.plain(item, nil, fmt.Sprintf("%s[%d]", path, i), item.at)
		}
		return out
	case quotedNode:
		return n.text
	case plainNode:
		v := scalar(n.text)
		switch v := v.(type) {
		case nil:
			return n.text
		case error:
			d.fault(at, path, "%s: %s, %s", path, n.text, v)
			return 1.0 // the fault is told; a number keeps its neighbours' faults apart from it
		}
		return v
	}
	return nil
}

// isExcused says whether the key or a section around it has a fault already.
func (d *decoder) isExcused(path string) bool {
	for {
		if d.excused[path] {
			return true
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			return false
		}
		path = path[:i]
	}
}

var (
	integerForm = regexp.MustCompile(`^[+-]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+|0o[0-7]+|0b[01]+)$`)
	decimalForm = regexp.MustCompile(`^[+-]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][+-]?[0-9]+)?$`)
	keyForm     = regexp.MustCompile(`^([a-z0-9_]+(?:\[[0-9]+\])?(?:\.[a-z0-9_]+(?:\[[0-9]+\])?)*): `)
)

var (
	errNotFinite = errors.New("want a finite number")
	errRange     = errors.New("want a number between -1.8e308 and 1.8e308")
	errNoNumber  = errors.New("want a number")
	errNotWhole  = errors.New("want a whole number")
)

// parseNumber reads an unquoted number.
func parseNumber(text string) (float64, error) {
	switch strings.ToLower(strings.TrimLeft(text, "+-")) {
	case ".nan", "nan", ".inf", "inf", "infinity":
		return 0, errNotFinite
	}
	if i, ok := parseInteger(text); ok {
		f, _ := new(big.Float).SetInt(i).Float64()
		return f, nil
	}
	if !decimalForm.MatchString(text) {
		return 0, errNoNumber
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, errRange
	}
	return f, nil
}

func parseInteger(text string) (*big.Int, bool) {
	if len(text) > 100 || !integerForm.MatchString(text) {
		return nil, false
	}
	return new(big.Int).SetString(text, 0)
}

// scalar is an unquoted scalar as a bool or a float64; nil where it is text, and an error where it is a number that
// nobody can use.
func scalar(text string) any {
	switch text {
	case "true", "True", "TRUE":
		return true
	case "false", "False", "FALSE":
		return false
	}
	f, err := parseNumber(text)
	switch err {
	case nil:
		return f
	case errNoNumber:
		return nil
	}
	return err
}

func (n *node) number() (float64, error) {
	if n.kind != plainNode {
		return 0, errNoNumber
	}
	return parseNumber(n.text)
}

// integer also reads 1e4 and 128.0.
func (n *node) integer() (*big.Int, error) {
	if n.kind != plainNode {
		return nil, errNotWhole
	}
	if i, ok := parseInteger(n.text); ok {
		return i, nil
	}
	f, err := parseNumber(n.text)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return nil, errNotWhole
	}
	i, _ := big.NewFloat(f).Int(nil)
	return i, nil
}

// want says in words what a type takes.
func want(t reflect.Type) string {
	if t.Kind() == reflect.Struct && !isSection(t) {
		return "a number or a schedule"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return want(t.Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	case reflect.Float64, reflect.Float32:
		return "a number"
	case reflect.Slice:
		switch t.Elem().Kind() {
		case reflect.Float64, reflect.Float32:
			return "a list of numbers such as [0.5, 1]"
		case reflect.Int, reflect.Int64:
			return "a list of whole numbers such as [64, 64]"
		case reflect.Slice:
			return "a list of lists"
		}
		return "a list"
	case reflect.Struct:
		return "a section"
	}
	return "a whole number"
}

func fieldNames(t reflect.Type) []string {
	names, _ := fields(t)
	return names
}

// flatten takes joined errors apart.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range joined.Unwrap() {
			out = append(out, flatten(e)...)
		}
		return out
	}
	return []error{err}
}

// cutKey takes the key path off an error's text.
func cutKey(text string) (key, rest string, ok bool) {
	m := keyForm.FindString(text)
	if m == "" {
		return "", text, false
	}
	return strings.TrimSuffix(m, ": "), text[len(m):], true
}
