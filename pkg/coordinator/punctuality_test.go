package coordinator

import (
	"testing"
	"time"
)

func TestPunctuality(t *testing.T) {
	p := new(punctuality)
	round := func(offsets ...time.Duration) {
		end := p.round()
		for _, o := range offsets {
			p.came(o)
		}
		end()
	}
	for range 8 {
		round(time.Second, 1100*time.Millisecond)
	}
	if n := p.count(); n != 0 {
		t.Errorf("%d rounds were late, want none: all came as ever", n)
	}
	round(time.Second, 3*time.Second)
	if n := p.count(); n != 1 {
		t.Errorf("%d rounds were late, want the one that took three seconds", n)
	}
}
