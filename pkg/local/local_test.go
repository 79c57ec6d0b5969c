package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/datasets"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/experiment"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/runlog"
)

// small is an experiment that trains in a moment. A test set of a few rows keeps the quadrature short.
const small = `
name: small
seed: 3
data: {dataset: two_moons, samples: 300, noise: 0.1, test_samples: 200}
model: {kind: mlp, hidden: [8]}
sampler: {kind: mala, steps: 2, step_size: 0.01}
tempering: {rungs: 3, chains: 16}
optimizer: {kind: adam, lr: 0.01}
train: {steps: 30, batch: 16, cut_every: 0, log_every: 5, frames: 3}
evaluate: {samples: 64, scans: 4, measure: 6, projections: 8}
backend: {kind: KIND}
`

// smallField is the same for a conditional field, whose labels are the blades of the data.
const smallField = `
name: small-field
seed: 3
data: {dataset: pinwheel, samples: 300}
model: {kind: time_mlp, hidden_dim: 8, depth: 1, time_frequencies: 8, num_classes: 5}
loss: {kind: flow_matching, coupling: {kind: exact_ot, within_classes: true}, label_dropout: 0.2}
sampler: {kind: flow, integrator: heun, steps: 5, guidance_scale: 1.5}
optimizer: {kind: adam, lr: 0.01, ema: 0.9}
train: {steps: 30, batch: 16, cut_every: 0, log_every: 5}
evaluate: {samples: 64, projections: 8}
backend: {kind: KIND}
`

