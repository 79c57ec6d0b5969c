package experiment

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/kelvin-ebm/kelvin/pkg/interpolants"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

var nameForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$`)

// under puts a section's name before the keys of its faults.
func under(section string, err error) (errs []error) {
	for _, e := range flatten(err) {
		errs = append(errs, fmt.Errorf("%s.%w", section, e))
	}
	return errs
}

// Validate reports every fault of a resolved experiment, each starting with its key: `sampler.step_size: -0.1, want a
// positive number`. What hangs on the data themselves, such as the dimension of the model, is checked when they are read.
func (c *Config) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !nameForm.MatchString(c.Name) {
		fault("name: %q, want at most 100 letters, digits, dots, dashes and underscores: it names the run's folder", c.Name)
	}
	if c.Data.Dataset == "" {
		fault("data.dataset: missing, want one of %s", strings.Join(datasetNames(), ", "))
	} else {
		errs = append(errs, under("data", c.Data.Validate())...)
	}
	errs = append(errs, under("model", c.Model.Validate())...)
	errs = append(errs, under("loss", c.Loss.Validate())...)
	errs = append(errs, under("sampler", c.Sampler.Validate())...)
	errs = append(errs, c.validateFit()...)
	if _, unused := c.unused("tempering"); !unused {
		errs = append(errs, under("tempering", c.Tempering.Validate())...)
		errs = append(errs, c.validateLadder()...)
	}
	errs = append(errs, c.validateBuffer()...)
	errs = append(errs, c.validateSet()...)
	errs = append(errs, under("averaging", c.Averaging.Validate())...)
	errs = append(errs, c.validateShards()...)
	errs = append(errs, c.validateUnused("buffer", c.Buffer)...)
	errs = append(errs, c.validateUnused("tempering", c.Tempering)...)
	errs = append(errs, under("optimizer", c.Optimizer.Validate())...)
	errs = append(errs, under("train", c.Train.Validate())...)
	errs = append(errs, under("evaluate", c.Evaluate.Validate())...)
	errs = append(errs, under("backend", c.Backend.Validate())...)
	return errors.Join(errs...)
}

// validateLadder checks the ladder against the loss.
func (c *Config) validateLadder() (errs []error) {
	t := c.Tempering
	if (c.Loss.Kind == plainPCD || c.Loss.Kind == plainCD) && t.Rungs > 1 {
		errs = append(errs, fmt.Errorf("tempering.rungs: %d under loss.kind: %s, want 1, or loss.kind: %s", t.Rungs, c.Loss.Kind, temperedCD))
	}
	if c.Loss.Kind == plainCD && t.Chains != c.Train.Batch && t.Chains > 0 && c.Train.Batch > 0 {
		errs = append(errs, fmt.Errorf("tempering.chains: %d, want train.batch = %d: under loss.kind: %s a chain starts at every row of the batch", t.Chains, c.Train.Batch, plainCD))
	}
	if c.Loss.Kind == plainCD && t.Scans > 1 {
		errs = append(errs, fmt.Errorf("tempering.scans: %d, want 1: under loss.kind: %s every scan starts at the data again; sampler.steps makes it longer", t.Scans, plainCD))
	}
	return errs
}

// validateShards checks what several shards or groups ask of the rest.
func (c *Config) validateShards() (errs []error) {
	t := c.Tempering
	sharded := t.Split > 1 || t.Placement == "rung"
	fault := func(key, value, want string) {
		errs = append(errs, fmt.Errorf("%s: %s, want %s", key, value, want))
	}
	key, value := "tempering.split", fmt.Sprint(t.Split)
	if t.Placement == "rung" {
		key, value = "tempering.placement", "rung"
	}
	switch {
	case !c.Loss.Chains() && sharded:
		fault(key, value, "split: 1 and placement: ladder under loss.kind: "+c.Loss.Kind+", which keeps no chains; train.split cuts its rows")
	case sharded && c.hasBuffer() && c.Loss.Compat == "torchebm" && (c.Buffer.Size > t.Chains || c.Buffer.Reinit > 0):
		fault(key, value, "split: 1 and placement: ladder under loss.compat: torchebm, whose buffer is one ring, or a buffer of tempering.chains columns with reinit: 0")
	case c.hasBuffer() && t.Split > 1 && c.Buffer.Size > t.Chains && c.Buffer.Size%t.Split != 0:
		fault("buffer.size", fmt.Sprint(c.Buffer.Size), fmt.Sprintf("a multiple of tempering.split, %d: each shard keeps its part", t.Split))
	}
	return errs
}

