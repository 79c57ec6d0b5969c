package experiment

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite golden files")

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// TestEveryFaultIsReportedAtOnce reads a file that is wrong in every way that a file can be.
func TestEveryFaultIsReportedAtOnce(t *testing.T) {
	raw, err := os.ReadFile("testdata/faults/many.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Parse("many.yaml", raw, []string{"train.epoch=3", "sampler.noise_scale=2", "model.hidden=[64, x]", "buffer", "name.first=x", "a..b=1", "loss.kind={"})
	if err == nil {
		t.Fatal("no fault found")
	}
	golden(t, "testdata/faults/many.golden", []byte(err.Error()+"\n"))
}

const minimal = "data: {dataset: two_moons}\ntrain: {steps: 100}\n"

func TestFaults(t *testing.T) {
	for _, tc := range []struct {
		name string
		yaml string
		sets []string
		want []string // first lines of the faults, in order
	}{
		{"an empty file", "", nil, []string{"f.yaml: empty, want sections such as data, model and train; `coordinator config schema` has them all"}},
		{"comments only", "# nothing\n", nil, []string{"f.yaml: empty, want sections such as data, model and train; `coordinator config schema` has them all"}},
		{"no map", "- a\n- b\n", nil, []string{"f.yaml:1:1: a list, want sections such as data, model and train"}},
		{"a word", "hello\n", nil, []string{`f.yaml:1:1: the text "hello", want sections such as data, model and train`}},
		{"an unknown section", minimal + "smapler: {kind: mala}\n", nil, []string{"f.yaml:3:1: unknown key `smapler`, did you mean `sampler`?"}},
		{"faults below a misspelt section", minimal + "smapler: {kind: male, stesp: 3}\n", nil, []string{
			"f.yaml:3:1: unknown key `smapler`, did you mean `sampler`?",
			`f.yaml:3:11: sampler.kind: "male", want one of mala, langevin, hmc, rmhmc, annealed_langevin, gradient_descent, nesterov, flow`,
			"f.yaml:3:23: unknown key `stesp` in `sampler`, did you mean `steps`?"}},
		{"an unknown key in a flow map", "data: {dataset: two_moons, nois: 0.05}\ntrain: {steps: 100}\n", nil, []string{"f.yaml:1:28: unknown key `nois` in `data`, did you mean `noise`?"}},
		{"a dash for an underscore", minimal + "sampler: {step-size: 0.1}\n", nil, []string{"f.yaml:3:11: unknown key `step-size` in `sampler`, did you mean `step_size`?"}},
		{"a key of another section", minimal + "sampler: {rungs: 6}\n", nil, []string{"f.yaml:3:11: unknown key `rungs` in `sampler`, did you mean `tempering.rungs`?"}},
		{"a key of a section on top", minimal + "clip_norm: 6\n", nil, []string{"f.yaml:3:1: unknown key `clip_norm`, did you mean `optimizer.clip_norm`?"}},
		{"dots in the file", minimal + "sampler.steps: 6\n", nil, []string{"f.yaml:3:1: unknown key `sampler.steps`, did you mean `sampler: {steps: …}`? (dots are for --set)"}},
		{"a key that is near to none", minimal + "loss: {wavelength: 6}\n", nil, []string{"f.yaml:3:8: unknown key `wavelength` in `loss`, want one of kind, energy_penalty, gradient_penalty, data_noise"}},

		{"text for a whole number", minimal + "sampler: {steps: ten}\n", nil, []string{`f.yaml:3:11: sampler.steps: the text "ten", want a whole number`}},
		{"a quoted number", minimal + "sampler: {steps: '10'}\n", nil, []string{`f.yaml:3:11: sampler.steps: the text "10", want a whole number`}},
		{"a fraction for a whole number", minimal + "sampler: {steps: 2.5}\n", nil, []string{"f.yaml:3:11: sampler.steps: the number 2.5, want a whole number"}},
		{"a number beyond int", minimal + "sampler: {steps: 99999999999999999999}\n", nil, []string{"f.yaml:3:11: sampler.steps: 99999999999999999999, want a smaller whole number"}},
		{"a negative seed", minimal + "seed: -1\n", nil, []string{"f.yaml:3:1: seed: -1, want a whole number from 0 to 18446744073709551615"}},
		{"a seed beyond uint64", minimal + "seed: 18446744073709551616\n", nil, []string{"f.yaml:3:1: seed: 18446744073709551616, want a whole number from 0 to 18446744073709551615"}},
		{"a leading zero is no octal", minimal + "seed: 017\n", nil, nil},
		{"yes for true", minimal + "model: {spectral_norm: yes}\n", nil, []string{`f.yaml:3:9: model.spectral_norm: the text "yes", want true or false`}},
		{"a number for text", minimal + "name: 2026\n", nil, []string{`f.yaml:3:1: name: the number 2026, want text; with quotes it is: "2026"`}},
		{"a list for a number", minimal + "optimizer: {clip_norm: [1]}\n", nil, []string{"f.yaml:3:13: optimizer.clip_norm: a list, want a number"}},
		{"a number for a list", minimal + "model: {hidden: 64}\n", nil, []string{"f.yaml:3:9: model.hidden: the number 64, want a list of whole numbers such as [64, 64]"}},
		{"text in a list", minimal + "model: {hidden: [64, x]}\n", nil, []string{`f.yaml:3:22: model.hidden[1]: the text "x", want a whole number`}},
		{"a list for a section", minimal + "sampler: [mala]\n", nil, []string{"f.yaml:3:1: sampler: a list, want a section with the keys kind, steps, step_size, box, target_accept"}},
		{"a word for a section", minimal + "sampler: mala\n", nil, []string{`f.yaml:3:1: sampler: the text "mala", want a section with the keys kind, steps, step_size, box, target_accept`}},
		{"no value", minimal + "sampler: {steps: }\n", nil, []string{"f.yaml:3:11: sampler.steps: no value, want a whole number, or leave the key out for its default"}},
		{"no value for a schedule", minimal + "sampler:\n  step_size:\n", nil, []string{"f.yaml:4:3: sampler.step_size: no value, want a number or a schedule, or leave the key out for its default"}},

		{"a number that is none", minimal + "optimizer: {clip_norm: .nan}\n", nil, []string{"f.yaml:3:13: optimizer.clip_norm: .nan, want a finite number"}},
		{"NaN as others write it", minimal + "optimizer: {clip_norm: NaN}\n", nil, []string{"f.yaml:3:13: optimizer.clip_norm: NaN, want a finite number"}},
		{"an infinite number", minimal + "sampler: {step_size: .inf}\n", nil, []string{"f.yaml:3:11: sampler.step_size: .inf, want a finite number"}},
		{"minus infinity in a list", minimal + "sampler: {kind: langevin, clamp: [-.inf, 1]}\n", nil, []string{"f.yaml:3:35: sampler.clamp[0]: -.inf, want a finite number"}},
		{"a number beyond float64", minimal + "sampler: {step_size: 1e999}\n", nil, []string{"f.yaml:3:11: sampler.step_size: 1e999, want a number between -1.8e308 and 1.8e308"}},

		{"a negative step", minimal + "sampler: {step_size: -0.1}\n", nil, []string{"f.yaml:3:11: sampler.step_size: -0.1, want a positive number"}},
		{"a negative step in a schedule", minimal + "sampler: {step_size: {kind: linear, start: 0.1, end: -0.1}}\n", nil, []string{"f.yaml:3:49: sampler.step_size.end: -0.1, want a positive number"}},
		{"an unknown schedule", minimal + "optimizer: {lr: {kind: cosinus, start: 1}}\n", nil, []string{
			`f.yaml:3:18: optimizer.lr.kind: "cosinus", want one of constant, exponential_decay, linear, cosine, multistep, warmup, temperature, hold_linear, hold_cosine`}},
		{"a schedule without its values", minimal + "optimizer: {lr: {kind: linear, start: 1}}\n", nil, []string{
			"f.yaml:3:13: optimizer.lr.end: missing, kind linear needs it: value from step `steps` on"}},
		{"a fault in a nested schedule", minimal + "optimizer: {lr: {kind: warmup, warmup_steps: 10, main: {kind: linear, start: x, end: 0}}}\n", nil, []string{
			`f.yaml:3:71: optimizer.lr.main.start: "x", want a number`}},
		{"text for a schedule", minimal + "optimizer: {lr: fast}\n", nil, []string{`f.yaml:3:13: optimizer.lr: "fast", want a number or a map with kind`}},
		{"an unknown backend", minimal + "backend: tpu\n", nil, []string{`f.yaml:3:1: backend.kind: "tpu", want one of auto, xla:cuda, xla:cpu, go`}},
		{"no threads", minimal + "backend: {threads: 0}\n", nil, []string{"f.yaml:3:11: backend.threads: 0, want 1 to 1024"}},
		{"an unknown dataset", "data: {dataset: three_moons}\ntrain: {steps: 100}\n", nil, []string{
			`f.yaml:1:8: data.dataset: "three_moons", want one of two_moons, gaussian_mixture, eight_gaussians, swiss_roll, circle, checkerboard, pinwheel, grid, mixture, npz, npy, idx, images, csv`}},
		{"no dataset", "train: {steps: 100}\n", nil, []string{
			`f.yaml: data.dataset: missing, want one of two_moons, gaussian_mixture, eight_gaussians, swiss_roll, circle, checkerboard, pinwheel, grid, mixture, npz, npy, idx, images, csv`}},
		{"a file dataset without a path", "data: {dataset: npz}\ntrain: {steps: 100}\n", nil, []string{"f.yaml:1:1: data.path: missing, want a file name"}},
		{"neither steps nor epochs", "data: {dataset: two_moons}\ntrain: {batch: 3}\n", nil, []string{"f.yaml:2:1: train.steps: missing or 0, want steps or epochs, such as steps: 5000"}},
		{"steps and epochs", "data: {dataset: two_moons}\ntrain: {steps: 100, epochs: 3}\n", nil, []string{"f.yaml:2:21: train.epochs: 3 beside steps: 100, want one of the two"}},
		{"a name that is no folder", minimal + "name: ../x\n", nil, []string{`f.yaml:3:1: name: "../x", want at most 100 letters, digits, dots, dashes and underscores: it names the run's folder`}},
		{"rungs without tempering", minimal + "loss: {kind: persistent_cd}\ntempering: {rungs: 6}\n", nil, []string{
			"f.yaml:4:13: tempering.rungs: 6 under loss.kind: persistent_cd, want 1, or loss.kind: parallel_tempering_cd"}},
		{"a buffer that nobody uses", minimal + "loss: {kind: contrastive_divergence}\nbuffer: {size: 128, reinit: 0}\n", nil, []string{
			"f.yaml:4:10: buffer.size: not used by loss.kind: contrastive_divergence, whose chains start at the data; want no buffer, or loss.kind: persistent_cd",
			"f.yaml:4:21: buffer.reinit: not used by loss.kind: contrastive_divergence, whose chains start at the data; want no buffer, or loss.kind: persistent_cd"}},
		{"chains from the data", minimal + "loss: {kind: contrastive_divergence}\ntempering: {chains: 64}\n", nil, []string{
			"f.yaml:4:13: tempering.chains: 64, want train.batch = 128: under loss.kind: contrastive_divergence a chain starts at every row of the batch"}},
		{"a small buffer", minimal + "buffer: {size: 100}\n", nil, []string{"f.yaml:3:10: buffer.size: 100, want at least tempering.chains = 128"}},
		{"no reference to start from", minimal + "loss: {kind: persistent_cd}\nbuffer: {init: reference}\n", nil, []string{
			"f.yaml:4:10: buffer.init: reference needs a Gaussian to draw from, want tempering.path: linear with several rungs, model.base: gaussian, or init: normal"}},
		{"compat of another loss", minimal + "loss: {compat: torchebm}\n", nil, []string{`f.yaml:3:8: loss.compat: torchebm without effect here, want kind: persistent_cd, score_matching with hessian_method: hutchinson, or equilibrium_matching with prediction: score or noise and time_invariant: true`}},

		{"an energy for a transport", minimal + "model: {kind: mlp}\nloss: {kind: flow_matching}\n", nil, []string{
			"f.yaml:3:9: model.kind: mlp is an energy, and loss.kind: flow_matching learns a vector field: want one of transformer, time_mlp, field_mlp, with energy: none"}},
		{"a field for contrastive divergence", minimal + "model: {kind: field_mlp}\n", nil, []string{
			"f.yaml:3:9: model.kind: field_mlp is a vector field, and loss.kind: parallel_tempering_cd learns an energy: want model.energy: dot, or model.kind: mlp"}},
		{"chains that nobody keeps", minimal + "loss: {kind: score_matching}\nbuffer: {size: 200}\n", nil, []string{
			"f.yaml:4:10: buffer.size: not used by loss.kind: score_matching, which keeps no chains; want no buffer, or loss.kind: parallel_tempering_cd"}},
		{"a ladder for a field", minimal + "loss: {kind: flow_matching}\ntempering: {rungs: 3}\n", nil, []string{
			"f.yaml:4:13: tempering.rungs: not used by a vector field, which has no energy to temper; want no tempering, or model.energy: dot"}},
		{"a flow along an energy", minimal + "sampler: {kind: flow}\n", nil, []string{
			"f.yaml:3:11: sampler.kind: flow draws from a vector field, and model.kind: mlp is an energy: want mala, hmc or langevin"}},
		{"a test without energies", minimal + "loss: {kind: flow_matching}\nsampler: {kind: hmc}\n", nil, []string{
			"f.yaml:4:11: sampler.kind: hmc needs an energy for its test, and model.kind: time_mlp is a vector field: want flow, or model.energy: dot"}},
		{"minima for samples", minimal + "sampler: {kind: nesterov}\n", nil, []string{
			"f.yaml:3:11: sampler.kind: nesterov finds minima, and loss.kind: parallel_tempering_cd needs samples: want mala, hmc or langevin"}},
		{"another path than the trained one", minimal + "loss: {kind: flow_matching, interpolant: vp}\nsampler: {interpolant: linear}\n", nil, []string{
			"f.yaml:4:11: sampler.interpolant: not the path of loss.interpolant, on which the field is trained: want the same, or leave it out"}},
		{"labels for a model without", minimal + "loss: {kind: flow_matching, label_dropout: 0.1}\n", nil, []string{
			"f.yaml:3:29: loss.label_dropout: 0.1, want a conditional model (model.num_classes), or 0"}},

		{"zero for a default", minimal + "sampler: {kind: hmc, leapfrog_steps: 0}\n", nil, []string{"f.yaml:3:22: sampler.leapfrog_steps: 0, want at least 1"}},
		{"nothing for a word", minimal + "loss: {kind: flow_matching}\nsampler: {mode: \"\"}\n", nil, []string{"f.yaml:4:11: sampler.mode: empty, want a word, or leave the key out for its default"}},
		{"a key that sgd does not read", minimal + "optimizer: {kind: sgd, beta1: 0.5}\n", nil, []string{"f.yaml:3:24: optimizer.beta1: not read by optimizer.kind: sgd, want adam or adamw, or no such key"}},
		{"a ladder that is not given", minimal + "tempering: {ladder: fixed}\n", nil, []string{"f.yaml:3:1: tempering.betas: missing, want β of every rung under ladder: fixed, or another ladder"}},
		{"a ladder of another length", minimal + "tempering: {betas: [0, 0.5, 1], rungs: 4}\n", nil, []string{"f.yaml:3:13: tempering.betas: 3 numbers, want 4, one for each of rungs"}},
		{"a ladder that falls", minimal + "tempering: {betas: [0, 0.5, 0.4, 1], rungs: 4}\n", nil, []string{"f.yaml:3:13: tempering.betas: β = 0.4 on rung 2, want numbers that increase from 0 or more to 1"}},
		{"a ladder without the reference", minimal + "tempering: {betas: [0.1, 1], rungs: 2}\n", nil, []string{"f.yaml:3:13: tempering.betas: 0.1 on rung 0, want 0 on the linear path, whose hottest rung is the reference"}},
		{"a window of another schedule", minimal + "tempering: {window: 5}\n", nil, []string{"f.yaml:3:13: tempering.window: 5, not read by schedule: deo, want windowed, or no window"}},
		{"swaps without a ladder", minimal + "loss: {kind: persistent_cd}\ntempering: {virtual_swaps: true, schedule: seo}\n", nil, []string{
			"f.yaml:4:13: tempering.virtual_swaps: true on one rung, want rungs of at least 2, or false",
			"f.yaml:4:34: tempering.schedule: not read with one rung, want tempering.rungs of at least 2, or no such key"}},
		{"ladders that cannot be cut", minimal + "tempering: {chains: 10, split: 4}\n", nil, []string{"f.yaml:3:25: tempering.split: 4, want a divisor of chains, 10"}},
		{"a gradient of one shard", minimal + "tempering: {gradient_on: all}\n", nil, []string{
			"f.yaml:3:13: tempering.gradient_on: not read with one shard a group, want tempering.split of at least 2 or placement: rung, or no such key"}},
		{"a gradient on nobody", minimal + "tempering: {gradient_on: hot, split: 2}\n", nil, []string{`f.yaml:3:13: tempering.gradient_on: "hot", want one of cold, all`}},
		{"rows that cannot be cut", "data: {dataset: two_moons}\nloss: {kind: score_matching}\n\ntrain: {steps: 9, batch: 10, split: 4}\n", nil, []string{"f.yaml:4:30: train.split: 4, want a divisor of batch, 10"}},
		{"rows of chains", "data: {dataset: two_moons}\ntrain: {steps: 9, split: 2}\n", nil, []string{
			"f.yaml:2:19: train.split: not read by loss.kind: parallel_tempering_cd, whose chains are cut into shards with their rows: want tempering.split, or no such key"}},
		{"ladders of a loss without", minimal + "loss: {kind: score_matching}\ntempering: {split: 2}\n", nil, []string{
			"f.yaml:4:13: tempering.split: 2, want split: 1 and placement: ladder under loss.kind: score_matching, which keeps no chains; train.split cuts its rows"}},
		{"a trimmed mean on several shards", "data: {dataset: two_moons}\nloss: {kind: energy_matching}\ntrain: {steps: 9, split: 2}\n", nil, []string{
			"f.yaml:3:19: train.split: 2, want 1, for loss.cd_trim_fraction: 0.1 looks for the highest energies among all negatives"}},
		{"a buffer that cannot be cut", minimal + "tempering: {chains: 8, split: 4}\nbuffer: {size: 18}\n", nil, []string{
			"f.yaml:4:10: buffer.size: 18, want a multiple of tempering.split, 4: each shard keeps its part"}},
		{"a ring on several shards", "data: {dataset: two_moons}\nloss: {kind: persistent_cd, compat: torchebm}\ntempering: {chains: 8, split: 2}\ntrain: {steps: 9}\n", nil, []string{
			"f.yaml:3:24: tempering.split: 2, want split: 1 and placement: ladder under loss.compat: torchebm, whose buffer is one ring, or a buffer of tempering.chains columns with reinit: 0"}},
		{"an outer step of one group", minimal + "averaging: {outer: nesterov}\n", nil, []string{"f.yaml:3:13: averaging.outer: not read with one group, want averaging.groups of at least 2, or no such key"}},
		{"a place without its coordinates", minimal + "buffer: {init: point}\n", nil, []string{"f.yaml:3:1: buffer.point: missing, want the coordinates at which every chain starts under init: point"}},
		{"a likelihood of a field", minimal + "loss: {kind: flow_matching}\nevaluate: {every: 10}\n", nil, []string{"f.yaml:4:12: evaluate.every: not read by a vector field, which has no density: want no such key"}},
		{"a key of the other path", minimal + "tempering: {beta_min: 0.2}\n", nil, []string{"f.yaml:3:13: tempering.beta_min: not read on the linear path, whose hottest rung is the reference: want path: power, or no beta_min"}},
		{"a temperature on a ladder", minimal + "sampler: {kind: langevin, noise_scale: 0.5}\n", nil, []string{"f.yaml:3:27: sampler.noise_scale: on a ladder β is the temperature, want 1, or tempering.rungs: 1"}},
		{"no law for a ladder", minimal + "sampler: {kind: annealed_langevin}\n", nil, []string{"f.yaml:3:11: sampler.kind: annealed_langevin has no law to temper, want tempering.rungs: 1, or mala, hmc or langevin"}},
		{"a velocity for a gradient", minimal + "loss: {kind: flow_matching}\nsampler: {kind: langevin}\n", nil, []string{
			"f.yaml:4:11: sampler.kind: langevin follows the gradient of an energy, and what loss.kind: flow_matching teaches is none: want flow"}},
		{"a score for a velocity", minimal + "model: {kind: field_mlp}\nloss: {kind: score_matching}\nsampler: {kind: flow}\n", nil, []string{
			"f.yaml:5:11: sampler.kind: flow follows a velocity, and loss.kind: score_matching teaches the gradient of an energy: want langevin"}},
		{"a label that nobody has", minimal + "model: {kind: time_mlp, num_classes: 2}\nloss: {kind: flow_matching}\nsampler: {label: 7}\n", nil, []string{
			"f.yaml:5:11: sampler.label: 7, want 0 to 1"}},

		{"duplicate keys", minimal + "sampler:\n  steps: 3\n  kind: mala\n  steps: 4\nsampler: {}\n", nil, []string{
			"f.yaml:6:3: a second `steps`, the first is on line 4",
			"f.yaml:7:1: a second `sampler`, the first is on line 3"}},
		{"an anchor and an alias", minimal + "sampler: &s {steps: 3}\nloss: *s\n", nil, []string{
			"f.yaml:3:10: an anchor, want the value itself: an experiment has no anchors, aliases, merges or tags",
			"f.yaml:4:7: an alias, want the value itself: an experiment has no anchors, aliases, merges or tags"}},
		{"a merge", minimal + "<<: {seed: 3}\n", nil, []string{"f.yaml:3:1: a merge, want the value itself: an experiment has no anchors, aliases, merges or tags"}},
		{"a tag", minimal + "seed: !!int 3\n", nil, []string{"f.yaml:3:7: a tag, want the value itself: an experiment has no anchors, aliases, merges or tags"}},
		{"two documents", minimal + "---\nseed: 3\n", nil, []string{"f.yaml:3:1: a second document, want one experiment a file"}},
		{"a tab", "data:\n\tdataset: two_moons\n", nil, []string{"f.yaml:2:1: a tab, want spaces: YAML takes no tabs before a key"}},
		{"an open bracket", minimal + "model: {hidden: [64\n", nil, []string{"f.yaml:3:17: opened here and never closed: sequence end token ']' not found"}},
		{"wrong indentation", "data:\n  dataset: two_moons\n noise: 3\n", nil, []string{"f.yaml:3:2: this line stands at no level of the lines above, want the same indentation for all keys of a section"}},
		{"two colons", "name: a: b\n", nil, []string{"f.yaml:1:7: a second colon, want one `key: value` a line, or quotes around the text"}},
		{"no UTF-8", "name: caf\xe9\n", nil, []string{"f.yaml:1:10: the byte 0xe9 is not UTF-8, want a text file saved as UTF-8"}},
		{"a control character", "name: x\nseed: \x00\n", nil, []string{"f.yaml:2:7: the control character 0x00, want a text file"}},

		{"an unknown key in a flag", minimal, []string{"smapler.steps=3"}, []string{"--set smapler.steps=3: unknown key `smapler`, did you mean `sampler`?"}},
		{"a wrong value in a flag", minimal, []string{"sampler.step_size=-0.1"}, []string{"--set sampler.step_size=-0.1: sampler.step_size: -0.1, want a positive number"}},
		{"a wrong type in a flag", minimal, []string{"sampler.steps=ten"}, []string{`--set sampler.steps=ten: sampler.steps: the text "ten", want a whole number`}},
		{"a flag without value", minimal, []string{"sampler.steps="}, []string{"--set sampler.steps=: sampler.steps: no value, want a whole number, or leave the key out for its default"}},
		{"a flag that is no assignment", minimal, []string{"sampler.steps"}, []string{"--set sampler.steps: want key=value, such as --set train.steps=100"}},
		{"a flag with an open map", minimal, []string{"optimizer.lr={kind: cosine"}, []string{"--set optimizer.lr={kind: cosine: opened here and never closed: could not find flow mapping end token '}'"}},
		{"a key inside a number", minimal + "optimizer: {lr: 0.001}\n", []string{"optimizer.lr.kind=cosine"}, []string{
			"--set optimizer.lr.kind=cosine: `optimizer.lr` is the number 0.001 in f.yaml:3:13 and has no `kind`, want the whole of it: --set 'optimizer.lr={kind: cosine, …}'"}},
		{"a key inside a list", minimal + "model: {hidden: [64, 64]}\n", []string{"model.hidden.0=32"}, []string{
			"--set model.hidden.0=32: `model.hidden` is a list, want the whole of it: --set 'model.hidden=[…]'"}},
		{"a flag below a fault of the file", minimal + "sampler: 3\n", []string{"sampler.steps=3"}, []string{
			"f.yaml:3:1: sampler: the number 3, want a section with the keys kind, steps, step_size, box, target_accept",
			"--set sampler.steps=3: `sampler` is the number 3 in f.yaml:3:1 and has no `steps`, want the whole of it: --set 'sampler={steps: 3, …}'"}},
		{"the last flag wins, and is blamed", minimal, []string{"sampler.steps=3", "sampler.steps=0"}, []string{"--set sampler.steps=0: sampler.steps: 0, want at least 1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse("f.yaml", []byte(tc.yaml), tc.sets)
			var got []string
			var faults *Error
			if errors.As(err, &faults) {
				for _, f := range faults.Faults {
					got = append(got, f.At.String()+": "+f.Text)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	huge := filepath.Join(dir, "huge.yaml")
	if err := os.WriteFile(huge, []byte(strings.Repeat("# nothing to see\n", 1<<17)), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ path, want string }{
		{filepath.Join(dir, "none.yaml"), "no such file"},
		{dir, "a folder, want an experiment file in it"},
		{filepath.Join(huge, "x"), "cannot be opened: not a directory"},
		{huge, "larger than 256 KiB, want an experiment: a few lines of YAML"},
	} {
		_, err := Load(tc.path, nil)
		if err == nil || err.Error() != tc.path+": "+tc.want {
			t.Errorf("%v, want %s: %s", err, tc.path, tc.want)
		}
	}
}

// TestHostileFilesEnd reads what could take a parser very long, or down.
func TestHostileFilesEnd(t *testing.T) {
	for name, text := range map[string]string{
		"brackets":        strings.Repeat("[", 200_000),
		"braces":          strings.Repeat("{a: ", 60_000),
		"lists in a line": strings.Repeat("- ", 100_000),
		"deep lists":      "model: {hidden: " + strings.Repeat("[", 90) + strings.Repeat("]", 90) + "}",
		"many keys":       strings.Repeat("k: 1\n", 40_000),
		"fewer keys":      strings.Repeat("k: 1\n", 5_000),
		"many faults":     "data: {dataset: x}\n" + strings.Repeat("- 3\n", 100),
		"long numbers":    "seed: " + strings.Repeat("9", 100_000),
		"a long key":      strings.Repeat("k", 100_000) + ": 1",
		"quotes":          strings.Repeat("'", 200_000),
		"questions":       strings.Repeat("? ", 100_000),
		"question lines":  strings.Repeat("? x\n", 5_000),
		"open documents":  strings.Repeat("---\n", 5_000),
	} {
		if _, err := Parse("f.yaml", []byte(text), nil); err == nil {
			t.Errorf("%s: no fault", name)
		} else if n := len(err.Error()); n > 10_000 {
			t.Errorf("%s: an error of %d bytes", name, n)
		}
	}
}

func TestExcerptsAreShortAndHarmless(t *testing.T) {
	long := "data: {dataset: two_moons, " + strings.Repeat(" ", 200) + "nois: 3}   # " + strings.Repeat("x", 200)
	_, err := Parse("f.yaml", []byte(long+"\ntrain: {steps: 1}\r\nname: \"\u009b2J\"\r\n"), nil)
	want := "f.yaml: 2 faults\n" +
		"f.yaml:1:228: unknown key `nois` in `data`, did you mean `noise`?\n" +
		"    1 | …" + strings.Repeat(" ", 40) + "nois: 3}   # " + strings.Repeat("x", 57) + "…\n" +
		"      | " + strings.Repeat(" ", 41) + "^^^^\n" +
		"f.yaml:3:1: name: \"\\u009b2J\", want at most 100 letters, digits, dots, dashes and underscores: it names the run's folder\n" +
		"    3 | name: \"\uFFFD2J\"\n" +
		"      | ^^^^"
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestNearest(t *testing.T) {
	keys := []string{"kind", "steps", "step_size", "noise_scale", "clamp"}
	for _, tc := range []struct{ written, want string }{
		{"stpes", "steps"}, {"Steps", "steps"}, {"step", "steps"}, {"step-size", "step_size"}, {"stepsize", "step_size"},
		{"knd", "kind"}, {"noise", ""}, {"x", ""}, {"", ""}, {"temperature", ""}, {"clmap", "clamp"},
	} {
		if got, ok := nearest(tc.written, keys); got != tc.want || ok != (tc.want != "") {
			t.Errorf("nearest(%q) = %q, %v, want %q", tc.written, got, ok, tc.want)
		}
	}
}
