// Package blobs keeps what is too large for the raft log: files named by the SHA-256 of their content, on every
// coordinator, and on a quorum of them before the log may mention one.
//
//	store, err := blobs.Open(blobs.Config{Dir: "data/blobs"})
//	replicator := blobs.NewReplicator(blobs.ReplicatorConfig{Store: store, Peers: peers})
//	defer replicator.Close()
//	mux.Handle("/blobs/", store.Handler())                                      // what the peers ask for
//	err = replicator.PutQuorum(ctx, digest, size, open)                         // durable on a quorum: may be committed
//	store.Require(digest)                                                       // the log mentions it: here, or fetched
//	data, err := store.Read(digest)                                             // verified
//	removed, err := store.GC(ctx, func(d ledger.Digest) bool { return used[d] })
//
// A [Store] is one node's files, a [Replicator] moves them between nodes and keeps them whole. A file has its name only
// once it is complete, verified and durable. Nothing is handed out unverified: a copy that went bad is set aside, counted,
// and fetched again from a peer.
package blobs
