package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
)

// completionLimit is how long the shell waits for names: a coordinator that is slower completes nothing.
const completionLimit = 300 * time.Millisecond

// complete completes the name of an experiment as a command's only argument.
func (f *clusterFlags) complete(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return f.names(cmd, func(ctx context.Context, c *api.Client) ([]string, error) {
		list, err := c.Reading(api.Stale).Experiments(ctx)
		return namesOf(list.Items, func(e api.Experiment) string { return e.Name + "\t" + e.Phase }), err
	})
}

// completeReplica completes an experiment and then one of its replicas.
func (f *clusterFlags) completeReplica(cmd *cobra.Command, args []string, text string) ([]string, cobra.ShellCompDirective) {
	if len(args) != 1 {
		return f.complete(cmd, args, text)
	}
	return f.names(cmd, func(ctx context.Context, c *api.Client) ([]string, error) {
		list, err := c.Reading(api.Stale).Replicas(ctx, args[0])
		return namesOf(list.Items, func(r api.Replica) string { return r.Name + "\t" + r.State }), err
	})
}

// completeMember completes the name of a coordinator.
func (f *clusterFlags) completeMember(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return f.names(cmd, func(ctx context.Context, c *api.Client) ([]string, error) {
		list, err := c.Reading(api.Stale).Members(ctx)
		return namesOf(list.Items, func(m api.Member) string { return m.Name + "\t" + m.Role }), err
	})
}

// names asks the coordinators; whatever fails completes nothing.
func (f *clusterFlags) names(cmd *cobra.Command, ask func(context.Context, *api.Client) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	f.patience = min(f.patience, completionLimit)
	c, err := f.open()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.Close()
	parent := cmd.Context()
	if parent == nil { // cobra's completion runs without one
		parent = context.Background()
	}
	ctx, cancel := context.WithTimeout(parent, completionLimit)
	defer cancel()
	names, err := ask(ctx, c)
	if err != nil {
		names = nil
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func completeContexts(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	f, err := readContexts()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return namesOf(f.Contexts, func(c clusterAccess) string { return c.Name }), cobra.ShellCompDirectiveNoFileComp
}

func namesOf[T any](items []T, name func(T) string) []string {
	var out []string
	for _, item := range items {
		out = append(out, name(item))
	}
	return out
}
