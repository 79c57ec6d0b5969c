package backend_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
)

func vector(name string, n int) backend.Input {
	return backend.Input{Name: name, Shape: shapes.Make(dtypes.Float32, n)}
}

// A graph builder that panics gives one line that names the program, its inputs and the backend.
func TestGraphPanicsBecomeErrors(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		inputs := []backend.Input{vector("x", 3), vector("y", 4)}
		for _, tc := range []struct {
			name  string
			build func(in []*Node) []*Node
			want  string
		}{
			{"shapes", func(in []*Node) []*Node { return []*Node{Add(in[0], in[1])} }, "[3]"},
			{"gradient of a vector", func(in []*Node) []*Node { return Gradient(in[0], in[0]) }, "scalar"},
			{"any value", func([]*Node) []*Node { panic("the builder gives up") }, "the builder gives up"},
			{"a runtime error", func(in []*Node) []*Node { return in[5:] }, "out of range"},
			{"no output", func([]*Node) []*Node { return nil }, "output"},
		} {
			t.Run(tc.name, func(t *testing.T) {
				p, err := backend.Compile(b, "broken", inputs, tc.build)
				if err == nil {
					p.Close()
					t.Fatal("no error")
				}
				for _, part := range []string{"backend: compile broken for x(Float32)[3] y(Float32)[4] on " + b.Kind(), tc.want} {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("%q lacks %q", err, part)
					}
				}
				if strings.Contains(err.Error(), "\n") {
					t.Errorf("more than one line: %q", err)
				}
			})
		}
	})
}

// A variable of GoMLX's that is set in a graph leaves a parameter behind, which is fed zeros unless something reads it.
func TestParametersBehindTheInputs(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		p, err := backend.Compile(b, "unread", []backend.Input{vector("x", 2)}, func(in []*Node) []*Node {
			Parameter(in[0].Graph(), "var:/w", shapes.Make(dtypes.Float32, 3))
			return []*Node{AddScalar(in[0], 1)}
		})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		for range 2 {
			out, err := p.RunDonating([]bool{true}, tensors.FromValue([]float32{1, 2}))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := backend.Read[float32](out[0]); err != nil || fmt.Sprint(got) != "[2 3]" {
				t.Errorf("%v, error %v, want [2 3]", got, err)
			}
			backend.Release(out...)
		}
		for name, read := range map[string]func(w *Node) *Node{
			"by an operation": func(w *Node) *Node { return Neg(w) },
			"as an output":    func(w *Node) *Node { return w },
		} {
			_, err := backend.Compile(b, "read", []backend.Input{vector("x", 2)}, func(in []*Node) []*Node {
				return []*Node{read(Parameter(in[0].Graph(), "var:/w", shapes.Make(dtypes.Float32, 3)))}
			})
			if err == nil || !strings.Contains(err.Error(), "parameter var:/w is read but is no input of the program") {
				t.Errorf("read %s: error %v", name, err)
			}
		}
	})
}

func TestRunChecksItsInputs(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		p, err := backend.Compile(b, "sum", []backend.Input{vector("x", 2), vector("unused", 2)}, func(in []*Node) []*Node {
			return []*Node{AddScalar(in[0], 1), in[0]}
		})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		x, three := tensors.FromValue([]float32{1, 2}), tensors.FromValue([]float32{1, 2, 3})
		defer backend.Release(x, three)
		if _, err := p.Run(x); err == nil || !strings.Contains(err.Error(), "run sum: 1 inputs, want 2") {
			t.Errorf("got %v", err)
		}
		if _, err := p.Run(x, three); err == nil || !strings.Contains(err.Error(), "input unused has shape (Float32)[3], want (Float32)[2]") {
			t.Errorf("got %v", err)
		}
		for range 2 { // inputs stay valid
			out, err := p.Run(x, x)
			if err != nil {
				t.Fatal(err)
			}
			for i, want := range []string{"[2 3]", "[1 2]"} {
				if got, err := backend.Read[float32](out[i]); err != nil || fmt.Sprint(got) != want {
					t.Errorf("output %d: %v, %v; want %s", i, got, err, want)
				}
			}
			backend.Release(out...)
		}
		if _, err := backend.Read[float64](x); err == nil {
			t.Error("read float32 as float64 without an error")
		}
	})
}

func TestDonatedInputsAreFinished(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		p, err := backend.Compile(b, "double", []backend.Input{vector("x", 3)}, func(in []*Node) []*Node { return []*Node{MulScalar(in[0], 2)} })
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		x := tensors.FromValue([]float32{1, 2, 3})
		for range 5 {
			out, err := p.RunDonating([]bool{true}, x)
			if err != nil {
				t.Fatal(err)
			}
			x = out[0]
		}
		if got, err := backend.Read[float32](x); err != nil || fmt.Sprint(got) != "[32 64 96]" {
			t.Errorf("got %v, %v", got, err)
		}
		backend.Release(x)
	})
}

func TestSelfTestPasses(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		r, err := backend.SelfTest(b)
		if err != nil || r.Step <= 0 || r.Compile <= 0 || r.Error > 1e-5 {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

// The same machine gives the same fingerprint, and everything in it has a value.
func TestFingerprint(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		again, err := backend.Open(context.Background(), backend.Config{Kind: b.Kind(), Threads: 2}, backend.Options{NoInstall: true})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := again.Close(); err != nil {
				t.Error(err)
			}
		}()
		f := b.Fingerprint()
		if f != again.Fingerprint() {
			t.Errorf("%s, then %s", f, again.Fingerprint())
		}
		if f.Kind != b.Kind() || f.Plugin == "" || f.Device == "" || f.Threads != 2 {
			t.Errorf("%+v", f)
		}
	})
}
