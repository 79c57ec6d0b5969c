package local

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/couplings"
	"github.com/kelvin-ebm/kelvin/pkg/datasets"
	"github.com/kelvin-ebm/kelvin/pkg/integrators"
	"github.com/kelvin-ebm/kelvin/pkg/interpolants"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

// tinyEnergy and tinyField are what the rows of the tables below change.
const (
	tinyEnergy = `
name: tiny
seed: 5
data: {dataset: pinwheel, samples: 40, test_samples: 10}
model: {kind: mlp, hidden: [4]}
loss: {kind: score_matching}
sampler: {kind: mala, steps: 2, step_size: 0.01}
tempering: {rungs: 1, chains: 8}
train: {steps: 2, batch: 8, frames: 0}
evaluate: {samples: 8, projections: 2}
backend: {kind: KIND}
`
	tinyField = `
name: tiny-field
seed: 5
data: {dataset: pinwheel, samples: 40, test_samples: 10}
model: {kind: field_mlp, hidden: [4]}
loss: {kind: flow_matching}
sampler: {kind: flow, integrator: heun, steps: 2}
train: {steps: 2, batch: 8, frames: 0}
evaluate: {samples: 8, projections: 2}
backend: {kind: KIND}
`
)

// row is an experiment that reaches a component.
type row struct {
	name string // beside that of the kind, where a kind has several rows
	text string
	sets []string
	run  bool // by Train, with its evaluation and figures; the others stop after two steps and some samples
}

func anEnergy(sets ...string) []row { return []row{{text: tinyEnergy, sets: sets}} }
func aField(sets ...string) []row   { return []row{{text: tinyField, sets: sets}} }

// family is the kinds of one section and the experiments that reach them.
type family struct {
	name  string
	kinds []string
	rows  map[string][]row
}

func names[K any](kinds []K, name func(K) string) []string {
	var out []string
	for _, k := range kinds {
		out = append(out, name(k))
	}
	return out
}

