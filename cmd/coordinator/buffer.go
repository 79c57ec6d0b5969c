package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/datasets"
	"github.com/kelvin-ebm/kelvin/pkg/local"
)

func newBufferCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "buffer",
		Short: "Look at the replay buffer, and take it out or put it in",
		Long: `The replay buffer is the chains that a training goes on with: columns of states, one on each rung. Its authoritative copy is
the last cut. The commands read that of a run's folder (--run) or of an experiment of the coordinators (NAME).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBufferStatsCommand(), newBufferExportCommand(), newBufferImportCommand())
	return cmd
}

func newBufferStatsCommand() *cobra.Command {
	var from sourceFlags
	var out outputFlag
	cmd := &cobra.Command{
		Use: "stats NAME | --run DIR", Short: "Sum up the states on every rung, and the ages of the columns",
		Long: `Sum up the states on every rung of a cut's replay buffer, over all coordinates and groups, and the ages of its columns: the
scans since a column last started from the reference.`,
		Example: "  coordinator buffer stats --run runs/two-moons\n  coordinator buffer stats two-moons -o json",
	}
	from.add(cmd, "to read")
	out.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		cut, src, done, err := from.load(cmd, args)
		if err != nil {
			return err
		}
		defer done()
		buffer, err := local.ReadBuffer(cut)
		if err != nil {
			return err
		}
		stats := struct {
			api.Meta
			local.BufferStats
		}{api.Kind("BufferStats"), buffer.Stats()}
		return out.print(cmd.OutOrStdout(), stats, func() *sheet { return bufferSheet(src.name(), stats.BufferStats) })
	}
	return cmd
}

func bufferSheet(name string, b local.BufferStats) *sheet {
	s := &sheet{header: []string{"rung", "β", "mean", "std", "min", "max"}}
	s.title = fmt.Sprintf("%s, step %d", name, b.Step)
	s.notes = []string{
		fmt.Sprintf("%d %s of %d columns, %d live; %s", b.Groups, plural(b.Groups, "group"), b.Columns, b.Live, size(float64(b.Bytes))),
		fmt.Sprintf("ages %d to %d scans, mean %.1f", b.AgeMin, b.AgeMax, b.AgeMean),
		fmt.Sprintf("%d drawn, %d refilled; %d restarts, %d round trips", b.Drawn, b.Refilled, b.Restarts, b.Trips),
	}
	for _, r := range b.Rungs {
		s.row(r.Rung, fmt.Sprintf("%.4g", r.Beta), fmt.Sprintf("%.4g", r.Mean), fmt.Sprintf("%.4g", r.Std), fmt.Sprintf("%.4g", r.Min), fmt.Sprintf("%.4g", r.Max))
	}
	return s
}

// aboutArrays describes the file of export and import.
const aboutArrays = `rung0 to rungN [columns, dim], the states from the hottest rung to the target; ages [columns], in scans; and with a ladder
labels [rungs, columns], the walker on each rung, and betas [rungs]. Several groups have group0_ and so on before the names.`

func newBufferExportCommand() *cobra.Command {
	var from sourceFlags
	var out string
	cmd := &cobra.Command{
		Use:     "export NAME | --run DIR",
		Short:   "Write the buffer as an npz file",
		Long:    "Write the replay buffer of a cut as an npz file: " + aboutArrays,
		Example: "  coordinator buffer export --run runs/two-moons --out buffer.npz",
	}
	from.add(cmd, "to read")
	cmd.Flags().StringVar(&out, "out", "", "the npz `file`")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if out == "" {
			return usageErrorf("--out: missing, want the npz file to write")
		}
		cut, _, done, err := from.load(cmd, args)
		if err != nil {
			return err
		}
		defer done()
		buffer, err := local.ReadBuffer(cut)
		if err != nil {
			return err
		}
		if err := local.WriteArrays(out, buffer.Arrays()); err != nil {
			return err
		}
		s := buffer.Stats()
		return printf(cmd.OutOrStdout(), "%d columns of %d rungs, step %d → %s\n", s.Groups*s.Columns, len(s.Rungs), s.Step, out)
	}
	return cmd
}

func newBufferImportCommand() *cobra.Command {
	var from sourceFlags
	var file string
	cmd := &cobra.Command{
		Use:   "import NAME | --run DIR",
		Short: "Put the buffer of an npz file into the last cut",
		Long: `Put the replay buffer of an npz file into the last cut, in place of the one there: ` + aboutArrays + `

Every rung must be there, with the shape of the training and finite numbers. Ages and labels stay where the file has none;
betas are not read. Each column must hold every walker once. Nothing changes where anything is wrong. A run must not be
training; an experiment must be paused (` + "`coordinator pause NAME --wait`" + `).`,
		Example: "  coordinator buffer import --run runs/two-moons --from buffer.npz",
	}
	from.add(cmd, "")
	cmd.Flags().StringVar(&file, "from", "", "the npz `file`")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if file == "" {
			return usageErrorf("--from: missing, want the npz file to read")
		}
		arrays, err := datasets.ReadNPZ(file)
		if err != nil {
			return err
		}
		src, done, err := from.open(args)
		if err != nil {
			return err
		}
		defer done()
		version, err := src.version(cmd.Context()) // before the cut is read
		if err != nil {
			return err
		}
		cut, err := src.load(cmd.Context(), last)
		if err != nil {
			return err
		}
		buffer, err := local.ReadBuffer(cut)
		if err != nil {
			return err
		}
		if err := buffer.SetArrays(cut, arrays); err != nil {
			return usageErrorf("%s: %w", file, err)
		}
		if err := src.replace(cmd.Context(), cut, version); err != nil {
			return err
		}
		s := buffer.Stats()
		return printf(cmd.OutOrStdout(), "%d columns of %d rungs from %s are in the cut of step %d; %s\n", s.Groups*s.Columns, len(s.Rungs), file, s.Step, src.goOn())
	}
	return cmd
}
