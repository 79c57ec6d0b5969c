package schedules_test

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

func Example() {
	config := schedules.Config{Kind: "cosine", Start: 0.1, End: 0.01, Steps: 100}
	if err := config.ValidatePositive("step_size"); err != nil {
		panic(err)
	}
	schedule, err := config.Build()
	if err != nil {
		panic(err)
	}
	fmt.Printf("%.3f %.3f %.3f\n", schedule.At(0), schedule.At(50), schedule.At(100))
	// Output: 0.100 0.055 0.010
}

// kindOf maps TorchEBM's names to ours, in the reference vectors.
var kindOf = map[string]string{
	"constant": "constant", "exponential_decay": "exponential_decay", "linear": "linear", "cosine": "cosine",
	"multi_step": "multistep", "warmup": "warmup", "temperature": "temperature",
}

// keyOf maps TorchEBM's parameter names to ours where they differ.
var keyOf = map[string]string{"start_value": "start", "end_value": "end", "n_steps": "steps"}

func fromReference(t *testing.T, kind any, params map[string]any) map[string]any {
	t.Helper()
	name, ok := kindOf[fmt.Sprint(kind)]
	if !ok {
		t.Fatalf("no schedule for scheduler %v", kind)
	}
	out := map[string]any{"kind": name}
	nested := map[string]any{}
	for k, v := range params {
		if rest, ok := strings.CutPrefix(k, "main."); ok {
			nested[rest] = v
		} else if k != "main" {
			if own, ok := keyOf[k]; ok {
				k = own
			}
			out[k] = v
		}
	}
	if main, ok := params["main"]; ok {
		out["main"] = fromReference(t, main, nested)
	}
	return out
}

func TestReference(t *testing.T) {
	for _, c := range testutil.Reference(t, "schedulers") {
		t.Run(c.Name, func(t *testing.T) {
			config, err := schedules.FromAny(fromReference(t, c.Params["scheduler"], c.Sub("scheduler")))
			if err != nil {
				t.Fatal(err)
			}
			s, err := config.Build()
			if err != nil {
				t.Fatal(err)
			}
			stepper := schedules.NewStepper(s)
			for name, want := range c.Expect {
				if name != "values" && name != "after_reset" {
					t.Errorf("nothing computes %s", name)
					continue
				}
				for range 5 {
					stepper.Step() // whatever came before must not matter
				}
				stepper.Reset()
				got := []float64{stepper.Value()}
				for len(got) < len(want.Data) {
					got = append(got, stepper.Step())
				}
				testutil.Compare(t, name, got, want, c.For64(name))
				for n, v := range got {
					if s.At(n) != v {
						t.Errorf("%s: At(%d) is %g, the stepper says %g", name, n, s.At(n), v)
					}
				}
			}
		})
	}
}

func build(t *testing.T, text string) schedules.Schedule {
	t.Helper()
	var c schedules.Config
	if err := yaml.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	s, err := c.Build()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestKnownValues(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       map[int]float64
	}{
		{"warm-up reaches main's start, then main's first step (measured on TorchEBM)",
			"{kind: warmup, warmup_steps: 2, main: {kind: linear, start: 1, end: 0, steps: 4}}",
			map[int]float64{0: 0.01, 1: 0.505, 2: 1, 3: 0.75, 6: 0, 60: 0}},
		{"no warm-up steps go to main at step 1, with the small value before",
			"{kind: warmup, warmup_steps: 0, main: {kind: linear, start: 1, end: 0, steps: 4}}", map[int]float64{0: 0.01, 1: 0.75}},
		{"warm-up to a number", "{kind: warmup, warmup_steps: 4, warmup_init_factor: 0, main: 8}", map[int]float64{0: 0, 1: 2, 4: 8, 9: 8}},
		{"exponential decay starts below its floor unclamped", "{kind: exponential_decay, start: 0.1, decay_rate: 0.5, min_value: 0.2}",
			map[int]float64{0: 0.1, 1: 0.2, 50: 0.2}},
		{"hold then linear", "{kind: hold_linear, start: 2, end: 0, steps: 10}", map[int]float64{0: 2, 5: 2, 6: 1.6, 9: 0.4, 10: 0, 11: 0}},
		{"hold of nothing is linear", "{kind: hold_linear, start: 2, end: 0, steps: 10, hold: 0}", map[int]float64{0: 2, 1: 1.8, 5: 1}},
		{"hold then cosine", "{kind: hold_cosine, start: 2, end: 0, steps: 8, hold: 0.25}", map[int]float64{2: 2, 5: 1, 8: 0}},
		{"temperature before, in and after its rise", "{kind: temperature, epsilon_max: 0.16, tau_star: 0.5, steps: 4, sqrt: false}",
			map[int]float64{0: 0, 1: 0, 2: 0, 3: 0.08, 4: 0.16, 5: 0.16}},
		{"negative steps count as 0", "{kind: linear, start: 2, end: 0, steps: 10}", map[int]float64{-3: 2}},
		{"negative steps of a warm-up count as 0", "{kind: warmup, warmup_steps: 2, main: 1}", map[int]float64{-3: 0.01}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := build(t, tc.text)
			for n, want := range tc.want {
				if got := s.At(n); math.Abs(got-want) > 1e-12 {
					t.Errorf("At(%d) = %.17g, want %g", n, got, want)
				}
			}
		})
	}
}

