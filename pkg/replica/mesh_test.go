package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"go.uber.org/goleak"

	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// side is one replica's part of a mesh.
type side struct {
	mesh   *Mesh
	conn   *transport.Conn
	giver  *transport.Giver
	gate   *transport.Gate
	events chan transport.Event
	counts meshCounts
}

// sides are replicas, by the shards that they hold, in generation 1.
func sides(t *testing.T, holders []string, perGroup int) map[string]*side {
	t.Helper()
	server, err := transport.StartServer(t.Context(), transport.ServerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	place := Meet("x")
	layout := engine.Layout{Placement: "rung", Split: 1, Rungs: perGroup, Chains: 1, Groups: len(holders) / perGroup} // the last shard of a group leads
	out := map[string]*side{}
	for _, id := range holders {
		if out[id] != nil {
			continue
		}
		s := &side{giver: transport.NewGiver(), gate: new(transport.Gate), events: make(chan transport.Event, 16)}
		if s.conn, err = transport.Dial(t.Context(), transport.Options{Server: server, Name: id, Experiment: place.Experiment, Notify: func(e transport.Event) { s.events <- e }}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.conn.Close)
		token, err := transport.ParseToken(id)
		if err != nil {
			t.Fatal(err)
		}
		s.mesh = newMesh(s.conn, s.giver, place.Subjects, id, 1, holders, layout, &s.counts)
		if _, err := s.conn.Serve(place.Subjects.Exchange(token), transport.ServeOptions{Gate: s.gate, Handler: s.giver.Handle, Brought: s.mesh.Arrived}); err != nil {
			t.Fatal(err)
		}
		if err := s.conn.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.gate.Enter(1)
		out[id] = s
	}
	return out
}

func TestMeshCarriesEveryKind(t *testing.T) {
	all := sides(t, []string{"a", "a", "b"}, 3)
	a, b := all["a"], all["b"]
	for kind := engine.EnergiesBlob; kind < numKinds; kind++ {
		key := engine.Key{Shard: 0, Kind: kind, Scan: 4}
		if kind == engine.RowsBlob || kind == engine.NegativesBlob || kind == engine.PartBlob {
			key.To = 2
		}
		want := bytes.Repeat([]byte{byte(kind)}, 300_000+int(kind)) // several chunks
		got := make(chan []byte)
		go func() {
			data, err := b.mesh.Pull(t.Context(), key) // asks before it is there
			if err != nil {
				t.Error(err)
			}
			got <- data
		}()
		a.mesh.Post(key, want)
		if data := <-got; !bytes.Equal(data, want) {
			t.Errorf("%v: %d bytes, want the %d that were posted", key, len(data), len(want))
		}
		if data, err := a.mesh.Pull(t.Context(), key); err != nil || !bytes.Equal(data, want) {
			t.Errorf("%v at its holder: %d bytes, %v", key, len(data), err)
		}
		sent, received := a.counts.read().Kinds[kind], b.counts.read().Kinds[kind]
		if n := uint64(len(want)); sent != (Traffic{Sent: 1, BytesSent: n}) || received != (Traffic{Received: 1, BytesReceived: n}) {
			t.Errorf("%v: sent %+v, received %+v, want %d bytes once", key, sent, received, n)
		}
	}
	a.mesh.Release(0, 5)
	if n := a.giver.Bytes(); n != 0 {
		t.Errorf("%d bytes are kept after the release, want none", n)
	}
}

// What stays with the replica is never offered to others.
func TestMeshSendsNothingWithin(t *testing.T) {
	all := sides(t, []string{"a", "a", "a", "b"}, 2) // the first group is with a alone
	a := all["a"]
	a.mesh.Post(engine.Key{Shard: 0, Kind: engine.EnergiesBlob, Scan: 1}, []byte("within the group"))
	a.mesh.Post(engine.Key{Shard: 1, Kind: engine.RowsBlob, Scan: 1, To: 0}, []byte("within the replica"))
	if n := a.giver.Bytes(); n != 0 {
		t.Errorf("%d bytes are offered, want none", n)
	}
	a.mesh.Post(engine.Key{Shard: 2, Kind: engine.RowsBlob, Scan: 1, To: 3}, []byte("to b"))
	if n := a.giver.Bytes(); n != 4 {
		t.Errorf("%d bytes are offered, want 4", n)
	}
}

// What is small comes without a question, and is not kept longer than it is wanted.
func TestMeshBringsSmallBlobs(t *testing.T) {
	all := sides(t, []string{"a", "a", "b"}, 3)
	a, b := all["a"], all["b"]
	for kind, want := range map[engine.Kind]uint64{
		engine.EnergiesBlob: 0, engine.RowsBlob: 0, engine.ThetaBlob: 0, engine.NegativesBlob: 0, engine.PartBlob: 0, engine.GatheredBlob: 0, engine.StatesBlob: 1, engine.GradientBlob: 1,
	} {
		key := engine.Key{Shard: 0, Kind: kind, Scan: 4}
		if kind == engine.RowsBlob || kind == engine.NegativesBlob || kind == engine.PartBlob {
			key.To = 2
		}
		before := b.conn.Counts().Requests
		a.mesh.Post(key, []byte("small"))
		if data, err := b.mesh.Pull(t.Context(), key); err != nil || string(data) != "small" {
			t.Errorf("%v: %q, %v", key, data, err)
		}
		if got := b.conn.Counts().Requests - before; got != want {
			t.Errorf("%v took %d questions, want %d", key, got, want)
		}
	}
	late := transport.Brought{Key: transport.Key{Kind: transport.KindTheta, Generation: 1, Scan: 4}, Data: []byte("late")}
	for range 2 { // twice, by whatever way
		if err := b.mesh.Arrived(late); err != nil {
			t.Error(err)
		}
	}
	if n := len(b.mesh.arrivals); n != 1 {
		t.Errorf("%d blobs have arrived and wait, want the late one", n)
	}
	b.mesh.Release(2, 5)
	if n := len(b.mesh.arrivals); n != 0 {
		t.Errorf("%d blobs wait after the release, want none", n)
	}
	late.Key.Shard = 3
	if err := b.mesh.Arrived(late); !errors.Is(err, transport.ErrMalformed) {
		t.Errorf("a blob of a shard that nobody has: %v", err)
	}
}

// A blob that got lost on its way is asked for.
func TestMeshAsksForWhatGotLost(t *testing.T) {
	all := sides(t, []string{"a", "b"}, 2)
	a, b := all["a"], all["b"]
	key := engine.Key{Shard: 0, Kind: engine.EnergiesBlob, Scan: 1}
	b.gate.Enter(0)
	a.mesh.Post(key, []byte("energies"))
	<-b.events // it was refused
	b.gate.Enter(1)
	b.mesh.overdue = 0
	if data, err := b.mesh.Pull(t.Context(), key); err != nil || string(data) != "energies" {
		t.Errorf("%q, %v", data, err)
	}
}

// A message of another generation is refused by its number and counted; the asker learns that the holder is lost to it.
func TestMeshRefusesOtherGenerations(t *testing.T) {
	all := sides(t, []string{"a", "b"}, 2)
	a, b := all["a"], all["b"]
	a.gate.Enter(2)
	b.mesh.overdue = 0
	_, err := b.mesh.Pull(t.Context(), engine.Key{Shard: 0, Kind: engine.ThetaBlob, Scan: 1})
	var stale *transport.StaleError
	var lost *LostError
	if !errors.As(err, &stale) || stale.Message != 1 || stale.Current != 2 || !errors.As(err, &lost) || lost.Replica != "a" {
		t.Errorf("error %v, want a stale message of generation 1 to a in generation 2", err)
	}
	b.mesh.Post(engine.Key{Shard: 1, Kind: engine.ThetaBlob, Scan: 1}, []byte("old"))
	for range 2 {
		if e := <-a.events; !errors.As(e.Err, &stale) || stale.Message != 1 {
			t.Errorf("%v: %v, want a message of generation 1 refused", e.Kind, e.Err)
		}
	}
	if n := a.conn.Counts().Refused["generation"]; n != 2 {
		t.Errorf("%d messages counted as refused, want 2", n)
	}
	if n := len(a.mesh.arrivals); n != 0 {
		t.Errorf("%d blobs arrived, want none", n)
	}
}

func TestMeshWaitsEnd(t *testing.T) {
	for _, tc := range []struct {
		name   string
		holder uint32
		end    func(*side, context.CancelFunc)
		want   error
	}{
		{"with the generation, for another's blob", 0, func(s *side, _ context.CancelFunc) { s.mesh.abort(errAborted) }, errAborted},
		{"with the generation, for one of its own", 1, func(s *side, _ context.CancelFunc) { s.mesh.close() }, errAborted},
		{"with the caller's context", 0, func(_ *side, cancel context.CancelFunc) { cancel() }, context.Canceled},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := sides(t, []string{"a", "b"}, 2)["b"]
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error)
			go func() {
				_, err := b.mesh.Pull(ctx, engine.Key{Shard: tc.holder, Kind: engine.EnergiesBlob, Scan: 9})
				done <- err
			}()
			tc.end(b, cancel)
			if err := <-done; !errors.Is(err, tc.want) {
				t.Errorf("error %v, want %v", err, tc.want)
			}
		})
	}
}

func TestMeshLosesAHolder(t *testing.T) {
	all := sides(t, []string{"a", "b"}, 2)
	all["a"].conn.Close()
	all["b"].mesh.overdue = 0
	_, err := all["b"].mesh.Pull(t.Context(), engine.Key{Shard: 0, Kind: engine.EnergiesBlob, Scan: 1})
	var lost *LostError
	if !errors.As(err, &lost) || lost.Replica != "a" || !errors.Is(err, transport.ErrNoResponders) {
		t.Errorf("error %v, want that a is lost", err)
	}
	if f := failureOf(fmt.Errorf("step 3: %w", err)); f.Lost != "a" || f.Aborted || f.NonFinite != nil {
		t.Errorf("failure %+v, want the loss of a", f)
	}
}