// families are all components that an experiment can name. Add a row for a kind of your own. dir holds the files of dataFiles.
func families(dir string) []family {
	const chains = "loss.kind=persistent_cd"
	file := func(options string) string { return "data={path: " + dir + "/" + options + "}" }
	images := file("rows.idx, dataset: idx, labels: labels.idx, divide: 128")
	return []family{
		{"loss", losses.KindNames(), map[string][]row{
			"parallel_tempering_cd":  anEnergy("loss.kind=parallel_tempering_cd", "tempering.rungs=3"),
			"persistent_cd":          anEnergy("loss.kind=persistent_cd", "buffer.size=16"),
			"contrastive_divergence": anEnergy("loss.kind=contrastive_divergence"),
			"score_matching":         {{text: tinyEnergy, sets: []string{"sampler={kind: hmc, steps: 1, leapfrog_steps: 2}", "evaluate.scans=2"}, run: true}},
			"sliced_score_matching": append(anEnergy("loss={kind: sliced_score_matching, n_projections: 1}"),
				aField("loss={kind: sliced_score_matching, n_projections: 1}", "sampler={kind: langevin, steps: 2}")...), // a field for the gradient
			"denoising_score_matching": anEnergy("loss={kind: denoising_score_matching, sigma: 0.3}"),
			"equilibrium_matching":     {{text: tinyField, sets: []string{"loss={kind: equilibrium_matching}", "sampler={kind: nesterov, steps: 3, step_size: 0.01}"}, run: true}},
			"flow_matching":            aField("loss={kind: flow_matching}"),
			"energy_matching":          anEnergy("loss={kind: energy_matching, n_langevin_steps: 2}"),
		}},
		{"interpolant", interpolants.KindNames(), map[string][]row{
			"linear": aField("loss.interpolant=linear"),
			"cosine": aField("loss.interpolant=cosine"),
			"vp":     aField("loss.interpolant={kind: vp, sigma_min: 0.2, sigma_max: 10}"),
		}},
		{"coupling", couplings.KindNames(), map[string][]row{
			"independent":         aField("loss.coupling=independent"),
			"exact_ot":            aField("loss.coupling=exact_ot"),
			"sinkhorn":            aField("loss.coupling={kind: sinkhorn, reg: 0.1, iterations: 20}"),
			"unbalanced_sinkhorn": aField("loss.coupling={kind: unbalanced_sinkhorn, reg_marginal: 2}"),
			"greedy":              aField("loss.coupling=greedy"),
		}},
		{"sampler", samplers.KindNames(), map[string][]row{
			"mala":              anEnergy(chains, "sampler={kind: mala, steps: 2}"),
			"langevin":          anEnergy(chains, "sampler={kind: langevin, steps: 2, integrator: heun, clamp: [-4, 4]}"),
			"hmc":               anEnergy(chains, "sampler={kind: hmc, steps: 1, leapfrog_steps: 2, mass: [1, 2]}"),
			"rmhmc":             anEnergy(chains, "sampler={kind: rmhmc, steps: 1, leapfrog_steps: 2, solver_steps: 2}"),
			"annealed_langevin": anEnergy(chains, "sampler={kind: annealed_langevin, steps: 4, levels: 2}"),
			"gradient_descent":  anEnergy("sampler={kind: gradient_descent, steps: 3}"),
			"nesterov":          anEnergy("sampler={kind: nesterov, steps: 3}"),
			"flow": {
				{name: " of mode ode", text: tinyField, sets: []string{"sampler={kind: flow, integrator: rk4, steps: 2}"}},
				{name: " of mode sde", text: tinyField, sets: []string{"sampler={kind: flow, mode: sde, steps: 3, diffusion_form: linear, last_step: euler}"}},
			},
		}},
		{"integrator", names(integrators.Kinds(), func(k integrators.Kind) string { return k.Name }), map[string][]row{
			"euler_maruyama":          aField("sampler={kind: flow, mode: sde, integrator: euler_maruyama, steps: 3}"),
			"backward_euler_maruyama": anEnergy("sampler={kind: langevin, integrator: backward_euler_maruyama, steps: 2}"),
			"heun":                    aField("sampler.integrator=heun"),
			"midpoint":                aField("sampler.integrator=midpoint"),
			"rk4":                     aField("sampler.integrator=rk4"),
			"rk438":                   aField("sampler.integrator=rk438"),
			"adaptive_heun":           aField("sampler={kind: flow, integrator: adaptive_heun, rtol: 0.01, atol: 0.01}"),
			"bosh3":                   aField("sampler={kind: flow, integrator: bosh3, rtol: 0.01, atol: 0.01}"),
			"dopri5":                  aField("sampler={kind: flow, integrator: dopri5, rtol: 0.01, atol: 0.01}"),
			"dopri8":                  aField("sampler={kind: flow, integrator: dopri8, rtol: 0.01, atol: 0.01}"),
			"leapfrog":                anEnergy("sampler={kind: hmc, steps: 1, leapfrog_steps: 3}"),
			"generalised_leapfrog":    anEnergy("sampler={kind: rmhmc, steps: 1, leapfrog_steps: 2, solver_steps: 2}"),
		}},
		{"model", trainable(), map[string][]row{
			"mlp":  anEnergy("model={kind: mlp, hidden: [4], spectral_norm: true, base: gaussian}"),
			"conv": anEnergy(images, "model={kind: conv, channels: [2, 2]}"),
			"mixture": anEnergy("model={kind: mixture, means: [[-1, 0], [1, 0]], logits: [1], std: 0.3}", chains, "sampler={kind: mala, steps: 2}",
				"buffer={init: point, point: [1, 0]}"),
			"transformer": {
				{name: ", an energy", text: tinyEnergy, sets: []string{images, "model={kind: transformer, embed_dim: 8, depth: 1, num_heads: 2, time_frequencies: 4, energy: l2}"}},
				{name: ", a field with labels", text: tinyField, sets: []string{images, "model={kind: transformer, embed_dim: 8, depth: 1, num_heads: 2, time_frequencies: 4, num_classes: 3}"}},
			},
			"time_mlp": {
				{name: ", an energy", text: tinyEnergy, sets: []string{"model={kind: time_mlp, hidden_dim: 4, depth: 1, time_frequencies: 4, energy: l2}"}},
				{name: ", a field with labels", text: tinyField, sets: []string{"model={kind: time_mlp, hidden_dim: 4, depth: 1, time_frequencies: 4, num_classes: 5}",
					"loss={kind: flow_matching, label_dropout: 0.5}", "sampler.guidance_scale=2"}, run: true},
			},
			"field_mlp": {
				{name: ", an energy", text: tinyEnergy, sets: []string{"model={kind: field_mlp, hidden: [4], energy: dot}"}},
				{name: ", a field", text: tinyField},
			},
		}},
		{"dataset", names(datasets.Kinds(), func(k datasets.Kind) string { return k.Name }), map[string][]row{
			"two_moons":        anEnergy("data={dataset: two_moons, samples: 40, test_samples: 0}"),
			"gaussian_mixture": anEnergy("data={dataset: gaussian_mixture, samples: 40, test_samples: 0}"),
			"eight_gaussians":  anEnergy("data={dataset: eight_gaussians, samples: 40, test_samples: 0}"),
			"swiss_roll":       anEnergy("data={dataset: swiss_roll, samples: 40, test_samples: 0}"),
			"circle":           anEnergy("data={dataset: circle, samples: 40, test_samples: 0}"),
			"checkerboard":     anEnergy("data={dataset: checkerboard, samples: 40, test_samples: 0}"),
			"pinwheel":         anEnergy("data={dataset: pinwheel, samples: 40, test_samples: 0}"),
			"grid":             anEnergy("data={dataset: grid, per_dim: 6, test_samples: 0}"),
			"mixture":          anEnergy("data={dataset: mixture, means: [[-1, 0], [1, 0]], weights: [1, 3], samples: 40, test_samples: 0}"),
			"npz":              anEnergy(file("rows.npz, dataset: npz, array: x, labels: y, standardise: true")),
			"npy":              anEnergy(file("rows.npy, dataset: npy, dequantise: uniform, divide: 256")),
			"idx":              anEnergy(images),
			"images":           anEnergy(file("images, dataset: images, divide: 255")),
			"csv":              anEnergy(file("rows.csv, dataset: csv, columns: [b, a], labels: label")),
		}},
		{"schedule", names(schedules.Kinds(), func(k schedules.Kind) string { return k.Name }), map[string][]row{
			"constant":          anEnergy("optimizer.lr={kind: constant, start: 0.01}"),
			"exponential_decay": anEnergy("optimizer.lr={kind: exponential_decay, start: 0.01, decay_rate: 0.9}"),
			"linear":            anEnergy("optimizer.lr={kind: linear, start: 0.01, end: 0.001}"),
			"cosine":            anEnergy("optimizer.lr={kind: cosine, start: 0.01, end: 0.001}"),
			"multistep":         anEnergy("optimizer.lr={kind: multistep, start: 0.01, milestones: [1]}"),
			"warmup":            anEnergy("optimizer.lr={kind: warmup, warmup_steps: 1, main: {kind: linear, start: 0.01, end: 0.001}}"),
			"temperature":       anEnergy("optimizer.lr={kind: temperature, epsilon_max: 0.01, tau_star: 0, steps: 2}"),
			"hold_linear":       anEnergy("optimizer.lr={kind: hold_linear, start: 0.01, end: 0.001}"),
			"hold_cosine":       anEnergy("optimizer.lr={kind: hold_cosine, start: 0.01, end: 0.001, hold: 0.2}"),
		}},
	}
}

