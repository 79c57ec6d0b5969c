package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/local"
)

func newCutCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cut",
		Short: "List, verify, export and restore the cuts of a run or an experiment",
		Long: `A cut is a consistent snapshot of a training: parameters, optimizer, every chain, the replay buffer and the ladder. The
commands read those of a run's folder (--run) or of an experiment of the coordinators (NAME).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newCutListCommand(), newCutVerifyCommand(), newCutExportCommand(), newCutRestoreCommand())
	return cmd
}

func newCutListCommand() *cobra.Command {
	var from sourceFlags
	var out outputFlag
	cmd := &cobra.Command{
		Use: "ls NAME | --run DIR", Aliases: []string{"list"}, Short: "List the cuts, oldest first",
		Example: "  coordinator cut ls --run runs/two-moons\n  coordinator cut ls two-moons -o jsonpath='{.items[*].step}'",
	}
	from.add(cmd, "")
	out.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		src, done, err := from.open(args)
		if err != nil {
			return err
		}
		defer done()
		cuts, err := src.list(cmd.Context())
		if err != nil {
			return err
		}
		var list any = api.List[api.Cut]{Meta: api.Kind("CutList"), Items: cuts}
		if from.run != "" {
			list = runCuts(cuts)
		}
		return out.print(cmd.OutOrStdout(), list, cutSheet(cuts))
	}
	return cmd
}

// runCut is a cut in a run's folder, which knows no more of it without reading it.
type runCut struct {
	Step     uint64     `json:"step"`
	At       time.Time  `json:"at"`
	Bytes    uint64     `json:"bytes"`
	Manifest string     `json:"manifest"`
	Parts    []api.Part `json:"parts"`
}

type runCutList struct {
	api.Meta
	Items []runCut `json:"items"`
}

func runCuts(cuts []api.Cut) runCutList {
	list := runCutList{api.Kind("RunCutList"), []runCut{}}
	for _, c := range cuts {
		list.Items = append(list.Items, runCut{c.Step, c.At, c.Bytes, c.Manifest, c.Parts})
	}
	return list
}

func cutSheet(cuts []api.Cut) func() *sheet {
	return func() *sheet {
		s := &sheet{header: []string{"step", "generation", "size", "parts", "age", "manifest", "note"}, wide: 1}
		for _, c := range cuts {
			note, generation := "", "–"
			if c.Refused {
				note = "refused: broke the conservation laws"
			}
			if c.Generation > 0 {
				generation = fmt.Sprint(c.Generation)
			}
			s.row(c.Step, generation, size(float64(c.Bytes)), len(c.Parts), ago(c.At), dash(fmt.Sprintf("%.12s", c.Manifest)), note)
		}
		return s
	}
}

// verdict is what verifying a cut came to.
type verdict struct {
	Step         int               `json:"step"`
	Digest       string            `json:"digest,omitempty"`
	Whole        bool              `json:"whole"`
	Problem      string            `json:"problem,omitempty"`
	Conservation *api.Conservation `json:"conservation,omitempty"`
}

func newCutVerifyCommand() *cobra.Command {
	var from sourceFlags
	var out outputFlag
	cmd := &cobra.Command{
		Use:   "verify NAME | --run DIR",
		Short: "Hash every part again and check the conservation laws",
		Long: `Read every cut, or the one of --cut, hash all its parts, and check that every ladder holds each walker once and that the
replay buffer lost no column. Exits with 1 if no cut is whole, with 8 if only some are.`,
		Example: "  coordinator cut verify --run runs/two-moons\n  coordinator cut verify two-moons --cut last",
	}
	from.add(cmd, "to verify, or last (default: all)")
	cmd.Flags().Lookup("cut").DefValue = ""
	out.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		step, err := from.step()
		if err != nil {
			return err
		}
		src, done, err := from.open(args)
		if err != nil {
			return err
		}
		defer done()
		steps := []int{step}
		if !cmd.Flags().Changed("cut") {
			if steps, err = allSteps(cmd.Context(), src); err != nil {
				return err
			}
		}
		verdicts, err := verify(cmd.Context(), src, steps)
		if err != nil {
			return err
		}
		list := struct {
			api.Meta
			Items []verdict `json:"items"`
		}{api.Kind("CutVerdictList"), verdicts}
		if err := out.print(cmd.OutOrStdout(), list, verdictSheet(verdicts)); err != nil {
			return err
		}
		return allWhole(verdicts)
	}
	return cmd
}

func allSteps(ctx context.Context, src source) ([]int, error) {
	cuts, err := src.list(ctx)
	if err != nil {
		return nil, err
	}
	var steps []int
	for _, c := range cuts {
		if !c.Refused {
			steps = append(steps, int(c.Step))
		}
	}
	if len(steps) == 0 {
		return nil, &api.Error{Code: api.NotFound, Message: src.name() + ": no cut"}
	}
	return steps, nil
}

// verify reads cuts. An error is one of reaching them, not of what they hold.
func verify(ctx context.Context, src source, steps []int) ([]verdict, error) {
	var out []verdict
	for _, step := range steps {
		v := verdict{Step: step}
		cut, err := src.load(ctx, step)
		_, refused := errors.AsType[*api.Error](err)
		_, damaged := errors.AsType[damage](err)
		if refused && !damaged || ctx.Err() != nil || errors.Is(err, checkpoint.ErrNoCut) {
			return nil, err
		}
		if err == nil {
			v.Step, v.Digest = cut.Step, cut.Digest
			c, broken := local.CheckCut(cut)
			if err = broken; err == nil {
				sums := conservation(c)
				v.Conservation, v.Whole = &sums, true
			}
		}
		if err != nil {
			v.Problem = err.Error()
		}
		out = append(out, v)
	}
	return out, nil
}

func verdictSheet(verdicts []verdict) func() *sheet {
	return func() *sheet {
		s := &sheet{header: []string{"step", "verdict", "ladders", "walkers", "digest"}}
		for _, v := range verdicts {
			if !v.Whole {
				s.row(v.Step, v.Problem, "–", "–", dash(fmt.Sprintf("%.12s", v.Digest)))
				continue
			}
			s.row(v.Step, "whole", v.Conservation.Ladders, v.Conservation.Labels, fmt.Sprintf("%.12s", v.Digest))
		}
		return s
	}
}

// allWhole is an error unless all cuts are.
func allWhole(verdicts []verdict) error {
	bad := 0
	for _, v := range verdicts {
		if !v.Whole {
			bad++
		}
	}
	switch bad {
	case 0:
		return nil
	case len(verdicts):
		return fmt.Errorf("no cut is whole, of %d", bad)
	}
	return partialError{fmt.Errorf("%d of %d cuts are not whole", bad, len(verdicts))}
}

func newCutExportCommand() *cobra.Command {
	var from sourceFlags
	var out string
	cmd := &cobra.Command{
		Use:   "export NAME | --run DIR",
		Short: "Write a cut, verified, to a folder",
		Long: `Write a cut, verified, to a folder of its own below --out, named by its step. ` + "`cut restore --from`" + ` puts it back; its files are
