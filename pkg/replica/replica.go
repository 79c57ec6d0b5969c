// Package replica is the worker of a distributed training: it takes shards of an experiment, trains them with the replicas
// that hold the others, and does what the coordinator says. States, energies and parameters go from replica to replica;
// what must last goes to the coordinator.
//
//	err := replica.Main(ctx, replica.Options{
//		URL: "nats://coordinator:4222", Token: token, ID: "3",
//		Build: local.Replicated, Version: version, Log: slog.Default(),
//	})
//	os.Exit(replica.ExitCode(err))
//
// [Pool] works for one experiment after the other, as a cluster of coordinators says.
//
// Whatever replica holds whichever shards, the numbers are the same. A replica keeps nothing: after any loss all go back to
// the last cut, on fewer replicas or on others.
package replica

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// Member trains the shards of one group that are held here; engine.Trainer is one. All members of a group make the same
// calls in the same order.
type Member interface {
	engine.Learner
	// Lead says whether the group's lead shard is held here. Where it is not, Cut, Theta, Params and Energies return
	// engine.ErrNotLead.
	Lead() bool
	// Weights are the parameters themselves, which SetTheta replaces; Theta may be their average.
	Weights() ([]float32, error)
	SetTheta([]float32) error
}

// Chained is what a member with chains says of them besides.
type Chained interface {
	Stats() tempering.Stats
	TripRate() float64
	Exploration() []float64
	Adapted() engine.Adapted
	StepSizes() []float64
	ResetPairs()
	TargetChains() ([]float32, error)
}

// Experiment is what a replica needs of an experiment.
type Experiment struct {
	Backend   backend.Config
	Layout    engine.Layout
	Averaging averaging.Config
	// Member makes the trainer of a group for the shards in local, which reaches the others through mesh.
	Member func(b *backend.Backend, group int, local []uint32, mesh engine.Mesh) (Member, error)
}

// Options say whom a replica works for.
type Options struct {
	Server *transport.Server // the coordinator's, in this process; or
	URL    string            // of the coordinator's message server, or several, separated by commas
	Dial   transport.Options // what else the connection needs: TLS, credentials
	Token  string            // of the experiment, see Meet
	ID     string            // of the replica, one a living replica: letters, digits, dashes and underscores

	// Build makes an experiment from its resolved YAML, whose relative paths start at dir.
	Build func(yaml []byte, dir string) (Experiment, error)

	// Opened is a backend to share with others of this process; nil: the replica opens its own, with Backend.
	Opened  *backend.Backend
	Backend backend.Options
	Version string
	Log     *slog.Logger  // nil: nothing is logged
	Grace   time.Duration // see Main; 0 is 25 s
	// Patience is how long a replica that has registered waits for a coordinator that is silent, its shards and its device at
	// the ready; 0 is one lease: then there is no other that could come.
	Patience time.Duration
	Status   *Status // is told what the replica does; nil: nobody looks

	keeper *keeper // opens backends, and closes them later; nil: nobody keeps one
}

// Why a replica ends, besides nil: the training is done.
var (
	ErrConfig       = errors.New("the experiment cannot be had here")          // exit code 42: do not start it again
	ErrIncompatible = errors.New("another program or device than the others'") // 43
	ErrTemporary    = errors.New("the coordinator cannot be reached")          // 75: start it again
	ErrPreempted    = errors.New("asked to end")                               // 143
	ErrEnded        = errors.New("there is nothing more to do")                // 42: the only experiment came to a bad end
	errLeaseLost    = errors.New("the lease is lost")                          // it registers again
	errDrained      = errors.New("the coordinator asks to leave")              // as if ctx had ended
	errStuck        = errors.New("no progress")                                // what runs may never end
)

