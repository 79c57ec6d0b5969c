package experiment

import (
	"reflect"
	"slices"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

const (
	temperedCD = "parallel_tempering_cd"
	plainPCD   = "persistent_cd"
	plainCD    = "contrastive_divergence"
)

// isSet says whether somebody chose the key's value: the file, a flag, a program, or an earlier Resolve.
func (c *Config) isSet(path string, value any) bool {
	if _, ok := c.origins[path]; ok {
		return true
	}
	return c.filled[path] || !reflect.ValueOf(value).IsZero()
}

// fill gives a key its default unless somebody chose its value.
func fill[T any](c *Config, path string, into *T, value T) {
	if c.isSet(path, *into) {
		return
	}
	*into = value
	c.filled[path] = true
}

// fillSection takes over the defaults of a section that knows its own: the keys that filled has and into leaves open.
func fillSection[T any](c *Config, section string, into *T, filled T) {
	before, after := reflect.ValueOf(*into), reflect.ValueOf(filled)
	keys, index := fields(before.Type())
	for _, key := range keys {
		if path := join(section, key); before.Field(index[key]).IsZero() && !after.Field(index[key]).IsZero() && !c.isSet(path, "") {
			reflect.ValueOf(into).Elem().Field(index[key]).Set(after.Field(index[key]))
			c.filled[path] = true
		}
	}
}

// Resolve fills the keys that nobody set, those too whose default hangs on other keys. A second call changes nothing.
func (c *Config) Resolve() {
	if c.filled == nil {
		c.filled = map[string]bool{}
	}
	fill(c, "name", &c.Name, "experiment")
	fill(c, "seed", &c.Seed, 0)
	fillSection(c, "data", &c.Data, c.Data.WithDefaults())

	fill(c, "loss.kind", &c.Loss.Kind, temperedCD)
	fill(c, "loss.compat", &c.Loss.Compat, "none")
	torch := c.Loss.Compat == "torchebm"
	fill(c, "loss.energy_penalty", &c.Loss.EnergyPenalty, pick(!c.Loss.Chains(), 0, pick(torch, 1e-3, 1e-4)))
	fill(c, "loss.data_noise", &c.Loss.DataNoise, 0)
	fillSection(c, "loss", &c.Loss, c.Loss.WithDefaults())

	fill(c, "train.batch", &c.Train.Batch, 128)
	fill(c, "train.split", &c.Train.Split, 1)
	fill(c, "train.cut_every", &c.Train.CutEvery, 10)
	fill(c, "train.log_every", &c.Train.LogEvery, 10)

	// The losses of transport learn a field; equilibrium matching can learn an energy as well.
	fill(c, "model.kind", &c.Model.Kind, pick(c.Loss.Kind == "equilibrium_matching" || c.Loss.Kind == "flow_matching", "time_mlp", "mlp"))
	fill(c, "train.frames", &c.Train.Frames, pick(c.Model.IsField(), 0, 40))

	t := &c.Tempering
	if !c.Model.IsField() {
		fill(c, "tempering.rungs", &t.Rungs, pick(len(t.Betas) > 0, len(t.Betas), pick(c.Loss.Kind == temperedCD, 6, 1)))
		fill(c, "tempering.chains", &t.Chains, c.Train.Batch)
		fillSection(c, "tempering", t, t.WithDefaults())
		fill(c, "tempering.virtual_swaps", &t.VirtualSwaps, false)
	}

	if modelTakes(c.Model.Kind, "base") && !c.Model.IsField() {
		fill(c, "model.base", &c.Model.Base, pick(c.tempered() && t.Path == "linear", "gaussian", "none"))
	}
	fillSection(c, "model", &c.Model, c.Model.WithDefaults())

	fill(c, "sampler.kind", &c.Sampler.Kind, c.usualSampler())
	if c.Sampler.IsFlow() {
		// A field is read as it was learnt.
		if c.Loss.Interpolant.Kind != "" {
			fill(c, "sampler.interpolant", &c.Sampler.Interpolant, c.Loss.Interpolant)
		}
		if c.Loss.Prediction != "" {
			fill(c, "sampler.prediction", &c.Sampler.Prediction, c.Loss.Prediction)
		}
		if negated, timed := c.negated(); negated {
			fill(c, "sampler.negate_velocity", &c.Sampler.NegateVelocity, new(true))
			fill(c, "sampler.time_invariant", &c.Sampler.TimeInvariant, new(!timed))
		}
	}
	fillSection(c, "sampler", &c.Sampler, c.Sampler.WithDefaults())

	if c.hasBuffer() {
		fill(c, "buffer.size", &c.Buffer.Size, pick(torch, max(10_000, t.Chains), t.Chains))
		fill(c, "buffer.reinit", &c.Buffer.Reinit, pick(c.Loss.Kind == plainPCD, 0.05, 0))
		fill(c, "buffer.init", &c.Buffer.Init, pick(c.hasReference() && !torch, "reference", "normal"))
		fill(c, "buffer.warmup", &c.Buffer.Warmup, pick(torch, 100, 0))
	}

	o := &c.Optimizer
	fill(c, "optimizer.kind", &o.Kind, "adam")
	fill(c, "optimizer.lr", &o.LR, schedules.Constant(1e-3))
	fill(c, "optimizer.beta1", &o.Beta1, 0.9)
	fill(c, "optimizer.beta2", &o.Beta2, 0.999)
	fill(c, "optimizer.epsilon", &o.Epsilon, 1e-8)
	fill(c, "optimizer.momentum", &o.Momentum, 0)
	fill(c, "optimizer.weight_decay", &o.WeightDecay, pick(o.Kind == "adamw", 0.01, 0))
	fill(c, "optimizer.clip_norm", &o.ClipNorm, 1)
	fill(c, "optimizer.clip_value", &o.ClipValue, 0)
	fill(c, "optimizer.ema", &o.EMA, 0)

	fillSection(c, "averaging", &c.Averaging, c.Averaging.WithDefaults())

	fill(c, "evaluate.samples", &c.Evaluate.Samples, 2000)
	fill(c, "evaluate.scans", &c.Evaluate.Scans, 200)
	fill(c, "evaluate.measure", &c.Evaluate.Measure, 500)
	fill(c, "evaluate.every", &c.Evaluate.Every, 0)
	fill(c, "evaluate.projections", &c.Evaluate.Projections, 256)

	fill(c, "backend.kind", &c.Backend.Kind, backend.DefaultConfig().Kind)
	fill(c, "backend.threads", &c.Backend.Threads, backend.DefaultConfig().Threads)

	if c.Train.Steps > 0 && c.Train.Epochs == 0 {
		c.stretch(c.Train.Steps)
	}
}

// TotalSteps is the number of optimizer steps of a run on nTrain training rows. Epochs are strung together: a batch may
// hold rows of two, and the last epoch is complete.
func (c *Config) TotalSteps(nTrain int) int {
	if c.Train.Epochs == 0 {
		return c.Train.Steps
	}
	rows := c.Train.Epochs * nTrain
	return (rows + c.Train.Batch - 1) / c.Train.Batch
}

// Complete decides what hangs on the number of training rows: the length of schedules that left it open.
func (c *Config) Complete(nTrain int) { c.stretch(max(1, c.TotalSteps(nTrain))) }

func (c *Config) stretch(steps int) {
	c.Loss = c.Loss.Over(steps)
	for _, s := range []*schedules.Config{&c.Sampler.StepSize, &c.Sampler.NoiseScale, &c.Optimizer.LR} {
		*s = s.Over(steps)
	}
}

// tempered says whether the experiment has a ladder of more than one rung.
func (c *Config) tempered() bool { return c.Tempering.Rungs > 1 }

// hasBuffer says whether the loss keeps chains in a replay buffer.
func (c *Config) hasBuffer() bool { return c.Loss.Chains() && c.Loss.Kind != plainCD }

// negated says whether the field that the loss teaches points from data to noise, and whether it is shown the time.
func (c *Config) negated() (is, timed bool) {
	l := c.Loss
	switch {
	case l.Kind == "equilibrium_matching" && l.Prediction == "velocity":
		return true, l.TimeInvariant != nil && !*l.TimeInvariant
	case l.NegateVelocity != nil && *l.NegateVelocity:
		return true, true
	}
	return false, false
}

// usualSampler is the kind of sampler that suits what the loss teaches.
func (c *Config) usualSampler() string {
	switch {
	case c.Model.IsField() && c.scores():
		return "langevin" // it has no energies to test a proposal by
	case c.Model.IsField():
		return "flow"
	case c.Loss.Kind == "equilibrium_matching":
		return "gradient_descent" // its energy has its minima at the data, and no law
	}
	return "mala"
}

// gradient says whether the field that the loss teaches stands for the gradient of an energy.
func (c *Config) gradient() bool {
	negated, timed := c.negated()
	return negated && !timed || c.scores()
}

// scores says whether the loss matches scores: a field that it teaches is the gradient of an energy, and no velocity.
func (c *Config) scores() bool {
	return slices.Contains([]string{"score_matching", "sliced_score_matching", "denoising_score_matching"}, c.Loss.Kind)
}

// unused says whether the experiment has no use for a whole section, and why.
func (c *Config) unused(section string) (why string, is bool) {
	switch {
	case section == "buffer" && c.Loss.Kind == plainCD:
		return "not used by loss.kind: " + plainCD + ", whose chains start at the data; want no buffer, or loss.kind: " + plainPCD, true
	case section == "buffer" && !c.hasBuffer():
		return "not used by loss.kind: " + c.Loss.Kind + ", which keeps no chains; want no buffer, or loss.kind: " + temperedCD, true
	case section == "tempering" && c.Model.IsField():
		return "not used by a vector field, which has no energy to temper; want no tempering, or model.energy: dot", true
	}
	return "", false
}

// idle says whether the experiment does not read a key of a section that it has a use for, and why.
func (c *Config) idle(path string) (why string, is bool) {
	switch path {
	case "optimizer.beta1", "optimizer.beta2", "optimizer.epsilon":
		return "not read by optimizer.kind: sgd, want adam or adamw, or no such key", c.Optimizer.Kind == "sgd"
	case "tempering.beta_min":
		return "not read on the linear path, whose hottest rung is the reference: want path: power, or no beta_min", c.Tempering.Path == "linear"
	case "averaging.every", "averaging.outer", "averaging.format":
		return "not read with one group, want averaging.groups of at least 2, or no such key", c.Averaging.Groups == 1
	case "train.split":
		return "not read by loss.kind: " + c.Loss.Kind + ", whose chains are cut into shards with their rows: want tempering.split, or no such key", c.Loss.Chains()
	case "tempering.gradient_on":
		return "not read with one shard a group, want tempering.split of at least 2 or placement: rung, or no such key", c.Tempering.Shards() < 2
	case "tempering.betas", "tempering.reference", "tempering.schedule", "tempering.exchange", "tempering.adapt_every":
		return "not read with one rung, want tempering.rungs of at least 2, or no such key", c.Tempering.Rungs == 1 && !(path == "tempering.adapt_every" && c.Sampler.AcceptTarget != nil)
	case "evaluate.measure", "evaluate.every":
		return "not read by a vector field, which has no density: want no such key", c.Model.IsField()
	case "evaluate.scans":
		return "not read by sampler.kind: " + c.Sampler.Kind + ", which makes a sample by a run of its own: want no scans", c.Sampler.IsFlow() || c.Sampler.Settles()
	}
	return "", false
}

// hasReference says whether there is a Gaussian that chains can be drawn from: rung 0 of a linear path, or the base.
func (c *Config) hasReference() bool {
	return c.tempered() && c.Tempering.Path == "linear" || c.Model.Base == "gaussian"
}

// modelTakes says whether a kind of energy has the option.
func modelTakes(kind, key string) bool {
	for _, k := range models.Kinds() {
		if k.Name != kind {
			continue
		}
		for _, p := range k.Params {
			if p.Key == key {
				return true
			}
		}
	}
	return false
}

func pick[T any](condition bool, yes, no T) T {
	if condition {
		return yes
	}
	return no
}
