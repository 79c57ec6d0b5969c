package main

import (
	"context"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
)

func newVersionCommand() *cobra.Command {
	var cluster clusterFlags
	var out outputFlag
	var client bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the version of this program and of the coordinators",
		Long: `Show the version of this program and, where a cluster is known, of the coordinator that answers, with the id of the cluster
and the level of commands in use. A coordinator that does not answer is an error, after this program's version was shown.`,
		Example: "  coordinator version\n  coordinator version --client -o json",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&client, "client", false, "of this program alone")
	cluster.add(cmd)
	out.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := out.check(); err != nil {
			return err
		}
		both := struct {
			api.Meta
			Version string     `json:"version"`
			Go      string     `json:"go"`
			Server  *api.Build `json:"server,omitempty"`
		}{Meta: api.Kind("Version"), Version: version(), Go: runtime.Version()}
		var unknown error
		if _, err := cluster.access(); err == nil && !client {
			unknown = cluster.with(cmd, func(ctx context.Context, c *api.Client) error {
				b, err := c.Build(ctx)
				if err == nil {
					both.Server = &b
				}
				return err
			})
		} else if err != nil && cluster.named() {
			return err
		}
		err := out.print(cmd.OutOrStdout(), both, func() *sheet {
			s := &sheet{header: []string{"program", "version", "Go", "node", "leader", "cluster", "feature"}}
			s.row("this", both.Version, both.Go, "–", "–", "–", "–")
			if b := both.Server; b != nil {
				s.row("coordinator", b.Version, b.Go, b.Node, dash(b.Leader), b.Cluster, b.Feature)
			}
			return s
		})
		if err != nil {
			return err
		}
		return unknown
	}
	return cmd
}