// trainable are the kinds of model with parameters.
func trainable() []string {
	return slices.DeleteFunc(names(models.Kinds(), func(k models.Kind) string { return k.Name }), func(name string) bool {
		return slices.Contains(models.AnalyticKinds(), name)
	})
}

// dataFiles writes 30 rows of 16 numbers, 4×4 images, in every format, with labels 0 to 2. The table has two columns.
func dataFiles(t *testing.T) string {
	t.Helper()
	const n, side, classes = 30, 4, 3
	dir := t.TempDir()
	write := func(name string, raw []byte) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	pixels, labels, table := make([]uint8, n*side*side), make([]uint8, n), "a,label,b\n"
	for i := range pixels {
		pixels[i] = uint8(37 * i * i % 251)
	}
	for i := range n {
		labels[i] = uint8(i % classes)
		table += fmt.Sprintf("%d,%s,%g\n", i%7, []string{"red", "green", "blue"}[i%classes], math.Sin(float64(i)))
		var b bytes.Buffer
		must(png.Encode(&b, &image.Gray{Pix: pixels[i*side*side : (i+1)*side*side], Stride: side, Rect: image.Rect(0, 0, side, side)}))
		write(fmt.Sprintf("images/%d/%02d.png", i%classes, i), b.Bytes())
	}
	write("rows.csv", []byte(table))
	write("rows.idx", append([]byte{0, 0, 8, 3, 0, 0, 0, n, 0, 0, 0, side, 0, 0, 0, side}, pixels...))
	write("labels.idx", append([]byte{0, 0, 8, 1, 0, 0, 0, n}, labels...))
	var npz bytes.Buffer
	must(datasets.WriteNPZ(&npz, []datasets.Array{{Name: "x", Shape: []int{n, side * side}, Data: pixels}, {Name: "y", Shape: []int{n}, Data: labels}}))
	write("rows.npz", npz.Bytes())
	z, err := zip.NewReader(bytes.NewReader(npz.Bytes()), int64(npz.Len()))
	must(err)
	x, err := z.Open("x.npy")
	must(err)
	npy, err := io.ReadAll(x)
	must(err)
	write("rows.npy", npy)
	return dir
}

