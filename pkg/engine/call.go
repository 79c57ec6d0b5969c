package engine

import (
	"fmt"
	"time"

	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
)

// call collects the inputs of a program. State tensors are donated and replaced by the first outputs, in order.
type call struct {
	shard  *Shard // whose cores the time of the call says something about; may be nil
	in     []*tensors.Tensor
	donate []bool
	states []**tensors.Tensor
	hosts  []*tensors.Tensor
}

func (s *Shard) begin() *call { return &call{shard: s} }

func (c *call) keep(t *tensors.Tensor) { c.in, c.donate = append(c.in, t), append(c.donate, false) }
func (c *call) state(t **tensors.Tensor) {
	c.in, c.donate, c.states = append(c.in, *t), append(c.donate, true), append(c.states, t)
}
func (c *call) host(t *tensors.Tensor) {
	c.in, c.donate, c.hosts = append(c.in, t), append(c.donate, true), append(c.hosts, t)
}

// run executes p and reads its last output, the packed results.
func (c *call) run(p *backend.Program) ([]float32, error) {
	start := time.Now()
	out, err := p.RunDonating(c.donate, c.in...)
	if err != nil {
		backend.Release(c.hosts...)
		return nil, fmt.Errorf("engine: %w", err)
	}
	backend.Release(c.hosts...)
	for i, slot := range c.states {
		backend.Release(*slot) // the host's side of a donated tensor
		*slot = out[i]
	}
	packed := out[len(out)-1]
	values, err := backend.Read[float32](packed)
	backend.Release(packed)
	if err != nil {
		return nil, fmt.Errorf("engine: read results: %w", err)
	}
	if c.shard != nil && (p == c.shard.train || p == c.shard.scan) {
		c.shard.cores.observe(time.Since(start))
	}
	return values, nil
}
