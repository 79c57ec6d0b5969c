package reference

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kelvin-ebm/kelvin/pkg/datasets"
	"github.com/kelvin-ebm/kelvin/pkg/integrators"
)

// exampleOf is a whole experiment around a component: what examples has for it, or its bare name, and the sections that no
// experiment can do without.
func exampleOf(family, name string) string {
	text, ok := examples[family+" "+name]
	if !ok {
		switch family {
		case "data":
			text = toyExample(name)
		case "interpolant", "coupling":
			text = fmt.Sprintf("loss:\n  kind: flow_matching\n  %s: %s\n", family, name)
		default:
			text = fmt.Sprintf("%s:\n  kind: %s\n", family, name)
		}
	}
	return whole(text)
}

// whole gives a text of sections the ones that an experiment cannot do without.
func whole(text string) string {
	text = strings.TrimLeft(text, "\n")
	if !strings.HasPrefix(text, "data:") && !strings.Contains(text, "\ndata:") {
		text = "data: {dataset: two_moons}\n" + text
	}
	if !strings.Contains(text, "\ntrain:") {
		text += "train: {steps: 5000}\n"
	}
	return text
}

// toyExample writes every option of a dataset at its default, but the seed.
func toyExample(name string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "data:\n  dataset: %s\n", name)
	for _, k := range datasets.Kinds() {
		for _, p := range k.Params {
			if k.Name == name && p.Default != nil {
				fmt.Fprintf(&b, "  %s: %v\n", p.Key, p.Default)
			}
		}
	}
	return b.String()
}

// integratorExample uses a scheme where it can be used: with noise, without, or inside of a proposal.
func integratorExample(k integrators.Kind) string {
	switch {
	case k.Name == "leapfrog":
		return exampleOf("sampler", "hmc")
	case k.Hamiltonian:
		return exampleOf("sampler", "rmhmc")
	case k.Adaptive:
		return whole("loss: {kind: flow_matching}\nsampler:\n  kind: flow\n  integrator: " + k.Name + "\n  atol: 1.0e-5\n  rtol: 1.0e-4\n")
	case k.SDE && slices.Contains([]string{"euler_maruyama", "backward_euler_maruyama"}, k.Name):
		return whole("sampler:\n  kind: langevin\n  integrator: " + k.Name + "\n")
	}
	return whole("loss: {kind: flow_matching}\nsampler:\n  kind: flow\n  integrator: " + k.Name + "\n  steps: 50\n")
}

const mnist = "data:\n  dataset: idx\n  path: train-images-idx3-ubyte.gz\n  labels: train-labels-idx1-ubyte.gz\n  dequantise: uniform\n  divide: 256\n"

