package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/experiment"
)

func newSubmitCommand() *cobra.Command {
	var cluster clusterFlags
	var out outputFlag
	var s submission
	var file string
	cmd := &cobra.Command{
		Use:   "submit FILE",
		Short: "Give an experiment to the coordinators",
		Long: `Give an experiment to the coordinators, who train it on the replicas that ask them for work: at once, or when its turn
comes. The file is checked here and there, and is - for the standard input. Relative paths in it start, on the replicas, at
the folder of the file, or at --dir.

--wait waits until it runs or is completed; Ctrl-C ends the waiting, not the experiment.`,
		Example: `  coordinator submit examples/two-moons.yaml --replicas 4
  coordinator submit examples/two-moons.yaml --set seed=8 --name two-moons-8 --wait=completed --timeout 2h
  coordinator submit --dry-run -f - < two-moons.yaml`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 || (len(args) == 1) == (file != "") {
				return usageErrorf("want one FILE, or -f FILE: %s", cmd.UseLine())
			}
			return nil
		},
	}
	sets := addSetFlag(cmd)
	f := cmd.Flags()
	f.StringVarP(&file, "file", "f", "", "the experiment's `file`, in place of the argument; - is the standard input")
	s.add(cmd, "on the replicas", "check everything and submit nothing")
	f.Uint32Var(&s.Replicas, "replicas", 0, "replicas at most (default: as many as there are shards)")
	cluster.add(cmd)
	out.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		if len(args) == 1 {
			file = args[0]
		}
		if err := s.read(cmd, file, *sets); err != nil {
			return err
		}
		return cluster.with(cmd, func(ctx context.Context, c *api.Client) error {
			exp, err := c.Submit(ctx, s.Submit)
			if err != nil {
				return err
			}
			return s.follow(ctx, cmd, c, out, exp)
		})
	}
	return cmd
}

// submission is what a command is told that gives an experiment to the coordinators.
type submission struct {
	api.Submit
	wait    string
	timeout time.Duration
}

// add adds the flags, but the one for replicas. where is the place that paths are of, dry says what --dry-run does.
func (s *submission) add(cmd *cobra.Command, where, dry string) {
	f := cmd.Flags()
	f.StringVar(&s.Name, "name", "", "of the experiment (default: that in the file)")
	f.StringVar(&s.Dir, "dir", "", "where relative paths start, "+where+" (default: the folder of the file)")
	f.StringVar(&s.Owner, "owner", "", "whose quota counts (default: the token's; another needs the scope admin)")
	f.Uint32Var(&s.MinReplicas, "min-replicas", 1, "replicas to begin with")
	f.Int32Var(&s.Priority, "priority", 0, "the higher begins first, then the older")
	f.BoolVar(&s.DryRun, "dry-run", false, dry)
	f.StringVar(&s.wait, "wait", "", "wait until it is running or completed")
	f.Lookup("wait").NoOptDefVal = api.Completed
	f.DurationVar(&s.timeout, "timeout", 0, "end the waiting after so long (default: never)")
}

// read checks the flags and reads the experiment.
func (s *submission) read(cmd *cobra.Command, file string, sets []string) error {
	if s.wait != "" && s.wait != api.Running && s.wait != api.Completed {
		return usageErrorf("--wait: %q, want running or completed", s.wait)
	}
	if err := checkTimeout(s.timeout, s.wait != ""); err != nil {
		return err
	}
	cfg, err := readExperiment(file, sets, cmd.InOrStdin())
	if err != nil {
		return err
	}
	text, err := experiment.Marshal(cfg)
	if err != nil {
		return err
	}
	s.YAML = string(text)
	if s.Dir == "" {
		s.Dir, err = filepath.Abs(cfg.Dir)
	}
	return err
}

// follow waits for what was submitted, if that is wanted, and shows it.
func (s *submission) follow(ctx context.Context, cmd *cobra.Command, c *api.Client, out outputFlag, exp api.Experiment) (err error) {
	if s.wait != "" && !s.DryRun {
		if err := say(cmd, out, "%s submitted; waiting until it is %s …\n", exp.Name, s.wait); err != nil {
			return err
		}
		if exp, err = waitPhase(ctx, c, exp.Name, s.wait, s.timeout); err != nil {
			return err
		}
	}
	return out.print(cmd.OutOrStdout(), exp, experimentSheet([]api.Experiment{exp}))
}

// readExperiment reads an experiment from a file or, for -, from r.
func readExperiment(file string, sets []string, r io.Reader) (*experiment.Config, error) {
	if file != "-" {
		return loadExperiment(file, sets)
	}
	text, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	cfg, err := experiment.Parse(filepath.Join(dir, "standard input"), text, sets)
	if err != nil {
		return nil, usageError{err}
	}
	return cfg, nil
}

