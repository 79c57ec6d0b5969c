// Package consensus keeps one [ledger.State] on one or three coordinators, so that what was acknowledged survives the loss of
// a minority: hashicorp/raft over a checked write-ahead log, and blobs beside the log, which are durable on a quorum before
// the entry that names them is proposed.
//
//	node, err := consensus.Open(ctx, consensus.Config{Name: "c0", DataDir: dir})
//	defer node.Close()
//	reign, err := node.Leadership(ctx)                      // waits until this node leads; reign ends with it
//	digest, err := node.PutBlob(reign, manifest)            // durable on a quorum
//	outcome, err := node.Apply(reign, exp, ledger.CutCommit{Generation: 3, Step: 500, Manifest: digest})
//	if err == nil {
//		err = outcome.Err                               // what the ledger says, the same on every node
//	}
//	_, _, err = node.View(ctx, consensus.Linearizable, func(s *ledger.State) { cuts = s.Experiments()[0].Cuts })
//
// A [Node] reaches the others through one TCP port, see [Peer]. It stops the process rather than go on with a disk that
// failed: whoever runs it must watch [Node.Fatal]. DESIGN.md says what is promised and how damage is found.
package consensus
