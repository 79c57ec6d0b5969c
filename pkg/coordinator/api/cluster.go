package api

import (
	"encoding/json"
	"time"
)

// Change is a line of GET /v1/watch.
type Change struct {
	Index   uint64          `json:"index"`             // asked for since this, a watch goes on behind the line
	Kind    string          `json:"kind"`              // Inventory, Experiment, Event, Member, or Tick, which is a sign of life alone
	Deleted bool            `json:"deleted,omitempty"` // the object is gone; only its name and uid are set
	Gap     bool            `json:"gap,omitempty"`     // older events of the experiment may be missing
	Object  json.RawMessage `json:"object,omitempty"`
}

// Kinds of changes.
const (
	KindInventory  = "Inventory"
	KindExperiment = "Experiment"
	KindEvent      = "Event"
	KindMember     = "Member"
	KindTick       = "Tick"
)

// Inventory is the first line of a watch: what there is now. Whatever the watcher knows and does not find here was deleted.
type Inventory struct {
	Meta
	Experiments []Ref `json:"experiments"`
}

// Ref names an experiment.
type Ref struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// Member is a coordinator.
type Member struct {
	Meta
	Name    string `json:"name"`
	Peer    string `json:"peer"` // host:port, for the other coordinators
	API     string `json:"api"`  // URL
	NATS    string `json:"nats"` // URL
	Role    string `json:"role"` // voter, nonvoter, or none of a node that is not in the quorum any more
	Leader  bool   `json:"leader"`
	Feature uint32 `json:"feature"`           // newest level of commands that it knows
	Behind  uint64 `json:"behind"`            // log entries that it has yet to get, as far as the leader knows
	Healthy bool   `json:"healthy"`           // the leader hears from it
	Message string `json:"message,omitempty"` // why not
}

// Roles of a coordinator.
const (
	Voter    = "voter"
	Nonvoter = "nonvoter"
)

// AddMember lets a coordinator in, as a non-voter: POST /v1/members.
type AddMember struct {
	Name string `json:"name"`
	Peer string `json:"peer"`
}

// Scopes of tokens. Each allows what those before it do, but Join.
const (
	ScopeRead    = "read"
	ScopeOperate = "operate" // submit, pause, resume, cancel, scale …
	ScopeAdmin   = "admin"   // members, tokens, quotas, backup
	ScopeJoin    = "join"    // for replicas: to ask for work, and nothing else
)

// Token is a credential, without its secret.
type Token struct {
	Meta
	Name        string     `json:"name"`
	Scope       string     `json:"scope"`
	Owner       string     `json:"owner,omitempty"`       // whose quota the experiments submitted with it count for
	Experiments string     `json:"experiments,omitempty"` // name, or beginning with * at the end; "": all
	Expires     *time.Time `json:"expires"`               // null: never
	Uses        uint32     `json:"uses,omitempty"`        // that are left of a join token; 0: any number, or none if it is
	Spent       bool       `json:"spent,omitempty"`       // used up: it stands for the replicas that came with it, until it is revoked
}

// CreateToken asks for a token: POST /v1/tokens, answered by NewToken.
type CreateToken struct {
	Name        string  `json:"name"`
	Scope       string  `json:"scope"`
	Owner       string  `json:"owner,omitempty"`
	Experiments string  `json:"experiments,omitempty"`
	TTLSeconds  float64 `json:"ttl_seconds,omitempty"` // 0: never expires; of a join token 24 h, which is also the most
	Uses        uint32  `json:"uses,omitempty"`
}

// NewToken is a token with its secret, which is shown this once.
type NewToken struct {
	Token
	Secret string `json:"secret"`
}

// Quota limits what the experiments of an owner may take together; a zero does not limit.
type Quota struct {
	Meta
	Owner       string `json:"owner"`
	Experiments uint32 `json:"experiments"` // that are not final
	Replicas    uint32 `json:"replicas"`    // wanted by those
	Bytes       uint64 `json:"bytes"`       // of blobs
	Used        Usage  `json:"used"`
}

// Usage is what the experiments of an owner take.
type Usage struct {
	Experiments uint32 `json:"experiments"`
	Replicas    uint32 `json:"replicas"`
	Bytes       uint64 `json:"bytes"`
}

// PutQuota sets a quota: PUT /v1/quotas/{owner}.
type PutQuota struct {
	Experiments uint32 `json:"experiments"`
	Replicas    uint32 `json:"replicas"`
	Bytes       uint64 `json:"bytes"`
}

// Ask is a replica that asks for work: POST /v1/pool/ask.
type Ask struct {
	ID          string `json:"id"`
	Incarnation uint64 `json:"incarnation,string"`
	Experiment  string `json:"experiment,omitempty"` // the only one it works for; "": any
	// Refuses are the uids of experiments that it was given and that cannot be had there, the last 64 at most.
	Refuses  []string `json:"refuses,omitempty"`
	Device   string   `json:"device"`
	Platform string   `json:"platform"`
}

// Assignment is the answer to Ask: an experiment to work for, or that there is nothing more to wait for.
type Assignment struct {
	Meta
	Experiment string   `json:"experiment,omitempty"`
	UID        string   `json:"uid,omitempty"`
	Secret     string   `json:"secret,omitempty"` // of the experiment, for NATS and replica.Meet
	NATS       []string `json:"nats,omitempty"`   // URLs
	// ForeignNATS says that the message servers are not the coordinators': a replica shows them what it was given for that, and
	// never the secret.
	ForeignNATS bool `json:"foreign_nats,omitempty"`

	Done   bool   `json:"done,omitempty"` // the replica may end, with the status Exit
	Exit   int    `json:"exit,omitempty"` // 0, 42 (do not start it again) or 143 (people asked it to leave)
	Reason string `json:"reason,omitempty"`
}

// PoolReplica is a replica that the scheduler knows.
type PoolReplica struct {
	Meta
	ID         string    `json:"id"`
	Bound      string    `json:"bound,omitempty"` // the only experiment that it works for
	Experiment string    `json:"experiment"`      // that it works for now; "": it waits
	Device     string    `json:"device"`
	Platform   string    `json:"platform"`
	Since      time.Time `json:"since"`
}

// Build is GET /version.
type Build struct {
	Meta
	Version string `json:"version"`
	Go      string `json:"go"`
	Feature uint32 `json:"feature"` // level of commands in use
	Node    string `json:"node"`
	Leader  string `json:"leader"` // "": none known
	Cluster string `json:"cluster"`
}

// Restored is the answer to POST /v1/restore.
type Restored struct {
	Meta
	Cluster     string `json:"cluster"`
	Experiments int    `json:"experiments"`
}
