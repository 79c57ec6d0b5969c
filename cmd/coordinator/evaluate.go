package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/local"
)

func newEvaluateCommand() *cobra.Command {
	var dir, output string
	var b backendFlags
	cmd := &cobra.Command{
		Use:   "evaluate --run DIR",
		Short: "Hold a trained model against held-out data",
		Long: `Hold a trained model against held-out data: the test likelihood, exact by quadrature up to two dimensions and by log Z from
a ladder above; what a ladder says about log Z, and whether it mixes; the maximum mean discrepancy and the sliced
Wasserstein distance of samples to the test set; and the coverage of known modes.`,
		Example: "  coordinator evaluate --run runs/two-moons -o json",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVar(&dir, "run", "", "the run's folder")
	check := addOutputFlag(cmd, &output, "table", "table", "json")
	b.add(cmd)
	b.addParams(cmd, "in place of the run's")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if err := check(); err != nil {
			return err
		}
		if err := needRun(dir); err != nil {
			return err
		}
		run, err := openRun(cmd, dir, b)
		if err != nil {
			return err
		}
		defer func() {
			if closing := run.Close(); err == nil {
				err = closing
			}
		}()
		ev, err := run.Evaluate(cmd.Context())
		if err != nil {
			return err
		}
		if output == "json" {
			text, err := ev.JSON()
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		}
		return evaluationTable(cmd.OutOrStdout(), ev)
	}
	return cmd
}

// openRun opens a run and says which damaged cuts were passed over.
func openRun(cmd *cobra.Command, dir string, b backendFlags) (*local.Run, error) {
	run, err := local.OpenRun(cmd.Context(), dir, local.OpenOptions{Kind: b.kind, Backend: b.options(cmd.ErrOrStderr()), Params: b.params})
	if err != nil {
		return nil, err
	}
	for _, skipped := range run.Skipped {
		if err := printf(cmd.ErrOrStderr(), "skipped a damaged cut: %v\n", skipped); err != nil {
			return nil, err
		}
	}
	return run, nil
}

func evaluationTable(w io.Writer, ev *local.Evaluation) error {
	t := newTable(w, "figure", "value", "remark")
	t.SetTitle("%s, step %d, on %s", ev.Name, ev.Step, ev.Backend)
	row := func(name string, v *float64, format, remark string) {
		value := "–"
		if v != nil {
			value = fmt.Sprintf(format, *v)
		}
		t.AppendRow(table.Row{name, value, remark})
	}
	remark := ev.NLLRemark()
	if ev.NLLNote != "" {
		remark = short(ev.NLLNote, 60)
	}
	row("test NLL", ev.NLL, "%.4f", remark)
	row("entropy of the data law", ev.Entropy, "%.4f", "nats; no model is below it on average")
	if ev.BitsPer != nil {
		row("bits per number", ev.BitsPer, "%.4f", "the same, in the numbers of the data's file")
	}
	row("log Z", ev.LogZ, "%.4f", map[string]string{"quadrature": "by quadrature", "bridge": "by the bridge"}[ev.NLLKind])
	for _, e := range ev.EvidenceRows() {
		t.AppendRow(table.Row{e[0], e[1], e[2]})
	}
	mmd := ""
	if ev.MMDNullSD != nil {
		mmd = fmt.Sprintf("± %.2g if both laws were one", *ev.MMDNullSD)
	}
	row("MMD²", ev.MMD2, "%.3g", mmd)
	row("sliced Wasserstein-1", ev.SlicedW1, "%.4f", fmt.Sprintf("%d samples", ev.Samples))
	row("sliced Wasserstein-2", ev.SlicedW2, "%.4f", "")
	if ev.Modes != nil {
		t.AppendRow(table.Row{"modes found", fmt.Sprintf("%d of %d", *ev.ModesHit, *ev.Modes), fmt.Sprintf("%.1f %% of the samples in one", 100**ev.InsideAny)})
		row("mode weights, TV", ev.ModeTV, "%.4f", "total variation")
	}
	if ev.ClassifierTest != nil {
		if ev.Frechet != nil {
			row("Fréchet distance", ev.Frechet, "%.4g", fmt.Sprintf("%.3g between two parts of the data; classifier's features", *ev.FrechetNull))
		}
		row("class shares, TV", ev.ClassTV, "%.4f", "total variation, by a classifier")
		row("samples show their label", ev.LabelAccuracy, "%.4f", fmt.Sprintf("by that classifier, right on %.1f %% of the test rows", 100**ev.ClassifierTest))
	}
	if len(ev.SwapAccept) > 0 {
		t.AppendRow(table.Row{"swap acceptance", ev.SwapAccept.String(), "a pair of rungs, hottest first"})
		t.AppendRow(table.Row{"restarts", fmt.Sprint(ev.Restarts), "from the reference to the target, while sampling"})
	}
	if len(ev.ExplorerAccept) > 0 {
		t.AppendRow(table.Row{"explorer acceptance", ev.ExplorerAccept.String(), ev.Explorer})
	} else {
		t.AppendRow(table.Row{"sampler", "", ev.Explorer})
	}
	for _, note := range ev.Notes {
		t.AppendRow(table.Row{"note", "", short(note, 60)})
	}
	t.Render()
	if d := ev.Drawn(); d != nil {
		return printf(w, "%s\n", strings.Join(verdictLines(d), "\n"))
	}
	return nil
}

func short(text string, n int) string {
	r := []rune(text)
	if len(r) <= n {
		return text
	}
	return string(r[:n-1]) + "…"
}
