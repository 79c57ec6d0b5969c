package ledger

import (
	"encoding/hex"
	"errors"
	"math"
	"strconv"
	"time"
)

// ID names an experiment for good: a name can be used again after the experiment was deleted, an ID never.
type ID [16]byte

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Digest is the SHA-256 of a blob's bytes.
type Digest [32]byte

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Desired is what people want of an experiment.
type Desired uint8

// The values of Desired.
const (
	Run    Desired = iota + 1
	Pause          // a cut, then nobody works on it
	Cancel         // a cut, then closed for good
)

func (d Desired) String() string { return word(uint8(d), "run", "pause", "cancel") }

// Phase is how far an experiment is. What ExpPhase may make of it:
//
//	from     to  queued  waiting  running  paused  completed  cancelled  failed  inconsistent  degraded
//	queued          ·       ✓        ✓        ✓                   ✓         ✓                     ✓
//	waiting         ✓       ·        ✓        ✓        ✓          ✓         ✓                     ✓
//	running         ✓       ✓        ·        ✓        ✓          ✓         ✓          ✓          ✓
//	paused          ✓       ✓        ✓        ·                   ✓         ✓                     ✓
//
// Besides, a refused CutCommit leads from each of these four to inconsistent, and ExpSet{Run} from inconsistent and degraded
// to queued. Nothing leaves completed, cancelled and failed.
type Phase uint8

// The values of Phase. From Completed on nothing follows.
const (
	Queued       Phase = iota + 1 // waits for its turn
	Waiting                       // has its turn, and too few replicas
	Running                       //
	Paused                        //
	Completed                     // all steps are made
	Cancelled                     //
	Failed                        // the training itself cannot go on: the message says why
	Inconsistent                  // a cut broke the conservation laws
	Degraded                      // no copy of a blob of the last cuts is whole
)

func (p Phase) String() string {
	return word(uint8(p), "queued", "waiting", "running", "paused", "completed", "cancelled", "failed", "inconsistent", "degraded")
}

// Final says whether nothing follows.
func (p Phase) Final() bool { return p >= Completed }

// Scope is what a token allows.
type Scope uint8

// The values of Scope: each allows what those before it do, but Join, which allows a replica to ask for work and nothing else.
const (
	Read    Scope = iota + 1
	Operate       // submit, pause, resume, cancel, scale …
	Admin         // members, tokens, quotas, backup
	Join
)

func (s Scope) String() string { return word(uint8(s), "read", "operate", "admin", "join") }

// word is the word for a value that is counted from 1.
func word(v uint8, words ...string) string {
	if v < 1 || int(v) > len(words) {
		return strconv.Itoa(int(v))
	}
	return words[v-1]
}

// Command is one of the commands of this package.
type Command interface {
	kind() kind
}

// Entry is what is in the log: a command, the experiment that it is about (zero for commands about the cluster) and the
// proposer's clock, which is shown to people and decides nothing.
type Entry struct {
	Exp     ID
	At      time.Time // to the millisecond
	Command Command
}

