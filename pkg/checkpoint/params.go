package checkpoint

import (
	"errors"
	"fmt"
	"slices"

	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// ParamTensors cuts a flat parameter vector into the network's parameters under their names, which are TorchEBM's where it
// has the model: a file of them is a state dict there.
func ParamTensors[T Element](n models.Network, flat []T) ([]Tensor, error) {
	if want := models.NumParams(n); len(flat) != want {
		return nil, fmt.Errorf("checkpoint: %d parameters, want %d", len(flat), want)
	}
	var out []Tensor
	for _, p := range n.Params() {
		out = append(out, Tensor{Name: p.Name, Shape: slices.Clone(p.Shape), Data: flat[:p.Size():p.Size()]})
		flat = flat[p.Size():]
	}
	return out, nil
}

// FlatParams is the flat parameter vector of a network, from tensors under the names of its parameters in any order. It
// reports every parameter that is missing or has another type or shape, and every tensor that the network does not have.
func FlatParams[T Element](n models.Network, tensors []Tensor) ([]T, error) {
	var flat []T
	var errs []error
	known := map[string]bool{}
	for _, p := range n.Params() {
		known[p.Name] = true
		values, err := Values[T](tensors, p.Name, p.Shape...)
		flat, errs = append(flat, values...), append(errs, err)
	}
	for _, t := range tensors {
		if !known[t.Name] {
			errs = append(errs, fmt.Errorf("tensor %q: the network has no such parameter", t.Name))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	return flat, nil
}
