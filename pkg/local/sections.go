package local

import (
	"errors"
	"fmt"
	"strings"

	"github.com/kelvin-ebm/kelvin/pkg/experiment"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// SamplerConfig reads a sampler section from overrides as experiments have them, "kind=hmc" or "step_size={kind: cosine,
// start: 0.1, end: 0.01}", with the defaults of the kind. The error lists every fault, each by its key.
func SamplerConfig(sets []string) (samplers.Config, error) {
	// The smallest experiment whose loss leaves the choice of the sampler free.
	c, err := section("sampler", "data: {dataset: gaussian_mixture}\nloss: {kind: denoising_score_matching}\ntrain: {steps: 1}\n", sets)
	if err != nil {
		return samplers.Config{}, err
	}
	return c.Sampler, nil
}

// TemperingConfig reads a tempering section from overrides as experiments have them, "rungs=8" or "betas=[0, 0.1, 1]",
// with the defaults of an experiment. Keys about training, and about the replicas that share it, are refused. The error lists every fault, each by its key.
func TemperingConfig(sets []string) (tempering.Config, error) {
	c, err := section("tempering", "data: {dataset: gaussian_mixture}\ntrain: {steps: 1, batch: 64}\n", sets)
	if err != nil {
		return tempering.Config{}, err
	}
	training := map[string]string{"scans": "--scans", "adapt_every": "the rounds of --burn or --adapt-scans", "virtual_swaps": "no such key",
		"placement": "no such key", "split": "no such key", "reference_scale": "--reference-std"}
	var errs []error
	for _, set := range sets {
		key, _, _ := strings.Cut(set, "=")
		if instead, ok := training[key]; ok {
			errs = append(errs, fmt.Errorf("%s: is about training, want %s", key, instead))
		}
	}
	return c.Tempering, errors.Join(errs...)
}

// section reads one section of an experiment that is otherwise the frame.
func section(name, frame string, sets []string) (*experiment.Config, error) {
	overrides := make([]string, len(sets))
	for i, set := range sets {
		overrides[i] = name + "." + set
	}
	c, err := experiment.Parse(name, []byte(frame), overrides)
	var faults *experiment.Error
	if errors.As(err, &faults) {
		var lines []error
		for _, f := range faults.Faults {
			lines = append(lines, errors.New(strings.TrimPrefix(f.Text, name+".")))
		}
		return nil, errors.Join(lines...)
	}
	return c, err
}
