package server

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

var update = flag.Bool("update", false, "rewrite golden files")

// document is what /openapi.json answers.
func document(t *testing.T) (text []byte, doc map[string]any) {
	t.Helper()
	s := &Server{}
	s.routes = s.table()
	text, err := json.MarshalIndent(s.document(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, '\n')
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	return text, doc
}

// TestDocument: the interface is stable. A difference here is one that clients see.
func TestDocument(t *testing.T) {
	text, doc := document(t)
	path := filepath.Join("testdata", "openapi.json")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, want) {
		t.Errorf("the document is not that of %s: fields and routes are added, never changed; -update rewrites it", path)
	}

	paths := doc["paths"].(map[string]any)
	s := &Server{}
	operations := 0
	for _, p := range paths {
		operations += len(p.(map[string]any))
	}
	routes := s.table()
	if operations != len(routes) {
		t.Errorf("%d operations, want the %d of the routes", operations, len(routes))
	}
	for _, rt := range routes {
		op, ok := paths[rt.path].(map[string]any)[strings.ToLower(rt.method)].(map[string]any)
		if !ok || op["summary"] == "" {
			t.Errorf("%s %s is not described", rt.method, rt.path)
			continue
		}
		if rt.do == nil {
			t.Errorf("%s %s is not done", rt.method, rt.path)
		}
		if _, guarded := op["security"]; guarded == (rt.scope != open) {
			t.Errorf("%s %s: security %v for scope %v", rt.method, rt.path, op["security"], rt.scope)
		}
	}
}

// TestSchemas: what the types write is what their schemas say, no field more or less.
func TestSchemas(t *testing.T) {
	text, doc := document(t)
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("doc.json", parsed); err != nil {
		t.Fatal(err)
	}
	schemas := doc["components"].(map[string]any)["schemas"].(map[string]any)
	seen := map[string]bool{}
	s := &Server{}
	for _, rt := range s.table() {
		for _, typ := range []reflect.Type{rt.in, rt.out} {
			if typ == nil || seen[schemaName(typ)] {
				continue
			}
			name := schemaName(typ)
			seen[name] = true
			schema, err := compiler.Compile("doc.json#/components/schemas/" + name)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			v := reflect.New(typ).Elem()
			fill(v)
			data, err := json.Marshal(v.Interface())
			if err != nil {
				t.Fatal(err)
			}
			instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(instance); err != nil {
				t.Errorf("%s: %s\n%v", name, data, err)
			}
			properties := schemas[name].(map[string]any)["properties"].(map[string]any)
			fields := instance.(map[string]any)
			if !maps.EqualFunc(fields, properties, func(_, _ any) bool { return true }) {
				t.Errorf("%s has the fields %v, its schema %v", name, slices.Sorted(maps.Keys(fields)), slices.Sorted(maps.Keys(properties)))
			}
		}
	}
	for _, name := range []string{"Experiment", "ExperimentList", "Cut", "Assignment", "Change"} {
		if !seen[name] {
			t.Errorf("no schema %s", name)
		}
	}
}

// fill sets everything in v to something that is not zero.
func fill(v reflect.Value) {
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)))
		return
	case json.RawMessage:
		v.SetBytes([]byte(`{"any": 1}`))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i))
			}
		}
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(1.5)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(1)
	default:
		panic("no value for " + v.Type().String())
	}
}

// TestWords: the words of the interface are those of the ledger.
func TestWords(t *testing.T) {
	for p, word := range map[ledger.Phase]string{ledger.Queued: api.Queued, ledger.Waiting: api.Waiting, ledger.Running: api.Running, ledger.Paused: api.Paused,
		ledger.Completed: api.Completed, ledger.Cancelled: api.Cancelled, ledger.Failed: api.Failed, ledger.Inconsistent: api.Inconsistent, ledger.Degraded: api.Degraded} {
		if p.String() != word || p.Final() != api.Final(word) {
			t.Errorf("phase %v, want %s, and final as there", p, word)
		}
	}
	for s, word := range map[ledger.Scope]string{ledger.Read: api.ScopeRead, ledger.Operate: api.ScopeOperate, ledger.Admin: api.ScopeAdmin, ledger.Join: api.ScopeJoin} {
		if s.String() != word {
			t.Errorf("scope %v, want %s", s, word)
		}
	}
	for d, word := range map[ledger.Desired]string{ledger.Run: api.Run, ledger.Pause: api.Pause, ledger.Cancel: api.Cancel} {
		if d.String() != word {
			t.Errorf("desired %v, want %s", d, word)
		}
	}
}
