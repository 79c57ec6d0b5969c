package interpolants

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	. "github.com/gomlx/gomlx/pkg/core/graph"
)

// Diffusion is the coefficient D(t) of dx = (v + D s) dt + √(2D) dW, which has the marginals of the flow dx = v dt for every
// D ≥ 0 (Ma et al. 2024, SiT).
type Diffusion struct {
	Form string  `yaml:"form"` // one of DiffusionForms
	Norm float64 `yaml:"norm"` // factor, positive
}

// DiffusionForms are the names that Diffusion.Form knows: constant 1, sbdm w = rσ² − σσ̇ (that of score-based diffusion
// models), sigma σ, linear 1 − t, decreasing (1 − t)², increasing_decreasing 4t(1 − t).
func DiffusionForms() []string {
	return []string{"constant", "sbdm", "sigma", "linear", "decreasing", "increasing_decreasing"}
}

// Validate reports every fault of the section, each by its key.
func (d Diffusion) Validate() error {
	var errs []error
	if !slices.Contains(DiffusionForms(), d.Form) {
		errs = append(errs, fmt.Errorf("form: %q, want one of %s", d.Form, strings.Join(DiffusionForms(), ", ")))
	}
	if !positive(d.Norm) {
		errs = append(errs, fmt.Errorf("norm: %g, want a positive number", d.Norm))
	}
	return errors.Join(errs...)
}

// At is D(t), of t's shape. It is finite on [0, 1], but of the size 1/[Edge] at t = 0 with form sbdm on the linear and cosine
// paths: begin later there. With a path from [TorchEBM], sbdm is w/(σ + 1e-8).
func (d Diffusion) At(i Interpolant, t *Node) *Node {
	return MulScalar(d.shape(i, t), d.Norm)
}

func (d Diffusion) shape(i Interpolant, t *Node) *Node {
	switch d.Form {
	case "constant":
		return OnesLike(t)
	case "sbdm":
		if g, ok := i.(guarded); ok {
			return g.sbdm(t)
		}
		return i.DriftVariance(inner(t))
	case "sigma":
		return i.Sigma(t)
	case "linear":
		return OneMinus(t)
	case "decreasing":
		return Square(OneMinus(t))
	case "increasing_decreasing":
		return MulScalar(Mul(t, OneMinus(t)), 4)
	}
	panic(fmt.Errorf("interpolants: %w", d.Validate()))
}
