// Command coordinator trains, samples, evaluates and plots energy-based models.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the first Ctrl-C saves and ends; a second one kills
	root := newRootCommand()
	root.SetArgs(args)
	if cmd, err := root.ExecuteContextC(ctx); err != nil {
		printError(root.ErrOrStderr(), cmd, err)
		return exitCode(err)
	}
	return 0
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "coordinator",
		Short:         "Train energy-based models with parallel tempering",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version(),
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(newTrainCommand(), newSampleCommand(), newEvaluateCommand(), newTemperingCommand(), newPlotCommand(), newPlanCommand(), newBenchCommand())
	root.AddCommand(newConfigCommand())
	root.AddCommand(newBackendCommand())
	root.AddCommand(newDoctorCommand())
	root.AddCommand(newReplicaCommand())
	root.AddCommand(newServeCommand(), newCertsCommand())
	root.AddCommand(newSubmitCommand(), newGetCommand(), newDescribeCommand(), newWatchCommand(), newLogsCommand(), newWaitCommand(), newTopCommand())
	root.AddCommand(newPauseCommand(), newResumeCommand(), newCancelCommand(), newDeleteCommand(), newScaleCommand(), newReplicasCommand())
	root.AddCommand(newExportCommand(), newParamsCommand(), newCutCommand(), newBufferCommand(), newLadderCommand())
	root.AddCommand(newMembersCommand(), newTokenCommand(), newQuotaCommand(), newBackupCommand(), newRestoreCommand(), newContextCommand(), newVersionCommand(), newKubernetesCommand())
	return root
}
