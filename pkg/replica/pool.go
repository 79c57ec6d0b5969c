package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
)

// Asker gives work. [*api.Client] is one.
type Asker interface {
	// Ask waits a while for work. Nothing yet is false.
	Ask(ctx context.Context, a api.Ask) (work api.Assignment, ok bool, err error)
}

// PoolOptions say how a replica works for several experiments.
type PoolOptions struct {
	// Options are those of Main for every experiment. URL, Token and, unless there is one, the user of Dial come with the work. Patience is how long
	// no coordinator may answer; 0 is ten minutes.
	Options
	Coordinators Asker
	Experiment   string // the only one to work for; "": any, one after the other
	Once         bool   // work for one experiment and end

	main func(context.Context, Options) error // nil: Main
}

const (
	poolPatience = 10 * time.Minute
	// workPatience is how long a replica waits in vain for the leader of its experiment before it asks for work again: the
	// experiment may be over, and whoever was cut off then is told so by the others alone. If it is not, it comes back to it.
	workPatience = 2 * Lease
	// The pause before coordinators are asked again after something went wrong; it is doubled every time.
	firstPause, longestPause = 100 * time.Millisecond, 5 * time.Second
	// mostRefused is how many experiments a coordinator is told that cannot be had here.
	mostRefused = 64
)

// Pool works for one experiment after the other, as the coordinators say. It returns nil when the only experiment is done or
// cancelled, and with Once after the first; else why it ends: [ErrPreempted] if ctx ended or people asked it to leave,
// [ErrTemporary] if no coordinator has answered for Patience, [ErrConfig] if they take neither token nor request, or, of an
// only experiment, if it cannot be had here ([ErrIncompatible] for the same reason) and [ErrEnded] if it came to a bad end.
// Where any experiment will do, it goes on with others than those that cannot be had here.
func Pool(ctx context.Context, o PoolOptions) error {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.main == nil {
		o.main = Main
	}
	o.Patience = cmp.Or(o.Patience, poolPatience)
	p := pool{PoolOptions: o, ask: api.Ask{ID: o.ID, Incarnation: incarnation(), Experiment: o.Experiment, Platform: o.Version}}
	if p.Opened == nil {
		p.keeper = new(keeper)
	}
	err := p.work(ctx)
	if p.keeper != nil {
		err = errors.Join(err, p.keeper.close())
	}
	if err != nil {
		return fmt.Errorf("replica %s: %w", o.ID, err)
	}
	return nil
}

type pool struct {
	PoolOptions
	ask api.Ask
}

func (p *pool) work(ctx context.Context) error {
	wait := firstPause
	for {
		work, err := p.next(ctx)
		switch {
		case err != nil:
			return err
		case work.Done:
			return over(work)
		case work.ForeignNATS && !p.known():
			return fmt.Errorf("%w: the message servers are not the coordinators', want credentials for them", ErrConfig)
		}
		p.Log.Info("works", "experiment", work.Experiment)
		begin := time.Now()
		err = p.train(ctx, work)
		switch {
		case ctx.Err() != nil && err != nil:
			return ErrPreempted
		case err == nil, errors.Is(err, ErrPreempted): // it is over or paused, or wants the replica no more
			if p.Once {
				return err
			}
		case errors.Is(err, ErrConfig), errors.Is(err, ErrIncompatible):
			if p.Once || p.Experiment != "" {
				return err
			}
			p.Log.Error("cannot work for an experiment, and goes on with others", "experiment", work.Experiment, "error", err)
			p.ask.Refuses = append(p.ask.Refuses, work.UID)
			p.ask.Refuses = p.ask.Refuses[max(0, len(p.ask.Refuses)-mostRefused):]
		case errors.Is(err, errStuck): // the device would not come back for other work either
			return err
		case errors.Is(err, ErrTemporary):
			p.Log.Warn("lost the coordinator", "experiment", work.Experiment, "error", err)
		default:
			return err
		}
		// What ends at once would be given again at once.
		if wait = min(2*wait, longestPause); time.Since(begin) > longestPause {
			wait = firstPause
		}
		if !pause(ctx, jitter(wait)) {
			return ErrPreempted
		}
	}
}

