// Package testutil holds what the tests of several packages share: reference vectors, backends, golden files.
package testutil

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Tensor is a recorded array, row-major. Whole-number tensors are kept as float64 too: they are exact.
type Tensor struct {
	Shape []int     `json:"shape"`
	Data  []float64 `json:"data"`
	DType string    `json:"dtype"`
	RTol  *float64  `json:"rtol"`
	ATol  *float64  `json:"atol"`
}

// Ints returns the data of a whole-number tensor.
func (t Tensor) Ints() []int {
	out := make([]int, len(t.Data))
	for i, v := range t.Data {
		out[i] = int(v)
	}
	return out
}

// Slice returns element i along the first axis.
func (t Tensor) Slice(i int) Tensor {
	n := 1
	for _, d := range t.Shape[1:] {
		n *= d
	}
	return Tensor{Shape: t.Shape[1:], Data: t.Data[i*n : (i+1)*n], DType: t.DType}
}

// Case is one recorded case; testdata/reference/FORMAT.md describes the fields.
type Case struct {
	Name      string            `json:"name"`
	Component string            `json:"component"`
	Params    map[string]any    `json:"params"`
	Inputs    map[string]Tensor `json:"inputs"`
	Expect    map[string]Tensor `json:"expect"`
	Tol       struct {
		RTol float64 `json:"rtol"`
		ATol float64 `json:"atol"`
	} `json:"tol"`
	Draws []struct {
		Input string `json:"input"`
		Index *int   `json:"index"`
		Kind  string `json:"kind"`
	} `json:"draws"`
	Source string `json:"source"`
	Notes  string `json:"notes"`
}

// Num returns a numeric parameter, or def where the case does not set it or sets it to "none".
func (c Case) Num(key string, def float64) float64 {
	if v, ok := c.Params[key].(float64); ok {
		return v
	}
	return def
}

// Str returns a text parameter, or def where the case does not set it or sets it to "none".
func (c Case) Str(key, def string) string {
	if v, ok := c.Params[key].(string); ok && v != "none" {
		return v
	}
	return def
}

// Bool returns a boolean parameter, or def.
func (c Case) Bool(key string, def bool) bool {
	if v, ok := c.Params[key].(bool); ok {
		return v
	}
	return def
}

// Sub returns the parameters under a dotted prefix: Sub("energy") has "k" for the parameter "energy.k".
func (c Case) Sub(prefix string) map[string]any {
	out := map[string]any{}
	for k, v := range c.Params {
		if rest, ok := strings.CutPrefix(k, prefix+"."); ok {
			out[rest] = v
		}
	}
	return out
}

// Reference reads one family (energies, samplers, …) from the folder named by REFERENCE_DIR, by default the
// project's own copy in testdata/reference.
func Reference(t testing.TB, family string) []Case {
	t.Helper()
	dir := os.Getenv("REFERENCE_DIR")
	if dir == "" {
		dir = filepath.Join(Root(), "testdata", "reference")
	} else if !filepath.IsAbs(dir) {
		dir = filepath.Join(Root(), dir)
	}
	path := filepath.Join(dir, family+".json")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("reference vectors: %v", err)
	}
	var file struct {
		Family string `json:"family"`
		Cases  []Case `json:"cases"`
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatalf("reference vectors: %s: %v", path, err)
	}
	if file.Family != family || len(file.Cases) == 0 {
		t.Fatalf("reference vectors: %s: family %q with %d cases, want %q with at least one", path, file.Family, len(file.Cases), family)
	}
	return file.Cases
}

// Root is the root of the repository.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Clean(filepath.Join(filepath.Dir(file), "..", "..", ".."))
}

// Tolerance says how close a value must be: |got − want| ≤ ATol + RTol·|want|.
type Tolerance struct{ RTol, ATol float64 }

// For64 is the tolerance of an expected tensor of the case in float64.
func (c Case) For64(name string) Tolerance {
	tol := Tolerance{c.Tol.RTol, c.Tol.ATol}
	if e := c.Expect[name]; e.RTol != nil {
		tol.RTol = *e.RTol
	}
	if e := c.Expect[name]; e.ATol != nil {
		tol.ATol = *e.ATol
	}
	return tol
}

// For32 is the tolerance in float32, as FORMAT.md asks: a relative part of at least 1e-4 and an absolute part in
// proportion to the largest expected value, since float32 loses digits where large terms cancel.
func (c Case) For32(name string) Tolerance {
	tol := c.For64(name)
	largest := 0.0
	for _, v := range c.Expect[name].Data {
		largest = max(largest, math.Abs(v))
	}
	return Tolerance{max(tol.RTol, 1e-4), max(tol.ATol, 1e-5*largest, 1e-6)}
}

// Compare reports the first and the worst element outside the tolerance.
func Compare(t testing.TB, name string, got []float64, want Tensor, tol Tolerance) {
	t.Helper()
	if len(got) != len(want.Data) {
		t.Errorf("%s: %d values, want %d (shape %v)", name, len(got), len(want.Data), want.Shape)
		return
	}
	bad, worst, where := 0, 0.0, 0
	for i, w := range want.Data {
		d, allowed := math.Abs(got[i]-w), tol.ATol+tol.RTol*math.Abs(w)
		if !(d <= allowed) { // a NaN is outside
			bad++
			if excess := d / allowed; !(excess <= worst) {
				worst, where = excess, i
			}
		}
	}
	if bad > 0 {
		t.Errorf("%s: %d of %d values outside rtol %g atol %g; worst at %s: got %.17g, want %.17g", name, bad, len(got),
			tol.RTol, tol.ATol, fmt.Sprint(where), got[where], want.Data[where])
	}
}