func parse(t *testing.T, kind, text string, sets ...string) *experiment.Config {
	t.Helper()
	c, err := experiment.Parse(filepath.Join(t.TempDir(), "test.yaml"), []byte(strings.ReplaceAll(text, "KIND", kind)), sets)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// interruptAt cancels a context after a step, as Ctrl-C does.
func interruptAt(step int, cancel context.CancelFunc) func(int) {
	return func(now int) {
		if now == step {
			cancel()
		}
	}
}

func kinds() []string { return []string{backend.CPU, backend.Go} }

func options(out string) Options { return Options{Out: out, Backend: backend.Options{NoInstall: true}} }

// A run that is interrupted, also twice, ends with the same digest, parameters and metrics as one that is not.
func TestResumeGoesOnBitForBit(t *testing.T) {
	for _, tc := range []struct {
		name string
		sets []string
		xla  bool // compiling takes its time: on XLA the cases whose programs differ most
	}{
		{"tempered, linear path", nil, true},
		{"tempered, power path, two scans, sgd with momentum", []string{"tempering.path=power", "tempering.beta_min=0.2", "tempering.scans=2", "optimizer={kind: sgd, lr: 1e-3, momentum: 0.9}"}, false},
		{"tempered, larger buffer, averaged parameters", []string{"buffer.size=40", "optimizer.ema=0.9", "buffer.reinit=0.1"}, false},
		{"persistent", []string{"loss={kind: persistent_cd, data_noise: 0.01}", "tempering.rungs=1", "buffer={size: 50, warmup: 4, init: data}"}, false},
		{"the original's ring", []string{"loss={kind: persistent_cd, compat: torchebm}", "tempering.rungs=1", "buffer.size=50", "sampler={kind: langevin, steps: 3, step_size: {kind: cosine, start: 0.1, end: 0.01, steps: 3}}"}, true},
		{"from the data", []string{"loss={kind: contrastive_divergence, data_noise: 0.01}", "tempering.rungs=1"}, false},
		{"hamiltonian", []string{"sampler={kind: hmc, steps: 2, leapfrog_steps: 3, step_size: 0.05}"}, false},
		{"no chains, sampled along a ladder", []string{"loss={kind: sliced_score_matching, n_projections: 2}"}, false},
		{"chains of the loss", []string{"loss={kind: energy_matching, n_langevin_steps: 60, lambda_cd: {kind: linear, start: 0, end: 2}}", "tempering.rungs=1"}, false},
		{"a conditional field", nil, true},
	} {
		text := small
		if tc.name == "a conditional field" {
			text = smallField
		}
		for _, kind := range kinds() {
			if kind == backend.CPU && !tc.xla {
				continue
			}
			t.Run(tc.name+" on "+kind, func(t *testing.T) {
				// Without test rows the evaluation is short.
				cfg := parse(t, kind, text, append([]string{"data.test_samples=0"}, tc.sets...)...)
				whole := filepath.Join(t.TempDir(), "whole")
				want, err := Train(t.Context(), cfg, options(whole))
				if err != nil {
					t.Fatal(err)
				}
				parts := filepath.Join(t.TempDir(), "parts")
				opts := options(parts)
				for _, at := range []int{7, 20} {
					ctx, cancel := context.WithCancel(t.Context())
					opts.afterStep = interruptAt(at, cancel)
					if _, err := Train(ctx, cfg, opts); !errors.Is(err, ErrInterrupted) {
						t.Fatalf("interrupted at step %d: %v", at, err)
					}
					opts.Resume = true
				}
				opts.afterStep = nil
				got, err := Train(t.Context(), cfg, opts)
				if err != nil {
					t.Fatal(err)
				}
				if got.Digest != want.Digest || got.Digest == "" {
					t.Errorf("digest %s, want %s", got.Digest, want.Digest)
				}
				a, b := read(t, whole, paramsFile), read(t, parts, paramsFile)
				if !bytes.Equal(a, b) {
					t.Error("the parameters differ")
				}
				if a, b := metrics(t, whole), metrics(t, parts); a != b {
					t.Errorf("metrics differ:\n%s\nagainst, resumed,\n%s", a, b)
				}
				if a, b := read(t, whole, samplesFile), read(t, parts, samplesFile); !bytes.Equal(a, b) {
					t.Error("the samples differ")
				}
			})
		}
	}
}

func read(t *testing.T, dir, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// metrics are the records of a run without what depends on the clock.
func metrics(t *testing.T, dir string) string {
	t.Helper()
	records, err := runlog.ReadMetrics(dir)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, r := range records {
		fmt.Fprintf(&b, "%d", r.Step)
		for _, v := range r.Values {
			if v.Key != "steps_per_second" {
				fmt.Fprintf(&b, " %s %v %v", v.Key, v.Number, v.List)
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestRunFolderHoldsEverything(t *testing.T) {
	out := filepath.Join(t.TempDir(), "a", "b")
	cfg := parse(t, backend.Go, small)
	s, err := Train(t.Context(), cfg, options(out))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{experimentFile, "run.json", "metrics.jsonl", "params.safetensors", "samples.npz", "evaluation.json", "report.html",
		"landscape.png", "landscape.gif", "samples.png", "curves.png", "cuts/00000030/manifest.json"} {
		if info, err := os.Stat(filepath.Join(out, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if ev := s.Evaluation; ev.NLL == nil || !(*ev.NLL > 0.2 && *ev.NLL < 5) || ev.Entropy == nil || ev.MMD2 == nil {
		t.Errorf("evaluation %+v", ev)
	}
	// The resolved experiment of the folder builds the same run.
	again, err := LoadExperiment(out)
	if err != nil {
		t.Fatal(err)
	}
	other, err := Train(t.Context(), again, options(filepath.Join(t.TempDir(), "again")))
	if err != nil {
		t.Fatal(err)
	}
	if other.Digest != s.Digest {
		t.Errorf("digest %s from the resolved experiment, want %s", other.Digest, s.Digest)
	}
	run, err := OpenRun(t.Context(), out, OpenOptions{Backend: backend.Options{NoInstall: true}})
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	ev, err := run.Evaluate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if *ev.NLL != *s.Evaluation.NLL || *ev.MMD2 != *s.Evaluation.MMD2 {
		t.Errorf("evaluated again: NLL %v, MMD² %v, want %v and %v", *ev.NLL, *ev.MMD2, *s.Evaluation.NLL, *s.Evaluation.MMD2)
	}
}

// leftovers lists what is in a folder; nothing where there is no folder.
func leftovers(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestBadInputLeavesNothingBehind(t *testing.T) {
	npy := func(t *testing.T, rows [][]float64) string {
		path := filepath.Join(t.TempDir(), "rows.npz")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var flat []float64
		for _, r := range rows {
			flat = append(flat, r...)
		}
		if err := datasets.WriteNPZ(f, []datasets.Array{{Name: "x", Shape: []int{len(rows), len(rows[0])}, Data: flat}}); err != nil {
			t.Fatal(err)
		}
		return path
	}
	base := t.TempDir()
	aFile := filepath.Join(base, "file")
	if err := os.WriteFile(aFile, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	full := filepath.Join(base, "full")
	if err := os.MkdirAll(filepath.Join(full, "something"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		sets []string
		out  string
		want string
	}{
		{"nan in the data", []string{"data={dataset: npz, path: " + npy(t, [][]float64{{1, 2}, {3, math.NaN()}, {5, 6}, {7, 8}, {9, 1}}) + "}"}, "run", "row 1, column 1"},
		{"dimension of the model", []string{"model={kind: mlp, hidden: [8], dim: 3}"}, "run", "3"},
		{"model without parameters", []string{"model={kind: double_well}"}, "run", "no parameters"},
		{"missing data", []string{"data={dataset: npz, path: nowhere.npz}"}, "run", "nowhere.npz"},
		{"folder under a file", nil, "file/run", "file"},
		{"folder that holds something else", nil, "full", "not empty"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := leftovers(t, base)
			_, err := Train(t.Context(), parse(t, backend.Go, small, tc.sets...), options(filepath.Join(base, tc.out)))
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want one line with %q", err, tc.want)
			}
			if after := leftovers(t, base); fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("left behind: %v, before %v", after, before)
			}
		})
	}
}

func TestExistingRunIsNotOverwritten(t *testing.T) {
	out := filepath.Join(t.TempDir(), "run")
	cfg := parse(t, backend.Go, small)
	if _, err := Train(t.Context(), cfg, options(out)); err != nil {
		t.Fatal(err)
	}
	before := read(t, out, "run.json")
	if _, err := Train(t.Context(), cfg, options(out)); err == nil || !strings.Contains(err.Error(), "--resume") {
		t.Errorf("second run: %v, want an error that names --resume", err)
	}
	if !bytes.Equal(before, read(t, out, "run.json")) {
		t.Error("the refused run changed run.json")
	}
	opts := options(out)
	opts.Resume = true
	if _, err := Train(t.Context(), parse(t, backend.Go, small, "seed=4"), opts); err == nil || !strings.Contains(err.Error(), "seed: 3") {
		t.Errorf("resumed with another seed: %v, want an error that shows the line", err)
	}
}

func TestTruncatedCutFallsBackToTheOneBefore(t *testing.T) {
	out := filepath.Join(t.TempDir(), "run")
	cfg := parse(t, backend.Go, small)
	want, err := Train(t.Context(), cfg, options(out))
	if err != nil {
		t.Fatal(err)
	}
	victim := filepath.Join(out, "cuts", "00000030", "chains.safetensors")
	raw, err := os.ReadFile(victim)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(victim, raw[:len(raw)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	opts := options(out)
	opts.Resume, opts.Progress = true, &said
	got, err := Train(t.Context(), cfg, opts)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said.String(), "truncated") || !strings.Contains(said.String(), "resumed at step 0") {
		t.Errorf("said %q, want what was skipped and where it went on", said.String())
	}
	if got.Digest != want.Digest {
		t.Errorf("digest %s, want %s", got.Digest, want.Digest)
	}
}

func TestNonFiniteLossNamesStepPlaceAndLastCut(t *testing.T) {
	for _, kind := range kinds() {
		t.Run(kind, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "run")
			// A Langevin chain on a Gaussian base with a step of 6 times its variance grows by 5 every step.
			cfg := parse(t, kind, small, "loss.kind=persistent_cd", "tempering.rungs=1", "model.base=gaussian", "sampler={kind: langevin, steps: 10, step_size: 6}", "buffer.reinit=0")
			_, err := Train(t.Context(), cfg, options(out))
			if err == nil || !strings.Contains(err.Error(), "step ") || !strings.Contains(err.Error(), "norm of the gradient is +Inf") || !strings.Contains(err.Error(), filepath.Join(out, "cuts", "00000000")) {
				t.Errorf("error %v, want the step, the place and the last good cut", err)
			}
			if _, err := os.Stat(filepath.Join(out, "cuts", "00000000", "manifest.json")); err != nil {
				t.Errorf("the last good cut: %v", err)
			}
			// With a step of 10,000 they have left before the first step: there is nothing to go on from, and nothing stays.
			at := filepath.Join(t.TempDir(), "at-once")
			cfg = parse(t, kind, small, "loss.kind=persistent_cd", "tempering.rungs=1", "model.base=gaussian", "sampler={kind: langevin, steps: 10, step_size: 1e4}", "buffer.reinit=0")
			if _, err := Train(t.Context(), cfg, options(at)); err == nil || !strings.Contains(err.Error(), "step 0: coordinate of a chain") {
				t.Errorf("error %v, want the chain that left", err)
			}
			if names := leftovers(t, at); len(names) > 0 {
				t.Errorf("left behind: %v", names)
			}
		})
	}
}

// started is a trainer of the small experiment on the pure-Go backend before its first step.
func started(t *testing.T, sets ...string) (*Parts, *engine.Trainer) {
	t.Helper()
	p, err := Build(parse(t, backend.Go, small, sets...), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, l, err := p.Open(t.Context(), backend.Options{NoInstall: true})
	if err != nil {
		t.Fatal(err)
	}
	tr := l.(*engine.Trainer)
	t.Cleanup(func() {
		tr.Close()
		b.Close()
	})
	if err := tr.Start(); err != nil {
		t.Fatal(err)
	}
	return p, tr
}

// The compat mode has the original's buffer: 0.01·N(0, I) at first, and its chains move.
func TestOriginalsBufferStartsNearTheOrigin(t *testing.T) {
	_, tr := started(t, "loss={kind: persistent_cd, compat: torchebm}", "tempering.rungs=1", "buffer.size=50", "buffer.warmup=0",
		"sampler={kind: langevin, steps: 1, step_size: 1e-6}")
	chains, err := tr.TargetChains()
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range chains {
		if math.Abs(float64(v)) > 0.1 {
			t.Fatalf("chain %d starts at %g, want about 0.01", i/2, v)
		}
	}
}

// Warming up moves no chain but by the sampler's steps, whatever share of the columns starts afresh later.
func TestWarmUpAddsNothing(t *testing.T) {
	p, tr := started(t, "loss.kind=persistent_cd", "tempering.rungs=1", "buffer={size: 40, warmup: 6, reinit: 0.5}", "model.base=gaussian",
		"sampler={kind: langevin, steps: 2, step_size: 1e-9, noise_scale: 1e-9}")
	cut, err := tr.Cut()
	if err != nil {
		t.Fatal(err)
	}
	pool, err := checkpoint.Values[float32](cut.Files["chains"], "pool", 40, 2)
	if err != nil {
		t.Fatal(err)
	}
	// The columns are draws of the base, 2 deviations of the data wide; a draw added at each of the scans would widen them.
	for i := range 2 {
		sum, square := 0.0, 0.0
		for m := range 40 {
			v := (float64(pool[2*m+i]) - p.Base.Mean[i]) / p.Base.Std[i]
			sum, square = sum+v/40, square+v*v/40
		}
		if sd := math.Sqrt(square - sum*sum); sd < 0.6 || sd > 1.4 { // 1 ± 3.5 standard errors of 40 draws
			t.Errorf("coordinate %d: deviation %.2f of the base's, want 1", i, sd)
		}
	}
}

// A folder that is another run's must survive the failure of this one.
func TestFailedStartLeavesOtherRunsAlone(t *testing.T) {
	root := filepath.Join(t.TempDir(), "runs")
	f, err := createFolder(filepath.Join(root, "mine"))
	if err != nil {
		t.Fatal(err)
	}
	if f.made != root {
		t.Fatalf("made %s, want %s", f.made, root)
	}
	other := filepath.Join(root, "other", "file")
	if err := os.MkdirAll(filepath.Dir(other), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(other, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.removeUnstarted(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Errorf("the other run: %v", err)
	}
	if _, err := os.Stat(f.dir); !os.IsNotExist(err) {
		t.Errorf("the failed run's folder: %v, want none", err)
	}
}

// Every example trains, at a small size.
func TestExamplesTrain(t *testing.T) {
	for _, name := range testutil.Examples(t) {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(testutil.Root(), "examples", name+".yaml")
			whole, err := experiment.Load(file, nil)
			if err != nil {
				t.Fatal(err)
			}
			sets := []string{"train={steps: 3, batch: 32, frames: 1}", "evaluate={samples: 40, projections: 4}"}
			if whole.Backend.Kind == "auto" {
				sets = append(sets, "backend=xla:cpu")
			}
			if whole.Data.Path == "" {
				sets = append(sets, "data.test_samples=300")
			}
			if !whole.Model.IsField() {
				sets = append(sets, "tempering.chains=32", "evaluate.scans=2", "evaluate.measure=2")
			}
			if whole.Model.Kind == "transformer" { // it takes long to compile
				sets = append(sets, "model.depth=1", "sampler.integrator=heun", "sampler.steps=5")
			}
			if name == "article" { // its buffer of 10,000 at 100 steps would take as long as all the others
				sets = append(sets, "buffer={size: 256, warmup: 10, reinit: 0.05}")
			}
			cfg, err := experiment.Load(file, sets)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Train(t.Context(), cfg, options(filepath.Join(t.TempDir(), "run"))); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// The first example reaches the likelihood that the README states for five seeds: at most 0.36 nats, of which 0.289 are
// the entropy of the data's law.
func TestTwoMoonsReachesItsLikelihood(t *testing.T) {
	cfg, err := experiment.Load(filepath.Join(testutil.Root(), "examples", "two-moons.yaml"), []string{"backend=xla:cpu", "train.frames=0"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Train(t.Context(), cfg, options(filepath.Join(t.TempDir(), "run")))
	if err != nil {
		t.Fatal(err)
	}
	if ev := s.Evaluation; ev.NLL == nil || *ev.NLL > 0.36 || *ev.NLL < *ev.Entropy-4**ev.NLLError {
		t.Errorf("test NLL %v, want at most 0.36 and not below the entropy", ev.NLL)
	}
	// The ladder's log Z is that of the quadrature.
	if ev := s.Evaluation; ev.Evidence == nil || math.Abs(ev.Evidence.Bridge-*ev.LogZ) > 0.03 {
		t.Errorf("log Z by the bridge %+v, by quadrature %g, want them within 0.03", ev.Evidence, *ev.LogZ)
	}
}
