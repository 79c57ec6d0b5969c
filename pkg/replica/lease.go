package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// lease is the membership of a replica.
type lease struct {
	conn     *transport.Conn
	place    Meeting
	worker   *worker
	register transport.Register
	patience time.Duration
	token    uint64
}

// keep registers and renews the lease until the coordinator ends the replica (over, nil is returned), or ctx does
// (ErrPreempted), or the coordinator is gone for longer than a lease (ErrTemporary).
func (l *lease) keep(ctx, over context.Context, grace time.Duration) error {
	defer l.worker.status.leased(false)
	for {
		l.worker.status.waits("a lease")
		err := l.acquire(ctx, over)
		if err == nil {
			l.worker.status.leased(true)
			l.worker.status.waits("the coordinator's word")
			err = l.renew(ctx, over)
			l.worker.status.leased(false)
		}
		switch {
		case over.Err() != nil:
			return nil
		case ctx.Err() != nil, errors.Is(err, errDrained):
			if l.token != 0 {
				l.giveBack(over, grace)
			}
			return ErrPreempted
		case !errors.Is(err, errLeaseLost):
			return err
		}
		l.worker.log.Warn("the lease is lost: registering again", "replica", l.register.Replica)
		l.worker.abort(l.worker.gate.Generation())
	}
}

// ask sends one request, and gives it up with the training.
func (l *lease) ask(ctx, over context.Context, subject string, t transport.Type, payload []byte) (transport.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, Heartbeat)
	defer cancel()
	defer context.AfterFunc(over, cancel)()
	m := transport.Message{Header: transport.Header{Type: t, Generation: l.worker.gate.Generation()}, Payload: payload}
	return l.conn.Request(ctx, subject, m)
}

// acquire registers, unless ctx or the training ends before. Another living process of the same id is waited for: its lease ends when it does.
func (l *lease) acquire(ctx, over context.Context) error {
	deadline := time.Now().Add(max(patience, l.patience))
	for {
		answer, err := l.ask(ctx, over, l.place.Subjects.Registrations(), transport.TypeRegister, l.register.Append(nil))
		switch {
		case err == nil:
			grant, err := transport.DecodeGrant(answer.Payload)
			l.token = grant.Token
			return err
		case errors.Is(err, transport.ErrVersion):
			return fmt.Errorf("%w: %w", ErrIncompatible, err)
		case time.Now().After(deadline):
			return fmt.Errorf("%w: %w", ErrTemporary, err)
		}
		if !pause(ctx, again) || over.Err() != nil {
			return err
		}
	}
}

// renew sends heartbeats.
func (l *lease) renew(ctx, over context.Context) error {
	heard, servers, late := time.Now(), "", 0
	tick := time.NewTicker(Heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-over.Done():
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		what, ok := l.worker.status.Live()
		if late++; ok {
			late = 0
		}
		if late > 1 { // once may be a process that was stopped and has just gone on
			leave := transport.Leave{Token: l.token}
			if _, err := l.ask(ctx, over, l.place.Subjects.Registrations(), transport.TypeLeave, leave.Append(nil)); err != nil {
				l.worker.log.Warn("the lease runs out by itself", "error", err)
			}
			return fmt.Errorf("%w: %w: %s", ErrTemporary, errStuck, what)
		}
		state := transport.Active
		if l.worker.gate.Generation() == 0 {
			state = transport.Standby
		}
		beat := transport.Heartbeat{Token: l.token, Step: l.worker.step.Load(), StepTime: time.Duration(l.worker.pace.Load()), State: state}
		answer, err := l.ask(ctx, over, l.place.Subjects.Heartbeats(), transport.TypeHeartbeat, beat.Append(nil))
		switch {
		case err == nil:
			heard = time.Now()
			ack, err := transport.DecodeHeartbeatAck(answer.Payload)
			if err != nil {
				return err
			}
			if ack.Servers != "" && ack.Servers != servers {
				if err := l.conn.SetServers(ack.Servers); err != nil {
					l.worker.log.Warn("message servers", "error", err)
				}
				servers = ack.Servers
			}
			if ack.Drain {
				return errDrained
			}
		case errors.Is(err, transport.ErrStale):
			return errLeaseLost
		case time.Since(heard) > l.patience:
			return fmt.Errorf("%w: %w", ErrTemporary, err)
		}
	}
}

// giveBack asks to leave until the coordinator has placed the replica's shards elsewhere.
func (l *lease) giveBack(over context.Context, grace time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	leave := transport.Leave{Token: l.token, Draining: true}
	for {
		_, err := l.ask(ctx, over, l.place.Subjects.Registrations(), transport.TypeLeave, leave.Append(nil))
		// The shards are still here; anything else than that ends the wait.
		if err == nil || !errors.Is(err, transport.ErrNotReady) && !errors.Is(err, context.DeadlineExceeded) {
			return
		}
		if over.Err() != nil || !pause(ctx, again) {
			return
		}
	}
}
