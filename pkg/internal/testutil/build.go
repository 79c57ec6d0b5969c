package testutil

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

// Only fails the test where the case has a parameter, an input or an expectation that the test does not know: new
// vectors must not pass because nobody looked at them. A name stands for the dotted names behind it too.
func (c Case) Only(t testing.TB, params, inputs, expect []string) {
	t.Helper()
	check := func(what, name string, known []string) {
		if !slices.ContainsFunc(known, func(k string) bool { return name == k || strings.HasPrefix(name, k+".") }) {
			t.Errorf("%s %s: this test does not know it", what, name)
		}
	}
	for name := range c.Params {
		check("parameter", name, params)
	}
	for name := range c.Inputs {
		check("input", name, inputs)
	}
	for name := range c.Expect {
		check("expectation", name, expect)
	}
	if t.Failed() {
		t.FailNow()
	}
}

// Energy builds the energy inside a case, `energy` and `energy.*`, for states of dim numbers.
func (c Case) Energy(t testing.TB, dim int) models.Energy {
	t.Helper()
	return NewEnergy(t, c.Str("energy", ""), dim, c.Sub("energy"), c.subInputs("energy"))
}

// Weights are the recorded parameters of an energy inside a case, in the order of the model.
func (c Case) Weights(t testing.TB, e models.Energy) []Tensor {
	t.Helper()
	return WeightsOf(t, e, c.subInputs("energy"))
}

// EnergyKey tells energies inside cases apart that need different graphs.
func (c Case) EnergyKey() string {
	return fmt.Sprint(c.Params["energy"], c.Sub("energy"), c.Inputs["energy.mean"].Data, c.Inputs["energy.cov"].Data)
}

func (c Case) subInputs(prefix string) map[string]Tensor {
	out := map[string]Tensor{}
	for name, in := range c.Inputs {
		if rest, ok := strings.CutPrefix(name, prefix+"."); ok {
			out[rest] = in
		}
	}
	return out
}

// NewEnergy builds an energy from recorded settings and tensors.
func NewEnergy(t testing.TB, kind string, dim int, params map[string]any, inputs map[string]Tensor) models.Energy {
	t.Helper()
	own := map[string]any{}
	for key, v := range params {
		switch {
		case v == "none":
		case key == "barrier_height":
			own["h"] = v
		case key == "sizes":
			sizes := v.([]any)
			last := len(sizes) - 1
			if sizes[0] != float64(dim) || sizes[last] != 1.0 {
				t.Fatalf("sizes: %v, want %d first and 1 last", sizes, dim)
			}
			own["hidden"] = sizes[1:last]
		default:
			own[key] = v
		}
	}
	if kind == "gaussian" {
		own["mean"] = inputs["mean"].Data
		var rows [][]float64
		for i := range inputs["cov"].Shape[0] {
			rows = append(rows, inputs["cov"].Slice(i).Data)
		}
		own["cov"] = rows
	}
	e, err := models.New(kind, dim, own)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// WeightsOf picks the parameters of an energy out of recorded tensors.
func WeightsOf(t testing.TB, e models.Energy, inputs map[string]Tensor) []Tensor {
	t.Helper()
	var out []Tensor
	for _, p := range e.Params() {
		w, ok := inputs[p.Name]
		if !ok || !slices.Equal(w.Shape, p.Shape) {
			t.Fatalf("%s has shape %v in the case, %v in the model", p.Name, w.Shape, p.Shape)
		}
		out = append(out, w)
	}
	return out
}

// Schedule builds a setting that is a number or a schedule; def where the case does not set it.
func (c Case) Schedule(t testing.TB, key string, def float64) schedules.Schedule {
	t.Helper()
	config := schedules.Constant(c.Num(key, def))
	if kind := c.Str(key, ""); kind != "" {
		var err error
		if config, err = schedules.FromAny(scheduleFields(kind, c.Sub(key))); err != nil {
			t.Fatalf("%s: %v", key, err)
		}
	}
	s, err := config.Build()
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	return s
}

// scheduleFields are the fields of a recorded scheduler under our names. A kind without another name goes by its own.
func scheduleFields(kind string, params map[string]any) map[string]any {
	ours := map[string]string{"multi_step": "multistep", "start_value": "start", "end_value": "end", "n_steps": "steps"}
	rename := func(name string) string {
		if own, ok := ours[name]; ok {
			return own
		}
		return name
	}
	out := map[string]any{"kind": rename(kind)}
	nested := map[string]any{}
	for key, v := range params {
		if rest, ok := strings.CutPrefix(key, "main."); ok {
			nested[rest] = v
		} else if key != "main" && v != "none" {
			out[rename(key)] = v
		}
	}
	switch main := params["main"].(type) {
	case string:
		out["main"] = scheduleFields(main, nested)
	case nil:
	default:
		out["main"] = main
	}
	return out
}
