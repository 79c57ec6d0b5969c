// Package transport carries what the processes of one experiment tell each other over NATS: heartbeats, commands, and whatever
// is large, such as states and parameters. docs/protocol.md says who sends what when. Nothing is stored: what must last is
// the coordinator's business.
//
//	server, err := transport.StartServer(ctx, transport.ServerOptions{})
//	conn, err := transport.Dial(ctx, transport.Options{Server: server, Name: "r0", Experiment: id})
//	giver, gate := transport.NewGiver(), new(transport.Gate)
//	_, err = conn.Serve(subjects.Exchange(r0), transport.ServeOptions{Gate: gate, Brought: keep, Handler: transport.Mux{
//		transport.TypeHeartbeat: renew,                       // answers with a HeartbeatAck
//		transport.TypeGet:       giver.Handle,
//	}.Handle})
//	gate.Enter(3)
//	answer, err := conn.Request(ctx, subjects.Exchange(r1), transport.Message{Header: header, Payload: beat.Append(nil)})
//	err = giver.Put(key, states)                                   // kept until it is released
//	conn.Bring(key, states, subjects.Exchange(r1))                 // and brought, if it is small
//	data, err := conn.Pull(ctx, transport.Pull{Subject: subjects.Exchange(r1), Key: key, Max: 1 << 20})
//
// A message is a header of 64 bytes and at most 256 KiB of payload, see [Message]. What is larger is pulled by the
// receiver in chunks, never pushed: a fast sender cannot flood a slow receiver, and a lost chunk is asked for again. What is
// smaller, and will be wanted at once, is brought in one message.
// Decoders take any input without panicking and without large allocations. Servers can form a [Cluster], and keep every
// user to one experiment, see [ServerOptions].
package transport