func checkTimeout(timeout time.Duration, waits bool) error {
	switch {
	case timeout < 0:
		return usageErrorf("--timeout: %v, want more than 0", timeout)
	case timeout > 0 && !waits:
		return usageErrorf("--timeout: ends a waiting, want --wait with it")
	}
	return nil
}

// say tells people what goes on, beside an output that programs read.
func say(cmd *cobra.Command, out outputFlag, format string, args ...any) error {
	w := cmd.ErrOrStderr()
	if out.format == "table" || out.format == "wide" {
		w = cmd.OutOrStdout()
	}
	return printf(w, format, args...)
}

// waitPhase waits until an experiment is in a phase, 0 is without end. One that ends in another phase is an error.
func waitPhase(ctx context.Context, c *api.Client, name, phase string, timeout time.Duration) (api.Experiment, error) {
	return waitUntil(ctx, c, name, phase, timeout, func(e api.Experiment) bool { return e.Phase == phase })
}

// waitUntil is waitPhase for an experiment in the phase of which more is wanted.
func waitUntil(ctx context.Context, c *api.Client, name, phase string, timeout time.Duration, wanted func(api.Experiment) bool) (api.Experiment, error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, waitError{name, phase, timeout})
		defer cancel()
	}
	exp, err := c.Wait(ctx, name, func(e api.Experiment) bool { return wanted(e) || api.Final(e.Phase) })
	var late waitError
	if errors.As(err, &late) {
		return exp, &api.Error{Code: api.Timeout, Message: late.Error(), Next: "see `coordinator describe experiment " + name + "`"}
	}
	if err != nil {
		return exp, err
	}
	// One that went by running to its end is what was waited for.
	if exp.Phase != phase && !(phase == api.Running && exp.Phase == api.Completed) {
		text := fmt.Sprintf("%s is %s, and will not be %s", name, exp.Phase, phase)
		if exp.Message != "" {
			text += ": " + exp.Message
		}
		return exp, fmt.Errorf("%s; see `coordinator describe experiment %s`", text, name)
	}
	return exp, nil
}

// waitError is a waiting that took too long.
type waitError struct {
	name, phase string
	after       time.Duration
}

func (e waitError) Error() string {
	return fmt.Sprintf("%s is not %s after %v", e.name, e.phase, e.after)
}

func (e waitError) Is(target error) bool { return target == context.DeadlineExceeded }

// phases that can be waited for.
func phases() []string {
	return []string{api.Queued, api.Waiting, api.Running, api.Paused, api.Completed, api.Cancelled, api.Failed, api.Inconsistent, api.Degraded}
}

func newWaitCommand() *cobra.Command {
	var cluster clusterFlags
	var phase string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "wait NAME",
		Short: "Wait until an experiment is in a phase",
		Long: `Wait until an experiment is in a phase. One that comes to another end fails the waiting, with 1; --timeout ends it with 7.
The phases are ` + oneOf(phases()) + ".",
		Example: "  coordinator wait two-moons --for completed --timeout 1h",
		Args:    exactlyOneName, ValidArgsFunction: cluster.complete,
	}
	cluster.add(cmd)
	cmd.Flags().StringVar(&phase, "for", api.Completed, "the `phase`")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "give up after so long (default: never)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains(phases(), phase) {
			return usageErrorf("--for: %q, want %s", phase, oneOf(phases()))
		}
		if err := checkTimeout(timeout, true); err != nil {
			return err
		}
		return cluster.with(cmd, func(ctx context.Context, c *api.Client) error {
			exp, err := waitPhase(ctx, c, args[0], phase, timeout)
			if err != nil {
				return err
			}
			return printf(cmd.OutOrStdout(), "%s is %s, step %d of %d\n", exp.Name, exp.Phase, exp.Step, exp.Steps)
		})
	}
	return cmd
}

// newDesiredCommand is pause, resume or cancel.
func newDesiredCommand(verb, desired, phase, short, long string) *cobra.Command {
	var cluster clusterFlags
	var wait bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: verb + " NAME", Short: short, Long: long,
		Example: fmt.Sprintf("  coordinator %s two-moons --wait --timeout 1m", verb),
		Args:    exactlyOneName, ValidArgsFunction: cluster.complete,
	}
	cluster.add(cmd)
	addWaitFlags(cmd, &wait, &timeout, "wait until it is "+phase)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkTimeout(timeout, wait); err != nil {
			return err
		}
		return cluster.with(cmd, func(ctx context.Context, c *api.Client) error {
			exp, err := c.Patch(ctx, args[0], api.Patch{Desired: desired}, 0)
			if err == nil && wait {
				exp, err = waitPhase(ctx, c, args[0], phase, timeout)
			}
			if err != nil {
				return err
			}
			return printf(cmd.OutOrStdout(), "%s is %s, and is to %s\n", exp.Name, exp.Phase, exp.Desired)
		})
	}
	return cmd
}

