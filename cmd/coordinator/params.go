package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/local"
	"github.com/kelvin-ebm/kelvin/pkg/runlog"
)

func newParamsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "params",
		Short: "Take the parameters of a model out",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newParamsExportCommand())
	return cmd
}

func newParamsExportCommand() *cobra.Command {
	var from sourceFlags
	var out string
	cmd := &cobra.Command{
		Use:   "export NAME | --run DIR",
		Short: "Write the parameters as safetensors",
		Long: `Write the parameters of a cut as safetensors, by the names that they have in the model: averaged over the groups at the
averaging boundary, and over the steps where optimizer.ema says so. ` + "`--params`" + ` of other commands reads the file.`,
		Example: "  coordinator params export two-moons --out two-moons.safetensors\n  coordinator params export --run runs/two-moons --cut 300 --out early.safetensors",
	}
	from.add(cmd, "to read")
	cmd.Flags().StringVar(&out, "out", "", "the safetensors `file`")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if out == "" {
			return usageErrorf("--out: missing, want the safetensors file to write")
		}
		cut, src, done, err := from.load(cmd, args)
		if err != nil {
			return err
		}
		defer done()
		cfg, err := src.config(cmd.Context())
		if err != nil {
			return err
		}
		params, err := local.CutParams(cut)
		if err != nil {
			return err
		}
		if err := local.WriteParams(out, params, cfg.Model.Kind); err != nil {
			return err
		}
		return printf(cmd.OutOrStdout(), "%d tensors, step %d → %s\n", len(params), cut.Step, out)
	}
	return cmd
}

func newExportCommand() *cobra.Command {
	var cluster clusterFlags
	var out string
	from := sourceFlags{}
	cmd := &cobra.Command{
		Use:   "export NAME",
		Short: "Make a run's folder of an experiment",
		Long: `Make a run's folder of an experiment of the coordinators, from one of its cuts: evaluate, sample, plot, tempering and
train --resume read it like one that train left. Metrics are those that the leader has, since it leads.`,
		Example: "  coordinator export two-moons --out runs/two-moons && coordinator evaluate --run runs/two-moons",
		Args:    exactlyOneName, ValidArgsFunction: cluster.complete,
	}
	cluster.add(cmd)
	cmd.Flags().StringVar(&out, "out", "", "the `folder`, new or empty (default runs/NAME)")
	cmd.Flags().StringVar(&from.cut, "cut", "last", "`step` of the cut to export")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		step, err := from.step()
		if err != nil {
			return err
		}
		if out == "" {
			out = "runs/" + args[0]
		}
		return cluster.with(cmd, func(ctx context.Context, c *api.Client) error {
			cut, err := exportRun(ctx, c, args[0], step, out)
			if err != nil {
				return err
			}
			return printf(cmd.OutOrStdout(), "%s, step %d → %s; `coordinator evaluate --run %s` reads it\n", args[0], cut.Step, out, out)
		})
	}
	return cmd
}

// exportRun makes the folder of a run and returns the cut that is in it.
func exportRun(ctx context.Context, c *api.Client, name string, step int, dir string) (*checkpoint.Cut, error) {
	exp, err := c.Experiment(ctx, name)
	if err != nil {
		return nil, err
	}
	source := clusterSource{c, name}
	cut, err := source.load(ctx, step)
	if err != nil {
		return nil, err
	}
	platform, err := source.platform(ctx, cut.Step)
	if err != nil {
		return nil, err
	}
	info := runlog.RunInfo{Version: version(), Backend: "unknown", Fingerprint: "unknown", Replicas: max(1, int(exp.LiveReplicas)), StepsWanted: int(exp.Steps),
		StepsRedone: int(exp.StepsRedone), Generations: int(exp.Generation), Started: exp.Created}
	if exp.Phase == api.Completed && uint64(cut.Step) == exp.Steps {
		info.Finished = exp.Changed
	}
	if made, fingerprint, ok := strings.Cut(platform, " on "); ok {
		info.Version, info.Fingerprint = made, fingerprint
		info.Backend, _, _ = strings.Cut(fingerprint, ", ")
	}
	lines, seconds, err := metricsUpTo(ctx, c, name, cut.Step)
	if err != nil {
		return nil, err
	}
	info.Seconds = seconds
	err = local.Export{
		Experiment: []byte(exp.YAML), Dir: exp.Dir, Info: info,
		Cut: func(store checkpoint.Store) error {
			_, err := store.Save(*cut)
			return err
		},
		Metrics: func(w io.Writer) error {
			for _, line := range lines {
				if _, err := fmt.Fprintf(w, "%s\n", line); err != nil {
					return err
				}
			}
			return nil
		},
	}.Write(dir)
	return cut, err
}

// metricsUpTo are the records up to a step, and the seconds of the last one.
func metricsUpTo(ctx context.Context, c *api.Client, name string, step int) (lines []json.RawMessage, seconds float64, err error) {
	for m, err := range c.Metrics(ctx, name, -1, false) {
		if err != nil {
			return nil, 0, err
		}
		if m.Step > uint64(step) {
			break
		}
		var at struct{ Seconds float64 }
		if err := json.Unmarshal(m.Line, &at); err != nil {
			return nil, 0, fmt.Errorf("metrics of %s: %w", name, err)
		}
		lines, seconds = append(lines, m.Line), at.Seconds
	}
	return lines, seconds, nil
}
