package replica

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// Times that both sides keep.
const (
	Lease     = 5 * time.Second // a replica that is silent for so long is lost
	Heartbeat = time.Second
	// Hold is how long a command is waited for before the coordinator is told to ask again.
	Hold = time.Second / 2
)

// Op says what a command wants.
type Op uint8

const (
	// Open takes the shards that Holders gives the replica, in the generation of the message. What went before is over.
	Open Op = iota + 1
	// Start draws the first weights and chains; with Bulk it takes the weights [P] float32 from there.
	Start
	// Restore goes back to a cut: Bulk is that of each group, see EncodeCut.
	Restore
	// Run makes training steps up to step To.
	Run
	// Reset forgets the statistics of the pairs.
	Reset
	// Cut asks each group's lead for its cut, as bulk.
	Cut
	// Contribute asks each group's lead for its contribution to an averaging round, as bulk.
	Contribute
	// Update brings what the round came to, as bulk; the groups of Refused drop what they owe.
	Update
	// Theta, Params, Energies and Chains ask the lead of group 0 for its parameters [P] float32, for the same by name as
	// safetensors, for E float64 at the points [n, dim] float32 that Bulk brings, and for the chains of the target rung
	// float32: all as bulk.
	Theta
	Params
	Energies
	Chains
	// Abort ends the waits of a generation: what runs comes back with an error. Ping does nothing. Leave ends the replica.
	// These three are answered at once, whatever runs.
	Abort
	Ping
	Leave
)

var opNames = [...]string{Open: "open", Start: "start", Restore: "restore", Run: "run", Reset: "reset", Cut: "cut", Contribute: "contribute", Update: "update",
	Theta: "theta", Params: "params", Energies: "energies", Chains: "chains", Abort: "abort", Ping: "ping", Leave: "leave"}

func (o Op) String() string {
	if int(o) < len(opNames) && opNames[o] != "" {
		return opNames[o]
	}
	return fmt.Sprintf("command %d", uint8(o))
}

// collective says whether members wait for each other in it.
func (o Op) collective() bool { return o != Theta && o != Params && o != Energies }

// Command is what the coordinator asks of a replica. Its generation is in the header of the message.
type Command struct {
	// Seq numbers the commands of a coordinator. One that comes again is not executed again: its answer got lost.
	Seq     uint64
	Op      Op
	From    string   // the coordinator
	Holders []string // Open: the replica of each shard
	To      int      // Run
	Bulk    bool     // what it brings is pulled from the coordinator under BulkKey
	Refused []int    // Update
}

// Answer is what a replica says when a command is done.
type Answer struct {
	Groups []GroupAnswer // of the groups whose lead it holds
	Failed *Failure      // nil where all went well
	Moved  Moved         // by the replica since it was started; after Run
}

// GroupAnswer is the part of one group.
type GroupAnswer struct {
	Group   int
	Reports []engine.Report // Run: one a step
	Facts   *Facts          // Run, Start, Restore: as the group stands; nil without chains
	Bulk    bool            // what was asked for is pulled from the replica under BulkKey
}

// Facts are what a group with chains says of them.
type Facts struct {
	Stats       tempering.Stats
	TripRate    float64
	Exploration []float64
	Adapted     engine.Adapted
	StepSizes   []float64
}

// Rounds says whether groups come together in rounds that the coordinator leads. Under sync their leads exchange gradients.
func Rounds(c averaging.Config) bool { return c.Travels() && c.Outer != "sync" }

// Failure is why a command failed. At most one of the fields after Text is set.
type Failure struct {
	Text      string
	NonFinite *engine.NonFiniteError // the training came to a number that is not finite: it ends
	Lost      string                 // a replica that could not be reached
	Aborted   bool                   // the generation ended meanwhile
	NoEnergy  bool                   // it is engine.ErrNoEnergy
}

func failureOf(err error) *Failure {
	f := &Failure{Text: err.Error()}
	var lost *LostError
	switch {
	case errors.As(err, &f.NonFinite):
	case errors.As(err, &lost):
		f.Lost = lost.Replica
	case errors.Is(err, engine.ErrNoEnergy):
		f.NoEnergy = true
	case errors.Is(err, errAborted):
		f.Aborted = true
	}
	return f
}

// Offer is what the coordinator gives to whoever wants to join, under OfferKey: the experiment, resolved.
type Offer struct {
	Experiment []byte // YAML
	Dir        string // where its relative paths start
}

// OfferKey names the experiment among the coordinator's blobs.
var OfferKey = transport.Key{Kind: transport.KindBulk}

// BulkKey names what a command brings (or asks for) for a group.
func BulkKey(generation, seq uint64, group int) transport.Key {
	return transport.Key{Kind: transport.KindBulk, Generation: generation, Scan: seq, Shard: uint32(group)}
}

// Encode writes a [Command], [Answer] or [Offer]. They are gobs: floating-point numbers keep all but the sign of a zero, those
// too that are not finite, and both sides are the same program, which registration makes sure of.
func Encode(v any) []byte {
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(v); err != nil {
		panic(err) // the types are fixed
	}
	return b.Bytes()
}

// Decode reads what Encode wrote.
func Decode[T Command | Answer | Offer](data []byte) (v T, err error) {
	if err := gob.NewDecoder(bytes.NewReader(data)).Decode(&v); err != nil {
		return v, fmt.Errorf("%w: %T: %w", transport.ErrMalformed, v, err)
	}
	return v, nil
}

// Meeting is where the members of an experiment meet.
type Meeting struct {
	Experiment uint64
	Subjects   transport.Subjects
}

// Meet is the meeting that a token opens. It follows from the token, so that whoever has one needs no other name.
func Meet(token string) Meeting {
	sum := sha256.Sum256([]byte("kelvin experiment " + token))
	id := binary.LittleEndian.Uint64(sum[:])
	return Meeting{id, transport.SubjectsOf(id)}
}

// Platform is all that the bits of a run hang on beside the experiment: the program and the backend.
func Platform(version, fingerprint string) string { return version + " on " + fingerprint }
