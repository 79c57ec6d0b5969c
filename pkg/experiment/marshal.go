package experiment

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Marshal writes the experiment as YAML, every key with its value, such that Parse gives the same experiment back.
func Marshal(c *Config) ([]byte, error) {
	w := &writer{}
	if err := w.config(c); err != nil {
		return nil, fmt.Errorf("experiment: write %s: %w", c.Name, err)
	}
	return w.Bytes(), nil
}

// Explain is Marshal with notes: above each key what it does, beside it who set it. The text is an experiment as well.
func Explain(c *Config) (string, error) {
	w := &writer{explained: c}
	if err := w.config(c); err != nil {
		return "", fmt.Errorf("experiment: explain %s: %w", c.Name, err)
	}
	return w.String(), nil
}

type writer struct {
	bytes.Buffer
	explained *Config // notes are wanted, for this one
}

func (w *writer) config(c *Config) error {
	v := reflect.ValueOf(*c)
	keys, index := fields(v.Type())
	for _, key := range keys {
		f := v.Field(index[key])
		if f.Kind() != reflect.Struct {
			if err := w.line("", key, key, f); err != nil {
				return err
			}
			continue
		}
		if _, unused := c.unused(key); unused {
			continue // its keys are refused
		}
		if w.explained != nil {
			fmt.Fprintf(w, "\n# %s\n", docs()[key].text)
		}
		fmt.Fprintf(w, "%s:\n", key)
		subKeys, subIndex := fields(f.Type())
		for _, sub := range subKeys {
			value := f.Field(subIndex[sub])
			if omitted(f.Type().Field(subIndex[sub]), value) {
				continue
			}
			if _, idle := c.idle(join(key, sub)); idle {
				continue // it is refused where somebody sets it
			}
			if err := w.line("  ", join(key, sub), sub, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// omitted says whether a key that was left out stays so: the tag says omitempty, and the value has nothing to say.
func omitted(f reflect.StructField, v reflect.Value) bool {
	_, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return strings.Contains(options, "omitempty") && (v.IsZero() || v.Kind() == reflect.Slice && v.Len() == 0)
}

func (w *writer) line(indent, path, key string, v reflect.Value) error {
	value, err := flow(v)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	text := indent + key + ": " + value
	if w.explained == nil {
		fmt.Fprintln(w, text)
		return nil
	}
	if doc := w.explained.doc(path); doc != "" {
		for _, row := range wrap(doc, 100) {
			fmt.Fprintf(w, "%s# %s\n", indent, row)
		}
	}
	fmt.Fprintf(w, "%-36s # %s\n", text, w.explained.who(path))
	return nil
}

// who says who chose the value of a key.
func (c *Config) who(path string) string {
	if o, ok := c.origins[path]; ok {
		who := []string{o.place()}
		for _, inner := range slices.Sorted(maps.Keys(c.origins)) { // --set optimizer.lr.end=0 changes a part of the value
			if o := c.origins[inner]; o.Flag != "" && strings.HasPrefix(inner, path+".") && !slices.Contains(who, o.place()) {
				who = append(who, o.place())
			}
		}
		return strings.Join(who, ", ")
	}
	if !c.filled[path] {
		return "set by the program"
	}
	if follows := docs()[path].follows; follows != "" {
		return "default, follows " + follows
	}
	return "default"
}

// wrap breaks a text into lines of at most width characters, unless a word is longer.
func wrap(text string, width int) []string {
	var lines []string
	length := 0
	for _, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		if len(lines) == 0 || length+1+n > width {
			lines, length = append(lines, word), n
			continue
		}
		lines[len(lines)-1] += " " + word
		length += 1 + n
	}
	return lines
}

// place is the line or the flag, on one line.
func (o Origin) place() string {
	if o.Flag != "" {
		return strings.Join(strings.Fields(o.Flag), " ")
	}
	return fmt.Sprintf("line %d", o.Line)
}

// flow is a value in YAML's one-line form.
func flow(v reflect.Value) (string, error) {
	if m, ok := v.Interface().(interface{ MarshalYAML() (any, error) }); ok {
		if v.Kind() == reflect.Pointer && v.IsNil() {
			return "null", nil
		}
		out, err := m.MarshalYAML()
		if err != nil {
			return "", err
		}
		return flow(reflect.ValueOf(out))
	}
	switch v.Kind() {
	case reflect.Pointer:
		return flow(v.Elem())
	case reflect.String:
		return quoted(v.String()), nil
	case reflect.Bool:
		return strconv.FormatBool(v.Bool()), nil
	case reflect.Float64, reflect.Float32:
		return float(v.Float())
	case reflect.Int, reflect.Int32, reflect.Int64:
		return strconv.FormatInt(v.Int(), 10), nil
	case reflect.Uint, reflect.Uint32, reflect.Uint64:
		return strconv.FormatUint(v.Uint(), 10), nil
	case reflect.Slice:
		items := make([]string, v.Len())
		for i := range items {
			var err error
			if items[i], err = flow(v.Index(i)); err != nil {
				return "", err
			}
		}
		return "[" + strings.Join(items, ", ") + "]", nil
	case reflect.Struct:
		var pairs []string
		keys, index := fields(v.Type())
		for _, key := range keys {
			if omitted(v.Type().Field(index[key]), v.Field(index[key])) {
				continue
			}
			value, err := flow(v.Field(index[key]))
			if err != nil {
				return "", fmt.Errorf("%s: %w", key, err)
			}
			pairs = append(pairs, key+": "+value)
		}
		return "{" + strings.Join(pairs, ", ") + "}", nil
	}
	return "", fmt.Errorf("no way to write a %s", v.Type())
}

// float writes the shortest text that reads back the same, with a point before an exponent: YAML 1.1 takes 5e-05 for text.
func float(f float64) (string, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return "", fmt.Errorf("%g, want a finite number", f)
	}
	s := strconv.FormatFloat(f, 'g', -1, 64)
	if mantissa, exponent, ok := strings.Cut(s, "e"); ok && !strings.Contains(mantissa, ".") {
		s = mantissa + ".0e" + exponent
	}
	return s, nil
}

var plainText = regexp.MustCompile(`^[A-Za-z_./][A-Za-z0-9_./-]*(:[A-Za-z0-9_./-]+)?$`)

// quoted writes text without quotes only where no YAML reader could take it for anything else.
func quoted(s string) string {
	if plainText.MatchString(s) && scalar(s) == nil {
		switch strings.ToLower(s) {
		case "null", "yes", "no", "on", "off", "y", "n", "true", "false", ".", "..":
		default:
			return s
		}
	}
	return strconv.QuoteToGraphic(s)
}
