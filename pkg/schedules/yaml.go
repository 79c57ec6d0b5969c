package schedules

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// option is the link between a YAML key and a field of Config. Exactly one of number, count, list, flag and main is set.
type option struct {
	number func(*Config) *float64
	count  func(*Config) *int
	list   func(*Config) *[]int
	flag   func(*Config) *bool
	main   func(*Config) **Config
	preset func(*Config) // writes the default; nil where the option is required or its default is 0
}

// optionOrder is the order of keys in errors and in written YAML.
var optionOrder = []string{"start", "end", "steps", "decay_rate", "min_value", "milestones", "gamma", "warmup_steps",
	"warmup_init_factor", "main", "epsilon_max", "tau_star", "t_start", "t_end", "sqrt", "hold"}

var options = map[string]option{
	"start":              {number: func(c *Config) *float64 { return &c.Start }},
	"end":                {number: func(c *Config) *float64 { return &c.End }},
	"steps":              {count: func(c *Config) *int { return &c.Steps }, preset: func(c *Config) { c.Steps = 200 }},
	"decay_rate":         {number: func(c *Config) *float64 { return &c.DecayRate }},
	"min_value":          {number: func(c *Config) *float64 { return &c.MinValue }},
	"milestones":         {list: func(c *Config) *[]int { return &c.Milestones }},
	"gamma":              {number: func(c *Config) *float64 { return &c.Gamma }, preset: func(c *Config) { c.Gamma = 0.1 }},
	"warmup_steps":       {count: func(c *Config) *int { return &c.WarmupSteps }},
	"warmup_init_factor": {number: func(c *Config) *float64 { return &c.WarmupInitFactor }, preset: func(c *Config) { c.WarmupInitFactor = 0.01 }},
	"main":               {main: func(c *Config) **Config { return &c.Main }},
	"epsilon_max":        {number: func(c *Config) *float64 { return &c.EpsilonMax }},
	"tau_star":           {number: func(c *Config) *float64 { return &c.TauStar }, preset: func(c *Config) { c.TauStar = 0.8 }},
	"t_start":            {number: func(c *Config) *float64 { return &c.TStart }},
	"t_end":              {number: func(c *Config) *float64 { return &c.TEnd }, preset: func(c *Config) { c.TEnd = 1 }},
	"sqrt":               {flag: func(c *Config) *bool { return &c.Sqrt }, preset: func(c *Config) { c.Sqrt = true }},
	"hold":               {number: func(c *Config) *float64 { return &c.Hold }, preset: func(c *Config) { c.Hold = 0.5 }},
}

// value is the field of the option, as it is written in YAML.
func (o option) value(c *Config) any {
	switch {
	case o.number != nil:
		return *o.number(c)
	case o.count != nil:
		return *o.count(c)
	case o.list != nil:
		return *o.list(c)
	case o.flag != nil:
		return *o.flag(c)
	}
	return *o.main(c)
}

func (o option) isSet(c Config) bool {
	v := reflect.ValueOf(o.value(&c))
	return v.IsValid() && !v.IsZero() && !(v.Kind() == reflect.Slice && v.Len() == 0)
}

// read sets the field from a decoded YAML value.
func (o option) read(c *Config, v any) error {
	switch {
	case o.number != nil:
		f, ok := asNumber(v)
		if !ok {
			return fmt.Errorf("%s, want a number", quote(v))
		}
		*o.number(c) = f
	case o.count != nil:
		n, ok := asInt(v)
		if !ok {
			return fmt.Errorf("%s, want a whole number", quote(v))
		}
		*o.count(c) = n
	case o.list != nil:
		elems, ok := v.([]any)
		list := make([]int, len(elems))
		for i, e := range elems {
			var whole bool
			list[i], whole = asInt(e)
			ok = ok && whole
		}
		if !ok {
			return fmt.Errorf("%s, want a list of whole numbers", quote(v))
		}
		*o.list(c) = list
	case o.flag != nil:
		b, ok := v.(bool)
		if !ok {
			return fmt.Errorf("%s, want true or false", quote(v))
		}
		*o.flag(c) = b
	}
	return nil
}

// UnmarshalYAML reads a number or a map with `kind`. It fills the defaults of the kind, and refuses, all at once and each
// by its key, unknown options, options of another kind, values of a wrong type and missing options. Ranges are the
// business of [Config.Validate] and its relatives. unmarshal decodes the value at hand into what it is given.
func (c *Config) UnmarshalYAML(unmarshal func(any) error) error {
	var v any
	if err := unmarshal(&v); err != nil {
		return err
	}
	decoded, err := FromAny(v)
	if err != nil {
		return err
	}
	*c = decoded
	return nil
}

// FromAny is UnmarshalYAML of a value that is already decoded: a number or a map[string]any.
func FromAny(v any) (Config, error) {
	c, errs := decode("", v)
	return c, errors.Join(errs...)
}

