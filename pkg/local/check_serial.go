package local

import (
	"context"
	"errors"
	"fmt"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
)

// roundSteps is the number of training steps between two comparisons, where no ladder adapts.
const roundSteps = 10

// checkSerial makes the first adaptation rounds of a training twice and compares all that the next step depends on. In the
// middle, the second training is cut, thrown away and restored, so that equal digests show that resuming changes nothing
// either. Nothing is written.
func (p *Parts) checkSerial(ctx context.Context, opts Options) (err error) {
	b, err := backend.Open(ctx, p.Config.Backend, opts.Backend)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	every := p.Config.Tempering.AdaptEvery
	if every == 0 {
		every = roundSteps
	}
	steps := min(opts.CheckSerial*every, p.Steps)
	digests := func(restoreAt int) (out []string, err error) {
		l, err := p.learner(b)
		if err != nil {
			return nil, err
		}
		defer func() { l.Close() }()
		if err := p.begin(l, opts.Params); err != nil {
			return nil, err
		}
		for l.Step() < steps {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if l.Step() == restoreAt {
				if l, err = p.restored(b, l); err != nil {
					return nil, err
				}
			}
			if _, err := l.TrainStep(); err != nil {
				return nil, err
			}
			if l.Step()%every != 0 && l.Step() != steps {
				continue
			}
			cut, err := l.Cut()
			if err != nil {
				return nil, err
			}
			digest, err := cut.Sum()
			if err != nil {
				return nil, err
			}
			out = append(out, digest)
		}
		return out, nil
	}
	return sameTwice(digests, steps/2, func(i int) string { return fmt.Sprintf("at step %d", min((i+1)*every, steps)) })
}

// sameTwice compares the digests of two computations of one thing: one that goes through, and one that another takes over
// in the middle. at names the place of a digest.
func sameTwice(digests func(takeOver int) ([]string, error), middle int, at func(i int) string) error {
	first, err := digests(-1)
	if err != nil {
		return err
	}
	second, err := digests(middle)
	if err != nil {
		return err
	}
	for i := range first {
		if first[i] != second[i] {
			return fmt.Errorf("%w: %s the digests are %.12s and %.12s, want equal ones", ErrSerial, at(i), first[i], second[i])
		}
	}
	return nil
}

// restored is a new learner in the state of l, which it closes.
func (p *Parts) restored(b *backend.Backend, l engine.Learner) (engine.Learner, error) {
	cut, err := l.Cut()
	if err != nil {
		return l, err
	}
	fresh, err := p.learner(b)
	if err != nil {
		return l, err
	}
	l.Close()
	return fresh, fresh.Restore(&cut)
}
