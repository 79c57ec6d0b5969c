package interpolants

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Config is an `interpolant` section: the path between noise and data.
type Config struct {
	Kind string `yaml:"kind"` // one of Kinds; empty is linear
	// SigmaMin and SigmaMax are the noise rates β at t = 1 and t = 0 of kind vp. They go by TorchEBM's names, though they are
	// no standard deviations.
	SigmaMin *float64 `yaml:"sigma_min,omitempty"`
	SigmaMax *float64 `yaml:"sigma_max,omitempty"`
}

// Kind describes a kind of path, for documentation and `config explain`.
type Kind struct {
	Name    string // the value of `kind`
	Doc     string // one sentence
	Formula string // α and σ
	Source  string // where it comes from
	Params  []KindParam
}

// KindParam describes an option of a kind.
type KindParam struct {
	Key     string // its YAML key
	Doc     string
	Default string // as written in YAML
}

const defaultBetaMin, defaultBetaMax = 0.1, 20.0

// Kinds describes every kind of path, in the order of documentation. The caller owns the result.
func Kinds() []Kind {
	const torchEBM = "TorchEBM 0.8.9, "
	return []Kind{
		{"linear", "A straight line at constant speed.", "α = t, σ = 1 − t", torchEBM + "LinearInterpolant; Lipman et al. 2023", nil},
		{"cosine", "A quarter circle: the variance stays 1 between noise and data of variance 1.", "α = sin(πt/2), σ = cos(πt/2)",
			torchEBM + "CosineInterpolant; Albergo and Vanden-Eijnden 2023", nil},
		{"vp", "The variance-preserving diffusion, run backwards.",
			"α = exp(−¼(1 − t)²(sigma_max − sigma_min) − ½(1 − t) sigma_min), σ = √(1 − α²)",
			torchEBM + "VariancePreservingInterpolant; Song et al. 2021", []KindParam{
				{"sigma_min", "noise rate β at t = 1, 0 or more (not a standard deviation, in spite of its name)", fmt.Sprint(defaultBetaMin)},
				{"sigma_max", "noise rate β at t = 0, at least sigma_min", fmt.Sprint(defaultBetaMax)},
			}},
	}
}

// KindNames are the names that Config.Kind knows.
func KindNames() []string {
	var out []string
	for _, k := range Kinds() {
		out = append(out, k.Name)
	}
	return out
}

// WithDefaults fills what c leaves out.
func (c Config) WithDefaults() Config {
	if c.Kind == "" {
		c.Kind = "linear"
	}
	if c.Kind == "vp" {
		if c.SigmaMin == nil {
			v := defaultBetaMin
			c.SigmaMin = &v
		}
		if c.SigmaMax == nil {
			v := defaultBetaMax
			c.SigmaMax = &v
		}
	}
	return c
}

// Validate reports every fault of the section, each by its key.
func (c Config) Validate() error {
	c = c.WithDefaults()
	if !slices.Contains(KindNames(), c.Kind) {
		return fmt.Errorf("kind: %q, want one of %s", c.Kind, strings.Join(KindNames(), ", "))
	}
	var errs []error
	if c.Kind != "vp" {
		for _, o := range []struct {
			key   string
			value *float64
		}{{"sigma_min", c.SigmaMin}, {"sigma_max", c.SigmaMax}} {
			if o.value != nil {
				errs = append(errs, fmt.Errorf("%s: not an option of kind %s, want kind: vp or no %[1]s", o.key, c.Kind))
			}
		}
		return errors.Join(errs...)
	}
	if low := *c.SigmaMin; !(low >= 0 && low <= math.MaxFloat64) {
		errs = append(errs, fmt.Errorf("sigma_min: %g, want 0 or more", low))
	}
	if high := *c.SigmaMax; !positive(high) {
		errs = append(errs, fmt.Errorf("sigma_max: %g, want a positive number", high))
	} else if high < *c.SigmaMin {
		errs = append(errs, fmt.Errorf("sigma_max: %g, want at least sigma_min, %g", high, *c.SigmaMin))
	}
	return errors.Join(errs...)
}

// Build makes the path.
func (c Config) Build() (Interpolant, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("interpolants: %w", err)
	}
	switch c = c.WithDefaults(); c.Kind {
	case "cosine":
		return Cosine{}, nil
	case "vp":
		return VP{BetaMin: *c.SigmaMin, BetaMax: *c.SigmaMax}, nil
	}
	return Linear{}, nil
}

func positive(v float64) bool { return v > 0 && v <= math.MaxFloat64 }
