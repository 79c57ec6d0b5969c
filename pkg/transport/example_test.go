package transport_test

import (
	"context"
	"fmt"

	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// Two replicas in one process: the second answers with its energies, and gives the states of a swap to the first.
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
		transport.TypeEnergy: func(_ context.Context, m transport.Message) (transport.Message, error) {
			return m.Reply(transport.TypeEnergy, transport.Energy{V: []float64{0.5}}.Append(nil)), nil
		},
		transport.TypeGet: giver.Handle,
	}.Handle})
	if err != nil {
		panic(err)
	}
	if err := r1.Flush(ctx); err != nil {
		panic(err)
	}

	header := transport.Header{Type: transport.TypeEnergy, Generation: 3, Scan: 12}
	answer, err := r0.Request(ctx, "r1", transport.Message{Header: header, Payload: transport.Energy{V: []float64{2}}.Append(nil)})
	if err != nil {
		panic(err)
	}
	theirs, err := transport.DecodeEnergy(answer.Payload)
	fmt.Println("V", theirs.V, err)

	key := transport.Key{Kind: transport.KindRows, Generation: 3, Scan: 12, Shard: 1}
	if _, err := giver.Put(key, []byte("two states")); err != nil {
		panic(err)
	}
	data, err := r0.Pull(ctx, transport.Pull{Subject: "r1", Key: key, Max: 1 << 20})
	fmt.Printf("%s, %v\n", data, err)
	// Output:
	// V [0.5] <nil>
	// two states, <nil>
}