// A schedule read from YAML and written again must be the same schedule, and the text must keep to the kind's keys.
func TestYAMLRoundTrip(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"0.01", "0.01"},
		{"5e-3", "0.005"},
		{"3", "3.0"},
		{"-2.5E+1", "-25.0"},
		{"{kind: linear, start: 1.e-2, end: 0, steps: 1e3}", "kind: linear\nstart: 0.01\nend: 0.0\nsteps: 1000"},
		{"{kind: constant, start: 0.25}", "0.25"},
		{"{kind: cosine, start: 5e-3, end: 5e-5}", "kind: cosine\nstart: 0.005\nend: 5e-05"},
		{"{kind: linear, start: 1, end: 0, steps: 7}", "kind: linear\nstart: 1.0\nend: 0.0\nsteps: 7"},
		{"{kind: multistep, start: 1, milestones: [2, 5]}", "kind: multistep\nstart: 1.0\nmilestones: [2, 5]\ngamma: 0.1"},
		{"{kind: exponential_decay, start: 1, decay_rate: 0.5}", "kind: exponential_decay\nstart: 1.0\ndecay_rate: 0.5\nmin_value: 0.0"},
		{"{kind: temperature, epsilon_max: 0.15, sqrt: false}",
			"kind: temperature\nsteps: 200\nepsilon_max: 0.15\ntau_star: 0.8\nt_start: 0.0\nt_end: 1.0\nsqrt: false"},
		{"{kind: warmup, warmup_steps: 3, main: 0.5}", "kind: warmup\nwarmup_steps: 3\nwarmup_init_factor: 0.01\nmain: 0.5"},
		{"{kind: warmup, warmup_steps: 3, warmup_init_factor: 0, main: {kind: hold_linear, start: 1, end: 0.5}}",
			"kind: warmup\nwarmup_steps: 3\nwarmup_init_factor: 0.0\nmain:\n  kind: hold_linear\n  start: 1.0\n  end: 0.5\n  hold: 0.5"},
	} {
		t.Run(tc.text, func(t *testing.T) {
			var c schedules.Config
			if err := yaml.Unmarshal([]byte(tc.text), &c); err != nil {
				t.Fatal(err)
			}
			text, err := yaml.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSpace(string(text)); got != tc.want {
				t.Errorf("written as\n%s\nwant\n%s", got, tc.want)
			}
			var again schedules.Config
			if err := yaml.UnmarshalWithOptions(text, &again, yaml.Strict()); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(again, c) {
				t.Errorf("read again as %+v, want %+v", again, c)
			}
		})
	}
}

