package experiment

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/buffer"
	"github.com/kelvin-ebm/kelvin/pkg/datasets"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

func parse(t *testing.T, yaml string, sets ...string) *Config {
	t.Helper()
	c, err := Parse("folder/f.yaml", []byte(yaml), sets)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func ExampleParse() {
	text := `
data: {dataset: two_moons}
train: {steps: 5000}
`
	c, err := Parse("moons.yaml", []byte(text), []string{"tempering.rungs=4"})
	if err != nil {
		panic(err)
	}
	fmt.Println(c.Name, c.Loss.Kind, c.Tempering.Rungs, c.Tempering.Chains, c.Model.Base)
	_, err = Parse("moons.yaml", []byte(text+"smapler: {steps: 3}\n"), nil)
	fmt.Println(err)
	// Output:
	// moons parallel_tempering_cd 4 128 gaussian
	// moons.yaml:4:1: unknown key `smapler`, did you mean `sampler`?
	//     4 | smapler: {steps: 3}
	//       | ^^^^^^^
}

func TestDefaults(t *testing.T) {
	for _, tc := range []struct {
		name  string
		yaml  string
		check map[string]any
	}{
		{"tempered", "", map[string]any{
			"name": "f", "seed": uint64(0), "data.samples": 2000, "data.noise": 0.05,
			"loss":       losses.Config{Kind: "parallel_tempering_cd", EnergyPenalty: 1e-4, Compat: "none"},
			"tempering":  tempering.Config{Rungs: 6, Chains: 128, Scans: 1, Ladder: "adaptive", Path: "linear", BetaMin: 0.1, Reference: "gaussian", ReferenceScale: 2, Schedule: "deo", Exchange: "state", Placement: "ladder", Split: 1, GradientOn: "cold", AdaptEvery: 10},
			"averaging":  averaging.Config{Groups: 1, Every: 10, Outer: "mean", Format: "fp32"},
			"buffer":     buffer.Config{Size: 128, Init: "reference"},
			"model.kind": "mlp", "model.base": "gaussian", "model.hidden": []int{64, 64}, "model.activation": "silu", "model.init": "torch", "model.spectral_norm": false,
			"sampler.kind": "mala", "sampler.steps": 5, "sampler.step_size": schedules.Constant(0.005),
			"optimizer.kind": "adam", "optimizer.lr": schedules.Constant(1e-3), "optimizer.beta1": 0.9, "optimizer.beta2": 0.999, "optimizer.epsilon": 1e-8,
			"optimizer.clip_norm": 1.0, "optimizer.weight_decay": 0.0, "optimizer.ema": 0.0,
			"train":    TrainConfig{Steps: 100, Batch: 128, Split: 1, CutEvery: 10, LogEvery: 10, Frames: 40},
			"evaluate": EvaluateConfig{Samples: 2000, Scans: 200, Measure: 500, Projections: 256},
			"backend":  backend.Config{Kind: "auto", Threads: 2},
		}},
		{"the power path", "tempering: {path: power}\n", map[string]any{"tempering.ladder": "adaptive", "model.base": "none", "buffer.init": "normal"}},
		{"a given ladder", "tempering: {betas: [0, 0.01, 0.1, 0.3, 0.5, 0.8, 1]}\n", map[string]any{"tempering.rungs": 7, "tempering.ladder": "adaptive"}},
		{"a base on the power path", "tempering: {path: power}\nmodel: {base: gaussian}\n", map[string]any{"buffer.init": "reference"}},
		{"one rung", "tempering: {rungs: 1}\n", map[string]any{"model.base": "none", "buffer.init": "normal"}},
		{"chains follow the batch", "train: {steps: 1, batch: 32}\n", map[string]any{"tempering.chains": 32, "buffer.size": 32}},
		{"an analytic energy has no base", "model: {kind: double_well}\n", map[string]any{"model.base": "", "buffer.init": "reference"}},
		{"persistent CD", "loss: {kind: persistent_cd}\n", map[string]any{
			"tempering.rungs": 1, "model.base": "none", "buffer": buffer.Config{Size: 128, Reinit: 0.05, Init: "normal"}}},
		{"as the original", "loss: {kind: persistent_cd, compat: torchebm}\n", map[string]any{
			"loss.energy_penalty": 1e-3, "buffer": buffer.Config{Size: 10_000, Reinit: 0.05, Init: "normal", Warmup: 100}}},
		{"plain CD", "loss: {kind: contrastive_divergence}\n", map[string]any{"tempering.rungs": 1, "buffer": buffer.Config{}}},
		{"AdamW decays", "optimizer: {kind: adamw}\n", map[string]any{"optimizer.weight_decay": 0.01}},
		{"zeros that were chosen stay", "loss: {kind: persistent_cd, energy_penalty: 0}\noptimizer: {clip_norm: 0}\ntrain: {steps: 3, cut_every: 0, frames: 0}\nsampler: {kind: langevin, noise_scale: 0}\n", map[string]any{
			"loss.energy_penalty": 0.0, "optimizer.clip_norm": 0.0, "train.cut_every": 0.0, "train.frames": 0, "sampler.noise_scale": schedules.Constant(0)}},
		{"a section without keys", "buffer:\n# size: 12\noptimizer: {}\n", map[string]any{"buffer.size": 128, "optimizer.kind": "adam"}},
		{"short form", "backend: go\n", map[string]any{"backend": backend.Config{Kind: "go", Threads: 2}}},
		{"numbers of every kind", "seed: 0xff\ntrain: {steps: 1e3, cut_every: 2}\noptimizer: {epsilon: 1e-3, lr: .5}\ntempering: {chains: 1_00, scans: +2}\n", map[string]any{
			"seed": uint64(255), "train.steps": 1000, "train.cut_every": 2.0, "optimizer.epsilon": 1e-3, "optimizer.lr": schedules.Constant(0.5), "tempering.chains": 100, "tempering.scans": 2}},
		{"a mark at the start, and Windows' line ends", "\ufeffseed: 3\r\nname: x\r\n", map[string]any{"seed": uint64(3), "name": "x"}},
		{"a schedule over the run", "optimizer: {lr: {kind: cosine, start: 5e-3, end: 0}}\n", map[string]any{
			"optimizer.lr": schedules.Config{Kind: "cosine", Start: 5e-3, Steps: 100}}},
		{"a schedule with a length", "optimizer: {lr: {kind: cosine, start: 5e-3, end: 0, steps: 7}}\n", map[string]any{
			"optimizer.lr": schedules.Config{Kind: "cosine", Start: 5e-3, Steps: 7}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			yaml := tc.yaml
			if !strings.Contains(yaml, "train:") {
				yaml += "train: {steps: 100}\n"
			}
			c := parse(t, yaml+"data: {dataset: two_moons}\n")
			for path, want := range tc.check {
				if diff := cmp.Diff(want, lookup(t, c, path)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", path, diff)
				}
			}
		})
	}
}

// lookup is the value of a key, through pointers.
func lookup(t *testing.T, c *Config, path string) any {
	t.Helper()
	v := reflect.ValueOf(*c)
	for _, key := range strings.Split(path, ".") {
		_, index := fields(v.Type())
		i, ok := index[key]
		if !ok {
			t.Fatalf("no key %s", path)
		}
		v = reflect.Indirect(v.Field(i))
	}
	return v.Interface()
}

func TestOverrides(t *testing.T) {
	const yaml = "data: {dataset: two_moons}\ntrain: {steps: 100}\noptimizer:\n  lr: {kind: cosine, start: 1, end: 0.5}\nsampler: {steps: 9, kind: langevin}\ntempering: {rungs: 1}\nbackend: go\n"
	for _, tc := range []struct {
		name string
		sets []string
		path string
		want any
	}{
		{"a number", []string{"sampler.steps=3"}, "sampler.steps", 3},
		{"spaces", []string{" sampler.steps = 3 "}, "sampler.steps", 3},
		{"the last one wins", []string{"sampler.steps=3", "sampler.steps=4"}, "sampler.steps", 4},
		{"others stay", []string{"sampler.steps=3"}, "sampler.kind", "langevin"},
		{"a new section", []string{"buffer.size=500"}, "buffer.size", 500},
		{"a section is replaced whole", []string{"sampler={kind: langevin}"}, "sampler.steps", 5},
		{"a map", []string{"optimizer.lr={kind: cosine,start: 1e-3,end: 0,steps: 100}"}, "optimizer.lr", schedules.Config{Kind: "cosine", Start: 1e-3, Steps: 100}},
		{"inside a map", []string{"optimizer.lr.end=0.25"}, "optimizer.lr", schedules.Config{Kind: "cosine", Start: 1, End: 0.25, Steps: 100}},
		{"a number for a map", []string{"optimizer.lr=0.25"}, "optimizer.lr", schedules.Constant(0.25)},
		{"a map from nothing", []string{"sampler.noise_scale.kind=linear", "sampler.noise_scale.start=1", "sampler.noise_scale.end=0.5"}, "sampler.noise_scale", schedules.Config{Kind: "linear", Start: 1, End: 0.5, Steps: 100}},
		{"a list", []string{"model.hidden=[32, 16]"}, "model.hidden", []int{32, 16}},
		{"text with an equals sign", []string{`name="a=b"`, "name=c"}, "name", "c"},
		{"a pointer", []string{"data.noise=0"}, "data.noise", 0.0},
		{"below a short form", []string{"backend.threads=4"}, "backend", backend.Config{Kind: "go", Threads: 4}},
		{"a short form", []string{"backend=xla:cpu"}, "backend.kind", "xla:cpu"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := parse(t, yaml, tc.sets...)
			if diff := cmp.Diff(tc.want, lookup(t, c, tc.path)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	if c, err := Parse("f.yaml", nil, []string{"data.dataset=circle", "train.epochs=3"}); err != nil || c.Train.Epochs != 3 {
		t.Errorf("an experiment of flags alone: %v", err)
	}
}

// variants are experiments that between them write every kind of value.
var variants = []string{
	"data: {dataset: two_moons}\ntrain: {steps: 100}\nseed: 18446744073709551615\nname: '2026'\n",
	"data: {dataset: pinwheel, seed: 0, spiral_scale: -1.5e-7}\ntrain: {epochs: 3}\nloss: {kind: contrastive_divergence}\n",
	"data: {dataset: npz, path: \"my data/x #1: é.npz\", array: 'yes', standardise: true}\ntrain: {steps: 1}\nbackend: {kind: xla:cpu, threads: 7}\n",
	"data: {dataset: circle}\ntrain: {epochs: 9}\ntempering: {rungs: 1}\nsampler: {kind: langevin, clamp: [-1, 1e300], noise_scale: {kind: temperature, epsilon_max: 1, sqrt: false}}\n" +
		"optimizer: {kind: sgd, momentum: 0.9, lr: {kind: warmup, warmup_steps: 5, main: {kind: multistep, start: 1, milestones: [3, 9]}}}\n",
	"data: {dataset: circle}\ntrain: {steps: 5}\nmodel: {kind: gaussian, mean: [0, 1], cov: [[1, 0], [0, 2.5]]}\nloss: {kind: persistent_cd, compat: torchebm}\n",
	"data: {dataset: grid}\ntrain: {epochs: 9}\noptimizer: {kind: adamw, lr: {kind: hold_cosine, start: 5e-3, end: 5e-5}}\nmodel: {init: normal, zero_last: true}\n",
}

func TestMarshalLoadsBackEqual(t *testing.T) {
	for _, yaml := range variants {
		c := parse(t, yaml)
		for name, write := range map[string]func(*Config) ([]byte, error){
			"Marshal": Marshal,
			"Explain": func(c *Config) ([]byte, error) { s, err := Explain(c); return []byte(s), err },
		} {
			raw, err := write(c)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			again, err := Parse("other.yaml", raw, nil)
			if err != nil {
				t.Fatalf("%s wrote\n%s\n%v", name, raw, err)
			}
			if !c.Equal(again) {
				t.Errorf("%s does not read back equal:\n%s", name, raw)
			}
			if raw2, _ := Marshal(again); name == "Marshal" && !bytes.Equal(raw, raw2) {
				t.Errorf("written again:\n%s", cmp.Diff(string(raw), string(raw2)))
			}
		}
	}
	c := parse(t, variants[0])
	c.Optimizer.LR.Start = c.Optimizer.LR.Start / 0
	if _, err := Marshal(c); err == nil || err.Error() != "experiment: write 2026: optimizer.lr: +Inf, want a finite number" {
		t.Errorf("an infinite rate: %v", err)
	}
}

func TestResolveOfAProgramsConfig(t *testing.T) {
	c := &Config{Name: "x", Data: datasets.Config{Dataset: "circle"}, Train: TrainConfig{Steps: 10, Batch: 16}, Loss: losses.Config{Kind: "persistent_cd"}}
	c.Resolve()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if c.Tempering.Chains != 16 || c.Buffer.Size != 16 || c.Buffer.Reinit != 0.05 {
		t.Errorf("tempering %+v, buffer %+v", c.Tempering, c.Buffer)
	}
	c.Buffer.Reinit, c.Optimizer.ClipNorm = 0, 0
	c.Resolve()
	if c.Buffer.Reinit != 0 || c.Optimizer.ClipNorm != 0 {
		t.Error("a second Resolve undid what the program changed")
	}
	text, err := Explain(c)
	if err != nil || !strings.Contains(text, "# set by the program") || !strings.Contains(text, "  kind: persistent_cd                # set by the program") {
		t.Errorf("%v\n%s", err, text)
	}
	copied := c.Clone()
	copied.Train.Steps = 99
	if c.Equal(copied) || c.Train.Steps != 10 {
		t.Error("a clone is not apart from its original")
	}
}

func TestLengthOfARun(t *testing.T) {
	const open = "optimizer: {lr: {kind: linear, start: 1, end: 0}}\nsampler: {step_size: {kind: warmup, warmup_steps: 44, main: {kind: cosine, start: 1, end: 0.1}}}\n"
	c := parse(t, "data: {dataset: two_moons}\ntrain: {epochs: 100}\n"+open)
	if got := c.TotalSteps(3000); got != 2344 {
		t.Errorf("100 epochs of 3000 rows by 128 are %d steps, want 2344", got)
	}
	if c.Optimizer.LR.Steps != schedules.WholeRun {
		t.Errorf("the rate's length is %d before the data are known", c.Optimizer.LR.Steps)
	}
	c.Complete(3000)
	if got := []int{c.Optimizer.LR.Steps, c.Sampler.StepSize.Main.Steps}; !cmp.Equal(got, []int{2344, 2300}) {
		t.Errorf("lengths %v, want 2344 and 2300", got)
	}
	if c = parse(t, "data: {dataset: two_moons}\ntrain: {steps: 7}\n"+open); c.TotalSteps(3000) != 7 || c.Optimizer.LR.Steps != 7 {
		t.Errorf("%d steps, a rate over %d, want 7", c.TotalSteps(3000), c.Optimizer.LR.Steps)
	}
}

func TestDataPath(t *testing.T) {
	c := parse(t, "data: {dataset: npz, path: data/x.npz}\ntrain: {steps: 1}\n")
	if got := c.DataPath(); got != filepath.Join("folder", "data", "x.npz") {
		t.Errorf("path %s", got)
	}
	if err := c.Rebase(filepath.Join("runs", "x")); err != nil {
		t.Fatal(err)
	}
	if c.Data.Path != "../../folder/data/x.npz" || c.DataPath() != filepath.Join("folder", "data", "x.npz") {
		t.Errorf("rebased to %s, which is %s", c.Data.Path, c.DataPath())
	}
	c.Data.Path = filepath.Join(t.TempDir(), "x.npz")
	if want := c.Data.Path; c.Rebase("elsewhere") != nil || c.DataPath() != want {
		t.Errorf("an absolute path became %s", c.DataPath())
	}
}

func TestExplain(t *testing.T) {
	c, err := Parse("moons.yaml", []byte("data: {dataset: two_moons, noise: 0.1}\ntrain:\n  steps: 100\noptimizer:\n  lr: {kind: cosine, start: 1.0e-3, end: 0}\nbackend: go\n"),
		[]string{"sampler.steps=3", "optimizer.lr.end=1.0e-5"})
	if err != nil {
		t.Fatal(err)
	}
	text, err := Explain(c)
	if err != nil {
		t.Fatal(err)
	}
	// What an energy's keys do is text of package models, which has its own tests.
	head, rest, _ := strings.Cut(text, "model:\n")
	_, tail, _ := strings.Cut(rest, "\n\n")
	golden(t, "testdata/explain.golden", []byte(head+"model:\n  …\n\n"+tail))
}

// TestEveryKeyIsExplained walks the structs, so that a new key comes with its text.
func TestEveryKeyIsExplained(t *testing.T) {
	known := map[string]bool{}
	v := reflect.TypeFor[Config]()
	sections, index := fields(v)
	for _, section := range sections {
		known[section] = true
		f := v.Field(index[section])
		if f.Type.Kind() != reflect.Struct {
			continue
		}
		for _, key := range fieldNames(f.Type) {
			known[join(section, key)] = true
			described := docs()[join(section, key)].text != "" || len(keyUses(section, key)) > 0
			if !described {
				t.Errorf("%s.%s has no text", section, key)
			}
		}
	}
	for path, d := range docs() {
		if !known[path] {
			t.Errorf("%s has a text and is no key", path)
		}
		if d.text == "" && len(d.oneOf) == 0 {
			t.Errorf("%s has an empty text", path)
		}
	}
}

func compiledSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	raw, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("kelvin.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("kelvin.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// asJSON is a YAML text as a JSON schema sees it.
func asJSON(t *testing.T, yaml []byte) any {
	t.Helper()
	r := &reading{}
	root := r.read(yaml)
	if root == nil || len(r.faults) > 0 {
		t.Fatalf("%v in\n%s", r.faults, yaml)
	}
	d := &decoder{origins: map[string]Origin{}, excused: map[string]bool{}}
	raw, err := json.Marshal(d.plain(root, nil, "", Origin{}))
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSchema(t *testing.T) {
	schema := compiledSchema(t)
	for _, yaml := range append(variants, minimal, minimal+"backend: go\n") {
		resolved, err := Marshal(parse(t, yaml))
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range [][]byte{[]byte(yaml), resolved} {
			if err := schema.Validate(asJSON(t, text)); err != nil {
				t.Errorf("%s\n%v", text, err)
			}
		}
	}
	for name, yaml := range map[string]string{
		"no data":             "train: {steps: 1}\n",
		"no dataset":          "data: {noise: 1}\ntrain: {steps: 1}\n",
		"no length":           "data: {dataset: circle}\ntrain: {batch: 3}\n",
		"two lengths":         "data: {dataset: circle}\ntrain: {steps: 1, epochs: 2}\n",
		"an unknown section":  minimal + "smapler: {steps: 3}\n",
		"an unknown key":      minimal + "sampler: {stesp: 3}\n",
		"text for a number":   minimal + "sampler: {steps: ten}\n",
		"a fraction":          minimal + "sampler: {steps: 2.5}\n",
		"no steps":            minimal + "sampler: {steps: 0}\n",
		"an unknown word":     minimal + "sampler: {kind: male}\n",
		"an unknown backend":  minimal + "backend: tpu\n",
		"an unknown schedule": minimal + "optimizer: {lr: {kind: cosinus}}\n",
		"another's option":    minimal + "optimizer: {lr: {kind: linear, start: 1, end: 0, gamma: 1}}\n",
		"a missing option":    minimal + "optimizer: {lr: {kind: linear, start: 1}}\n",
		"a bad nested one":    minimal + "optimizer: {lr: {kind: warmup, warmup_steps: 3, main: {kind: linear}}}\n",
		"out of range":        minimal + "optimizer: {beta1: 1}\n",
		"negative":            minimal + "loss: {energy_penalty: -1}\n",
	} {
		if err := schema.Validate(asJSON(t, []byte(yaml))); err == nil {
			t.Errorf("%s passes the schema", name)
		}
		if _, err := Parse("f.yaml", []byte(yaml), nil); err == nil {
			t.Errorf("%s passes Parse", name)
		}
	}
}

func TestExamplesAreValid(t *testing.T) {
	files := testutil.Examples(t)
	schema := compiledSchema(t)
	for _, name := range files {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(testutil.Root(), "examples", name+".yaml")
			c, err := Load(file, nil)
			if err != nil {
				t.Fatal(err)
			}
			if want := strings.ReplaceAll(name, "/", "-"); c.Name != want {
				t.Errorf("name %s, want %s", c.Name, want)
			}
			if path := c.DataPath(); path != "" {
				if _, err := os.Stat(path); err != nil {
					t.Error(err)
				}
			}
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(asJSON(t, raw)); err != nil {
				t.Error(err)
			}
			resolved, err := Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := Parse(file, resolved, nil); err != nil || !c.Equal(again) {
				t.Errorf("resolved, it reads back different: %v", err)
			}
		})
	}
	// The article's settings, which the comparison stands on.
	c, err := Load(filepath.Join(testutil.Root(), "examples", "article.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]any{
		"loss.kind": "persistent_cd", "loss.compat": "torchebm", "loss.energy_penalty": 1e-3, "sampler.kind": "langevin", "sampler.steps": 10,
		"sampler.step_size": schedules.Constant(0.1), "sampler.noise_scale": schedules.Constant(1), "train.batch": 128, "train.epochs": 100,
		"optimizer.lr": schedules.Constant(1e-3), "optimizer.clip_norm": 1.0, "model.base": "none", "model.hidden": []int{64, 64}, "data.samples": 3000,
		"buffer": buffer.Config{Size: 10_000, Reinit: 0.05, Init: "normal", Warmup: 100},
	} {
		if diff := cmp.Diff(want, lookup(t, c, path)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
}

// FuzzParse: no text brings the reader down, and what it takes is written such that it reads back equal.
func FuzzParse(f *testing.F) {
	for _, yaml := range variants {
		f.Add([]byte(yaml), "sampler.steps=3")
	}
	f.Add([]byte("name: \"a\\u0041\"\n"+minimal), `data.path="x: #y"`)
	many, err := os.ReadFile("testdata/faults/many.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(many, "optimizer.lr.kind=cosine")
	f.Add([]byte("a: &b [*b]\n<<: !!x ? y\n"), "=")
	f.Fuzz(func(t *testing.T, raw []byte, set string) {
		if len(raw) > 1<<12 {
			return
		}
		start := time.Now()
		c, err := Parse("f.yaml", raw, []string{set})
		if took := time.Since(start); took > 20*time.Second { // a machine may be busy; a parser that hangs is worse
			t.Errorf("took %v", took)
		}
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without text")
			}
			return
		}
		written, err := Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse("g.yaml", written, nil)
		if err != nil {
			t.Fatalf("%v, written from\n%s", err, raw)
		}
		if !c.Equal(again) {
			t.Errorf("does not read back equal:\n%s", written)
		}
	})
}
