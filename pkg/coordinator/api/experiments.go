package api

import (
	"encoding/json"
	"time"
)

// Version is the apiVersion of all objects.
const Version = "kelvin/v1"

// Meta says what an object is. Every answer has it.
type Meta struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
}

// Kind is the Meta of an object of this version.
func Kind(kind string) Meta { return Meta{Version, kind} }

// List is several objects of one kind.
type List[T any] struct {
	Meta
	Index      uint64  `json:"index"`       // of the last log entry that the answer knows
	AgeSeconds float64 `json:"age_seconds"` // since that was surely the newest; 0 from the leader
	Items      []T     `json:"items"`
}

// What people may want of an experiment, see Experiment.Desired.
const (
	Run    = "run"
	Pause  = "pause"
	Cancel = "cancel"
)

// How far an experiment may be, see Experiment.Phase. From Completed on nothing follows by itself.
const (
	Queued       = "queued"  // waits for its turn
	Waiting      = "waiting" // has its turn, and too few replicas
	Running      = "running"
	Paused       = "paused"
	Completed    = "completed"
	Cancelled    = "cancelled"
	Failed       = "failed"
	Inconsistent = "inconsistent" // a cut broke the conservation laws
	Degraded     = "degraded"     // no copy of a blob of the last cuts is whole
)

// Final says whether a phase is one that nothing follows.
func Final(phase string) bool {
	switch phase {
	case Completed, Cancelled, Failed, Inconsistent, Degraded:
		return true
	}
	return false
}

// Submit asks for a new experiment: POST /v1/experiments.
type Submit struct {
	UID             string  `json:"uid,omitempty"`               // 32 hex digits, drawn at random: sent again, it is the same experiment. The client fills it in
	Name            string  `json:"name,omitempty"`              // "": that of the file
	YAML            string  `json:"yaml"`                        // the experiment file
	Dir             string  `json:"dir,omitempty"`               // where its relative paths start, on the replicas
	Owner           string  `json:"owner,omitempty"`             // whose quota counts; "": that of the token. Another needs the scope admin
	Replicas        uint32  `json:"replicas,omitempty"`          // at most; 0: as many as there are shards
	MinReplicas     uint32  `json:"min_replicas,omitempty"`      // to begin with; 0: 1
	Priority        int32   `json:"priority,omitempty"`          // higher first, then the older one
	CutEverySeconds float64 `json:"cut_every_seconds,omitempty"` // 0: what the file says
	DryRun          bool    `json:"dry_run,omitempty"`           // check everything, create nothing
}

// Experiment is an experiment and how far it is.
type Experiment struct {
	Meta
	Name            string    `json:"name"`
	UID             string    `json:"uid"` // for good: a name can be used again, a uid never
	Owner           string    `json:"owner"`
	Version         uint64    `json:"version"` // changes with every change; the ETag
	Created         time.Time `json:"created"`
	Changed         time.Time `json:"changed"`
	Desired         string    `json:"desired"`
	Phase           string    `json:"phase"`
	Message         string    `json:"message,omitempty"` // why it is in that phase
	Priority        int32     `json:"priority"`
	Replicas        uint32    `json:"replicas"` // wanted at most; 0: as many as there are shards
	MinReplicas     uint32    `json:"min_replicas"`
	LiveReplicas    uint32    `json:"live_replicas"` // that have a lease
	Shards          uint32    `json:"shards"`
	Steps           uint64    `json:"steps"` // in all
	Step            uint64    `json:"step"`  // made; while nobody leads it, those of the last cut
	StepsRedone     uint64    `json:"steps_redone"`
	Generation      uint64    `json:"generation"` // 0 before the first
	From            *uint64   `json:"from"`       // step of the cut that the generation starts from; null: the very beginning
	CutEverySeconds float64   `json:"cut_every_seconds"`
	LastCut         *CutMark  `json:"last_cut"` // null before the first
	Cuts            uint32    `json:"cuts"`     // that are kept
	Bytes           uint64    `json:"bytes"`    // of blobs, each counted once
	Dir             string    `json:"dir,omitempty"`
	YAML            string    `json:"yaml,omitempty"` // the resolved experiment; not in lists and watches
}

// CutMark names a cut.
type CutMark struct {
	Step uint64    `json:"step"`
	At   time.Time `json:"at"`
}

// Patch changes what people want: PATCH /v1/experiments/{name}. What is nil, or "", stays.
type Patch struct {
	Desired  string  `json:"desired,omitempty"`
	Replicas *uint32 `json:"replicas,omitempty"`
	Priority *int32  `json:"priority,omitempty"`
}

// Replica is a replica of an experiment.
type Replica struct {
	Meta
	Name        string    `json:"name"`
	State       string    `json:"state"`  // active, standby or draining
	Shards      []uint32  `json:"shards"` // that it holds
	Lease       uint64    `json:"lease"`  // fencing number
	Incarnation uint64    `json:"incarnation,string"`
	Device      string    `json:"device"`
	Platform    string    `json:"platform"`
	Since       time.Time `json:"since"`
}

