package samplers

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

// Config is the `sampler` section of an experiment: the kernel that explores a rung.
type Config struct {
	Kind string `yaml:"kind"` // mala or langevin
	// Steps is the number of chain steps a scan.
	Steps int `yaml:"steps"`
	// StepSize is ε of rung N in x ← x − ε∇E + √(2ε)z; a number or a schedule over training steps. A hotter rung takes
	// longer steps, see StepSizes.
	StepSize schedules.Config `yaml:"step_size"`
	// NoiseScale is s in x ← x − ε∇E + s√(2ε)z (langevin only); s² is the temperature.
	NoiseScale schedules.Config `yaml:"noise_scale"`
	// Integrator says how a step follows the drift (langevin only): one of Integrators; empty is euler_maruyama.
	Integrator string `yaml:"integrator"`
	// Clamp keeps every coordinate in [lo, hi] (langevin only; it changes the stationary law). Empty: no clamp.
	Clamp []float64 `yaml:"clamp"`
}

// KindNames are the names that Config.Kind knows.
func KindNames() []string { return []string{"mala", "langevin"} }

// Integrators are the names that Config.Integrator knows.
var Integrators = []string{"euler_maruyama", "heun"}

// Validate reports every fault of the section, each by its key.
func (c Config) Validate() error {
	var errs []error
	if !slices.Contains(KindNames(), c.Kind) {
		errs = append(errs, fmt.Errorf("kind: %q, want one of %s", c.Kind, strings.Join(KindNames(), ", ")))
	}
	if c.Steps < 1 {
		errs = append(errs, fmt.Errorf("steps: %d, want at least 1", c.Steps))
	}
	if err := c.StepSize.ValidatePositive("step_size"); err != nil {
		errs = append(errs, err)
	}
	if err := c.NoiseScale.ValidateNonNegative("noise_scale"); err != nil {
		errs = append(errs, err)
	}
	if c.Kind == "mala" && !c.NoiseScale.IsConstant(1) {
		errs = append(errs, errors.New("noise_scale: mala draws its noise at temperature 1, want kind: langevin or no noise_scale"))
	}
	if c.Integrator != "" && !slices.Contains(Integrators, c.Integrator) {
		errs = append(errs, fmt.Errorf("integrator: %q, want one of %s", c.Integrator, strings.Join(Integrators, ", ")))
	} else if c.Kind == "mala" && c.Integrator == "heun" {
		errs = append(errs, errors.New("integrator: mala's proposal is one Euler–Maruyama step, want kind: langevin or no integrator"))
	}
	if len(c.Clamp) != 0 {
		if len(c.Clamp) != 2 || !(c.Clamp[0] < c.Clamp[1]) {
			errs = append(errs, fmt.Errorf("clamp: %v, want [lo, hi] with lo < hi", c.Clamp))
		}
		if c.Kind == "mala" {
			errs = append(errs, errors.New("clamp: clipping breaks mala's stationary law, want kind: langevin or no clamp"))
		}
	}
	return errors.Join(errs...)
}
