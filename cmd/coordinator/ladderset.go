package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/experiment"
	"github.com/kelvin-ebm/kelvin/pkg/local"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

func newLadderCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ladder",
		Short: "Change the ladder of a training under way",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newLadderSetCommand())
	return cmd
}

func newLadderSetCommand() *cobra.Command {
	var from sourceFlags
	var to local.Ladder
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "set NAME | --run DIR",
		Short: "Go on with another number of rungs, or other β, from the last cut",
		Long: `Go on with another number of rungs (--rungs), or with given β (--betas), from the last cut: parameters, optimizer and the
chains of all rungs that stay are kept. --rungs spaces them by the barrier that the training has seen, or as tempering.ladder
says where that is a formula; an adaptive ladder adapts on. A new rung starts from a copy of its hotter neighbour's states.
Its columns are warming until one of their walkers has come from the reference to the target: until then they do not count for
the swap statistics, nor for weighed negatives.

A run must not be training; what it is resumed with must say the same, as its own experiment.yaml does. An experiment of the
coordinators is paused, if it runs, and resumed behind the change, or where that fails; --timeout ends the waiting for its
pause. Cuts before are dropped for good: no training goes on from them with the other ladder. ` + "`cut export`" + ` keeps one, for the
experiment as it was.`,
		Example: `  coordinator ladder set --run runs/two-moons --rungs 8
  coordinator train runs/two-moons/experiment.yaml --out runs/two-moons --resume
  coordinator ladder set two-moons --betas 0,0.05,0.2,0.5,1`,
	}
	from.add(cmd, "")
	cmd.Flags().IntVar(&to.Rungs, "rungs", 0, "the number of rungs, at least 2")
	cmd.Flags().Float64SliceVar(&to.Betas, "betas", nil, "`β` of all rungs with commas between, hottest first, the last 1")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "end the waiting for the pause after so long, with exit code 7 (default: never)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case cmd.Flags().Changed("rungs") == cmd.Flags().Changed("betas"):
			return usageErrorf("want one of --rungs K and --betas β,…,1")
		case cmd.Flags().Changed("rungs") && to.Rungs < 2, cmd.Flags().Changed("betas") && len(to.Betas) < 2:
			return usageErrorf("a ladder of %d rungs, want at least 2", max(to.Rungs, len(to.Betas)))
		case cmd.Flags().Changed("betas"):
			if _, err := tempering.LadderOf(to.Betas); err != nil {
				return usageErrorf("--betas: %w", err)
			}
		}
		if err := checkTimeout(timeout, true); err != nil {
			return err
		}
		if from.run != "" && timeout > 0 {
			return usageErrorf("--timeout: a run's folder is not waited for, want it with an experiment's NAME")
		}
		if from.run != "" {
			_, cut, err := local.SetLadder(from.run, to)
			if err != nil {
				return err
			}
			return printf(cmd.OutOrStdout(), "%s is at step %d on %d rungs; `coordinator train %s --out %s --resume` goes on\n",
				from.run, cut.Step, max(to.Rungs, len(to.Betas)), filepath.Join(from.run, "experiment.yaml"), from.run)
		}
		return from.cluster.with(cmd, func(ctx context.Context, c *api.Client) error {
			exp, err := atRest(ctx, c, args[0], timeout, func(exp api.Experiment) (api.Experiment, error) {
				return putLadder(ctx, c, exp, to)
			})
			if err != nil {
				return err
			}
			goesOn := "is to run"
			if exp.Desired != api.Run {
				goesOn = clusterSource{c, exp.Name}.goOn()
			}
			return printf(cmd.OutOrStdout(), "%s is at step %d on %d rungs, shards: %d; %s\n", exp.Name, exp.Step, max(to.Rungs, len(to.Betas)), exp.Shards, goesOn)
		})
	}
	return cmd
}

// resumes is how long a resuming may take whose command was interrupted.
const resumes = 10 * time.Second

// atRest changes an experiment while it is paused, and lets it run again if it ran before, changed or not.
func atRest(ctx context.Context, c *api.Client, name string, timeout time.Duration, change func(api.Experiment) (api.Experiment, error)) (exp api.Experiment, err error) {
	if exp, err = c.Experiment(ctx, name); err != nil {
		return exp, err
	}
	if api.Final(exp.Phase) || exp.Desired == api.Cancel {
		return exp, &api.Error{Code: api.Conflict, Message: fmt.Sprintf("%s is %s and is to %s", name, exp.Phase, exp.Desired), Next: "want one that runs or is paused"}
	}
	if exp.Desired == api.Run {
		if exp, err = c.Patch(ctx, name, api.Patch{Desired: api.Pause}, 0); err != nil {
			return exp, err
		}
		defer func() {
			if api.Final(exp.Phase) { // it came to its end before its pause
				return
			}
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resumes)
			defer cancel()
			on, failed := c.Patch(ctx, name, api.Patch{Desired: api.Run}, 0)
			if failed != nil {
				err = errors.Join(err, fmt.Errorf("it stays paused: %w", failed))
			} else if err == nil {
				exp = on
			}
		}()
	}
	if exp, err = waitUntil(ctx, c, name, api.Paused, timeout, func(e api.Experiment) bool {
		return e.Phase == api.Paused && e.LiveReplicas == 0 // the end of a lease is a version of its own
	}); err != nil {
		return exp, err
	}
	if exp, err = c.Experiment(ctx, name); err != nil { // with its YAML
		return exp, err
	}
	return change(exp)
}

// putLadder gives a paused experiment and its last cut another ladder.
func putLadder(ctx context.Context, c *api.Client, exp api.Experiment, to local.Ladder) (api.Experiment, error) {
	src := clusterSource{c, exp.Name}
	cfg, err := src.parse(exp)
	if err != nil {
		return exp, err
	}
	cut, err := src.load(ctx, last)
	if err != nil {
		return exp, err
	}
	next, changed, err := local.Reladder(cfg, cut, to)
	if err != nil {
		return exp, err
	}
	put, err := src.upload(ctx, changed)
	if err != nil {
		return exp, err
	}
	text, err := experiment.Marshal(next)
	if err != nil {
		return exp, err
	}
	return c.PutLadder(ctx, exp.Name, api.PutLadder{YAML: string(text), Manifest: put.Manifest, Parts: put.Parts, Conservation: put.Conservation}, exp.Version)
}

// ladderLines say how the run of a round gets as many rungs as the round has, or asks for; none where it has about as many.
func ladderLines(run string, rungs int, r *tempering.Round) []string {
	want := len(r.Betas)
	if want == rungs {
		want = r.SuggestedRungs
	}
	if run == "" || want < 2 || float64(want) <= 1.25*float64(rungs) && float64(want) >= 0.6*float64(rungs) {
		return nil
	}
	return []string{fmt.Sprintf("`coordinator ladder set --run %s --rungs %d` lets its training go on with as many", run, want)}
}