// Every component that the tables of kinds describe can be named by an experiment, trains and gives samples.
func TestEveryComponentIsReachedFromYAML(t *testing.T) {
	for _, f := range families(dataFiles(t)) {
		for _, kind := range f.kinds {
			if len(f.rows[kind]) == 0 {
				t.Errorf("%s %s: no experiment reaches it: add a row to families", f.name, kind)
			}
			for _, r := range f.rows[kind] {
				t.Run(f.name+" "+kind+r.name, func(t *testing.T) {
					if r.run {
						trainWhole(t, r)
					} else {
						trainTwoSteps(t, r)
					}
				})
			}
		}
		for kind := range f.rows {
			if !slices.Contains(f.kinds, kind) {
				t.Errorf("%s %s: a row of families for a kind that is not there", f.name, kind)
			}
		}
	}
}

// trainTwoSteps makes two training steps and draws some samples.
func trainTwoSteps(t *testing.T, r row) {
	p, err := Build(parse(t, backend.Go, r.text, r.sets...), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, l, err := p.Open(t.Context(), backend.Options{NoInstall: true})
	if err != nil {
		t.Fatal(err)
	}
	run := &Run{Parts: p, Backend: b, Trainer: l}
	defer func() {
		if err := run.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	before, err := l.Theta()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := l.TrainStep(); err != nil { // a loss or a gradient that is not finite is an error
			t.Fatal(err)
		}
	}
	after, err := l.Theta()
	if err != nil {
		t.Fatal(err)
	}
	if slices.Equal(before, after) {
		t.Error("two steps of training moved no parameter")
	}
	const n = 5
	s, err := run.Samples(t.Context(), DrawOptions{Samples: n, Burn: 1, Gap: 1})
	if err != nil { // so is a sample
		t.Fatal(err)
	}
	if len(s.X) != n*p.Data.Dim || len(s.Labels) != min(p.Classes, 1)*n {
		t.Errorf("%d numbers and %d labels, want %d samples", len(s.X), len(s.Labels), n)
	}
}

// The energy −½|f|² of a field that starts at 0 has no slope in any weight: the loss says so, and the model starts elsewhere.
func TestTrainingThatWouldGoNowhere(t *testing.T) {
	out := filepath.Join(t.TempDir(), "run")
	model := "model={kind: time_mlp, hidden_dim: 4, depth: 1, time_frequencies: 4}"
	if _, err := Train(t.Context(), parse(t, backend.Go, tinyField, model, "loss={kind: equilibrium_matching, energy_type: l2}"), options(out)); !errors.Is(err, errNoSlope) {
		t.Errorf("error %v, want one that names the gradient of 0", err)
	}
	trainWhole(t, row{text: tinyEnergy, sets: []string{model, "model.energy=l2", "loss={kind: equilibrium_matching}", "evaluate.scans=2"}})
}

// trainWhole is a run from start to end, as on the command line.
func trainWhole(t *testing.T, r row) {
	out := filepath.Join(t.TempDir(), "run")
	s, err := Train(t.Context(), parse(t, backend.Go, r.text, r.sets...), options(out))
	if err != nil {
		t.Fatal(err)
	}
	if s.Steps != 2 || s.Evaluation.SlicedW1 == nil {
		t.Errorf("%d steps, evaluation %+v, want 2 steps and samples that were compared with the data", s.Steps, s.Evaluation)
	}
}