// The commands. Each names what makes it unique, so that applying it again comes to the same outcome and changes nothing.
type (
	// ClusterInit gives the cluster its identity. Another one is ErrConflict.
	ClusterInit struct {
		Cluster ID
		Secret  [32]byte // from which the experiments' own secrets are derived
	}
	// NodePut says where a coordinator is reached. Feature is the newest feature level that it supports; one below the level
	// in use is ErrUnsupported.
	NodePut struct {
		Name, Peer, API, NATS string
		Feature               uint32
	}
	// NodeDelete forgets a coordinator.
	NodeDelete struct{ Name string }
	// FeatureLevel raises the level of commands that may be used: one that is reached already changes nothing, one that not
	// every node supports is ErrUnsupported.
	FeatureLevel struct{ Level uint32 }

	// ExpCreate creates Entry.Exp. A name that is taken by another experiment is ErrExists. Quotas of Owner are checked.
	ExpCreate struct {
		Name, Owner string
		Spec        []byte // the resolved experiment, YAML
		Dir         string // where its relative paths start, on the replicas
		Steps       uint64 // in all
		Shards      uint32
		Want        uint32 // replicas at most; 0: as many as there are shards
		Min         uint32 // replicas to begin with
		Priority    int32  // higher first, then the older one
		CutEvery    time.Duration
	}
	// ExpSet changes what people want. Version is the version that was seen, 0 for any; another is ErrConflict, unless everything
	// is already as it is asked to be. Cancel is not taken back, and in a final phase only Run has an effect, where it leads
	// on; else ErrConflict. Quotas are checked.
	ExpSet struct {
		Version  uint64
		Desired  Desired // 0: unchanged
		Want     *uint32 // nil: unchanged
		Priority *int32
	}
	// ExpPhase is the leader's word of how far it is. A final phase is never left, but Degraded and Inconsistent by ExpSet{Run};
	// what may follow what is said at [Phase], the rest is ErrConflict. [Clip] makes any text a Message.
	ExpPhase struct {
		Phase   Phase
		Message string
	}
	// ExpDelete forgets an experiment in a final phase, with its cuts; in another one it is ErrConflict.
	ExpDelete struct{ Version uint64 }

	// Register gives a lease; the outcome's Value is its token, the index of the entry. The same incarnation again gets the
	// token that it has. Another incarnation, while the lease of the first stands, is ErrConflict unless Takeover is set.
	Register struct {
		Replica          string
		Incarnation      uint64
		Device, Platform string
		Takeover         bool
	}
	// LeaseEnd ends a lease: the replica left, or was lost. Another token than the present one changes nothing.
	LeaseEnd struct {
		Replica string
		Token   uint64
		Lost    bool
	}
	// GenerationOpen begins a generation: Number is the last one's plus 1, else ErrStale. From is the step of the cut that it
	// starts from, Start for the very beginning, while there is no cut; cuts behind it are forgotten. Holders are the replicas of
	// the shards, which hold leases, else ErrNotFound; none: nobody works.
	GenerationOpen struct {
		Number  uint64
		Holders []string
		From    int64
	}
	// CutCommit takes a cut over. The blobs must be durable on a quorum before it is proposed. Another generation than the
	// present one is ErrStale, a step that is not above the last cut's ErrConflict (the same cut again is fine), a
	// conservation that does not hold ErrInconsistent; that also sets the phase. A cut above the quota is ErrQuota.
	CutCommit struct {
		Generation   uint64
		Step         uint64
		Manifest     Digest
		Parts        []Part // one at least, by name
		Conservation Conservation
		// Replace puts it in the place of the cut of the same step, in a generation without holders: people changed it. If it
		// breaks a law it is refused, and the phase stays. Reserved for logs of the first version: CutReplace, which does more at
		// once, is what is proposed now.
		Replace bool
	}

	// CutReplace makes the cut of a step the last one of an experiment that is inconsistent or degraded, or paused as people want
	// it to be, and opens a generation that nobody works in: cuts behind it are forgotten. Without parts it is the cut of that
	// step, which must be kept, else ErrNotFound; with parts another is put in its place, or among those that are kept if it is not
	// one of them any more. A conservation that does not hold is ErrInconsistent, and the phase stays. Version is as in ExpSet.
	// Quotas are checked. Whatever is refused changes nothing.
	CutReplace struct {
		Version      uint64
		Step         uint64 // at most that of the experiment's end
		Manifest     Digest // durable on a quorum, like the parts; zero without those, and Conservation
		Parts        []Part // by name
		Conservation Conservation
	}

	// ExpRespec makes another experiment of one that people want to be paused, and that is, together with the cut that goes with
	// it: they changed its ladder. Step is the last cut's, else ErrConflict; that cut and all before it, from which the other
	// experiment cannot go on, are forgotten. A conservation that does not hold is ErrInconsistent, and the phase stays. Version is
	// as in ExpSet. Quotas are checked.
	ExpRespec struct {
		Version      uint64
		Spec         []byte // as in ExpCreate, and Shards
		Shards       uint32
		Step         uint64
		Manifest     Digest
		Parts        []Part // one at least, by name; durable on a quorum, like the manifest
		Conservation Conservation
	}

	// TokenPut adds or replaces a token of the HTTP interface. A secret that another token has is ErrConflict.
	TokenPut struct{ Token Token }
	// TokenCreate adds one. A name that is taken by a token with another secret is ErrExists.
	TokenCreate struct{ Token Token }
	// TokenUse counts a use of the join token of that name and secret, else ErrNotFound: so many are Left then, and before it was
	// one more, else ErrConflict. One that was used up is Spent.
	TokenUse struct {
		Name string
		Hash Digest
		Left uint32
	}
	// TokenRevoke forgets one.
	TokenRevoke struct{ Name string }
	// QuotaPut limits what one owner's experiments may take; zero fields do not limit.
	QuotaPut struct{ Quota Quota }
	// Noop does nothing.
	Noop struct{}
)

