package couplings

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// Config names a coupling and sets its options. Which keys a kind reads is in [Kinds]; any other key that is set is a
// fault. A key left out has the kind's default.
type Config struct {
	Kind        string   `yaml:"kind"`                   // one of KindNames, or ot for exact_ot
	Reg         *float64 `yaml:"reg,omitempty"`          // sinkhorn, unbalanced_sinkhorn
	RegMarginal *float64 `yaml:"reg_marginal,omitempty"` // unbalanced_sinkhorn
	Iterations  *int     `yaml:"iterations,omitempty"`   // sinkhorn, unbalanced_sinkhorn
	// WithinClasses asks the caller for PairWithinClasses in place of Pair. Every kind but independent, which is that already.
	WithinClasses *bool `yaml:"within_classes,omitempty"`
}

// fields visits the optional keys with their fields.
func (c *Config) fields(visit func(key string, field reflect.Value)) {
	v := reflect.ValueOf(c).Elem()
	for i := 1; i < v.NumField(); i++ { // field 0 is Kind
		key, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		visit(key, v.Field(i))
	}
}

// WithDefaults fills the keys that the kind reads and c leaves out, and calls ot exact_ot.
func (c Config) WithDefaults() Config {
	if c.Kind == "ot" {
		c.Kind = "exact_ot"
	}
	kind, _ := findKind(c.Kind)
	c.fields(func(key string, field reflect.Value) {
		for _, p := range kind.Params {
			if p.Key == key && field.IsNil() {
				value := reflect.New(field.Type().Elem())
				value.Elem().Set(reflect.ValueOf(p.value))
				field.Set(value)
			}
		}
	})
	return c
}

// Validate reports every fault of the section, each by its key.
func (c Config) Validate() error {
	c = c.WithDefaults()
	kind, ok := findKind(c.Kind)
	if !ok {
		return fmt.Errorf("kind: %q, want one of %s", c.Kind, strings.Join(KindNames(), ", "))
	}
	var errs []error
	c.fields(func(key string, field reflect.Value) {
		if !field.IsNil() && !kind.has(key) {
			errs = append(errs, fmt.Errorf("%s: not an option of kind %s, want one of %s", key, c.Kind, strings.Join(kind.keys(), ", ")))
		}
	})
	_, err := c.make()
	return errors.Join(append(errs, err)...)
}

// Build returns the coupling. Where Classwise is true, the caller goes through [PairWithinClasses].
func (c Config) Build() (Coupling, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("couplings: %w", err)
	}
	return c.WithDefaults().make()
}

// Classwise reports whether within_classes is set.
func (c Config) Classwise() bool { return c.WithinClasses != nil && *c.WithinClasses }

// make builds the coupling of a section with its defaults. A typed nil never leaves it.
func (c Config) make() (Coupling, error) {
	var s *Sinkhorn
	var err error
	switch c.Kind {
	case "independent":
		return Independent{}, nil
	case "exact_ot":
		return ExactOT{}, nil
	case "greedy":
		return Greedy{}, nil
	case "sinkhorn":
		s, err = NewSinkhorn(*c.Reg, *c.Iterations)
	case "unbalanced_sinkhorn":
		s, err = NewUnbalancedSinkhorn(*c.Reg, *c.RegMarginal, *c.Iterations)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}
