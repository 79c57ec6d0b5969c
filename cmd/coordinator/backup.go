package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/local"
)

func newBackupCommand() *cobra.Command {
	var cluster clusterFlags
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write all that the coordinators hold to a file",
		Long: `Write all that the coordinators hold to a file, at one moment, while experiments go on: experiments, tokens, quotas, and the
cuts with their blobs. The file is there in full or not at all. It holds the secrets of the cluster: keep it like a key.`,
		Example: "  coordinator backup kelvin-$(date +%F).tar",
		Args:    exactlyOneFile,
	}
	cluster.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return cluster.with(cmd, func(ctx context.Context, c *api.Client) error {
			var n int64
			err := local.WriteSecret(args[0], func(w io.Writer) (err error) {
				n, err = c.Backup(ctx, w)
				return err
			})
			if err != nil {
				return err
			}
			return printf(cmd.OutOrStdout(), "%s → %s\n", size(float64(n)), args[0])
		})
	}
	return cmd
}

func newRestoreCommand() *cobra.Command {
	var cluster clusterFlags
	var force string
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put a backup into a new cluster",
		Long: `Put a backup into a new cluster, which must hold no experiment. --force with the id of the cluster (` + "`coordinator version`" + `
shows it) puts it in place of what another one holds, which is lost. Replicas and tokens are those of the backup.`,
		Example: "  coordinator restore kelvin-2026-11-25.tar",
		Args:    exactlyOneFile,
	}
	cluster.add(cmd)
	cmd.Flags().StringVar(&force, "force", "", "the `id` of the cluster whose state is to be lost")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		info, err := os.Stat(args[0])
		if err != nil {
			return fmt.Errorf("backup: %w", err)
		}
		if !info.Mode().IsRegular() {
			return usageErrorf("backup %s: not a file, want one that `coordinator backup` wrote", args[0])
		}
		return cluster.with(cmd, func(ctx context.Context, c *api.Client) error {
			got, err := c.Restore(ctx, info.Size(), func() (io.ReadCloser, error) { return os.Open(args[0]) }, force)
			if err != nil {
				return err
			}
			return printf(cmd.OutOrStdout(), "%d %s restored to cluster %s\n", got.Experiments, plural(got.Experiments, "experiment"), got.Cluster)
		})
	}
	return cmd
}
