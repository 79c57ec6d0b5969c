package main

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/local"
	"github.com/kelvin-ebm/kelvin/pkg/plots"
)

func newPlotCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plot",
		Short: "Draw a run's landscape, samples, curves or ladder",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newPlotKind("landscape", "Draw the model's density in two dimensions; as GIF, how it formed", "png", "svg", "gif"),
		newPlotKind("samples", "Draw samples of the model beside held-out data", "png", "svg"),
		newPlotKind("curves", "Draw loss, energies and acceptance over the training", "png", "svg"),
		newPlotKind("ladder", "Draw β of every rung, how often neighbours swap, and how the ladder moved", "png", "svg"),
		newPlotKind("trips", "Draw round trips and restarts over the rounds", "png", "svg"),
		newPlotKind("energies", "Draw the energies on every rung, and what neighbours share", "png", "svg"),
		newPlotKind("barrier", "Draw the communication barrier along the ladder", "png", "svg"),
		newPlotKind("index", "Draw the rung of every walker, scan by scan", "png", "svg"),
	)
	return cmd
}

func newPlotKind(kind, short string, formats ...string) *cobra.Command {
	var dir, output, file string
	var b backendFlags
	cmd := &cobra.Command{
		Use:     kind + " --run DIR",
		Short:   short,
		Example: fmt.Sprintf("  coordinator plot %s --run runs/two-moons -o %s", kind, formats[len(formats)-1]),
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVar(&dir, "run", "", "the run's folder")
	cmd.Flags().StringVar(&file, "file", "", "where to write it (default <run>/"+kind+".<format>)")
	check := addOutputFlag(cmd, &output, "png", formats...)
	tempered := slices.Contains(local.TemperingFigures, kind)
	if tempered {
		cmd.Long = short + ". It is read from the " + local.TemperingFile + " that\n" +
			"training with a ladder leaves in the run's folder, and that `coordinator tempering diagnose` and\n" +
			"`coordinator sample --tempering-out` write, also into folders that hold nothing else."
	} else if kind != "curves" {
		b.add(cmd)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := check(); err != nil {
			return err
		}
		if err := needRun(dir); err != nil {
			return err
		}
		if file == "" {
			file = filepath.Join(dir, kind+"."+output)
		}
		if tempered {
			fig, err := local.TemperingFigure(dir, kind)
			if err != nil {
				return err
			}
			if err := local.SaveFigure(fig, file, output); err != nil {
				return err
			}
		} else if err := drawTo(cmd, kind, dir, output, file, b); err != nil {
			return err
		}
		return printf(cmd.OutOrStdout(), "%s\n", file)
	}
	return cmd
}

func drawTo(cmd *cobra.Command, kind, dir, output, file string, b backendFlags) (err error) {
	cfg, err := local.LoadExperiment(dir)
	if err != nil {
		return err
	}
	var fig *plots.Figure
	switch {
	case output == "gif":
		gif, err := local.FormingGIF(dir, cfg.Name)
		if err != nil {
			return err
		}
		if gif == nil {
			return fmt.Errorf("run %s: no frames in it, want train.frames above 0 and data of 2 dimensions", dir)
		}
		return local.WriteFile(file, gif)
	case kind == "curves":
		if fig, err = local.CurvesFigure(dir, cfg.Name); err != nil {
			return err
		}
	default:
		run, err := openRun(cmd, dir, b)
		if err != nil {
			return err
		}
		defer func() {
			if closing := run.Close(); err == nil {
				err = closing
			}
		}()
		if fig, err = run.Figure(cmd.Context(), kind); err != nil {
			return err
		}
	}
	return local.SaveFigure(fig, file, output)
}
