package tempering

import (
	"encoding/json"
	"math"
	"reflect"
)

// MarshalJSON writes NaN as null, and infinite numbers as "inf" and "-inf".
func (r Round) MarshalJSON() ([]byte, error) { return marshalNullable(r) }

// UnmarshalJSON is the inverse of MarshalJSON.
func (r *Round) UnmarshalJSON(data []byte) error { return unmarshalNullable(data, r) }

// MarshalJSON writes NaN as null, and infinite numbers as "inf" and "-inf".
func (z LogZ) MarshalJSON() ([]byte, error) { return marshalNullable(z) }

// UnmarshalJSON is the inverse of MarshalJSON.
func (z *LogZ) UnmarshalJSON(data []byte) error { return unmarshalNullable(data, z) }

// nullable is a number for which JSON has null where it is NaN, and a word where it is infinite.
type nullable float64

// words are what JSON has for numbers that it does not have.
var words = map[string]float64{"null": math.NaN(), `"inf"`: math.Inf(1), `"-inf"`: math.Inf(-1)}

func (x nullable) MarshalJSON() ([]byte, error) {
	switch y := float64(x); {
	case math.IsNaN(y):
		return []byte("null"), nil
	case math.IsInf(y, 1):
		return []byte(`"inf"`), nil
	case math.IsInf(y, -1):
		return []byte(`"-inf"`), nil
	default:
		return json.Marshal(y)
	}
}

func (x *nullable) UnmarshalJSON(data []byte) error {
	if y, is := words[string(data)]; is {
		*x = nullable(y)
		return nil
	}
	return json.Unmarshal(data, (*float64)(x))
}

func marshalNullable[T any](v T) ([]byte, error) {
	out := reflect.New(mirror(reflect.TypeFor[T]()))
	transfer(out.Elem(), reflect.ValueOf(v))
	return json.Marshal(out.Interface())
}

func unmarshalNullable[T any](data []byte, v *T) error {
	in := reflect.New(mirror(reflect.TypeFor[T]()))
	if err := json.Unmarshal(data, in.Interface()); err != nil {
		return err
	}
	transfer(reflect.ValueOf(v).Elem(), in.Elem())
	return nil
}

// mirror is t with nullable in the place of float64 and without methods, so that one list of fields serves the type, its
// writer and its reader.
func mirror(t reflect.Type) reflect.Type {
	switch t.Kind() {
	case reflect.Float64:
		return reflect.TypeFor[nullable]()
	case reflect.Pointer:
		return reflect.PointerTo(mirror(t.Elem()))
	case reflect.Slice:
		return reflect.SliceOf(mirror(t.Elem()))
	case reflect.Map:
		return reflect.MapOf(t.Key(), mirror(t.Elem()))
	case reflect.Struct:
		fields := make([]reflect.StructField, t.NumField())
		for i := range fields {
			f := t.Field(i)
			fields[i] = reflect.StructField{Name: f.Name, Type: mirror(f.Type), Tag: f.Tag}
		}
		return reflect.StructOf(fields)
	}
	return t
}

// transfer copies src into dst, of which one is the mirror of the other.
func transfer(dst, src reflect.Value) {
	switch kind := src.Kind(); {
	case kind == reflect.Float64:
		dst.SetFloat(src.Float())
	case kind == reflect.Struct:
		for i := range src.NumField() {
			transfer(dst.Field(i), src.Field(i))
		}
	case src.Type() == dst.Type():
		dst.Set(src)
	case src.IsNil():
		dst.SetZero()
	case kind == reflect.Pointer:
		dst.Set(reflect.New(dst.Type().Elem()))
		transfer(dst.Elem(), src.Elem())
	case kind == reflect.Slice:
		dst.Set(reflect.MakeSlice(dst.Type(), src.Len(), src.Len()))
		for i := range src.Len() {
			transfer(dst.Index(i), src.Index(i))
		}
	case kind == reflect.Map:
		dst.Set(reflect.MakeMapWithSize(dst.Type(), src.Len()))
		for key, x := range src.Seq2() {
			value := reflect.New(dst.Type().Elem()).Elem()
			transfer(value, x)
			dst.SetMapIndex(key, value)
		}
	}
}
