package transport_test

import (
	"context"
	"fmt"

	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// Two replicas in one process: the second answers heartbeats, and gives the states of a swap to the first.
func Example() {
	ctx := context.Background()
	server, err := transport.StartServer(ctx, transport.ServerOptions{})
	if err != nil {
		panic(err)
	}
	defer server.Close()
	dial := func(name string) *transport.Conn {
		conn, err := transport.Dial(ctx, transport.Options{Server: server, Name: name, Experiment: 7})
		if err != nil {
			panic(err)
		}
		return conn
	}
	r0, r1 := dial("r0"), dial("r1")
	defer r0.Close()
	defer r1.Close()

	giver, gate := transport.NewGiver(), new(transport.Gate)
	gate.Enter(3)
	_, err = r1.Serve("r1", transport.ServeOptions{Gate: gate, Handler: transport.Mux{
		transport.TypeHeartbeat: func(_ context.Context, m transport.Message) (transport.Message, error) {
			beat, err := transport.DecodeHeartbeat(m.Payload)
			if err != nil {
				return transport.Message{}, err
			}
			return m.Reply(transport.TypeHeartbeatAck, transport.HeartbeatAck{Leader: "r1", Drain: beat.Step > 10}.Append(nil)), nil
		},
		transport.TypeGet: giver.Handle,
	}.Handle})
	if err != nil {
		panic(err)
	}
	if err := r1.Flush(ctx); err != nil {
		panic(err)
	}

	beat := transport.Heartbeat{Token: 1, Step: 12, State: transport.Active}
	answer, err := r0.Request(ctx, "r1", transport.Message{Header: transport.Header{Type: transport.TypeHeartbeat}, Payload: beat.Append(nil)})
	if err != nil {
		panic(err)
	}
	ack, err := transport.DecodeHeartbeatAck(answer.Payload)
	fmt.Println("drain", ack.Drain, err)

	key := transport.Key{Kind: transport.KindRows, Generation: 3, Scan: 12, Shard: 1}
	if err := giver.Put(key, []byte("two states")); err != nil {
		panic(err)
	}
	data, err := r0.Pull(ctx, transport.Pull{Subject: "r1", Key: key, Max: 1 << 20})
	fmt.Printf("%s, %v\n", data, err)
	// Output:
	// drain true <nil>
	// two states, <nil>
}
