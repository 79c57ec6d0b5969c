package engine

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

// OptimizerConfig is the `optimizer` section of an experiment.
type OptimizerConfig struct {
	Kind        string           `yaml:"kind"` // adam, adamw or sgd
	LR          schedules.Config `yaml:"lr"`   // learning rate; a number or a schedule over training steps
	Beta1       float64          `yaml:"beta1"`
	Beta2       float64          `yaml:"beta2"`
	Epsilon     float64          `yaml:"epsilon"`
	Momentum    float64          `yaml:"momentum"`     // sgd only
	WeightDecay float64          `yaml:"weight_decay"` // adamw: decoupled; adam and sgd: added to the gradient
	ClipNorm    float64          `yaml:"clip_norm"`    // bound on the gradient's norm; 0 = none
	ClipValue   float64          `yaml:"clip_value"`   // bound on each element of the gradient; 0 = none
	EMA         float64          `yaml:"ema"`          // decay of the averaged parameters that evaluation uses; 0 = none
}

// OptimizerKinds are the names that OptimizerConfig.Kind knows.
var OptimizerKinds = []string{"adam", "adamw", "sgd"}

// Validate reports every fault of the section, each by its key.
func (c OptimizerConfig) Validate() error {
	var errs []error
	if !slices.Contains(OptimizerKinds, c.Kind) {
		errs = append(errs, fmt.Errorf("kind: %q, want one of %s", c.Kind, strings.Join(OptimizerKinds, ", ")))
	}
	if err := c.LR.ValidateNonNegative("lr"); err != nil {
		errs = append(errs, err)
	}
	for _, f := range []struct {
		key   string
		value float64
	}{{"beta1", c.Beta1}, {"beta2", c.Beta2}, {"momentum", c.Momentum}, {"ema", c.EMA}} {
		if !(f.value >= 0 && f.value < 1) {
			errs = append(errs, fmt.Errorf("%s: %g, want a value in [0, 1)", f.key, f.value))
		}
	}
	if !(c.Epsilon > 0) {
		errs = append(errs, fmt.Errorf("epsilon: %g, want a positive number", c.Epsilon))
	}
	for _, f := range []struct {
		key   string
		value float64
	}{{"weight_decay", c.WeightDecay}, {"clip_norm", c.ClipNorm}, {"clip_value", c.ClipValue}} {
		if !(f.value >= 0) {
			errs = append(errs, fmt.Errorf("%s: %g, want 0 or more", f.key, f.value))
		}
	}
	if c.Momentum != 0 && c.Kind != "sgd" {
		errs = append(errs, fmt.Errorf("momentum: %g, want kind: sgd or no momentum", c.Momentum))
	}
	return errors.Join(errs...)
}