func (c *Config) validateBuffer() (errs []error) {
	if !c.hasBuffer() {
		return nil
	}
	if c.Tempering.Chains > 0 {
		errs = under("buffer", c.Buffer.Validate(c.Tempering.Chains))
	}
	if c.Loss.Compat == "torchebm" && c.Buffer.Init != "normal" {
		errs = append(errs, fmt.Errorf("buffer.init: %s under loss.compat: torchebm, want normal: the original fills its buffer with 0.01·N(0, I)", c.Buffer.Init))
	}
	if c.Buffer.Init == "reference" && !c.hasReference() {
		errs = append(errs, errors.New("buffer.init: reference needs a Gaussian to draw from, want tempering.path: linear with several rungs, model.base: gaussian, or init: normal"))
	}
	return errs
}

func samePath(a, b interpolants.Config) bool {
	return reflect.DeepEqual(a.WithDefaults(), b.WithDefaults())
}

// fieldKinds are the kinds of model that give a vector field.
func fieldKinds() (names []string) {
	for _, k := range models.Kinds() {
		if (models.Config{Kind: k.Name}).IsField() {
			names = append(names, k.Name)
		}
	}
	return names
}

// validateUnused refuses the keys of a section that the experiment has no use for.
func (c *Config) validateUnused(section string, config any) (errs []error) {
	why, unused := c.unused(section)
	if !unused {
		return nil
	}
	v := reflect.ValueOf(config)
	keys, index := fields(v.Type())
	for _, key := range keys {
		if _, set := c.origins[join(section, key)]; set || !v.Field(index[key]).IsZero() {
			errs = append(errs, fmt.Errorf("%s.%s: %s", section, key, why))
		}
	}
	return errs
}

// validateSet checks what only the file or a flag can say: keys that are not read, and empty values, which a section would
// take for keys that were left out.
func (c *Config) validateSet() (errs []error) {
	v := reflect.ValueOf(*c)
	for _, path := range slices.Sorted(maps.Keys(c.origins)) {
		if why, idle := c.idle(path); idle {
			errs = append(errs, fmt.Errorf("%s: %s", path, why))
		}
		section, key, ok := cutSection(path)
		if !ok || section != "model" && section != "loss" && section != "sampler" {
			continue
		}
		_, at := fields(v.Type())
		part := v.Field(at[section])
		_, inside := fields(part.Type())
		i, known := inside[key]
		if !known || !part.Field(i).IsZero() {
			continue
		}
		switch part.Field(i).Kind() {
		case reflect.String:
			errs = append(errs, fmt.Errorf("%s: empty, want a word, or leave the key out for its default", path))
		case reflect.Int:
			if key == "leapfrog_steps" || key == "solver_steps" || key == "levels" || key == "blocks" {
				errs = append(errs, fmt.Errorf("%s: 0, want at least 1", path))
			}
		}
	}
	return errs
}