// decode reads a value that stands under key ("" at the top).
func decode(key string, v any) (c Config, errs []error) {
	fault := func(sub, format string, args ...any) {
		at := strings.Trim(key+"."+sub, ".")
		if at != "" {
			at += ": "
		}
		errs = append(errs, fmt.Errorf("%s"+format, append([]any{at}, args...)...))
	}
	if f, ok := asNumber(v); ok {
		return Constant(f), nil
	}
	m, ok := asMap(v)
	if !ok {
		fault("", "%s, want a number or a map with kind", quote(v))
		return c, errs
	}
	name, _ := m["kind"].(string)
	c, err := New(name)
	if err != nil {
		if m["kind"] == nil {
			fault("kind", "missing, want one of %s", strings.Join(names(), ", "))
		} else {
			fault("kind", "%s, want one of %s", quote(m["kind"]), strings.Join(names(), ", "))
		}
		return c, errs
	}
	kind, _ := find(name)
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if k != "kind" && !kind.has(k) {
			fault(k, "not an option of kind %s, want one of %s", name, strings.Join(kind.keys(), ", "))
		}
	}
	for _, p := range kind.Params {
		given := m[p.Key]
		o := options[p.Key]
		switch {
		case given == nil:
			if p.Default == "" {
				fault(p.Key, "missing, kind %s needs it: %s", name, p.Doc)
			}
		case o.main != nil:
			main, more := decode(strings.Trim(key+"."+p.Key, "."), given)
			errs = append(errs, more...)
			*o.main(&c) = &main
		default:
			if err := o.read(&c, given); err != nil {
				fault(p.Key, "%w", err)
			}
		}
	}
	return c, errs
}

// written is a schedule as it stands in a file: the keys of its kind alone, in the order of the documentation.
type written struct {
	Kind             string   `yaml:"kind"`
	Start            *float64 `yaml:"start,omitempty"`
	End              *float64 `yaml:"end,omitempty"`
	Steps            *int     `yaml:"steps,omitempty"`
	DecayRate        *float64 `yaml:"decay_rate,omitempty"`
	MinValue         *float64 `yaml:"min_value,omitempty"`
	Milestones       []int    `yaml:"milestones,flow,omitempty"`
	Gamma            *float64 `yaml:"gamma,omitempty"`
	WarmupSteps      *int     `yaml:"warmup_steps,omitempty"`
	WarmupInitFactor *float64 `yaml:"warmup_init_factor,omitempty"`
	Main             *Config  `yaml:"main,omitempty"`
	EpsilonMax       *float64 `yaml:"epsilon_max,omitempty"`
	TauStar          *float64 `yaml:"tau_star,omitempty"`
	TStart           *float64 `yaml:"t_start,omitempty"`
	TEnd             *float64 `yaml:"t_end,omitempty"`
	Sqrt             *bool    `yaml:"sqrt,omitempty"`
	Hold             *float64 `yaml:"hold,omitempty"`
}

// MarshalYAML gives a number for a constant, and otherwise the kind with all its options and no others. An open length
// is left out.
func (c Config) MarshalYAML() (any, error) {
	if c.Kind == "constant" {
		return c.Start, nil
	}
	kind, ok := find(c.Kind)
	if !ok {
		return nil, fmt.Errorf("schedules: kind: %q, want one of %s", c.Kind, strings.Join(names(), ", "))
	}
	out := written{Kind: c.Kind}
	from, to := reflect.ValueOf(&c).Elem(), reflect.ValueOf(&out).Elem()
	for i := range from.NumField() {
		field := from.Type().Field(i)
		key := field.Tag.Get("yaml")
		if !kind.has(key) || key == "steps" && c.Steps == WholeRun {
			continue
		}
		dst := to.FieldByName(field.Name)
		if dst.Type() == field.Type { // a list or a nested schedule
			dst.Set(from.Field(i))
		} else {
			dst.Set(from.Field(i).Addr())
		}
	}
	return out, nil
}

func asNumber(v any) (float64, bool) {
	r := reflect.ValueOf(v)
	switch {
	case !r.IsValid():
		return 0, false
	case r.CanFloat():
		return r.Float(), true
	case r.CanInt():
		return float64(r.Int()), true
	case r.CanUint():
		return float64(r.Uint()), true
	case r.Kind() == reflect.String && withExponent.MatchString(r.String()):
		f, err := strconv.ParseFloat(r.String(), 64)
		return f, err == nil
	}
	return 0, false
}

// withExponent is a number of YAML 1.2 that the decoders of YAML 1.1 take for text: 5e-3.
var withExponent = regexp.MustCompile(`^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$`)

func asInt(v any) (int, bool) {
	f, ok := asNumber(v)
	if !ok || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, false
	}
	return int(f), true
}

func asMap(v any) (map[string]any, bool) {
	switch m := v.(type) {
	case map[string]any:
		return m, true
	case map[any]any:
		out := make(map[string]any, len(m))
		for k, e := range m {
			out[fmt.Sprint(k)] = e
		}
		return out, true
	}
	return nil, false
}

// quote shows a decoded value in an error.
func quote(v any) string {
	switch v := v.(type) {
	case nil:
		return "nothing"
	case string:
		return fmt.Sprintf("%q", v)
	}
	return fmt.Sprint(v)
}
