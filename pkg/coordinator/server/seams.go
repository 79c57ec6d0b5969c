package server

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/blobs"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// Node is what the interface needs of the consensus. [*consensus.Node] is one.
type Node interface {
	Apply(ctx context.Context, exp ledger.ID, cmd ledger.Command) (ledger.Outcome, error)
	View(ctx context.Context, c consensus.Consistency, see func(*ledger.State)) (index uint64, age time.Duration, err error)
	Changed() <-chan struct{}
	Leadership(ctx context.Context) (context.Context, error)
	Leader() (name, peer string)
	Leads() bool
	Forward(w http.ResponseWriter, r *http.Request) error
	Ready() error
	Stats() consensus.Stats

	Blob(ctx context.Context, digest ledger.Digest) ([]byte, error)
	OpenBlob(ctx context.Context, digest ledger.Digest) (r io.ReadSeekCloser, size int64, err error)
	SpreadBlob(ctx context.Context, digest ledger.Digest) error
	Blobs() *blobs.Store

	Members(ctx context.Context) ([]consensus.Member, error)
	AddNonvoter(ctx context.Context, name, peer string) error
	Promote(ctx context.Context, name string) error
	Remove(ctx context.Context, name string) error
	Transfer(ctx context.Context, to string) error

	Backup(ctx context.Context, w io.Writer) error
	RestoreFrom(ctx context.Context, r io.Reader, force string) error
}

var _ Node = (*consensus.Node)(nil)

// Work is what the leader does beside answering: it gives replicas to experiments, and drives those. Its methods are called by
// many goroutines at once, on a node that does not lead too: there nothing is driven.
type Work interface {
	// Lead works until its context, which is that of a leadership, ends and all is put down.
	Lead(ctx context.Context) error

	// Facts are what the driver of an experiment knows since it drives it; false: nobody drives it here.
	Facts(exp ledger.ID) (Facts, bool)
	// Shards describes the shards of an experiment, all but Replica.
	Shards(exp ledger.Experiment) ([]api.Shard, error)
	// Ladder is where the ladder stands: as the driver knows it, else of the last cut. Without a ladder it is an
	// *api.Error of code NotFound.
	Ladder(ctx context.Context, exp ledger.Experiment) (api.Ladder, error)
	// Buffer is the replay buffer of the last cut. Without one it is an *api.Error of code NotFound.
	Buffer(ctx context.Context, exp ledger.Experiment) (api.Buffer, error)
	// Metrics are the records behind a step that this node has, oldest first, each one line of JSON without its newline, and
	// a channel that is closed once there are more.
	Metrics(exp ledger.ID, from int64) (lines [][]byte, more <-chan struct{})
	// Draining says whether a replica was asked to leave, or wants to.
	Draining(exp ledger.ID, replica string) bool
	// Drain asks a replica to leave once its shards are elsewhere.
	Drain(ctx context.Context, exp ledger.ID, replica string) error
	// Settle takes a cut of everything that is at work: what another leader then makes again is next to nothing.
	Settle(ctx context.Context)
	// Evict ends a replica's lease at once. It is an error where nobody drives the experiment.
	Evict(ctx context.Context, exp ledger.ID, replica string) error

	// Ask gives a replica work. It waits until there is some, or ctx ends: then, false.
	Ask(ctx context.Context, ask api.Ask) (api.Assignment, bool, error)
	// Pool are the replicas that ask, or were given work, by id.
	Pool() []api.PoolReplica
}

// Facts are numbers of an experiment since its driver began, for people and for Prometheus. All but Step and BufferFill only
// grow.
type Facts struct {
	Step       uint64
	Redone     uint64 // steps that were made again after a loss
	LeasesLost uint64
	Steps      Timing // of steps
	Cuts       Timing // from the call for a cut to its commit
	Rounds     Timing // of averaging
	RoundsLate uint64 // that waited for somebody beyond the deadline
	Pairs      []Pair // of the rungs k and k+1, of all groups
	RoundTrips uint64
	BufferFill float64 // part of the columns that were ever drawn
}

// Timing counts events and adds up how long they took.
type Timing struct {
	Count uint64
	Time  time.Duration
}

// Pair counts swaps.
type Pair struct{ Attempted, Accepted uint64 }

// Submitted is an experiment that may be created.
type Submitted struct {
	Name     string
	YAML     []byte // resolved: nothing is left to a default
	Rest     []byte // what a change of the ladder leaves of it
	Steps    uint64
	Shards   uint32
	CutEvery time.Duration // 0: at the end alone
}
