package experiment

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// node is a YAML value that knows where it stands. It is what a file and the overrides are merged into before any key
// gets a meaning: go-yaml's own decoder stops at the first fault, and takes 1e-3 for text.
type node struct {
	kind  nodeKind
	text  string // of a scalar
	at    Origin // of the value; of a map's value the key's place is in entry
	pairs []*entry
	items []*node
}

type nodeKind int

const (
	nullNode   nodeKind = iota // nothing, null or ~
	plainNode                  // a scalar without quotes: a number, true or a word
	quotedNode                 // text
	mapNode
	listNode
)

type entry struct {
	key   string
	at    Origin
	value *node
}

func (n *node) get(key string) *entry {
	for _, e := range n.pairs {
		if e.key == key {
			return e
		}
	}
	return nil
}

// parser state of one text: the file, or the value of a flag.
type reading struct {
	from   Origin // file, or flag
	faults []Fault
}

func (r *reading) fault(at Origin, path, format string, args ...any) {
	r.faults = append(r.faults, Fault{At: at, Path: path, Text: fmt.Sprintf(format, args...)})
}

// at is the place of a token; width is that of the arrow below it.
func (r *reading) at(tk *token.Token, width int) Origin {
	o := r.from
	if o.Flag == "" && tk != nil && tk.Position != nil {
		o.Line, o.Col, o.width = tk.Position.Line, tk.Position.Column, width
	}
	return o
}

// read parses a text that is one YAML document. It gives nil where there is nothing, or where the text is no YAML.
func (r *reading) read(raw []byte) (root *node) {
	defer func() {
		if p := recover(); p != nil { // go-yaml is not free of panics on hostile input
			r.fault(r.from, "", "not YAML: %v", p)
			root = nil
		}
	}()
	file, err := parser.ParseBytes(raw, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		r.syntax(err)
		return nil
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if body != nil {
			r.fault(r.at(doc.Start, 3), "", "a second document, want one experiment a file")
			return nil
		}
		body = doc.Body
	}
	if body == nil {
		return nil
	}
	if _, comment := body.(*ast.CommentGroupNode); comment {
		return nil
	}
	return r.convert(body, "", nil)
}

func (r *reading) syntax(err error) {
	var e yaml.Error
	if !errors.As(err, &e) {
		r.fault(r.from, "", "not YAML: %v", err)
		return
	}
	text := "not YAML: " + e.GetMessage()
	switch msg := e.GetMessage(); {
	case strings.Contains(msg, "'\t'") || strings.Contains(msg, "tab"):
		text = "a tab, want spaces: YAML takes no tabs before a key"
	case strings.Contains(msg, "mapping value is not allowed"):
		text = "a second colon, want one `key: value` a line, or quotes around the text"
	case strings.Contains(msg, "value is not allowed in this context"):
		text = "this line stands at no level of the lines above, want the same indentation for all keys of a section"
	case strings.Contains(msg, "end token"):
		text = "opened here and never closed: " + msg
	}
	r.fault(r.at(e.GetToken(), 1), "", "%s", text)
}

// join is a key below a path.
func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

const maxDepth = 32

func (r *reading) convert(in ast.Node, path string, key *token.Token) *node {
	if in == nil {
		return &node{at: r.at(key, 1)}
	}
	out := &node{at: r.at(in.GetToken(), 1)}
	if strings.Count(path, ".")+strings.Count(path, "[") > maxDepth {
		r.fault(out.at, "", "nested deeper than %d levels", maxDepth)
		return out
	}
	refuse := func(what string) *node {
		r.fault(out.at, "", "%s, want the value itself: an experiment has no anchors, aliases, merges or tags", what)
		return nil
	}
	switch in := in.(type) {
	case *ast.MappingNode:
		out.kind = mapNode
		for _, v := range in.Values {
			r.pair(out, v, path)
		}
	case *ast.MappingValueNode:
		out.kind = mapNode
		r.pair(out, in, path)
	case *ast.SequenceNode:
		out.kind = listNode
		for i, v := range in.Values {
			item := r.convert(v, fmt.Sprintf("%s[%d]", path, i), in.Start)
			if item == nil {
				return nil
			}
			out.items = append(out.items, item)
		}
	case *ast.NullNode:
		out.kind = nullNode
	case *ast.LiteralNode:
		out.kind, out.text = quotedNode, in.Value.Value
	case *ast.StringNode:
		out.kind, out.text = plainNode, in.Value
		if t := in.GetToken().Type; t == token.SingleQuoteType || t == token.DoubleQuoteType {
			out.kind = quotedNode
		}
	case *ast.AnchorNode:
		return refuse("an anchor")
	case *ast.AliasNode:
		return refuse("an alias")
	case *ast.TagNode:
		return refuse("a tag")
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		out.kind, out.text = plainNode, in.GetToken().Value
	default:
		r.fault(out.at, "", "%s, want a value, a list or a map", in.Type())
		return nil
	}
	if out.kind != mapNode && out.kind != listNode {
		out.at.width = max(1, utf8.RuneCountInString(out.text))
	}
	return out
}

