package server

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// watch sends what changes behind an index, as far as this coordinator knows it. It compares looks at the state: a client sees
// every experiment as it last was, and every event that is kept.
func (c *call) watch() (any, error) {
	since, err := c.number("since", 0)
	if err != nil || since < 0 {
		return nil, api.Errorf(api.Invalid, "since: %q, want an index of the log", c.r.URL.Query().Get("since"))
	}
	leave, err := enter(c.streams, "streams")
	if err != nil {
		return nil, err
	}
	defer leave()
	w := &watcher{call: c, only: c.r.URL.Query().Get("experiment"), since: uint64(since), known: map[ledger.ID]api.Ref{}}
	if w.only != "" {
		if err := c.mayTouch(w.only); err != nil {
			return nil, err
		}
	}
	now, changed, err := c.feed.look(c.r.Context())
	if err != nil {
		return nil, err
	}
	stream := c.lines()
	tick := func() any { return api.Change{Index: w.since, Kind: api.KindTick} }
	for now.index < w.since { // another coordinator told the client more than this one knows yet
		if err := stream.wait(changed, tick); err != nil {
			return handled{}, nil
		}
		if now, changed, err = c.feed.look(c.r.Context()); err != nil {
			return handled{}, nil
		}
	}
	if err := stream.send(w.inventory(now)); err != nil {
		return handled{}, nil
	}
	for {
		for _, change := range w.compare(now) {
			if err := stream.send(change); err != nil {
				return handled{}, nil // it hung up, or is too slow
			}
		}
		if err := stream.wait(changed, tick); err != nil {
			return handled{}, nil
		}
		if now, changed, err = c.feed.look(c.r.Context()); err != nil {
			return handled{}, nil
		}
	}
}

// watcher knows what a client has seen.
type watcher struct {
	*call
	only  string // name of the experiment that it wants; "": all
	since uint64
	known map[ledger.ID]api.Ref
	nodes []ledger.Node
}

func (w *watcher) wants(e ledger.Experiment) bool {
	return w.may(e.Name) && (w.only == "" || w.only == e.Name)
}

// inventory is what there is, and begins what the client knows.
func (w *watcher) inventory(now *look) api.Change {
	inv := api.Inventory{Meta: api.Kind(api.KindInventory), Experiments: []api.Ref{}}
	for _, e := range now.experiments {
		if w.wants(e) {
			ref := api.Ref{Name: e.Name, UID: e.ID.String()}
			inv.Experiments = append(inv.Experiments, ref)
			w.known[e.ID] = ref
		}
	}
	return change(w.since, api.KindInventory, inv)
}

// compare lists what changed since the last look, in the order in which it did. All changes of one log entry but the last say
// the index before it: a client that lost the connection between them gets them again.
func (w *watcher) compare(now *look) []api.Change {
	var found []api.Change // with their own index
	there := map[ledger.ID]bool{}
	for _, e := range now.experiments {
		if !w.wants(e) {
			continue
		}
		there[e.ID] = true
		w.known[e.ID] = api.Ref{Name: e.Name, UID: e.ID.String()}
		if e.Version <= w.since {
			continue
		}
		gap := len(e.Events) == ledger.Kept && e.Events[0].Index > w.since+1
		for _, event := range e.Events {
			if event.Index > w.since {
				one := change(event.Index, api.KindEvent, eventOf(e.Name, event))
				one.Gap, gap = gap, false
				found = append(found, one)
			}
		}
		found = append(found, change(e.Version, api.KindExperiment, w.experiment(e)))
	}
	for id, ref := range w.known {
		if !there[id] {
			gone := change(now.index, api.KindExperiment, ref)
			gone.Deleted = true
			found = append(found, gone)
			delete(w.known, id)
		}
	}
	if w.only == "" && !slices.Equal(w.nodes, now.nodes) {
		found = append(found, w.members(now)...)
		w.nodes = now.nodes
	}
	slices.SortStableFunc(found, func(a, b api.Change) int { return cmp.Compare(a.Index, b.Index) })
	before := w.since
	for i := range found {
		own := found[i].Index
		if i+1 < len(found) && found[i+1].Index == own {
			found[i].Index = before
		} else {
			before = own
		}
	}
	w.since = max(w.since, now.index)
	return found
}