// States of a replica.
const (
	Active   = "active"   // holds shards
	Standby  = "standby"  // has a lease, and nothing to do
	Draining = "draining" // is asked to leave, or wants to
)

// Shard is a shard of an experiment.
type Shard struct {
	Meta
	Shard   uint32 `json:"shard"`
	Replica string `json:"replica"` // "": nobody
	Group   uint32 `json:"group"`
	Rung    *int   `json:"rung"` // that all its rows have; null where it holds whole ladders
	Rows    uint32 `json:"rows"`
}

// Rung is a rung of an experiment's ladder.
type Rung struct {
	Meta
	Rung           uint32   `json:"rung"`
	Beta           float64  `json:"beta"`
	StepSize       float64  `json:"step_size"`
	ExplorerAccept *float64 `json:"explorer_accept"` // mean acceptance of its chain steps; null where it is not known
	SwapAccept     *float64 `json:"swap_accept"`     // mean acceptance with the rung above; null for the last one, and where none was tried
	SwapAttempts   uint64   `json:"swap_attempts"`
	SwapAccepted   uint64   `json:"swap_accepted"`
}

// Ladder is the ladder of an experiment.
type Ladder struct {
	Meta
	Step          uint64  `json:"step"` // that it is of
	Rungs         []Rung  `json:"rungs"`
	Barrier       float64 `json:"barrier"`
	Restarts      uint64  `json:"restarts"`
	RoundTrips    uint64  `json:"round_trips"`
	RoundTripRate float64 `json:"round_trip_rate"` // a scan, of all ladders together
}

// Buffer is the replay buffer of an experiment.
type Buffer struct {
	Meta
	Step    uint64  `json:"step"`    // of the cut that it is of
	Groups  uint32  `json:"groups"`  //
	Columns uint64  `json:"columns"` // of a group
	Live    uint64  `json:"live"`    // columns of a group that chains work on
	Rungs   uint32  `json:"rungs"`   // states of a column
	Dim     uint64  `json:"dim"`     // numbers of a state
	Fill    float64 `json:"fill"`    // part of the columns that were ever drawn
	AgeMin  uint64  `json:"age_min"` // scans since a column's last restart
	AgeMean float64 `json:"age_mean"`
	AgeMax  uint64  `json:"age_max"`
	Bytes   uint64  `json:"bytes"` // of the files of the cut that hold chains
}

// Event is something that people want to know of an experiment.
type Event struct {
	Meta
	Experiment string    `json:"experiment"`
	Index      uint64    `json:"index"`
	At         time.Time `json:"at"`
	Reason     string    `json:"reason"` // such as registered, lost, generation, cut, refused, phase
	Text       string    `json:"text"`
}

// Metric is one record of an experiment's metrics, as a line of metrics.jsonl.
type Metric struct {
	Step uint64
	Line json.RawMessage // an object of numbers and lists of numbers, step and seconds among them
}

// Cut is a cut of an experiment.
type Cut struct {
	Meta
	Step         uint64          `json:"step"`
	Generation   uint64          `json:"generation"`
	Index        uint64          `json:"index"` // of its log entry
	At           time.Time       `json:"at"`
	Bytes        uint64          `json:"bytes"`    // of its parts
	Manifest     string          `json:"manifest"` // digest of the blob manifest.json
	Parts        []Part          `json:"parts"`
	Conservation Conservation    `json:"conservation"`
	Refused      bool            `json:"refused,omitempty"`  // it broke the conservation laws, and is kept as evidence
	Contents     json.RawMessage `json:"contents,omitempty"` // what the manifest says; only of a single cut
}

// Part is a file of a cut.
type Part struct {
	Name   string `json:"name"`
	Digest string `json:"digest"` // SHA-256 of the blob, in hex
	Bytes  uint64 `json:"bytes"`
}

// Conservation sums up the chains of a cut: labels = ladders × rungs and created − retired = live.
type Conservation struct {
	Ladders uint64 `json:"ladders"`
	Rungs   uint64 `json:"rungs"`
	Labels  uint64 `json:"labels"`
	Created uint64 `json:"created"`
	Retired uint64 `json:"retired"`
	Live    uint64 `json:"live"`
}

// ReplaceCut puts a cut in place: POST /v1/experiments/{name}/cuts/{step}, of a paused experiment. Later ones are forgotten.
// Without a manifest it is the cut of that step, which must be kept. With one, whose blobs were uploaded before, it is another
// one of that step, whether one is kept or not. What is refused changes nothing.
type ReplaceCut struct {
	Manifest     string       `json:"manifest,omitempty"`
	Parts        []Part       `json:"parts,omitempty"`
	Conservation Conservation `json:"conservation,omitzero"`
}

// PutLadder gives a paused experiment another ladder: PUT /v1/experiments/{name}/ladder. Nothing but the ladder may differ in the
// YAML. The cut is the last one on that ladder: of the same step, and its blobs were uploaded before. It takes the place of all
// cuts that are kept, from which the other ladder cannot go on.
type PutLadder struct {
	YAML         string       `json:"yaml"`
	Manifest     string       `json:"manifest"`
	Parts        []Part       `json:"parts"`
	Conservation Conservation `json:"conservation"`
}
