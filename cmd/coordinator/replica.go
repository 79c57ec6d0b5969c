package main

import (
	"os"
	"os/signal"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/local"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
)

// newReplicaCommand is what `train --spawn process` starts; people start the program replica, which has more to say.
func newReplicaCommand() *cobra.Command {
	o := replica.Options{Build: local.Replicated, Version: version()}
	cmd := &cobra.Command{
		Use:    "replica",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			signal.Ignore(os.Interrupt) // Ctrl-C reaches all processes of a terminal: the coordinator ends its replicas itself
			o.Token = os.Getenv(local.TokenVariable)
			return replica.Main(cmd.Context(), o)
		},
	}
	cmd.Flags().StringVar(&o.URL, "coordinator", "", "URL of the coordinator's message server")
	cmd.Flags().StringVar(&o.ID, "id", "", "name of this replica")
	return cmd
}
