package experiment

import (
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/invopop/jsonschema"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/couplings"
	"github.com/kelvin-ebm/kelvin/pkg/datasets"
	"github.com/kelvin-ebm/kelvin/pkg/interpolants"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

// Schema is the JSON schema (draft 2020-12) of an experiment's file, from which editors complete and check keys. It knows
// each key by itself; what keys say together is checked by Load.
func Schema() ([]byte, error) {
	r := jsonschema.Reflector{
		Anonymous:                  true,
		DoNotReference:             true,
		ExpandedStruct:             true,
		RequiredFromJSONSchemaTags: true,
		FieldNameTag:               "yaml",
		Namer:                      reflect.Type.String, // most sections are called Config in their packages
		Mapper: func(t reflect.Type) *jsonschema.Schema {
			if t == reflect.TypeFor[schedules.Config]() {
				return &jsonschema.Schema{Ref: "#/$defs/number_or_schedule"}
			}
			return nil
		},
	}
	root := r.Reflect(&Config{})
	root.Title = "Kelvin experiment"
	root.Description = "Training of an energy-based model; see `coordinator config explain FILE`."
	root.Definitions = jsonschema.Definitions{"number_or_schedule": numberOrSchedule()}
	root.Required = []string{"data", "train"}

	values, err := defaults()
	if err != nil {
		return nil, err
	}
	for section := root.Properties.Oldest(); section != nil; section = section.Next() {
		annotate(section.Key, section.Value, values)
		if section.Value.Properties == nil {
			continue
		}
		for key := section.Value.Properties.Oldest(); key != nil; key = key.Next() {
			annotate(join(section.Key, key.Key), key.Value, values)
		}
	}
	data, _ := root.Properties.Get("data")
	data.Required = []string{"dataset"}
	train, _ := root.Properties.Get("train")
	train.OneOf = []*jsonschema.Schema{{Required: []string{"steps"}}, {Required: []string{"epochs"}}}
	orWord(root, "backend", backend.Kinds())
	loss, _ := root.Properties.Get("loss")
	orWord(loss, "interpolant", interpolants.KindNames())
	orWord(loss, "coupling", append(couplings.KindNames(), "ot"))
	sampler, _ := root.Properties.Get("sampler")
	orWord(sampler, "interpolant", interpolants.KindNames())
	mass, _ := sampler.Properties.Get("mass")
	sampler.Properties.Set("mass", &jsonschema.Schema{Description: mass.Description, AnyOf: []*jsonschema.Schema{{Type: "number"}, mass}})

	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("experiment: schema: %w", err)
	}
	return append(out, '\n'), nil
}

// orWord lets a section be written as its kind alone.
func orWord(of *jsonschema.Schema, key string, kinds []string) {
	section, _ := of.Properties.Get(key)
	of.Properties.Set(key, &jsonschema.Schema{
		Description: section.Description,
		AnyOf:       []*jsonschema.Schema{{Type: "string", Enum: words(kinds)}, section},
	})
}

// defaults are the values of the keys whose default hangs on nothing else.
func defaults() (map[string]any, error) {
	c := &Config{}
	c.Resolve()
	out := map[string]any{}
	v := reflect.ValueOf(*c)
	sections, index := fields(v.Type())
	for _, section := range sections {
		if f := v.Field(index[section]); f.Kind() == reflect.Struct && f.Type() != reflect.TypeFor[datasets.Config]() && f.Type() != reflect.TypeFor[models.Config]() {
			keys, keyIndex := fields(f.Type())
			for _, key := range keys {
				path := join(section, key)
				value := f.Field(keyIndex[key])
				if !c.filled[path] || docs()[path].follows != "" || value.Kind() == reflect.Slice {
					continue
				}
				if s, ok := value.Interface().(schedules.Config); ok {
					value = reflect.ValueOf(s.Start)
				}
				out[path] = value.Interface()
			}
		}
	}
	out["seed"] = c.Seed
	return out, nil
}

// annotate gives a property what the key's description and limits are.
func annotate(path string, s *jsonschema.Schema, defaults map[string]any) {
	d := docs()[path]
	s.Description = d.text
	if section, key, ok := cutSection(path); ok && d.text == "" {
		s.Description = describe(keyUses(section, key), kindsOf(section))
	}
	if d.follows != "" {
		s.Description += "; the default follows " + d.follows
	}
	s.Enum = words(d.oneOf)
	s.Default = defaults[path]
	s.Minimum, s.ExclusiveMinimum = number(d.min), number(d.above)
	s.Maximum, s.ExclusiveMaximum = number(d.max), number(d.below)
	if s.Ref != "" && s.Default != nil {
		s.Description += fmt.Sprintf(" (default %v)", s.Default)
	}
}

func cutSection(path string) (section, key string, ok bool) {
	for i := range path {
		if path[i] == '.' {
			return path[:i], path[i+1:], true
		}
	}
	return path, "", false
}

func number(v any) json.Number {
	if v == nil {
		return ""
	}
	return json.Number(fmt.Sprint(v))
}

func words(list []string) (out []any) {
	for _, w := range list {
		out = append(out, w)
	}
	return out
}

// numberOrSchedule is a number, or one of the kinds of schedule with the kind's options.
func numberOrSchedule() *jsonschema.Schema {
	t := reflect.TypeFor[schedules.Config]()
	_, index := fields(t)
	choices := []*jsonschema.Schema{{Type: "number"}}
	for _, k := range schedules.Kinds() {
		s := &jsonschema.Schema{Type: "object", Title: k.Name, Description: k.Doc + " " + k.Formula,
			Properties: jsonschema.NewProperties(), AdditionalProperties: jsonschema.FalseSchema, Required: []string{"kind"}}
		s.Properties.Set("kind", &jsonschema.Schema{Const: k.Name})
		for _, p := range k.Params {
			property := &jsonschema.Schema{}
			switch f := t.Field(index[p.Key]).Type; f.Kind() {
			case reflect.Pointer:
				property.Ref = "#/$defs/number_or_schedule"
			case reflect.Slice:
				property.Type, property.Items = "array", &jsonschema.Schema{Type: "integer"}
			case reflect.Int:
				property.Type = "integer"
			case reflect.Bool:
				property.Type = "boolean"
			default:
				property.Type = "number"
			}
			property.Description = p.Doc
			if p.Default == "" {
				s.Required = append(s.Required, p.Key)
			} else {
				property.Description += "; default: " + p.Default
			}
			s.Properties.Set(p.Key, property)
		}
		choices = append(choices, s)
	}
	return &jsonschema.Schema{Description: "a number, or a schedule over training steps", AnyOf: choices}
}