// Start is GenerationOpen.From for the very beginning.
const Start int64 = -1

// Part is a blob of a cut.
type Part struct {
	Name   string // of the file in the cut
	Digest Digest
	Bytes  uint64
}

// Conservation sums up what a cut holds: every ladder must have each walker label once and each rung once, and of the walkers
// that were created all but the retired live.
type Conservation struct {
	Ladders, Rungs         uint64 // Rungs of a ladder; 0 and 0 without chains
	Labels                 uint64 // (ladder, label) pairs seen exactly once
	Created, Retired, Live uint64
}

// Token is a credential of the HTTP interface. Its secret is not kept.
type Token struct {
	Name        string
	Hash        Digest // SHA-256 of the secret
	Scope       Scope
	Owner       string    // whose experiments count for a quota
	Experiments string    // name, or prefix with * at the end; "": all
	Expires     time.Time // zero: never
	Uses        uint32    // that are left of a Join token; 0: any number; or Spent
}

// Spent is Token.Uses of a token that was used up. It stays until it is revoked: that is how people end what it let in.
const Spent = math.MaxUint32

// Quota limits what the experiments of an owner may take together.
type Quota struct {
	Owner       string
	Experiments uint32 // that are not final
	Replicas    uint32 // wanted by those
	Bytes       uint64 // of blobs
}

// Outcome is what a command came to; the same on every node.
type Outcome struct {
	Value uint64 // of Register the token, of ExpDelete 0, of the others about an experiment its version; 0 with an error
	Err   error  // one of the errors below, wrapped with what it is about; nil
}

// Errors of commands.
var (
	ErrInvalid      = errors.New("invalid")
	ErrNotFound     = errors.New("not found")
	ErrExists       = errors.New("exists")
	ErrConflict     = errors.New("conflict")
	ErrStale        = errors.New("stale")
	ErrInconsistent = errors.New("inconsistent")
	ErrQuota        = errors.New("quota exceeded")
	ErrUnsupported  = errors.New("unsupported")
)

// Limits of what is in the log.
const (
	MaxEntry = 256 << 10 // bytes
	MaxSpec  = 32 << 10
	KeptCuts = 3 // of an experiment
	MaxParts = 4096
	Kept     = 64 // events of an experiment
)

// Experiment is an experiment as the ledger has it.
type Experiment struct {
	ID ID
	ExpCreate
	Created, Changed time.Time
	Version          uint64 // index of the last entry that changed it
	Desired          Desired
	Phase            Phase
	Message          string

	Generation uint64    // the last one's number; 0 before the first
	Holders    []string  // of its shards
	From       int64     // step of the cut that it started from
	Replicas   []Replica // by name
	Cuts       []Cut     // oldest first, KeptCuts at most
	Refused    *Cut      // that broke the conservation laws
	Events     []Event
}

// Replica is a lease.
type Replica struct {
	Name             string
	Token            uint64 // index of the entry that gave it
	Incarnation      uint64
	Device, Platform string
	Since            time.Time
}

// Cut is one that was committed.
type Cut struct {
	Step, Generation uint64
	Manifest         Digest
	Parts            []Part
	Conservation     Conservation
	Index            uint64
	At               time.Time
}

// Event is something that people want to know of an experiment.
type Event struct {
	Index uint64
	At    time.Time
	Kind  string // such as "registered", "lost", "generation", "cut", "refused", "phase"
	Text  string // as every node writes it: the wording is part of the state
}

// Node is a coordinator.
type Node struct {
	Name, Peer, API, NATS string
	Feature               uint32
}
