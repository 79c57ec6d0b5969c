package experiment

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/buffer"
	"github.com/kelvin-ebm/kelvin/pkg/datasets"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// keyDoc describes a key for people and for the JSON schema.
type keyDoc struct {
	text    string
	follows string   // the keys that its default hangs on
	oneOf   []string // the words that it takes
	min     any      // smallest number; nil for none
	above   any      // bound that a number must exceed; nil for none
	max     any
	below   any
}

// docs describes every key of Config outside `data` and `model`, whose packages describe their own.
func docs() map[string]keyDoc {
	return map[string]keyDoc{
		"name": {text: "name of the run and of its folder", follows: "the file's name"},
		"seed": {text: "seed of everything random: the same seed on the same backend gives the same bits", min: 0},

		"data":         {text: "what the model learns; each dataset has its own keys"},
		"data.dataset": {text: "a toy law, or a file", oneOf: datasetNames()},

		"model":      {text: "the energy E(x) = f(x), or f(x) − log q(x) with a Gaussian base q; p(x) ∝ exp(−E(x))"},
		"model.kind": {text: "a network, or an analytic energy", oneOf: modelNames()},
		"model.base": {text: "gaussian: E = f − log q with q fitted to the data; none: E = f", follows: "tempering.path and tempering.rungs", oneOf: models.Bases()},

		"loss":      {text: "the training objective; each kind has its own keys"},
		"loss.kind": {text: "what is minimised", oneOf: losses.KindNames()},
		"loss.energy_penalty": {text: "weight of mean f², over the data and over the negatives where there are some, which keeps energies near zero; for a vector field, of the energy that it stands for",
			follows: "loss.kind and loss.compat", min: 0},
		"loss.gradient_penalty": {text: "weight of mean ‖∇E‖² over the data; of mean ‖f‖² for a field f", min: 0},
		"loss.data_noise":       {text: "standard deviation of Gaussian noise added to the training rows", min: 0},
		"loss.label_dropout":    {text: "share of the rows that are shown without their label", min: 0, max: 1},
		"loss.compat":           {text: "torchebm: as TorchEBM 0.8.9 does where ours differs on purpose, for comparison", oneOf: losses.Compats},

		"sampler":           {text: "the Markov chain that explores a rung between two swap sweeps, or the flow that draws from a field"},
		"sampler.kind":      {text: "how states move", follows: "model.kind and loss.kind", oneOf: samplers.KindNames()},
		"sampler.steps":     {text: "chain steps a scan; for a flow, steps from noise to data", follows: "sampler.kind", min: 1},
		"sampler.step_size": {text: "ε of the target rung, a number or a schedule over training steps; hotter rungs take longer steps", follows: "sampler.kind"},

		"tempering":                 {text: "the ladder of inverse temperatures β, from the reference at rung 0 to the model at β = 1"},
		"tempering.rungs":           {text: "rungs of the ladder, both ends included; 1 = no tempering", follows: "loss.kind", min: 1},
		"tempering.chains":          {text: "ladders side by side, each a chain on every rung; as many negatives a step", follows: "train.batch", min: 1},
		"tempering.scans":           {text: "scans (explore, then a swap sweep) a training step", min: 1},
		"tempering.ladder":          {text: "spacing of the β: adaptive moves it towards equal rejection on every pair; cubic is (j/N)³, geometric needs path: power, fixed takes betas", oneOf: tempering.Ladders},
		"tempering.betas":           {text: "β of every rung, hottest first, the last 1: a fixed ladder, or the start of an adaptive one"},
		"tempering.path":            {text: "linear: from a Gaussian reference, drawn afresh on rung 0, to exp(−E); power: exp(−βE)", oneOf: tempering.Paths},
		"tempering.beta_min":        {text: "β of the hottest rung on the power path, in (0, 1)", above: 0, below: 1},
		"tempering.reference":       {text: "gaussian: fitted to the data once; variational: refitted to the target rung, after ever longer times", oneOf: tempering.References},
		"tempering.schedule":        {text: "pairs of a scan: deo, even and odd ones in turn; seo, by a coin; windowed, each parity for a number of scans with one swap a pair at most", oneOf: tempering.Schedules},
		"tempering.window":          {text: "windowed: scans that a parity is held; 0 takes it from the rejection rates", min: 0},
		"tempering.exchange":        {text: "what an accepted swap moves: states between rows, or β and step sizes", oneOf: tempering.Exchanges},
		"tempering.placement":       {text: "what a shard holds, the unit that a replica takes: ladder, all rungs of some ladders; rung, one rung", oneOf: tempering.Placements},
		"tempering.split":           {text: "ranges that the ladders of a group are cut into: as many shards, or rungs times as many under placement: rung; a divisor of chains", min: 1},
		"tempering.gradient_on":     {text: "which shards of a group compute the gradient of a step: cold, the one that makes the optimizer's steps; all, each for a slice of the batch and of the negatives", follows: "tempering.placement and tempering.split", oneOf: tempering.Learners},
		"tempering.virtual_swaps":   {text: "take both states of a pair as negatives, weighted by the probability of their swap: the same mean, less variance"},
		"tempering.adapt_every":     {text: "training steps between two moves of ladder and step sizes", min: 1},
		"tempering.reference_scale": {text: "width of the Gaussian reference, in standard deviations of the training data", above: 0},

		"buffer":        {text: "the replay buffer: columns of chain states that persist from step to step"},
		"buffer.size":   {text: "columns kept, at least tempering.chains and a multiple of tempering.split, whose shards keep a part each", follows: "tempering.chains and loss.compat", min: 1},
		"buffer.reinit": {text: "share of the drawn columns that start afresh, in [0, 1]", follows: "loss.kind", min: 0, max: 1},
		"buffer.point":  {text: "coordinates at which every chain starts under init: point"},
		"buffer.init":   {text: "first states: drawn from the Gaussian reference, from N(0, I), or from the data (on a ladder those of the target rung), or all at one point", follows: "tempering.path, tempering.rungs and model.base", oneOf: buffer.Inits},
		"buffer.warmup": {text: "chain steps on the fresh chains before training", follows: "loss.compat", min: 0},

		"optimizer":              {text: "how gradients move the parameters"},
		"optimizer.kind":         {text: "the update rule", oneOf: engine.OptimizerKinds},
		"optimizer.lr":           {text: "learning rate: a number or a schedule over training steps"},
		"optimizer.beta1":        {text: "adam, adamw: decay of the mean of the gradient", min: 0, below: 1},
		"optimizer.beta2":        {text: "adam, adamw: decay of the mean of its square", min: 0, below: 1},
		"optimizer.epsilon":      {text: "adam, adamw: added to the root of that mean", above: 0},
		"optimizer.momentum":     {text: "sgd: decay of the velocity", min: 0, below: 1},
		"optimizer.weight_decay": {text: "adamw: decoupled from the gradient; adam, sgd: added to it", follows: "optimizer.kind", min: 0},
		"optimizer.clip_norm":    {text: "largest norm of the gradient; 0 = no bound", min: 0},
		"optimizer.clip_value":   {text: "largest element of the gradient; 0 = no bound", min: 0},
		"optimizer.ema":          {text: "decay of the averaged parameters that evaluation uses; 0 = none", min: 0, below: 1},

		"train":           {text: "how long to train, and what to keep on the way"},
		"train.steps":     {text: "optimizer steps (or say epochs)", min: 1},
		"train.epochs":    {text: "passes over the training rows (or say steps)", min: 1},
		"train.batch":     {text: "training rows a step", min: 1},
		"train.split":     {text: "shards of a loss without chains: equal parts of the rows of a step, for as many replicas; a divisor of batch", min: 1},
		"train.cut_every": {text: "seconds between cuts, from which a run goes on after a stop; 0 = at the end and on Ctrl-C only", min: 0},
		"train.log_every": {text: "steps between metric records", min: 1},
		"train.frames":    {text: "pictures of the energy landscape kept for the GIF; 0 = none", min: 0, max: 1000},

		"averaging":          {text: "groups of chains side by side, each with its own parameters, which are averaged now and then"},
		"averaging.groups":   {text: "groups, each with tempering.chains ladders and train.batch rows a step", min: 1},
		"averaging.every":    {text: "training steps between two rounds of averaging; 1 under outer: sync", follows: "averaging.outer", min: 1},
		"averaging.outer":    {text: "mean of the parameters; nesterov, momentum over the mean of what the groups moved (DiLoCo); sync, the mean of the gradients at every step", oneOf: averaging.Outers},
		"averaging.lr":       {text: "nesterov: learning rate of the outer step", follows: "averaging.outer", above: 0},
		"averaging.momentum": {text: "nesterov: momentum of the outer step", follows: "averaging.outer", min: 0, below: 1},
		"averaging.format":   {text: "how vectors travel: 4, 2 or about 1 byte an element, the last with error feedback", oneOf: averaging.Formats},

		"evaluate":             {text: "how the trained model is held against the test set"},
		"evaluate.samples":     {text: "model samples for MMD, sliced Wasserstein distance and mode coverage", min: 2},
		"evaluate.scans":       {text: "scans that fresh chains make before they count as samples, and in which a ladder adapts", min: 1},
		"evaluate.measure":     {text: "scans of a ladder on which log Z is measured, for the likelihood in any dimension; 0 = no log Z where no samples need a ladder", min: 0},
		"evaluate.every":       {text: "training steps between two test likelihoods in the metrics; 0 = none on the way", min: 0},
		"evaluate.projections": {text: "directions of the sliced Wasserstein distance", min: 1},

		"backend":         {text: "what computes; `backend: auto` is short for {kind: auto}"},
		"backend.kind":    {text: "auto takes the fastest there is: XLA on CUDA, XLA on the CPU, pure Go", oneOf: backend.Kinds()},
		"backend.threads": {text: "size of XLA's CPU thread pool; another size gives other bits", min: 1, max: 1024},
	}
}

