package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// jsonPath is a template of text and paths in braces, as in "{.items[*].name}". A path is of .key, ['key'], [3], [-1] (the
// last) and [*] (all). Strings are printed as they are, several values with a blank between.
type jsonPath []pathPart

// pathPart is a piece of text, or a path where keys is not nil.
type pathPart struct {
	text string
	keys []any // string, int, or everything
}

// everything is [*].
type everything struct{}

func parseJSONPath(template string) (jsonPath, error) {
	if template == "" {
		return nil, usageErrorf("-o jsonpath: no path, want one as in jsonpath={.items[*].name}")
	}
	if !strings.ContainsAny(template, "{}") {
		template = "{" + template + "}"
	}
	var out jsonPath
	for rest := template; rest != ""; {
		text, behind, found := strings.Cut(rest, "{")
		if strings.Contains(text, "}") {
			return nil, usageErrorf("-o jsonpath: a } without a { in %q", template)
		}
		if text = strings.NewReplacer(`\n`, "\n", `\t`, "\t").Replace(text); text != "" {
			out = append(out, pathPart{text: text})
		}
		if !found {
			break
		}
		path, after, closed := strings.Cut(behind, "}")
		if !closed {
			return nil, usageErrorf("-o jsonpath: a { without a } in %q", template)
		}
		keys, err := parsePath(path)
		if err != nil {
			return nil, usageErrorf("-o jsonpath: %q: %w", path, err)
		}
		out, rest = append(out, pathPart{keys: keys}), after
	}
	return out, nil
}

// parsePath reads .a.b[0]['c'][*]. The path of the whole object is ".".
func parsePath(path string) ([]any, error) {
	path = strings.TrimPrefix(strings.TrimSpace(path), "$")
	keys := []any{}
	if path == "" || path == "." {
		return keys, nil
	}
	for path != "" {
		switch path[0] {
		case '.':
			end := len(path)
			if i := strings.IndexAny(path[1:], ".["); i >= 0 {
				end = i + 1
			}
			key := path[1:end]
			if key == "" && end < len(path) && path[end] == '[' { // .[0]
				path = path[end:]
				continue
			}
			if key == "" || strings.ContainsAny(key, " ?@()*") {
				return nil, fmt.Errorf("key %q, want a name behind the dot", key)
			}
			keys, path = append(keys, key), path[end:]
		case '[':
			end := strings.IndexByte(path, ']')
			if end < 0 {
				return nil, fmt.Errorf("a [ without a ]")
			}
			key, err := parseIndex(path[1:end])
			if err != nil {
				return nil, err
			}
			keys, path = append(keys, key), path[end+1:]
		default:
			return nil, fmt.Errorf("%q, want a dot or a bracket", path)
		}
	}
	return keys, nil
}

func parseIndex(text string) (any, error) {
	if text == "*" {
		return everything{}, nil
	}
	if n := len(text); n > 2 && (text[0] == '\'' || text[0] == '"') && text[n-1] == text[0] {
		return text[1 : n-1], nil
	}
	i, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("[%s], want a number, a name in quotes or *", text)
	}
	return i, nil
}

// render fills the template in with values of a JSON document. A key that is not there is an error; an empty list is not.
func (p jsonPath) render(document []byte) (string, error) {
	var root any
	dec := json.NewDecoder(strings.NewReader(string(document)))
	dec.UseNumber() // prints large numbers as they came
	if err := dec.Decode(&root); err != nil {
		return "", err
	}
	var b strings.Builder
	for _, part := range p {
		b.WriteString(part.text)
		if part.keys == nil {
			continue
		}
		values := []any{root}
		for _, key := range part.keys {
			var err error
			if values, err = step(values, key); err != nil {
				return "", fmt.Errorf("-o jsonpath: %w", err)
			}
		}
		for i, v := range values {
			if i > 0 {
				b.WriteByte(' ')
			}
			text, ok := v.(string)
			if !ok {
				raw, err := json.Marshal(v)
				if err != nil {
					return "", err
				}
				text = string(raw)
			}
			b.WriteString(text)
		}
	}
	return b.String(), nil
}

// step goes one key further from each of the values.
func step(values []any, key any) ([]any, error) {
	var out []any
	for _, v := range values {
		switch key := key.(type) {
		case string:
			object, ok := v.(map[string]any)
			child, found := object[key]
			if !ok || !found {
				return nil, fmt.Errorf("no %q in it, see -o json for what there is", key)
			}
			out = append(out, child)
		case int:
			list, ok := v.([]any)
			at := key
			if at < 0 {
				at += len(list)
			}
			if !ok || at < 0 || at >= len(list) {
				return nil, fmt.Errorf("no [%d] in a list of %d", key, len(list))
			}
			out = append(out, list[at])
		case everything:
			switch v := v.(type) {
			case []any:
				out = append(out, v...)
			default:
				return nil, fmt.Errorf("[*] of what is no list")
			}
		}
	}
	return out, nil
}