// examples are the experiments of components that need more than their name, or are better shown with more.
var examples = map[string]string{
	"model mlp": `
model:
  kind: mlp
  hidden: [128, 128]
  activation: silu
  spectral_norm: true
`,
	"model conv": strings.Replace(mnist, "  labels: train-labels-idx1-ubyte.gz\n", "", 1) + `model:
  kind: conv
  image: [1, 28, 28]
  channels: [32, 64]
`,
	"model mixture": `
data:
  dataset: mixture
  means: [[-6], [6]]
  weights: [0.3, 0.7]
model:
  kind: mixture
  means: [[-5], [5]]
  logits: [0]
  std: 1
`,
	"model transformer": mnist + `model:
  kind: transformer
  image: [1, 28, 28]
  patch_size: 4
  embed_dim: 64
  depth: 4
  num_classes: 10
loss:
  kind: flow_matching
  label_dropout: 0.1
`,
	"model time_mlp": `
model:
  kind: time_mlp
  hidden_dim: 128
  depth: 3
loss: {kind: flow_matching}
`,
	"model field_mlp": `
model:
  kind: field_mlp
  hidden: [128, 128]
  energy: dot
loss: {kind: equilibrium_matching}
`,

	"loss parallel_tempering_cd": `
loss: {kind: parallel_tempering_cd}
sampler: {kind: mala, step_size: 0.003}
tempering: {rungs: 6}
`,
	"loss persistent_cd": `
loss:
  kind: persistent_cd
  energy_penalty: 0.001
sampler: {kind: langevin, steps: 10, step_size: 0.01}
`,
	"loss contrastive_divergence": `
loss: {kind: contrastive_divergence}
sampler: {kind: mala, steps: 20, step_size: 0.003}
`,
	"loss score_matching": `
loss:
  kind: score_matching
  hessian_method: hutchinson
  n_probes: 2
`,
	"loss sliced_score_matching": `
loss:
  kind: sliced_score_matching
  n_projections: 5
  variance_reduced: true
`,
	"loss denoising_score_matching": `
loss:
  kind: denoising_score_matching
  sigma_min: 0.05
  sigma_max: 2
  levels: 10
`,
	"loss equilibrium_matching": `
loss:
  kind: equilibrium_matching
  ct: truncated
  ct_threshold: 0.8
  coupling: exact_ot
model: {kind: field_mlp}
`,
	"loss flow_matching": `
loss:
  kind: flow_matching
  coupling: exact_ot
`,
	"loss energy_matching": `
loss:
  kind: energy_matching
  lambda_cd: {kind: hold_linear, start: 0, end: 2, hold: 0.5}
`,

	"sampler hmc": `
sampler:
  kind: hmc
  step_size: 0.05
  leapfrog_steps: 10
  mass: [1, 4]
`,
	"sampler rmhmc": `
sampler:
  kind: rmhmc
  step_size: 0.05
  metric_strength: 0.5
`,
	"sampler langevin": `
sampler:
  kind: langevin
  steps: 10
  step_size: {kind: cosine, start: 0.1, end: 0.01}
loss: {kind: persistent_cd}
`,
	"sampler annealed_langevin": `
loss: {kind: denoising_score_matching}
sampler:
  kind: annealed_langevin
  sigma_max: 3
  sigma_min: 1
  levels: 10
`,
	"sampler gradient_descent": `
loss: {kind: denoising_score_matching}
sampler:
  kind: gradient_descent
  step_size: 0.01
`,
	"sampler nesterov": `
loss: {kind: denoising_score_matching}
sampler:
  kind: nesterov
  step_size: 0.01
  momentum: 0.9
`,
	"sampler flow": `
loss: {kind: flow_matching}
sampler:
  kind: flow
  mode: sde
  steps: 250
  diffusion_form: sigma
  last_step: tweedie
`,

	"interpolant vp": `
loss:
  kind: flow_matching
  interpolant: {kind: vp, sigma_min: 0.1, sigma_max: 20}
`,
	"coupling sinkhorn": `
loss:
  kind: flow_matching
  coupling: {kind: sinkhorn, reg: 0.05, iterations: 100}
`,
	"coupling unbalanced_sinkhorn": `
loss:
  kind: flow_matching
  coupling: {kind: unbalanced_sinkhorn, reg_marginal: 0.5}
`,

	"schedule constant":          "optimizer:\n  lr: 0.001\n",
	"schedule exponential_decay": "optimizer:\n  lr: {kind: exponential_decay, start: 0.01, decay_rate: 0.999, min_value: 1.0e-4}\n",
	"schedule linear":            "optimizer:\n  lr: {kind: linear, start: 0.01, end: 1.0e-4}\n",
	"schedule cosine":            "sampler:\n  kind: langevin\n  step_size: {kind: cosine, start: 0.1, end: 0.01, steps: 1000}\nloss: {kind: persistent_cd}\n",
	"schedule multistep":         "optimizer:\n  lr: {kind: multistep, start: 0.01, milestones: [2000, 4000], gamma: 0.1}\n",
	"schedule warmup":            "optimizer:\n  lr:\n    kind: warmup\n    warmup_steps: 500\n    main: {kind: cosine, start: 0.01, end: 1.0e-4}\n",
	"schedule temperature":       "sampler:\n  kind: langevin\n  noise_scale: {kind: temperature, epsilon_max: 0.15, tau_star: 0.2, steps: 5000}\nloss: {kind: persistent_cd}\n",
	"schedule hold_linear":       "optimizer:\n  lr: {kind: hold_linear, start: 0.01, end: 1.0e-4, hold: 0.5}\n",
	"schedule hold_cosine":       "optimizer:\n  lr: {kind: hold_cosine, start: 0.01, end: 1.0e-4, hold: 0.5}\n",

	"data mixture": "data:\n  dataset: mixture\n  means: [[-6], [6]]\n  weights: [0.3, 0.7]\n  std: 1\n",

	"data npz":    "data:\n  dataset: npz\n  path: data/digits.npz\n  array: images\n  labels: labels\n  dequantise: uniform\n  divide: 17\n  standardise: true\n",
	"data npy":    "data:\n  dataset: npy\n  path: points.npy\n  standardise: true\n",
	"data idx":    mnist,
	"data images": "data:\n  dataset: images\n  path: faces\n  dequantise: uniform\n  divide: 256\n",
	"data csv":    "data:\n  dataset: csv\n  path: measurements.csv.gz\n  columns: [length, width]\n  labels: species\n  standardise: true\n  test_fraction: 0.1\n",
}

// sectionExamples are the experiments of the sections that belong to no component.
var sectionExamples = map[string]string{
	"file":      whole("name: moons\nseed: 7\ndata: {dataset: two_moons}\n"),
	"tempering": whole("loss: {kind: parallel_tempering_cd}\ntempering:\n  rungs: 6\n  chains: 128\n  ladder: adaptive\n  schedule: deo\n  adapt_every: 10\n"),
	"buffer":    whole("loss: {kind: persistent_cd}\nbuffer:\n  size: 10000\n  reinit: 0.05\n  init: data\n"),
	"optimizer": whole("optimizer:\n  kind: adamw\n  lr: {kind: cosine, start: 0.01, end: 1.0e-4}\n  weight_decay: 0.01\n  clip_norm: 1\n  ema: 0.999\n"),
	"averaging": whole("averaging:\n  groups: 4\n  every: 50\n  outer: nesterov\n  format: int8\n"),
	"train":     whole("data: {dataset: two_moons}\ntrain:\n  epochs: 100\n  batch: 128\n  cut_every: 30\n"),
	"evaluate":  whole("evaluate:\n  samples: 5000\n  scans: 500\n  measure: 2000\n  every: 1000\n"),
	"backend":   whole("backend:\n  kind: xla:cpu\n  threads: 2\n"),
}
