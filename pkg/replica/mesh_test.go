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
	out := map[string]*side{}
	for _, id := range holders {
		if out[id] != nil {
			continue
		}
		s := &side{giver: transport.NewGiver(), gate: new(transport.Gate)}
		if s.conn, err = transport.Dial(t.Context(), transport.Options{Server: server, Name: id, Experiment: place.Experiment}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.conn.Close)
		token, err := transport.ParseToken(id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.conn.Serve(place.Subjects.Exchange(token), transport.ServeOptions{Gate: s.gate, Handler: s.giver.Handle}); err != nil {
			t.Fatal(err)
		}
		if err := s.conn.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.gate.Enter(1)
		s.mesh = newMesh(s.conn, s.giver, place.Subjects, id, 1, holders, perGroup, &s.counts)
		out[id] = s
	}
	return out
}

func TestMeshCarriesEveryKind(t *testing.T) {
	all := sides(t, []string{"a", "a", "b"}, 3)
	a, b := all["a"], all["b"]
	for kind := engine.EnergiesBlob; kind < numKinds; kind++ {
		key := engine.Key{Shard: 0, Kind: kind, Scan: 4}
		if kind == engine.RowsBlob {
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

// A message of another generation is refused by its number and counted; the asker learns that the holder is lost to it.
func TestMeshRefusesOtherGenerations(t *testing.T) {
	all := sides(t, []string{"a", "b"}, 2)
	a, b := all["a"], all["b"]
	key := engine.Key{Shard: 0, Kind: engine.ThetaBlob, Scan: 1}
	a.mesh.Post(key, []byte("old"))
	a.gate.Enter(2)
	_, err := b.mesh.Pull(t.Context(), key)
	var stale *transport.StaleError
	var lost *LostError
	if !errors.As(err, &stale) || stale.Message != 1 || stale.Current != 2 || !errors.As(err, &lost) || lost.Replica != "a" {
		t.Errorf("error %v, want a stale message of generation 1 to a in generation 2", err)
	}
	if n := a.conn.Counts().Refused["generation"]; n != 1 {
		t.Errorf("%d messages counted as refused, want 1", n)
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
	_, err := all["b"].mesh.Pull(t.Context(), engine.Key{Shard: 0, Kind: engine.EnergiesBlob, Scan: 1})
	var lost *LostError
	if !errors.As(err, &lost) || lost.Replica != "a" || !errors.Is(err, transport.ErrNoResponders) {
		t.Errorf("error %v, want that a is lost", err)
	}
	if f := failureOf(fmt.Errorf("step 3: %w", err)); f.Lost != "a" || f.Aborted || f.NonFinite != nil {
		t.Errorf("failure %+v, want the loss of a", f)
	}
}