// A schedule that replaces a default must not keep anything of it.
func TestYAMLReplacesTheDefault(t *testing.T) {
	section := struct {
		StepSize schedules.Config `yaml:"step_size"`
		LR       schedules.Config `yaml:"lr"`
	}{schedules.Config{Kind: "linear", Start: 1, End: 2, Steps: 3}, schedules.Constant(7)}
	if err := yaml.UnmarshalWithOptions([]byte("step_size: 0.5\n"), &section, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(section.StepSize, schedules.Constant(0.5)) || !section.LR.IsConstant(7) {
		t.Errorf("read %+v, want the constant 0.5 and the default left alone", section)
	}
}

func TestYAMLFaults(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []string
	}{
		{"text", "fast", []string{`"fast", want a number or a map with kind`}},
		{"a number in quotes", `"0.1"`, []string{`"0.1", want a number or a map with kind`}},
		{"too large a number", "1e999", []string{`"1e999", want a number`}},
		{"a list", "[1, 2]", []string{"want a number or a map with kind"}},
		{"no kind", "{start: 1}", []string{"kind: missing, want one of constant, "}},
		{"kind is a number", "{kind: 3}", []string{"kind: 3, want one of constant"}},
		{"unknown kind", "{kind: cosin}", []string{`kind: "cosin", want one of constant, exponential_decay, linear, cosine, `}},
		{"option of another kind", "{kind: linear, start: 1, end: 0, steps: 3, gamma: 0.5}",
			[]string{"gamma: not an option of kind linear, want one of kind, start, end, steps"}},
		{"every fault at once", "{kind: multistep, start: x, milestones: [1, a], gama: 1, wait: 2}", []string{
			"gama: not an option of kind multistep", "wait: not an option", `start: "x", want a number`, "milestones: [1 a], want a list of whole numbers"}},
		{"missing options", "{kind: linear}", []string{"start: missing, kind linear needs it", "end: missing"}},
		{"half a step", "{kind: linear, start: 1, end: 0, steps: 2.5}", []string{"steps: 2.5, want a whole number"}},
		{"flag that is no flag", "{kind: temperature, epsilon_max: 1, sqrt: 2}", []string{"sqrt: 2, want true or false"}},
		{"a faulty main", "{kind: warmup, warmup_steps: 1, main: {kind: linear, start: 1, foo: 2}}",
			[]string{"main.foo: not an option of kind linear", "main.end: missing"}},
		{"a main that is text", "{kind: warmup, warmup_steps: 1, main: slow}", []string{`main: "slow", want a number or a map with kind`}},
		{"a main without a kind", "{kind: warmup, warmup_steps: 1, main: {start: 1}}", []string{"main.kind: missing"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var c schedules.Config
			err := yaml.Unmarshal([]byte(tc.text), &c)
			check(t, err, tc.want)
			if err != nil && !reflect.DeepEqual(c, schedules.Config{}) {
				t.Errorf("a faulty schedule left %+v behind", c)
			}
		})
	}
}

