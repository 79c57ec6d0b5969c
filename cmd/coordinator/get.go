package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
)

// shown is something of the coordinators, for every form of output, as of a log index.
type shown struct {
	object any
	sheets []func() *sheet
}

// noun is a kind of thing that get shows.
type noun struct {
	name    string
	aliases []string
	short   string
	about   string // of NAME; "": there is none, a leading ? says that it may be left out
	fetch   func(ctx context.Context, c *api.Client, name string) (shown, error)
}

func listed[T any](l api.List[T], err error, show func() *sheet) (shown, error) {
	return shown{l, []func() *sheet{show}}, err
}

func nouns() []noun {
	return []noun{
		{"experiments", []string{"experiment", "exp"}, "Show all experiments, or one", "?of the experiment", func(ctx context.Context, c *api.Client, name string) (shown, error) {
			if name != "" {
				e, err := c.Experiment(ctx, name)
				return shown{e, []func() *sheet{experimentSheet([]api.Experiment{e})}}, err
			}
			l, err := c.Experiments(ctx)
			return listed(l, err, experimentSheet(l.Items))
		}},
		{"replicas", []string{"replica"}, "Show the replicas of an experiment", "of the experiment", func(ctx context.Context, c *api.Client, name string) (shown, error) {
			l, err := c.Replicas(ctx, name)
			return listed(l, err, replicaSheet(l.Items))
		}},
		{"shards", []string{"shard"}, "Show the shards of an experiment, and who holds them", "of the experiment", func(ctx context.Context, c *api.Client, name string) (shown, error) {
			l, err := c.Shards(ctx, name)
			return listed(l, err, shardSheet(l.Items))
		}},
		{"ladder", nil, "Show the ladder of an experiment", "of the experiment", func(ctx context.Context, c *api.Client, name string) (shown, error) {
			l, err := c.Ladder(ctx, name)
			return shown{l, []func() *sheet{ladderSheet(l)}}, err
		}},
		{"buffer", nil, "Show the replay buffer of an experiment", "of the experiment", func(ctx context.Context, c *api.Client, name string) (shown, error) {
			b, err := c.Buffer(ctx, name)
			return shown{b, []func() *sheet{heldSheet(b)}}, err
		}},
		{"cuts", []string{"cut"}, "Show the cuts of an experiment", "of the experiment", func(ctx context.Context, c *api.Client, name string) (shown, error) {
			l, err := c.Cuts(ctx, name)
			return listed(l, err, cutSheet(l.Items))
		}},
		{"events", []string{"event"}, "Show the last events of an experiment", "of the experiment", func(ctx context.Context, c *api.Client, name string) (shown, error) {
			l, err := c.Events(ctx, name)
			return listed(l, err, eventSheet(l.Items))
		}},
		{"members", []string{"member"}, "Show the coordinators", "", func(ctx context.Context, c *api.Client, _ string) (shown, error) {
			l, err := c.Members(ctx)
			return listed(l, err, memberSheet(l.Items))
		}},
		{"tokens", []string{"token"}, "Show the tokens, without their secrets", "", func(ctx context.Context, c *api.Client, _ string) (shown, error) {
			l, err := c.Tokens(ctx)
			return listed(l, err, tokenSheet(l.Items))
		}},
		{"quotas", []string{"quota"}, "Show what owners may take, and take", "?of the owner", func(ctx context.Context, c *api.Client, name string) (shown, error) {
			if name != "" {
				q, err := c.Quota(ctx, name)
				return shown{q, []func() *sheet{quotaSheet([]api.Quota{q})}}, err
			}
			l, err := c.Quotas(ctx)
			return listed(l, err, quotaSheet(l.Items))
		}},
		{"pool", nil, "Show the replicas that ask for work", "", func(ctx context.Context, c *api.Client, _ string) (shown, error) {
			l, err := c.Pool(ctx)
			return listed(l, err, poolSheet(l.Items))
		}},
	}
}

func newGetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "get",
		Short: "Show what the coordinators have",
		Long: `Show what the coordinators have, as a table or, for programs, as JSON, YAML or one of its values. --watch shows it again
whenever it has changed.`,
		Example: `  coordinator get experiments
  coordinator get experiments two-moons -o jsonpath='{.phase}'
  coordinator get ladder two-moons --watch
  coordinator get members -o wide`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			var names []string
			for _, n := range nouns() {
				names = append(names, n.name)
			}
			return usageErrorf("get: %q, want %s", args[0], oneOf(names))
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, n := range nouns() {
		cmd.AddCommand(n.command())
	}
	return cmd
}

