package server

import (
	"encoding/json"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

func (c *call) openapi() (any, error) {
	data, err := json.MarshalIndent(c.document(), "", "  ")
	if err != nil {
		return nil, err
	}
	c.w.Header().Set("Content-Type", "application/json")
	_, _ = c.w.Write(append(data, '\n'))
	return handled{}, nil
}

// object is a JSON object.
type object = map[string]any

var inPath = regexp.MustCompile(`{(\w+)}`)

// document describes the interface by OpenAPI 3.1. Operations come from the table of routes, schemas from the types.
func (s *Server) document() object {
	schemas := schemas{}
	paths := map[string]object{}
	failure := schemas.of(reflect.TypeFor[api.Failure]())
	for _, rt := range s.routes {
		op := object{"summary": rt.about, "responses": rt.responses(schemas, failure)}
		if rt.scope == open {
			op["security"] = []object{}
		} else {
			op["description"] = "Needs a token of scope " + rt.scope.String() + ", or one that allows more."
			if rt.scope == ledger.Join {
				op["description"] = "Needs a token of scope join or admin."
			}
		}
		var parameters []object
		for _, m := range inPath.FindAllStringSubmatch(rt.path, -1) {
			parameters = append(parameters, object{"name": m[1], "in": "path", "required": true, "schema": object{"type": "string"}})
		}
		query := rt.query
		if rt.where == byWish {
			query = append(slices.Clip(query), parameter{"consistency", "leader (default), linearizable, or stale: whatever the coordinator that is asked knows"})
		}
		for _, p := range query {
			parameters = append(parameters, object{"name": p.name, "in": "query", "description": p.about, "schema": object{"type": "string"}})
		}
		if parameters != nil {
			op["parameters"] = parameters
		}
		switch {
		case rt.in != nil:
			op["requestBody"] = object{"required": true, "content": object{"application/json": object{"schema": schemas.of(rt.in)}}}
		case rt.inMedia != "":
			op["requestBody"] = object{"required": true, "content": object{rt.inMedia: object{}}}
		}
		if paths[rt.path] == nil {
			paths[rt.path] = object{}
		}
		paths[rt.path][strings.ToLower(rt.method)] = op
	}
	return object{
		"openapi": "3.1.0",
		"info": object{"title": "Kelvin coordinator", "version": api.Version,
			"description": "Any coordinator takes every request, and passes on to the leader what that has to answer. Errors are objects with a code."},
		"paths":      paths,
		"components": object{"schemas": schemas, "securitySchemes": object{"token": object{"type": "http", "scheme": "bearer"}}},
		"security":   []object{{"token": []string{}}},
	}
}

func (rt *route) responses(schemas schemas, failure object) object {
	success := object{"description": "Done."}
	status := rt.status
	switch {
	case rt.outMedia != "":
		content := object{}
		if rt.out != nil {
			content["schema"] = schemas.of(rt.out)
		}
		success["content"] = object{rt.outMedia: content}
	case rt.out != nil:
		success["content"] = object{"application/json": object{"schema": schemas.of(rt.out)}}
	case status == 0:
		status = http.StatusNoContent
	}
	if status == 0 {
		status = http.StatusOK
	}
	return object{
		strconv.Itoa(status): success,
		"default":            object{"description": "What was not granted.", "content": object{"application/json": object{"schema": failure}}},
	}
}

// schemas are those of named types, by name.
type schemas map[string]object

var (
	timeType = reflect.TypeFor[time.Time]()
	rawType  = reflect.TypeFor[json.RawMessage]()
)

// of describes a type. A struct is described once, and referred to.
func (s schemas) of(t reflect.Type) object {
	switch {
	case t == timeType:
		return object{"type": "string", "format": "date-time"}
	case t == rawType:
		return object{}
	}
	switch t.Kind() {
	case reflect.Pointer:
		if t.Elem().Kind() == reflect.Struct && t.Elem() != timeType {
			return object{"anyOf": []object{s.of(t.Elem()), {"type": "null"}}}
		}
		inner := s.of(t.Elem())
		inner["type"] = []any{inner["type"], "null"}
		return inner
	case reflect.Slice:
		return object{"type": "array", "items": s.of(t.Elem())}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Int, reflect.Int32, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Uint32, reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	case reflect.Struct:
		name := schemaName(t)
		if _, known := s[name]; !known {
			schema := object{"type": "object"}
			s[name] = schema // before its fields, which may be of it
			properties, required := object{}, []string{}
			s.fields(t, properties, &required)
			schema["properties"] = properties
			if len(required) > 0 {
				schema["required"] = required
			}
		}
		return object{"$ref": "#/components/schemas/" + name}
	}
	panic("server: no schema for " + t.String())
}

// fields describes those of a struct, and of what is embedded in it. What is never left out is required.
func (s schemas) fields(t reflect.Type, properties object, required *[]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			s.fields(f.Type, properties, required)
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() {
			continue
		}
		property := s.of(f.Type)
		if options == "string" {
			property = object{"type": "string", "pattern": "^[0-9]+$"}
		}
		properties[name] = property
		if !strings.Contains(options, "omit") {
			*required = append(*required, name)
		}
	}
}

// schemaName is Experiment, or ExperimentList.
func schemaName(t reflect.Type) string {
	name, of, generic := strings.Cut(t.Name(), "[")
	if !generic {
		return name
	}
	return of[strings.LastIndexByte(of, '.')+1:len(of)-1] + name
}
