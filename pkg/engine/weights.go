package engine

import "github.com/kelvin-ebm/kelvin/pkg/backend"

// Weights copies the parameters to the host: those that SetTheta replaces, where Theta may give their average over the steps.
// Every process of a group has them.
func (t *Trainer) Weights() ([]float32, error) {
	switch s := t.shard.(type) {
	case *group:
		if s.theta != nil {
			return s.theta, nil
		}
	case *Shard:
		if s.theta != nil {
			return backend.Read[float32](s.theta)
		}
	}
	return nil, ErrNotStarted
}