// doc is what a key does; for a key that several kinds share, what it does for the kind that c has.
func (c *Config) doc(path string) string {
	d := docs()[path]
	text := d.text
	if section, key, ok := cutSection(path); ok && text == "" {
		kind := map[string]string{"data": c.Data.Dataset, "model": c.Model.Kind, "loss": c.Loss.Kind, "sampler": c.Sampler.Kind}[section]
		for _, use := range keyUses(section, key) {
			if slices.Contains(use.kinds, kind) {
				text = use.doc
			}
		}
	}
	if len(d.oneOf) > 0 {
		text += " (" + strings.Join(d.oneOf, ", ") + ")"
	}
	return text
}

// use is one meaning of a key that several kinds share.
type use struct {
	doc   string
	kinds []string
}

func addUse(uses []use, doc, kind string) []use {
	for i := range uses {
		if uses[i].doc == doc {
			uses[i].kinds = append(uses[i].kinds, kind)
			return uses
		}
	}
	return append(uses, use{doc, []string{kind}})
}

// keyUses are the meanings of a key in a section whose kinds describe themselves.
func keyUses(section, key string) (uses []use) {
	add := func(param, doc, kind string) {
		if param == key {
			uses = addUse(uses, doc, kind)
		}
	}
	switch section {
	case "data":
		for _, k := range datasets.Kinds() {
			for _, p := range k.Params {
				add(p.Key, p.Doc, k.Name)
			}
		}
	case "model":
		for _, k := range models.Kinds() {
			for _, p := range k.Params {
				add(p.Key, p.Doc, k.Name)
			}
		}
	case "loss":
		for _, k := range losses.Kinds() {
			for _, p := range k.Params {
				add(p.Key, p.Doc, k.Name)
			}
		}
	case "sampler":
		for _, k := range samplers.Kinds() {
			for _, p := range k.Params {
				add(p.Key, p.Doc, k.Name)
			}
		}
	}
	return uses
}

// kindsOf is the number of kinds of a section.
func kindsOf(section string) int {
	return map[string]int{"data": len(datasets.Kinds()), "model": len(models.Kinds()), "loss": len(losses.Kinds()), "sampler": len(samplers.Kinds())}[section]
}

// describe is the text of a key for the schema, where no kind is chosen yet.
func describe(uses []use, all int) string {
	var parts []string
	for _, u := range uses {
		if len(u.kinds) == all {
			return u.doc
		}
		parts = append(parts, fmt.Sprintf("%s: %s", strings.Join(u.kinds, ", "), u.doc))
	}
	return strings.Join(parts, "; ")
}

func datasetNames() (names []string) {
	for _, k := range datasets.Kinds() {
		names = append(names, k.Name)
	}
	return names
}

func modelNames() (names []string) {
	for _, k := range models.Kinds() {
		names = append(names, k.Name)
	}
	return names
}
