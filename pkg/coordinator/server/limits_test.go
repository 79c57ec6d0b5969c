package server

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
)

func TestBodies(t *testing.T) {
	c := start(t, nil)
	secret := c.firstToken(t)
	deep := strings.Repeat("[", maxDepth+1)
	for _, tc := range []struct {
		name, body string
		status     int
		want       string
	}{
		{"nothing", "", 400, "empty"},
		{"no JSON", "yaml: x", 400, "byte 1"},
		{"an unknown field", `{"yaml": "", "replica": 3}`, 400, `unknown field \"replica\"`},
		{"another type", `{"replicas": "three"}`, 400, "replicas: string, want uint32"},
		{"a number below its type", `{"replicas": -1}`, 400, "replicas: number -1"},
		{"two values", `{} {}`, 400, "more than one value"},
		{"too deep", deep, 400, "nested deeper than 32"},
		{"brackets in a string are none", `{"uid": "x", "yaml": "` + deep + `\"` + deep + `"}`, 422, "uid"},
		{"too large", `{"yaml": "` + strings.Repeat("x", maxBody) + `"}`, 413, "more than 1048576 bytes"},
	} {
		status, answer, _ := c.call(t, "POST", "/v1/experiments", secret, tc.body)
		if status != tc.status || !strings.Contains(string(answer), tc.want) {
			t.Errorf("%s: %d %.200s, want %d and %s", tc.name, status, answer, tc.status, tc.want)
		}
		codeOf(t, answer)
	}
	if status, answer, _ := c.call(t, "POST", "/v1/experiments", secret, "{}", "Content-Type", "text/yaml"); status != 415 {
		t.Errorf("another content type: %d %s, want 415", status, answer)
	}
	if status, _, _ := c.call(t, "GET", "/v1/experiments", secret, nil, "X-Large", strings.Repeat("x", maxHeader)); status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a header of %d bytes: %d, want 431", maxHeader, status)
	}
	if status, _, _ := c.call(t, "GET", "/v1/experiments", secret, nil, "X-Large", strings.Repeat("x", maxHeader-4096)); status != 200 {
		t.Errorf("a header within the limit: %d, want 200", status)
	}
	if status, answer, _ := c.call(t, "PUT", "/v1/blobs/"+digestOf("x"), secret, nil, "Transfer-Encoding", "chunked"); status != 422 {
		t.Errorf("an empty upload of another digest: %d %s, want 422", status, answer)
	}
}

// FuzzBody feeds any bytes to the decoder of every request. What it takes it must write and take again, the same.
func FuzzBody(f *testing.F) {
	f.Add([]byte(`{"uid": "00", "yaml": "x: [1, 2]", "replicas": 4, "cut_every_seconds": 1e3}`))
	f.Add([]byte(`{"desired": "pause", "replicas": 0, "priority": -3}`))
	f.Add([]byte(`{"manifest": "ab", "parts": [{"name": "a", "digest": "cd", "bytes": 18446744073709551615}]}`))
	f.Add([]byte(`{"id": "0", "incarnation": "18446744073709551615", "experiment": "\u0000\ud800"}`))
	f.Add([]byte(`{"a": {"a": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[`))
	f.Add([]byte("nul\xff"))
	types := []reflect.Type{body[api.Submit](), body[api.Patch](), body[api.ReplaceCut](), body[api.PutLadder](), body[api.Ask](), body[api.CreateToken](), body[api.AddMember](), body[api.PutQuota]()}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, typ := range types {
			v := reflect.New(typ)
			r := httptest.NewRequest("POST", "/", bytes.NewReader(data))
			if err := decode(httptest.NewRecorder(), r, v.Interface()); err != nil {
				if e := fault(err); e.Code != api.Invalid || e.HTTP() < 400 || e.HTTP() > 499 {
					t.Fatalf("%T %q: %v of status %d, want it to be the client's fault", v.Interface(), data, err, e.HTTP())
				}
				continue
			}
			again, err := json.Marshal(v.Interface())
			if err != nil {
				t.Fatal(err)
			}
			second := reflect.New(typ)
			if err := unmarshal(again, second.Interface()); err != nil {
				t.Fatalf("%s: %v", again, err)
			}
			if third, _ := json.Marshal(second.Interface()); !bytes.Equal(again, third) {
				t.Fatalf("%s is %s the second time", again, third)
			}
		}
	})
}

// FuzzDepth compares the count of brackets with the decoder's.
func FuzzDepth(f *testing.F) {
	f.Add([]byte(`{"a": ["\"]", {"b": [[]]}]}`))
	f.Add([]byte(`"\\"`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if !json.Valid(data) {
			depth(data)
			return
		}
		want, at := 0, 0
		for dec := json.NewDecoder(bytes.NewReader(data)); ; {
			token, err := dec.Token()
			if err != nil {
				break
			}
			switch token {
			case json.Delim('{'), json.Delim('['):
				at++
				want = max(want, at)
			case json.Delim('}'), json.Delim(']'):
				at--
			}
		}
		if got := depth(data); got != want {
			t.Fatalf("%q: depth %d, want %d", data, got, want)
		}
	})
}
