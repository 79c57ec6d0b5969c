package coordinator

import (
	"sync"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
)

// punctuality counts the averaging rounds that waited for somebody longer than was to be expected from those before. Nobody is
// left out for it: who is late is asked again every second, and is lost when it does not answer. It is safe for concurrent use.
type punctuality struct {
	mu       sync.Mutex
	arrivals averaging.Arrivals
	deadline time.Duration // of the present round
	late     bool
	rounds   int // that were late
}

// round begins a round, until the function that it returns is called.
func (p *punctuality) round() (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deadline, p.late = p.arrivals.Deadline(), false
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.late {
			p.rounds++
		}
	}
}

// came is told how long after the beginning of the round a contribution came.
func (p *punctuality) came(after time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.late = p.late || after > p.deadline
	p.arrivals.Record(after)
}

func (p *punctuality) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rounds
}