safetensors, with manifest.json beside them.`,
		Example: "  coordinator cut export two-moons --out kept\n  coordinator cut export --run runs/two-moons --cut 300 --out kept",
	}
	from.add(cmd, "to export")
	cmd.Flags().StringVar(&out, "out", "", "the `folder`, in which others may be already")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if out == "" {
			return usageErrorf("--out: missing, want a folder for the cut")
		}
		cut, _, done, err := from.load(cmd, args)
		if err != nil {
			return err
		}
		defer done()
		digest, err := (checkpoint.Store{Dir: out}).Save(*cut)
		if err != nil {
			return err
		}
		return printf(cmd.OutOrStdout(), "cut of step %d, digest %s → %s\n", cut.Step, digest, out)
	}
	return cmd
}

// load is the cut of --cut, with where it is from.
func (f *sourceFlags) load(cmd *cobra.Command, args []string) (*checkpoint.Cut, source, func(), error) {
	step, err := f.step()
	if err != nil {
		return nil, nil, nil, err
	}
	src, done, err := f.open(args)
	if err != nil {
		return nil, nil, nil, err
	}
	cut, err := src.load(cmd.Context(), step)
	if err != nil {
		done()
		return nil, nil, nil, err
	}
	return cut, src, done, nil
}

func newCutRestoreCommand() *cobra.Command {
	var from sourceFlags
	var dir string
	var yes bool
	cmd := &cobra.Command{
		Use:   "restore NAME | --run DIR",
		Short: "Go back to an older cut, or put an exported one back",
		Long: `Go back to an older cut, or put one back that ` + "`cut export`" + ` wrote (--from). Newer cuts are dropped for good: --yes says that
this is meant. A run must not be training; an experiment must be paused (` + "`coordinator pause NAME --wait`" + `). The cut is
verified first.`,
		Example: `  coordinator cut restore --run runs/two-moons --cut 300 --yes
  coordinator pause two-moons --wait && coordinator cut restore two-moons --from kept --yes && coordinator resume two-moons`,
	}
	from.add(cmd, "to go back to")
	cmd.Flags().StringVar(&dir, "from", "", "`folder` that cut export wrote; with --cut the step in it, else its last")
	cmd.Flags().BoolVar(&yes, "yes", false, "drop newer cuts")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		step, err := from.step()
		if err != nil {
			return err
		}
		if dir == "" && !cmd.Flags().Changed("cut") {
			return usageErrorf("--cut: missing, want the step to go back to, or --from DIR")
		}
		src, done, err := from.open(args)
		if err != nil {
			return err
		}
		defer done()
		return restoreCut(cmd.Context(), cmd.OutOrStdout(), src, step, dir, yes)
	}
	return cmd
}

func restoreCut(ctx context.Context, w io.Writer, src source, step int, dir string, yes bool) error {
	load := src.load
	if dir != "" {
		load = runSource{dir, checkpoint.Store{Dir: dir}}.load
	}
	cut, err := load(ctx, step)
	if err != nil {
		return err
	}
	if _, err := local.CheckCut(cut); err != nil {
		return err
	}
	version, err := src.version(ctx) // before the list, which people are asked about
	if err != nil {
		return err
	}
	there, err := src.list(ctx)
	if err != nil {
		return err
	}
	if dir != "" {
		for i := len(there) - 1; i >= 0; i-- { // the newest that is whole says what fits
			present, err := src.load(ctx, int(there[i].Step))
			if err != nil {
				continue
			}
			if err := local.SameTraining(cut, present); err != nil {
				return fmt.Errorf("the cut in %s is not of this training: %w", dir, err)
			}
			break
		}
	}
	var dropped []string
	for _, c := range there {
		if int(c.Step) > cut.Step || int(c.Step) == cut.Step && dir != "" {
			dropped = append(dropped, fmt.Sprint(c.Step))
		}
	}
	if len(dropped) > 0 && !yes {
		return usageErrorf("restoring the cut of step %d drops %s of step %s for good, want --yes if that is meant",
			cut.Step, plural(len(dropped), "the cut"), strings.Join(dropped, ", "))
	}
	if err := src.replace(ctx, cut, version); err != nil {
		return err
	}
	return printf(w, "%s is at step %d; %s\n", src.name(), cut.Step, src.goOn())
}
