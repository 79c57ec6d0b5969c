package ledger

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"
)

// keptDeleted is how many deleted experiments are remembered, so that a late repetition of their creation or deletion is
// known as one.
const keptDeleted = 1024

// State is what a log of entries came to. It is the same on every node that applied the same entries: nothing in it comes from
// a clock, from chance, or from the order of a map. It is not safe for concurrent use. What its methods return shares no memory
// with it.
type State struct {
	index   uint64
	cluster ClusterInit // zero before it is there
	feature uint32
	nodes   map[string]Node
	tokens  map[string]Token
	quotas  map[string]Quota

	experiments []*experiment // by creation
	byID        map[ID]*experiment
	byName      map[string]*experiment
	deleted     []ID // the last keptDeleted, oldest first
}

// experiment is an Experiment with what follows from it.
type experiment struct {
	Experiment
	bytes uint64 // of the blobs of its cuts, each counted once
}

// New is the state before the first entry.
func New() *State {
	return &State{
		nodes:  map[string]Node{},
		tokens: map[string]Token{},
		quotas: map[string]Quota{},
		byID:   map[ID]*experiment{},
		byName: map[string]*experiment{},
	}
}

// Index is that of the last entry that was applied, 0 before the first.
func (s *State) Index() uint64 { return s.index }

// Cluster is the cluster's identity and secret; false before there are any.
func (s *State) Cluster() (id ID, secret [32]byte, ok bool) {
	return s.cluster.Cluster, s.cluster.Secret, s.cluster != ClusterInit{}
}

// Feature is the level of commands that may be used.
func (s *State) Feature() uint32 { return s.feature }

// Experiment is the experiment of a name.
func (s *State) Experiment(name string) (Experiment, bool) { return s.byName[name].view() }

// ByID is the experiment of an ID.
func (s *State) ByID(id ID) (Experiment, bool) { return s.byID[id].view() }

// Experiments are all experiments, in the order of their creation.
func (s *State) Experiments() []Experiment {
	out := make([]Experiment, len(s.experiments))
	for i, e := range s.experiments {
		out[i], _ = e.view()
	}
	return out
}

// Nodes are the coordinators, by name.
func (s *State) Nodes() []Node { return sorted(s.nodes) }

// Tokens are the tokens of the HTTP interface, by name.
func (s *State) Tokens() []Token { return sorted(s.tokens) }

// Token is the token of a name.
func (s *State) Token(name string) (Token, bool) {
	t, ok := s.tokens[name]
	return t, ok
}

// Quotas are the limits that were set, by owner.
func (s *State) Quotas() []Quota { return sorted(s.quotas) }

// Quota is the limit of an owner: one that limits nothing where none was set.
func (s *State) Quota(owner string) Quota {
	q := s.quotas[owner]
	q.Owner = owner
	return q
}

// References are the blobs that the state names, with their size in bytes: the parts of all cuts, refused ones too, and their
// manifests, whose size is 0 because no command says it.
func (s *State) References() map[Digest]uint64 {
	refs := map[Digest]uint64{}
	for _, e := range s.experiments {
		e.references(refs)
	}
	return refs
}

func (e *Experiment) references(refs map[Digest]uint64) {
	add := func(c *Cut) {
		refs[c.Manifest] = max(refs[c.Manifest], 0)
		for _, p := range c.Parts {
			refs[p.Digest] = max(refs[p.Digest], p.Bytes)
		}
	}
	for i := range e.Cuts {
		add(&e.Cuts[i])
	}
	if e.Refused != nil {
		add(e.Refused)
	}
}

// weigh is the size of the blobs of the experiment.
func (e *Experiment) weigh() (bytes uint64) {
	refs := map[Digest]uint64{}
	e.references(refs)
	for _, n := range refs {
		bytes += n // below 2⁵⁷: four cuts of 2¹² parts of 2⁴⁰ bytes
	}
	return bytes
}

func (e *experiment) view() (Experiment, bool) {
	if e == nil {
		return Experiment{}, false
	}
	v := e.Experiment
	v.Spec = bytes.Clone(v.Spec)
	v.Holders = slices.Clone(v.Holders)
	v.Replicas = slices.Clone(v.Replicas)
	v.Events = slices.Clone(v.Events)
	v.Cuts = slices.Clone(v.Cuts)
	for i := range v.Cuts {
		v.Cuts[i].Parts = slices.Clone(v.Cuts[i].Parts)
	}
	if v.Refused != nil {
		refused := *v.Refused
		refused.Parts = slices.Clone(refused.Parts)
		v.Refused = &refused
	}
	return v, true
}

func sorted[K cmp.Ordered, V any](m map[K]V) []V {
	out := make([]V, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[k])
	}
	return out
}