// members are the coordinators that are not as they were, and those that are gone.
func (w *watcher) members(now *look) (found []api.Change) {
	for _, n := range now.nodes {
		if !slices.Contains(w.nodes, n) {
			found = append(found, change(now.index, api.KindMember, memberOf(n)))
		}
	}
	for _, n := range w.nodes {
		if !slices.ContainsFunc(now.nodes, func(other ledger.Node) bool { return other.Name == n.Name }) {
			gone := change(now.index, api.KindMember, api.Member{Meta: api.Kind(api.KindMember), Name: n.Name})
			gone.Deleted = true
			found = append(found, gone)
		}
	}
	return found
}

func memberOf(n ledger.Node) api.Member {
	return api.Member{Meta: api.Kind(api.KindMember), Name: n.Name, Peer: n.Peer, API: n.API, NATS: n.NATS, Feature: n.Feature}
}

func change(index uint64, kind string, object any) api.Change {
	data, err := json.Marshal(object)
	if err != nil {
		panic(err) // the types of package api have a JSON form
	}
	return api.Change{Index: index, Kind: kind, Object: data}
}

// followMetrics sends the records that the driver has, and with follow those to come.
func (c *call) followMetrics() (any, error) {
	from, err := c.number("from", -1)
	if err != nil {
		return nil, err
	}
	follow, err := c.number("follow", 0)
	if err != nil {
		return nil, err
	}
	e, err := c.experimentOfPath()
	if err != nil {
		return nil, err
	}
	leave, err := enter(c.streams, "streams")
	if err != nil {
		return nil, err
	}
	defer leave()
	stream := c.lines()
	for {
		over := c.final(e.ID) // before the last look
		changed := c.node.Changed()
		records, more := c.work.Metrics(e.ID, from)
		for _, line := range records {
			if err := stream.send(json.RawMessage(line)); err != nil {
				return handled{}, nil
			}
			var at struct{ Step int64 }
			if json.Unmarshal(line, &at) == nil {
				from = max(from, at.Step)
			}
		}
		if over || follow == 0 {
			stream.end()
			return handled{}, nil
		}
		if !c.node.Leads() { // another has what follows
			return handled{}, nil
		}
		either, stop := first(more, changed)
		err := stream.wait(either, nil)
		stop()
		if err != nil {
			return handled{}, nil
		}
	}
}

// first is closed when one of two channels is.
func first(a, b <-chan struct{}) (either <-chan struct{}, stop func()) {
	out, over := make(chan struct{}), make(chan struct{})
	go func() {
		select {
		case <-a:
		case <-b:
		case <-over:
		}
		close(out)
	}()
	return out, func() { close(over) }
}

// lineStream writes lines of JSON, each at once.
type lineStream struct {
	c     *call
	flush *http.ResponseController
}

func (c *call) lines() *lineStream {
	h := c.w.Header()
	h.Set("Content-Type", lines)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // for proxies
	h.Set("Trailer", api.EndTrailer)
	return &lineStream{c, http.NewResponseController(c.w)}
}

func (l *lineStream) send(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if _, err := l.c.w.Write(append(data, '\n')); err != nil {
		return err
	}
	return l.flush.Flush()
}

// end says that no line follows.
func (l *lineStream) end() { l.c.w.Header().Set(api.EndTrailer, "end") }

// wait waits until there may be more, a little longer, so that what comes in a row is seen at once. Meanwhile it sends signs of
// life: what alive gives, or empty lines.
func (l *lineStream) wait(more <-chan struct{}, alive func() any) error {
	done := l.c.r.Context().Done()
	for {
		select {
		case <-more:
			select {
			case <-time.After(calm):
				return nil
			case <-done:
				return l.c.r.Context().Err()
			}
		case <-done:
			return l.c.r.Context().Err()
		case <-time.After(signOfLife):
		}
		var err error
		if alive != nil {
			err = l.send(alive())
		} else if _, err = l.c.w.Write([]byte("\n")); err == nil {
			err = l.flush.Flush()
		}
		if err != nil {
			return err
		}
	}
}
