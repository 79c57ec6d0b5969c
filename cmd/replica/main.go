// Command replica works for the coordinator of a training: it takes shards and trains them with the other replicas.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/local"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the first signal leaves in good order; a second one kills
	cmd := newCommand()
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintln(cmd.ErrOrStderr(), "error:", err)
	}
	return replica.ExitCode(err)
}

// indexVariable is where an indexed Job of Kubernetes says which of its pods this is.
const indexVariable = "JOB_COMPLETION_INDEX"

func newCommand() *cobra.Command {
	var url, tokenFile, id string
	var device int
	var grace time.Duration
	var noInstall bool
	cmd := &cobra.Command{
		Use:   "replica --coordinator URL --token-file FILE",
		Short: "Train shards of an experiment, as its coordinator says",
		Long: `Train shards of an experiment, as its coordinator says, until the training is done. SIGTERM leaves in good order: the shards
go elsewhere first, and no step is lost.

Exit codes: 0 the training is done, 42 the experiment cannot be had here, 43 another program or device than the other
replicas', 75 the coordinator cannot be reached, 143 asked to end. Only 42 and 43 would fail again.`,
		Example: `  replica --coordinator nats://coordinator:4222 --token-file /run/secrets/kelvin
  replica --coordinator nats://coordinator:4222 --token-file token --id gpu1 --device 1`,
		Version:       local.Version(),
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			token, err := local.ReadToken(tokenFile)
			if err != nil {
				return fmt.Errorf("%w: %w", replica.ErrConfig, err)
			}
			switch {
			case url == "":
				return fmt.Errorf("%w: --coordinator: missing, want its URL, such as nats://coordinator:4222", replica.ErrConfig)
			case id == "":
				return fmt.Errorf("%w: --id: missing, and %s is not set, want a name that no other replica has", replica.ErrConfig, indexVariable)
			}
			if device >= 0 {
				// The driver reads it when the plugin is loaded.
				if err := os.Setenv("CUDA_VISIBLE_DEVICES", fmt.Sprint(device)); err != nil {
					return err
				}
			}
			return replica.Main(cmd.Context(), replica.Options{
				URL: url, Token: token, ID: id, Build: local.Replicated, Version: local.Version(), Grace: grace,
				Backend: backend.Options{NoInstall: noInstall, Progress: cmd.ErrOrStderr()},
				Log:     slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)),
			})
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", replica.ErrConfig, err) })
	f := cmd.Flags()
	f.StringVar(&url, "coordinator", "", "`URL` of the coordinator's message server")
	f.StringVar(&tokenFile, "token-file", "", "`file` with the token of the experiment (default: the variable "+local.TokenVariable+")")
	f.StringVar(&id, "id", os.Getenv(indexVariable), "name of this replica (default: the variable "+indexVariable+")")
	f.IntVar(&device, "device", -1, "number of the GPU to use; -1 leaves the choice to the driver")
	f.DurationVar(&grace, "grace", 25*time.Second, "how long to wait, when asked to end, until the shards are elsewhere")
	f.BoolVar(&noInstall, "no-install", false, "never download the XLA plugin (also KELVIN_NO_INSTALL=1)")
	return cmd
}