// ExperimentSecret is the secret that the replicas of an experiment show on the message bus: an HMAC-SHA256 under the cluster's
// secret, in hex.
func ExperimentSecret(cluster [32]byte, id ID) string {
	mac := hmac.New(sha256.New, cluster[:])
	mac.Write([]byte("kelvin experiment\x00"))
	mac.Write(id[:])
	return hex.EncodeToString(mac.Sum(nil))
}

// Apply does what the encoded entry at an index of the log says. Indices rise: one below the last is ErrStale, 0 is ErrInvalid.
// Bytes that [Decode] refuses come to its error. Whatever the error, but for a cut that breaks the conservation laws, the
// entry changes nothing but Index.
//
// An entry that is applied again, at the same index or at a later one, comes to the same error and changes nothing, as long as
// what it set up still stands; Outcome.Value is then the present version. Where it does not stand any more:
//
//   - Register gives a new lease if the one that it gave has ended;
//   - ExpSet with Version 0, ExpPhase, NodePut, TokenPut and QuotaPut set again what others have set otherwise since; NodePut,
//     TokenPut and TokenCreate bring back what was deleted;
//   - TokenUse is ErrConflict behind another use, ErrNotFound without the token;
//   - GenerationOpen, and CutCommit of a cut that is not kept any more, are ErrStale or ErrConflict;
//   - ExpRespec is ErrConflict behind a later cut; CutReplace is, unless its Version is 0 and the experiment rests again;
//   - ExpCreate of an experiment that ExpRespec has changed since is ErrExists;
//   - ExpCreate and ExpDelete of an experiment that was deleted are known for the last 1024 of those.
//
// An entry that came to an error may be accepted when it is applied again later.
func (s *State) Apply(index uint64, data []byte) Outcome {
	if index == 0 {
		return Outcome{Err: fmt.Errorf("%w: entry at index 0, want 1 or more", ErrInvalid)}
	}
	if index < s.index {
		return Outcome{Err: fmt.Errorf("%w: entry at index %d, want one from %d on", ErrStale, index, s.index)}
	}
	s.index = index
	e, err := decode(data)
	if err != nil {
		return Outcome{Err: err}
	}
	value, err := s.apply(e)
	if err != nil {
		value = 0
	}
	return Outcome{Value: value, Err: err}
}

func (s *State) apply(entry Entry) (uint64, error) {
	switch c := entry.Command.(type) {
	case Noop:
		return 0, nil
	case ClusterInit:
		return 0, s.clusterInit(c)
	case NodePut:
		return 0, s.nodePut(c)
	case NodeDelete:
		delete(s.nodes, c.Name)
		return 0, nil
	case FeatureLevel:
		return 0, s.featureLevel(c)
	case TokenPut:
		return 0, s.tokenPut(c)
	case TokenRevoke:
		delete(s.tokens, c.Name)
		return 0, nil
	case QuotaPut:
		return 0, s.quotaPut(c)
	case TokenCreate:
		return 0, s.tokenCreate(c)
	case TokenUse:
		return 0, s.tokenUse(c)
	case ExpCreate:
		return s.create(entry.Exp, entry.At, c)
	case ExpDelete:
		return 0, s.delete(entry.Exp, c)
	}
	e := s.byID[entry.Exp]
	if e == nil {
		return 0, fmt.Errorf("%w: experiment %s", ErrNotFound, entry.Exp)
	}
	ch := change{e, s, entry.At}
	var err error
	switch c := entry.Command.(type) {
	case ExpSet:
		err = ch.set(c)
	case ExpPhase:
		err = ch.phase(c)
	case Register:
		return ch.register(c)
	case LeaseEnd:
		err = ch.leaseEnd(c)
	case GenerationOpen:
		err = ch.generationOpen(c)
	case CutCommit:
		err = ch.cutCommit(c)
	case ExpRespec:
		err = ch.respec(c)
	case CutReplace:
		err = ch.cutReplace(c)
	default:
		err = fmt.Errorf("%w: command %T", ErrUnsupported, c)
	}
	return e.Version, err
}

// change is an entry on its way into an experiment.
type change struct {
	*experiment
	state *State
	at    time.Time
}

// record makes the change one that happened: the experiment gets its version, and people an event.
func (c change) record(kind, format string, args ...any) {
	c.Version, c.Changed = c.state.index, c.at
	if len(c.Events) == Kept {
		c.Events = slices.Delete(c.Events, 0, 1)
	}
	c.Events = append(c.Events, Event{Index: c.Version, At: c.at, Kind: kind, Text: Clip(fmt.Sprintf(format, args...))})
}