func (n noun) command() *cobra.Command {
	var cluster clusterFlags
	var out outputFlag
	var watch bool
	var consistency string
	about, optional := strings.CutPrefix(n.about, "?")
	use := n.name
	switch {
	case optional:
		use += " [NAME]"
	case about != "":
		use += " NAME"
	}
	cmd := &cobra.Command{Use: use, Aliases: n.aliases, Short: n.short}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) > 1 || about == "" && len(args) > 0:
			return usageErrorf("%d names, want %s", len(args), cmd.UseLine())
		case len(args) == 0 && about != "" && !optional:
			return usageErrorf("no name, want that %s: %s", about, cmd.UseLine())
		}
		return nil
	}
	if strings.HasSuffix(about, "experiment") {
		cmd.ValidArgsFunction = cluster.complete
	} else {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	cluster.add(cmd)
	out.add(cmd)
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again whenever it has changed")
	consistency = api.Leader
	if n.name != "pool" { // which the leader alone knows
		cmd.Flags().StringVar(&consistency, "consistency", api.Leader, "stale: of any coordinator; leader; linearizable: with all that was acknowledged before")
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		if consistency != api.Stale && consistency != api.Leader && consistency != api.Linearizable {
			return usageErrorf("--consistency: %q, want stale, leader or linearizable", consistency)
		}
		name := ""
		if len(args) > 0 {
			name = args[0]
		}
		with := cluster.with
		if watch {
			with = cluster.withUntilInterrupt
		}
		return with(cmd, func(ctx context.Context, c *api.Client) error {
			show := func() (string, error) {
				got, err := n.fetch(ctx, c.Reading(consistency), name)
				if err != nil {
					return "", err
				}
				var b bytes.Buffer
				err = out.print(&b, got.object, got.sheets...)
				return b.String(), err
			}
			var index uint64 // before what is shown first
			if watch {
				list, err := c.Experiments(ctx)
				if err != nil {
					return err
				}
				index = list.Index
			}
			text, err := show()
			if err != nil {
				return err
			}
			if err := printf(cmd.OutOrStdout(), "%s", text); err != nil || !watch {
				return err
			}
			for change, err := range c.Watch(ctx, index) {
				if err != nil {
					return err
				}
				if change.Kind == api.KindInventory {
					continue
				}
				again, err := show()
				if err != nil {
					return err
				}
				if again == text {
					continue
				}
				if text = again; out.format == "yaml" {
					again = "---\n" + again
				}
				if err := printf(cmd.OutOrStdout(), "%s", again); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return cmd
}

func newDescribeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "describe",
		Short: "Show all about one thing",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newDescribeExperimentCommand())
	return cmd
}

// description is all about an experiment.
type description struct {
	api.Meta
	Experiment api.Experiment `json:"experiment"`
	Replicas   []api.Replica  `json:"replicas"`
	Shards     []api.Shard    `json:"shards"`
	Cuts       []api.Cut      `json:"cuts"`
	Events     []api.Event    `json:"events"`
}

func newDescribeExperimentCommand() *cobra.Command {
	var cluster clusterFlags
	var out outputFlag
	cmd := &cobra.Command{
		Use: "experiment NAME", Aliases: []string{"experiments", "exp"},
		Short:   "Show how far an experiment is, who works on it, its cuts and what happened",
		Example: "  coordinator describe experiment two-moons",
		Args:    exactlyOneName, ValidArgsFunction: cluster.complete,
	}
	cluster.add(cmd)
	out.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		return cluster.with(cmd, func(ctx context.Context, c *api.Client) error {
			d, err := describe(ctx, c, args[0])
			if err != nil {
				return err
			}
			return out.print(cmd.OutOrStdout(), d, aboutSheet(d.Experiment), replicaSheet(d.Replicas), cutSheet(d.Cuts), eventSheet(d.Events))
		})
	}
	return cmd
}

func describe(ctx context.Context, c *api.Client, name string) (description, error) {
	d := description{Meta: api.Kind("ExperimentDescription")}
	var err error
	if d.Experiment, err = c.Experiment(ctx, name); err != nil {
		return d, err
	}
	replicas, err := c.Replicas(ctx, name)
	if err != nil {
		return d, err
	}
	shards, err := c.Shards(ctx, name)
	if err != nil {
		return d, err
	}
	cuts, err := c.Cuts(ctx, name)
	if err != nil {
		return d, err
	}
	events, err := c.Events(ctx, name)
	d.Replicas, d.Shards, d.Cuts, d.Events = replicas.Items, shards.Items, cuts.Items, events.Items
	return d, err
}

// aboutSheet is an experiment as a column of facts.
func aboutSheet(e api.Experiment) func() *sheet {
	return func() *sheet {
		s := &sheet{title: e.Name, header: []string{"", "value"}}
		fact := func(name, format string, args ...any) { s.row(name, fmt.Sprintf(format, args...)) }
		fact("phase", "%s", e.Phase)
		if e.Message != "" {
			fact("because", "%s", e.Message)
		}
		fact("wanted", "%s", e.Desired)
		fact("step", "%d of %d, %d redone", e.Step, e.Steps, e.StepsRedone)
		fact("replicas", "%d, at most %s, at least %d", e.LiveReplicas, wantedReplicas(e), e.MinReplicas)
		fact("shards", "%d", e.Shards)
		from := "the very beginning"
		if e.From != nil {
			from = fmt.Sprintf("the cut of step %d", *e.From)
		}
		if e.Generation > 0 {
			fact("generation", "%d, from %s", e.Generation, from)
		}
		if e.LastCut != nil {
			fact("last cut", "step %d, %s", e.LastCut.Step, since(e.LastCut.At))
		}
		fact("blobs", "%s", size(float64(e.Bytes)))
		fact("priority", "%d", e.Priority)
		fact("owner", "%s", dash(e.Owner))
		fact("uid", "%s", e.UID)
		fact("created", "%s", since(e.Created))
		fact("changed", "%s", since(e.Changed))
		fact("data start at", "%s", dash(e.Dir))
		return s
	}
}