func addWaitFlags(cmd *cobra.Command, wait *bool, timeout *time.Duration, use string) {
	cmd.Flags().BoolVar(wait, "wait", false, use)
	cmd.Flags().DurationVar(timeout, "timeout", 0, "end the waiting after so long, with exit code 7 (default: never)")
}

func newPauseCommand() *cobra.Command {
	return newDesiredCommand("pause", api.Pause, api.Paused, "Let an experiment rest",
		"Let an experiment rest: a cut is taken, and its replicas are free for others until it is resumed.")
}

func newResumeCommand() *cobra.Command {
	return newDesiredCommand("resume", api.Run, api.Running, "Let a paused experiment go on",
		"Let a paused experiment go on from its last cut, as if it had never rested.")
}

func newCancelCommand() *cobra.Command {
	return newDesiredCommand("cancel", api.Cancel, api.Cancelled, "End an experiment for good",
		"End an experiment for good: a cut is taken, and nothing follows it. `coordinator delete` then forgets it.")
}

func newDeleteCommand() *cobra.Command {
	var cluster clusterFlags
	var wait bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Forget an experiment that has ended, with its cuts",
		Long: `Forget an experiment that has ended, with its cuts, for good. One that is not at its end is a conflict (4): cancel it
first, or wait for its end with --wait.`,
		Example: "  coordinator export two-moons --out runs/two-moons && coordinator delete two-moons",
		Args:    exactlyOneName, ValidArgsFunction: cluster.complete,
	}
	cluster.add(cmd)
	addWaitFlags(cmd, &wait, &timeout, "wait until it has ended by itself, and then delete it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkTimeout(timeout, wait); err != nil {
			return err
		}
		return cluster.with(cmd, func(ctx context.Context, c *api.Client) error {
			if wait {
				waiting := ctx
				if timeout > 0 {
					var cancel context.CancelFunc
					waiting, cancel = context.WithTimeoutCause(ctx, timeout, waitError{args[0], "at its end", timeout})
					defer cancel()
				}
				if _, err := c.Wait(waiting, args[0], func(e api.Experiment) bool { return api.Final(e.Phase) }); err != nil {
					return err
				}
			}
			if err := c.Delete(ctx, args[0], 0); err != nil {
				return err
			}
			return printf(cmd.OutOrStdout(), "%s is deleted\n", args[0])
		})
	}
	return cmd
}

func newScaleCommand() *cobra.Command {
	var cluster clusterFlags
	var replicas uint32
	var priority int32
	cmd := &cobra.Command{
		Use:   "scale NAME",
		Short: "Change how many replicas an experiment may have, or its priority",
		Long: `Change how many replicas an experiment may have at most, 0 for as many as it has shards, or its priority. The shards move
at a fresh cut: nothing is redone, and the numbers of the training stay the same.`,
		Example: "  coordinator scale two-moons --replicas 8\n  coordinator scale two-moons --priority 10",
		Args:    exactlyOneName, ValidArgsFunction: cluster.complete,
	}
	cluster.add(cmd)
	cmd.Flags().Uint32Var(&replicas, "replicas", 0, "replicas at most; 0: as many as there are shards")
	cmd.Flags().Int32Var(&priority, "priority", 0, "the higher begins first")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var p api.Patch
		if cmd.Flags().Changed("replicas") {
			p.Replicas = &replicas
		}
		if cmd.Flags().Changed("priority") {
			p.Priority = &priority
		}
		if p == (api.Patch{}) {
			return usageErrorf("--replicas: missing, want how many replicas it may have")
		}
		return cluster.with(cmd, func(ctx context.Context, c *api.Client) error {
			exp, err := c.Patch(ctx, args[0], p, 0)
			if err != nil {
				return err
			}
			return printf(cmd.OutOrStdout(), "%s may have replicas: %s; it has %d; priority %d\n", exp.Name, wantedReplicas(exp), exp.LiveReplicas, exp.Priority)
		})
	}
	return cmd
}

// wantedReplicas is how many replicas an experiment may have, for people.
func wantedReplicas(e api.Experiment) string {
	if e.Replicas == 0 {
		return fmt.Sprintf("as many as it has shards, %d", e.Shards)
	}
	return fmt.Sprint(e.Replicas)
}