func (r *reading) pair(into *node, v *ast.MappingValueNode, path string) {
	tk := v.Key.GetToken()
	if v.Key.IsMergeKey() {
		r.fault(r.at(tk, 2), "", "a merge, want the value itself: an experiment has no anchors, aliases, merges or tags")
		return
	}
	switch v.Key.(type) {
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
	default:
		r.fault(r.at(tk, 1), "", "%s as a key, want a word", v.Key.Type())
		return
	}
	e := &entry{key: tk.Value, at: r.at(tk, max(1, utf8.RuneCountInString(tk.Value)))}
	here := join(path, e.key)
	if first := into.get(e.key); first != nil {
		r.fault(e.at, here, "a second `%s`, the first is on line %d", e.key, first.at.Line)
		return
	}
	if e.value = r.convert(v.Value, here, tk); e.value != nil {
		into.pairs = append(into.pairs, e)
	}
}

// override is one `--set a.b=c`.
type override struct {
	flag  string
	path  []string
	value string
}

func (r *reading) parseOverride(set string) (override, bool) {
	r.from = Origin{Flag: "--set " + set}
	key, value, ok := strings.Cut(set, "=")
	key = strings.TrimSpace(key)
	if !ok || key == "" {
		r.fault(r.from, "", "want key=value, such as --set train.steps=100")
		return override{}, false
	}
	path := strings.Split(key, ".")
	if slices.Contains(path, "") {
		r.fault(r.from, "", "%q is not a key, want words with single dots between, such as train.steps", key)
		return override{}, false
	}
	return override{flag: set, path: path, value: value}, true
}

// apply puts the override's value in place of what is at its path. A short form on the way is written out first.
func (r *reading) apply(root *node, o override) {
	r.from = Origin{Flag: "--set " + o.flag}
	if !utf8.ValidString(o.value) {
		r.fault(r.from, "", "not UTF-8 text")
		return
	}
	before := len(r.faults)
	value := r.read([]byte(o.value))
	if len(r.faults) > before {
		return
	}
	if value == nil {
		value = &node{at: r.from}
	}
	at := root
	for i, key := range o.path[:len(o.path)-1] {
		path := strings.Join(o.path[:i+1], ".")
		e := at.get(key)
		if e == nil {
			e = &entry{key: key, at: r.from, value: &node{kind: mapNode, at: r.from}}
			at.pairs = append(at.pairs, e)
		}
		if field, ok := shortForms[path]; ok && (e.value.kind == plainNode || e.value.kind == quotedNode) {
			e.value = &node{kind: mapNode, at: e.value.at, pairs: []*entry{{key: field, at: e.at, value: e.value}}}
		}
		if e.value.kind == nullNode {
			e.value = &node{kind: mapNode, at: e.value.at}
		}
		if e.value.kind != mapNode {
			key := strings.Join(o.path[i+1:], ".")
			switch t := typeAt(o.path[:i+1]); {
			case t != nil && t.Kind() == reflect.Struct:
				r.fault(r.from, "", "`%s` is %s in %s and has no `%s`, want the whole of it: --set '%s={%s: %s, …}'",
					path, e.value.what(), e.at, key, path, key, o.value)
			case t != nil && t.Kind() == reflect.Slice:
				r.fault(r.from, "", "`%s` is a list, want the whole of it: --set '%s=[…]'", path, path)
			default:
				r.fault(r.from, "", "`%s` is %s in %s and has no `%s`", path, e.value.what(), e.at, key)
			}
			return
		}
		at = e.value
	}
	last := o.path[len(o.path)-1]
	if e := at.get(last); e != nil {
		e.at, e.value = r.from, value
		return
	}
	at.pairs = append(at.pairs, &entry{key: last, at: r.from, value: value})
}

// typeAt is the type of a key of Config; nil for a key that is unknown.
func typeAt(path []string) reflect.Type {
	t := reflect.TypeFor[Config]()
	for _, key := range path {
		if t.Kind() != reflect.Struct {
			return nil
		}
		_, index := fields(t)
		i, ok := index[key]
		if !ok {
			return nil
		}
		if t = t.Field(i).Type; t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
	}
	return t
}

// what names the value in an error.
func (n *node) what() string {
	switch n.kind {
	case nullNode:
		return "nothing"
	case mapNode:
		return "a map"
	case listNode:
		return "a list"
	case quotedNode:
		return fmt.Sprintf("the text %q", n.text)
	}
	switch _, err := parseNumber(n.text); {
	case err == nil:
		return "the number " + n.text
	case err != errNoNumber:
		return n.text
	case n.text == "true" || n.text == "false":
		return n.text
	}
	return fmt.Sprintf("the text %q", n.text)
}