// validateFit checks loss, model and sampler against each other.
func (c *Config) validateFit() (errs []error) {
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	field := c.Model.IsField()
	if c.Loss.Validate() == nil {
		needsField, needsEnergy := false, c.Loss.Chains()
		if !c.Loss.Chains() {
			if loss, err := c.Loss.Over(1).Build(); err == nil {
				needs := loss.Needs(1, 1)
				needsField, needsEnergy = needs.Field || needs.Hidden, needs.Energy
				if l, ok := loss.(losses.Coupled); ok && c.Train.Split > 1 && l.Coupled() != "" {
					fault("train.split: %d, want 1, for loss.%s", c.Train.Split, l.Coupled())
				}
			}
		}
		switch {
		case needsField && !field:
			fault("model.kind: %s is an energy, and loss.kind: %s learns a vector field: want one of %s, with energy: none", c.Model.Kind, c.Loss.Kind, strings.Join(fieldKinds(), ", "))
		case needsEnergy && field:
			fault("model.kind: %s is a vector field, and loss.kind: %s learns an energy: want model.energy: dot, or model.kind: mlp", c.Model.Kind, c.Loss.Kind)
		}
	}
	conditional := c.Model.NumClasses != nil && *c.Model.NumClasses > 0
	if c.Loss.LabelDropout > 0 && !conditional {
		fault("loss.label_dropout: %g, want a conditional model (model.num_classes), or 0", c.Loss.LabelDropout)
	}
	if w := c.Loss.Coupling.WithinClasses; w != nil && *w && !conditional {
		fault("loss.coupling.within_classes: true, want a conditional model (model.num_classes), or false")
	}
	s := c.Sampler
	switch {
	case s.IsFlow() && !field:
		fault("sampler.kind: flow draws from a vector field, and model.kind: %s is an energy: want mala, hmc or langevin", c.Model.Kind)
	case field && s.Adjusted():
		fault("sampler.kind: %s needs an energy for its test, and model.kind: %s is a vector field: want flow, or model.energy: dot", s.Kind, c.Model.Kind)
	case s.IsFlow() && c.scores():
		fault("sampler.kind: flow follows a velocity, and loss.kind: %s teaches the gradient of an energy: want langevin", c.Loss.Kind)
	case field && !s.IsFlow() && !c.gradient():
		fault("sampler.kind: %s follows the gradient of an energy, and what loss.kind: %s teaches is none: want flow", s.Kind, c.Loss.Kind)
	case c.Loss.Chains() && s.Deterministic() && !s.IsFlow():
		fault("sampler.kind: %s finds minima, and loss.kind: %s needs samples: want mala, hmc or langevin", s.Kind, c.Loss.Kind)
	case c.Tempering.Rungs > 1 && s.Settles():
		fault("sampler.kind: %s has no law to temper, want tempering.rungs: 1, or mala, hmc or langevin", s.Kind)
	case c.Tempering.Rungs > 1 && s.NoiseScale.Kind != "" && !s.NoiseScale.IsConstant(1):
		fault("sampler.noise_scale: on a ladder β is the temperature, want 1, or tempering.rungs: 1")
	case s.Label != nil && conditional && *s.Label >= *c.Model.NumClasses:
		fault("sampler.label: %d, want 0 to %d", *s.Label, *c.Model.NumClasses-1)
	case (s.Label != nil || s.GuidanceScale != nil) && !conditional:
		fault("sampler.label: needs a conditional model (model.num_classes); want no label and no guidance_scale")
	case s.IsFlow() && c.Loss.Interpolant.Kind != "" && !samePath(s.Interpolant, c.Loss.Interpolant):
		fault("sampler.interpolant: not the path of loss.interpolant, on which the field is trained: want the same, or leave it out")
	case s.IsFlow() && s.Steps < 1:
		fault("sampler.steps: %d, want at least 1", s.Steps)
	case s.Reverse != nil && *s.Reverse:
		fault("sampler.reverse: true draws noise from data, want false in an experiment")
	}
	return errs
}

// Validate reports every fault of the section, each by its key.
func (c TrainConfig) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch {
	case c.Steps < 0 || c.Steps > math.MaxInt32:
		fault("steps: %d, want 1 to %d", c.Steps, math.MaxInt32)
	case c.Epochs < 0 || c.Epochs > 1_000_000_000:
		fault("epochs: %d, want 1 to 1000000000", c.Epochs)
	case c.Steps == 0 && c.Epochs == 0:
		fault("steps: missing or 0, want steps or epochs, such as steps: 5000")
	case c.Steps != 0 && c.Epochs != 0:
		fault("epochs: %d beside steps: %d, want one of the two", c.Epochs, c.Steps)
	}
	if c.Batch < 1 || c.Batch > math.MaxInt32 {
		fault("batch: %d, want at least 1", c.Batch)
	}
	if c.Split < 1 || c.Batch > 0 && c.Batch%c.Split != 0 {
		fault("split: %d, want a divisor of batch, %d", c.Split, c.Batch)
	}
	if !(c.CutEvery >= 0 && c.CutEvery <= 1e9) {
		fault("cut_every: %g, want seconds, or 0 for no cuts on the way", c.CutEvery)
	}
	if c.LogEvery < 1 {
		fault("log_every: %d, want at least 1", c.LogEvery)
	}
	if c.Frames < 0 || c.Frames > 1000 {
		fault("frames: %d, want 0 to 1000", c.Frames)
	}
	return errors.Join(errs...)
}

// Validate reports every fault of the section, each by its key.
func (c EvaluateConfig) Validate() error {
	var errs []error
	for _, k := range []struct {
		key           string
		value, lo, hi int
	}{{"samples", c.Samples, 2, 10_000_000}, {"scans", c.Scans, 1, math.MaxInt32}, {"measure", c.Measure, 0, math.MaxInt32}, {"every", c.Every, 0, math.MaxInt32}, {"projections", c.Projections, 1, 1_000_000}} {
		if k.value < k.lo || k.value > k.hi {
			errs = append(errs, fmt.Errorf("%s: %d, want %d to %d", k.key, k.value, k.lo, k.hi))
		}
	}
	return errors.Join(errs...)
}
