// Package server is the HTTP interface of a coordinator, and what puts a coordinator together.
//
//	err := server.Serve(ctx, server.Config{
//		Consensus: consensus.Config{Name: "a", DataDir: dir, Peer: consensus.Peer{Listen: "127.0.0.1:7000"}},
//		Listen:    "127.0.0.1:8443",
//		NATS:      server.NATS{Listen: "127.0.0.1:4222"},
//		Ready:     func(at server.Reached) { log.Info("ready", "api", at.API) },
//	})
//
// A [Server] answers what package api describes: any coordinator takes a request, and passes on to the leader what that has to
// answer. Whoever may do what is up to the tokens in the ledger. The operations are one table, which the OpenAPI document at
// /openapi.json is made from. What the leader does beside answering is [Work]: a scheduler gives replicas to experiments, and
// a driver leads the replicas of each.
package server