// next waits for work.
func (p *pool) next(ctx context.Context) (api.Assignment, error) {
	p.Status.waits("work")
	if p.keeper != nil {
		p.ask.Device, p.ask.Platform = p.keeper.describe(p.Version)
	}
	heard, wait := time.Now(), firstPause
	var denied time.Time // since when it is; zero: it is not
	for {
		begin := time.Now()
		work, ok, err := p.Coordinators.Ask(ctx, p.ask)
		switch {
		case ctx.Err() != nil:
			return work, ErrPreempted
		case err == nil && ok:
			return work, nil
		case err == nil:
			heard, denied = time.Now(), time.Time{}
			if heard.Sub(begin) > time.Second { // an answer that was waited for
				wait = firstPause
				continue
			}
		case has(err, api.Invalid), !denied.IsZero() && time.Since(denied) > patience && has(err, api.Unauthorized, api.Forbidden):
			return work, fmt.Errorf("%w: ask for work: %w", ErrConfig, err)
		case time.Since(heard) > p.Patience:
			return work, fmt.Errorf("%w for %v: ask for work: %w", ErrTemporary, p.Patience, err)
		default:
			p.Log.Warn("ask for work", "error", err)
			if !has(err, api.Unauthorized, api.Forbidden) {
				denied = time.Time{}
			} else if denied.IsZero() { // the token may be made in a moment
				denied = time.Now()
			}
		}
		if !pause(ctx, jitter(wait)) {
			return work, ErrPreempted
		}
		wait = min(2*wait, longestPause)
	}
}

// has says whether an error is one of a coordinator, of one of the codes.
func has(err error, codes ...api.Code) bool {
	e, is := errors.AsType[*api.Error](err)
	return is && slices.Contains(codes, e.Code)
}

func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2) }

// known says whether the replica is a user of message servers that are not the coordinators', which know their own users alone.
func (p *pool) known() bool { return p.Dial.Credentials != "" || p.Dial.User != "" }

// train works for one experiment.
func (p *pool) train(ctx context.Context, work api.Assignment) error {
	o := p.Options
	o.URL, o.Token, o.Patience = strings.Join(work.NATS, ","), work.Secret, min(o.Patience, workPatience)
	if !p.known() {
		o.Dial.User, o.Dial.Secret = work.UID, work.Secret
	}
	if !strings.Contains(o.URL, "tls://") { // the message servers do without, the coordinators may not
		o.Dial.TLS = nil
	}
	o.Log = o.Log.With("experiment", work.Experiment)
	return p.main(ctx, o)
}

// over is why a replica ends that a coordinator has nothing more for.
func over(work api.Assignment) error {
	switch work.Exit {
	case 0:
		return nil
	case 143:
		return fmt.Errorf("%w: %s", ErrPreempted, work.Reason)
	}
	return fmt.Errorf("%w: %s", ErrEnded, work.Reason)
}

// keeper keeps a backend open from one experiment to the next that wants the same. It belongs to one goroutine.
type keeper struct {
	config backend.Config
	opened *backend.Backend // nil: none
}

// open gives the backend of a configuration. It is the keeper's to close.
func (k *keeper) open(ctx context.Context, cfg backend.Config, o backend.Options) (*backend.Backend, error) {
	if k.opened != nil && k.config == cfg {
		return k.opened, nil
	}
	if err := k.close(); err != nil {
		return nil, err
	}
	b, err := backend.Open(ctx, cfg, o)
	if err != nil {
		return nil, err
	}
	k.config, k.opened = cfg, b
	return b, nil
}

func (k *keeper) close() error {
	if k.opened == nil {
		return nil
	}
	b := k.opened
	k.opened = nil
	return b.Close()
}

// describe is the device and the platform as registrations give them; before there is a backend the program alone.
func (k *keeper) describe(version string) (device, platform string) {
	if k.opened == nil {
		return "", version
	}
	f := k.opened.Fingerprint()
	return f.Device, Platform(version, f.String())
}
