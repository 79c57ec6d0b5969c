package server

import (
	"encoding/hex"
	"math"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/blobs"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// experiment is what people see of an experiment, without its YAML. What the driver knows beside it is for whoever leads.
func (s *Server) experiment(e ledger.Experiment) api.Experiment {
	out := api.Experiment{
		Meta: api.Kind(api.KindExperiment), Name: e.Name, UID: e.ID.String(), Owner: e.Owner, Version: e.Version, Created: e.Created,
		Changed: e.Changed, Desired: e.Desired.String(), Phase: e.Phase.String(), Message: e.Message, Priority: e.Priority,
		Replicas: e.Want, MinReplicas: e.Min, LiveReplicas: uint32(len(e.Replicas)), Shards: e.Shards, Steps: e.Steps,
		Generation: e.Generation, CutEverySeconds: e.CutEvery.Seconds(), Cuts: uint32(len(e.Cuts)), Bytes: weigh(e), Dir: e.Dir,
	}
	if e.From != ledger.Start {
		from := uint64(e.From)
		out.From = &from
	}
	if n := len(e.Cuts); n > 0 {
		last := e.Cuts[n-1]
		out.LastCut = &api.CutMark{Step: last.Step, At: last.At}
		out.Step = last.Step
	}
	if facts, ok := s.work.Facts(e.ID); ok {
		out.Step, out.StepsRedone = max(out.Step, facts.Step), facts.Redone
	}
	return out
}

// weigh is the size of the blobs that an experiment's cuts name, each counted once.
func weigh(e ledger.Experiment) (bytes uint64) {
	seen := map[ledger.Digest]bool{}
	for _, cut := range allCuts(e) {
		for _, p := range cut.Parts {
			if !seen[p.Digest] {
				bytes += p.Bytes
			}
			seen[p.Digest] = true
		}
	}
	return bytes
}

func allCuts(e ledger.Experiment) []ledger.Cut {
	if e.Refused != nil {
		return append(e.Cuts[:len(e.Cuts):len(e.Cuts)], *e.Refused)
	}
	return e.Cuts
}

func cutOf(c ledger.Cut) api.Cut {
	out := api.Cut{
		Meta: api.Kind("Cut"), Step: c.Step, Generation: c.Generation, Index: c.Index, At: c.At, Manifest: c.Manifest.String(),
		Parts: []api.Part{}, Conservation: api.Conservation(c.Conservation),
	}
	for _, p := range c.Parts {
		out.Parts = append(out.Parts, api.Part{Name: p.Name, Digest: p.Digest.String(), Bytes: p.Bytes})
		out.Bytes += p.Bytes
	}
	return out
}

func partsOf(parts []api.Part) ([]ledger.Part, error) {
	out := make([]ledger.Part, len(parts))
	for i, p := range parts {
		digest, err := blobs.ParseDigest(p.Digest)
		if err != nil {
			return nil, api.Errorf(api.Invalid, "parts[%d].digest: %v", i, err)
		}
		out[i] = ledger.Part{Name: p.Name, Digest: digest, Bytes: p.Bytes}
	}
	return out, nil
}

func eventOf(experiment string, e ledger.Event) api.Event {
	return api.Event{Meta: api.Kind(api.KindEvent), Experiment: experiment, Index: e.Index, At: e.At, Reason: e.Kind, Text: e.Text}
}

func tokenOf(t ledger.Token) api.Token {
	out := api.Token{Meta: api.Kind("Token"), Name: t.Name, Scope: t.Scope.String(), Owner: t.Owner, Experiments: t.Experiments, Uses: t.Uses}
	if t.Uses == ledger.Spent {
		out.Uses, out.Spent = 0, true
	}
	if !t.Expires.IsZero() {
		out.Expires = &t.Expires
	}
	return out
}

// parse finds the value whose word people wrote.
func parse[T interface {
	~uint8
	String() string
}](what, word string, values ...T) (T, error) {
	known := ""
	for _, v := range values {
		if v.String() == word {
			return v, nil
		}
		known += ", " + v.String()
	}
	return 0, api.Errorf(api.Invalid, "%s: %q, want one of %s", what, word, known[2:])
}

func parseID(text string) (id ledger.ID, err error) {
	data, err := hex.DecodeString(text)
	if err != nil || len(data) != len(id) || ledger.ID(data) == (ledger.ID{}) {
		return id, api.Errorf(api.Invalid, "uid: %q, want %d hex digits that are not all zero", text, 2*len(id))
	}
	return ledger.ID(data), nil
}

// seconds is a number of seconds that people wrote, as a duration of whole milliseconds.
func seconds(what string, s float64, most time.Duration) (time.Duration, error) {
	if !(s >= 0 && s <= most.Seconds()) {
		return 0, api.Errorf(api.Invalid, "%s: %g, want a number from 0 to %g", what, s, most.Seconds())
	}
	return time.Duration(math.Round(s*1000)) * time.Millisecond, nil
}

// named says what a name of people's choice must be like: it is a segment of paths.
func named(what, name string) error {
	if !ledger.IsName(name) || name[0] == '.' {
		return api.Errorf(api.Invalid, "%s: %q, want letters, digits, dots, dashes and underscores, no dot first", what, name)
	}
	return nil
}
