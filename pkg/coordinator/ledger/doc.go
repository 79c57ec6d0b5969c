// Package ledger is what a cluster of coordinators agrees on: experiments and what people want of them, leases of replicas,
// generations, cuts, tokens, quotas. A log of entries, the same on every node, leads to a [State], the same on every node.
//
//	data, err := ledger.Encode(ledger.Entry{Exp: id, At: time.Now(), Command: ledger.ExpCreate{Name: "moons", Steps: 900, Shards: 3}})
//	// … the log gives data an index, and every node applies it there:
//	state := ledger.New()
//	out := state.Apply(index, data)
//	if errors.Is(out.Err, ledger.ErrExists) {
//		return fmt.Errorf("submit: %w", out.Err)
//	}
//	e, ok := state.Experiment("moons")
//	snapshot := state.Snapshot()                   // equal states, equal bytes
//	same, err := ledger.Restore(snapshot)
//
// The package is pure: no clock, no I/O, no goroutines, and no order of a map in what it gives back. Blobs are named in it by
// their digests and are elsewhere. DESIGN.md in the package's folder has the formats and the rules in tables.
package ledger
