package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
)

func newQuotaCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "quota",
		Short: "Limit what the experiments of an owner may take together",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, n := range nouns() {
		if n.name == "quotas" {
			n.name, n.aliases = "get", []string{"ls", "list"}
			cmd.AddCommand(n.command())
		}
	}
	cmd.AddCommand(newQuotaSetCommand())
	return cmd
}

func newQuotaSetCommand() *cobra.Command {
	var cluster clusterFlags
	var q api.PutQuota
	var blobs string
	cmd := &cobra.Command{
		Use:   "set OWNER",
		Short: "Set what an owner may take",
		Long: `Set what the experiments of an owner may take together. A limit that is not named stays as it is; 0 takes it away.
Experiments that run already go on.`,
		Example: "  coordinator quota set ada --experiments 10 --replicas 32 --bytes 100GiB",
		Args:    exactlyOneName, ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.Uint32Var(&q.Experiments, "experiments", 0, "experiments that have not ended")
	f.Uint32Var(&q.Replicas, "replicas", 0, "replicas that those may have")
	f.StringVar(&blobs, "bytes", "", "size of all cuts, with a unit, as 100GiB")
	cluster.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		changed := cmd.Flags().Changed
		if !changed("experiments") && !changed("replicas") && !changed("bytes") {
			return usageErrorf("want a limit: --experiments, --replicas or --bytes")
		}
		if blobs != "" && blobs != "0" {
			n, err := parseBytes(blobs)
			if err != nil {
				return usageErrorf("--bytes: %w", err)
			}
			q.Bytes = uint64(n)
		}
		return cluster.with(cmd, func(ctx context.Context, c *api.Client) error {
			was, err := c.Quota(ctx, args[0])
			if err != nil {
				return err
			}
			if !changed("experiments") {
				q.Experiments = was.Experiments
			}
			if !changed("replicas") {
				q.Replicas = was.Replicas
			}
			if !changed("bytes") {
				q.Bytes = was.Bytes
			}
			now, err := c.PutQuota(ctx, args[0], q)
			if err != nil {
				return err
			}
			return quotaSheet([]api.Quota{now})().render(cmd.OutOrStdout(), false)
		})
	}
	return cmd
}
