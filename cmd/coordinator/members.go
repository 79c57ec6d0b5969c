package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
)

func newMembersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "members",
		Aliases: []string{"member"},
		Short:   "List the coordinators, and change who decides",
		Long: `List the coordinators, and change who decides. A coordinator joins by ` + "`coordinator serve --join`" + `, as a non-voter that gets
the whole state; the leader makes it a voter once it has caught up. Of 3 voters one may be lost.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	list := noun{"list", []string{"ls"}, "List the coordinators", "", func(ctx context.Context, c *api.Client, _ string) (shown, error) {
		l, err := c.Members(ctx)
		return listed(l, err, memberSheet(l.Items))
	}}
	cmd.AddCommand(list.command(),
		newMemberCommand("promote", "Make a non-voter a voter now",
			"Make a non-voter a voter now, however far behind it is. The leader does it by itself for one that has caught up.",
			"is a voter", (*api.Client).Promote),
		newMemberCommand("remove", "Take a coordinator out of the cluster for good",
			"Take a coordinator out of the cluster for good: one that is lost, or is to be stopped. To come back it joins with an empty folder.",
			"is removed", (*api.Client).RemoveMember),
		newMemberCommand("lead", "Hand the leadership to a coordinator",
			"Hand the leadership to a coordinator, for the maintenance of the present leader. A cut of what is at work is taken first, so that next to nothing is made again.",
			"is to lead", (*api.Client).Lead))
	return cmd
}

func newMemberCommand(verb, short, long, done string, do func(*api.Client, context.Context, string) error) *cobra.Command {
	var cluster clusterFlags
	cmd := &cobra.Command{Use: verb + " NAME", Short: short, Long: long, Example: "  coordinator members " + verb + " b", Args: exactlyOneName, ValidArgsFunction: cluster.completeMember}
	cluster.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return cluster.with(cmd, func(ctx context.Context, c *api.Client) error {
			if err := do(c, ctx, args[0]); err != nil {
				return err
			}
			return printf(cmd.OutOrStdout(), "%s %s\n", args[0], done)
		})
	}
	return cmd
}

func newReplicasCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "replicas",
		Short: "Take replicas of an experiment out of work",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newReplicaActCommand("drain", "Ask a replica to leave at the next cut",
			"Ask a replica to leave an experiment at the next cut, once its shards are elsewhere: nothing is redone.",
			"leaves at the next cut", (*api.Client).Drain),
		newReplicaActCommand("takeover", "End the lease of a replica at once",
			"End the lease of a replica at once, so that another process of the same id takes its place. What it did since the last cut is done again.",
			"has no lease any more", (*api.Client).Takeover))
	return cmd
}

func newReplicaActCommand(verb, short, long, done string, do func(*api.Client, context.Context, string, string) error) *cobra.Command {
	var cluster clusterFlags
	cmd := &cobra.Command{
		Use: verb + " NAME ID", Short: short, Long: long, Example: "  coordinator replicas " + verb + " two-moons 3",
		ValidArgsFunction: cluster.completeReplica,
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) != 2 {
			return usageErrorf("%d arguments, want the experiment and the replica: %s", len(args), cmd.UseLine())
		}
		return nil
	}
	cluster.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return cluster.with(cmd, func(ctx context.Context, c *api.Client) error {
			if err := do(c, ctx, args[0], args[1]); err != nil {
				return err
			}
			return printf(cmd.OutOrStdout(), "replica %s of %s %s\n", args[1], args[0], done)
		})
	}
	return cmd
}