func check(t *testing.T, err error, want []string) {
	t.Helper()
	if len(want) == 0 {
		if err != nil {
			t.Errorf("error %q, want none", err)
		}
		return
	}
	if err == nil {
		t.Fatalf("no error, want %q", want)
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(want) {
		t.Errorf("%d faults, want %d:\n%v", len(lines), len(want), err)
	}
	for i, line := range lines {
		if i < len(want) && !strings.Contains(line, want[i]) {
			t.Errorf("fault %q, want it to say %q", line, want[i])
		}
	}
}

func TestValidate(t *testing.T) {
	linear := func(start, end float64, steps int) schedules.Config {
		return schedules.Config{Kind: "linear", Start: start, End: end, Steps: steps}
	}
	warm := func(factor float64, main schedules.Config) schedules.Config {
		return schedules.Config{Kind: "warmup", WarmupSteps: 3, WarmupInitFactor: factor, Main: &main}
	}
	nan, inf := math.NaN(), math.Inf(1)
	for _, tc := range []struct {
		name     string
		c        schedules.Config
		positive []string // faults of ValidatePositive
		zero     []string // faults of ValidateNonNegative
	}{
		{"nothing", schedules.Config{}, []string{"lr: missing"}, []string{"lr: missing"}},
		{"a number", schedules.Constant(1), nil, nil},
		{"zero", schedules.Constant(0), []string{"lr: 0, want a positive number"}, nil},
		{"negative", schedules.Constant(-1), []string{"lr: -1, want a positive number"}, []string{"lr: -1, want 0 or more"}},
		{"NaN", schedules.Constant(nan), []string{"lr: NaN, want a finite number"}, []string{"lr: NaN"}},
		{"infinite end", linear(1, inf, 3), []string{"lr.end: +Inf, want a finite number"}, []string{"lr.end: +Inf"}},
		{"unknown kind", schedules.Config{Kind: "ramp"}, []string{`lr.kind: "ramp", want one of`}, []string{"lr.kind"}},
		{"no steps", linear(1, 2, 0), []string{"lr.steps: 0, want at least 1"}, []string{"lr.steps: 0, want at least 1"}},
		{"negative steps", linear(1, 2, -4), []string{"lr.steps: -4, want at least 1"}, []string{"lr.steps"}},
		{"open length", linear(1, 2, schedules.WholeRun), nil, nil},
		{"down to zero", linear(1, 0, 5), []string{"lr.end: 0, want a positive number"}, nil},
		{"both ends", linear(-1, -2, 5), []string{"lr.start: -1", "lr.end: -2"}, []string{"lr.start: -1", "lr.end: -2"}},
		{"foreign option", schedules.Config{Kind: "constant", Start: 1, Gamma: 2}, []string{"lr.gamma: not an option of kind constant"}, []string{"lr.gamma"}},
		{"growth", schedules.Config{Kind: "exponential_decay", Start: 1, DecayRate: 1.1, MinValue: -1},
			[]string{"lr.decay_rate: 1.1, want a value in (0, 1]", "lr.min_value: -1"}, []string{"lr.decay_rate", "lr.min_value"}},
		{"no decay", schedules.Config{Kind: "exponential_decay", Start: 1}, []string{"lr.decay_rate: 0"}, []string{"lr.decay_rate: 0"}},
		{"milestones fall", schedules.Config{Kind: "multistep", Start: 1, Gamma: 0.1, Milestones: []int{3, 3}}, []string{"lr.milestones: [3 3]"}, []string{"lr.milestones"}},
		{"milestone at 0", schedules.Config{Kind: "multistep", Start: 1, Gamma: 0.1, Milestones: []int{0}}, []string{"lr.milestones: [0]"}, []string{"lr.milestones"}},
		{"no milestones, no gamma", schedules.Config{Kind: "multistep", Start: 1}, []string{"lr.milestones: empty", "lr.gamma: 0"}, []string{"lr.milestones", "lr.gamma"}},
		{"warm-up without main", schedules.Config{Kind: "warmup", WarmupSteps: -1}, []string{"lr.warmup_steps: -1", "lr.main: missing"}, []string{"lr.warmup_steps", "lr.main"}},
		{"warm-up of a faulty main", warm(0.1, linear(1, 2, 0)), []string{"lr.main.steps: 0"}, []string{"lr.main.steps: 0"}},
		{"warm-up from zero", warm(0, schedules.Constant(1)), []string{"lr.warmup_init_factor: 0"}, nil},
		{"warm-up to zero", warm(0.1, schedules.Constant(0)), []string{"lr.main: 0, want a positive"}, nil},
		{"warm-up to an open length", warm(0.1, linear(1, 0.5, schedules.WholeRun)), nil, nil},
		{"warm-up to a main that ends in zero", warm(0.1, linear(1, 0, 4)), []string{"lr.main.end: 0"}, nil},
		{"temperature starts without noise", schedules.Config{Kind: "temperature", EpsilonMax: 1, TauStar: 0.8, Steps: 5, TEnd: 1}, []string{"lr.t_start: 0"}, nil},
		{"temperature that starts late", schedules.Config{Kind: "temperature", EpsilonMax: 1, TauStar: 0.5, Steps: 5, TStart: 0.6, TEnd: 1}, nil, nil},
		{"temperature out of range", schedules.Config{Kind: "temperature", EpsilonMax: -1, TauStar: 1, Steps: 0, TStart: 2, TEnd: 1},
			[]string{"lr.steps: 0", "lr.epsilon_max: -1", "lr.tau_star: 1", "lr.t_end: 1, want at least t_start, 2"}, []string{"lr.steps", "lr.epsilon_max", "lr.tau_star", "lr.t_end"}},
		{"hold for ever", schedules.Config{Kind: "hold_linear", Start: 1, End: 1, Steps: 4, Hold: 1}, []string{"lr.hold: 1, want a value in [0, 1)"}, []string{"lr.hold"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			check(t, tc.c.ValidatePositive("lr"), tc.positive)
			check(t, tc.c.ValidateNonNegative("lr"), tc.zero)
		})
	}
}

// What ValidatePositive lets through must be positive at every step, for a wide net of schedules.
func TestValidatedSchedulesStayInRange(t *testing.T) {
	values := []float64{-1, 0, 0.25, 1}
	try := func(c schedules.Config) {
		t.Helper()
		positive, nonNegative := c.ValidatePositive("x") == nil, c.ValidateNonNegative("x") == nil
		if c.ValidatePositive("x") == nil && c.ValidateNonNegative("x") != nil {
			t.Errorf("%+v: positive but not non-negative", c)
		}
		s, err := c.Build()
		if err != nil {
			if positive || nonNegative {
				t.Errorf("%+v: valid, but: %v", c, err)
			}
			return
		}
		lowest := math.Inf(1)
		for n := range 12 {
			lowest = min(lowest, s.At(n))
		}
		if positive != (lowest > 0) || nonNegative != (lowest >= 0) {
			t.Errorf("%+v: positive %v, non-negative %v, but the lowest value is %g", c, positive, nonNegative, lowest)
		}
	}
	for _, a := range values {
		try(schedules.Constant(a))
		try(schedules.Config{Kind: "exponential_decay", Start: a, DecayRate: 0.5})
		try(schedules.Config{Kind: "multistep", Start: a, Gamma: 0.5, Milestones: []int{2, 5}})
		try(schedules.Config{Kind: "temperature", EpsilonMax: a, TauStar: 0.5, Steps: 4, TEnd: 1, Sqrt: true})
		try(schedules.Config{Kind: "temperature", EpsilonMax: a, TauStar: 0.5, Steps: 4, TStart: 0.75, TEnd: 1})
		for _, b := range values {
			for _, kind := range []string{"linear", "cosine", "hold_linear", "hold_cosine"} {
				c := schedules.Config{Kind: kind, Start: a, End: b, Steps: 6}
				try(c)
				for _, factor := range []float64{0, 0.5, 2} {
					try(schedules.Config{Kind: "warmup", WarmupSteps: 3, WarmupInitFactor: factor, Main: &c})
				}
			}
		}
	}
}

func TestOverGivesOpenLengthsTheRun(t *testing.T) {
	var c schedules.Config
	if err := yaml.Unmarshal([]byte("{kind: warmup, warmup_steps: 20, main: {kind: cosine, start: 1, end: 0}}"), &c); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Build(); err == nil || !strings.Contains(err.Error(), "main.steps: missing") {
		t.Errorf("an open length builds: %v", err)
	}
	s, err := c.Over(100).Build()
	if err != nil {
		t.Fatal(err)
	}
	if a, b, d := s.At(20), s.At(60), s.At(100); a != 1 || math.Abs(b-0.5) > 1e-12 || d != 0 {
		t.Errorf("values %g, %g, %g at 20, 60 and 100, want 1, 0.5, 0", a, b, d)
	}
	if c.Main.Steps != schedules.WholeRun {
		t.Errorf("Over changed the schedule it was called on")
	}
	own := schedules.Config{Kind: "linear", Start: 1, Steps: 7}
	if got := own.Over(100); got.Steps != 7 {
		t.Errorf("Over changed a length of 7 to %d", got.Steps)
	}
}

func TestStepper(t *testing.T) {
	s := schedules.NewStepper(build(t, "{kind: linear, start: 4, end: 0, steps: 4}"))
	if first, second := s.Value(), s.Value(); first != 4 || second != 4 {
		t.Errorf("reading the value moved the stepper: %g, then %g", first, second)
	}
	if got := []float64{s.Step(), s.Step()}; !slices.Equal(got, []float64{3, 2}) || s.Count() != 2 {
		t.Errorf("steps gave %v at %d, want [3 2] at 2", got, s.Count())
	}
	s.Reset()
	if s.Value() != 4 {
		t.Errorf("after a reset the value is %g, want 4", s.Value())
	}
	s.Seek(3)
	if s.Value() != 1 || s.Step() != 0 {
		t.Errorf("after Seek(3) the stepper is lost")
	}
}

// The table must agree with the code: defaults that New fills, options that belong to a kind, and text for all of it.
func TestKindsDescribeTheCode(t *testing.T) {
	for _, k := range schedules.Kinds() {
		if k.Doc == "" || k.Formula == "" || k.Source == "" || len(k.Params) == 0 {
			t.Errorf("%s: %+v lacks text", k.Name, k)
		}
		doc := map[string]any{"kind": k.Name}
		for _, p := range k.Params {
			if p.Doc == "" {
				t.Errorf("%s.%s has no text", k.Name, p.Key)
			}
			switch {
			case p.Default == "" && p.Key == "milestones":
				doc[p.Key] = []any{1, 2}
			case p.Default == "" || p.Key == "steps" && k.Name != "temperature":
				doc[p.Key] = 0.5
				if p.Key == "steps" || p.Key == "warmup_steps" {
					doc[p.Key] = 5
				}
			}
		}
		short, err := schedules.FromAny(doc)
		if err != nil {
			t.Errorf("%s: the required options alone: %v", k.Name, err)
		}
		for _, p := range k.Params {
			if _, given := doc[p.Key]; !given {
				var v any
				if err := yaml.Unmarshal([]byte(p.Default), &v); err != nil {
					t.Fatal(err)
				}
				doc[p.Key] = v
			}
		}
		long, err := schedules.FromAny(doc)
		if err != nil {
			t.Errorf("%s: %v", k.Name, err)
		}
		if !reflect.DeepEqual(short, long) {
			t.Errorf("%s: the defaults are %+v, the table says %+v", k.Name, short, long)
		}
		if _, err := long.Build(); err != nil {
			t.Errorf("%s: %v", k.Name, err)
		}
		if fresh, err := schedules.New(k.Name); err != nil || fresh.Kind != k.Name {
			t.Errorf("New(%s): %+v, %v", k.Name, fresh, err)
		}
	}
	if _, err := schedules.New("ramp"); err == nil {
		t.Error("New knows a ramp")
	}
}
