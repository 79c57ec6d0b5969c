package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// seen is what somebody knows who watches.
type seen struct {
	experiments map[string]uint64 // uid → version
	events      map[uint64]string
	members     map[string]bool
}

func newSeen() *seen {
	return &seen{experiments: map[string]uint64{}, events: map[uint64]string{}, members: map[string]bool{}}
}

// take takes a line in, and refuses what a watch must not say.
func (s *seen) take(t *testing.T, change api.Change) {
	t.Helper()
	switch change.Kind {
	case api.KindInventory:
		inv, err := change.Inventory()
		if err != nil {
			t.Fatal(err)
		}
		maps.DeleteFunc(s.experiments, func(uid string, _ uint64) bool {
			return !slices.ContainsFunc(inv.Experiments, func(r api.Ref) bool { return r.UID == uid })
		})
	case api.KindExperiment:
		e, err := change.Experiment()
		if err != nil {
			t.Fatal(err)
		}
		if change.Deleted {
			delete(s.experiments, e.UID)
			return
		}
		if e.Version < s.experiments[e.UID] {
			t.Errorf("%s goes back from version %d to %d", e.Name, s.experiments[e.UID], e.Version)
		}
		s.experiments[e.UID] = e.Version
	case api.KindEvent:
		e, err := change.Event()
		if err != nil {
			t.Fatal(err)
		}
		s.events[e.Index] = e.Text
	case api.KindMember:
		m, err := change.Member()
		if err != nil {
			t.Fatal(err)
		}
		s.members[m.Name] = true
	}
}

