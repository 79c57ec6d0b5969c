package engine

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// Shards of a loss over data are parts of a step's batch, all of one size. Every process draws and couples the whole batch, which
// hangs on the step alone, and takes the rows of its shards. The loss is a mean over the rows, so that the mean of the shards'
// gradients is the gradient; it goes to the lead as in [summation], and θ comes back. A shard draws what its rows need at random
// by its own number, so that one shard and several come to other draws, of the same law.

// place finds the trainer's shards.
func (t *DataTrainer) place() error {
	l := &t.cfg.Layout
	if *l == (Layout{}) {
		*l = Layout{Placement: "ladder", Split: 1, Rungs: 1, Chains: 1, Groups: 1}
	}
	if err := l.Validate(); err != nil {
		return fmt.Errorf("engine: layout: %w", err)
	}
	if n := l.Split; t.cfg.Batch%n != 0 {
		return fmt.Errorf("engine: train.split: %d, want a divisor of the batch, %d", n, t.cfg.Batch)
	}
	if l.PerGroup() > 1 {
		if c, ok := t.cfg.Loss.(losses.Coupled); ok && c.Coupled() != "" {
			return fmt.Errorf("engine: train.split: %d parts of the batch, and loss.%s: want split 1", l.Split, c.Coupled())
		}
		if e, ok := t.cfg.Network.(models.Energy); ok && models.IsCoupled(e) {
			return fmt.Errorf("engine: train.split: %d parts of a batch whose rows the model couples: want split 1", l.Split)
		}
	}
	t.places, t.mesh = l.Shards(t.cfg.Group), t.cfg.Mesh
	if t.mesh == nil {
		t.mesh = &LocalMesh{}
	}
	for _, p := range t.places {
		t.held = append(t.held, t.cfg.Local == nil || slices.Contains(t.cfg.Local, p.ID))
	}
	return nil
}

// rows is the number of rows of a shard.
func (t *DataTrainer) rows() int { return t.cfg.Batch / len(t.places) }

// synchronous says whether the leads of several groups average their gradients.
func (t *DataTrainer) synchronous() bool { return t.cfg.Sync && t.cfg.Layout.Groups > 1 }

// Lead says whether the shard that makes the group's optimizer steps is held here. Where it is not, Theta, Params, Energies and Cut
// return [ErrNotLead].
func (t *DataTrainer) Lead() bool { return t.held[t.cfg.Layout.Lead()] }

// Weights copies the parameters to the host: those that SetTheta replaces, where Theta may give their average over the steps. Every
// process of a group has them.
func (t *DataTrainer) Weights() ([]float32, error) {
	if t.theta == nil {
		return nil, ErrNotStarted
	}
	return t.read()
}

// SetTheta replaces the parameters, as after an averaging over groups.
func (t *DataTrainer) SetTheta(theta []float32) error {
	if t.theta == nil {
		return ErrNotStarted
	}
	if len(theta) != t.params {
		return fmt.Errorf("engine: set parameters: %d numbers, want %d", len(theta), t.params)
	}
	t.setTheta(theta)
	return nil
}

// learn makes the optimizer step of a batch, and gives the loss, the norm of its gradient and the loss's parts.
func (t *DataTrainer) learn(batch prepared, rate float64) (scores []float32, err error) {
	shared := len(t.places) > 1 || t.synchronous()
	if t.train == nil {
		if t.train, err = t.compileTrain(shared); err != nil {
			return nil, err
		}
	}
	if !shared {
		c := &call{}
		t.addWeights(c)
		c.host(tensors.FromFlatDataAndDimensions(t.optimizer.hyper(rate, t.step), hyperSize))
		return t.run(c, t.part(batch, 0))
	}
	t.cores.off = true // shards run side by side: the cores are no one's to try
	t.call++
	parts, errs := make([][]float32, len(t.places)), make([]error, len(t.places))
	var wait sync.WaitGroup
	for i := range t.places {
		if !t.held[i] {
			continue
		}
		wait.Go(func() {
			c := &call{}
			c.keep(t.theta)
			if parts[i], errs[i] = t.run(c, t.part(batch, i)); errs[i] != nil {
				errs[i] = fmt.Errorf("shard %d: %w", t.places[i].ID, errs[i])
			}
		})
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	sum, err := summation{t.places, t.cfg.Layout.Lead(), t.mesh}.add(t.call, parts)
	if err != nil {
		return nil, err
	}
	key := Key{Shard: t.places[t.cfg.Layout.Lead()].ID, Kind: ThetaBlob, Scan: t.call}
	if sum == nil {
		all, err := pull[float32](t.mesh, key, t.params+2+len(t.partNames))
		if err != nil {
			return nil, err
		}
		t.setTheta(all[:t.params])
		scores = all[t.params:]
	} else if scores, err = t.descendFrom(sum, rate, key); err != nil {
		return nil, err
	}
	// Who gave a part of this step's gradient has pulled all that it wanted of the steps before.
	for i, p := range t.places {
		if t.held[i] {
			t.mesh.Release(p.ID, t.call)
		}
	}
	return scores, nil
}

// descendFrom makes the lead's step down the sum of the shards' gradients, with those of other groups under sync, and posts what
// it came to.
func (t *DataTrainer) descendFrom(sum []float32, rate float64, key Key) (scores []float32, err error) {
	for i := range sum {
		sum[i] /= float32(len(t.places))
	}
	gradient, scores := sum[:t.params], sum[t.params:]
	if t.synchronous() {
		if gradient, err = meanOverGroups(t.mesh, t.cfg.Layout, t.call, t.places, gradient); err != nil {
			return nil, err
		}
	}
	theta, norm, err := t.descend(rate, t.step, gradient)
	if err != nil {
		return nil, err
	}
	scores[1] = float32(norm)
	t.mesh.Post(key, numberBytes(append(theta, scores...)))
	return scores, nil
}

// run runs the training program, whose first inputs the call has, on the rows of a shard.
func (t *DataTrainer) run(c *call, part prepared) ([]float32, error) {
	negatives, err := t.runChains(part)
	if err != nil {
		backend.Release(c.hosts...)
		return nil, err
	}
	for _, in := range t.batchTensors(part, negatives) {
		c.host(in)
	}
	return c.run(t.train)
}
