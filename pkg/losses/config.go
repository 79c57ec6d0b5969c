package losses

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Config is the `loss` section of an experiment.
type Config struct {
	Kind string `yaml:"kind"` // parallel_tempering_cd, persistent_cd or contrastive_divergence
	// EnergyPenalty weighs mean f(x⁺)² + mean f(x⁻)², which keeps energies near zero.
	EnergyPenalty float64 `yaml:"energy_penalty"`
	// DataNoise is the standard deviation of Gaussian noise added to the positives.
	DataNoise float64 `yaml:"data_noise"`
	// Compat "torchebm" gives TorchEBM 0.8.9's replay buffer: a ring whose starts are copies, started at 0.01·N(0, I),
	// with jitter in place of fresh starts, and schedules that restart at every call of the sampler. "none" is ours.
	Compat string `yaml:"compat"`
}

// KindNames are the names that Config.Kind knows.
func KindNames() []string {
	return []string{"parallel_tempering_cd", "persistent_cd", "contrastive_divergence"}
}

// Compats are the names that Config.Compat knows.
var Compats = []string{"none", "torchebm"}

// Validate reports every fault of the section, each by its key.
func (c Config) Validate() error {
	var errs []error
	if !slices.Contains(KindNames(), c.Kind) {
		errs = append(errs, fmt.Errorf("kind: %q, want one of %s", c.Kind, strings.Join(KindNames(), ", ")))
	}
	if !slices.Contains(Compats, c.Compat) {
		errs = append(errs, fmt.Errorf("compat: %q, want one of %s", c.Compat, strings.Join(Compats, ", ")))
	}
	if !(c.EnergyPenalty >= 0) {
		errs = append(errs, fmt.Errorf("energy_penalty: %g, want 0 or more", c.EnergyPenalty))
	}
	if !(c.DataNoise >= 0) {
		errs = append(errs, fmt.Errorf("data_noise: %g, want 0 or more", c.DataNoise))
	}
	if c.Compat == "torchebm" && c.Kind != "persistent_cd" {
		errs = append(errs, fmt.Errorf("compat: torchebm needs kind: persistent_cd, not %q", c.Kind))
	}
	return errors.Join(errs...)
}