// TestWatchMissesNothing: a watcher whose connection is cut after every few lines, in the middle of a log entry too, knows in the
// end all that there is and all events that there were.
func TestWatchMissesNothing(t *testing.T) {
	c := start(t, nil)
	client := c.admin(t)
	const entries = 300
	done := make(chan struct{})
	go func() {
		defer func() {
			close(done)
			_, _ = c.node.Apply(t.Context(), ledger.ID{2}, ledger.ExpCreate{Name: "last", Spec: []byte("s"), Steps: 1, Shards: 1})
		}()
		random := rand.New(rand.NewPCG(1, 2))
		for i := range entries {
			id := ledger.ID{1, byte(random.IntN(5))}
			var cmd ledger.Command
			switch priority := int32(i); random.IntN(6) {
			case 0:
				cmd = ledger.ExpCreate{Name: fmt.Sprintf("x%d", id[1]), Spec: []byte("s"), Steps: 1, Shards: 1}
			case 1:
				cmd = ledger.Register{Replica: "r", Incarnation: uint64(i)}
			case 2:
				cmd = ledger.ExpPhase{Phase: ledger.Cancelled}
			case 3:
				cmd = ledger.ExpDelete{}
			default:
				cmd = ledger.ExpSet{Priority: &priority}
			}
			if _, err := c.node.Apply(t.Context(), id, cmd); err != nil { // what the ledger says does not matter
				t.Error(err)
				return
			}
		}
	}()

	random := rand.New(rand.NewPCG(3, 4))
	got := newSeen()
	var since uint64
	deadline, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for over := false; !over; {
		req, err := http.NewRequestWithContext(deadline, "GET", fmt.Sprintf("%s/v1/watch?since=%d", c.url, since), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+c.firstToken(t))
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(res.Body)
		for n := 1 + random.IntN(8); n > 0 && !over && lines.Scan(); n-- {
			var change api.Change
			if err := json.Unmarshal(lines.Bytes(), &change); err != nil {
				t.Fatalf("%s: %v", lines.Bytes(), err)
			}
			if change.Index < since {
				t.Fatalf("index %d after %d", change.Index, since)
			}
			since = change.Index
			got.take(t, change)
			select {
			case <-done: // then until all was seen
				list, err := client.Experiments(deadline)
				if err != nil {
					t.Fatal(err)
				}
				want := map[string]uint64{}
				for _, e := range list.Items {
					want[e.UID] = e.Version
				}
				over = maps.Equal(got.experiments, want)
			default:
			}
		}
		res.Body.Close()
	}
	list, err := client.Experiments(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list.Items {
		events, err := client.Events(t.Context(), e.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, event := range events.Items {
			if got.events[event.Index] != event.Text {
				t.Errorf("event %d of %s was not seen: %q, want %q", event.Index, e.Name, got.events[event.Index], event.Text)
			}
		}
	}
}

// TestWatchCutAnywhere: wherever the lines between two looks are cut, who asks again behind the last one gets the rest.
func TestWatchCutAnywhere(t *testing.T) {
	state := ledger.New()
	index := uint64(0)
	apply := func(id ledger.ID, cmd ledger.Command) {
		t.Helper()
		data, err := ledger.Encode(ledger.Entry{Exp: id, At: time.Unix(0, 0), Command: cmd})
		if err != nil {
			t.Fatal(err)
		}
		index++
		if out := state.Apply(index, data); out.Err != nil {
			t.Fatal(out.Err)
		}
	}
	for i := range byte(3) {
		apply(ledger.ID{i + 1}, ledger.ExpCreate{Name: string('a' + rune(i)), Spec: []byte("s"), Steps: 1, Shards: 1})
	}
	apply(ledger.ID{}, ledger.NodePut{Name: "n"})
	apply(ledger.ID{2}, ledger.ExpPhase{Phase: ledger.Running})
	apply(ledger.ID{2}, ledger.Register{Replica: "r", Incarnation: 1})
	now := &look{index: index, experiments: state.Experiments(), nodes: state.Nodes()}
	watching := func(since uint64) *watcher {
		s := &Server{work: &pretended{metrics: newSeries()}}
		return &watcher{call: &call{Server: s}, since: since, known: map[ledger.ID]api.Ref{}}
	}
	all := watching(0).compare(now)
	key := func(c api.Change) string { return c.Kind + string(c.Object) }
	want := map[string]bool{}
	for _, change := range all {
		want[key(change)] = true
	}
	if len(want) < 9 { // five events, three experiments, a member
		t.Fatalf("%d lines, want 9", len(want))
	}
	for cut := range len(all) + 1 {
		got, since := map[string]bool{}, uint64(0)
		for _, change := range all[:cut] {
			got[key(change)], since = true, change.Index
		}
		for _, change := range watching(since).compare(now) {
			got[key(change)] = true
		}
		if !maps.Equal(got, want) {
			t.Errorf("cut behind line %d: %d lines, want %d", cut, len(got), len(want))
		}
	}
	if last := all[len(all)-1].Index; last != index {
		t.Errorf("the last line is of index %d, want %d", last, index)
	}
}

// TestWatchSeesDeletionsOfThePast: the inventory names what is left.
func TestWatchSeesDeletionsOfThePast(t *testing.T) {
	c := start(t, nil)
	client := c.admin(t)
	_, id := submit(t, client, "moons")
	submit(t, client, "sun")
	known := newSeen()
	var since uint64
	for change, err := range client.Watch(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		known.take(t, change)
		since = change.Index
		if len(known.experiments) == 2 && len(known.members) == 1 {
			break
		}
	}
	c.apply(t, id, ledger.ExpPhase{Phase: ledger.Cancelled})
	c.apply(t, id, ledger.ExpDelete{})
	for change, err := range client.Watch(t.Context(), since) {
		if err != nil {
			t.Fatal(err)
		}
		known.take(t, change)
		break
	}
	if len(known.experiments) != 1 {
		t.Errorf("%d experiments are known, want 1", len(known.experiments))
	}
}

// TestWatchSaysWhatItMayHaveMissed: more events than are kept.
func TestWatchSaysWhatItMayHaveMissed(t *testing.T) {
	c := start(t, nil)
	client := c.admin(t)
	e, id := submit(t, client, "moons")
	for i := range ledger.Kept + 1 {
		priority := int32(i + 1)
		c.apply(t, id, ledger.ExpSet{Priority: &priority})
	}
	gaps, events := 0, 0
	for change, err := range client.WatchExperiment(t.Context(), "moons", e.Version) {
		if err != nil {
			t.Fatal(err)
		}
		if change.Gap {
			gaps++
		}
		if change.Kind == api.KindEvent {
			events++
		}
		if change.Kind == api.KindExperiment {
			break
		}
	}
	if gaps != 1 || events != ledger.Kept {
		t.Errorf("%d gaps in %d events, want 1 in %d", gaps, events, ledger.Kept)
	}
}

// TestWait returns when the experiment is as wanted, or gone.
func TestWait(t *testing.T) {
	c := start(t, nil)
	client := c.admin(t)
	_, id := submit(t, client, "moons")
	type result struct {
		e   api.Experiment
		err error
	}
	wait := func(phase string) chan result {
		out := make(chan result, 1)
		go func() {
			e, err := client.Wait(t.Context(), "moons", func(e api.Experiment) bool { return e.Phase == phase })
			out <- result{e, err}
		}()
		return out
	}
	paused, failed := wait(api.Paused), wait(api.Failed)
	c.apply(t, id, ledger.ExpPhase{Phase: ledger.Paused})
	if r := <-paused; r.err != nil || r.e.Phase != api.Paused {
		t.Errorf("%+v", r)
	}
	c.apply(t, id, ledger.ExpPhase{Phase: ledger.Cancelled})
	c.apply(t, id, ledger.ExpDelete{})
	if r := <-failed; asError(r.err).Code != api.NotFound {
		t.Errorf("%+v, want not found", r)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	submit(t, client, "moons")
	if _, err := client.Wait(ctx, "moons", func(api.Experiment) bool { return false }); asError(err).Code != api.Timeout || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("in vain: %v, want a timeout", err)
	}
}

// TestFollowMetrics: those that are there, those to come, and the end.
func TestFollowMetrics(t *testing.T) {
	c := start(t, nil)
	client := c.admin(t)
	_, id := submit(t, client, "moons")
	c.work.metrics.add(0)
	c.work.metrics.add(1)
	var steps []uint64
	for m, err := range client.Metrics(t.Context(), "moons", 0, false) {
		if err != nil {
			t.Fatal(err)
		}
		steps = append(steps, m.Step)
	}
	if !slices.Equal(steps, []uint64{1}) {
		t.Errorf("behind step 0 is %v, want 1", steps)
	}
	steps = nil
	for m, err := range client.Metrics(t.Context(), "moons", -1, true) {
		if err != nil {
			t.Fatal(err)
		}
		steps = append(steps, m.Step)
		switch m.Step {
		case 1:
			c.work.metrics.add(2)
		case 2:
			c.apply(t, id, ledger.ExpPhase{Phase: ledger.Cancelled})
		}
	}
	if !slices.Equal(steps, []uint64{0, 1, 2}) {
		t.Errorf("followed %v, want 0, 1 and 2", steps)
	}
}

// TestStreamsEndWithTheServer, and their number is limited.
func TestStreamsEndWithTheServer(t *testing.T) {
	c := start(t, nil)
	client := c.admin(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	first := make(chan struct{})
	go func() {
		n := 0
		for _, err := range client.Watch(ctx, 0) {
			if n++; n == 1 {
				close(first)
			}
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	<-first
	for len(c.streams) < cap(c.streams) {
		c.streams <- struct{}{}
	}
	if status, answer, _ := c.call(t, "GET", "/v1/watch", c.firstToken(t), nil); status != 503 || codeOf(t, answer) != api.Unavailable {
		t.Errorf("one stream too many: %d %s, want 503", status, answer)
	}
	c.Close() // returns once all requests are over
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the client ended with %v", err)
	}
}