// ExitCode is the exit code for what Main returned.
func ExitCode(err error) int {
	for _, c := range []struct {
		err  error
		code int
	}{{ErrConfig, 42}, {ErrEnded, 42}, {ErrIncompatible, 43}, {ErrTemporary, 75}, {ErrPreempted, 143}} {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	if err != nil {
		return 1
	}
	return 0
}

const (
	// patience is how long a replica that starts looks for the coordinator.
	patience = 6 * Lease
	// again is how long it waits before it asks once more.
	again = 100 * time.Millisecond
)

// Main works until the training is done, and then returns nil. When ctx ends, or the coordinator says so, it asks to leave and
// goes on until its shards are placed elsewhere, at most for the time of Grace, and returns ErrPreempted. A device that does not
// come back from a step, see [Status.Live], is ErrTemporary: the process should end then.
func Main(ctx context.Context, o Options) error {
	if err := run(ctx, o); err != nil {
		return fmt.Errorf("replica %s: %w", o.ID, err)
	}
	return nil
}

func run(ctx context.Context, o Options) (err error) {
	id, err := transport.ParseToken(o.ID)
	if err != nil {
		return fmt.Errorf("%w: id: %w", ErrConfig, err)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Grace == 0 {
		o.Grace = 25 * time.Second
	}
	if o.Status == nil {
		o.Status = new(Status)
	}
	place := Meet(o.Token)
	dial, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	to := o.Dial
	to.Server, to.URL, to.Name, to.Experiment = o.Server, o.URL, o.ID, place.Experiment
	if to.User == "" && to.Credentials == "" {
		to.Token = o.Token
	}
	failed := func(why, err error) error {
		if ctx.Err() != nil { // it was asked to end before it began
			why = ErrPreempted
		}
		return fmt.Errorf("%w: %w", why, err)
	}
	o.Status.waits("the message server")
	conn, err := dialled(dial, to)
	if err != nil {
		return failed(ErrTemporary, err)
	}
	defer conn.Close()
	o.Status.waits("the coordinator's experiment")
	offer, err := offered(dial, conn, place)
	if err != nil {
		return failed(ErrTemporary, err)
	}
	exp, err := o.Build(offer.Experiment, offer.Dir)
	if err != nil {
		return failed(ErrConfig, err)
	}
	o.Status.waits("the backend")
	b := o.Opened
	if b == nil {
		keep := o.keeper
		if keep == nil {
			keep = new(keeper)
			defer func() { err = errors.Join(err, keep.close()) }()
		}
		if b, err = keep.open(ctx, exp.Backend, o.Backend); err != nil {
			return failed(ErrConfig, err)
		}
	}
	o.Log.Info("replica", "id", o.ID, "backend", b.Why())

	over, leave := context.WithCancel(context.Background())
	defer leave()
	w := &worker{self: o.ID, place: place, conn: conn, giver: transport.NewGiver(), gate: new(transport.Gate), backend: b, exp: exp, log: o.Log, status: o.Status, leave: leave}
	defer func() {
		if !errors.Is(err, errStuck) { // else it would be waited for in vain: the end of the process is what helps
			w.close()
		}
	}()
	if _, err := conn.Serve(place.Subjects.Exchange(id), transport.ServeOptions{Gate: w.gate, Handler: w.giver.Handle, Brought: w.arrived}); err != nil {
		return err
	}
	if _, err := conn.Serve(place.Subjects.Control(id), transport.ServeOptions{Handler: transport.Mux{transport.TypeCommand: w.handle}.Handle}); err != nil {
		return err
	}
	me := lease{conn: conn, place: place, worker: w, patience: max(o.Patience, Lease), register: transport.Register{
		Replica: o.ID, Incarnation: incarnation(), Device: b.Fingerprint().Device, Platform: Platform(o.Version, b.Fingerprint().String()),
	}}
	return me.keep(ctx, over, o.Grace)
}

// dialled connects, as soon as there is a server.
func dialled(ctx context.Context, o transport.Options) (conn *transport.Conn, err error) {
	for {
		if conn, err = transport.Dial(ctx, o); err == nil || !pause(ctx, again) {
			return conn, err
		}
	}
}

// offered fetches the experiment, as soon as there is a coordinator.
func offered(ctx context.Context, conn *transport.Conn, place Meeting) (Offer, error) {
	for {
		data, err := conn.Pull(ctx, transport.Pull{Subject: place.Subjects.Contributions(), Key: OfferKey, Max: transport.MaxBlob})
		if err == nil {
			return Decode[Offer](data)
		}
		if !pause(ctx, again) {
			return Offer{}, err
		}
	}
}

// pause waits; false says that ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func incarnation() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}
