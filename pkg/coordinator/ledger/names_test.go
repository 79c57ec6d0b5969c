package ledger

import (
	"encoding/binary"
	"reflect"
	"slices"
	"testing"
)

// TestNamesForgetsNoCommand goes over all kinds there are: whoever adds a command with blobs is told here.
func TestNamesForgetsNoCommand(t *testing.T) {
	commands, naming := 0, 0
	for k := range 256 {
		cmd := (&coder{reading: true}).command(kind(k), nil)
		if cmd == nil {
			continue
		}
		commands++
		v := reflect.New(reflect.TypeOf(cmd)).Elem()
		want := fillBlobs(v, nil)
		if len(want) > 0 {
			naming++
		}
		if got := Names(v.Interface().(Command)); !slices.Equal(got, want) {
			t.Errorf("%T: %d blobs are named, want the %d of its fields", cmd, len(got), len(want))
		}
		if got := Names(cmd); got != nil {
			t.Errorf("%T without a blob names %d", cmd, len(got))
		}
	}
	if commands != len(examples()) || naming == 0 {
		t.Errorf("%d commands, %d of them with blobs; want the %d there are, and some", commands, naming, len(examples()))
	}
}

// fillBlobs gives every digest in a value another one, behind those in all, and returns both. Hashes of secrets name no blob.
func fillBlobs(v reflect.Value, all []Digest) []Digest {
	if v.Type() == reflect.TypeFor[Digest]() {
		var d Digest
		binary.BigEndian.PutUint64(d[:], uint64(len(all)+1))
		v.Set(reflect.ValueOf(d))
		return append(all, d)
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && f.Name != "Hash" {
				all = fillBlobs(v.Field(i), all)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			all = fillBlobs(v.Index(i), all)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		all = fillBlobs(v.Elem(), all)
	}
	return all
}
