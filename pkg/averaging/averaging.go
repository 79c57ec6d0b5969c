// Package averaging brings the parameters of groups together that train side by side: every H optimizer steps the leader
// takes the mean of what the groups send, makes an outer step of it, and all go on from the parameters that it publishes.
// The package has no clock, no network and no files; [Outer] is the leader's side, [Group] that of a group.
//
//	outer, err := averaging.NewOuter(cfg, theta)
//	group, err := averaging.NewGroup(cfg, theta) // one a group
//	for {
//		round := outer.Open(generation)
//		// after H optimizer steps of every group
//		sent := averaging.Contribution{Generation: generation, Round: round.Number(), Group: g, Vector: group.Contribution(theta)}
//		err = round.Add(sent)
//		update, err := outer.Step(round)
//		theta, err = group.Apply(update)
//	}
//
// The result depends on the contributions alone, not on the order in which they come: sums run in a tree over the ids of
// the groups, see [Sum]. A contribution that is not finite, or far too large, is refused by name, never averaged in.
package averaging
